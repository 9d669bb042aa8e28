// What a replay asks of the ledger: the open rejects with their raw input, what was corrected, and the run's
// counters afterwards. New outcomes are written by write_batch (items.hpp).
#pragma once

#include "ledger/items.hpp"

namespace portage::ledger {

/// An item in its newest revision, with what is left of its input.
struct Reject {
  int64_t ordinal = 0;
  int32_t revision = 0, part = 0;
  int64_t line = 0, offset = 0, length = 0;  ///< in the source
  Outcome outcome = Outcome::pending;        ///< pending: of another status
  std::string status, rule, issues;          ///< issues: jsonb as text; "" if none
  std::string raw;                           ///< corrected, or the source's as far as the ledger has it
  bool corrected = false;                    ///< raw is whole, whatever `length` says
  std::string legacy_id;                     ///< "" if none
};

/// The invalid and failed items after an ordinal, in order: at most `limit`, and not much more than `bytes`.
std::vector<Reject> open_rejects(int64_t run_id, int64_t after, int64_t limit, int64_t bytes);
/// The same of the items that are still parked.
std::vector<Reject> parked_items(int64_t run_id, int64_t after, int64_t limit, int64_t bytes);
/// The same of those that wait for a decision.
std::vector<Reject> conflicted_items(int64_t run_id, int64_t after, int64_t limit, int64_t bytes);
std::optional<Reject> find_reject(int64_t run_id, int64_t ordinal);

void insert_correction(int64_t run_id, const Reject&, int32_t revision);

struct ReplayState {
  std::string status;
  bool dry_run = false;
  std::optional<int64_t> cursor;  ///< the last item that an interrupted pass has tried
};
/// Nothing if the run is gone.
std::optional<ReplayState> replay_state(int64_t run_id);
void set_replay_cursor(int64_t run_id, const std::optional<int64_t>& ordinal);
/// The run's counters are the sums over its batches again. `landed`: so have further items, and that the run
/// was verified holds no more.
void update_counters(int64_t run_id, bool landed);

}  // namespace portage::ledger
