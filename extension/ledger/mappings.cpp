// Looking mappings up (items.hpp): where an input comes again, its mappings stand in the table as the items
// stand in it, and are read one after the other; the others are found by one index scan. They are written
// with the items that they are of, in items.cpp.
#include "ledger/as_ledger.hpp"
#include "ledger/items.hpp"

extern "C" {
#include "access/stratnum.h"
#include "utils/fmgroids.h"
}

namespace portage::ledger {
namespace {

using bridge::guarded;
using bridge::param;
using bridge::text_datum;

/// Scans for the ids of a batch, in the order of the index. `scan` goes from an id on: what lies between two
/// mappings is known to be absent, and the next one is near where an input comes again. It reads each page to
/// its end, so that ids that are far from each other are looked for alone (`exact`).
struct Probe {
  Relation table, index;
  IndexScanDesc scan, exact;
  TupleTableSlot* slot;
  ScanKeyData keys[3], exact_keys[3];
  int steps;       // how far to go before the scan is set anew
  int far, alone;  // ids that were far from the one before; how many are looked for alone
};

struct ProbeHit {
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

void open_probe_raw(Probe* p, int64 pipeline_id, Datum scope) {
  Oid schema = get_namespace_oid("portage", false);
  p->table = table_open(get_relname_relid("legacy_mappings", schema), AccessShareLock);
  p->index = index_open(get_relname_relid("legacy_mappings_pkey", schema), AccessShareLock);
  p->slot = table_slot_create(p->table, nullptr);
  PushActiveSnapshot(GetTransactionSnapshot());
  p->scan = bridge::begin_index_scan(p->table, p->index, GetActiveSnapshot(), 3);
  ScanKeyInit(&p->keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(pipeline_id));
  ScanKeyInit(&p->keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ, scope);
  ScanKeyInit(&p->keys[2], 3, BTGreaterEqualStrategyNumber, F_TEXT_GE, 0);
  p->keys[1].sk_collation = p->keys[2].sk_collation = C_COLLATION_OID;
  memcpy(p->exact_keys, p->keys, sizeof p->keys);
  ScanKeyInit(&p->exact_keys[2], 3, BTEqualStrategyNumber, F_TEXTEQ, 0);
  p->exact_keys[2].sk_collation = C_COLLATION_OID;
  p->exact = nullptr;
  p->steps = 4;
  p->far = p->alone = 0;
}

/// What a row of legacy_mappings says; texts stand on its page.
ProbeHit hit_of_raw(TupleTableSlot* slot) {
  ProbeHit hit;
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

ProbeHit next_hit_raw(Probe* p) {
  if (index_getnext_slot(p->scan, ForwardScanDirection, p->slot)) return hit_of_raw(p->slot);
  ProbeHit none;
  memset(&none, 0, sizeof none);
  return none;
}

/// The first mapping with this id or a greater one.
ProbeHit probe_raw(Probe* p, Datum legacy_id) {
  p->keys[2].sk_argument = legacy_id;
  index_rescan(p->scan, p->keys, 3, nullptr, 0);
  return next_hit_raw(p);
}

/// Goes on to an id that comes after the hit: by at most so many steps, else anew.
ProbeHit forward_raw(Probe* p, ProbeHit hit, const char* id, int size) {
  auto before = [&] {
    if (!hit.found) return false;
    int order = memcmp(hit.id, id, static_cast<size_t>(Min(hit.id_size, size)));
    return order < 0 || (order == 0 && hit.id_size < size);
  };
  int left = p->steps;
  while (before() && left-- > 0) hit = next_hit_raw(p);
  if (!before()) {
    p->steps = Min(p->steps * 2, 64);
    p->far = 0;
    return hit;
  }
  p->steps = Max(p->steps / 2, 1);
  if (++p->far >= 3) {
    p->alone = 200;  // then it is tried again whether they have come closer
    p->far = 2;
  }
  return probe_raw(p, PointerGetDatum(cstring_to_text_with_len(id, size)));
}

ProbeHit find_alone_raw(Probe* p, Datum legacy_id) {
  if (!p->exact) p->exact = bridge::begin_index_scan(p->table, p->index, GetActiveSnapshot(), 3);
  p->exact_keys[2].sk_argument = legacy_id;
  index_rescan(p->exact, p->exact_keys, 3, nullptr, 0);
  if (index_getnext_slot(p->exact, ForwardScanDirection, p->slot)) return hit_of_raw(p->slot);
  ProbeHit none;
  memset(&none, 0, sizeof none);
  return none;
}

/// The mappings that stand in the table behind a place: the next few are at hand.
struct Trail {
  static constexpr int ahead = 8;
  static constexpr int patience = 64;  // items that are not found before it is given up
  TableScanDesc scan;
  ProbeHit next[ahead];
  int count, strangers;  // mappings of others in between
  bool at_end;
};

/// Takes further mappings of the space at hand, with copies of their texts.
void look_ahead_raw(Probe* p, Trail* t, int64 pipeline_id, Datum scope) {
  while (t->count < Trail::ahead && !t->at_end) {
    if (!table_scan_getnextslot_tidrange(t->scan, ForwardScanDirection, p->slot)) {
      t->at_end = true;
      return;
    }
    slot_getsomeattrs(p->slot, 2);
    if (DatumGetInt64(p->slot->tts_values[0]) != pipeline_id ||
        !DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID, p->slot->tts_values[1], scope))) {
      t->at_end = ++t->strangers > Trail::patience * Trail::ahead;
      continue;
    }
    ProbeHit hit = hit_of_raw(p->slot);
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
void follow_raw(Probe* p, ItemPointerData from, int64 pipeline_id, Datum scope, const std::string_view* ids,
                size_t n, ProbeHit* hits) {
  Trail trail;
  Trail* t = &trail;
  t->count = t->strangers = 0;
  t->at_end = false;
  ItemPointerData end;
  ItemPointerSet(&end, MaxBlockNumber, MaxOffsetNumber);
  t->scan = table_beginscan_tidrange(p->table, GetActiveSnapshot(), &from, &end);
  int missed = 0;
  for (size_t i = 0; i < n && missed < Trail::patience; i++) {
    if ((i & 255) == 0) CHECK_FOR_INTERRUPTS();
    if (ids[i].data() == nullptr) continue;
    look_ahead_raw(p, t, pipeline_id, scope);
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
    memmove(t->next, t->next + at + 1, sizeof(ProbeHit) * static_cast<size_t>(t->count));
  }
  table_endscan(t->scan);
}

void close_probe_raw(Probe* p) {
  index_endscan(p->scan);
  if (p->exact) index_endscan(p->exact);
  ExecDropSingleTupleTableSlot(p->slot);
  PopActiveSnapshot();
  index_close(p->index, NoLock);
  table_close(p->table, NoLock);
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
  bridge::Memory memory("portage mapping probe");
  bridge::InMemory in(memory.get());
  Probe probe;
  Probe* p = &probe;
  Datum scope = text_datum(space.scope);
  int64 pipeline_id = space.pipeline_id;
  guarded(open_probe_raw, p, pipeline_id, scope);
  auto take = [&](size_t i, const ProbeHit& hit) {
    found[i] = {true,          arena.copy({hit.key, static_cast<size_t>(hit.key_size)}),
                hit.origin,    hit.source_hash,
                hit.row_hash,  hit.run_id,
                hit.ordinal,   hit.place,
                hit.has_image, {}};
  };
  if (trail && *trail) {
    std::vector<ProbeHit> hits(legacy_ids.size());
    ProbeHit* to = hits.data();
    const std::string_view* ids = legacy_ids.data();
    size_t n = legacy_ids.size();
    ItemPointerData from = **trail;
    guarded([=] { follow_raw(p, from, pipeline_id, scope, ids, n, to); });
    for (size_t i = 0; i < n; i++)
      if (hits[i].found) take(i, hits[i]);
  }
  std::vector<size_t> order;  // of the index: neighbours are found on pages that are at hand
  for (size_t i = 0; i < legacy_ids.size(); i++)
    if (legacy_ids[i].data() != nullptr && !found[i].found) order.push_back(i);
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return legacy_ids[a] < legacy_ids[b]; });
  int probes = 0;
  bool begun = false;
  ProbeHit hit;
  memset(&hit, 0, sizeof hit);
  for (size_t i : order) {
    if ((probes++ & 255) == 0) bridge::check_interrupts();
    const char* id = legacy_ids[i].data();
    int size = static_cast<int>(legacy_ids[i].size());
    if (begun && !hit.found) break;  // no id is as great as the one before
    if (p->alone > 0) {
      p->alone--;
      ProbeHit one = guarded(find_alone_raw, p, text_datum(legacy_ids[i]));
      if (one.found) take(i, one);
      begun = false;  // the slot is the other scan's
      continue;
    }
    hit = begun ? guarded([=] { return forward_raw(p, hit, id, size); })
                : guarded(probe_raw, p, text_datum(legacy_ids[i]));
    begun = true;
    if (!hit.found || legacy_ids[i] != std::string_view(hit.id, static_cast<size_t>(hit.id_size))) continue;
    take(i, hit);
  }
  guarded(close_probe_raw, p);
  if (trail)
    for (const Mapping& mapping : found)
      if (mapping.found) *trail = mapping.place;
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
      "(SELECT k.image FROM portage.legacy_mappings k WHERE k.pipeline_id = $1 AND k.scope = $2 AND "
      "k.legacy_id = u.legacy_id COLLATE \"C\" OFFSET 0) m WHERE m.image IS NOT NULL");
  bridge::Result rows = select({param(space.pipeline_id), param(space.scope), bridge::param_text_array(ids)});
  for (size_t i = 0; i < rows.size(); i++)
    wanted[static_cast<size_t>(rows.bigint(i, 1)) - 1]->image = arena.copy(rows.text(i, 2));
}

int64_t count_mappings(const MappingSpace& space) {
  AsLedger as;
  static const bridge::Statement select(
      "SELECT count(*) FROM portage.legacy_mappings WHERE pipeline_id = $1 AND scope = $2");
  return select.run(space.pipeline_id, space.scope).bigint(0, 1);
}

std::unordered_map<std::string, int64_t> keys_written_by(const MappingSpace& space, int64_t run_id,
                                                         const std::vector<std::string>& keys) {
  std::unordered_map<std::string, int64_t> written;
  if (keys.empty()) return written;
  AsLedger as;
  static const bridge::Statement select(
      "SELECT target_key, min(ordinal) FROM portage.legacy_mappings WHERE pipeline_id = $1 AND scope = $2 "
      "AND "
      "run_id = $3 AND target_key = ANY ($4 COLLATE \"C\") GROUP BY 1");
  bridge::Result rows =
      select({param(space.pipeline_id), param(space.scope), param(run_id), bridge::param_text_array(keys)});
  for (size_t i = 0; i < rows.size(); i++) written[rows.text(i, 1)] = rows.bigint(i, 2);
  return written;
}

}  // namespace portage::ledger
