// The SQL-callable functions of replays (sql/35-replay.sql).
#include "bridge/entry.hpp"
#include "run/arguments.hpp"
#include "run/replay.hpp"

using namespace portage;
using namespace portage::run;
using portage::bridge::Error;

namespace {

int64_t number(FunctionCallInfo fcinfo, int i, const char* what) {
  if (fcinfo->args[i].isnull)
    throw Error(ERRCODE_NULL_VALUE_NOT_ALLOWED, std::string("the ") + what + " must not be null");
  return DatumGetInt64(fcinfo->args[i].value);
}

Datum result(FunctionCallInfo fcinfo, const ReplayCounts& counts) {
  return numbers(fcinfo, {counts.replayed, counts.landed, counts.still_rejected});
}

}  // namespace

PORTAGE_FUNCTION(portage_replay) {
  bridge::Spi spi;
  ReplayCounts counts;
  {  // what it holds must be gone before SPI is
    Replay replay(run_to_change(number(fcinfo, 0, "run")), Commits::no);
    counts = replay.all();
  }
  spi.finish();
  return result(fcinfo, counts);
}

PORTAGE_FUNCTION(portage_replay_item) {
  bridge::Spi spi;
  std::optional<std::string> corrected;
  if (!fcinfo->args[2].isnull) corrected = bridge::string_of(fcinfo->args[2].value);
  ReplayCounts counts;
  {
    Replay replay(run_to_change(number(fcinfo, 0, "run")), Commits::no);
    counts = replay.one(number(fcinfo, 1, "ordinal"), corrected);
  }
  spi.finish();
  return result(fcinfo, counts);
}

PORTAGE_FUNCTION(portage_replay_run) {
  bridge::require_nonatomic(fcinfo, "replay_run", "portage.replay()");
  bridge::Spi spi(true);
  ReplayCounts counts;
  {
    Replay replay(run_to_change(number(fcinfo, 0, "run")), Commits::yes);
    counts = replay.all();
  }
  spi.finish();
  return result(fcinfo, counts);
}
