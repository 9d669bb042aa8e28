// Landed items of a batch as few rows of item_packs: place, outcome, legacy id and key of each, as bytes.
// This knows the bytes and nothing else; items.cpp writes packs, packed_items.cpp shows them as rows.
#pragma once

#include "pipeline/batch.hpp"

namespace portage::ledger {

/// A pack reaches over so many ordinals at most, so that the one with a given ordinal can be found by its
/// first.
inline constexpr int64_t pack_span = 1000;

/// An item as a pack holds it. Texts point into the pack's bytes; nullptr: null.
struct PackedItem {
  int64 ordinal, line, byte_offset, byte_length;
  Outcome outcome;
  const char *legacy_id, *target_key;
  size_t legacy_id_size, target_key_size;
};

/// Whether the item can be packed: it landed, and there is nothing more to say about it.
bool packable(const Item&);

/// Collects the items of one pack, in ascending order.
class Packer {
 public:
  /// Whether the item belongs into the next pack: this one has reached its span, or is large.
  bool is_full_for(const Item&) const;
  void add(const Item&);
  void clear();
  int32_t count() const { return count_; }
  int64_t first_ordinal() const { return first_; }
  std::string_view content() const { return content_; }

 private:
  std::string content_;
  int32_t count_ = 0;
  int64_t first_ = 0;
  PackedItem before_{};  // the item before, from which places are counted
};

/// Raw code: the items of a pack, `count` as its row says. Bytes that are no such pack raise XX001.
void unpack_raw(const char* bytes, size_t size, int64 first_ordinal, int count, PackedItem* items);

}  // namespace portage::ledger
