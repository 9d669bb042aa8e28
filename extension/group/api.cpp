// The SQL-callable functions of groups (sql/62-groups.sql): they take their arguments apart, check who calls,
// and call the rest of group/.
#include "bridge/background.hpp"
#include "bridge/codes.hpp"
#include "bridge/entry.hpp"
#include "group/access.hpp"
#include "group/moving.hpp"
#include "group/opening.hpp"
#include "group/plan.hpp"
#include "run/arguments.hpp"
#include "run/background.hpp"
#include "run/control.hpp"
#include "run/initial_load.hpp"
#include "run/states.hpp"
#include "undo/rollback.hpp"

using namespace portage;
using namespace portage::group;
using bridge::Error;
using bridge::format;
using run::Arguments;

namespace {

int64_t group_argument(FunctionCallInfo fcinfo) {
  if (fcinfo->args[0].isnull) throw Error(ERRCODE_NULL_VALUE_NOT_ALLOWED, "the group must not be null");
  return DatumGetInt64(fcinfo->args[0].value);
}

std::string status_now(int64_t id) { return group_to_read(id).status; }

/// Members that have begun, last ones first: those that others build on go last.
std::vector<ledger::Member> to_take_back(int64_t group) {
  std::vector<ledger::Member> members = ledger::members_of(group);
  std::erase_if(members, [](const ledger::Member& m) { return !m.begun || m.status == "rolled_back"; });
  std::reverse(members.begin(), members.end());
  return members;
}

void take_back(const ledger::Member& member, undo::Drifted drifted, bool cascade) {
  ledger::Run run = run::run_to_change(member.run);
  run::restore_key_before_rollback(run);
  Oid role = run::role_of(run);
  bool begun = run.status == "rolling_back" || run.paused_from == "rolling_back";
  undo::Rollback rollback =
      begun ? undo::Rollback::resumed(run, role) : undo::Rollback(run, role, drifted, cascade);
  rollback.begin();
  rollback.work();
  run::restore_indexes_after_rollback(run.id);
}

}  // namespace

PORTAGE_FUNCTION(portage_plan_group) {
  Arguments a(fcinfo);
  bridge::Spi spi;
  std::string plan = plan_of(a.texts(0, "the name of a pipeline"), a.maybe_text(1).value_or(""));
  Datum answer = bridge::param_json(plan).value;
  spi.finish();
  return answer;
}

PORTAGE_FUNCTION(portage_run_group) {
  Arguments a(fcinfo);
  bridge::Spi spi;
  int64_t id = open_group(a.texts(0, "the name of a pipeline"), a.maybe_json(1).value_or("{}"));
  begin_members(id, true);
  spi.finish();
  return Int64GetDatum(id);
}

PORTAGE_FUNCTION(portage_work_group) {
  bridge::require_nonatomic(fcinfo, "work_group");
  bridge::Spi spi(true);
  int64_t id = group_argument(fcinfo);
  ledger::Group group = group_to_change(id);
  if (group.status == "failed") reopen(group);
  bridge::commit();
  work_off(id);
  std::string status = status_now(id);
  spi.finish();
  return run::inout(fcinfo, bridge::text_datum(status));
}

PORTAGE_FUNCTION(portage_wait_group) {
  bridge::require_nonatomic(fcinfo, "wait_group", "", "while it works");
  bridge::Spi spi(true);
  int64_t id = group_argument(fcinfo);
  std::optional<double> seconds = Arguments(fcinfo).maybe_seconds(1);
  auto start = std::chrono::steady_clock::now();
  ledger::Group group;
  for (;;) {
    group = group_to_read(id);
    bridge::commit();
    if (group.background && acts_for(group)) move_on(id, true);
    group = group_to_read(id);
    if (group.status != "running") break;
    ledger::lock_group(id,
                       true);  // or a member that has just ended would look like one that nobody goes on from
    Board board = look_at(id);
    bool moves = group.background && (board.ended || board.under_way > 0 || !board.ready.empty());
    for (const ledger::Member& m : board.members) moves = moves || m.owner_alive;
    if (!moves) {
      bridge::notice(format("group %lld does not go on by itself", static_cast<long long>(id)),
                     format("SELECT * FROM portage.group_status(%lld); shows where it stands. CALL "
                            "portage.work_group(%lld); works off what can be.",
                            static_cast<long long>(id), static_cast<long long>(id)));
      break;
    }
    double waited = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (seconds && waited >= *seconds) break;
    run::send_waiting_workers(true, true);
    bridge::commit();
    bridge::nap(100);
  }
  std::string status = group.status;
  spi.finish();
  return run::inout(fcinfo, bridge::text_datum(status));
}

