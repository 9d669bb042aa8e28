// "initial_load": the target's indexes are taken away before the first item of a run is written, and built
// again when all is imported. Unique ones only where what they would have kept out can be found, taken back
// and judged in its turn afterwards (settle.hpp). Knows nothing of reading and writing items.
#pragma once

#include "ledger/deferred_indexes.hpp"
#include "run/options.hpp"
#include "run/preflight.hpp"
#include "run/stage.hpp"
#include "run/target_lock.hpp"
#include "undo/rollback.hpp"

namespace portage::run {

/// What stands in the way of an initial load: the table is to be empty, an ordinary one, and the role's own.
/// The current user is the run's role.
std::vector<Blocker> initial_load_blockers(const Plan&, const ledger::MappingSpace&);

/// The target's indexes, with a reason where they would stay. The current user is the run's role.
std::vector<ledger::DeferredIndex> judge_indexes(const ledger::Run&, const Options&, const Plan&,
                                                 const load::Policy&);

/// Locks the target and takes indexes away, if the run has not done that yet. One transaction.
class DeferIndexes : public Stage {
 public:
  DeferIndexes(const ledger::Run& run, const Options& options, Plan& plan, Oid role,
               const load::Policy& policy, std::optional<TargetLock>& lock)
      : run_(run), options_(options), plan_(plan), role_(role), policy_(policy), lock_(lock) {}

  Page page() override;
  void committed() override {}
  bool shrink() override { return false; }

 private:
  void require_same_key() const;

  const ledger::Run& run_;
  const Options& options_;
  Plan& plan_;
  Oid role_;
  const load::Policy& policy_;
  std::optional<TargetLock>& lock_;
};

/// Builds the indexes that are missing, each in a transaction. Items whose rows a unique index does not
/// take, since an item before them has the same, are taken back and parked.
class RestoreIndexes : public Stage {
 public:
  RestoreIndexes(const ledger::Run& run, const Plan& plan, Oid role, const load::Policy& policy)
      : run_(run), plan_(plan), role_(role), policy_(policy) {}

  Page page() override;
  void committed() override;
  bool shrink() override;

 private:
  std::vector<int64_t> collisions(const ledger::DeferredIndex&);
  std::vector<std::pair<int64_t, std::string>> equal_rows(const ledger::DeferredIndex&);
  Page take_back();

  const ledger::Run& run_;
  const Plan& plan_;
  Oid role_;
  const load::Policy& policy_;
  std::optional<undo::Rollback> rollback_;
  Batch batch_;
  std::vector<int64_t> colliding_;  // ordinals still to be taken back, the highest first
  size_t taking_ = 0;               // of them, by the page in hand
  std::set<int64_t> spared_;        // cannot be taken back: others have had a hand in it
  int64_t size_ = 1000;
};

/// Puts back what is missing in the target of a run on which nobody works; commits. PZ007 if somebody does.
void restore_indexes(const ledger::Run&);
/// The key alone, for a rollback that may begin, or go on: rows are found by it.
void restore_key_before_rollback(const ledger::Run&);
/// The same at the end of a rollback, if that is complete.
void restore_indexes_after_rollback(int64_t run_id);

}  // namespace portage::run
