// Items of a run that wait for what they refer to, as far as others could come before them: who has the
// legacy id or the match key of one that waits, waits behind it. So it is the order of the input that decides
// between them, and not where batches end.
#pragma once

#include "pipeline/plan.hpp"

namespace portage::load {

/// What an item is known by: hashes of its legacy id and of its match key; 0: it has none, or it is not known
/// yet. Equal keys, by the rules of their types, have equal hashes.
struct KnownBy {
  uint64_t id = 0, match = 0;
};

class Waiting {
 public:
  explicit Waiting(const Plan&);

  /// What an item is known by whose values have been prepared.
  KnownBy known_by(const Item&) const;
  bool has(const KnownBy& one) const {
    return (one.id && hashes_.count(one.id)) || (one.match && hashes_.count(one.match));
  }
  void add(const KnownBy& one) {
    if (one.id) hashes_.insert(one.id);
    if (one.match) hashes_.insert(one.match);
  }
  void clear() { hashes_.clear(); }
  bool empty() const { return hashes_.empty(); }

 private:
  struct Column {
    int attnum;
    Oid collation;
    FmgrInfo* hash;  ///< nullptr: the type has none; it is the text that counts
    Oid type;
  };
  bridge::Memory memory_;
  std::vector<Column> match_;
  std::unordered_set<uint64_t> hashes_;
};

}  // namespace portage::load
