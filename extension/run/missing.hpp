// Items that are gone from a source which was read completely: they are marked, or their rows deleted, as the
// definition's "missing" says. Page by page, each a transaction; where it stands is only in the ledger. Knows
// nothing of how a run begins and ends.
#pragma once

#include "bridge/halving.hpp"
#include "ledger/missing.hpp"
#include "load/run_hashes.hpp"
#include "run/options.hpp"
#include "run/stage.hpp"
#include "undo/target_undo.hpp"

namespace portage::run {

class Missing : public Stage {
 public:
  /// All is read and settled, and nobody else works on the run.
  Missing(const ledger::Run&, const Options&, Plan&, Oid role, load::Policy policy);

  Page page() override;
  void committed() override;
  bool shrink() override;

 private:
  enum class Step { look, settle, done };
  /// A row that may go.
  struct Case {
    ledger::MissingRow* missing;
    load::Row row;
  };

  bool list();
  bool deletes() const;
  void ignore(const std::string& reason) const;
  std::vector<Case> judge(std::vector<ledger::MissingRow>&);
  bool remove_open(std::vector<Case*>& cases);
  void remove(std::vector<Case*> cases);
  void keep_image(ledger::MissingRow&, const load::Row&) const;

  const ledger::Run& run_;
  const Options& options_;
  Plan& plan_;
  Oid role_;
  load::Policy policy_;
  std::unique_ptr<load::Writer> writer_;
  std::unique_ptr<undo::TargetUndo> target_;
  std::unique_ptr<undo::DependantFinder> dependants_;
  load::RunHashes hashes_;
  Batch batch_;
  Step step_ = Step::look, next_step_ = Step::look;
  int64_t after_ = 0, next_after_ = 0;
  int64_t waiting_ = 0, page_waiting_ = 0;  // rows of this round that others of the target refer to
  int64_t gone_ = 0, page_gone_ = 0;        // rows deleted in this round
  bool last_round_ = false;                 // what waits now waits for ever
  bridge::Halving halving_;
  int64_t size_;
};

}  // namespace portage::run
