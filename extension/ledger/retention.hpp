// What a run keeps for later, and for how long: payload, raw input of rejects, before-images.
#pragma once

#include "bridge/spi.hpp"

namespace portage::ledger {

/// What was dropped.
struct Dropped {
  int64_t chunks = 0, chunk_bytes = 0, raw_inputs = 0, before_images = 0;
  bool first = false;  ///< it was the first time
};

/// Drops all that the run keeps for later and notes when. Its items, mappings, batches and events stay, and
/// so does what earlier mappings it had replaced: later runs come back to them.
Dropped drop_kept(int64_t run_id);
/// No retention ever touches the run.
void keep_for_ever(int64_t run_id);
/// Whether drop_kept() has been there.
bool cleaned_up(int64_t run_id);

}  // namespace portage::ledger
