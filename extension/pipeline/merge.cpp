// See merge.hpp.
#include "pipeline/merge.hpp"

#include "bridge/codes.hpp"
#include "bridge/spi.hpp"
#include "pipeline/pass.hpp"

extern "C" {
#include "utils/datum.h"
}

namespace portage {
namespace {

using bridge::Error;
using bridge::guarded;

Error fault(const std::string& place, std::string message, std::string hint) {
  return Error(codes::invalid_definition, std::move(message)).detail("at " + place).hint(std::move(hint));
}

/// Three rows of the target, one behind the other.
TupleDesc three_rows(TupleDesc shape) {
  return guarded([=] {
    int natts = shape->natts;
    TupleDesc rows = CreateTemplateTupleDesc(3 * natts);
    for (int i = 0; i < 3 * natts; i++)
      TupleDescCopyEntry(rows, static_cast<AttrNumber>(i + 1), shape, static_cast<AttrNumber>(i % natts + 1));
    return rows;
  });
}

class MergeCompiler {
 public:
  explicit MergeCompiler(Plan::Body& body) : body_(body), target_(body.target) {}

  void compile() {
    const Definition& definition = body_.definition;
    for (int attnum : body_.mapped) body_.merges.push_back({attnum, Strategy::fill, {}, field_of(attnum)});
    if (definition.merge.empty() && definition.newest_by.empty()) return;
    TupleDesc rows = three_rows(target_.shape);
    body_.merge_slot = guarded([=] { return MakeSingleTupleTableSlot(rows, &TTSOpsVirtual); });
    variables_ = {rows,
                  {{"incoming", 0, target_.natts},
                   {"existing", target_.natts, target_.natts},
                   {"base", 2 * target_.natts, target_.natts}},
                  true};
    if (!definition.newest_by.empty()) {
      mapped_column(definition.newest_by, "newest_by");
      body_.newer = expression(newer_text(), {BOOLOID, -1, false, "\"newest_by\"", true}, "newest_by");
    }
    for (const MergeRule& rule : definition.merge) compile(rule);
  }

 private:
  int field_of(int attnum) const {
    for (const MappedColumn& column : body_.columns)
      if (column.attnum == attnum)
        return column.source.kind == ValueSource::Kind::path && !column.source.has_fallback
                   ? column.source.field
                   : -1;
    return -1;
  }

  size_t mapped_column(const std::string& name, const std::string& place) {
    const TargetColumn* column = target_.column(name);
    auto found =
        column ? std::find(body_.mapped.begin(), body_.mapped.end(), column->attnum) : body_.mapped.end();
    if (found != body_.mapped.end()) return static_cast<size_t>(found - body_.mapped.begin());
    std::vector<std::string> names;
    for (int attnum : body_.mapped) names.push_back(target_.column(attnum).name);
    throw fault(place, "column \"" + name + "\" is not mapped", nearest_hint(name, names));
  }

  void compile(const MergeRule& rule) {
    size_t position = mapped_column(rule.column, rule.place);
    MergeColumn& merge = body_.merges[position];
    const TargetColumn& column = target_.column(merge.attnum);
    merge.strategy = rule.strategy;
    std::string text = rule.strategy == Strategy::sql ? rule.sql : text_of(rule.strategy, column);
    if (text.empty()) return;
    Oid type = column.type;
    std::string type_name = guarded([=] { return format_type_be(type); });
    try {
      merge.expression =
          expression(text, {column.type, column.typmod, false, "column \"" + column.name + "\""}, rule.place);
    } catch (const Error& error) {
      if (rule.strategy == Strategy::sql || error.code() != ERRCODE_UNDEFINED_FUNCTION) throw;
      throw fault(
          rule.place, "column \"" + column.name + "\" of type " + type_name + " cannot be merged that way",
          "sum needs + and -, concat ||, greatest, least and newest an order; union is for arrays and "
          "jsonb. Or write an expression: {\"sql\": ...}.");
    }
  }

