// Works off the parts of a run: reads, prepares and loads a batch at a time, and puts it into the ledger,
// each in one transaction. What fails for a moment is tried again, what takes too long in smaller batches.
// Knows nothing of how a run begins and ends.
#pragma once

#include "run/health.hpp"
#include "run/job.hpp"
#include "run/patience.hpp"
#include "run/scanner.hpp"
#include "run/source.hpp"
#include "run/teller.hpp"
#include "run/usage.hpp"

namespace portage::run {

/// What a batch has cost so far, beside what the loader says.
struct BatchCost {
  Usage used;  ///< up to the batch before
  double read_ms = 0, convert_ms = 0, commit_ms = 0;
};

/// Items of a batch, unless "batch_size" says another number; later ones adapt.
inline constexpr int64_t first_batch = 1000;

class Importer {
 public:
  /// Sums up what the run has done before. The current user is the run's role.
  Importer(Job&, Teller&);
  ~Importer();
  Importer(const Importer&) = delete;
  Importer& operator=(const Importer&) = delete;

  /// Reads everything; returns when all is read or the run is to stop. Raises what ends the run, of which
  /// nothing is recorded yet. Where the run has several workers, cuts the pieces for all of them, and waits
  /// for what the others have in hand.
  void work();
  /// Parts whose bytes and items are known are not read. Before the first is.
  void pass_over_unchanged();
  /// As one of several workers: works off pieces as long as there are any.
  void help();
  /// Others of the run's workers have something in hand yet: gives them some time to let go of it.
  void wait_for_others();
  /// What all workers have done so far. Commits.
  void refresh_counts();

  /// Raises PZ011 if more was rejected than the run may. A share counts `at_end`, and once it means
  /// something.
  void check_rejects(bool at_end) const;
  const ledger::Counts& counts() const { return counts_; }
  /// What a stage has moved, in the same transaction.
  void count(const ledger::Counts& moved) { counts_ += moved; }
  /// What the caller's transaction has left to be judged later is judged now.
  void check_deferred() { writer_->check_deferred(); }

 private:
  struct Loaded {
    ledger::Counts counts;
    int64_t bytes = 0;
    std::vector<std::string> first_rejects;
  };

  bool claim(const ledger::Part&, ledger::Range&);
  void work_side_by_side();
  ledger::Pieces look_at_pieces();
  bool cut(Scanner&);
  bool work_off_piece();
  void work_off(const ledger::Part&, std::optional<ledger::Range> piece);
  Loaded load_batch(const ledger::Part&, OpenPart&, Batch&, size_t& done, ledger::Range&, bool at_end);
  void adapt(double milliseconds);
  void halve();
  double time_limit() const;
  void recover(const bridge::Error&, const ledger::Range&, size_t items);
  Strain look_at_server() const;
  void spare_server();
  int64_t expected_items() const;
  bool out_of_items() const;

  Job& job_;
  Teller& teller_;
  Patience patience_;
  std::unique_ptr<load::Writer> writer_;
  std::unique_ptr<load::Loader> loader_;
  std::vector<ledger::Part> parts_;
  ledger::Counts counts_;
  int64_t batch_size_, floor_;
  int batches_ = 0;
  int64_t next_ordinal_ = 1;
  int64_t bytes_done_ = 0, bytes_total_ = 0, bytes_read_ = 0;
  BatchCost cost_;
  std::chrono::steady_clock::time_point looked_at_server_{};
  Strain strain_;
  bool sparing_ = false;
  std::vector<std::string> first_rejects_;  // in words, for a run whose ledger is rolled back with it
};

/// What is to be told of a batch that the loader has settled: `before` it took that up. `cost.used` goes on.
ledger::BatchRecord record_of(const Job&, const load::Loader&, const load::Timings& before, const Item* items,
                              size_t n, BatchCost& cost);
/// One event for these items, if there are rejects among them, and one if there are conflicts: how many, and
/// the first few. The rejects in words, too.
std::vector<std::string> tell_errors(const Job&, const ledger::Counts&, const Item* items, size_t n);
/// Whether a run with these counts has more rejects than it may.
bool too_many_rejects(const Options&, const ledger::Counts&, bool at_end);
/// PZ011 for it. `what`: "were rejected"; `first`: a few of them in words.
[[noreturn]] void refuse_rejects(int64_t run_id, const ledger::Counts&, const std::string& what,
                                 const std::vector<std::string>& first, const std::string& hint);

}  // namespace portage::run
