// What the items of earlier batches would have left in the target, for runs that leave nothing there: dry
// runs and validations. Tells which item of this batch would meet what they wrote.
#pragma once

#include "ledger/predictions.hpp"
#include "pipeline/plan.hpp"

namespace portage::load {

class Predictions {
 public:
  Predictions(const Plan&, int64_t run_id, int32_t session);

  /// The ordinals of earlier items with these legacy ids that would have landed, by position; 0: none.
  std::vector<int64_t> find_ids(const std::vector<Item*>&) const;
  /// Earlier items that would have updated, or found unchanged, the rows with these keys.
  std::unordered_map<std::string, int64_t> find_keys(const std::vector<std::string>& keys) const;
  /// Earlier items that would have written the same values of the match columns, by position; 0: none.
  std::vector<int64_t> find_match(const std::vector<Item*>&) const;

  struct Clash {
    const UniqueIndex* index;  ///< nullptr: none
  };
  /// Other unique indexes in which an earlier item's row would stand in the way of a new row, by position.
  std::vector<Clash> find_unique(const std::vector<Item*>&) const;

  /// To be called with the items of a batch that have an outcome.
  void remember(const Item* items, size_t n) const;

 private:
  /// Columns whose values identify rows: hashed as their types compare, so that 1.0 and 1.00 are one.
  struct Key {
    std::string kind;
    std::vector<int> attnums;
    std::vector<FmgrInfo*> hashes;  ///< by position; nullptr: the type has none, its text is taken
    const UniqueIndex* index;
  };
  Key make_key(const std::string& kind, const std::vector<int>& attnums, const UniqueIndex*) const;
  std::optional<std::string> value_of(const Key&, const Item&) const;  ///< nothing where a column is null
  std::vector<int64_t> find(const Key&, const std::vector<Item*>&) const;

  const Plan& plan_;
  int64_t run_id_;
  int32_t session_;
  bridge::Memory memory_;
  std::optional<Key> match_;
  std::vector<Key> unique_;  // unique indexes over mapped columns, but for the one that match covers
};

}  // namespace portage::load
