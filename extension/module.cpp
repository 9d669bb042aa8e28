// The front door: the magic block and the settings. Everything else is found by folder
// (docs/architecture.md).
#include "settings.hpp"

#include "bridge/background.hpp"
#include "bridge/discretion.hpp"

extern "C" {
#include "utils/varlena.h"

PG_MODULE_MAGIC;
PGDLLEXPORT void _PG_init(void);
}

namespace portage::settings {

constinit int batch_target = 500;
constinit int progress_interval = 500;
constinit int migrate_limit = 64;
constinit int lease_duration = 30000;
constinit int lock_timeout = 1000;
constinit int cron_history = 7;
constinit int writer = automatic;
constinit char* admin_role = nullptr;
constinit char* scope = nullptr;
constinit bool scope_required = false;
constinit char* databases = nullptr;

constinit int max_replication_lag = 60000;
constinit int max_archive_backlog = 100;
constinit int max_multixact_members = 2000000000;
constinit int max_blocked_sessions = 3;
constinit bool yield_to_autovacuum = true;
constinit int max_xmin_age = 50000000;

}  // namespace portage::settings

void _PG_init(void) {
  using namespace portage::settings;
  portage::bridge::watch_messages();
  DefineCustomIntVariable("portage.batch_target", "How long a batch should take.",
                          "The size of a batch is chosen so that it commits about this often.", &batch_target,
                          500, 10, 600000, PGC_USERSET, GUC_UNIT_MS, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("portage.progress_interval", "The least time between two reports of progress.",
                          nullptr, &progress_interval, 500, 0, 3600000, PGC_USERSET, GUC_UNIT_MS, nullptr,
                          nullptr, nullptr);
  DefineCustomIntVariable("portage.migrate_limit", "The largest payload that migrate() takes.",
                          "Larger payloads go through open_run() and submit().", &migrate_limit, 64, 1, 1023,
                          PGC_USERSET, GUC_UNIT_MB, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("portage.lease_duration", "How long a worker may give no sign of life.",
                          "A run whose owner has let its lease run out may be taken over by another session.",
                          &lease_duration, 30000, 1000, 3600000, PGC_USERSET, GUC_UNIT_MS, nullptr, nullptr,
                          nullptr);
  DefineCustomIntVariable("portage.lock_timeout", "How long a batch waits for a lock before it steps back.",
                          "It is rolled back, the run holds, and the batch is tried again.", &lock_timeout,
                          1000, 10, 600000, PGC_USERSET, GUC_UNIT_MS, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("portage.cron_history",
                          "How many days of what pg_cron writes about the heartbeat tick() keeps.",
                          "-1: all.", &cron_history, 7, -1, 36500, PGC_USERSET, 0, nullptr, nullptr, nullptr);
  static const config_enum_entry writers[] = {
      {"auto", automatic, false}, {"sql", sql, false}, {nullptr, 0, false}};
  DefineCustomEnumVariable(
      "portage.writer", "How rows are written to targets.",
      "auto: as COPY does it where the target is an ordinary table, else by SQL. sql: always by SQL.",
      &writer, automatic, writers, PGC_USERSET, 0, nullptr, nullptr, nullptr);
  DefineCustomStringVariable(
      "portage.admin_role", "Members of this role see every pipeline and run, and may cancel and drop them.",
      "Empty: superusers only.", &admin_role, "", PGC_SUSET, 0, nullptr, nullptr, nullptr);
  DefineCustomStringVariable("portage.scope", "If set, this session sees and opens runs of this scope only.",
                             nullptr, &scope, "", PGC_USERSET, 0, nullptr, nullptr, nullptr);
  DefineCustomBoolVariable("portage.scope_required",
                           "A session without portage.scope sees and opens no runs at all.",
                           "For roles of connection pools: ALTER ROLE ... SET portage.scope_required = on.",
                           &scope_required, false, PGC_SUSET, 0, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("portage.max_replication_lag", "Runs are held while a standby lags more.",
                          "-1: however much it lags.", &max_replication_lag, 60000, -1, INT_MAX, PGC_USERSET,
                          GUC_UNIT_MS, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("portage.max_archive_backlog",
                          "Runs are held while more WAL files wait for the archiver.",
                          "-1: however many wait.", &max_archive_backlog, 100, -1, INT_MAX, PGC_USERSET, 0,
                          nullptr, nullptr, nullptr);
  DefineCustomIntVariable(
      "portage.max_multixact_members", "Runs are held while more members of multixacts are kept.",
      "-1: however many. The server itself has room for 4 billion.", &max_multixact_members, 2000000000, -1,
      INT_MAX, PGC_USERSET, 0, nullptr, nullptr, nullptr);
  DefineCustomIntVariable("portage.max_blocked_sessions",
                          "Batches are made smaller while more sessions wait for locks of a run.",
                          "-1: however many wait.", &max_blocked_sessions, 3, -1, INT_MAX, PGC_USERSET, 0,
                          nullptr, nullptr, nullptr);
  DefineCustomBoolVariable("portage.yield_to_autovacuum",
                           "Batches are made smaller while autovacuum works on the target.", nullptr,
                           &yield_to_autovacuum, true, PGC_USERSET, 0, nullptr, nullptr, nullptr);
  DefineCustomIntVariable(
      "portage.max_xmin_age", "Batches are made smaller while a snapshot is older, in transactions.",
      "-1: however old.", &max_xmin_age, 50000000, -1, INT_MAX, PGC_USERSET, 0, nullptr, nullptr, nullptr);
  if (process_shared_preload_libraries_in_progress) {
    DefineCustomStringVariable(
        "portage.databases", "The databases in which a launcher sends workers to runs that wait for one.",
        "A list of names. After a crash of the server it resumes what was interrupted.", &databases,
        "postgres", PGC_POSTMASTER, GUC_LIST_INPUT, nullptr, nullptr, nullptr);
    List* names = NIL;
    if (!SplitIdentifierString(pstrdup(databases), ',', &names))
      ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                      errmsg("invalid list of names in setting \"%s\"", "portage.databases")));
    ListCell* cell;
    foreach (cell, names) portage::bridge::register_launcher(static_cast<const char*>(lfirst(cell)));
  }
  MarkGUCPrefixReserved("portage");
}
