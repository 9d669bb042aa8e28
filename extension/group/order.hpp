// In which order pipelines are migrated: what one refers to, or comes after, goes first. Pure C++: it knows
// names and who names whom.
#pragma once

#include <string>
#include <vector>

namespace portage::group {

/// A pipeline of a group, and the pipelines that its definition names; a name means one pipeline in all of
/// them.
struct Node {
  std::string pipeline;
  std::vector<std::string> references, after;
};

struct Order {
  /// By position of the node: from 0; those of a level do not depend on each other.
  std::vector<int> level;
  /// By position: the positions of the nodes that must have been completed first. Mutual references make
  /// none: what is not there yet is parked, and settled later.
  std::vector<std::vector<size_t>> waits_for;
  struct Cycle {
    std::vector<std::string> names;  ///< the first one again at the end
    bool hard = false;               ///< one of its steps is an "after": there is no order
  };
  std::vector<Cycle> cycles;
  bool possible() const;
};

/// The order of distinct pipelines. Names outside the group order nothing.
Order order_of(const std::vector<Node>&);

}  // namespace portage::group
