// Small tools on bytes that several readers need: white space, counting lines, UTF-8, the grammar of JSON's
// scalars. Nothing here allocates behind the caller's back, and nothing knows of records or readers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace portage::formats {

/// JSON's white space, the only one that counts in this layer.
inline bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

/// `text` without white space at its ends.
inline std::string_view trim(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

/// The bytes that a UTF-8 byte order mark consists of.
inline constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";

/// Number of line feeds.
size_t count_newlines(const char* data, size_t size);

/// Whether `text` is valid UTF-8 (NUL bytes are).
bool valid_utf8(std::string_view text);

/// Offset of the first byte of the first invalid sequence; text.size() if there is none. Slow: for messages.
size_t find_invalid_utf8(std::string_view text);

/// Whether `text` is exactly one JSON number.
bool valid_json_number(std::string_view text);

/// What can be wrong with the escapes of a JSON string.
enum class EscapeError : uint8_t { none, unknown_escape, bad_hex, lone_surrogate };

/// Replaces the escapes in `body` (what stands between the quotes of a JSON string). `out` needs body.size()
/// bytes, or is null to validate only. `written`: bytes of the result; after an error, the offset of the
/// fault.
EscapeError unescape_json(std::string_view body, char* out, size_t& written);

/// Bytes that write_json_string() needs, with quotes.
size_t json_string_size(std::string_view text);

/// Writes `text` as a JSON string with quotes, and returns the end. Bytes above 0x7F are taken over as they
/// are.
char* write_json_string(char* out, std::string_view text);

/// How a byte looks in a message: printable ASCII in double quotes, anything else as 0x...
std::string show_byte(unsigned char byte);

}  // namespace portage::formats
