// See known_roles.hpp; with the trigger function of the table (sql/05-roles.sql). Each session keeps what is
// in the table, since policies ask for each row: it is read anew when the trigger says that it has changed.
#include "ledger/known_roles.hpp"

#include "bridge/entry.hpp"
#include "bridge/spi.hpp"
#include "ledger/as_ledger.hpp"
#include "ledger/roles.hpp"

extern "C" {
#include "access/xlog.h"
#include "commands/trigger.h"
#include "utils/inval.h"
}

namespace portage::ledger {
namespace {

using bridge::Error;
using bridge::guarded;
using bridge::param;
using bridge::param_oid;
using bridge::Statement;

// No destructor: what is kept ends with the process.
constinit std::vector<Oid>* trusted = nullptr;
constinit bool foreign = false;
constinit bool watching = false;
constinit Oid read_from = InvalidOid;  ///< the table, while what is kept is what it says

void forget(Datum, Oid table) {
  if (!OidIsValid(table) || table == read_from) read_from = InvalidOid;
}

struct Known {
  Oid role;
  bool gone, ours;
};

struct Table {
  Known* rows;
  int count;
};

/// What is committed at this moment, whatever snapshot the transaction has: it is kept beyond its end.
Table read_raw(Oid table) {
  Relation relation = table_open(table, AccessShareLock);
  read_from = table;  // from here on a change makes it invalid again
  AttrNumber role = get_attnum(table, "role"), gone = get_attnum(table, "gone"),
             cluster = get_attnum(table, "cluster");
  Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
  TableScanDesc scan = table_beginscan(relation, snapshot, 0, nullptr);
  TupleTableSlot* slot = table_slot_create(relation, nullptr);
  int capacity = 16;
  Table found{static_cast<Known*>(palloc(sizeof(Known) * capacity)), 0};
  while (table_scan_getnextslot(scan, ForwardScanDirection, slot)) {
    if (found.count == capacity)
      found.rows = static_cast<Known*>(repalloc(found.rows, sizeof(Known) * (capacity *= 2)));
    bool null;
    found.rows[found.count++] = {DatumGetObjectId(slot_getattr(slot, role, &null)),
                                 DatumGetBool(slot_getattr(slot, gone, &null)),
                                 DatumGetInt64(slot_getattr(slot, cluster, &null)) == this_cluster()};
  }
  ExecDropSingleTupleTableSlot(slot);
  table_endscan(scan);
  UnregisterSnapshot(snapshot);
  table_close(relation, AccessShareLock);
  return found;
}

void read() {
  if (OidIsValid(read_from)) return;
  if (!watching) {
    guarded([] { CacheRegisterRelcacheCallback(forget, 0); });
    watching = true;
    trusted = new std::vector<Oid>;
  }
  ledger_owner();  // says what is missing where there is no ledger
  Oid table = guarded([] { return get_relname_relid("known_roles", get_namespace_oid("portage", false)); });
  Table found;
  try {
    found = guarded(read_raw, table);
  } catch (const Error&) {
    read_from = InvalidOid;
    throw;
  }
  trusted->clear();
  std::set<Oid> gone;
  foreign = false;
  for (const Known* k = found.rows; k < found.rows + found.count; k++) {
    foreign = foreign || !k->ours;
    if (k->gone) gone.insert(k->role);
  }
  for (const Known* k = found.rows; k < found.rows + found.count && !foreign; k++)
    if (!gone.count(k->role)) trusted->push_back(k->role);
  pfree(found.rows);
  std::sort(trusted->begin(), trusted->end());
}

Error not_ours() {
  return Error(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "the ledger names roles of another cluster")
      .detail("It, or a part of it, was restored here: its oids of roles mean others, or nobody.")
      .hint(
          "A superuser sees by SELECT * FROM portage.adopt_roles(); who they would be here, and has them "
          "adopted by SELECT * FROM portage.adopt_roles(confirm => true);");
}

}  // namespace

int64_t this_cluster() { return static_cast<int64_t>(GetSystemIdentifier()); }

bool is_trusted(Oid role) {
  read();
  return std::binary_search(trusted->begin(), trusted->end(), role);
}

bool is_foreign() {
  read();
  return foreign;
}

void know_role(Oid role) {
  if (is_trusted(role)) return;
  if (is_foreign()) throw not_ours();
  std::string name = user_name(role);
  refresh_known_roles();  // another role may have been called so until now
  AsLedger as;
  static const Statement named("SELECT FROM portage.recorded_roles WHERE role = $1 LIMIT 1");
  bool recorded = !named({param_oid(role)}).empty();
  read_from = InvalidOid;
  if (is_trusted(role)) return;    // another session has named it at this moment
  if (recorded) throw not_ours();  // restored without the row that says of which cluster it is
  static const Statement insert(
      "INSERT INTO portage.known_roles (role, name, cluster) VALUES ($1, $2::name, $3)");
  insert({param_oid(role), param(name), param(this_cluster())});
}

void refuse_foreign(bool superusers_too) {
  if (is_foreign() && (superusers_too || !guarded([] { return superuser(); }))) throw not_ours();
}

Error role_is_gone(const std::string& message, const std::string& hint) {
  if (is_foreign()) return not_ours();
  return Error(ERRCODE_UNDEFINED_OBJECT, message).hint(hint);
}

Error owner_is_gone(const std::string& pipeline) {
  return role_is_gone("the owner of pipeline \"" + pipeline + "\" does not exist any more",
                      "A superuser gives it to another role: SELECT portage.transfer_pipeline(" +
                          bridge::quoted_literal(pipeline) + ", role);");
}

void refresh_known_roles() {
  if (XactReadOnly) return;
  AsLedger as;
  static const Statement news(
      "SELECT FROM portage.known_roles k LEFT JOIN pg_roles r ON r.oid = k.role WHERE NOT k.gone AND "
      "k.cluster = $1 AND k.name IS DISTINCT FROM r.rolname LIMIT 1");
  if (news.run(this_cluster()).empty()) return;
  static const Statement update(
      "UPDATE portage.known_roles k SET name = coalesce(n.rolname, k.name), gone = n.rolname IS NULL FROM "
      "(SELECT o.ctid AS place, r.rolname FROM portage.known_roles o LEFT JOIN pg_roles r ON r.oid = o.role "
      "WHERE NOT o.gone AND o.cluster = $1 AND o.name IS DISTINCT FROM r.rolname FOR UPDATE OF o SKIP "
      "LOCKED) n WHERE k.ctid = n.place");
  update.run(this_cluster());
}

int64_t count_orphans() {
  AsLedger as;
  // Runs are looked through only where a role is gone: there may be millions, and there is no index.
  static const Statement select(
      "WITH lost AS (SELECT k.role FROM portage.known_roles k GROUP BY k.role HAVING bool_or(k.gone) OR "
      "bool_or(k.cluster <> $1)), few AS (SELECT p.owner AS role FROM portage.pipelines p UNION ALL SELECT "
      "s.role_oid FROM portage.schedule_rows s UNION ALL SELECT g.role_oid FROM portage.run_groups g WHERE "
      "g.status IN ('running', 'rolling_back')) "
      "SELECT (SELECT count(*) FROM few f WHERE f.role IN (TABLE lost) OR NOT EXISTS (SELECT FROM "
      "portage.known_roles k WHERE k.role = f.role)) + CASE WHEN EXISTS (TABLE lost) THEN (SELECT count(*) "
      "FROM portage.migration_runs r WHERE r.role_oid IN (TABLE lost) AND r.status <> 'rolled_back' AND "
      "r.purged_at IS NULL) ELSE 0 END");
  return select.run(this_cluster()).bigint(0, 1);
}

}  // namespace portage::ledger

using namespace portage;

// Raw: there is nothing in it that could throw.
extern "C" {
PG_FUNCTION_INFO_V1(portage_known_roles_changed);
PGDLLEXPORT Datum portage_known_roles_changed(PG_FUNCTION_ARGS) {
  if (!CALLED_AS_TRIGGER(fcinfo)) elog(ERROR, "not called as a trigger");
  CacheInvalidateRelcache(reinterpret_cast<TriggerData*>(fcinfo->context)->tg_relation);
  return PointerGetDatum(nullptr);
}
}
