// A batch of typed items into the target: duplicates, what is there already, conflicts, foreign keys, then
// phase B of fault isolation: write, and halve what fails. Knows the mappings (ledger/) and one Writer; knows
// nothing of files, transactions or the life of a run.
#pragma once

#include "bridge/halving.hpp"
#include "ledger/items.hpp"
#include "load/image.hpp"
#include "load/new_ids.hpp"
#include "load/predictions.hpp"
#include "load/run_hashes.hpp"
#include "load/seen_ids.hpp"
#include "load/sequences.hpp"
#include "load/waiting.hpp"
#include "load/writer.hpp"
#include "pipeline/hash.hpp"

namespace portage::load {

/// What is to become of the target.
enum class Purpose {
  import,
  dry_run,   ///< everything is written as by an import, and undone before load() returns
  validate,  ///< nothing is written or locked: what the look-ups say is the answer
};

/// Whether the policy lets items change rows that are not theirs: these ask for UPDATE in advance.
constexpr bool overwrites(OnConflict policy) {
  return policy == OnConflict::overwrite || policy == OnConflict::newest || policy == OnConflict::merge;
}

/// A decision about an item that met a row with other content.
struct Resolution {
  enum class Kind : uint8_t { incoming, existing, merged, value };
  Kind kind;
  int64_t existing_hash;  ///< of the mapped columns of the row that the decision is about
  const Datum* given;     ///< value: by attnum - 1
  const bool* given_nulls;
  std::vector<int> given_columns;  ///< value: attnums
  bool strict;                     ///< a row that has changed since is an error, else the item stays as it is
};

/// What a run says about how its items are to land.
struct Policy {
  Purpose purpose = Purpose::import;
  int32_t session = 0;  ///< whose predictions count: 0 for the run's own (ledger/predictions.hpp)
  OnConflict on_conflict = OnConflict::skip;
  Duplicates duplicates = Duplicates::reject;
  bool incremental = true;  ///< unchanged items (source_hash) are not looked at again
  int64_t run_id = 0;
  ledger::MappingSpace space;
  uint64_t first_xid = 0;  ///< rows written before it were not written by this run
  bool may_update = true;  ///< the role has UPDATE on the mapped columns
  std::unordered_map<int64_t, Resolution> resolutions;  ///< by ordinal
  bool replay = false;  ///< what later runs have written is newer than the items are
  bool late = false;    ///< a replay that nobody has asked for: what is newer stays, also under "overwrite"
  bool park = false;   ///< items do not all see each other: what hangs on their order waits for the run's end
  bool blind = false;  ///< rows are not looked for by `match`: there were none when the run began
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
  /// Parks items that come behind one that waits, in the order of the batch. load() does it first; to be
  /// called by who looks at prepared items before.
  void hold_back(Batch&, size_t from);
  /// What the items among these are known by that wait.
  std::vector<KnownBy> waiting(const Item* items, size_t n) const;
  /// Whoever is known by one of these waits behind an item that is not at hand.
  void wait_behind(const std::vector<KnownBy>&);
  /// Nobody waits any more.
  void forget_waiting();

  /// To be called where remember() will be called after each batch: a run that begins without mappings need
  /// not look for them.
  void expect(int64_t expected_items);
  /// To be called before the first batch of a run that is resumed.
  void recall(int64_t expected_items);

  /// The decisions that the next load() carries out, by ordinal.
  void decide_by(std::unordered_map<int64_t, Resolution> resolutions) {
    policy_.resolutions = std::move(resolutions);
  }

  /// Before-images of what load() changed; valid until the next call.
  const std::vector<ledger::Undo>& undo() const { return undo_; }
  /// The items among them that became conflicted; likewise.
  const std::vector<ledger::Conflict>& conflicts() const { return conflicts_; }
  const Timings& timings() const { return timings_; }
  /// How many events load() has left of sequences that it found behind; likewise.
  int64_t sequence_events() const { return sequence_events_; }

 private:
  /// An item to be written, with the row and mapping that it meets.
  struct Work {
    Item* item;
    ledger::Mapping mapping;
    bool is_update;
    Update update;
    bool looked_again = false;
    Issue* remarks = nullptr;    // the last issue that stood on the item before it was written
    bool replaces = false;       // an item before it, of the same input
    Meeting* meeting = nullptr;  // its values are still to be found, or were found, by Plan::merge
    bool decided = false;

