// Raw input on its way to a reader: as text whatever its bytes, masked where the pipeline says so, and whole
// where the ledger keeps only its head.
#include <nlohmann/json.hpp>

#include "bridge/entry.hpp"
#include "bridge/spi.hpp"
#include "formats/path.hpp"
#include "ledger/arrays.hpp"

namespace portage::ledger {
namespace {

/// Bytes as text of the server's encoding: what is not valid, and NUL, as \xNN.
std::string readable(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  const char* at = bytes.data();
  int left = static_cast<int>(std::min<size_t>(bytes.size(), 1 << 29));
  while (left > 0) {
    int good = bridge::guarded([=] { return pg_encoding_verifymbstr(GetDatabaseEncoding(), at, left); });
    text.append(at, static_cast<size_t>(good));
    at += good;
    left -= good;
    if (left == 0) break;
    text += bridge::format("\\x%02x", static_cast<unsigned char>(*at));
    at++;
    left--;
  }
  return text;
}

using Json = nlohmann::ordered_json;

/// The elements of a text[]; a null is "", which is no path and no column.
std::vector<std::string> array_texts(Datum array) {
  Elements texts = elements_of(array, TEXTOID);
  std::vector<std::string> found;
  for (int i = 0; i < texts.count; i++)
    found.push_back(texts.nulls[i] ? "" : bridge::string_of(texts.items[i]));
  return found;
}

constexpr const char* masked = "***";
constexpr int greatest_depth = 500;  // Json is printed by recursion

/// The item; nothing if the bytes are no single object, or are nested so deeply that no reader of ours takes
/// them. Of doubled keys the last one stays, at all levels: what stands at the others is gone.
std::optional<Json> object_of(const std::string& raw) {
  bool too_deep = false;
  Json item = Json::parse(
      raw,
      [&](int depth, Json::parse_event_t, Json&) {
        too_deep = too_deep || depth > greatest_depth;
        return !too_deep;
      },
      false);
  if (too_deep || !item.is_object()) return std::nullopt;
  return item;
}

bool same_but_for_case(const std::string& a, const std::string& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) {
           return tolower(static_cast<unsigned char>(x)) == tolower(static_cast<unsigned char>(y));
         });
}

/// Where the step leads; nullptr if the node is not of the shape that the path expects.
Json* follow(Json& node, const formats::Step& step) {
  if (step.is_index) return node.is_array() && step.index < node.size() ? &node[step.index] : nullptr;
  if (!node.is_object()) return nullptr;
  Json* found = nullptr;
  for (auto& [key, value] : node.items()) {
    if (key == step.key)
      found = &value;
    else if (same_but_for_case(key, step.key))
      return nullptr;  // which of them is meant, nobody knows
  }
  return found;
}

/// Replaces the value at a path; where the item is not as the path expects it, what stands there instead.
void mask(Json& item, const formats::Path& path) {
  Json* at = &item;
  for (const formats::Step& step : path.steps) {
    Json* next = follow(*at, step);
    if (!next) break;
    at = next;
  }
  *at = masked;
}

}  // namespace
}  // namespace portage::ledger

using namespace portage;

PORTAGE_FUNCTION(portage_raw_text) {
  return bridge::text_datum(ledger::readable(bridge::string_of(fcinfo->args[0].value)));
}

PORTAGE_FUNCTION(portage_masked_raw) {
  std::string raw = bridge::string_of(fcinfo->args[0].value);
  std::optional<ledger::Json> item = ledger::object_of(raw);
  if (item)
    for (const std::string& text : ledger::array_texts(fcinfo->args[1].value)) {
      auto path = formats::parse_path(text);
      if (!std::holds_alternative<formats::Path>(path)) return bridge::text_datum(ledger::masked);
      ledger::mask(*item, std::get<formats::Path>(path));
    }
  if (!item || !item->is_object()) return bridge::text_datum(ledger::masked);
  return bridge::text_datum(item->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

PORTAGE_FUNCTION(portage_paths_touch) {
  std::vector<std::string> columns = ledger::array_texts(fcinfo->args[1].value);
  bool touch = false;
  for (const std::string& text : ledger::array_texts(fcinfo->args[0].value)) {
    auto parsed = formats::parse_path(text);
    auto* path = std::get_if<formats::Path>(&parsed);
    touch = touch || !path || path->steps.empty() ||
            std::find(columns.begin(), columns.end(), path->steps[0].key) != columns.end();
  }
  return BoolGetDatum(touch);
}
