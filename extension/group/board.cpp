// See board.hpp.
#include "group/board.hpp"

#include "bridge/error.hpp"
#include "run/states.hpp"

namespace portage::group {
namespace {

using ledger::Member;

/// What a member waits for: true if there is something; `obstacle`: that will not come.
bool waits_for_others(const Member& member, const std::map<int64_t, const Member*>& members,
                      std::string& obstacle) {
  bool waits = false;
  for (int64_t run : member.waits_for) {
    auto found = members.find(run);
    const Member* first = found == members.end() ? nullptr : found->second;
    if (first && first->status == "completed") continue;
    waits = true;
    if (!obstacle.empty() || (first && !is_out(*first))) continue;
    obstacle = bridge::format("run %lld", static_cast<long long>(run));
    obstacle += first ? " of pipeline \"" + first->pipeline + "\" is " + status_of(*first)
                      : std::string(" does not exist any more");
  }
  return waits;
}

}  // namespace

bool is_out(const Member& m) {
  return (m.status == "failed" && !m.again) || m.status == "cancelled" || m.status == "rolling_back" ||
         m.status == "rolled_back" || (m.status == "pending" && !m.reason.empty());
}

std::string status_of(const Member& m) {
  return m.status == "pending" && !m.reason.empty() ? "skipped" : m.status;
}

Board look_at(int64_t group) {
  Board board;
  board.members = ledger::members_of(group);
  board.ended = board.completed = true;
  std::map<int64_t, const Member*> members;
  for (Member& m : board.members) {  // what a member waits for stands before it
    members[m.run] = &m;
    std::string obstacle, reason = m.reason;
    bool waits = waits_for_others(m, members, obstacle), again = m.again;
    m.reason = m.status == "pending" ? obstacle : "";
    m.again = again && m.status == "failed" && obstacle.empty();
    if (m.reason != reason || m.again != again) ledger::note_member(group, m);
    if (!waits && (m.status == "pending" || m.again))
      board.ready.push_back(static_cast<size_t>(&m - board.members.data()));
    if (m.status == "queued" || run::in_work(m.status)) board.under_way++;
    bool completed = m.status == "completed";
    board.completed = board.completed && completed;
    board.ended = board.ended && (completed || is_out(m));
  }
  return board;
}

}  // namespace portage::group
