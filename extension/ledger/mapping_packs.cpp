// See mapping_packs.hpp. A pack is a row of nearly a page, kept as it is (STORAGE PLAIN), so that a look-up
// is one descent of the index and one page.
#include "ledger/mapping_packs.hpp"

#include "bridge/codes.hpp"
#include "bridge/discretion.hpp"
#include "bridge/index_probe.hpp"
#include "bridge/table_writer.hpp"
#include "ledger/arrays.hpp"
#include "ledger/as_ledger.hpp"

extern "C" {
#include "utils/fmgroids.h"
}

namespace portage::ledger {
namespace {

using bridge::guarded;
using bridge::param;
using bridge::text_datum;

// Fewer are rows: a pack has to be worth its own.
constexpr size_t least = 4;
// So many may be packed in whatever order they come: what comes later between them is not much.
constexpr size_t few = 1000;

/// Content and keys of a pack have so many bytes at most; the rest is headers and numbers.
size_t room(const MappingSpace& space) {
  size_t other = 128 + space.scope.size();
  return other < MaxHeapTupleSize ? MaxHeapTupleSize - other : 0;
}

void refuse_damaged(int64_t pipeline_id, std::string_view first_key) {
  throw bridge::Error(ERRCODE_DATA_CORRUPTED, "a pack of mappings is damaged")
      .detail(bridge::format("It is of pipeline %lld and begins with legacy id ",
                             static_cast<long long>(pipeline_id)) +
              bridge::quotable(first_key.substr(std::min<size_t>(2, first_key.size()))) + ".")
      .hint("Restore portage.mapping_packs from a backup.");
}

/// Two scans of one space's packs: back to where a key is, and forward. Plain, for raw code.
struct Scans {
  Relation table, index;
  IndexScanDesc back, forward;
  TupleTableSlot* slot;
  ScanKeyData keys[3];  // pipeline, scope, first_key
};

/// The packs of a space, one in hand at a time. Not closed after an error: the (sub)transaction's end does.
class PackScan {
 public:
  explicit PackScan(const MappingSpace& space)
      : pipeline_id_(space.pipeline_id), memory_("portage mapping packs") {
    bridge::InMemory in(memory_.get());
    Datum scope = text_datum(space.scope);
    int64 pipeline = space.pipeline_id;
    scans_ = guarded([=] {
      auto* s = static_cast<Scans*>(palloc0(sizeof(Scans)));
      Oid schema = get_namespace_oid("portage", false);
      s->table = table_open(get_relname_relid("mapping_packs", schema), AccessShareLock);
      s->index = index_open(get_relname_relid("mapping_packs_pkey", schema), AccessShareLock);
      PushActiveSnapshot(GetTransactionSnapshot());
      if (bridge::is_too_young(s->index)) {
        PopActiveSnapshot();
        return static_cast<Scans*>(nullptr);
      }
      s->slot = table_slot_create(s->table, nullptr);
      s->back = bridge::begin_index_scan(s->table, s->index, GetActiveSnapshot(), 3);
      s->forward = bridge::begin_index_scan(s->table, s->index, GetActiveSnapshot(), 3);
      ScanKeyInit(&s->keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(pipeline));
      ScanKeyEntryInitialize(&s->keys[1], 0, 2, BTEqualStrategyNumber, InvalidOid, C_COLLATION_OID, F_TEXTEQ,
                             scope);
      return s;
    });
    if (!scans_)
      throw bridge::Error(ERRCODE_T_R_SERIALIZATION_FAILURE,
                          "the index of the mappings was built after this transaction took its snapshot")
          .hint("Try again in a new transaction.");
  }
  void close() {
    guarded([s = scans_] {
      index_endscan(s->back);
      index_endscan(s->forward);
      ExecDropSingleTupleTableSlot(s->slot);
      PopActiveSnapshot();
      index_close(s->index, NoLock);
      table_close(s->table, NoLock);
    });
  }

