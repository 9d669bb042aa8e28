// See type_hasher.hpp. Raw code throughout.
#include "pipeline/type_hasher.hpp"

namespace portage {
namespace {

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

}  // namespace

TypeHasher* type_hasher_raw(Oid type, MemoryContext context, HashNeeds* needs) {
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

}  // namespace portage
