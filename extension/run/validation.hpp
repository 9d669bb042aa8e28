// Reads everything that a run would read and says what would become of it, by conversion, rules and look-ups;
// the target is neither written nor locked. Serves validate() and the option validate_first.
#pragma once

#include "load/loader.hpp"
#include "run/batch_reader.hpp"

namespace portage::run {

/// Issues of one kind: rule, SQLSTATE, column and severity are the same.
struct Finding {
  std::string rule, sqlstate, column;
  bool warning;
  int64_t count = 0;
  int64_t ordinal, line;  ///< of the first
  int32_t part;
  std::string message;  ///< of the first
};

class Validation {
 public:
  /// `policy` is the run's; `session` whose predictions are kept (ledger/predictions.hpp).
  Validation(const ledger::Run&, const Options&, Plan&, Oid role, load::Policy, int32_t session);

  /// Called before each batch, in its transaction; false ends the validation.
  using Gate = std::function<bool()>;
  /// Reads all parts from their beginnings. With `commit`, a transaction per batch. Raises what would end the
  /// run.
  void work(const Gate& gate, bool commit);

  const ledger::Counts& counts() const { return counts_; }
  /// The most frequent first.
  std::vector<Finding> findings() const;

 private:
  void work_off_part(const ledger::Part&, const Gate&, bool commit);
  void note(const ledger::Part&, const Item&);
  bool out_of_items() const { return options_.limit && counts_.read >= *options_.limit; }

  const ledger::Run& run_;
  const Options& options_;
  Plan& plan_;
  Oid role_;
  int32_t session_;
  std::unique_ptr<load::Writer> writer_;
  std::unique_ptr<load::Loader> loader_;
  ledger::Counts counts_;
  std::map<std::tuple<bool, std::string, std::string, std::string>, Finding> findings_;
  bool stopped_ = false;
};

}  // namespace portage::run
