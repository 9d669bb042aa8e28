// Small tools on bytes, see text.hpp. The only place with SIMD for line counting; simdjson judges UTF-8.
#include "formats/text.hpp"

#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include <simdjson.h>

#include "formats/no_postgres.hpp"

namespace portage::formats {

size_t count_newlines(const char* data, size_t size) {
  size_t count = 0;
  size_t i = 0;
#if defined(__SSE2__)
  const __m128i newline = _mm_set1_epi8('\n');
  while (size - i >= 16) {
    // Each lane counts up to 255 matches before the sums are taken.
    __m128i lanes = _mm_setzero_si128();
    size_t rounds = (size - i) / 16;
    if (rounds > 255) rounds = 255;
    for (size_t r = 0; r < rounds; ++r, i += 16) {
      __m128i block = _mm_loadu_si128(reinterpret_cast<const __m128i*>(data + i));
      lanes = _mm_sub_epi8(lanes, _mm_cmpeq_epi8(block, newline));
    }
    __m128i sums = _mm_sad_epu8(lanes, _mm_setzero_si128());
    count += size_t(_mm_cvtsi128_si32(sums)) + size_t(_mm_extract_epi16(sums, 4));
  }
#endif
  for (; i < size; ++i) count += data[i] == '\n';
  return count;
}

bool valid_utf8(std::string_view text) { return simdjson::validate_utf8(text.data(), text.size()); }

size_t find_invalid_utf8(std::string_view text) {
  auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  auto continuation = [&](size_t i) { return (byte(i) & 0xC0) == 0x80; };
  size_t i = 0;
  while (i < text.size()) {
    unsigned lead = byte(i);
    unsigned second = byte(i + 1);
    if (lead < 0x80) {
      i += 1;
    } else if (lead >= 0xC2 && lead <= 0xDF && continuation(i + 1)) {
      i += 2;
    } else if (lead >= 0xE0 && lead <= 0xEF && continuation(i + 1) && continuation(i + 2) &&
               (lead != 0xE0 || second >= 0xA0) && (lead != 0xED || second < 0xA0)) {
      i += 3;
    } else if (lead >= 0xF0 && lead <= 0xF4 && continuation(i + 1) && continuation(i + 2) &&
               continuation(i + 3) && (lead != 0xF0 || second >= 0x90) && (lead != 0xF4 || second < 0x90)) {
      i += 4;
    } else {
      return i;
    }
  }
  return text.size();
}

bool valid_json_number(std::string_view text) {
  const char* p = text.data();
  const char* end = p + text.size();
  auto digits = [&] {
    const char* start = p;
    while (p != end && *p >= '0' && *p <= '9') ++p;
    return p != start;
  };
  if (p != end && *p == '-') ++p;
  if (p != end && *p == '0') {
    ++p;
  } else if (!digits()) {
    return false;
  }
  if (p != end && *p == '.') {
    ++p;
    if (!digits()) return false;
  }
  if (p != end && (*p == 'e' || *p == 'E')) {
    ++p;
    if (p != end && (*p == '+' || *p == '-')) ++p;
    if (!digits()) return false;
  }
  return p == end;
}

namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// The four digits at `at`, or -1.
int hex_unit(std::string_view body, size_t at) {
  if (body.size() < at + 4) return -1;
  int unit = 0;
  for (size_t i = at; i < at + 4; ++i) {
    int digit = hex_digit(body[i]);
    if (digit < 0) return -1;
    unit = unit * 16 + digit;
  }
  return unit;
}

size_t encode_utf8(uint32_t c, char* out) {
  if (c < 0x80) {
    out[0] = char(c);
    return 1;
  }
  if (c < 0x800) {
    out[0] = char(0xC0 | (c >> 6));
    out[1] = char(0x80 | (c & 0x3F));
    return 2;
  }
  if (c < 0x10000) {
    out[0] = char(0xE0 | (c >> 12));
    out[1] = char(0x80 | ((c >> 6) & 0x3F));
    out[2] = char(0x80 | (c & 0x3F));
    return 3;
  }
  out[0] = char(0xF0 | (c >> 18));
  out[1] = char(0x80 | ((c >> 12) & 0x3F));
  out[2] = char(0x80 | ((c >> 6) & 0x3F));
  out[3] = char(0x80 | (c & 0x3F));
  return 4;
}

char simple_escape(char c) {
  switch (c) {
    case '"':
    case '\\':
    case '/':
      return c;
    case 'b':
      return '\b';
    case 'f':
      return '\f';
    case 'n':
      return '\n';
    case 'r':
      return '\r';
    case 't':
      return '\t';
    default:
      return 0;
  }
}

}  // namespace

EscapeError unescape_json(std::string_view body, char* out, size_t& written) {
  size_t from = 0;
  size_t to = 0;
  while (from < body.size()) {
    const void* found = std::memchr(body.data() + from, '\\', body.size() - from);
    size_t plain = found ? size_t(static_cast<const char*>(found) - body.data()) - from : body.size() - from;
    if (out) std::memcpy(out + to, body.data() + from, plain);
    from += plain;
    to += plain;
    if (!found) break;
    written = from;  // where the escape begins, should it be a fault
    char kind = from + 1 < body.size() ? body[from + 1] : '\0';
    if (kind != 'u') {
      char plain_char = simple_escape(kind);
      if (plain_char == 0) return EscapeError::unknown_escape;
      if (out) out[to] = plain_char;
      to += 1;
      from += 2;
      continue;
    }
    int unit = hex_unit(body, from + 2);
    if (unit < 0) return EscapeError::bad_hex;
    from += 6;
    auto code_point = uint32_t(unit);
    if (unit >= 0xDC00 && unit <= 0xDFFF) return EscapeError::lone_surrogate;
    if (unit >= 0xD800 && unit <= 0xDBFF) {
      bool escaped = from + 1 < body.size() && body[from] == '\\' && body[from + 1] == 'u';
      int low = escaped ? hex_unit(body, from + 2) : -1;
      if (low < 0xDC00 || low > 0xDFFF) return EscapeError::lone_surrogate;
      code_point = 0x10000 + ((uint32_t(unit) - 0xD800) << 10) + (uint32_t(low) - 0xDC00);
      from += 6;
    }
    char encoded[4];
    size_t length = encode_utf8(code_point, encoded);
    if (out) std::memcpy(out + to, encoded, length);
    to += length;
  }
  written = to;
  return EscapeError::none;
}

size_t json_string_size(std::string_view text) {
  size_t size = text.size() + 2;
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') size += 1;
    if (byte < 0x20) size += 5;
  }
  return size;
}

char* write_json_string(char* out, std::string_view text) {
  static constexpr char digits[] = "0123456789abcdef";
  *out++ = '"';
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      *out++ = '\\';
      *out++ = c;
    } else if (byte < 0x20) {
      constexpr std::string_view prefix = "\\u00";
      std::memcpy(out, prefix.data(), prefix.size());
      out[4] = digits[byte >> 4];
      out[5] = digits[byte & 15];
      out += 6;
    } else {
      *out++ = c;
    }
  }
  *out++ = '"';
  return out;
}

std::string show_byte(unsigned char byte) {
  static constexpr char digits[] = "0123456789abcdef";
  if (byte > 0x20 && byte < 0x7F) return {'"', char(byte), '"'};
  return {'0', 'x', digits[byte >> 4], digits[byte & 15]};
}

}  // namespace portage::formats
