// See snapshot.hpp.
#include "run/snapshot.hpp"

#include "bridge/clock.hpp"
#include "bridge/deferral.hpp"
#include "bridge/entry.hpp"
#include "bridge/subxact.hpp"
#include "ledger/missing.hpp"
#include "ledger/rows.hpp"
#include "load/writer_choice.hpp"
#include "pipeline/plan_cache.hpp"
#include "run/exclusion.hpp"
#include "run/importer.hpp"
#include "run/parked.hpp"
#include "run/preflight.hpp"
#include "run/sha256.hpp"
#include "run/unchanged_parts.hpp"

namespace portage::run {
namespace {

using bridge::Error;

/// What asks for another look at the items, or before them, or may leave the part unread.
bool asks_for_more(const Options& options, int64_t bytes) {
  return options.dry_run || options.validate_first || options.initial_load ||
         options.verify.value_or(false) || options.limit || options.sample || bytes >= least_passed_over ||
         (options.max_part_bytes && bytes > *options.max_part_bytes);
}

bool asks_for_more(const Definition& definition) {
  return definition.data_version || definition.missing.fate != MissingItems::Fate::keep;
}

/// The run as it would stand in the ledger now.
ledger::Run run_of(const ledger::NewRun& opened, bool sensitive) {
  ledger::Run run;
  run.id = opened.id;
  run.pipeline_id = opened.pipeline_id;
  run.pipeline = opened.pipeline;
  run.version = opened.version;
  run.scope = opened.scope;
  run.status = "running";
  run.options = opened.options;
  run.role = {opened.role, ledger::user_name(opened.role)};
  run.session_role = {opened.session_role, ledger::user_name(opened.session_role)};
  run.timezone = opened.timezone;
  run.sealed = true;
  run.workers = 1;
  run.discretion = bridge::Discretion(sensitive);
  return run;
}

class Snapshot {
 public:
  Snapshot(Job& job, const ledger::NewRun& opened, std::string_view payload, TimestampTz created_at);

  /// Writes the items and all that the ledger says of them. False if it takes more; the caller undoes it.
  bool work();
  const ledger::WholeRun& whole() const { return whole_; }

 private:
  bool read(Batch&, int64_t wanted);
  void end(const ledger::Counts&);

