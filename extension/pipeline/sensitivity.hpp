// What of an item is sensitive, and how far that reaches: into the legacy id and into the key of its row,
// which stand in the ledger by themselves. Knows definitions and the target's columns; who may see what is
// decided where it is shown.
#pragma once

#include "pipeline/definition.hpp"
#include "pipeline/target.hpp"

namespace portage {

struct Sensitivity {
  std::vector<std::string> paths;  ///< in their canonical spelling
  bool id = false;                 ///< the legacy id tells something of what is at these paths, or may
  bool key = false;                ///< the row's key likewise
};

/// `key`: attnums of the target's key. An expression may read whatever it likes of an item, and so may that
/// of a generated column; what triggers put into a key is not known.
Sensitivity sensitivity_of(const Definition&, const Target&, const std::vector<int>& key);

}  // namespace portage
