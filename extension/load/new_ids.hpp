// Which legacy ids can have a mapping in a run that began when there was none: those that the run itself has
// brought, as long as nobody else writes. A Bloom filter of bounded size says "none" for nearly all others,
// and spares their look-up; in the order of ids, it need not be asked.
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
  int64_t run_id_;
  ledger::MappingSpace space_;
  bridge::Memory memory_;
  bloom_filter* filter_;
  std::string last_;              // of the ids that it knows, in their order
  std::optional<int64_t> since_;  // the last batch before the first one of ours
  bool asked_ = false, helps_ = false;
};

}  // namespace portage::load
