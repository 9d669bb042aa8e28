// The string- and nesting-aware scan, 64 bytes at a time where SSE2 is there (always on x86-64), byte by byte
// elsewhere and at the ends of pieces. Both ways give the same result for any bytes, well-formed or not.
#include "formats/bracket_scanner.hpp"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "formats/no_postgres.hpp"

namespace portage::formats {

void BracketScanner::open(char bracket) {
  // '[' and ']', '{' and '}' are two apart in ASCII.
  if (depth_ < stack_.size()) stack_[depth_] = char(bracket + 2);
  ++depth_;
}

// False: a bracket of the wrong kind.
bool BracketScanner::close(char bracket, bool& complete) {
  --depth_;
  complete = depth_ == 0;
  return depth_ >= stack_.size() || stack_[depth_] == bracket;
}

BracketScanner::Result BracketScanner::scan_bytes(const char* data, size_t size, size_t& taken) {
  for (size_t i = 0; i < size; ++i) {
    char c = data[i];
    if (escaped_) {
      // A backslash outside a string is a fault of the item; here it hides quotes, but no brackets, from the
      // scan.
      escaped_ = false;
      if (in_string_ || c == '"' || c == '\\') continue;
    } else if (c == '\\') {
      escaped_ = true;
      continue;
    } else if (c == '"') {
      in_string_ = !in_string_;
      if (in_string_ || depth_ != 0) continue;
      taken = i + 1;
      return Result::complete;
    }
    if (in_string_) continue;
    char folded = char(c | 0x20);
    if (folded == '{') {
      open(c);
    } else if (folded == '}') {
      bool complete = false;
      bool matches = close(c, complete);
      taken = i + 1;
      if (!matches) return Result::mismatch;
      if (complete) return Result::complete;
    }
  }
  taken = size;
  return Result::more;
}

#if defined(__SSE2__)

namespace {

struct Masks {
  uint64_t quotes = 0;
  uint64_t backslashes = 0;
  uint64_t brackets = 0;
};

Masks classify(const char* data) {
  const __m128i quote = _mm_set1_epi8('"');
  const __m128i backslash = _mm_set1_epi8('\\');
  const __m128i fold = _mm_set1_epi8(0x20);
  const __m128i opening = _mm_set1_epi8('{');
  const __m128i closing = _mm_set1_epi8('}');
  Masks masks;
  for (size_t i = 0; i < 4; ++i) {
    __m128i block = _mm_loadu_si128(reinterpret_cast<const __m128i*>(data + 16 * i));
    __m128i folded = _mm_or_si128(block, fold);
    __m128i brackets = _mm_or_si128(_mm_cmpeq_epi8(folded, opening), _mm_cmpeq_epi8(folded, closing));
    masks.quotes |= uint64_t(uint32_t(_mm_movemask_epi8(_mm_cmpeq_epi8(block, quote)))) << (16 * i);
    masks.backslashes |= uint64_t(uint32_t(_mm_movemask_epi8(_mm_cmpeq_epi8(block, backslash)))) << (16 * i);
    masks.brackets |= uint64_t(uint32_t(_mm_movemask_epi8(brackets))) << (16 * i);
  }
  return masks;
}

// Bit i is the parity of bits 0..i: set from each opening quote up to the byte before the closing one.
uint64_t prefix_xor(uint64_t bits) {
  bits ^= bits << 1;
  bits ^= bits << 2;
  bits ^= bits << 4;
  bits ^= bits << 8;
  bits ^= bits << 16;
  bits ^= bits << 32;
  return bits;
}

}  // namespace

BracketScanner::Result BracketScanner::scan_block(const char* data, size_t& taken) {
  Masks masks = classify(data);
  if (escaped_ || masks.backslashes != 0) {
    uint64_t escaped_bits = escaped_ ? 1 : 0;
    uint64_t left = masks.backslashes & ~escaped_bits;
    escaped_ = false;
    while (left != 0) {
      int i = __builtin_ctzll(left);
      left &= left - 1;
      if (i == 63) {
        escaped_ = true;
        break;
      }
      escaped_bits |= uint64_t{2} << i;
      left &= ~(uint64_t{2} << i);
    }
    masks.quotes &= ~escaped_bits;
  }
  uint64_t strings = prefix_xor(masks.quotes) ^ (in_string_ ? ~uint64_t{0} : 0);
  uint64_t events = masks.brackets & ~strings;
  // A quote ends the scan only where the value is a lone string.
  if (depth_ == 0) events |= masks.quotes;
  while (events != 0) {
    int i = __builtin_ctzll(events);
    events &= events - 1;
    char c = data[i];
    if (c == '"') {
      bool opens = (strings >> i) & 1;
      if (opens || depth_ != 0) continue;
      taken = size_t(i) + 1;
      return Result::complete;
    }
    if ((c | 0x20) == '{') {
      open(c);
      continue;
    }
    bool complete = false;
    bool matches = close(c, complete);
    if (!matches || complete) {
      taken = size_t(i) + 1;
      return matches ? Result::complete : Result::mismatch;
    }
  }
  in_string_ = (strings >> 63) != 0;
  taken = 64;
  return Result::more;
}

#endif

BracketScanner::Result BracketScanner::scan(const char* data, size_t size, size_t& taken) {
  size_t done = 0;
#if defined(__SSE2__)
  while (size - done >= 64) {
    size_t step = 0;
    Result result = scan_block(data + done, step);
    done += step;
    if (result != Result::more) {
      taken = done;
      return result;
    }
  }
#endif
  size_t step = 0;
  Result result = scan_bytes(data + done, size - done, step);
  taken = done + step;
  return result;
}

}  // namespace portage::formats
