// The SQL-callable functions of decisions (sql/37-resolve.sql).
#include "bridge/codes.hpp"
#include "bridge/entry.hpp"
#include "ledger/pipelines.hpp"
#include "pipeline/merge_rule.hpp"
#include "run/arguments.hpp"
#include "run/resolve.hpp"

using namespace portage;
using namespace portage::run;
using portage::bridge::Error;
using portage::bridge::param;

namespace {

Datum result(FunctionCallInfo fcinfo, const ResolveCounts& counts) {
  return numbers(fcinfo, {counts.resolved, counts.remaining});
}

std::vector<std::string> texts_of(const std::string& json, const char* key) {
  bridge::Result rows =
      bridge::execute("SELECT pg_catalog.jsonb_array_elements_text($1 OPERATOR(pg_catalog.->) $2)",
                      {bridge::param_json(json), param(std::string(key))});
  std::vector<std::string> texts;
  for (size_t i = 0; i < rows.size(); i++) texts.push_back(rows.text(i, 1));
  return texts;
}

ledger::ConflictFilter filter_of(const std::string& json) {
  static const std::vector<std::string> known{"columns", "legacy_ids", "suggested"};
  ledger::ConflictFilter filter;
  bridge::Result keys =
      bridge::execute("SELECT pg_catalog.jsonb_object_keys($1)", {bridge::param_json(json)});
  for (size_t i = 0; i < keys.size(); i++)
    if (std::find(known.begin(), known.end(), keys.text(i, 1)) == known.end()) {
      std::string hint = nearest_hint(keys.text(i, 1), known);
      throw Error(ERRCODE_INVALID_PARAMETER_VALUE, "unknown key \"" + keys.text(i, 1) + "\" in the filter")
          .hint(hint.empty() ? "Known are columns, legacy_ids and suggested." : hint);
    }
  filter.columns = texts_of(json, "columns");
  filter.legacy_ids = texts_of(json, "legacy_ids");
  filter.suggested =
      bridge::execute("SELECT $1 OPERATOR(pg_catalog.->>) 'suggested'", {bridge::param_json(json)})
          .text(0, 1);
  return filter;
}

/// [{"ordinal" or "legacy_id", "resolution", "value"}, ...]
std::vector<Decision> decisions_of(int64_t run_id, const std::string& json) {
  bridge::Result rows = bridge::execute(
      "SELECT e.item OPERATOR(pg_catalog.->>) 'ordinal', e.item OPERATOR(pg_catalog.->>) 'legacy_id', e.item "
      "OPERATOR(pg_catalog.->>) 'resolution', (e.item OPERATOR(pg_catalog.->) 'value')::pg_catalog.text, "
      "e.item::pg_catalog.text FROM "
      "pg_catalog.jsonb_array_elements($1) AS e (item)",
      {bridge::param_json(json)});
  std::vector<Decision> decisions;
  for (size_t i = 0; i < rows.size(); i++) {
    std::optional<std::string> ordinal = rows.maybe_text(i, 1), id = rows.maybe_text(i, 2);
    if (ordinal.has_value() == id.has_value() || rows.is_null(i, 3))
      throw Error(ERRCODE_INVALID_PARAMETER_VALUE,
                  "a resolution needs \"resolution\" and either \"ordinal\" or \"legacy_id\"")
          .quote("It is " + rows.text(i, 5) + ".");
    Decision decision{0, rows.text(i, 3), rows.maybe_text(i, 4)};
    if (ordinal) {
      decision.ordinal = bridge::execute("SELECT $1::pg_catalog.int8", {param(*ordinal)}).bigint(0, 1);
      decisions.push_back(decision);
      continue;
    }
    std::vector<int64_t> ordinals = ledger::conflicts_of_id(run_id, *id);
    if (ordinals.empty())
      throw Error(codes::not_a_reject,
                  "no item with the legacy id \"" + bridge::quotable(*id) + "\" waits for a decision")
          .hint(bridge::format("SELECT * FROM portage.open_conflicts WHERE run_id = %lld; lists what does.",
                               static_cast<long long>(run_id)));
    for (int64_t one : ordinals) {
      decision.ordinal = one;
      decisions.push_back(decision);
    }
  }
  return decisions;
}

Datum resolve_all(FunctionCallInfo fcinfo, Commits commits) {
  Arguments a(fcinfo);
  bridge::Spi spi(commits == Commits::yes);
  ledger::Run run = run_to_change(a.run(0));
  std::string resolution = a.text(1, "resolution");
  ledger::ConflictFilter filter = filter_of(a.maybe_json(2).value_or("{}"));
  ResolveCounts counts;
  {  // what it holds must be gone before SPI is
    Resolve resolve(run, commits);
    counts = resolve.all(resolution, filter);
  }
  spi.finish();
  return result(fcinfo, counts);
}

}  // namespace

PORTAGE_FUNCTION(portage_resolve) {
  Arguments a(fcinfo);
  bridge::Spi spi;
  ledger::Run run = run_to_change(a.run(0));
  if (a.null(1)) throw Error(ERRCODE_NULL_VALUE_NOT_ALLOWED, "the ordinal must not be null");
  Decision decision{DatumGetInt64(fcinfo->args[1].value), a.text(2, "resolution"), a.maybe_json(3)};
  bool remember = a.flag(4);
  if (remember && decision.resolution != "incoming" && decision.resolution != "existing")
    throw Error(ERRCODE_INVALID_PARAMETER_VALUE,
                "only \"incoming\" and \"existing\" can be remembered as a rule")
        .hint("Others are strategies of \"merge\" in the definition: portage.replace_pipeline().");
  ResolveCounts counts;
  std::set<std::string> columns;
  {  // what it holds must be gone before SPI is
    Resolve resolve(run, Commits::no);
    counts = resolve.some({decision});
    columns = resolve.disputed();
  }
  if (remember) {
    std::vector<std::string> names(columns.begin(), columns.end());
    StoredPipeline own = ledger::find_pipeline(run.pipeline_id, run.pipeline, ledger::Need::own);
    bridge::execute("SELECT portage.replace_pipeline($1, $2)",
                    {param(*ledger::name_of_pipeline(own.id, false)),
                     bridge::param_json(with_merge_rule(own.definition, names, decision.resolution), false)});
    if (counts.remaining > 0) {
      Resolve rest(*ledger::find_run(run.id), Commits::no);
      ResolveCounts more = rest.all(decision.resolution, {names, {}, ""});
      counts = {counts.resolved + more.resolved, more.remaining};
    }
  }
  spi.finish();
  return result(fcinfo, counts);
}

PORTAGE_FUNCTION(portage_resolve_some) {
  Arguments a(fcinfo);
  bridge::Spi spi;
  ledger::Run run = run_to_change(a.run(0));
  std::vector<Decision> decisions = decisions_of(run.id, a.maybe_json(1).value_or("[]"));
  ResolveCounts counts;
  {
    Resolve resolve(run, Commits::no);
    counts = resolve.some(decisions);
  }
  spi.finish();
  return result(fcinfo, counts);
}

PORTAGE_FUNCTION(portage_resolve_all) { return resolve_all(fcinfo, Commits::no); }

PORTAGE_FUNCTION(portage_resolve_run) {
  bridge::require_nonatomic(fcinfo, "resolve_run", "portage.resolve_all()");
  return resolve_all(fcinfo, Commits::yes);
}
