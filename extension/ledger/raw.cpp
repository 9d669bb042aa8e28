// Raw input on its way to a reader: as text whatever its bytes, masked where the pipeline says so, and whole
// where the ledger keeps only its head.
#include <nlohmann/json.hpp>

#include "bridge/entry.hpp"
#include "bridge/spi.hpp"
#include "formats/path.hpp"

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

/// Replaces the value at a path, if there is one.
void mask(Json& item, const formats::Path& path) {
  Json* at = &item;
  for (const formats::Step& step : path.steps) {
    if (step.is_index ? !(at->is_array() && step.index < at->size())
                      : !(at->is_object() && at->contains(step.key)))
      return;
    at = step.is_index ? &(*at)[step.index] : &(*at)[step.key];
  }
  *at = "***";
}

}  // namespace
}  // namespace portage::ledger

using namespace portage;

PORTAGE_FUNCTION(portage_raw_text) {
  return bridge::text_datum(ledger::readable(bridge::string_of(fcinfo->args[0].value)));
}

PORTAGE_FUNCTION(portage_masked_raw) {
  std::string raw = bridge::string_of(fcinfo->args[0].value);
  Datum paths = fcinfo->args[1].value;
  struct Texts {
    Datum* items;
    bool* nulls;
    int count;
  };
  Texts texts = bridge::guarded([=] {
    Texts t{};
    deconstruct_array(DatumGetArrayTypeP(paths), TEXTOID, -1, false, TYPALIGN_INT, &t.items, &t.nulls,
                      &t.count);
    return t;
  });
  auto item = ledger::Json::parse(raw, nullptr, false);
  if (!item.is_object()) return bridge::text_datum("***");
  for (int i = 0; i < texts.count; i++) {
    auto path = formats::parse_path(bridge::string_of(texts.items[i]));
    if (!std::holds_alternative<formats::Path>(path)) return bridge::text_datum("***");
    ledger::mask(item, std::get<formats::Path>(path));
  }
  return bridge::text_datum(item.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}
