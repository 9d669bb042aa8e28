// See settle.hpp. First what the workers did side by side without seeing each other is taken back, but for
// the lowest item of each group. Then the parked items are judged from the lowest on: whatever a higher item
// has done that stands in the way of one of them is taken back before, and has its turn later. Nothing that
// was settled is ever touched again, so that the stage ends.
#include "run/settle.hpp"

#include "bridge/clock.hpp"
#include "bridge/codes.hpp"
#include "bridge/deferral.hpp"

namespace portage::run {
namespace {

using bridge::Error;
using bridge::format;

constexpr int64_t greatest_page = 5000, least_page = 1;
constexpr int64_t page_bytes = 8 << 20;   // of raw input
constexpr size_t page_memory = 48 << 20;  // of everything that reading makes of it
constexpr size_t most_taken_back = 1000;  // items, by one transaction
constexpr int64_t most_hidden = 1000000;  // ordinals held at once

}  // namespace

Settle::Settle(const ledger::Run& run, const Options& options, Plan& plan, Oid role, load::Policy policy)
    : run_(run),
      options_(options),
      plan_(plan),
      role_(role),
      policy_(in_order(std::move(policy))),
      reader_(run.id, plan, static_cast<size_t>(options.max_item_bytes), role),
      rollback_(*ledger::find_run(run.id), role, undo::Drifted::keep, false) {
  ledger::Counts counts = ledger::sum_batches(run.id);
  if (counts.unchanged + counts.skipped + counts.conflicted == 0) hidden_.emplace();  // all saw each other
  bridge::AsUser as(role_);
  writer_ = load::make_writer(plan_, plan_.target().attnums(policy_.hash_columns));
  loader_ = std::make_unique<load::Loader>(plan_, *writer_, policy_);
  if (counts.unchanged > 0) loader_->recall(counts.unchanged);
  // With several workers there are none: what `match` compares is in all of their indexes (parallel.cpp).
  const std::vector<int>&match = plan_.match(), &mapped = plan_.mapped();
  for (const UniqueIndex& index : plan_.target().unique_indexes) {
    auto has = [](const std::vector<int>& all, int one) {
      return std::find(all.begin(), all.end(), one) != all.end();
    };
    bool told =
        index.valid && !index.partial && !index.expressions &&
        std::all_of(index.attnums.begin(), index.attnums.end(), [&](int a) { return has(mapped, a); });
    bool matched = !match.empty() &&
                   std::all_of(match.begin(), match.end(), [&](int a) { return has(index.attnums, a); });
    if (told && !matched) others_.push_back(index);
  }
  if (!others_.empty())
    relation_ = std::make_unique<load::BatchRelation>(plan_.target(), mapped, plan_.key(), "portage_settle");
}

Stage::Page Settle::page() {
  batch_.reset();
  taking_ = 0;
  next_after_ = after_;
  bridge::InMemory in(batch_.memory.get());
  hold_target(plan_, run_.id, RowExclusiveLock);
  if (!hidden_) {
    std::vector<int64_t> found = ledger::hidden_collisions(run_.id, most_hidden);
    std::erase_if(found, [&](int64_t ordinal) { return spared_.count(ordinal) > 0; });
    hidden_ = std::move(found);
  }
  if (!hidden_->empty()) {
    taking_ = std::min({hidden_->size(), most_taken_back, static_cast<size_t>(size_)});
    return take_back({hidden_->begin(), hidden_->begin() + static_cast<std::ptrdiff_t>(taking_)});
  }
  std::vector<Reject> parked = ledger::parked_items(run_.id, after_, size_, page_bytes);
  if (parked.empty()) return {true, {}, nullptr, 0};
  for (size_t i = 1; i < parked.size(); i++)
    if (parked[i].part != parked[0].part) {
      parked.resize(i);
      break;
    }
  read(parked);
  std::vector<int64_t> obstacles = in_the_way();
  if (!obstacles.empty()) {
    if (obstacles.size() > most_taken_back) obstacles.resize(most_taken_back);
    return take_back(obstacles);
  }
  return judge(parked);
}

void Settle::committed() {
  if (hidden_ && taking_ > 0) {
    hidden_->erase(hidden_->begin(), hidden_->begin() + static_cast<std::ptrdiff_t>(taking_));
    // There may have been more than were held; and what could not be taken back by one transaction is left.
    if (hidden_->empty()) hidden_.reset();
  }
  taking_ = 0;
  after_ = next_after_;
  size_ = std::min(size_ * 2, greatest_page);
}

bool Settle::shrink() {
  if (size_ == least_page) return false;
  size_ = std::max(size_ / 4, least_page);
  return true;
}

Stage::Page take_back_to_judge(int64_t run_id, const ledger::MappingSpace& space, undo::Rollback& rollback,
                               Batch& batch, const std::vector<int64_t>& ordinals,
                               std::set<int64_t>& spared) {
  std::string started = bridge::now_text();
  std::vector<ledger::LandedItem> items = ledger::landed_items(run_id, space, ordinals, batch.arena);
  std::vector<ledger::LandedItem*> taken = rollback.take_back_some(batch, items, spared);
  ledger::write_rollback(run_id, space, taken, started, ledger::TakenBack::parked);
  Stage::Page page;
  for (const ledger::LandedItem* item : taken) {
    ledger::count_of(page.counts, item->outcome)--;
    page.counts.parked++;
  }
  return page;
}

/// Fills the batch with parked items of one part, read again and typed; fewer where they are large.
void Settle::read(std::vector<Reject>& parked) {
  const ledger::Part& part = reader_.part(parked[0].part);
  for (Reject& reject : parked) {
    if (batch_.arena.used() > page_memory) {
      parked.resize(static_cast<size_t>(&reject - parked.data()));
      break;
    }
    reader_.add_to(batch_, reject);
  }
  bridge::AsUser as(role_);
  bridge::defer_nothing();
  prepare_batch(plan_, batch_, run_, part, options_, {false, true});
}

/// What higher items have done where the items in hand will look.
std::vector<int64_t> Settle::in_the_way() {
  std::vector<Item*> items;
  for (Item& item : batch_.items)  // who waits keeps its place
    if (item.outcome == Outcome::pending || (item.outcome == Outcome::parked && item.legacy_id.data()))
      items.push_back(&item);
  std::vector<ledger::Mapping> mappings = ledger::find_mappings(policy_.space, items, batch_.arena);
  std::vector<load::Row> rows;
  {
    bridge::AsUser as(role_);
    rows = writer_->find_by_match(batch_, items);
  }
  std::vector<ledger::Claim> claims;
  for (size_t i = 0; i < items.size(); i++) {
    claims.push_back({items[i]->ordinal, std::string(items[i]->legacy_id),
                      mappings[i].found ? std::string(mappings[i].target_key) : ""});
    if (rows[i].found) claims.push_back({items[i]->ordinal, "", std::string(rows[i].key)});
  }
  claim_by_indexes(items, claims);
  std::vector<int64_t> obstacles = ledger::in_the_way(run_.id, claims);
  std::erase_if(obstacles, [&](int64_t ordinal) { return spared_.count(ordinal) > 0; });
  return obstacles;
}

/// Rows that stand in unique indexes where the items' would.
void Settle::claim_by_indexes(const std::vector<Item*>& items, std::vector<ledger::Claim>& claims) {
  if (others_.empty() || items.empty()) return;
  const Target& target = plan_.target();
  bridge::AsUser as(role_);
  std::vector<load::BatchRow> rows;
  for (const Item* item : items) rows.push_back({item->values, item->nulls, nullptr});
  std::string keys;
  for (int attnum : plan_.key()) (keys += ", t.") += bridge::quoted(target.column(attnum).name);
  auto* values = batch_.arena.make_array<Datum>(static_cast<size_t>(target.natts));
  auto* nulls = batch_.arena.make_array<bool>(static_cast<size_t>(target.natts));
  memset(nulls, false, static_cast<size_t>(target.natts));
  for (const UniqueIndex& index : others_) {
    std::string same;
    for (int attnum : index.attnums) {
      const TargetColumn& column = target.column(attnum);
      (same += same.empty() ? "" : " AND ") += "t." + bridge::quoted(column.name) + " " +
                                               load::operator_text(load::equality_of(column.type)) + " b.c" +
                                               std::to_string(attnum);
    }
    bridge::ByIndex by_index;
    bridge::Result found = relation_->run(
        "SELECT b.o" + keys + " FROM portage_settle b JOIN " + target.quoted_name() + " t ON " + same, rows);
    bridge::PlainText plain;
    for (size_t i = 0; i < found.size(); i++) {
      for (size_t k = 0; k < plan_.key().size(); k++)
        values[plan_.key()[k] - 1] = found.datum(i, static_cast<int>(k) + 2);
      claims.push_back(
          {items[static_cast<size_t>(found.integer(i, 1))]->ordinal, "", plan_.key_text(values, nulls)});
    }
  }
}

/// The items in hand get their outcomes, as an import would have given them.
Stage::Page Settle::judge(std::vector<Reject>& parked) {
  TimestampTz started = GetCurrentTimestamp();
  load::Timings before = loader_->timings();
  size_t settled;
  {
    bridge::AsUser as(role_);
    settled = loader_->load(batch_, 0);
  }
  const load::Timings& after = loader_->timings();
  ledger::BatchRecord record;
  record.run_id = run_.id;
  record.kind = "settle";
  record.part = parked[0].part;
  record.range_no = 1;
  record.epoch = 0;
  record.started_at = started;
  record.timings = {{"look_up", after.look_up - before.look_up}, {"target", after.target - before.target}};
  record.counts = ledger::count_outcomes(batch_.items.data(), settled);
  record.counts.read = 0;
  record.counts.parked -= static_cast<int64_t>(settled);
  std::vector<int32_t> revisions;
  for (size_t i = 0; i < settled; i++) revisions.push_back(parked[i].revision + 1);
  record.conflicts = &loader_->conflicts();
  ledger::write_batch(record, policy_.space, batch_.items.data(), settled, loader_->undo(), revisions);
  loader_->remember(batch_.items.data(), settled, 0);
  next_after_ = parked[settled - 1].ordinal;
  return {false, record.counts, batch_.items.data(), settled};
}

}  // namespace portage::run
