// The grammar of one CSV row: where its fields are and where it ends. It sees bytes only; what the columns
// are called, what null means and what to do with a bad row is decided by the reader.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace portage::formats {

/// Where a field stands in its row; quotes excluded.
struct CsvField {
  size_t begin;
  size_t end;
  bool quoted;
  bool escaped;  ///< holds escapes that have to be taken out
};

/// Finds the fields of a row. The result does not depend on how much of what follows is in sight.
class CsvRow {
 public:
  /// A quoted field that goes on for more lines than this counts as one whose quote never closes.
  static constexpr uint64_t most_lines = 1000;

  enum class Result : uint8_t {
    more,          ///< the row goes on beyond the bytes given
    row,           ///< a row, or a blank line (length 0)
    text_after,    ///< there is text behind a closing quote
    unterminated,  ///< a quote is not closed before the end of the input, or within most_lines
  };

  /// `escape`: what makes a quote inside quotes literal, by default the quote itself.
  CsvRow(char delimiter, std::optional<char> quote, std::optional<char> escape)
      : delimiter_(delimiter),
        has_quote_(quote.has_value()),
        quote_(quote.value_or('"')),
        escape_(escape.value_or(quote_)) {}

  /// Parses the row at data[0]. `at_end`: nothing follows these bytes.
  Result parse(const char* data, size_t size, bool at_end);

  /// At most so many fields are kept; the others are only counted, so that memory stays bounded.
  void keep_at_most(size_t fields) { most_fields_ = fields; }

  const std::vector<CsvField>& fields() const { return fields_; }
  size_t field_count() const { return count_; }
  size_t length() const { return length_; }        ///< without the line end
  size_t consumed() const { return consumed_; }    ///< with the line end
  uint64_t newlines() const { return newlines_; }  ///< within consumed(); after a fault, before the fault
  bool in_quotes() const { return in_quotes_; }    ///< after `more`: a quote was open at the end of the bytes

  /// Writes the text of an escaped field, which needs at most `size` bytes; returns its length.
  size_t unescape(const char* text, size_t size, char* out) const;

 private:
  Result parse_plain(const char* data, size_t size, bool at_end, bool& saw_quote);
  Result parse_quoted(const char* data, size_t size, bool at_end);
  Result quoted_field(const char* data, size_t size, bool at_end, size_t& position, bool& last);
  size_t find_closing(const char* data, size_t size, size_t from, bool at_end, bool& escaped) const;
  Result finish(const char* data, size_t line_end, size_t size);

  void add(size_t begin, size_t end, bool quoted, bool escaped) {
    if (count_++ < most_fields_) fields_.push_back({begin, end, quoted, escaped});
  }

  char delimiter_;
  bool has_quote_;
  char quote_;
  char escape_;
  size_t most_fields_ = SIZE_MAX;
  std::vector<CsvField> fields_;
  size_t count_ = 0;
  size_t length_ = 0;
  size_t consumed_ = 0;
  uint64_t newlines_ = 0;
  bool in_quotes_ = false;
};

}  // namespace portage::formats
