// See parked.hpp. The SQL-callable functions are in sql/36-references.sql.
#include "run/parked.hpp"

#include "bridge/codes.hpp"
#include "bridge/entry.hpp"
#include "bridge/subxact.hpp"
#include "ledger/references.hpp"
#include "run/arguments.hpp"
#include "run/unpark.hpp"

namespace portage::run {

using bridge::Error;
using bridge::format;

Parked::Parked(const ledger::Run& run, Commits commits)
    : Reopened(run, commits, "parked items cannot be settled") {
  policy_.late = true;
  begin(load::overwrites(policy_.on_conflict));
}

ParkedCounts Parked::work(bool give_up) {
  ParkedCounts counts;
  std::string began = ledger::moment_of_all_seen();
  Unpark unpark(run_, options_, *plan_, role_, policy_, give_up);
  for (;;) {
    begin_page();
    Stage::Page page = unpark.page();
    if (page.counts.parked != 0) {
      counts.settled -= page.counts.parked;
      ledger::update_counters(run_.id,
                              page.counts.inserted + page.counts.updated + page.counts.unchanged > 0);
    }
    if (commits_ == Commits::yes) bridge::commit();
    unpark.committed();
    if (page.finished) break;
    bridge::check_interrupts();
  }
  ledger::Counts sum = ledger::sum_batches(run_.id);
  counts.still_parked = sum.parked;
  if (counts.settled > 0)
    ledger::add_event(
        run_.id, "references_settled",
        format("{\"settled\": %lld, \"still_parked\": %lld}", static_cast<long long>(counts.settled),
               static_cast<long long>(counts.still_parked)));
  ledger::note_references_tried(run_.id, began);  // only now: what is broken off is taken up again
  if (commits_ == Commits::yes) bridge::commit();
  return counts;
}

namespace {

/// True if it went well.
bool settle_one(int64_t id, Commits commits) {
  auto work = [&] { Parked(*ledger::find_run(id), commits).work(false); };
  std::optional<Error> error = commits == Commits::no ? bridge::attempt(work) : bridge::committing(work);
  if (!error) return true;
  if (bridge::concerns_whole_batch(error->code()) && error->code() != ERRCODE_INSUFFICIENT_PRIVILEGE)
    throw *error;
  bridge::notice(
      format("items of run %lld wait on: %s", static_cast<long long>(id), error->message().c_str()),
      format("SELECT portage.settle(%lld); or CALL portage.tick(); as its role settles them.",
             static_cast<long long>(id)));
  return false;
}

}  // namespace

void settle_waiting_runs(int64_t pipeline_id, const std::optional<std::string>& scope, Commits commits) {
  for (int64_t id : ledger::runs_waiting_for(pipeline_id, scope)) settle_one(id, commits);
}

bool settle_waiting_runs_after(const ledger::Run& run) {
  if (run.status != "completed") return false;
  std::optional<std::string> scope;
  if (parse_definition(ledger::pipeline_version(run.pipeline_id, run.version).definition).scoped)
    scope = run.scope;
  std::vector<int64_t> waiting = ledger::runs_waiting_for(run.pipeline_id, scope);
  std::vector<ledger::RunWithNews> news = ledger::runs_with_news();
  bool open = std::any_of(news.begin(), news.end(), [&](const ledger::RunWithNews& one) {
    return std::find(waiting.begin(), waiting.end(), one.id) != waiting.end();
  });
  if (open) settle_waiting_runs(run.pipeline_id, scope, Commits::yes);
  return open;
}

void settle_waiting_runs_of_user(Heartbeat heartbeat) {
  for (const ledger::RunWithNews& run : ledger::runs_with_news())
    if (OidIsValid(run.role.oid) && !leave_to_others(run.role, run.session_role, heartbeat))
      settle_one(run.id, Commits::yes);
}

}  // namespace portage::run

using namespace portage;
using namespace portage::run;

namespace {

Datum settle(FunctionCallInfo fcinfo, Commits commits) {
  Arguments a(fcinfo);
  bridge::Spi spi(commits == Commits::yes);
  ParkedCounts counts;
  {  // what it holds must be gone before SPI is
    Parked parked(run_to_change(a.run(0)), commits);
    counts = parked.work(a.flag(1));
  }
  spi.finish();
  return numbers(fcinfo, {counts.settled, counts.still_parked});
}

}  // namespace

PORTAGE_FUNCTION(portage_settle) { return settle(fcinfo, Commits::no); }

PORTAGE_FUNCTION(portage_settle_run) {
  bridge::require_nonatomic(fcinfo, "settle_run", "portage.settle()");
  return settle(fcinfo, Commits::yes);
}
