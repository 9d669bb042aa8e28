// See background.hpp; with the SQL-callable functions start, wait and what a worker itself calls
// (sql/32-background.sql).
#include "run/background.hpp"

#include "bridge/background.hpp"
#include "bridge/codes.hpp"
#include "bridge/entry.hpp"
#include "bridge/subxact.hpp"
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

/// Why a background worker cannot connect as that role, if it cannot.
std::optional<Error> no_connection(const ledger::Role& role) {
  Oid oid = role.oid;
  if (!OidIsValid(oid))
    return Error(ERRCODE_UNDEFINED_OBJECT, "role \"" + role.name + "\" does not exist any more");
  std::string who = "a background worker cannot connect as role \"" + role.name + "\"";
  if (!may_log_in(oid))
    return Error(ERRCODE_FEATURE_NOT_SUPPORTED, who)
        .detail("Before PostgreSQL 17 it connects as a role with LOGIN only.");
  if (bridge::guarded([=] { return bridge::database_connect_missing(MyDatabaseId, oid); }))
    return Error(ERRCODE_INSUFFICIENT_PRIVILEGE, who).detail("The role may not connect to this database.");
  return std::nullopt;
}

/// As whom a background worker connects to work as a role, to which it does SET ROLE where that is another
/// one. As the role itself wherever that can connect: SET ROLE alone keeps nobody from taking it back. Else
/// as the role that stood behind it when it asked for the work.
struct Connection {
  Oid session = InvalidOid;
  std::optional<Error> obstacle;  ///< who cannot be reached is not called again and again
};

Connection connection_for(const ledger::Role& role, const ledger::Role& behind) {
  Connection found{role.oid, no_connection(role)};
  if (!found.obstacle || !OidIsValid(role.oid) || !OidIsValid(behind.oid) || behind.oid == role.oid)
    return found;
  Oid to = role.oid, from = behind.oid;
  found = {from, no_connection(behind)};
  if (!found.obstacle && !bridge::guarded([=] { return bridge::can_set_role(from, to); }))
    found.obstacle =
        Error(ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied to act as role \"" + role.name + "\"")
            .detail("Role \"" + behind.name +
                    "\", as which a background worker would connect, may not set that role.");
  return found;
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
  bool recorded = false;  // then a retry() may have come since, and is not to be put down
  std::optional<Error> error = bridge::committing([&] { run_here(id, false, &recorded); });
  if (!error) return;
  if (bridge::is_interrupt(error->code())) throw *error;  // not the run's fault
  // Somebody was faster: to take the run, or to pause or end it.
  bool outrun = error->code() == codes::run_in_progress || error->code() == codes::stale_owner ||
                (error->code() == codes::wrong_state && !waits(*ledger::find_run(id)));
  if (!outrun && !recorded) put_down(id, *error);
  bridge::commit();
  if (!outrun || error->code() == codes::stale_owner) throw *error;
}

void send_worker(const ledger::Run& run) {
  Oid role = role_of(run);
  Connection connection = connection_for(run.role, run.session_role);
  if (connection.obstacle)
    throw connection.obstacle->hint(
        format("CALL portage.run(%lld); works it off in your own session.", static_cast<long long>(run.id)));
  ledger::want_worker(run.id);
  bridge::launch_at_commit({MyDatabaseId, connection.session, role, run.id, false});
}

void start(int64_t id) {
  ledger::Run run = run_to_change(id);
  if (!waits(run)) move(run.id, run.status, "queued", "queued");
  send_worker(run);
}

void send_helpers(const ledger::Run& run, int count) {
  Oid role = role_of(run);
  Connection connection = connection_for(run.role, run.session_role);
  if (connection.obstacle) return;
  while (count-- > 0 && bridge::launch_now({MyDatabaseId, connection.session, role, run.id, true})) {
  }
}

void send_waiting_workers(bool own_only, bool often) {
  Oid me = GetUserId();
  bool admin = !own_only || ledger::is_admin(me);
  int64_t pause = often ? 2000 : 0, sent = 0;
  for (const ledger::WaitingRun& run : ledger::waiting_runs(pause)) {
    Connection connection = connection_for(run.role, run.session_role);
    if (connection.obstacle) continue;
    if (!admin && !ledger::acts_for(me, run.role.oid)) continue;
    if (!ledger::take_waiting_run(run.id, pause)) continue;
    bridge::launch_at_commit({MyDatabaseId, connection.session, run.role.oid, run.id, false});
    if (++sent == many_waiting) break;
  }
}

bool leave_to_others(const ledger::Role& role, const ledger::Role& behind, Heartbeat heartbeat) {
  constexpr int pause = 2000;  // milliseconds: it may take a worker that long to come to it
  static auto* asked = new std::map<Oid, TimestampTz>();
  Oid me = GetUserId(), oid = role.oid;
  if (oid == me) return false;
  if (!OidIsValid(oid)) return !superuser();  // that it is gone has to be told, by whoever may
  if (!bridge::guarded([=] { return bridge::can_set_role(me, oid); })) return true;
  if (heartbeat == Heartbeat::all) return false;
  Connection connection = connection_for(role, behind);
  if (connection.obstacle) return false;
  TimestampTz now = GetCurrentTimestamp(), &last = (*asked)[oid];
  if (!TimestampDifferenceExceeds(last, now, pause)) return true;
  last = now;
  bridge::launch_at_commit({MyDatabaseId, connection.session, oid, 0, false});
  bridge::commit();
  return true;
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
  int64_t id = 0;
  for (const ledger::WaitingRun& run : ledger::waiting_runs(0)) {
    // What a run has left behind in this process may meet runs of the same role only.
    if (run.role.oid != GetUserId()) continue;
    Connection connection = connection_for(run.role, run.session_role);
    if (connection.obstacle || connection.session != GetSessionUserId()) continue;
    if (!ledger::take_waiting_run(run.id, 0)) continue;
    id = run.id;
    break;
  }
  spi.finish();
  fcinfo->isnull = id == 0;
  return Int64GetDatum(id);
}
