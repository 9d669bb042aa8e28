// What the foreign tables share that show a table of packs as rows (packed_items.cpp, packed_mappings.cpp):
// what a query says of their columns, and the scan of the packs. Raw code. Knows nothing of what is packed.
#pragma once

#include "bridge/scope.hpp"

extern "C" {
#include "foreign/fdwapi.h"
#include "nodes/pathnodes.h"
#include "optimizer/optimizer.h"
#include "optimizer/restrictinfo.h"
}

namespace portage::ledger {

/// "column operator value", where the value is known before the table is read.
struct Comparison {
  int attribute;
  Oid operation, collation;
  Node* value;
};

/// False if the clause is nothing of the kind.
inline bool comparison_of(PlannerInfo* root, RelOptInfo* rel, Expr* clause, Comparison* found) {
  if (!IsA(clause, OpExpr)) return false;
  auto* op = reinterpret_cast<OpExpr*>(clause);
  if (list_length(op->args) != 2) return false;
  auto* left = static_cast<Node*>(linitial(op->args));
  auto* right = static_cast<Node*>(lsecond(op->args));
  Oid operation = op->opno;
  auto is_ours = [=](Node* node) {
    if (!IsA(node, Var)) return false;
    auto* var = reinterpret_cast<Var*>(node);
    return var->varno == static_cast<int>(rel->relid) && var->varlevelsup == 0 && var->varattno > 0;
  };
  if (!is_ours(left)) {
    Node* swap = left;
    left = right;
    right = swap;
    operation = get_commutator(operation);
  }
  if (!is_ours(left) || !OidIsValid(operation)) return false;
  if (bms_is_member(static_cast<int>(rel->relid), pull_varnos(root, right)) ||
      contain_volatile_functions(right))
    return false;
  *found = {reinterpret_cast<Var*>(left)->varattno, operation, op->inputcollid, right};
  return true;
}

/// A scan of a table of packs by its primary key, begun anew for each set of values.
struct PackTable {
  MemoryContext query, memory;  ///< in which the scan lives; of what is in hand, rows live in shorter ones
  bool is_open, nothing;        ///< nothing: more to come
  Relation table, index;        ///< from the first row on
  IndexScanDesc scan;
  TupleTableSlot* slot;
};

/// Begins the scan; the table is opened the first time.
inline void begin_packs(PackTable* p, const char* table, const char* index, Snapshot snapshot, ScanKey keys,
                        int count) {
  MemoryContext previous = MemoryContextSwitchTo(p->query);
  if (!p->table) {
    Oid schema = get_namespace_oid("portage", false);
    p->table = table_open(get_relname_relid(table, schema), AccessShareLock);
    p->index = index_open(get_relname_relid(index, schema), AccessShareLock);
    p->slot = table_slot_create(p->table, nullptr);
  }
  if (p->scan) index_endscan(p->scan);
  p->scan = bridge::begin_index_scan(p->table, p->index, snapshot, count);
  index_rescan(p->scan, keys, count, nullptr, 0);
  MemoryContextSwitchTo(previous);
}

/// The next pack into the slot; false: there is none, nor again.
inline bool fetch_pack(PackTable* p, ScanDirection direction) {
  MemoryContext previous = MemoryContextSwitchTo(p->query);
  if (!p->nothing && !index_getnext_slot(p->scan, direction, p->slot)) p->nothing = true;
  if (!p->nothing) slot_getallattrs(p->slot);
  MemoryContextSwitchTo(previous);
  return !p->nothing;
}

inline void rescan_packs(ForeignScanState* node) {
  static_cast<PackTable*>(node->fdw_state)->is_open = false;
}

inline void end_packs(ForeignScanState* node) {
  auto* p = static_cast<PackTable*>(node->fdw_state);
  if (!p || !p->table) return;
  if (p->scan) index_endscan(p->scan);
  ExecDropSingleTupleTableSlot(p->slot);
  index_close(p->index, NoLock);
  table_close(p->table, NoLock);
}

/// A handler's answer. The state of a scan begins with a PackTable.
inline Datum pack_routine(GetForeignRelSize_function size, GetForeignPaths_function paths,
                          GetForeignPlan_function plan, BeginForeignScan_function begin,
                          IterateForeignScan_function iterate) {
  FdwRoutine* routine = makeNode(FdwRoutine);
  routine->GetForeignRelSize = size;
  routine->GetForeignPaths = paths;
  routine->GetForeignPlan = plan;
  routine->BeginForeignScan = begin;
  routine->IterateForeignScan = iterate;
  routine->ReScanForeignScan = rescan_packs;
  routine->EndForeignScan = end_packs;
  return PointerGetDatum(routine);
}

/// A value of one of the types that compare with bigint.
inline int64 as_bigint(Datum value, Oid type) {
  return type == INT2OID   ? static_cast<int64>(DatumGetInt16(value))
         : type == INT4OID ? static_cast<int64>(DatumGetInt32(value))
                           : DatumGetInt64(value);
}

}  // namespace portage::ledger
