// See entry_points.hpp.
#include "run/entry_points.hpp"

#include "bridge/codes.hpp"
#include "bridge/entry.hpp"
#include "bridge/subxact.hpp"
#include "ledger/pipelines.hpp"
#include "pipeline/error_class.hpp"
#include "run/access.hpp"
#include "run/parked.hpp"
#include "run/preflight.hpp"
#include "run/sha256.hpp"
#include "run/states.hpp"
#include "undo/rollback.hpp"

extern "C" {
#include "access/xact.h"
}

namespace portage::run {

using bridge::Error;
using bridge::format;

namespace {

constexpr size_t chunk_bytes = 1 << 20;

std::string setting(const char* name) {
  const char* value = bridge::guarded([=] { return GetConfigOption(name, false, false); });
  return value ? value : "";
}

/// The run's pipeline, of that format.
StoredPipeline require_format(const ledger::Run& run, Format wanted, const char* what) {
  StoredPipeline pipeline = ledger::pipeline_version(run.pipeline_id, run.version);
  if (parse_definition(pipeline.definition).format == wanted) return pipeline;
  throw Error(ERRCODE_INVALID_PARAMETER_VALUE,
              format("pipeline \"%s\" does not read rows", run.pipeline.c_str()))
      .hint(std::string("To ") + what + ", the definition must say \"format\": \"rows\".");
}

}  // namespace

ledger::NewRun new_run(const StoredPipeline& pipeline, const std::string& scope, const std::string& options) {
  require_scope(scope);
  ledger::NewRun run;
  run.pipeline_id = pipeline.id;
  run.pipeline = pipeline.name;
  run.version = pipeline.version;
  run.scope = scope;
  run.options = options;
  run.timezone = pipeline.timezone;
  run.role = GetUserId();
  run.session_role = bridge::session_of_current_user();
  // Who has to do with the pipeline only as an administrator does not lend its own rights to the code of a
  // stranger's target, where it may act as the owner.
  Oid me = run.role, owner = pipeline.owner;
  if (pipeline.by_administration && bridge::guarded([=] { return bridge::can_set_role(me, owner); }))
    run.role = run.session_role = owner;
  return run;
}

int64_t open_run(const StoredPipeline& pipeline, const std::string& scope, const std::string& options,
                 const std::optional<std::string>& name, const std::optional<std::string>& metadata,
                 bool announce, Oid session_role) {
  ledger::NewRun run = new_run(pipeline, scope, options);
  parse_options(options);
  run.name = name;
  run.metadata = metadata;
  if (OidIsValid(session_role)) run.session_role = session_role;
  int64_t id = ledger::insert_run(run);
  if (announce) ledger::add_event(id, "run_created");
  return id;
}

ledger::Run open_for_parts(int64_t id) {
  ledger::Run run = run_to_change(id);
  if (run.sealed || run.status != "pending")
    throw Error(codes::wrong_state, format("run %lld takes no more parts", static_cast<long long>(id)))
        .detail("It is " + run.status + "; the first start seals a run.")
        .hint("Open a new run: unchanged items are skipped there.");
  return run;
}

int32_t submit(const ledger::Run& run, std::string_view bytes, const Submission& submission) {
  if (submission.chunk_no.value_or(1) < 1)
    throw Error(ERRCODE_INVALID_PARAMETER_VALUE, "chunk_no must be at least 1")
        .hint("Chunks are numbered from 1.");
  std::string digest = sha256(bytes);
  if (submission.sha256 && *submission.sha256 != digest)
    throw Error(codes::payload_mismatch,
                "the SHA-256 of the submitted bytes is not the one that was announced")
        .hint(
            "The bytes were damaged on their way, or another digest was meant. Nothing was stored; submit "
            "again.");
  std::optional<int32_t> part = ledger::find_payload_part(run.id, submission.name);
  if (!part) {
    ledger::Part fresh;
    fresh.kind = "payload";
    fresh.name = submission.name;
    fresh.data_version = submission.data_version;
    part = ledger::insert_part(run.id, fresh);
  }
  int32_t chunk = submission.chunk_no.value_or(1);
  std::optional<std::string> known = ledger::chunk_digest(run.id, *part, chunk);
  if (known && *known == digest) return *part;
  if (known)
    throw Error(codes::payload_mismatch, format("chunk %d of \"%s\" stands already with other content", chunk,
                                                submission.name.c_str()))
        .hint("Give further bytes of a part the next chunk_no, another payload another name.");
  ledger::insert_chunk(run.id, *part, chunk, digest, bytes);
  return *part;
}

void attach_files(const ledger::Run& run, const std::string& path_or_glob) {
  Oid role = role_of(run);
  std::vector<ledger::Part> parts;
  {
    bridge::AsUser as(role);
    parts = files_of(path_or_glob);
  }
  for (const ledger::Part& part : parts) ledger::insert_part(run.id, part);
}

int32_t attach_query(const ledger::Run& run, ledger::Part part, bool snapshot) {
  StoredPipeline pipeline = require_format(run, Format::rows, "attach a query or table");
  Oid role = role_of(run);
  if (!snapshot) {
    part.kind = "query";
    part.search_path = setting("search_path");
    {
      bridge::AsUser as(role);
      check_query(part, pipeline);
    }
    return ledger::insert_part(run.id, part);
  }
  // The result as it is now, in chunks of lines: read without a key, and unchanged by what comes later.
  std::string query;
  query.swap(part.query);
  part.key_columns.clear();
  part.kind = "payload";
  int32_t number = ledger::insert_part(run.id, part);
  std::string chunk;
  int32_t chunk_no = 1;
  auto flush = [&] {
    if (chunk.empty()) return;
    ledger::insert_chunk(run.id, number, chunk_no++, sha256(chunk), chunk);
    chunk.clear();
  };
  QuerySettings settings(part, pipeline);
  std::string sql = "SELECT pg_catalog.row_to_json(q)::text FROM (" + query + "\n) q";
  const char* text = sql.c_str();
  Portal portal;
  {
    bridge::AsUser as(role);
    portal = bridge::guarded(
        [=] { return SPI_cursor_open_with_args(nullptr, text, 0, nullptr, nullptr, nullptr, false, 0); });
  }
  for (;;) {
    bridge::AsUser as(role);
    bridge::guarded([=] { SPI_cursor_fetch(portal, true, 1000); });
    bridge::Result rows(SPI_tuptable, SPI_processed);
    SPI_tuptable = nullptr;
    if (rows.empty()) break;
    for (size_t i = 0; i < rows.size(); i++) {
      chunk += rows.text(i, 1) + "\n";
      if (chunk.size() >= chunk_bytes) flush();
    }
    bridge::check_interrupts();
  }
  bridge::guarded([=] { SPI_cursor_close(portal); });
  flush();
  return number;
}

int32_t attach_table(const ledger::Run& run, const SourceTable& table) {
  ledger::Part part;
  part.name = table.name;
  part.query = "SELECT * FROM " + table.name;
  part.key_columns = table.key;
  return attach_query(run, std::move(part), false);
}

void run_here(int64_t id, bool show_progress, bool* recorded) {
  ledger::Run run = run_to_change(id);
  // What a run that was left had been asked for is over; a server that takes no writes is told of below.
  if (show_progress && !run.owner_alive && !XactReadOnly) ledger::make_request(id, ledger::Request::none);
  if (!show_progress && run.status == "paused") refuse_transition(id, run.status, "running");
  if (run.status == "rolling_back" || run.paused_from == "rolling_back") {
    undo::Rollback rollback = undo::Rollback::resumed(run, role_of(run));
    rollback.begin();
    rollback.work();
    restore_indexes_after_rollback(run.id);
    return;
  }
  if (settle_waiting_runs_after(run)) return;
  Worker worker(run, Commits::yes);
  worker.show_progress(show_progress);
  try {
    worker.begin();
    worker.work();
    worker.complete();
  } catch (const Error&) {
    if (recorded) *recorded = worker.has_recorded();
    throw;
  }
}

void work_in_caller(const ledger::Run& run, bool raise) {
  Worker worker(run, Commits::no);
  worker.begin();
  std::optional<Error> error = bridge::attempt([&] {
    worker.work();
    worker.complete();
  });
  if (!error) return;
  if (bridge::concerns_whole_batch(error->code()) || raise) throw *error;
  std::string code = error->sqlstate();
  move(run.id, "running", "failed", "migration_failed", "{\"code\": \"" + code + "\"}");
  ledger::finish_run(run.id, "failed", error->message(), std::string(error_class("", code)), code);
}

void help(const ledger::Run& run) {
  long long id = static_cast<long long>(run.id);
  if (run.status == "pending" || run.status == "queued")
    throw Error(codes::wrong_state, format("run %lld is %s and takes no helpers", id, run.status.c_str()))
        .hint(format("CALL portage.run(%lld); begins it.", id));
  if (run.workers < 2)
    throw Error(codes::wrong_state, format("run %lld has one worker and takes no helpers", id))
        .hint("Open a run with the option \"workers\".");
  Job job(run, Commits::yes, true);
  job.workers = run.workers;
  job.policy.park = true;
  job.policy.hash_columns = run.hash_columns;
  job.policy.first_xid = ledger::first_xid_of(run.id);
  Teller teller(job.run, true);
  std::unique_ptr<Importer> importer;
  {
    bridge::AsUser as(job.role);
    job.policy.may_update = may_update(*job.plan);
    importer = std::make_unique<Importer>(job, teller);
  }
  std::optional<Error> error = bridge::committing([&] { importer->help(); });
  std::optional<Error> late = bridge::transact([&] { ledger::release_pieces(run.id); });
  if (error) throw *error;
  if (late) throw *late;
}

void print_summary(int64_t id) {
  bridge::Result lines = bridge::execute("SELECT line FROM portage.summary($1) AS line", {bridge::param(id)});
  for (size_t i = 0; i < lines.size(); i++) bridge::notice(lines.text(i, 1));
}

}  // namespace portage::run
