// Duplicates within the input of a run: the part of the loader that finds them, in the batch and between
// batches, and decides once it is known whether the first one landed. See loader.hpp.
#include "load/loader.hpp"

#include "pipeline/hash.hpp"

extern "C" {
#include "utils/datum.h"
}

namespace portage::load {

using bridge::guarded;
using ledger::Mapping;

namespace {

long long shown(int64_t ordinal) { return static_cast<long long>(ordinal); }

}  // namespace

/// Rejects the followers whose leader landed, or is a duplicate itself of the same kind. Position of the
/// first other one, or `settled` if there is none.
size_t Loader::judge_followers(Batch& batch, size_t settled) {
  std::sort(followers_.begin(), followers_.end(),
            [](const Follower& a, const Follower& b) { return a.item < b.item; });
  std::vector<int64_t> firsts;
  for (const Follower& follower : followers_) {
    size_t position = static_cast<size_t>(follower.item - batch.items.data());
    if (position >= settled) break;
    const Item& leader = *follower.leader;
    bool landed = leader.outcome == Outcome::inserted || leader.outcome == Outcome::updated ||
                  leader.outcome == Outcome::unchanged;
    auto known = duplicate_of_.find({&leader, follower.by_id});
    if (!landed && known == duplicate_of_.end()) return position;
    int64_t first = landed ? leader.ordinal : known->second;
    duplicate_of_[{follower.item, follower.by_id}] = first;
    firsts.push_back(first);
  }
  for (size_t i = 0; i < firsts.size(); i++)
    add_duplicate(batch, *followers_[i].item, followers_[i].by_id, firsts[i]);
  return settled;
}

void Loader::add_duplicate(Batch& batch, Item& item, bool by_id, int64_t first) {
  item.outcome = Outcome::invalid;
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

void Loader::remember(const Item* items, size_t n, int64_t expected_items) {
  if (predictions_) {
    predictions_->remember(items, n);
    return;
  }
  bool any = false;
  for (size_t i = 0; i < n && !any; i++) any = items[i].outcome == Outcome::unchanged;
  if (!any) return;
  if (!seen_) seen_ = std::make_unique<SeenIds>(policy_.run_id, expected_items);
  seen_->remember(items, n);
}

void Loader::recall(int64_t expected_items) {
  if (predictions_) return;  // they stand in the ledger
  seen_ = std::make_unique<SeenIds>(policy_.run_id, expected_items);
  seen_->recall();
}

/// What the ledger knows of the items' legacy ids. Ids that earlier batches of the run have had come first:
/// whatever else stands in this batch, such an item is a duplicate.
void Loader::look_up_mappings(Batch& batch, std::vector<Item*>& items) {
  std::vector<Mapping> found = ledger::find_mappings(policy_.space, items, batch.arena);
  std::vector<int64_t> seen = predictions_ ? predictions_->find_ids(items)
                              : seen_      ? seen_->find_ids(items)
                                           : std::vector<int64_t>(items.size(), 0);
  mappings_.clear();
  for (size_t i = 0; i < items.size(); i++) {
    Item& item = *items[i];
    const Mapping& mapping = found[i];
    item.mapped_before = mapping.found;
    if (mapping.found) mappings_.emplace(&item, mapping);
    if ((mapping.found && mapping.run_id == policy_.run_id && mapping.ordinal != item.ordinal) || seen[i])
      add_duplicate(batch, item, true, seen[i] ? seen[i] : mapping.ordinal);
  }
  items.erase(
      std::remove_if(items.begin(), items.end(), [](Item* i) { return i->outcome != Outcome::pending; }),
      items.end());
}

void Loader::find_duplicates(const std::vector<Item*>& items) {
  // Within the batch; between batches the mapping, or the row's writer, tells (classify).
  std::unordered_map<std::string_view, Item*> by_id;
  by_id.reserve(items.size());
  for (Item* item : items) {
    if (item->legacy_id.data() == nullptr) continue;
    auto [it, fresh] = by_id.emplace(item->legacy_id, item);
    if (fresh) continue;
    item->outcome = Outcome::invalid;  // unless judge_followers says otherwise
    followers_.push_back({item, it->second, true});
  }
  const std::vector<int>& match = plan_.match();
  if (match.empty()) return;
  // By the bytes of the match columns. Values that are equal but not the same (1.0 and 1.00) are told apart
  // by the target's own index when they are written.
  bridge::Memory memory("portage duplicates");
  RowHasher hasher = RowHasher::make(plan_.target().shape, match, memory.get());
  const RowHasher* h = &hasher;
  std::unordered_multimap<uint64_t, Item*> by_match;
  by_match.reserve(items.size());
  for (Item* item : items) {
    if (item->outcome != Outcome::pending) continue;
    bool has_null = false;
    for (int attnum : match) has_null |= item->nulls[attnum - 1];
    if (has_null) continue;
    const Datum* values = item->values;
    const bool* nulls = item->nulls;
    uint64_t hash = guarded([=] { return (*h)(values, nulls); });
    auto [first, last] = by_match.equal_range(hash);
    Item* twin = nullptr;
    for (auto it = first; it != last && !twin; ++it) {
      bool same = true;
      for (int attnum : match) {
        const TargetColumn& column = plan_.target().column(attnum);
        Datum a = values[attnum - 1], b = it->second->values[attnum - 1];
        bool by_value = column.by_value;
        int length = column.length;
        same = same && guarded([=] { return datum_image_eq(a, b, by_value, length); });
      }
      if (same) twin = it->second;
    }
    if (!twin) {
      by_match.emplace(hash, item);
    } else if (!item->mapped_before) {  // one that is mapped has a row of its own, and finds it by its
                                        // mapping
      item->outcome = Outcome::invalid;
      followers_.push_back({item, twin, false});
    }
  }
}

}  // namespace portage::load
