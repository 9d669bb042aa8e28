// Cron expressions: what they mean, what is refused where, and which moments they are in a zone whose clocks
// are changed.
#include <gtest/gtest.h>

#include <chrono>

#include "schedule/zone.hpp"

namespace portage::schedule {
namespace {

using namespace std::chrono;

std::string fault_of(std::string_view text) {
  auto parsed = Cron::parse(text);
  if (std::holds_alternative<Cron>(parsed)) return "none";
  const CronFault& fault = std::get<CronFault>(parsed);
  return (fault.field.empty() ? "" : fault.field + ", ") + std::to_string(fault.position) + ": " +
         fault.message;
}

int64_t at(int y, unsigned m, unsigned d, int h, int min) {
  return duration_cast<seconds>(sys_days{year{y} / m / d}.time_since_epoch()).count() + h * 3600 + min * 60;
}

std::string shown(int64_t second) {
  sys_days day = floor<days>(sys_seconds{seconds{second}});
  year_month_day ymd{day};
  int64_t rest = second - duration_cast<seconds>(day.time_since_epoch()).count();
  char text[40];
  snprintf(text, sizeof text, "%04d-%02u-%02u %02d:%02d", int(ymd.year()), unsigned(ymd.month()),
           unsigned(ymd.day()), int(rest / 3600), int(rest / 60 % 60));
  return text;
}

/// The first so many times after one, in local time without a zone.
std::string times(std::string_view expression, int64_t after, int count = 3) {
  Zone utc{[](const void*, int64_t) { return 0; }, nullptr};
  auto parsed = Cron::parse(expression);
  if (auto* fault = std::get_if<CronFault>(&parsed)) return fault->message;
  std::string all;
  while (count-- > 0) {
    std::optional<int64_t> next = next_moment(std::get<Cron>(parsed), utc, after);
    if (!next) return all + "never";
    after = *next;
    all += (all.empty() ? "" : ", ") + shown(after);
  }
  return all;
}

/// The clock is put on by an hour at the first moment and back at the second, as in Berlin in 2031.
struct Change {
  int64_t on = at(2031, 3, 30, 1, 0), back = at(2031, 10, 26, 1, 0);
  int winter = 3600, summer = 7200;
  Zone zone() const {
    return {[](const void* data, int64_t moment) {
              auto* change = static_cast<const Change*>(data);
              return moment >= change->on && moment < change->back ? change->summer : change->winter;
            },
            this};
  }
};

std::string moments(std::string_view expression, const Change& change, int64_t after, int count) {
  Cron cron = std::get<Cron>(Cron::parse(expression));
  std::string all;
  while (count-- > 0) {
    after = next_moment(cron, change.zone(), after).value();
    all += (all.empty() ? "" : ", ") + shown(after);
  }
  return all;
}

TEST(Cron, Fields) {
  int64_t start = at(2026, 1, 1, 0, 0);  // a Thursday
  EXPECT_EQ(times("* * * * *", start, 2), "2026-01-01 00:01, 2026-01-01 00:02");
  EXPECT_EQ(times("30 2 * * *", start, 2), "2026-01-01 02:30, 2026-01-02 02:30");
  EXPECT_EQ(times("*/20 1-2 * * *", start, 4),
            "2026-01-01 01:00, 2026-01-01 01:20, 2026-01-01 01:40, 2026-01-01 02:00");
  EXPECT_EQ(times("5-15/5,59 0 * * *", start, 4),
            "2026-01-01 00:05, 2026-01-01 00:10, 2026-01-01 00:15, 2026-01-01 00:59");
  EXPECT_EQ(times("0 0 1 jan,Jul *", start, 2), "2026-07-01 00:00, 2027-01-01 00:00");
  EXPECT_EQ(times("0 0 * * MON-wed", start), "2026-01-05 00:00, 2026-01-06 00:00, 2026-01-07 00:00");
  EXPECT_EQ(times("0 0 * * 0", start, 1), "2026-01-04 00:00");
  EXPECT_EQ(times("0 0 * * 7", start, 1), "2026-01-04 00:00");
  EXPECT_EQ(times("0 0 * * 5-7", start), "2026-01-02 00:00, 2026-01-03 00:00, 2026-01-04 00:00");
  EXPECT_EQ(times(" \t0   0 2 1 * ", start, 1), "2026-01-02 00:00");
}

TEST(Cron, EitherDayWillDo) {
  int64_t start = at(2026, 1, 1, 0, 0);
  EXPECT_EQ(times("0 0 6 * 4", start), "2026-01-06 00:00, 2026-01-08 00:00, 2026-01-15 00:00");
  // What begins with * restricts nothing: both must fit.
  EXPECT_EQ(times("0 0 */5 * 4", start), "2026-02-26 00:00, 2026-03-26 00:00, 2026-04-16 00:00");
  EXPECT_EQ(times("0 0 30 2 1", start), "2026-02-02 00:00, 2026-02-09 00:00, 2026-02-16 00:00");
}

TEST(Cron, RareDays) {
  EXPECT_EQ(times("0 0 29 2 *", at(2026, 1, 1, 0, 0)),
            "2028-02-29 00:00, 2032-02-29 00:00, 2036-02-29 00:00");
  EXPECT_EQ(times("0 0 29 2 *", at(2096, 3, 1, 0, 0), 1), "2104-02-29 00:00");
  EXPECT_EQ(times("0 0 31 * *", at(2026, 1, 31, 0, 0), 2), "2026-03-31 00:00, 2026-05-31 00:00");
  EXPECT_EQ(times("0 0 $ * *", at(2028, 1, 31, 0, 0)),
            "2028-02-29 00:00, 2028-03-31 00:00, 2028-04-30 00:00");
  EXPECT_EQ(times("0 0 31 12 *", at(1969, 12, 30, 0, 0), 1), "1969-12-31 00:00");
  EXPECT_EQ(fault_of("0 0 31 2 *"),
            "day of month, 5: these months have no such day, so that the time never comes");
  EXPECT_EQ(fault_of("0 0 31 apr,JUN,9,11 *"),
            "day of month, 5: these months have no such day, so that the time never comes");
}

TEST(Cron, ShortNames) {
  int64_t start = at(2026, 1, 1, 0, 30);
  EXPECT_EQ(times("@hourly", start, 2), "2026-01-01 01:00, 2026-01-01 02:00");
  EXPECT_EQ(times("@daily", start, 1), "2026-01-02 00:00");
  EXPECT_EQ(times("@midnight", start, 1), "2026-01-02 00:00");
  EXPECT_EQ(times("@Weekly", start, 1), "2026-01-04 00:00");
  EXPECT_EQ(times("@monthly", start, 1), "2026-02-01 00:00");
  EXPECT_EQ(times("@yearly", start, 1), "2027-01-01 00:00");
  EXPECT_EQ(times("@annually", start, 1), "2027-01-01 00:00");
  EXPECT_EQ(fault_of(" @reboot"), "2: unknown name");
  EXPECT_EQ(fault_of("@daily 5"), "1: an expression has five fields, not 2");
}

TEST(Cron, Faults) {
  EXPECT_EQ(fault_of(""), "1: an expression has five fields, not 0");
  EXPECT_EQ(fault_of("* * * *"), "1: an expression has five fields, not 4");
  EXPECT_EQ(fault_of("* * * * * *"), "11: an expression has five fields, not 6");
  EXPECT_EQ(fault_of("30 seconds"), "1: an expression has five fields, not 2");
  EXPECT_EQ(fault_of("60 * * * *"), "minute, 1: a value must be from 0 to 59");
  EXPECT_EQ(fault_of("0 24 * * *"), "hour, 3: a value must be from 0 to 23");
  EXPECT_EQ(fault_of("0 0 0 * *"), "day of month, 5: a value must be from 1 to 31");
  EXPECT_EQ(fault_of("0 0 1 13 *"), "month, 7: a value must be from 1 to 12");
  EXPECT_EQ(fault_of("0 0 * * 8"), "day of week, 9: a value must be from 0 to 7");
  EXPECT_EQ(fault_of("0 0 * * 1,8"), "day of week, 11: a value must be from 0 to 7");
  EXPECT_EQ(fault_of("5-1 * * * *"), "minute, 1: a range must not run backwards");
  EXPECT_EQ(fault_of("0 0 * * fri-sun"), "day of week, 9: a range must not run backwards");
  EXPECT_EQ(fault_of("*/0 * * * *"), "minute, 3: a step must be at least 1");
  EXPECT_EQ(fault_of("5/10 * * * *"), "minute, 2: a step needs a range or *");
  EXPECT_EQ(fault_of("*/ * * * *"), "minute, 3: a number is missing");
  EXPECT_EQ(fault_of("1, * * * *"), "minute, 3: a number is missing");
  EXPECT_EQ(fault_of(",1 * * * *"), "minute, 1: a number is missing");
  EXPECT_EQ(fault_of("1- * * * *"), "minute, 3: a number is missing");
  EXPECT_EQ(fault_of("-1 * * * *"), "minute, 1: a number is missing");
  EXPECT_EQ(fault_of("** * * * *"), "minute, 2: unexpected character");
  EXPECT_EQ(fault_of("1.5 * * * *"), "minute, 2: unexpected character");
  EXPECT_EQ(fault_of("0 $ * * *"), "hour, 3: a number is missing");
  EXPECT_EQ(fault_of("0 0 $-5 * *"), "day of month, 6: unexpected character");
  EXPECT_EQ(fault_of("99999999999999999999 * * * *"), "minute, 1: the number is too large");
  EXPECT_EQ(fault_of("mon * * * *"), "minute, 1: this field has no names");
  EXPECT_EQ(fault_of("0 0 * januar *"), "month, 7: unknown name");
  EXPECT_EQ(fault_of("0 0 * * \xc3\xa4"), "day of week, 9: a number is missing");
  EXPECT_EQ(fault_of(std::string("0 0 * *\0*", 9)), "1: an expression has five fields, not 4");
}

TEST(Moments, SkippedTimesAreWhenTheClockIsPutOn) {
  Change change;
  int64_t eve = at(2031, 3, 29, 12, 0);
  EXPECT_EQ(moments("30 2 * * *", change, eve, 2), "2031-03-30 01:00, 2031-03-31 00:30");
  // All of them are that one moment, which is three o'clock's own as well.
  EXPECT_EQ(moments("*/15 2-3 * * *", change, eve, 3),
            "2031-03-30 01:00, 2031-03-30 01:15, 2031-03-30 01:30");
  EXPECT_EQ(moments("0 * * * *", change, at(2031, 3, 29, 23, 30), 4),
            "2031-03-30 00:00, 2031-03-30 01:00, 2031-03-30 02:00, 2031-03-30 03:00");
}

TEST(Moments, RepeatedTimesCountOnce) {
  Change change;
  int64_t eve = at(2031, 10, 25, 12, 0);
  EXPECT_EQ(moments("30 2 * * *", change, eve, 2), "2031-10-26 00:30, 2031-10-27 01:30");
  EXPECT_EQ(moments("*/30 2 * * *", change, eve, 3), "2031-10-26 00:00, 2031-10-26 00:30, 2031-10-27 01:00");
  EXPECT_EQ(moments("0 3 * * *", change, eve, 1), "2031-10-26 02:00");
  // From within the repeated hour on.
  EXPECT_EQ(moments("30 2 * * *", change, at(2031, 10, 26, 1, 10), 1), "2031-10-27 01:30");
}

TEST(Moments, EveryHourFollowsTheClock) {
  Change change;
  EXPECT_EQ(moments("*/30 * * * *", change, at(2031, 10, 26, 0, 0), 5),
            "2031-10-26 00:30, 2031-10-26 01:00, 2031-10-26 01:30, 2031-10-26 02:00, 2031-10-26 02:30");
  EXPECT_EQ(moments("@hourly", change, at(2031, 10, 25, 23, 30), 4),
            "2031-10-26 00:00, 2031-10-26 01:00, 2031-10-26 02:00, 2031-10-26 03:00");
}

TEST(Moments, WestOfGreenwich) {
  Change new_york{at(2031, 3, 9, 7, 0), at(2031, 11, 2, 6, 0), -5 * 3600, -4 * 3600};
  EXPECT_EQ(moments("30 2 * * *", new_york, at(2031, 3, 8, 12, 0), 2), "2031-03-09 07:00, 2031-03-10 06:30");
  EXPECT_EQ(moments("30 1 * * *", new_york, at(2031, 11, 1, 12, 0), 2), "2031-11-02 05:30, 2031-11-03 06:30");
}

TEST(Moments, AWholeDayIsSkipped) {
  Change samoa{at(2011, 12, 30, 10, 0), at(2099, 1, 1, 0, 0), -10 * 3600, 14 * 3600};
  EXPECT_EQ(moments("0 12 * * *", samoa, at(2011, 12, 28, 23, 0), 3),
            "2011-12-29 22:00, 2011-12-30 10:00, 2011-12-30 22:00");
}

}  // namespace
}  // namespace portage::schedule