  /// To the last pack that does not begin behind the id; false: there is none.
  bool seek(std::string_view id) {
    from_ = order_key(id);
    forward_set_ = false;
    if (!fetch(scans_->back, BackwardScanDirection, BTLessEqualStrategyNumber, F_BYTEALE, true)) return false;
    from_ = first_;
    return true;
  }
  /// To the next one; after a seek() in vain, to the first behind the id.
  bool next() {
    bool set = !forward_set_;
    forward_set_ = true;
    return fetch(scans_->forward, ForwardScanDirection, BTGreaterStrategyNumber, F_BYTEAGT, set);
  }

  const std::string& first_key() const { return first_; }
  std::string_view first() const { return std::string_view(first_).substr(2); }
  std::string_view last() const { return std::string_view(last_).substr(2); }
  const std::string& content() const { return content_; }
  int entries() const { return entries_; }
  int64_t run_id() const { return run_id_; }
  ItemPointerData place() const { return scans_->slot->tts_tid; }

 private:
  bool fetch(IndexScanDesc scan, ScanDirection direction, StrategyNumber strategy, RegProcedure function,
             bool set) {
    bridge::InMemory in(memory_.get());
    Scans* s = scans_;
    Datum from = set ? text_datum(from_) : 0;
    bool found = guarded([=] {
      if (set) {
        ScanKeyInit(&s->keys[2], 3, strategy, function, from);
        index_rescan(scan, s->keys, 3, nullptr, 0);
      }
      if (!index_getnext_slot(scan, direction, s->slot)) return false;
      slot_getallattrs(s->slot);
      for (int column = 2; column <= 4; column++)
        s->slot->tts_values[column] = PointerGetDatum(pg_detoast_datum_packed(
            reinterpret_cast<struct varlena*>(DatumGetPointer(s->slot->tts_values[column]))));
      return true;
    });
    if (!found) return false;
    const Datum* v = s->slot->tts_values;
    take(first_, v[2]);
    take(last_, v[3]);
    take(content_, v[4]);
    entries_ = DatumGetInt32(v[5]);
    run_id_ = DatumGetInt64(v[6]);
    // Searches go by the order of keys, and would go round in circles without one.
    if (!is_key(first_) || !is_key(last_) || last_ < first_) refuse_damaged(pipeline_id_, first_);
    return true;
  }
  static bool is_key(const std::string& key) {
    return key.size() >= 2 && key == order_key(std::string_view(key).substr(2));
  }
  static void take(std::string& to, Datum bytes) {
    to.assign(VARDATA_ANY(DatumGetPointer(bytes)), VARSIZE_ANY_EXHDR(DatumGetPointer(bytes)));
  }

