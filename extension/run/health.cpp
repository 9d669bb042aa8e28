// See health.hpp. The signals are read with the ledger owner's rights, since hardly a role that imports may
// see other sessions. What leaves this file is a sum, a maximum or an age over the whole server, never whose:
// no name, address, query, process or row. As much can be had from pg_locks, pg_stat_activity (pid,
// backend_xmin) and pg_current_wal_lsn() by anybody who looks often enough.
#include "run/health.hpp"

#include "bridge/entry.hpp"
#include "bridge/subxact.hpp"
#include "ledger/as_ledger.hpp"
#include "ledger/deferred_indexes.hpp"
#include "ledger/known_roles.hpp"
#include "ledger/owners.hpp"
#include "run/teller.hpp"
#include "settings.hpp"

extern "C" {
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "storage/fd.h"
#include "storage/procarray.h"
#include "utils/backend_status.h"
}

namespace portage::run {
namespace {

using bridge::Error;
using bridge::format;
using bridge::param_int8_array;
using bridge::Result;
using bridge::Statement;

using Pids = std::vector<int32_t>;
using Targets = std::vector<Oid>;

/// Files of a directory of the server's own whose names end so; those with a leading dot do not count.
/// Neither rights nor a look at each file is needed, as it would be with pg_ls_dir() and its kin.
int64_t count_files_raw(const char* directory, const char* ending) {
  size_t length = strlen(ending);
  int64_t files = 0;
  DIR* dir = AllocateDir(directory);
  while (struct dirent* entry = ReadDir(dir, directory)) {
    size_t name = strlen(entry->d_name);
    if (entry->d_name[0] != '.' && name >= length && !strcmp(entry->d_name + name - length, ending)) files++;
  }
  FreeDir(dir);
  return files;
}

/// What others do shows as null to those who lack it, which must not pass for "nothing".
void require_sight_of_others() {
  if (!bridge::guarded([] { return has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS); }))
    throw Error(ERRCODE_INSUFFICIENT_PRIVILEGE, "the extension's owner is not a member of pg_read_all_stats");
}

std::string number(double value) { return grouped(static_cast<int64_t>(value)); }
const char* plural(double value) { return value == 1 ? "" : "s"; }

// Time rather than bytes: it is what those who read from a standby feel, and the same limit fits any server.
// pg_receivewal and base backups replay nothing, and would seem to lag for ever.
void replication_lag(Signal& signal, const Targets&, const Pids&) {
  require_sight_of_others();
  static const Statement select(
      "SELECT count(*), (1000 * extract(epoch FROM coalesce(max(s.replay_lag), '0')))::bigint "
      "FROM pg_catalog.pg_stat_get_wal_senders() s WHERE s.replay_lsn IS NOT NULL");
  Result rows = select();
  if (rows.bigint(0, 1) == 0) {
    signal.text = "no standby is connected";
    return;
  }
  signal.value = static_cast<double>(rows.bigint(0, 2));
  signal.text = "the slowest standby is " + number(*signal.value) + " ms behind";
}

void archive_backlog(Signal& signal, const Targets&, const Pids&) {
  if (!XLogArchivingActive()) {
    signal.text = "archive_mode is off";
    return;
  }
  signal.value = static_cast<double>(
      bridge::guarded([] { return count_files_raw(XLOGDIR "/archive_status", ".ready"); }));
  signal.text = number(*signal.value) + " WAL file" + plural(*signal.value) + " wait" +
                (*signal.value == 1 ? "s" : "") + " for the archiver";
}

// A multixact member takes 5 bytes: 1,636 on a page, 32 pages in a file (access/transam/multixact.c). The
// last file is not full, and of the first, part may be dead already: together about one.
void multixact_members(Signal& signal, const Targets&, const Pids&) {
  constexpr double members_per_file = 1636 * 32;
  int64_t files = bridge::guarded([] { return count_files_raw("pg_multixact/members", ""); });
  signal.value = static_cast<double>(std::max<int64_t>(files - 1, 0)) * members_per_file;
  signal.text = "about " + number(*signal.value) + " members of multixacts are kept";
}

void blocked_sessions(Signal& signal, const Targets&, const Pids& ours) {
  require_sight_of_others();
  // pg_blocking_pids() stops everybody's locking for a moment: only for those who wait, and are not of us.
  static const Statement select(
      "SELECT count(*) FROM pg_catalog.pg_stat_get_activity(NULL) a WHERE CASE WHEN a.wait_event_type = "
      "'Lock' "
      "AND a.pid <> ALL ($1::int4[]) THEN pg_catalog.pg_blocking_pids(a.pid) && $1::int4[] ELSE false END");
  signal.value = 0;
  if (!ours.empty())
    signal.value = static_cast<double>(
        select({param_int8_array(std::vector<int64_t>(ours.begin(), ours.end()))}).bigint(0, 1));
  signal.text = number(*signal.value) + " session" + plural(*signal.value) + " wait" +
                (*signal.value == 1 ? "s" : "") + " for locks of running migrations";
}

void autovacuum(Signal& signal, const Targets& targets, const Pids&) {
  require_sight_of_others();
  // pg_partition_ancestors() takes no locks, pg_partition_tree() would.
  static const Statement select(
      "SELECT count(*) FROM pg_catalog.pg_stat_get_progress_info('VACUUM') p CROSS JOIN LATERAL "
      "pg_catalog.pg_stat_get_activity(p.pid) a WHERE a.backend_type = 'autovacuum worker' AND p.datid = "
      "(SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()) AND "
      "EXISTS "
      "(SELECT FROM pg_catalog.pg_partition_ancestors(p.relid::oid) t WHERE t.relid::oid = ANY ($1::oid[]))");
  signal.value = static_cast<double>(
      select({param_int8_array(std::vector<int64_t>(targets.begin(), targets.end()))}).bigint(0, 1));
  signal.text =
      *signal.value > 0 ? "autovacuum works on the target" : "autovacuum does not work on the target";
}

// The server's own idea of what vacuum has to leave alone in this database: transactions, prepared ones,
// replication slots and standbys that report what they read; vacuum itself does not count.
void oldest_xmin(Signal& signal, const Targets&, const Pids&) {
  signal.value = bridge::guarded([] {
    Oid table = get_relname_relid("migration_runs", get_namespace_oid("portage", false));
    Relation relation = table_open(table, AccessShareLock);  // any table that is no catalog
    TransactionId oldest = GetOldestNonRemovableTransactionId(relation);
    table_close(relation, AccessShareLock);
    return static_cast<double>(static_cast<int32>(ReadNextTransactionId() - oldest));
  });
  signal.text =
      "the oldest snapshot is " + number(*signal.value) + " transaction" + plural(*signal.value) + " old";
}

Signal read(const char* name, const char* unit, int threshold, bool holds,
            void (*read_value)(Signal&, const Targets&, const Pids&), const Targets& targets,
            const Pids& ours) {
  Signal signal;
  signal.name = name;
  signal.unit = unit;
  signal.threshold = threshold;
  signal.holds = holds;
  std::optional<Error> error = bridge::attempt([&] {
    ledger::AsLedger as;
    read_value(signal, targets, ours);
  });
  if (error) {
    if (bridge::is_interrupt(error->code())) throw *error;
    signal.value.reset();
    signal.known = false;
    signal.text = error->message();
  }
  signal.exceeded = signal.value && threshold >= 0 && *signal.value > threshold;
  // "autovacuum works on the target (limit 0)" would explain nothing.
  if (signal.exceeded && read_value != autovacuum) signal.text += " (limit " + number(threshold) + ")";
  return signal;
}

}  // namespace

