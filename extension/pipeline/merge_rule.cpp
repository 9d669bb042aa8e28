// See merge_rule.hpp.
#include <nlohmann/json.hpp>

#include "pipeline/merge_rule.hpp"

namespace portage {

std::string with_merge_rule(const std::string& definition, const std::vector<std::string>& columns,
                            const std::string& strategy) {
  auto root = nlohmann::ordered_json::parse(definition);
  for (const std::string& column : columns) root["merge"][column] = strategy;
  return root.dump(2);
}

}  // namespace portage
