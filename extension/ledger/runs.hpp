// migration_runs: the row of a run, from its opening to its end. Who may change it is decided by the callers
// (run/access.hpp); which change of state exists by run/states.hpp.
#pragma once

#include "bridge/discretion.hpp"
#include "bridge/spi.hpp"
#include "ledger/roles.hpp"

namespace portage::ledger {

/// What an operator wants of the run's owner.
enum class Request { none, pause, cancel };

/// A run as it stands in the ledger. Whoever has that of a pipeline with sensitive paths in hand is discreet.
struct Run {
  int64_t id = 0;
  int64_t pipeline_id = 0;
  std::string pipeline;
  int version = 0;
  std::string scope, status, options;
  Role role;          ///< as which sources and target are accessed
  Role session_role;  ///< as whom a background worker connects
  std::string timezone;
  std::vector<std::string> hash_columns;
  std::optional<int32_t> owner_pid;
  bool owner_alive = false;  ///< the statement that took it still works on it (sql/38-owners.sql)
  bool owner_is_me = false;
  bool sealed = false;      ///< it has been started: no more parts
  std::string paused_from;  ///< the state to which resume() returns
  bool background = false;  ///< a background worker is to work on it
  int32_t workers = 0;      ///< how many may import side by side; 0: not decided yet
  bridge::Discretion discretion;
};

/// What happened to the items of a run or batch, by outcome (Outcome's order, pending excluded), plus the
/// sum.
struct Counts {
  int64_t read = 0, inserted = 0, updated = 0, unchanged = 0, skipped = 0, conflicted = 0, parked = 0,
          invalid = 0, failed = 0;
  void operator+=(const Counts& other);
  int64_t rejects() const { return invalid + failed; }
};

/// What row hashes cover.
struct HashedColumns {
  std::vector<std::string> names;
  std::string shape;  ///< what they were (pipeline/row_shape.hpp); "": not known
};

struct NewRun {
  int64_t pipeline_id;
  std::string pipeline;
  int version;
  std::string scope, options, timezone;
  std::optional<std::string> name, metadata;
  Oid role = InvalidOid;          ///< as whom sources and target are accessed
  Oid session_role = InvalidOid;  ///< who stands behind the role (bridge::session_of_current_user)
  int64_t id = 0;                 ///< 0: the next one
};

int64_t next_run_id();
int64_t insert_run(const NewRun&);  ///< status pending
std::optional<Run> find_run(int64_t id);
std::optional<int64_t> latest_run_of_role();  ///< the newest run whose role is the current user
/// Another run of the pipeline and scope that is active (queued, running, paused, verifying, rolling_back).
/// Without a scope: of any.
std::optional<Run> find_active_run(int64_t pipeline_id, const std::optional<std::string>& scope,
                                   int64_t except);
/// Another active run of whatever pipeline on this table, where one of the two wants it for itself alone.
std::optional<Run> find_rival(const std::string& schema, const std::string& table, bool exclusive,
                              int64_t except);
/// True if the transaction has one snapshot for all its statements (REPEATABLE READ, SERIALIZABLE) and a run
/// of the pipeline and scope has begun or ended since: its mappings and rows cannot be seen.
bool runs_changed_since_snapshot(int64_t pipeline_id, const std::optional<std::string>& scope);
/// Changes the state; returns false if the run was not in state `from` (somebody was faster).
bool set_status(int64_t id, const std::string& from, const std::string& to);
/// Status running with this backend's statement as owner; remembers the first xid, when it started, and how
/// it writes. `lock`: the key of the lock that its transactions hold. False if the run was not in state
/// `from`.
bool take_run(int64_t id, const std::string& from, const HashedColumns& hashed, std::string_view writer,
              const std::string& writer_reason, int64_t lock);
/// This backend's statement is its owner, in this state; false likewise. What an operator wants of the owner
/// stands.
bool own_run(int64_t id, const std::string& from, const std::string& to, int64_t lock);
void renew_lease(int64_t id);
/// Nobody else changes the run's state until the end of the transaction.
void lock_run(int64_t id);
/// If this backend is the run's owner: it has none any more, and no background worker is to take its place.
void release_run(int64_t id);
void make_request(int64_t id, Request);
/// What is wanted of this backend as the run's owner; nothing if it is not that any more, or if the run has
/// left the state. Renews the lease when a third of it is gone.
std::optional<Request> owners_turn(int64_t id, const char* status);
/// The run is being imported by its owner, who wants no stop: others may help.
bool takes_helpers(int64_t id);
void set_workers(int64_t id, int32_t workers);
int64_t sum_bytes(int64_t id);  ///< of its batches
/// State paused, without an owner; remembers the state before. False if the run had left that one.
bool pause_run(int64_t id, const std::string& from);
/// Why the run holds; "": it does not.
void set_hold(int64_t id, const std::string& reason);
/// Writes the counters (sums over the batches) and the end of the run. A run that is rolled back keeps the
/// error that it had.
void finish_run(int64_t id, const std::string& status, const std::string& error,
                const std::string& error_class, const std::string& error_code);
void set_verified(int64_t id, bool verified);
void set_step(int64_t id, const std::string& step);
Counts sum_batches(int64_t id);
uint64_t first_xid_of(int64_t id);
std::vector<std::string> hash_columns_of(int64_t id);  ///< what row_hash covers in this run
HashedColumns hashed_columns_of(int64_t id);

/// A run is to be worked on by a background worker: until it ends, pauses or is interrupted by hand.
void want_worker(int64_t id);
/// A run that nobody works on, though a background worker is to.
struct WaitingRun {
  int64_t id;
  Role session_role, role;
};
/// The runs that wait for a worker: queued, or their worker, session or server went away; but for those that
/// one was asked for less than so many milliseconds ago.
std::vector<WaitingRun> waiting_runs(int64_t milliseconds);
/// Marks such a run as asked for; false if somebody else was faster.
bool take_waiting_run(int64_t id, int64_t milliseconds);
/// How a run is being rolled back, or was last: the arguments of rollback() as a JSON object; "" if never.
std::string rollback_options(int64_t id);
/// `from`: the state in which it begins.
void set_rollback_options(int64_t id, const std::string& drifted, bool cascade, const std::string& from);
/// The state to which a rollback returns that could not give back everything.
std::string state_before_rollback(int64_t id);

std::string session_user_name();  ///< whom audit records name
/// Appends an event; details is a JSON object.
void add_event(int64_t run_id, const std::string& type, const std::string& details = "{}");
/// Appends an event of a pipeline rather than of a run: its run is 0, and its details name pipeline and
/// scope.
void add_pipeline_event(const std::string& type, const std::string& details);
/// The number of the run's latest event; 0 if there is none.
int64_t last_event(int64_t run_id);

}  // namespace portage::ledger