  Expression expression(const std::string& text, const Wanted& wanted, const std::string& place) {
    std::vector<int> used;
    Expression compiled = compile_expression(text, variables_, wanted, place, used);
    for (int number : used) {
      int attnum = (number - 1) % target_.natts + 1, row = (number - 1) / target_.natts;
      const TargetColumn& column = target_.column(attnum);
      bool mapped = std::binary_search(body_.mapped.begin(), body_.mapped.end(), attnum);
      if (row == 1 ? column.generated : !mapped)
        throw fault(
            place,
            row == 1 ? "generated column \"" + column.name + "\" cannot be used in a merge"
                     : "column \"" + column.name + "\" is not mapped: no item brings a value of it",
            "Of incoming and base the mapped columns are known, of existing all that are not generated.");
      if (row > 0) note(row == 1 ? body_.merge_existing : body_.merge_base, attnum);
    }
    return compiled;
  }

  static void note(std::vector<int>& attnums, int attnum) {
    if (std::find(attnums.begin(), attnums.end(), attnum) == attnums.end()) attnums.push_back(attnum);
  }

  std::string newer_text() const {
    std::string name = bridge::quoted(body_.definition.newest_by);
    return "incoming." + name + " IS NOT NULL AND (existing." + name + " IS NULL OR incoming." + name +
           " > existing." + name + ")";
  }

  /// Nulls are no values: where one side has none, the other's stands. But for "newest": a null may be new.
  std::string text_of(Strategy strategy, const TargetColumn& column) const {
    std::string name = bridge::quoted(column.name), incoming = "incoming." + name,
                existing = "existing." + name, base = "base." + name;
    auto both = [&](const std::string& text) {
      return "CASE WHEN " + incoming + " IS NULL THEN " + existing + " WHEN " + existing + " IS NULL THEN " +
             incoming + " ELSE " + text + " END";
    };
    switch (strategy) {
      case Strategy::greatest:
        return "GREATEST(" + existing + ", " + incoming + ")";
      case Strategy::least:
        return "LEAST(" + existing + ", " + incoming + ")";
      case Strategy::sum:  // of what both sides have added since they last agreed
        return both("CASE WHEN " + base + " IS NULL THEN " + existing + " + " + incoming + " ELSE " +
                    existing + " + (" + incoming + " - " + base + ") END");
      case Strategy::concat:
        return both(existing + " || " + incoming);
      case Strategy::unite:
        return both("portage.merge_union(" + existing + ", " + incoming + ")");
      case Strategy::newest:
        return "CASE WHEN " + newer_text() + " THEN " + incoming + " ELSE " + existing + " END";
      default:
        return "";
    }
  }

