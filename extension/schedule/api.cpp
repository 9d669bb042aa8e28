// The SQL-callable functions of schedules (sql/34-schedules.sql), but for the heartbeat (tick.cpp).
#include "bridge/codes.hpp"
#include "ledger/pipelines.hpp"
#include "ledger/schedules.hpp"
#include "run/arguments.hpp"
#include "schedule/options.hpp"
#include "schedule/tick.hpp"

extern "C" {
#include "pgtime.h"
}

using namespace portage;
using namespace portage::schedule;
using bridge::Error;
using bridge::format;
using run::Arguments;

namespace {

std::string name_of_session_timezone() {
  return bridge::guarded([] { return pg_get_timezone_name(session_timezone); });
}

std::string of_scope(const std::string& scope) { return scope.empty() ? "" : " for scope \"" + scope + "\""; }

/// What would fail every time is refused now.
void require_source(const StoredPipeline& pipeline) {
  if (!parse_definition(pipeline.definition).source)
    throw Error(ERRCODE_INVALID_PARAMETER_VALUE, "pipeline \"" + pipeline.name + "\" has no source")
        .hint(
            "A scheduled run reads what the definition names: \"source\": {\"files\": "
            "\"/srv/export/*.json\"}, or "
            "a query or table.");
  if (!ledger::acts_for(pipeline.owner, GetUserId()))
    throw Error(ERRCODE_INSUFFICIENT_PRIVILEGE,
                "the source of pipeline \"" + pipeline.name + "\" is not read as your role")
        .detail("The owner of the pipeline has not the rights of your role.")
        .hint("SET ROLE to the pipeline's owner first.");
}

}  // namespace

PORTAGE_FUNCTION(portage_schedule) {
  Arguments a(fcinfo);
  bridge::Spi spi;
  StoredPipeline pipeline = ledger::find_pipeline(a.text(0, "pipeline"), ledger::Need::run);
  ledger::Schedule schedule;
  schedule.cron = a.text(1, "cron");
  schedule.options = a.maybe_json(2).value_or("{}");
  Options options = parse_options(schedule.options);
  Timetable timetable{parse_cron(schedule.cron), {}, options.blackout, options.catch_up, options.deadline};
  schedule.timezone = options.timezone.value_or(name_of_session_timezone());
  timetable.zone = zone_named(schedule.timezone);
  run::require_scope(options.scope);
  require_source(pipeline);
  schedule.pipeline_id = pipeline.id;
  schedule.scope = options.scope;
  std::optional<Slot> next = next_slot(timetable, moment_of(GetCurrentTimestamp()));
  if (!next)
    throw Error(codes::invalid_schedule, "the schedule never runs")
        .detail("Its blackout windows follow each other without an end.");
  schedule.next_due = next->due;
  schedule.next_run = next->begin;
  std::optional<ledger::Schedule> former = ledger::find_schedule(pipeline.id, options.scope);
  if (former) {
    Oid role = former->role.oid;
    if (!ledger::acts_for(GetUserId(), role) && !ledger::is_admin(GetUserId()))
      throw Error(ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied for the schedule of pipeline \"" +
                                                      pipeline.name + "\"" + of_scope(options.scope))
          .detail("It is one of role \"" + former->role.name + "\".")
          .hint("Choose another scope, or have it ended: portage.unschedule().");
    schedule.id = former->id;
  }
  int64_t id = ledger::put_schedule(schedule);
  spi.finish();
  return Int64GetDatum(id);
}

PORTAGE_FUNCTION(portage_unschedule) {
  Arguments a(fcinfo);
  bridge::Spi spi;
  StoredPipeline pipeline = ledger::find_pipeline(a.text(0, "pipeline"), ledger::Need::read);
  std::string scope = a.maybe_text(1).value_or("");
  run::require_scope(scope);
  std::optional<ledger::Schedule> schedule = ledger::find_schedule(pipeline.id, scope);
  if (!schedule)
    throw Error(ERRCODE_UNDEFINED_OBJECT,
                "pipeline \"" + pipeline.name + "\" has no schedule" + of_scope(scope))
        .hint("SELECT pipeline, scope, cron FROM portage.schedules; lists those that you may see.");
  Oid me = GetUserId();
  if (!ledger::acts_for(me, schedule->role.oid) && !ledger::acts_for(me, pipeline.owner) &&
      !ledger::is_admin(me))
    throw Error(ERRCODE_INSUFFICIENT_PRIVILEGE,
                "permission denied for the schedule of pipeline \"" + pipeline.name + "\"" + of_scope(scope))
        .detail("It is one of role \"" + schedule->role.name + "\".");
  ledger::delete_schedule(schedule->id);
  spi.finish();
  return Int64GetDatum(schedule->id);
}

PORTAGE_FUNCTION(portage_next_due) {
  Arguments a(fcinfo);
  TimestampTz after = DatumGetTimestampTz(fcinfo->args[1].value);
  std::optional<int64_t> next;
  if (!TIMESTAMP_NOT_FINITE(after)) {
    Cron cron = parse_cron(a.text(0, "cron"));
    next = next_moment(cron, zone_named(a.text(2, "timezone")), moment_of(after));
  }
  if (!next) {
    fcinfo->isnull = true;
    return 0;
  }
  return TimestampTzGetDatum(time_t_to_timestamptz(*next));
}
