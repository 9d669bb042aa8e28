// See convert.hpp. Raw code throughout. The short ways for single types are in fast_convert.cpp; what they
// decline goes to the input function, so that results and errors are always its own.
#include "pipeline/convert.hpp"
#include "pipeline/fast_convert.hpp"

extern "C" {
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "utils/fmgroids.h"
#include "utils/json.h"
}

namespace portage {
namespace {

using formats::Kind;

ConvertKind kind_of(Oid base, int32 typmod) {
  switch (base) {
    case BOOLOID:
      return ConvertKind::boolean;
    case INT2OID:
      return ConvertKind::int2;
    case INT4OID:
      return ConvertKind::int4;
    case INT8OID:
      return ConvertKind::int8;
    case FLOAT4OID:
      return ConvertKind::float4;
    case FLOAT8OID:
      return ConvertKind::float8;
    case NUMERICOID:
      return typmod < 0 ? ConvertKind::numeric : ConvertKind::input;
    case TEXTOID:
      return ConvertKind::text;
    case VARCHAROID:
      return ConvertKind::varchar;
    case DATEOID:
      return ConvertKind::date;
    case TIMESTAMPOID:
      return typmod < 0 ? ConvertKind::timestamp : ConvertKind::input;
    case TIMESTAMPTZOID:
      return typmod < 0 ? ConvertKind::timestamptz : ConvertKind::input;
    case UUIDOID:
      return ConvertKind::uuid;
    case JSONOID:
      return ConvertKind::json;
    case JSONBOID:
      return ConvertKind::jsonb;
    default:
      break;
  }
  bool structured = OidIsValid(get_element_type(base)) || get_typtype(base) == TYPTYPE_COMPOSITE;
  return structured ? ConvertKind::structured : ConvertKind::input;
}

/// json_populate_record is the one public way to PostgreSQL's own conversion of JSON arrays and objects; it
/// wants a row, so that each value is wrapped in one.
void prepare_structured(Converter* converter, Oid type, int32 typmod) {
  TupleDesc shape = CreateTemplateTupleDesc(1);
  TupleDescInitEntry(shape, 1, converter->name, type, typmod, 0);
  TupleDescInitEntryCollation(shape, 1, get_typcollation(type));
  converter->wrapper = BlessTupleDesc(shape);
  Datum value = 0;
  bool null = true;
  converter->empty_row = HeapTupleGetDatum(heap_form_tuple(converter->wrapper, &value, &null));
  fmgr_info_cxt(F_JSON_POPULATE_RECORD, &converter->populate, converter->context);
  List* arguments = list_make3(makeNullConst(RECORDOID, -1, InvalidOid),
                               makeNullConst(JSONOID, -1, InvalidOid), makeBoolConst(false, false));
  fmgr_info_set_expr(reinterpret_cast<Node*>(makeFuncExpr(F_JSON_POPULATE_RECORD, RECORDOID, arguments,
                                                          InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL)),
                     &converter->populate);
}

void append_json_string(StringInfo out, const char* text, size_t size) {
  appendStringInfoChar(out, '"');
  for (size_t i = 0; i < size; i++) {
    unsigned char c = static_cast<unsigned char>(text[i]);
    if (c == '"' || c == '\\') {
      appendStringInfoChar(out, '\\');
      appendStringInfoChar(out, static_cast<char>(c));
    } else if (c < ' ') {
      appendStringInfo(out, "\\u%04x", c);
    } else {
      appendStringInfoChar(out, static_cast<char>(c));
    }
  }
  appendStringInfoChar(out, '"');
}

bool is_ascii(const char* text, size_t size) {
  for (size_t i = 0; i < size; i++)
    if (IS_HIGHBIT_SET(text[i])) return false;
  return true;
}

/// In the server's encoding; NUL bytes are left to the caller.
const char* encoded_raw(ConvertContext* context, const char* text, size_t* size, bool foreign) {
  if (!foreign) return text;
  if (context->encoding == context->server_encoding) {
    // Readers validate UTF-8 only; any other encoding is judged here.
    if (context->encoding != PG_UTF8) (void)pg_verifymbstr(text, static_cast<int>(*size), false);
    return text;
  }
  if (is_ascii(text, *size)) return text;
  char* converted = pg_any_to_server(text, static_cast<int>(*size), context->encoding);
  if (converted != text) *size = strlen(converted);
  return converted;
}

void refuse_nul(const ConvertContext* context) {
  if (context->is_json)
    ereport(ERROR, (errcode(ERRCODE_UNTRANSLATABLE_CHARACTER), errmsg("unsupported Unicode escape sequence"),
                    errdetail("\\u0000 cannot be converted to text.")));
  ereport(ERROR, (errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
                  errmsg("invalid byte sequence for encoding \"%s\": 0x00", GetDatabaseEncodingName())));
}

/// The input function needs a C string.
const char* c_string(ConvertContext* context, const char* text, size_t size) {
  resetStringInfo(&context->scratch);
  appendBinaryStringInfo(&context->scratch, text, static_cast<int>(size));
  return context->scratch.data;
}

Datum structured_raw(Converter* converter, ConvertContext* context, const char* text, size_t size,
                     bool* null) {
  StringInfo row = &context->scratch;
  resetStringInfo(row);
  row->len = VARHDRSZ;
  row->data[VARHDRSZ] = '\0';
  appendStringInfoChar(row, '{');
  append_json_string(row, converter->name, strlen(converter->name));
  appendStringInfoChar(row, ':');
  appendBinaryStringInfo(row, text, static_cast<int>(size));
  appendStringInfoChar(row, '}');
  SET_VARSIZE(row->data, row->len);
  Datum filled = FunctionCall3(&converter->populate, converter->empty_row, PointerGetDatum(row->data),
                               BoolGetDatum(false));
  HeapTupleHeader header = DatumGetHeapTupleHeader(filled);
  HeapTupleData tuple;
  tuple.t_len = HeapTupleHeaderGetDatumLength(header);
  ItemPointerSetInvalid(&tuple.t_self);
  tuple.t_tableOid = InvalidOid;
  tuple.t_data = header;
  return heap_getattr(&tuple, 1, converter->wrapper, null);  // points into the row, in the same context
}

Datum input_raw(Converter* converter, ConvertContext* context, const char* text, size_t size) {
  if (memchr(text, 0, size)) refuse_nul(context);
  // The scratch buffer may be the very text (a JSON string that was just quoted); it ends in NUL then.
  const char* c = text == context->scratch.data ? text : c_string(context, text, size);
  Datum value =
      InputFunctionCall(&converter->input, const_cast<char*>(c), converter->io_param, converter->typmod);
  if (converter->watch_order && is_ambiguous_date({c, size}) && context->ambiguous < PG_UINT16_MAX)
    context->ambiguous++;
  return value;
}

}  // namespace

bool is_ambiguous_date(std::string_view text) {
  int parts[3], lengths[3];
  size_t at = 0;
  while (at < text.size() && text[at] == ' ') at++;
  char separator = 0;
  for (int i = 0; i < 3; i++) {
    parts[i] = lengths[i] = 0;
    for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; at++)
      if (++lengths[i] < 5) parts[i] = parts[i] * 10 + (text[at] - '0');
    if (lengths[i] == 0 || lengths[i] > (i < 2 ? 2 : 4)) return false;
    if (i == 2) break;
    if (at == text.size() || (text[at] != '/' && text[at] != '.' && text[at] != '-')) return false;
    if (i == 1 && text[at] != separator) return false;
    separator = text[at++];
  }
  // Each order as day, month, year; a year of more than two digits can only be the last.
  const int orders[3][3] = {{0, 1, 2}, {1, 0, 2}, {2, 1, 0}};
  const int* first = nullptr;
  for (int i = 0; i < (lengths[2] > 2 ? 2 : 3); i++) {
    const int* order = orders[i];
    int day = parts[order[0]], month = parts[order[1]];
    if (day < 1 || day > 31 || month < 1 || month > 12) continue;
    if (!first)
      first = order;
    else if (day != parts[first[0]] || month != parts[first[1]] || parts[order[2]] != parts[first[2]])
      return true;
  }
  return false;
}

