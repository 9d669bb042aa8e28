// Which legacy ids, and which rows, earlier batches of the run found unchanged. Nothing of them is written
// again, so a second occurrence could not be told from a first one. An input that comes again in its order
// needs no more than the highest ordinal that its mappings have had; where that does not answer, a Bloom
// filter of bounded size says "never seen" for nearly all, and the few others are looked up in the ledger.
#pragma once

#include "ledger/items.hpp"

struct bloom_filter;

namespace portage::load {

class SeenIds {
 public:
  explicit SeenIds(int64_t run_id);
  /// To be called where an earlier session of the same run found items unchanged. `expected_items` sizes the
  /// filter, up to 32 MB.
  void recall(int64_t expected_items);
  /// Remembers the unchanged ones among the items; mappings[i] is of items[i]; nullptr: not known.
  void remember(const Item* items, const ledger::Mapping* mappings, size_t n, int64_t expected_items);
  /// The ordinals at which these ids were seen before, by position; 0: not seen. mappings[i] is of items[i].
  std::vector<int64_t> find_ids(const std::vector<Item*>& items,
                                const std::vector<ledger::Mapping>& mappings);
  /// Which of these target keys belong to items that were found unchanged before, and their ordinals.
  std::unordered_map<std::string, int64_t> find_keys(const std::vector<std::string>& keys);

 private:
  void build_filter();
  void add(char kind, std::string_view text);
  bool perhaps(char kind, std::string_view text);

  int64_t run_id_, expected_items_ = 0;
  bridge::Memory memory_;
  std::unordered_map<int64_t, int64_t> highest_;  // by the run of a mapping: its ordinal there
  bool any_ = false, incomplete_ = false;         // highest_ does not know everything
  bloom_filter* filter_ = nullptr;                // built when it is needed
  std::string element_;                           // what is added or looked for, to spare its allocation
};

}  // namespace portage::load
