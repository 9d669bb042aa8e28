// The extension's settings (GUCs), defined in module.cpp.
#pragma once

namespace portage::settings {

/// How rows may get into a target (load/writer_choice.hpp).
enum Writers : int { automatic, sql };

extern int batch_target;       ///< portage.batch_target, milliseconds
extern int progress_interval;  ///< portage.progress_interval, milliseconds
extern int migrate_limit;      ///< portage.migrate_limit, megabytes
extern int lease_duration;     ///< portage.lease_duration, milliseconds
extern int lock_timeout;       ///< portage.lock_timeout, milliseconds
extern int cron_history;       ///< portage.cron_history, days; -1: for ever
extern int writer;             ///< portage.writer, one of Writers
extern char* admin_role;       ///< portage.admin_role, "" if none
extern char* databases;        ///< portage.databases, null unless preloaded
extern char* scope;            ///< portage.scope; what "" means: ledger/scope.hpp
extern bool scope_required;    ///< portage.scope_required

// Thresholds of the health signals (run/health.hpp); -1 or false: the signal is switched off.
extern int max_replication_lag;    ///< portage.max_replication_lag, milliseconds
extern int max_archive_backlog;    ///< portage.max_archive_backlog, WAL files
extern int max_multixact_members;  ///< portage.max_multixact_members
extern int max_blocked_sessions;   ///< portage.max_blocked_sessions
extern bool yield_to_autovacuum;   ///< portage.yield_to_autovacuum
extern int max_xmin_age;           ///< portage.max_xmin_age, transactions

}  // namespace portage::settings
