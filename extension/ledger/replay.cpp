// See replay.hpp.
#include "ledger/replay.hpp"

#include "ledger/as_ledger.hpp"

namespace portage::ledger {
namespace {

using bridge::param;
using bridge::Result;

constexpr const char* reject_columns =
    "i.ordinal, i.revision, i.part, i.line, i.byte_offset, i.byte_length, i.status, i.rule, i.issues::text, "
    "coalesce(c.raw, i.raw), c.raw IS NOT NULL, i.legacy_id";

/// What was corrected last is what every judgement since was about.
constexpr const char* last_correction =
    "LEFT JOIN LATERAL (SELECT k.raw FROM portage.item_corrections k WHERE k.run_id = i.run_id AND k.ordinal "
    "= i.ordinal ORDER BY k.revision DESC LIMIT 1) c ON true ";

Reject reject_of(const Result& rows, size_t i) {
  Reject reject;
  reject.ordinal = rows.bigint(i, 1);
  reject.revision = rows.integer(i, 2);
  reject.part = rows.integer(i, 3);
  reject.line = rows.bigint(i, 4);
  reject.offset = rows.bigint(i, 5);
  reject.length = rows.bigint(i, 6);
  reject.status = rows.text(i, 7);
  reject.outcome = outcome_named(reject.status);
  reject.rule = rows.text(i, 8);
  reject.issues = rows.text(i, 9);
  bool null;
  Datum raw = rows.datum(i, 10, &null);
  if (!null) reject.raw = bridge::string_of(raw);
  reject.corrected = rows.boolean(i, 11);
  reject.legacy_id = rows.text(i, 12);
  return reject;
}

/// Items whose newest revision is of one of the statuses, which the index must know.
std::vector<Reject> items_of(const std::string& statuses, int64_t run_id, int64_t after, int64_t limit,
                             int64_t bytes) {
  AsLedger as;
  bridge::ByIndex by_index;  // a page; the planner may know nothing of the tables yet
  std::string sql =
      std::string("SELECT ") + reject_columns +
      " FROM (SELECT p.*, sum(p.byte_length) OVER (ORDER BY p.ordinal) - p.byte_length AS before FROM "
      "(SELECT "
      "r.* FROM portage.item_rows r WHERE r.run_id = $1 AND r.ordinal > $2 AND r.status IN (" +
      statuses +
      ") AND NOT EXISTS (SELECT FROM portage.item_rows later WHERE later.run_id = r.run_id AND "
      "later.ordinal = r.ordinal AND later.revision > r.revision OFFSET 0) ORDER BY r.run_id, r.ordinal "
      "LIMIT $3) p) i " +
      last_correction + "WHERE i.before <= $4 ORDER BY i.ordinal";
  Result rows = bridge::execute(sql, {param(run_id), param(after), param(limit), param(bytes)});
  std::vector<Reject> rejects;
  for (size_t i = 0; i < rows.size(); i++) rejects.push_back(reject_of(rows, i));
  return rejects;
}

}  // namespace

std::vector<Reject> open_rejects(int64_t run_id, int64_t after, int64_t limit, int64_t bytes) {
  return items_of("'invalid', 'failed'", run_id, after, limit, bytes);
}

std::vector<Reject> conflicted_items(int64_t run_id, int64_t after, int64_t limit, int64_t bytes) {
  return items_of("'conflicted'", run_id, after, limit, bytes);
}

std::vector<Reject> parked_items(int64_t run_id, int64_t after, int64_t limit, int64_t bytes) {
  return items_of("'parked'", run_id, after, limit, bytes);
}

std::optional<Reject> find_reject(int64_t run_id, int64_t ordinal) {
  AsLedger as;
  static const std::string sql = std::string("SELECT ") + reject_columns + " FROM portage.all_items i " +
                                 last_correction +
                                 "WHERE i.run_id = $1 AND i.ordinal = $2 ORDER BY i.revision DESC LIMIT 1";
  Result rows = bridge::execute(sql, {param(run_id), param(ordinal)});
  if (rows.empty()) return std::nullopt;
  return reject_of(rows, 0);
}

void insert_correction(int64_t run_id, const Reject& reject, int32_t revision) {
  std::string actor = session_user_name();
  AsLedger as;
  bridge::execute(
      "INSERT INTO portage.item_corrections (run_id, ordinal, revision, raw, actor) VALUES ($1, $2, $3, $4, "
      "$5)",
      {param(run_id), param(reject.ordinal), param(revision), bridge::param_bytea(reject.raw), param(actor)});
}

std::optional<ReplayState> replay_state(int64_t run_id) {
  AsLedger as;
  static const bridge::Statement select(
      "SELECT status, dry_run, replay_cursor FROM portage.migration_runs WHERE id = $1");
  Result rows = select.run(run_id);
  if (rows.empty()) return std::nullopt;
  ReplayState state{rows.text(0, 1), rows.boolean(0, 2), std::nullopt};
  if (!rows.is_null(0, 3)) state.cursor = rows.bigint(0, 3);
  return state;
}

void set_replay_cursor(int64_t run_id, const std::optional<int64_t>& ordinal) {
  AsLedger as;
  static const bridge::Statement update(
      "UPDATE portage.migration_runs SET replay_cursor = $2 WHERE id = $1 AND replay_cursor IS DISTINCT FROM "
      "$2");
  update.run(run_id, ordinal);
}

void update_counters(int64_t run_id, bool landed) {
  Counts sum = sum_batches(run_id);
  AsLedger as;
  static const bridge::Statement update(
      "UPDATE portage.migration_runs SET inserted = $2, updated = $3, unchanged = $4, skipped = $5, "
      "conflicted = $6, parked = $7, invalid = $8, failed = $9, open_rejects = $8 + $9, open_conflicts = $6, "
      "open_parked = $7, verified = CASE WHEN NOT $10 THEN verified END WHERE id = $1");
  update.run(run_id, sum.inserted, sum.updated, sum.unchanged, sum.skipped, sum.conflicted, sum.parked,
             sum.invalid, sum.failed, landed);
}

}  // namespace portage::ledger
