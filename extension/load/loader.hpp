// A batch of typed items into the target: duplicates, what is there already, conflicts, foreign keys, then
// phase B of fault isolation: write, and halve what fails. Knows the mappings (ledger/) and one Writer; knows
// nothing of files, transactions or the life of a run.
#pragma once

#include "ledger/items.hpp"
#include "load/predictions.hpp"
#include "load/seen_ids.hpp"
#include "load/writer.hpp"

namespace portage::load {

/// What is to become of the target.
enum class Purpose {
  import,
  dry_run,   ///< everything is written as by an import, and undone before load() returns
  validate,  ///< nothing is written or locked: what the look-ups say is the answer
};

/// What a run says about how its items are to land.
struct Policy {
  Purpose purpose = Purpose::import;
  int32_t session = 0;  ///< whose predictions count: 0 for the run's own (ledger/predictions.hpp)
  OnConflict on_conflict = OnConflict::skip;
  bool incremental = true;  ///< unchanged items (source_hash) are not looked at again
  int64_t run_id = 0;
  ledger::MappingSpace space;
  uint64_t first_xid = 0;  ///< rows written before it were not written by this run
  bool may_update = true;  ///< the role has UPDATE on the mapped columns
  bool replay = false;     ///< what later runs have written is newer than the items are
  bool park = false;  ///< several workers import the run: what hangs on the order of items waits for its end
  std::vector<std::string> hash_columns;  ///< names of the columns that row_hash covers in this run
};

/// Milliseconds spent, for the report.
struct Timings {
  double look_up = 0, target = 0;
};

class Loader {
 public:
  Loader(Plan& plan, Writer& writer, Policy policy);

  /// Settles items [from, n) as far as the subtransactions of one transaction reach and returns the position
  /// up to which all have an outcome; the rest is as before the call, for the next transaction. Raises what
  /// concerns the whole batch. The current user is the run's role.
  size_t load(Batch&, size_t from);

  /// To be called with what has been settled when more batches follow in this run.
  void remember(const Item* items, size_t n, int64_t expected_items);
  /// To be called before the first batch of a run that is resumed.
  void recall(int64_t expected_items);

  /// Before-images of what load() changed; valid until the next call.
  const std::vector<ledger::Undo>& undo() const { return undo_; }
  const Timings& timings() const { return timings_; }

 private:
  /// An item to be written, with the row and mapping that it meets.
  struct Work {
    Item* item;
    ledger::Mapping mapping;
    bool is_update;
    Update update;
    bool looked_again = false;
    Issue* remarks = nullptr;  // the last issue that stood on the item before it was written

    /// Forgets what a write that was rolled back said about the item.
    void forget_attempt() {
      item->outcome = Outcome::pending;
      if (remarks)
        remarks->next = nullptr;
      else
        item->issues = nullptr;
    }
  };

  /// An item before load() looked at it.
  struct Untouched {
    Item item;
    Issue* last_issue;
  };

  /// An item with the legacy id, or the match key, of an earlier item of the batch.
  struct Follower {
    Item *item, *leader;
    bool by_id;
  };

  size_t load_rows(Batch&, size_t from);
  size_t load_until(Batch&, size_t from, size_t end, std::vector<Item*>& open,
                    const std::vector<Untouched>& before);
  void restore(Batch&, size_t from, size_t first, size_t end, const std::vector<Untouched>& before);
  std::unordered_map<std::string, int64_t> had_before(const std::vector<Follower>&) const;
  size_t judge_followers(Batch&, size_t settled);
  void add_duplicate(Batch&, Item&, bool by_id, int64_t first);
  void park(Batch&, Item&, const std::string& why);
  bool moves_row(const Item&, const Row&) const;
  std::unordered_map<std::string, int64_t> written_by_run(const std::vector<const Row*>&) const;
  void look_up_mappings(Batch&, std::vector<Item*>&);
  void find_duplicates(Batch&, const std::vector<Item*>&);
  void classify(Batch&, const std::vector<Item*>&);
  void meet(Batch&, Item&, const ledger::Mapping&, const Row&);
  void lock_and_look_again(Batch&);
  void check_parents(Batch&);
  void drop_decided();
  void predict_unique(Batch&);
  bool settle(Batch&, size_t low, size_t high);
  void write(Batch&, size_t low, size_t high);
  void resolve_single(Batch&, Work&, const bridge::Error&);
  void keep_undo(Batch&);
  int64_t hash_as_in_run(int64_t run_id, const Row&);

  /// How rows written by another run are to be hashed.
  struct RunHasher {
    bool same = false, readable = true;
    std::vector<int> attnums;
  };

  Plan& plan_;
  Writer& writer_;
  Policy policy_;
  Timings timings_;
  std::unique_ptr<SeenIds> seen_;
  std::unique_ptr<Predictions> predictions_;  // for what is not an import
  std::vector<Work> work_;
  std::vector<ledger::Undo> undo_;
  std::unordered_map<const Item*, ledger::Mapping> mappings_;  // of the batch in hand, where there is one
  std::vector<Follower> followers_;
  std::map<std::pair<const Item*, bool>, int64_t>
      duplicate_of_;  // (duplicate, by legacy id) -> the first's ordinal
  std::unordered_map<int64_t, RunHasher> hashers_;
  int subtransactions_ = 0;
  size_t stopped_at_ = 0;      // position in work_ of the first item that was not settled
  const Item* cut_ = nullptr;  // meets a row that an item before it in the batch is to change
};

}  // namespace portage::load
