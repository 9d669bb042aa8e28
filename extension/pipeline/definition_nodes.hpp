// What reading a definition's keys needs: values of the JSON tree as what they must be, each fault with its
// path. For the files that parse definitions; knows no key.
#pragma once

#include <algorithm>

#include "pipeline/definition.hpp"
#include "pipeline/json_tree.hpp"

namespace portage::nodes {

using Names = std::vector<std::string>;

inline std::string listed(const Names& names) {
  std::string text;
  for (size_t i = 0; i < names.size(); i++) {
    if (i > 0) text += i + 1 == names.size() ? " or " : ", ";
    text += "\"" + names[i] + "\"";
  }
  return text;
}

[[noreturn]] inline void fault(const JsonNode& node, std::string message, std::string hint = "") {
  throw DefinitionFault(node.path, std::move(message), std::move(hint));
}

[[noreturn]] inline void unsupported(const JsonNode& node, std::string message, std::string hint = "") {
  throw DefinitionFault(node.path, std::move(message), std::move(hint), true);
}

inline void need_object(const JsonNode& node, const char* what) {
  if (!node.is_object()) fault(node, std::string(what) + " must be an object");
}

inline const std::string& text_of(const JsonNode& node, const char* what) {
  if (!node.is_string()) fault(node, std::string(what) + " must be a string");
  if (node.text.find('\0') != std::string::npos) fault(node, std::string(what) + " must not contain \\u0000");
  return node.text;
}

inline const std::string& nonempty_text_of(const JsonNode& node, const char* what) {
  if (text_of(node, what).empty()) fault(node, std::string(what) + " must not be empty");
  return node.text;
}

inline bool boolean_of(const JsonNode& node, const char* what) {
  if (node.kind != formats::Kind::boolean) fault(node, std::string(what) + " must be true or false");
  return node.text == "true";
}

inline void known_keys(const JsonNode& object, const Names& known) {
  for (const auto& [name, value] : object.members)
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      std::string hint = nearest_hint(name, known);
      fault(value, "unknown key \"" + name + "\"",
            hint.empty() ? "Known keys are " + listed(known) + "." : hint);
    }
}

/// A list of names (of columns, or `of` what else); one name alone may be written without brackets.
inline Names names_of(const JsonNode& node, const char* what, const std::string& of = "column") {
  Names names;
  if (node.is_string()) return {nonempty_text_of(node, what)};
  if (!node.is_list()) fault(node, std::string(what) + " must be a list of " + of + " names");
  for (const JsonNode& element : node.elements) {
    const std::string& name = nonempty_text_of(element, ("a " + of + " name").c_str());
    if (std::find(names.begin(), names.end(), name) != names.end())
      fault(element, of + " \"" + name + "\" is listed twice");
    names.push_back(name);
  }
  if (names.empty()) fault(node, std::string(what) + " must not be empty");
  return names;
}

}  // namespace portage::nodes

namespace portage {

PipelineSource source_of(const JsonNode&, Format);  ///< the key "source"
MissingItems missing_of(const JsonNode&);           ///< the key "missing"
/// "on_conflict", "merge", "newest_by" and "duplicates" of the root.
void read_conflicts(Definition&, const JsonNode& root);

}  // namespace portage
