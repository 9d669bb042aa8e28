// Moving groups on: members whose turn it is are begun, and when all have ended, so has the group. Called by
// whoever has just ended a member, and by heartbeats; it does the work of no member but in work_off().
#pragma once

#include "group/board.hpp"
#include "run/background.hpp"

namespace portage::group {

/// Has background workers begin with the members whose turn it is, in this transaction; true if there is
/// nothing left to be done for any. Nothing happens, and false, if the group is not under way in the
/// background; or, without `wait`, if somebody else moves it on at this moment.
bool begin_members(int64_t id, bool wait);

/// The same, committed, with the group's end where it has come. The caller may commit.
void move_on(int64_t id, bool wait);
/// All groups for which the current user may act. What fails is told in the log.
void move_all_on(bool wait, run::Heartbeat);

/// Works everything off in this session, one member after the other; returns when nothing is left to do that
/// goes on by itself. A group that has failed gets another try.
void work_off(int64_t id);

/// A group that has failed goes on, as does one that is under way: failed members get another try in their
/// turn, those skipped because of them get theirs. PZ006 for another one.
void reopen(const ledger::Group&);

}  // namespace portage::group
