// See target_undo.hpp.
#include "undo/target_undo.hpp"

extern "C" {
#include "utils/datum.h"
}

namespace portage::undo {

using bridge::guarded;
using bridge::Result;
using load::BatchRow;
using load::Row;

TargetUndo::TargetUndo(Plan& plan, load::Writer& writer, std::vector<int> readable)
    : plan_(plan), target_(plan.target()), writer_(writer) {
  std::set<int> columns(readable.begin(), readable.end());
  columns.insert(plan.key().begin(), plan.key().end());
  batch_ = std::make_unique<load::BatchRelation>(target_, std::vector<int>(columns.begin(), columns.end()),
                                                 plan.key(), "portage_undo");
}

std::vector<BatchRow> TargetUndo::batch_rows(Batch& batch, const std::vector<const Row*>& rows) const {
  std::vector<BatchRow> result;
  for (const Row* row : rows) {
    auto* key = batch.arena.make_array<Datum>(plan_.key().size());
    for (size_t k = 0; k < plan_.key().size(); k++) key[k] = row->values[plan_.key()[k] - 1];
    result.push_back({row->values, row->nulls, key});
  }
  return result;
}

std::string TargetUndo::same_key(const std::string& table_alias, const std::string& batch_alias) const {
  std::string text;
  for (size_t k = 0; k < plan_.key().size(); k++) {
    const TargetColumn& column = target_.column(plan_.key()[k]);
    (text += k ? " AND " : "") += table_alias + "." + bridge::quoted(column.name) + " " +
                                  load::operator_text(load::equality_of(column.type)) + " " + batch_alias +
                                  ".k" + std::to_string(k + 1);
  }
  return text;
}

std::vector<bool> TargetUndo::remove(Batch& batch, const std::vector<const Row*>& rows,
                                     const DependantFinder::Deletions& dependants,
                                     const std::vector<BatchRow>& others) {
  std::vector<bool> removed(rows.size(), false);
  if (rows.empty()) return removed;
  std::vector<BatchRow> all = batch_rows(batch, rows);
  all.insert(all.end(), others.begin(), others.end());
  bridge::ByIndex by_index(dependants.with.empty());
  Result result = batch_->run(dependants.with + "DELETE FROM " + target_.quoted_name() +
                                  " t USING portage_undo b WHERE " + same_key("t", "b") + " RETURNING b.o",
                              all);
  for (size_t i = 0; i < result.size(); i++)
    if (auto position = static_cast<size_t>(result.integer(i, 1)); position < rows.size())
      removed[position] = true;
  return removed;
}

void TargetUndo::restore(Batch& batch, std::vector<Restore>& rows) {
  // One statement per set of columns that changed together.
  std::map<std::vector<std::string>, std::vector<Restore*>> groups;
  for (Restore& row : rows) groups[*row.columns].push_back(&row);
  for (auto& [names, members] : groups) {
    std::vector<const TargetColumn*> columns;
    std::string set;
    for (const std::string& name : names) {
      const TargetColumn* column = target_.column(name);
      if (!column)
        throw bridge::Error(
            ERRCODE_UNDEFINED_COLUMN,
            "column \"" + name + "\" of the before-images is gone from " + target_.quoted_name())
            .hint(
                "Add the column again to take the run back, or drop what remains of it with "
                "portage.cleanup().");
      columns.push_back(column);
      (set += set.empty() ? "" : ", ") += bridge::quoted(name) + " = b.c" + std::to_string(column->attnum);
    }
    std::vector<BatchRow> values;
    std::vector<std::string_view> keys_after;
    for (Restore* restore : members) {
      auto* datums = batch.arena.make_array<Datum>(static_cast<size_t>(target_.natts));
      auto* nulls = batch.arena.make_array<bool>(static_cast<size_t>(target_.natts));
      memset(nulls, true, static_cast<size_t>(target_.natts));
      bridge::PlainText plain;
      bridge::InMemory in(batch.memory.get());
      for (size_t c = 0; c < columns.size(); c++) {
        int index = columns[c]->attnum - 1;
        const std::optional<std::string>& text = (*restore->before)[c];
        nulls[index] = !text;
        if (!text) continue;
        const char* bytes = text->c_str();
        Oid type = columns[c]->type;
        int32_t typmod = columns[c]->typmod;
        datums[index] = guarded([=] {
          Oid input, io_param;
          getTypeInputInfo(type, &input, &io_param);
          return OidInputFunctionCall(input, const_cast<char*>(bytes), io_param, typmod);
        });
      }
      auto* key = batch.arena.make_array<Datum>(plan_.key().size());
      for (size_t k = 0; k < plan_.key().size(); k++) key[k] = restore->row->values[plan_.key()[k] - 1];
      values.push_back({datums, nulls, key});
    }
    std::string returned;
    for (int attnum : plan_.key()) (returned += ", t.") += bridge::quoted(target_.column(attnum).name);
    bridge::ByIndex by_index;
    Result result =
        batch_->run("UPDATE " + target_.quoted_name() + " t SET " + set + " FROM portage_undo b WHERE " +
                        same_key("t", "b") + " RETURNING b.o" + returned,
                    values);
    std::vector<Restore*> updated;
    for (size_t i = 0; i < result.size(); i++) {
      Restore* restore = members[static_cast<size_t>(result.integer(i, 1))];
      auto* datums = batch.arena.make_array<Datum>(static_cast<size_t>(target_.natts));
      auto* nulls = batch.arena.make_array<bool>(static_cast<size_t>(target_.natts));
      bridge::InMemory in(batch.memory.get());
      for (size_t k = 0; k < plan_.key().size(); k++) {
        const TargetColumn& column = target_.column(plan_.key()[k]);
        Datum value = result.datum(i, static_cast<int>(k) + 2);
        bool by_value = column.by_value;
        int length = column.length;
        datums[column.attnum - 1] = guarded([=] { return datumCopy(value, by_value, length); });
      }
      bridge::PlainText plain;
      keys_after.push_back(batch.arena.copy(plan_.key_text(datums, nulls)));
      updated.push_back(restore);
    }
    // Read again: triggers may have had their say.
    std::vector<Row> after = writer_.find_by_key(batch, keys_after, false);
    for (size_t i = 0; i < updated.size(); i++) updated[i]->after = after[i];
  }
}

}  // namespace portage::undo
