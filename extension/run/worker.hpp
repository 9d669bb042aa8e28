// The life of one run: taken, imported (importer.hpp), verified, ended; paused, failed or cancelled on the
// way. The same code serves CALL run(), background workers, and migrate(), which cannot commit.
#pragma once

#include "run/importer.hpp"
#include "run/initial_load.hpp"
#include "run/stage.hpp"
#include "run/validation.hpp"

namespace portage::run {

class Worker {
 public:
  /// `run` has been checked (access.hpp). Compiles the pipeline as the run's role.
  Worker(const ledger::Run& run, Commits commits);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  const Plan& plan() const { return *job_.plan; }
  Plan& plan() { return *job_.plan; }
  const ledger::MappingSpace& space() const { return job_.policy.space; }
  const Options& options() const { return job_.options; }
  Oid role() const { return job_.role; }
  bool overwrites() const { return load::overwrites(job_.policy.on_conflict); }

  /// Why the run has one worker though its options say several; "" if nothing speaks against these.
  std::string one_worker_reason() const;

  /// What would become of the target's indexes by an initial load. The current user is the run's role.
  std::vector<ledger::DeferredIndex> judged_indexes() const {
    return judge_indexes(job_.run, job_.options, *job_.plan, job_.policy);
  }

  /// Raises what stands in the way of the run (preflight.hpp).
  void check_blockers();
  /// Takes the run: seals its parts, state running, this backend its owner.
  void begin();
  /// Reads everything. Returns normally when all is read or the run is to stop. With Commits::yes an error
  /// has been recorded (state failed, or interrupted) and committed before it is raised.
  void work();
  /// Counters, the state in which the run ends or pauses, events.
  void complete();
  /// An error of the run has been recorded: what it is from then on, others may have decided already.
  bool has_recorded() const { return recorded_; }

  /// Fixes the ends of the parts of a run that has not begun, of which one only wants to look; the caller
  /// undoes it. PZ016 for a version of the data that is not accepted.
  void seal();
  /// What would become of the run, to be worked off in this transaction. The run's row stays as it is; its
  /// parts are sealed, which the caller undoes.
  Validation validation(int32_t session);

  /// Shows progress by NOTICE while it works, to whoever has called it; a background worker nobody has.
  void show_progress(bool on) { teller_.show_notices(called_ = on); }

 private:
  void seal_parts();
  void check_data_versions();
  void defer_indexes();
  void put_indexes_back(bool at_any_rate);
  std::string still_missing();
  void choose_order();
  void reopen();
  void settle();
  void look_for_missing();
  void work_off(Stage&, bool at_any_rate = false);
  void validate_first();
  void verify();
  template <class F>
  void as_owner(F&&);
  void read();
  std::string end();
  [[noreturn]] void fail(const bridge::Error&);
  void leave();
  bridge::Error record(const bridge::Error&);
  bridge::Error take_back(const bridge::Error&);

  bridge::Memory memory_;
  Job job_;
  std::unique_ptr<Importer> importer_;
  Teller teller_;
  bool called_ = true, recorded_ = false;
};

}  // namespace portage::run
