// Which keys a table can have that was empty when a run began to write it: those that the run has inserted,
// and what others write meanwhile. A Bloom filter of bounded size says "not yours" for nearly all others, and
// spares their look-up, where keys come in no order and each would cost a descent of the index. What others
// write, a unique index refuses; then nothing is spared any more. Only for keys of which equal ones are the
// same bytes.
#pragma once

#include "load/key_equality.hpp"

struct bloom_filter;

namespace portage::load {

class NewKeys {
 public:
  /// Keys of these columns, on which a unique index stands.
  NewKeys(const Target&, const std::vector<int>& attnums);

  /// To be called before the first look-up in the open table.
  void begin(Relation table, const std::vector<bridge::Sought>& first);
  /// Of these keys, the positions of those that may be there.
  std::vector<size_t> perhaps(const std::vector<bridge::Sought>&);
  /// Rows that the run has inserted.
  void add(const std::vector<bridge::Sought>& rows);
  /// The table gets, or has, keys that were not added.
  void give_up() { filter_ = nullptr; }
  bool begun() const { return begun_; }
  bool helps() const { return filter_ != nullptr; }

 private:
  bool in_order(const std::vector<bridge::Sought>&) const;

  const Target& target_;
  std::vector<int> attnums_;
  bridge::Memory memory_;
  KeyEquality equality_;
  bloom_filter* filter_ = nullptr;
  bool begun_ = false;
};

}  // namespace portage::load
