// See runs.hpp.
#include "ledger/runs.hpp"

#include "bridge/table_writer.hpp"
#include "ledger/arrays.hpp"
#include "ledger/as_ledger.hpp"
#include "ledger/known_roles.hpp"
#include "ledger/owners.hpp"
#include "ledger/run_index.hpp"
#include "settings.hpp"

namespace portage::ledger {
namespace {

using bridge::param;
using bridge::Result;
using bridge::Statement;

constexpr const char* run_columns =
    "r.id, r.pipeline_id, r.pipeline, r.pipeline_version, r.scope, r.status, r.options::text, "
    "r.role_oid, "
    "r.role_name::text, r.session_role_oid, r.session_role::text, r.timezone, r.hash_columns, r.owner_pid, "
    "alive, alive AND r.owner_pid = pg_backend_pid(), "
    "r.started_at IS NOT NULL, coalesce(r.paused_from, ''), r.background, coalesce(r.workers, 0), "
    "(SELECT v.sensitive IS NOT NULL FROM portage.pipeline_versions v WHERE v.pipeline_id = r.pipeline_id "
    "AND v.version = r.pipeline_version)";

constexpr const char* with_life = " r CROSS JOIN LATERAL portage.run_owner_alive(r) AS alive ";

constexpr const char* active_index = "migration_runs_active";

constexpr const char* waiting_run =
    "FROM portage.migration_runs r WHERE r.status IN ('queued', 'running', 'verifying', 'rolling_back') AND "
    "(r.status = 'queued' OR ((r.background OR r.owner_pid IS NOT NULL) AND NOT "
    "portage.run_owner_alive(r))) "
    "AND coalesce(r.launched_at <= clock_timestamp() - $1 * interval '1 ms', true) ";

Run run_of(const Result& rows, size_t i) {
  Run run;
  run.id = rows.bigint(i, 1);
  run.pipeline_id = rows.bigint(i, 2);
  run.pipeline = rows.text(i, 3);
  run.version = rows.integer(i, 4);
  run.scope = rows.text(i, 5);
  run.status = rows.text(i, 6);
  run.options = rows.text(i, 7);
  run.role = role_in(rows, i, 8);
  run.session_role = role_in(rows, i, 10);
  run.timezone = rows.text(i, 12);
  run.hash_columns = names_of(rows, i, 13);
  if (!rows.is_null(i, 14)) run.owner_pid = rows.integer(i, 14);
  run.owner_alive = rows.boolean(i, 15);
  run.owner_is_me = rows.boolean(i, 16);
  run.sealed = rows.boolean(i, 17);
  run.paused_from = rows.text(i, 18);
  run.background = rows.boolean(i, 19);
  run.workers = rows.integer(i, 20);
  run.discretion = bridge::Discretion(rows.is_null(i, 21) || rows.boolean(i, 21));
  return run;
}

/// The only value that the statement gives, of what is committed at this moment.
const char* under_latest_snapshot_raw(const char* sql, Datum id, Datum text) {
  Oid types[] = {INT8OID, TEXTOID};
  Datum values[] = {id, text};
  const char nulls[] = {' ', text ? ' ' : 'n', '\0'};
  SPIPlanPtr plan = SPI_prepare(sql, 2, types);
  if (!plan ||
      SPI_execute_snapshot(plan, values, nulls, GetLatestSnapshot(), InvalidSnapshot, true, false, 1) < 0)
    elog(ERROR, "SPI failed: %s", SPI_result_code_string(SPI_result));
  return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
}

}  // namespace

void Counts::operator+=(const Counts& o) {
  read += o.read;
  inserted += o.inserted;
  updated += o.updated;
  unchanged += o.unchanged;
  skipped += o.skipped;
  conflicted += o.conflicted;
  parked += o.parked;
  invalid += o.invalid;
  failed += o.failed;
}

int64_t next_run_id() {
  bridge::guarded([] { PreventCommandIfReadOnly("INSERT"); });
  return bridge::next_number("portage", "migration_runs_id_seq");
}

int64_t insert_run(const NewRun& run) {
  int64_t id = run.id ? run.id : next_run_id();
  std::string role_name = user_name(run.role), session_name = user_name(run.session_role);
  Oid role = run.role, session = run.session_role;
  know_role(role);
  know_role(session);
  AsLedger as;
  static const Statement insert(
      "INSERT INTO portage.migration_runs (pipeline_id, pipeline, pipeline_version, scope, options, "
      "timezone, name, "
      "metadata, role_oid, role_name, session_role_oid, session_role, requested_by, dry_run, id) OVERRIDING "
      "SYSTEM VALUE "
      "VALUES ($1, $2, $3, $4, $5::jsonb, $6, $7, $8::jsonb, $9, $10::name, $11, $12::name, $12, "
      "coalesce(($5::jsonb->>'dry_run')::boolean, false), $13)");
  insert({param(run.pipeline_id), param(run.pipeline), param(int32_t(run.version)), param(run.scope),
          param(run.options), param(run.timezone), param(run.name), param(run.metadata),
          bridge::param_oid(role), param(role_name), bridge::param_oid(session), param(session_name),
          param(id)});
  return id;
}

std::optional<Run> find_run(int64_t id) {
  AsLedger as;
  static const std::string sql =
      std::string("SELECT ") + run_columns + " FROM portage.migration_runs" + with_life + "WHERE r.id = $1";
  static const Statement select(sql.c_str());
  Result rows = select.run(id);
  if (rows.empty()) return std::nullopt;
  return run_of(rows, 0);
}

std::optional<int64_t> latest_run_of_role() {
  Oid role = GetUserId();
  if (!is_trusted(role)) return std::nullopt;
  AsLedger as;
  static const Statement select(
      "SELECT max(id) FROM portage.migration_runs WHERE role_oid = $1 AND portage.in_scope(scope)");
  Result rows = select({bridge::param_oid(role)});
  if (rows.is_null(0, 1)) return std::nullopt;
  return rows.bigint(0, 1);
}

std::optional<Run> find_active_run(int64_t pipeline_id, const std::optional<std::string>& scope,
                                   int64_t except) {
  std::vector<int64_t> active = runs_in(active_index);
  if (active.empty()) return std::nullopt;
  AsLedger as;
  static const std::string sql =
      std::string("SELECT ") + run_columns + " FROM portage.migration_runs" + with_life +
      "WHERE r.id = ANY ($4) AND r.pipeline_id = $1 AND ($2 IS NULL OR r.scope = $2 COLLATE \"C\") AND r.id "
      "<> $3 AND r.status IN ('queued', 'running', 'paused', 'verifying', 'rolling_back') ORDER BY r.id "
      "LIMIT 1";
  static const Statement select(sql.c_str());
  Result rows = select({param(pipeline_id), param(scope), param(except), bridge::param_int8_array(active)});
  if (rows.empty()) return std::nullopt;
  return run_of(rows, 0);
}

std::optional<Run> find_rival(const std::string& schema, const std::string& table, bool exclusive,
                              int64_t except) {
  std::vector<int64_t> active = runs_in(active_index);
  if (active.empty()) return std::nullopt;
  AsLedger as;
  static const std::string sql =
      std::string("SELECT ") + run_columns + " FROM portage.migration_runs" + with_life +
      "JOIN portage.pipeline_versions v ON v.pipeline_id = r.pipeline_id AND v.version = r.pipeline_version "
      "WHERE r.id = ANY ($5) AND v.target_schema = $1::name AND v.target_name = $2::name AND r.id <> $4 AND "
      "r.status IN ('queued', 'running', 'paused', 'verifying', 'rolling_back') AND r.started_at IS NOT NULL "
      "AND ($3 OR (v.definition ->> 'exclusive')::boolean) ORDER BY r.id LIMIT 1";
  static const Statement select(sql.c_str());
  Result rows = select(
      {param(schema), param(table), param(exclusive), param(except), bridge::param_int8_array(active)});
  if (rows.empty()) return std::nullopt;
  return run_of(rows, 0);
}

bool runs_changed_since_snapshot(int64_t pipeline_id, const std::optional<std::string>& scope) {
  if (!IsolationUsesXactSnapshot()) return false;
  AsLedger as;
  // Beginning and ending a run writes its row: the same rows, in the same versions, are the same runs.
  static constexpr const char* sql =
      "SELECT count(*)::text || ' ' || coalesce(sum(xmin::text::bigint), 0)::text FROM "
      "portage.migration_runs "
      "WHERE pipeline_id = $1 AND ($2 IS NULL OR scope = $2 COLLATE \"C\")";
  static const Statement select(sql);
  std::string seen = select({param(pipeline_id), param(scope)}).text(0, 1);
  Datum id = Int64GetDatum(pipeline_id), text = scope ? bridge::text_datum(*scope) : 0;
  return seen != bridge::guarded(under_latest_snapshot_raw, sql, id, text);
}

bool set_status(int64_t id, const std::string& from, const std::string& to) {
  AsLedger as;
  static const Statement update(
      "UPDATE portage.migration_runs SET status = $3 WHERE id = $1 AND status = $2");
  return update.run(id, from, to).processed() == 1;
}

bool take_run(int64_t id, const std::string& from, const HashedColumns& hashed, std::string_view writer,
              const std::string& writer_reason, int64_t lock) {
  AsLedger as;
  static const Statement update(
      "UPDATE portage.migration_runs SET status = 'running', current_step = 'importing', "
      "started_at = coalesce(started_at, clock_timestamp()), first_xid = coalesce(first_xid, "
      "pg_current_xact_id()), "
      "hash_columns = coalesce(hash_columns, $2), hash_shape = coalesce(hash_shape, $5), writer = $3, "
      "writer_reason = $4, completed_at = NULL, "
      "error = NULL, error_class = NULL, "
      "error_code = NULL WHERE id = $1");
  if (!own_run(id, from, "running", lock)) return false;
  update({param(id), bridge::param_text_array(hashed.names), param(writer), param(writer_reason),
          param(hashed.shape)});
  return true;
}

bool own_run(int64_t id, const std::string& from, const std::string& to, int64_t lock) {
  AsLedger as;
  static const Statement update(
      "UPDATE portage.migration_runs SET status = $4, owner_pid = pg_backend_pid(), owner_started_at = "
      "(SELECT backend_start FROM pg_stat_get_activity(pg_backend_pid())), owner_lease = clock_timestamp() + "
      "$2 * interval '1 ms', owner_statement_at = $5, owner_lock = $6, paused_from = NULL, hold_reason = "
      "NULL, launched_at = NULL WHERE id = $1 AND status = $3");
  return update({param(id), param(static_cast<int64_t>(settings::lease_duration)), param(from), param(to),
                 statement_begin(), param(lock)})
             .processed() == 1;
}

void renew_lease(int64_t id) {
  AsLedger as;
  static const Statement update(
      "UPDATE portage.migration_runs SET owner_lease = clock_timestamp() + $2 * interval '1 ms' WHERE id = "
      "$1");
  update.run(id, static_cast<int64_t>(settings::lease_duration));
}

void lock_run(int64_t id) {
  AsLedger as;
  static const Statement lock("SELECT FROM portage.migration_runs WHERE id = $1 FOR NO KEY UPDATE");
  lock.run(id);
}

void release_run(int64_t id) {
  AsLedger as;
  static const Statement update(
      "UPDATE portage.migration_runs SET owner_pid = NULL, owner_started_at = NULL, owner_statement_at = "
      "NULL, owner_lock = NULL, owner_lease = NULL, hold_reason = NULL, background = false WHERE id = $1 AND "
      "owner_pid = "
      "pg_backend_pid() AND owner_started_at = (SELECT backend_start FROM "
      "pg_stat_get_activity(pg_backend_pid()))");
  update.run(id);
}

void make_request(int64_t id, Request request) {
  AsLedger as;
  static const Statement update(
      "UPDATE portage.migration_runs SET requested = nullif($2, '') WHERE id = $1 AND "
      "requested IS DISTINCT FROM nullif($2, '')");
  update.run(id, request == Request::pause ? "pause" : request == Request::cancel ? "cancel" : "");
}

std::optional<Request> owners_turn(int64_t id, const char* status) {
  AsLedger as;
  static const Statement select(
      "SELECT coalesce(requested, ''), owner_lease < clock_timestamp() + $3 * interval '1 ms' FROM "
      "portage.migration_runs WHERE id = $1 AND status = $2 AND owner_pid = pg_backend_pid()");
  Result rows = select.run(id, status, static_cast<int64_t>(settings::lease_duration) * 2 / 3);
  if (rows.empty()) return std::nullopt;
  if (rows.boolean(0, 2)) renew_lease(id);
  std::string request = rows.text(0, 1);
  return request == "pause" ? Request::pause : request == "cancel" ? Request::cancel : Request::none;
}

bool takes_helpers(int64_t id) {
  AsLedger as;
  static const Statement select(
      "SELECT FROM portage.migration_runs r WHERE id = $1 AND status = 'running' AND current_step = "
      "'importing' "
      "AND requested IS NULL AND portage.run_owner_alive(r)");
  return !select.run(id).empty();
}

void set_workers(int64_t id, int32_t workers) {
  AsLedger as;
  static const Statement update("UPDATE portage.migration_runs SET workers = $2 WHERE id = $1");
  update.run(id, workers);
}

int64_t sum_bytes(int64_t id) {
  AsLedger as;
  static const Statement select(
      "SELECT coalesce(sum(bytes), 0)::bigint FROM portage.migration_batches WHERE run_id = $1");
  return select.run(id).bigint(0, 1);
}

bool pause_run(int64_t id, const std::string& from) {
  AsLedger as;
  static const Statement update(
      "UPDATE portage.migration_runs SET status = 'paused', paused_from = $2, requested = NULL, owner_pid = "
      "NULL, owner_started_at = NULL, owner_statement_at = NULL, owner_lock = NULL, owner_lease = NULL, "
      "hold_reason = NULL, "
      "launched_at = NULL WHERE id = $1 AND status = $2");
  return update.run(id, from).processed() == 1;
}

void set_hold(int64_t id, const std::string& reason) {
  AsLedger as;
  static const Statement update(
      "UPDATE portage.migration_runs SET hold_reason = nullif($2, '') WHERE id = $1");
  update.run(id, reason);
}

Counts sum_batches(int64_t id) {
  AsLedger as;
  static const Statement select(
      "SELECT coalesce(sum(read), 0)::bigint, coalesce(sum(inserted), 0)::bigint, coalesce(sum(updated), "
      "0)::bigint, "
      "coalesce(sum(unchanged), 0)::bigint, coalesce(sum(skipped), 0)::bigint, coalesce(sum(conflicted), "
      "0)::bigint, "
      "coalesce(sum(parked), 0)::bigint, coalesce(sum(invalid), 0)::bigint, coalesce(sum(failed), 0)::bigint "
      "FROM portage.migration_batches WHERE run_id = $1");
  Result rows = select.run(id);
  Counts counts;
  int64_t* fields[] = {&counts.read,      &counts.inserted, &counts.updated,
                       &counts.unchanged, &counts.skipped,  &counts.conflicted,
                       &counts.parked,    &counts.invalid,  &counts.failed};
  for (int i = 0; i < 9; i++) *fields[i] = rows.bigint(0, i + 1);
  return counts;
}

void finish_run(int64_t id, const std::string& status, const std::string& error,
                const std::string& error_class, const std::string& error_code) {
  Counts sum = sum_batches(id);
  AsLedger as;
  static const Statement update(
      "UPDATE portage.migration_runs SET status = $2, read = $3, inserted = $4, updated = $5, unchanged = "
      "$6, "
      "skipped = $7, conflicted = $8, parked = $9, invalid = $10, failed = $11, total_items = CASE WHEN $2 = "
      "'completed' "
      "THEN $3 ELSE total_items END, open_rejects = $10 + $11, open_conflicts = $8, open_parked = $9, "
      "completed_at = CASE WHEN $2 = 'paused' THEN NULL ELSE clock_timestamp() END, owner_pid = NULL, "
      "owner_started_at = NULL, owner_statement_at = NULL, owner_lock = NULL, owner_lease = NULL, "
      "current_step = NULL, "
      "requested = NULL, hold_reason = "
      "NULL, launched_at = NULL, "
      "error = CASE WHEN $2 = 'rolled_back' THEN error ELSE nullif($12, '') END, "
      "error_class = CASE WHEN $2 = 'rolled_back' THEN error_class ELSE nullif($13, '') END, "
      "error_code = CASE WHEN $2 = 'rolled_back' THEN error_code ELSE nullif($14, '') END WHERE id = $1");
  update.run(id, status, sum.read, sum.inserted, sum.updated, sum.unchanged, sum.skipped, sum.conflicted,
             sum.parked, sum.invalid, sum.failed, error, error_class, error_code);
}

void set_verified(int64_t id, bool verified) {
  AsLedger as;
  static const Statement update("UPDATE portage.migration_runs SET verified = $2 WHERE id = $1");
  update.run(id, verified);
}

void set_step(int64_t id, const std::string& step) {
  AsLedger as;
  static const Statement update("UPDATE portage.migration_runs SET current_step = $2 WHERE id = $1");
  update.run(id, step);
}

uint64_t first_xid_of(int64_t id) {
  AsLedger as;
  static const Statement select("SELECT first_xid::text FROM portage.migration_runs WHERE id = $1");
  Result rows = select.run(id);
  return rows.empty() || rows.is_null(0, 1) ? 0 : std::strtoull(rows.text(0, 1).c_str(), nullptr, 10);
}

std::vector<std::string> hash_columns_of(int64_t id) {
  AsLedger as;
  static const Statement select("SELECT hash_columns FROM portage.migration_runs WHERE id = $1");
  Result rows = select.run(id);
  return rows.empty() ? std::vector<std::string>() : names_of(rows, 0, 1);
}

HashedColumns hashed_columns_of(int64_t id) {
  AsLedger as;
  static const Statement select("SELECT hash_columns, hash_shape FROM portage.migration_runs WHERE id = $1");
  Result rows = select.run(id);
  if (rows.empty() || rows.is_null(0, 1)) return {};
  return {names_of(rows, 0, 1), rows.text(0, 2)};
}

void want_worker(int64_t id) {
  AsLedger as;
  static const Statement update(
      "UPDATE portage.migration_runs SET background = true, launched_at = clock_timestamp(), requested = "
      "NULL "
      "WHERE id = $1");
  update.run(id);
}

std::vector<WaitingRun> waiting_runs(int64_t milliseconds) {
  AsLedger as;
  static const std::string sql =
      std::string("SELECT r.id, r.session_role_oid, r.session_role::text, r.role_oid, r.role_name::text ") +
      waiting_run + "ORDER BY r.id";
  static const Statement select(sql.c_str());
  Result rows = select.run(milliseconds);
  std::vector<WaitingRun> runs;
  for (size_t i = 0; i < rows.size(); i++)
    runs.push_back({rows.bigint(i, 1), role_in(rows, i, 2), role_in(rows, i, 4)});
  return runs;
}

bool take_waiting_run(int64_t id, int64_t milliseconds) {
  AsLedger as;
  static const std::string sql =
      std::string(
          "UPDATE portage.migration_runs u SET background = true, launched_at = clock_timestamp() "
          "FROM (SELECT r.id ") +
      waiting_run + "AND r.id = $2 FOR UPDATE SKIP LOCKED) w WHERE u.id = w.id";
  static const Statement take(sql.c_str());
  return take.run(milliseconds, id).processed() == 1;
}

std::string rollback_options(int64_t id) {
  AsLedger as;
  static const Statement select("SELECT rollback_options::text FROM portage.migration_runs WHERE id = $1");
  Result rows = select.run(id);
  return rows.empty() ? "" : rows.text(0, 1);
}

void set_rollback_options(int64_t id, const std::string& drifted, bool cascade, const std::string& from) {
  AsLedger as;
  static const Statement update(
      // a rollback that has failed, and is called again, has begun before
      "UPDATE portage.migration_runs r SET rollback_options = jsonb_build_object('drifted', $2, 'cascade', "
      "$3, 'from', CASE WHEN $4 IN ('rolling_back', 'failed') THEN coalesce(r.rollback_options ->> 'from', "
      "$4) ELSE $4 END) WHERE id = $1");
  update.run(id, drifted, cascade, from);
}

std::string state_before_rollback(int64_t id) {
  AsLedger as;
  static const Statement select(
      "SELECT rollback_options ->> 'from' FROM portage.migration_runs WHERE id = $1");
  Result rows = select.run(id);
  std::string from = rows.empty() ? "" : rows.text(0, 1);
  return from == "failed" || from == "cancelled" ? from : "completed";
}

std::string session_user_name() { return user_name(GetSessionUserId()); }

void add_event(int64_t run_id, const std::string& type, const std::string& details) {
  std::string actor = session_user_name();
  AsLedger as;
  // Events of a run are numbered without gaps, by whoever has its row until the end of the transaction.
  static const Statement lock("SELECT FROM portage.migration_runs WHERE id = $1 FOR NO KEY UPDATE");
  lock.run(run_id);
  static const Statement insert(
      "INSERT INTO portage.migration_events (run_id, seq, event_type, actor, details) SELECT $1, "
      "coalesce((SELECT max(seq) FROM portage.migration_events WHERE run_id = $1), 0) + 1, $2, $3, "
      "$4::jsonb");
  insert.run(run_id, type, actor, details);
}

void add_pipeline_event(const std::string& type, const std::string& details) {
  std::string actor = session_user_name();
  AsLedger as;
  static const Statement insert(
      "INSERT INTO portage.migration_events (id, run_id, seq, event_type, actor, details) OVERRIDING SYSTEM "
      "VALUE SELECT n, 0, n, $1, $2, $3::jsonb FROM nextval('portage.migration_events_id_seq') n");
  insert.run(type, actor, details);
}

int64_t last_event(int64_t run_id) {
  AsLedger as;
  static const Statement select(
      "SELECT coalesce(max(seq), 0) FROM portage.migration_events WHERE run_id = $1");
  return select.run(run_id).bigint(0, 1);
}

}  // namespace portage::ledger
