// Fuzzes the NDJSON reader, and with it the item parser, whose verdict must agree with simdjson's own DOM
// parser.
#include <simdjson.h>

#include "fuzz_support.hpp"

using namespace portage::formats;
using namespace portage::formats::testing;

namespace {

// Whether the two parsers may differ on this item: numbers out of range, lone surrogates and depth are ours.
bool may_differ(std::string_view raw, simdjson::error_code error) {
  return error == simdjson::NUMBER_ERROR || error == simdjson::NUMBER_OUT_OF_RANGE ||
         raw.find("\\u") != std::string_view::npos;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzInput input(data, size);
  Options options = fuzz_options(input);
  require(property_violation(open_ndjson, input.text, options, 8));
  for (const Row& row : read_text(open_ndjson, input.text, options)) {
    if (row.rule == "item_too_large" || row.rule == "nesting_too_deep") continue;
    simdjson::dom::parser parser;
    simdjson::error_code error = parser.parse(row.raw).error();
    bool good = row.rule.empty();
    if (good == (error == simdjson::SUCCESS) || may_differ(row.raw, error)) continue;
    require(std::string("simdjson says ") + simdjson::error_message(error) + ": " + show(row));
  }
  return 0;
}
