// Which legacy ids can have a mapping in a run that began when there was none: those that the run itself has
// brought, as long as nobody else writes. While ids come in their order, whatever is behind the last one is
// new; else a Bloom filter of bounded size says "none" for nearly all others. Both spare look-ups.
#pragma once

#include "ledger/items.hpp"

struct bloom_filter;

namespace portage::load {

class NewIds {
 public:
  /// Sized for so many ids, up to 32 MB.
  NewIds(int64_t run_id, ledger::MappingSpace, int64_t expected_items);

  /// The ids of the items, without those that certainly have no mapping (data() == nullptr). Called in the
  /// transaction of a batch, which holds the lock on the space.
  std::vector<std::string_view> to_look_up(const std::vector<Item*>&);
  /// To be called with what has been settled.
  void remember(const Item* items, size_t n);

 private:
  bool take_in_order(const Item* items, size_t n);

  int64_t run_id_;
  ledger::MappingSpace space_;
  bridge::Memory memory_;
  int64_t expected_;
  std::string last_;                // what comes before it, or is it, may have come
  bloom_filter* filter_ = nullptr;  // of the others that have come
  std::optional<int64_t> since_;    // the last batch before the first one of ours
  bool asked_ = false, helps_ = false;
};

}  // namespace portage::load
