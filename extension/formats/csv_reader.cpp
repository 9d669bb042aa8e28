// CSV: the header, the fate of every row, and how to find back into the file when a quote never closes. The
// grammar of a row is in csv_row.hpp; this knows columns, nulls and rejects.
#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <unordered_set>
#include <utility>

#include "formats/csv_row.hpp"
#include "formats/reader.hpp"
#include "formats/text.hpp"
#include "formats/window.hpp"

#include "formats/no_postgres.hpp"

namespace portage::formats {

namespace {

// More columns than any table has, times forty: beyond it, what looks like a header is none.
constexpr size_t most_columns = 65536;

constexpr size_t no_column = SIZE_MAX;

/// A fault that is found before there is an arena to put it into.
struct PendingFault {
  FaultCode code;
  std::string detail;
};

/// The reader proper. CsvReader is only its shell, so that columns() may be const and yet read on demand.
class CsvCore {
 public:
  CsvCore(ByteSource& source, Options options, const Checkpoint* resume);

  bool next(Arena& arena, Record& record);
  Checkpoint checkpoint() const;
  const std::vector<std::string>& columns();

 private:
  // What read_row() found at the window's front.
  enum class Found : uint8_t { row, text_after, unterminated, too_large, end };

  Found read_row();
  void prepare();
  void read_header();
  void set_columns(std::vector<std::string> names);
  void take_row(Arena& arena, Record& record);
  std::string_view text_of(const CsvField& field, std::string_view raw, Arena& arena) const;
  Field value_of(const CsvField& field, std::string_view raw, Arena& arena) const;
  std::string_view build_item(std::string_view raw, Arena& arena) const;
  size_t skip_line();
  void reject_line(Arena& arena, Record& record, FaultCode code, std::string_view detail);
  void reject_until_fit(Arena& arena, Record& record, FaultCode code, std::string_view detail);
  void reject_all(Arena& arena, Record& record, FaultCode code, std::string_view detail);
  bool fits() const { return row_.length() != 0 && row_.field_count() == columns_.size(); }

  Options options_;
  size_t limit_;
  CsvRow row_;
  Window window_;
  RejectSpan span_;
  bool prepared_ = false;
  bool finished_ = false;
  std::vector<std::string> columns_;
  std::vector<std::string> item_keys_;  // `{"name":` and `,"name":`, ready to be written
  std::vector<size_t> column_of_path_;
  bool build_item_ = false;
  std::optional<PendingFault> header_fault_;
};

class CsvReader final : public Reader {
 public:
  CsvReader(ByteSource& source, Options options, const Checkpoint* resume)
      : core_(std::make_unique<CsvCore>(source, std::move(options), resume)) {}

  bool next(Arena& arena, Record& record) override { return core_->next(arena, record); }
  Checkpoint checkpoint() const override { return core_->checkpoint(); }
  const std::vector<std::string>* columns() const override { return &core_->columns(); }

 private:
  std::unique_ptr<CsvCore> core_;
};

// The state of a checkpoint keeps the header: names in percent-encoding, so that it is ASCII whatever they
// hold.
std::string encode_names(const std::vector<std::string>& names) {
  static constexpr char digits[] = "0123456789ABCDEF";
  std::string text;
  for (size_t i = 0; i < names.size(); ++i) {
    if (i != 0) text += ',';
    for (char c : names[i]) {
      auto byte = static_cast<unsigned char>(c);
      if (byte >= 0x20 && byte < 0x7F && c != '%' && c != ',') {
        text += c;
      } else {
        text += {'%', digits[byte >> 4], digits[byte & 15]};
      }
    }
  }
  return text;
}

std::vector<std::string> decode_names(std::string_view text) {
  std::vector<std::string> names(1);
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == ',') {
      names.emplace_back();
    } else if (text[i] == '%' && i + 2 < text.size()) {
      auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'A' + 10; };
      names.back() += char(digit(text[i + 1]) * 16 + digit(text[i + 2]));
      i += 2;
    } else {
      names.back() += text[i];
    }
  }
  return names;
}

CsvCore::CsvCore(ByteSource& source, Options options, const Checkpoint* resume)
    : options_(std::move(options)),
      limit_(item_limit(options_)),
      row_(options_.delimiter, options_.quote, options_.escape),
      window_(source, resume) {
  if (!options_.header && options_.columns.empty()) {
    throw std::invalid_argument("csv needs a header or the names of the columns");
  }
  if (!resume || resume->state.empty()) return;
  if (resume->state[0] != 'c' && resume->state[0] != 'x') {
    throw std::invalid_argument("checkpoint is not one of a csv reader");
  }
  prepared_ = true;
  finished_ = resume->state[0] == 'x';
  if (resume->state != "x") set_columns(decode_names(std::string_view(resume->state).substr(1)));
}

// State: nothing before the header or without one, else `c`, or at the end `x`, and the header.
Checkpoint CsvCore::checkpoint() const {
  Checkpoint checkpoint{window_.offset(), window_.line(), finished_ ? "x" : ""};
  if (options_.header && prepared_ && !header_fault_) {
    checkpoint.state = (finished_ ? "x" : "c") + encode_names(columns_);
  }
  return checkpoint;
}

