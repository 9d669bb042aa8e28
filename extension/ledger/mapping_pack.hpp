// Mappings that were written together and not touched since, as one row of mapping_packs: bytes, in the order
// of the legacy ids. This knows the bytes and nothing else; mapping_packs.cpp reads and writes the table,
// packed_mappings.cpp shows it as rows.
#pragma once

#include "ledger/coding.hpp"

namespace portage::ledger {

/// A legacy id so that packs are in the order of numbers, if ids are numbers: its length, two bytes, the high
/// one first; then its bytes.
std::string order_key(std::string_view legacy_id);
/// Whether one id comes before another in that order.
inline bool comes_before(std::string_view a, std::string_view b) {
  return a.size() != b.size() ? a.size() < b.size() : a < b;
}

/// A mapping as a pack holds it; pipeline, scope and run stand beside it.
struct PackedMapping {
  std::string_view legacy_id, target_key;
  char origin;  ///< as in ledger::Mapping
  int64_t source_hash, row_hash, ordinal;
};

/// Collects the mappings of one pack, in ascending order.
class MappingPacker {
 public:
  void add(const PackedMapping&);
  void clear();
  int32_t count() const { return count_; }
  const std::string& content() const { return content_; }
  /// More than the mapping will take.
  static size_t bound(const PackedMapping& m) { return m.legacy_id.size() + m.target_key.size() + 40; }

 private:
  std::string content_, id_;  // the one before
  int64_t ordinal_ = 0;
  int32_t count_ = 0;
};

/// Longer ids are never packed.
inline constexpr size_t longest_packed_id = 1100;

/// Walks through a pack. Plain, for raw code.
class MappingUnpacker {
 public:
  MappingUnpacker(const char* bytes, size_t size);
  /// The next mapping, whose legacy id is good until the call after; false at the end, and where the bytes
  /// are no such pack.
  bool next(PackedMapping*);
  /// After the last: whether the bytes were a pack of so many.
  bool held(int count) const { return in_.good && in_.at == in_.end && seen_ == count; }

 private:
  Decoder in_;
  char id_[longest_packed_id];
  size_t id_size_ = 0;
  int64_t ordinal_ = 0;
  int seen_ = 0;
};

}  // namespace portage::ledger
