// See tick.hpp; with the SQL-callable procedure tick (sql/32-background.sql, 34-schedules.sql).
#include "schedule/tick.hpp"

#include "bridge/entry.hpp"
#include "bridge/json.hpp"
#include "bridge/subxact.hpp"
#include "group/moving.hpp"
#include "ledger/known_roles.hpp"
#include "ledger/pipelines.hpp"
#include "ledger/runs.hpp"
#include "ledger/schedules.hpp"
#include "ledger/scope.hpp"
#include "run/background.hpp"
#include "run/control.hpp"
#include "run/entry_points.hpp"
#include "run/parked.hpp"
#include "run/purge.hpp"
#include "run/states.hpp"
#include "schedule/cron_history.hpp"
#include "schedule/options.hpp"

namespace portage::schedule {

using bridge::Error;
using bridge::format;

namespace {

std::string shown(int64_t moment) {
  TimestampTz time = time_t_to_timestamptz(moment);
  const char* text = bridge::guarded([=] { return timestamptz_to_str(time); });
  return text;
}

/// One schedule, which nobody else has in hand, at a moment.
class Watch {
 public:
  Watch(ledger::Schedule& schedule, int64_t now)
      : s_(schedule),
        now_(now),
        options_(parse_options(schedule.options)),
        timetable_{parse_cron(schedule.cron), zone_named(schedule.timezone), options_.blackout,
                   options_.catch_up, options_.deadline} {}

  void look() {
    if (!s_.settled) look_after_last();
    if (s_.next_run && *s_.next_run <= now_) look_at_due_times();
  }

 private:
  bool active_run() const { return ledger::find_active_run(s_.pipeline_id, s_.scope, -1).has_value(); }

  void look_after_last() {
    bool again = s_.retry_at && *s_.retry_at <= now_ && !active_run();
    std::optional<ledger::Run> run = s_.last_run ? ledger::find_run(*s_.last_run) : std::nullopt;
    if (!s_.last_run) {
      if (again) begin();
    } else if (run && run->status == "failed") {
      if (!s_.retry_at) failed("");
      if (again) try_to([&] { run::retry(run->id); });
    } else if (run && (run->status == "queued" || run->status == "paused" || run::in_work(run->status))) {
      bool over = s_.cancel_at && *s_.cancel_at <= now_ && run->status != "paused" &&
                  run::may_become(run->status, "cancelled");
      if (!over) return;
      log(format("run %lld is cancelled: the deadline of its due time has passed",
                 static_cast<long long>(run->id)));
      try_to([&] { run::cancel(run->id); });
    } else {
      settle();
    }
  }

  void look_at_due_times() {
    Decision decision = decide(timetable_, {*s_.next_due, *s_.next_run}, now_, active_run(), s_.begun_at);
    s_.skipped_running += decision.running;
    s_.skipped_missed += decision.missed;
    s_.skipped_late += decision.late;
    if (decision.running) log(passed_over(decision.running, "a run is under way"));
    if (decision.missed) log(passed_over(decision.missed, "missed"));
    if (decision.late) log(passed_over(decision.late, "the deadline has passed"));
    s_.next_due = s_.next_run = std::nullopt;
    if (decision.next) {
      s_.next_due = decision.next->due;
      s_.next_run = decision.next->begin;
    }
    if (!decision.begun) return;
    s_.last_due = decision.begun->due;
    s_.begun_at = now_;
    s_.cancel_at.reset();
    if (options_.deadline) s_.cancel_at = decision.begun->begin + *options_.deadline;
    s_.attempts = 0;
    begin();
  }

  /// Opens a run as the schedule's owner and has it worked off in the background.
  void begin() {
    s_.last_run.reset();
    s_.settled = false;
    int64_t id = 0;
    try_to([&] {
      Oid role = existing(s_.role), session = existing(s_.session_role);
      std::string metadata = format("{\"schedule\": %lld, \"due_at\": ", static_cast<long long>(s_.id)) +
                             bridge::json_quoted(shown(*s_.last_due)) + "}";
      {
        bridge::AsUser as(role);
        id = run::open_run(ledger::find_pipeline(s_.pipeline_id, s_.pipeline, ledger::Need::run), s_.scope,
                           options_.run_options, std::nullopt, metadata, true, session);
      }
      run::attach_source(run::open_for_parts(id));
      run::start(id);
    });
    if (s_.settled || s_.retry_at) return;
    s_.last_run = id;
  }

