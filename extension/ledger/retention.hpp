// What a run keeps for later, and for how long: payload, raw input of rejects, before-images; then what is
// known of its items. Which runs may be let go is said here, who may do it by the callers.
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

/// A run of which more is to be erased than cleanup() drops.
struct PurgeableRun {
  int64_t id, pipeline_id;
  int version;
  std::string scope;
};
/// The first one after run `after` that ended before that time, of one pipeline or of any; not one that is
/// kept, active, or in another transaction's hands. It stays as it is until the transaction ends.
std::optional<PurgeableRun> next_to_purge(std::optional<int64_t> pipeline_id, TimestampTz ended_before,
                                          int64_t after);

/// What was erased.
struct Erased {
  int64_t runs = 0, chunks = 0, items = 0, before_images = 0, checks = 0, batches = 0, events = 0;
};

/// Erases what is known of a run's items, portion by portion, each for a transaction of its own. What a
/// rollback of a later run comes back to stays: the items that were taken back, and the mappings that items
/// had replaced, while an earlier run of the pipeline is still known.
class Purge {
 public:
  /// From now on nobody replays, verifies or rolls back the run.
  Purge(int64_t run_id, Erased& erased);
  /// Erases a portion; false: that was the last one.
  bool step();

 private:
  bool erase_page(const std::string& table, const std::string& goes, const std::string& cut, int64_t& count);

  int64_t run_, ordinal_ = 0;
  int32_t revision_ = -1;
  int phase_ = 0;
  bool nobody_returns_ = false;
  Erased& erased_;
  Erased ours_;
};

/// Whether a Purge has begun or been there.
bool purged(int64_t run_id);

/// A pipeline whose definition says how long runs are to be known, when it was not looked at within the hour.
struct RetainingPipeline {
  int64_t id;
  Oid owner;  ///< invalid: it is gone
  TimestampTz ended_before;
};
std::vector<RetainingPipeline> retaining_pipelines(int64_t now);
/// Claims the hour for this process; false: another one has. `now` none: it is to be looked at again at once.
bool note_retained(int64_t pipeline_id, std::optional<int64_t> now);

}  // namespace portage::ledger
