// Which pipelines make a group, and in which order; a group's opening, with a run of each that has attached
// its pipeline's source.
#pragma once

#include "group/order.hpp"
#include "pipeline/plan.hpp"

namespace portage::group {

/// The pipelines of a group to be, as the caller may run them.
struct Selection {
  std::vector<StoredPipeline> pipelines;
  std::vector<Definition> definitions;
  std::vector<Node> nodes;
  Order order;
  std::vector<size_t> sequence;  ///< positions, as they are begun
};

/// 22023 for an empty list or a name that stands there twice; PZ004 and 42501 as for a single run.
Selection select(const std::vector<std::string>& pipelines);
/// "a" -> "b" -> "a"
std::string shown(const Order::Cycle&);

/// Opens a group and its runs, all or nothing; returns its id. PZ008 where the pipelines wait for each other;
/// what would stand in the way of one of the runs is raised, too, with its pipeline.
int64_t open_group(const std::vector<std::string>& pipelines, const std::string& options);

}  // namespace portage::group
