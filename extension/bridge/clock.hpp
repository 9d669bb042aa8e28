// What time it is: for durations, and for the ledger.
#pragma once

#include "bridge/spi.hpp"

namespace portage::bridge {

/// Milliseconds of a clock that only goes forward.
inline double now_ms() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

/// This moment as text that reads back as the same, whatever the session's DateStyle.
inline std::string now_text() {
  TimestampTz now = GetCurrentTimestamp();
  return guarded([=] { return pstrdup(timestamptz_to_str(now)); });
}

/// This moment as a timestamptz.
inline Datum now_datum() { return TimestampTzGetDatum(GetCurrentTimestamp()); }

}  // namespace portage::bridge
