// See json_tree.hpp. nlohmann/json does the parsing; this listens to its events, because its own tree keeps
// neither duplicates nor the spelling of numbers.
#include <nlohmann/json.hpp>

#include "pipeline/definition.hpp"
#include "pipeline/json_tree.hpp"

namespace portage {
namespace {

constexpr size_t deepest = 64;  // of a definition; also bounds the recursion over the tree

class TreeBuilder : public nlohmann::json_sax<nlohmann::json> {
 public:
  JsonNode root;

  bool null() override { return add(formats::Kind::null, ""); }
  bool boolean(bool value) override { return add(formats::Kind::boolean, value ? "true" : "false"); }
  bool number_integer(number_integer_t value) override {
    return add(formats::Kind::number, std::to_string(value));
  }
  bool number_unsigned(number_unsigned_t value) override {
    return add(formats::Kind::number, std::to_string(value));
  }
  bool number_float(number_float_t, const string_t& written) override {
    return add(formats::Kind::number, written);
  }
  bool string(string_t& value) override { return add(formats::Kind::string, value); }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return open(false); }
  bool start_array(size_t) override { return open(true); }
  bool end_object() override { return open_.pop_back(), true; }
  bool end_array() override { return open_.pop_back(), true; }

  bool key(string_t& name) override {
    JsonNode& object = *open_.back();
    std::string path = object.path.empty() ? path_step(name) : object.path + "." + path_step(name);
    if (name.find('\0') != std::string::npos)
      throw DefinitionFault(object.path, "a key must not contain \\u0000");
    if (object.find(name))
      throw DefinitionFault(path, "duplicate key \"" + name + "\"", "Each key may be given once.");
    key_ = name;
    return true;
  }

  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) override {
    throw DefinitionFault("", std::string("definition is not valid JSON: ") + error.what());
  }

 private:
  JsonNode& place() {
    if (open_.empty()) return root;
    JsonNode& parent = *open_.back();
    if (parent.is_array) {
      JsonNode& node = parent.elements.emplace_back();
      node.path = parent.path + "[" + std::to_string(parent.elements.size() - 1) + "]";
      return node;
    }
    JsonNode& node = parent.members.emplace_back(key_, JsonNode{}).second;
    node.path = parent.path.empty() ? path_step(key_) : parent.path + "." + path_step(key_);
    return node;
  }
  bool add(formats::Kind kind, std::string text) {
    JsonNode& node = place();
    node.kind = kind;
    node.text = std::move(text);
    return true;
  }
  bool open(bool is_array) {
    if (open_.size() >= deepest) throw DefinitionFault("", "definition is nested too deeply");
    // The pointer stays good: nothing is added to the parent's vectors before this node is closed.
    JsonNode& node = place();
    node.kind = formats::Kind::json;
    node.is_array = is_array;
    open_.push_back(&node);
    return true;
  }

  std::vector<JsonNode*> open_;
  std::string key_;
};

std::string json_string(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

const JsonNode* JsonNode::find(std::string_view key) const {
  for (const auto& [name, value] : members)
    if (name == key) return &value;
  return nullptr;
}

JsonNode parse_json_tree(std::string_view json) {
  TreeBuilder builder;
  nlohmann::json::sax_parse(json.begin(), json.end(), &builder);
  return std::move(builder.root);
}

std::string to_json(const JsonNode& node) {
  switch (node.kind) {
    case formats::Kind::string:
      return json_string(node.text);
    case formats::Kind::number:
    case formats::Kind::boolean:
      return node.text;
    case formats::Kind::json:
      break;
    default:
      return "null";
  }
  std::string text(1, node.is_array ? '[' : '{');
  const char* separator = "";
  for (const JsonNode& element : node.elements) {
    text += separator + to_json(element);
    separator = ",";
  }
  for (const auto& [name, value] : node.members) {
    text += separator + json_string(name) + ":" + to_json(value);
    separator = ",";
  }
  return text += node.is_array ? ']' : '}';
}

std::string path_step(std::string_view key) {
  if (!key.empty() && key.find_first_of(".[]\" ") == std::string_view::npos) return std::string(key);
  std::string quoted = "\"";
  for (char c : key) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted += '"';
}

}  // namespace portage
