// The one interface to the target's rows: look up, lock, insert, update, always a batch at a time. Behind it
// stand the SQL writer (any table) and, where the target is an ordinary table, a faster one. Writers run as
// the current user and know nothing of conflicts or of the ledger.
#pragma once

#include "pipeline/plan.hpp"

namespace portage::load {

/// A row of the target as it stands. Values by attnum - 1, in the batch's memory; only readable columns are
/// filled.
struct Row {
  bool found = false;
  Datum* values = nullptr;
  bool* nulls = nullptr;
  std::string_view key;                       ///< its key's text
  TransactionId xmin = InvalidTransactionId;  ///< who wrote it, where that can be known
  uint64_t row_hash = 0;                      ///< over the hash columns
  std::string_view candidates;                ///< of find_by_match: the keys of all rows, where several match
  std::optional<ItemPointerData> locked;      ///< its place, where the writer has locked it there
};

/// An item that replaces the values of an existing row.
struct Update {
  Item* item;
  Row before;  ///< locked
  Row after;   ///< filled by update()
};

class Writer {
 public:
  virtual ~Writer() = default;
  /// The rows that the items' match columns find; result[i] belongs to items[i].
  virtual std::vector<Row> find_by_match(Batch&, const std::vector<Item*>&) = 0;
  /// The rows with these keys; with `lock`, locked until the end of the transaction and read after that.
  virtual std::vector<Row> find_by_key(Batch&, const std::vector<std::string_view>& keys, bool lock) = 0;
  /// Inserts one row per item and fills target_key and row_hash. An item whose row a trigger cancelled
  /// becomes skipped. Raises what the target raises; the caller has a subtransaction around it.
  virtual void insert(Batch&, const std::vector<Item*>&) = 0;
  /// Updates one row per entry and fills `after`, target_key and row_hash. Raises likewise.
  virtual void update(Batch&, std::vector<Update*>&) = 0;
  /// Deletes those of the rows that this writer has locked itself, where a DELETE would do no more than that:
  /// nothing refers to the table, no trigger fires. Says which; the others are left to SQL.
  virtual std::vector<bool> remove(const std::vector<const Row*>& rows) {
    return std::vector<bool>(rows.size(), false);
  }
  /// Positions in `items` whose foreign key has no parent row, set-wise, with PostgreSQL's right to look.
  virtual std::vector<size_t> without_parent(Batch&, const ForeignKey&, const std::vector<Item*>&) = 0;
  /// Judges deferred constraints of the target now.
  virtual void check_deferred() = 0;
  /// To be called after that: what AFTER and deferred triggers made of the rows just written goes into
  /// row_hash and `after`. An item whose row they took away again becomes skipped.
  virtual void reread(Batch&, const std::vector<Item*>& inserts, const std::vector<Update*>& updates) = 0;
};

/// The writer that suits the target and the current user (writer_choice.hpp). `hash_columns`: attnums that
/// row_hash covers.
std::unique_ptr<Writer> make_writer(Plan&, const std::vector<int>& hash_columns);
/// The writer for any target.
std::unique_ptr<Writer> make_sql_writer(Plan&, const std::vector<int>& hash_columns);

}  // namespace portage::load
