// See missing.hpp: what a rollback brings back.
#include "bridge/table_writer.hpp"
#include "ledger/as_ledger.hpp"
#include "ledger/missing.hpp"
#include "ledger/row_moves.hpp"
#include "ledger/undo_rows.hpp"

namespace portage::ledger {

using bridge::param;
using bridge::Result;
using bridge::Statement;

void look_for_deletions(int64_t run_id, const MappingSpace& space, const std::vector<LandedItem*>& items,
                        formats::Arena& arena) {
  if (items.empty()) return;
  std::vector<std::string> ids;
  std::vector<int64_t> ordinals;
  for (const LandedItem* item : items) {
    ids.emplace_back(item->legacy_id);
    ordinals.push_back(item->ordinal);
  }
  AsLedger as;
  bridge::ByIndex by_index;
  static const std::string sql =
      std::string(
          "SELECT u.n, d.mapping_run_id = $3 AND d.mapping_ordinal = u.ordinal, d.target_key, d.batch_id, ") +
      key_when_deleted +
      " FROM unnest($4::text[], $5::bigint[]) WITH ORDINALITY AS u (id, ordinal, n) CROSS JOIN LATERAL "
      "(SELECT * "
      "FROM portage.missing_rows r WHERE r.pipeline_id = $1 AND r.scope = $2 AND r.legacy_id = u.id COLLATE "
      "\"C\" AND r.status = 'deleted' OFFSET 0) d WHERE d.run_id > $3 AND (d.mapping_run_id, "
      "d.mapping_ordinal) >= ($3, u.ordinal) ORDER BY d.batch_id";
  static const Statement select(sql.c_str());
  Result rows = select({param(space.pipeline_id), param(space.scope), param(run_id),
                        bridge::param_text_array(ids), bridge::param_int8_array(ordinals)});
  for (size_t i = 0; i < rows.size(); i++) {
    LandedItem& item = *items[static_cast<size_t>(rows.bigint(i, 1)) - 1];
    std::string_view key = arena.copy(rows.text(i, 5));
    int64_t when = rows.bigint(i, 4);
    if (item.held != LandedItem::Held::no || !item.was_at(key, when)) continue;
    item.held = rows.boolean(i, 2) ? LandedItem::Held::as_left : LandedItem::Held::later;
    item.held_key = arena.copy(rows.text(i, 3));
    item.leave(key, when);
  }
}

void hand_on_deletions(int64_t run_id, const MappingSpace& space, const std::vector<LandedItem*>& items,
                       const std::vector<Mapping>& below) {
  AsLedger as;
  bridge::ByIndex by_index;
  for (size_t i = 0; i < items.size(); i++) {
    const LandedItem& item = *items[i];
    const Mapping& b = below[i];
    if (item.outcome == Outcome::inserted || !b.found) {
      static const Statement give_up(
          "UPDATE portage.missing_rows SET status = 'taken_back', columns = NULL, before = NULL, before_hash "
          "= NULL WHERE pipeline_id = $1 AND scope = $2 AND legacy_id = $3 AND status = 'deleted' AND run_id "
          "> $4 AND target_key = $5");
      give_up.run(space.pipeline_id, space.scope, item.legacy_id, run_id, item.held_key);
    } else if (item.held == LandedItem::Held::as_left) {
      static const Statement update(
          "UPDATE portage.missing_rows SET target_key = $6, mapping_source_hash = $7, mapping_row_hash = $8, "
          "mapping_run_id = $9, mapping_ordinal = $10, mapping_image = nullif($11, '')::text[], before_hash "
          "= NULL WHERE pipeline_id = $1 AND scope = $2 AND legacy_id = $3 AND status = 'deleted' AND "
          "mapping_run_id = $4 AND mapping_ordinal = $5");
      update.run(space.pipeline_id, space.scope, item.legacy_id, run_id, item.ordinal, b.target_key,
                 b.source_hash, b.row_hash, b.run_id, b.ordinal, std::string(b.image));
    }
  }
}

bool any_deleted(int64_t run_id) {
  AsLedger as;
  static const Statement select(
      "SELECT FROM portage.missing_rows WHERE run_id = $1 AND status = 'deleted' LIMIT 1");
  return !select.run(run_id).empty();
}

std::vector<LandedItem> deleted_rows(int64_t run_id, const MappingSpace& space, int64_t below, int64_t limit,
                                     formats::Arena& arena) {
  std::vector<LandedItem> items;
  {
    AsLedger as;
    bridge::ByIndex by_index;
    bridge::Settings in_order;
    in_order.set("enable_bitmapscan", "off").set("enable_sort", "off");
    static const Statement select(
        "SELECT seq, legacy_id, columns, before, before_hash, target_key, 'inserted', mapping_source_hash, "
        "mapping_row_hash, mapping_run_id, mapping_ordinal, mapping_image::text FROM portage.missing_rows "
        "WHERE run_id = $1 AND seq < $2 AND status = 'deleted' ORDER BY run_id DESC, seq DESC LIMIT $3");
    Result rows = select.run(run_id, below, limit);
    for (size_t i = 0; i < rows.size(); i++) {
      LandedItem item{};
      item.deleted = item.concerned = true;
      item.ordinal = rows.bigint(i, 1);
      item.legacy_id = arena.copy(rows.text(i, 2));
      item.columns = names_of(rows, i, 3);
      item.before = texts_of(rows, i, 4);
      if (!rows.is_null(i, 5)) item.before_hash = rows.bigint(i, 5);
      item.replaced = mapping_of(rows, i, 6, arena);
      item.target_key = item.row_key = item.replaced.target_key;
      items.push_back(std::move(item));
    }
  }
  std::vector<std::string_view> ids;
  for (const LandedItem& item : items) ids.push_back(item.legacy_id);
  std::vector<Mapping> mappings = find_mappings(space, ids, arena);
  for (size_t i = 0; i < items.size(); i++) items[i].mapping = mappings[i];
  return items;
}

namespace {

/// Rows that are there again, for those who follow them; and what they have taken the place of is gone.
void note_returns(int64_t run_id, const std::vector<LandedItem*>& items) {
  std::vector<int64_t> numbers;
  std::vector<std::string> keys;
  std::vector<RowMove> gone;
  for (const LandedItem* item : items) {
    numbers.push_back(item->ordinal);
    keys.emplace_back(item->back_key);
    if (item->row_taken) gone.push_back({-item->ordinal, item->back_key, {}});
  }
  if (!gone.empty()) write_row_moves(run_id, next_batch_id(), gone);
  static const Statement back(
      "INSERT INTO portage.row_moves (run_id, ordinal, batch_id, from_key, to_key, back_id) SELECT $1, "
      "-u.seq, "
      "d.batch_id, d.target_key, u.key, $4 FROM unnest($2::bigint[], $3::text[]) AS u (seq, key) CROSS JOIN "
      "LATERAL (SELECT r.batch_id, r.target_key FROM portage.missing_rows r WHERE r.run_id = $1 AND r.seq = "
      "u.seq OFFSET 0) d ON CONFLICT (run_id, ordinal, batch_id) DO UPDATE SET to_key = EXCLUDED.to_key, "
      "back_id = EXCLUDED.back_id");
  back({param(run_id), bridge::param_int8_array(numbers), bridge::param_text_array(keys),
        param(next_batch_id())});
}

}  // namespace

void write_restored(int64_t run_id, const MappingSpace& space, const std::vector<LandedItem*>& items,
                    const std::string& started_at) {
  if (items.empty()) return;
  bridge::Memory memory("portage restored rows");
  bridge::InMemory in(memory.get());
  std::vector<int64_t> numbers;
  std::vector<std::string> replaced;  // by a later run, for the same row, which was taken back by force
  for (const LandedItem* item : items) {
    numbers.push_back(item->ordinal);
    if (item->mapping.found) replaced.emplace_back(item->legacy_id);
  }
  AsLedger as;
  bridge::ByIndex by_index;
  if (!replaced.empty()) forget_mappings(space, replaced);
  // The rows by their places, as in missing.cpp.
  static const Statement restore(
      "WITH d AS MATERIALIZED (SELECT d.ctid AS place, d.* FROM unnest($2::bigint[]) AS u (seq) CROSS JOIN "
      "LATERAL (SELECT r.ctid, r.* FROM portage.missing_rows r WHERE r.run_id = $1 AND r.seq = u.seq OFFSET "
      "0) d), settled AS (UPDATE portage.missing_rows m SET status = 'restored', columns = NULL, before = "
      "NULL, before_hash = NULL FROM d WHERE m.ctid = d.place) INSERT INTO portage.mapping_rows "
      "(pipeline_id, scope, legacy_id, target_key, origin, source_hash, row_hash, run_id, ordinal, image, "
      "missing_since) SELECT d.pipeline_id, d.scope, d.legacy_id, d.target_key, 'inserted', "
      "d.mapping_source_hash, d.mapping_row_hash, d.mapping_run_id, d.mapping_ordinal, d.mapping_image, "
      "d.missing_since FROM d");
  restore({param(run_id), bridge::param_int8_array(numbers)});
  note_returns(run_id, items);
  static const Statement batch(
      "INSERT INTO portage.migration_batches (run_id, kind, deleted, started_at) VALUES ($1, 'rollback', $2, "
      "$3::timestamptz)");
  batch.run(run_id, -static_cast<int64_t>(items.size()), started_at);
}

bool take_back_marks(int64_t run_id, int64_t& after, int64_t limit) {
  AsLedger as;
  bridge::ByIndex by_index;
  static const Statement page(
      "WITH page AS MATERIALIZED (SELECT d.ctid AS place, d.* FROM portage.missing_rows d WHERE d.run_id = "
      "$1 AND d.seq > $2 AND d.status = 'marked' ORDER BY d.run_id, d.seq LIMIT $3), unmarked AS (UPDATE "
      "portage.mapping_rows m SET missing_since = NULL FROM (SELECT k.place FROM page p CROSS JOIN "
      "LATERAL "
      "(SELECT k.ctid AS place FROM portage.mapping_rows k, portage.migration_runs r WHERE r.id = $1 AND "
      "k.pipeline_id = p.pipeline_id AND k.scope = p.scope AND k.legacy_id = p.legacy_id AND k.missing_since "
      "= r.started_at OFFSET 0) k) n WHERE m.ctid = n.place), settled AS (UPDATE portage.missing_rows m SET "
      "status = 'restored' FROM page p WHERE m.ctid = p.place) SELECT max(seq) FROM page");
  Result rows = page.run(run_id, after, limit);
  if (rows.is_null(0, 1)) return false;
  after = rows.bigint(0, 1);
  return true;
}

}  // namespace portage::ledger
