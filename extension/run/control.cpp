// See control.hpp; with the SQL-callable functions of the operator (sql/32-background.sql). Whoever works on
// a run obeys between two batches (ownership.hpp); where nobody does, it is done here.
#include "run/control.hpp"

#include "bridge/codes.hpp"
#include "bridge/entry.hpp"
#include "ledger/pipelines.hpp"
#include "run/access.hpp"
#include "run/arguments.hpp"
#include "run/background.hpp"
#include "run/ownership.hpp"
#include "run/states.hpp"

using namespace portage;
using namespace portage::run;
using ledger::Request;

namespace {

/// The run as it is and, for whoever would take it or leave it, stays until the end of the transaction.
ledger::Run run_to_control(int64_t id) {
  run_to_change(id);
  ledger::lock_run(id);
  return run_to_change(id);
}

/// A batch of the run is under way, though its owner gives no sign of life: it may still commit.
bool in_hand(const ledger::Run& run) {
  if (!in_work(run.status)) return false;
  StoredPipeline pipeline = ledger::pipeline_version(run.pipeline_id, run.version);
  return !lock_patiently(run.pipeline_id, parse_definition(pipeline.definition).scoped ? run.scope : "",
                         true);
}

/// True if an owner was asked; it will do it.
bool ask_owner(const ledger::Run& run, Request request) {
  if (run.owner_is_me || !(run.owner_alive || in_hand(run))) return false;
  ledger::make_request(run.id, request);
  return true;
}

}  // namespace

namespace portage::run {

void cancel(int64_t id) {
  ledger::Run run = run_to_control(id);
  if (!may_become(run.status, "cancelled")) refuse_transition(run.id, run.status, "cancelled");
  if (ask_owner(run, Request::cancel)) return;
  move(run.id, run.status, "cancelled", "cancelled");
  ledger::finish_run(run.id, "cancelled", "", "", "");
}

void resume(int64_t id) {
  ledger::Run run = run_to_control(id);
  bool active = in_work(run.status);
  if (active && run.owner_alive) {  // it was about to pause
    ledger::make_request(id, Request::none);
    return;
  }
  if (!active) {
    std::string to = run.paused_from.empty() ? "running" : run.paused_from;
    move(run.id, run.status, to, "resumed");
  }
  send_worker(run);
}

void retry(int64_t id) {
  ledger::Run run = run_to_control(id);
  if (run.status != "failed") refuse_transition(run.id, run.status, "running");
  // What failed in mid-rollback goes on with that.
  bool taken_back = ledger::rollback_options(run.id) != "";
  move(run.id, run.status, taken_back ? "rolling_back" : "running", "retried");
  send_worker(run);
}

}  // namespace portage::run

PORTAGE_FUNCTION(portage_pause) {
  Arguments a(fcinfo);
  bridge::Spi spi;
  ledger::Run run = run_to_control(a.run(0));
  if (!may_become(run.status, "paused")) refuse_transition(run.id, run.status, "paused");
  if (!ask_owner(run, Request::pause)) pause(run.id, run.status);
  spi.finish();
  return 0;
}

PORTAGE_FUNCTION(portage_cancel) {
  Arguments a(fcinfo);
  bridge::Spi spi;
  cancel(a.run(0));
  spi.finish();
  return 0;
}

PORTAGE_FUNCTION(portage_resume) {
  Arguments a(fcinfo);
  bridge::Spi spi;
  resume(a.run(0));
  spi.finish();
  return 0;
}

PORTAGE_FUNCTION(portage_retry) {
  Arguments a(fcinfo);
  bridge::Spi spi;
  retry(a.run(0));
  spi.finish();
  return 0;
}
