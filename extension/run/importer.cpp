// See importer.hpp.
#include "run/importer.hpp"

#include "bridge/background.hpp"
#include "bridge/clock.hpp"
#include "bridge/codes.hpp"
#include "bridge/deferral.hpp"
#include "bridge/entry.hpp"
#include "bridge/json.hpp"
#include "bridge/subxact.hpp"
#include "ledger/source_cursors.hpp"
#include "run/background.hpp"
#include "run/source_cursor.hpp"
#include "run/unchanged_parts.hpp"
#include "run/unpark.hpp"
#include "settings.hpp"

extern "C" {
#include "storage/proc.h"
}

namespace portage::run {
namespace {

using bridge::Error;
using bridge::format;
using Clock = std::chrono::steady_clock;

constexpr int64_t least_batch = 100, greatest_batch = 20000;
constexpr double least_limit = 1500;    // milliseconds: what a batch may take at least
constexpr double look_interval = 2000;  // milliseconds between two looks at the server's health

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

/// A short transaction of its own between two batches.
template <class F>
std::optional<Error> apart(F&& f) {
  return bridge::transact([&] {
    bridge::Memory scratch("portage between batches");
    bridge::InMemory in(scratch.get());
    f();
  });
}

}  // namespace

Importer::Importer(Job& job, Teller& teller)
    : job_(job),
      teller_(teller),
      patience_(job.ownership, job.options.retry_attempts),
      writer_(load::make_writer(*job.plan, job.plan->target().attnums(job.policy.hash_columns))),
      loader_(std::make_unique<load::Loader>(*job.plan, *writer_, job.policy)),
      parts_(ledger::parts_of(job.run.id)),
      counts_(ledger::sum_batches(job.run.id)),
      batch_size_(job.options.batch_size ? job.options.batch_size : first_batch),
      floor_(std::min(batch_size_, least_batch)),
      cost_{usage_now()} {
  for (const ledger::Part& part : parts_) bytes_total_ += part.byte_length.value_or(0);
  teller_.start(counts_.read, bytes_total_);
}

Importer::~Importer() = default;

void Importer::pass_over_unchanged() { bytes_done_ += run::pass_over_unchanged(job_, parts_); }

void Importer::work() {
  if (job_.workers > 1) {
    work_side_by_side();
    return;
  }
  loader_->expect(expected_items());
  if (counts_.unchanged > 0) loader_->recall(expected_items());
  if (counts_.parked > 0) recall_waiting(job_.run, job_.options, *job_.plan, job_.role, *loader_);
  for (const ledger::Part& part : parts_) {
    if (job_.ownership.stopped() || out_of_items()) break;
    work_off(part, std::nullopt);
  }
}

/// Pieces are cut ahead of the workers, but not far.
void Importer::work_side_by_side() {
  Scanner scanner(job_.run, job_.options, *job_.plan, job_.role);
  bool all_cut = false;
  while (!job_.ownership.stopped()) {
    ledger::Pieces pieces = look_at_pieces();
    if (!all_cut && pieces.unclaimed < 2 * job_.workers)
      all_cut = !cut(scanner);
    else if (pieces.unclaimed > 0)
      work_off_piece();
    else if (pieces.open > 0)
      job_.ownership.rest(50);
    else
      break;
    refresh_counts();
    check_rejects(false);
    bridge::check_interrupts();
  }
}

/// False if all parts are cut.
bool Importer::cut(Scanner& scanner) {
  bool more = true;
  std::optional<Error> error = apart([&] {
    if (job_.ownership.take_turn()) more = scanner.cut();
  });
  if (error) {
    scanner.forget();
    patience_.bear(*error, false);
    return true;
  }
  patience_.forget();
  return more;
}

void Importer::help() {
  while (!job_.ownership.stopped()) {
    if (!work_off_piece()) job_.ownership.rest(50);
    bridge::check_interrupts();
  }
}

/// False if there is none at this moment that nobody works on.
bool Importer::work_off_piece() {
  std::optional<ledger::Range> piece;
  std::optional<Error> error = apart([&] {
    if (job_.ownership.take_turn()) piece = ledger::claim_piece(job_.run.id, settings::lease_duration);
  });
  if (error) {
    patience_.bear(*error, false);
    return true;
  }
  if (!piece) return false;
  auto part = std::find_if(parts_.begin(), parts_.end(),
                           [&](const ledger::Part& one) { return one.number == piece->part; });
  error = bridge::committing([&] { work_off(*part, piece); });
  // Where its lease had run out, somebody else has it: there may be others.
  if (error && error->code() != codes::stale_owner) throw *error;
  return true;
}

ledger::Pieces Importer::look_at_pieces() {
  ledger::Pieces pieces;
  if (std::optional<Error> error = apart([&] { pieces = ledger::pieces_of(job_.run.id); })) throw *error;
  return pieces;
}

void Importer::wait_for_others() {
  if (job_.workers == 1) return;
  ledger::release_pieces(job_.run.id);
  bridge::commit();
  for (int i = 0; i < 1000; i++) {
    ledger::Pieces pieces = look_at_pieces();
    if (pieces.open == pieces.unclaimed) return;
    bridge::nap(20);
  }
}

void Importer::refresh_counts() {
  int64_t bytes = 0;
  std::optional<Error> error = apart([&] {
    counts_ = ledger::sum_batches(job_.run.id);
    bytes = ledger::sum_bytes(job_.run.id);
  });
  if (error) throw *error;
  teller_.progress(counts_, bytes);
}

/// A guess, to size what remembers ids: items of the mean length so far, or of 100 bytes.
int64_t Importer::expected_items() const {
  double read = static_cast<double>(std::max<int64_t>(counts_.read, 1));
  double bytes = counts_.read ? static_cast<double>(bytes_read_) : 100;
  return static_cast<int64_t>(static_cast<double>(bytes_total_) * read / std::max(bytes, 1.0)) + counts_.read;
}

bool Importer::out_of_items() const { return job_.options.limit && counts_.read >= *job_.options.limit; }

/// Makes the part's range ours, in a transaction of its own; false if there is nothing left to read.
bool Importer::claim(const ledger::Part& part, ledger::Range& range) {
  if (range.end_ordinal) {  // a piece, again
    range = ledger::reclaim(job_.run.id, range, settings::lease_duration);
    return true;
  }
  std::optional<ledger::Range> known = ledger::find_range(job_.run.id, part.number);
  if (known && known->done) {
    next_ordinal_ = known->next_ordinal;
    return false;
  }
  if (!known && pass_over(job_.run, job_.options, part)) return false;
  range = ledger::claim_range(job_.run.id, part.number, next_ordinal_);
  return true;
}

/// A part from beginning to end; or a piece of it, which has just been claimed.
void Importer::work_off(const ledger::Part& part, std::optional<ledger::Range> piece) {
  std::unique_ptr<OpenPart> open;
  ledger::Range range = piece.value_or(ledger::Range{});
  Batch batch;
  bool claimed = piece.has_value(), at_end = false, finished = false;
  size_t done = 0;  // items of the batch that are in the ledger already
  while (!finished && !job_.ownership.stopped()) {
    Clock::time_point start = Clock::now();
    Clock::time_point ready = start;
    Loaded loaded;
    auto one_batch = [&] {
      TimeLimit limit(time_limit());
      bridge::Memory scratch("portage batch scratch");
      bridge::InMemory in(scratch.get());
      LockLimit locks(job_.commits == Commits::yes);
      if (!job_.ownership.take_turn()) return;
      if (!claimed) {
        finished = !claim(part, range);
        claimed = true;
        return;
      }
      if (!open) {
        bridge::AsUser as(job_.role);
        bool behind = range.cursor_ordinal > range.first_ordinal || range.checkpoint.offset > 0;
        open = open_items(job_.run, part, *job_.plan, job_.options, behind ? &range : nullptr);
      }
      if (job_.target_lock) job_.target_lock->hold();
      hold_target(*job_.plan, job_.run.id, RowExclusiveLock);
      bridge::AsUser as(job_.role);
      bridge::defer_nothing();
      open->check_unchanged();
      if (batch.items.empty()) {
        done = 0;
        int64_t room = range.end_ordinal    ? *range.end_ordinal - range.next_ordinal
                       : job_.options.limit ? *job_.options.limit - counts_.read
                                            : batch_size_;
        at_end =
            read_batch(*open, batch, {range.cursor_ordinal, range.next_ordinal}, std::min(batch_size_, room));
        if (range.end_ordinal) {
          bool all = static_cast<int64_t>(batch.items.size()) == room;
          if (at_end && !all)
            throw Error(codes::source_changed, "part \"" + part.name + "\" has fewer items than it had")
                .hint("What was committed stays. Open a new run for the new content.");
          at_end = all;
        }
        cost_.read_ms = ms_since(start);
        Clock::time_point convert = Clock::now();
        prepare_batch(*job_.plan, batch, job_.run, part, job_.options, {false, !job_.options.dry_run});
        cost_.convert_ms = ms_since(convert);
      }
      loaded = load_batch(part, *open, batch, done, range, at_end);
      if (job_.commits == Commits::yes && ms_since(looked_at_server_) > look_interval)
        strain_ = look_at_server();  // now: who is blocked, is so until we commit
      job_.ownership.end_turn();
      ready = Clock::now();
    };
    bool commits = job_.commits == Commits::yes;
    std::optional<Error> error = commits ? bridge::transact(one_batch) : bridge::attempt(one_batch);
    if (error) {
      if (!commits || (error->code() == codes::stale_owner && piece)) throw *error;
      recover(*error, range, batch.items.size());
      open.reset();
      claimed = false;
      batch.reset();
      done = 0;
      continue;
    }
    if (job_.ownership.stopped() || finished) break;
    if (!open) continue;  // the range is ours from now on
    cost_.commit_ms = ms_since(ready);
    counts_ += loaded.counts;
    bytes_read_ += loaded.bytes;
    for (std::string& reject : loaded.first_rejects)
      if (first_rejects_.size() < 5) first_rejects_.push_back(std::move(reject));
    if (commits) patience_.forget();
    if (!sparing_) adapt(ms_since(start));
    if (commits && ms_since(looked_at_server_) > look_interval) spare_server();
    if (done < batch.items.size()) continue;
    batch.reset();
    next_ordinal_ = range.next_ordinal;
    finished = range.done || (!piece && out_of_items());
    if (piece) {  // the owner of the run looks at what all have done
      bridge::check_interrupts();
      continue;
    }
    if (finished) bytes_done_ += part.byte_length.value_or(0);
    teller_.progress(counts_, bytes_done_ + (finished ? 0 : static_cast<int64_t>(range.checkpoint.offset)));
    check_rejects(false);
    bridge::check_interrupts();
  }
}

Importer::Loaded Importer::load_batch(const ledger::Part& part, OpenPart& open, Batch& batch, size_t& done,
                                      ledger::Range& range, bool at_end) {
  Loaded loaded;
  load::Timings before = loader_->timings();
  TimestampTz started = GetCurrentTimestamp();
  size_t settled = loader_->load(batch, done);
  bool whole = settled == batch.items.size();
  ledger::Range next = range;
  const Item* items = batch.items.data() + done;
  size_t n = settled - done;
  if (n > 0) {
    next.next_ordinal = batch.items[settled - 1].ordinal + 1;
    ledger::BatchRecord record = record_of(job_, *loader_, before, items, n, cost_);
    record.range_no = range.number;
    record.part = part.number;
    record.epoch = range.epoch;
    record.started_at = started;
    ledger::write_batch(record, job_.policy.space, items, n, loader_->undo());
    loaded.counts = record.counts;
    loaded.bytes = record.bytes;
    loaded.first_rejects = tell_errors(job_, record.counts, items, n);
  }
  if (whole) {
    next.checkpoint = open.reader().checkpoint();
    next.cursor_ordinal = next.next_ordinal;
    next.done = at_end;
    if (at_end)
      if (std::optional<std::string> digest = open.digest())
        ledger::set_part_sha256(job_.run.id, part.number, *digest);
  }
  ledger::advance_range(job_.run.id, next, range.end_ordinal ? settings::lease_duration : 0);
  if (whole && !batch.items.empty() && moves_cursor(part, job_.options))
    ledger::set_source_position(job_.run, part, next.checkpoint.state);
  if (!whole || !at_end || part.number < parts_.back().number) loader_->remember(items, n, expected_items());
  range = next;
  done = settled;
  cost_.read_ms = cost_.convert_ms = cost_.commit_ms = 0;
  return loaded;
}

Strain Importer::look_at_server() const {
  return strain_of(read_signals(job_.plan->target().oid, {MyProcPid}));
}

/// Half the batch while the server strains, nothing at all while it must not be strained any more; and
/// workers for runs that wait for one.
void Importer::spare_server() {
  looked_at_server_ = Clock::now();
  send_waiting_workers(false, true);
  bridge::commit();
  if (strain_.halve && !sparing_) batch_size_ = std::max(batch_size_ / 2, floor_);
  if (strain_.hold || strain_.halve) {
    sparing_ = true;
    job_.ownership.hold(strain_.hold ? strain_.reason : "smaller batches: " + strain_.reason);
  }
  while (strain_.hold && job_.ownership.rest(1000)) {
    strain_ = look_at_server();
    bridge::commit();
  }
  if (!strain_.hold && !strain_.halve && sparing_) {
    sparing_ = false;
    job_.ownership.release();
  }
}

/// Raises the error again unless it may pass: then it has been waited for, and what is tried next is smaller
/// where that helps. The batch is as if it had never been.
void Importer::recover(const Error& error, const ledger::Range& range, size_t items) {
  bool timed_out = error.code() == ERRCODE_QUERY_CANCELED && TimeLimit::ran_out();
  if (timed_out || is_transient(error.code())) {
    ledger::record_range_error(job_.run.id, range.part, range.number,
                               timed_out ? format("a batch of %zu items took too long", items)
                                         : error.sqlstate() + " " + error.message());
    bridge::commit();
  }
  if (patience_.bear(error, batch_size_ > 1)) halve();
}

/// Towards portage.batch_target: doubling at first, then gently.
void Importer::adapt(double milliseconds) {
  batches_++;
  if (job_.options.batch_size) return;
  double ratio = settings::batch_target / std::max(milliseconds, 1.0);
  double step = batches_ <= 5 ? std::clamp(ratio, 0.25, 4.0) : std::clamp(ratio, 0.5, 1.25);
  batch_size_ =
      std::clamp(static_cast<int64_t>(static_cast<double>(batch_size_) * step), floor_, greatest_batch);
}

void Importer::halve() {
  batch_size_ = std::max<int64_t>(batch_size_ / 2, 1);
  floor_ = std::min(floor_, batch_size_);
}

/// What a batch may take before it is tried in halves: a size that was asked for gets the time of a lease.
double Importer::time_limit() const {
  if (job_.commits == Commits::no || batch_size_ == 1) return 0;
  return std::max({least_limit, 3.0 * settings::batch_target,
                   job_.options.batch_size ? settings::lease_duration / 2.0 : 0.0});
}

ledger::BatchRecord record_of(const Job& job, const load::Loader& loader, const load::Timings& before,
                              const Item* items, size_t n, BatchCost& cost) {
  ledger::BatchRecord record;
  record.run_id = job.run.id;
  record.counts = ledger::count_outcomes(items, n);
  for (size_t i = 0; i < n; i++) {
    record.bytes += static_cast<int64_t>(items[i].record.length);
    record.ambiguous_dates += items[i].ambiguous_dates;
  }
  const load::Timings& after = loader.timings();
  Usage used = usage_now();
  record.timings = {{"read", cost.read_ms},
                    {"convert", cost.convert_ms},
                    {"look_up", after.look_up - before.look_up},
                    {"target", after.target - before.target},
                    {"commit", cost.commit_ms},
                    {"cpu", used.cpu_ms - cost.used.cpu_ms}};
  record.wal_bytes = used.wal_bytes - cost.used.wal_bytes;
  record.memory_bytes = private_memory();
  cost.used = used;
  record.conflicts = &loader.conflicts();
  record.last_wins = job.policy.duplicates == Duplicates::last;
  record.alone = job.workers == 1;
  return record;
}

std::vector<std::string> tell_errors(const Job& job, const ledger::Counts& counts, const Item* items,
                                     size_t n) {
  std::vector<std::string> words;
  if (counts.conflicted > 0) {
    std::string ordinals;
    for (size_t i = 0, named = 0; i < n && named < 3; i++)
      if (items[i].outcome == Outcome::conflicted)
        ordinals += format("%s%lld", named++ ? ", " : "", static_cast<long long>(items[i].ordinal));
    ledger::add_event(job.run.id, "conflict_detected",
                      format("{\"count\": %lld, \"first\": [%s]}", static_cast<long long>(counts.conflicted),
                             ordinals.c_str()));
  }
  if (counts.rejects() == 0) return words;
  std::string first;
  int shown = 0;
  for (size_t i = 0; i < n && words.size() < 5; i++) {
    if (items[i].outcome != Outcome::invalid && items[i].outcome != Outcome::failed) continue;
    const Issue* issue = items[i].issues;
    while (issue && issue->warning && issue->next) issue = issue->next;
    if (!issue) continue;
    long long ordinal = static_cast<long long>(items[i].ordinal);
    if (job.plan->definition().sensitive.empty())
      words.push_back(format("item %lld: ", ordinal) + std::string(issue->message));
    if (shown == 3) continue;
    // neither message nor input: events are read by more people than rejects are
    first += format("%s{\"ordinal\": %lld, \"rule\": %s, \"sqlstate\": \"%s\"}", shown ? ", " : "", ordinal,
                    bridge::json_quoted(issue->rule).c_str(), issue->sqlstate);
    shown++;
  }
  ledger::add_event(
      job.run.id, "error_added",
      format("{\"count\": %lld, \"first\": [%s]}", static_cast<long long>(counts.rejects()), first.c_str()));
  return words;
}

bool too_many_rejects(const Options& options, const ledger::Counts& counts, bool at_end) {
  if (options.max_rejects && counts.rejects() > *options.max_rejects) return true;
  // A share means little before some items have been read.
  return options.max_reject_share && (at_end || counts.read >= 1000) &&
         static_cast<double>(counts.rejects()) > *options.max_reject_share * static_cast<double>(counts.read);
}

void refuse_rejects(int64_t run_id, const ledger::Counts& counts, const std::string& what,
                    const std::vector<std::string>& first, const std::string& hint) {
  std::string detail = format("%s of %s items %s, which is beyond max_rejects.",
                              grouped(counts.rejects()).c_str(), grouped(counts.read).c_str(), what.c_str());
  for (const std::string& reject : first) detail += "\n" + reject;
  throw Error(codes::too_many_rejects,
              format("run %lld has too many rejects", static_cast<long long>(run_id)))
      .detail(detail)
      .hint(hint);
}

void Importer::check_rejects(bool at_end) const {
  if (!too_many_rejects(job_.options, counts_, at_end)) return;
  if (job_.commits == Commits::no)  // the rejects go with the rest: this is where they are told
    refuse_rejects(job_.run.id, counts_, "were rejected", first_rejects_,
                   "Nothing of the payload was kept. Mend the items, or raise max_rejects.");
  refuse_rejects(
      job_.run.id, counts_, "were rejected", {},
      format("SELECT * FROM portage.rejects WHERE run_id = %lld; %s.", static_cast<long long>(job_.run.id),
             job_.options.dry_run               ? "nothing was written to the target"
             : job_.options.rollback_on_failure ? "what was committed is taken back"
                                                : "what was committed stays"));
}

}  // namespace portage::run
