// Parts of a run whose bytes an earlier run of the pipeline has read: what the ledger knows of them, and of
// what has been done since. Knows nothing of where bytes come from.
#pragma once

#include "ledger/items.hpp"
#include "ledger/parts.hpp"
#include "ledger/runs.hpp"

namespace portage::ledger {

/// What a part read before must have in common with one of the run, beside its bytes.
struct Likeness {
  bool place;                           ///< name and path
  int64_t least_bytes, greatest_bytes;  ///< of parts that are looked at
};

/// The numbers of the run's parts that have the length of a part which an earlier run has read. Nothing, once
/// the run has begun to read.
std::vector<int32_t> parts_of_known_length(const Run&, const Likeness&);

/// A part of the run, whose digest is recorded, and the one with the same bytes.
struct SamePart {
  int32_t part;
  int64_t read_by;
  int32_t read_part;
};
/// Those whose items are still all as that run has left them: each has landed or was found unchanged, and
/// since then nothing of the pipeline (in this space), nor of those it refers to, was written that had been
/// mapped already, or taken back.
std::vector<SamePart> unchanged_parts(const Run&, const MappingSpace&, const std::vector<int64_t>& references,
                                      const Likeness&);

}  // namespace portage::ledger
