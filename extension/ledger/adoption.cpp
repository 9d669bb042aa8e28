// adopt_roles() (sql/64-roles.sql): a ledger that was restored from another cluster, or in part, names roles
// by oids that mean others here. Each becomes the role that has its name, if exactly one of them had it;
// every other one gets an oid that no role has, and is gone.
#include "bridge/entry.hpp"
#include "ledger/as_ledger.hpp"
#include "ledger/known_roles.hpp"
#include "ledger/roles.hpp"

extern "C" {
#include "catalog/catalog.h"
#include "catalog/pg_authid_d.h"
}

namespace portage::ledger {
namespace {

using bridge::Error;
using bridge::execute;
using bridge::param;
using bridge::param_int8_array;
using bridge::Result;

/// Where roles are recorded, as in the view recorded_roles.
struct Place {
  const char *table, *column;
  bool in_key;  ///< of a unique key: two roles that change their oids must not meet there
};
constexpr Place places[] = {
    {"pipelines", "owner", true},
    {"pipeline_versions", "author", false},
    {"pipeline_grants", "role_oid", true},
    {"pipeline_grants", "owner", false},
    {"pipeline_grants", "grantor", false},
    {"migration_runs", "role_oid", false},
    {"migration_runs", "session_role_oid", false},
    {"schedule_rows", "role_oid", false},
    {"schedule_rows", "session_role_oid", false},
    {"run_groups", "role_oid", false},
};

/// Every role whose oid cannot be trusted: its old oid, name, the oid here (null: nobody's), why it is
/// nobody's, and how many pipelines, grants, runs and schedules name it. $1: this cluster.
constexpr const char* matches =
    "WITH recorded AS (SELECT r.role, r.kind, r.name, count(*) AS times FROM portage.recorded_roles r GROUP "
    "BY "
    "1, 2, 3), known AS (SELECT k.role, min(k.name::text)::name AS name, min(k.name::text) <> "
    "max(k.name::text) AS many, bool_or(k.gone) AS gone, bool_or(k.cluster = $1) AS ours, bool_or(k.cluster "
    "<> $1) AS foreign FROM portage.known_roles k GROUP BY 1), "
    "unknown AS (SELECT d.role, min(d.name::text)::name AS name, min(d.name::text) <> max(d.name::text) AS "
    "many, false AS gone, false AS ours, true AS foreign FROM recorded d WHERE NOT EXISTS (SELECT FROM known "
    "k WHERE k.role = d.role) GROUP BY 1), "
    "old AS (SELECT o.*, CASE WHEN o.foreign AND o.ours THEN 'its oid is that of a role of this cluster, "
    "too' "
    "WHEN o.gone THEN 'it was gone before' WHEN o.many THEN 'it has had several names' END AS why FROM "
    "(TABLE known UNION ALL TABLE unknown) o WHERE o.foreign OR (o.gone AND EXISTS (SELECT FROM pg_roles r "
    "WHERE r.oid = o.role))), "
    "judged AS (SELECT o.role, o.name, r.oid, coalesce(o.why, CASE WHEN (SELECT count(*) FROM old p WHERE "
    "p.name = o.name AND p.why IS NULL) > 1 THEN 'several roles had this name' WHEN r.oid IS NULL THEN 'no "
    "role has this name' END) AS why FROM old o LEFT JOIN pg_roles r ON r.rolname = o.name) "
    "SELECT j.role, j.name, CASE WHEN j.why IS NULL THEN j.oid END, j.why, n.pipelines, n.grants, n.runs, "
    "n.schedules FROM judged j CROSS JOIN LATERAL (SELECT "
    "coalesce(sum(d.times) FILTER (WHERE d.kind = 'pipeline'), 0)::bigint AS pipelines, "
    "coalesce(sum(d.times) FILTER (WHERE d.kind = 'grant'), 0)::bigint AS grants, "
    "coalesce(sum(d.times) FILTER (WHERE d.kind = 'run'), 0)::bigint AS runs, "
    "coalesce(sum(d.times) FILTER (WHERE d.kind = 'schedule'), 0)::bigint AS schedules "
    "FROM recorded d WHERE d.role = j.role) n ORDER BY j.name, j.role";

/// An oid that no role has and the ledger does not name.
Oid nobodys(const std::set<int64_t>& named) {
  for (;;) {
    Oid oid = bridge::guarded([] {
      Relation roles = table_open(AuthIdRelationId, AccessShareLock);
      Oid fresh = GetNewOidWithIndex(roles, AuthIdOidIndexId, Anum_pg_authid_oid);
      table_close(roles, AccessShareLock);
      return fresh;
    });
    if (!named.count(oid)) return oid;
  }
}

using Oids = std::vector<int64_t>;

void replace(const Place& place, const Oids& from, const Oids& to) {
  execute(
      bridge::format("UPDATE portage.%1$s t SET %2$s = m.new FROM unnest($1::oid[], $2::oid[]) AS m (old, "
                     "new) WHERE t.%2$s = m.old",
                     place.table, place.column),
      {param_int8_array(from), param_int8_array(to)});
}

void adopt(const Result& roles) {
  std::set<int64_t> named;
  Result all =
      execute("SELECT r.role FROM portage.recorded_roles r UNION SELECT k.role FROM portage.known_roles k");
  for (size_t i = 0; i < all.size(); i++) named.insert(all.oid(i, 1));
  Oids from, between, to, gone;
  std::vector<std::string> names;
  for (size_t i = 0; i < roles.size(); i++) {
    from.push_back(roles.oid(i, 1));
    names.push_back(roles.text(i, 2));
    between.push_back(nobodys(named));
    named.insert(between.back());
    bool lost = roles.is_null(i, 3);
    to.push_back(lost ? between.back() : roles.oid(i, 3));
    gone.push_back(lost);
  }
  for (const Place& place : places) {
    if (place.in_key) replace(place, from, between);
    replace(place, place.in_key ? between : from, to);
  }
  // What this cluster is known by here, a role that was found may be already.
  execute("DELETE FROM portage.known_roles WHERE cluster <> $1 OR role = ANY ($2::oid[])",
          {param(this_cluster()), param_int8_array(from)});
  execute(
      "INSERT INTO portage.known_roles (role, name, gone, cluster) SELECT m.role, m.name::name, m.gone = 1, "
      "$4 "
      "FROM unnest($1::oid[], $2::text[], $3::int8[]) AS m (role, name, gone) WHERE NOT EXISTS (SELECT FROM "
      "portage.known_roles k WHERE k.role = m.role)",
      {param_int8_array(to), bridge::param_text_array(names), param_int8_array(gone), param(this_cluster())});
  bridge::notice(bridge::format("portage: roles of the ledger adopted: %zu, gone: %zu", gone.size(),
                                static_cast<size_t>(std::count(gone.begin(), gone.end(), 1))),
                 "", LOG);
}

void put_row_raw(ReturnSetInfo* set, HeapTuple row, TupleDesc shape) {
  // role, name, oid, why, and the four numbers; what is returned begins with the name.
  constexpr int order[] = {2, 1, 3, 4, 5, 6, 7, 8};
  Datum values[8];
  bool nulls[8];
  for (int i = 0; i < 8; i++) values[i] = SPI_getbinval(row, shape, order[i], &nulls[i]);
  tuplestore_putvalues(set->setResult, set->setDesc, values, nulls);
}

}  // namespace
}  // namespace portage::ledger

