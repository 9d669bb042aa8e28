// See seen_ids.hpp.
#include "load/seen_ids.hpp"

extern "C" {
#include "lib/bloomfilter.h"
}

namespace portage::load {

using bridge::guarded;

namespace {

constexpr char an_id = 'i', a_key = 'k';

}  // namespace

SeenIds::SeenIds(int64_t run_id)
    : run_id_(run_id), memory_("portage seen ids", PortalContext ? PortalContext : CurrentMemoryContext) {}

/// With all that the ledger has of the run so far.
void SeenIds::build_filter() {
  if (filter_) return;
  {
    bridge::InMemory in(memory_.get());
    // bloom_create gives two bytes per element; four times that makes a wrong "maybe" rarer than one in a
    // million.
    int64_t elements = std::clamp<int64_t>(expected_items_, 100000, 16000000) * 4;
    filter_ = guarded([=] { return bloom_create(elements, 32 * 1024, 0); });
  }
  int64_t after = 0;
  for (;;) {
    std::vector<ledger::UnchangedItem> page = ledger::unchanged_items(run_id_, after, 10000);
    for (const ledger::UnchangedItem& item : page) {
      add(an_id, item.legacy_id);
      add(a_key, item.target_key);
    }
    if (page.empty()) break;
    after = page.back().ordinal;
    bridge::check_interrupts();
  }
}

void SeenIds::add(char kind, std::string_view text) {
  element_.assign(1, kind).append(text);
  bloom_filter* filter = filter_;
  auto* bytes = reinterpret_cast<unsigned char*>(element_.data());
  size_t size = element_.size();
  guarded([=] { bloom_add_element(filter, bytes, size); });
}

bool SeenIds::perhaps(char kind, std::string_view text) {
  element_.assign(1, kind).append(text);
  bloom_filter* filter = filter_;
  auto* bytes = reinterpret_cast<unsigned char*>(element_.data());
  size_t size = element_.size();
  return !guarded([=] { return bloom_lacks_element(filter, bytes, size); });
}

void SeenIds::recall(int64_t expected_items) {
  expected_items_ = expected_items;
  any_ = incomplete_ = true;
}

void SeenIds::remember(const Item* items, const ledger::Mapping* mappings, size_t n, int64_t expected_items) {
  expected_items_ = std::max(expected_items_, expected_items);
  int64_t run = -1, *highest = nullptr;
  for (size_t i = 0; i < n; i++) {
    if (items[i].outcome != Outcome::unchanged || items[i].legacy_id.data() == nullptr) continue;
    any_ = true;
    if (filter_) {
      add(an_id, items[i].legacy_id);
      add(a_key, items[i].target_key);
    }
    incomplete_ = incomplete_ || !mappings;
    if (incomplete_ || !mappings[i].found) continue;  // it has written one, which is known by its run
    if (run != mappings[i].run_id) highest = &highest_[run = mappings[i].run_id];
    *highest = std::max(*highest, mappings[i].ordinal);
  }
}

std::vector<int64_t> SeenIds::find_ids(const std::vector<Item*>& items,
                                       const std::vector<ledger::Mapping>& mappings) {
  std::vector<int64_t> seen(items.size(), 0);
  if (!any_) return seen;
  std::vector<size_t> candidates;
  int64_t run = -1, highest = 0;
  for (size_t i = 0; i < items.size(); i++) {
    if (!mappings[i].found) continue;
    if (run != mappings[i].run_id) {
      auto known = highest_.find(run = mappings[i].run_id);
      highest = known == highest_.end() ? 0 : known->second;
    }
    if (incomplete_ || mappings[i].ordinal <= highest) candidates.push_back(i);
  }
  if (candidates.empty()) return seen;
  build_filter();
  std::vector<std::string> ids;
  std::erase_if(candidates, [&](size_t i) { return !perhaps(an_id, items[i]->legacy_id); });
  for (size_t i : candidates) ids.emplace_back(items[i]->legacy_id);
  std::unordered_map<std::string, int64_t> known = ledger::unchanged_ordinals(run_id_, "legacy_id", ids);
  for (size_t j = 0; j < candidates.size(); j++) {
    auto it = known.find(ids[j]);
    // an item that is looked at again, after its batch was cut short, is no second occurrence
    if (it != known.end() && it->second != items[candidates[j]]->ordinal) seen[candidates[j]] = it->second;
  }
  return seen;
}

std::unordered_map<std::string, int64_t> SeenIds::find_keys(const std::vector<std::string>& keys) {
  std::vector<std::string> candidates;
  if (any_ && !keys.empty()) {
    build_filter();
    for (const std::string& key : keys)
      if (perhaps(a_key, key)) candidates.push_back(key);
  }
  return ledger::unchanged_ordinals(run_id_, "target_key", candidates);
}

}  // namespace portage::load
