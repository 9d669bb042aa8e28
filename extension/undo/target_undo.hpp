// Taking rows of the target back: find and lock them, who refers to them, delete them, or give columns their
// old values. SQL as the current user; what it finds is judged by rollback.cpp.
#pragma once

#include "load/batch_relation.hpp"
#include "load/writer.hpp"

namespace portage::undo {

/// Rows of another table that refer to rows that are to be deleted.
struct Dependants {
  std::string constraint, table;
  char on_delete;                 ///< 'a' no action, 'r' restrict, 'c' cascade, 'n' set null, 'd' set default
  std::vector<size_t> positions;  ///< of the rows referred to, one entry per row with at least one dependant
  int64_t rows = 0;
};

/// A row to be restored: columns and their texts.
struct Restore {
  const load::Row* row;
  const std::vector<std::string>* columns;
  const std::vector<std::optional<std::string>>* before;
  load::Row after;  ///< filled; not found: a trigger kept the row from being updated
};

class TargetUndo {
 public:
  TargetUndo(Plan& plan, load::Writer& writer, std::vector<int> readable);

  /// Dependants of these rows over every foreign key; rows that are themselves in `rows` do not count. Looked
  /// for as the referring table's owner, as the constraint itself does.
  std::vector<Dependants> dependants(Batch&, const std::vector<const load::Row*>& rows);
  /// Deletes rows of other tables that refer to these, over constraints that would refuse. Returns how many.
  int64_t delete_dependants(Batch&, const std::vector<const load::Row*>& rows);
  /// Deletes by key; which were deleted.
  std::vector<bool> remove(Batch&, const std::vector<const load::Row*>& rows);
  /// Sets the columns to what they were.
  void restore(Batch&, std::vector<Restore>& rows);

 private:
  struct ForeignKeyToUs {
    std::string name, table;
    Oid relation, owner;
    char on_delete;
    std::string columns_equal;  ///< child column = batch column, joined by AND
  };
  std::vector<load::BatchRow> batch_rows(Batch&, const std::vector<const load::Row*>& rows) const;
  std::string same_key(const std::string& table_alias, const std::string& batch_alias) const;

  Plan& plan_;
  const Target& target_;
  load::Writer& writer_;
  std::vector<ForeignKeyToUs> referring_;
  std::unique_ptr<load::BatchRelation> batch_;
};

}  // namespace portage::undo