  Plan::Body& body_;
  const Target& target_;
  Variables variables_;
};

/// Steps: whether the item is newer, then the fields.
Stop merge_raw(Work* work) {
  Plan::Body* body = work->body;
  int natts = body->target.natts, count = static_cast<int>(body->mapped.size());
  const int* mapped = body->mapped.data();
  const MergeColumn* merges = body->merges.data();
  TupleTableSlot* slot = body->merge_slot;
  for (; work->item < work->count; work->item++, work->step = 0) {
    if ((work->item & 255) == 255) CHECK_FOR_INTERRUPTS();
    Meeting* meeting = work->meetings[work->item];
    Item* item = meeting->item;
    if (item->outcome != Outcome::pending) continue;
    if (slot) {
      ResetExprContext(body->executor);
      ExecClearTuple(slot);
      for (int i = 0; i < natts; i++) {
        slot->tts_values[i] = item->came[i];
        slot->tts_isnull[i] = item->came_nulls[i];
        slot->tts_values[natts + i] = meeting->existing[i];
        slot->tts_isnull[natts + i] = meeting->existing_nulls[i];
        slot->tts_values[2 * natts + i] = meeting->base ? meeting->base[i] : 0;
        slot->tts_isnull[2 * natts + i] = !meeting->base || meeting->base_nulls[i];
      }
      ExecStoreVirtualTuple(slot);
      body->executor->ecxt_scantuple = slot;
    }
    if (work->step == 0) {
      if (!meeting->fields) {
        bool null;
        meeting->newer =
            DatumGetBool(ExecEvalExprSwitchContext(body->newer.state, body->executor, &null)) && !null;
        continue;
      }
      work->step = 1;
    }
    for (; work->step <= count; work->step++) {
      int i = mapped[work->step - 1] - 1;
      const MergeColumn& merge = merges[work->step - 1];
      Take field = meeting->fields[work->step - 1];
      if (field == Take::merged) {
        bool fill = merge.strategy == Strategy::fill;
        if (merge.strategy == Strategy::incoming || (fill && !item->came_nulls[i])) field = Take::incoming;
        if (merge.strategy == Strategy::existing || (fill && item->came_nulls[i])) field = Take::existing;
        // Of a column that the item does not have it says nothing, however new it is.
        if (merge.strategy == Strategy::newest && merge.field >= 0 &&
            item->record.fields[merge.field].kind == formats::Kind::missing)
          field = Take::existing;
      }
      bool null = true;
      Datum value = 0;
      switch (field) {
        case Take::existing:
          value = meeting->existing[i];
          null = meeting->existing_nulls[i];
          break;
        case Take::incoming:
          value = item->came[i];
          null = item->came_nulls[i];
          break;
        case Take::given:
          value = meeting->given[i];
          null = meeting->given_nulls[i];
          break;
        case Take::merged:
          value = ExecEvalExprSwitchContext(merge.expression.state, body->executor, &null);
          if (null) break;
          MemoryContext previous = MemoryContextSwitchTo(work->memory);
          value = datumCopy(value, merge.expression.by_value, merge.expression.length);
          MemoryContextSwitchTo(previous);
          break;
      }
      item->values[i] = null ? 0 : value;
      item->nulls[i] = null;
    }
  }
  return Stop::done;
}

}  // namespace

void compile_merging(Plan::Body& body) { MergeCompiler(body).compile(); }

const std::vector<int>& Plan::merge_reads() const { return body_->merge_existing; }

void Plan::merge(Batch& batch, std::vector<Meeting*>& meetings) {
  if (meetings.empty()) return;
  size_t natts = static_cast<size_t>(body_->target.natts);
  std::vector<Item*> merged;
  std::vector<uint64_t> hashes;
  for (Meeting* meeting : meetings) {
    Item& item = *meeting->item;
    item.came = item.values;
    item.came_nulls = item.nulls;
    if (!meeting->fields) continue;
    item.values = batch.arena.make_array<Datum>(natts);
    item.nulls = batch.arena.make_array<bool>(natts);
    memcpy(item.values, item.came, natts * sizeof(Datum));
    memcpy(item.nulls, item.came_nulls, natts * sizeof(bool));
    for (int attnum : body_->early)  // what stands in the row is what the rules are about
      if (!meeting->existing_nulls[attnum - 1]) {
        item.values[attnum - 1] = meeting->existing[attnum - 1];
        item.nulls[attnum - 1] = false;
      }
    meeting->issues = item.issues;
    item.issues = nullptr;  // remarks about other values
    merged.push_back(&item);
    hashes.push_back(item.source_hash);
  }
  Work work{};
  work.body = body_.get();
  work.memory = batch.memory.get();
  work.meetings = meetings.data();
  work.count = meetings.size();
  {
    AsPipelineOwner owner(*body_);
    run_pass(
        work, merge_raw, blame_of_expression, [](Stop) {},
        [&](const Error& error) {
          const char* column = work.step == 0 ? body_->definition.newest_by.c_str()
                                              : body_->columns[static_cast<size_t>(work.step) - 1].name;
          batch.reject(*meetings[work.item]->item, Outcome::invalid, "merge", tagged(error, column));
        });
  }
  judge_again(batch, merged);
  for (size_t i = 0; i < merged.size(); i++) merged[i]->source_hash = hashes[i];  // of what came
  for (Meeting* meeting : meetings)
    if (!meeting->fields) meeting->item->came = nullptr;
}

}  // namespace portage
