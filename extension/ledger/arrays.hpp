// Arrays out of the ledger's results, and into its statements.
#pragma once

#include "bridge/spi.hpp"

namespace portage::ledger {

struct Elements {
  Datum* items;
  bool* nulls;
  int count;
};

inline Elements elements_of(Datum array, Oid type) {
  return bridge::guarded([=] {
    Elements e{};
    int16 length;
    bool by_value;
    char align;
    get_typlenbyvalalign(type, &length, &by_value, &align);
    deconstruct_array(DatumGetArrayTypeP(array), type, length, by_value, align, &e.items, &e.nulls, &e.count);
    return e;
  });
}

inline std::vector<std::optional<std::string>> texts_of(const bridge::Result& rows, size_t row, int column) {
  std::vector<std::optional<std::string>> texts;
  bool null;
  Datum array = rows.datum(row, column, &null);
  if (null) return texts;
  Elements e = elements_of(array, TEXTOID);
  for (int i = 0; i < e.count; i++)
    texts.push_back(e.nulls[i] ? std::nullopt : std::optional(bridge::string_of(e.items[i])));
  return texts;
}

inline std::vector<std::string> names_of(const bridge::Result& rows, size_t row, int column) {
  std::vector<std::string> names;
  for (auto& name : texts_of(rows, row, column)) names.push_back(name.value_or(""));
  return names;
}

/// Texts and nulls as a text[] parameter.
inline bridge::Param param_texts(const std::vector<std::optional<std::string>>& texts) {
  int count = static_cast<int>(texts.size());
  auto* items = bridge::guarded([=] { return static_cast<Datum*>(palloc0(sizeof(Datum) * (count + 1))); });
  auto* nulls = bridge::guarded([=] { return static_cast<bool*>(palloc0(count + 1)); });
  for (int i = 0; i < count; i++) {
    const std::optional<std::string>& text = texts[static_cast<size_t>(i)];
    nulls[i] = !text;
    if (text) items[i] = bridge::text_datum(*text);
  }
  Datum array = bridge::guarded([=] {
    int dims[1] = {count}, lower[1] = {1};
    return PointerGetDatum(
        construct_md_array(items, nulls, 1, dims, lower, TEXTOID, -1, false, TYPALIGN_INT));
  });
  return {TEXTARRAYOID, array, false};
}

/// Where rows are, for TID scans.
inline bridge::Param param_places(const std::vector<ItemPointerData>& places) {
  const ItemPointerData* first = places.data();
  int count = static_cast<int>(places.size());
  Datum array = bridge::guarded([=] {
    auto* items = static_cast<Datum*>(palloc(sizeof(Datum) * (count + 1)));
    for (int i = 0; i < count; i++) items[i] = PointerGetDatum(&first[i]);
    return PointerGetDatum(
        construct_array(items, count, TIDOID, sizeof(ItemPointerData), false, TYPALIGN_SHORT));
  });
  return {TIDARRAYOID, array, false};
}

inline bridge::Param param_bytea_array(const std::vector<std::string>& values) {
  int count = static_cast<int>(values.size());
  auto* items = bridge::guarded([=] { return static_cast<Datum*>(palloc(sizeof(Datum) * (count + 1))); });
  for (int i = 0; i < count; i++) items[i] = bridge::text_datum(values[static_cast<size_t>(i)]);
  Datum array = bridge::guarded(
      [=] { return PointerGetDatum(construct_array(items, count, BYTEAOID, -1, false, TYPALIGN_INT)); });
  return {BYTEAARRAYOID, array, false};
}

}  // namespace portage::ledger
