// Taking rows of the target back: delete them, with what hangs on them, or give columns their old values. SQL
// as the current user, but where the writer can do it; what it finds is judged by rollback.cpp.
#pragma once

#include "undo/dependants.hpp"

namespace portage::undo {

/// A row to be restored: columns and their texts.
struct Restore {
  const load::Row* row;  ///< as it stands; nullptr: it does not
  const std::vector<std::string>* columns;
  const std::vector<std::optional<std::string>>* before;
  load::Row after;  ///< filled; not found: a trigger kept the row from being updated
};

class TargetUndo {
 public:
  TargetUndo(Plan& plan, load::Writer& writer, std::vector<int> readable);

  /// Deletes by key; which were deleted. In the same statement, so that circles of constraints end: what
  /// hangs on them, and further rows of the target (of which only the keys count).
  std::vector<bool> remove(Batch&, const std::vector<const load::Row*>& rows,
                           const DependantFinder::Deletions& dependants,
                           const std::vector<load::BatchRow>& others);
  /// Sets the columns to what they were.
  void restore(Batch&, std::vector<Restore>& rows);
  /// Inserts rows as they were, whole; `row` is not looked at, `after` is filled as above.
  void insert(Batch&, std::vector<Restore>& rows);
  /// The keys of rows that stand where these would, which are to be inserted or, with a `row`, restored: of
  /// each the first one, by any unique index; "" for none.
  std::vector<std::string> taken(Batch&, const std::vector<Restore>& rows);

 private:
  std::vector<load::BatchRow> batch_rows(Batch&, const std::vector<const load::Row*>& rows) const;
  void parse(Batch&, const Restore&, Datum* values, bool* nulls) const;
  void read_again(Batch&, const bridge::Result&, const std::vector<Restore*>& rows);
  std::string same_key(const std::string& table_alias, const std::string& batch_alias) const;

  Plan& plan_;
  const Target& target_;
  load::Writer& writer_;
  std::unique_ptr<load::BatchRelation> batch_;
};

}  // namespace portage::undo
