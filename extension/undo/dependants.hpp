// What hangs on rows that are to be deleted, over foreign keys and through as many tables as it takes: rows
// that go along, and rows whose columns the constraint would change. Knows tables and constraints; knows
// nothing of runs.
#pragma once

#include "load/batch_relation.hpp"
#include "load/writer.hpp"

namespace portage::undo {

/// Rows found over one foreign key.
struct Dependants {
  std::string table, constraint;
  char on_delete;  ///< 'a' no action, 'r' restrict, 'c' cascade, 'n' set null, 'd' set default
  int level;       ///< 1: they refer to the rows themselves, 2: to those, ...
  int64_t rows = 0;

  bool deleted() const { return on_delete != 'n' && on_delete != 'd'; }
  const char* action() const;  ///< on_delete in words
};

/// A row of the target itself that hangs on others: an item of the run perhaps, perhaps a stranger.
struct OwnRow {
  std::string key;
  size_t constraint;                ///< position in Tree::found
  std::optional<size_t> refers_to;  ///< position of the row that it refers to, if that is one of those given
  load::BatchRow row;               ///< its key counts
};

/// Everything that hangs on some rows.
struct Tree {
  std::vector<Dependants> found;
  std::set<size_t> referred;  ///< positions of the rows given to which rows of other tables refer
  std::vector<OwnRow> own;    ///< rows of the target; Dependants::rows does not count them
  std::set<std::string>
      missing_grants;  ///< what the role lacks to delete what no constraint deletes by itself
  std::set<std::string> strangers_code;        ///< tables whose code is no business of the role's
  std::set<std::pair<Oid, size_t>> to_delete;  ///< (table, its key) over which rows must be deleted first
};

class DependantFinder {
 public:
  /// `role`: as which dependants would be deleted.
  DependantFinder(Plan& plan, Oid role, std::string role_name);
  ~DependantFinder();

  /// False: nothing refers to the target at all.
  bool any() const;
  /// What hangs on these rows, which do not count themselves; of all levels, or the first only. Looked for as
  /// the owners of the tables do, as the constraints themselves look. With `through_own` also what hangs on
  /// rows of the target that hang on these. Valid until the next call.
  Tree find(Batch&, const std::vector<const load::Row*>& rows, bool all_levels, bool through_own);

  /// For the statement that deletes the rows given to find(): deletions that belong before it, as the list of
  /// a WITH ("" if none), and the relations that it mentions, filled.
  struct Deletions {
    std::string with;
    std::vector<std::unique_ptr<load::BatchRelation::Filling>> fillings;
  };
  Deletions deletions(const Tree&);

 private:
  struct Key;
  struct Node;
  Node& node(Oid table);
  void start(Batch&, Node&, const std::vector<const load::Row*>& rows);
  void follow(Batch&, Node&, size_t key, size_t first, size_t last, int level, Tree&);
  void check_rights(const Key&, Tree&) const;
  void check_code(const Key&, Tree&) const;

  Plan& plan_;
  Oid role_;
  std::string role_name_;
  bool through_own_ = false;
  std::map<Oid, std::unique_ptr<Node>> nodes_;
  std::set<std::pair<Oid, std::pair<uint64_t, int>>> seen_;  // (table, place of the row)
  std::set<std::string> own_keys_;                           // of rows of the target that are to go
  std::map<std::pair<Oid, size_t>, size_t> positions_;       // (table, key) -> position in Tree::found
};

}  // namespace portage::undo
