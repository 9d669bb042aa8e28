// See worker.hpp.
#include "run/worker.hpp"

#include "bridge/codes.hpp"
#include "bridge/entry.hpp"
#include "bridge/json.hpp"
#include "bridge/subxact.hpp"
#include "ledger/pipelines.hpp"
#include "ledger/predictions.hpp"
#include "ledger/retention.hpp"
#include "pipeline/error_class.hpp"
#include "run/access.hpp"
#include "run/data_version.hpp"
#include "run/preflight.hpp"
#include "run/states.hpp"
#include "settings.hpp"
#include "undo/rollback.hpp"
#include "verify/verification.hpp"

namespace portage::run {
namespace {

using bridge::Error;
using bridge::format;
using Clock = std::chrono::steady_clock;

constexpr int64_t least_batch = 100, greatest_batch = 20000, first_batch = 1000;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

std::string now_text() {
  TimestampTz now = GetCurrentTimestamp();
  return bridge::guarded([=] { return pstrdup(timestamptz_to_str(now)); });
}

bool is_interrupt(int code) {
  int category = ERRCODE_TO_CATEGORY(code);
  return category == ERRCODE_TO_CATEGORY(ERRCODE_QUERY_CANCELED) || code == codes::stale_owner;
}

}  // namespace

Worker::Worker(const ledger::Run& run, Commits commits)
    : run_(run),
      commits_(commits),
      options_(parse_options(run.options)),
      pipeline_(ledger::pipeline_version(run.pipeline_id, run.version)),
      role_(role_of(run)),
      memory_("portage run", PortalContext ? PortalContext : CurrentMemoryContext),
      used_(usage_now()),
      teller_(run_, commits == Commits::no) {
  pipeline_.timezone = run.timezone;
  bridge::AsUser as(role_);
  plan_ = Plan::compile(pipeline_);
  policy_ = policy_of(run, options_, *plan_);
  batch_size_ = options_.batch_size ? options_.batch_size : first_batch;
}

Worker::~Worker() = default;

void Worker::check_blockers() {
  refuse(server_blockers(*plan_, run_.pipeline_id, run_.scope, run_.id));
  bridge::AsUser as(role_);
  refuse(missing_privileges(*plan_, overwrites()));
}

/// Whose runs must not be active at the same time: the scope's or, where scopes share their ids, everybody's.
std::optional<std::string> Worker::excluded_scope() const {
  if (!plan_->definition().scoped) return std::nullopt;
  return run_.scope;
}

void Worker::begin() {
  if (!try_lock(run_.pipeline_id, policy_.space.scope, true))
    refuse_second(run_.pipeline_id, excluded_scope());
  run_ = *ledger::find_run(run_.id);  // as it is now that nobody else can take it
  if (ledger::runs_changed_since_snapshot(run_.pipeline_id, excluded_scope()))
    throw Error(ERRCODE_T_R_SERIALIZATION_FAILURE, "could not serialize access due to a concurrent migration")
        .detail("This pipeline and scope was migrated after the transaction took its snapshot.")
        .hint("The transaction might succeed if retried.");
  check_blockers();
  bool verifying = run_.status == "verifying";
  if ((run_.status == "running" || verifying) && run_.owner_alive && !run_.owner_is_me)
    throw Error(codes::run_in_progress, "a migration is in progress")
        .detail(format("Run %lld is being worked on by process %d.", static_cast<long long>(run_.id),
                       run_.owner_pid.value_or(0)))
        .hint("Wait for it, or SELECT portage.cancel(" + std::to_string(run_.id) + ");");
  if (run_.status != "running" && !verifying && !may_become(run_.status, "running"))
    refuse_transition(run_.id, run_.status, "running");
  if (ledger::cleaned_up(run_.id))
    throw Error(codes::wrong_state,
                format("run %lld cannot go on: it was cleaned up", static_cast<long long>(run_.id)))
        .hint("Open a new run: what is migrated is known.");
  std::vector<std::string> columns;
  {
    bridge::AsUser as(role_);
    columns = readable_columns(plan_->target());
    if (!run_.sealed) check_data_versions();
    if (!run_.sealed) seal_parts();
    policy_.may_update = may_update(*plan_);
  }
  // A migrate() that ends well writes a single event: that it did.
  if (commits_ == Commits::yes)
    ledger::add_event(run_.id,
                      !run_.sealed                             ? "migration_started"
                      : run_.status != "running" && !verifying ? "retried"
                                                               : "resumed",
                      verifying ? "{\"step\": \"verifying\"}" : "{}");
  if (verifying)
    ledger::own_run(run_.id);
  else
    ledger::take_run(run_.id, columns);
  policy_.hash_columns = ledger::hash_columns_of(run_.id);
  policy_.first_xid = ledger::first_xid_of(run_.id);
  if (!verifying) run_.status = "running";
  counts_ = ledger::sum_batches(run_.id);
  bridge::AsUser as(role_);
  writer_ = load::make_sql_writer(*plan_, plan_->target().attnums(policy_.hash_columns));
  loader_ = std::make_unique<load::Loader>(*plan_, *writer_, policy_);
  // What the caller's transaction has left to be judged later is the caller's, and must not be blamed on
  // items.
  if (commits_ == Commits::no) writer_->check_deferred();
}

void Worker::seal_parts() {
  for (const ledger::Part& part : ledger::parts_of(run_.id)) {
    if (part.kind == "query") {
      ledger::set_part_last_key(run_.id, part.number, last_key_of(part));
    } else if (part.kind == "payload") {
      int64_t bytes = 0;
      int32_t expected = 1;
      for (const ledger::Chunk& chunk : ledger::chunks_of(run_.id, part.number)) {
        if (chunk.number != expected++)  // joining its neighbours would make other items of them
          throw Error(codes::payload_mismatch,
                      format("chunk %d of \"%s\" is missing", expected - 1, part.name.c_str()))
              .hint("Submit it: the run takes parts until it starts.");
        bytes += chunk.length;
      }
      ledger::set_part_size(run_.id, part.number, bytes);
    }
  }
}

void Worker::check_data_versions() {
  const std::optional<DataVersion>& version = plan_->definition().data_version;
  if (!version) return;
  for (const ledger::Part& part : ledger::parts_of(run_.id)) check_data_version(run_.id, part, *plan_);
}

bool Worker::skip_part(const ledger::Part& part) {
  if (part.skipped) return true;
  if (!options_.max_part_bytes || part.byte_length.value_or(0) <= *options_.max_part_bytes) return false;
  std::string reason = format("%lld bytes are more than max_part_bytes (%lld)",
                              static_cast<long long>(part.byte_length.value_or(0)),
                              static_cast<long long>(*options_.max_part_bytes));
  if (!options_.skip_large_parts)
    throw Error(codes::payload_too_large, "part \"" + part.name + "\" is too large")
        .detail("Its " + reason + ".")
        .hint("Raise max_part_bytes, or set skip_large_parts.");
  ledger::set_part_skipped(run_.id, part.number, reason);
  ledger::add_event(run_.id, "error_added",
                    "{\"part\": " + std::to_string(part.number) + ", \"skipped\": \"" + reason + "\"}");
  return true;
}

/// A guess, to size what remembers ids: items of the mean length so far, or of 100 bytes.
int64_t Worker::expected_items() const {
  double read = static_cast<double>(std::max<int64_t>(counts_.read, 1));
  double bytes = counts_.read ? static_cast<double>(bytes_read_) : 100;
  return static_cast<int64_t>(static_cast<double>(bytes_total_) * read / std::max(bytes, 1.0)) + counts_.read;
}

bool Worker::out_of_items() const { return options_.limit && counts_.read >= *options_.limit; }

void Worker::work() {
  if (commits_ == Commits::yes) bridge::commit();
  if (run_.status == "verifying") return;  // all is read
  parts_ = ledger::parts_of(run_.id);
  for (const ledger::Part& part : parts_) bytes_total_ += part.byte_length.value_or(0);
  teller_.start(counts_.read, bytes_total_);
  if (options_.validate_first && counts_.read == 0) validate_first();
  if (counts_.unchanged > 0) loader_->recall(expected_items());
  for (const ledger::Part& part : parts_) {
    if (cancelled_ || out_of_items()) break;
    work_off_part(part);
  }
}

void Worker::work_off_part(const ledger::Part& part) {
  std::unique_ptr<OpenPart> open;
  ledger::Range range;
  Batch batch;
  bool at_end = false, finished = false;
  size_t done = 0;  // items of the batch that are in the ledger already
  while (!finished && !cancelled_) {
    Clock::time_point start = Clock::now();
    std::optional<Error> error = bridge::attempt([&] {
      bridge::Memory scratch("portage batch scratch");
      bridge::InMemory in(scratch.get());
      if (!take_turn()) return;
      if (!open) {
        std::optional<ledger::Range> known = ledger::find_range(run_.id, part.number);
        if (known && known->done) {
          next_ordinal_ = known->next_ordinal;
          finished = true;
          return;
        }
        if (!known && skip_part(part)) {
          finished = true;
          return;
        }
        range = ledger::claim_range(run_.id, part.number, next_ordinal_);
        bridge::AsUser as(role_);
        open = open_items(run_, part, *plan_, options_,
                          range.cursor_ordinal > range.first_ordinal ? &range : nullptr);
      }
      hold_target(*plan_, run_.id, RowExclusiveLock);
      bridge::AsUser as(role_);
      if (InSecurityRestrictedOperation()) bridge::execute("SET CONSTRAINTS ALL IMMEDIATE");
      open->check_unchanged();
      if (batch.items.empty()) {
        done = 0;
        int64_t room = options_.limit ? *options_.limit - counts_.read : batch_size_;
        at_end =
            read_batch(*open, batch, {range.cursor_ordinal, range.next_ordinal}, std::min(batch_size_, room));
        read_ms_ = ms_since(start);
        Clock::time_point convert = Clock::now();
        prepare_batch(*plan_, batch, run_, part, options_);
        convert_ms_ = ms_since(convert);
      }
      load_batch(part, *open, batch, done, range, at_end);
    });
    if (error) fail(*error);
    Clock::time_point commit = Clock::now();
    if (commits_ == Commits::yes) bridge::commit();
    commit_ms_ = ms_since(commit);
    if (cancelled_ || finished) break;
    if (done < batch.items.size()) {
      adapt(ms_since(start));
      continue;
    }
    batch.reset();
    next_ordinal_ = range.next_ordinal;
    adapt(ms_since(start));
    finished = range.done || out_of_items();
    if (finished) bytes_done_ += part.byte_length.value_or(0);
    teller_.progress(counts_, bytes_done_ + (finished ? 0 : static_cast<int64_t>(range.checkpoint.offset)));
    try {
      check_rejects(false);
      bridge::check_interrupts();
    } catch (const Error& late) {
      fail(late);
    }
  }
}

/// The lock and the run are still ours; false if it has been cancelled.
bool Worker::take_turn() {
  // Who finds a run active lets go of the lock at once: a moment's patience, then it is somebody else's for
  // long.
  bool locked = try_lock(run_.pipeline_id, policy_.space.scope, false);
  for (int i = 0; !locked && i < 500 && commits_ == Commits::yes; i++) {
    bridge::check_interrupts();
    pg_usleep(10000);
    locked = try_lock(run_.pipeline_id, policy_.space.scope, false);
  }
  if (!locked && commits_ == Commits::yes)
    throw Error(ERRCODE_LOCK_NOT_AVAILABLE, "another session has taken this pipeline and scope")
        .hint("CALL portage.run(" + std::to_string(run_.id) + "); goes on from here.");
  bool cancel = false;
  if (!ledger::still_mine(run_.id, run_.status.c_str(), &cancel))
    throw Error(codes::stale_owner, format("run %lld has been taken over", static_cast<long long>(run_.id)));
  cancelled_ = cancelled_ || cancel;
  return !cancelled_;
}

Validation Worker::validation(int32_t session) {
  bridge::AsUser as(role_);
  if (!run_.sealed) {
    check_data_versions();
    seal_parts();
  }
  load::Policy policy = policy_;
  policy.hash_columns = run_.sealed ? run_.hash_columns : readable_columns(plan_->target());
  policy.may_update = may_update(*plan_);
  return Validation(run_, options_, *plan_, role_, policy, session);
}

/// Reads everything before the first write, and fails if more would be rejected than the run may.
void Worker::validate_first() {
  try {
    ledger::set_step(run_.id, "validating");
    if (commits_ == Commits::yes) {
      ledger::add_event(run_.id, "stage_changed", "{\"step\": \"validating\"}");
      bridge::commit();
    }
    Validation validation(run_, options_, *plan_, role_, policy_, 0);
    validation.work([this] { return take_turn(); }, commits_ == Commits::yes);
    if (!cancelled_ && too_many(validation.counts(), true)) {
      std::vector<std::string> first;
      for (const Finding& finding : validation.findings())
        if (first.size() < 5 && !finding.warning && plan_->definition().sensitive.empty())
          first.push_back(format("item %lld", static_cast<long long>(finding.ordinal)) +
                          (finding.count > 1 ? " and " + grouped(finding.count - 1) + " more: " : ": ") +
                          finding.message);
      refuse_rejects(validation.counts(), "would be rejected", first,
                     format("Nothing was written. SELECT portage.validate(%lld); shows all.",
                            static_cast<long long>(run_.id)));
    }
    ledger::set_step(run_.id, "importing");
    if (commits_ == Commits::no) return;
    ledger::add_event(run_.id, "stage_changed", "{\"step\": \"importing\"}");
    bridge::commit();
  } catch (const Error& error) {
    fail(error);
  }
}

void Worker::load_batch(const ledger::Part& part, OpenPart& open, Batch& batch, size_t& done,
                        ledger::Range& range, bool at_end) {
  load::Timings before = loader_->timings();
  std::string started = now_text();
  size_t settled = loader_->load(batch, done);
  bool whole = settled == batch.items.size();
  ledger::Range next = range;
  if (settled > done) {
    next.next_ordinal = batch.items[settled - 1].ordinal + 1;
    ledger::BatchRecord record;
    record.run_id = run_.id;
    record.part = part.number;
    record.range_no = range.number;
    record.epoch = range.epoch;
    record.counts = ledger::count_outcomes(batch.items.data() + done, settled - done);
    for (size_t i = done; i < settled; i++)
      record.bytes += static_cast<int64_t>(batch.items[i].record.length);
    record.started_at = started;
    const load::Timings& after = loader_->timings();
    Usage used = usage_now();
    record.timings = {{"read", read_ms_},
                      {"convert", convert_ms_},
                      {"look_up", after.look_up - before.look_up},
                      {"target", after.target - before.target},
                      {"commit", commit_ms_},
                      {"cpu", used.cpu_ms - used_.cpu_ms}};
    record.wal_bytes = used.wal_bytes - used_.wal_bytes;
    record.memory_bytes = used.memory_bytes;
    used_ = used;
    ledger::write_batch(record, policy_.space, batch.items.data() + done, settled - done, loader_->undo());
    counts_ += record.counts;
    bytes_read_ += record.bytes;
    tell_errors(record.counts, batch.items.data() + done, settled - done);
  }
  if (whole) {
    next.checkpoint = open.reader().checkpoint();
    next.cursor_ordinal = next.next_ordinal;
    next.done = at_end;
    if (at_end)
      if (std::optional<std::string> digest = open.digest())
        ledger::set_part_sha256(run_.id, part.number, *digest);
  }
  ledger::advance_range(run_.id, next);
  if (!whole || !at_end || part.number < parts_.back().number)
    loader_->remember(batch.items.data() + done, settled - done, expected_items());
  range = next;
  done = settled;
  read_ms_ = convert_ms_ = commit_ms_ = 0;
}

/// One event per batch that had rejects: how many, and the first few.
void Worker::tell_errors(const ledger::Counts& counts, const Item* items, size_t n) {
  if (counts.rejects() == 0) return;
  std::string first;
  int shown = 0;
  for (size_t i = 0; i < n && shown < 3; i++) {
    if (items[i].outcome != Outcome::invalid && items[i].outcome != Outcome::failed) continue;
    const Issue* issue = items[i].issues;
    while (issue && issue->warning && issue->next) issue = issue->next;
    if (!issue) continue;
    if (first_rejects_.size() < 5 && plan_->definition().sensitive.empty())
      first_rejects_.push_back(format("item %lld: ", static_cast<long long>(items[i].ordinal)) +
                               std::string(issue->message));
    // neither message nor input: events are read by more people than rejects are
    first += format("%s{\"ordinal\": %lld, \"rule\": %s, \"sqlstate\": \"%s\"}", shown ? ", " : "",
                    static_cast<long long>(items[i].ordinal), bridge::json_quoted(issue->rule).c_str(),
                    issue->sqlstate);
    shown++;
  }
  ledger::add_event(
      run_.id, "error_added",
      format("{\"count\": %lld, \"first\": [%s]}", static_cast<long long>(counts.rejects()), first.c_str()));
}

/// Towards portage.batch_target: doubling at first, then gently.
void Worker::adapt(double milliseconds) {
  batches_++;
  if (options_.batch_size) return;
  double ratio = settings::batch_target / std::max(milliseconds, 1.0);
  double step = batches_ <= 5 ? std::clamp(ratio, 0.25, 4.0) : std::clamp(ratio, 0.5, 1.25);
  batch_size_ =
      std::clamp(static_cast<int64_t>(static_cast<double>(batch_size_) * step), least_batch, greatest_batch);
}

bool Worker::too_many(const ledger::Counts& counts, bool at_end) const {
  if (options_.max_rejects && counts.rejects() > *options_.max_rejects) return true;
  // A share means little before some items have been read.
  return options_.max_reject_share && (at_end || counts.read >= 1000) &&
         static_cast<double>(counts.rejects()) >
             *options_.max_reject_share * static_cast<double>(counts.read);
}

void Worker::refuse_rejects(const ledger::Counts& counts, const std::string& what,
                            const std::vector<std::string>& first, const std::string& hint) const {
  std::string detail = format("%s of %s items %s, which is beyond max_rejects.",
                              grouped(counts.rejects()).c_str(), grouped(counts.read).c_str(), what.c_str());
  for (const std::string& reject : first) detail += "\n" + reject;
  throw Error(codes::too_many_rejects,
              format("run %lld has too many rejects", static_cast<long long>(run_.id)))
      .detail(detail)
      .hint(hint);
}

void Worker::check_rejects(bool at_end) {
  if (!too_many(counts_, at_end)) return;
  if (commits_ == Commits::no)  // the rejects go with the rest: this is where they are told
    refuse_rejects(counts_, "were rejected", first_rejects_,
                   "Nothing of the payload was kept. Mend the items, or raise max_rejects.");
  refuse_rejects(
      counts_, "were rejected", {},
      format("SELECT * FROM portage.rejects WHERE run_id = %lld; %s.", static_cast<long long>(run_.id),
             options_.dry_run               ? "nothing was written to the target"
             : options_.rollback_on_failure ? "what was committed is taken back"
                                            : "what was committed stays"));
}

/// Records why the run stops, commits that, and raises the error. In a function there is nothing to record
/// in: its caller's transaction decides.
void Worker::fail(const Error& error) {
  if (commits_ == Commits::no) throw error;
  std::string code = error.sqlstate();
  if (is_interrupt(error.code())) {
    // Not the run's fault: it stays running without an owner, which is to say interrupted and resumable.
    if (error.code() != codes::stale_owner) ledger::release_run(run_.id);
  } else {
    std::string text = error.message();
    if (!error.report().detail.empty()) text += "\n" + error.report().detail;
    bool changed = error.code() == codes::target_changed;
    move(run_.id, run_.status, changed ? "paused" : "failed", changed ? "paused" : "migration_failed",
         "{\"code\": \"" + code + "\"}");
    ledger::finish_run(run_.id, changed ? "paused" : "failed", text, std::string(error_class("", code)),
                       code);
    if (!changed && options_.dry_run) ledger::forget_predictions(run_.id, 0);
    if (!changed && !options_.dry_run && options_.rollback_on_failure) {
      bridge::commit();
      take_back(error);
    }
  }
  bridge::commit();
  teller_.state(ledger::find_run(run_.id)->status.c_str(), counts_);
  throw error;
}

/// Takes back what the failed run has committed; what others changed or refer to meanwhile stays, and is
/// told.
void Worker::take_back(const Error& error) {
  try {
    undo::Rollback rollback(*ledger::find_run(run_.id), role_, undo::Drifted::keep, false);
    rollback.spare_dependants();
    rollback.begin();
    rollback.work();
  } catch (const Error& late) {
    throw Error(error.code(), error.message())
        .detail(error.report().detail + "\nWhat was committed could not be taken back: " + late.message())
        .hint(format("CALL portage.rollback(%lld); takes it back.", static_cast<long long>(run_.id)));
  }
}

/// Proves what was imported. A check of severity critical fails the run; others are told in `verified`.
void Worker::verify() {
  try {
    if (run_.status != "verifying") {
      move(run_.id, run_.status, "verifying", "stage_changed", "{\"step\": \"verifying\"}");
      run_.status = "verifying";
      ledger::set_step(run_.id, "verifying");
      if (commits_ == Commits::yes) bridge::commit();
    }
    verify::Verification verification(*ledger::find_run(run_.id), role_, verify::Depth::hashes);
    verification.on_page = [this] {
      if (!take_turn()) throw Error(ERRCODE_QUERY_CANCELED, "the run is cancelled");
    };
    verify::Verdict verdict = verification.work(commits_ == Commits::yes);
    if (verdict.critical)
      throw Error(codes::verification_failed,
                  format("run %lld did not pass its verification", static_cast<long long>(run_.id)))
          .detail("Checks that did not pass: " + verdict.failed + ".")
          .hint(format("SELECT * FROM portage.data_integrity_checks WHERE run_id = %lld AND NOT passed;",
                       static_cast<long long>(run_.id)));
  } catch (const Error& error) {
    if (!cancelled_) fail(error);
  }
}

void Worker::complete() {
  try {
    if (!cancelled_) check_rejects(true);
  } catch (const Error& error) {
    fail(error);
  }
  if (!cancelled_ && !options_.dry_run && options_.verify.value_or(commits_ == Commits::yes)) verify();
  if (options_.dry_run) ledger::forget_predictions(run_.id, 0);
  const char* end = cancelled_ ? "cancelled" : "completed";
  move(run_.id, run_.status, end, cancelled_ ? "cancelled" : "migration_completed");
  ledger::finish_run(run_.id, end, "", "", "");
  if (!cancelled_ && !options_.keep_payload) ledger::drop_payloads(run_.id);
  if (commits_ == Commits::yes) bridge::commit();
  teller_.state(end, counts_);
}

}  // namespace portage::run
