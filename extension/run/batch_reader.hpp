// A part in batches of typed items: what an import and a validation do alike before anything is looked up or
// written.
#pragma once

#include "ledger/runs.hpp"
#include "load/loader.hpp"
#include "run/options.hpp"
#include "run/source.hpp"

namespace portage::run {

/// How the run's items are to land: the pipeline's policy, or what the run's options say instead.
load::Policy policy_of(const ledger::Run&, const Options&, const Plan&);

/// Opens a part as the run reads it (at its beginning without `resume`) and checks its CSV header. Raises
/// PZ017 where a mapped column is missing. `places_only`: items are cut, not read. The current user is the
/// run's role.
std::unique_ptr<OpenPart> open_items(const ledger::Run&, const ledger::Part&, const Plan&, const Options&,
                                     const ledger::Range* resume, bool places_only = false);

/// The same of a part whose bytes are at hand.
std::unique_ptr<OpenPart> open_items(std::string_view bytes, const ledger::Part&, const Plan&,
                                     const Options&);

/// Where reading stands: the reader is at item `cursor_ordinal`; items before `next_ordinal` are passed over.
struct Position {
  int64_t cursor_ordinal, next_ordinal;
};

/// Reads up to `wanted` items into the batch, fewer where they are large. True at the end of the part.
bool read_batch(OpenPart&, Batch&, Position, int64_t wanted);

/// What becomes of items that wait for others of their own pipeline (ItemContext).
struct Waits {
  bool close_circles = false, park_rejects = false;
};
/// Phase A over the batch (Plan::prepare), and the run's `sample`. The current user is the run's role.
void prepare_batch(Plan&, Batch&, const ledger::Run&, const ledger::Part&, const Options&, Waits = {});

/// Waits until nobody changes the target's shape, and raises PZ009 if it is not the plan's any more.
void hold_target(Plan&, int64_t run_id, LOCKMODE);

}  // namespace portage::run
