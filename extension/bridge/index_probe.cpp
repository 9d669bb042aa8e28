// See index_probe.hpp. Where the index's order is that of its columns, keys are looked for in this order, as
// "the first row that is not before it": the scan goes forward while the next key is near, what lies between
// two rows is known to be absent, and what lies behind the last row costs nothing. Keys are compared with
// what the index says; only what is equal is looked at in the table. So an input in the order of the index is
// cheap. Such a scan reads each page to its end; where keys are far apart, a second one looks for each alone.
#include "bridge/index_probe.hpp"

#include "bridge/guard.hpp"

extern "C" {
#include "access/nbtree.h"
#include "access/stratnum.h"
#include "catalog/pg_am_d.h"
#include "utils/sortsupport.h"
}

namespace portage::bridge {
namespace {

/// One open scan. Plain, for raw code.
struct Probe {
  Relation table, index;
  IndexScanDesc scan;
  TupleTableSlot* slot;
  int columns;
  AttrNumber attnums[INDEX_MAX_KEYS];
  SortSupportData order[INDEX_MAX_KEYS];  // comparison as the index does it
  Oid collations[INDEX_MAX_KEYS];
  bool ordered, started, ended;
  bool fetched;         // the entry that the scan stands at, into the slot
  int shared;           // leading columns in which all keys are the same
  int steps;            // how far to go before the scan is set anew
  int far, alone;       // keys that were far from the one before; how many are looked for alone
  IndexScanDesc exact;  // for these
  ScanKeyData keys[INDEX_MAX_KEYS + 1];  // ordered: equal in what is shared, not before, perhaps not behind
  ScanKeyData from[INDEX_MAX_KEYS];      // the members of "not before", if these are several
  ScanKeyData equal[INDEX_MAX_KEYS];
  int key_count;
  const Sought* sought;
};

int compare_raw(Probe* p, int column, Datum a, Datum b) {
  return p->order[column].comparator(a, b, &p->order[column]);
}

int compare_sought_raw(const void* a, const void* b, void* probe) {
  auto* p = static_cast<Probe*>(probe);
  const Sought &one = p->sought[*static_cast<const size_t*>(a)],
               &other = p->sought[*static_cast<const size_t*>(b)];
  for (int c = 0; c < p->columns; c++) {
    int index = p->attnums[c] - 1;
    if (int order = compare_raw(p, c, one.values[index], other.values[index])) return order;
  }
  return 0;
}

/// Where the scan stands against a key.
int compare_entry_raw(Probe* p, const Sought* key) {
  for (int c = 0; c < p->columns; c++) {
    bool null;
    Datum value = index_getattr(p->scan->xs_itup, c + 1, p->scan->xs_itupdesc, &null);
    if (null) return 1;
    if (int order = compare_raw(p, c, value, key->values[p->attnums[c] - 1])) return order;
  }
  return 0;
}

void set_key_raw(const Probe* p, ScanKey key, int column, StrategyNumber strategy, bool member) {
  Oid family = p->index->rd_opfamily[column], type = p->index->rd_opcintype[column];
  RegProcedure function =
      member ? get_opfamily_proc(family, type, type, BTORDER_PROC)
             : get_opcode(get_opfamily_member(family, type, type, static_cast<int16>(strategy)));
  ScanKeyEntryInitialize(key, member ? SK_ROW_MEMBER : 0, static_cast<AttrNumber>(column + 1), strategy,
                         InvalidOid, p->collations[column], function, 0);
}

/// How the scan finds the first row that is not before a key: what all keys share is equal, the other columns
/// are not before, `(b, c, ...) >= (y, z, ...)`. What lies behind the last key is left out where that is one
/// column: a bound over several would not end the scan where only a later one has passed it, and each page to
/// the end of the index would be read.
void set_bounds_raw(Probe* p, const Sought* first, const Sought* last) {
  auto value = [=](const Sought* key, int column) { return key->values[p->attnums[column] - 1]; };
  while (p->shared < p->columns - 1 &&
         compare_raw(p, p->shared, value(first, p->shared), value(last, p->shared)) == 0) {
    p->keys[p->shared] = p->equal[p->shared];
    p->keys[p->shared].sk_argument = value(first, p->shared);
    p->shared++;
  }
  int rest = p->columns - p->shared;
  ScanKey bound = &p->keys[p->shared];
  if (rest == 1) {
    set_key_raw(p, bound, p->shared, BTGreaterEqualStrategyNumber, false);
    set_key_raw(p, bound + 1, p->shared, BTLessEqualStrategyNumber, false);
    bound[1].sk_argument = value(last, p->shared);
  } else {
    for (int c = p->shared; c < p->columns; c++)
      set_key_raw(p, &p->from[c], c, BTGreaterEqualStrategyNumber, true);
    p->from[p->columns - 1].sk_flags |= SK_ROW_END;
    memset(bound, 0, sizeof *bound);
    bound->sk_flags = SK_ROW_HEADER;
    bound->sk_attno = static_cast<AttrNumber>(p->shared + 1);
    bound->sk_strategy = BTGreaterEqualStrategyNumber;
    bound->sk_argument = PointerGetDatum(&p->from[p->shared]);
  }
  p->key_count = p->shared + (rest == 1 ? 2 : 1);
  p->scan = begin_index_scan(p->table, p->index, GetActiveSnapshot(), p->key_count);
  p->scan->xs_want_itup = true;
}

/// False if the index cannot stand for the columns' own equality, or not yet be used under our snapshot.
bool open_raw(Probe* p, Oid index) {
  // Rebuilt concurrently it has another OID. Nobody drops it while we hold a lock on the table.
  if (!list_member_oid(RelationGetIndexList(p->table), index)) return false;
  p->index = index_open(index, AccessShareLock);
  Form_pg_index form = p->index->rd_index;
  bool usable =
      p->index->rd_rel->relam == BTREE_AM_OID && form->indisvalid && form->indnkeyatts == p->columns;
  PushActiveSnapshot(GetTransactionSnapshot());
  usable = usable && !is_too_young(p->index);
  for (int c = 0; usable && c < p->columns; c++) {
    p->collations[c] = p->index->rd_indcollation[c];
    Form_pg_attribute column = TupleDescAttr(RelationGetDescr(p->table), p->attnums[c] - 1);
    usable = form->indkey.values[c] == p->attnums[c] && column->attcollation == p->collations[c];
    // Of some types (name) the index keeps another form.
    if (p->index->rd_indoption[c] != 0 ||
        TupleDescAttr(RelationGetDescr(p->index), c)->atttypid != column->atttypid)
      p->ordered = false;
  }
  if (!usable) {
    PopActiveSnapshot();
    index_close(p->index, NoLock);
    return false;
  }
  p->slot = table_slot_create(p->table, nullptr);
  if (p->ordered) {
    for (int c = 0; c < p->columns; c++) {
      p->order[c].ssup_cxt = CurrentMemoryContext;
      p->order[c].ssup_collation = p->collations[c];
      p->order[c].ssup_attno = static_cast<AttrNumber>(c + 1);
      Oid type = p->index->rd_opcintype[c];
      PrepareSortSupportFromOrderingOp(
          get_opfamily_member(p->index->rd_opfamily[c], type, type, BTLessStrategyNumber), &p->order[c]);
    }
  }
  for (int c = 0; c < p->columns; c++) set_key_raw(p, &p->equal[c], c, BTEqualStrategyNumber, false);
  return true;
}

void close_raw(Probe* p) {
  if (p->scan) index_endscan(p->scan);
  if (p->exact) index_endscan(p->exact);
  ExecDropSingleTupleTableSlot(p->slot);
  PopActiveSnapshot();
  index_close(p->index, NoLock);
}

bool next_raw(Probe* p) {
  p->fetched = false;
  p->ended = index_getnext_tid(p->scan, ForwardScanDirection) == nullptr;
  return !p->ended;
}

/// Whether one of the entries for this key, the first of which the scan stands at, is a row; it is in the
/// slot then. An entry is fetched but once: after that the scan has the place of the version that was found,
/// which is not where an update on the page began.
bool fetch_raw(Probe* p, const Sought* key) {
  if (p->fetched) return true;  // the same key again
  do {
    p->fetched = index_fetch_heap(p->scan, p->slot);
    if (p->fetched) return true;
  } while (next_raw(p) && compare_entry_raw(p, key) == 0);
  return false;
}

bool find_from_raw(Probe* p, const Sought* key) {
  for (int c = p->shared; c < p->columns; c++) p->from[c].sk_argument = key->values[p->attnums[c] - 1];
  if (p->columns - p->shared == 1) p->keys[p->shared].sk_argument = p->from[p->shared].sk_argument;
  index_rescan(p->scan, p->keys, p->key_count, nullptr, 0);
  p->started = true;
  return next_raw(p) && compare_entry_raw(p, key) == 0 && fetch_raw(p, key);
}

bool find_alone_raw(Probe* p, const Sought* key) {
  if (!p->exact) p->exact = begin_index_scan(p->table, p->index, GetActiveSnapshot(), p->columns);
  for (int c = 0; c < p->columns; c++) p->equal[c].sk_argument = key->values[p->attnums[c] - 1];
  index_rescan(p->exact, p->equal, p->columns, nullptr, 0);
  return index_getnext_slot(p->exact, ForwardScanDirection, p->slot);
}

/// Whether there is a row with this key; it is in the slot then. Keys come in the order of the index, if that
/// counts.
bool seek_raw(Probe* p, const Sought* key) {
  if (!p->ordered) return find_alone_raw(p, key);
  if (p->alone > 0) {
    p->alone--;
    p->started = false;  // by now it is far behind
    return find_alone_raw(p, key);
  }
  if (!p->started) return find_from_raw(p, key);
  if (p->ended) return false;  // there is no row between the key before this one and the last
  int order = compare_entry_raw(p, key);
  if (order >= 0) return order == 0 && fetch_raw(p, key);
  for (int left = p->steps; order < 0 && left > 0; left--) {
    if (!next_raw(p)) return false;
    order = compare_entry_raw(p, key);
  }
  if (order >= 0) {
    p->steps = Min(p->steps * 2, 64);
    p->far = 0;
    return order == 0 && fetch_raw(p, key);
  }
  p->steps = Max(p->steps / 2, 1);
  if (++p->far >= 3) {
    p->alone = 200;  // then it is tried again whether they have come closer
    p->far = 2;
  }
  return find_from_raw(p, key);
}

}  // namespace

bool is_too_young(Relation index) {
  return index->rd_index->indcheckxmin &&
         XidInMVCCSnapshot(HeapTupleHeaderGetXmin(index->rd_indextuple->t_data), GetActiveSnapshot());
}

bool find_by_index(Relation table, const ProbedIndex& index, const std::vector<Sought>& sought,
                   std::vector<size_t> positions, const std::function<void(size_t, TupleTableSlot*)>& found) {
  Memory memory("portage index probe");
  InMemory in(memory.get());
  auto* p = guarded([] { return static_cast<Probe*>(palloc0(sizeof(Probe))); });
  p->table = table;
  p->columns = static_cast<int>(index.attnums.size());
  for (size_t c = 0; c < index.attnums.size(); c++) p->attnums[c] = static_cast<AttrNumber>(index.attnums[c]);
  p->ordered = index.ordered && positions.size() > 1;
  p->steps = 4;
  p->sought = sought.data();
  Oid oid = index.oid;
  if (!guarded(open_raw, p, oid)) return false;
  if (p->ordered) {
    size_t* first = positions.data();
    size_t count = positions.size();
    guarded([=] {
      qsort_arg(first, count, sizeof(size_t), compare_sought_raw, p);
      set_bounds_raw(p, &p->sought[first[0]], &p->sought[first[count - 1]]);
    });
  }
  size_t looked = 0;
  for (size_t i : positions) {
    if ((looked++ & 255) == 0) check_interrupts();
    const Sought* key = &sought[i];
    if (guarded(seek_raw, p, key)) found(i, p->slot);
  }
  guarded(close_raw, p);
  return true;
}

}  // namespace portage::bridge