bool is_dated_raw(Oid type) {
  Oid base = getBaseType(type);
  return base == DATEOID || base == TIMESTAMPOID || base == TIMESTAMPTZOID;
}

Converter make_converter_raw(Oid type, int32 typmod, const char* name, MemoryContext context) {
  MemoryContext previous = MemoryContextSwitchTo(context);
  Converter converter;
  memset(&converter, 0, sizeof converter);
  converter.type = type;
  converter.typmod = typmod;
  converter.name = name;
  converter.context = context;
  int32 base_typmod = typmod;
  Oid base = getBaseTypeAndTypmod(type, &base_typmod);
  converter.is_domain = base != type;
  converter.kind = kind_of(base, base_typmod);
  // A domain's own typmod, say of a domain over varchar(3), is known to its input function only.
  if (converter.is_domain && base_typmod >= 0 && converter.kind != ConvertKind::structured)
    converter.kind = ConvertKind::input;
  Oid input;
  getTypeInputInfo(type, &input, &converter.io_param);
  fmgr_info_cxt(input, &converter.input, context);
  if (converter.kind == ConvertKind::structured) prepare_structured(&converter, type, typmod);
  MemoryContextSwitchTo(previous);
  return converter;
}

const char* server_text_raw(ConvertContext* context, const char* text, size_t* size, bool foreign) {
  text = encoded_raw(context, text, size, foreign);
  if (memchr(text, 0, *size)) refuse_nul(context);
  return text;
}

Datum convert_raw(Converter* converter, ConvertContext* context, Kind kind, const char* text, size_t size,
                  bool foreign, bool* null) {
  *null = kind == Kind::missing || kind == Kind::null;
  if (*null) {
    if (converter->is_domain)
      domain_check(0, true, converter->type, &converter->domain_cache, converter->context);
    return 0;
  }
  if (kind == Kind::string || kind == Kind::json) text = encoded_raw(context, text, &size, foreign);
  switch (converter->kind) {
    case ConvertKind::structured:
      if (kind == Kind::json) return structured_raw(converter, context, text, size, null);
      return input_raw(converter, context, text, size);
    case ConvertKind::json:
    case ConvertKind::jsonb:
      if (kind == Kind::string && (!foreign || context->is_json)) {
        StringInfo quoted = &context->scratch;
        resetStringInfo(quoted);
        append_json_string(quoted, text, size);
        return input_raw(converter, context, quoted->data, quoted->len);
      }
      return input_raw(converter, context, text, size);
    case ConvertKind::input:
      return input_raw(converter, context, text, size);
    default: {
      Datum value;
      if (!fast_convert_raw(converter->kind, converter->typmod, text, size, &value))
        return input_raw(converter, context, text, size);
      if (converter->is_domain)
        domain_check(value, false, converter->type, &converter->domain_cache, converter->context);
      return value;
    }
  }
}

}  // namespace portage
