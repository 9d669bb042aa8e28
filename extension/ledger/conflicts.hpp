// migration_conflicts: items that wait for a decision, and the decisions.
#pragma once

#include "ledger/replay.hpp"

namespace portage::ledger {

struct OpenConflict {
  Reject item;
  int64_t existing_hash;  ///< of the row's mapped columns when it was looked at
  std::vector<std::string> disputed;
  std::string suggested;
};

/// Which conflicts are meant; what is empty says nothing.
struct ConflictFilter {
  std::vector<std::string> columns;  ///< no other column is in dispute
  std::vector<std::string> legacy_ids;
  std::string suggested;
};

/// Open conflicts of a run after an ordinal, in order: a page, bounded by items and by bytes of raw input.
std::vector<OpenConflict> open_conflicts(int64_t run_id, int64_t after, int64_t limit, int64_t bytes);
/// Those of these that the filter means.
std::vector<OpenConflict> filtered(std::vector<OpenConflict>, const ConflictFilter&);
/// The one of an item; nothing if it does not wait for a decision.
std::optional<OpenConflict> find_conflict(int64_t run_id, int64_t ordinal);
/// The ordinals of open conflicts with a legacy id.
std::vector<int64_t> conflicts_of_id(int64_t run_id, const std::string& legacy_id);

/// A decision was carried out. `value`: JSON, or nothing.
void note_resolution(int64_t run_id, const OpenConflict&, const std::string& resolution,
                     const std::optional<std::string>& value);

}  // namespace portage::ledger
