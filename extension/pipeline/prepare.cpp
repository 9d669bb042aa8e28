// Plan::prepare: phase A of fault isolation. Five passes over the batch, each in the name of whom it
// concerns (pass.hpp).
#include "pipeline/pass.hpp"

namespace portage {
namespace {

using bridge::Error;
using bridge::format;

/// The passes of one prepare().
class Preparation {
 public:
  Preparation(Plan::Body& body, Batch& batch, Work& work) : body_(body), batch_(batch), work_(work) {}

  void evaluate_items() {
    if (body_.expressions.empty() && !body_.legacy_expression.state && !body_.where.state) return;
    AsPipelineOwner owner(body_);
    run_pass(
        work_, evaluate_items_raw, blame_of_expression,
        [&](Stop) { leave_out(); },  // the only thing that this pass stops for
        [&](const Error& error) {
          if (state().left_out) return leave_out();  // without an id that can be read
          int first = 2, last = first + static_cast<int>(body_.expressions.size());
          if (work_.step >= first && work_.step < last) {
            MappedColumn* column = body_.expressions[work_.step - first];
            state().failed |= column->bit;
            batch_.reject(item(), Outcome::invalid, "expression", tagged(error, column->name));
          } else if (work_.step == last) {
            state().id_failed = true;
            batch_.reject(item(), Outcome::invalid, "legacy_id", error);
          } else if (work_.step == 1) {
            batch_.reject(item(), Outcome::invalid, "where", error);
          } else {
            // The item as a whole is no jsonb: nothing can be said about it.
            for (MappedColumn* column : body_.expressions) state().failed |= column->bit;
            state().id_failed = body_.legacy_expression.state != nullptr;
            batch_.reject(item(), Outcome::invalid, "conversion", error);
            work_.step = last;
          }
        });
  }

  void convert() {
    bridge::Settings settings;
    body_.pin_settings(settings, false);
    run_pass(
        work_, convert_raw_pass, blame_of_value, [](Stop) {},
        [&](const Error& error) {
          size_t step = static_cast<size_t>(work_.step);
          if (step < body_.conversions.size()) {
            MappedColumn* column = body_.conversions[step];
            state().failed |= column->bit;
            bool domain =
                error.code() == ERRCODE_CHECK_VIOLATION || error.code() == ERRCODE_NOT_NULL_VIOLATION;
            batch_.reject(item(), Outcome::invalid, domain ? "domain" : "conversion",
                          tagged(error, column->name));
          } else {
            state().failed = ~uint64_t{0};  // no rule can be judged without its default
            batch_.reject(item(), Outcome::invalid, "default",
                          tagged(error, body_.early_defaults[step - body_.conversions.size()].name));
          }
        });
  }

  /// Set-wise: first the ids of all items, then what they became.
  void translate(const Translate& translate, bool close_circles) {
    work_.ids = batch_.arena.make_array<std::string_view>(work_.count);
    for (size_t r = 0; r < body_.references.size(); r++) {
      const MappedColumn* column = body_.referring[r];
      bridge::Settings settings;
      body_.pin_settings(settings, false);
      auto failed = [&](const Error& error) {
        state().failed |= column->bit;
        batch_.reject(item(), Outcome::invalid, "reference", tagged(error, column->name));
      };
      work_.reference = static_cast<int>(r);
      std::fill(work_.ids, work_.ids + work_.count, std::string_view());
      run_pass(
          work_, referred_ids_raw, blame_of_value, [](Stop) {}, failed);
      std::vector<std::string_view> ids(work_.ids, work_.ids + work_.count);
      std::vector<std::string_view> keys = translate(body_.references[r], ids);
      for (size_t i = 0; i < work_.count; i++) {
        if (!ids[i].data() || keys[i].data()) continue;
        if (close_circles && may_stay_open(r)) {
          auto* open = batch_.arena.make_array<OpenReference>(1);
          *open = {column->attnum, ids[i], work_.items[i]->open};
          work_.items[i]->open = open;
          work_.states[i].waits_own = true;
          continue;
        }
        work_.states[i].failed |= column->bit;
        work_.states[i].waits = true;
        work_.states[i].waits_own |= body_.references[r].pipeline_id == body_.pipeline.id;
        batch_.add_issue(*work_.items[i], "reference", "23503", column->name,
                         format("\"%s\" has not been migrated by pipeline \"%s\"",
                                std::string(ids[i]).c_str(), body_.references[r].pipeline.c_str()),
                         {}, {}, true);
      }
      work_.keys = keys.data();
      run_pass(
          work_, take_keys_raw, blame_of_value, [](Stop) {}, failed);
    }
  }

