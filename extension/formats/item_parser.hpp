// One JSON text → the values at the requested paths. Shared by the JSON and NDJSON readers and by sources
// that already hold items one by one; it must not know where the text comes from. simdjson stays behind this
// header.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "formats/arena.hpp"
#include "formats/path.hpp"
#include "formats/record.hpp"

namespace portage::formats {

/// Validates items completely and extracts fields on the way. Reusable, not thread-safe.
class ItemParser {
 public:
  /// The deepest nesting that is ever accepted: the walk is recursive and the stack of a backend is small.
  static constexpr size_t deepest = 1000;

  /// `max_depth`: containers within containers that one item may have, at most `deepest`.
  ItemParser(const std::vector<Path>& paths, size_t max_depth);
  ~ItemParser();
  ItemParser(ItemParser&&) noexcept;
  ItemParser& operator=(ItemParser&&) noexcept;

  /// Parses one JSON text, which must be followed by a NUL and Arena::padding readable bytes, as
  /// Arena::copy() gives it, and outlive the record: strings without escapes, numbers and containers point
  /// into it. White space around it is allowed, anything else is a fault. True: `record.fields` has a field
  /// per path; false: `record.fault` is set. Other members of the record are left alone. Of duplicate keys
  /// the last wins. Throws std::bad_alloc.
  bool parse(std::string_view json, Arena& arena, Record& record);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace portage::formats
