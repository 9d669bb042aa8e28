// The text by which the old world knows an item. Raw code, used by the passes of isolate.cpp.
#pragma once

#include "pipeline/isolate.hpp"

namespace portage {

/// What find_field_raw() does where the value is none that the item has itself.
bool find_other_field_raw(Work* work, const Source& source, const Item& item, formats::Field* field);

/// The value of a source for an item. Returns whether it is foreign, that is in the source's encoding.
inline bool find_field_raw(Work* work, const Source& source, const Item& item, formats::Field* field) {
  if (source.kind == ValueSource::Kind::path) {
    *field = item.record.fields[source.field];
    if (!source.has_fallback || (field->kind != formats::Kind::missing && field->kind != formats::Kind::null))
      return true;
  }
  return find_other_field_raw(work, source, item, field);
}

/// Sets the item's legacy id from its paths (unless an expression has given it). False: a part is missing or
/// null.
bool find_legacy_id_raw(Work* work, Item& item);

/// A legacy id as it is kept: above 1,024 bytes it becomes sha256: and hex. The text must live with the
/// batch.
std::string_view kept_legacy_id_raw(Work* work, const char* text, size_t size);

/// The JSON array text of several texts, piece by piece: as jsonb prints it.
void append_json_text_raw(StringInfo out, const char* text, size_t size);

}  // namespace portage
