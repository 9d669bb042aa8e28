// Items that wait for what they refer to: read again, translated, and loaded as soon as that has been
// migrated. Round by round, until a round finds nothing more; so a tree is loaded from its root on, in
// whatever order its items came.
#pragma once

#include "run/batch_reader.hpp"
#include "run/reject_reader.hpp"
#include "run/stage.hpp"

namespace portage::run {

class Unpark : public Stage {
 public:
  /// `give_up`: what is still missing after the last round becomes invalid.
  Unpark(const ledger::Run&, const Options&, Plan&, Oid role, load::Policy policy, bool give_up);

  Page page() override;
  void committed() override;
  bool shrink() override;

 private:
  void read(const std::vector<ledger::Reject>& parked);
  int64_t wave(ledger::Counts&);
  Page close_circles();
  void prepare_by_part(const std::vector<ledger::Reject>& parked);
  void keep_closed();
  void write(const std::vector<size_t>& positions, int32_t part, ledger::Counts&);

  const ledger::Run& run_;
  const Options& options_;
  Plan& plan_;
  Oid role_;
  load::Policy policy_;
  bool give_up_, giving_up_ = false;
  // Their turn comes when rounds find nothing more: circles, and then what is bad and waits besides.
  bool closing_ = false, closed_ = false, judging_ = false;
  std::unique_ptr<load::Writer> writer_;
  std::unique_ptr<load::Loader> loader_;
  RejectReader reader_;
  Batch batch_;
  std::vector<int32_t> revisions_;           // of the items in the batch
  std::vector<load::KnownBy> left_waiting_;  // by the page
  int32_t part_ = 0;
  std::vector<Item> told_;  // what the page has decided
  int64_t after_ = 0, next_after_ = 0;
  int64_t landed_ = 0, page_landed_ = 0;  // in this round
  bool round_over_ = false;
  int64_t size_ = 1000;
};

/// To be called where a run is resumed: lets the loader know which of its items wait.
void recall_waiting(const ledger::Run&, const Options&, Plan&, Oid role, load::Loader&);

}  // namespace portage::run
