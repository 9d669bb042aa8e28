// The closing stage of a run that several workers have imported: what they left undecided is judged in the
// order of the items, so that the result is that of one worker. Page by page, each a transaction; where it
// stands is only in the ledger. Knows nothing of how a run begins and ends.
#pragma once

#include "ledger/replay.hpp"
#include "ledger/settle.hpp"
#include "load/batch_relation.hpp"
#include "run/batch_reader.hpp"
#include "run/reject_reader.hpp"
#include "run/stage.hpp"
#include "undo/rollback.hpp"

namespace portage::run {

/// Items with these ordinals become parked as if they had just been met, as far as one transaction reaches.
/// Those that cannot be taken back are added to `spared`.
Stage::Page take_back_to_judge(int64_t run_id, const ledger::MappingSpace&, undo::Rollback&, Batch&,
                               const std::vector<int64_t>& ordinals, std::set<int64_t>& spared);

class Settle : public Stage {
 public:
  /// All is read, and nobody else works on the run. `policy`: the run's; that it parks is overruled here.
  Settle(const ledger::Run&, const Options&, Plan&, Oid role, load::Policy policy);

  Page page() override;
  void committed() override;
  bool shrink() override;

 private:
  using Reject = ledger::Reject;

  Page take_back(const std::vector<int64_t>& ordinals) {
    return take_back_to_judge(run_.id, policy_.space, rollback_, batch_, ordinals, spared_);
  }
  void claim_by_indexes(const std::vector<Item*>&, std::vector<ledger::Claim>&);
  void read(std::vector<Reject>& parked);
  std::vector<int64_t> in_the_way();
  Page judge(std::vector<Reject>& parked);

  const ledger::Run& run_;
  const Options& options_;
  Plan& plan_;
  Oid role_;
  load::Policy policy_;
  std::unique_ptr<load::Writer> writer_;
  std::unique_ptr<load::Loader> loader_;
  std::vector<UniqueIndex> others_;  // by which items may meet that do not meet by `match`
  std::unique_ptr<load::BatchRelation> relation_;
  RejectReader reader_;
  undo::Rollback rollback_;
  Batch batch_;
  std::optional<std::vector<int64_t>> hidden_;  // not yet looked for; then those still to be taken back
  size_t taking_ = 0;                           // of them, by the page in hand
  std::set<int64_t> spared_;                    // cannot be taken back: others have had a hand in it
  int64_t after_ = 0, next_after_ = 0;          // settled up to this ordinal
  int64_t size_ = 1000;
};

}  // namespace portage::run
