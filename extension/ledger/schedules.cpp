// See schedules.hpp.
#include "ledger/schedules.hpp"

#include "ledger/as_ledger.hpp"
#include "ledger/known_roles.hpp"

namespace portage::ledger {
namespace {

using bridge::param;
using bridge::Result;
using bridge::Statement;

#define PORTAGE_EPOCH(column) "pg_catalog.date_part('epoch', " column ")::bigint"

constexpr const char* schedule_columns =
    "SELECT s.id, s.pipeline_id, p.name, s.scope, s.cron, s.timezone, s.options::text, s.role_oid, "
    "s.role_name::text, s.session_role_oid, s.session_role::text, " PORTAGE_EPOCH("s.next_due_at") ", " PORTAGE_EPOCH("s.next_run_at") ", " PORTAGE_EPOCH(
        "s.last_due_at") ", " PORTAGE_EPOCH("s.begun_at") ", " PORTAGE_EPOCH("s.cancel_at") ", s.last_run, s.settled, "
    "s.attempts, " PORTAGE_EPOCH("s.retry_at") ", s.skipped_running, s.skipped_missed, s.skipped_late, s.last_error "
    "FROM portage.schedule_rows s JOIN portage.pipelines p ON p.id = s.pipeline_id ";

std::optional<int64_t> maybe_bigint(const Result& rows, int column) {
  if (rows.is_null(0, column)) return std::nullopt;
  return rows.bigint(0, column);
}

std::optional<Schedule> first_of(const Result& rows) {
  if (rows.empty()) return std::nullopt;
  Schedule s;
  s.id = rows.bigint(0, 1);
  s.pipeline_id = rows.bigint(0, 2);
  s.pipeline = rows.text(0, 3);
  s.scope = rows.text(0, 4);
  s.cron = rows.text(0, 5);
  s.timezone = rows.text(0, 6);
  s.options = rows.text(0, 7);
  s.role = role_in(rows, 0, 8);
  s.session_role = role_in(rows, 0, 10);
  s.next_due = maybe_bigint(rows, 12);
  s.next_run = maybe_bigint(rows, 13);
  s.last_due = maybe_bigint(rows, 14);
  s.begun_at = maybe_bigint(rows, 15);
  s.cancel_at = maybe_bigint(rows, 16);
  s.last_run = maybe_bigint(rows, 17);
  s.settled = rows.boolean(0, 18);
  s.attempts = rows.integer(0, 19);
  s.retry_at = maybe_bigint(rows, 20);
  s.skipped_running = rows.bigint(0, 21);
  s.skipped_missed = rows.bigint(0, 22);
  s.skipped_late = rows.bigint(0, 23);
  s.last_error = rows.maybe_text(0, 24);
  return s;
}

}  // namespace

std::optional<Schedule> find_schedule(int64_t pipeline_id, const std::string& scope) {
  AsLedger as;
  static const std::string sql = std::string(schedule_columns) +
                                 "WHERE s.pipeline_id = $1 AND s.scope = $2 COLLATE \"C\" FOR UPDATE OF s";
  static const Statement select(sql.c_str());
  return first_of(select.run(pipeline_id, scope));
}

int64_t put_schedule(const Schedule& s) {
  Oid role = GetUserId(), session = bridge::session_of_current_user();
  std::string role_name = user_name(role), session_role = user_name(session);
  know_role(role);
  know_role(session);
  AsLedger as;
  // The last run stays known, so that the first due time does not pile up behind it.
  static const Statement put(
      "INSERT INTO portage.schedule_rows AS s (pipeline_id, scope, cron, timezone, options, role_oid, "
      "role_name, "
      "session_role_oid, session_role, next_due_at, next_run_at) VALUES ($1, $2, $3, $4, $5::jsonb, $6, "
      "$7::name, $8, $9::name, to_timestamp($10), to_timestamp($11)) ON CONFLICT (pipeline_id, scope) DO "
      "UPDATE "
      "SET cron = excluded.cron, timezone = excluded.timezone, options = excluded.options, role_oid = "
      "excluded.role_oid, role_name = excluded.role_name, session_role_oid = excluded.session_role_oid, "
      "session_role = excluded.session_role, next_due_at = excluded.next_due_at, next_run_at = "
      "excluded.next_run_at, settled = true, attempts = 0, retry_at = NULL, cancel_at = NULL, last_error = "
      "NULL "
      "WHERE s.id = $12 RETURNING s.id");
  Result rows = put({param(s.pipeline_id), param(s.scope), param(s.cron), param(s.timezone), param(s.options),
                     bridge::param_oid(role), param(role_name), bridge::param_oid(session),
                     param(session_role), param(s.next_due), param(s.next_run), param(s.id)});
  if (rows.empty())
    throw bridge::Error(ERRCODE_T_R_SERIALIZATION_FAILURE,
                        "another session has scheduled this at the same moment")
        .hint("Look at portage.schedules, and try again.");
  return rows.bigint(0, 1);
}

void delete_schedule(int64_t id) {
  AsLedger as;
  static const Statement gone("DELETE FROM portage.schedule_rows WHERE id = $1");
  gone.run(id);
}

std::vector<ScheduleToSee> schedules_to_see(int64_t now) {
  if (is_foreign()) return {};
  AsLedger as;
  static const Statement select(
      "SELECT s.id, s.role_oid, s.role_name::text, s.session_role_oid, s.session_role::text FROM "
      "portage.schedule_rows s LEFT JOIN "
      "portage.migration_runs r ON "
      "r.id = "
      "s.last_run WHERE s.next_run_at <= to_timestamp($1) OR (NOT s.settled AND CASE WHEN r.status IN "
      "('queued', "
      "'running', 'paused', 'verifying', 'rolling_back') THEN s.cancel_at <= to_timestamp($1) AND "
      "r.requested IS "
      "NULL ELSE coalesce(s.retry_at <= to_timestamp($1), true) END) ORDER BY s.next_run_at, s.id");
  Result rows = select.run(now);
  std::vector<ScheduleToSee> schedules;
  for (size_t i = 0; i < rows.size(); i++)
    schedules.push_back({rows.bigint(i, 1), role_in(rows, i, 2), role_in(rows, i, 4)});
  return schedules;
}

std::optional<Schedule> take_schedule(int64_t id) {
  AsLedger as;
  static const std::string sql =
      std::string(schedule_columns) + "WHERE s.id = $1 FOR UPDATE OF s SKIP LOCKED";
  static const Statement select(sql.c_str());
  return first_of(select.run(id));
}

void note_schedule(const Schedule& s) {
  AsLedger as;
  static const Statement update(
      "UPDATE portage.schedule_rows SET next_due_at = to_timestamp($2), next_run_at = to_timestamp($3), "
      "last_due_at = to_timestamp($4), begun_at = to_timestamp($5), cancel_at = to_timestamp($6), last_run = "
      "$7, "
      "settled = $8, attempts = $9, retry_at = to_timestamp($10), skipped_running = $11, skipped_missed = "
      "$12, "
      "skipped_late = $13, last_error = $14 WHERE id = $1");
  update.run(s.id, s.next_due, s.next_run, s.last_due, s.begun_at, s.cancel_at, s.last_run, s.settled,
             s.attempts, s.retry_at, s.skipped_running, s.skipped_missed, s.skipped_late, s.last_error);
}

}  // namespace portage::ledger
