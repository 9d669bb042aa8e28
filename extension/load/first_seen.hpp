// Which of many items of a batch came first with a key: a flat table of 64-bit hashes, for nearly all keys
// are seen once. Knows nothing of what the keys are.
#pragma once

#include <bit>

#include "pipeline/batch.hpp"

namespace portage::load {

class FirstSeen {
 public:
  /// `most`: of items that will be asked about.
  explicit FirstSeen(size_t most) : slots_(std::bit_ceil(2 * most + 1)) {}

  /// The item that came first with the key of `item`: itself, if none did. `same` compares an earlier item of
  /// the same hash with it.
  template <class Same>
  Item* of(uint64_t hash, Item* item, Same same) {
    for (size_t at = hash;; at++) {
      Slot& slot = slots_[at & (slots_.size() - 1)];
      if (!slot.first) slot = {hash, item};
      if (slot.first == item || (slot.hash == hash && same(*slot.first))) return slot.first;
    }
  }

 private:
  struct Slot {
    uint64_t hash;
    Item* first;
  };
  std::vector<Slot> slots_;
};

}  // namespace portage::load
