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
  // bloom_create gives two bytes per element; four times that makes a wrong "maybe" rarer than one in a million.
  int64_t elements = std::clamp<int64_t>(expected_items, 100000, 16000000) * 4;
  filter_ = guarded([=] { return bloom_create(elements, 32 * 1024, 0); });
}

void SeenIds::add(std::string_view legacy_id) {
  bloom_filter* filter = filter_;
  auto* bytes = reinterpret_cast<unsigned char*>(const_cast<char*>(legacy_id.data()));
  size_t size = legacy_id.size();
  guarded([=] { bloom_add_element(filter, bytes, size); });
  empty_ = false;
}

void SeenIds::recall() {
  int64_t after = 0;
  for (;;) {
    std::vector<std::pair<int64_t, std::string>> page = ledger::unchanged_ids(run_id_, after, 10000);
    for (const auto& [ordinal, id] : page) add(id);
    if (page.empty()) break;
    after = page.back().first;
    bridge::check_interrupts();
  }
}

void SeenIds::remember(const Item* items, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (items[i].outcome == Outcome::unchanged && items[i].legacy_id.data() != nullptr) add(items[i].legacy_id);
}

std::vector<int64_t> SeenIds::find(const std::vector<Item*>& items) const {
  std::vector<int64_t> seen(items.size(), 0);
  if (empty_) return seen;
  bloom_filter* filter = filter_;
  std::vector<std::string> perhaps;
  std::vector<size_t> positions;
  for (size_t i = 0; i < items.size(); i++) {
    std::string_view id = items[i]->legacy_id;
    if (id.data() == nullptr) continue;
    auto* bytes = reinterpret_cast<unsigned char*>(const_cast<char*>(id.data()));
    size_t size = id.size();
    if (guarded([=] { return bloom_lacks_element(filter, bytes, size); })) continue;
    perhaps.emplace_back(id);
    positions.push_back(i);
  }
  std::unordered_map<std::string, int64_t> known = ledger::unchanged_ordinals(run_id_, perhaps);
  for (size_t j = 0; j < perhaps.size(); j++) {
    auto it = known.find(perhaps[j]);
    if (it != known.end()) seen[positions[j]] = it->second;
  }
  return seen;
}

}  // namespace portage::load
