// Working on a run as its owner: before each transaction it is asked whether the run is still ours to go on
// with and what its operator wants; between two of them one may wait, and say why. Knows nothing of the work
// itself.
#pragma once

#include "ledger/runs.hpp"

namespace portage::run {

/// Who commits: a procedure commits each batch; a function leaves that to its caller.
enum class Commits : bool { no, yes };

/// The lock of a pipeline and scope (access.hpp). Who finds a run active lets go of it at once: a moment's
/// patience, then it is somebody else's for long.
bool lock_patiently(int64_t pipeline_id, const std::string& scope, bool exclusive);

class Ownership {
 public:
  /// `run` outlives it; its status is what the owner has made it. `scope`: of the advisory lock (access.hpp).
  /// `helps`: as one of several workers of a run whose owner is another session; it stops with that.
  Ownership(const ledger::Run& run, const std::string& scope, Commits commits, bool helps = false)
      : run_(run), scope_(scope), commits_(commits), helps_(helps) {}

  /// To be asked at the begin of each transaction: the lock and the run are still ours, which is PZ013
  /// otherwise; false if it is to stop. 55P03 while another session has taken pipeline and scope.
  bool take_turn();
  /// To be asked where the run's end is about to be written: nobody changes the run until the transaction
  /// ends. PZ013 and false likewise.
  bool last_look();
  /// To be called before the commit of a transaction that may have taken long: the run stays ours after it.
  void end_turn();
  /// Waits between two transactions, for so many milliseconds at most; false if the run is to stop.
  bool rest(double milliseconds);
  ledger::Request request() const { return request_; }
  bool stopped() const { return request_ != ledger::Request::none; }

  /// Why the run holds, shown until release(); the first reason is an event. Commits.
  void hold(const std::string& reason);
  void release();

 private:
  bool look();

  const ledger::Run& run_;
  std::string scope_;
  Commits commits_;
  bool helps_;
  ledger::Request request_ = ledger::Request::none;
  std::string held_;
  std::chrono::steady_clock::time_point turn_;
};

}  // namespace portage::run
