// A JSON document of any size, cut into items: this walks down to the array of items, cuts its elements and
// walks up again, looking only at strings and brackets. What is inside an item is the item parser's business.
#include <algorithm>
#include <stdexcept>
#include <string>

#include "formats/bracket_scanner.hpp"
#include "formats/item_parser.hpp"
#include "formats/reader.hpp"
#include "formats/text.hpp"
#include "formats/window.hpp"

#include "formats/no_postgres.hpp"

namespace portage::formats {

namespace {

class JsonReader final : public Reader {
 public:
  JsonReader(ByteSource& source, Options options, const Checkpoint* resume)
      : options_(std::move(options)),
        limit_(item_limit(options_)),
        steps_(options_.items.steps),
        parser_(options_.paths, options_.max_depth),
        // One more than the items may have, so that the item parser sees what is too deep.
        scanner_(std::min(options_.max_depth, ItemParser::deepest) + 1),
        window_(source, resume) {
    if (resume) restore(resume->state);
  }

  bool next(Arena& arena, Record& record) override;
  Checkpoint checkpoint() const override;

 private:
  // What the grammar wants at the window's front.
  enum class Expect : uint8_t {
    begin,        // the document
    value,        // a value
    first_value,  // a value, or the end of an array just opened
    key,          // a key
    first_key,    // a key, or the end of an object just opened
    after,        // a comma, or the end of the container; at the root, the end of the document
    finished,     // nothing: the end, or broken
  };

  // An open container on the way to the items, or the array of items itself.
  struct Level {
    bool is_array;
    uint32_t index;
  };

  // What a step of next() came to.
  enum class Step : uint8_t { go_on, record, end };

  Step begin(Arena& arena, Record& record);
  Step value(Arena& arena, Record& record);
  Step value_on_path(Arena& arena, Record& record);
  Step key(Arena& arena, Record& record);
  Step after(Arena& arena, Record& record);
  Step end_of_document(Arena& arena, Record& record);

  Step cut_item(Arena& arena, Record& record);
  Step take_item(size_t length, Arena& arena, Record& record);
  Step take_root_scalar(Arena& arena, Record& record);
  Step refuse_scalar(Arena& arena, Record& record);
  Step skip_value(Arena& arena, Record& record);

  BracketScanner::Result scan(size_t from, size_t& taken);
  BracketScanner::Result pass(Arena& arena, Record& record);
  Step broken(FaultCode code, std::string_view detail, Arena& arena, Record& record);
  Step broken_span(FaultCode code, std::string_view detail, Arena& arena, Record& record);
  Step incomplete(Arena& arena, Record& record);
  Step unexpected(const char* expected, Arena& arena, Record& record);

  bool skip_space();
  char front() const { return *window_.data(); }
  bool in_items() const { return levels_.size() > steps_.size(); }
  bool key_matches(std::string_view raw) const;
  void open(bool is_array);
  void restore(const std::string& state);

