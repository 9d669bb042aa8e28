// Decisions about conflicts: each brings its item and its row together as it says, through the run's own
// pipeline version and rules, as the run's role. Batches of kind "resolve" read nothing and move counts. The
// last decision lets the run complete.
#pragma once

#include "ledger/conflicts.hpp"
#include "run/reopened.hpp"

namespace portage::run {

struct Decision {
  int64_t ordinal;
  std::string resolution;            ///< incoming, existing, merged, value; "suggested" where that is allowed
  std::optional<std::string> value;  ///< value: a JSON object of columns
};

struct ResolveCounts {
  int64_t resolved = 0, remaining = 0;
};

class Resolve : Reopened {
 public:
  Resolve(const ledger::Run& run, Commits commits);

  /// All or nothing: a decision that cannot be carried out is an error.
  ResolveCounts some(const std::vector<Decision>&);
  /// One decision for all open conflicts that the filter means; what is not valid then stays open, and is
  /// told.
  ResolveCounts all(const std::string& resolution, const ledger::ConflictFilter&);

  /// The columns that were in dispute in what some() has resolved.
  const std::set<std::string>& disputed() const { return disputed_; }

 private:
  int64_t load(std::vector<ledger::OpenConflict>&, const std::vector<Decision>&, bool strict);
  void carry_out(Batch&, std::vector<ledger::OpenConflict>&, const std::vector<Decision>&, bool strict);
  load::Resolution resolution_of(Batch&, const ledger::OpenConflict&, const Decision&, bool strict) const;
  void refuse_invalid(const Item&) const;
  void tell(const std::string& resolution);
  ResolveCounts finish();

  int64_t resolved_ = 0, told_ = 0, kept_open_ = 0, first_kept_open_ = 0;
  std::set<std::string> disputed_;
};

}  // namespace portage::run
