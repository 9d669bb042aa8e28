// See undo.hpp.
#include "ledger/undo.hpp"

#include "ledger/as_ledger.hpp"

namespace portage::ledger {
namespace {

using bridge::param;
using bridge::Result;

// A later revision means that the item was replayed, resolved or taken back since: that one counts.
constexpr const char* landed =
    "i.run_id = $1 AND i.ordinal < $2 AND i.status IN ('inserted', 'updated', 'unchanged') AND NOT EXISTS "
    "(SELECT FROM "
    "portage.item_rows later WHERE later.run_id = i.run_id AND later.ordinal = i.ordinal AND later.revision "
    "> i.revision OFFSET 0) ";

std::vector<std::optional<std::string>> texts_of(const Result& rows, size_t row, int column) {
  std::vector<std::optional<std::string>> texts;
  bool null;
  Datum array = rows.datum(row, column, &null);
  if (null) return texts;
  struct Parts {
    Datum* items;
    bool* nulls;
    int count;
  };
  Parts parts = bridge::guarded([=] {
    Parts p{};
    deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT, &p.items, &p.nulls,
                      &p.count);
    return p;
  });
  for (int i = 0; i < parts.count; i++)
    texts.push_back(parts.nulls[i] ? std::nullopt : std::optional(bridge::string_of(parts.items[i])));
  return texts;
}

std::vector<int64_t> ordinals_of(const std::vector<LandedItem*>& items) {
  std::vector<int64_t> ordinals;
  for (const LandedItem* item : items) ordinals.push_back(item->ordinal);
  return ordinals;
}

}  // namespace

std::vector<LandedItem> landed_items(int64_t run_id, const MappingSpace& space, int64_t below, int64_t limit,
                                     formats::Arena& arena) {
  AsLedger as;
  bridge::ByIndex by_index;  // a page; the planner may know nothing of the tables yet
  // Without statistics the planner ties between the whole index key and a prefix of it: OFFSET 0 keeps the
  // look-ups per item subqueries of their own, which use every column of the key.
  bridge::Settings in_order;
  in_order.set("enable_bitmapscan", "off").set("enable_sort", "off");
  static const std::string sql =
      std::string(
          "SELECT i.ordinal, i.revision, i.status, i.legacy_id, i.target_key, m.target_key, m.origin, "
          "m.source_hash, m.row_hash, m.run_id, m.ordinal, u.run_id IS NOT NULL, u.columns, u.before, "
          "u.before_hash FROM (SELECT * FROM portage.item_rows i WHERE ") +
      landed + "ORDER BY i.run_id DESC, i.ordinal DESC LIMIT " + std::to_string(limit) +
      ") i LEFT JOIN LATERAL (SELECT * FROM portage.legacy_mappings m WHERE m.pipeline_id = $3 AND m.scope = "
      "$4 "
      "AND m.legacy_id = i.legacy_id OFFSET 0) m ON true "
      "LEFT JOIN LATERAL (SELECT * FROM portage.migration_undo u WHERE u.run_id = i.run_id AND u.ordinal = "
      "i.ordinal AND u.revision = i.revision OFFSET 0) u ON true "
      "ORDER BY i.ordinal DESC";
  Result rows =
      bridge::execute(sql, {param(run_id), param(below), param(space.pipeline_id), param(space.scope)});
  std::vector<LandedItem> items;
  for (size_t i = 0; i < rows.size(); i++) {
    LandedItem item;
    item.ordinal = rows.bigint(i, 1);
    item.revision = rows.integer(i, 2);
    std::string status = rows.text(i, 3);
    item.outcome = status == "inserted"  ? Outcome::inserted
                   : status == "updated" ? Outcome::updated
                                         : Outcome::unchanged;
    if (std::optional<std::string> id = rows.maybe_text(i, 4)) item.legacy_id = arena.copy(*id);
    item.target_key = arena.copy(rows.text(i, 5));
    item.mapping = {};
    if (!rows.is_null(i, 6))
      item.mapping = {true,
                      arena.copy(rows.text(i, 6)),
                      rows.text(i, 7)[0],
                      rows.bigint(i, 8),
                      rows.bigint(i, 9),
                      rows.bigint(i, 10),
                      rows.bigint(i, 11)};
    item.concerned =
        item.outcome != Outcome::unchanged ||
        (item.mapping.found && item.mapping.run_id == run_id && item.mapping.ordinal == item.ordinal);
    item.has_undo = rows.boolean(i, 12);
    for (auto& name : texts_of(rows, i, 13)) item.columns.push_back(name.value_or(""));
    item.before = texts_of(rows, i, 14);
    if (!rows.is_null(i, 15)) item.before_hash = rows.bigint(i, 15);
    items.push_back(std::move(item));
  }
  return items;
}

