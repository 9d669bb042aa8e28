// plan_group(): what a group would meet, before it is opened.
#pragma once

#include <string>
#include <vector>

namespace portage::group {

/// JSON object: can_proceed, order, blockers, pipelines, estimated_*, recommendations.
std::string plan_of(const std::vector<std::string>& pipelines, const std::string& scope);

}  // namespace portage::group
