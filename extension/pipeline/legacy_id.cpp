// See legacy_id.hpp.
#include "pipeline/legacy_id.hpp"

extern "C" {
#include "utils/fmgrprotos.h"
#include "utils/json.h"
}

namespace portage {
namespace {

using formats::Kind;

constexpr size_t longest_id = 1024;

/// One part of the id in the server's encoding; false if there is none.
bool id_part(Work* work, const Source& source, const Item& item, const char** text, size_t* size,
             bool* lasting) {
  formats::Field field;
  bool foreign = find_field_raw(work, source, item, &field);
  if (field.kind == Kind::missing || field.kind == Kind::null) return false;
  if (field.kind == Kind::json)
    ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("legacy id is not a scalar")));
  *size = field.text.size();
  *text = server_text_raw(&work->body->convert, field.text.data(), size, foreign);
  *lasting = foreign;  // fields and conversions live with the batch; variables do not
  return true;
}

}  // namespace

void append_json_text_raw(StringInfo out, const char* text, size_t size) {
  appendStringInfoString(out, out->len == 0 ? "[" : ", ");
  escape_json(out, pnstrdup(text, size));
}

void keep_legacy_id_raw(Work* work, Item& item, const char* text, size_t size) {
  if (size > longest_id) {
    MemoryContext previous = MemoryContextSwitchTo(work->memory);
    auto* bytes = cstring_to_text_with_len(text, static_cast<int>(size));
    bytea* hash = DatumGetByteaPP(DirectFunctionCall1(sha256_bytea, PointerGetDatum(bytes)));
    char* hex = static_cast<char*>(palloc(7 + 64 + 1));
    memcpy(hex, "sha256:", 7);
    hex_encode(VARDATA_ANY(hash), 32, hex + 7);
    pfree(bytes);
    text = hex;
    size = 7 + 64;
    MemoryContextSwitchTo(previous);
  }
  item.legacy_id = std::string_view(text, size);
}

bool find_legacy_id_raw(Work* work, Item& item) {
  const Plan::Body* body = work->body;
  size_t parts = body->legacy_id.size();
  if (parts == 0) return item.legacy_id.data() != nullptr;
  MemoryContext previous = MemoryContextSwitchTo(work->memory);
  const char* text;
  size_t size;
  bool lasting, found = true;
  if (parts == 1) {
    found = id_part(work, body->legacy_id[0], item, &text, &size, &lasting);
    if (found && !lasting) text = pnstrdup(text, size);
    if (found) keep_legacy_id_raw(work, item, text, size);
  } else {
    StringInfoData id;
    initStringInfo(&id);
    for (size_t i = 0; i < parts && found; i++) {
      found = id_part(work, body->legacy_id[i], item, &text, &size, &lasting);
      if (found) append_json_text_raw(&id, text, size);
    }
    appendStringInfoChar(&id, ']');
    if (found) keep_legacy_id_raw(work, item, id.data, static_cast<size_t>(id.len));
  }
  MemoryContextSwitchTo(previous);
  return found;
}

}  // namespace portage
