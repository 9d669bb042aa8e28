// See replay.hpp.
#include "run/replay.hpp"

#include "bridge/clock.hpp"
#include "bridge/codes.hpp"
#include "bridge/entry.hpp"

namespace portage::run {
namespace {

using bridge::Error;
using bridge::format;
using ledger::Reject;

constexpr int64_t first_page = 1000, least_page = 100;
constexpr int64_t page_bytes = 8 << 20;   // of raw input
constexpr size_t page_memory = 48 << 20;  // of everything that reading makes of it
constexpr const char* kept_rejected =
    "duplicate";  // of an item that landed: only a correction can change that

bool landed(Outcome outcome) {
  return outcome == Outcome::inserted || outcome == Outcome::updated || outcome == Outcome::unchanged;
}

/// What "where" or a sample left out is no reject.
bool left_out(const std::string& status, std::string_view rule) {
  return status == "skipped" && (rule == "where" || rule == "sample");
}

/// As the ledger has it: the order of keys and the spaces are jsonb's.
std::string stored_issues(const Item& item) {
  if (!item.issues) return "";
  return bridge::output_text(JSONBOID, bridge::param_json(ledger::issues_json(item)).value);
}

}  // namespace

Replay::Replay(const ledger::Run& run, Commits commits)
    : Reopened(run, commits, "rejects cannot be replayed"), page_size_(first_page) {
  begin(load::overwrites(policy_.on_conflict));
}

ReplayCounts Replay::all() {
  int64_t after = 0;
  if (commits_ == Commits::yes) {
    std::optional<int64_t> cursor = ledger::replay_state(run_.id)->cursor;
    after = cursor.value_or(0);
    if (cursor)
      bridge::notice(format("the interrupted replay of run %lld goes on after item %lld",
                            static_cast<long long>(run_.id), static_cast<long long>(after)));
    bridge::commit();
  }
  while (std::optional<int64_t> last = page(after)) {
    after = *last;
    if (commits_ == Commits::yes) {
      ledger::set_replay_cursor(run_.id, after);
      tell();
      bridge::commit();
    }
    bridge::check_interrupts();
  }
  ledger::set_replay_cursor(run_.id, std::nullopt);
  tell();
  if (commits_ == Commits::yes) bridge::commit();
  warn();
  return counts_;
}

ReplayCounts Replay::one(int64_t ordinal, const std::optional<std::string>& corrected) {
  long long run = static_cast<long long>(run_.id), item = static_cast<long long>(ordinal);
  std::optional<Reject> found = ledger::find_reject(run_.id, ordinal);
  std::string hint =
      format("SELECT * FROM portage.rejects WHERE run_id = %lld; lists what can be replayed.", run);
  if (!found) throw Error(codes::not_a_reject, format("run %lld has no item %lld", run, item)).hint(hint);
  bool open = found->status == "invalid" || found->status == "failed" || found->status == "conflicted" ||
              (found->status == "skipped" && !left_out(found->status, found->rule));
  if (!open)
    throw Error(codes::not_a_reject, format("item %lld of run %lld is %s and cannot be replayed", item, run,
                                            found->status.c_str()))
        .detail("Only what did not land can be replayed.")
        .hint(hint);
  if (corrected) {
    found->raw = reader_->as_in_source(*corrected);
    found->corrected = true;
  } else if (found->rule != kept_rejected) {
    formats::Arena arena;
    formats::Record record;
    Obstacle obstacle = reader_->read(*found, arena, record);
    if (obstacle != Obstacle::none) reader_->refuse(*found, obstacle);
  }
  std::vector<Reject> rejects{std::move(*found)};
  try_again(rejects, corrected.has_value());
  tell(format(", \"ordinal\": %lld, \"corrected\": %s", item, corrected ? "true" : "false"));
  if (ledger::sum_batches(run_.id).conflicted == 0) let_complete();
  return counts_;
}

/// The next rejects of one part; the ordinal of the last one that was settled, nothing if there are none.
std::optional<int64_t> Replay::page(int64_t after) {
  bridge::Memory scratch("portage replay scratch");
  bridge::InMemory in(scratch.get());
  begin_page();
  std::vector<Reject> rejects = ledger::open_rejects(run_.id, after, page_size_, page_bytes);
  if (rejects.empty()) return std::nullopt;
  for (size_t i = 1; i < rejects.size(); i++)
    if (rejects[i].part != rejects[0].part) {
      rejects.resize(i);
      break;
    }
  int64_t last = rejects.back().ordinal, settled = try_again(rejects, false);
  page_size_ = settled == last ? std::min(page_size_ * 2, first_page) : std::max(page_size_ / 2, least_page);
  return settled;
}

/// Takes rejects of one part through the pipeline into target and ledger, as far as one transaction reaches;
/// the ordinal up to which that was.
int64_t Replay::try_again(std::vector<Reject>& rejects, bool corrected) {
  TimestampTz started = GetCurrentTimestamp();
  check_target();
  Batch batch;
  double start = bridge::now_ms();
  std::vector<Reject*> tried, passed_over;
  for (Reject& reject : rejects) {
    if (batch.arena.used() > page_memory) {
      rejects.resize(static_cast<size_t>(&reject - rejects.data()));
      break;
    }
    bool duplicate = !corrected && reject.rule == kept_rejected;
    Item item;
    memset(static_cast<void*>(&item), 0, sizeof item);
    item.ordinal = reject.ordinal;
    Obstacle obstacle = duplicate ? Obstacle::none : reader_->read(reject, batch.arena, item.record);
    if (obstacle == Obstacle::header_missing && corrected) reader_->refuse(reject, obstacle);
    if (obstacle == Obstacle::raw_missing && unreadable_++ == 0) first_unreadable_ = reject.ordinal;
    if (duplicate || obstacle != Obstacle::none) {
      passed_over.push_back(&reject);
      continue;
    }
    tried.push_back(&reject);
    batch.items.push_back(item);
  }
  int64_t last = rejects.back().ordinal;
  if (!tried.empty()) {
    ledger::BatchRecord record;
    record.kind = "replay";
    record.started_at = started;
    size_t settled = load(batch, reader_->part(tried[0]->part), record, start);
    if (settled < batch.items.size()) last = batch.items[settled - 1].ordinal;
    tried.resize(settled);
    revise(record, batch, tried, corrected);
  }
  for (const Reject* reject : passed_over)
    if (reject->ordinal <= last) count(nullptr);
  return last;
}

/// New revisions for what is not as it was; items [0, rejects.size()) of the batch have been settled.
void Replay::revise(ledger::BatchRecord& record, Batch& batch, const std::vector<Reject*>& rejects,
                    bool corrected) {
  std::vector<Item> items;
  std::vector<int32_t> revisions;
  std::unordered_map<const Item*, size_t> positions;
  for (size_t i = 0; i < rejects.size(); i++) {
    const Reject& reject = *rejects[i];
    const Item& item = batch.items[i];
    count(&item);
    bool same = item.outcome == reject.outcome && stored_issues(item) == reject.issues;
    if (!corrected && same && item.outcome != Outcome::conflicted) continue;
    positions[&item] = items.size();
    items.push_back(item);
    revisions.push_back(reject.revision + 1);
    ledger::count_of(record.counts, item.outcome)++;
    ledger::count_of(record.counts, reject.outcome)--;
    landed_ = landed_ || landed(item.outcome);
    if (corrected) ledger::insert_correction(run_.id, reject, revisions.back());
  }
  if (items.empty()) return;
  write(record, items, revisions, positions);
  changed_ = true;
}

/// What became of one more reject; no item: it was not tried.
void Replay::count(const Item* item) {
  counts_.replayed++;
  if (item && landed(item->outcome))
    counts_.landed++;
  else if (!item || item->outcome != Outcome::skipped || !item->issues ||
           !left_out("skipped", item->issues->rule))
    counts_.still_rejected++;
}

/// Counters and an event, for what was done since the last time.
void Replay::tell(const std::string& more) {
  if (changed_) ledger::update_counters(run_.id, landed_);
  changed_ = landed_ = false;
  if (counts_.replayed == told_.replayed) return;
  ledger::add_event(
      run_.id, "replayed",
      format("{\"replayed\": %lld, \"landed\": %lld, \"still_rejected\": %lld%s}",
             static_cast<long long>(counts_.replayed - told_.replayed),
             static_cast<long long>(counts_.landed - told_.landed),
             static_cast<long long>(counts_.still_rejected - told_.still_rejected), more.c_str()));
  told_ = counts_;
}

/// One reject that cannot be read must not keep the others from landing; but it is told.
void Replay::warn() const {
  if (unreadable_ == 0) return;
  bridge::notice(format("rejects of run %lld that could not be read again: %lld",
                        static_cast<long long>(run_.id), static_cast<long long>(unreadable_)),
                 format("Of the first, item %lld, SELECT portage.replay(%lld, %lld); tells why.",
                        static_cast<long long>(first_unreadable_), static_cast<long long>(run_.id),
                        static_cast<long long>(first_unreadable_)),
                 WARNING);
}

}  // namespace portage::run
