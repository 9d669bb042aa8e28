// See moving.hpp.
#include "group/moving.hpp"

#include "bridge/background.hpp"
#include "bridge/codes.hpp"
#include "bridge/entry.hpp"
#include "bridge/subxact.hpp"
#include "group/access.hpp"
#include "run/access.hpp"
#include "run/background.hpp"
#include "run/control.hpp"
#include "run/entry_points.hpp"
#include "run/parked.hpp"
#include "run/states.hpp"

namespace portage::group {

using bridge::Error;
using bridge::format;
using ledger::Member;

namespace {

/// Items that wait for what another member has brought; what is missing then will not come any more.
void settle_parked(std::vector<Member>& members) {
  auto round = [&](bool give_up) {
    int64_t settled = 0;
    for (Member& m : members) {
      if (m.dry_run || m.parked == 0) continue;
      run::ParkedCounts counts = run::Parked(*ledger::find_run(m.run), run::Commits::yes).work(give_up);
      settled += counts.settled;
      m.parked = counts.still_parked;
    }
    return settled;
  };
  while (round(false) > 0) {  // what has landed may be what others wait for
  }
  round(true);
}

/// The group has ended if it still has: nobody wants to go on with one of its members.
void end(int64_t id, const std::string& status, const std::string& error) {
  std::optional<ledger::Group> group = ledger::lock_group(id, true);
  if (!group || group->status != "running" || !look_at(id).ended) return;
  ledger::set_group_status(id, status, error);
  bridge::notice(format("portage: group %lld: running -> %s", static_cast<long long>(id), status.c_str()), "",
                 LOG);
}

/// False if somebody else is at it, or has one of the pipelines: then it is to be tried again.
bool finish(int64_t id) {
  run::SessionLock alone(id, "portage group");
  if (!alone.held()) return false;
  std::vector<Member> members = ledger::members_of(id);
  bool completed =
      std::all_of(members.begin(), members.end(), [](const Member& m) { return m.status == "completed"; });
  std::string error;
  std::optional<Error> caught = bridge::committing([&] {
    if (completed) settle_parked(members);
  });
  if (caught) {
    if (bridge::is_interrupt(caught->code())) throw *caught;
    if (caught->code() == codes::run_in_progress) return false;
    error = caught->message() + (caught->report().detail.empty() ? "" : "\n" + caught->report().detail);
  }
  end(id, completed && error.empty() ? "completed" : "failed", error);
  bridge::commit();
  return true;
}

void begin(int64_t group, Member& member) {
  if (!member.again) return run::start(member.run);
  member.again = false;
  ledger::note_member(group, member);
  run::retry(member.run);
}

/// One member, here and now; it is queued first, so that what stands in its way makes it fail.
void work_off_member(int64_t group, Member& member) {
  long long id = static_cast<long long>(member.run);
  if (member.again) {
    member.again = false;
    ledger::note_member(group, member);
    run::move(member.run, "failed", "running", "retried");
  } else if (member.status == "pending") {
    run::move(member.run, "pending", "queued", "queued");
  }
  ledger::want_worker(member.run);  // so that it counts as left by somebody, whoever that was
  bridge::commit();
  std::optional<Error> error = bridge::committing([&] { run::work_off_waiting(member.run); });
  if (error) {
    if (bridge::is_interrupt(error->code()) || ledger::find_run(member.run)->status != "failed") throw *error;
    bridge::notice(
        format("run %lld of pipeline \"%s\" failed: ", id, member.pipeline.c_str()) + error->message(),
        error->report().detail, WARNING);
    return;
  }
  std::string status = ledger::find_run(member.run)->status;
  if (status == "queued")
    bridge::nap(100);  // another run of its pipeline has the turn
  else
    bridge::notice(format("run %lld of pipeline \"%s\" is %s", id, member.pipeline.c_str(), status.c_str()));
}

}  // namespace

bool begin_members(int64_t id, bool wait) {
  std::optional<ledger::Group> group = ledger::lock_group(id, wait);
  if (!group || group->status != "running" || !group->background) return false;
  Board board = look_at(id);
  for (size_t i : board.ready) {
    if (board.under_way++ >= group->workers) break;
    begin(id, board.members[i]);
  }
  return board.ended;
}

void move_on(int64_t id, bool wait) {
  bool ended = false;
  if (std::optional<Error> error = bridge::transact([&] { ended = begin_members(id, wait); })) throw *error;
  if (ended) finish(id);
}

void move_all_on(bool wait, run::Heartbeat heartbeat) {
  for (const ledger::Group& group : ledger::groups_in_background()) {
    if (!acts_for(group) || run::leave_to_others(group.role, group.role, heartbeat)) continue;
    std::optional<Error> error = bridge::committing([&] { move_on(group.id, wait); });
    if (!error) continue;
    if (bridge::is_interrupt(error->code())) throw *error;
    bridge::notice(format("portage: group %lld: ", static_cast<long long>(group.id)) + error->message(),
                   error->report().detail, LOG);
  }
}

void work_off(int64_t id) {
  for (;;) {
    std::optional<ledger::Group> group = ledger::lock_group(id, true);
    if (!group || group->status != "running") return bridge::commit();
    Board board = look_at(id);
    Member* next = nullptr;
    bool others = false;
    for (Member& m : board.members) {
      bool left = m.status == "queued" || (run::in_work(m.status) && !m.owner_alive);
      if (left && !next) next = &m;
      others = others || (run::in_work(m.status) && m.owner_alive);
    }
    if (!next && !board.ready.empty()) next = &board.members[board.ready[0]];
    if (next) {
      work_off_member(id, *next);
    } else {
      bridge::commit();
      if (board.ended && finish(id)) return;
      if (!board.ended && !others) return;  // paused, or waiting for decisions
      bridge::nap(100);
    }
    bridge::check_interrupts();
  }
}

void reopen(const ledger::Group& group) {
  if (group.status != "running" && group.status != "failed")
    throw Error(codes::wrong_state, format("group %lld is %s and cannot go on",
                                           static_cast<long long>(group.id), group.status.c_str()))
        .hint("Open a new group: what is migrated is known, unchanged items are skipped.");
  for (Member& m : ledger::members_of(group.id)) {
    if (m.status != "failed" || m.again) continue;
    m.again = true;
    ledger::note_member(group.id, m);
  }
  ledger::set_group_status(group.id, "running");
}

}  // namespace portage::group
