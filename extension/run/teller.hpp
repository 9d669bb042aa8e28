// Tells how a run gets on, after its commits: NOTICE for the caller, NOTIFY for whoever listens on channel
// "portage", application_name for pg_stat_activity. Decides nothing.
#pragma once

#include "ledger/runs.hpp"

namespace portage::run {

class Teller {
 public:
  /// `silent`: a function's run, which has no commits of its own, tells nothing.
  Teller(const ledger::Run&, bool silent);
  ~Teller();
  Teller(const Teller&) = delete;
  Teller& operator=(const Teller&) = delete;

  void show_notices(bool on) { notices_ = on; }
  /// What rates and shares are counted from: items known so far, bytes of all parts (0: unknown).
  void start(int64_t items, int64_t bytes_total);
  /// How far the run is; at most every portage.progress_interval. Commits.
  void progress(const ledger::Counts&, int64_t bytes_read);
  /// The run's state has changed. Commits.
  void state(const char* status, const ledger::Counts&);

 private:
  void notify(const char* status, const ledger::Counts&);

  const ledger::Run& run_;
  bool silent_, notices_ = false;
  std::chrono::steady_clock::time_point started_, last_told_;
  int64_t told_items_ = 0, bytes_total_ = 0;
};

/// A number with commas between its thousands.
std::string grouped(int64_t number);

}  // namespace portage::run