using namespace portage;

PORTAGE_FUNCTION(portage_adopt_roles) {
  if (!bridge::guarded([] { return superuser(); }))
    throw bridge::Error(ERRCODE_INSUFFICIENT_PRIVILEGE, "must be superuser to adopt roles")
        .detail("Roles of the ledger become roles of this cluster, with all that belongs to them.");
  bool confirm = PG_GETARG_BOOL(0);
  bridge::guarded([=] { InitMaterializedSRF(fcinfo, 0); });
  auto* set = reinterpret_cast<ReturnSetInfo*>(fcinfo->resultinfo);
  bridge::Spi spi;
  ledger::refresh_known_roles();
  {
    ledger::AsLedger as;
    if (confirm) bridge::execute("LOCK TABLE portage.known_roles IN SHARE ROW EXCLUSIVE MODE");
    bridge::Result roles = bridge::execute(ledger::matches, {bridge::param(ledger::this_cluster())});
    for (size_t i = 0; i < roles.size(); i++) {
      HeapTuple row = roles.tuple(i);
      TupleDesc shape = roles.shape();
      bridge::guarded(ledger::put_row_raw, set, row, shape);
    }
    if (confirm && !roles.empty()) ledger::adopt(roles);
  }
  spi.finish();
  return 0;
}
