// The SQL-callable functions of runs (sql/30-runs.sql): they take their arguments apart and call run/ or
// ledger/.
#include "bridge/codes.hpp"
#include "bridge/entry.hpp"
#include "bridge/subxact.hpp"
#include "ledger/pipelines.hpp"
#include "pipeline/error_class.hpp"
#include "run/access.hpp"
#include "run/arguments.hpp"
#include "run/entry_points.hpp"
#include "run/plan_report.hpp"
#include "run/snapshot.hpp"
#include "run/states.hpp"
#include "settings.hpp"

extern "C" {
#include "utils/datum.h"
}

using namespace portage;
using namespace portage::run;
using portage::bridge::Error;

namespace {

std::optional<std::string> decode_digest(const std::optional<std::string>& hex) {
  if (!hex) return std::nullopt;
  std::string bytes;
  for (size_t i = 0; i + 1 < hex->size(); i += 2) {
    unsigned value = 0;
    auto [end, error] = std::from_chars(hex->data() + i, hex->data() + i + 2, value, 16);
    if (error != std::errc() || end != hex->data() + i + 2) break;
    bytes += static_cast<char>(value);
  }
  if (hex->size() != 64 || bytes.size() != 32)
    throw Error(ERRCODE_INVALID_PARAMETER_VALUE, "a SHA-256 digest has 64 hexadecimal digits");
  return bytes;
}

struct Migrated {
  int64_t id;
  std::optional<ledger::WholeRun> whole;  ///< where all is known of it
};

/// migrate(): everything in the caller's transaction.
Migrated migrate(const std::string& pipeline, std::string_view payload, const std::string& scope,
                 const std::string& options_text) {
  size_t limit = static_cast<size_t>(settings::migrate_limit) << 20;
  if (payload.size() > limit)
    throw Error(codes::payload_too_large,
                bridge::format("a payload of %zu bytes is too large for migrate()", payload.size()))
        .detail(bridge::format("The limit is %d MB (portage.migrate_limit).", settings::migrate_limit))
        .hint("Use portage.open_run() and portage.submit(), then CALL portage.run().");
  Options options = parse_options(options_text);
  std::string stored = options_text;
  if (!options.verify) {  // what is not asked for is not done in somebody's transaction
    static const bridge::Statement add(
        "SELECT (pg_catalog.jsonb_build_object('verify', false) OPERATOR(pg_catalog.||) $1)::text");
    stored = add({bridge::param_json(options_text.empty() ? "{}" : options_text)}).text(0, 1);
  }
  StoredPipeline found = ledger::find_pipeline(pipeline, ledger::Need::run);
  ledger::NewRun opened = new_run(found, scope, stored);
  opened.id = ledger::next_run_id();
  // Misuse (rights, an active run, a changed target) raises; a failure of the run itself is an answer.
  std::optional<ledger::WholeRun> whole = migrate_in_one_go(opened, found, options, payload);
  if (whole) return {opened.id, std::move(whole)};
  ledger::insert_run(opened);
  ledger::Run run = *ledger::find_run(opened.id);
  submit(run, payload, {"payload", std::nullopt, std::nullopt, std::nullopt});
  work_in_caller(run, options.raise);
  return {opened.id, std::nullopt};
}

Migrated migrate(const Arguments& a) {
  std::string payload = a.text(1, "payload");
  return migrate(a.text(0, "pipeline"), payload, a.maybe_text(2).value_or(""),
                 a.maybe_json(3).value_or("{}"));
}

/// The run as run_info, in the caller's memory; null if there is none that the caller may see.
Datum info_of(FunctionCallInfo fcinfo, std::optional<int64_t> id, MemoryContext callers) {
  static const bridge::Statement select(
      "SELECT ROW(p.*)::portage.run_info FROM portage.progress p WHERE p.run_id OPERATOR(pg_catalog.=) $1");
  bridge::Result rows = select({bridge::param(id)});
  fcinfo->isnull = rows.empty();
  if (rows.empty()) return 0;
  Datum found = rows.datum(0, 1);
  return bridge::guarded([=] {
    MemoryContext previous = MemoryContextSwitchTo(callers);
    Datum copy = datumCopy(found, false, -1);
    MemoryContextSwitchTo(previous);
    return copy;
  });
}

/// The same of a run of which all is known: its view looks at six tables.
Datum info_of(FunctionCallInfo fcinfo, const ledger::WholeRun& whole, MemoryContext callers) {
  bridge::InMemory in(callers);
  TupleDesc shape = bridge::guarded([=] {
    TupleDesc found;
    if (get_call_result_type(fcinfo, nullptr, &found) != TYPEFUNC_COMPOSITE)
      elog(ERROR, "migrate() does not return a row");
    return found;
  });
  return ledger::info_of_completed(whole, shape);
}

}  // namespace

