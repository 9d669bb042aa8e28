// See cron.hpp.
#include "schedule/cron.hpp"

#include <array>
#include <charconv>
#include <chrono>
#include <vector>

#include "formats/no_postgres.hpp"

namespace portage::schedule {
namespace {

using Names = std::array<std::string_view, 12>;

struct Field {
  const char* name;
  int least, most;
  const Names* names;  ///< the first one means `least`
};

constexpr Names months{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"};
constexpr Names weekdays{"sun", "mon", "tue", "wed", "thu", "fri", "sat"};
constexpr Field minute{"minute", 0, 59, nullptr};
constexpr Field hour{"hour", 0, 23, nullptr};
constexpr Field day_of_month{"day of month", 1, 31, nullptr};
constexpr Field month{"month", 1, 12, &months};
constexpr Field day_of_week{"day of week", 0, 7, &weekdays};

struct Short {
  std::string_view name, expression;
};
constexpr Short shorts[] = {{"@hourly", "0 * * * *"},  {"@daily", "0 0 * * *"},   {"@midnight", "0 0 * * *"},
                            {"@weekly", "0 0 * * 0"},  {"@monthly", "0 0 1 * *"}, {"@yearly", "0 0 1 1 *"},
                            {"@annually", "0 0 1 1 *"}};

bool is_space(char c) { return c == ' ' || c == '\t'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

bool same_word(std::string_view a, std::string_view lower) {
  if (a.size() != lower.size()) return false;
  for (size_t i = 0; i < a.size(); i++)
    if ((a[i] >= 'A' && a[i] <= 'Z' ? a[i] - 'A' + 'a' : a[i]) != lower[i]) return false;
  return true;
}

/// Reads one field; the first fault ends it.
class FieldParser {
 public:
  FieldParser(const Field& field, std::string_view text, size_t begin, size_t end)
      : field_(field), text_(text), at_(begin), end_(end) {}

  template <size_t N>
  std::optional<CronFault> read(std::bitset<N>& set) {
    do {
      size_t from = 0, to = 0, step = 1;
      if (!read_range(from, to, step)) return fault_;
      for (size_t value = from; value <= to; value += step) set.set(value);
    } while (!fault_ && accept(','));
    if (!fault_ && at_ < end_) wrong(at_, "unexpected character");
    return fault_;
  }

 private:
  bool read_range(size_t& from, size_t& to, size_t& step) {
    bool stepped = true;
    if (accept('*')) {
      from = static_cast<size_t>(field_.least);
      to = static_cast<size_t>(field_.most);
    } else if (&field_ == &day_of_month && accept('$')) {
      return true;  // 0: the last day
    } else {
      size_t begin = at_;
      if (!read_value(from)) return false;
      to = from;
      stepped = accept('-');
      if (stepped && !read_value(to)) return false;
      if (from > to) return wrong(begin, "a range must not run backwards");
    }
    size_t begin = at_;
    if (!accept('/')) return true;
    if (!stepped) return wrong(begin, "a step needs a range or *");
    begin = at_;
    return read_number(step) && (step > 0 || wrong(begin, "a step must be at least 1"));
  }

  bool read_value(size_t& value) {
    size_t begin = at_;
    if (at_ < end_ && is_letter(text_[at_])) {
      while (at_ < end_ && is_letter(text_[at_])) at_++;
      std::string_view word = text_.substr(begin, at_ - begin);
      for (size_t i = 0; field_.names && i < field_.names->size() && !(*field_.names)[i].empty(); i++)
        if (same_word(word, (*field_.names)[i])) {
          value = i + static_cast<size_t>(field_.least);
          return true;
        }
      return wrong(begin, field_.names ? "unknown name" : "this field has no names");
    }
    if (!read_number(value)) return false;
    if (value < static_cast<size_t>(field_.least) || value > static_cast<size_t>(field_.most))
      return wrong(begin, "a value must be from " + std::to_string(field_.least) + " to " +
                              std::to_string(field_.most));
    return true;
  }

  bool read_number(size_t& value) {
    size_t begin = at_;
    while (at_ < end_ && is_digit(text_[at_])) at_++;
    if (at_ == begin) return wrong(begin, "a number is missing");
    if (at_ - begin > 4) return wrong(begin, "the number is too large");
    std::from_chars(text_.data() + begin, text_.data() + at_, value);
    return true;
  }

  bool accept(char c) {
    if (at_ >= end_ || text_[at_] != c) return false;
    at_++;
    return true;
  }

  bool wrong(size_t at, std::string message) {
    fault_ = CronFault{field_.name, static_cast<int>(at) + 1, std::move(message)};
    return false;
  }

  const Field& field_;
  std::string_view text_;
  size_t at_, end_;
  std::optional<CronFault> fault_;
};

}  // namespace

std::variant<Cron, CronFault> Cron::parse(std::string_view text) {
  std::vector<std::pair<size_t, size_t>> words;
  for (size_t at = 0; at < text.size();) {
    size_t begin = at;
    while (at < text.size() && !is_space(text[at])) at++;
    if (at > begin) words.emplace_back(begin, at);
    while (at < text.size() && is_space(text[at])) at++;
  }
  if (words.size() == 1 && text[words[0].first] == '@') {
    std::string_view word = text.substr(words[0].first, words[0].second - words[0].first);
    for (const Short& one : shorts)
      if (same_word(word, one.name)) return parse(one.expression);
    return CronFault{"", static_cast<int>(words[0].first) + 1, "unknown name"};
  }
  if (words.size() != 5)
    return CronFault{"", words.size() > 5 ? static_cast<int>(words[5].first) + 1 : 1,
                     "an expression has five fields, not " + std::to_string(words.size())};
  Cron cron;
  auto read = [&](size_t i, const Field& field, auto& set) {
    return FieldParser(field, text, words[i].first, words[i].second).read(set);
  };
  if (auto fault = read(0, minute, cron.minutes_)) return *fault;
  if (auto fault = read(1, hour, cron.hours_)) return *fault;
  if (auto fault = read(2, day_of_month, cron.days_)) return *fault;
  if (auto fault = read(3, month, cron.months_)) return *fault;
  if (auto fault = read(4, day_of_week, cron.weekdays_)) return *fault;
  if (cron.weekdays_[7]) cron.weekdays_.set(0);
  cron.every_hour_ = text[words[1].first] == '*';
  cron.any_day_ = text[words[2].first] == '*';
  cron.any_weekday_ = text[words[4].first] == '*';
  if (!cron.next(0))
    return CronFault{day_of_month.name, static_cast<int>(words[2].first) + 1,
                     "these months have no such day, so that the time never comes"};
  return cron;
}

bool Cron::matches_day(int64_t day) const {
  using namespace std::chrono;
  sys_days date{days{day}};
  year_month_day ymd{date};
  if (!months_[static_cast<unsigned>(ymd.month())]) return false;
  bool last = days_[0] && ymd == year_month_day{ymd.year() / ymd.month() / std::chrono::last};
  bool by_day = days_[static_cast<unsigned>(ymd.day())] || last;
  bool by_weekday = weekdays_[weekday{date}.c_encoding()];
  // Where both are restricted, either will do.
  return any_day_ || any_weekday_ ? by_day && by_weekday : by_day || by_weekday;
}

std::optional<int64_t> Cron::next(int64_t from) const {
  constexpr int64_t minutes_a_day = 24 * 60;
  int64_t day = from / minutes_a_day - (from % minutes_a_day < 0);
  int64_t start = from - day * minutes_a_day;
  // The 29th of February may be eight years away.
  for (int64_t last = day + 9 * 366; day <= last; day++, start = 0) {
    if (!matches_day(day)) continue;
    for (int64_t m = start; m < minutes_a_day; m++) {
      size_t h = static_cast<size_t>(m / 60);
      if (!hours_[h])
        m = static_cast<int64_t>(h) * 60 + 59;
      else if (minutes_[static_cast<size_t>(m % 60)])
        return day * minutes_a_day + m;
    }
  }
  return std::nullopt;
}

}  // namespace portage::schedule
