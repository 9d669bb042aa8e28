// One full walk over an item with simdjson's on-demand API. Paths are compiled into a trie, so that each key
// is looked up once, whatever the number of paths. What is skipped is validated like what is extracted.
#include "formats/item_parser.hpp"

#ifndef SIMDJSON_EXCEPTIONS
#define SIMDJSON_EXCEPTIONS 0
#endif
#include <simdjson.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <string>
#include <utility>

#include "formats/bracket_scanner.hpp"
#include "formats/text.hpp"

#include "formats/no_postgres.hpp"

namespace portage::formats {

namespace {

namespace ondemand = simdjson::ondemand;

static_assert(Arena::padding >= simdjson::SIMDJSON_PADDING);

// simdjson reserves several bytes per byte of the largest item it has seen; beyond this it is given back.
constexpr size_t kept_capacity = size_t{4} << 20;
constexpr size_t smallest_capacity = size_t{16} << 10;

/// What is wanted below one place of an item.
struct Node {
  struct Edge {
    std::string key;
    uint32_t index;
    bool is_index;
    uint32_t child;
    bool plain;  // the key is written as it is, without escapes
  };
  std::vector<Edge> edges;
  std::vector<uint32_t> slots;  // fields that want the value of this place
  std::vector<uint32_t> below;  // fields that want something inside it
};

/// All requested paths as a tree; node 0 is the item itself.
class Trie {
 public:
  explicit Trie(const std::vector<Path>& paths) : nodes_(1) {
    for (size_t slot = 0; slot < paths.size(); ++slot) add(paths[slot], uint32_t(slot));
  }

  const Node& root() const { return nodes_[0]; }
  const Node& child(const Node::Edge& edge) const { return nodes_[edge.child]; }

 private:
  void add(const Path& path, uint32_t slot) {
    uint32_t at = 0;
    for (const Step& step : path.steps) {
      nodes_[at].below.push_back(slot);
      at = descend(at, step);
    }
    nodes_[at].slots.push_back(slot);
  }

  uint32_t descend(uint32_t at, const Step& step) {
    for (const Node::Edge& edge : nodes_[at].edges) {
      if (edge.is_index == step.is_index && edge.index == step.index && edge.key == step.key)
        return edge.child;
    }
    auto child = uint32_t(nodes_.size());
    bool plain = !step.is_index && step.key.find_first_of("\"\\") == std::string::npos;
    nodes_[at].edges.push_back({step.key, step.index, step.is_index, child, plain});
    nodes_.emplace_back();
    return child;
  }

  std::vector<Node> nodes_;
};

}  // namespace

struct ItemParser::Impl {
  Impl(const std::vector<Path>& paths, size_t depth)
      : trie(paths), slot_count(paths.size()), max_depth(std::min(depth, deepest)) {}

  bool parse(std::string_view json, Arena& arena_of_batch, Record& record);

 private:
  bool walk_document();
  bool walk_object(ondemand::object& object, const Node* node, size_t depth);
  bool walk_array(ondemand::array& array, const Node* node, size_t depth);
  bool walk_value(ondemand::value& value, const Node* node, size_t depth);
  bool take_scalar(std::string_view token, const Node* node);
  bool take_string(std::string_view token, const Node* node);
  bool take_root_scalar();
  void take_container(const char* start, const Node* node);
  bool is_next_key(const Node* node, const char* start, size_t guess) const;
  const Node* find_key(const Node* node, std::string_view key, size_t& guess) const;
  bool read_key(const char* start, std::string_view& key);

  void store(const Node* node, Kind kind, std::string_view text) {
    if (!node) return;
    for (uint32_t slot : node->slots) fields[slot] = {kind, text};
  }
  void forget_below(const Node* node) {
    for (uint32_t slot : node->below) fields[slot] = Field{};
  }

  bool fail(FaultCode code, std::string_view detail, std::string_view message = {}) {
    fault = make_fault(*arena, code, detail, message);
    return false;
  }
  bool fail_at(const char* what, const char* where) {
    return fail(FaultCode::malformed_json,
                std::string(what) + " at byte " + std::to_string(where - whole.data()) + " of the item.");
  }
  bool fail_tokens(simdjson::error_code error);
  bool fail_structure(simdjson::error_code error);
  bool fail_escape(EscapeError error, const char* where);
  bool fail_encoding();
  bool too_deep(const char* where) {
    return fail(FaultCode::nesting_too_deep, "Nesting exceeds " + std::to_string(max_depth) +
                                                 " levels at byte " + std::to_string(where - whole.data()) +
                                                 " of the item.");
  }
  void reserve(size_t size);

