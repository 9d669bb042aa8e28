// What the tests and the fuzzers of formats/ share: sources with awkward reads, records copied out of their
// arena, and the properties that hold for any input whatever. No test framework here: a violation is a text.
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "formats/reader.hpp"

namespace portage::formats::testing {

/// Delivers a text in reads of at most `chunk` bytes.
class TextSource final : public ByteSource {
 public:
  explicit TextSource(std::string_view text, size_t chunk = SIZE_MAX) : text_(text), chunk_(chunk) {}
  size_t read(char* buffer, size_t capacity) override {
    size_t bytes = std::min({capacity, chunk_, text_.size()});
    if (bytes != 0) std::memcpy(buffer, text_.data(), bytes);
    text_.remove_prefix(bytes);
    return bytes;
  }

 private:
  std::string_view text_;
  size_t chunk_;
};

/// A record that owns its bytes. Fields read `kind:text`, e.g. `string:abc`, `null:`.
struct Row {
  uint64_t line = 0;
  uint64_t offset = 0;
  uint64_t length = 0;
  std::string raw;
  std::string rule;  // empty when good
  std::string sqlstate;
  std::string message;
  std::string detail;
  std::vector<std::string> fields;
  std::string item;

  bool operator==(const Row&) const = default;
};

inline std::string show(const Field& field) {
  static const char* const names[] = {"missing", "null", "boolean", "number", "string", "json"};
  return std::string(names[size_t(field.kind)]) + ":" + std::string(field.text);
}

inline Row copy_of(const Record& record, size_t paths) {
  Row row{record.line, record.offset,           record.length, std::string(record.raw), {}, {}, {}, {},
          {},          std::string(record.item)};
  if (record.fault) {
    const FaultInfo& info = fault_info(record.fault->code);
    row.rule = info.rule;
    row.sqlstate = info.sqlstate;
    row.message = std::string(record.fault->message);
    row.detail = std::string(record.fault->detail);
  }
  for (size_t i = 0; record.fields && i < paths; ++i) row.fields.push_back(show(record.fields[i]));
  return row;
}

/// One row as text, for messages.
inline std::string show(const Row& row) {
  std::string text = "line " + std::to_string(row.line) + " bytes " + std::to_string(row.offset) + "+" +
                     std::to_string(row.length) + " " + row.rule + " <" + row.raw.substr(0, 200) + "> " +
                     row.detail;
  for (const std::string& field : row.fields) text += " | " + field;
  return text;
}

using Open = std::unique_ptr<Reader> (*)(ByteSource&, Options, const Checkpoint*);

inline std::vector<Row> read_rows(Reader& reader, size_t paths) {
  std::vector<Row> rows;
  Arena arena(4096);
  Record record;
  while (reader.next(arena, record)) {
    rows.push_back(copy_of(record, paths));
    arena.reset();
  }
  return rows;
}

inline std::vector<Row> read_text(Open open, std::string_view text, const Options& options,
                                  size_t chunk = SIZE_MAX) {
  TextSource source(text, chunk);
  return read_rows(*open(source, options, nullptr), options.paths.size());
}

inline std::string compare(const std::vector<Row>& expected, const std::vector<Row>& got,
                           const std::string& how) {
  size_t common = std::min(expected.size(), got.size());
  for (size_t i = 0; i < common; ++i) {
    if (expected[i] == got[i]) continue;
    return how + ": record " + std::to_string(i) + "\n  expected " + show(expected[i]) + "\n  got      " +
           show(got[i]);
  }
  if (expected.size() == got.size()) return {};
  return how + ": " + std::to_string(got.size()) + " records, expected " + std::to_string(expected.size());
}

/// Places of records: in order, not overlapping, within the text, and raw is what stands there.
inline std::string place_violation(std::string_view text, const std::vector<Row>& rows) {
  uint64_t end = 0;
  for (const Row& row : rows) {
    bool whole = row.rule == "items_not_found" && row.offset == 0;
    if (row.offset + row.length > text.size()) return "beyond the end: " + show(row);
    if (row.offset < end && !whole) return "overlap: " + show(row);
    end = row.offset + row.length;
    if (text.substr(row.offset, row.raw.size()) != row.raw)
      return "raw is not what stands there: " + show(row);
    uint64_t kept = std::min<uint64_t>(row.length, fault_head_bytes);
    if (row.rule != "empty_payload" && row.raw.size() < kept) return "raw is too short: " + show(row);
    auto newlines = std::count(text.begin(), text.begin() + long(row.offset), '\n');
    if (row.line != uint64_t(newlines) + 1) return "wrong line: " + show(row);
    if (row.rule.empty() == !row.sqlstate.empty()) return "half a fault: " + show(row);
    if (!row.rule.empty() && !row.fields.empty()) return "fields in spite of a fault: " + show(row);
  }
  return {};
}

/// Resuming at the checkpoint behind each of the first `most` records gives the records that follow.
inline std::string resume_violation(Open open, std::string_view text, const Options& options,
                                    const std::vector<Row>& rows, size_t most) {
  TextSource source(text, 5);
  auto reader = open(source, options, nullptr);
  Arena arena(4096);
  Record record;
  for (size_t done = 0; done <= std::min(rows.size(), most); ++done) {
    Checkpoint checkpoint = reader->checkpoint();
    for (char c : checkpoint.state) {
      if (c < 0x20 || c > 0x7E) return "the state of a checkpoint is not ASCII";
    }
    if (checkpoint.offset > text.size()) return "a checkpoint beyond the end";
    TextSource rest(text.substr(checkpoint.offset));
    auto resumed = read_rows(*open(rest, options, &checkpoint), options.paths.size());
    std::vector<Row> expected(rows.begin() + long(done), rows.end());
    std::string violation = compare(
        expected, resumed, "resumed behind record " + std::to_string(done) + " state " + checkpoint.state);
    if (!violation.empty()) return violation;
    reader->next(arena, record);
    arena.reset();
  }
  return {};
}

/// Cutting alone gives the number, the places and the checkpoints of reading.
inline std::string cut_violation(Open open, std::string_view text, const Options& options, size_t chunk) {
  Options places = options;
  places.places_only = true;
  TextSource read_source(text), cut_source(text, chunk);
  auto reader = open(read_source, options, nullptr);
  auto cutter = open(cut_source, places, nullptr);
  Arena arena(4096);
  for (size_t i = 0;; ++i) {
    Record read, cut;
    bool more = reader->next(arena, read);
    std::string where = "cut in reads of " + std::to_string(chunk) + ", record " + std::to_string(i) + ": ";
    if (cutter->next(arena, cut) != more) return where + (more ? "missing" : "one too many");
    if (more && (read.line != cut.line || read.offset != cut.offset || read.length != cut.length))
      return where + "another place: " + show(copy_of(read, 0)) + "\n  got " + show(copy_of(cut, 0));
    Checkpoint a = reader->checkpoint(), b = cutter->checkpoint();
    if (a.offset != b.offset || a.line != b.line || a.state != b.state) return where + "another checkpoint";
    if (!more) return {};
    arena.reset();
  }
}

/// All that must hold for any input; empty if it does.
inline std::string property_violation(Open open, std::string_view text, const Options& options,
                                      size_t most = 40) {
  std::vector<Row> rows = read_text(open, text, options);
  std::string violation = place_violation(text, rows);
  if (!violation.empty()) return violation;
  for (size_t chunk : {1, 2, 3, 7, 64}) {
    violation = compare(rows, read_text(open, text, options, chunk), "reads of " + std::to_string(chunk));
    if (!violation.empty()) return violation;
    violation = cut_violation(open, text, options, chunk);
    if (!violation.empty()) return violation;
  }
  return resume_violation(open, text, options, rows, most);
}

/// Options with these paths.
inline Options with_paths(std::initializer_list<const char*> paths) {
  Options options;
  for (const char* path : paths) options.paths.push_back(std::get<Path>(parse_path(path)));
  return options;
}

}  // namespace portage::formats::testing