  /// The column refers to the pipeline's own rows, takes a null, and is not what rows are found by.
  bool may_stay_open(size_t reference) const {
    int attnum = body_.references[reference].attnum;
    auto has = [=](const std::vector<int>& attnums) {
      return std::find(attnums.begin(), attnums.end(), attnum) != attnums.end();
    };
    return body_.references[reference].pipeline_id == body_.pipeline.id &&
           !body_.target.column(attnum).not_null && !has(body_.match) && !has(body_.key);
  }

  void judge_rules() {
    if (body_.rules.empty()) return;
    AsPipelineOwner owner(body_);
    run_pass(
        work_, judge_rules_raw, blame_of_expression,
        [&](Stop) {
          const Rule& rule = *body_.rules[work_.step].rule;
          if (rule.message.empty())
            batch_.add_issue(item(), rule.name, "23514", "", "rule \"" + rule.name + "\" is not met", "", "",
                             rule.warning);
          else
            batch_.add_issue(item(), rule.name, "23514", "", rule.message, "", "", rule.warning);
          if (!rule.warning) item().outcome = Outcome::invalid;
        },
        [&](const Error& error) {
          batch_.reject(item(), Outcome::invalid, body_.rules[work_.step].rule->name, error);
        });
  }

  void judge_table() {
    bridge::Settings settings;
    body_.pin_settings(settings, false);
    const Target& target = body_.target;
    int first_check = 1 + static_cast<int>(body_.columns.size());
    run_pass(
        work_, judge_table_raw, blame_of_expression,
        [&](Stop stop) {
          if (stop == Stop::no_legacy_id) {
            batch_.add_issue(item(), "legacy_id", "22004", "", "legacy id is missing or null");
          } else if (stop == Stop::null_value) {
            const char* column = body_.columns[work_.step - 1].name;
            batch_.add_issue(
                item(), "not_null", "23502", column,
                format("null value in column \"%s\" of relation \"%s\" violates not-null constraint", column,
                       target.name.c_str()));
          } else {
            const std::string& check = body_.checks[work_.step - first_check].check->name;
            batch_.add_issue(item(), "check", "23514", "",
                             format("new row for relation \"%s\" violates check constraint \"%s\"",
                                    target.name.c_str(), check.c_str()),
                             "", check);
          }
          item().outcome = Outcome::invalid;
        },
        [&](const Error& error) {
          int step = work_.step;
          size_t check = static_cast<size_t>(step - first_check);
          if (step == 0) {
            batch_.reject(item(), Outcome::invalid, "legacy_id", error);
          } else if (step >= first_check && check < body_.checks.size()) {
            Error of_check = error;
            batch_.reject(item(), Outcome::invalid, "check",
                          of_check.constraint(body_.checks[check].check->name));
          } else {
            batch_.reject(item(), Outcome::invalid, "conversion", error);
          }
        });
    run_pass(
        work_, hash_items_raw, blame_of_bytes, [](Stop) {},
        [&](const Error& error) {
          if (work_.step == 1) batch_.reject(item(), Outcome::invalid, "conversion", error);
        });
  }

 private:
  void leave_out() {
    batch_.add_issue(item(), "where", "00000", "", "item is not selected by \"where\"");
    item().outcome = Outcome::skipped;
    state().active = false;
  }

  Item& item() { return *work_.items[work_.item]; }
  ItemState& state() { return work_.states[work_.item]; }

