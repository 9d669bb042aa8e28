// The foreign table packed_items: item_packs as rows of the shape of item_rows, so that the ledger's readers
// ask one view for both. What a query says of run and ordinal finds the packs; its order by ordinal is
// theirs. All of it is raw code that the planner and executor call back.
#include "bridge/entry.hpp"
#include "ledger/foreign_packs.hpp"
#include "ledger/pack.hpp"

extern "C" {
#include "access/stratnum.h"
#include "catalog/pg_opfamily.h"
#include "optimizer/cost.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/planmain.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
}

namespace portage::ledger {
namespace {

enum Attribute {
  run_id = 1,
  ordinal,
  revision,
  part,
  line,
  byte_offset,
  byte_length,
  status,
  legacy_id,
  target_key,
  last_attribute = 18
};

// What the planner is told, whatever there is: one item, a run's items, all.
constexpr double rows_of_run = 100000, rows_of_all = 10000000, start_cost = 10;

/// What a query asks of run_id or ordinal: the values' expressions, and (attribute, strategy, type) of each.
struct Wanted {
  List *values, *kinds;
  bool one_run, one_item;
};

void add_condition(PlannerInfo* root, RelOptInfo* rel, Expr* clause, Wanted* wanted) {
  Comparison c;
  if (!comparison_of(root, rel, clause, &c) || (c.attribute != run_id && c.attribute != ordinal)) return;
  int strategy = get_op_opfamily_strategy(c.operation, INTEGER_BTREE_FAM_OID);
  if (strategy == 0) return;
  wanted->values = lappend(wanted->values, c.value);
  wanted->kinds = lappend_int(wanted->kinds, c.attribute);
  wanted->kinds = lappend_int(wanted->kinds, strategy);
  wanted->kinds = lappend_int(wanted->kinds, static_cast<int>(exprType(c.value)));
  if (strategy == BTEqualStrategyNumber) (c.attribute == run_id ? wanted->one_run : wanted->one_item) = true;
}

void get_size(PlannerInfo* root, RelOptInfo* rel, Oid) {
  auto* wanted = static_cast<Wanted*>(palloc0(sizeof(Wanted)));
  ListCell* cell;
  foreach (cell, rel->baserestrictinfo)
    add_condition(root, rel, static_cast<RestrictInfo*>(lfirst(cell))->clause, wanted);
  rel->fdw_private = wanted;
  rel->tuples = rows_of_all;
  rel->rows = wanted->one_item ? 1 : wanted->one_run ? rows_of_run : rows_of_all;
}

bool orders_by(const PathKey* key, RelOptInfo* rel, int column, Oid type) {
  Var* var = makeVar(static_cast<int>(rel->relid), static_cast<AttrNumber>(column), type, -1, InvalidOid, 0);
  return find_ec_member_matching_expr(key->pk_eclass, reinterpret_cast<Expr*>(var), rel->relids) != nullptr;
}

void get_paths(PlannerInfo* root, RelOptInfo* rel, Oid) {
  auto* wanted = static_cast<Wanted*>(rel->fdw_private);
  // Of one run the packs come in the order of ordinals, either way; they hold one revision of each.
  List *order = NIL, *asked = wanted->one_run ? root->query_pathkeys : NIL;
  bool backward = false;
  if (asked != NIL && orders_by(static_cast<PathKey*>(linitial(asked)), rel, ordinal, INT8OID)) {
    backward = bridge::is_descending(static_cast<PathKey*>(linitial(asked)));
    bool also_revision =
        list_length(asked) > 1 && orders_by(static_cast<PathKey*>(lsecond(asked)), rel, revision, INT4OID);
    order = list_truncate(list_copy(asked), also_revision ? 2 : 1);
  }
  add_path(rel, reinterpret_cast<Path*>(bridge::foreign_path(root, rel, start_cost,
                                                             start_cost + rel->rows * cpu_tuple_cost, order,
                                                             list_make1_int(backward ? 1 : 0))));
}

ForeignScan* get_plan(PlannerInfo*, RelOptInfo* rel, Oid, ForeignPath* path, List* targets, List* clauses,
                      Plan* outer) {
  auto* wanted = static_cast<Wanted*>(rel->fdw_private);
  List* how = list_make2(path->fdw_private, wanted->kinds);
  return make_foreignscan(targets, extract_actual_clauses(clauses, false), rel->relid, wanted->values, how,
                          NIL, NIL, outer);
}

/// The executor's state of one scan.
struct Scan {
  PackTable packs;
  List* values;  // ExprStates
  const int* kinds;
  int conditions;
  bool backward;
  Datum outcomes[4];
  int64 low, high;  // ordinals, from the first row on
  // the pack in hand
  PackedItem* items;
  int64 run;
  int32 part;
  int count, at;
};

void begin(ForeignScanState* node, int) {
  auto* plan = reinterpret_cast<ForeignScan*>(node->ss.ps.plan);
  TupleDesc shape = RelationGetDescr(node->ss.ss_currentRelation);
  if (shape->natts != last_attribute || TupleDescAttr(shape, run_id - 1)->atttypid != INT8OID ||
      TupleDescAttr(shape, target_key - 1)->atttypid != TEXTOID)
    ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
                    errmsg("foreign data wrapper \"portage_items\" has one table only"),
                    errhint("Read portage.migration_items.")));
  auto* s = static_cast<Scan*>(palloc0(sizeof(Scan)));
  node->fdw_state = s;
  s->packs.query = node->ss.ps.state->es_query_cxt;
  s->values = ExecInitExprList(plan->fdw_exprs, &node->ss.ps);
  s->backward = linitial_int(static_cast<List*>(linitial(plan->fdw_private))) != 0;
  List* kinds = static_cast<List*>(lsecond(plan->fdw_private));
  s->conditions = list_length(s->values);
  auto* copy = static_cast<int*>(palloc(sizeof(int) * static_cast<size_t>(Max(list_length(kinds), 1))));
  ListCell* cell;
  foreach (cell, kinds) copy[foreach_current_index(cell)] = lfirst_int(cell);
  s->kinds = copy;
  s->outcomes[1] = CStringGetTextDatum("inserted");
  s->outcomes[2] = CStringGetTextDatum("updated");
  s->outcomes[3] = CStringGetTextDatum("unchanged");
  s->packs.memory =
      AllocSetContextCreate(CurrentMemoryContext, "portage packed items", ALLOCSET_DEFAULT_SIZES);
}

