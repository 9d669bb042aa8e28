// Looking mappings up (items.hpp), packed ones (mapping_packs.hpp) and rows. Where an input comes again, its
// rows stand in the table as the items stand in it, and are read one after the other; the others are found by
// the index (bridge/index_probe). They are written with the items that they are of, in items.cpp.
#include "bridge/index_probe.hpp"
#include "ledger/as_ledger.hpp"
#include "ledger/mapping_packs.hpp"

namespace portage::ledger {
namespace {

using bridge::guarded;
using bridge::param;
using bridge::text_datum;

/// A mapping as its row has it.
struct Hit {
  bool found;
  const char* id;
  int id_size;
  const char* key;
  int key_size;
  char origin;
  int64 source_hash, row_hash, run_id, ordinal;
  ItemPointerData place;
  bool has_image;
};

/// What a row of mapping_rows says; texts stand on its page.
Hit hit_of_raw(TupleTableSlot* slot) {
  Hit hit;
  memset(&hit, 0, sizeof hit);
  slot_getallattrs(slot);
  Datum* v = slot->tts_values;
  hit.found = true;
  struct varlena* id = pg_detoast_datum_packed(reinterpret_cast<struct varlena*>(DatumGetPointer(v[2])));
  hit.id = VARDATA_ANY(id);
  hit.id_size = VARSIZE_ANY_EXHDR(id);
  struct varlena* key = pg_detoast_datum_packed(reinterpret_cast<struct varlena*>(DatumGetPointer(v[3])));
  hit.key = VARDATA_ANY(key);
  hit.key_size = VARSIZE_ANY_EXHDR(key);
  hit.origin = *VARDATA_ANY(DatumGetPointer(v[4]));
  hit.source_hash = DatumGetInt64(v[5]);
  hit.row_hash = DatumGetInt64(v[6]);
  hit.run_id = DatumGetInt64(v[7]);
  hit.ordinal = DatumGetInt64(v[8]);
  hit.place = slot->tts_tid;
  hit.has_image = !slot->tts_isnull[9];
  return hit;
}

/// The mappings that stand in the table behind a place: the next few are at hand.
struct Trail {
  static constexpr int ahead = 8;
  static constexpr int patience = 64;  // items that are not found before it is given up
  TableScanDesc scan;
  TupleTableSlot* slot;
  Hit next[ahead];
  int count, strangers;  // mappings of others in between
  bool at_end;
};

/// Takes further mappings of the space at hand, with copies of their texts.
void look_ahead_raw(Trail* t, int64 pipeline_id, Datum scope) {
  while (t->count < Trail::ahead && !t->at_end) {
    if (!table_scan_getnextslot_tidrange(t->scan, ForwardScanDirection, t->slot)) {
      t->at_end = true;
      return;
    }
    slot_getsomeattrs(t->slot, 2);
    if (DatumGetInt64(t->slot->tts_values[0]) != pipeline_id ||
        !DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID, t->slot->tts_values[1], scope))) {
      t->at_end = ++t->strangers > Trail::patience * Trail::ahead;
      continue;
    }
    Hit hit = hit_of_raw(t->slot);
    auto* copy = static_cast<char*>(palloc(static_cast<Size>(hit.id_size + hit.key_size + 1)));
    memcpy(copy, hit.id, static_cast<size_t>(hit.id_size));
    memcpy(copy + hit.id_size, hit.key, static_cast<size_t>(hit.key_size));
    hit.id = copy;
    hit.key = copy + hit.id_size;
    t->next[t->count++] = hit;
  }
}