  Job& job_;
  std::string_view payload_;
  ledger::WholeRun whole_;
  BatchCost cost_;
  std::unique_ptr<load::Writer> writer_;
  std::unique_ptr<load::Loader> loader_;
};

Snapshot::Snapshot(Job& job, const ledger::NewRun& opened, std::string_view payload, TimestampTz created_at)
    : job_(job), payload_(payload), cost_{usage_now()} {
  whole_.opened = opened;
  whole_.created_at = created_at;
  whole_.started_at = GetCurrentTimestamp();
  whole_.part.number = 1;
  whole_.part.kind = "payload";
  whole_.part.name = "payload";
  whole_.part.byte_length = static_cast<int64_t>(payload.size());
  whole_.range.part = 1;
  whole_.range.epoch = 1;
  whole_.hashed.names = readable_columns(job.plan->target());
  whole_.hashed.shape = row_shape(job.plan->target(), whole_.hashed.names, job.plan->mapped());
  load::WriterChoice choice = load::choose_writer(job.plan->target());
  whole_.writer = choice.name;
  whole_.writer_reason = choice.reason;
  job.policy.hash_columns = whole_.hashed.names;
  job.policy.first_xid = DatumGetUInt64(ledger::current_xid());
  job.policy.may_update = may_update(*job.plan);
  writer_ = load::make_writer(*job.plan, job.plan->target().attnums(whole_.hashed.names));
  loader_ = std::make_unique<load::Loader>(*job.plan, *writer_, job.policy);
  // What the caller's transaction has left to be judged later is the caller's, and must not be blamed on
  // items.
  writer_->check_deferred();
}

/// False if there are more items than `wanted`.
bool Snapshot::read(Batch& batch, int64_t wanted) {
  double start = bridge::now_ms();
  std::unique_ptr<OpenPart> open = open_items(payload_, whole_.part, *job_.plan, job_.options);
  if (!read_batch(*open, batch, {1, 1}, wanted)) return false;
  whole_.sha256 = open->digest();
  ledger::Range& range = whole_.range;
  range.next_ordinal = range.cursor_ordinal = static_cast<int64_t>(batch.items.size()) + 1;
  range.checkpoint = open->reader().checkpoint();
  range.done = true;
  double converting = bridge::now_ms();
  cost_.read_ms = converting - start;
  prepare_batch(*job_.plan, batch, job_.run, whole_.part, job_.options, {false, true});
  cost_.convert_ms = bridge::now_ms() - converting;
  return true;
}

bool Snapshot::work() {
  bridge::Memory scratch("portage snapshot");
  bridge::InMemory in(scratch.get());
  hold_target(*job_.plan, job_.run.id, RowExclusiveLock);
  bridge::defer_nothing();
  Batch batch;
  if (!read(batch, job_.options.batch_size ? job_.options.batch_size : first_batch)) return false;
  size_t n = batch.items.size();
  load::Timings before = loader_->timings();
  TimestampTz started = GetCurrentTimestamp();
  if (loader_->load(batch, 0) < n) return false;
  ledger::Counts counts = ledger::count_outcomes(batch.items.data(), n);
  // What waits for others is tried again when all is read; and too many rejects are an error with a reason.
  if (counts.parked > 0 || too_many_rejects(job_.options, counts, true)) return false;
  if (n > 0) {
    ledger::BatchRecord record = record_of(job_, *loader_, before, batch.items.data(), n, cost_);
    record.part = whole_.part.number;
    record.range_no = whole_.range.number;
    record.epoch = whole_.range.epoch;
    record.started_at = started;
    ledger::write_batch(record, job_.policy.space, batch.items.data(), n, loader_->undo());
    tell_errors(job_, counts, batch.items.data(), n);
  }
  end(counts);
  return true;
}

void Snapshot::end(const ledger::Counts& counts) {
  bool waits = counts.conflicted > 0;  // for decisions: resolve()
  whole_.counts = counts;
  whole_.completed_at = GetCurrentTimestamp();
  whole_.status = waits ? "awaiting_resolution" : "completed";
  whole_.event = waits ? "stage_changed" : "migration_completed";
  whole_.details = waits ? "{\"step\": \"resolving\"}" : "{}";
  whole_.events_before = (counts.conflicted > 0) + (counts.rejects() > 0) + loader_->sequence_events();
  if (job_.options.keep_payload || waits) {
    whole_.kept_payload = payload_;
    whole_.payload_sha256 = sha256(payload_);
  }
  ledger::write_whole_run(whole_);
  bridge::notice(bridge::format("portage: run %lld: running -> %s", static_cast<long long>(job_.run.id),
                                whole_.status.c_str()),
                 "", LOG);
  if (!waits) settle_waiting_runs(job_.run.pipeline_id, excluded_scope(job_), Commits::no);
}

}  // namespace

std::optional<ledger::WholeRun> migrate_in_one_go(const ledger::NewRun& opened,
                                                  const StoredPipeline& pipeline, const Options& options,
                                                  std::string_view payload) {
  if (asks_for_more(options, static_cast<int64_t>(payload.size()))) return std::nullopt;
  TimestampTz created_at = GetCurrentTimestamp();
  Job job(run_of(opened, pipeline.sensitive), pipeline, Commits::no);
  if (asks_for_more(job.plan->definition())) return std::nullopt;
  exclude_others(job);
  check_blockers(job);
  refuse_rivals(job);
  if (ledger::any_marked(job.policy.space)) return std::nullopt;
  bridge::AsUser as(job.role);
  std::optional<ledger::WholeRun> whole;
  {
    Snapshot snapshot(job, opened, payload, created_at);
    bridge::Subtransaction attempt;
    try {
      if (!snapshot.work()) return std::nullopt;
      attempt.release();
      whole = snapshot.whole();
    } catch (const Error& error) {
      attempt.rollback();
      if (bridge::concerns_whole_batch(error.code()) || options.raise) throw;
      return std::nullopt;  // the worker meets it again, and records it
    }
  }
  keep_plan(std::move(job.plan));
  return whole;
}

}  // namespace portage::run
