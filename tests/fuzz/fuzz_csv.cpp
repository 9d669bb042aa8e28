// Fuzzes the CSV reader in several dialects: no crash, and the properties that hold for any input.
#include "formats/item_parser.hpp"
#include "fuzz_support.hpp"

using namespace portage::formats;
using namespace portage::formats::testing;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzInput input(data, size);
  Options options = fuzz_options(input);
  options.delimiter = input.choose(2) == 1 ? ';' : ',';
  switch (input.choose(4)) {
    case 1:
      options.quote.reset();
      break;
    case 2:
      options.escape = '\\';
      break;
    case 3:
      options.null_string = "a";
      break;
    default:
      break;
  }
  options.utf8 = input.choose(2) == 0;
  if (input.choose(2) == 1) {
    options.header = input.choose(2) == 1;
    options.columns = {"a", "b"};
  }
  std::string violation = property_violation(open_csv, input.text, options, 8);
  require(violation);
  // Whatever JSON text was built for a row must be JSON.
  if (!options.utf8) return 0;
  ItemParser parser({}, 10);
  Arena arena(4096);
  for (const Row& row : read_text(open_csv, input.text, options)) {
    if (row.item.empty()) continue;
    Record record;
    if (!parser.parse(arena.copy(row.item), arena, record)) require("the item is no JSON: " + row.item);
    arena.reset();
  }
  return 0;
}
