// A run of the past that is taken up again, for items that have not landed: its pipeline version compiled,
// pipeline and scope taken, its items read and judged once more. What replays (replay.hpp) and decisions
// (resolve.hpp) share; what their batches are, each knows itself.
#pragma once

#include "run/access.hpp"
#include "run/reject_reader.hpp"
#include "run/worker.hpp"

namespace portage::run {

class Reopened {
 protected:
  /// `run` has been checked (access.hpp). Commits::yes: over the commits of a procedure. `what` cannot be
  /// done in the wrong state: "rejects cannot be replayed".
  Reopened(const ledger::Run& run, Commits commits, const char* what);

  /// Takes pipeline and scope, and raises what stands in the way. `overwrites`: UPDATE is needed.
  void begin(bool overwrites);
  void begin_page();
  void check_target();
  size_t load(Batch&, const ledger::Part&, ledger::BatchRecord&, double began);
  void write(ledger::BatchRecord&, std::vector<Item>& items, const std::vector<int32_t>& revisions,
             const std::unordered_map<const Item*, size_t>& places);
  void let_complete();

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

 private:
  void check_state() const;

  const char* what_;
};

}  // namespace portage::run
