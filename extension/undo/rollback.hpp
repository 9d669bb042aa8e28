// Taking a run back: inserted rows go, overwritten values return, mappings are as before; what somebody
// changed since is not touched unless asked. In batches of its own, each a transaction, resumable.
#pragma once

#include "bridge/halving.hpp"
#include "ledger/runs.hpp"
#include "ledger/undo.hpp"
#include "load/run_hashes.hpp"
#include "run/patience.hpp"
#include "undo/target_undo.hpp"

namespace portage::undo {

/// What to do with rows that are not as the run left them.
enum class Drifted { refuse, keep, force };
Drifted parse_drifted(const std::string&);  ///< 22023 for other words

/// What stands in the way of a rollback, or would be spared by it.
struct Findings {
  int64_t items = 0, gone = 0, changed = 0, later_run = 0, mapping_missing = 0, taken = 0, unknown = 0;
  std::vector<std::string> examples;     ///< a few drifted rows, in words
  std::vector<Dependants> dependants;    ///< by constraint, over all levels
  std::set<std::string> missing_grants;  ///< to delete them
  std::set<std::string> strangers_code;  ///< see Tree
  int64_t drifted() const { return changed + later_run + mapping_missing + taken + unknown; }
};

class Page;

class Rollback {
 public:
  /// Compiles the run's pipeline as its role.
  Rollback(const ledger::Run& run, Oid role, Drifted drifted, bool cascade);
  ~Rollback();
  /// As it was begun: to go on with a run that is rolling back.
  static Rollback resumed(const ledger::Run& run, Oid role);

  /// Looks at everything, changes nothing.
  Findings examine();
  /// GRANT statements that the run's role lacks for it; those on dependants are in Findings.
  std::vector<std::string> missing_grants();
  /// Rows that others refer to are spared like drifted ones, instead of refusing everything.
  void spare_dependants() { spare_dependants_ = true; }
  /// State rolling_back, with this backend as owner; with Drifted::refuse only if examine() finds nothing.
  void begin();
  /// Takes back batch by batch and commits each. Ends in rolled_back; in the state before where something
  /// could not be given back, and stays to be; or in paused if an operator wants that.
  void work();
  /// Takes back these items alone, in the caller's transaction and as far as its subtransactions reach: those
  /// that are. `spared`: the ordinals of those that stay, since somebody has changed their rows, or refers to
  /// them. The run's row and the ledger stay as they are.
  std::vector<ledger::LandedItem*> take_back_some(Batch&, std::vector<ledger::LandedItem>& items,
                                                  std::set<int64_t>& spared);

 private:
  struct Case;
  using Pending = std::vector<std::pair<Dependants, std::string>>;  ///< rows of the target: constraint, key

  void forgive_own(std::vector<Case>&);
  std::vector<Case> judge(Batch&, std::vector<ledger::LandedItem>&, bool lock);
  std::vector<Case> judge_deleted(Batch&, std::vector<ledger::LandedItem>&, bool lock);
  void look_for_takers(Batch&, std::vector<Case>&);
  void note(Findings&, const std::vector<Case>&) const;
  void look_at_dependants(Batch&, const std::vector<const load::Row*>& rows, Findings&, Pending&);
  void settle_pending(Batch&, Findings&, Pending&, std::set<std::string>& met);
  void take_back(Batch&, std::vector<Case*>& cases);
  void remove(Batch&, std::vector<Case*>& cases);
  void put_back(Batch&, std::vector<Case*>& cases);
  void take_back_marks();
  bool work_off_page(Page&, bool deleted, int64_t& below, bool& progress);
  bool take_back_open(Batch&, std::vector<Case*>& cases);
  void take_all_back();
  void pause();
  [[noreturn]] void fail(const bridge::Error&);
  bool is_whole() const;
  std::string report() const;

  ledger::Run run_;
  Oid role_;
  Drifted drifted_;
  bool cascade_, spare_dependants_ = false;
  std::unique_ptr<Plan> plan_;
  ledger::MappingSpace space_;
  std::unique_ptr<run::Ownership> ownership_;
  std::unique_ptr<run::Patience> patience_;
  std::unique_ptr<load::Writer> writer_;
  std::unique_ptr<TargetUndo> target_;
  std::unique_ptr<load::RunHashes> hashes_;
  std::unique_ptr<DependantFinder> dependants_;
  std::set<std::string> unique_columns_;  ///< of the target: by which its indexes tell rows apart
  bool strangers_too_ = false;  ///< rows of the target that are no items of the run go as dependants, too
  int64_t taken_ = 0, gone_ = 0, restored_ = 0, spared_ = 0, with_differences_ = 0, dependants_deleted_ = 0,
          dependants_changed_ = 0;
  std::map<std::string, int64_t> spared_for_;
  bridge::Halving halving_;
};

}  // namespace portage::undo
