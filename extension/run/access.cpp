// See access.hpp.
#include "run/access.hpp"

#include "bridge/codes.hpp"
#include "ledger/known_roles.hpp"
#include "ledger/retention.hpp"

extern "C" {
#include "common/hashfn.h"
#include "utils/fmgrprotos.h"
}

namespace portage::run {
namespace {

using bridge::Error;

Error unknown(int64_t id) {
  ledger::refuse_foreign();
  return Error(codes::unknown_run, bridge::format("there is no run %lld", static_cast<long long>(id)))
      .hint("SELECT run_id, pipeline, status FROM portage.progress; lists the runs that you may see.");
}

bool visible(int64_t id) {
  // row level security of migration_runs says it, as the current user
  static const bridge::Statement select(
      "SELECT FROM portage.migration_runs WHERE id OPERATOR(pg_catalog.=) $1");
  return !select.run(id).empty();
}

bool changes(const ledger::Run& run) {
  return ledger::is_admin(GetUserId()) || ledger::acts_for(GetUserId(), run.role.oid);
}

}  // namespace

int64_t lock_key(int64_t number, const std::string& text) {
  return static_cast<int64_t>(
      hash_bytes_extended(reinterpret_cast<const unsigned char*>(text.data()), static_cast<int>(text.size()),
                          static_cast<uint64>(number) ^ UINT64CONST(0x706f7274616765)));
}

ledger::Run run_to_read(int64_t id) {
  std::optional<ledger::Run> run = ledger::find_run(id);
  if (!run || !(changes(*run) || visible(id))) throw unknown(id);
  require_scope(run->scope);
  return *run;
}

ledger::Run run_to_change(int64_t id) {
  ledger::Run run = run_to_read(id);
  if (!changes(run))
    throw Error(ERRCODE_INSUFFICIENT_PRIVILEGE,
                bridge::format("permission denied for run %lld", static_cast<long long>(id)))
        .detail("The run belongs to role \"" + run.role.name + "\".")
        .hint("Only that role, its members and members of portage.admin_role may change it.");
  return run;
}

bool sees_raw(int64_t id) {
  // The operator by its full name: one of the caller's own could make this another run.
  bridge::Result visible = bridge::execute(
      "SELECT sensitive IS NULL FROM portage.visible_runs WHERE run_id OPERATOR(pg_catalog.=) $1",
      {bridge::param(id)});
  return !visible.empty() && visible.boolean(0, 1);
}

Oid role_of(const ledger::Run& run) {
  Oid role = run.role.oid, me = GetUserId();
  if (!OidIsValid(role))
    throw ledger::role_is_gone(
        "role \"" + run.role.name + "\" of run " + std::to_string(run.id) + " does not exist any more",
        "A superuser gives the run to another role: SELECT portage.transfer_run(" + std::to_string(run.id) +
            ", role);");
  if (role != me && !bridge::guarded([=] { return bridge::can_set_role(me, role); }))
    throw Error(ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied to act as role \"" + run.role.name + "\"")
        .detail("A run accesses its sources and target as the role that opened it, whoever continues it.")
        .hint("GRANT " + bridge::quoted(run.role.name) + " to yourself, or let that role continue the run.");
  return role;
}

void refuse_purged(int64_t id) {
  if (!ledger::purged(id)) return;
  throw Error(codes::wrong_state, bridge::format("run %lld was purged", static_cast<long long>(id)))
      .detail("Nothing is known of its items any more.")
      .hint("The mappings are still known: an import finds what has changed.");
}

void require_key(const Plan& plan, int64_t run_id) {
  if (!plan.target().ordinary() || OidIsValid(plan.target().key_index)) return;
  throw Error(codes::wrong_state, bridge::format("indexes of the target are missing since run %lld",
                                                 static_cast<long long>(run_id)))
      .detail("Rows are found by them.")
      .hint(
          bridge::format("CALL portage.restore_indexes(%lld); builds them.", static_cast<long long>(run_id)));
}

int64_t latest_run() {
  std::optional<int64_t> id = ledger::latest_run_of_role();
  if (!id) ledger::refuse_foreign();
  if (!id) throw Error(codes::unknown_run, "you have no run yet").hint("Open one: CALL portage.import(...).");
  return *id;
}

void refuse_second(int64_t pipeline_id, const std::optional<std::string>& scope) {
  std::optional<ledger::Run> active = ledger::find_active_run(pipeline_id, scope, -1);
  bridge::Settings plain_path;
  plain_path.set("search_path", "pg_catalog, pg_temp");
  bridge::Result holder = bridge::execute(
      "SELECT min(pid) FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND "
      "classid = ($1 >> 32 & 4294967295)::oid AND objid = ($1 & 4294967295)::oid AND pid <> pg_backend_pid() "
      "AND "
      "database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())",
      {bridge::param(lock_key(pipeline_id, scope.value_or("")))});
  bool works = active && active->owner_alive;
  std::optional<int> pid;
  if (works)
    pid = active->owner_pid;
  else if (!holder.is_null(0, 1))
    pid = holder.integer(0, 1);
  std::string which, status;
  if (active) {
    which = bridge::format("Run %lld of this pipeline and scope is ", static_cast<long long>(active->id));
    status = which + active->status + "; ";
  }
  Error error(codes::run_in_progress, "a migration is in progress");
  if (active && pid)
    throw error
        .detail((works ? which + "being worked on by process "
                       : status + "at this moment it is in the hands of process ") +
                std::to_string(*pid) + ".")
        .hint(bridge::format("Wait for it, or SELECT portage.cancel(%lld);",
                             static_cast<long long>(active->id)));
  if (pid)
    throw error.detail(bridge::format("Process %d migrates this pipeline and scope at this moment.", *pid))
        .hint("Try again when its transaction has ended.");
  // Whoever it was has let go since.
  throw error
      .detail(active ? status + "the process that had it in its hands is gone."
                     : "The process that migrated this pipeline and scope is gone.")
      .hint("Try again.");
}

namespace {

bool try_lock_key(int64_t number, bool exclusive) {
  Datum key = Int64GetDatum(number);
  return bridge::guarded([=] {
    return DatumGetBool(exclusive ? DirectFunctionCall1(pg_try_advisory_xact_lock_int8, key)
                                  : DirectFunctionCall1(pg_try_advisory_xact_lock_shared_int8, key));
  });
}

}  // namespace

bool try_lock(int64_t pipeline_id, const std::string& scope, bool exclusive) {
  return try_lock_key(lock_key(pipeline_id, scope), exclusive);
}

bool try_lock_target(Oid target, bool exclusive) {
  return try_lock_key(lock_key(target, "target"), exclusive);
}

SessionLock::SessionLock(int64_t pipeline_id, const std::string& scope)
    : key_(Int64GetDatum(lock_key(pipeline_id, scope))) {
  Datum key = key_;
  held_ = bridge::guarded([=] { return DatumGetBool(DirectFunctionCall1(pg_try_advisory_lock_int8, key)); });
}

static void unlock_raw(Datum key) { DirectFunctionCall1(pg_advisory_unlock_int8, key); }

SessionLock::~SessionLock() {
  if (!held_) return;
  if (bridge::unwinding()) {
    bridge::when_rolled_back(unlock_raw, key_);
    return;
  }
  Datum key = key_;
  try {
    bridge::guarded([=] { unlock_raw(key); });
  } catch (const Error&) {  // the session's end lets go of it
  }
}

}  // namespace portage::run
