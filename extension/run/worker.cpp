// See worker.hpp.
#include "run/worker.hpp"

#include "bridge/codes.hpp"
#include "bridge/entry.hpp"
#include "bridge/subxact.hpp"
#include "ledger/predictions.hpp"
#include "ledger/retention.hpp"
#include "load/key_lookup.hpp"
#include "load/writer_choice.hpp"
#include "pipeline/error_class.hpp"
#include "run/access.hpp"
#include "run/background.hpp"
#include "run/data_version.hpp"
#include "run/exclusion.hpp"
#include "run/missing.hpp"
#include "run/parallel.hpp"
#include "run/parked.hpp"
#include "run/preflight.hpp"
#include "run/settle.hpp"
#include "run/source_cursor.hpp"
#include "run/states.hpp"
#include "run/transfer.hpp"
#include "run/unpark.hpp"
#include "undo/rollback.hpp"
#include "verify/verification.hpp"

namespace portage::run {
namespace {

using bridge::Error;
using bridge::format;

/// Ends this worker, not the run.
bool ends_worker(int code) { return bridge::is_interrupt(code) || code == codes::stale_owner; }

}  // namespace

Worker::Worker(const ledger::Run& run, Commits commits)
    : memory_("portage run", PortalContext ? PortalContext : CurrentMemoryContext),
      job_(run, commits),
      teller_(job_.run, commits == Commits::no) {}

Worker::~Worker() = default;

void Worker::check_blockers() { run::check_blockers(job_); }

void Worker::begin() {
  ledger::Run& run = job_.run;
  exclude_others(job_);
  run = *ledger::find_run(run.id);  // as it is now that nobody else can take it
  refuse_transferred(run, job_.role);
  check_blockers();
  refuse_rivals(job_);
  // An operator was faster than the worker that is just taking the run up: it stays paused until somebody
  // resumes it.
  if (!called_ && run.status == "paused") refuse_transition(run.id, run.status, "running");
  bool interrupted = run.status == "running" || run.status == "verifying";
  if (interrupted && run.owner_alive && !run.owner_is_me)
    throw Error(codes::run_in_progress, "a migration is in progress")
        .detail(format("Run %lld is being worked on by process %d.", static_cast<long long>(run.id),
                       run.owner_pid.value_or(0)))
        .hint("Wait for it, or SELECT portage.cancel(" + std::to_string(run.id) + ");");
  const char* next = run.status == "verifying" || run.paused_from == "verifying" ? "verifying" : "running";
  bool verifying = strcmp(next, "verifying") == 0;
  if (!interrupted && !may_become(run.status, next)) refuse_transition(run.id, run.status, next);
  if (ledger::cleaned_up(run.id))
    throw Error(codes::wrong_state,
                format("run %lld cannot go on: it was cleaned up", static_cast<long long>(run.id)))
        .hint("Open a new run: what is migrated is known.");
  if (job_.options.initial_load && !run.sealed && job_.commits == Commits::no)
    throw Error(ERRCODE_FEATURE_NOT_SUPPORTED, "an initial load cannot be part of another transaction")
        .hint("CALL portage.import() commits as it goes; or leave initial_load out.");
  ledger::HashedColumns hashed;
  load::WriterChoice writer;
  {
    bridge::AsUser as(job_.role);
    if (!run.sealed && job_.options.initial_load)
      refuse(initial_load_blockers(*job_.plan, job_.policy.space));
    hashed.names = readable_columns(job_.plan->target());
    hashed.shape = row_shape(job_.plan->target(), hashed.names, job_.plan->mapped());
    writer = load::choose_writer(job_.plan->target());
    if (!run.sealed) check_data_versions();
    if (!run.sealed) seal_parts();
    job_.policy.may_update = may_update(*job_.plan);
  }
  job_.workers = run.workers;
  if (job_.workers == 0) {  // the first time: so it stays, since parts are cut or not
    bool several = job_.options.workers > 1 && job_.commits == Commits::yes;
    std::string reason = several ? one_worker_reason() : "";
    if (!reason.empty())
      bridge::notice(format("run %lld has one worker, since ", static_cast<long long>(run.id)) + reason);
    job_.workers = several && reason.empty() ? job_.options.workers : 1;
    ledger::set_workers(run.id, job_.workers);
  }
  choose_order();
  // A migrate() that ends well writes a single event: that it did.
  if (job_.commits == Commits::yes)
    ledger::add_event(run.id,
                      !run.sealed              ? "migration_started"
                      : run.status == "failed" ? "retried"
                                               : "resumed",
                      verifying ? "{\"step\": \"verifying\"}" : "{}");
  // An operator may have been faster.
  int64_t lock = lock_key(run.pipeline_id, job_.policy.space.scope);
  if (!(verifying ? ledger::own_run(run.id, run.status, next, lock)
                  : ledger::take_run(run.id, run.status, hashed, writer.name, writer.reason, lock)))
    refuse_transition(run.id, ledger::find_run(run.id)->status, next);
  run.status = next;
  job_.policy.hash_columns = ledger::hash_columns_of(run.id);
  job_.policy.first_xid = ledger::first_xid_of(run.id);
  bridge::AsUser as(job_.role);
  importer_ = std::make_unique<Importer>(job_, teller_);
  // What the caller's transaction has left to be judged later is the caller's, and must not be blamed on
  // items.
  if (job_.commits == Commits::no) importer_->check_deferred();
}

std::string Worker::one_worker_reason() const {
  bridge::AsUser as(job_.role);
  return run::one_worker_reason(*job_.plan, job_.options, job_.policy, ledger::parts_of(job_.run.id));
}

void Worker::seal_parts() {
  for (ledger::Part& part : ledger::parts_of(job_.run.id)) {
    if (part.kind == "query") {
      part.cursor_from = cursor_start(job_.run, part, job_.options, *job_.plan);
      if (part.cursor_from) ledger::set_part_cursor_from(job_.run.id, part.number, part.cursor_from);
      ledger::set_part_last_key(job_.run.id, part.number, last_key_of(part, job_.plan->stored()));
    } else if (part.kind == "payload") {
      int64_t bytes = 0;
      int32_t expected = 1;
      for (const ledger::Chunk& chunk : ledger::chunks_of(job_.run.id, part.number)) {
        if (chunk.number != expected++)  // joining its neighbours would make other items of them
          throw Error(codes::payload_mismatch,
                      format("chunk %d of \"%s\" is missing", expected - 1, part.name.c_str()))
              .hint("Submit it: the run takes parts until it starts.");
        bytes += chunk.length;
      }
      ledger::set_part_size(job_.run.id, part.number, bytes);
    }
  }
}

void Worker::check_data_versions() {
  const std::optional<DataVersion>& version = job_.plan->definition().data_version;
  if (!version) return;
  for (const ledger::Part& part : ledger::parts_of(job_.run.id))
    check_data_version(job_.run.id, part, *job_.plan);
}

/// What the run's owner does: whatever breaks it off, nobody is left to be waited for.
template <class F>
void Worker::as_owner(F&& f) {
  if (job_.commits == Commits::no) return f();
  if (std::optional<Error> error = bridge::committing(f)) fail(*error);
}

void Worker::work() {
  if (job_.commits == Commits::yes) bridge::commit();
  if (job_.run.status != "verifying") as_owner([this] { read(); });
}

void Worker::read() {
  if (job_.commits == Commits::yes)
    for (const ledger::Part& part : ledger::parts_of(job_.run.id))
      if (!part.cursor_column.empty() && !ledger::find_range(job_.run.id, part.number))
        wait_for_writers(job_, part);
  if (job_.options.validate_first && importer_->counts().read == 0) validate_first();
  if (job_.options.initial_load) defer_indexes();
  importer_->pass_over_unchanged();
  if (job_.workers > 1) send_helpers(job_.run, job_.workers - 1);
  importer_->work();
  if (job_.ownership.stopped()) importer_->wait_for_others();
  if (!job_.ownership.stopped()) put_indexes_back(false);
  if (!job_.ownership.stopped()) settle();
  if (!job_.ownership.stopped()) look_for_missing();
  if (!job_.ownership.stopped()) job_.target_lock.reset();
}

/// Takes indexes of the target away, or goes on without those that are away already.
void Worker::defer_indexes() {
  if (ledger::has_deferred_indexes(job_.run.id) && ledger::missing_indexes(job_.run.id).empty()) return;
  DeferIndexes stage(job_.run, job_.options, *job_.plan, job_.role, job_.policy, job_.target_lock);
  work_off(stage);
  if (!job_.ownership.stopped()) reopen();
}

/// Builds what is missing: a step of its own.
void Worker::put_indexes_back(bool at_any_rate) {
  if (!job_.options.initial_load || ledger::missing_indexes(job_.run.id).empty()) return;
  ledger::set_step(job_.run.id, "indexing");
  ledger::add_event(job_.run.id, "stage_changed", "{\"step\": \"indexing\"}");
  bridge::commit();
  RestoreIndexes stage(job_.run, *job_.plan, job_.role, job_.policy);
  work_off(stage, at_any_rate);
  if (!at_any_rate && !job_.ownership.stopped()) reopen();
}

/// Whether items see each other, and rows.
void Worker::choose_order() {
  job_.policy.park = job_.workers > 1 || ledger::deferred_unique_indexes(job_.run.id);
  job_.policy.blind = job_.options.initial_load && job_.policy.park && !job_.plan->match().empty() &&
                      !load::are_unique(job_.plan->target(), job_.plan->match());
}

/// Goes on with the target as it is now.
void Worker::reopen() {
  job_.compile();
  choose_order();
  bridge::AsUser as(job_.role);
  importer_ = std::make_unique<Importer>(job_, teller_);
}

/// What was imported without seeing all of the rest, by several workers or without indexes, and is undecided;
/// nobody helps any more. And what waits for references.
void Worker::settle() {
  bool several = job_.workers > 1 || (job_.policy.park && importer_->counts().parked > 0),
       waits = !job_.options.dry_run && importer_->counts().parked > 0;
  if (!several && !(waits && !job_.plan->references().empty())) return;
  ledger::set_step(job_.run.id, "resolving");
  if (job_.commits == Commits::yes) {
    ledger::add_event(job_.run.id, "stage_changed", "{\"step\": \"resolving\"}");
    bridge::commit();
  }
  if (several) {
    Settle stage(job_.run, job_.options, *job_.plan, job_.role, job_.policy);
    work_off(stage);
  }
  if (!job_.ownership.stopped() && !job_.plan->references().empty() && importer_->counts().parked > 0) {
    Unpark stage(job_.run, job_.options, *job_.plan, job_.role, job_.policy, false);
    work_off(stage);
  }
}

/// What is gone from the source, once all of it is read; and what has come again.
void Worker::look_for_missing() {
  bool asked = job_.plan->definition().missing.fate != MissingItems::Fate::keep;
  if (job_.options.dry_run || !(asked || ledger::any_marked(job_.policy.space))) return;
  Missing stage(job_.run, job_.options, *job_.plan, job_.role, job_.policy);
  work_off(stage);
}

/// Page by page, each a transaction; `at_any_rate`: although the run is to stop.
void Worker::work_off(Stage& stage, bool at_any_rate) {
  Patience patience(job_.ownership, job_.options.retry_attempts);
  for (bool finished = false; !finished && (at_any_rate || !job_.ownership.stopped());) {
    Stage::Page page;
    auto work = [&] {
      bridge::Memory scratch("portage settle scratch");
      bridge::InMemory in(scratch.get());
      LockLimit locks(job_.commits == Commits::yes);
      if (!job_.ownership.take_turn() && !at_any_rate) return;
      if (job_.target_lock) job_.target_lock->hold();
      page = stage.page();
      finished = page.finished;
      tell_errors(job_, page.counts, page.items, page.n);
      job_.ownership.end_turn();
    };
    if (job_.commits == Commits::no) {
      work();
      stage.committed();
      importer_->count(page.counts);
      continue;
    }
    std::optional<Error> error = bridge::transact(work);
    if (!error) {
      stage.committed();
      patience.forget();
      importer_->refresh_counts();
      if (!finished && !at_any_rate) importer_->check_rejects(false);
      continue;
    }
    finished = false;
    if (patience.bear(*error, true) && !stage.shrink()) throw *error;
  }
}

void Worker::seal() {
  if (job_.run.sealed) return;
  bridge::AsUser as(job_.role);
  check_data_versions();
  seal_parts();
}

Validation Worker::validation(int32_t session) {
  seal();
  bridge::AsUser as(job_.role);
  load::Policy policy = job_.policy;
  policy.hash_columns = job_.run.sealed ? job_.run.hash_columns : readable_columns(job_.plan->target());
  policy.may_update = may_update(*job_.plan);
  return Validation(job_.run, job_.options, *job_.plan, job_.role, policy, session);
}

/// Reads everything before the first write, and fails if more would be rejected than the run may.
void Worker::validate_first() {
  ledger::set_step(job_.run.id, "validating");
  if (job_.commits == Commits::yes) {
    ledger::add_event(job_.run.id, "stage_changed", "{\"step\": \"validating\"}");
    bridge::commit();
  }
  Validation validation(job_.run, job_.options, *job_.plan, job_.role, job_.policy, 0);
  validation.work([this] { return job_.ownership.take_turn(); }, job_.commits == Commits::yes);
  if (!job_.ownership.stopped() && too_many_rejects(job_.options, validation.counts(), true)) {
    std::vector<std::string> first;
    for (const Finding& finding : validation.findings())
      if (first.size() < 5 && !finding.warning && job_.plan->definition().sensitive.empty())
        first.push_back(format("item %lld", static_cast<long long>(finding.ordinal)) +
                        (finding.count > 1 ? " and " + grouped(finding.count - 1) + " more: " : ": ") +
                        finding.message);
    refuse_rejects(job_.run.id, validation.counts(), "would be rejected", first,
                   format("Nothing was written. SELECT portage.validate(%lld); shows all.",
                          static_cast<long long>(job_.run.id)));
  }
  ledger::set_step(job_.run.id, "importing");
  if (job_.commits == Commits::no) return;
  ledger::add_event(job_.run.id, "stage_changed", "{\"step\": \"importing\"}");
  bridge::commit();
}

/// Records why the run stops, commits that, and raises the error: as_owner() has rolled back what it had
/// broken off. An interrupt that comes meanwhile is told instead.
void Worker::fail(const Error& error) {
  if (ends_worker(error.code())) {
    leave();
    throw error;
  }
  Error told = error;
  std::optional<Error> late = bridge::committing([&] { told = record(error); });
  if (!late) throw told;
  if (bridge::is_interrupt(late->code())) leave();
  throw *late;
}

/// Not the run's fault: it stays as it is without an owner, which is to say interrupted and resumable.
/// Whether that succeeds or not: when this statement is over, nobody believes in its owner any more.
void Worker::leave() {
  (void)bridge::transact([this] {
    LockLimit locks(true);
    if (job_.workers > 1) ledger::release_pieces(job_.run.id);
    ledger::release_run(job_.run.id);
  });
  recorded_ = true;
}

/// The run has failed, or is paused where the target has changed. Gives the error that is to be raised.
Error Worker::record(const Error& error) {
  const ledger::Run& run = job_.run;
  std::string code = error.sqlstate(), text = error.message();
  if (!error.report().detail.empty()) text += "\n" + error.report().detail;
  bool changed = error.code() == codes::target_changed;
  if (!changed) text += still_missing();
  if (changed)
    pause(run.id, run.status, "{\"code\": \"" + code + "\"}");
  else
    move(run.id, run.status, "failed", "migration_failed", "{\"code\": \"" + code + "\"}");
  ledger::finish_run(run.id, changed ? "paused" : "failed", text, std::string(error_class("", code)), code);
  if (!changed && job_.options.dry_run) ledger::forget_predictions(run.id, 0);
  bridge::commit();
  recorded_ = true;
  if (job_.workers > 1) importer_->wait_for_others();  // they stop now
  Error told = error;
  if (!changed && !job_.options.dry_run && job_.options.rollback_on_failure) told = take_back(error);
  teller_.state(ledger::find_run(run.id)->status.c_str(), importer_->counts());
  return told;
}

/// Puts the target's indexes back at the end of a run that goes no further; tells what cannot be.
std::string Worker::still_missing() {
  std::optional<Error> late = bridge::committing([this] { put_indexes_back(true); });
  if (!late) return "";
  if (bridge::is_interrupt(late->code())) throw *late;
  std::string text = "Indexes of the target are not back yet: " + late->message();
  bridge::notice(
      text, format("CALL portage.restore_indexes(%lld); builds them.", static_cast<long long>(job_.run.id)),
      WARNING);
  return "\n" + text;
}

/// Takes back what the failed run has committed; what others changed or refer to meanwhile stays, and is
/// told.
Error Worker::take_back(const Error& error) {
  std::optional<Error> late = bridge::committing([this] {
    undo::Rollback rollback(*ledger::find_run(job_.run.id), job_.role, undo::Drifted::keep, false);
    rollback.spare_dependants();
    rollback.begin();
    rollback.work();
  });
  if (!late) return error;
  if (bridge::is_interrupt(late->code())) throw *late;
  return Error(error.code(), error.message())
      .detail(error.report().detail + "\nWhat was committed could not be taken back: " + late->message())
      .hint(format("CALL portage.rollback(%lld); takes it back.", static_cast<long long>(job_.run.id)));
}

/// Proves what was imported. A check of severity critical fails the run; others are told in `verified`.
void Worker::verify() {
  if (job_.run.status != "verifying") {
    move(job_.run.id, job_.run.status, "verifying", "stage_changed", "{\"step\": \"verifying\"}");
    job_.run.status = "verifying";
    ledger::set_step(job_.run.id, "verifying");
    if (job_.commits == Commits::yes) bridge::commit();
  }
  bool stop = false;
  auto work = [&] {
    verify::Verification verification(*ledger::find_run(job_.run.id), job_.role, verify::Depth::hashes);
    verification.on_page = [&] {
      stop = !job_.ownership.take_turn();
      if (stop) throw Error(ERRCODE_QUERY_CANCELED, "the run is to stop");
    };
    return verification.work(job_.commits == Commits::yes);
  };
  verify::Verdict verdict{};
  if (job_.commits == Commits::no)
    verdict = work();
  else if (std::optional<Error> error = bridge::committing([&] { verdict = work(); }))
    if (!stop) throw *error;
  if (!stop && verdict.critical)
    throw Error(codes::verification_failed,
                format("run %lld did not pass its verification", static_cast<long long>(job_.run.id)))
        .detail("Checks that did not pass: " + verdict.failed + ".")
        .hint(format("SELECT * FROM portage.data_integrity_checks WHERE run_id = %lld AND NOT passed;",
                     static_cast<long long>(job_.run.id)));
}

void Worker::complete() {
  std::string end;
  as_owner([&] { end = this->end(); });
  teller_.state(end.c_str(), importer_->counts());
  if (end == "completed" && !job_.options.dry_run)
    settle_waiting_runs(job_.run.pipeline_id, excluded_scope(job_), job_.commits);
}

/// The state in which the run ends, or pauses; it is committed.
std::string Worker::end() {
  if (!job_.ownership.stopped()) importer_->check_rejects(true);
  if (job_.ownership.request() == ledger::Request::cancel) still_missing();
  bool waits = importer_->counts().conflicted > 0 && !job_.options.dry_run;  // for decisions: resolve()
  if (!job_.ownership.stopped() && !job_.options.dry_run && !waits && job_.options.verify.value_or(true))
    verify();
  // A wish was accepted until now. Whoever has another one finds the run at its end.
  if (job_.commits == Commits::yes) job_.ownership.last_look();
  const char* end = job_.ownership.request() == ledger::Request::pause    ? "paused"
                    : job_.ownership.request() == ledger::Request::cancel ? "cancelled"
                    : waits                                               ? "awaiting_resolution"
                                                                          : "completed";
  if (job_.ownership.request() == ledger::Request::pause) {
    pause(job_.run.id, job_.run.status);
  } else {
    if (job_.options.dry_run) ledger::forget_predictions(job_.run.id, 0);
    waits = waits && !job_.ownership.stopped();
    move(job_.run.id, job_.run.status, end,
         job_.ownership.stopped() ? "cancelled"
         : waits                  ? "stage_changed"
                                  : "migration_completed",
         waits ? "{\"step\": \"resolving\"}" : "{}");
    ledger::finish_run(job_.run.id, end, "", "", "");
    if (!job_.ownership.stopped() && !waits && !job_.options.keep_payload) ledger::drop_payloads(job_.run.id);
  }
  if (job_.commits == Commits::yes) bridge::commit();
  return end;
}

}  // namespace portage::run
