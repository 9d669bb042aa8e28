// The SQL functions portage.row_hash(record [, columns]): hash.hpp for whoever asks in SQL. The hasher is
// kept for the duration of the calling query.
#include "pipeline/hash.hpp"

#include "bridge/entry.hpp"
#include "bridge/spi.hpp"

extern "C" {
#include "access/htup_details.h"
}

namespace portage {
namespace {

/// What is kept in fn_extra, in fn_mcxt.
struct Kept {
  uint64 identity;
  struct varlena* columns;  ///< the array of names that `hasher` was made for, or null
  TupleDesc shape;
  RowHasher hasher;
  Datum* values;
  bool* nulls;
};

int attnum_raw(TupleDesc shape, const char* name, size_t length) {
  for (int i = 0; i < shape->natts; i++) {
    Form_pg_attribute a = TupleDescAttr(shape, i);
    if (!a->attisdropped && strlen(NameStr(a->attname)) == length &&
        memcmp(NameStr(a->attname), name, length) == 0)
      return i + 1;
  }
  ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
                  errmsg("column \"%.*s\" does not exist", static_cast<int>(length), name)));
}

int named_columns_raw(TupleDesc shape, ArrayType* names, int* attnums) {
  Datum* elements;
  bool* nulls;
  int count;
  deconstruct_array(names, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &count);
  auto* chosen = static_cast<bool*>(palloc0(sizeof(bool) * (shape->natts + 1)));
  for (int i = 0; i < count; i++) {
    if (nulls[i])
      ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("a column name must not be null")));
    text* name = DatumGetTextPP(elements[i]);
    chosen[attnum_raw(shape, VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name)) - 1] = true;
  }
  int found = 0;  // in attnum order, whatever the order of the names
  for (int i = 0; i < shape->natts; i++)
    if (chosen[i]) attnums[found++] = i + 1;
  return found;
}

bool fits(const Kept* kept, uint64 identity, const struct varlena* columns) {
  if (!kept || kept->identity != identity || (kept->columns != nullptr) != (columns != nullptr)) return false;
  return !columns || (VARSIZE(kept->columns) == VARSIZE(columns) &&
                      memcmp(kept->columns, columns, VARSIZE(columns)) == 0);
}

Kept* make_kept_raw(MemoryContext context, Oid type, int32 typmod, uint64 identity, ArrayType* columns) {
  MemoryContext previous = MemoryContextSwitchTo(context);
  auto* kept = static_cast<Kept*>(palloc0(sizeof(Kept)));
  kept->shape = lookup_rowtype_tupdesc_copy(type, typmod);
  int natts = kept->shape->natts;
  auto* attnums = static_cast<int*>(palloc(sizeof(int) * (natts + 1)));
  int count =
      columns ? named_columns_raw(kept->shape, columns, attnums) : hashable_columns(kept->shape, attnums);
  kept->hasher = RowHasher::make_raw(kept->shape, attnums, count, context);
  kept->values = static_cast<Datum*>(palloc(sizeof(Datum) * (natts + 1)));
  kept->nulls = static_cast<bool*>(palloc(sizeof(bool) * (natts + 1)));
  if (columns)
    kept->columns = reinterpret_cast<struct varlena*>(DatumGetArrayTypePCopy(PointerGetDatum(columns)));
  kept->identity = identity;
  MemoryContextSwitchTo(previous);
  return kept;
}

Datum row_hash_raw(FunctionCallInfo fcinfo) {
  HeapTupleHeader row = PG_GETARG_HEAPTUPLEHEADER(0);
  ArrayType* columns = PG_NARGS() > 1 ? PG_GETARG_ARRAYTYPE_P(1) : nullptr;
  Oid type = HeapTupleHeaderGetTypeId(row);
  int32 typmod = HeapTupleHeaderGetTypMod(row);
  uint64 identity = assign_record_type_identifier(type, typmod);
  auto* kept = static_cast<Kept*>(fcinfo->flinfo->fn_extra);
  if (!fits(kept, identity, reinterpret_cast<struct varlena*>(columns))) {
    kept = make_kept_raw(fcinfo->flinfo->fn_mcxt, type, typmod, identity, columns);
    fcinfo->flinfo->fn_extra = kept;
  }
  HeapTupleData tuple;
  tuple.t_len = HeapTupleHeaderGetDatumLength(row);
  ItemPointerSetInvalid(&tuple.t_self);
  tuple.t_tableOid = InvalidOid;
  tuple.t_data = row;
  heap_deform_tuple(&tuple, kept->shape, kept->values, kept->nulls);
  return UInt64GetDatum(kept->hasher(kept->values, kept->nulls));
}

}  // namespace
}  // namespace portage

PORTAGE_FUNCTION(portage_row_hash) {
  return portage::bridge::guarded([=] { return portage::row_hash_raw(fcinfo); });
}
