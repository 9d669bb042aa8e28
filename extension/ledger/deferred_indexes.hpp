// The indexes of a target as an initial load found them: which it took away, and how they are made again.
// Knows what is written down, not how an index is read or built (load/target_indexes.hpp).
#pragma once

#include "bridge/spi.hpp"

namespace portage::ledger {

struct DeferredIndex {
  std::string schema, name;
  bool is_unique = false, is_key = false;
  std::string definition;             ///< CREATE INDEX, without the tablespace
  std::string constraint;             ///< that it serves; "" if none
  std::string constraint_definition;  ///< UNIQUE or PRIMARY KEY, with what is said of deferring
  std::string tablespace;             ///< "": the database's own
  std::optional<std::string> comment, constraint_comment;
  std::vector<std::string> columns;  ///< of a unique index
  std::string stays;                 ///< why it was not taken away; "": it was
  int32_t position = 0;              ///< in the order in which they were made
};

void insert_deferred_indexes(int64_t run_id, const std::vector<DeferredIndex>&);
/// What an initial load has written down of a run's target; false: nothing yet.
bool has_deferred_indexes(int64_t run_id);
/// Whether the run has, or had, taken unique indexes of what items bring away: these may not have seen each
/// other.
bool deferred_unique_indexes(int64_t run_id);
/// Those that are not back yet: the key's, then the others in their order.
std::vector<DeferredIndex> missing_indexes(int64_t run_id);
void set_restored(int64_t run_id, int32_t position);
/// The key that is missing in the table of that name, and the run that has it away: this run, or any.
struct MissingKey {
  int64_t run_id;
  std::vector<std::string> columns;
};
std::optional<MissingKey> missing_key(const std::string& schema, const std::string& table, int64_t run_id);
/// How many indexes are missing in tables that are there, over all runs on which nobody works at this moment.
int64_t abandoned_indexes();

}  // namespace portage::ledger
