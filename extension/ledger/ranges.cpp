// migration_ranges, see parts.hpp: one range a part where one worker reads it; where several do, pieces that
// are cut off a tail and claimed one by one.
#include "bridge/codes.hpp"
#include "ledger/as_ledger.hpp"
#include "ledger/owners.hpp"
#include "ledger/parts.hpp"

namespace portage::ledger {
namespace {

using bridge::param;
using bridge::Result;
using bridge::Statement;

constexpr const char* range_columns =
    "r.part, r.range_no, r.first_ordinal, r.next_ordinal, r.cursor_ordinal, r.next_byte, r.next_line, "
    "r.reader_state, r.last_key, r.done, r.epoch, r.end_ordinal";

/// Who a backend is: its process, and when that began. And how long nobody else takes what it has.
constexpr const char* mine =
    "owner_pid = pg_backend_pid(), owner_started_at = (SELECT backend_start FROM "
    "pg_stat_get_activity(pg_backend_pid())), epoch = r.epoch + 1, attempts = r.attempts + 1";

Range range_of(const Result& rows, size_t i) {
  Range range;
  range.part = rows.integer(i, 1);
  range.number = rows.integer(i, 2);
  range.first_ordinal = rows.bigint(i, 3);
  range.next_ordinal = rows.bigint(i, 4);
  range.cursor_ordinal = rows.bigint(i, 5);
  range.checkpoint.offset = static_cast<uint64_t>(rows.bigint(i, 6));
  range.checkpoint.line = static_cast<uint64_t>(rows.bigint(i, 7));
  range.checkpoint.state = rows.text(i, 8);
  range.last_key = rows.maybe_text(i, 9);
  range.done = rows.boolean(i, 10);
  range.epoch = rows.bigint(i, 11);
  if (!rows.is_null(i, 12)) range.end_ordinal = rows.bigint(i, 12);
  return range;
}

std::optional<Range> range_of(const Result& rows) {
  if (rows.empty()) return std::nullopt;
  return range_of(rows, 0);
}

const std::string ranges_of_part = std::string("SELECT ") + range_columns +
                                   " FROM portage.migration_ranges r WHERE run_id = $1 AND part = $2 ORDER "
                                   "BY range_no ";

bridge::Error taken_over(const Range& range) {
  return bridge::Error(codes::stale_owner,
                       bridge::format("range %d of part %d has been taken over by another worker",
                                      range.number, range.part))
      .hint("Nothing of this batch was kept; the other worker goes on.");
}

}  // namespace

std::optional<Range> find_range(int64_t run_id, int32_t part) {
  AsLedger as;
  static const std::string sql = ranges_of_part + "LIMIT 1";
  static const Statement select(sql.c_str());
  return range_of(select.run(run_id, part));
}

std::optional<Range> last_range(int64_t run_id, int32_t part) {
  AsLedger as;
  static const std::string sql = ranges_of_part + "DESC LIMIT 1";
  static const Statement select(sql.c_str());
  return range_of(select.run(run_id, part));
}

std::optional<Range> read_so_far(int64_t run_id, int32_t part) {
  AsLedger as;
  static const Statement select(ranges_of_part.c_str());
  Result rows = select.run(run_id, part);
  std::optional<Range> whole;
  for (size_t i = 0; i < rows.size() && (!whole || whole->done); i++) {
    Range range = range_of(rows, i);
    if (whole) range.first_ordinal = whole->first_ordinal;
    whole = range;
  }
  return whole;
}

Range claim_range(int64_t run_id, int32_t part, int64_t first_ordinal) {
  AsLedger as;
  static const std::string sql =
      std::string(
          "INSERT INTO portage.migration_ranges AS r (run_id, part, range_no, first_ordinal, next_ordinal, "
          "cursor_ordinal, next_byte, next_line, owner_pid, owner_started_at, owner_statement_at, epoch, "
          "attempts) VALUES ($1, $2, 1, $3, $3, $3, 0, 1, pg_backend_pid(), (SELECT backend_start FROM "
          "pg_stat_get_activity(pg_backend_pid())), $4, 1, 1) ON CONFLICT (run_id, part, range_no) DO UPDATE "
          "SET owner_statement_at = $4, ") +
      mine;
  static const Statement upsert(sql.c_str());
  upsert({param(run_id), param(part), param(first_ordinal), statement_begin()});
  return *find_range(run_id, part);
}

void advance_range(int64_t run_id, const Range& range, int lease) {
  AsLedger as;
  static const Statement update(
      "UPDATE portage.migration_ranges SET next_ordinal = $4, cursor_ordinal = $5, next_byte = $6, next_line "
      "= $7, reader_state = $8, last_key = $9, done = $10, lease_expires = CASE WHEN NOT $10 AND $12 > 0 "
      "THEN "
      "clock_timestamp() + $12 * interval '1 ms' END WHERE run_id = $1 AND part = $2 AND range_no = $3 AND "
      "epoch = $11");
  uint64_t changed =
      update
          .run(run_id, range.part, range.number, range.next_ordinal, range.cursor_ordinal,
               static_cast<int64_t>(range.checkpoint.offset), static_cast<int64_t>(range.checkpoint.line),
               range.checkpoint.state, range.last_key, range.done, range.epoch, static_cast<int32_t>(lease))
          .processed();
  if (changed != 1) throw taken_over(range);
}

void record_range_error(int64_t run_id, int32_t part, int32_t number, const std::string& message) {
  AsLedger as;
  static const Statement update(
      "UPDATE portage.migration_ranges SET last_error = $4 WHERE run_id = $1 AND part = $2 AND range_no = "
      "$3");
  update.run(run_id, part, number, message);
}

void open_tail(int64_t run_id, int32_t part, int64_t first_ordinal) {
  AsLedger as;
  static const Statement insert(
      "INSERT INTO portage.migration_ranges (run_id, part, range_no, first_ordinal, next_ordinal, "
      "cursor_ordinal, next_byte, next_line) VALUES ($1, $2, 1, $3, $3, $3, 0, 1)");
  insert.run(run_id, part, first_ordinal);
}

void cut_tail(int64_t run_id, const Range& tail, int64_t end, const formats::Checkpoint& at, bool next) {
  AsLedger as;
  // what a reader has seen of the end belongs to a piece without items: nobody else will read it
  static const Statement close(
      "UPDATE portage.migration_ranges SET end_ordinal = $4, done = first_ordinal = $4, reader_state = CASE "
      "WHEN first_ordinal = $4 THEN $5 ELSE reader_state END WHERE run_id = $1 AND part = $2 AND range_no = "
      "$3 "
      "AND end_ordinal IS NULL");
  if (close.run(run_id, tail.part, tail.number, end, at.state).processed() != 1) throw taken_over(tail);
  if (!next) return;
  static const Statement insert(
      "INSERT INTO portage.migration_ranges (run_id, part, range_no, first_ordinal, next_ordinal, "
      "cursor_ordinal, next_byte, next_line, reader_state) VALUES ($1, $2, $3, $4, $4, $4, $5, $6, $7)");
  insert.run(run_id, tail.part, tail.number + 1, end, static_cast<int64_t>(at.offset),
             static_cast<int64_t>(at.line), at.state);
}

std::optional<Range> claim_piece(int64_t run_id, int lease) {
  AsLedger as;
  // Who has come since this transaction first looked is alive, too.
  static const Statement look_again("SELECT pg_stat_clear_snapshot()");
  look_again.run();
  // MATERIALIZED: a subquery could be asked more than once, and would claim another piece each time.
  static const std::string sql =
      std::string(
          "WITH f AS MATERIALIZED (SELECT c.part, c.range_no FROM portage.migration_ranges c WHERE c.run_id "
          "= "
          "$1 AND NOT c.done AND c.end_ordinal IS NOT NULL AND NOT portage.owner_alive(c.owner_pid, "
          "c.owner_started_at, c.owner_statement_at, c.lease_expires) ORDER BY c.part, c.range_no LIMIT 1 "
          "FOR UPDATE SKIP LOCKED) "
          "UPDATE portage.migration_ranges r SET ") +
      mine +
      ", owner_statement_at = $3, lease_expires = clock_timestamp() + $2 * interval '1 ms' FROM f WHERE "
      "r.run_id = $1 AND r.part = "
      "f.part AND r.range_no = f.range_no RETURNING " +
      range_columns;
  static const Statement claim(sql.c_str());
  return range_of(claim({param(run_id), param(static_cast<int32_t>(lease)), statement_begin()}));
}

Range reclaim(int64_t run_id, const Range& range, int lease) {
  AsLedger as;
  static const std::string sql =
      std::string("UPDATE portage.migration_ranges r SET ") + mine +
      ", owner_statement_at = $6, lease_expires = clock_timestamp() + $5 * interval "
      "'1 ms' WHERE run_id = "
      "$1 AND part = $2 AND range_no "
      "= $3 AND epoch = $4 RETURNING " +
      range_columns;
  static const Statement claim(sql.c_str());
  std::optional<Range> again =
      range_of(claim({param(run_id), param(range.part), param(range.number), param(range.epoch),
                      param(static_cast<int32_t>(lease)), statement_begin()}));
  if (!again) throw taken_over(range);
  return *again;
}

void release_pieces(int64_t run_id) {
  AsLedger as;
  static const Statement update(
      "UPDATE portage.migration_ranges SET owner_pid = NULL, owner_started_at = NULL, owner_statement_at = "
      "NULL, lease_expires = NULL WHERE run_id = $1 AND NOT done AND end_ordinal IS NOT NULL AND owner_pid = "
      "pg_backend_pid()");
  update.run(run_id);
}

Pieces pieces_of(int64_t run_id) {
  AsLedger as;
  static const Statement select(
      "SELECT count(*), count(*) FILTER (WHERE NOT portage.owner_alive(owner_pid, owner_started_at, "
      "owner_statement_at, lease_expires)) FROM portage.migration_ranges WHERE run_id = $1 AND NOT done AND "
      "end_ordinal IS NOT "
      "NULL");
  Result rows = select.run(run_id);
  return {rows.bigint(0, 1), rows.bigint(0, 2)};
}

}  // namespace portage::ledger
