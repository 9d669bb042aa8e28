// See run_index.hpp.
#include "ledger/run_index.hpp"

#include "bridge/guard.hpp"

namespace portage::ledger {
namespace {

struct Ids {
  int64* items;
  int count;
};

Ids runs_in_raw(const char* name) {
  Oid schema = get_namespace_oid("portage", false);
  Relation table = table_open(get_relname_relid("migration_runs", schema), AccessShareLock);
  Relation index = index_open(get_relname_relid(name, schema), AccessShareLock);
  AttrNumber id = get_attnum(RelationGetRelid(table), "id");
  PushActiveSnapshot(GetTransactionSnapshot());
  IndexScanDesc scan = bridge::begin_index_scan(table, index, GetActiveSnapshot(), 0);
  TupleTableSlot* slot = table_slot_create(table, nullptr);
  int capacity = 16;
  Ids ids{static_cast<int64*>(palloc(sizeof(int64) * capacity)), 0};
  index_rescan(scan, nullptr, 0, nullptr, 0);
  while (index_getnext_slot(scan, ForwardScanDirection, slot)) {
    CHECK_FOR_INTERRUPTS();
    if (ids.count == capacity)
      ids.items = static_cast<int64*>(repalloc(ids.items, sizeof(int64) * (capacity *= 2)));
    bool null;
    ids.items[ids.count++] = DatumGetInt64(slot_getattr(slot, id, &null));
  }
  ExecDropSingleTupleTableSlot(slot);
  index_endscan(scan);
  PopActiveSnapshot();
  index_close(index, AccessShareLock);
  table_close(table, AccessShareLock);
  return ids;
}

}  // namespace

std::vector<int64_t> runs_in(const char* index) {
  Ids ids = bridge::guarded(runs_in_raw, index);
  std::vector<int64_t> found(ids.items, ids.items + ids.count);
  pfree(ids.items);
  return found;
}

}  // namespace portage::ledger
