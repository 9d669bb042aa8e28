// One scalar or JSON text to one Datum of a type: what the type's input function would make of it, by shorter
// ways where these are certain to agree. Knows nothing of items, columns' names excepted, or of where texts
// come from.
#pragma once

#include "formats/record.hpp"

#include "bridge/scope.hpp"

namespace portage {

enum class ConvertKind : uint8_t {
  boolean,
  int2,
  int4,
  int8,
  float4,
  float8,
  numeric,
  text,
  varchar,
  date,
  timestamp,
  timestamptz,
  uuid,
  json,
  jsonb,
  structured,  ///< arrays and composites: JSON through json_populate_record
  input        ///< everything else
};

/// How to make values of one type. Plain; lives in the plan's memory.
struct Converter {
  ConvertKind kind;
  Oid type;  ///< as declared
  int32 typmod;
  bool is_domain;
  bool watch_order;  ///< count texts that are one date by DateStyle, and another by another
  FmgrInfo input;    ///< of the declared type: knows domains and typmods
  Oid io_param;
  void* domain_cache;
  MemoryContext context;
  // structured
  const char* name;  ///< the column's, for PostgreSQL's hints
  FmgrInfo populate;
  TupleDesc wrapper;  ///< a row of one column of the type
  Datum empty_row;
};

/// What holds for all values of a batch.
struct ConvertContext {
  int encoding;  ///< of the texts, if they are foreign
  int server_encoding;
  bool is_json;        ///< strings of the source are JSON strings
  uint16_t ambiguous;  ///< texts so far that were counted as Converter::watch_order says
  StringInfoData scratch;
};

/// Whether a text begins with a date whose day, month and year can be told apart by DateStyle only:
/// 01/02/2014.
bool is_ambiguous_date(std::string_view text);
/// Whether values of the type are dates, with a time or without.
bool is_dated_raw(Oid type);

/// Raw code. `name` must live as long as the context.
Converter make_converter_raw(Oid type, int32 typmod, const char* name, MemoryContext context);

/// Raw code: the Datum in the current memory context. Null for missing and null; a domain judges these, too.
/// `foreign`: the text comes from the source and is in its encoding, else it is our own.
Datum convert_raw(Converter* converter, ConvertContext* context, formats::Kind kind, const char* text,
                  size_t size, bool foreign, bool* null);

/// Raw code: the text in the server's encoding, not copied when it already is; no NUL bytes afterwards.
const char* server_text_raw(ConvertContext* context, const char* text, size_t* size, bool foreign);

}  // namespace portage
