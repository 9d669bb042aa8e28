// What the fuzzers share: options out of the first bytes of the input, and an abort when a property is
// violated.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "formats_support.hpp"

namespace portage::formats::testing {

/// The input of one round: two bytes of choices, then the text.
struct FuzzInput {
  unsigned choices = 0;
  std::string_view text;

  FuzzInput(const uint8_t* data, size_t size) {
    size_t used = size < 2 ? size : 2;
    for (size_t i = 0; i < used; ++i) choices |= unsigned(data[i]) << (8 * i);
    text = {reinterpret_cast<const char*>(data) + used, size - used};
  }

  /// The next choice out of `count`, at most 16.
  unsigned choose(unsigned count) {
    unsigned choice = choices % count;
    choices /= count;
    return choice;
  }
};

inline Options fuzz_options(FuzzInput& input) {
  static const size_t limits[] = {size_t{64} << 20, 100, 20};
  static const size_t depths[] = {512, 3};
  Options options = with_paths({"a", "b[1]", "b", "a.b.\"c\"", "$item"});
  options.max_item_bytes = limits[input.choose(3)];
  options.max_depth = depths[input.choose(2)];
  options.want_item = input.choose(2) == 1;
  return options;
}

inline void require(const std::string& violation) {
  if (violation.empty()) return;
  std::fprintf(stderr, "property violated: %s\n", violation.c_str());
  std::abort();
}

}  // namespace portage::formats::testing
