// See unpark.hpp.
#include "run/unpark.hpp"

#include "bridge/clock.hpp"
#include "bridge/deferral.hpp"
#include "bridge/entry.hpp"

namespace portage::run {
namespace {

constexpr int64_t greatest_page = 5000, least_page = 1;
constexpr int64_t page_bytes = 8 << 20;  // of raw input
constexpr int64_t greatest_circle = 20000;
constexpr int64_t circle_bytes = 32 << 20;

}  // namespace

Unpark::Unpark(const ledger::Run& run, const Options& options, Plan& plan, Oid role, load::Policy policy,
               bool give_up)
    : run_(run),
      options_(options),
      plan_(plan),
      role_(role),
      policy_(in_order(std::move(policy))),
      give_up_(give_up),
      reader_(run.id, plan, static_cast<size_t>(options.max_item_bytes), role) {
  bridge::AsUser as(role_);
  writer_ = load::make_writer(plan_, plan_.target().attnums(policy_.hash_columns));
  loader_ = std::make_unique<load::Loader>(plan_, *writer_, policy_);
  int64_t unchanged_items = ledger::sum_batches(run_.id).unchanged;
  if (unchanged_items > 0) loader_->recall(unchanged_items);
}

Stage::Page Unpark::page() {
  batch_.reset();
  told_.clear();
  revisions_.clear();
  left_waiting_.clear();
  next_after_ = after_;
  page_landed_ = 0;
  round_over_ = false;
  bridge::InMemory in(batch_.memory.get());
  if (closing_) return close_circles();
  std::vector<ledger::Reject> parked = ledger::parked_items(run_.id, after_, size_, page_bytes);
  if (parked.empty()) {
    bool last = !plan_.refers_to_itself() || (closed_ && judging_);
    if (landed_ == 0 && last && (!give_up_ || giving_up_)) return {true, {}, nullptr, 0};
    round_over_ = true;
    return {};
  }
  hold_target(plan_, run_.id, RowExclusiveLock);
  for (size_t i = 1; i < parked.size(); i++)
    if (parked[i].part != parked[0].part) {
      parked.resize(i);
      break;
    }
  part_ = parked[0].part;
  next_after_ = parked.back().ordinal;
  read(parked);
  Page page;
  while (int64_t landed = wave(page.counts)) page_landed_ += landed;
  page.items = told_.data();
  page.n = told_.size();
  return page;
}

void Unpark::read(const std::vector<ledger::Reject>& parked) {
  for (ledger::Reject reject : parked) {
    reader_.add_to(batch_, reject);
    revisions_.push_back(reject.revision + 1);
  }
}

/// Of all that is parked: what refers to nothing but rows that are there and each other.
Stage::Page Unpark::close_circles() {
  round_over_ = closed_ = true;
  std::vector<ledger::Reject> parked = ledger::parked_items(run_.id, 0, greatest_circle + 1, circle_bytes);
  if (parked.empty()) return {};
  if (parked.size() > static_cast<size_t>(greatest_circle)) {
    bridge::notice(
        bridge::format("run %lld has too many parked items to look for circles among them",
                       static_cast<long long>(run_.id)),
        bridge::format("Up to %lld are looked at together.", static_cast<long long>(greatest_circle)));
    return {};
  }
  hold_target(plan_, run_.id, RowExclusiveLock);
  read(parked);
  prepare_by_part(parked);
  std::map<int64_t, int32_t> parts;
  for (const ledger::Reject& reject : parked) parts[reject.ordinal] = reject.part;
  keep_closed();
  if (batch_.items.empty()) return {};
  size_t settled;
  {
    bridge::AsUser as(role_);
    bridge::defer_nothing();
    settled = loader_->load(batch_, 0);
  }
  Page page;
  std::map<int32_t, std::vector<size_t>> decided;
  for (size_t i = 0; i < settled; i++) decided[parts[batch_.items[i].ordinal]].push_back(i);
  for (const auto& [part, positions] : decided) write(positions, part, page.counts);
  page_landed_ = static_cast<int64_t>(settled);
  page.items = told_.data();
  page.n = told_.size();
  return page;
}

/// The batch holds items of several parts; each is prepared as an item of its own part.
void Unpark::prepare_by_part(const std::vector<ledger::Reject>& parked) {
  bridge::AsUser as(role_);
  std::map<int32_t, std::vector<Item>> parts;
  for (size_t i = 0; i < parked.size(); i++) parts[parked[i].part].push_back(batch_.items[i]);
  std::map<int64_t, Item> prepared;
  for (auto& [part, items] : parts) {
    batch_.items = std::move(items);
    prepare_batch(plan_, batch_, run_, reader_.part(part), options_, {true, true});
    for (const Item& item : batch_.items) prepared.emplace(item.ordinal, item);
  }
  batch_.items.clear();
  for (const auto& [ordinal, item] : prepared) batch_.items.push_back(item);
}

/// Leaves in the batch what refers to nothing outside of it, and waits behind nothing that does.
void Unpark::keep_closed() {
  size_t count = batch_.items.size();
  load::Waiting waiting(plan_), all(plan_), twins(plan_);
  std::vector<load::KnownBy> known;
  std::unordered_map<std::string_view, int> ids;  // how many items have it
  std::vector<bool> kept(count);
  for (size_t i = 0; i < count; i++) {
    const Item& item = batch_.items[i];
    kept[i] = item.outcome == Outcome::pending;
    known.push_back(kept[i] || item.outcome == Outcome::parked ? waiting.known_by(item) : load::KnownBy{});
    if (all.has(known[i])) twins.add(known[i]);
    all.add(known[i]);
    if (kept[i]) ids[item.legacy_id]++;
  }
  auto is_closed = [&](const Item& item) {
    for (const OpenReference* open = item.open; open; open = open->next) {
      auto found = ids.find(open->legacy_id);
      if (found == ids.end() || found->second == 0) return false;
    }
    return true;
  };
  for (bool again = true; again;) {
    again = false;
    waiting.clear();
    for (size_t i = 0; i < count; i++) {
      bool has_twin = twins.has(known[i]);
      if (kept[i] && (!is_closed(batch_.items[i]) || (has_twin && waiting.has(known[i])))) {
        kept[i] = false;
        ids[batch_.items[i].legacy_id]--;
        again = true;
      }
      if (!kept[i] && has_twin) waiting.add(known[i]);
    }
  }
  std::vector<Item> items;
  std::vector<int32_t> revisions;
  for (size_t i = 0; i < count; i++) {
    if (!kept[i]) continue;
    items.push_back(batch_.items[i]);
    revisions.push_back(revisions_[i]);
  }
  batch_.items = std::move(items);
  revisions_ = std::move(revisions);
}

void Unpark::committed() {
  landed_ += page_landed_;
  after_ = next_after_;
  loader_->wait_behind(left_waiting_);
  size_ = std::min(size_ * 2, greatest_page);
  if (!round_over_) return;
  if (closing_ || landed_ > 0) {    // from the beginning: who waits for what has landed since
    if (judging_) closed_ = false;  // who waited behind what was bad may be in a circle
    closing_ = false;
    judging_ = false;
  } else if (plan_.refers_to_itself() && !closed_) {
    closing_ = true;
  } else if (plan_.refers_to_itself() && !judging_) {
    judging_ = true;
  } else {
    giving_up_ = true;
  }
  landed_ = 0;
  after_ = 0;
  loader_->forget_waiting();
}

bool Unpark::shrink() {
  if (size_ == least_page) return false;
  size_ = std::max(size_ / 4, least_page);
  return true;
}

/// Loads what can be translated by now; the batch keeps the rest. How many items have an outcome since: what
/// they have become may be what others of the page refer to.
int64_t Unpark::wave(ledger::Counts& counts) {
  if (batch_.items.empty()) return 0;
  bridge::check_interrupts();
  size_t settled;
  {
    bridge::AsUser as(role_);
    bridge::defer_nothing();
    prepare_batch(plan_, batch_, run_, reader_.part(part_), options_, {false, !judging_ && !giving_up_});
    settled = loader_->load(batch_, 0);
  }
  std::vector<size_t> decided;
  std::vector<Item> rest;
  std::vector<int32_t> rest_revisions;
  for (size_t i = 0; i < batch_.items.size(); i++) {
    Item& item = batch_.items[i];
    if (giving_up_ && item.outcome == Outcome::parked)
      for (Issue* issue = item.issues; issue; issue = issue->next) {
        if (issue->rule != "reference") continue;  // who waits behind one of these has its turn
        item.outcome = Outcome::invalid;
        issue->warning = false;
      }
    if (i < settled && item.outcome != Outcome::parked) {
      decided.push_back(i);
      continue;
    }
    Item again;
    memset(static_cast<void*>(&again), 0, sizeof again);
    again.ordinal = item.ordinal;
    again.record = item.record;
    rest.push_back(again);
    rest_revisions.push_back(revisions_[i]);
  }
  if (decided.empty()) {
    left_waiting_ = loader_->waiting(batch_.items.data(), batch_.items.size());
    return 0;
  }
  write(decided, part_, counts);
  batch_.items = std::move(rest);
  revisions_ = std::move(rest_revisions);
  return static_cast<int64_t>(decided.size());
}

/// New revisions for items at these positions of the batch.
void Unpark::write(const std::vector<size_t>& positions, int32_t part, ledger::Counts& counts) {
  std::vector<Item> items;
  std::vector<int32_t> revisions;
  std::unordered_map<const Item*, size_t> places;
  for (size_t position : positions) {
    places[&batch_.items[position]] = items.size();
    items.push_back(batch_.items[position]);
    revisions.push_back(revisions_[position]);
  }
  ledger::BatchRecord record;
  record.run_id = run_.id;
  record.kind = "settle";
  record.part = part;
  record.range_no = 1;
  record.epoch = 0;
  record.started_at = GetCurrentTimestamp();
  record.counts = ledger::count_outcomes(items.data(), items.size());
  record.counts.read = 0;
  record.counts.parked -= static_cast<int64_t>(items.size());
  record.last_wins = policy_.duplicates == Duplicates::last;
  write_revisions(record, policy_.space, *loader_, items, revisions, places);
  counts += record.counts;
  told_.insert(told_.end(), items.begin(), items.end());
}

void recall_waiting(const ledger::Run& run, const Options& options, Plan& plan, Oid role,
                    load::Loader& loader) {
  if (plan.references().empty()) return;
  RejectReader reader(run.id, plan, static_cast<size_t>(options.max_item_bytes), role);
  Batch batch;
  for (int64_t after = 0;;) {
    batch.reset();
    bridge::InMemory in(batch.memory.get());
    std::vector<ledger::Reject> parked = ledger::parked_items(run.id, after, greatest_page, page_bytes);
    if (parked.empty()) return;
    int32_t part = parked[0].part;
    for (ledger::Reject& reject : parked) {
      if (reject.part != part) break;
      reader.add_to(batch, reject);
      after = reject.ordinal;
    }
    bridge::AsUser as(role);
    prepare_batch(plan, batch, run, reader.part(part), options, {false, true});
    for (Item& item : batch.items) item.outcome = Outcome::parked;  // as they are in the ledger
    loader.wait_behind(loader.waiting(batch.items.data(), batch.items.size()));
    bridge::check_interrupts();
  }
}

}  // namespace portage::run