  static Oid existing(const ledger::Role& role) {
    if (!OidIsValid(role.oid))
      throw Error(ERRCODE_UNDEFINED_OBJECT, "role \"" + role.name + "\" does not exist any more");
    return role.oid;
  }

  /// What fails leaves nothing behind but the reason.
  template <class F>
  void try_to(F&& f) {
    s_.retry_at.reset();
    std::optional<Error> error = bridge::attempt(f);
    if (error && bridge::is_interrupt(error->code())) throw *error;
    s_.last_error.reset();
    if (!error) return;
    const bridge::ErrorReport& report = error->report();
    failed(report.message + (report.detail.empty() ? "" : "\n" + report.detail));
  }

  /// `why`: "" if the run itself says it.
  void failed(const std::string& why) {
    if (!why.empty()) {
      s_.last_error = why;
      log(why);
    }
    std::optional<int64_t> retry;
    if (s_.attempts < options_.retry_attempts)
      retry = end_of_blackout(options_.blackout, timetable_.zone, now_ + retry_delay(s_.attempts + 1));
    if (!retry || (s_.cancel_at && *retry >= *s_.cancel_at)) return settle();
    s_.attempts++;
    s_.retry_at = retry;
  }

  void settle() {
    s_.settled = true;
    s_.retry_at.reset();
  }

  static std::string passed_over(int64_t count, const std::string& why) {
    return format("due times passed over: %lld (%s)", static_cast<long long>(count), why.c_str());
  }

  void log(const std::string& what) const {
    std::string whose = "portage: schedule of pipeline \"" + s_.pipeline + "\"";
    if (!s_.scope.empty()) whose += ", scope \"" + s_.scope + "\"";
    bridge::notice(whose + ": " + what, "", LOG);
  }

  ledger::Schedule& s_;
  int64_t now_;
  Options options_;
  Timetable timetable_;
};

}  // namespace

int64_t moment_of(TimestampTz time) {
  constexpr int64_t end_of_9999 = 253402300800;
  if (TIMESTAMP_NOT_FINITE(time) || timestamptz_to_time_t(time) >= end_of_9999)
    throw Error(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE, "no schedule looks beyond the year 9999");
  return timestamptz_to_time_t(time);
}

void look_after_schedules(int64_t now, run::Heartbeat heartbeat) {
  for (const ledger::ScheduleToSee& one : ledger::schedules_to_see(now)) {
    // Runs are opened as the owner, which takes more than administration.
    if (run::leave_to_others(one.role, one.session_role, heartbeat)) continue;
    std::optional<Error> error = bridge::transact([&] {
      std::optional<ledger::Schedule> schedule = ledger::take_schedule(one.id);
      if (!schedule) return;
      Watch(*schedule, now).look();
      ledger::note_schedule(*schedule);
    });
    if (!error) continue;
    if (bridge::is_interrupt(error->code())) throw *error;
    bridge::notice(format("portage: schedule %lld: ", static_cast<long long>(one.id)) + error->message(), "",
                   LOG);
  }
}

}  // namespace portage::schedule

using namespace portage;

PORTAGE_FUNCTION(portage_tick) {
  bridge::require_nonatomic(fcinfo, "tick", "", "while it works");
  bridge::Spi spi(true);
  ledger::require_all_scopes("the heartbeat");
  TimestampTz now = GetCurrentTimestamp();
  if (fcinfo->nargs > 0) {
    if (fcinfo->args[0].isnull)
      throw bridge::Error(ERRCODE_NULL_VALUE_NOT_ALLOWED, "argument \"now\" must not be null");
    now = DatumGetTimestampTz(fcinfo->args[0].value);
  }
  int64_t moment = schedule::moment_of(now);
  // With a clock of its own, which another process would not have, it does all itself.
  run::Heartbeat heartbeat = fcinfo->nargs > 0 ? run::Heartbeat::all : run::Heartbeat::own;
  schedule::look_after_schedules(moment, heartbeat);
  group::move_all_on(false, heartbeat);
  run::send_waiting_workers(true, false);
  bridge::commit();
  run::settle_waiting_runs_of_user(heartbeat);
  run::purge_by_definition(moment);
  schedule::trim_cron_history();
  ledger::refresh_known_roles();
  bridge::commit();
  spi.finish();
  return 0;
}
