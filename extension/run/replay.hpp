// Replaying the rejects of a run: read again from their raw input, or from a corrected one, and taken through
// the run's own pipeline version as the run's role. Each outcome is a new revision; batches of kind "replay"
// read nothing and move counts.
#pragma once

#include "run/reopened.hpp"

namespace portage::run {

/// still_rejected shows in portage.rejects; what "where" now leaves out is neither.
struct ReplayCounts {
  int64_t replayed = 0, landed = 0, still_rejected = 0;
};

class Replay : Reopened {
 public:
  /// Takes pipeline and scope, and raises what stands in the way (reopened.hpp).
  Replay(const ledger::Run& run, Commits commits);

  /// All open rejects by ordinal. With Commits::yes a transaction per batch, from where an interrupted pass
  /// stopped.
  ReplayCounts all();
  /// One reject, also one that was skipped or waits for a decision; with `corrected` (in the server's
  /// encoding) in place of its raw input.
  ReplayCounts one(int64_t ordinal, const std::optional<std::string>& corrected);

 private:
  using Obstacle = RejectReader::Obstacle;

  std::optional<int64_t> page(int64_t after);
  int64_t try_again(std::vector<ledger::Reject>& rejects, bool corrected);
  void revise(ledger::BatchRecord&, Batch&, const std::vector<ledger::Reject*>& rejects, bool corrected);
  void count(const Item*);
  void tell(const std::string& more = "");
  void warn() const;

  ReplayCounts counts_, told_;
  int64_t page_size_;
  bool landed_ = false;   ///< of what is counted next, something has
  bool changed_ = false;  ///< there are new revisions since the counters were brought up to date
  int64_t unreadable_ = 0, first_unreadable_ = 0;
};

}  // namespace portage::run