const char* Signal::state() const {
  if (threshold < 0) return "off";
  if (!known) return "unknown";
  return !exceeded ? "ok" : to_be_mended ? "mend" : holds ? "hold" : "halve";
}

std::vector<Signal> read_signals(const Targets& targets, const Pids& ours) {
  using namespace settings;
  // or a transaction would see the sessions of its first look for ever
  bridge::guarded([] { pgstat_clear_backend_activity_snapshot(); });
  auto one = [&](auto... args) { return read(args..., targets, ours); };
  return {one("replication_lag", "ms", max_replication_lag, true, replication_lag),
          one("archive_backlog", "files", max_archive_backlog, true, archive_backlog),
          one("multixact_members", "members", max_multixact_members, true, multixact_members),
          one("blocked_sessions", "sessions", max_blocked_sessions, false, blocked_sessions),
          one("autovacuum", "workers", yield_to_autovacuum ? 0 : -1, false, autovacuum),
          one("oldest_xmin", "transactions", max_xmin_age, false, oldest_xmin)};
}

/// Holds nobody: the runs that could put them back are those that nobody works on.
Signal missing_indexes() {
  int64_t missing = ledger::abandoned_indexes();
  Signal signal;
  signal.name = "missing_indexes";
  signal.unit = "indexes";
  signal.threshold = 0;
  signal.value = static_cast<double>(missing);
  signal.text = missing == 0 ? "no initial load has left its target without indexes"
                             : "initial loads have left targets without indexes: portage.progress says of "
                               "which runs, and what to do";
  signal.exceeded = missing > 0;
  signal.to_be_mended = true;
  return signal;
}