PORTAGE_FUNCTION(portage_open_run) {
  Arguments a(fcinfo);
  bridge::Spi spi;
  int64_t id =
      open_run(ledger::find_pipeline(a.text(0, "pipeline"), ledger::Need::run), a.maybe_text(1).value_or(""),
               a.maybe_json(2).value_or("{}"), a.maybe_text(3), a.maybe_json(4));
  spi.finish();
  return Int64GetDatum(id);
}

PORTAGE_FUNCTION(portage_submit) {
  Arguments a(fcinfo);
  bridge::Spi spi;
  std::string bytes = a.text(1, "payload");
  Submission submission{a.maybe_text(2).value_or("payload"), a.maybe_int(3), decode_digest(a.maybe_text(4)),
                        a.maybe_text(5)};
  int32_t part = submit(open_for_parts(a.run(0)), bytes, submission);
  spi.finish();
  return Int32GetDatum(part);
}

PORTAGE_FUNCTION(portage_attach_file) {
  Arguments a(fcinfo);
  bridge::Spi spi;
  ledger::Run run = open_for_parts(a.run(0));
  size_t before = ledger::parts_of(run.id).size();
  attach_files(run, a.text(1, "path"));
  size_t after = ledger::parts_of(run.id).size();
  spi.finish();
  return Int32GetDatum(static_cast<int32_t>(after - before));
}

PORTAGE_FUNCTION(portage_attach_query) {
  Arguments a(fcinfo);
  bridge::Spi spi;
  ledger::Part fresh;
  fresh.name = a.maybe_text(4).value_or("query");
  fresh.query = a.text(1, "query");
  fresh.key_columns = a.texts(2, "a key column");
  int32_t part = attach_query(open_for_parts(a.run(0)), std::move(fresh), a.flag(3));
  spi.finish();
  return Int32GetDatum(part);
}

PORTAGE_FUNCTION(portage_attach_table) {
  Arguments a(fcinfo);
  bridge::Spi spi;
  ledger::Run run = open_for_parts(a.run(0));
  int32_t part = attach_table(run, source_table(a.oid(1, "source")));
  spi.finish();
  return Int32GetDatum(part);
}

PORTAGE_FUNCTION(portage_attach_source) {
  Arguments a(fcinfo);
  bridge::Spi spi;
  ledger::Run run = open_for_parts(a.run(0));
  size_t before = ledger::parts_of(run.id).size();
  attach_source(run);
  size_t after = ledger::parts_of(run.id).size();
  spi.finish();
  return Int32GetDatum(static_cast<int32_t>(after - before));
}

PORTAGE_FUNCTION(portage_attach_large_object) {
  Arguments a(fcinfo);
  bridge::Spi spi;
  ledger::Run run = open_for_parts(a.run(0));
  Oid oid = a.oid(1, "large_object");
  ledger::Part part;
  part.kind = "large_object";
  part.name = "large object " + std::to_string(oid);
  part.large_object = oid;
  {
    bridge::AsUser as(role_of(run));
    bridge::execute("SELECT pg_catalog.lo_get($1, 0, 1)", {bridge::param_oid(oid)});
  }
  int32_t number = ledger::insert_part(run.id, part);
  spi.finish();
  return Int32GetDatum(number);
}

PORTAGE_FUNCTION(portage_run) {
  Arguments a(fcinfo);
  bridge::require_nonatomic(fcinfo, "run", "portage.migrate() for small payloads");
  bridge::Spi spi(true);
  run_here(a.run_or_latest(0), true);
  spi.finish();
  return 0;
}