const std::vector<std::string>& CsvCore::columns() {
  prepare();
  return columns_;
}

void CsvCore::prepare() {
  if (prepared_) return;
  prepared_ = true;
  window_.skip_byte_order_mark();
  if (options_.header) {
    read_header();
  } else {
    set_columns(options_.columns);
  }
}

void CsvCore::read_header() {
  row_.keep_at_most(most_columns);
  Found found = read_row();
  while (found == Found::row && row_.length() == 0) {
    window_.consume(row_.consumed(), row_.newlines());
    found = read_row();
  }
  if (found == Found::end) {
    header_fault_ = PendingFault{FaultCode::empty_payload, "There is no header."};
  } else if (found == Found::text_after) {
    header_fault_ = PendingFault{FaultCode::malformed_row, "The row is the header."};
  } else if (found == Found::unterminated) {
    header_fault_ = PendingFault{FaultCode::unterminated_quote, "The row is the header."};
  } else if (found == Found::too_large || row_.field_count() > most_columns) {
    header_fault_ = PendingFault{FaultCode::item_too_large, "The row is the header."};
  }
  if (header_fault_) return;
  std::string_view raw(window_.data(), row_.length());
  if (options_.utf8 && !valid_utf8(raw)) {
    header_fault_ = PendingFault{FaultCode::invalid_encoding, "The row is the header."};
    return;
  }
  std::vector<std::string> names = options_.columns;
  if (names.empty()) {
    Arena arena(4096);
    for (const CsvField& field : row_.fields()) names.emplace_back(text_of(field, raw, arena));
  }
  set_columns(std::move(names));
  if (!header_fault_) window_.consume(row_.consumed(), row_.newlines());
}

void CsvCore::set_columns(std::vector<std::string> names) {
  std::unordered_set<std::string_view> seen;
  for (size_t i = 0; i < names.size(); ++i) {
    if (seen.insert(names[i]).second) continue;
    size_t first = size_t(std::find(names.begin(), names.end(), names[i]) - names.begin());
    header_fault_ =
        PendingFault{FaultCode::duplicate_header, "Columns " + std::to_string(first + 1) + " and " +
                                                      std::to_string(i + 1) + " have the same name."};
    return;
  }
  columns_ = std::move(names);
  row_.keep_at_most(columns_.size());
  build_item_ = options_.want_item;
  for (const Path& path : options_.paths) {
    size_t column = no_column;
    if (path.steps.size() == 1 && !path.steps[0].is_index) {
      auto found = std::find(columns_.begin(), columns_.end(), path.steps[0].key);
      if (found != columns_.end()) column = size_t(found - columns_.begin());
    }
    column_of_path_.push_back(column);
    if (path.steps.empty()) build_item_ = true;
  }
  for (const std::string& name : columns_) {
    std::string key(json_string_size(name), '\0');
    write_json_string(key.data(), name);
    item_keys_.push_back((item_keys_.empty() ? "{" : ",") + key + ":");
  }
}

CsvCore::Found CsvCore::read_row() {
  for (;;) {
    // What is in sight is cut at the limit, so that the outcome does not depend on how much was read ahead.
    // Two bytes more: the line end.
    size_t size = std::min(window_.size(), limit_ + 2);
    bool at_end = window_.ended() && size == window_.size();
    if (at_end && size == 0) return Found::end;
    if (size != 0) {
      switch (row_.parse(window_.data(), size, at_end)) {
        case CsvRow::Result::row:
          return row_.length() > limit_ ? Found::too_large : Found::row;
        case CsvRow::Result::text_after:
          return Found::text_after;
        case CsvRow::Result::unterminated:
          return Found::unterminated;
        case CsvRow::Result::more:
          break;
      }
      if (size == limit_ + 2) return row_.in_quotes() ? Found::unterminated : Found::too_large;
    }
    window_.fill_towards(limit_ + 2);
  }
}

bool CsvCore::next(Arena& arena, Record& record) {
  prepare();
  if (finished_) return false;
  if (header_fault_) {
    reject_all(arena, record, header_fault_->code, header_fault_->detail);
    return true;
  }
  for (;;) {
    switch (read_row()) {
      case Found::end:
        finished_ = true;
        return false;
      case Found::row:
        if (row_.length() == 0) {
          window_.consume(row_.consumed(), row_.newlines());
          continue;
        }
        take_row(arena, record);
        window_.consume(row_.consumed(), row_.newlines());
        return true;
      case Found::too_large:
        reject_line(arena, record, FaultCode::item_too_large,
                    "The limit is " + std::to_string(limit_) + " bytes.");
        return true;
      case Found::text_after:
        // On the first line it is this row that is bad; further down more likely a quote was not closed
        // above.
        if (row_.newlines() == 0) {
          reject_line(arena, record, FaultCode::malformed_row, {});
        } else {
          reject_until_fit(arena, record, FaultCode::unterminated_quote,
                           "A quote further down closes it in the middle of a field.");
        }
        return true;
      case Found::unterminated:
        reject_until_fit(arena, record, FaultCode::unterminated_quote,
                         "There is no closing quote before the end of the input, within " +
                             std::to_string(CsvRow::most_lines) + " lines and " + std::to_string(limit_) +
                             " bytes.");
        return true;
    }
  }
}

