// See undo.hpp: the reading. A page comes by one scan of each table: a rollback is to keep pace with the
// import.
#include "ledger/undo.hpp"

#include "ledger/as_ledger.hpp"
#include "ledger/missing.hpp"
#include "ledger/row_moves.hpp"
#include "ledger/undo_rows.hpp"

namespace portage::ledger {
namespace {

using bridge::guarded;
using bridge::param;
using bridge::Result;

std::vector<int64_t> numbers_of(const Result& rows, size_t row, int column) {
  std::vector<int64_t> numbers;
  bool null;
  Datum array = rows.datum(row, column, &null);
  if (null) return numbers;
  Elements e = elements_of(array, INT8OID);
  for (int i = 0; i < e.count; i++) numbers.push_back(DatumGetInt64(e.items[i]));
  return numbers;
}

/// A row of all_items as the scan below brings it; texts point into the result.
struct ScannedItem {
  int64 ordinal, line, byte_offset, byte_length;
  int32 revision, part;
  Outcome outcome;  // pending: of no interest here
  bool landed() const {
    return outcome == Outcome::inserted || outcome == Outcome::updated || outcome == Outcome::unchanged;
  }
  const char *legacy_id, *target_key;
  int legacy_id_size, target_key_size;
};

ScannedItem scanned_raw(HeapTuple tuple, TupleDesc shape) {
  Datum v[9];
  bool null[9];
  heap_deform_tuple(tuple, shape, v, null);
  ScannedItem item;
  memset(&item, 0, sizeof item);
  item.ordinal = DatumGetInt64(v[0]);
  item.revision = DatumGetInt32(v[1]);
  text* status = DatumGetTextPP(v[2]);
  int size = static_cast<int>(VARSIZE_ANY_EXHDR(status));
  auto is = [=](const char* word) {
    return size == static_cast<int>(strlen(word)) && memcmp(VARDATA_ANY(status), word, strlen(word)) == 0;
  };
  for (auto [word, outcome] :
       {std::pair("inserted", Outcome::inserted), std::pair("updated", Outcome::updated),
        std::pair("unchanged", Outcome::unchanged), std::pair("skipped", Outcome::skipped),
        std::pair("conflicted", Outcome::conflicted)})
    if (is(word)) item.outcome = outcome;
  if (item.outcome == Outcome::pending) return item;
  if (!null[3]) {
    text* id = DatumGetTextPP(v[3]);
    item.legacy_id = VARDATA_ANY(id);
    item.legacy_id_size = VARSIZE_ANY_EXHDR(id);
  }
  if (!null[4]) {
    text* key = DatumGetTextPP(v[4]);
    item.target_key = VARDATA_ANY(key);
    item.target_key_size = VARSIZE_ANY_EXHDR(key);
  }
  item.part = DatumGetInt32(v[5]);
  item.line = DatumGetInt64(v[6]);
  item.byte_offset = DatumGetInt64(v[7]);
  item.byte_length = DatumGetInt64(v[8]);
  return item;
}

LandedItem landed_item(const ScannedItem& scanned, formats::Arena& arena) {
  LandedItem item{};
  item.ordinal = scanned.ordinal;
  item.revision = scanned.revision;
  item.outcome = scanned.outcome;
  if (scanned.legacy_id)
    item.legacy_id = arena.copy({scanned.legacy_id, static_cast<size_t>(scanned.legacy_id_size)});
  if (scanned.target_key)
    item.target_key = arena.copy({scanned.target_key, static_cast<size_t>(scanned.target_key_size)});
  item.part = scanned.part;
  item.line = scanned.line;
  item.byte_offset = scanned.byte_offset;
  item.byte_length = scanned.byte_length;
  return item;
}

constexpr const char* image_columns =
    "SELECT ordinal, revision, columns, before, before_hash, mapping_target_key, mapping_origin, "
    "mapping_source_hash, mapping_row_hash, mapping_run_id, mapping_ordinal, mapping_image::text, batch_id, "
    "after_hashes "
    "FROM portage.migration_undo WHERE run_id = $1 AND ";

/// Before-images, as they stand in descending order, to items that stand so.
void add_before_images(const Result& rows, std::vector<LandedItem>& items, formats::Arena& arena) {
  size_t at = 0;
  for (size_t i = 0; i < rows.size(); i++) {
    int64_t ordinal = rows.bigint(i, 1);
    while (at < items.size() && items[at].ordinal > ordinal) at++;
    if (at == items.size()) break;
    LandedItem& item = items[at];
    if (item.ordinal != ordinal || item.revision != rows.integer(i, 2)) continue;
    item.has_undo = true;
    item.columns = names_of(rows, i, 3);
    item.before = texts_of(rows, i, 4);
    if (!rows.is_null(i, 5)) item.before_hash = rows.bigint(i, 5);
    item.replaced = mapping_of(rows, i, 6, arena);
    item.batch_id = rows.bigint(i, 13);
    item.after_hashes = numbers_of(rows, i, 14);
  }
}

/// Of runs with these numbers, those that have written mappings after they had ended, since this one began.
std::set<int64_t> reopened_since(int64_t run_id, const std::set<int64_t>& runs) {
  if (runs.empty()) return {};
  static const bridge::Statement select(
      "SELECT DISTINCT b.run_id FROM portage.migration_batches b WHERE b.run_id = ANY ($2) AND b.kind IN "
      "('settle', 'replay', 'resolve') AND b.id > (SELECT min(o.id) FROM portage.migration_batches o WHERE "
      "o.run_id = $1)");
  Result rows = select({param(run_id), bridge::param_int8_array({runs.begin(), runs.end()})});
  std::set<int64_t> found;
  for (size_t i = 0; i < rows.size(); i++) found.insert(rows.bigint(i, 1));
  return found;
}

/// What has become of the items' mappings, and by that of their rows.
void judge_mappings(int64_t run_id, const MappingSpace& space, std::vector<LandedItem>& items,
                    formats::Arena& arena) {
  std::vector<std::string_view> ids;
  ids.reserve(items.size());
  for (const LandedItem& item : items) ids.push_back(item.legacy_id);
  std::vector<Mapping> mappings = find_mappings(space, ids, arena);
  std::vector<LandedItem*> others, followed;
  std::set<int64_t> earlier;  // runs whose mappings unchanged items have: as a rule they had them before
  auto unclear = [&](const LandedItem& item) {
    return item.outcome == Outcome::unchanged && !item.concerned && item.mapping.found;
  };
  for (size_t i = 0; i < items.size(); i++) {
    LandedItem& item = items[i];
    item.mapping = mappings[i];
    item.row_key = item.target_key;
    bool ours = item.mapping.found && item.mapping.run_id == run_id && item.mapping.ordinal == item.ordinal;
    bool written = item.outcome == Outcome::inserted || item.outcome == Outcome::updated;
    item.concerned = written || (item.outcome == Outcome::unchanged && (ours || item.has_undo));
    if (item.concerned && !ours && item.legacy_id.data() != nullptr) {
      others.push_back(&item);
      if (written && item.mapping.found) followed.push_back(&item);
    }
    if (unclear(item) && item.mapping.run_id < run_id && item.mapping.entry < 0)
      earlier.insert(item.mapping.run_id);
  }
  std::set<int64_t> reopened = reopened_since(run_id, earlier);
  for (LandedItem& item : items)
    if (unclear(item) && (item.mapping.run_id >= run_id || reopened.count(item.mapping.run_id)))
      followed.push_back(&item);
  if (!followed.empty()) follow_mappings(run_id, followed, arena);
  if (others.empty()) return;
  follow_rows(run_id, others, arena);
  for (LandedItem* item : others)
    item->row_replaced = std::any_of(item->inserted_since.begin(), item->inserted_since.end(),
                                     [&](const auto& row) { return item->was_at(row.first, row.second); });
  look_for_deletions(run_id, space, others, arena);
}

}  // namespace

std::vector<LandedItem> landed_items(int64_t run_id, const MappingSpace& space, int64_t below, int64_t limit,
                                     formats::Arena& arena) {
  AsLedger as;
  bridge::ByIndex by_index;  // a page; the planner may know nothing of the tables yet
  bridge::Settings in_order;
  in_order.set("enable_bitmapscan", "off").set("enable_sort", "off");
  // The newest revision of an item comes first: it is the one that counts, also if it says that the item was
  // taken back.
  static const bridge::Statement select(
      "SELECT ordinal, revision, status, legacy_id, target_key, part, line, byte_offset, byte_length FROM "
      "portage.all_items WHERE run_id = $1 AND ordinal < $2 ORDER BY run_id DESC, ordinal DESC, revision "
      "DESC LIMIT $3");
  std::vector<LandedItem> items;
  while (items.empty()) {
    Result rows = select.run(run_id, below, limit);
    if (rows.empty()) return items;
    TupleDesc shape = rows.shape();
    items.reserve(rows.size());
    for (size_t i = 0; i < rows.size(); i++) {
      HeapTuple tuple = rows.tuple(i);
      ScannedItem scanned = guarded(scanned_raw, tuple, shape);
      if (scanned.ordinal == below) continue;  // an older revision
      below = scanned.ordinal;
      if (scanned.landed()) items.push_back(landed_item(scanned, arena));
    }
  }
  static const std::string between =
      std::string(image_columns) +
      "ordinal BETWEEN $2 AND $3 ORDER BY run_id DESC, ordinal DESC, revision DESC";
  static const bridge::Statement images(between.c_str());
  add_before_images(images.run(run_id, items.back().ordinal, items.front().ordinal), items, arena);
  judge_mappings(run_id, space, items, arena);
  return items;
}

std::vector<LandedItem> landed_items(int64_t run_id, const MappingSpace& space,
                                     const std::vector<int64_t>& ordinals, formats::Arena& arena) {
  AsLedger as;
  bridge::ByIndex by_index;
  static const bridge::Statement select(
      "SELECT i.ordinal, i.revision, i.status, i.legacy_id, i.target_key, i.part, i.line, i.byte_offset, "
      "i.byte_length FROM unnest($2::bigint[]) o CROSS JOIN LATERAL (SELECT * FROM portage.all_items r WHERE "
      "r.run_id = $1 AND r.ordinal = o ORDER BY r.revision DESC LIMIT 1) i ORDER BY i.ordinal DESC");
  Result rows = select({param(run_id), bridge::param_int8_array(ordinals)});
  std::vector<LandedItem> items;
  for (size_t i = 0; i < rows.size(); i++) {
    HeapTuple tuple = rows.tuple(i);
    TupleDesc shape = rows.shape();
    ScannedItem scanned = guarded(scanned_raw, tuple, shape);
    if (scanned.outcome != Outcome::pending) items.push_back(landed_item(scanned, arena));
  }
  static const std::string some =
      std::string(image_columns) + "ordinal = ANY ($2) ORDER BY run_id DESC, ordinal DESC, revision DESC";
  static const bridge::Statement images(some.c_str());
  add_before_images(images({param(run_id), bridge::param_int8_array(ordinals)}), items, arena);
  judge_mappings(run_id, space, items, arena);
  return items;
}

std::set<int64_t> overwritten_in_run(int64_t run_id, const std::vector<const LandedItem*>& items) {
  std::set<int64_t> found;
  if (items.empty()) return found;
  std::vector<std::string> keys;
  std::vector<int64_t> ordinals, hashes, batches;
  for (const LandedItem* item : items) {
    batches.push_back(item->columns.empty() ? 0
                                            : item->batch_id);  // of a row that it inserted it was the first
    bool ours =
        item->mapping.found && item->mapping.run_id == run_id && item->mapping.ordinal == item->ordinal;
    keys.emplace_back(item->target_key);
    ordinals.push_back(item->ordinal);
    hashes.push_back(ours ? item->mapping.row_hash : 0);  // else the one that has replaced its mapping knows
  }
  AsLedger as;
  bridge::ByIndex by_index;
  static const bridge::Statement select(
      "SELECT k.ordinal FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::bigint[]) AS k (key, "
      "ordinal, hash, "
      "batch_id) CROSS JOIN LATERAL (SELECT * FROM portage.migration_undo u WHERE "
      "pg_catalog.hashtextextended(u.target_key, 0) = pg_catalog.hashtextextended(k.key COLLATE \"C\", 0) "
      "AND "
      "u.batch_id > k.batch_id AND u.columns IS NOT NULL AND u.target_key = k.key COLLATE \"C\" AND u.run_id "
      "= $1 AND "
      "u.ordinal <> k.ordinal AND NOT EXISTS (SELECT FROM portage.item_rows r WHERE r.run_id = u.run_id AND "
      "r.ordinal = "
      "u.ordinal AND r.revision > u.revision AND r.status IN ('rolled_back', 'parked')) ORDER BY u.batch_id, "
      "u.ordinal "
      "LIMIT 1) u WHERE u.before_hash = CASE WHEN u.mapping_run_id = $1 AND u.mapping_ordinal = k.ordinal "
      "THEN "
      "u.mapping_row_hash ELSE k.hash END");
  Result rows = select({param(run_id), bridge::param_text_array(keys), bridge::param_int8_array(ordinals),
                        bridge::param_int8_array(hashes), bridge::param_int8_array(batches)});
  for (size_t i = 0; i < rows.size(); i++) found.insert(rows.bigint(i, 1));
  return found;
}

std::unordered_set<std::string> landed_keys(int64_t run_id, const std::vector<std::string>& keys) {
  std::unordered_set<std::string> found;
  if (keys.empty()) return found;
  AsLedger as;
  static const bridge::Statement select(
      "SELECT i.target_key FROM portage.all_items i WHERE i.run_id = $1 AND i.status IN ('inserted', "
      "'updated') AND "
      "i.target_key = ANY ($2 COLLATE \"C\") AND NOT EXISTS (SELECT FROM portage.item_rows later WHERE "
      "later.run_id = i.run_id AND later.ordinal = i.ordinal AND later.revision > i.revision)");
  Result rows = select({param(run_id), bridge::param_text_array(keys)});
  for (size_t i = 0; i < rows.size(); i++) found.insert(rows.text(i, 1));
  return found;
}

std::string rollback_obstacle(int64_t run_id) {
  AsLedger as;
  static const bridge::Statement select(
      "SELECT dry_run, cleaned_at IS NOT NULL, purged_at IS NOT NULL FROM portage.migration_runs WHERE id = "
      "$1");
  Result rows = select.run(run_id);
  if (rows.empty()) return "";
  if (rows.boolean(0, 1)) return "a dry run wrote nothing to the target";
  if (rows.boolean(0, 3)) return "it was purged: nothing is known of its items any more";
  if (rows.boolean(0, 2)) return "its before-images were dropped by portage.cleanup()";
  return "";
}

namespace {

/// What the run itself had failed with, without what a rollback that stopped has added.
constexpr const char* own_error = "nullif(pg_catalog.regexp_replace(error, E'(^|\\n)rollback: .*$', ''), '')";

}  // namespace

void finish_rollback(int64_t run_id, bool whole) {
  AsLedger as;
  static const std::string sql =
      std::string(
          "UPDATE portage.migration_runs SET completed_at = CASE WHEN $2 THEN clock_timestamp() ELSE "
          "completed_at END, owner_pid = NULL, "
          "owner_started_at = NULL, owner_statement_at = NULL, owner_lock = NULL, owner_lease = NULL, "
          "requested = NULL, "
          "current_step = NULL, error = ") +
      own_error + ", error_class = CASE WHEN " + own_error +
      " IS NOT NULL THEN error_class END, error_code = CASE WHEN " + own_error +
      " IS NOT NULL THEN error_code END WHERE id = $1";
  bridge::execute(sql, {param(run_id), param(whole)});
}

void fail_rollback(int64_t run_id, const std::string& error, const std::string& error_class,
                   const std::string& error_code) {
  AsLedger as;
  static const std::string sql =
      std::string(
          "UPDATE portage.migration_runs SET completed_at = clock_timestamp(), owner_pid = NULL, "
          "owner_started_at = NULL, owner_statement_at = NULL, owner_lock = NULL, owner_lease = NULL, "
          "requested = NULL, "
          "current_step = NULL, error = concat_ws(E'\\n', ") +
      own_error + ", 'rollback: ' || $2), error_class = CASE WHEN " + own_error +
      " IS NOT NULL THEN error_class ELSE $3 END, error_code = CASE WHEN " + own_error +
      " IS NOT NULL THEN error_code ELSE $4 END WHERE id = $1";
  bridge::execute(sql, {param(run_id), param(error), param(error_class), param(error_code)});
}

}  // namespace portage::ledger
