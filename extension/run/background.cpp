// See background.hpp; with the SQL-callable functions start, wait and what a worker itself calls
// (sql/32-background.sql).
#include "run/background.hpp"

#include "bridge/background.hpp"
#include "bridge/codes.hpp"
#include "bridge/entry.hpp"
#include "pipeline/error_class.hpp"
#include "run/access.hpp"
#include "run/arguments.hpp"
#include "run/entry_points.hpp"
#include "run/states.hpp"

namespace portage::run {

using bridge::Error;
using bridge::format;

namespace {

constexpr int64_t many_waiting = 64;

bool may_log_in(Oid role) {
  return !bridge::worker_needs_login || bridge::guarded([=] {
    HeapTuple tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
    if (!HeapTupleIsValid(tuple)) return false;
    bool login = (reinterpret_cast<Form_pg_authid>(GETSTRUCT(tuple)))->rolcanlogin;
    ReleaseSysCache(tuple);
    return login;
  });
}

/// Why a background worker could not work on the run: who cannot be reached is not called again and again.
std::optional<Error> obstacle(const ledger::WaitingRun& run, Oid session, Oid role) {
  if (!OidIsValid(session))
    return Error(ERRCODE_UNDEFINED_OBJECT, "role \"" + run.session_role + "\", which opened run " +
                                               std::to_string(run.id) + ", does not exist any more");
  if (!OidIsValid(role))
    return Error(ERRCODE_UNDEFINED_OBJECT, "role \"" + run.role_name + "\" of run " + std::to_string(run.id) +
                                               " does not exist any more");
  std::string who = "a background worker cannot connect as role \"" + run.session_role + "\"";
  if (!may_log_in(session))
    return Error(ERRCODE_FEATURE_NOT_SUPPORTED, who)
        .detail("Before PostgreSQL 17 it connects as a role with LOGIN only.");
  if (bridge::guarded([=] { return bridge::database_connect_missing(MyDatabaseId, session); }))
    return Error(ERRCODE_INSUFFICIENT_PRIVILEGE, who).detail("The role may not connect to this database.");
  if (!bridge::guarded([=] { return bridge::can_set_role(session, role); }))
    return Error(ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied to act as role \"" + run.role_name + "\"")
        .detail("Role \"" + run.session_role + "\", which opened run " + std::to_string(run.id) +
                " and as which a background worker would connect, may not set that role.");
  return std::nullopt;
}

/// The run cannot be taken: it says so itself, since nobody is there to be told.
void put_down(int64_t id, const Error& error) {
  ledger::Run run = *ledger::find_run(id);
  if (!waits(run) || !may_become(run.status, "failed")) return;
  std::string code = error.sqlstate(), text = error.message();
  if (!error.report().detail.empty()) text += "\n" + error.report().detail;
  move(id, run.status, "failed", "migration_failed", "{\"code\": \"" + code + "\"}");
  ledger::finish_run(id, "failed", text, std::string(error_class("", code)), code);
}

}  // namespace

bool waits(const ledger::Run& run) {
  if (run.status == "queued") return true;
  return in_work(run.status) && !run.owner_alive && (run.background || run.owner_pid);
}

void work_off_waiting(int64_t id) {
  if (!waits(run_to_change(id))) return;
  try {
    run_here(id, false);
  } catch (const Error& error) {
    bridge::rollback();
    // Somebody was faster: to take the run, or to pause or end it.
    bool outrun = error.code() == codes::run_in_progress || error.code() == codes::stale_owner ||
                  (error.code() == codes::wrong_state && !waits(*ledger::find_run(id)));
    if (!outrun) put_down(id, error);
    bridge::commit();
    if (!outrun || error.code() == codes::stale_owner) throw;
  }
}

void send_worker(const ledger::Run& run) {
  Oid role = role_of(run), session = ledger::role_named(run.session_role);
  if (std::optional<Error> error = obstacle({run.id, run.session_role, run.role_name}, session, role))
    throw error->hint(
        format("CALL portage.run(%lld); works it off in your own session.", static_cast<long long>(run.id)));
  ledger::want_worker(run.id);
  bridge::launch_at_commit({MyDatabaseId, session, role, run.id, false});
}

void start(int64_t id) {
  ledger::Run run = run_to_change(id);
  if (!waits(run)) move(run.id, run.status, "queued", "queued");
  send_worker(run);
}

void send_helpers(const ledger::Run& run, int count) {
  Oid role = role_of(run), session = ledger::role_named(run.session_role);
  if (obstacle({run.id, run.session_role, run.role_name}, session, role)) return;
  while (count-- > 0 && bridge::launch_now({MyDatabaseId, session, role, run.id, true})) {
  }
}

void send_waiting_workers(bool own_only, bool often) {
  Oid me = GetUserId();
  bool admin = !own_only || ledger::is_admin(me);
  int64_t pause = often ? 2000 : 0, sent = 0;
  for (const ledger::WaitingRun& run : ledger::waiting_runs(std::nullopt, pause)) {
    Oid role = ledger::role_named(run.role_name), session = ledger::role_named(run.session_role);
    if (obstacle(run, session, role)) continue;
    if (!admin && !ledger::acts_for(me, role)) continue;
    if (!ledger::take_waiting_run(run.id, pause)) continue;
    bridge::launch_at_commit({MyDatabaseId, session, role, run.id, false});
    if (++sent == many_waiting) break;
  }
}

}  // namespace portage::run

