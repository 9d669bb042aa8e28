// See hash.hpp. Everything here is raw code: plain structures in memory contexts, Postgres calls without
// guards.
//
// Each value is a header (0 for null, else length * 2 + 1 in 32 bits) and its bytes. Containers have a header
// of their own (dimensions, number of fields, bounds) and then their elements in the same way. What all these
// make one behind the other is hashed block by block, each with the hash of those before it as seed.
#include "pipeline/hash.hpp"

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

enum class HashKind : uint8_t {
  byte,
  int2,
  int4,
  int8,
  uuid,
  text,
  bytea,
  name,
  jsonb,
  label,
  send,
  output,
  array,
  record,
  range,
  multirange
};

/// How to hash the values of one type. Lives in the hasher's memory context.
struct TypeHasher {
  HashKind kind;
  Oid type;  ///< never a domain
  bool by_value;
  int16 length;
  char align;
  FmgrInfo function;    ///< send or output
  TypeHasher* element;  ///< of arrays and ranges
  MemoryContext context;
  uint64 record_identity;  ///< which shape `fields` fits; 0: none yet
  TupleDesc record_shape;
  RowHasher fields;
};

namespace {

/// Numbers are hashed in network order, so that the hash is the same on every machine.
void add_number(RowHasher::Chain* chain, uint32 n) {
  n = pg_hton32(n);
  chain->add(&n, sizeof n);
}

void add_header(RowHasher::Chain* chain, size_t length) {
  add_number(chain, static_cast<uint32>(length) << 1 | 1);
}

void add_bytes(RowHasher::Chain* chain, const void* bytes, size_t length) {
  add_header(chain, length);
  chain->add(bytes, length);
}

/// Text is hashed in UTF-8, whatever the database's encoding.
void add_text(RowHasher::Chain* chain, const char* text, size_t length) {
  if (GetDatabaseEncoding() == PG_UTF8 || GetDatabaseEncoding() == PG_SQL_ASCII) {
    add_bytes(chain, text, length);
    return;
  }
  char* utf8 = pg_server_to_any(text, static_cast<int>(length), PG_UTF8);
  add_bytes(chain, utf8, utf8 == text ? length : strlen(utf8));
  if (utf8 != text) pfree(utf8);
}

bool is_reg_type(Oid type) {
  switch (type) {
    case REGPROCOID:
    case REGPROCEDUREOID:
    case REGOPEROID:
    case REGOPERATOROID:
    case REGCLASSOID:
    case REGTYPEOID:
    case REGROLEOID:
    case REGNAMESPACEOID:
    case REGCONFIGOID:
    case REGDICTIONARYOID:
    case REGCOLLATIONOID:
      return true;
    default:
      return false;
  }
}

/// Types whose send function is known to look at no setting. Of the others we do not know.
bool send_is_fixed(Oid type) {
  switch (type) {
    case NUMERICOID:
    case INTERVALOID:
    case BITOID:
    case VARBITOID:
    case INETOID:
    case CIDROID:
    case MACADDROID:
    case MACADDR8OID:
    case CASHOID:
    case TIMETZOID:
    case POINTOID:
    case LSEGOID:
    case PATHOID:
    case BOXOID:
    case POLYGONOID:
    case LINEOID:
    case CIRCLEOID:
    case TIDOID:
    case PG_LSNOID:
    case PG_SNAPSHOTOID:
      return true;
    default:
      return false;
  }
}

struct Needs {
  bool encoding, output;
};

TypeHasher* type_hasher_raw(Oid type, MemoryContext context, Needs* needs) {
  check_stack_depth();
  auto* hasher = static_cast<TypeHasher*>(MemoryContextAllocZero(context, sizeof(TypeHasher)));
  hasher->context = context;
  hasher->type = type = getBaseType(type);
  get_typlenbyvalalign(type, &hasher->length, &hasher->by_value, &hasher->align);
  switch (type) {
    case BOOLOID:
    case CHAROID:
      hasher->kind = HashKind::byte;
      return hasher;
    case INT2OID:
      hasher->kind = HashKind::int2;
      return hasher;
    case INT4OID:
    case DATEOID:
    case FLOAT4OID:
    case OIDOID:
    case XIDOID:
    case CIDOID:
      hasher->kind = HashKind::int4;
      return hasher;
    case INT8OID:
    case FLOAT8OID:
    case TIMESTAMPOID:
    case TIMESTAMPTZOID:
    case TIMEOID:
    case XID8OID:
      hasher->kind = HashKind::int8;
      return hasher;
    case UUIDOID:
      hasher->kind = HashKind::uuid;
      return hasher;
    case TEXTOID:
    case VARCHAROID:
    case BPCHAROID:
    case JSONOID:
      hasher->kind = HashKind::text;
      return hasher;
    case BYTEAOID:
      hasher->kind = HashKind::bytea;
      return hasher;
    case NAMEOID:
      hasher->kind = HashKind::name;
      return hasher;
    case JSONBOID:
      hasher->kind = HashKind::jsonb;
      return hasher;
    default:
      break;
  }
  char typtype = get_typtype(type);
  Oid element = get_element_type(type);
  if (OidIsValid(element)) {
    hasher->kind = HashKind::array;
    hasher->element = type_hasher_raw(element, context, needs);
  } else if (typtype == TYPTYPE_COMPOSITE || type == RECORDOID) {
    hasher->kind = HashKind::record;
    needs->encoding = needs->output = true;  // its fields are not known yet
  } else if (typtype == TYPTYPE_RANGE) {
    hasher->kind = HashKind::range;
    hasher->element = type_hasher_raw(get_range_subtype(type), context, needs);
  } else if (typtype == TYPTYPE_MULTIRANGE) {
    hasher->kind = HashKind::multirange;
    hasher->element = type_hasher_raw(get_multirange_range(type), context, needs);
  } else {
    HeapTuple tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
    if (!HeapTupleIsValid(tuple)) elog(ERROR, "cache lookup failed for type %u", type);
    auto* form = reinterpret_cast<Form_pg_type>(GETSTRUCT(tuple));
    Oid send = form->typsend, output = form->typoutput;
    ReleaseSysCache(tuple);
    if (typtype == TYPTYPE_ENUM) {
      hasher->kind = HashKind::label;
      fmgr_info_cxt(output, &hasher->function, context);
    } else if (OidIsValid(send) && !is_reg_type(type) && typtype == TYPTYPE_BASE) {
      hasher->kind = HashKind::send;
      fmgr_info_cxt(send, &hasher->function, context);
      if (!send_is_fixed(type)) needs->encoding = true;
    } else {
      hasher->kind = HashKind::output;
      fmgr_info_cxt(output, &hasher->function, context);
      needs->output = true;
    }
  }
  return hasher;
}

void add_value(RowHasher::Chain* chain, TypeHasher* hasher, Datum value, bool null);

void add_array(RowHasher::Chain* chain, TypeHasher* hasher, Datum value) {
  ArrayType* array = DatumGetArrayTypeP(value);
  int dimensions = ARR_NDIM(array);
  add_header(chain, dimensions);
  for (int i = 0; i < dimensions; i++) {
    add_number(chain, static_cast<uint32>(ARR_DIMS(array)[i]));
    add_number(chain, static_cast<uint32>(ARR_LBOUND(array)[i]));
  }
  TypeHasher* element = hasher->element;
  ArrayIterator iterator = array_create_iterator(array, 0, nullptr);
  Datum one;
  bool null;
  while (array_iterate(iterator, &one, &null)) add_value(chain, element, one, null);
  array_free_iterator(iterator);
  if (PointerGetDatum(array) != value) pfree(array);
}

void add_record(RowHasher::Chain* chain, TypeHasher* hasher, Datum value) {
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
  add_header(chain, natts);
  hasher->fields.add(chain, values, nulls);
  pfree(values);
  pfree(nulls);
  if (PointerGetDatum(header) != value) pfree(header);
}

void add_range(RowHasher::Chain* chain, TypeHasher* hasher, RangeType* range) {
  TypeCacheEntry* type = lookup_type_cache(RangeTypeGetOid(range), TYPECACHE_RANGE_INFO);
  RangeBound lower, upper;
  bool empty;
  range_deserialize(type, range, &lower, &upper, &empty);
  add_header(
      chain,
      empty ? 1 : lower.inclusive << 1 | upper.inclusive << 2 | lower.infinite << 3 | upper.infinite << 4);
  if (empty) return;
  add_value(chain, hasher->element, lower.val, lower.infinite);
  add_value(chain, hasher->element, upper.val, upper.infinite);
}

void add_multirange(RowHasher::Chain* chain, TypeHasher* hasher, Datum value) {
  MultirangeType* ranges = DatumGetMultirangeTypeP(value);
  TypeCacheEntry* type = lookup_type_cache(MultirangeTypeGetOid(ranges), TYPECACHE_MULTIRANGE_INFO);
  add_header(chain, ranges->rangeCount);
  for (uint32 i = 0; i < ranges->rangeCount; i++)
    add_range(chain, hasher->element, multirange_get_range(type->rngtype, ranges, static_cast<int>(i)));
}

void add_value(RowHasher::Chain* chain, TypeHasher* hasher, Datum value, bool null) {
  if (null) return add_number(chain, 0);
  switch (hasher->kind) {
    case HashKind::byte: {
      unsigned char byte = static_cast<unsigned char>(DatumGetChar(value));
      return add_bytes(chain, &byte, 1);
    }
    case HashKind::int2: {
      uint16 n = pg_hton16(DatumGetUInt16(value));
      return add_bytes(chain, &n, 2);
    }
    case HashKind::int4: {
      uint32 n = pg_hton32(DatumGetUInt32(value));
      return add_bytes(chain, &n, 4);
    }
    case HashKind::int8: {
      uint64 n = pg_hton64(DatumGetUInt64(value));
      return add_bytes(chain, &n, 8);
    }
    case HashKind::uuid:
      return add_bytes(chain, DatumGetUUIDP(value)->data, UUID_LEN);
    case HashKind::name:
      return add_text(chain, NameStr(*DatumGetName(value)), strlen(NameStr(*DatumGetName(value))));
    case HashKind::text:
    case HashKind::bytea: {
      auto* flat = PG_DETOAST_DATUM_PACKED(value);
      if (hasher->kind == HashKind::text)
        add_text(chain, VARDATA_ANY(flat), VARSIZE_ANY_EXHDR(flat));
      else
        add_bytes(chain, VARDATA_ANY(flat), VARSIZE_ANY_EXHDR(flat));
      if (PointerGetDatum(flat) != value) pfree(flat);
      return;
    }
    case HashKind::jsonb: {
      // As jsonb_send has it: a version byte and the text.
      Jsonb* json = DatumGetJsonbP(value);
      StringInfoData text;
      initStringInfo(&text);
      appendStringInfoChar(&text, 1);
      JsonbToCString(&text, &json->root, VARSIZE(json));
      add_text(chain, text.data, text.len);
      pfree(text.data);
      if (PointerGetDatum(json) != value) pfree(json);
      return;
    }
    case HashKind::label:
    case HashKind::output: {
      char* text = OutputFunctionCall(&hasher->function, value);
      add_text(chain, text, strlen(text));
      pfree(text);
      return;
    }
    case HashKind::send: {
      bytea* bytes = SendFunctionCall(&hasher->function, value);
      add_bytes(chain, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
      pfree(bytes);
      return;
    }
    case HashKind::array:
      return add_array(chain, hasher, value);
    case HashKind::record:
      return add_record(chain, hasher, value);
    case HashKind::range:
      return add_range(chain, hasher, DatumGetRangeTypeP(value));
    case HashKind::multirange:
      return add_multirange(chain, hasher, value);
  }
}

void pin(const char* name, const char* value) {
  (void)set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

}  // namespace

RowHasher RowHasher::make_raw(TupleDesc shape, const int* attnums, int count, MemoryContext context) {
  RowHasher hasher;
  Needs needs{false, false};
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

void RowHasher::Chain::add_over_blocks(const void* bytes, size_t length) {
  auto* from = static_cast<const unsigned char*>(bytes);
  while (length > 0) {
    size_t taken = Min(length, sizeof block - used);
    memcpy(block + used, from, taken);
    used += taken;
    from += taken;
    length -= taken;
    if (used < sizeof block) return;
    hash = hash_bytes_extended(block, static_cast<int>(used), hash);
    used = 0;
  }
}

void RowHasher::add(Chain* chain, const Datum* values, const bool* nulls) const {
  for (int i = 0; i < count_; i++)
    add_value(chain, columns_[i].type, values[columns_[i].index], nulls[columns_[i].index]);
}

uint64_t RowHasher::hash(const Datum* values, const bool* nulls) const {
  Chain chain;
  chain.hash = 0;
  chain.used = 0;
  add(&chain, values, nulls);
  return hash_bytes_extended(chain.block, static_cast<int>(chain.used), chain.hash);
}

uint64_t RowHasher::operator()(const Datum* values, const bool* nulls) const {
  bool encoding =
      needs_encoding_ && pg_get_client_encoding() != PG_UTF8 && GetDatabaseEncoding() != PG_SQL_ASCII;
  if (!encoding && !needs_output_) return hash(values, nulls);
  // As a function's SET clause does it; an error undoes it at the end of the (sub)transaction.
  int level = NewGUCNestLevel();
  if (encoding) pin("client_encoding", "UTF8");
  if (needs_output_) {
    pin("search_path", "pg_catalog");
    pin("datestyle", "ISO, MDY");
    pin("intervalstyle", "postgres");
    pin("extra_float_digits", "1");
  }
  uint64_t result = hash(values, nulls);
  AtEOXact_GUC(true, level);
  return result;
}

int hashable_columns(TupleDesc shape, int* attnums) {
  int count = 0;
  for (int i = 0; i < shape->natts; i++)
    if (!TupleDescAttr(shape, i)->attisdropped && TupleDescAttr(shape, i)->attgenerated == '\0')
      attnums[count++] = i + 1;
  return count;
}

}  // namespace portage
