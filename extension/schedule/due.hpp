// What becomes of due times: which is begun, which wait for a blackout window to end, and which are passed
// over. Pure C++: it decides from times alone, and neither looks at runs nor begins one.
#pragma once

#include <vector>

#include "schedule/zone.hpp"

namespace portage::schedule {

/// A stretch of the day in which nothing begins; minutes of the local day, `to` excluded. Where it does not
/// come after `from`, it is the next day's.
struct Window {
  int from, to;
  unsigned days = 127;  ///< on which it begins: bit 0 is Sunday
};

/// The moment itself or, inside windows, their end; nothing: there is none within 1,000 windows.
std::optional<int64_t> end_of_blackout(const std::vector<Window>&, const Zone&, int64_t moment);

/// After due times were missed: none of them, the last one alone, or each in its turn.
enum class CatchUp : uint8_t { skip, once, all };

/// The rules of a schedule.
struct Timetable {
  Cron cron;
  Zone zone;
  std::vector<Window> blackout;
  CatchUp catch_up = CatchUp::once;
  std::optional<int64_t> deadline;  ///< seconds after which a due time is not begun any more
};

/// A due time, and when it is to be begun: later where a blackout window is in the way.
struct Slot {
  int64_t due = 0, begin = 0;
};
/// The first due time after a moment. What falls into the same blackout window is one.
std::optional<Slot> next_slot(const Timetable&, int64_t after);

/// What is to be done now.
struct Decision {
  std::optional<Slot> begun;                  ///< this one is to be begun
  std::optional<Slot> next;                   ///< the one that is looked at next; nothing: there is none
  int64_t running = 0, missed = 0, late = 0;  ///< passed over, by reason
  bool changed() const { return begun || running || missed || late; }
};

/// A due time is missed when another one has come since, or nobody looked for so many seconds.
constexpr int64_t grace = 300;

/// `next`: the earliest one that nothing was decided about. `active`: a run is under way; `begun_at`: when
/// the last one was begun. A due time that comes while a run is under way is passed over; one that was
/// missed before that run began waits for its turn, if each is to have one.
Decision decide(const Timetable&, Slot next, int64_t now, bool active, std::optional<int64_t> begun_at);

/// Seconds to wait before the nth attempt after the first: a minute, then twice as long each time, up to an
/// hour.
int64_t retry_delay(int attempt);

}  // namespace portage::schedule
