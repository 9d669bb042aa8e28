// The definition's own checks, as results of a verification. Each is one query, and a transaction of its own.
#include "bridge/json.hpp"
#include "pipeline/checks.hpp"
#include "verify/check.hpp"

namespace portage::verify {

std::vector<Check> check_definition(const Scene& scene) {
  static constexpr const char* severities[] = {"warning", "error", "critical"};
  std::vector<Check> checks;
  for (const DataCheck& check : scene.plan.definition().checks) {
    CheckValue value;
    {
      bridge::AsUser as(scene.role);
      value = evaluate_check(scene.plan, check, scene.run.id, scene.run.scope);
    }
    std::string details;
    auto tell = [&](const char* name, const std::string& text) {
      if (!text.empty())
        (details += details.empty() ? "" : ", ") +=
            std::string("\"") + name + "\": " + bridge::json_quoted(text);
    };
    if (!value.passed) tell("message", check.message);
    tell("sqlstate", value.sqlstate);
    tell("error", value.error);
    // What is true or false says no more than whether the check has passed.
    if (value.actual && value.actual != "true" && value.actual != "false")
      value.actual = quotable(*value.actual);
    checks.push_back({check.name, severities[static_cast<int>(check.severity)], value.expected, value.actual,
                      value.passed, "{" + details + "}"});
    scene.page_end();
  }
  return checks;
}

}  // namespace portage::verify
