// See missing.hpp: finding and settling.
#include "ledger/missing.hpp"

#include "ledger/as_ledger.hpp"
#include "ledger/mapping_packs.hpp"
#include "ledger/undo_rows.hpp"

namespace portage::ledger {

using bridge::param;
using bridge::Result;
using bridge::Statement;

bool any_marked(const MappingSpace& space) {
  AsLedger as;
  bridge::ByIndex by_index;
  static const Statement select(
      "SELECT FROM portage.mapping_rows WHERE pipeline_id = $1 AND scope = $2 AND missing_since IS NOT "
      "NULL LIMIT 1");
  return !select.run(space.pipeline_id, space.scope).empty();
}

void clear_marks(const MappingSpace& space, int64_t run_id) {
  if (!any_marked(space)) return;
  AsLedger as;
  bridge::Settings by_hash;
  by_hash.set("enable_nestloop", "off");
  static const Statement update(
      "UPDATE portage.mapping_rows m SET missing_since = NULL WHERE m.pipeline_id = $1 AND m.scope = $2 "
      "AND m.missing_since IS NOT NULL AND m.legacy_id IN (SELECT i.legacy_id FROM portage.all_items i WHERE "
      "i.run_id = $3 AND i.legacy_id IS NOT NULL)");
  update.run(space.pipeline_id, space.scope, run_id);
}

std::string unreadable_reason(const MappingSpace& space, int64_t run_id) {
  AsLedger as;
  static const Statement select(
      "SELECT EXISTS (SELECT FROM portage.migration_parts p WHERE p.run_id = $1 AND p.skipped IS NOT NULL), "
      "EXISTS (SELECT FROM portage.migration_parts p WHERE p.run_id = $1 AND p.skipped IS NULL AND (NOT "
      "EXISTS (SELECT FROM portage.migration_ranges g WHERE g.run_id = $1 AND g.part = p.part) OR EXISTS "
      "(SELECT FROM portage.migration_ranges g WHERE g.run_id = $1 AND g.part = p.part AND NOT g.done))), "
      "EXISTS (SELECT FROM portage.migration_parts p WHERE p.run_id = $1 AND p.cursor_column IS NOT NULL), "
      // what landed has an id
      "EXISTS (SELECT FROM portage.item_rows i WHERE i.run_id = $1 AND i.legacy_id IS NULL AND i.status IN "
      "('invalid', 'failed', 'skipped', 'conflicted', 'parked')), "
      "(SELECT min(l.id) FROM portage.migration_runs r JOIN portage.migration_runs l ON l.pipeline_id = "
      "r.pipeline_id AND ($2 = '' OR l.scope = r.scope) AND l.started_at > r.started_at AND l.id <> r.id AND "
      "NOT l.dry_run WHERE r.id = $1)");
  Result found = select.run(run_id, space.scope);
  if (found.boolean(0, 1)) return "a part of its input was not read";
  if (found.boolean(0, 2)) return "its input was not read to the end";
  if (found.boolean(0, 3)) return "it was read from a cursor on";
  if (found.boolean(0, 4)) return "items of its input have no legacy id that could be read";
  if (!found.is_null(0, 5)) return "run " + found.text(0, 5) + " has read the source since it began";
  return "";
}

bool missing_listed(int64_t run_id) {
  AsLedger as;
  static const Statement select("SELECT FROM portage.missing_rows WHERE run_id = $1 LIMIT 1");
  return !select.run(run_id).empty();
}

MissingCounts list_missing(const MappingSpace& space, int64_t run_id, bool deletes) {
  AsLedger as;
  bridge::Settings by_hash;
  by_hash.set("enable_nestloop", "off");
  // Last written first: what refers to others of the same table came after them. A row that other legacy ids
  // stand for, too, in whichever pipeline, is not this one's to delete.
  static const Statement insert(
      "INSERT INTO portage.missing_rows (run_id, seq, pipeline_id, scope, legacy_id, target_key, status, "
      "reason, mapping_source_hash, mapping_row_hash, mapping_run_id, mapping_ordinal, mapping_image, "
      "missing_since) SELECT $3, row_number() OVER (ORDER BY m.run_id DESC, m.ordinal DESC), m.pipeline_id, "
      "m.scope, m.legacy_id, m.target_key, 'found', CASE WHEN NOT $4 THEN NULL WHEN m.origin <> 'inserted' "
      "THEN m.origin WHEN s.target_key IS NOT NULL THEN 'shared' END, m.source_hash, m.row_hash, m.run_id, "
      "m.ordinal, m.image, m.missing_since FROM portage.all_mappings m LEFT JOIN (SELECT o.target_key "
      "FROM portage.all_mappings o WHERE $4 AND o.pipeline_id IN (SELECT v.pipeline_id FROM "
      "portage.pipeline_versions v JOIN portage.pipeline_versions w ON v.target_schema = w.target_schema AND "
      "v.target_name = w.target_name AND (v.definition -> 'key')::text IS NOT DISTINCT FROM (w.definition -> "
      "'key')::text WHERE w.pipeline_id = $1) GROUP BY o.target_key HAVING count(*) > 1) s ON s.target_key = "
      "m.target_key WHERE m.pipeline_id = $1 AND m.scope = $2 AND ($4 OR m.missing_since IS NULL) AND NOT "
      "EXISTS (SELECT FROM portage.all_items i WHERE i.run_id = $3 AND i.legacy_id = m.legacy_id)");
  MissingCounts counts;
  counts.found =
      static_cast<int64_t>(insert.run(space.pipeline_id, space.scope, run_id, deletes).processed());
  if (!deletes || counts.found == 0) return counts;
  static const Statement own(
      "SELECT count(*) FROM portage.missing_rows WHERE run_id = $1 AND reason IS NULL");
  counts.to_delete = own.run(run_id).bigint(0, 1);
  counts.mapped = count_mappings(space);
  return counts;
}

std::vector<MissingRow> missing_page(int64_t run_id, int64_t after, int64_t limit, formats::Arena& arena) {
  AsLedger as;
  bridge::ByIndex by_index;  // a page; the planner may know nothing of the tables yet
  static const Statement select(
      "SELECT d.seq, d.legacy_id, coalesce(d.reason, ''), m.legacy_id IS NOT NULL, d.target_key, 'inserted', "
      "d.mapping_source_hash, d.mapping_row_hash, d.mapping_run_id, d.mapping_ordinal, "
      "d.mapping_image::text FROM (SELECT * FROM portage.missing_rows r WHERE r.run_id = $1 AND r.seq > $2 "
      "AND r.status = 'found' ORDER BY r.run_id, r.seq LIMIT $3) d LEFT JOIN LATERAL (SELECT k.legacy_id "
      "FROM portage.all_mappings k WHERE k.pipeline_id = d.pipeline_id AND k.scope = d.scope AND "
      "k.legacy_id = d.legacy_id AND k.run_id = d.mapping_run_id AND k.ordinal = d.mapping_ordinal OFFSET 0) "
      "m ON true ORDER BY d.seq");
  Result rows = select.run(run_id, after, limit);
  std::vector<MissingRow> page;
  for (size_t i = 0; i < rows.size(); i++) {
    MissingRow row{rows.bigint(i, 1),
                   arena.copy(rows.text(i, 2)),
                   {},
                   mapping_of(rows, i, 5, arena),
                   rows.boolean(i, 4),
                   rows.text(i, 3),
                   false,
                   {},
                   {},
                   0};
    row.target_key = row.mapping.target_key;
    page.push_back(std::move(row));
  }
  return page;
}

namespace {

std::vector<std::string_view> views_of(const std::vector<std::string>& ids) {
  return {ids.begin(), ids.end()};
}

}  // namespace

uint64_t forget_mappings(const MappingSpace& space, const std::vector<std::string>& ids) {
  static const Statement forget(
      "DELETE FROM portage.mapping_rows m USING (SELECT k.place FROM unnest($3::text[]) AS u (legacy_id) "
      "CROSS JOIN LATERAL (SELECT k.ctid AS place FROM portage.mapping_rows k WHERE k.pipeline_id = $1 "
      "AND k.scope = $2 AND k.legacy_id = u.legacy_id COLLATE \"C\" OFFSET 0) k) n WHERE m.ctid = n.place");
  uint64_t packed = 0;
  take_out(space, views_of(ids), [&](size_t, const PackedMapping&, int64_t) { packed++; });
  return packed +
         forget({param(space.pipeline_id), param(space.scope), bridge::param_text_array(ids)}).processed();
}

namespace {

std::string array_literal(const std::vector<std::optional<std::string>>& texts) {
  return bridge::output_text(TEXTARRAYOID, param_texts(texts).value);
}

void settle_deleted(const MappingSpace& space, int64_t run_id, const std::vector<const MissingRow*>& rows,
                    int64_t batch_id) {
  std::vector<int64_t> numbers, hashes;
  std::vector<std::string> ids, images;
  for (const MissingRow* row : rows) {
    if (!row->deleted) continue;
    numbers.push_back(row->seq);
    ids.emplace_back(row->legacy_id);
    images.push_back(array_literal(row->before));
    hashes.push_back(row->before_hash);
  }
  if (numbers.empty()) return;
  const std::vector<std::string>& columns =
      (*std::find_if(rows.begin(), rows.end(), [](const MissingRow* row) { return row->deleted; }))->columns;
  // Everything is found by its place: the planner may think that there is little, and go through it for each.
  static const Statement update(
      "UPDATE portage.missing_rows m SET status = 'deleted', columns = $2, before = n.before::text[], "
      "before_hash = n.hash, batch_id = $6 FROM (SELECT u.*, d.place FROM unnest($3::bigint[], $4::text[], "
      "$5::bigint[]) AS u (seq, before, hash) CROSS JOIN LATERAL (SELECT d.ctid AS place FROM "
      "portage.missing_rows d WHERE d.run_id = $1 AND d.seq = u.seq OFFSET 0) d) n WHERE m.ctid = n.place");
  update({param(run_id), bridge::param_text_array(columns), bridge::param_int8_array(numbers),
          bridge::param_text_array(images), bridge::param_int8_array(hashes), param(batch_id)});
  if (forget_mappings(space, ids) != ids.size())
    throw bridge::Error(ERRCODE_T_R_SERIALIZATION_FAILURE,
                        "mappings have changed while their rows were deleted");
}

void settle_marked(const MappingSpace& space, int64_t run_id, const std::vector<const MissingRow*>& rows) {
  std::vector<int64_t> numbers;
  std::vector<std::string> ids, reasons;
  for (const MissingRow* row : rows) {
    if (row->deleted) continue;
    numbers.push_back(row->seq);
    ids.emplace_back(row->legacy_id);
    reasons.push_back(row->reason);
  }
  if (numbers.empty()) return;
  static const Statement update(
      "UPDATE portage.missing_rows m SET status = 'marked', reason = nullif(n.reason, '') FROM (SELECT "
      "u.reason, d.place FROM unnest($2::bigint[], $3::text[]) AS u (seq, reason) CROSS JOIN LATERAL (SELECT "
      "d.ctid AS place FROM portage.missing_rows d WHERE d.run_id = $1 AND d.seq = u.seq OFFSET 0) d) n "
      "WHERE m.ctid = n.place");
  update({param(run_id), bridge::param_int8_array(numbers), bridge::param_text_array(reasons)});
  make_rows(space, views_of(ids));  // only these have room for it
  static const Statement mark(
      "UPDATE portage.mapping_rows m SET missing_since = n.since FROM (SELECT k.place, r.started_at AS "
      "since FROM portage.migration_runs r, unnest($3::text[]) AS u (legacy_id) CROSS JOIN LATERAL (SELECT "
      "k.ctid AS place FROM portage.mapping_rows k WHERE k.pipeline_id = $1 AND k.scope = $2 AND "
      "k.legacy_id = u.legacy_id COLLATE \"C\" AND k.missing_since IS NULL OFFSET 0) k WHERE r.id = $4) n "
      "WHERE m.ctid = n.place");
  mark({param(space.pipeline_id), param(space.scope), bridge::param_text_array(ids), param(run_id)});
}

}  // namespace

namespace {

/// Items that have written one of these rows will not take another one for it that has its key later. Who
/// has inserted it knows by its legacy id.
void note_deaths(int64_t run_id, const std::vector<const MissingRow*>& rows, int64_t batch_id) {
  std::vector<int64_t> numbers;
  std::vector<std::string> keys;
  for (const MissingRow* row : rows) {
    if (!row->deleted) continue;
    numbers.push_back(-row->seq);
    keys.emplace_back(row->target_key);
  }
  static const Statement insert(
      "INSERT INTO portage.row_moves (run_id, ordinal, batch_id, from_key) SELECT $1, d.number, $2, d.key "
      "FROM "
      "unnest($3::bigint[], $4::text[]) AS d (number, key) CROSS JOIN LATERAL (SELECT "
      "pg_catalog.hashtextextended(d.key COLLATE \"C\", 0) AS hash) h WHERE EXISTS (SELECT FROM "
      "portage.migration_undo u WHERE pg_catalog.hashtextextended(u.target_key, 0) = h.hash AND u.target_key "
      "= "
      "d.key COLLATE \"C\" AND u.columns IS NOT NULL) OR EXISTS (SELECT FROM portage.row_moves m WHERE "
      "pg_catalog.hashtextextended(m.to_key, 0) = h.hash AND m.to_key = d.key COLLATE \"C\")");
  insert({param(run_id), param(batch_id), bridge::param_int8_array(numbers), bridge::param_text_array(keys)});
}

}  // namespace

void settle_missing(const MappingSpace& space, int64_t run_id, const std::vector<const MissingRow*>& rows,
                    const std::string& started_at) {
  bridge::Memory memory("portage missing items");
  bridge::InMemory in(memory.get());
  int64_t deleted = std::count_if(rows.begin(), rows.end(), [](const MissingRow* r) { return r->deleted; });
  int64_t batch_id = deleted > 0 ? next_batch_id() : 0;
  AsLedger as;
  bridge::ByIndex by_index;
  settle_deleted(space, run_id, rows, batch_id);
  if (deleted > 0) note_deaths(run_id, rows, batch_id);
  settle_marked(space, run_id, rows);
  if (deleted == 0) return;
  static const Statement insert(
      "INSERT INTO portage.migration_batches (run_id, kind, deleted, started_at, id) OVERRIDING SYSTEM VALUE "
      "VALUES ($1, 'missing', $2, $3::timestamptz, $4)");
  insert.run(run_id, deleted, started_at, batch_id);
}

std::string missing_settled(int64_t run_id) {
  AsLedger as;
  static const Statement select(
      "SELECT jsonb_strip_nulls(jsonb_build_object('deleted', nullif(sum(k.n) FILTER (WHERE k.status = "
      "'deleted'), 0), 'marked', nullif(sum(k.n) FILTER (WHERE k.status = 'marked'), 0), 'kept', "
      "jsonb_object_agg(k.reason, k.n) FILTER (WHERE k.reason IS NOT NULL)))::text FROM (SELECT d.status, "
      "d.reason, count(*) AS n FROM portage.missing_rows d WHERE d.run_id = $1 GROUP BY 1, 2) k HAVING "
      "count(*) > 0");
  Result rows = select.run(run_id);
  return rows.empty() ? "" : rows.text(0, 1);
}

}  // namespace portage::ledger
