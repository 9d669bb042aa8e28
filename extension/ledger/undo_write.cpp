// See undo.hpp: the writing. Mappings are found by their place, revisions go in by multi-insert.
#include "bridge/table_writer.hpp"
#include "ledger/as_ledger.hpp"
#include "ledger/mapping_packs.hpp"
#include "ledger/missing.hpp"
#include "ledger/row_moves.hpp"
#include "ledger/undo.hpp"
#include "ledger/undo_rows.hpp"

namespace portage::ledger {
namespace {

using bridge::guarded;
using bridge::param;
using bridge::Result;
using bridge::text_datum;

/// What the mappings of these items become: what each had replaced or, where the item that wrote that one has
/// been taken back meanwhile, what that one had replaced, and so on down. found = false: nothing.
std::vector<Mapping> mappings_below(int64_t run_id, const std::vector<LandedItem*>& items,
                                    const std::vector<LandedItem*>& taken, formats::Arena& arena) {
  std::unordered_map<int64_t, const LandedItem*> now;  // taken back along with them
  for (const LandedItem* item : taken) now.emplace(item->ordinal, item);
  auto standing = [&](Mapping mapping) {
    while (mapping.found && mapping.run_id == run_id && now.count(mapping.ordinal))
      mapping = now.at(mapping.ordinal)->replaced;
    return mapping;
  };
  std::vector<Mapping> below;
  std::vector<size_t> open;
  std::vector<int64_t> runs;
  for (const LandedItem* item : items) {
    below.push_back(standing(item->replaced));
    if (!below.back().found) continue;
    open.push_back(below.size() - 1);
    runs.push_back(below.back().run_id);
  }
  if (open.empty()) return below;
  std::sort(runs.begin(), runs.end());
  runs.erase(std::unique(runs.begin(), runs.end()), runs.end());
  static const bridge::Statement any_rolled_back(
      "SELECT FROM portage.migration_batches WHERE run_id = ANY ($1) AND kind = 'rollback' LIMIT 1");
  bridge::ByIndex by_index;  // a page; the planner may know nothing of the tables yet
  bool first = true;
  while (!open.empty()) {
    if (first && any_rolled_back({bridge::param_int8_array(runs)}).empty()) break;
    first = false;
    std::vector<int64_t> run_ids, ordinals;
    for (size_t i : open) {
      run_ids.push_back(below[i].run_id);
      ordinals.push_back(below[i].ordinal);
    }
    static const bridge::Statement taken_back(
        "SELECT o.n, u.mapping_target_key, u.mapping_origin, u.mapping_source_hash, u.mapping_row_hash, "
        "u.mapping_run_id, u.mapping_ordinal, u.mapping_image::text FROM unnest($1::bigint[], $2::bigint[]) "
        "WITH "
        "ORDINALITY AS o (run_id, ordinal, n) CROSS JOIN LATERAL (SELECT r.run_id, r.ordinal, r.revision "
        "FROM portage.item_rows r WHERE r.run_id = o.run_id AND r.ordinal = o.ordinal AND r.status = "
        "'rolled_back' OFFSET 0) r LEFT JOIN LATERAL (SELECT * FROM portage.migration_undo u WHERE "
        "u.run_id = r.run_id AND u.ordinal = r.ordinal AND u.revision = r.revision - 1 OFFSET 0) u ON true");
    Result rows = taken_back({bridge::param_int8_array(run_ids), bridge::param_int8_array(ordinals)});
    std::vector<size_t> deeper;
    for (size_t i = 0; i < rows.size(); i++) {
      size_t position = open[static_cast<size_t>(rows.bigint(i, 1)) - 1];
      below[position] = standing(mapping_of(rows, i, 2, arena));
      if (below[position].found) deeper.push_back(position);
    }
    open.swap(deeper);
  }
  return below;
}

/// The same for those that are packed: they are taken out, and what they had replaced becomes a row. Returns
/// how many there were, as they had been found.
uint64_t restore_packed(const MappingSpace& space, const std::vector<LandedItem*>& items,
                        const std::vector<Mapping>& below) {
  std::vector<std::string_view> ids;
  for (const LandedItem* item : items)
    ids.push_back(item->mapping.entry >= 0 ? item->legacy_id : std::string_view());
  std::vector<MappingRow> replaced;
  uint64_t taken = 0;
  take_out(space, ids, [&](size_t i, const PackedMapping& now, int64_t run_id) {
    const Mapping& known = items[i]->mapping;
    taken += known.run_id == run_id && known.ordinal == now.ordinal;
    const Mapping& b = below[i];
    if (!b.found) return;
    Datum image = b.image.data() == nullptr ? 0 : bridge::input_value(TEXTARRAYOID, -1, std::string(b.image));
    replaced.push_back(
        {{ids[i], b.target_key, b.origin, b.source_hash, b.row_hash, b.ordinal}, b.run_id, image});
  });
  insert_mapping_rows(space, replaced);
  return taken;
}

void restore_mappings(int64_t run_id, const MappingSpace& space, const std::vector<LandedItem*>& items) {
  std::vector<LandedItem*> mapped;
  for (LandedItem* item : items) {
    const Mapping& mapping = item->mapping;
    bool ours = mapping.found && mapping.run_id == run_id && mapping.ordinal == item->ordinal;
    // A mapping that a later run has written stays, unless it speaks of a row that was taken back by force.
    if (ours || (mapping.found && item->row_taken && item->was_at(mapping.target_key)))
      mapped.push_back(item);
  }
  if (mapped.empty()) return;
  formats::Arena arena;
  std::vector<Mapping> below = mappings_below(run_id, mapped, items, arena);
  uint64_t written = restore_packed(space, mapped, below);
  std::vector<ItemPointerData> dropped, changed;
  std::vector<std::string> keys, origins, images;
  std::vector<int64_t> source_hashes, row_hashes, runs, ordinals;
  for (size_t i = 0; i < mapped.size(); i++) {
    const Mapping& b = below[i];
    if (mapped[i]->mapping.entry >= 0) continue;
    if (!b.found) {
      dropped.push_back(mapped[i]->mapping.place);
      continue;
    }
    changed.push_back(mapped[i]->mapping.place);
    keys.emplace_back(b.target_key);
    origins.emplace_back(origin_name(b.origin));
    source_hashes.push_back(b.source_hash);
    row_hashes.push_back(b.row_hash);
    runs.push_back(b.run_id);
    ordinals.push_back(b.ordinal);
    images.emplace_back(b.image);
  }
  // By their places; "+ 0" and the like keep the planner from going through all mappings of the pipeline.
  bridge::ByIndex by_place;
  if (!dropped.empty()) {
    static const bridge::Statement drop(
        "DELETE FROM portage.mapping_rows WHERE ctid = ANY ($3) AND pipeline_id + 0 = $1 AND scope || '' "
        "= "
        "$2 COLLATE \"C\"");
    written += drop({param(space.pipeline_id), param(space.scope), param_places(dropped)}).processed();
  }
  if (!changed.empty()) {
    static const bridge::Statement update(
        "UPDATE portage.mapping_rows m SET target_key = n.target_key, origin = n.origin, source_hash = "
        "n.source_hash, row_hash = n.row_hash, run_id = n.run_id, ordinal = n.ordinal, image = "
        "nullif(n.image, "
        "'')::text[] FROM unnest($3::tid[], "
        "$4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::text[]) AS n "
        "(place, "
        "target_key, origin, source_hash, row_hash, run_id, ordinal, image) WHERE m.ctid = n.place AND "
        "m.pipeline_id + 0 = $1 AND m.scope || '' = $2 COLLATE \"C\"");
    written += update({param(space.pipeline_id), param(space.scope), param_places(changed),
                       bridge::param_text_array(keys), bridge::param_text_array(origins),
                       bridge::param_int8_array(source_hashes), bridge::param_int8_array(row_hashes),
                       bridge::param_int8_array(runs), bridge::param_int8_array(ordinals),
                       bridge::param_text_array(images)})
                   .processed();
  }
  if (written != mapped.size())  // nobody else writes them while the run is active, short of a trigger
    throw bridge::Error(ERRCODE_T_R_SERIALIZATION_FAILURE,
                        "mappings have changed while their rows were taken back");
}

/// The ways of rows that are where and as their items had left them, perhaps again.
void follow_the_rest(int64_t run_id, const std::vector<LandedItem*>& items, formats::Arena& arena) {
  std::vector<LandedItem*> open;
  std::vector<std::string_view> keys;
  for (LandedItem* item : items) {
    if (!item->row_taken || item->columns.empty() || !item->stays.empty()) continue;
    open.push_back(item);
    keys.push_back(item->row_key);
  }
  if (open.empty()) return;
  follow_rows(run_id, open, arena);
  for (size_t i = 0; i < open.size(); i++) {
    if (open[i]->row_key != keys[i]) open[i]->stays.clear();
    open[i]->row_key = keys[i];
  }
}

/// Who came after one of these items and found what it had written, would bring that back when it is taken
/// back in its turn. It is to bring back what the item itself had found: column by column, to the next one
/// that wrote the column and still stands, and only where that one found this item's value and no other.
void pass_on_before_images(int64_t run_id, const MappingSpace& space, const std::vector<LandedItem*>& items) {
  std::vector<std::string> keys, ids;
  std::vector<int64_t> after, until, numbers;
  std::vector<const LandedItem*> restored;
  for (const LandedItem* item : items) {
    bool passed = item->row_taken || item->held != LandedItem::Held::no;
    if (!passed || item->columns.empty() || item->after_hashes.size() != item->columns.size()) continue;
    restored.push_back(item);
    auto stay = [&](std::string_view key, int64_t from, int64_t to) {
      keys.emplace_back(key);
      after.push_back(from);
      until.push_back(to);
      ids.emplace_back(item->legacy_id);
      numbers.push_back(static_cast<int64_t>(restored.size()));
    };
    for (const LandedItem::Stay& one : item->stays) stay(one.key, one.after, one.until);
    if (item->row_key.data() != nullptr) stay(item->row_key, item->since(), INT64_MAX);
  }
  if (restored.empty()) return;
  bridge::ByIndex by_index;
  static const std::string sql =
      std::string(
          "SELECT k.n, u.run_id, u.ordinal, u.revision, u.columns, u.before FROM unnest($2::text[], "
          "$3::bigint[], $6::text[], $7::bigint[], $8::bigint[]) AS k (key, batch_id, legacy_id, until, n) "
          "CROSS "
          "JOIN LATERAL "
          "(SELECT "
          "u.run_id, u.ordinal, u.revision, u.columns, u.before, u.batch_id FROM portage.migration_undo u "
          "WHERE "
          "pg_catalog.hashtextextended(u.target_key, 0) = "
          "pg_catalog.hashtextextended(k.key COLLATE \"C\", 0) AND u.batch_id > k.batch_id AND u.batch_id <= "
          "k.until AND u.columns IS NOT "
          "NULL AND u.target_key = k.key COLLATE \"C\" UNION ALL SELECT d.* FROM (SELECT d.run_id, d.seq AS "
          "ordinal, -1 AS revision, d.columns, d.before, d.batch_id FROM portage.missing_rows d WHERE "
          "d.pipeline_id = $4 AND d.scope = $5 AND d.legacy_id = k.legacy_id COLLATE \"C\" AND d.status = "
          "'deleted' AND d.batch_id > k.batch_id AND d.batch_id <= k.until AND ") +
      key_when_deleted +
      " = k.key COLLATE "
      "\"C\" OFFSET 0) d) u "
      // other pipelines count that write the same table by the same key
      "WHERE EXISTS (SELECT FROM portage.migration_runs a JOIN portage.pipeline_versions v ON v.pipeline_id "
      "= a.pipeline_id AND v.version = a.pipeline_version, portage.migration_runs b JOIN "
      "portage.pipeline_versions w ON w.pipeline_id = b.pipeline_id AND w.version = b.pipeline_version "
      "WHERE a.id = $1 AND b.id = u.run_id AND v.target_schema = w.target_schema AND v.target_name = "
      "w.target_name AND (v.definition -> 'key')::text IS NOT DISTINCT FROM (w.definition -> 'key')::text) "
      "AND NOT EXISTS (SELECT FROM portage.item_rows r WHERE r.run_id = u.run_id AND r.ordinal = u.ordinal "
      "AND r.revision > u.revision AND r.status IN ('rolled_back', 'parked') OFFSET 0) ORDER BY k.n, "
      "u.batch_id";
  static const bridge::Statement later(sql.c_str());
  Result rows = later({param(run_id), bridge::param_text_array(keys), bridge::param_int8_array(after),
                       param(space.pipeline_id), param(space.scope), bridge::param_text_array(ids),
                       bridge::param_int8_array(until), bridge::param_int8_array(numbers)});
  std::set<std::pair<int64_t, std::string>> settled;  // (position in `restored`, column)
  for (size_t i = 0; i < rows.size(); i++) {
    int64_t n = rows.bigint(i, 1);
    const LandedItem& item = *restored[static_cast<size_t>(n) - 1];
    std::vector<std::string> columns = names_of(rows, i, 5);
    std::vector<std::optional<std::string>> before = texts_of(rows, i, 6);
    bool changed = false;
    for (size_t c = 0; c < item.columns.size(); c++) {
      auto place = std::find(columns.begin(), columns.end(), item.columns[c]);
      if (place == columns.end() || !settled.insert({n, item.columns[c]}).second) continue;
      std::optional<std::string>& found = before[static_cast<size_t>(place - columns.begin())];
      if (text_hash(found) != item.after_hashes[c]) continue;  // somebody's else: it stands
      found = item.before[c];
      changed = true;
    }
    if (!changed) continue;
    static const bridge::Statement rewrite(
        "UPDATE portage.migration_undo SET before = $4, before_hash = NULL WHERE run_id = $1 AND ordinal = "
        "$2 AND revision = $3");
    static const bridge::Statement rewrite_deleted(
        "UPDATE portage.missing_rows SET before = $4, before_hash = NULL WHERE run_id = $1 AND seq = $2 AND "
        "$3 < 0");
    (rows.integer(i, 4) < 0 ? rewrite_deleted : rewrite)(
        {param(rows.bigint(i, 2)), param(rows.bigint(i, 3)), param(rows.integer(i, 4)), param_texts(before)});
  }
}

void write_revisions(int64_t run_id, const std::vector<LandedItem*>& items, TakenBack become) {
  bridge::TableWriter rows("portage", "item_rows");
  Datum* v = rows.values();
  bool* null = rows.nulls();
  bool parked = become == TakenBack::parked;
  Datum status = text_datum(parked ? "parked" : "rolled_back");
  for (size_t i = items.size(); i > 0; i--) {  // upwards, as the index likes it
    const LandedItem& item = *items[i - 1];
    if ((i & 255) == 0) bridge::check_interrupts();
    memset(null, 0, sizeof(bool) * static_cast<size_t>(rows.natts()));
    v[0] = Int64GetDatum(run_id);
    v[1] = Int64GetDatum(item.ordinal);
    v[2] = Int32GetDatum(item.revision + 1);
    v[3] = Int32GetDatum(item.part);
    v[4] = Int64GetDatum(item.line);
    v[5] = Int64GetDatum(item.byte_offset);
    v[6] = Int64GetDatum(item.byte_length);
    v[7] = status;
    null[8] = item.legacy_id.data() == nullptr;
    v[8] = null[8] ? 0 : text_datum(item.legacy_id);
    v[9] = text_datum(item.target_key);
    for (int column = 10; column < rows.natts(); column++) null[column] = true;
    if (parked) {
      null[11] = null[12] = null[14] = false;
      v[11] = text_datum("parked");
      v[12] = text_datum("00000");
      v[14] = text_datum(bridge::format("item %lld was taken back: an item before it concerns the same row",
                                        static_cast<long long>(item.ordinal)));
    }
    rows.add();
  }
  rows.finish();
}

/// Rows that have another key by being taken back, or are gone for those who had written them since.
void note_moves(int64_t run_id, const std::vector<LandedItem*>& items) {
  std::vector<RowMove> moves;
  for (const LandedItem* item : items) {
    if (!item->row_taken) continue;
    if (item->row_died)
      moves.push_back({item->ordinal, item->row_key, {}});
    else if (item->back_key.data() != nullptr && item->back_key != item->row_key)
      moves.push_back({item->ordinal, item->row_key, item->back_key});
  }
  if (!moves.empty()) write_row_moves(run_id, next_batch_id(), moves);
}

}  // namespace

void write_rollback(int64_t run_id, const MappingSpace& space, const std::vector<LandedItem*>& items,
                    const std::string& started_at, TakenBack become) {
  if (items.empty()) return;
  bridge::Memory memory("portage rollback ledger");
  bridge::InMemory in(memory.get());
  AsLedger as;
  formats::Arena memory_of_page;
  restore_mappings(run_id, space, items);
  follow_the_rest(run_id, items, memory_of_page);
  pass_on_before_images(run_id, space, items);
  std::vector<LandedItem*> held;
  for (LandedItem* item : items)
    if (item->held != LandedItem::Held::no) held.push_back(item);
  if (!held.empty())
    hand_on_deletions(run_id, space, held, mappings_below(run_id, held, items, memory_of_page));
  write_revisions(run_id, items, become);
  note_moves(run_id, items);
  auto [lowest, highest] =
      std::minmax_element(items.begin(), items.end(),
                          [](const LandedItem* a, const LandedItem* b) { return a->ordinal < b->ordinal; });
  int64_t first = (*lowest)->ordinal, last = (*highest)->ordinal, count = static_cast<int64_t>(items.size());
  if (become == TakenBack::rolled_back) {
    static const bridge::Statement insert(
        "INSERT INTO portage.migration_batches (run_id, kind, first_ordinal, last_ordinal, rolled_back, "
        "started_at) VALUES ($1, 'rollback', $2, $3, $4, $5::timestamptz)");
    insert.run(run_id, first, last, count, started_at);
    return;
  }
  Counts moved;
  for (const LandedItem* item : items) count_of(moved, item->outcome)--;
  static const bridge::Statement insert(
      "INSERT INTO portage.migration_batches (run_id, kind, first_ordinal, last_ordinal, inserted, updated, "
      "unchanged, skipped, parked, started_at) VALUES ($1, 'settle', $2, $3, $4, $5, $6, $7, $8, "
      "$9::timestamptz)");
  insert.run(run_id, first, last, moved.inserted, moved.updated, moved.unchanged, moved.skipped, count,
             started_at);
}

}  // namespace portage::ledger
