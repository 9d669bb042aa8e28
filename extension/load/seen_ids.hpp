// Which legacy ids, and which rows, earlier batches of the run found unchanged. Nothing of them is written
// again, so a second occurrence could not be told from a first one. A Bloom filter of bounded size says
// "never seen" for nearly all; the few others are looked up in the ledger.
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
  std::vector<int64_t> find_ids(const std::vector<Item*>& items) const;
  /// Which of these target keys belong to items that were found unchanged before, and their ordinals.
  std::unordered_map<std::string, int64_t> find_keys(const std::vector<std::string>& keys) const;

 private:
  void add(char kind, std::string_view text);
  bool perhaps(char kind, std::string_view text) const;

  int64_t run_id_;
  bridge::Memory memory_;
  bloom_filter* filter_;
  bool empty_ = true;
  mutable std::string element_;  // what is added or looked for, to spare its allocation
};

}  // namespace portage::load