  Trie trie;
  size_t slot_count;
  size_t max_depth;
  ondemand::parser parser;

  // Of the item at hand.
  Arena* arena = nullptr;
  Field* fields = nullptr;
  const Fault* fault = nullptr;
  std::string_view whole;  // as given
  std::string_view body;   // without white space around it
  ondemand::document document;
};

ItemParser::ItemParser(const std::vector<Path>& paths, size_t max_depth)
    : impl_(std::make_unique<Impl>(paths, max_depth)) {}
ItemParser::~ItemParser() = default;
ItemParser::ItemParser(ItemParser&&) noexcept = default;
ItemParser& ItemParser::operator=(ItemParser&&) noexcept = default;

bool ItemParser::parse(std::string_view json, Arena& arena, Record& record) {
  return impl_->parse(json, arena, record);
}

void ItemParser::Impl::reserve(size_t size) {
  if (parser.capacity() > kept_capacity && size <= kept_capacity) parser = ondemand::parser();
  if (parser.capacity() >= size) return;
  // By doubling: simdjson itself would allocate anew for each item a byte longer than all before.
  size_t capacity = std::max(smallest_capacity, parser.capacity());
  while (capacity < size) capacity *= 2;
  if (capacity > kept_capacity) capacity = size;
  if (parser.allocate(capacity)) throw std::bad_alloc();
}

bool ItemParser::Impl::parse(std::string_view json, Arena& arena_of_batch, Record& record) {
  arena = &arena_of_batch;
  fault = nullptr;
  whole = json;
  body = trim(json);
  fields = arena->make_array<Field>(slot_count);
  bool good = false;
  if (body.empty()) {
    fail(FaultCode::malformed_json, "The item is empty.");
  } else if (body.size() > simdjson::SIMDJSON_MAXSIZE_BYTES) {
    fail(FaultCode::item_too_large, "The item is larger than the JSON parser can take.");
  } else if (body[0] == '{' || body[0] == '[') {
    reserve(body.size());
    good = walk_document();
  } else {
    good = take_root_scalar();
  }
  record.fields = good ? fields : nullptr;
  record.fault = fault;
  return good;
}

bool ItemParser::Impl::walk_document() {
  auto error = parser.iterate(body.data(), body.size(), body.size() + Arena::padding).get(document);
  if (error) return fail_tokens(error);
  const Node* root = &trie.root();
  if (max_depth == 0) return too_deep(body.data());
  bool good = false;
  if (body[0] == '{') {
    ondemand::object object;
    if ((error = document.get_object().get(object))) return fail_structure(error);
    good = walk_object(object, root, 1);
  } else {
    ondemand::array array;
    if ((error = document.get_array().get(array))) return fail_structure(error);
    good = walk_array(array, root, 1);
  }
  if (!good) return false;
  // A location means that tokens are left; at the end there is none.
  const char* where = nullptr;
  if (!document.current_location().get(where))
    return fail_at("Unexpected text after the end of the value", where);
  store(root, Kind::json, body);
  return true;
}

bool ItemParser::Impl::walk_object(ondemand::object& object, const Node* node, size_t depth) {
  size_t guess = 0;
  for (auto result : object) {
    ondemand::field field;
    if (auto error = std::move(result).get(field)) return fail_structure(error);
    const Node* child = nullptr;
    if (const char* start = field.key().raw(); is_next_key(node, start, guess)) {
      child = &trie.child(node->edges[guess++]);
    } else {
      std::string_view key;
      if (!read_key(start, key)) return false;
      if (node && !node->edges.empty()) child = find_key(node, key, guess);
    }
    // The last of duplicate keys wins as a whole: nothing of the earlier value may shine through.
    if (child) forget_below(child);
    if (!walk_value(field.value(), child, depth)) return false;
  }
  return true;
}

bool ItemParser::Impl::walk_array(ondemand::array& array, const Node* node, size_t depth) {
  uint64_t index = 0;
  for (auto result : array) {
    ondemand::value value;
    // get() is only for rvalues, whether moving does anything or not.
    // NOLINTNEXTLINE(performance-move-const-arg)
    if (auto error = std::move(result).get(value)) return fail_structure(error);
    const Node* child = nullptr;
    if (node) {
      for (const Node::Edge& edge : node->edges) {
        if (edge.is_index && edge.index == index) child = &trie.child(edge);
      }
    }
    if (!walk_value(value, child, depth)) return false;
    ++index;
  }
  return true;
}

bool ItemParser::Impl::walk_value(ondemand::value& value, const Node* node, size_t depth) {
  std::string_view token = value.raw_json_token();
  if (token[0] == '{') {
    if (depth == max_depth) return too_deep(token.data());
    ondemand::object object;
    if (auto error = value.get_object().get(object)) return fail_structure(error);
    if (!walk_object(object, node, depth + 1)) return false;
    if (node && !node->slots.empty()) take_container(token.data(), node);
    return true;
  }
  if (token[0] == '[') {
    if (depth == max_depth) return too_deep(token.data());
    ondemand::array array;
    if (auto error = value.get_array().get(array)) return fail_structure(error);
    if (!walk_array(array, node, depth + 1)) return false;
    if (node && !node->slots.empty()) take_container(token.data(), node);
    return true;
  }
  while (token.size() > 1 && is_space(token.back())) token.remove_suffix(1);
  return take_scalar(token, node);
}

// The walk has just left the container: it ends where the next token begins, less the white space between.
void ItemParser::Impl::take_container(const char* start, const Node* node) {
  const char* end = nullptr;
  if (document.current_location().get(end)) end = body.data() + body.size();
  while (end > start && is_space(end[-1])) --end;
  store(node, Kind::json, {start, size_t(end - start)});
}

bool ItemParser::Impl::take_scalar(std::string_view token, const Node* node) {
  switch (token[0]) {
    case '"':
      return take_string(token, node);
    case 't':
    case 'f':
      if (token != "true" && token != "false") break;
      store(node, Kind::boolean, token);
      return true;
    case 'n':
      if (token != "null") break;
      store(node, Kind::null, {});
      return true;
    case '-':
    case '0':
    case '1':
    case '2':
    case '3':
    case '4':
    case '5':
    case '6':
    case '7':
    case '8':
    case '9':
      if (!valid_json_number(token)) return fail_at("Invalid number", token.data());
      store(node, Kind::number, token);
      return true;
    default:
      break;
  }
  return fail_at("Unexpected token", token.data());
}

bool ItemParser::Impl::take_string(std::string_view token, const Node* node) {
  if (token.size() < 2 || token.back() != '"') return fail_at("Unclosed string", token.data());
  std::string_view text = token.substr(1, token.size() - 2);
  if (text.empty() || !std::memchr(text.data(), '\\', text.size())) {
    store(node, Kind::string, text);
    return true;
  }
  bool wanted = node && !node->slots.empty();
  char* out = wanted ? arena->allocate(text.size(), 1) : nullptr;
  size_t written = 0;
  EscapeError error = unescape_json(text, out, written);
  if (error != EscapeError::none) return fail_escape(error, text.data() + written);
  if (wanted) store(node, Kind::string, {out, written});
  return true;
}

// simdjson converts numbers at the root, which would refuse 1e400; so a lone scalar is judged here.
bool ItemParser::Impl::take_root_scalar() {
  if (!valid_utf8(body)) return fail_encoding();
  if (body[0] == '"') {
    size_t i = 1;
    while (i < body.size() && body[i] != '"') {
      if (static_cast<unsigned char>(body[i]) < 0x20)
        return fail_at("Unescaped control character", body.data() + i);
      i += body[i] == '\\' ? 2 : 1;
    }
    if (i >= body.size()) return fail_at("Unclosed string", body.data());
    if (i + 1 != body.size())
      return fail_at("Unexpected text after the end of the value", body.data() + i + 1);
  }
  return take_scalar(body, &trie.root());
}

// `start`: behind the opening quote. Stage 1 has seen the closing one.
bool ItemParser::Impl::read_key(const char* start, std::string_view& key) {
  const char* p = start;
  while (*p != '"' && *p != '\\') ++p;
  if (*p == '"') {
    key = {start, size_t(p - start)};
    return true;
  }
  while (*p != '"') p += *p == '\\' ? 2 : 1;
  std::string_view raw(start, size_t(p - start));
  char* out = arena->allocate(raw.size(), 1);
  size_t written = 0;
  EscapeError error = unescape_json(raw, out, written);
  if (error != EscapeError::none) return fail_escape(error, raw.data() + written);
  key = {out, written};
  return true;
}

// Items of one kind tend to have their keys in the same order: the guess is the edge after the last hit.
// Where it is right, the key needs not be read.
bool ItemParser::Impl::is_next_key(const Node* node, const char* start, size_t guess) const {
  if (!node || guess >= node->edges.size() || !node->edges[guess].plain) return false;
  const std::string& key = node->edges[guess].key;
  return key.size() < size_t(body.data() + body.size() - start) && start[key.size()] == '"' &&
         std::memcmp(start, key.data(), key.size()) == 0;
}

const Node* ItemParser::Impl::find_key(const Node* node, std::string_view key, size_t& guess) const {
  const std::vector<Node::Edge>& edges = node->edges;
  auto matches = [&](const Node::Edge& edge) { return !edge.is_index && edge.key == key; };
  for (size_t i = 0; i < edges.size(); ++i) {
    if (matches(edges[i])) {
      guess = i + 1;
      return &trie.child(edges[i]);
    }
  }
  return nullptr;
}

bool ItemParser::Impl::fail_encoding() {
  size_t at = find_invalid_utf8(body);
  unsigned char byte = at < body.size() ? static_cast<unsigned char>(body[at]) : 0;
  return fail(FaultCode::invalid_encoding, "Byte " + std::to_string(size_t(body.data() - whole.data()) + at) +
                                               " of the item is " + show_byte(byte) + ".");
}

bool ItemParser::Impl::fail_escape(EscapeError error, const char* where) {
  switch (error) {
    case EscapeError::lone_surrogate:
      return fail(FaultCode::malformed_json, "Unpaired surrogate in a Unicode escape at byte " +
                                                 std::to_string(where - whole.data()) + " of the item.");
    case EscapeError::bad_hex:
      return fail_at("Unicode escape without four hexadecimal digits", where);
    default:
      return fail_at("Unknown escape sequence", where);
  }
}

// What simdjson's first stage finds, before there is a document.
bool ItemParser::Impl::fail_tokens(simdjson::error_code error) {
  if (error == simdjson::MEMALLOC) throw std::bad_alloc();
  // An unclosed string hides what else is wrong; bad encoding is the graver fault.
  if (!valid_utf8(body)) return fail_encoding();
  switch (error) {
    case simdjson::UNCLOSED_STRING:
      return fail(FaultCode::malformed_json, "A string is not closed.");
    case simdjson::UNESCAPED_CHARS:
      return fail(FaultCode::malformed_json, "A control character in a string is not escaped.");
    default:
      return fail(FaultCode::malformed_json, simdjson::error_message(error));
  }
}

// What the walk finds. simdjson has moved past the offending token, so the place is only near it.
bool ItemParser::Impl::fail_structure(simdjson::error_code error) {
  if (error == simdjson::INCOMPLETE_ARRAY_OR_OBJECT) {
    // simdjson looks only whether the last token closes the first; the user wants to know why it does not.
    BracketScanner scanner(max_depth + 1);
    scanner.start();
    size_t taken = 0;
    auto result = scanner.scan(body.data(), body.size(), taken);
    if (result == BracketScanner::Result::mismatch)
      return fail_at("Unexpected bracket", body.data() + taken - 1);
    if (result == BracketScanner::Result::more) {
      return fail(FaultCode::malformed_json, "A bracket or brace is not closed.");
    }
    while (taken < body.size() && is_space(body[taken])) ++taken;
    return fail_at("Unexpected text after the end of the value", body.data() + taken);
  }
  const char* where = nullptr;
  if (document.current_location().get(where) || where < body.data() || where >= body.data() + body.size()) {
    return fail(FaultCode::malformed_json, "Unexpected end of the item.");
  }
  return fail(FaultCode::malformed_json,
              "Syntax error near byte " + std::to_string(where - whole.data()) + " of the item.");
}

}  // namespace portage::formats
