// Duplicates within the input of a run: the part of the loader that finds them, in the batch and between
// batches, and decides once it is known whether the first one landed. See loader.hpp.
#include "load/loader.hpp"

#include "load/first_seen.hpp"
#include "load/key_equality.hpp"

extern "C" {
#include "utils/datum.h"
}

namespace portage::load {

using bridge::guarded;
using ledger::Mapping;

namespace {

long long shown(int64_t ordinal) { return static_cast<long long>(ordinal); }

}  // namespace

/// The rows in which leaders by match key have landed, and the lowest items that had them in earlier batches:
/// it must not hang on where a batch ends who is named.
std::unordered_map<std::string, int64_t> Loader::had_before(const std::vector<Follower>& followers) const {
  std::vector<std::string> keys;
  for (const Follower& follower : followers)
    if (!follower.by_id && follower.leader->outcome != Outcome::inserted)
      keys.emplace_back(follower.leader->target_key);
  if (predictions_) return predictions_->find_keys(keys);
  std::unordered_map<std::string, int64_t> had = ledger::keys_written_by(policy_.space, policy_.run_id, keys);
  if (seen_)
    for (const auto& [key, ordinal] : seen_->find_keys(keys)) {
      auto [known, fresh] = had.emplace(key, ordinal);
      if (!fresh) known->second = std::min(known->second, ordinal);
    }
  return had;
}

/// Followers by match key that do not find the row of their leader, though that one landed: it was found
/// unchanged while somebody has deleted or changed its row, or the row has kept another match key than it
/// came with. In another batch they would not have met it.
std::set<const Item*> Loader::without_leader(Batch& batch, size_t settled) {
  std::vector<Item*> items;
  std::vector<const Item*> leaders;
  for (const Follower& follower : followers_) {
    if (follower.by_id || static_cast<size_t>(follower.item - batch.items.data()) >= settled) continue;
    Outcome outcome = follower.leader->outcome;
    bool written = outcome == Outcome::inserted || outcome == Outcome::updated;
    if (outcome != Outcome::unchanged && (!written || policy_.purpose == Purpose::validate)) continue;
    items.push_back(follower.item);
    leaders.push_back(follower.leader);
  }
  std::vector<Row> rows = writer_.find_by_match(batch, items);
  std::set<const Item*> alone;
  for (size_t i = 0; i < items.size(); i++)
    if (!rows[i].found || rows[i].key != leaders[i]->target_key) alone.insert(items[i]);
  return alone;
}

/// Rejects the followers whose leader landed, or is a duplicate itself of the same kind. Position of the
/// first other one, or `settled` if there is none.
size_t Loader::judge_followers(Batch& batch, size_t settled) {
  std::sort(followers_.begin(), followers_.end(),
            [](const Follower& a, const Follower& b) { return a.item < b.item; });
  std::vector<int64_t> firsts;
  std::unordered_map<std::string, int64_t> had = had_before(followers_);
  std::set<const Item*> alone = without_leader(batch, settled);
  for (const Follower& follower : followers_) {
    size_t position = static_cast<size_t>(follower.item - batch.items.data());
    if (position >= settled) break;
    const Item& leader = *follower.leader;
    bool landed = leader.outcome == Outcome::inserted || leader.outcome == Outcome::updated ||
                  leader.outcome == Outcome::unchanged;
    auto known = duplicate_of_.find({&leader, follower.by_id});
    if (!landed && known == duplicate_of_.end()) return position;
    if (alone.count(follower.item)) return position;
    int64_t first = landed ? leader.ordinal : known->second;
    if (landed && !follower.by_id)
      if (auto row = had.find(std::string(leader.target_key)); row != had.end())
        first = std::min(first, row->second);
    duplicate_of_[{follower.item, follower.by_id}] = first;
    firsts.push_back(first);
  }
  for (size_t i = 0; i < firsts.size(); i++)
    add_duplicate(batch, *followers_[i].item, followers_[i].by_id, firsts[i]);
  return settled;
}

void Loader::add_duplicate(Batch& batch, Item& item, bool by_id, int64_t first) {
  if (policy_.park) {
    park(batch, item,
         bridge::format(by_id ? "has the legacy id of item %lld" : "meets the row of item %lld",
                        shown(first)));
    return;
  }
  // With "first" and "last" it is told in advance who is to land: the others are no faults.
  item.outcome = policy_.duplicates == Duplicates::reject ? Outcome::invalid : Outcome::skipped;
  item.origin = 0;
  item.target_key = {};
  if (by_id)
    batch.add_issue(
        item, "duplicate", "23505", "",
        bridge::format("item %lld has the legacy id of item %lld", shown(item.ordinal), shown(first)),
        bridge::format("The legacy id is %s.", std::string(item.legacy_id).c_str()));
  else
    batch.add_issue(
        item, "duplicate", "23505", plan_.target().column(plan_.match()[0]).name,
        bridge::format("item %lld has the match key of item %lld", shown(item.ordinal), shown(first)));
  duplicate_of_[{&item, by_id}] = first;
}

/// With several workers it is chance who comes first. What would hang on that is left for the end of the run,
/// where it is judged in the order of the items (run/settle.hpp).
void Loader::park(Batch& batch, Item& item, const std::string& why) {
  item.outcome = Outcome::parked;
  item.origin = 0;
  item.issues = nullptr;  // it will be looked at as if for the first time
  batch.add_issue(item, "parked", "00000", "",
                  bridge::format("item %lld waits for all others: it ", shown(item.ordinal)) + why, {}, {},
                  true);
}

/// Whether the row would be found under another key afterwards: what was found, or not found, by an item of
/// another worker would be another.
bool Loader::moves_row(const Item& item, const Row& row) const {
  auto differs = [&](int attnum) {
    const TargetColumn& column = plan_.target().column(attnum);
    int i = attnum - 1;
    if (item.nulls[i] || row.nulls[i]) return item.nulls[i] != row.nulls[i];
    Datum incoming = item.values[i], existing = row.values[i];
    bool by_value = column.by_value;
    int length = column.length;
    return !guarded([=] { return datum_image_eq(incoming, existing, by_value, length); });
  };
  const std::vector<int>& mapped = plan_.mapped();
  return std::any_of(plan_.match().begin(), plan_.match().end(), differs) ||
         std::any_of(plan_.key().begin(), plan_.key().end(), [&](int attnum) {
           return std::binary_search(mapped.begin(), mapped.end(), attnum) && differs(attnum);
         });
}

void Loader::hold_back(Batch& batch, size_t from) {
  if (!waiting_) return;
  std::optional<Waiting> here;  // what waits in this batch
  for (size_t i = from; i < batch.items.size(); i++) {
    Item& item = batch.items[i];
    bool waits = item.outcome == Outcome::parked;
    if (!waits && (item.outcome != Outcome::pending || (waiting_->empty() && !here))) continue;
    KnownBy known = waiting_->known_by(item);
    if (!waits && !waiting_->has(known) && !(here && here->has(known))) continue;
    if (!waits) {
      item.outcome = Outcome::parked;
      batch.add_issue(item, "parked", "00000", "",
                      bridge::format("item %lld waits behind one that waits", shown(item.ordinal)),
                      "An item before it has the same legacy id or match key.", {}, true);
    }
    if (!here) here.emplace(plan_);
    here->add(known);
  }
}

std::vector<KnownBy> Loader::waiting(const Item* items, size_t n) const {
  std::vector<KnownBy> known;
  if (!waiting_) return known;
  for (size_t i = 0; i < n; i++)
    if (items[i].outcome == Outcome::parked) known.push_back(waiting_->known_by(items[i]));
  return known;
}

void Loader::wait_behind(const std::vector<KnownBy>& known) {
  if (!waiting_) return;
  for (const KnownBy& one : known) waiting_->add(one);
}

void Loader::forget_waiting() {
  if (waiting_) waiting_->clear();
}

void Loader::remember(const Item* items, size_t n, int64_t expected_items) {
  wait_behind(waiting(items, n));
  if (predictions_) {
    predictions_->remember(items, n);
    return;
  }
  if (new_ids_) new_ids_->remember(items, n);
  if (policy_.park) return;  // the end of the run sees what all workers have found
  bool any = false;
  for (size_t i = 0; i < n && !any; i++) any = items[i].outcome == Outcome::unchanged;
  if (!any) return;
  if (!seen_) seen_ = std::make_unique<SeenIds>(policy_.run_id);
  std::less_equal<const Item*> before;  // of copies the mappings are not at hand
  bool of_batch = before(first_, items) && before(items + n, first_ + mappings_.size());
  seen_->remember(items, of_batch ? &mapping_of(*items) : nullptr, n, expected_items);
}

void Loader::expect(int64_t expected_items) {
  if (predictions_ || expected_items < 10000) return;  // it would not be worth the filter
  new_ids_ = std::make_unique<NewIds>(policy_.run_id, policy_.space, expected_items);
}

void Loader::recall(int64_t expected_items) {
  if (predictions_ || policy_.park) return;  // they stand in the ledger
  seen_ = std::make_unique<SeenIds>(policy_.run_id);
  seen_->recall(expected_items);
}

/// What the ledger knows of the items' legacy ids. Ids that earlier batches of the run have had come first:
/// whatever else stands in this batch, such an item is a duplicate.
void Loader::look_up_mappings(Batch& batch, std::vector<Item*>& items) {
  std::vector<Mapping> found =
      new_ids_ ? ledger::find_mappings(policy_.space, new_ids_->to_look_up(items), batch.arena, &trail_)
               : ledger::find_mappings(policy_.space, items, batch.arena, &trail_);
  std::vector<int64_t> seen = predictions_ ? predictions_->find_ids(items)
                              : seen_      ? seen_->find_ids(items, found)
                                           : std::vector<int64_t>(items.size(), 0);
  first_ = batch.items.data();
  mappings_.assign(batch.items.size(), Mapping{});
  for (size_t i = 0; i < items.size(); i++) {
    Item& item = *items[i];
    const Mapping& mapping = found[i];
    item.mapped_before = mapping.found;
    mapping_of(item) = mapping;
    bool in_run = mapping.found && mapping.run_id == policy_.run_id && mapping.ordinal != item.ordinal;
    if (!in_run && !seen[i]) continue;
    int64_t first = seen[i] ? seen[i] : mapping.ordinal;
    if (policy_.duplicates != Duplicates::last || first > item.ordinal)
      add_duplicate(batch, item, true, first);
    else if (predictions_)
      item.outcome = Outcome::updated;  // predicted: there is no row that could be updated
  }
  items.erase(
      std::remove_if(items.begin(), items.end(), [](Item* i) { return i->outcome != Outcome::pending; }),
      items.end());
}

/// Whether each has a mapping, and the mappings stand in the table one behind the other: then no two have the
/// same id, and none follows another.
bool Loader::mapped_apart(const std::vector<Item*>& items) {
  const Mapping* row = nullptr;
  const Mapping* packed = nullptr;
  for (const Item* item : items) {
    Mapping& mapping = mapping_of(*item);
    if (!mapping.found) return false;
    const Mapping*& before = mapping.entry < 0 ? row : packed;
    if (before) {
      int order = ItemPointerCompare(const_cast<ItemPointer>(&before->place), &mapping.place);
      if (order > 0 || (order == 0 && before->entry >= mapping.entry)) return false;
    }
    before = &mapping;
  }
  return true;
}

/// Where the last of several is to land: the first item that repeats one of the batch, or nullptr. The batch
/// ends before it, so that it finds what that one has written, wherever batches end.
const Item* Loader::find_duplicates(Batch& batch, const std::vector<Item*>& items) {
  const Item* repeated = nullptr;
  auto follow = [&](Item* item, Item* leader, bool by_id) {
    if (policy_.duplicates == Duplicates::last) {
      if (!repeated || item < repeated) repeated = item;
      return;
    }
    if (policy_.park) {
      add_duplicate(batch, *item, by_id, leader->ordinal);
      return;
    }
    item->outcome = Outcome::invalid;  // unless judge_followers says otherwise
    followers_.push_back({item, leader, by_id});
  };
  // Within the batch; between batches the mapping, or the row's writer, tells (classify).
  if (mapped_apart(items)) return nullptr;
  // In ascending order there are no two alike.
  bool ascending = true;
  for (size_t i = 0; i < items.size() && ascending; i++)
    ascending = items[i]->legacy_id.data() && (i == 0 || items[i - 1]->legacy_id < items[i]->legacy_id);
  if (!ascending) {
    FirstSeen ids(items.size());
    for (Item* item : items) {
      if (item->legacy_id.data() == nullptr) continue;
      Item* first = ids.of(std::hash<std::string_view>()(item->legacy_id), item,
                           [=](const Item& other) { return other.legacy_id == item->legacy_id; });
      if (first != item) follow(item, first, true);
    }
  }
  const std::vector<int>& match = plan_.match();
  // Items that are mapped have rows of their own, and follow nobody.
  bool all_mapped =
      std::all_of(items.begin(), items.end(), [](const Item* item) { return item->mapped_before; });
  // Who looks at no row by `match` finds equal ones at the end, within a batch as between two.
  if (match.empty() || all_mapped || policy_.blind) return repeated;
  KeyEquality equality(plan_.target(), match);
  std::vector<bridge::Sought> keys;
  keys.reserve(items.size());
  for (const Item* item : items) keys.push_back({item->values, item->nulls});
  std::vector<uint64_t> hashes = equality.hashes(keys);
  FirstSeen rows(items.size());
  for (size_t i = 0; i < items.size(); i++) {
    Item* item = items[i];
    if (item->outcome != Outcome::pending) continue;
    if (std::any_of(match.begin(), match.end(), [=](int attnum) { return item->nulls[attnum - 1]; }))
      continue;
    Item* first = rows.of(hashes[i], item,
                          [&](const Item& other) { return equality.same(item->values, other.values); });
    if (first != item && !item->mapped_before) follow(item, first, false);
  }
  return repeated;
}

}  // namespace portage::load
