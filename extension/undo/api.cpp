// The SQL-callable functions of rollback (sql/50-undo.sql).
#include "bridge/codes.hpp"
#include "bridge/entry.hpp"
#include "bridge/json.hpp"
#include "run/access.hpp"
#include "run/initial_load.hpp"
#include "run/states.hpp"
#include "undo/rollback.hpp"

using namespace portage;

namespace {

std::string text_argument(FunctionCallInfo fcinfo, int i, const char* fallback) {
  return fcinfo->args[i].isnull ? fallback : bridge::string_of(fcinfo->args[i].value);
}

void roll_back(FunctionCallInfo fcinfo, int64_t id, int first_option) {
  ledger::Run run = run::run_to_change(id);
  run::restore_key_before_rollback(run);
  undo::Rollback rollback(
      run, run::role_of(run), undo::parse_drifted(text_argument(fcinfo, first_option, "refuse")),
      !fcinfo->args[first_option + 1].isnull && DatumGetBool(fcinfo->args[first_option + 1].value));
  rollback.begin();
  rollback.work();
  run::restore_indexes_after_rollback(id);
}

/// The newest run of a pipeline and scope that is in a state to be rolled back.
int64_t latest_run_of(const std::string& pipeline, const std::string& scope) {
  bridge::Result latest = bridge::execute(
      "SELECT id FROM portage.migration_runs WHERE pipeline_id OPERATOR(pg_catalog.=) $1 AND scope "
      "OPERATOR(pg_catalog.=) $2 "
      "AND status OPERATOR(pg_catalog.=) ANY (ARRAY['completed', 'failed', 'cancelled', "
      "'awaiting_resolution', "
      "'rolling_back']::text[]) ORDER BY id DESC LIMIT 1",
      {bridge::param(ledger::pipeline_named(pipeline)), bridge::param(scope)});
  if (latest.empty())
    throw bridge::Error(codes::unknown_run, "pipeline \"" + pipeline + "\" has no run for scope \"" + scope +
                                                "\" that could be rolled back");
  return latest.bigint(0, 1);
}

}  // namespace

PORTAGE_FUNCTION(portage_rollback) {
  bridge::require_nonatomic(fcinfo, "rollback");
  bridge::Spi spi(true);
  if (fcinfo->args[0].isnull) throw bridge::Error(ERRCODE_NULL_VALUE_NOT_ALLOWED, "the run must not be null");
  roll_back(fcinfo, DatumGetInt64(fcinfo->args[0].value), 1);
  spi.finish();
  return 0;
}

PORTAGE_FUNCTION(portage_rollback_latest) {
  bridge::require_nonatomic(fcinfo, "rollback");
  bridge::Spi spi(true);
  std::string pipeline = text_argument(fcinfo, 0, ""), scope = text_argument(fcinfo, 1, "");
  roll_back(fcinfo, latest_run_of(pipeline, scope), 2);
  spi.finish();
  return 0;
}

PORTAGE_FUNCTION(portage_can_rollback) {
  bridge::Spi spi;
  if (fcinfo->args[0].isnull) throw bridge::Error(ERRCODE_NULL_VALUE_NOT_ALLOWED, "the run must not be null");
  ledger::Run run = run::run_to_read(DatumGetInt64(fcinfo->args[0].value));
  std::vector<std::string> reasons;
  std::string dependants, privileges;
  undo::Findings found;
  bool possible = true;
  auto refuse = [&](const std::string& reason) {
    possible = false;
    reasons.push_back(reason);
  };
  if (!run::may_become(run.status, "rolling_back") && run.status != "rolling_back") {
    refuse("the run is " + run.status);
  } else if (std::string obstacle = ledger::rollback_obstacle(run.id); !obstacle.empty()) {
    refuse(obstacle);
  } else {
    undo::Rollback rollback(run, run::role_of(run), undo::Drifted::keep, false);
    found = rollback.examine();
    if (found.drifted() > 0)
      refuse(bridge::format("rows changed since: %lld (drifted => 'keep' or 'force')",
                            static_cast<long long>(found.drifted())));
    for (const undo::Dependants& d : found.dependants) {
      refuse(bridge::format("rows of %s (%s) that refer to %s: %lld (cascade => true)", d.table.c_str(),
                            d.constraint.c_str(), d.level == 1 ? "rows of the run" : "such rows",
                            static_cast<long long>(d.rows)));
      dependants += bridge::format(
          "%s{\"table\": %s, \"constraint\": %s, \"action\": \"%s\", \"rows\": %lld}",
          dependants.empty() ? "" : ", ", bridge::json_quoted(d.table).c_str(),
          bridge::json_quoted(d.constraint).c_str(), d.action(), static_cast<long long>(d.rows));
    }
    for (const std::string& table : found.strangers_code)
      refuse("a stranger's code would run as the run's role: " + table + " (delete these rows first)");
    std::vector<std::string> grants = rollback.missing_grants();
    grants.insert(grants.end(), found.missing_grants.begin(), found.missing_grants.end());
    for (const std::string& grant : grants) {
      refuse("missing privilege: " + grant);
      privileges += (privileges.empty() ? "" : ", ") + bridge::json_quoted(grant);
    }
  }
  std::string list;
  for (const std::string& reason : reasons) list += (list.empty() ? "" : ", ") + bridge::json_quoted(reason);
  // about what an import of as many rows takes
  std::string json = bridge::format(
      "{\"possible\": %s, \"reasons\": [%s], \"rows\": %lld, \"drifted\": %lld, \"gone\": %lld, "
      "\"dependants\": [%s], "
      "\"missing_privileges\": [%s], \"estimated_seconds\": %.1f}",
      possible ? "true" : "false", list.c_str(), static_cast<long long>(found.items),
      static_cast<long long>(found.drifted()), static_cast<long long>(found.gone), dependants.c_str(),
      privileges.c_str(), static_cast<double>(found.items) / 40000);
  Datum answer = bridge::param_json(json).value;
  spi.finish();
  return answer;
}
