// See zone.hpp.
#include "schedule/zone.hpp"

#include <algorithm>

#include "formats/no_postgres.hpp"

namespace portage::schedule {
namespace {

constexpr int64_t day = 86400;

}  // namespace

Moments moments_of(int64_t local, const Zone& zone) {
  // No offset exceeds a day: these two are on both sides of whatever the clock does here.
  int before = zone.at(local - day), after = zone.at(local + day);
  int64_t by_before = local - before, by_after = local - after;
  bool is_before = zone.at(by_before) == before, is_after = zone.at(by_after) == after;
  if (is_before && is_after && by_before != by_after)
    return {std::min(by_before, by_after), std::max(by_before, by_after)};
  if (is_before) return {by_before, std::nullopt};
  if (is_after) return {by_after, std::nullopt};
  int64_t low = std::min(by_before, by_after), high = std::max(by_before, by_after);
  while (high - low > 1) {
    int64_t middle = low + (high - low) / 2;
    (zone.at(middle) == before ? low : high) = middle;
  }
  return {high, std::nullopt};
}

std::optional<int64_t> next_moment(const Cron& cron, const Zone& zone, int64_t after) {
  int now = zone.at(after);
  // The clock is put back soon: earlier local times are still to come.
  int64_t local = after + now - std::max(0, now - zone.at(after + day));
  std::optional<int64_t> repeated;
  for (int64_t minute = local / 60 - (local % 60 < 0);; minute++) {
    std::optional<int64_t> found = cron.next(minute);
    if (!found) return std::nullopt;
    minute = *found;
    Moments moments = moments_of(minute * 60, zone);
    if (moments.first > after) return repeated ? std::min(moments.first, *repeated) : moments.first;
    if (cron.every_hour() && !repeated && moments.second && *moments.second > after)
      repeated = moments.second;
  }
}

}  // namespace portage::schedule
