// See due.hpp.
#include "schedule/due.hpp"

#include <algorithm>
#include <chrono>

#include "formats/no_postgres.hpp"

namespace portage::schedule {
namespace {

constexpr int64_t day_seconds = 86400;

/// The end of this window, if the moment lies in it on that day.
std::optional<int64_t> end_if_inside(const Window& window, const Zone& zone, int64_t moment, int64_t day) {
  unsigned weekday = std::chrono::weekday{std::chrono::sys_days{std::chrono::days{day}}}.c_encoding();
  if (!(window.days >> weekday & 1)) return std::nullopt;
  int64_t local = moment + zone.at(moment), midnight = day * day_seconds;
  int64_t from = midnight + window.from * 60;
  int64_t to = midnight + window.to * 60 + (window.to <= window.from ? day_seconds : 0);
  if (local < from || local >= to) return std::nullopt;
  Moments end = moments_of(to, zone);
  return end.first > moment ? end.first : end.second.value_or(moment + 60);
}

}  // namespace

std::optional<int64_t> end_of_blackout(const std::vector<Window>& windows, const Zone& zone, int64_t moment) {
  for (int round = 0; round < 1000; round++) {
    int64_t local = moment + zone.at(moment), end = moment;
    int64_t day = local / day_seconds - (local % day_seconds < 0);
    for (const Window& window : windows)
      for (int64_t begins : {day - 1, day})
        end = std::max(end, end_if_inside(window, zone, moment, begins).value_or(moment));
    if (end == moment) return moment;
    moment = end;
  }
  return std::nullopt;
}

std::optional<Slot> next_slot(const Timetable& timetable, int64_t after) {
  std::optional<int64_t> due = next_moment(timetable.cron, timetable.zone, after);
  if (!due) return std::nullopt;
  std::optional<int64_t> begin = end_of_blackout(timetable.blackout, timetable.zone, *due);
  if (!begin) return std::nullopt;
  return Slot{*due, *begin};
}

Decision decide(const Timetable& timetable, Slot next, int64_t now, bool active,
                std::optional<int64_t> begun_at) {
  Decision decision;
  decision.next = next;
  while (decision.next && decision.next->begin <= now && !decision.begun) {
    Slot slot = *decision.next;
    bool each = timetable.catch_up == CatchUp::all;
    if (active && each && begun_at && slot.begin < *begun_at) break;
    decision.next = next_slot(timetable, slot.begin);
    bool last = !decision.next || decision.next->begin > now;
    bool missed = !last || now - slot.begin > grace;
    if (active)
      decision.running++;
    else if (timetable.deadline && now - slot.begin > *timetable.deadline)
      decision.late++;
    else if ((timetable.catch_up == CatchUp::skip && missed) || (!each && !last))
      decision.missed++;
    else
      decision.begun = slot;
  }
  return decision;
}

int64_t retry_delay(int attempt) { return std::min<int64_t>(3600, int64_t{60} << std::min(attempt - 1, 6)); }

}  // namespace portage::schedule
