// Before a run: what stands in its way, with the GRANT or DDL that removes it. The same answer serves plan()
// and the refusal to start.
#pragma once

#include "pipeline/plan.hpp"
#include "ledger/runs.hpp"

namespace portage::run {

struct Blocker {
  int sqlstate;
  std::string message, detail;
  std::string remedy;  ///< SQL, or a sentence
};

/// What the current role lacks on the target, as GRANT statements. UPDATE is asked for if `overwrites`; what
/// the deletion of missing items takes, if `deletes` and the definition wants it.
std::vector<Blocker> missing_privileges(const Plan&, bool overwrites, bool deletes = false);
/// True if the current role may update the mapped columns.
bool may_update(const Plan&);
/// The names of the columns that the current role may read and that row_hash covers, in attnum order.
std::vector<std::string> readable_columns(const Target&);
/// A standby, or a read-only transaction.
std::optional<Blocker> read_only_blocker();
/// That, and an active run.
std::vector<Blocker> server_blockers(const Plan&, int64_t pipeline_id, const std::string& scope,
                                     int64_t run_id);
/// One error for them all: the first one's SQLSTATE if there is only one kind, else PZ008.
void refuse(const std::vector<Blocker>&);

}  // namespace portage::run