void write_rollback(int64_t run_id, const MappingSpace& space, const std::vector<LandedItem*>& items,
                    const std::string& started_at) {
  if (items.empty()) return;
  bridge::Memory memory("portage rollback ledger");
  bridge::InMemory in(memory.get());
  AsLedger as;
  std::vector<int64_t> ordinals = ordinals_of(items), mapped;
  for (const LandedItem* item : items) {
    const Mapping& mapping = item->mapping;
    bool ours = mapping.found && mapping.run_id == run_id && mapping.ordinal == item->ordinal;
    // A mapping that a later run has written stays, unless it speaks of a row that was taken back by force.
    if (ours || (mapping.found && item->row_taken && mapping.target_key == item->target_key))
      mapped.push_back(item->ordinal);
  }
  // The mapping that the item replaced comes back; where the item that wrote that one has been taken back
  // meanwhile, what it had replaced, and so on down. Nothing below: the mapping goes.
  static const bridge::Statement restore(
      "WITH RECURSIVE below AS (SELECT i.legacy_id, u.mapping_target_key AS key, u.mapping_origin AS origin, "
      "u.mapping_source_hash AS source_hash, u.mapping_row_hash AS row_hash, u.mapping_run_id AS run_id, "
      "u.mapping_ordinal AS ordinal FROM pg_catalog.unnest($4::bigint[]) AS o (ordinal) CROSS JOIN LATERAL "
      "(SELECT r.* FROM portage.item_rows r WHERE r.run_id = $1 AND r.ordinal = o.ordinal ORDER BY "
      "r.revision "
      "DESC LIMIT 1) i LEFT JOIN LATERAL (SELECT * FROM portage.migration_undo u WHERE u.run_id = i.run_id "
      "AND "
      "u.ordinal = i.ordinal AND u.revision = i.revision OFFSET 0) u ON true "
      "UNION ALL SELECT b.legacy_id, u.mapping_target_key, u.mapping_origin, u.mapping_source_hash, "
      "u.mapping_row_hash, u.mapping_run_id, u.mapping_ordinal FROM below b CROSS JOIN LATERAL (SELECT r.* "
      "FROM "
      "portage.item_rows r WHERE r.run_id = b.run_id AND r.ordinal = b.ordinal AND r.status = 'rolled_back' "
      "OFFSET 0) r LEFT JOIN LATERAL (SELECT * FROM portage.migration_undo u WHERE u.run_id = r.run_id AND "
      "u.ordinal = r.ordinal AND u.revision = r.revision - 1 OFFSET 0) u ON true), "
      "last AS (SELECT b.*, x.place FROM below b CROSS JOIN LATERAL (SELECT m.ctid AS place FROM "
      "portage.legacy_mappings m WHERE m.pipeline_id = $2 AND m.scope = $3 AND m.legacy_id = b.legacy_id "
      "OFFSET "
      "0) x WHERE NOT EXISTS (SELECT FROM portage.item_rows r WHERE r.run_id = b.run_id AND r.ordinal = "
      "b.ordinal AND r.status = 'rolled_back' OFFSET 0)), "
      "dropped AS (DELETE FROM portage.legacy_mappings m USING last l WHERE l.run_id IS NULL AND m.ctid = "
      "l.place) "
      "UPDATE portage.legacy_mappings m SET target_key = l.key, origin = l.origin, source_hash = "
      "l.source_hash, row_hash = l.row_hash, run_id = l.run_id, ordinal = l.ordinal FROM last l "
      "WHERE l.run_id IS NOT NULL AND m.ctid = l.place");
  if (!mapped.empty()) {
    bridge::ByIndex by_index;  // a page; the planner may know nothing of the tables yet
    restore({param(run_id), param(space.pipeline_id), param(space.scope), bridge::param_int8_array(mapped)});
  }
  static const bridge::Statement revise(
      "INSERT INTO portage.item_rows (run_id, ordinal, revision, part, line, byte_offset, byte_length, "
      "status, legacy_id, "
      "target_key) SELECT i.run_id, i.ordinal, i.revision + 1, i.part, i.line, i.byte_offset, i.byte_length, "
      "'rolled_back', "
      "i.legacy_id, i.target_key FROM pg_catalog.unnest($2::bigint[]) AS o (ordinal) CROSS JOIN LATERAL "
      "(SELECT "
      "r.* FROM portage.item_rows r WHERE r.run_id = $1 AND r.ordinal = o.ordinal ORDER BY r.revision DESC "
      "LIMIT 1) i");
  revise({param(run_id), bridge::param_int8_array(ordinals)});
  static const bridge::Statement insert(
      "INSERT INTO portage.migration_batches (run_id, kind, first_ordinal, last_ordinal, rolled_back, "
      "started_at) "
      "VALUES ($1, 'rollback', $2, $3, $4, $5::timestamptz)");
  auto [lowest, highest] = std::minmax_element(ordinals.begin(), ordinals.end());
  insert.run(run_id, *lowest, *highest, static_cast<int64_t>(items.size()), started_at);
}

}  // namespace portage::ledger
