// A run that begins and ends in one transaction, with one payload in one batch (run/snapshot.hpp): its rows
// are written once, with what became of it. They are those that a run which is opened, taken and finished
// leaves.
#pragma once

#include "ledger/parts.hpp"
#include "ledger/runs.hpp"

namespace portage::ledger {

struct WholeRun {
  NewRun opened;  ///< with its id
  TimestampTz created_at, started_at, completed_at;
  std::string status;  ///< in which it ends
  Counts counts;
  HashedColumns hashed;
  std::string writer, writer_reason;
  Part part;
  std::optional<std::string> sha256;  ///< of the part
  Range range;                        ///< as it was left
  std::string event, details;         ///< of its end
  int64_t events_before = 0;          ///< that it has
  std::string_view kept_payload;      ///< data() == nullptr: it is not kept
  std::string payload_sha256;
};

/// Writes everything but the batch and its items (items.hpp).
void write_whole_run(const WholeRun&);

/// What view progress says of a run that is completed, as run_info (sql/40-views.sql), whose columns are
/// `shape`.
Datum info_of_completed(const WholeRun&, TupleDesc shape);

}  // namespace portage::ledger
