// Which legacy ids earlier batches of the run found unchanged. Their mappings are not written again, so a second
// occurrence could not be told from a first one. A Bloom filter of bounded size says "never seen" for nearly all;
// the few others are looked up in the ledger.
#pragma once

#include "ledger/items.hpp"

struct bloom_filter;

namespace portage::load {

class SeenIds {
 public:
  /// `expected_items` sizes the filter, up to 32 MB.
  explicit SeenIds(int64_t run_id, int64_t expected_items);
  /// Takes up what an earlier session of the same run found unchanged.
  void recall();
  /// Remembers the unchanged ones among the items.
  void remember(const Item* items, size_t n);
  /// The ordinals at which these ids were seen before, by position; 0: not seen.
  std::vector<int64_t> find(const std::vector<Item*>& items) const;

 private:
  void add(std::string_view legacy_id);

  int64_t run_id_;
  bridge::Memory memory_;
  bloom_filter* filter_;
  bool empty_ = true;
};

}  // namespace portage::load
