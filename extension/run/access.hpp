// Who may do what with a run: its role and that role's members all, administrators what does not need the
// role's rights, others nothing. The checks that every entry point makes before it touches anything.
#pragma once

#include "ledger/pipelines.hpp"
#include "ledger/runs.hpp"
#include "ledger/scope.hpp"

namespace portage::run {

/// The run, if the current user may change it: its role, members of it, or an administrator. PZ005 or 42501.
ledger::Run run_to_change(int64_t id);
/// The run, if the current user may see it. PZ005.
ledger::Run run_to_read(int64_t id);
/// Whether the current user may see raw input and messages of a run that it sees: the definition names no
/// sensitive paths, or it owns the pipeline.
bool sees_raw(int64_t id);
/// The role of the run, as which its sources and target are accessed. 42501 if the current user cannot SET
/// ROLE to it.
Oid role_of(const ledger::Run&);
/// PZ006 for a run of whose items nothing is known any more.
void refuse_purged(int64_t id);
/// PZ006 while the target of a run has no index by which rows are found: an initial load has it away.
void require_key(const Plan&, int64_t run_id);
/// The caller's latest run. PZ005 if there is none.
int64_t latest_run();
using ledger::require_scope;

/// An advisory lock on (pipeline, scope), held until the transaction ends and never waited for: shared by the
/// batches of the active run, exclusive for becoming it. False if somebody else has it.
/// PZ007 for a lock that another session holds: names its run and process.
[[noreturn]] void refuse_second(int64_t pipeline_id, const std::optional<std::string>& scope);
bool try_lock(int64_t pipeline_id, const std::string& scope, bool exclusive);
/// Its key, of 64 bits: a collision of two scopes only makes one of them wait for its turn.
int64_t lock_key(int64_t pipeline_id, const std::string& scope);

/// The same for a target table: exclusive for a pipeline that wants it for itself alone.
bool try_lock_target(Oid target, bool exclusive);

/// The lock on pipeline and scope in exclusive mode, over the commits of a procedure: held until the object,
/// or the session, ends.
class SessionLock {
 public:
  SessionLock(int64_t pipeline_id, const std::string& scope);
  ~SessionLock();
  SessionLock(const SessionLock&) = delete;
  SessionLock& operator=(const SessionLock&) = delete;
  bool held() const { return held_; }

 private:
  Datum key_;
  bool held_;
};

}  // namespace portage::run
