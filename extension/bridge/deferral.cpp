// See deferral.hpp.
#include "bridge/deferral.hpp"

#include "bridge/discretion.hpp"
#include "bridge/spi.hpp"

extern "C" {
#include "catalog/pg_constraint.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
}

namespace portage::bridge {
namespace {

constinit int depth = 0;         // of calls from SQL
constinit bool ours = false;     // see transaction_is_ours()
constinit bool changed = false;  // something is to be put back for the caller

void set_all_raw(List* constraints, bool deferred) {
  auto* statement = makeNode(ConstraintsSetStmt);
  statement->constraints = constraints;  // none means all
  statement->deferred = deferred;
  AfterTriggerSetState(statement);
}

/// The constraint and those that it was made from, in the parents of a partition: to name one of these is to
/// name it.
List* with_parents_raw(List* found, Oid constraint) {
  while (OidIsValid(constraint)) {
    found = list_append_unique_oid(found, constraint);
    HeapTuple tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(constraint));
    if (!HeapTupleIsValid(tuple)) break;
    constraint = reinterpret_cast<Form_pg_constraint>(GETSTRUCT(tuple))->conparentid;
    ReleaseSysCache(tuple);
  }
  return found;
}

struct Deferrable {
  List* initially_deferred;  ///< constraints
  List* pending;             ///< those of tables for which something is put off, with their parents
};

Deferrable look_raw(bool for_pending) {
  Deferrable found{NIL, NIL};
  Relation triggers = table_open(TriggerRelationId, AccessShareLock);
  SysScanDesc scan = systable_beginscan(triggers, InvalidOid, false, nullptr, 0, nullptr);
  HeapTuple tuple;
  while (HeapTupleIsValid(tuple = systable_getnext(scan))) {
    auto* trigger = reinterpret_cast<Form_pg_trigger>(GETSTRUCT(tuple));
    if (!trigger->tgdeferrable || !OidIsValid(trigger->tgconstraint)) continue;
    if (trigger->tginitdeferred)
      found.initially_deferred = list_append_unique_oid(found.initially_deferred, trigger->tgconstraint);
    if (for_pending && AfterTriggerPendingOnRel(trigger->tgrelid))
      found.pending = with_parents_raw(found.pending, trigger->tgconstraint);
  }
  systable_endscan(scan);
  table_close(triggers, AccessShareLock);
  return found;
}

/// The constraint's name; null if it is gone.
RangeVar* name_of_raw(Oid constraint) {
  HeapTuple tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(constraint));
  if (!HeapTupleIsValid(tuple)) return nullptr;
  auto* form = reinterpret_cast<Form_pg_constraint>(GETSTRUCT(tuple));
  char* schema = get_namespace_name(form->connamespace);
  RangeVar* name = schema ? makeRangeVar(schema, pstrdup(NameStr(form->conname)), -1) : nullptr;
  ReleaseSysCache(tuple);
  return name;
}

bool names_one_of_raw(const RangeVar* name, const List* constraints) {
  ListCell* cell;
  foreach (cell, constraints) {
    RangeVar* other = name_of_raw(lfirst_oid(cell));
    if (other && strcmp(other->relname, name->relname) == 0 &&
        strcmp(other->schemaname, name->schemaname) == 0)
      return true;
  }
  return false;
}

/// Names of those that may be set without setting one of `but`, which is to be left alone; a name may be that
/// of several constraints of a schema. Only where the current user may look, unless it is `anybodys`.
List* names_raw(const List* constraints, const List* but, bool anybodys) {
  List* names = NIL;
  ListCell* cell;
  foreach (cell, constraints) {
    if (list_member_oid(but, lfirst_oid(cell))) continue;
    RangeVar* name = name_of_raw(lfirst_oid(cell));
    if (!name || names_one_of_raw(name, but)) continue;
    Oid schema = get_namespace_oid(name->schemaname, true);
    if (!OidIsValid(schema) || (!anybodys && schema_usage_missing(schema, GetUserId()))) continue;
    names = lappend(names, name);
  }
  return names;
}

void defer_nothing_raw() {
  if (ours && depth == 1) return set_all_raw(NIL, false);
  Deferrable known = look_raw(true);
  changed = true;
  if (List* names = names_raw(known.initially_deferred, known.pending, false)) set_all_raw(names, false);
}

void put_back_raw() {
  List* names = names_raw(look_raw(false).initially_deferred, NIL, true);
  if (!names) return;
  Oid user;
  int context;
  GetUserIdAndSecContext(&user, &context);
  // Nobody's code runs here: nothing is judged by becoming deferred. The caller may not have the right to
  // look into the schemas of all that has been changed for it.
  SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, context | SECURITY_LOCAL_USERID_CHANGE);
  set_all_raw(names, true);
  SetUserIdAndSecContext(user, context);
}

}  // namespace

void defer_nothing() {
  // What fails at the commit would be told by PostgreSQL itself, as it is.
  if (InSecurityRestrictedOperation() || discreet()) guarded(defer_nothing_raw);
}

bool judge_deferred() {
  if (!ours || depth != 1 || InSecurityRestrictedOperation() || discreet()) return false;
  execute("SET CONSTRAINTS ALL IMMEDIATE");
  guarded(put_back_raw);
  return true;
}

void transaction_is_ours() {
  ours = true;
  changed = false;
}

CallFromSql::CallFromSql() {
  if (depth++ == 0) ours = changed = false;
}

CallFromSql::~CallFromSql() { depth--; }

void CallFromSql::returns() {
  if (depth == 1 && changed) guarded(put_back_raw);
}

}  // namespace portage::bridge
