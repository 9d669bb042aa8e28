// Replaying the rejects of a run: read again from their raw input, or from a corrected one, and taken through
// the run's own pipeline version as the run's role. Each outcome is a new revision; batches of kind "replay"
// read nothing and move counts.
#pragma once

#include "run/access.hpp"
#include "run/reject_reader.hpp"
#include "run/worker.hpp"

namespace portage::run {

/// still_rejected shows in portage.rejects; what "where" now leaves out is neither.
struct ReplayCounts {
  int64_t replayed = 0, landed = 0, still_rejected = 0;
};

class Replay {
 public:
  /// `run` has been checked (access.hpp). Compiles its pipeline as its role, takes pipeline and scope, and
  /// raises what stands in the way. Commits::yes: over the commits of a procedure.
  Replay(const ledger::Run& run, Commits commits);

  /// All open rejects by ordinal. With Commits::yes a transaction per batch, from where an interrupted pass
  /// stopped.
  ReplayCounts all();
  /// One reject, a skipped one too; with `corrected` (in the server's encoding) in place of its raw input.
  ReplayCounts one(int64_t ordinal, const std::optional<std::string>& corrected);

 private:
  using Obstacle = RejectReader::Obstacle;

  void begin();
  void check_state() const;
  void check_target();
  std::optional<int64_t> page(int64_t after);
  int64_t load(std::vector<ledger::Reject>& rejects, bool corrected);
  void write(ledger::BatchRecord&, Batch&, const std::vector<ledger::Reject*>& rejects, bool corrected);
  void count(const Item*);
  void tell(const std::string& more = "");
  void warn() const;

  ledger::Run run_;
  Commits commits_;
  Options options_;
  Oid role_;
  std::unique_ptr<Plan> plan_;
  load::Policy policy_;
  std::optional<SessionLock> lock_;
  std::unique_ptr<load::Writer> writer_;
  std::unique_ptr<load::Loader> loader_;
  std::unique_ptr<RejectReader> reader_;
  ReplayCounts counts_, told_;
  int64_t page_size_;
  bool changed_ = false;  ///< there are new revisions since the counters were brought up to date
  int64_t unreadable_ = 0, first_unreadable_ = 0;
};

}  // namespace portage::run