using namespace portage;
using namespace portage::run;

PORTAGE_FUNCTION(portage_start) {
  Arguments a(fcinfo);
  bridge::Spi spi;
  start(a.run_or_latest(0));
  spi.finish();
  return 0;
}

PORTAGE_FUNCTION(portage_wait) {
  Arguments a(fcinfo);
  bridge::require_nonatomic(fcinfo, "wait", "", "while it works");
  bridge::Spi spi(true);
  int64_t id = a.run_or_latest(0);
  std::optional<double> seconds = a.maybe_seconds(1);
  auto start = std::chrono::steady_clock::now();
  std::string status;
  for (;;) {
    ledger::Run run = run_to_read(id);
    status = run.status;
    bool active = status == "queued" || in_work(status);
    if (status == "pending")
      throw Error(codes::wrong_state,
                  bridge::format("run %lld has not been started", static_cast<long long>(id)))
          .hint(bridge::format("SELECT portage.start(%lld);", static_cast<long long>(id)));
    if (active && !run.owner_alive && !waits(run)) {
      bridge::notice(bridge::format("run %lld is interrupted", static_cast<long long>(id)),
                     bridge::format("CALL portage.run(%lld) resumes it.", static_cast<long long>(id)));
      break;
    }
    if (!active) break;
    double waited = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (seconds && waited >= *seconds) break;
    send_waiting_workers(true, true);
    bridge::commit();
    bridge::nap(100);
  }
  spi.finish();
  return inout(fcinfo, bridge::text_datum(status));
}

PORTAGE_FUNCTION(portage_run_in_background) {
  Arguments a(fcinfo);
  bridge::require_nonatomic(fcinfo, "run_in_background");
  bridge::Spi spi(true);
  work_off_waiting(a.run(0));
  spi.finish();
  return 0;
}

PORTAGE_FUNCTION(portage_work) {
  Arguments a(fcinfo);
  bridge::require_nonatomic(fcinfo, "work");
  bridge::Spi spi(true);
  ledger::Run run = run_to_change(a.run(0));
  help(run);
  spi.finish();
  return 0;
}

PORTAGE_FUNCTION(portage_next_waiting_run) {
  bridge::Spi spi;
  Oid session = GetSessionUserId(), role = InvalidOid;
  int64_t id = 0;
  for (const ledger::WaitingRun& run : ledger::waiting_runs(ledger::session_user_name(), 0)) {
    role = ledger::role_named(run.role_name);
    if (obstacle(run, session, role) || !ledger::take_waiting_run(run.id, 0)) continue;
    id = run.id;
    break;
  }
  spi.finish();
  return bridge::guarded([=] {
    TupleDesc shape;
    if (get_call_result_type(fcinfo, nullptr, &shape) != TYPEFUNC_COMPOSITE)
      elog(ERROR, "unexpected result type");
    Datum values[] = {Int64GetDatum(id), ObjectIdGetDatum(role)};
    bool nulls[] = {id == 0, id == 0};
    return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(shape), values, nulls));
  });
}
