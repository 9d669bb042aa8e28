// The schedules of pipelines: reading, changing and locking their rows. Times are seconds since 1970 UTC. Who
// may do what is decided by the callers (schedule/api.cpp), and so is what is due.
#pragma once

#include "ledger/roles.hpp"

namespace portage::ledger {

struct Schedule {
  int64_t id = 0, pipeline_id = 0;
  std::string pipeline, scope, cron, timezone, options;
  Role role, session_role;
  std::optional<int64_t> next_due, next_run;
  std::optional<int64_t> last_due, begun_at, cancel_at, last_run;
  bool settled = true;  ///< nothing is to be done about the last due time
  int32_t attempts = 0;
  std::optional<int64_t> retry_at;
  int64_t skipped_running = 0, skipped_missed = 0, skipped_late = 0;
  std::optional<std::string> last_error;
};

/// The schedule of a pipeline and scope, whoever asks; it stays as it is until the end of the transaction.
std::optional<Schedule> find_schedule(int64_t pipeline_id, const std::string& scope);
/// Puts a schedule in the place of the one with its id, or makes a new one (id 0). Its role and session role
/// are the current ones. Returns its id. 40001 if pipeline and scope have got another one meanwhile.
int64_t put_schedule(const Schedule&);
void delete_schedule(int64_t id);

/// Those about which something may have to be done: a due time has come, a retry, a deadline, or the run has
/// ended. With their roles.
struct ScheduleToSee {
  int64_t id;
  Role role, session_role;
};
std::vector<ScheduleToSee> schedules_to_see(int64_t now);
/// The schedule, which nobody else changes until the end of the transaction; nothing: somebody else has it,
/// or it is gone.
std::optional<Schedule> take_schedule(int64_t id);
/// Writes what has become of due times.
void note_schedule(const Schedule&);

}  // namespace portage::ledger
