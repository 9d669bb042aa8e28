// See key_lookup.hpp.
#include "load/key_lookup.hpp"

#include "load/batch_relation.hpp"

namespace portage::load {

using bridge::guarded;

namespace {

/// Whether the index tells values apart as the column does.
bool agrees(const UniqueIndex& index, size_t i, const TargetColumn& column) {
  Oid of_index = index.collations[i], of_column = column.collation;
  return index.equality[i] == equality_of(column.type) && (of_index == of_column || guarded([=] {
                                                             return get_collation_isdeterministic(of_index) &&
                                                                    get_collation_isdeterministic(of_column);
                                                           }));
}

}  // namespace

bool are_unique(const Target& target, const std::vector<int>& attnums) {
  std::set<int> wanted(attnums.begin(), attnums.end());
  for (const UniqueIndex& index : target.unique_indexes) {
    std::set<int> columns(index.attnums.begin(), index.attnums.end());
    if (!index.partial && !index.expressions && index.valid && !columns.empty() &&
        std::includes(wanted.begin(), wanted.end(), columns.begin(), columns.end())) {
      bool as_columns = true;
      for (size_t i = 0; i < index.attnums.size(); i++)
        as_columns = as_columns && agrees(index, i, target.column(index.attnums[i]));
      if (as_columns) return true;
    }
  }
  return false;
}

std::optional<KeyLookup> KeyLookup::make(const Target& target, const std::vector<int>& columns) {
  std::set<int> wanted(columns.begin(), columns.end());
  for (const UniqueIndex& index : target.unique_indexes) {
    if (!index.valid || !index.immediate || index.partial || index.attnums.empty()) continue;
    bool serves = true, ordered = true;
    for (size_t i = 0; i < index.attnums.size(); i++) {
      const TargetColumn& column = target.column(index.attnums[i]);
      serves = serves && wanted.contains(column.attnum) && agrees(index, i, column);
      ordered = ordered && column.not_null;
    }
    if (!serves) continue;
    KeyLookup lookup;
    lookup.index_ = &index;
    lookup.ordered_ = ordered;
    for (int attnum : index.attnums) wanted.erase(attnum);
    for (int attnum : wanted) {
      const TargetColumn& column = target.column(attnum);
      Oid equality = equality_of(column.type);
      lookup.rest_.push_back({attnum, guarded([=] { return get_opcode(equality); }), column.collation});
    }
    return lookup;
  }
  return std::nullopt;
}

bool KeyLookup::find(Relation table, const std::vector<bridge::Sought>& sought,
                     const std::function<void(size_t, TupleTableSlot*)>& found) const {
  std::vector<size_t> positions;  // without what has a null, which is equal to nothing
  for (size_t i = 0; i < sought.size(); i++) {
    auto null = [&](int attnum) { return sought[i].nulls[attnum - 1]; };
    if (std::none_of(index_->attnums.begin(), index_->attnums.end(), null) &&
        std::none_of(rest_.begin(), rest_.end(), [&](const Compared& c) { return null(c.attnum); }))
      positions.push_back(i);
  }
  bridge::ProbedIndex index{index_->oid, index_->attnums, ordered_};
  if (rest_.empty()) return bridge::find_by_index(table, index, sought, std::move(positions), found);
  const Compared* rest = rest_.data();
  size_t rest_count = rest_.size();
  return bridge::find_by_index(
      table, index, sought, std::move(positions), [&](size_t i, TupleTableSlot* slot) {
        const Datum* wanted = sought[i].values;
        bool same = guarded([=] {
          for (size_t r = 0; r < rest_count; r++) {
            bool null;
            Datum value = slot_getattr(slot, static_cast<AttrNumber>(rest[r].attnum), &null);
            if (null || !DatumGetBool(OidFunctionCall2Coll(rest[r].function, rest[r].collation, value,
                                                           wanted[rest[r].attnum - 1])))
              return false;
          }
          return true;
        });
        if (same) found(i, slot);
      });
}

}  // namespace portage::load
