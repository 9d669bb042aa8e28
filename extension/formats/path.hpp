// Paths into an item: how they are written, read and spelled back. This knows nothing of readers,
// documents or pipelines; `$scope` and its like are variables of the pipeline, not paths.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace portage::formats {

/// One step of a path: a key of an object, or an index (from 0) of an array.
struct Step {
  std::string key;
  uint32_t index = 0;
  bool is_index = false;

  bool operator==(const Step&) const = default;
};

/// A path. No steps: the whole item, written `$item`.
struct Path {
  std::vector<Step> steps;
  std::string text;  ///< as written
};

/// Why a text is no path. `position`: byte offset into the text.
struct PathError {
  size_t position = 0;
  std::string message;  ///< PostgreSQL style: lower case, no full stop
};

/// Reads `a.b[0].c`, `"a quoted \"key\"".c`, `[0]`, or `$item` (the whole item). A bare key is any run of
/// characters except `. [ ] "`; in a quoted key `\"` and `\\` are escapes. A first key that begins with `$`
/// must be quoted, since bare it is a variable.
std::variant<Path, PathError> parse_path(std::string_view text);

/// A path of these keys, as it comes from a JSON array of keys; its text is the canonical spelling.
Path path_of_keys(std::vector<std::string> keys);

/// The canonical spelling, with quotes only where they are needed; parse_path() reads it back to the same
/// steps.
std::string to_text(const Path& path);

}  // namespace portage::formats