  int64_t pipeline_id_;
  bridge::Memory memory_;
  Scans* scans_;
  bool forward_set_ = false;
  std::string from_, first_, last_, content_;
  int entries_ = 0;
  int64_t run_id_ = 0;
};

void sort_by_id(const std::vector<std::string_view>& ids, std::vector<size_t>& positions) {
  auto before = [&](size_t a, size_t b) { return comes_before(ids[a], ids[b]); };
  if (!std::is_sorted(positions.begin(), positions.end(), before))
    std::sort(positions.begin(), positions.end(), before);
}

/// Whether new mappings are in the order of packs, or nearly so; others would only ever meet the ranges of
/// packs.
bool in_order(const std::vector<PackedMapping>& mappings) {
  if (mappings.size() <= few) return true;
  size_t back = 0;
  for (size_t i = 1; i < mappings.size(); i++)
    back += comes_before(mappings[i].legacy_id, mappings[i - 1].legacy_id);
  return back <= mappings.size() / 10;
}

/// Writes packs of mappings that come in order.
class PackWriter {
 public:
  PackWriter(const MappingSpace& space, int64_t run_id)
      : rows_("portage", "mapping_packs"), room_(room(space)), run_id_(run_id) {
    memset(rows_.nulls(), 0, sizeof(bool) * static_cast<size_t>(rows_.natts()));
    rows_.values()[0] = Int64GetDatum(space.pipeline_id);
    rows_.values()[1] = text_datum(space.scope);
  }
  bool takes(const PackedMapping& m) const {
    return m.legacy_id.size() <= longest_packed_id && keys(m) + MappingPacker::bound(m) <= room_ / 2;
  }
  void add(const PackedMapping& m) {
    if (pack_.count() > 0 &&
        first_.size() + m.legacy_id.size() + 16 + pack_.content().size() + MappingPacker::bound(m) > room_)
      end_pack();
    if (pack_.count() == 0) first_ = m.legacy_id;
    last_ = m.legacy_id;
    pack_.add(m);
  }
  void end_pack() {
    if (pack_.count() == 0) return;
    Datum* v = rows_.values();
    v[2] = text_datum(order_key(first_));
    v[3] = text_datum(order_key(last_));
    v[4] = text_datum(pack_.content());
    v[5] = Int32GetDatum(pack_.count());
    v[6] = Int64GetDatum(run_id_);
    rows_.add();
    pack_.clear();
  }
  void finish() {
    end_pack();
    rows_.finish();
  }

 private:
  static size_t keys(const PackedMapping& m) { return 2 * m.legacy_id.size() + 16; }

