// See owners.hpp.
#include "ledger/owners.hpp"

#include "ledger/as_ledger.hpp"

extern "C" {
#include "utils/backend_status.h"
}

namespace portage::ledger {

bridge::Param statement_begin() {
  bool seen = MyBEEntry && MyBEEntry->st_state == STATE_RUNNING && MyBEEntry->st_activity_start_timestamp;
  if (!seen) return bridge::param_null(TIMESTAMPTZOID);
  return {TIMESTAMPTZOID, TimestampTzGetDatum(MyBEEntry->st_activity_start_timestamp), false};
}

Owners living_owners() {
  AsLedger as;
  // After a restore beside the original the oid may be another table's: the name decides where it is known.
  static const bridge::Statement select(
      "SELECT DISTINCT o.pid, coalesce(c.oid, v.target_oid) FROM ("
      "SELECT r.owner_pid AS pid, r.pipeline_id, r.pipeline_version FROM portage.migration_runs r WHERE "
      "r.status IN ('running', 'verifying', 'rolling_back') AND portage.run_owner_alive(r) "
      "UNION ALL "
      "SELECT g.owner_pid, r.pipeline_id, r.pipeline_version "
      "FROM portage.migration_runs r JOIN portage.migration_ranges g ON g.run_id = r.id AND NOT g.done "
      "WHERE r.status = 'running' AND portage.owner_alive(g.owner_pid, g.owner_started_at, "
      "g.owner_statement_at, g.lease_expires)) o "
      "JOIN portage.pipeline_versions v ON v.pipeline_id = o.pipeline_id AND v.version = o.pipeline_version "
      "LEFT JOIN pg_namespace n ON n.nspname = v.target_schema "
      "LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = v.target_name");
  bridge::Result rows = select();
  std::set<int32_t> pids;
  std::set<Oid> targets;
  for (size_t i = 0; i < rows.size(); i++) {
    pids.insert(rows.integer(i, 1));
    targets.insert(rows.oid(i, 2));
  }
  return {{pids.begin(), pids.end()}, {targets.begin(), targets.end()}};
}

}  // namespace portage::ledger
