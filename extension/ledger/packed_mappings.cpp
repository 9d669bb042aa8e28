// The foreign table packed_mappings: mapping_packs as rows of the shape of mapping_rows, so that readers ask
// one view for both. Pipeline, scope and legacy id, where a query says them, find the packs. All of it is raw
// code that the planner and executor call back.
#include "bridge/entry.hpp"
#include "ledger/foreign_packs.hpp"
#include "ledger/mapping_pack.hpp"

extern "C" {
#include "catalog/pg_opfamily.h"
#include "optimizer/cost.h"
#include "optimizer/pathnode.h"
#include "optimizer/planmain.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
}

namespace portage::ledger {
namespace {

enum Attribute {
  pipeline_id = 1,
  scope,
  legacy_id,
  target_key,
  origin,
  source_hash,
  row_hash,
  run_id,
  ordinal,
  last_attribute = 11
};

// What the planner is told, whatever there is: one mapping, those of a space, all. Not so many that it
// compiles the query.
constexpr double rows_of_space = 100000, rows_of_all = 300000, start_cost = 10;

/// The values that pipeline, scope and legacy id are to be equal to, and which of them each is.
struct Wanted {
  List *values, *attributes;
  bool asked[legacy_id + 1];
};

void get_size(PlannerInfo* root, RelOptInfo* rel, Oid) {
  auto* wanted = static_cast<Wanted*>(palloc0(sizeof(Wanted)));
  ListCell* cell;
  foreach (cell, rel->baserestrictinfo) {
    Comparison c;
    Expr* clause = static_cast<RestrictInfo*>(lfirst(cell))->clause;
    if (!comparison_of(root, rel, clause, &c) || c.attribute > legacy_id || wanted->asked[c.attribute])
      continue;
    bool number = c.attribute == pipeline_id;
    Oid family = number ? INTEGER_BTREE_FAM_OID : TEXT_BTREE_FAM_OID;
    if (get_op_opfamily_strategy(c.operation, family) != BTEqualStrategyNumber ||
        (!number && (exprType(c.value) != TEXTOID || !get_collation_isdeterministic(c.collation))))
      continue;  // the executor sees to it
    wanted->values = lappend(wanted->values, c.value);
    wanted->attributes = lappend_int(wanted->attributes, c.attribute);
    wanted->asked[c.attribute] = true;
  }
  rel->fdw_private = wanted;
  rel->tuples = rows_of_all;
  bool space = wanted->asked[pipeline_id] && wanted->asked[scope];
  rel->rows = space && wanted->asked[legacy_id] ? 1 : space ? rows_of_space : rows_of_all;
}

void get_paths(PlannerInfo* root, RelOptInfo* rel, Oid) {
  add_path(rel, reinterpret_cast<Path*>(bridge::foreign_path(
                    root, rel, start_cost, start_cost + rel->rows * cpu_tuple_cost, NIL, NIL)));
}

ForeignScan* get_plan(PlannerInfo*, RelOptInfo* rel, Oid, ForeignPath*, List* targets, List* clauses,
                      Plan* outer) {
  auto* wanted = static_cast<Wanted*>(rel->fdw_private);
  return make_foreignscan(targets, extract_actual_clauses(clauses, false), rel->relid, wanted->values,
                          wanted->attributes, NIL, NIL, outer);
}

/// The executor's state of one scan.
struct Scan {
  PackTable packs;
  List *expressions, *values, *attributes;  // values: as ExprStates
  Datum origins[3];
  bool one, in_hand;  // one: a legacy id, which one pack has or none
  Datum id;
  MappingUnpacker pack;
};

void begin(ForeignScanState* node, int) {
  auto* plan = reinterpret_cast<ForeignScan*>(node->ss.ps.plan);
  TupleDesc shape = RelationGetDescr(node->ss.ss_currentRelation);
  if (shape->natts != last_attribute || TupleDescAttr(shape, pipeline_id - 1)->atttypid != INT8OID ||
      TupleDescAttr(shape, target_key - 1)->atttypid != TEXTOID)
    ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
                    errmsg("foreign data wrapper \"portage_mappings\" has one table only"),
                    errhint("Read portage.legacy_mappings.")));
  auto* s = static_cast<Scan*>(palloc0(sizeof(Scan)));
  node->fdw_state = s;
  s->packs.query = node->ss.ps.state->es_query_cxt;
  s->values = ExecInitExprList(plan->fdw_exprs, &node->ss.ps);
  s->attributes = plan->fdw_private;
  s->expressions = plan->fdw_exprs;
  s->origins[0] = CStringGetTextDatum("inserted");
  s->origins[1] = CStringGetTextDatum("adopted");
  s->origins[2] = CStringGetTextDatum("overwritten");
  s->packs.memory =
      AllocSetContextCreate(CurrentMemoryContext, "portage packed mappings", ALLOCSET_DEFAULT_SIZES);
}

/// An id as first_key and last_key have it (order_key(), in the current memory context).
Datum order_key_raw(Datum id) {
  text* bytes = DatumGetTextPP(id);
  int size = VARSIZE_ANY_EXHDR(bytes);
  auto* key = static_cast<bytea*>(palloc(static_cast<Size>(VARHDRSZ + 2 + size)));
  SET_VARSIZE(key, VARHDRSZ + 2 + size);
  int length = Min(size, 0xFFFF);
  VARDATA(key)[0] = static_cast<char>(length >> 8);
  VARDATA(key)[1] = static_cast<char>(length & 255);
  memcpy(VARDATA(key) + 2, VARDATA_ANY(bytes), static_cast<size_t>(size));
  return PointerGetDatum(key);
}

