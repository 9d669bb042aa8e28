// See isolate.hpp. Raw code: nothing here has a destructor, and nothing touches the batch's arena, which may
// throw.
#include "pipeline/isolate.hpp"
#include "pipeline/legacy_id.hpp"

extern "C" {
#include "utils/datum.h"
}

namespace portage {
namespace {

using formats::Field;
using formats::Kind;

/// Every so many items a cancel may take effect.
constexpr size_t interrupt_mask = 255;

/// Not worth more than a glance: an inactive item, or time to look at interrupts.
bool skip(Work* work) {
  if ((work->item & interrupt_mask) == interrupt_mask) CHECK_FOR_INTERRUPTS();
  return !work->states[work->item].active;
}

void next_item(Work* work) {
  work->item++;
  work->step = 0;
}

/// Evaluates into the batch's memory.
Datum evaluate(Work* work, const Expression& expression, bool* null) {
  Datum value = ExecEvalExprSwitchContext(expression.state, work->body->executor, null);
  if (*null) return 0;
  if (expression.by_value) return value;
  MemoryContext previous = MemoryContextSwitchTo(work->memory);
  value = datumCopy(value, false, expression.length);
  MemoryContextSwitchTo(previous);
  return value;
}

bool evaluate_condition(Work* work, const Expression& expression, bool* null) {
  return DatumGetBool(ExecEvalExprSwitchContext(expression.state, work->body->executor, null)) && !*null;
}

void show_item(Work* work, const Item& item) {
  Plan::Body* body = work->body;
  TupleTableSlot* slot = body->item_slot;
  ExecClearTuple(slot);
  memset(slot->tts_isnull, false, item_variables);
  for (int i = 0; i < 3; i++) slot->tts_values[item_scope - 1 + i] = work->text_datums[i];
  slot->tts_values[item_ordinal - 1] = Int64GetDatum(item.ordinal);
  slot->tts_values[item_line - 1] = Int64GetDatum(static_cast<int64>(item.record.line));
  slot->tts_values[item_mtime - 1] = TimestampTzGetDatum(work->mtime);
  slot->tts_isnull[item_mtime - 1] = !work->has_mtime;
  slot->tts_isnull[item_json - 1] = true;
  if (body->uses_item) {
    MemoryContext previous = MemoryContextSwitchTo(body->executor->ecxt_per_tuple_memory);
    size_t size = item.record.item.size();
    const char* text = item.record.item.data();
    int encoding = body->item_encoding;
    if (encoding != GetDatabaseEncoding()) {
      char* converted = pg_any_to_server(text, static_cast<int>(size), encoding);
      if (converted != text) size = strlen(converted);
      text = converted;
    }
    slot->tts_values[item_json - 1] = DirectFunctionCall1(jsonb_in, CStringGetDatum(pnstrdup(text, size)));
    slot->tts_isnull[item_json - 1] = false;
    MemoryContextSwitchTo(previous);
  }
  ExecStoreVirtualTuple(slot);
  body->executor->ecxt_scantuple = slot;
}

/// Points the slot at the item's own arrays: nothing is copied.
void show_row(Work* work, const Item& item) {
  TupleTableSlot* slot = work->body->row_slot;
  slot->tts_values = item.values;
  slot->tts_isnull = item.nulls;
  slot->tts_nvalid = static_cast<AttrNumber>(work->body->target.natts);
  slot->tts_flags &= static_cast<uint16>(~TTS_FLAG_EMPTY);
  work->body->executor->ecxt_scantuple = slot;
}

void keep_value(Item& item, int attnum, Datum value, bool null) {
  item.values[attnum - 1] = value;
  item.nulls[attnum - 1] = null;
}

}  // namespace

bool find_other_field_raw(Work* work, const Source& source, const Item& item, Field* field) {
  switch (source.kind) {
    case ValueSource::Kind::path:
      break;  // there was none
    case ValueSource::Kind::constant:
      *field = source.constant;
      return false;
    default:
      switch (source.variable) {
        case Variable::scope:
        case Variable::name:
        case Variable::path:
          *field = {Kind::string, work->texts[static_cast<int>(source.variable)]};
          break;
        case Variable::ordinal:
        case Variable::line: {
          int64 n = source.variable == Variable::line ? static_cast<int64>(item.record.line) : item.ordinal;
          int length = pg_lltoa(n, work->digits);
          *field = {Kind::number, std::string_view(work->digits, static_cast<size_t>(length))};
          break;
        }
        case Variable::mtime:
          *field = {work->has_mtime ? Kind::string : Kind::null, work->mtime_text};
          break;
      }
      if (!source.has_fallback || field->kind != Kind::null) return false;
      break;
  }
  *field = source.fallback;
  return false;
}

__attribute__((noinline)) Stop evaluate_items_raw(Work* work) {
  Plan::Body* body = work->body;
  int columns = static_cast<int>(body->expressions.size());
  for (; work->item < work->count; next_item(work)) {
    if (skip(work)) continue;
    Item& item = *work->items[work->item];
    if (work->step == 0) {
      ResetExprContext(body->executor);
      show_item(work, item);
      work->step = 1;
    }
    ItemState& state = work->states[work->item];
    if (work->step == 1) {
      bool null = false;
      state.left_out = body->where.state && !evaluate_condition(work, body->where, &null);
      work->step = state.left_out ? columns + 2 : 2;
    }
    for (; work->step < columns + 2; work->step++) {
      MappedColumn* column = body->expressions[work->step - 2];
      bool null;
      Datum value = evaluate(work, column->expression, &null);
      keep_value(item, column->attnum, value, null);
    }
    if (work->step == columns + 2 && body->legacy_expression.state) {
      bool null;
      Datum value = evaluate(work, body->legacy_expression, &null);
      if (!null)
        item.legacy_id = kept_legacy_id_raw(work, VARDATA_ANY(DatumGetPointer(value)),
                                            VARSIZE_ANY_EXHDR(DatumGetPointer(value)));
    }
    // What is left out is not gone from the source: its id is known. It comes back here no longer active.
    if (state.left_out) {
      find_legacy_id_raw(work, item);
      return Stop::not_selected;
    }
  }
  return Stop::done;
}

__attribute__((noinline)) Stop convert_raw_pass(Work* work) {
  Plan::Body* body = work->body;
  int columns = static_cast<int>(body->conversions.size());
  int all = columns + static_cast<int>(body->early_defaults.size());
  MappedColumn** conversions = body->conversions.data();
  ConvertContext* context = &body->convert;
  MemoryContext previous = MemoryContextSwitchTo(work->memory);
  for (; work->item < work->count; next_item(work)) {
    if (skip(work)) continue;
    Item& item = *work->items[work->item];
    context->ambiguous = item.ambiguous_dates;
    for (; work->step < columns; work->step++) {
      MappedColumn* column = conversions[work->step];
      Field field;
      bool foreign = find_field_raw(work, column->source, item, &field);
      bool null;
      Datum value = convert_raw(&column->converter, context, field.kind, field.text.data(), field.text.size(),
                                foreign, &null);
      keep_value(item, column->attnum, value, null);
    }
    item.ambiguous_dates = context->ambiguous;
    for (; work->step < all; work->step++) {
      const ColumnDefault& column = body->early_defaults[work->step - columns];
      ResetExprContext(body->executor);
      bool null;
      Datum value = evaluate(work, column.expression, &null);
      keep_value(item, column.attnum, value, null);
    }
  }
  MemoryContextSwitchTo(previous);
  return Stop::done;
}

__attribute__((noinline)) Stop judge_rules_raw(Work* work) {
  Plan::Body* body = work->body;
  int count = static_cast<int>(body->rules.size());
  const CompiledRule* rules = body->rules.data();
  for (; work->item < work->count; next_item(work)) {
    if (skip(work)) continue;
    uint64_t failed = work->states[work->item].failed;
    ResetExprContext(body->executor);
    show_row(work, *work->items[work->item]);
    for (; work->step < count; work->step++) {
      const CompiledRule& rule = rules[work->step];
      // A rule over a column that has no value because of an error could only repeat that error.
      if ((rule.columns & failed) || failed == ~uint64_t{0}) continue;
      bool null;
      bool met = evaluate_condition(work, rule.expression, &null);
      if (null ? rule.rule->null_fails : !met) return Stop::broken_rule;
    }
  }
  return Stop::done;
}

__attribute__((noinline)) Stop judge_table_raw(Work* work) {
  Plan::Body* body = work->body;
  int columns = static_cast<int>(body->columns.size());
  int first_check = 1 + columns;
  int end = first_check + static_cast<int>(body->checks.size());
  const MappedColumn* mapped = body->columns.data();
  for (; work->item < work->count; next_item(work)) {
    if (skip(work)) continue;
    Item& item = *work->items[work->item];
    ItemState& state = work->states[work->item];
    if (work->step == 0) {
      if (!state.id_failed && !find_legacy_id_raw(work, item)) return Stop::no_legacy_id;
      work->step = 1;
    }
    for (; work->step < first_check; work->step++) {
      const MappedColumn& column = mapped[work->step - 1];
      if (column.check_not_null && item.nulls[column.attnum - 1] && !(state.failed & column.bit))
        return Stop::null_value;
    }
    if (work->step < end) {
      ResetExprContext(body->executor);
      show_row(work, item);
    }
    for (; work->step < end; work->step++) {
      const CompiledCheck& check = body->checks[work->step - first_check];
      if ((check.columns & state.failed) || state.failed == ~uint64_t{0}) continue;
      bool null;
      if (!evaluate_condition(work, check.expression, &null) && !null) return Stop::broken_check;
    }
  }
  return Stop::done;
}

__attribute__((noinline)) Stop hash_items_raw(Work* work) {
  constexpr size_t together = 64;
  Plan::Body* body = work->body;
  MemoryContext previous = MemoryContextSwitchTo(body->executor->ecxt_per_tuple_memory);
  while (work->item < work->count) {
    CHECK_FOR_INTERRUPTS();
    ResetExprContext(body->executor);
    HashedRow rows[together];
    if (work->step == 2) work->step = 0;
    size_t count = 0, next = work->item, most = work->step == 0 ? together : 1;
    for (; next < work->count && count < most; next++) {
      Item& item = *work->items[next];
      if (!work->states[next].active || item.outcome != Outcome::pending) continue;
      rows[count++] = {item.values, item.nulls, &item.source_hash};
      if (most == 1) work->item = next;
    }
    body->source_hasher(rows, count);
    work->item = next;
  }
  MemoryContextSwitchTo(previous);
  return Stop::done;
}

__attribute__((noinline)) Stop draw_defaults_raw(Work* work) {
  for (; work->item < work->count; next_item(work)) {
    if ((work->item & interrupt_mask) == interrupt_mask) CHECK_FOR_INTERRUPTS();
    Item& item = *work->items[work->item];
    if (!item.values) continue;
    ResetExprContext(work->body->executor);
    for (; work->step < work->default_count; work->step++) {
      const ColumnDefault& column = work->defaults[work->step];
      bool null;
      Datum value = evaluate(work, column.expression, &null);
      keep_value(item, column.attnum, value, null);
    }
  }
  return Stop::done;
}

}  // namespace portage
