// See table_writer.hpp. Slots are made from a copied tuple descriptor: a thousand pins on the relcache's own
// would make slot creation quadratic, since each is looked for among the others.
#include "bridge/table_writer.hpp"

extern "C" {
#include "commands/sequence.h"
}

namespace portage::bridge {

void set_by_name(TupleDesc shape, Datum* values, bool* nulls, const char* column, Datum value) {
  for (int i = 0; i < shape->natts; i++) {
    if (strcmp(NameStr(TupleDescAttr(shape, i)->attname), column) != 0) continue;
    values[i] = value;
    nulls[i] = false;
    return;
  }
  throw Error(ERRCODE_UNDEFINED_COLUMN,
              format("a table or type of the extension has no column \"%s\"", column));
}

NamedRow::NamedRow(TupleDesc shape) : shape_(shape) {
  size_t n = static_cast<size_t>(shape->natts);
  guarded([this, n] {
    values_ = static_cast<Datum*>(palloc0(sizeof(Datum) * n));
    nulls_ = static_cast<bool*>(palloc(sizeof(bool) * n));
    memset(nulls_, true, sizeof(bool) * n);
  });
}

Datum NamedRow::composite() const {
  return guarded(
      [this] { return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(shape_), values_, nulls_)); });
}

TableWriter::TableWriter(const char* schema, const char* name, Constraints constraints)
    : memory_("portage table writer") {
  InMemory in(memory_.get());
  state_ = guarded([=] {
    auto* s = static_cast<State*>(palloc0(sizeof(State)));
    Oid relid = get_relname_relid(name, get_namespace_oid(schema, false));
    if (!OidIsValid(relid))
      ereport(ERROR,
              (errcode(ERRCODE_UNDEFINED_TABLE), errmsg("table \"%s.%s\" does not exist", schema, name),
               errhint("Recreate the extension: its own tables must not be dropped.")));
    s->relation = table_open(relid, RowExclusiveLock);
    s->executor = CreateExecutorState();
    s->result = makeNode(ResultRelInfo);
    InitResultRelInfo(s->result, s->relation, 0, nullptr, 0);  // in no range table: there is no query
    ExecOpenIndices(s->result, false);
    s->shape = CreateTupleDescCopy(RelationGetDescr(s->relation));
    s->natts = s->shape->natts;
    s->values = static_cast<Datum*>(palloc0(sizeof(Datum) * s->natts));
    s->nulls = static_cast<bool*>(palloc0(sizeof(bool) * s->natts));
    s->checks = constraints == Constraints::checked;
    s->command = GetCurrentCommandId(true);
    return s;
  });
}

void TableWriter::begin_row() {
  memset(state_->nulls, true, sizeof(bool) * static_cast<size_t>(state_->natts));
}

void TableWriter::set(const char* column, Datum value) {
  set_by_name(state_->shape, state_->values, state_->nulls, column, value);
}

void TableWriter::add() {
  State* s = state_;
  TupleTableSlot*& slot = s->slots[s->waiting];
  if (!slot) {
    InMemory in(memory_.get());
    slot = guarded([=] {
      TupleTableSlot* made = MakeSingleTupleTableSlot(s->shape, table_slot_callbacks(s->relation));
      made->tts_tableOid = RelationGetRelid(s->relation);
      return made;
    });
  }
  TupleTableSlot* ready = slot;
  guarded([=] {
    ExecClearTuple(ready);
    memcpy(ready->tts_values, s->values, sizeof(Datum) * s->natts);
    memcpy(ready->tts_isnull, s->nulls, sizeof(bool) * s->natts);
    ExecStoreVirtualTuple(ready);
    if (s->checks) ExecConstraints(s->result, ready, s->executor);
  });
  if (++s->waiting == capacity) guarded(flush_raw, s);
}

void TableWriter::flush_raw(State* s) {
  if (s->waiting == 0) return;
  if (!s->bulk && s->waiting == capacity) s->bulk = GetBulkInsertState();
  MemoryContext previous = MemoryContextSwitchTo(GetPerTupleMemoryContext(s->executor));
  table_multi_insert(s->relation, s->slots, s->waiting, s->command, 0, s->bulk);
  MemoryContextSwitchTo(previous);
  for (int i = 0; i < s->waiting; i++) {
    if (s->result->ri_NumIndices > 0) insert_index_entries(s->result, s->slots[i], s->executor);
    ExecClearTuple(s->slots[i]);
  }
  ResetPerTupleExprContext(s->executor);
  s->waiting = 0;
}

void TableWriter::finish() {
  State* s = state_;
  guarded([=] {
    flush_raw(s);
    for (TupleTableSlot* slot : s->slots)
      if (slot) ExecDropSingleTupleTableSlot(slot);
    if (s->bulk) FreeBulkInsertState(s->bulk);
    table_finish_bulk_insert(s->relation, 0);
    ExecCloseIndices(s->result);
    table_close(s->relation, NoLock);
    FreeExecutorState(s->executor);
    CommandCounterIncrement();
  });
}

int64_t next_number(const char* schema, const char* sequence) {
  return guarded(
      [=] { return nextval_internal(get_relname_relid(sequence, get_namespace_oid(schema, false)), false); });
}

}  // namespace portage::bridge
