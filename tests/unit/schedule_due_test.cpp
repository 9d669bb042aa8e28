// Due times: what is begun, what waits, and what is passed over.
#include <gtest/gtest.h>

#include "schedule/due.hpp"

namespace portage::schedule {
namespace {

constexpr int64_t hour = 3600, day = 86400;
constexpr int64_t monday = 20458 * day;  // 2026-01-05, which is one

Zone utc() {
  return {[](const void*, int64_t) { return 0; }, nullptr};
}

Timetable timetable(std::string_view expression, CatchUp catch_up = CatchUp::once) {
  return {std::get<Cron>(Cron::parse(expression)), utc(), {}, catch_up, std::nullopt};
}

std::string told(const Decision& decision) {
  auto moment = [](int64_t at) { return std::to_string((at - monday) / 60); };
  std::string text = decision.begun ? "begins " + moment(decision.begun->due) : "begins none";
  if (decision.running) text += ", running " + std::to_string(decision.running);
  if (decision.missed) text += ", missed " + std::to_string(decision.missed);
  if (decision.late) text += ", late " + std::to_string(decision.late);
  return text + ", next " + (decision.next ? moment(decision.next->begin) : "never");
}

Decision decide_from(const Timetable& rules, int64_t now, bool active = false,
                     std::optional<int64_t> begun_at = std::nullopt) {
  return decide(rules, *next_slot(rules, monday), now, active, begun_at);
}

TEST(Due, InTime) {
  Timetable hourly = timetable("0 * * * *");
  EXPECT_EQ(told(decide_from(hourly, monday + hour - 1)), "begins none, next 60");
  EXPECT_FALSE(decide_from(hourly, monday + hour - 1).changed());
  EXPECT_EQ(told(decide_from(hourly, monday + hour)), "begins 60, next 120");
  EXPECT_EQ(told(decide_from(hourly, monday + hour + 59)), "begins 60, next 120");
}

TEST(Due, CatchUp) {
  int64_t late = monday + 3 * hour + 30 * 60;
  EXPECT_EQ(told(decide_from(timetable("0 * * * *", CatchUp::once), late)), "begins 180, missed 2, next 240");
  EXPECT_EQ(told(decide_from(timetable("0 * * * *", CatchUp::skip), late)),
            "begins none, missed 3, next 240");
  EXPECT_EQ(told(decide_from(timetable("0 * * * *", CatchUp::all), late)), "begins 60, next 120");
  // The last one is in time: it is nobody's making up.
  EXPECT_EQ(told(decide_from(timetable("0 * * * *", CatchUp::skip), monday + 3 * hour + grace)),
            "begins 180, missed 2, next 240");
  EXPECT_EQ(told(decide_from(timetable("0 * * * *", CatchUp::skip), monday + hour + grace + 1)),
            "begins none, missed 1, next 120");
}

TEST(Due, NoPileUp) {
  Timetable hourly = timetable("0 * * * *");
  EXPECT_EQ(told(decide_from(hourly, monday + hour, true, monday)), "begins none, running 1, next 120");
  EXPECT_EQ(told(decide_from(hourly, monday + 3 * hour, true, monday)), "begins none, running 3, next 240");
  Timetable all = timetable("0 * * * *", CatchUp::all);
  // What was missed before the run began waits; what comes while it runs does not.
  EXPECT_EQ(told(decide_from(all, monday + 3 * hour, true, monday + 4 * hour)), "begins none, next 60");
  EXPECT_EQ(told(decide_from(all, monday + hour, true, monday)), "begins none, running 1, next 120");
}

TEST(Due, Deadline) {
  Timetable hourly = timetable("0 * * * *", CatchUp::all);
  hourly.deadline = 2 * hour;
  EXPECT_EQ(told(decide_from(hourly, monday + 5 * hour)), "begins 180, late 2, next 240");
  hourly.catch_up = CatchUp::once;
  hourly.deadline = 600;
  EXPECT_EQ(told(decide_from(hourly, monday + hour + 600)), "begins 60, next 120");
  EXPECT_EQ(told(decide_from(hourly, monday + hour + 601)), "begins none, late 1, next 120");
}

TEST(Blackout, DueTimesWaitForItsEndOnce) {
  Timetable hourly = timetable("0 * * * *");
  hourly.blackout = {{90, 210}};  // 01:30 to 03:30
  EXPECT_EQ(told(decide_from(hourly, monday + hour)), "begins 60, next 210");
  Slot two = *next_slot(hourly, monday + hour);
  EXPECT_EQ(two.due, monday + 2 * hour);
  EXPECT_EQ(two.begin, monday + 210 * 60);
  EXPECT_EQ(told(decide(hourly, two, monday + 3 * hour, false, monday)), "begins none, next 210");
  EXPECT_EQ(told(decide(hourly, two, two.begin, false, monday)), "begins 120, next 240");
  // A deadline counts from there.
  hourly.deadline = 600;
  EXPECT_EQ(told(decide(hourly, two, two.begin + 600, false, monday)), "begins 120, next 240");
  // A due time at the end itself is the same one.
  hourly.blackout = {{90, 180}};
  EXPECT_EQ(told(decide(hourly, *next_slot(hourly, monday + hour), monday + 3 * hour, false, monday)),
            "begins 120, next 240");
}

TEST(Blackout, Windows) {
  std::vector<Window> night{{22 * 60, 2 * 60}};
  auto end = [&](int64_t moment) { return *end_of_blackout(night, utc(), moment) - monday; };
  EXPECT_EQ(end(monday + 21 * hour), 21 * hour);
  EXPECT_EQ(end(monday + 22 * hour), 26 * hour);
  EXPECT_EQ(end(monday + hour), 2 * hour);
  EXPECT_EQ(end(monday + 2 * hour), 2 * hour);
  night[0].days = 1 << 1;  // it begins on Mondays
  EXPECT_EQ(end(monday + hour), hour);
  EXPECT_EQ(end(monday + 23 * hour), 26 * hour);
  EXPECT_EQ(end(monday + 25 * hour), 26 * hour);
  EXPECT_EQ(end(monday + 46 * hour), 46 * hour);
  night.push_back({2 * 60, 3 * 60});  // one behind the other
  EXPECT_EQ(end(monday + 23 * hour), 27 * hour);
  night = {{0, 24 * 60, 1 << 1}};  // the whole of Monday
  EXPECT_EQ(end(monday + 23 * hour), 24 * hour);
  night = {{0, 24 * 60}};
  EXPECT_FALSE(end_of_blackout(night, utc(), monday));
}

TEST(Blackout, EndsWhenTheClockSaysSo) {
  // The clock is put back from 03:00 to 02:00 an hour after Monday began.
  Zone zone{[](const void*, int64_t moment) { return moment < monday + hour ? 7200 : 3600; }, nullptr};
  std::vector<Window> window{{60, 150}};
  EXPECT_EQ(*end_of_blackout(window, zone, monday), monday + hour / 2);
  EXPECT_EQ(*end_of_blackout(window, zone, monday + hour + 60), monday + hour + hour / 2);
}

TEST(Retry, WaitsLongerEachTime) {
  EXPECT_EQ(retry_delay(1), 60);
  EXPECT_EQ(retry_delay(2), 120);
  EXPECT_EQ(retry_delay(6), 1920);
  EXPECT_EQ(retry_delay(7), 3600);
  EXPECT_EQ(retry_delay(100), 3600);
}

}  // namespace
}  // namespace portage::schedule