/// Finds ids in the order in which they come, as far as the table has them behind `from` in that order;
/// hits[i] is for ids[i].
void follow_raw(Relation table, ItemPointerData from, int64 pipeline_id, Datum scope,
                const std::string_view* ids, size_t n, Hit* hits) {
  Trail trail;
  Trail* t = &trail;
  t->count = t->strangers = 0;
  t->at_end = false;
  ItemPointerData end;
  ItemPointerSet(&end, MaxBlockNumber, MaxOffsetNumber);
  PushActiveSnapshot(GetTransactionSnapshot());
  t->slot = table_slot_create(table, nullptr);
  t->scan = table_beginscan_tidrange(table, GetActiveSnapshot(), &from, &end);
  int missed = 0;
  for (size_t i = 0; i < n && missed < Trail::patience; i++) {
    if ((i & 255) == 0) CHECK_FOR_INTERRUPTS();
    if (ids[i].data() == nullptr) continue;
    look_ahead_raw(t, pipeline_id, scope);
    if (t->count == 0) break;
    int at = 0;
    while (at < t->count && (t->next[at].id_size != static_cast<int>(ids[i].size()) ||
                             memcmp(t->next[at].id, ids[i].data(), ids[i].size()) != 0))
      at++;
    if (at == t->count) {
      missed++;
      continue;
    }
    hits[i] = t->next[at];
    missed = 0;
    t->count -= at + 1;
    memmove(t->next, t->next + at + 1, sizeof(Hit) * static_cast<size_t>(t->count));
  }
  table_endscan(t->scan);
  ExecDropSingleTupleTableSlot(t->slot);
  PopActiveSnapshot();
}

}  // namespace

std::vector<Mapping> find_mappings(const MappingSpace& space, const std::vector<Item*>& items,
                                   formats::Arena& arena, std::optional<ItemPointerData>* trail) {
  std::vector<std::string_view> ids;
  ids.reserve(items.size());
  for (const Item* item : items) ids.push_back(item->legacy_id);
  return find_mappings(space, ids, arena, trail);
}

std::vector<Mapping> find_mappings(const MappingSpace& space, const std::vector<std::string_view>& legacy_ids,
                                   formats::Arena& arena, std::optional<ItemPointerData>* trail) {
  std::vector<Mapping> found(legacy_ids.size());
  if (legacy_ids.empty()) return found;
  bridge::Memory memory("portage mappings");
  bridge::InMemory in(memory.get());
  Datum scope = text_datum(space.scope);
  int64 pipeline_id = space.pipeline_id;
  Oid schema = guarded([] { return get_namespace_oid("portage", false); });
  Oid index = guarded([=] { return get_relname_relid("mapping_rows_pkey", schema); });
  Relation table =
      guarded([=] { return table_open(get_relname_relid("mapping_rows", schema), AccessShareLock); });
  auto take = [&](size_t i, const Hit& hit) {
    found[i] = {true,
                arena.copy({hit.key, static_cast<size_t>(hit.key_size)}),
                hit.origin,
                hit.source_hash,
                hit.row_hash,
                hit.run_id,
                hit.ordinal,
                hit.place,
                -1,
                hit.has_image,
                {}};
  };
  if (trail && *trail) {
    std::vector<Hit> hits(legacy_ids.size());
    Hit* to = hits.data();
    const std::string_view* ids = legacy_ids.data();
    size_t n = legacy_ids.size();
    guarded([=, from = **trail] { follow_raw(table, from, pipeline_id, scope, ids, n, to); });
    for (size_t i = 0; i < n; i++)
      if (hits[i].found) take(i, hits[i]);
  }
  std::vector<size_t> others;
  for (size_t i = 0; i < legacy_ids.size(); i++)
    if (legacy_ids[i].data() != nullptr && !found[i].found) others.push_back(i);
  find_packed(space, legacy_ids, others, [&](const PackedHit& hit) {
    const PackedMapping& m = hit.mapping;
    found[hit.position] = {true,       arena.copy(m.target_key),
                           m.origin,   m.source_hash,
                           m.row_hash, hit.run_id,
                           m.ordinal,  hit.place,
                           hit.entry,  false,
                           {}};
  });
  std::erase_if(others, [&](size_t i) { return found[i].found; });
  constexpr bool nulls[3] = {};
  std::vector<std::array<Datum, 3>> keys(legacy_ids.size());
  std::vector<bridge::Sought> sought(legacy_ids.size());
  for (size_t i : others) {
    keys[i] = {Int64GetDatum(pipeline_id), scope, text_datum(legacy_ids[i])};
    sought[i] = {keys[i].data(), nulls};
  }
  bool usable =
      bridge::find_by_index(table, {index, {1, 2, 3}, true}, sought, std::move(others),
                            [&](size_t i, TupleTableSlot* slot) { take(i, guarded(hit_of_raw, slot)); });
  if (!usable)
    throw bridge::Error(ERRCODE_T_R_SERIALIZATION_FAILURE,
                        "the index of the mappings was built after this transaction took its snapshot")
        .hint("Try again in a new transaction.");
  guarded([=] { table_close(table, NoLock); });
  if (trail)
    for (const Mapping& mapping : found)
      if (mapping.found && mapping.entry < 0) *trail = mapping.place;
  return found;
}

