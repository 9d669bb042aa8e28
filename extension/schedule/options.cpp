// See options.hpp. One table says which options there are and how each is read.
#include <nlohmann/json.hpp>

#include "schedule/options.hpp"

#include "bridge/subxact.hpp"
#include "run/option_table.hpp"
#include "run/options.hpp"

extern "C" {
#include "pgtime.h"
}

namespace portage::schedule {
namespace {

using bridge::Error;
using Json = nlohmann::json;

[[noreturn]] void fault(const std::string& name, const std::string& wanted) {
  throw Error(codes::invalid_option, "option \"" + name + "\" must be " + wanted)
      .hint("See docs/reference.md for the options of a schedule.");
}

std::string text(const std::string& name, const Json& value) {
  if (!value.is_string()) fault(name, "a string");
  return value.get<std::string>();
}

[[noreturn]] void unknown(const std::string& what, const std::vector<std::string>& names) {
  throw Error(codes::invalid_option, "unknown option \"" + what + "\"").hint(nearest_hint(what, names));
}

int64_t seconds_of(const std::string& name, const Json& value) {
  std::string interval = text(name, value);
  double seconds = 0;
  std::optional<Error> error = bridge::attempt([&] {
    seconds = std::stod(
        bridge::execute("SELECT pg_catalog.date_part('epoch', $1::pg_catalog.interval)::pg_catalog.text",
                        {bridge::param(interval)})
            .text(0, 1));
  });
  if (error || !(seconds >= 1 && seconds < 1e10)) fault(name, "a positive interval such as \"4 hours\"");
  return static_cast<int64_t>(seconds);
}

int minutes_of(const Json& value) {
  static constexpr const char* wanted = "windows whose \"from\" and \"to\" are times such as \"22:30\"";
  if (!value.is_string()) fault("blackout", wanted);
  std::string time = value.get<std::string>();
  auto digits = [&](size_t at) { return (time[at] - '0') * 10 + time[at + 1] - '0'; };
  bool formed = time.size() == 5 && time[2] == ':';
  for (size_t i : {0, 1, 3, 4}) formed = formed && time[i] >= '0' && time[i] <= '9';
  if (!formed || digits(3) > 59 || digits(0) * 60 + digits(3) > 24 * 60) fault("blackout", wanted);
  return digits(0) * 60 + digits(3);
}

unsigned days_of(const Json& value) {
  static const std::vector<std::string> names{"sun", "mon", "tue", "wed", "thu", "fri", "sat"};
  static constexpr const char* wanted = "windows whose \"days\" are a list of \"mon\", \"tue\" and so on";
  if (!value.is_array() || value.empty()) fault("blackout", wanted);
  unsigned days = 0;
  for (const Json& day : value) {
    auto found =
        day.is_string() ? std::find(names.begin(), names.end(), day.get<std::string>()) : names.end();
    if (found == names.end()) fault("blackout", wanted);
    days |= 1u << (found - names.begin());
  }
  return days;
}

std::vector<Window> windows_of(const Json& value) {
  if (!value.is_array())
    fault("blackout", "a list of windows such as {\"from\": \"22:00\", \"to\": \"02:00\"}");
  std::vector<Window> windows;
  for (const Json& one : value) {
    if (!one.is_object() || !one.contains("from") || !one.contains("to"))
      fault("blackout", "a list of windows such as {\"from\": \"22:00\", \"to\": \"02:00\"}");
    Window window{minutes_of(one["from"]), minutes_of(one["to"])};
    for (const auto& [name, inner] : one.items()) {
      if (name == "days")
        window.days = days_of(inner);
      else if (name != "from" && name != "to")
        unknown("blackout." + name, {"blackout.from", "blackout.to", "blackout.days"});
    }
    if (window.from == window.to || window.from == 24 * 60)
      fault("blackout", "windows that are not empty; a whole day is from \"00:00\" to \"24:00\"");
    windows.push_back(window);
  }
  return windows;
}

CatchUp catch_up_of(const std::string& name, const Json& value) {
  if (value == "skip") return CatchUp::skip;
  if (value == "once") return CatchUp::once;
  if (value == "all") return CatchUp::all;
  fault(name, "\"skip\", \"once\" or \"all\"");
}

/// What reading gathers: the options, and what only together makes sense.
struct Read {
  Options options;
  Json run_options = Json::object();
  bool detect_only = false;
};

using Reader = void (*)(Read&, const std::string&, const Json&);

struct Known {
  const char* name;
  Reader read;
};

constexpr Known known[] = {
    {"scope", [](Read& r, const std::string& n, const Json& v) { r.options.scope = text(n, v); }},
    {"timezone", [](Read& r, const std::string& n, const Json& v) { r.options.timezone = text(n, v); }},
    {"catch_up",
     [](Read& r, const std::string& n, const Json& v) { r.options.catch_up = catch_up_of(n, v); }},
    {"deadline", [](Read& r, const std::string& n, const Json& v) { r.options.deadline = seconds_of(n, v); }},
    {"blackout", [](Read& r, const std::string&, const Json& v) { r.options.blackout = windows_of(v); }},
    {"retry_attempts",
     [](Read& r, const std::string& n, const Json& v) {
       if (!v.is_number_integer() || v.get<int64_t>() < 0 || v.get<int64_t>() > 100)
         fault(n, "a whole number from 0 to 100");
       r.options.retry_attempts = v.get<int>();
     }},
    {"detect_only",
     [](Read& r, const std::string& n, const Json& v) {
       if (!v.is_boolean()) fault(n, "true or false");
       r.detect_only = v.get<bool>();
     }},
    {"options",
     [](Read& r, const std::string& n, const Json& v) {
       if (!v.is_object()) fault(n, "an object: the options of the runs");
       r.run_options = v;
     }},
};

int offset_of(const void* zone, int64_t moment) {
  pg_time_t time = moment;
  struct pg_tm* local = pg_localtime(&time, static_cast<const pg_tz*>(zone));
  return local ? static_cast<int>(local->tm_gmtoff) : 0;
}

}  // namespace

Options parse_options(const std::string& json) {
  Read read;
  run::read_options(json, "a schedule", "{\"timezone\": \"Europe/Berlin\", \"deadline\": \"4 hours\"}", known,
                    read);
  if (read.detect_only) {
    if (read.run_options.contains("dry_run") && read.run_options["dry_run"] != true)
      fault("detect_only", "left out where the runs are no dry runs");
    read.run_options["dry_run"] = true;
  }
  read.options.run_options = read.run_options.dump();
  run::parse_options(read.options.run_options);
  return read.options;
}

Cron parse_cron(const std::string& expression) {
  std::variant<Cron, CronFault> parsed = Cron::parse(expression);
  if (auto* cron = std::get_if<Cron>(&parsed)) return *cron;
  const CronFault& fault = std::get<CronFault>(parsed);
  throw Error(codes::invalid_schedule, "invalid cron expression \"" + expression + "\"")
      .detail((fault.field.empty() ? "At character " : "In the field " + fault.field + ", at character ") +
              std::to_string(fault.position) + ": " + fault.message + ".")
      .hint(
          "The fields are minute, hour, day of month, month and day of week: \"30 2 * * *\" is every night "
          "at "
          "half past two. Or @hourly, @daily, @weekly, @monthly, @yearly.");
}

Zone zone_named(const std::string& name) {
  const char* text = name.c_str();
  pg_tz* zone = bridge::guarded([=] {
    pg_tz* found = strlen(text) <= TZ_STRLEN_MAX ? pg_tzset(text) : nullptr;
    return found && pg_tz_acceptable(found) ? found : nullptr;
  });
  if (!zone)
    throw Error(codes::invalid_option, "unknown time zone \"" + name + "\"")
        .hint("SELECT name FROM pg_timezone_names; lists those that there are.");
  return {offset_of, zone};
}

}  // namespace portage::schedule
