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
  bool plain = true;
  for (size_t i = 0; i < size && plain; i++)
    plain = static_cast<unsigned char>(text[i]) >= ' ' && text[i] != '"' && text[i] != '\\';
  if (!plain) {
    appendStringInfoString(out, out->len == 0 ? "[" : ", ");
    escape_json(out, pnstrdup(text, size));
    return;
  }
  enlargeStringInfo(out, static_cast<int>(size) + 4);
  char* at = out->data + out->len;
  if (out->len == 0) {
    *at++ = '[';
  } else {
    *at++ = ',';
    *at++ = ' ';
  }
  *at++ = '"';
  memcpy(at, text, size);
  at += size;
  *at++ = '"';
  *at = '\0';
  out->len = static_cast<int>(at - out->data);
}

std::string_view kept_legacy_id_raw(Work* work, const char* text, size_t size) {
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
  return std::string_view(text, size);
}

__attribute__((noinline)) Stop referred_ids_raw(Work* work) {
  const MappedColumn* column = work->body->referring[work->reference];
  MemoryContext previous = MemoryContextSwitchTo(work->memory);
  for (; work->item < work->count; work->item++, work->step = 0) {
    ItemState& state = work->states[work->item];
    if (!state.active || work->step > 0) continue;
    const char* text;
    size_t size;
    bool lasting;
    if (!id_part(work, column->source, *work->items[work->item], &text, &size, &lasting)) continue;
    if (!lasting) text = pnstrdup(text, size);
    work->ids[work->item] = kept_legacy_id_raw(work, text, size);
  }
  MemoryContextSwitchTo(previous);
  return Stop::done;
}

__attribute__((noinline)) Stop take_keys_raw(Work* work) {
  MappedColumn* column = work->body->referring[work->reference];
  MemoryContext previous = MemoryContextSwitchTo(work->memory);
  for (; work->item < work->count; work->item++, work->step = 0) {
    ItemState& state = work->states[work->item];
    if (!state.active || (state.failed & column->bit) || work->step > 0) continue;
    Item& item = *work->items[work->item];
    std::string_view key = work->keys[work->item];
    bool null;
    Datum value = convert_raw(&column->converter, &work->body->convert,
                              key.data() ? formats::Kind::string : formats::Kind::null, key.data(),
                              key.size(), false, &null);
    item.values[column->attnum - 1] = value;
    item.nulls[column->attnum - 1] = null;
  }
  MemoryContextSwitchTo(previous);
  return Stop::done;
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
    if (found) item.legacy_id = kept_legacy_id_raw(work, text, size);
  } else {
    StringInfo id = &work->body->convert.scratch;
    resetStringInfo(id);
    for (size_t i = 0; i < parts && found; i++) {
      found = id_part(work, body->legacy_id[i], item, &text, &size, &lasting);
      if (found) append_json_text_raw(id, text, size);
    }
    appendStringInfoChar(id, ']');
    size = static_cast<size_t>(id->len);
    if (found)
      item.legacy_id =
          kept_legacy_id_raw(work, size > longest_id ? id->data : pnstrdup(id->data, size), size);
  }
  MemoryContextSwitchTo(previous);
  return found;
}

}  // namespace portage
