// Reading and spelling paths, see path.hpp. The grammar lives here and nowhere else.
#include "formats/path.hpp"

#include <memory>
#include <utility>

#include "formats/no_postgres.hpp"

namespace portage::formats {

namespace {

constexpr std::string_view whole_item = "$item";

/// Recursive descent over one text; the first fault ends it.
class PathParser {
 public:
  explicit PathParser(std::string_view text) : text_(text) {}

  std::variant<Path, PathError> run() {
    Path path;
    path.text = std::string(text_);
    if (text_ == whole_item) return path;
    if (text_.empty()) return fail("a path must not be empty");
    if (text_.find('\0') != std::string_view::npos) {
      position_ = text_.find('\0');
      return fail("a path must not hold a NUL byte");
    }
    if (text_[0] == '$') return fail("a key that begins with $ must be quoted");
    bool want_key = text_[0] != '[';
    while (position_ < text_.size() || want_key) {
      Step step;
      bool good = want_key ? key(step) : index(step);
      if (!good) return std::move(*error_);
      path.steps.push_back(std::move(step));
      want_key = false;
      if (position_ == text_.size()) break;
      if (text_[position_] == '.') {
        ++position_;
        want_key = true;
      } else if (text_[position_] != '[') {
        return fail("expected . or [ or the end of the path");
      }
    }
    return path;
  }

 private:
  PathError fail(const char* message) { return PathError{position_, message}; }

  bool refuse(const char* message) {
    error_ = std::make_unique<PathError>(fail(message));
    return false;
  }

  bool key(Step& step) {
    if (position_ < text_.size() && text_[position_] == '"') return quoted_key(step);
    size_t end = text_.find_first_of(".[]\"", position_);
    if (end == std::string_view::npos) end = text_.size();
    if (end == position_) return refuse("expected a key");
    step.key = std::string(text_.substr(position_, end - position_));
    position_ = end;
    return true;
  }

  bool quoted_key(Step& step) {
    size_t start = position_++;
    while (position_ < text_.size()) {
      char c = text_[position_];
      if (c == '"') {
        ++position_;
        return true;
      }
      if (c == '\\') {
        char escaped = position_ + 1 < text_.size() ? text_[position_ + 1] : '\0';
        if (escaped != '"' && escaped != '\\')
          return refuse("only \\\" and \\\\ are escapes in a quoted key");
        c = escaped;
        ++position_;
      }
      step.key.push_back(c);
      ++position_;
    }
    position_ = start;
    return refuse("the quoted key is not closed");
  }

  bool index(Step& step) {
    size_t start = ++position_;
    uint64_t value = 0;
    while (position_ < text_.size() && text_[position_] >= '0' && text_[position_] <= '9') {
      value = value * 10 + uint64_t(text_[position_] - '0');
      if (value > UINT32_MAX) return refuse("the index is too large");
      ++position_;
    }
    if (position_ == start)
      return refuse("expected an index from 0; a key in brackets is written as .\"key\"");
    if (position_ - start > 1 && text_[start] == '0') {
      position_ = start;
      return refuse("an index has no leading zeros");
    }
    if (position_ == text_.size() || text_[position_] != ']') return refuse("expected ]");
    ++position_;
    step.is_index = true;
    step.index = uint32_t(value);
    return true;
  }

  std::string_view text_;
  size_t position_ = 0;
  std::unique_ptr<PathError> error_;
};

bool needs_quotes(const std::string& key, bool first) {
  return key.empty() || key.find_first_of(".[]\"") != std::string::npos || (first && key[0] == '$');
}

}  // namespace

std::variant<Path, PathError> parse_path(std::string_view text) { return PathParser(text).run(); }

Path path_of_keys(std::vector<std::string> keys) {
  Path path;
  for (std::string& key : keys) {
    Step step;
    step.key = std::move(key);
    path.steps.push_back(std::move(step));
  }
  path.text = to_text(path);
  return path;
}

std::string to_text(const Path& path) {
  if (path.steps.empty()) return std::string(whole_item);
  std::string text;
  for (const Step& step : path.steps) {
    if (step.is_index) {
      text += '[' + std::to_string(step.index) + ']';
      continue;
    }
    bool first = text.empty();
    if (!first) text += '.';
    if (!needs_quotes(step.key, first)) {
      text += step.key;
      continue;
    }
    text += '"';
    for (char c : step.key) {
      if (c == '"' || c == '\\') text += '\\';
      text += c;
    }
    text += '"';
  }
  return text;
}

}  // namespace portage::formats
