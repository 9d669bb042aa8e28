// See plan_report.hpp. Reads a few items of each part for the estimate; writes nothing.
#include <nlohmann/json.hpp>

#include "run/plan_report.hpp"

#include "bridge/codes.hpp"
#include "bridge/subxact.hpp"
#include "ledger/pipelines.hpp"
#include "load/key_lookup.hpp"
#include "load/sequences.hpp"
#include "load/writer_choice.hpp"
#include "pipeline/error_class.hpp"
#include "run/access.hpp"
#include "run/batch_reader.hpp"
#include "run/data_version.hpp"
#include "run/preflight.hpp"
#include "run/source_cursor.hpp"
#include "run/worker.hpp"

namespace portage::run {
namespace {

using Json = nlohmann::ordered_json;

constexpr int sampled_items = 200;
constexpr double assumed_rate = 50000;         // items per second, where the pipeline has no history
constexpr double ledger_bytes_per_item = 260;  // item row, mapping and their index entries: measured

struct Estimate {
  int64_t items = 0;
  std::optional<int64_t> bytes;
  bool known = true;
};

/// How many items a part has, from the mean size of its first ones.
Estimate estimate(const ledger::Run& run, const ledger::Part& part, const Plan& plan,
                  const Options& options) {
  if (part.kind == "query") {
    ledger::Part from = part;
    if (!run.sealed) from.cursor_from = cursor_start(run, part, options, plan);
    return {rows_of(from, plan.stored()), std::nullopt, true};
  }
  int64_t bytes = part.byte_length.value_or(0);
  if (part.kind == "payload") {
    bytes = 0;
    for (const ledger::Chunk& chunk : ledger::chunks_of(run.id, part.number)) bytes += chunk.length;
  }
  std::unique_ptr<OpenPart> open = open_items(run, part, plan, options, nullptr);
  formats::Arena arena;
  formats::Record record;
  int64_t count = 0;
  while (count < sampled_items && open->reader().next(arena, record)) count++;
  uint64_t read = open->reader().checkpoint().offset;
  std::optional<int64_t> size = part.kind == "payload" ? std::optional(bytes) : part.byte_length;
  if (count < sampled_items) return {count, size, true};
  return {static_cast<int64_t>(static_cast<double>(count) * static_cast<double>(bytes) /
                               static_cast<double>(std::max<uint64_t>(read, 1))),
          size, part.kind != "large_object"};
}

Json json_of(const Blocker& b) {
  return {{"sqlstate", bridge::sqlstate_text(b.sqlstate)},
          {"message", b.message},
          {"detail", b.detail},
          {"remedy", b.remedy}};
}

}  // namespace

std::string interval_text(double seconds) {
  if (seconds < 120) return bridge::format("%.0f s", std::ceil(seconds));
  return bridge::format("%.0f min", std::ceil(seconds / 60));
}

Duration estimated_duration(int64_t pipeline_id, int64_t items) {
  bridge::Settings plain_path;
  plain_path.set("search_path", "pg_catalog, pg_temp");
  bridge::Result history = bridge::execute(
      "SELECT (sum(b.read) / nullif(sum(extract(epoch FROM b.finished_at - b.started_at)), "
      "0))::float8::text, "
      "count(DISTINCT b.run_id)::text FROM portage.migration_batches b JOIN portage.migration_runs r ON r.id "
      "= b.run_id "
      "WHERE r.pipeline_id = $1 AND r.status = 'completed' AND b.kind = 'import'",
      {bridge::param(pipeline_id)});
  bool known = !history.is_null(0, 1);
  double rate = known ? std::strtod(history.text(0, 1).c_str(), nullptr) : assumed_rate;
  double seconds = static_cast<double>(items) / std::max(rate, 1.0);
  return {seconds, interval_text(seconds),
          known ? history.text(0, 2) + " completed run(s) of this pipeline"
                : "no completed run yet: 50,000 items/s assumed",
          known};
}

namespace {

Json json_of(const Finding& finding, bool masked) {
  return {{"class", error_class(finding.rule, finding.sqlstate)},
          {"rule", finding.rule},
          {"sqlstate", finding.sqlstate},
          {"column", finding.column},
          {"count", finding.count},
          {"message", masked ? "***" : finding.message},
          {"first", {{"ordinal", finding.ordinal}, {"part", finding.part}, {"line", finding.line}}}};
}

/// What ends a run before or while it reads.
Json json_of(const bridge::Error& error) {
  return {{"class", error_class("", error.sqlstate())},
          {"sqlstate", error.sqlstate()},
          {"message", error.message()},
          {"detail", error.report().detail},
          {"hint", error.report().hint}};
}

/// Foreign keys to the target whose own columns no index serves: to delete a row, as a rollback does, is to
/// look through the whole of their tables.
void recommend_indexes(Oid target, Json& recommendations) {
  bridge::Settings plain_path;
  plain_path.set("search_path", "pg_catalog, pg_temp");
  static const bridge::Statement select(
      "SELECT c.conrelid::regclass::text, c.conname::text, (SELECT string_agg(quote_ident(a.attname), ', ' "
      "ORDER BY k.n) FROM unnest(c.conkey) WITH ORDINALITY AS k (attnum, n) JOIN pg_attribute a ON "
      "a.attrelid "
      "= c.conrelid AND a.attnum = k.attnum) FROM pg_constraint c WHERE c.contype = 'f' AND c.confrelid = $1 "
      "AND c.conparentid = 0 AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.conrelid AND "
      "i.indisvalid AND i.indpred IS NULL AND (SELECT array_agg(x ORDER BY x) FROM unnest((i.indkey::int2[])"
      "[0:cardinality(c.conkey) - 1]) x) = (SELECT array_agg(x ORDER BY x) FROM unnest(c.conkey) x)) ORDER "
      "BY "
      "1, 2");
  bridge::Result rows = select({bridge::param_oid(target)});
  for (size_t i = 0; i < rows.size(); i++)
    recommendations.push_back(
        {{"code", "reference_index"},
         {"text", "No index serves constraint " + bridge::quoted(rows.text(i, 2)) + " of table " +
                      rows.text(i, 1) +
                      ", which refers to the target: a rollback looks through the whole table for each row."},
         {"sql", "CREATE INDEX ON " + rows.text(i, 1) + " (" + rows.text(i, 3) + ");"}});
}

}  // namespace

std::string validation_of(const ledger::Run& run) {
  Json blockers = Json::array(), issues = Json::array(), warnings = Json::array();
  ledger::Counts counts;
  bool ready = true;
  std::optional<bridge::Error> error = bridge::attempt([&] {
    bridge::Subtransaction undone;  // sealing, predictions
    Worker worker(run, Commits::no);
    std::vector<Blocker> found = server_blockers(worker.plan(), run.pipeline_id, run.scope, run.id);
    {
      bridge::AsUser as(worker.role());
      for (const Blocker& b : missing_privileges(worker.plan(), worker.overwrites(), true))
        found.push_back(b);
    }
    for (const Blocker& b : found) blockers.push_back(json_of(b));
    ready = found.empty();
    // Where the role may not read, or the server not write its notes, there is nothing to go on with.
    for (const Blocker& b : found)
      if (b.sqlstate != codes::run_in_progress) return;
    Validation validation = worker.validation(MyProcPid);
    std::optional<bridge::Error> ended =
        bridge::attempt([&] { validation.work([] { return true; }, false); });
    counts = validation.counts();
    bool masked = !sees_raw(run.id);
    for (const Finding& finding : validation.findings())
      (finding.warning ? warnings : issues).push_back(json_of(finding, masked));
    if (ended) throw *ended;
    if (!too_many_rejects(worker.options(), counts, true)) return;
    throw bridge::Error(codes::too_many_rejects, "more items would be rejected than max_rejects allows");
  });
  if (error) {
    if (bridge::is_interrupt(error->code())) throw *error;
    ready = false;
    issues.insert(issues.begin(), json_of(*error));
  }
  Json answer;
  answer["ready"] = ready;
  answer["blockers"] = blockers;
  answer["counts"] = {
      {"read", counts.read},           {"inserted", counts.inserted}, {"updated", counts.updated},
      {"unchanged", counts.unchanged}, {"skipped", counts.skipped},   {"conflicted", counts.conflicted},
      {"parked", counts.parked},       {"invalid", counts.invalid},   {"failed", counts.failed}};
  answer["issues"] = issues;
  answer["warnings"] = warnings;
  answer["estimated_duration"] = estimated_duration(run.pipeline_id, counts.read).text;
  return answer.dump();
}

std::string plan_of(const ledger::Run& run) {
  Json plan;
  Json blockers = Json::array(), breakdown = Json::array(), recommendations = Json::array();
  auto block = [&](const Blocker& b) { blockers.push_back(json_of(b)); };
  std::optional<Worker> worker;
  std::optional<bridge::Error> fault = bridge::attempt([&] { worker.emplace(run, Commits::no); });
  int64_t items = 0, bytes = 0;
  if (fault) {
    if (bridge::concerns_whole_batch(fault->code()) && fault->code() != ERRCODE_UNDEFINED_TABLE) throw *fault;
    block({fault->code(), fault->message(), fault->report().detail, fault->report().hint});
  } else {
    const Plan& compiled = worker->plan();
    for (const Blocker& b : server_blockers(compiled, run.pipeline_id, run.scope, run.id)) block(b);
    bridge::AsUser as(worker->role());
    bool overwrites = worker->overwrites();
    for (const Blocker& b : missing_privileges(compiled, overwrites, true)) block(b);
    for (const ledger::Part& part : ledger::parts_of(run.id)) {
      Json entry = {{"part", part.number}, {"name", part.name}, {"kind", part.kind}};
      Estimate known;
      std::optional<bridge::Error> unreadable = bridge::attempt([&] {
        if (compiled.definition().data_version) check_data_version(run.id, part, compiled);
        known = estimate(run, part, compiled, worker->options());
      });
      if (unreadable) {
        block({unreadable->code(), unreadable->message(), unreadable->report().detail,
               unreadable->report().hint});
      } else {
        entry["items"] = known.items;
        items += known.items;
      }
      bytes += known.bytes.value_or(0);
      entry["bytes"] = known.bytes ? Json(*known.bytes) : Json(nullptr);
      breakdown.push_back(entry);
    }
    const Target& target = compiled.target();
    load::WriterChoice writer = load::choose_writer(target);
    plan["writer"] = {{"name", writer.name}, {"reason", writer.reason}};
    {
      bridge::AsUser as_importer(worker->role());
      for (const load::ColumnSequence& sequence : load::column_sequences(compiled))
        plan["sequences"].push_back(
            {{"name", sequence.name},
             {"column", sequence.column},
             {"advance", sequence.reason.empty()},
             {"reason", sequence.reason.empty() ? Json(nullptr) : Json(sequence.reason)}});
    }
    if (worker->options().initial_load && !run.sealed) {
      for (const Blocker& b : initial_load_blockers(compiled, worker->space())) block(b);
      for (const ledger::DeferredIndex& index : worker->judged_indexes())
        plan["indexes"].push_back(
            {{"name", index.name}, {"stays", index.stays.empty() ? Json(nullptr) : Json(index.stays)}});
    }
    if (worker->options().workers > 1) {
      std::string reason = worker->one_worker_reason();
      plan["workers"] = {{"number", reason.empty() ? worker->options().workers : 1}, {"reason", reason}};
    }
    if (row_security_active(target, worker->role()))
      recommendations.push_back(
          {{"code", "row_security"},
           {"text",
            "Row level security applies to the run's role: rows that it may not see count as "
            "not there, and rows that it may not write are rejects."},
           {"sql", ""}});
    if (!overwrites && !may_update(compiled))
      recommendations.push_back(
          {{"code", "no_update"},
           {"text",
            "The role may not update the target: items that change after their first run will "
            "be skipped."},
           {"sql",
            "GRANT UPDATE ON " + target.quoted_name() + " TO " + bridge::quoted(run.role.name) + ";"}});
    recommend_indexes(target.oid, recommendations);
    if (!compiled.match().empty()) {
      bool indexed = load::are_unique(target, compiled.match());
      std::string columns;
      for (int attnum : compiled.match())
        (columns += columns.empty() ? "" : ", ") += bridge::quoted(target.column(attnum).name);
      if (!indexed)
        recommendations.push_back(
            {{"code", "match_index"},
             {"text",
              "No unique index covers the match columns: every batch reads the whole target, and an item "
              "that "
              "finds more than one row is a reject."},
             {"sql", "CREATE UNIQUE INDEX ON " + target.quoted_name() + " (" + columns + ");"}});
    }
  }
  Duration duration = estimated_duration(run.pipeline_id, items);
  Json answer;
  answer["can_proceed"] = blockers.empty();
  answer["blockers"] = blockers;
  answer["writer"] = plan.contains("writer") ? plan["writer"] : Json(nullptr);
  if (plan.contains("indexes")) answer["indexes"] = plan["indexes"];
  if (plan.contains("workers")) answer["workers"] = plan["workers"];
  if (plan.contains("sequences")) answer["sequences"] = plan["sequences"];
  answer["data_breakdown"] = breakdown;
  answer["estimated_items"] = items;
  answer["estimated_duration"] = duration.text;
  answer["estimated_duration_basis"] = duration.basis;
  answer["estimated_ledger_bytes"] = static_cast<int64_t>(static_cast<double>(items) * ledger_bytes_per_item);
  answer["estimated_wal_bytes"] = static_cast<int64_t>(
      static_cast<double>(items) * ledger_bytes_per_item * 2 + static_cast<double>(bytes));
  answer["recommendations"] = recommendations;
  return answer.dump();
}

}  // namespace portage::run
