// See hash.hpp. Everything here is raw code: plain structures in memory contexts, Postgres calls without
// guards.
//
// Each value is chained as a header (0 for null, else length * 2 + 1 in 32 bits) and its bytes. Containers
// chain a header of their own (dimensions, number of fields, bounds) and then their elements in the same way.
#include "pipeline/hash_lanes.hpp"
#include "pipeline/type_hasher.hpp"

extern "C" {
#include "access/htup_details.h"
#include "common/hashfn.h"
#include "port/pg_bswap.h"
#include "utils/expandedrecord.h"
#include "utils/jsonb.h"
#include "utils/multirangetypes.h"
#include "utils/rangetypes.h"
#include "utils/uuid.h"
}

namespace portage {

namespace {

uint64 chain_header(uint64 hash, size_t length) {
  return hash_bytes_uint32_extended(static_cast<uint32>(length) << 1 | 1, hash);
}

uint64 chain_bytes(uint64 hash, const void* bytes, size_t length) {
  return hash_bytes_extended(static_cast<const unsigned char*>(bytes), static_cast<int>(length),
                             chain_header(hash, length));
}

/// Text is hashed in UTF-8, whatever the database's encoding.
uint64 chain_text(uint64 hash, const char* text, size_t length) {
  if (GetDatabaseEncoding() == PG_UTF8 || GetDatabaseEncoding() == PG_SQL_ASCII)
    return chain_bytes(hash, text, length);
  char* utf8 = pg_server_to_any(text, static_cast<int>(length), PG_UTF8);
  if (utf8 == text) return chain_bytes(hash, text, length);
  hash = chain_bytes(hash, utf8, strlen(utf8));
  pfree(utf8);
  return hash;
}

uint64 chain_value(uint64 hash, TypeHasher* hasher, Datum value, bool null);

uint64 chain_array(uint64 hash, TypeHasher* hasher, Datum value) {
  ArrayType* array = DatumGetArrayTypeP(value);
  int dimensions = ARR_NDIM(array);
  hash = chain_header(hash, dimensions);
  for (int i = 0; i < dimensions; i++) {
    hash = hash_bytes_uint32_extended(ARR_DIMS(array)[i], hash);
    hash = hash_bytes_uint32_extended(ARR_LBOUND(array)[i], hash);
  }
  TypeHasher* element = hasher->element;
  ArrayIterator iterator = array_create_iterator(array, 0, nullptr);
  Datum one;
  bool null;
  while (array_iterate(iterator, &one, &null)) hash = chain_value(hash, element, one, null);
  array_free_iterator(iterator);
  if (PointerGetDatum(array) != value) pfree(array);
  return hash;
}

uint64 chain_record(uint64 hash, TypeHasher* hasher, Datum value) {
  HeapTupleHeader header = DatumGetHeapTupleHeader(value);
  Oid type = HeapTupleHeaderGetTypeId(header);
  int32 typmod = HeapTupleHeaderGetTypMod(header);
  uint64 identity = assign_record_type_identifier(type, typmod);
  if (identity != hasher->record_identity) {
    hasher->record_identity = 0;
    TupleDesc cached = lookup_rowtype_tupdesc(type, typmod);
    MemoryContext previous = MemoryContextSwitchTo(hasher->context);
    hasher->record_shape = CreateTupleDescCopy(cached);
    int* attnums = static_cast<int*>(palloc(sizeof(int) * (cached->natts + 1)));
    int count = 0;
    for (int i = 0; i < cached->natts; i++)
      if (!TupleDescAttr(cached, i)->attisdropped) attnums[count++] = i + 1;
    MemoryContextSwitchTo(previous);
    ReleaseTupleDesc(cached);
    hasher->fields = RowHasher::make_raw(hasher->record_shape, attnums, count, hasher->context);
    hasher->record_identity = identity;
  }
  HeapTupleData tuple;
  tuple.t_len = HeapTupleHeaderGetDatumLength(header);
  ItemPointerSetInvalid(&tuple.t_self);
  tuple.t_tableOid = InvalidOid;
  tuple.t_data = header;
  int natts = hasher->record_shape->natts;
  auto* values = static_cast<Datum*>(palloc(sizeof(Datum) * (natts + 1)));
  auto* nulls = static_cast<bool*>(palloc(sizeof(bool) * (natts + 1)));
  heap_deform_tuple(&tuple, hasher->record_shape, values, nulls);
  hash = hasher->fields.chain(chain_header(hash, natts), values, nulls);
  pfree(values);
  pfree(nulls);
  if (PointerGetDatum(header) != value) pfree(header);
  return hash;
}

uint64 chain_range(uint64 hash, TypeHasher* hasher, RangeType* range) {
  TypeCacheEntry* type = lookup_type_cache(RangeTypeGetOid(range), TYPECACHE_RANGE_INFO);
  RangeBound lower, upper;
  bool empty;
  range_deserialize(type, range, &lower, &upper, &empty);
  hash = chain_header(
      hash,
      empty ? 1 : lower.inclusive << 1 | upper.inclusive << 2 | lower.infinite << 3 | upper.infinite << 4);
  if (empty) return hash;
  hash = chain_value(hash, hasher->element, lower.val, lower.infinite);
  return chain_value(hash, hasher->element, upper.val, upper.infinite);
}

uint64 chain_multirange(uint64 hash, TypeHasher* hasher, Datum value) {
  MultirangeType* ranges = DatumGetMultirangeTypeP(value);
  TypeCacheEntry* type = lookup_type_cache(MultirangeTypeGetOid(ranges), TYPECACHE_MULTIRANGE_INFO);
  hash = chain_header(hash, ranges->rangeCount);
  for (uint32 i = 0; i < ranges->rangeCount; i++)
    hash =
        chain_range(hash, hasher->element, multirange_get_range(type->rngtype, ranges, static_cast<int>(i)));
  return hash;
}

uint64 chain_value(uint64 hash, TypeHasher* hasher, Datum value, bool null) {
  if (null) return hash_bytes_uint32_extended(0, hash);
  switch (hasher->kind) {
    case HashKind::byte: {
      unsigned char byte = static_cast<unsigned char>(DatumGetChar(value));
      return chain_bytes(hash, &byte, 1);
    }
    case HashKind::int2: {
      uint16 n = pg_hton16(DatumGetUInt16(value));
      return chain_bytes(hash, &n, 2);
    }
    case HashKind::int4: {
      uint32 n = pg_hton32(DatumGetUInt32(value));
      return chain_bytes(hash, &n, 4);
    }
    case HashKind::int8: {
      uint64 n = pg_hton64(DatumGetUInt64(value));
      return chain_bytes(hash, &n, 8);
    }
    case HashKind::uuid:
      return chain_bytes(hash, DatumGetUUIDP(value)->data, UUID_LEN);
    case HashKind::name:
      return chain_text(hash, NameStr(*DatumGetName(value)), strlen(NameStr(*DatumGetName(value))));
    case HashKind::text:
    case HashKind::bytea: {
      auto* flat = PG_DETOAST_DATUM_PACKED(value);
      hash = hasher->kind == HashKind::text ? chain_text(hash, VARDATA_ANY(flat), VARSIZE_ANY_EXHDR(flat))
                                            : chain_bytes(hash, VARDATA_ANY(flat), VARSIZE_ANY_EXHDR(flat));
      if (PointerGetDatum(flat) != value) pfree(flat);
      return hash;
    }
    case HashKind::jsonb: {
      // As jsonb_send has it: a version byte and the text.
      Jsonb* json = DatumGetJsonbP(value);
      StringInfoData text;
      initStringInfo(&text);
      appendStringInfoChar(&text, 1);
      JsonbToCString(&text, &json->root, VARSIZE(json));
      hash = chain_text(hash, text.data, text.len);
      pfree(text.data);
      if (PointerGetDatum(json) != value) pfree(json);
      return hash;
    }
    case HashKind::label:
    case HashKind::output: {
      char* text = OutputFunctionCall(&hasher->function, value);
      hash = chain_text(hash, text, strlen(text));
      pfree(text);
      return hash;
    }
    case HashKind::send: {
      bytea* bytes = SendFunctionCall(&hasher->function, value);
      hash = chain_bytes(hash, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
      pfree(bytes);
      return hash;
    }
    case HashKind::array:
      return chain_array(hash, hasher, value);
    case HashKind::record:
      return chain_record(hash, hasher, value);
    case HashKind::range:
      return chain_range(hash, hasher, DatumGetRangeTypeP(value));
    case HashKind::multirange:
      return chain_multirange(hash, hasher, value);
  }
  return hash;
}

/// The bytes of a value as they lie in memory, as they are hashed; false: they have to be made first.
bool bytes_at_hand(const TypeHasher* hasher, Datum value, const char** data, uint32* size) {
  if (hasher->kind == HashKind::uuid) {
    *data = reinterpret_cast<const char*>(DatumGetUUIDP(value)->data);
    *size = UUID_LEN;
    return true;
  }
  if (hasher->kind == HashKind::text && GetDatabaseEncoding() != PG_UTF8 &&
      GetDatabaseEncoding() != PG_SQL_ASCII)
    return false;
  const char* flat = DatumGetPointer(value);
  if (VARATT_IS_EXTERNAL(flat) || VARATT_IS_COMPRESSED(flat)) return false;
  *data = VARDATA_ANY(flat);
  *size = static_cast<uint32>(VARSIZE_ANY_EXHDR(flat));
  return true;
}

/// A column of as many rows as there are lanes, each of which continues the hash of a row.
void chain_column(HashLanes& lanes, TypeHasher* hasher, const HashedRow* rows, int index) {
  constexpr int count = HashLanes::count;
  uint32 headers[count];
  bool nulls[count];
  for (int i = 0; i < count; i++) nulls[i] = rows[i].nulls[index];
  auto small = [&](uint32 size, auto in_network_order) {
    uint64 bytes[count];
    for (int i = 0; i < count; i++) {
      bytes[i] = nulls[i] ? 0 : in_network_order(rows[i].values[index]);
      headers[i] = nulls[i] ? 0 : size << 1 | 1;
    }
    lanes.add_number(headers);
    lanes.add_small(bytes, size, nulls);
  };
  switch (hasher->kind) {
    case HashKind::byte:
      return small(1, [](Datum value) { return static_cast<uint64>(DatumGetUInt8(value)); });
    case HashKind::int2:
      return small(2, [](Datum value) { return static_cast<uint64>(pg_hton16(DatumGetUInt16(value))); });
    case HashKind::int4:
      return small(4, [](Datum value) { return static_cast<uint64>(pg_hton32(DatumGetUInt32(value))); });
    case HashKind::int8:
      return small(8, [](Datum value) { return pg_hton64(DatumGetUInt64(value)); });
    case HashKind::uuid:
    case HashKind::text:
    case HashKind::bytea: {
      const char* data[count];
      uint32 sizes[count];
      bool at_hand = true;
      for (int i = 0; i < count; i++) {
        data[i] = nullptr;
        sizes[i] = headers[i] = 0;
        if (nulls[i]) continue;
        at_hand = at_hand && bytes_at_hand(hasher, rows[i].values[index], &data[i], &sizes[i]);
        headers[i] = sizes[i] << 1 | 1;
      }
      if (!at_hand) break;
      lanes.add_number(headers);
      lanes.add_bytes(data, sizes);
      return;
    }
    default:
      break;
  }
  for (int i = 0; i < count; i++)
    lanes.set(i, chain_value(lanes.get(i), hasher, rows[i].values[index], nulls[i]));
}

void pin(const char* name, const char* value) {
  (void)set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

}  // namespace

RowHasher RowHasher::make_raw(TupleDesc shape, const int* attnums, int count, MemoryContext context) {
  RowHasher hasher;
  HashNeeds needs{false, false};
  hasher.columns_ = static_cast<Column*>(MemoryContextAlloc(context, sizeof(Column) * (count + 1)));
  hasher.count_ = count;
  for (int i = 0; i < count; i++)
    hasher.columns_[i] = {attnums[i] - 1,
                          type_hasher_raw(TupleDescAttr(shape, attnums[i] - 1)->atttypid, context, &needs)};
  hasher.needs_encoding_ = needs.encoding;
  hasher.needs_output_ = needs.output;
  return hasher;
}

RowHasher RowHasher::make(TupleDesc shape, const std::vector<int>& attnums, MemoryContext context) {
  const int* first = attnums.data();
  int count = static_cast<int>(attnums.size());
  return bridge::guarded([=] { return make_raw(shape, first, count, context); });
}

uint64_t RowHasher::chain(uint64_t hash, const Datum* values, const bool* nulls) const {
  for (int i = 0; i < count_; i++)
    hash = chain_value(hash, columns_[i].type, values[columns_[i].index], nulls[columns_[i].index]);
  return hash;
}

/// Pins what the bytes of some types depend on, as a function's SET clause does it; an error undoes it at the
/// end of the (sub)transaction. The level to go back to; 0: nothing is pinned.
int RowHasher::pin_settings() const {
  bool encoding =
      needs_encoding_ && pg_get_client_encoding() != PG_UTF8 && GetDatabaseEncoding() != PG_SQL_ASCII;
  if (!encoding && !needs_output_) return 0;
  int level = NewGUCNestLevel();
  if (encoding) pin("client_encoding", "UTF8");
  if (needs_output_) {
    pin("search_path", "pg_catalog");
    pin("datestyle", "ISO, MDY");
    pin("intervalstyle", "postgres");
    pin("extra_float_digits", "1");
  }
  return level;
}

uint64_t RowHasher::operator()(const Datum* values, const bool* nulls) const {
  int level = pin_settings();
  uint64_t hash = chain(0, values, nulls);
  if (level) AtEOXact_GUC(true, level);
  return hash;
}

void RowHasher::operator()(const HashedRow* rows, size_t count) const {
  int level = pin_settings();
  size_t i = 0;
  if constexpr (has_hash_lanes)
    for (; i + HashLanes::count <= count; i += HashLanes::count) {
      HashLanes lanes;
      for (int c = 0; c < count_; c++) chain_column(lanes, columns_[c].type, rows + i, columns_[c].index);
      for (int lane = 0; lane < HashLanes::count; lane++) *rows[i + lane].hash = lanes.get(lane);
    }
  for (; i < count; i++) *rows[i].hash = chain(0, rows[i].values, rows[i].nulls);
  if (level) AtEOXact_GUC(true, level);
}

int hashable_columns(TupleDesc shape, int* attnums) {
  int count = 0;
  for (int i = 0; i < shape->natts; i++)
    if (!TupleDescAttr(shape, i)->attisdropped && TupleDescAttr(shape, i)->attgenerated == '\0')
      attnums[count++] = i + 1;
  return count;
}

}  // namespace portage
