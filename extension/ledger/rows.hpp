// What rows that are written without SQL (bridge::TableWriter) have in common.
#pragma once

#include "bridge/table_writer.hpp"
#include "ledger/runs.hpp"

namespace portage::ledger {

/// The counters, which runs and batches have under the same names.
template <class Row>
void set_counts(Row& row, const Counts& c) {
  const std::pair<const char*, int64_t> counts[] = {
      {"read", c.read},           {"inserted", c.inserted}, {"updated", c.updated},
      {"unchanged", c.unchanged}, {"skipped", c.skipped},   {"conflicted", c.conflicted},
      {"parked", c.parked},       {"invalid", c.invalid},   {"failed", c.failed}};
  for (const auto& [column, count] : counts) row.set(column, Int64GetDatum(count));
}

/// The transaction as xid8; it gets an id if it has none.
inline Datum current_xid() {
  return UInt64GetDatum(U64FromFullTransactionId(bridge::guarded([] { return GetTopFullTransactionId(); })));
}

}  // namespace portage::ledger