    /// Forgets what a write that was rolled back said about the item.
    void forget_attempt() {
      item->outcome = Outcome::pending;
      for (const OpenReference* open = item->open; open; open = open->next)
        item->nulls[open->attnum - 1] = true;
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
  void follow_sequences(const Item* items, size_t n);
  size_t load_until(Batch&, size_t from, size_t end, std::vector<Item*>& open,
                    const std::vector<Untouched>& before);
  void restore(Batch&, size_t from, size_t first, size_t end, const std::vector<Untouched>& before);
  std::unordered_map<std::string, int64_t> had_before(const std::vector<Follower>&) const;
  std::set<const Item*> without_leader(Batch&, size_t settled);
  size_t judge_followers(Batch&, size_t settled);
  void add_duplicate(Batch&, Item&, bool by_id, int64_t first);
  void refuse_several(Batch&, Item&, const Row&);
  void park(Batch&, Item&, const std::string& why);
  bool moves_row(const Item&, const Row&) const;
  void look_for_newer(const std::vector<Row>&);
  std::unordered_map<std::string, int64_t> written_by_run(const std::vector<const Row*>&) const;
  void look_up_mappings(Batch&, std::vector<Item*>&);
  const Item* find_duplicates(Batch&, const std::vector<Item*>&);
  void classify(Batch&, const std::vector<Item*>&);
  void meet(Batch&, Item&, const ledger::Mapping&, const Row&, bool replaces);
  void add_update(Batch&, Item&, const ledger::Mapping&, const Row&, bool replaces, Meeting*);
  void adopt(Item&, const ledger::Mapping&, const Row&);
  bool lacks_update(Batch&, Item&) const;
  void keep_out(Batch&, Item&, const std::string& message);
  void meet_by_fields(Batch&, Item&, const ledger::Mapping&, const Row&, bool ours);
  std::vector<int> dispute(const Item&, const ledger::Mapping&, const Row&, const Image&, bool ours,
                           Take* fields) const;
  void ask(Batch&, Item&, const ledger::Mapping&, const Row&, const Image&, const std::vector<int>& disputed);
  std::string_view suggestion(const Item&, const Row&, const std::vector<int>& disputed) const;
  const Resolution* resolution_of(const Item&) const;
  void decide(Batch&);
  static void forget_merge(Work&);
  bool by_fields() const {
    return policy_.on_conflict == OnConflict::merge || policy_.on_conflict == OnConflict::ask;
  }
  bool keeps_images() const { return by_fields() && policy_.purpose == Purpose::import; }
  ledger::Mapping& mapping_of(const Item& item) { return mappings_[static_cast<size_t>(&item - first_)]; }
  bool mapped_apart(const std::vector<Item*>&);
  void read_images(Batch&, const std::vector<Item*>&);
  void lock_and_look_again(Batch&);
  void check_parents(Batch&);
  void drop_decided();
  void predict_unique(Batch&);
  bool settle(Batch&);
  bool judge_single(Batch&, Work&, const bridge::Error&);
  void write(Batch&, size_t low, size_t high);
  void close_references(Batch&, size_t low, size_t high);
  void resolve_single(Batch&, Work&, const bridge::Error&);
  void keep_undo(Batch&);
  void keep_images(Batch&);

  Plan& plan_;
  Writer& writer_;
  Policy policy_;
  Timings timings_;
  std::unique_ptr<Sequences> sequences_;
  int64_t sequence_events_ = 0;
  std::unique_ptr<SeenIds> seen_;
  std::unique_ptr<Waiting> waiting_;  // where items may wait for what they refer to
  std::unique_ptr<NewIds> new_ids_;
  std::unique_ptr<Predictions> predictions_;  // for what is not an import
  std::vector<Work> work_;
  std::vector<ledger::Undo> undo_;
  std::vector<ledger::Conflict> conflicts_;
  std::vector<std::pair<Meeting*, size_t>> suggestions_;  // still to be made, and of which conflict
  std::vector<ledger::Mapping> mappings_;                 // of the batch in hand, by position
  const Item* first_ = nullptr;                           // of the batch in hand
  std::optional<ItemPointerData> trail_;                  // of the mapping found last
  std::vector<Follower> followers_;
  std::map<std::pair<const Item*, bool>, int64_t>
      duplicate_of_;  // (duplicate, by legacy id) -> the first's ordinal
  RunHashes hashes_;
  std::unordered_set<std::string> newer_rows_;  // that items meet, and later runs have written
  bridge::Halving halving_;                     // of work_
  const Item* cut_ = nullptr;  // meets a row that an item before it in the batch is to change
};

}  // namespace portage::load
