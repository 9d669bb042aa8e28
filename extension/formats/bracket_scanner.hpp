// Finds the end of a JSON value without parsing it: strings and brackets are all it understands. It is fed
// piece by piece and keeps a bounded state, so the value may be of any size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace portage::formats {

/// Scans one container or one string. The result does not depend on how the bytes are cut into pieces.
class BracketScanner {
 public:
  enum class Result : uint8_t {
    more,      ///< all bytes taken, the value goes on
    complete,  ///< the value ends behind the bytes taken
    mismatch,  ///< the last byte taken is a bracket that closes one of the other kind
  };

  /// Brackets nested deeper than `tracked_depth` are counted, but their kinds are not compared.
  explicit BracketScanner(size_t tracked_depth) : stack_(tracked_depth, '\0') {}

  /// Begins a new value; the next byte fed is its first: a bracket or a quote.
  void start() {
    depth_ = 0;
    in_string_ = false;
    escaped_ = false;
  }

  /// Feeds `size` bytes; `taken`: how many of them belong to the value so far.
  Result scan(const char* data, size_t size, size_t& taken);

 private:
  Result scan_bytes(const char* data, size_t size, size_t& taken);
  Result scan_block(const char* data, size_t& taken);
  void open(char bracket);
  bool close(char bracket, bool& complete);

  std::string stack_;  // the closing bracket expected at each depth
  size_t depth_ = 0;
  bool in_string_ = false;
  bool escaped_ = false;  // the next byte stands behind a backslash
};

}  // namespace portage::formats
