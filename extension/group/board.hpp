// Where the members of a group stand: who has ended, who is under way, whose turn it is, who is skipped and
// why. Decides; begins and ends nothing.
#pragma once

#include "ledger/groups.hpp"

namespace portage::group {

struct Board {
  std::vector<ledger::Member> members;  ///< in the order in which they are begun
  std::vector<size_t> ready;            ///< positions of those that may begin now
  int under_way = 0;                    ///< queued, or worked on, or left by who did
  bool ended = false;                   ///< nothing of the group goes on by itself, or by a decision
  bool completed = false;               ///< ended, and every member has completed
};

/// It will not be worked on any more unless somebody wants it to be: failed, cancelled, taken back, skipped.
bool is_out(const ledger::Member&);
/// A member's status, in words: "skipped" beside those of a run.
std::string status_of(const ledger::Member&);

/// Looks at a group, and notes why members are skipped. The caller has its lock.
Board look_at(int64_t group);

}  // namespace portage::group
