// Reading the ledger backwards: which items of a run are to be taken back, what was there before them, and
// the record that they were taken back.
#pragma once

#include "ledger/items.hpp"

namespace portage::ledger {

/// An item that landed, or was found unchanged, and has not been taken back (or one that a conflict kept
/// out). Texts live in the arena given.
struct LandedItem {
  int64_t ordinal;
  int32_t revision;
  Outcome outcome;             ///< inserted, updated, or unchanged (then only its mapping may be the run's)
  std::string_view legacy_id;  ///< data() == nullptr: none
  std::string_view target_key;
  int32_t part;
  int64_t line, byte_offset, byte_length;
  Mapping mapping;  ///< as it is now
  bool concerned;   ///< the run did something: false for an unchanged item that has left no mapping
  bool has_undo = false;
  std::vector<std::string> columns;  ///< of the before-image
  std::vector<std::optional<std::string>> before;
  std::vector<int64_t> after_hashes;  ///< text_hash() of what the item made of the columns
  std::optional<int64_t> before_hash;
  int64_t batch_id = 0;  ///< which wrote it; 0 without a before-image
  Mapping replaced{};    ///< the mapping before the item; found = false: there was none
  /// The key of its row now, as far as the ledger knows; data() == nullptr: it is gone.
  std::string_view row_key;
  /// Where the row was before, if it has moved: under a key, after one batch and until another.
  struct Stay {
    std::string_view key;
    int64_t after, until;
    int64_t back;  ///< since when it is where it was next
  };
  std::vector<Stay> stays;
  /// Since when the row is where it is now.
  int64_t since() const { return stays.empty() ? batch_id : stays.back().back; }
  bool was_at(std::string_view key, int64_t when) const {
    for (const Stay& stay : stays)
      if (when <= stay.until) return stay.key == key;
    return when > since() && row_key == key;
  }
  bool was_at(std::string_view key) const {
    return row_key == key ||
           std::any_of(stays.begin(), stays.end(), [&](const Stay& stay) { return stay.key == key; });
  }
  /// It was deleted under a key; whatever came there later is another row.
  void leave(std::string_view key, int64_t when) {
    std::erase_if(stays, [=](const Stay& stay) { return stay.until >= when; });
    stays.push_back({key, since(), when, when});
    row_key = {};
  }
  /// Rows that later items of its id have inserted: under which keys, and when.
  std::vector<std::pair<std::string_view, int64_t>> inserted_since;
  bool row_replaced = false;  ///< by one of these: it had been gone before
  // for write_rollback
  bool row_taken = false;     ///< its row was there, with row_key, and has been taken back
  bool row_died = false;      ///< by deleting it, although others had written it since
  std::string_view back_key;  ///< the key that it has by that; data() == nullptr: the same
  /// A later run has deleted its row, since the item was gone from the source (ledger/missing.hpp): as this
  /// one had left it, or as another did after it.
  enum class Held : uint8_t { no, as_left, later };
  Held held = Held::no;
  std::string_view held_key;  ///< that of the mapping that was deleted with it
  bool deleted = false;       ///< it is such a row: nothing of the run's input
};

/// Some of them below an ordinal, highest first; `limit` says how many rows of the ledger are looked at in
/// one go. Empty: there are no more.
std::vector<LandedItem> landed_items(int64_t run_id, const MappingSpace&, int64_t below, int64_t limit,
                                     formats::Arena&);

/// Items by their ordinals, highest first; those that landed, or that met a row and were kept out by it
/// (skipped: the run did nothing).
std::vector<LandedItem> landed_items(int64_t run_id, const MappingSpace&,
                                     const std::vector<int64_t>& ordinals, formats::Arena&);

/// Of these items, the ordinals of those whose row another item of the run has changed next, as they had left
/// it, and has not been taken back. Who came next is told by the batches, not by the ordinals: there may be
/// several workers.
std::set<int64_t> overwritten_in_run(int64_t run_id, const std::vector<const LandedItem*>& items);

/// Of these target keys, those of rows that the run inserted or updated and that are not taken back. Reads
/// the run's items once.
std::unordered_set<std::string> landed_keys(int64_t run_id, const std::vector<std::string>& keys);

/// What items that were taken back become: the end of their story, or to be judged again at its proper place.
enum class TakenBack { rolled_back, parked };
/// Items that were taken back: new revisions, their mappings as before, and the batch row. Before-images of
/// later items that hold what one of these had written get what that one had found.
void write_rollback(int64_t run_id, const MappingSpace&, const std::vector<LandedItem*>& items,
                    const std::string& started_at, TakenBack = TakenBack::rolled_back);

/// Why a run cannot be taken back, whatever its state and its rows say; "" if nothing speaks against it.
std::string rollback_obstacle(int64_t run_id);

/// The end of a rollback; `whole`: nothing stays to be given back. What the run itself had failed with stays
/// in its row.
void finish_rollback(int64_t run_id, bool whole);
/// The rollback stopped with an error: told beside the run's own, if it had one.
void fail_rollback(int64_t run_id, const std::string& error, const std::string& error_class,
                   const std::string& error_code);

}  // namespace portage::ledger
