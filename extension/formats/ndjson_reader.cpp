// NDJSON: one item per line. Lines are cut here; what stands on them is the item parser's business.
#include <cstring>
#include <string>

#include "formats/item_parser.hpp"
#include "formats/reader.hpp"
#include "formats/text.hpp"
#include "formats/window.hpp"

#include "formats/no_postgres.hpp"

namespace portage::formats {

namespace {

class NdjsonReader final : public Reader {
 public:
  NdjsonReader(ByteSource& source, Options options, const Checkpoint* resume)
      : options_(std::move(options)),
        limit_(item_limit(options_)),
        parser_(options_.paths, options_.max_depth),
        window_(source, resume),
        started_(window_.offset() != 0) {}

  bool next(Arena& arena, Record& record) override;
  Checkpoint checkpoint() const override { return {window_.offset(), window_.line(), {}}; }

 private:
  void take_line(std::string_view line, Arena& arena, Record& record);
  void skip_line(Arena& arena, Record& record);

  Options options_;
  size_t limit_;
  ItemParser parser_;
  Window window_;
  RejectSpan span_;
  bool started_;
};

std::string_view without_carriage_return(std::string_view line) {
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  return line;
}

bool NdjsonReader::next(Arena& arena, Record& record) {
  if (!started_) {
    window_.skip_byte_order_mark();
    started_ = true;
  }
  size_t scanned = 0;
  for (;;) {
    size_t rest = window_.size() - scanned;
    const void* found = rest == 0 ? nullptr : std::memchr(window_.data() + scanned, '\n', rest);
    size_t length = found ? size_t(static_cast<const char*>(found) - window_.data()) : window_.size();
    // One byte more than the limit may still be a carriage return.
    if (length > limit_ + 1) {
      skip_line(arena, record);
      return true;
    }
    if (!found) {
      scanned = length;
      if (window_.fill_towards(limit_ + 2)) continue;
      if (length == 0) return false;
    }
    std::string_view line = without_carriage_return({window_.data(), length});
    if (line.size() > limit_) {
      skip_line(arena, record);
      return true;
    }
    if (trim(line).empty()) {
      window_.consume(length + (found ? 1 : 0), found ? 1 : 0);
      scanned = 0;
      continue;
    }
    take_line(line, arena, record);
    window_.consume(length + (found ? 1 : 0), found ? 1 : 0);
    return true;
  }
}

void NdjsonReader::take_line(std::string_view line, Arena& arena, Record& record) {
  record = Record{};
  record.line = window_.line();
  record.offset = window_.offset();
  record.length = line.size();
  if (options_.places_only) return;
  record.raw = arena.copy(line);
  if (parser_.parse(record.raw, arena, record) && options_.want_item) record.item = trim(record.raw);
}

// Lets a line pass that is too large to be held.
void NdjsonReader::skip_line(Arena& arena, Record& record) {
  span_.start(window_);
  bool carriage_return = false;
  for (;;) {
    const void* found = window_.size() == 0 ? nullptr : std::memchr(window_.data(), '\n', window_.size());
    size_t length = found ? size_t(static_cast<const char*>(found) - window_.data()) : window_.size();
    if (length != 0) carriage_return = window_.data()[length - 1] == '\r';
    span_.take(window_, length);
    if (found || !window_.fill()) break;
  }
  size_t line_end = carriage_return ? 1 : 0;
  std::string detail = "The line has " + std::to_string(span_.length() - line_end) + " bytes, the limit is " +
                       std::to_string(limit_) + ".";
  span_.finish(arena, record, FaultCode::item_too_large, detail, line_end);
  if (window_.size() != 0) window_.consume(1, 1);
}

}  // namespace

std::unique_ptr<Reader> open_ndjson(ByteSource& source, Options options, const Checkpoint* resume) {
  return std::make_unique<NdjsonReader>(source, std::move(options), resume);
}

}  // namespace portage::formats
