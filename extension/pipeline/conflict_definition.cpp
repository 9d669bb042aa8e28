// See definition.hpp: the keys that say what happens when items meet rows, or each other: "on_conflict",
// "merge", "newest_by" and "duplicates".
#include "pipeline/definition_nodes.hpp"

namespace portage {

using namespace nodes;

const std::vector<std::string> on_conflict_names{"skip", "overwrite", "newest", "merge", "ask", "fail"};

std::optional<OnConflict> on_conflict_named(std::string_view name) {
  auto found = std::find(on_conflict_names.begin(), on_conflict_names.end(), name);
  if (found == on_conflict_names.end()) return std::nullopt;
  return static_cast<OnConflict>(found - on_conflict_names.begin());
}

namespace {

OnConflict on_conflict_of(const JsonNode& node) {
  const std::string& text = text_of(node, "\"on_conflict\"");
  if (auto policy = on_conflict_named(text)) return *policy;
  std::string hint = nearest_hint(text, on_conflict_names);
  fault(node, "unknown on_conflict \"" + text + "\"",
        hint.empty() ? "Known are " + listed(on_conflict_names) + "." : hint);
}

Duplicates duplicates_of(const JsonNode& node) {
  static const Names known{"reject", "first", "last"};
  const std::string& text = text_of(node, "\"duplicates\"");
  auto found = std::find(known.begin(), known.end(), text);
  if (found == known.end())
    fault(node, "unknown duplicates \"" + text + "\"", "Known are " + listed(known) + ".");
  return static_cast<Duplicates>(found - known.begin());
}

MergeRule merge_rule_of(const std::string& column, const JsonNode& node) {
  // in the order of Strategy, without the default and "sql"
  static const Names known{"existing", "incoming", "greatest", "least", "sum", "union", "concat", "newest"};
  MergeRule rule;
  rule.column = column;
  rule.place = node.path;
  if (node.is_object()) {
    known_keys(node, {"sql"});
    const JsonNode* sql = node.find("sql");
    if (!sql) fault(node, "a merge strategy needs \"sql\" when it is an object");
    rule.strategy = Strategy::sql;
    rule.sql = nonempty_text_of(*sql, "an expression");
    rule.place = sql->path;
    return rule;
  }
  const std::string& text = text_of(node, "a merge strategy");
  auto found = std::find(known.begin(), known.end(), text);
  if (found == known.end()) {
    std::string hint = nearest_hint(text, known);
    fault(node, "unknown merge strategy \"" + text + "\"",
          hint.empty() ? "Known are " + listed(known) + ", and an object with \"sql\"." : hint);
  }
  rule.strategy = static_cast<Strategy>(1 + (found - known.begin()));
  return rule;
}

}  // namespace

void read_conflicts(Definition& definition, const JsonNode& root) {
  if (auto* policy = root.find("on_conflict")) definition.on_conflict = on_conflict_of(*policy);
  if (auto* merge = root.find("merge")) {
    need_object(*merge, "\"merge\"");
    for (const auto& [name, value] : merge->members) definition.merge.push_back(merge_rule_of(name, value));
  }
  if (auto* newest = root.find("newest_by"))
    definition.newest_by = nonempty_text_of(*newest, "\"newest_by\"");
  if (auto* duplicates = root.find("duplicates")) definition.duplicates = duplicates_of(*duplicates);
  if (!definition.newest_by.empty()) return;
  std::string hint = "Name the column that tells which of two is newer: \"newest_by\": \"updated_at\".";
  if (definition.on_conflict == OnConflict::newest)
    fault(*root.find("on_conflict"), "on_conflict \"newest\" needs \"newest_by\"", hint);
  for (const MergeRule& rule : definition.merge)
    if (rule.strategy == Strategy::newest)
      throw DefinitionFault(rule.place, "merge strategy \"newest\" needs \"newest_by\"", hint);
}

}  // namespace portage
