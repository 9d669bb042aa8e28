// Background workers of the server: registering one for an errand, and what such a process does. Knows SQL
// statements and roles; which runs wait for a worker is known by run/ (sql/32-background.sql).
#pragma once

#include "bridge/pg.hpp"

namespace portage::bridge {

/// What a worker is sent for. Plain: it travels through shared memory.
struct Errand {
  Oid database;
  Oid session_role;  ///< whom it connects as
  Oid role;          ///< to whom it does SET ROLE, where that is another one; it serves no other role
  int64 run;         ///< 0: none, only what tick() does for the role
  bool joins;        ///< as one of several workers of a run that is being worked on
};

/// Registers a worker when the current transaction commits; none if it aborts. If no slot is free then, none
/// comes: the run goes on waiting. Raises when out of memory.
void launch_at_commit(const Errand&);
/// Registers a worker now; false if no slot is free.
bool launch_now(const Errand&);

/// Waits so long, or until the process is spoken to. Interrupts take effect.
void nap(long milliseconds);

/// Registers the launcher of a database: a process that asks once a second for the workers that runs wait
/// for. While the server starts only; raw.
void register_launcher(const char* database);

}  // namespace portage::bridge