  Options options_;
  size_t limit_;
  const std::vector<formats::Step>& steps_;
  ItemParser parser_;
  BracketScanner scanner_;
  Window window_;
  RejectSpan span_;
  std::vector<Level> levels_;
  Expect expect_ = Expect::begin;
  bool on_path_ = true;     // the value that comes next is where the path leads so far
  bool in_scalar_ = false;  // the value being scanned is neither container nor string
  bool found_ = false;
  std::string head_;  // of the document, for the record that tells of no items
};

bool ends_scalar(char c) {
  switch (c) {
    case ',':
    case ']':
    case '}':
    case '[':
    case '{':
    case '"':
    case ':':
      return true;
    default:
      return is_space(c);
  }
}

bool JsonReader::next(Arena& arena, Record& record) {
  for (;;) {
    Step step = Step::end;
    switch (expect_) {
      case Expect::begin:
        step = begin(arena, record);
        break;
      case Expect::value:
      case Expect::first_value:
        step = value(arena, record);
        break;
      case Expect::key:
      case Expect::first_key:
        step = key(arena, record);
        break;
      case Expect::after:
        step = after(arena, record);
        break;
      case Expect::finished:
        return false;
    }
    if (step == Step::record) return true;
    if (step == Step::end) {
      expect_ = Expect::finished;
      return false;
    }
  }
}

JsonReader::Step JsonReader::begin(Arena& arena, Record& record) {
  // What does not belong to an item is only kept where it may have to be shown.
  if (!steps_.empty()) {
    window_.fill(fault_head_bytes);
    head_ = window_.view().substr(0, fault_head_bytes);
  }
  window_.skip_byte_order_mark();
  uint64_t mark = window_.offset();
  if (!skip_space()) {
    record = Record{};
    record.line = 1;
    record.length = window_.offset();
    record.fault = make_fault(arena, FaultCode::empty_payload,
                              mark == window_.offset() ? "" : "There is only white space.");
    expect_ = Expect::finished;
    return Step::record;
  }
  expect_ = Expect::value;
  return Step::go_on;
}

JsonReader::Step JsonReader::value(Arena& arena, Record& record) {
  if (!skip_space()) return incomplete(arena, record);
  if (expect_ == Expect::first_value && front() == ']') {
    expect_ = Expect::after;
    return Step::go_on;
  }
  if (in_items()) return cut_item(arena, record);
  if (on_path_) return value_on_path(arena, record);
  return skip_value(arena, record);
}

JsonReader::Step JsonReader::value_on_path(Arena& arena, Record& record) {
  char c = front();
  bool is_container = c == '{' || c == '[';
  if (levels_.size() < steps_.size()) {
    if (levels_.empty() && !is_container) return refuse_scalar(arena, record);
    bool leads_on = c == (steps_[levels_.size()].is_index ? '[' : '{');
    if (!leads_on) return skip_value(arena, record);
    open(c == '[');
    return Step::go_on;
  }
  if (!is_container && steps_.empty()) return take_root_scalar(arena, record);
  if (!is_container && options_.scalar_items) {
    found_ = true;
    return cut_item(arena, record);
  }
  if (!is_container) return refuse_scalar(arena, record);
  found_ = true;
  if (c == '{') return cut_item(arena, record);
  open(true);
  return Step::go_on;
}

void JsonReader::open(bool is_array) {
  window_.consume(1, 0);
  levels_.push_back({is_array, 0});
  expect_ = is_array ? Expect::first_value : Expect::first_key;
  on_path_ = is_array && !in_items() && steps_[levels_.size() - 1].index == 0;
}

JsonReader::Step JsonReader::key(Arena& arena, Record& record) {
  if (!skip_space()) return incomplete(arena, record);
  if (expect_ == Expect::first_key && front() == '}') {
    expect_ = Expect::after;
    return Step::go_on;
  }
  if (front() != '"') return unexpected("a key", arena, record);
  scanner_.start();
  in_scalar_ = false;
  size_t scanned = 0;
  for (;;) {
    size_t taken = 0;
    auto result = scan(scanned, taken);
    scanned += taken;
    if (result == BracketScanner::Result::complete) {
      on_path_ = key_matches({window_.data() + 1, scanned - 2});
      window_.consume(scanned);
      break;
    }
    if (scanned > fault_head_bytes) {  // too long to be a key of ours
      span_.start(window_);
      span_.take(window_, scanned);
      if (pass(arena, record) != BracketScanner::Result::complete) return Step::record;
      on_path_ = false;
      break;
    }
    if (!window_.fill_towards(2 * fault_head_bytes)) return incomplete(arena, record);
  }
  if (!skip_space()) return incomplete(arena, record);
  if (front() != ':') return unexpected("a colon", arena, record);
  window_.consume(1, 0);
  expect_ = Expect::value;
  return Step::go_on;
}

bool JsonReader::key_matches(std::string_view raw) const {
  const std::string& wanted = steps_[levels_.size() - 1].key;
  if (raw.find('\\') == std::string_view::npos) return raw == wanted;
  std::string key(raw.size(), '\0');
  size_t written = 0;
  if (unescape_json(raw, key.data(), written) != EscapeError::none) return false;
  return std::string_view(key).substr(0, written) == wanted;
}

JsonReader::Step JsonReader::after(Arena& arena, Record& record) {
  if (levels_.empty()) return end_of_document(arena, record);
  if (!skip_space()) return incomplete(arena, record);
  Level& level = levels_.back();
  char c = front();
  if (c == (level.is_array ? ']' : '}')) {
    window_.consume(1, 0);
    levels_.pop_back();
    return Step::go_on;
  }
  if (c != ',') return unexpected(level.is_array ? "a comma or \"]\"" : "a comma or \"}\"", arena, record);
  window_.consume(1, 0);
  if (!level.is_array) {
    expect_ = Expect::key;
    return Step::go_on;
  }
  expect_ = Expect::value;
  if (!in_items() && level.index != UINT32_MAX) {
    ++level.index;
    on_path_ = level.index == steps_[levels_.size() - 1].index;
  }
  return Step::go_on;
}

JsonReader::Step JsonReader::end_of_document(Arena& arena, Record& record) {
  if (skip_space()) {
    return broken(FaultCode::document_malformed,
                  "There is more after the end of the document; several documents, one per line, are NDJSON.",
                  arena, record);
  }
  if (found_) return Step::end;
  record = Record{};
  record.line = 1;
  record.length = window_.offset();
  record.raw = arena.copy(head_);
  record.fault = make_fault(arena, FaultCode::items_not_found,
                            "The document has no array or object at " + to_text(options_.items) + ".");
  expect_ = Expect::finished;
  return Step::record;
}

// Feeds the scanner what is in the window from `from` on.
BracketScanner::Result JsonReader::scan(size_t from, size_t& taken) {
  const char* data = window_.data() + from;
  size_t size = window_.size() - from;
  if (!in_scalar_) return scanner_.scan(data, size, taken);
  for (taken = 0; taken < size; ++taken) {
    if (ends_scalar(data[taken])) return BracketScanner::Result::complete;
  }
  return BracketScanner::Result::more;
}

// Lets the rest of a value pass into span_. Unless it ends well, the record is made.
BracketScanner::Result JsonReader::pass(Arena& arena, Record& record) {
  for (;;) {
    size_t taken = 0;
    auto result = scan(0, taken);
    span_.take(window_, taken);
    if (result == BracketScanner::Result::complete) return result;
    if (result == BracketScanner::Result::mismatch) {
      broken_span(FaultCode::document_malformed, "A bracket is closed by one of the other kind.", arena,
                  record);
      return result;
    }
    if (!window_.fill()) {
      broken_span(FaultCode::document_incomplete, "The document ends inside a value.", arena, record);
      return result;
    }
  }
}

JsonReader::Step JsonReader::skip_value(Arena& arena, Record& record) {
  char c = front();
  in_scalar_ = c != '{' && c != '[' && c != '"';
  if (in_scalar_ && ends_scalar(c)) return unexpected("a value", arena, record);
  scanner_.start();
  span_.start(window_);
  if (pass(arena, record) != BracketScanner::Result::complete) return Step::record;
  expect_ = Expect::after;
  return Step::go_on;
}

JsonReader::Step JsonReader::cut_item(Arena& arena, Record& record) {
  char c = front();
  in_scalar_ = c != '{' && c != '[' && c != '"';
  if (in_scalar_ && ends_scalar(c)) return unexpected("a value", arena, record);
  scanner_.start();
  size_t scanned = 0;
  for (;;) {
    size_t taken = 0;
    auto result = scan(scanned, taken);
    scanned += taken;
    if (result == BracketScanner::Result::complete && scanned <= limit_)
      return take_item(scanned, arena, record);
    if (result == BracketScanner::Result::mismatch) {
      return broken(FaultCode::document_malformed, "A bracket is closed by one of the other kind.", arena,
                    record);
    }
    if (scanned > limit_) {
      span_.start(window_);
      span_.take(window_, scanned);
      if (result == BracketScanner::Result::more && pass(arena, record) != BracketScanner::Result::complete) {
        return Step::record;
      }
      span_.finish(arena, record, FaultCode::item_too_large,
                   "The item has " + std::to_string(span_.length()) + " bytes, the limit is " +
                       std::to_string(limit_) + ".");
      expect_ = Expect::after;
      return Step::record;
    }
    if (!window_.fill_towards(limit_ + 1)) {
      return broken(FaultCode::document_incomplete, "The document ends inside an item.", arena, record);
    }
  }
}

JsonReader::Step JsonReader::take_item(size_t length, Arena& arena, Record& record) {
  record = Record{};
  record.line = window_.line();
  record.offset = window_.offset();
  record.length = length;
  if (!options_.places_only) {
    record.raw = arena.copy({window_.data(), length});
    if (parser_.parse(record.raw, arena, record) && options_.want_item) record.item = record.raw;
  }
  window_.consume(length);
  expect_ = Expect::after;
  return Step::record;
}

// A root that is no container has no end but that of the input, and whatever it is, it is one item.
JsonReader::Step JsonReader::take_root_scalar(Arena& arena, Record& record) {
  while (window_.size() <= limit_ && window_.fill_towards(limit_ + 1)) {
  }
  if (window_.size() > limit_) {
    return broken(FaultCode::item_too_large, "The limit is " + std::to_string(limit_) + " bytes.", arena,
                  record);
  }
  Step step = take_item(trim(window_.view()).size(), arena, record);
  window_.consume(window_.size());
  expect_ = Expect::finished;
  return step;
}

// Where the items should be, or the way to them should begin, is a scalar.
JsonReader::Step JsonReader::refuse_scalar(Arena& arena, Record& record) {
  found_ = true;
  std::string detail = "There is neither an array nor an object at " + to_text(options_.items) + ".";
  if (levels_.empty()) return broken(FaultCode::items_not_found, detail, arena, record);
  if (skip_value(arena, record) == Step::record) return Step::record;
  span_.finish(arena, record, FaultCode::items_not_found, detail);
  return Step::record;
}

// The structure is lost: from the window's front on, all is one reject.
JsonReader::Step JsonReader::broken(FaultCode code, std::string_view detail, Arena& arena, Record& record) {
  span_.start(window_);
  return broken_span(code, detail, arena, record);
}

// The same, where the span has begun already.
JsonReader::Step JsonReader::broken_span(FaultCode code, std::string_view detail, Arena& arena,
                                         Record& record) {
  span_.take_rest(window_);
  span_.finish(arena, record, code, detail);
  expect_ = Expect::finished;
  return Step::record;
}

JsonReader::Step JsonReader::incomplete(Arena& arena, Record& record) {
  return broken(FaultCode::document_incomplete, "The document ends inside an array or object.", arena,
                record);
}

JsonReader::Step JsonReader::unexpected(const char* expected, Arena& arena, Record& record) {
  std::string detail =
      std::string("Expected ") + expected + ", found " + show_byte(static_cast<unsigned char>(front())) + ".";
  return broken(FaultCode::document_malformed, detail, arena, record);
}

// False at the end of the input.
bool JsonReader::skip_space() {
  for (;;) {
    std::string_view view = window_.view();
    size_t blanks = 0;
    uint64_t newlines = 0;
    while (blanks < view.size() && is_space(view[blanks])) newlines += view[blanks++] == '\n';
    window_.consume(blanks, newlines);
    if (blanks < view.size()) return true;
    if (!window_.fill()) return false;
  }
}

// State: nothing at the beginning, `x` at the end, else `a` (behind an item) and the open containers, `{` or
// `[` with the index of the element.
Checkpoint JsonReader::checkpoint() const {
  Checkpoint checkpoint{window_.offset(), window_.line(), {}};
  if (expect_ == Expect::begin) return checkpoint;
  if (expect_ == Expect::finished) {
    checkpoint.state = "x";
    return checkpoint;
  }
  checkpoint.state = "a";
  for (const Level& level : levels_)
    checkpoint.state += level.is_array ? "[" + std::to_string(level.index) : "{";
  return checkpoint;
}

void JsonReader::restore(const std::string& state) {
  if (state.empty()) return;
  if (state == "x") {
    expect_ = Expect::finished;
    return;
  }
  bool fits = state[0] == 'a';
  for (size_t i = 1; fits && i < state.size();) {
    bool is_array = state[i] == '[';
    size_t depth = levels_.size();
    fits = (is_array || state[i] == '{') && depth <= steps_.size() &&
           (depth == steps_.size() ? is_array : steps_[depth].is_index == is_array);
    uint64_t index = 0;
    for (++i; is_array && i < state.size() && state[i] >= '0' && state[i] <= '9'; ++i) {
      index = std::min<uint64_t>(index * 10 + uint64_t(state[i] - '0'), UINT32_MAX);
    }
    levels_.push_back({is_array, uint32_t(index)});
  }
  if (!fits) throw std::invalid_argument("checkpoint does not fit the path of the items");
  expect_ = Expect::after;
  found_ = true;
}

}  // namespace

std::unique_ptr<Reader> open_json(ByteSource& source, Options options, const Checkpoint* resume) {
  return std::make_unique<JsonReader>(source, std::move(options), resume);
}

}  // namespace portage::formats
