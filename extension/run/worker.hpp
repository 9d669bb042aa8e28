// Works off one run: opens its parts in turn and takes them through read, prepare, load and ledger, a batch
// at a time. The same code serves CALL run(), which commits after each batch, and migrate(), which cannot.
#pragma once

#include "ledger/items.hpp"
#include "load/loader.hpp"
#include "run/batch_reader.hpp"
#include "run/teller.hpp"
#include "run/usage.hpp"
#include "run/validation.hpp"

namespace portage::run {

/// Who commits: a procedure commits each batch; a function leaves that to its caller.
enum class Commits : bool { no, yes };

class Worker {
 public:
  /// `run` has been checked (access.hpp). Compiles the pipeline as the run's role.
  Worker(const ledger::Run& run, Commits commits);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  const Plan& plan() const { return *plan_; }
  const Options& options() const { return options_; }
  Oid role() const { return role_; }
  bool overwrites() const { return policy_.on_conflict == OnConflict::overwrite; }

  /// Raises what stands in the way of the run (preflight.hpp).
  void check_blockers();
  /// Takes the run: seals its parts, state running, this backend its owner.
  void begin();
  /// Reads everything. Returns normally when all is read or the run was cancelled. With Commits::yes an error
  /// has been recorded (state failed, or interrupted) and committed before it is raised.
  void work();
  /// Counters, state completed, events.
  void complete();

  /// What would become of the run, to be worked off in this transaction. The run's row stays as it is; its
  /// parts are sealed, which the caller undoes.
  Validation validation(int32_t session);
  /// True if a run with these counts has more rejects than it may.
  bool too_many(const ledger::Counts&, bool at_end) const;

  /// Shows progress by NOTICE while it works.
  void show_progress(bool on) { teller_.show_notices(on); }

 private:
  void seal_parts();
  void check_data_versions();
  bool skip_part(const ledger::Part&);
  void work_off_part(const ledger::Part&);
  bool take_turn();
  void validate_first();
  void load_batch(const ledger::Part&, OpenPart&, Batch&, size_t& done, ledger::Range&, bool at_end);
  void adapt(double milliseconds);
  [[noreturn]] void refuse_rejects(const ledger::Counts&, const std::string& what,
                                   const std::vector<std::string>& first, const std::string& hint) const;
  void check_rejects(bool at_end);
  bool out_of_items() const;
  std::optional<std::string> excluded_scope() const;
  int64_t expected_items() const;
  void tell_errors(const ledger::Counts&, const Item* items, size_t n);
  [[noreturn]] void fail(const bridge::Error&);
  void take_back(const bridge::Error&);

  ledger::Run run_;
  Commits commits_;
  Options options_;
  StoredPipeline pipeline_;
  Oid role_;
  bridge::Memory memory_;
  std::unique_ptr<Plan> plan_;
  std::unique_ptr<load::Writer> writer_;
  std::unique_ptr<load::Loader> loader_;
  load::Policy policy_;
  std::vector<ledger::Part> parts_;
  ledger::Counts counts_;
  int64_t batch_size_ = 1000;
  int batches_ = 0;
  int64_t next_ordinal_ = 1;
  int64_t bytes_done_ = 0, bytes_total_ = 0, bytes_read_ = 0;
  bool cancelled_ = false;
  double read_ms_ = 0, convert_ms_ = 0, commit_ms_ = 0;
  Usage used_;  // up to the last batch
  Teller teller_;
  std::vector<std::string> first_rejects_;  // in words, for a run whose ledger is rolled back with it
};

}  // namespace portage::run
