// The inside of a rollback, for the files of undo/ only: how many items are looked at in one go, and what is
// known of one of them.
#pragma once

#include "bridge/codes.hpp"
#include "undo/rollback.hpp"

namespace portage::undo {

/// How many items are looked at in one go: by the time that they take (portage.batch_target) and the memory.
class Page {
 public:
  int64_t size() const { return size_; }
  void start();
  void adapt(const Batch&);
  void shrink() { size_ = std::max(size_ / 4, least); }

  static constexpr int64_t least = 100;

 private:
  static constexpr int64_t greatest = 10000;
  int64_t size_ = 500;
  double started_ = 0;
};

/// An item and what has become of its row since.
struct Rollback::Case {
  ledger::LandedItem* item;
  load::Row row;
  std::string
      drift;  ///< "", "gone", "changed", "unknown", "later_run", "mapping_missing"; "taken": somebody has the
              ///< place in which it would be again, or "waits": an item of the run, which goes first
  std::string spared;  ///< why, if it is
  bool done = false;
  bool taken = false;  ///< a row that stands has its place taken, whatever else has become of it
};

/// Why an item is spared that has its turn once another item of the run, which has written its row since, is
/// taken back.
inline constexpr const char* overwritten = "overwritten";

/// 42501 with the GRANT statements as hint, if there are any. `on`: what permission is denied for.
void require_grants(const std::string& on, const std::vector<std::string>& grants, const std::string& role);
void refuse_strangers_code(const std::set<std::string>& tables, const std::string& role);
inline constexpr const char* dependant_tables = "tables whose rows refer to rows of the run";

}  // namespace portage::undo