  Plan::Body& body_;
  Batch& batch_;
  Work& work_;
};

/// Everything that is the same for the whole batch.
void fill_context(Plan::Body& body, Work& work, const ItemContext& context) {
  bridge::InMemory in(work.memory);
  work.texts[0] = context.scope;
  work.texts[1] = context.name;
  work.texts[2] = context.path;
  work.has_mtime = context.mtime.has_value();
  work.mtime = context.mtime.value_or(0);
  Work* w = &work;
  bool wanted = body.uses_mtime;
  bridge::guarded([=] {
    for (int i = 0; i < 3; i++)
      w->text_datums[i] =
          PointerGetDatum(cstring_to_text_with_len(w->texts[i].data(), static_cast<int>(w->texts[i].size())));
    if (!w->has_mtime || !wanted) return;
    char* text = DatumGetCString(DirectFunctionCall1(timestamptz_out, TimestampTzGetDatum(w->mtime)));
    w->mtime_text = std::string_view(text, strlen(text));
  });
}

/// One huge value must not hold its memory for the rest of the run.
void shrink(StringInfoData& buffer) {
  if (buffer.maxlen <= 1024 * 1024) return;
  StringInfo b = &buffer;
  bridge::guarded([=] {
    MemoryContext previous = MemoryContextSwitchTo(GetMemoryChunkContext(b->data));
    pfree(b->data);
    initStringInfo(b);
    MemoryContextSwitchTo(previous);
  });
}

/// Items without a fault get their arrays; the others are done with.
void open_items(Plan::Body& body, Batch& batch, Work& work) {
  size_t natts = static_cast<size_t>(body.target.natts);
  for (size_t i = 0; i < work.count; i++) {
    Item& item = batch.items[i];
    work.items[i] = &item;
    if (item.outcome != Outcome::pending) continue;
    if (const formats::Fault* fault = item.record.fault) {
      const formats::FaultInfo& info = formats::fault_info(fault->code);
      batch.add_issue(item, info.rule, info.sqlstate, "", fault->message, fault->detail);
      item.outcome = Outcome::invalid;
      continue;
    }
    item.values = batch.arena.make_array<Datum>(natts);
    item.nulls = batch.arena.make_array<bool>(natts);
    if (natts > 0) memset(item.nulls, true, natts);
    work.states[i].active = true;
  }
}

}  // namespace

void Plan::prepare(Batch& batch, const ItemContext& context, const Translate& translate) {
  if (batch.items.empty()) return;
  Work work{};
  work.body = body_.get();
  work.memory = batch.memory.get();
  work.count = batch.items.size();
  work.items = batch.arena.make_array<Item*>(work.count);
  work.states = batch.arena.make_array<ItemState>(work.count);
  {
    bridge::Settings settings;
    body_->pin_settings(settings, false);
    fill_context(*body_, work, context);
  }
  open_items(*body_, batch, work);
  Preparation preparation(*body_, batch, work);
  preparation.evaluate_items();
  preparation.convert();
  if (!body_->references.empty()) preparation.translate(translate, context.close_circles);
  preparation.judge_rules();
  preparation.judge_table();
  for (size_t i = 0; i < work.count; i++)
    if ((work.states[i].waits && batch.items[i].outcome == Outcome::pending) ||
        (work.states[i].waits_own && batch.items[i].outcome == Outcome::invalid && context.park_rejects))
      batch.items[i].outcome = Outcome::parked;
  shrink(body_->convert.scratch);
}

void Plan::judge_again(Batch& batch, std::vector<Item*>& items) {
  Work work{};
  work.body = body_.get();
  work.memory = batch.memory.get();
  work.count = items.size();
  work.items = items.data();
  work.states = batch.arena.make_array<ItemState>(work.count);
  // The legacy id is of the item, not of its values: it is not looked for again.
  for (size_t i = 0; i < work.count; i++)
    work.states[i] = {items[i]->outcome == Outcome::pending, true, 0, false, false, false};
  Preparation preparation(*body_, batch, work);
  preparation.judge_rules();
  preparation.judge_table();
}

void Plan::draw_key_defaults(Batch& batch, Item** items, size_t count) {
  const std::vector<ColumnDefault>& defaults = body_->key_defaults;
  if (defaults.empty() || count == 0) return;
  bridge::Settings settings;
  body_->pin_settings(settings, false);
  Work work{};
  work.body = body_.get();
  work.memory = batch.memory.get();
  work.count = count;
  work.items = items;
  work.defaults = defaults.data();
  work.default_count = static_cast<int>(defaults.size());
  run_pass(
      work, draw_defaults_raw, blame_of_expression, [](Stop) {},
      [&](const Error& error) {
        batch.reject(*work.items[work.item], Outcome::invalid, "default",
                     tagged(error, work.defaults[work.step].name));
      });
}

}  // namespace portage
