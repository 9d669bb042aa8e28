// Runs that are worked on by background workers: which ones wait for one, asking for it, and what it does
// when it comes. How a process of the server is started is known by bridge/background.hpp.
#pragma once

#include "ledger/runs.hpp"

namespace portage::run {

/// A background worker is to work on the run, from the commit of this transaction on. An error if none
/// could: the run's session user may not log in (0A000), connect or set the run's role (42501), or is gone.
void send_worker(const ledger::Run&);

/// Nobody works on it, though it is queued, or was left by its worker, session or server.
bool waits(const ledger::Run&);

/// Works such a run off in this session, as a background worker does: does nothing if it waits no more, nor
/// if somebody else is faster. What stands in its way makes it fail, and is raised.
void work_off_waiting(int64_t id);

/// Has a background worker work the run off, as start() does: PZ006 where it cannot begin, and the errors of
/// send_worker().
void start(int64_t id);

/// Asks for background workers that join those of a run which this session has begun. Fewer come, or none,
/// where there are no slots, or the session user may not log in: the run goes on without.
void send_helpers(const ledger::Run&, int count);

/// Asks for workers for the runs that wait for one: all, or (`own_only`) those that the current user may
/// change; but for those that no worker could work on. A second one for the same run finds nothing to do;
/// `often`: this is called so often that runs that one was asked for lately are passed over.
void send_waiting_workers(bool own_only, bool often);

/// Whose work a heartbeat does itself: that of the current user alone, or of all as whom it may act.
enum class Heartbeat : uint8_t { own, all };
/// True if that is to be left: the current user may not act as the role; or, with Heartbeat::own, a
/// background worker has been asked for, which will do as that role what tick() does, so that nobody's code
/// runs in the session of who looks after all. Where none can connect it is done here. `behind`: see NewRun.
/// In a procedure that may commit: it does.
bool leave_to_others(const ledger::Role& role, const ledger::Role& behind, Heartbeat);

}  // namespace portage::run
