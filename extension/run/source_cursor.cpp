// See source_cursor.hpp. A number of a sequence is drawn while its transaction holds the lock for writing to
// the table: whoever holds none when the greatest number has been read can only write greater ones. So it is
// enough to wait for those who hold one at that moment; nobody is kept from writing.
#include "run/source_cursor.hpp"

#include "bridge/codes.hpp"
#include "ledger/source_cursors.hpp"

extern "C" {
#include "storage/proc.h"
}

namespace portage::run {

using bridge::Error;
using bridge::param;
using bridge::Result;

std::optional<std::string> cursor_start(const ledger::Run& run, const ledger::Part& part,
                                        const Options& options, const Plan& plan) {
  if (part.cursor_column.empty() || !options.incremental || !plan.definition().source) return std::nullopt;
  std::optional<std::string> position = ledger::source_position(run, part);
  if (!position) return std::nullopt;
  bridge::Settings plain_path;
  plain_path.set("search_path", "pg_catalog, pg_temp").set("datestyle", "ISO, MDY");
  bool unique = part.key_columns.size() == 1;
  std::string type = part.cursor_type, overlap = plan.definition().source->overlap;
  if (type == "smallint" || type == "integer" || type == "bigint") {
    // A value that may come again is read again; one that cannot, is behind us.
    if (overlap.empty()) overlap = unique ? "-1" : "0";
    const char* least = type == "smallint"  ? "-32768"
                        : type == "integer" ? "-2147483648"
                                            : "-9223372036854775808";
    const char* greatest = type == "smallint"  ? "32767"
                           : type == "integer" ? "2147483647"
                                               : "9223372036854775807";
    return bridge::execute(
               "SELECT least(greatest($1::numeric - $2::numeric, $3::numeric), $4::numeric)::text",
               {param(*position), param(overlap), param(least), param(greatest)})
        .text(0, 1);
  }
  if (overlap.empty()) overlap = default_overlap;
  return bridge::execute("SELECT ($1::" + type + " - $2::interval)::" + type + "::text",
                         {param(*position), param(overlap)})
      .text(0, 1);
}

namespace {

struct Writers {
  std::vector<std::string> transactions;
  std::string pids;
};

/// Who holds a lock for writing on the table, or on a partition or child of it.
Writers writers_of(const std::string& table) {
  bridge::Settings plain_path;
  plain_path.set("search_path", "pg_catalog, pg_temp");
  Result rows = bridge::execute(
      "WITH RECURSIVE tables (oid) AS (SELECT to_regclass($1)::oid UNION SELECT i.inhrelid FROM pg_inherits "
      "i JOIN "
      "tables t ON i.inhparent = t.oid) SELECT DISTINCT l.virtualtransaction, coalesce('process ' || l.pid, "
      "'a "
      "prepared transaction') FROM pg_locks l JOIN tables t ON l.relation = t.oid WHERE l.locktype = "
      "'relation' AND "
      "l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()) AND l.granted AND "
      "l.mode "
      "IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') AND l.pid IS "
      "DISTINCT FROM pg_backend_pid() ORDER BY 2, 1",
      {param(table)});
  Writers writers;
  for (size_t i = 0; i < rows.size(); i++) {
    writers.transactions.push_back(rows.text(i, 1));
    if (i < 5) (writers.pids += i ? ", " : "") += rows.text(i, 2);
  }
  return writers;
}

bool is_prepared(const std::string& transaction) { return transaction.starts_with("-1/"); }

}  // namespace

void wait_for_writers(Job& job, const ledger::Part& part) {
  if (part.source_table.empty()) return;
  using Clock = std::chrono::steady_clock;
  Clock::time_point began = Clock::now();
  Writers now = writers_of(part.source_table);
  std::set<std::string> waited_for(now.transactions.begin(), now.transactions.end());
  bridge::commit();
  bool held = false;
  while (!job.ownership.stopped()) {
    // One of them may have been prepared since, and goes by another name.
    std::erase_if(now.transactions,
                  [&](const std::string& one) { return !waited_for.count(one) && !is_prepared(one); });
    if (now.transactions.empty()) break;
    if (LockTimeout > 0 && Clock::now() - began > std::chrono::milliseconds(LockTimeout))
      throw Error(ERRCODE_LOCK_NOT_AVAILABLE, "canceling import due to lock timeout")
          .detail("Transactions that write to " + part.source_table + " are not over: " + now.pids + ".")
          .hint("What they commit could be missed. End them, or raise lock_timeout, and CALL portage.run(" +
                std::to_string(job.run.id) + ");");
    job.ownership.hold("waits for transactions that write to " + part.source_table + ": " + now.pids);
    held = true;
    job.ownership.rest(100);
    now = writers_of(part.source_table);
    bridge::commit();
  }
  if (held) job.ownership.release();
}

bool moves_cursor(const ledger::Part& part, const Options& options) {
  return !part.cursor_column.empty() && !options.dry_run && !options.sample;
}

}  // namespace portage::run
