// Local times of a zone as moments: those that clocks skip, and those that they show twice. Pure C++: of the
// zone it knows only its offset at a moment. Moments are seconds since 1970 UTC, local times the same of
// what the clock shows.
#pragma once

#include <cstdint>
#include <optional>

#include "schedule/cron.hpp"

namespace portage::schedule {

/// A time zone, as one asks it: seconds east of Greenwich at a moment.
struct Zone {
  int (*offset)(const void* data, int64_t moment);
  const void* data;
  int at(int64_t moment) const { return offset(data, moment); }
};

/// When the clock shows a local time. One that it skips is the moment at which it does.
struct Moments {
  int64_t first;
  std::optional<int64_t> second;  ///< it shows it twice
};
Moments moments_of(int64_t local, const Zone&);

/// The first moment after this one that the expression means; nothing: it never comes. What the clock shows
/// twice counts once, the first time; but twice where the expression means every hour.
std::optional<int64_t> next_moment(const Cron&, const Zone&, int64_t after);

}  // namespace portage::schedule
