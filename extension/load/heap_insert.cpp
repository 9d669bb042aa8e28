// See heap_insert.hpp.
#include "load/heap_insert.hpp"

extern "C" {
#include "commands/trigger.h"
#include "executor/nodeModifyTable.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "rewrite/rewriteHandler.h"
#include "utils/datum.h"
}

namespace portage::load {
namespace {

/// What INSERT writes into a column that it does not mention; nullptr: a plain null.
Expr* unmentioned_raw(Relation relation, Form_pg_attribute column) {
  Node* expression = build_column_default(relation, column->attnum);
  if (expression == nullptr && get_typtype(column->atttypid) == TYPTYPE_DOMAIN) {
    // A domain may refuse nulls.
    int32 typmod = -1;
    Oid base = getBaseTypeAndTypmod(column->atttypid, &typmod);
    Const* null = makeConst(base, typmod, column->attcollation, column->attlen, 0, true, column->attbyval);
    expression = coerce_to_domain(reinterpret_cast<Node*>(null), base, typmod, column->atttypid,
                                  COERCION_IMPLICIT, COERCE_IMPLICIT_CAST, -1, false);
  }
  return expression ? expression_planner(reinterpret_cast<Expr*>(expression)) : nullptr;
}

void compile_defaults_raw(HeapInsert* w) {
  TupleDesc shape = RelationGetDescr(w->relation);
  MemoryContext previous = MemoryContextSwitchTo(w->executor->es_query_cxt);
  w->defaults = static_cast<HeapInsert::Default*>(palloc(sizeof(HeapInsert::Default) * (shape->natts + 1)));
  w->default_count = 0;
  w->has_generated = false;
  for (int i = 0; i < shape->natts; i++) {
    Form_pg_attribute column = TupleDescAttr(shape, i);
    bool given = false;
    for (int g = 0; g < w->given_count; g++) given = given || w->given[g] == i + 1;
    w->has_generated = w->has_generated || column->attgenerated != '\0';
    if (given || column->attisdropped || column->attgenerated != '\0') continue;
    if (Expr* expression = unmentioned_raw(w->relation, column))
      w->defaults[w->default_count++] = {i, ExecInitExpr(expression, nullptr), column->attbyval,
                                         column->attlen};
  }
  MemoryContextSwitchTo(previous);
}

/// One index after the other, so that its upper pages stay at hand. If an entry is refused, the rows are
/// tried in halves, until it is one row: which of several would have been the first does not matter.
void insert_entries_raw(HeapInsert* w, List** recheck) {
  ResultRelInfo* result = w->result;
  int count = result->ri_NumIndices;
  RelationPtr indexes = result->ri_IndexRelationDescs;
  IndexInfo** infos = result->ri_IndexRelationInfo;
  result->ri_NumIndices = 1;
  for (int n = 0; n < count; n++) {
    result->ri_IndexRelationDescs = indexes + n;
    result->ri_IndexRelationInfo = infos + n;
    for (int i = 0; i < w->waiting; i++)
      recheck[i] = list_concat(recheck[i], bridge::insert_index_entries(result, w->slots[i], w->executor));
  }
  result->ri_NumIndices = count;
  result->ri_IndexRelationDescs = indexes;
  result->ri_IndexRelationInfo = infos;
}

void flush_raw(HeapInsert* w) {
  if (w->waiting == 0) return;
  CHECK_FOR_INTERRUPTS();
  MemoryContext previous = MemoryContextSwitchTo(GetPerTupleMemoryContext(w->executor));
  table_multi_insert(w->relation, w->slots, w->waiting, w->command, 0, w->bulk);
  MemoryContextSwitchTo(previous);
  List* recheck[HeapInsert::capacity] = {};  // deferrable unique indexes that have met an equal key
  insert_entries_raw(w, recheck);
  for (int i = 0; i < w->waiting; i++) {
    if (w->result->ri_TrigDesc)
      ExecARInsertTriggers(w->executor, w->result, w->slots[i], recheck[i], nullptr);
    ExecClearTuple(w->slots[i]);
  }
  ResetPerTupleExprContext(w->executor);
  w->waiting = 0;
  w->waiting_bytes = 0;
}

TupleTableSlot* next_slot_raw(HeapInsert* w) {
  TupleTableSlot*& slot = w->slots[w->waiting];
  if (slot == nullptr) {
    MemoryContext previous = MemoryContextSwitchTo(w->slot_memory);
    slot = MakeSingleTupleTableSlot(w->shape, table_slot_callbacks(w->relation));
    slot->tts_tableOid = RelationGetRelid(w->relation);
    MemoryContextSwitchTo(previous);
  }
  ExecClearTuple(slot);
  return slot;
}

}  // namespace

void begin_insert_raw(HeapInsert* w, Relation relation, MemoryContext batch_memory, int count) {
  w->relation = relation;
  w->batch_memory = batch_memory;
  w->waiting = 0;
  w->waiting_bytes = 0;
  w->bulk = count >= HeapInsert::capacity ? GetBulkInsertState() : nullptr;
  CommandCounterIncrement();  // triggers and defaults see what went before
  PushActiveSnapshot(GetTransactionSnapshot());
  w->executor = CreateExecutorState();
  MemoryContext previous = MemoryContextSwitchTo(w->executor->es_query_cxt);
  bridge::init_range_table(
      w->executor, bridge::range_table_of(relation, RowExclusiveLock, ACL_INSERT, w->given, w->given_count,
                                          w->read, w->read_count));
  w->result = makeNode(ResultRelInfo);
  ExecInitResultRelation(w->executor, w->result, 1);
  ExecOpenIndices(w->result, false);
  MemoryContextSwitchTo(previous);
  compile_defaults_raw(w);
  AfterTriggerBeginQuery();
  w->command = GetCurrentCommandId(true);
}

void insert_raw(HeapInsert* w, Item* item, Datum* stored, bool* stored_nulls) {
  TupleTableSlot* slot = next_slot_raw(w);
  Datum* values = slot->tts_values;
  bool* nulls = slot->tts_isnull;
  TupleDesc shape = w->shape;
  memset(nulls, true, static_cast<size_t>(shape->natts));
  memset(values, 0, sizeof(Datum) * static_cast<size_t>(shape->natts));
  for (int g = 0; g < w->given_count; g++) {
    int index = w->given[g] - 1;
    values[index] = item->values[index];
    nulls[index] = item->nulls[index];
  }
  ExprContext* context = GetPerTupleExprContext(w->executor);
  for (int d = 0; d < w->default_count; d++) {
    const HeapInsert::Default& column = w->defaults[d];
    bool null;
    Datum value = ExecEvalExprSwitchContext(column.state, context, &null);
    nulls[column.index] = null;
    if (null) continue;
    MemoryContext previous = MemoryContextSwitchTo(w->batch_memory);
    values[column.index] = datumCopy(value, column.by_value, column.length);
    MemoryContextSwitchTo(previous);
  }
  ExecStoreVirtualTuple(slot);
  if (w->has_generated) {
    ExecComputeStoredGenerated(w->result, w->executor, slot, CMD_INSERT);
    slot_getallattrs(slot);
  }
  memset(stored_nulls, true, static_cast<size_t>(shape->natts));
  for (int r = 0; r < w->read_count; r++) {
    int index = w->read[r] - 1;
    stored_nulls[index] = slot->tts_isnull[index];
    if (stored_nulls[index]) continue;
    stored[index] = slot->tts_values[index];
    Form_pg_attribute column = TupleDescAttr(shape, index);
    if (!w->has_generated || column->attbyval) continue;
    // The slot has made a copy, which goes with it.
    MemoryContext previous = MemoryContextSwitchTo(w->batch_memory);
    stored[index] = datumCopy(stored[index], false, column->attlen);
    MemoryContextSwitchTo(previous);
  }
  if (RelationGetDescr(w->relation)->constr) ExecConstraints(w->result, slot, w->executor);
  if (w->relation->rd_rel->relispartition) ExecPartitionCheck(w->result, slot, w->executor, true);
  ResetPerTupleExprContext(w->executor);
  w->waiting++;
  w->waiting_bytes += item->record.length;
  if (w->waiting == HeapInsert::capacity || w->waiting_bytes > HeapInsert::size_limit) flush_raw(w);
}

void end_insert_raw(HeapInsert* w) {
  flush_raw(w);
  if (w->bulk) FreeBulkInsertState(w->bulk);
  AfterTriggerEndQuery(w->executor);
  table_finish_bulk_insert(w->relation, 0);
  ExecResetTupleTable(w->executor->es_tupleTable, false);
  ExecCloseResultRelations(w->executor);
  ExecCloseRangeTableRelations(w->executor);
  FreeExecutorState(w->executor);
  PopActiveSnapshot();
  CommandCounterIncrement();
}

}  // namespace portage::load