/// What the conditions leave of runs and ordinals.
void open(ForeignScanState* node, Scan* s) {
  ExprContext* context = node->ss.ps.ps_ExprContext;
  int64 low[3] = {0, PG_INT64_MIN, PG_INT64_MIN}, high[3] = {0, PG_INT64_MAX, PG_INT64_MAX};
  s->packs.nothing = false;
  for (int i = 0; i < s->conditions; i++) {
    const int* kind = s->kinds + 3 * i;
    bool null;
    Datum value = ExecEvalExpr(static_cast<ExprState*>(list_nth(s->values, i)), context, &null);
    if (null) {
      s->packs.nothing = true;
      continue;
    }
    int64 limit = as_bigint(value, static_cast<Oid>(kind[2]));
    int64 &from = low[kind[0]], &to = high[kind[0]];
    bool strict = kind[1] == BTLessStrategyNumber || kind[1] == BTGreaterStrategyNumber;
    if (kind[1] >= BTEqualStrategyNumber)
      from = Max(from, strict && limit < PG_INT64_MAX ? limit + 1 : limit);
    if (kind[1] <= BTEqualStrategyNumber) to = Min(to, strict && limit > PG_INT64_MIN ? limit - 1 : limit);
  }
  s->low = low[ordinal];
  s->high = high[ordinal];
  s->packs.is_open = true;
  s->count = s->at = 0;
  if (s->packs.nothing || low[run_id] > high[run_id] || s->low > s->high) {
    s->packs.nothing = true;
    return;
  }
  ScanKeyData keys[4];
  int n = 0;
  auto key = [&](int attribute, StrategyNumber strategy, RegProcedure function, int64 value) {
    ScanKeyInit(&keys[n++], static_cast<AttrNumber>(attribute), strategy, function, Int64GetDatum(value));
  };
  if (low[run_id] == high[run_id]) {
    key(1, BTEqualStrategyNumber, F_INT8EQ, low[run_id]);
  } else {
    key(1, BTGreaterEqualStrategyNumber, F_INT8GE, low[run_id]);
    key(1, BTLessEqualStrategyNumber, F_INT8LE, high[run_id]);
  }
  // A pack that begins before the lowest ordinal may still reach it.
  if (s->low > PG_INT64_MIN + pack_span) key(2, BTGreaterStrategyNumber, F_INT8GT, s->low - pack_span);
  if (s->high < PG_INT64_MAX) key(2, BTLessEqualStrategyNumber, F_INT8LE, s->high);
  begin_packs(&s->packs, "item_packs", "item_packs_pkey", node->ss.ps.state->es_snapshot, keys, n);
}