PORTAGE_FUNCTION(portage_import) {
  Arguments a(fcinfo);
  bridge::require_nonatomic(fcinfo, "import", "portage.migrate() for small payloads");
  bridge::Spi spi(true);
  int given = !a.null(1) + !a.null(2) + !a.null(3);
  if (given > 1)
    throw Error(ERRCODE_INVALID_PARAMETER_VALUE, "import() takes one of file, query and payload")
        .hint("For example: CALL portage.import('vocabulary', file => '/srv/export/*.json');");
  int64_t id =
      open_run(ledger::find_pipeline(a.text(0, "pipeline"), ledger::Need::run), a.maybe_text(4).value_or(""),
               a.maybe_json(5).value_or("{}"), std::nullopt, std::nullopt);
  ledger::Run run = open_for_parts(id);
  if (!a.null(1)) {
    attach_files(run, a.text(1, "file"));
  } else if (!a.null(2)) {
    ledger::Part part;
    part.name = "query";
    part.query = a.text(2, "query");
    if (!a.null(6)) part.key_columns.push_back(a.text(6, "key"));
    bool snapshot = part.key_columns.empty();
    attach_query(run, std::move(part), snapshot);
  } else if (!a.null(3)) {
    submit(run, a.text(3, "payload"), {"payload", std::nullopt, std::nullopt, std::nullopt});
  } else {
    attach_source(run);
  }
  bridge::commit();
  run_here(id, true);
  print_summary(id);
  spi.finish();
  return inout(fcinfo, Int64GetDatum(id));
}

PORTAGE_FUNCTION(portage_migrate_run) {
  Arguments a(fcinfo);
  bridge::Spi spi;
  int64_t id = migrate(a).id;
  spi.finish();
  return Int64GetDatum(id);
}

PORTAGE_FUNCTION(portage_migrate) {
  Arguments a(fcinfo);
  MemoryContext callers = CurrentMemoryContext;
  bridge::Spi spi;
  Migrated done = migrate(a);
  bool completed = done.whole && done.whole->status == "completed";
  Datum row = completed ? info_of(fcinfo, *done.whole, callers) : info_of(fcinfo, done.id, callers);
  spi.finish();
  return row;
}

PORTAGE_FUNCTION(portage_status) {
  Arguments a(fcinfo);
  MemoryContext callers = CurrentMemoryContext;
  bridge::Spi spi;
  Datum row = info_of(fcinfo, a.null(0) ? std::nullopt : std::optional(a.run(0)), callers);
  spi.finish();
  return row;
}

PORTAGE_FUNCTION(portage_plan_run) {
  Arguments a(fcinfo);
  bridge::Spi spi;
  std::string plan = plan_of(run_to_read(a.run_or_latest(0)));
  Datum answer = bridge::param_json(plan).value;
  spi.finish();
  return answer;
}

PORTAGE_FUNCTION(portage_plan_payload) {
  Arguments a(fcinfo);
  bridge::Spi spi;
  std::string plan;
  {
    bridge::Subtransaction rolled_back;  // a run only to be looked at
    int64_t id = open_run(ledger::find_pipeline(a.text(0, "pipeline"), ledger::Need::run),
                          a.maybe_text(2).value_or(""), "{}", std::nullopt, std::nullopt);
    if (!a.null(1))
      submit(*ledger::find_run(id), a.text(1, "payload"),
             {"payload", std::nullopt, std::nullopt, std::nullopt});
    plan = plan_of(*ledger::find_run(id));
  }
  Datum answer = bridge::param_json(plan).value;
  spi.finish();
  return answer;
}

PORTAGE_FUNCTION(portage_validate) {
  Arguments a(fcinfo);
  bridge::Spi spi;
  std::string answer_text = validation_of(run_to_change(a.run_or_latest(0)));
  Datum answer = bridge::param_json(answer_text).value;
  spi.finish();
  return answer;
}

PORTAGE_FUNCTION(portage_reject_raw) {
  Arguments a(fcinfo);
  bridge::Spi spi;
  ledger::Run run = run_to_read(a.run(0));
  if (!sees_raw(run.id))
    throw Error(ERRCODE_INSUFFICIENT_PRIVILEGE,
                "the raw input of this pipeline's items is for its owner only")
        .detail("The definition names sensitive paths.")
        .hint("portage.rejects shows the input with these masked.");
  std::optional<ledger::RawItem> raw =
      ledger::find_raw(run.id, a.null(1) ? 0 : DatumGetInt64(fcinfo->args[1].value));
  if (raw && static_cast<int64_t>(raw->kept.size()) < raw->length) {
    for (const ledger::Part& part : ledger::parts_of(run.id)) {
      if (part.number != raw->part || part.kind == "query") continue;
      bridge::AsUser as(role_of(run));
      raw->kept =
          read_span(run.id, part, static_cast<uint64_t>(raw->offset), static_cast<uint64_t>(raw->length));
    }
  }
  spi.finish();
  if (!raw) {
    fcinfo->isnull = true;
    return 0;
  }
  return bridge::text_datum(raw->kept);
}
