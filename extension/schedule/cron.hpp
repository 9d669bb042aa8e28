// Cron expressions: which minutes of a calendar they mean. Pure C++: knows days and minutes of some local
// time, and nothing of time zones, schedules or Postgres.
#pragma once

#include <bitset>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

namespace portage::schedule {

/// What is wrong with an expression, and where.
struct CronFault {
  std::string field;    ///< `minute`, `hour`, ...; "" for the whole
  int position;         ///< of the first wrong character, from 1
  std::string message;  ///< PostgreSQL style
};

/// A parsed expression.
class Cron {
 public:
  /// Five fields (minute, hour, day of month, month, day of week) or one of the names that begin with @. An
  /// expression whose time never comes is a fault, too.
  static std::variant<Cron, CronFault> parse(std::string_view text);

  /// The first minute that is meant, at or after this one; both are minutes since 1970-01-01 00:00 of a local
  /// time. Nothing: it never comes.
  std::optional<int64_t> next(int64_t minute) const;

  /// The hour's field begins with *: it follows the clock, not the calendar.
  bool every_hour() const { return every_hour_; }

 private:
  bool matches_day(int64_t day) const;

  std::bitset<60> minutes_;
  std::bitset<24> hours_;
  std::bitset<32> days_;  ///< from 1; 0: the last one of the month
  std::bitset<13> months_;
  std::bitset<8> weekdays_;  ///< from Sunday = 0; 7 is 0 again
  bool every_hour_ = false;
  bool any_day_ = false, any_weekday_ = false;  ///< their fields begin with *
};

}  // namespace portage::schedule
