// See row_moves.hpp. Step by step, for many at once: most have not gone anywhere.
#include "ledger/row_moves.hpp"

#include "bridge/table_writer.hpp"
#include "ledger/as_ledger.hpp"

namespace portage::ledger {

using bridge::param;
using bridge::Result;
using bridge::text_datum;

void write_row_moves(int64_t run_id, int64_t batch_id, const std::vector<RowMove>& moves) {
  if (moves.empty()) return;
  bridge::TableWriter rows("portage", "row_moves");
  Datum* v = rows.values();
  bool* null = rows.nulls();
  memset(null, 0, sizeof(bool) * static_cast<size_t>(rows.natts()));
  for (const RowMove& move : moves) {
    v[0] = Int64GetDatum(run_id);
    v[1] = Int64GetDatum(move.ordinal);
    v[2] = Int64GetDatum(batch_id);
    v[3] = text_datum(move.from);
    null[4] = move.to.data() == nullptr;
    v[4] = null[4] ? 0 : text_datum(move.to);
    null[5] = true;
    rows.add();
  }
  rows.finish();
}

void follow_rows(int64_t run_id, const std::vector<LandedItem*>& items, formats::Arena& arena) {
  AsLedger as;
  bridge::ByIndex by_index;
  // Of an item without a before-image its batch says when it was written, which is asked only where a row
  // with its key has moved. Pipelines count that write the same table by the same key.
  static const std::string later =
      "> CASE WHEN k.after > 0 THEN k.after ELSE coalesce((SELECT max(b.id) FROM portage.migration_batches b "
      "WHERE b.run_id = $1 AND k.ordinal BETWEEN b.first_ordinal AND b.last_ordinal AND CASE WHEN k.revision "
      "= 0 THEN b.kind = 'import' ELSE b.kind IN ('settle', 'replay', 'resolve') END), 0) END AND EXISTS "
      "(SELECT FROM portage.migration_runs a JOIN portage.pipeline_versions p ON p.pipeline_id = "
      "a.pipeline_id AND p.version = a.pipeline_version, portage.migration_runs b JOIN "
      "portage.pipeline_versions w ON w.pipeline_id = b.pipeline_id AND w.version = b.pipeline_version WHERE "
      "a.id = $1 AND b.id = v.run_id AND p.target_schema = w.target_schema AND p.target_name = w.target_name "
      "AND (p.definition -> 'key')::text IS NOT DISTINCT FROM (w.definition -> 'key')::text)";
  // Where another row has come to the key before the row is known to have left it, the row was gone by then.
  static const std::string sql =
      "SELECT k.n, m.to_key, m.batch_id, m.back_id FROM unnest($2::text[], $3::bigint[], $4::bigint[], "
      "$5::bigint[]) WITH ORDINALITY AS k (key, after, ordinal, revision, n) CROSS JOIN LATERAL (SELECT * "
      "FROM ((SELECT v.to_key, v.batch_id, coalesce(v.back_id, v.batch_id) AS back_id, false AS came FROM "
      "portage.row_moves v WHERE pg_catalog.hashtextextended(v.from_key, 0) = "
      "pg_catalog.hashtextextended(k.key COLLATE \"C\", 0) AND v.from_key = k.key COLLATE \"C\" AND "
      "v.batch_id " +
      later +
      " ORDER BY v.batch_id LIMIT 1) UNION ALL (SELECT NULL, coalesce(v.back_id, v.batch_id), "
      "coalesce(v.back_id, v.batch_id), true FROM portage.row_moves v WHERE "
      "pg_catalog.hashtextextended(v.to_key, 0) = pg_catalog.hashtextextended(k.key COLLATE \"C\", 0) AND "
      "v.to_key = k.key COLLATE \"C\" AND coalesce(v.back_id, v.batch_id) " +
      later + " ORDER BY coalesce(v.back_id, v.batch_id) LIMIT 1)) m ORDER BY m.batch_id, m.came LIMIT 1) m";
  static const bridge::Statement next(sql.c_str());
  std::vector<LandedItem*> open = items;
  for (LandedItem* item : open) {
    item->row_key = item->target_key;
    item->stays.clear();
  }
  while (!open.empty()) {
    std::vector<std::string> keys;
    std::vector<int64_t> after, ordinals, revisions;
    for (const LandedItem* item : open) {
      keys.emplace_back(item->row_key);
      after.push_back(item->since());
      ordinals.push_back(item->ordinal);
      revisions.push_back(item->revision);
    }
    Result rows = next({param(run_id), bridge::param_text_array(keys), bridge::param_int8_array(after),
                        bridge::param_int8_array(ordinals), bridge::param_int8_array(revisions)});
    std::vector<LandedItem*> moved;
    for (size_t i = 0; i < rows.size(); i++) {
      size_t n = static_cast<size_t>(rows.bigint(i, 1)) - 1;
      LandedItem* item = open[n];
      item->stays.push_back({item->row_key, after[n], rows.bigint(i, 3), rows.bigint(i, 4)});
      item->row_key = rows.is_null(i, 2) ? std::string_view() : arena.copy(rows.text(i, 2));
      if (item->row_key.data() != nullptr) moved.push_back(item);
    }
    open.swap(moved);
  }
}

void follow_mappings(int64_t run_id, const std::vector<LandedItem*>& items, formats::Arena& arena) {
  AsLedger as;
  bridge::ByIndex by_index;
  static const bridge::Statement replaced(
      "SELECT k.n, u.mapping_run_id, u.mapping_ordinal, u.columns IS NULL AND EXISTS (SELECT FROM "
      "portage.all_items i WHERE i.run_id = u.run_id AND i.ordinal = u.ordinal AND i.revision = u.revision "
      "AND i.status = 'inserted'), u.target_key, u.batch_id FROM unnest($1::bigint[], $2::bigint[]) WITH "
      "ORDINALITY AS k (run_id, "
      "ordinal, n) CROSS JOIN LATERAL (SELECT * FROM portage.migration_undo u WHERE u.run_id = k.run_id AND "
      "u.ordinal = k.ordinal ORDER BY u.revision DESC LIMIT 1) u WHERE u.mapping_run_id IS NOT NULL");
  struct Step {
    LandedItem* item;
    int64_t run_id, ordinal;
    std::vector<std::pair<std::string_view, int64_t>> inserted;
  };
  std::vector<Step> open;
  for (LandedItem* item : items)
    if (item->mapping.found) open.push_back({item, item->mapping.run_id, item->mapping.ordinal, {}});
  for (int depth = 0; !open.empty() && depth < 10000; depth++) {
    std::vector<int64_t> runs, ordinals;
    for (const Step& step : open) {
      runs.push_back(step.run_id);
      ordinals.push_back(step.ordinal);
    }
    Result rows = replaced({bridge::param_int8_array(runs), bridge::param_int8_array(ordinals)});
    std::vector<Step> deeper;
    for (size_t i = 0; i < rows.size(); i++) {
      Step step = open[static_cast<size_t>(rows.bigint(i, 1)) - 1];
      step.run_id = rows.bigint(i, 2);
      step.ordinal = rows.bigint(i, 3);
      if (rows.boolean(i, 4)) step.inserted.emplace_back(arena.copy(rows.text(i, 5)), rows.bigint(i, 6));
      if (step.run_id != run_id || step.ordinal != step.item->ordinal) {
        deeper.push_back(std::move(step));
        continue;
      }
      step.item->concerned = true;
      step.item->inserted_since = std::move(step.inserted);
    }
    open.swap(deeper);
  }
}

}  // namespace portage::ledger
