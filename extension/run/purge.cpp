// See purge.hpp; with the SQL-callable procedure purge (sql/50-undo.sql).
#include "run/purge.hpp"

#include "bridge/entry.hpp"
#include "bridge/subxact.hpp"
#include "ledger/pipelines.hpp"
#include "run/access.hpp"

namespace portage::run {

using bridge::Error;

namespace {

constexpr int steps_a_tick = 200;  // some seconds; others wait for the heartbeat, too

/// A replay of the run may be under way, which its state does not tell.
bool in_use(const ledger::PurgeableRun& run) {
  StoredPipeline pipeline = ledger::pipeline_version(run.pipeline_id, run.version);
  return !try_lock(run.pipeline_id, parse_definition(pipeline.definition).scoped ? run.scope : "", true);
}

}  // namespace

bool purge(std::optional<int64_t> pipeline_id, TimestampTz ended_before, ledger::Erased& erased,
           std::optional<int> steps) {
  int64_t after = 0;
  while (std::optional<ledger::PurgeableRun> run = ledger::next_to_purge(pipeline_id, ended_before, after)) {
    after = run->id;
    bool enough = steps && *steps <= 0;
    if (enough || in_use(*run)) {
      bridge::commit();
      if (enough) return false;
      continue;
    }
    ledger::Purge purge(run->id, erased);
    bool more = true;
    while (more) {
      bridge::commit();
      if (steps) --*steps;
      bridge::check_interrupts();
      more = purge.step();
    }
    bridge::commit();
  }
  bridge::commit();
  return true;
}

void purge_by_definition(int64_t now) {
  Oid me = GetUserId();
  bool admin = ledger::is_admin(me);
  for (const ledger::RetainingPipeline& pipeline : ledger::retaining_pipelines(now)) {
    if (!admin && !ledger::acts_for(me, pipeline.owner)) continue;
    if (!ledger::note_retained(pipeline.id, now)) continue;
    bridge::commit();
    std::optional<Error> error = bridge::committing([&] {
      ledger::Erased erased;
      if (purge(pipeline.id, pipeline.ended_before, erased, steps_a_tick)) return;
      ledger::note_retained(pipeline.id, std::nullopt);
      bridge::commit();
    });
    if (!error) continue;
    if (bridge::is_interrupt(error->code())) throw *error;
    bridge::notice("portage: retention: " + error->message(), "", LOG);  // in an hour it is tried again
  }
}

}  // namespace portage::run

using namespace portage;
using bridge::Error;

PORTAGE_FUNCTION(portage_purge) {
  bridge::require_nonatomic(fcinfo, "purge");
  bridge::Spi spi(true);
  if (!ledger::is_admin(GetUserId()))
    throw Error(ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied to purge the runs of all roles")
        .hint(
            "Members of portage.admin_role may; for one pipeline, its owner can write \"retain\" in the "
            "definition.");
  ledger::require_all_scopes("purge()");
  if (fcinfo->args[0].isnull)
    throw Error(ERRCODE_NULL_VALUE_NOT_ALLOWED, "argument \"older_than\" must not be null");
  TimestampTz ended_before;
  {  // the rows must be gone before the first commit
    bridge::Result before = bridge::execute(
        "SELECT pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) $1, $1 OPERATOR(pg_catalog.<) "
        "'0'::pg_catalog.interval",
        {{INTERVALOID, fcinfo->args[0].value, false}});
    if (before.boolean(0, 2))
      throw Error(ERRCODE_INVALID_PARAMETER_VALUE, "older_than must not be negative")
          .hint("CALL portage.purge('90 days'); erases what ended more than 90 days ago.");
    ended_before = DatumGetTimestampTz(before.datum(0, 1));
  }
  ledger::Erased erased;
  run::purge(std::nullopt, ended_before, erased);
  auto number = [](int64_t n) { return std::to_string(n); };
  bridge::notice("runs purged: " + number(erased.runs),
                 "Erased: " + number(erased.items) + " items, " + number(erased.chunks) +
                     " chunks of payloads, " + number(erased.before_images) + " before-images, " +
                     number(erased.checks) + " checks, " + number(erased.batches) + " batches, " +
                     number(erased.events) + " events.");
  spi.finish();
  return 0;
}