/// Holds nobody: what belongs to a role that is gone is not begun.
Signal gone_roles() {
  bool foreign = ledger::is_foreign();
  int64_t orphans = ledger::count_orphans();
  Signal signal;
  signal.name = "gone_roles";
  signal.unit = "objects";
  signal.threshold = 0;
  signal.value = static_cast<double>(orphans);
  signal.text =
      foreign ? "the ledger names roles of another cluster: portage.adopt_roles() says whose they are here"
      : orphans == 0 ? "no pipeline, schedule or run belongs to a role that is gone"
                     : "pipelines, schedules or runs belong to roles that are gone: transfer_pipeline() and "
                       "transfer_run() give them to others";
  signal.exceeded = foreign || orphans > 0;
  signal.to_be_mended = true;
  return signal;
}

Strain strain_of(const std::vector<Signal>& signals) {
  Strain strain;
  for (const Signal& signal : signals) {
    if (!signal.exceeded) continue;
    (signal.holds ? strain.hold : strain.halve) = true;
    strain.reason += (strain.reason.empty() ? "" : "; ") + signal.text;
  }
  return strain;
}

}  // namespace portage::run

using namespace portage;

namespace {

void put_row_raw(ReturnSetInfo* set, const run::Signal* signal) {
  bool off = signal->threshold < 0;
  Datum values[] = {CStringGetTextDatum(signal->name.c_str()),
                    Int64GetDatum(static_cast<int64>(signal->value.value_or(0))),
                    Int64GetDatum(static_cast<int64>(signal->threshold)),
                    CStringGetTextDatum(signal->unit.c_str()),
                    CStringGetTextDatum(signal->state()),
                    CStringGetTextDatum(signal->text.c_str())};
  bool nulls[] = {false, !signal->value, off, false, false, false};
  tuplestore_putvalues(set->setResult, set->setDesc, values, nulls);
}

}  // namespace

PORTAGE_FUNCTION(portage_health) {
  bridge::guarded([=] { InitMaterializedSRF(fcinfo, 0); });
  auto* set = reinterpret_cast<ReturnSetInfo*>(fcinfo->resultinfo);
  bridge::Spi spi;
  ledger::Owners owners = ledger::living_owners();
  for (const run::Signal& signal : run::read_signals(owners.targets, owners.pids)) {
    const run::Signal* row = &signal;
    bridge::guarded(put_row_raw, set, row);
  }
  std::optional<bridge::Error> error = bridge::attempt(ledger::refresh_known_roles);
  if (error && bridge::is_interrupt(error->code())) throw *error;
  for (const run::Signal& signal : {run::missing_indexes(), run::gone_roles()}) {
    const run::Signal* row = &signal;
    bridge::guarded(put_row_raw, set, row);
  }
  spi.finish();
  return 0;
}