  bridge::TableWriter rows_;
  size_t room_;
  int64_t run_id_;
  MappingPacker pack_;
  std::string first_, last_;
};

}  // namespace

void insert_mapping_rows(const MappingSpace& space, const std::vector<MappingRow>& mappings) {
  if (mappings.empty()) return;
  bridge::TableWriter rows("portage", "mapping_rows");
  Datum* v = rows.values();
  memset(rows.nulls(), 0, sizeof(bool) * static_cast<size_t>(rows.natts()));
  Datum scope = text_datum(space.scope);
  Datum origins[] = {text_datum("inserted"), text_datum("adopted"), text_datum("overwritten")};
  for (const MappingRow& row : mappings) {
    const PackedMapping& m = row.mapping;
    v[0] = Int64GetDatum(space.pipeline_id);
    v[1] = scope;
    v[2] = text_datum(m.legacy_id);
    v[3] = text_datum(m.target_key);
    v[4] = origins[m.origin == 'i' ? 0 : m.origin == 'a' ? 1 : 2];
    v[5] = Int64GetDatum(m.source_hash);
    v[6] = Int64GetDatum(m.row_hash);
    v[7] = Int64GetDatum(row.run_id);
    v[8] = Int64GetDatum(m.ordinal);
    v[9] = row.image;
    rows.nulls()[9] = row.image == 0;
    rows.nulls()[10] = true;
    rows.add();
  }
  rows.finish();
}

void find_packed(const MappingSpace& space, const std::vector<std::string_view>& ids,
                 std::vector<size_t> positions, const std::function<void(const PackedHit&)>& found) {
  if (positions.empty()) return;
  sort_by_id(ids, positions);
  PackScan scan(space);
  size_t i = 0, n = positions.size();
  auto id = [&] { return ids[positions[i]]; };
  bool in_hand = scan.seek(id());
  while (i < n) {
    if (!in_hand || comes_before(scan.last(), id())) {
      bridge::check_interrupts();
      if (!scan.next()) break;
      in_hand = true;
      while (i < n && comes_before(id(), scan.first())) i++;
      if (i < n && comes_before(scan.last(), id())) in_hand = scan.seek(id());
      continue;
    }
    MappingUnpacker pack(scan.content().data(), scan.content().size());
    PackedMapping m;
    int entry = 0;
    while (i < n && pack.next(&m)) {
      while (i < n && comes_before(id(), m.legacy_id)) i++;
      for (; i < n && id() == m.legacy_id; i++)
        found({positions[i], m, scan.run_id(), scan.first_key(), scan.place(), entry});
      entry++;
    }
    if (i < n && !pack.held(scan.entries())) refuse_damaged(space.pipeline_id, scan.first_key());
    while (i < n && !comes_before(scan.last(), id())) i++;
  }
  scan.close();
}

std::vector<size_t> pack_mappings(const MappingSpace& space, int64_t run_id,
                                  const std::vector<PackedMapping>& mappings) {
  std::vector<size_t> order(mappings.size()), others;
  for (size_t i = 0; i < order.size(); i++) order[i] = i;
  if (mappings.size() < least || !in_order(mappings) || room(space) < MaxHeapTupleSize / 2) return order;
  std::vector<std::string_view> ids;
  ids.reserve(mappings.size());
  for (const PackedMapping& m : mappings) ids.push_back(m.legacy_id);
  sort_by_id(ids, order);
  for (size_t i = 1; i < order.size(); i++)
    if (ids[order[i]] == ids[order[i - 1]]) return order;  // the primary key of the rows will refuse it
  PackWriter writer(space, run_id);
  PackScan scan(space);
  size_t i = 0, n = order.size();
  auto id = [&](size_t at) { return ids[order[at]]; };
  bool in_hand = scan.seek(id(0));
  while (i < n) {
    if (in_hand && !comes_before(scan.last(), id(i))) {
      others.push_back(order[i++]);
      continue;
    }
    // Between two packs, or beside them all.
    bool more = scan.next();
    size_t end = i;
    while (end < n && (!more || comes_before(id(end), scan.first()))) end++;
    bool packed = end - i >= least;
    for (; i < end; i++) {
      const PackedMapping& m = mappings[order[i]];
      if (packed && writer.takes(m))
        writer.add(m);
      else
        others.push_back(order[i]);
    }
    writer.end_pack();
    in_hand = more;
    if (i < n && comes_before(scan.last(), id(i))) in_hand = scan.seek(id(i));
  }
  scan.close();
  writer.finish();
  return others;
}

void take_out(const MappingSpace& space, const std::vector<std::string_view>& ids,
              const std::function<void(size_t, const PackedMapping&, int64_t run_id)>& taken) {
  std::vector<size_t> positions;
  for (size_t i = 0; i < ids.size(); i++)
    if (ids[i].data() != nullptr) positions.push_back(i);
  std::vector<std::string> packs;
  find_packed(space, ids, positions, [&](const PackedHit& hit) {
    if (packs.empty() || packs.back() != hit.pack) packs.push_back(hit.pack);
  });
  if (packs.empty()) return;
  sort_by_id(ids, positions);
  AsLedger as;
  bridge::ByIndex by_index;
  static const bridge::Statement lock(
      "SELECT p.ctid, p.first_key, p.content, p.entries, p.run_id FROM portage.mapping_packs p WHERE "
      "p.pipeline_id = $1 AND p.scope = $2 AND p.first_key = ANY ($3) ORDER BY p.first_key FOR UPDATE");
  bridge::Result rows = lock({param(space.pipeline_id), param(space.scope), param_bytea_array(packs)});
  std::vector<ItemPointerData> emptied, changed;
  std::vector<std::string> contents;
  std::vector<int64_t> counts;
  for (size_t row = 0; row < rows.size(); row++) {
    std::string content = bridge::string_of(rows.datum(row, 3));
    MappingUnpacker pack(content.data(), content.size());
    MappingPacker rest;
    PackedMapping m;
    auto at = positions.begin();
    while (pack.next(&m)) {
      at = std::lower_bound(at, positions.end(), m.legacy_id,
                            [&](size_t i, std::string_view id) { return comes_before(ids[i], id); });
      if (at != positions.end() && ids[*at] == m.legacy_id)
        taken(*at, m, rows.bigint(row, 5));
      else
        rest.add(m);
    }
    if (!pack.held(rows.integer(row, 4)))
      refuse_damaged(space.pipeline_id, bridge::string_of(rows.datum(row, 2)));
    ItemPointerData place = *reinterpret_cast<ItemPointer>(DatumGetPointer(rows.datum(row, 1)));
    (rest.count() == 0 ? emptied : changed).push_back(place);
    if (rest.count() == 0) continue;
    contents.push_back(rest.content());
    counts.push_back(rest.count());
  }
  if (!emptied.empty()) {
    static const bridge::Statement drop("DELETE FROM portage.mapping_packs WHERE ctid = ANY ($1)");
    drop({param_places(emptied)});
  }
  if (changed.empty()) return;
  static const bridge::Statement update(
      "UPDATE portage.mapping_packs p SET content = n.content, entries = n.entries FROM unnest($1::tid[], "
      "$2::bytea[], $3::bigint[]) AS n (place, content, entries) WHERE p.ctid = n.place");
  update({param_places(changed), param_bytea_array(contents), bridge::param_int8_array(counts)});
}

void make_rows(const MappingSpace& space, const std::vector<std::string_view>& ids) {
  formats::Arena arena;
  std::vector<MappingRow> rows;
  take_out(space, ids, [&](size_t, const PackedMapping& m, int64_t run_id) {
    rows.push_back(
        {{arena.copy(m.legacy_id), arena.copy(m.target_key), m.origin, m.source_hash, m.row_hash, m.ordinal},
         run_id});
  });
  insert_mapping_rows(space, rows);
}

std::vector<WalkedMapping> next_mappings(const MappingSpace& space, MappingWalk& walk) {
  std::vector<WalkedMapping> page;
  bridge::Memory memory("portage mappings");
  bridge::InMemory in(memory.get());
  AsLedger as;
  bridge::ByIndex by_index;
  if (walk.packs) {
    static const bridge::Statement packs(
        "SELECT p.first_key, p.content, p.entries, p.run_id FROM portage.mapping_packs p WHERE p.pipeline_id "
        "= $1 AND p.scope = $2 AND p.first_key > $3 ORDER BY p.pipeline_id, p.scope, p.first_key LIMIT 50");
    bridge::Result rows =
        packs({param(space.pipeline_id), param(space.scope), bridge::param_bytea(walk.from)});
    for (size_t i = 0; i < rows.size(); i++) {
      std::string content = bridge::string_of(rows.datum(i, 2));
      MappingUnpacker pack(content.data(), content.size());
      PackedMapping m;
      while (pack.next(&m))
        page.push_back({std::string(m.legacy_id), std::string(m.target_key), m.origin, m.source_hash,
                        rows.bigint(i, 4), m.ordinal});
      walk.from = bridge::string_of(rows.datum(i, 1));
      if (!pack.held(rows.integer(i, 3))) refuse_damaged(space.pipeline_id, walk.from);
    }
    if (!page.empty()) return page;
    walk = {"", false};
  }
  static const bridge::Statement select(
      "SELECT legacy_id, target_key, origin, source_hash, run_id, ordinal FROM portage.mapping_rows WHERE "
      "pipeline_id = $1 AND scope = $2 AND legacy_id >= $3 COLLATE \"C\" ORDER BY pipeline_id, scope, "
      "legacy_id "
      "LIMIT 10000");
  bridge::Result rows = select.run(space.pipeline_id, space.scope, walk.from);
  for (size_t i = 0; i < rows.size(); i++)
    page.push_back({rows.text(i, 1), rows.text(i, 2), rows.text(i, 3)[0], rows.bigint(i, 4),
                    rows.bigint(i, 5), rows.bigint(i, 6)});
  if (!page.empty()) walk.from = page.back().legacy_id + '\x01';  // what comes next in the order of bytes
  return page;
}

}  // namespace portage::ledger