/// Takes the next pack in hand; false: there is none.
bool next_pack(Scan* s) {
  if (!fetch_pack(&s->packs, s->backward ? BackwardScanDirection : ForwardScanDirection)) return false;
  Datum* v = s->packs.slot->tts_values;
  MemoryContextReset(s->packs.memory);
  MemoryContext previous = MemoryContextSwitchTo(s->packs.memory);
  s->run = DatumGetInt64(v[0]);
  s->part = DatumGetInt32(v[2]);
  s->count = DatumGetInt32(v[3]);
  if (s->count < 0 || s->count > pack_span) s->count = 0;  // unpack_raw says so
  bytea* content = pg_detoast_datum(reinterpret_cast<bytea*>(DatumGetPointer(v[4])));
  if (content == reinterpret_cast<bytea*>(DatumGetPointer(v[4])))  // on a page that may be left
    content = reinterpret_cast<bytea*>(DatumGetPointer(datumCopy(v[4], false, -1)));
  s->items = static_cast<PackedItem*>(palloc(sizeof(PackedItem) * static_cast<size_t>(Max(s->count, 1))));
  unpack_raw(VARDATA(content), VARSIZE(content) - VARHDRSZ, DatumGetInt64(v[1]), s->count, s->items);
  s->at = 0;
  MemoryContextSwitchTo(previous);
  return true;
}

TupleTableSlot* iterate(ForeignScanState* node) {
  auto* s = static_cast<Scan*>(node->fdw_state);
  TupleTableSlot* slot = node->ss.ss_ScanTupleSlot;
  ExecClearTuple(slot);
  if (!s->packs.is_open) open(node, s);
  const PackedItem* item = nullptr;
  while (!item) {
    while (s->at == s->count)
      if (!next_pack(s)) return slot;
    item = &s->items[s->backward ? s->count - 1 - s->at : s->at];
    s->at++;
    if (item->ordinal < s->low || item->ordinal > s->high) item = nullptr;
  }
  Datum* v = slot->tts_values;
  memset(slot->tts_isnull, true, sizeof(bool) * last_attribute);
  auto set = [&](Attribute attribute, Datum value) {
    v[attribute - 1] = value;
    slot->tts_isnull[attribute - 1] = false;
  };
  auto set_text = [&](Attribute attribute, const char* text, size_t size) {
    if (text) set(attribute, PointerGetDatum(cstring_to_text_with_len(text, static_cast<int>(size))));
  };
  set(run_id, Int64GetDatum(s->run));
  set(ordinal, Int64GetDatum(item->ordinal));
  set(revision, Int32GetDatum(0));
  set(part, Int32GetDatum(s->part));
  set(line, Int64GetDatum(item->line));
  set(byte_offset, Int64GetDatum(item->byte_offset));
  set(byte_length, Int64GetDatum(item->byte_length));
  set(status, s->outcomes[static_cast<int>(item->outcome)]);
  set_text(legacy_id, item->legacy_id, item->legacy_id_size);
  set_text(target_key, item->target_key, item->target_key_size);
  return ExecStoreVirtualTuple(slot);
}

}  // namespace
}  // namespace portage::ledger

PORTAGE_FUNCTION(portage_packed_items_handler) {
  using namespace portage::ledger;
  return portage::bridge::guarded([] { return pack_routine(get_size, get_paths, get_plan, begin, iterate); });
}
