// A small JSON tree for definitions: members in the order written, numbers as written, duplicate keys refused
// with their path. Pure C++; knows nothing of what the keys mean.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/record.hpp"

namespace portage {

/// One value. `kind` is never missing; json means object or array.
struct JsonNode {
  formats::Kind kind = formats::Kind::null;
  bool is_array = false;
  std::string text;  ///< string: its characters; number: as written; boolean: true or false
  std::string path;  ///< `columns.a.default`; "" for the root
  std::vector<std::pair<std::string, JsonNode>> members;
  std::vector<JsonNode> elements;

  bool is_object() const { return kind == formats::Kind::json && !is_array; }
  bool is_list() const { return kind == formats::Kind::json && is_array; }
  bool is_string() const { return kind == formats::Kind::string; }
  const JsonNode* find(std::string_view key) const;
};

/// Parses; throws DefinitionFault (definition.hpp) for malformed text, duplicate keys and depth beyond 64.
JsonNode parse_json_tree(std::string_view json);

/// The JSON text of a value, without needless white space.
std::string to_json(const JsonNode& node);

/// A key as a step of a JSON path: bare, or in quotes where it holds anything special.
std::string path_step(std::string_view key);

}  // namespace portage
