// What a reader yields: records, their fields and their faults, as plain values in the memory of a batch.
// This knows neither where bytes come from nor what types the fields will become.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include "formats/arena.hpp"

namespace portage::formats {

/// What was found at a path.
enum class Kind : uint8_t { missing, null, boolean, number, string, json };

/// The value at one path. `text`: string: unescaped (may hold NUL bytes); number: as written, grammar
/// checked, range not; boolean: `true` or `false`; json: the raw text of an object or array; missing, null:
/// empty.
struct Field {
  Kind kind = Kind::missing;
  std::string_view text;
};

/// All that can be wrong with an item or a document. fault_info() tells SQLSTATE, rule and message.
enum class FaultCode : uint8_t {
  malformed_json,
  invalid_encoding,
  item_too_large,
  nesting_too_deep,
  empty_payload,
  items_not_found,
  document_malformed,
  document_incomplete,
  ragged_row,
  malformed_row,
  unterminated_quote,
  duplicate_header,
};

/// The constant part of a fault. `rule` is the name that rejects carry; `message` is in PostgreSQL style.
struct FaultInfo {
  const char* sqlstate;
  const char* rule;
  const char* message;
};

/// The row of the one table for `code`.
const FaultInfo& fault_info(FaultCode code);

/// Why an item is bad. `message` in PostgreSQL style (lower case, no full stop); `detail` full sentences or
/// empty. They quote no bytes of the item but printable ASCII (and the paths that were asked for): always
/// valid UTF-8.
struct Fault {
  FaultCode code;
  std::string_view message;
  std::string_view detail;
};

/// A fault in the arena's memory; `detail` is copied, `message` (default: the code's) must be static.
const Fault* make_fault(Arena& arena, FaultCode code, std::string_view detail = {},
                        std::string_view message = {});

/// At most so many bytes of a span that is too large, or of a broken rest, are kept in Record::raw.
inline constexpr size_t fault_head_bytes = 64 * 1024;

/// One item, good or bad. All memory belongs to the arena that was given to Reader::next().
struct Record {
  uint64_t line = 0;             ///< from 1, where the item begins
  uint64_t offset = 0;           ///< first byte, counted from the beginning of the part
  uint64_t length = 0;           ///< bytes of the item, or of the whole rejected span
  std::string_view raw;          ///< the item's bytes; only the head if the span is too large or broken
  const Fault* fault = nullptr;  ///< null when good
  Field* fields = nullptr;       ///< one per requested path, in their order; null when there is a fault
  std::string_view item;         ///< JSON text of the whole item, if wanted and good; valid UTF-8
};

static_assert(std::is_trivially_copyable_v<Field> && std::is_trivially_copyable_v<Fault> &&
              std::is_trivially_copyable_v<Record>);

}  // namespace portage::formats
