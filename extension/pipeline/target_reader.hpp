// Copying a table's shape out of the relation cache; the raw material of target.hpp, without any judgement.
#pragma once

#include "pipeline/target.hpp"

namespace portage {

/// True if there is such a relation; it cannot be dropped before the end of the transaction then.
bool exists(Oid table);

/// Everything but the choice of a key. Throws 42P01 when there is no such relation.
Target read_target(Oid table);

/// What fires, and what rewrites what is written, on an open relation. Never raise.
TargetTriggers triggers_of(Relation);
bool has_write_rules(Relation);

/// A quick comparison with the relation cache. False may be a false alarm; true is certain.
bool still_same(const Target& target);

}  // namespace portage