PORTAGE_FUNCTION(portage_move_groups_on) {
  bridge::require_nonatomic(fcinfo, "move_groups_on", "", "while it works");
  bridge::Spi spi(true);
  move_all_on(true, run::Heartbeat::all);
  spi.finish();
  return 0;
}

PORTAGE_FUNCTION(portage_cancel_group) {
  bridge::Spi spi;
  ledger::Group group = group_to_change(group_argument(fcinfo));
  long long id = static_cast<long long>(group.id);
  if (group.status != "running")
    throw Error(codes::wrong_state,
                format("group %lld is %s and cannot be cancelled", id, group.status.c_str()))
        .hint(format("CALL portage.rollback_group(%lld); takes back what it has done.", id));
  ledger::set_group_status(group.id, "cancelled");
  for (const ledger::Member& m : ledger::members_of(group.id))
    if (m.status != "rolling_back" && run::may_become(m.status, "cancelled")) run::cancel(m.run);
  spi.finish();
  return 0;
}

PORTAGE_FUNCTION(portage_resume_group) {
  bridge::Spi spi;
  ledger::Group group = group_to_change(group_argument(fcinfo));
  reopen(group);
  ledger::set_group_background(group.id);
  for (const ledger::Member& m : ledger::members_of(group.id))
    if (m.status == "paused" || (run::in_work(m.status) && !m.owner_alive)) run::resume(m.run);
  begin_members(group.id, true);
  spi.finish();
  return 0;
}

PORTAGE_FUNCTION(portage_rollback_group) {
  bridge::require_nonatomic(fcinfo, "rollback_group");
  bridge::Spi spi(true);
  ledger::Group group = group_to_change(group_argument(fcinfo));
  long long id = static_cast<long long>(group.id);
  if (group.status == "running")
    throw Error(codes::wrong_state, format("group %lld is running and cannot be rolled back", id))
        .hint(format("Wait for it, or SELECT portage.cancel_group(%lld);", id));
  undo::Drifted drifted =
      undo::parse_drifted(fcinfo->args[1].isnull ? "refuse" : bridge::string_of(fcinfo->args[1].value));
  bool cascade = !fcinfo->args[2].isnull && DatumGetBool(fcinfo->args[2].value);
  bridge::commit();
  for (const ledger::Member& member : to_take_back(group.id)) {
    try {
      take_back(member, drifted, cascade);
    } catch (const Error& error) {
      const bridge::ErrorReport& report = error.report();
      throw Error(error.code(), report.message)
          .detail(format("The rollback of group %lld stops at run %lld of pipeline \"", id,
                         static_cast<long long>(member.run)) +
                  member.pipeline + "\"." + (report.detail.empty() ? "" : " " + report.detail))
          .hint(report.hint);
    }
    std::string status = ledger::find_run(member.run)->status;
    if (status != "rolled_back")
      throw Error(codes::wrong_state, format("run %lld of pipeline \"", static_cast<long long>(member.run)) +
                                          member.pipeline + "\" is " + status)
          .detail(format("The rollback of group %lld stops there.", id))
          .hint(format("CALL portage.rollback_group(%lld); goes on with it.", id));
    ledger::set_group_status(group.id, "rolling_back");
    bridge::commit();
  }
  ledger::set_group_status(group.id, "rolled_back");
  bridge::commit();
  spi.finish();
  return 0;
}
