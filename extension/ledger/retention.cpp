// See retention.hpp.
#include "ledger/retention.hpp"

#include "ledger/as_ledger.hpp"
#include "ledger/known_roles.hpp"
#include "ledger/runs.hpp"

namespace portage::ledger {

using bridge::param;
using bridge::Result;
using bridge::Statement;

namespace {

Result purgeable(std::optional<int64_t> pipeline_id, TimestampTz ended_before, int64_t after) {
  static const Statement select(
      "SELECT id, pipeline_id, pipeline_version, scope FROM portage.migration_runs WHERE id > $3 AND ($1 IS "
      "NULL OR "
      "pipeline_id = $1) AND status IN ('completed', 'failed', 'cancelled', 'rolled_back') AND "
      "coalesce(open_parked, 0) = 0 AND completed_at "
      "< $2 AND "
      "expires_at IS DISTINCT FROM 'infinity' AND (purged_at IS NULL OR purged_at = 'infinity') ORDER BY id "
      "LIMIT 1 "
      "FOR NO KEY UPDATE SKIP LOCKED");
  return select(
      {param(pipeline_id), {TIMESTAMPTZOID, TimestampTzGetDatum(ended_before), false}, param(after)});
}

constexpr int64_t portion = 10000;     // rows
constexpr int64_t chunk_portion = 64;  // of about a megabyte

}  // namespace

Dropped drop_kept(int64_t run_id) {
  AsLedger as;
  Dropped dropped;
  static const Statement payload(
      "WITH gone AS (DELETE FROM portage.migration_payloads WHERE run_id = $1 RETURNING "
      "octet_length(content)) "
      "SELECT count(*), coalesce(sum(octet_length), 0)::bigint FROM gone");
  bridge::Result gone = payload.run(run_id);
  dropped.chunks = gone.bigint(0, 1);
  dropped.chunk_bytes = gone.bigint(0, 2);
  static const Statement raw(
      "UPDATE portage.item_rows SET raw = NULL WHERE run_id = $1 AND raw IS NOT NULL AND status IN "
      "('invalid', 'failed', 'skipped', 'conflicted', 'parked')");
  dropped.raw_inputs = static_cast<int64_t>(raw.run(run_id).processed());
  static const Statement corrections("DELETE FROM portage.item_corrections WHERE run_id = $1");
  dropped.raw_inputs += static_cast<int64_t>(corrections.run(run_id).processed());
  static const Statement conflicts("DELETE FROM portage.migration_conflicts WHERE run_id = $1");
  dropped.raw_inputs += static_cast<int64_t>(conflicts.run(run_id).processed());
  static const Statement images(
      "UPDATE portage.migration_undo SET columns = NULL, before = NULL, before_hash = NULL, after_hashes = "
      "NULL WHERE run_id = $1 AND columns IS NOT NULL AND mapping_run_id IS NOT NULL");
  dropped.before_images = static_cast<int64_t>(images.run(run_id).processed());
  static const Statement others(
      "DELETE FROM portage.migration_undo WHERE run_id = $1 AND mapping_run_id IS NULL");
  dropped.before_images += static_cast<int64_t>(others.run(run_id).processed());
  // That a row was deleted explains to earlier runs why theirs is gone.
  static const Statement rows(
      "UPDATE portage.missing_rows SET columns = NULL, before = NULL, before_hash = NULL WHERE run_id = $1 "
      "AND columns IS NOT NULL");
  dropped.before_images += static_cast<int64_t>(rows.run(run_id).processed());
  static const Statement note(
      "UPDATE portage.migration_runs SET cleaned_at = clock_timestamp() WHERE id = $1 AND cleaned_at IS "
      "NULL");
  dropped.first = note.run(run_id).processed() == 1;
  return dropped;
}

void keep_for_ever(int64_t run_id) {
  AsLedger as;
  static const Statement keep(
      "UPDATE portage.migration_runs SET expires_at = 'infinity' WHERE id = $1 AND expires_at IS DISTINCT "
      "FROM 'infinity'");
  keep.run(run_id);
}

bool cleaned_up(int64_t run_id) {
  AsLedger as;
  static const Statement select(
      "SELECT FROM portage.migration_runs WHERE id = $1 AND cleaned_at IS NOT NULL");
  return !select.run(run_id).empty();
}

std::optional<PurgeableRun> next_to_purge(std::optional<int64_t> pipeline_id, TimestampTz ended_before,
                                          int64_t after) {
  AsLedger as;
  Result rows = purgeable(pipeline_id, ended_before, after);
  if (rows.empty()) return std::nullopt;
  return PurgeableRun{rows.bigint(0, 1), rows.bigint(0, 2), rows.integer(0, 3), rows.text(0, 4)};
}

Purge::Purge(int64_t run_id, Erased& erased) : run_(run_id), erased_(erased) {
  AsLedger as;
  static const Statement begin(
      "UPDATE portage.migration_runs r SET cleaned_at = coalesce(cleaned_at, clock_timestamp()), purged_at = "
      "'infinity' WHERE id = $1 RETURNING NOT EXISTS (SELECT FROM portage.migration_batches b WHERE b.run_id "
      "= r.id "
      "AND b.kind = 'rollback') AND NOT EXISTS (SELECT FROM portage.migration_runs e WHERE e.pipeline_id = "
      "r.pipeline_id AND e.id < r.id AND e.started_at IS NOT NULL AND NOT e.dry_run AND e.purged_at IS "
      "NULL)");
  Result rows = begin.run(run_id);
  nobody_returns_ = !rows.empty() && rows.boolean(0, 1);
}

/// The next page of a table whose rows are items': those that go are deleted, the others are cut by `cut`.
bool Purge::erase_page(const std::string& table, const std::string& goes, const std::string& cut,
                       int64_t& count) {
  std::string of_page = " WHERE ctid = ANY (ARRAY(SELECT ctid FROM page WHERE ";
  std::string sql =
      "WITH page AS (SELECT t.ctid, t.ordinal, t.revision, " + goes + " AS goes FROM " + table +
      " t WHERE run_id = $1 AND (ordinal, revision) > ($2, $3) ORDER BY ordinal, revision LIMIT $4), "
      "gone AS (DELETE FROM " +
      table + of_page + "goes)) RETURNING 1)";
  if (!cut.empty()) sql += ", rest AS (UPDATE " + table + " SET " + cut + of_page + "NOT goes)))";
  sql +=
      " SELECT ordinal, revision, (SELECT count(*) FROM gone) FROM page ORDER BY ordinal DESC, revision DESC "
      "LIMIT 1";
  Result rows = bridge::execute(sql, {param(run_), param(ordinal_), param(revision_), param(portion)});
  if (rows.empty()) {
    ordinal_ = 0;
    revision_ = -1;
    return false;
  }
  ordinal_ = rows.bigint(0, 1);
  revision_ = rows.integer(0, 2);
  count += rows.bigint(0, 3);
  return true;
}

bool Purge::step() {
  AsLedger as;
  static const Statement lock("SELECT FROM portage.migration_runs WHERE id = $1 FOR NO KEY UPDATE");
  lock.run(run_);
  auto erased = [&](const Statement& statement) {
    return static_cast<int64_t>(statement.run(run_).processed());
  };
  if (phase_ == 0) {
    static const Statement chunks(
        "DELETE FROM portage.migration_payloads WHERE ctid = ANY (ARRAY(SELECT ctid FROM "
        "portage.migration_payloads "
        "WHERE run_id = $1 LIMIT $2))");
    int64_t gone = static_cast<int64_t>(chunks.run(run_, chunk_portion).processed());
    ours_.chunks += gone;
    if (gone) return true;
    phase_++;
  }
  if (phase_ == 1) {
    static const Statement packs(
        "WITH gone AS (DELETE FROM portage.item_packs WHERE ctid = ANY (ARRAY(SELECT ctid FROM "
        "portage.item_packs WHERE run_id = $1 LIMIT $2)) RETURNING items) SELECT sum(items) FROM gone");
    Result gone = packs.run(run_, chunk_portion);
    if (!gone.is_null(0, 1)) {
      ours_.items += gone.bigint(0, 1);
      return true;
    }
    if (erase_page("portage.item_rows", "status <> 'rolled_back'", "", ours_.items)) return true;
    phase_++;
  }
  if (phase_ == 2) {
    if (erase_page("portage.migration_undo", nobody_returns_ ? "true" : "mapping_run_id IS NULL",
                   "columns = NULL, before = NULL, before_hash = NULL, after_hashes = NULL",
                   ours_.before_images))
      return true;
    phase_++;
  }
  if (phase_ == 3) {
    static const Statement missing(
        "DELETE FROM portage.missing_rows WHERE ctid = ANY (ARRAY(SELECT ctid FROM portage.missing_rows "
        "WHERE run_id = $1 AND ($2 OR status NOT IN ('deleted', 'taken_back')) LIMIT $3))");
    int64_t gone = static_cast<int64_t>(missing.run(run_, nobody_returns_, portion).processed());
    ours_.before_images += gone;
    if (gone) return true;
    phase_++;
  }
  if (phase_ == 4) {
    static const Statement images(
        "UPDATE portage.missing_rows SET columns = NULL, before = NULL, before_hash = NULL WHERE ctid = ANY "
        "(ARRAY(SELECT ctid FROM portage.missing_rows WHERE run_id = $1 AND columns IS NOT NULL LIMIT $2))");
    if (images.run(run_, portion).processed() > 0) return true;
    phase_++;
  }
  static const Statement corrections("DELETE FROM portage.item_corrections WHERE run_id = $1");
  erased(corrections);
  static const Statement conflicts("DELETE FROM portage.migration_conflicts WHERE run_id = $1");
  erased(conflicts);
  static const Statement predictions("DELETE FROM portage.predictions WHERE run_id = $1");
  erased(predictions);
  static const Statement moves("DELETE FROM portage.row_moves WHERE run_id = $1");
  if (nobody_returns_) erased(moves);
  static const Statement checks("DELETE FROM portage.data_integrity_checks WHERE run_id = $1");
  ours_.checks = erased(checks);
  static const Statement batches(
      "DELETE FROM portage.migration_batches WHERE run_id = $1 AND kind <> 'rollback'");
  ours_.batches = erased(batches);
  // The numbering of the events goes on: the last one tells of the others.
  static const Statement events(
      "DELETE FROM portage.migration_events WHERE run_id = $1 AND seq < (SELECT max(seq) FROM "
      "portage.migration_events WHERE run_id = $1)");
  static const Statement count("SELECT count(*) FROM portage.migration_events WHERE run_id = $1");
  ours_.events = count.run(run_).bigint(0, 1);
  add_event(
      run_, "cleaned_up",
      bridge::format("{\"items\": %lld, \"payload_chunks\": %lld, \"before_images\": %lld, \"checks\": %lld, "
                     "\"batches\": %lld, \"events\": %lld}",
                     static_cast<long long>(ours_.items), static_cast<long long>(ours_.chunks),
                     static_cast<long long>(ours_.before_images), static_cast<long long>(ours_.checks),
                     static_cast<long long>(ours_.batches), static_cast<long long>(ours_.events)));
  erased(events);
  static const Statement done(
      "UPDATE portage.migration_runs SET purged_at = clock_timestamp(), open_rejects = 0, open_conflicts = "
      "0, "
      "open_parked = 0 WHERE id = $1");
  erased(done);
  erased_.runs++;
  erased_.chunks += ours_.chunks;
  erased_.items += ours_.items;
  erased_.before_images += ours_.before_images;
  erased_.checks += ours_.checks;
  erased_.batches += ours_.batches;
  erased_.events += ours_.events;
  return false;
}

bool purged(int64_t run_id) {
  AsLedger as;
  static const Statement select("SELECT FROM portage.migration_runs WHERE id = $1 AND purged_at IS NOT NULL");
  return !select.run(run_id).empty();
}

std::vector<RetainingPipeline> retaining_pipelines(int64_t now) {
  if (is_foreign()) return {};
  AsLedger as;
  static const Statement select(
      "SELECT p.id, p.owner, p.owner_name::text, to_timestamp($1) - (v.definition ->> 'retain')::interval "
      "FROM "
      "portage.pipelines p JOIN portage.pipeline_versions v ON v.pipeline_id = p.id AND v.version = "
      "p.current_version "
      "WHERE v.definition ->> 'retain' IS NOT NULL AND (p.retained_at BETWEEN to_timestamp($1) - interval '1 "
      "hour' "
      "AND to_timestamp($1)) IS NOT TRUE ORDER BY p.id");
  Result rows = select.run(now);
  std::vector<RetainingPipeline> pipelines;
  for (size_t i = 0; i < rows.size(); i++)
    pipelines.push_back({rows.bigint(i, 1), role_in(rows, i, 2).oid, DatumGetTimestampTz(rows.datum(i, 4))});
  return pipelines;
}

bool note_retained(int64_t pipeline_id, std::optional<int64_t> now) {
  AsLedger as;
  static const Statement update(
      "UPDATE portage.pipelines SET retained_at = to_timestamp($2) WHERE id = $1 AND (retained_at BETWEEN "
      "to_timestamp($2) - interval '1 hour' AND to_timestamp($2)) IS NOT TRUE");
  return update.run(pipeline_id, now).processed() == 1;
}

}  // namespace portage::ledger
