// missing_rows: items that a run found gone from its source, what became of them, and what brings a deleted
// row back. Which rows may be deleted is decided by run/missing.cpp.
#pragma once

#include "ledger/undo.hpp"

namespace portage::ledger {

/// An item that is gone. Texts live in the arena given.
struct MissingRow {
  int64_t seq;
  std::string_view legacy_id, target_key;
  Mapping mapping;     ///< as it was when the item was found gone
  bool mapped;         ///< it still stands
  std::string reason;  ///< why its row stays; "": nothing is known against its deletion
  bool deleted = false;
  std::vector<std::string> columns;  ///< of the row that was deleted, all of them
  std::vector<std::optional<std::string>> before;
  int64_t before_hash = 0;
};

struct MissingCounts {
  int64_t found = 0, mapped = 0;
  int64_t to_delete = 0;  ///< of those found: their rows are the pipeline's own
};

/// Some item of the space is marked as missing.
bool any_marked(const MappingSpace&);
/// Takes the marks from what the run has met again.
void clear_marks(const MappingSpace&, int64_t run_id);
/// Why it cannot be known from the run's ledger which items are gone; "" if it can.
std::string unreadable_reason(const MappingSpace&, int64_t run_id);
/// True if the run has looked for what is gone.
bool missing_listed(int64_t run_id);
/// Lists the mapped items that the run has not met: one anti join, in the memory of work_mem. For `deletes`
/// all of them, with the reasons that the ledger knows against the deletion of their rows, else those that
/// are not marked yet.
MissingCounts list_missing(const MappingSpace&, int64_t run_id, bool deletes);
/// What is listed and not settled, after a number, in order: a page.
std::vector<MissingRow> missing_page(int64_t run_id, int64_t after, int64_t limit, formats::Arena&);
/// Settles these: mappings of deleted rows go, the others are marked; and the batch row, if a row was
/// deleted.
void settle_missing(const MappingSpace&, int64_t run_id, const std::vector<const MissingRow*>&,
                    const std::string& started_at);
/// Drops the mappings of these legacy ids; how many there were.
uint64_t forget_mappings(const MappingSpace&, const std::vector<std::string>& ids);
/// What became of them, as a JSON object: {"deleted": 3, "marked": 2, "kept": {"changed": 2}}; "" if there
/// were none.
std::string missing_settled(int64_t run_id);

/// Says of items whose mapping is not theirs whether a later run holds their deleted row.
void look_for_deletions(int64_t run_id, const MappingSpace&, const std::vector<LandedItem*>&,
                        formats::Arena&);
/// These items of an earlier run were taken back: a deleted row that one had inserted does not return any
/// more, one that it had updated returns with the mapping that is below the item's.
void hand_on_deletions(int64_t run_id, const MappingSpace&, const std::vector<LandedItem*>&,
                       const std::vector<Mapping>& below);

/// Some rows are deleted that a rollback of the run would bring back.
bool any_deleted(int64_t run_id);
/// Those below a number, highest first, as items whose ordinals are these numbers: a page. `mapping` is what
/// there is now for the legacy id, `replaced` what there was.
std::vector<LandedItem> deleted_rows(int64_t run_id, const MappingSpace&, int64_t below, int64_t limit,
                                     formats::Arena&);
/// They are in the target again: their mappings return, and the batch row.
void write_restored(int64_t run_id, const MappingSpace&, const std::vector<LandedItem*>&,
                    const std::string& started_at);
/// Takes back the marks that the run has set, some after a number; false if there are no more.
bool take_back_marks(int64_t run_id, int64_t& after, int64_t limit);

}  // namespace portage::ledger
