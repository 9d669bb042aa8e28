// See background.hpp. The worker's main function is raw code throughout: statements are executed as psql
// would have them executed, at the top level, so that procedures can commit.
#include "bridge/background.hpp"

#include "bridge/guard.hpp"

extern "C" {
#include "commands/extension.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/wait_event.h"

PGDLLEXPORT void portage_worker_main(Datum argument);
PGDLLEXPORT void portage_launcher_main(Datum argument);
}

namespace portage::bridge {
namespace {

constinit List* launches = NIL;  // of the current transaction, in TopMemoryContext
constinit bool listening = false;

BackgroundWorker described(const char* type, const char* function, int restart_seconds) {
  BackgroundWorker worker;
  memset(&worker, 0, sizeof worker);
  worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
  worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
  worker.bgw_restart_time = restart_seconds;
  strlcpy(worker.bgw_library_name, "pg_portage", sizeof worker.bgw_library_name);
  strlcpy(worker.bgw_function_name, function, sizeof worker.bgw_function_name);
  strlcpy(worker.bgw_type, type, sizeof worker.bgw_type);
  return worker;
}

bool register_raw(const Errand* errand) {
  BackgroundWorker worker = described("portage worker", "portage_worker_main", BGW_NEVER_RESTART);
  if (errand->run)
    snprintf(worker.bgw_name, sizeof worker.bgw_name, "portage worker for run %lld",
             static_cast<long long>(errand->run));
  else
    strlcpy(worker.bgw_name, "portage worker for a heartbeat", sizeof worker.bgw_name);
  static_assert(sizeof *errand <= sizeof worker.bgw_extra);
  memcpy(worker.bgw_extra, errand, sizeof *errand);
  return RegisterDynamicBackgroundWorker(&worker, nullptr);
}

void at_end_of_transaction(XactEvent event, void*) {
  if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE) return;
  if (event == XACT_EVENT_COMMIT) {
    ListCell* cell;
    foreach (cell, launches)
      if (!register_raw(static_cast<const Errand*>(lfirst(cell)))) break;
  }
  list_free_deep(launches);
  launches = NIL;
}

void launch_at_commit_raw(const Errand* errand) {
  if (!listening) RegisterXactCallback(at_end_of_transaction, nullptr);
  listening = true;
  MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);
  auto* copy = static_cast<Errand*>(palloc(sizeof *errand));
  *copy = *errand;
  launches = lappend(launches, copy);
  MemoryContextSwitchTo(before);
}

/// Between PG_CATCH and PG_END_TRY: the error goes to the log, and the transaction is over.
void log_and_abort_raw() {
  HOLD_INTERRUPTS();
  EmitErrorReport();
  AbortCurrentTransaction();
  FlushErrorState();
  RESUME_INTERRUPTS();
}

void nap_raw(long milliseconds) {
  WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, milliseconds, PG_WAIT_EXTENSION);
  ResetLatch(MyLatch);
  CHECK_FOR_INTERRUPTS();
}

/// One statement at the top level, in a transaction that it may end and begin itself. An error is logged.
bool execute_at_top_raw(const char* sql, MemoryContext memory) {
  volatile bool done = false;
  debug_query_string = sql;
  SetCurrentStatementStartTimestamp();  // what is told of the activity: by it the owner of a run is known
  pgstat_report_activity(STATE_RUNNING, sql);
  PG_TRY();
  {
    StartTransactionCommand();
    MemoryContextSwitchTo(memory);
    List* parsed = pg_parse_query(sql);
    auto* statement = linitial_node(RawStmt, parsed);
    PushActiveSnapshot(GetTransactionSnapshot());
    List* analyzed = pg_analyze_and_rewrite_fixedparams(statement, sql, nullptr, 0, nullptr);
    List* planned = pg_plan_queries(analyzed, sql, 0, nullptr);
    PopActiveSnapshot();
    Portal portal = CreatePortal("", true, true);
    portal->visible = false;
    PortalDefineQuery(portal, nullptr, sql, CreateCommandTag(statement->stmt), planned, nullptr);
    PortalStart(portal, nullptr, 0, InvalidSnapshot);
    run_portal(portal, None_Receiver);
    PortalDrop(portal, false);
    CommitTransactionCommand();
    done = true;
  }
  PG_CATCH();
  { log_and_abort_raw(); }
  PG_END_TRY();
  MemoryContextSwitchTo(memory);
  MemoryContextReset(memory);
  debug_query_string = nullptr;
  pgstat_report_activity(STATE_IDLE, nullptr);
  pgstat_report_stat(true);
  return done;
}

