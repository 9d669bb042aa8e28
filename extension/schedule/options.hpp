// The options of a schedule (docs/reference.md lists them): one name each, unknown names refused with the
// nearest ones. And what else of a schedule is text: its expression and its time zone.
#pragma once

#include <string>

#include "schedule/due.hpp"

namespace portage::schedule {

struct Options {
  std::string scope;
  std::optional<std::string> timezone;  ///< else the session's
  std::vector<Window> blackout;
  CatchUp catch_up = CatchUp::once;
  std::optional<int64_t> deadline;  ///< seconds
  int retry_attempts = 3;
  std::string run_options = "{}";  ///< of its runs, as a JSON object
};

/// Parses and checks the options, and those of the runs. Raises PZ003 naming the option. Needs SPI.
Options parse_options(const std::string& json);

/// Raises PZ050 with the field and its position.
Cron parse_cron(const std::string& expression);

/// A zone of PostgreSQL's. Raises PZ003 for an unknown name.
Zone zone_named(const std::string& name);

}  // namespace portage::schedule
