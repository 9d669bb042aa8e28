// One CSV row: a fast pass over rows without quotes, with SSE2 where it is there, and a careful one over the
// rest.
#include "formats/csv_row.hpp"

#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "formats/text.hpp"

#include "formats/no_postgres.hpp"

namespace portage::formats {

namespace {
constexpr size_t not_found = SIZE_MAX;
}

CsvRow::Result CsvRow::parse(const char* data, size_t size, bool at_end) {
  bool saw_quote = false;
  Result result = parse_plain(data, size, at_end, saw_quote);
  return saw_quote ? parse_quoted(data, size, at_end) : result;
}

// `line_end`: the line feed, or `size` at the end of the input.
CsvRow::Result CsvRow::finish(const char* data, size_t line_end, size_t size) {
  length_ = line_end;
  consumed_ = line_end;
  if (line_end < size) {
    consumed_ += 1;
    newlines_ += 1;
  }
  if (length_ > 0 && data[length_ - 1] == '\r') length_ -= 1;
  return Result::row;
}

CsvRow::Result CsvRow::parse_plain(const char* data, size_t size, bool at_end, bool& saw_quote) {
  fields_.clear();
  count_ = 0;
  newlines_ = 0;
  in_quotes_ = false;
  size_t start = 0;
  size_t i = 0;
  // True: the row ends here, or needs the careful pass.
  auto event = [&](size_t position) {
    char c = data[position];
    if (c == delimiter_) {
      add(start, position, false, false);
      start = position + 1;
      return false;
    }
    if (c == '\n') {
      finish(data, position, size);
      // A delimiter is never a carriage return, so the last field is not shorter than nothing.
      add(start, length_ < start ? start : length_, false, false);
      return true;
    }
    saw_quote = true;
    return true;
  };
#if defined(__SSE2__)
  const __m128i delimiters = _mm_set1_epi8(delimiter_);
  const __m128i newline = _mm_set1_epi8('\n');
  const __m128i quotes = _mm_set1_epi8(has_quote_ ? quote_ : '\n');
  for (; size - i >= 16; i += 16) {
    __m128i block = _mm_loadu_si128(reinterpret_cast<const __m128i*>(data + i));
    __m128i hits =
        _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(block, delimiters), _mm_cmpeq_epi8(block, newline)),
                     _mm_cmpeq_epi8(block, quotes));
    auto events = unsigned(_mm_movemask_epi8(hits));
    while (events != 0) {
      if (event(i + size_t(__builtin_ctz(events)))) return Result::row;
      events &= events - 1;
    }
  }
#endif
  for (; i < size; ++i) {
    char c = data[i];
    if (c != delimiter_ && c != '\n' && !(has_quote_ && c == quote_)) continue;
    if (event(i)) return Result::row;
  }
  if (!at_end) return Result::more;
  finish(data, size, size);
  add(start, length_ < start ? start : length_, false, false);
  return Result::row;
}

CsvRow::Result CsvRow::parse_quoted(const char* data, size_t size, bool at_end) {
  fields_.clear();
  count_ = 0;
  newlines_ = 0;
  in_quotes_ = false;
  size_t position = 0;
  for (;;) {
    if (position < size && data[position] == quote_) {
      bool last = false;
      Result result = quoted_field(data, size, at_end, position, last);
      if (result != Result::row || last) return result;
      continue;
    }
    size_t end = position;
    while (end < size && data[end] != delimiter_ && data[end] != '\n') ++end;
    if (end == size && !at_end) return Result::more;
    if (end < size && data[end] == delimiter_) {
      add(position, end, false, false);
      position = end + 1;
      continue;
    }
    finish(data, end, size);
    add(position, length_ < position ? position : length_, false, false);
    return Result::row;
  }
}

// The field whose opening quote is at `position`, which moves behind the delimiter. `last`: it ended the row.
CsvRow::Result CsvRow::quoted_field(const char* data, size_t size, bool at_end, size_t& position,
                                    bool& last) {
  size_t begin = position + 1;
  bool escaped = false;
  size_t close = find_closing(data, size, begin, at_end, escaped);
  size_t seen = close == not_found ? size : close;
  uint64_t lines = newlines_ + count_newlines(data + begin, seen - begin);
  if (lines > most_lines) return Result::unterminated;
  if (close == not_found) {
    in_quotes_ = true;
    return at_end ? Result::unterminated : Result::more;
  }
  newlines_ = lines;
  size_t next = close + 1;
  if (next == size && !at_end) return Result::more;
  if (next < size && data[next] == delimiter_) {
    add(begin, close, true, escaped);
    position = next + 1;
    return Result::row;
  }
  if (next < size && data[next] == '\r') {
    if (next + 1 == size && !at_end) return Result::more;
    ++next;
  }
  if (next < size && data[next] != '\n') return Result::text_after;
  add(begin, close, true, escaped);
  last = true;
  return finish(data, next, size);
}

// The quote that closes the field, or not_found. It is not known as such until the byte behind it is.
size_t CsvRow::find_closing(const char* data, size_t size, size_t from, bool at_end, bool& escaped) const {
  while (from < size) {
    if (escape_ == quote_) {
      const void* found = std::memchr(data + from, quote_, size - from);
      if (!found) return not_found;
      size_t at = size_t(static_cast<const char*>(found) - data);
      if (at + 1 == size) return at_end ? at : not_found;
      if (data[at + 1] != quote_) return at;
      escaped = true;
      from = at + 2;
      continue;
    }
    while (from < size && data[from] != quote_ && data[from] != escape_) ++from;
    if (from == size) return not_found;
    if (data[from] == quote_) return from;
    if (from + 1 == size) return not_found;
    bool pair = data[from + 1] == quote_ || data[from + 1] == escape_;
    escaped = escaped || pair;
    from += pair ? 2 : 1;
  }
  return not_found;
}

size_t CsvRow::unescape(const char* text, size_t size, char* out) const {
  size_t written = 0;
  for (size_t i = 0; i < size; ++i) {
    bool pair = text[i] == escape_ && i + 1 < size && (text[i + 1] == quote_ || text[i + 1] == escape_);
    if (pair) ++i;
    out[written++] = text[i];
  }
  return written;
}

}  // namespace portage::formats
