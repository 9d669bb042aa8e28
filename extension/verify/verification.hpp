// Proving a run: its ledger against itself, against the target, against what was submitted, and by the
// definition's own checks. One class for the function, the procedure and the end of a run; the checks are in
// files of their own, by what they look at.
#pragma once

#include "ledger/runs.hpp"
#include "verify/check.hpp"

namespace portage::verify {

/// What a verification came to.
struct Verdict {
  bool verified;       ///< no check of severity error or critical has failed
  bool critical;       ///< one of severity critical has
  std::string failed;  ///< their names: "mapping, payload"
  TimestampTz made;    ///< under which the checks are recorded
};

class Verification {
 public:
  /// `run` has been checked (run/access.hpp). Compiles its pipeline as its role. PZ006 for a run that wrote
  /// nothing (not started, dry), PZ007 for one that another session works on.
  Verification(const ledger::Run& run, Oid role, Depth depth);
  ~Verification();
  Verification(const Verification&) = delete;
  Verification& operator=(const Verification&) = delete;

  /// Makes and records all checks. With `commit_between` every page of a check is a transaction. PZ006, and
  /// nothing is recorded, when the run changes its state, gets batches or is erased meanwhile.
  Verdict work(bool commit_between);

  std::function<void(const Check&)> on_check;  ///< told of each check as soon as it is made
  /// Called where a transaction begins or ends; may throw, which ends the verification.
  std::function<void()> on_page;

 private:
  void page_end();
  void require_same(bool lock);
  void record(const std::vector<Check>& checks, const std::string& at);

  ledger::Run run_;
  Oid role_;
  Depth depth_;
  std::unique_ptr<Plan> plan_;
  std::unique_ptr<load::Writer> writer_;
  std::vector<int> hashed_;
  ledger::MappingSpace space_;
  bool commit_between_ = false;
  std::string state_;  // what must stay as it is: status and last batch
};

}  // namespace portage::verify