void read_images(const MappingSpace& space, const std::vector<Item*>& items, std::vector<Mapping*>& mappings,
                 formats::Arena& arena) {
  std::vector<std::string> ids;
  std::vector<Mapping*> wanted;
  for (size_t i = 0; i < items.size(); i++) {
    if (!mappings[i]->has_image) continue;
    ids.emplace_back(items[i]->legacy_id);
    wanted.push_back(mappings[i]);
  }
  if (ids.empty()) return;
  AsLedger as;
  bridge::ByIndex by_index;
  static const bridge::Statement select(
      "SELECT u.n, m.image::text FROM unnest($3::text[]) WITH ORDINALITY AS u (legacy_id, n) CROSS JOIN "
      "LATERAL "
      "(SELECT k.image FROM portage.mapping_rows k WHERE k.pipeline_id = $1 AND k.scope = $2 AND "
      "k.legacy_id = u.legacy_id COLLATE \"C\" OFFSET 0) m WHERE m.image IS NOT NULL");
  bridge::Result rows = select({param(space.pipeline_id), param(space.scope), bridge::param_text_array(ids)});
  for (size_t i = 0; i < rows.size(); i++)
    wanted[static_cast<size_t>(rows.bigint(i, 1)) - 1]->image = arena.copy(rows.text(i, 2));
}

int64_t count_mappings(const MappingSpace& space) {
  AsLedger as;
  static const bridge::Statement select(
      "SELECT (SELECT count(*) FROM portage.mapping_rows WHERE pipeline_id = $1 AND scope = $2) + (SELECT "
      "coalesce(sum(entries), 0)::bigint FROM portage.mapping_packs WHERE pipeline_id = $1 AND scope = $2)");
  return select.run(space.pipeline_id, space.scope).bigint(0, 1);
}

std::unordered_map<std::string, int64_t> keys_written_by(const MappingSpace& space, int64_t run_id,
                                                         const std::vector<std::string>& keys) {
  std::unordered_map<std::string, int64_t> written;
  if (keys.empty()) return written;
  AsLedger as;
  static const bridge::Statement select(
      "SELECT target_key, min(ordinal) FROM portage.all_mappings WHERE pipeline_id = $1 AND scope = $2 "
      "AND "
      "run_id = $3 AND target_key = ANY ($4 COLLATE \"C\") GROUP BY 1");
  bridge::Result rows =
      select({param(space.pipeline_id), param(space.scope), param(run_id), bridge::param_text_array(keys)});
  for (size_t i = 0; i < rows.size(); i++) written[rows.text(i, 1)] = rows.bigint(i, 2);
  return written;
}

std::unordered_set<std::string> keys_written_after(const MappingSpace& space, int64_t run_id,
                                                   const std::vector<std::string>& keys) {
  std::unordered_set<std::string> written;
  if (keys.empty()) return written;
  AsLedger as;
  static const bridge::Statement select(
      "SELECT target_key FROM portage.all_mappings WHERE pipeline_id = $1 AND scope = $2 AND run_id > $3 AND "
      "target_key = ANY ($4 COLLATE \"C\") AND EXISTS (SELECT FROM portage.migration_runs r WHERE "
      "r.pipeline_id = $1 AND r.id > $3)");
  bridge::Result rows =
      select({param(space.pipeline_id), param(space.scope), param(run_id), bridge::param_text_array(keys)});
  for (size_t i = 0; i < rows.size(); i++) written.insert(rows.text(i, 1));
  return written;
}

}  // namespace portage::ledger
