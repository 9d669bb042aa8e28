// See transfers.hpp.
#include "ledger/transfers.hpp"

#include "bridge/codes.hpp"
#include "ledger/as_ledger.hpp"
#include "ledger/known_roles.hpp"

namespace portage::ledger {

using bridge::param;
using bridge::param_oid;
using bridge::Result;
using bridge::Statement;

std::vector<int64_t> lock_run_and_group(int64_t run_id) {
  AsLedger as;
  static const Statement lock(
      "SELECT FROM portage.run_groups WHERE id = (SELECT group_id FROM portage.migration_runs WHERE id = $1) "
      "FOR UPDATE");
  lock.run(run_id);
  static const Statement select(
      "SELECT r.id FROM portage.migration_runs r, portage.migration_runs o WHERE o.id = $1 AND (r.id = o.id "
      "OR r.group_id = o.group_id) ORDER BY r.id FOR NO KEY UPDATE OF r");
  Result rows = select.run(run_id);
  std::vector<int64_t> runs;
  for (size_t i = 0; i < rows.size(); i++) runs.push_back(rows.bigint(i, 1));
  return runs;
}

void give_run(int64_t run_id, const Role& to) {
  know_role(to.oid);
  AsLedger as;
  static const Statement run(
      "UPDATE portage.migration_runs SET role_oid = $2, role_name = $3::name, session_role_oid = $2, "
      "session_role = $3::name, owner_pid = NULL, owner_started_at = NULL, owner_statement_at = NULL, "
      "owner_lock = NULL, "
      "owner_lease = NULL WHERE id = $1");
  run({param(run_id), param_oid(to.oid), param(to.name)});
  static const Statement group(
      "UPDATE portage.run_groups SET role_oid = $2, role_name = $3::name WHERE id = (SELECT group_id FROM "
      "portage.migration_runs WHERE id = $1) AND role_oid <> $2");
  group({param(run_id), param_oid(to.oid), param(to.name)});
}

Role give_pipeline(int64_t id, const Role& to) {
  know_role(to.oid);
  AsLedger as;
  static const Statement former(
      "SELECT owner, owner_name::text, name FROM portage.pipelines WHERE id = $1 FOR UPDATE");
  Result row = former.run(id);
  if (row.empty()) throw bridge::Error(codes::unknown_pipeline, "pipeline was dropped meanwhile");
  static const Statement schedules(
      "UPDATE portage.schedule_rows SET role_oid = $2, role_name = $3::name, session_role_oid = $2, "
      "session_role = $3::name WHERE pipeline_id = $1 AND role_oid = $4");
  schedules({param(id), param_oid(to.oid), param(to.name), param_oid(row.oid(0, 1))});
  static const Statement grants("UPDATE portage.pipeline_grants SET owner = $2 WHERE pipeline_id = $1");
  grants({param(id), param_oid(to.oid)});
  static const Statement owner(
      "UPDATE portage.pipelines SET owner = $2, owner_name = $3::name WHERE id = $1");
  Role from = role_in(row, 0, 1);
  std::string name = row.text(0, 3);
  try {
    owner({param(id), param_oid(to.oid), param(to.name)});
  } catch (const bridge::Error& error) {
    if (error.code() != ERRCODE_UNIQUE_VIOLATION) throw;
    throw bridge::Error(ERRCODE_DUPLICATE_OBJECT,
                        "role \"" + to.name + "\" has a pipeline \"" + name + "\" already");
  }
  return from;
}

}  // namespace portage::ledger
