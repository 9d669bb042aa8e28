// See seen_ids.hpp.
#include "load/seen_ids.hpp"

extern "C" {
#include "lib/bloomfilter.h"
}

namespace portage::load {

using bridge::guarded;

SeenIds::SeenIds(int64_t run_id, int64_t expected_items)
    : run_id_(run_id), memory_("portage seen ids", PortalContext ? PortalContext : CurrentMemoryContext) {
  bridge::InMemory in(memory_.get());
  // bloom_create gives two bytes per element; four times that makes a wrong "maybe" rarer than one in a
  // million.
  int64_t elements = std::clamp<int64_t>(expected_items, 100000, 16000000) * 4;
  filter_ = guarded([=] { return bloom_create(elements, 32 * 1024, 0); });
}

namespace {

constexpr char an_id = 'i', a_key = 'k';

}  // namespace

void SeenIds::add(char kind, std::string_view text) {
  element_.assign(1, kind).append(text);
  bloom_filter* filter = filter_;
  auto* bytes = reinterpret_cast<unsigned char*>(element_.data());
  size_t size = element_.size();
  guarded([=] { bloom_add_element(filter, bytes, size); });
  empty_ = false;
}

bool SeenIds::perhaps(char kind, std::string_view text) const {
  element_.assign(1, kind).append(text);
  bloom_filter* filter = filter_;
  auto* bytes = reinterpret_cast<unsigned char*>(element_.data());
  size_t size = element_.size();
  return !guarded([=] { return bloom_lacks_element(filter, bytes, size); });
}

void SeenIds::recall() {
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

void SeenIds::remember(const Item* items, size_t n) {
  for (size_t i = 0; i < n; i++) {
    if (items[i].outcome != Outcome::unchanged || items[i].legacy_id.data() == nullptr) continue;
    add(an_id, items[i].legacy_id);
    add(a_key, items[i].target_key);
  }
}

std::vector<int64_t> SeenIds::find_ids(const std::vector<Item*>& items) const {
  std::vector<int64_t> seen(items.size(), 0);
  if (empty_) return seen;
  std::vector<std::string> candidates;
  std::vector<size_t> positions;
  for (size_t i = 0; i < items.size(); i++) {
    if (items[i]->legacy_id.data() == nullptr || !perhaps(an_id, items[i]->legacy_id)) continue;
    candidates.emplace_back(items[i]->legacy_id);
    positions.push_back(i);
  }
  std::unordered_map<std::string, int64_t> known =
      ledger::unchanged_ordinals(run_id_, "legacy_id", candidates);
  for (size_t j = 0; j < candidates.size(); j++) {
    auto it = known.find(candidates[j]);
    // an item that is looked at again, after its batch was cut short, is no second occurrence
    if (it != known.end() && it->second != items[positions[j]]->ordinal) seen[positions[j]] = it->second;
  }
  return seen;
}

std::unordered_map<std::string, int64_t> SeenIds::find_keys(const std::vector<std::string>& keys) const {
  std::vector<std::string> candidates;
  if (!empty_)
    for (const std::string& key : keys)
      if (perhaps(a_key, key)) candidates.push_back(key);
  return ledger::unchanged_ordinals(run_id_, "target_key", candidates);
}

}  // namespace portage::load