void open(ForeignScanState* node, Scan* s) {
  ExprContext* context = node->ss.ps.ps_ExprContext;
  PackTable* packs = &s->packs;
  MemoryContextReset(packs->memory);
  Datum asked[legacy_id + 1];
  bool has[legacy_id + 1] = {};
  packs->is_open = true;
  s->in_hand = packs->nothing = false;
  ListCell *value, *attribute, *expression;
  forthree(value, s->values, attribute, s->attributes, expression, s->expressions) {
    bool null;
    Datum found = ExecEvalExpr(static_cast<ExprState*>(lfirst(value)), context, &null);
    packs->nothing = packs->nothing || null;
    has[lfirst_int(attribute)] = true;
    if (lfirst_int(attribute) == pipeline_id)
      found = Int64GetDatum(as_bigint(found, exprType(static_cast<Node*>(lfirst(expression)))));
    asked[lfirst_int(attribute)] = found;
  }
  if (packs->nothing) return;
  MemoryContext previous = MemoryContextSwitchTo(packs->memory);
  ScanKeyData keys[3];
  int n = 0;
  if (has[pipeline_id]) ScanKeyInit(&keys[n++], 1, BTEqualStrategyNumber, F_INT8EQ, asked[pipeline_id]);
  if (n == 1 && has[scope])
    ScanKeyEntryInitialize(&keys[n++], 0, 2, BTEqualStrategyNumber, InvalidOid, C_COLLATION_OID, F_TEXTEQ,
                           datumCopy(asked[scope], false, -1));
  s->one = n == 2 && has[legacy_id];
  if (s->one) {
    s->id = datumCopy(asked[legacy_id], false, -1);
    ScanKeyInit(&keys[n++], 3, BTLessEqualStrategyNumber, F_BYTEALE, order_key_raw(s->id));
  }
  MemoryContextSwitchTo(previous);
  begin_packs(packs, "mapping_packs", "mapping_packs_pkey", node->ss.ps.state->es_snapshot, keys, n);
}

/// Takes the next pack in hand; false: there is none.
bool next_pack(Scan* s) {
  s->in_hand = fetch_pack(&s->packs, s->one ? BackwardScanDirection : ForwardScanDirection);
  if (!s->in_hand) return false;
  if (s->one) s->packs.nothing = true;  // there is no other
  MemoryContext previous = MemoryContextSwitchTo(s->packs.memory);
  struct varlena* content = pg_detoast_datum_packed(
      reinterpret_cast<struct varlena*>(DatumGetPointer(s->packs.slot->tts_values[4])));
  MemoryContextSwitchTo(previous);
  s->pack = MappingUnpacker(VARDATA_ANY(content), VARSIZE_ANY_EXHDR(content));
  return true;
}

bool next_mapping(Scan* s, PackedMapping* m) {
  for (;;) {
    if (!s->in_hand && !next_pack(s)) return false;
    while (s->pack.next(m)) {
      if (!s->one) return true;
      text* id = DatumGetTextPP(s->id);
      if (m->legacy_id == std::string_view(VARDATA_ANY(id), VARSIZE_ANY_EXHDR(id))) return true;
    }
    s->in_hand = false;
    int entries = DatumGetInt32(s->packs.slot->tts_values[5]);
    if (!s->pack.held(entries))
      ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED), errmsg("a pack of mappings is damaged"),
                      errdetail("It is of pipeline %lld and should hold %d mappings.",
                                static_cast<long long>(DatumGetInt64(s->packs.slot->tts_values[0])), entries),
                      errhint("Restore portage.mapping_packs from a backup.")));
  }
}

TupleTableSlot* iterate(ForeignScanState* node) {
  auto* s = static_cast<Scan*>(node->fdw_state);
  TupleTableSlot* slot = node->ss.ss_ScanTupleSlot;
  ExecClearTuple(slot);
  if (!s->packs.is_open) open(node, s);
  CHECK_FOR_INTERRUPTS();
  PackedMapping m;
  if (!next_mapping(s, &m)) return slot;
  auto as_text = [](std::string_view text) {
    return PointerGetDatum(cstring_to_text_with_len(text.data(), static_cast<int>(text.size())));
  };
  Datum* v = slot->tts_values;
  memset(slot->tts_isnull, false, sizeof(bool) * last_attribute);
  slot->tts_isnull[ordinal] = slot->tts_isnull[ordinal + 1] = true;  // image, missing_since
  v[pipeline_id - 1] = s->packs.slot->tts_values[0];
  v[scope - 1] = s->packs.slot->tts_values[1];
  v[legacy_id - 1] = as_text(m.legacy_id);
  v[target_key - 1] = as_text(m.target_key);
  v[origin - 1] = s->origins[m.origin == 'i' ? 0 : m.origin == 'a' ? 1 : 2];
  v[source_hash - 1] = Int64GetDatum(m.source_hash);
  v[row_hash - 1] = Int64GetDatum(m.row_hash);
  v[run_id - 1] = s->packs.slot->tts_values[6];
  v[ordinal - 1] = Int64GetDatum(m.ordinal);
  return ExecStoreVirtualTuple(slot);
}

}  // namespace
}  // namespace portage::ledger

PORTAGE_FUNCTION(portage_packed_mappings_handler) {
  using namespace portage::ledger;
  return portage::bridge::guarded([] { return pack_routine(get_size, get_paths, get_plan, begin, iterate); });
}
