// Cuts the parts of a run into pieces for several workers: one pass over each part by the parser's own
// splitter, which says where items begin without looking into them. Knows nothing of who works on the pieces.
#pragma once

#include "run/batch_reader.hpp"

namespace portage::run {

class Scanner {
 public:
  Scanner(const ledger::Run&, const Options&, const Plan&, Oid role);

  /// Cuts the next piece, in this transaction: about what a worker can do in a second. False if all parts are
  /// cut to their ends. After a rollback it goes on from where the ledger stands.
  bool cut();
  /// The transaction of the last cut has been rolled back.
  void forget();

 private:
  void open(const ledger::Part&);

  const ledger::Run& run_;
  const Options& options_;
  const Plan& plan_;
  Oid role_;
  std::vector<ledger::Part> parts_;
  size_t at_ = 0;             // the part in hand
  int64_t next_ordinal_ = 1;  // at which it begins
  ledger::Range tail_;        // of it, while it is open
  std::unique_ptr<OpenPart> open_;
};

/// Passes over a part that is larger than the run's parts may be, and says so; PZ015 where that is not
/// wanted.
bool pass_over(const ledger::Run&, const Options&, const ledger::Part&);

}  // namespace portage::run
