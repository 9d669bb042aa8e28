// Fuzzes the JSON document reader: no crash, and the properties that hold for any input.
#include "fuzz_support.hpp"

using namespace portage::formats;
using namespace portage::formats::testing;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const char* const item_paths[] = {"$item", "a", "a.b", "[1]", "a[0].b"};
  FuzzInput input(data, size);
  Options options = fuzz_options(input);
  options.items = std::get<Path>(parse_path(item_paths[input.choose(5)]));
  options.scalar_items = input.choose(2) == 1;
  require(property_violation(open_json, input.text, options, 8));
  return 0;
}
