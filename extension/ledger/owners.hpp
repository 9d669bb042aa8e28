// Who works at this moment: the processes that own runs and ranges and still live, and the tables that they
// write. Whoever asks gets all of them; what of it may be shown is the caller's affair.
#pragma once

#include "bridge/spi.hpp"

namespace portage::ledger {

struct Owners {
  std::vector<int32_t> pids;
  std::vector<Oid> targets;
};

Owners living_owners();

/// Who this backend is at this moment, beside its process: when the statement began that it works off, as
/// others see it (pg_stat_activity.query_start). Null where that is not told.
bridge::Param statement_begin();

}  // namespace portage::ledger
