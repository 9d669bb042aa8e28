// A definition with more strategies in "merge": how a decision about a conflict becomes a rule for those to
// come. Pure C++.
#pragma once

#include <string>
#include <vector>

namespace portage {

/// The definition's JSON with "merge": {column: strategy} for these columns; everything else stays.
std::string with_merge_rule(const std::string& definition, const std::vector<std::string>& columns,
                            const std::string& strategy);

}  // namespace portage