void CsvCore::take_row(Arena& arena, Record& record) {
  record = Record{};
  record.line = window_.line();
  record.offset = window_.offset();
  record.length = row_.length();
  if (options_.places_only) return;
  record.raw = arena.copy({window_.data(), row_.length()});
  if (options_.utf8 && !valid_utf8(record.raw)) {
    size_t at = find_invalid_utf8(record.raw);
    record.fault = make_fault(arena, FaultCode::invalid_encoding,
                              "Byte " + std::to_string(at) + " of the row is " +
                                  show_byte(static_cast<unsigned char>(record.raw[at])) + ".");
    return;
  }
  if (row_.field_count() != columns_.size()) {
    record.fault = make_fault(arena, FaultCode::ragged_row,
                              "The row has " + std::to_string(row_.field_count()) + " fields, expected " +
                                  std::to_string(columns_.size()) + ".");
    return;
  }
  std::string_view item = build_item_ ? build_item(record.raw, arena) : std::string_view();
  if (options_.want_item) record.item = item;
  record.fields = arena.make_array<Field>(column_of_path_.size());
  for (size_t i = 0; i < column_of_path_.size(); ++i) {
    size_t column = column_of_path_[i];
    if (column != no_column) {
      record.fields[i] = value_of(row_.fields()[column], record.raw, arena);
    } else if (options_.paths[i].steps.empty()) {
      record.fields[i] = {Kind::json, item};
    }
  }
}

std::string_view CsvCore::text_of(const CsvField& field, std::string_view raw, Arena& arena) const {
  std::string_view text = raw.substr(field.begin, field.end - field.begin);
  if (!field.escaped) return text;
  char* out = arena.allocate(text.size(), 1);
  return {out, row_.unescape(text.data(), text.size(), out)};
}

Field CsvCore::value_of(const CsvField& field, std::string_view raw, Arena& arena) const {
  std::string_view text = text_of(field, raw, arena);
  bool is_null = !field.quoted && (options_.null_string ? text == *options_.null_string : text.empty());
  if (is_null) return {Kind::null, {}};
  return {Kind::string, text};
}

std::string_view CsvCore::build_item(std::string_view raw, Arena& arena) const {
  Field* values = arena.make_array<Field>(columns_.size());
  size_t size = 1;
  for (size_t i = 0; i < columns_.size(); ++i) {
    values[i] = value_of(row_.fields()[i], raw, arena);
    size += item_keys_[i].size() + (values[i].kind == Kind::null ? 4 : json_string_size(values[i].text));
  }
  char* start = arena.allocate(size + 1, 1);
  char* out = start;
  for (size_t i = 0; i < columns_.size(); ++i) {
    std::memcpy(out, item_keys_[i].data(), item_keys_[i].size());
    out += item_keys_[i].size();
    if (values[i].kind == Kind::null) {
      std::memcpy(out, "null", 4);
      out += 4;
    } else {
      out = write_json_string(out, values[i].text);
    }
  }
  *out++ = '}';
  *out = '\0';
  return {start, size};
}

// Takes the rest of the line with its end into the span; returns the bytes of the line end.
size_t CsvCore::skip_line() {
  bool carriage_return = false;
  for (;;) {
    std::string_view view = window_.view();
    size_t newline = view.find('\n');
    size_t length = newline == std::string_view::npos ? view.size() : newline;
    if (length != 0) carriage_return = view[length - 1] == '\r';
    span_.take(window_, newline == std::string_view::npos ? length : length + 1);
    if (newline != std::string_view::npos) return carriage_return ? 2 : 1;
    if (!window_.fill()) return carriage_return ? 1 : 0;
  }
}

void CsvCore::reject_line(Arena& arena, Record& record, FaultCode code, std::string_view detail) {
  span_.start(window_);
  size_t line_end = skip_line();
  span_.finish(arena, record, code, detail, line_end);
}

// The span ends where a line, taken as the beginning of a row, has the right number of fields.
void CsvCore::reject_until_fit(Arena& arena, Record& record, FaultCode code, std::string_view detail) {
  span_.start(window_);
  size_t line_end = skip_line();
  for (;;) {
    Found found = read_row();
    if (found == Found::end || (found == Found::row && fits())) break;
    line_end = skip_line();
  }
  span_.finish(arena, record, code, detail, line_end);
}

void CsvCore::reject_all(Arena& arena, Record& record, FaultCode code, std::string_view detail) {
  span_.start(window_);
  span_.take_rest(window_);
  span_.finish(arena, record, code, detail);
  finished_ = true;
}

}  // namespace

std::unique_ptr<Reader> open_csv(ByteSource& source, Options options, const Checkpoint* resume) {
  return std::make_unique<CsvReader>(source, std::move(options), resume);
}

}  // namespace portage::formats
