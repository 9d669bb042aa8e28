// What the walk over the items asks of the rows that it finds: whether before-images fit, and whether foreign
// keys have their parents. See items.cpp and rows.cpp.
#pragma once

#include "ledger/undo.hpp"
#include "load/batch_relation.hpp"
#include "pipeline/hash.hpp"
#include "verify/check.hpp"

namespace portage::verify {

/// An item that changed a row which is as the item left it.
struct BeforeImage {
  const ledger::LandedItem* item;
  const load::Row* row;
};

/// Puts the old values back, in memory only: the hash must be that of the row before the item changed it.
class BeforeImages {
 public:
  explicit BeforeImages(const Scene&);
  /// The current user is the run's role.
  void look_at(Batch&, const std::vector<BeforeImage>&, Findings&);

 private:
  bool fits(Batch&, const BeforeImage&) const;

  const Scene& scene_;
  bridge::Memory memory_;
  RowHasher hasher_;
};

/// Rows of the run whose foreign key finds no parent: constraints can be unvalidated, and triggers switched
/// off.
class Parents {
 public:
  explicit Parents(const Scene&);
  /// The current user is the run's role; parents are looked for as their table's owner, as the constraint
  /// itself does.
  void look_at(Batch&, const std::vector<load::Row>&);
  Check result() const;

 private:
  struct Key {
    const ForeignKey* key;
    std::string sql;
    Oid owner;
    RowHasher hasher;
    std::unordered_set<uint64_t> known;  // hashes of values that have a parent
    int64_t orphans = 0;
    std::string keys;  // of the first few
  };

  const Scene& scene_;
  bridge::Memory memory_;
  std::unique_ptr<load::BatchRelation> batch_;
  std::vector<Key> keys_;
  Findings unread_;
};

}  // namespace portage::verify