/// As new as after connecting, as the role of the errand: nothing of what a run has left in this process, a
/// setting, a prepared statement, a lock, meets the next one.
bool begin_anew_raw(Oid session_role, Oid role, MemoryContext memory) {
  if (!execute_at_top_raw("DISCARD ALL", memory)) return false;
  if (session_role == role) return true;
  StartTransactionCommand();
  const char* name = GetUserNameFromId(role, true);
  char* sql =
      name ? MemoryContextStrdup(TopMemoryContext, psprintf("SET ROLE %s", quote_identifier(name))) : nullptr;
  CommitTransactionCommand();
  bool done = sql && execute_at_top_raw(sql, memory);
  if (sql) pfree(sql);
  return done;
}

/// The next run of this role that waits for such a worker; 0 if there is none.
int64 next_run_raw() {
  volatile int64 run = 0;
  PG_TRY();
  {
    SetCurrentStatementStartTimestamp();
    StartTransactionCommand();
    SPI_connect();
    PushActiveSnapshot(GetTransactionSnapshot());
    if (SPI_execute("SELECT portage.next_waiting_run()", false, 1) == SPI_OK_SELECT && SPI_processed == 1) {
      bool null;
      Datum found = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null);
      if (!null) run = DatumGetInt64(found);
    }
    SPI_finish();
    PopActiveSnapshot();
    CommitTransactionCommand();
  }
  PG_CATCH();
  {
    log_and_abort_raw();
    run = 0;
  }
  PG_END_TRY();
  return run;
}

}  // namespace

void register_launcher(const char* database) {
  BackgroundWorker worker = described("portage launcher", "portage_launcher_main", 10);
  snprintf(worker.bgw_name, sizeof worker.bgw_name, "portage launcher for %s", database);
  strlcpy(worker.bgw_extra, database, sizeof worker.bgw_extra);
  RegisterBackgroundWorker(&worker);
}

void launch_at_commit(const Errand& errand) {
  const Errand* e = &errand;
  guarded([=] { launch_at_commit_raw(e); });
}

void nap(long milliseconds) { guarded(nap_raw, milliseconds); }

bool launch_now(const Errand& errand) {
  const Errand* e = &errand;
  return guarded([=] { return register_raw(e); });
}

}  // namespace portage::bridge

void portage_worker_main(Datum) {
  using namespace portage::bridge;
  Errand errand;
  memcpy(&errand, MyBgworkerEntry->bgw_extra, sizeof errand);
  pqsignal(SIGHUP, SignalHandlerForConfigReload);
  pqsignal(SIGINT, StatementCancelHandler);
  pqsignal(SIGTERM, die);
  BackgroundWorkerUnblockSignals();
  BackgroundWorkerInitializeConnectionByOid(errand.database, errand.session_role, worker_connection_flags);
  // Limits are for requests. Who asked for this run was let, and what it does is that run's scope.
  SetConfigOption("portage.scope", "", PGC_SUSET, PGC_S_OVERRIDE);
  SetConfigOption("portage.scope_required", "off", PGC_SUSET, PGC_S_OVERRIDE);
  MemoryContext memory = AllocSetContextCreate(TopMemoryContext, "portage worker", ALLOCSET_DEFAULT_SIZES);
  MemoryContextSwitchTo(memory);
  char sql[100];
  int64 run = errand.run;
  bool able;
  while ((able = begin_anew_raw(errand.session_role, errand.role, memory)) && run != 0) {
    snprintf(sql, sizeof sql,
             errand.joins ? "CALL portage.work(%lld)" : "CALL portage.run_in_background(%lld)",
             static_cast<long long>(run));
    execute_at_top_raw(sql, memory);
    if (errand.joins) proc_exit(0);
    execute_at_top_raw("CALL portage.move_groups_on()", memory);
    run = next_run_raw();
  }
  // Never as the session's role: this process has run the other one's code.
  if (able) execute_at_top_raw("CALL portage.tick()", memory);
  proc_exit(0);
}

// Does nothing but ask for workers: what they do, they do as the roles of their runs.
void portage_launcher_main(Datum) {
  using namespace portage::bridge;
  char database[BGW_EXTRALEN];
  memcpy(database, MyBgworkerEntry->bgw_extra, sizeof database);
  pqsignal(SIGHUP, SignalHandlerForConfigReload);
  pqsignal(SIGTERM, die);
  BackgroundWorkerUnblockSignals();
  BackgroundWorkerInitializeConnection(database, nullptr, 0);
  MemoryContext memory = AllocSetContextCreate(TopMemoryContext, "portage launcher", ALLOCSET_DEFAULT_SIZES);
  MemoryContextSwitchTo(memory);
  for (;;) {
    if (ConfigReloadPending) {
      ConfigReloadPending = false;
      ProcessConfigFile(PGC_SIGHUP);
    }
    StartTransactionCommand();
    bool installed = OidIsValid(get_extension_oid("pg_portage", true));
    CommitTransactionCommand();
    if (installed) execute_at_top_raw("CALL portage.tick()", memory);
    nap_raw(installed ? 1000 : 10000);
  }
}
