// See image.hpp.
#include "load/image.hpp"

#include "bridge/spi.hpp"

extern "C" {
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
}

namespace portage::load {

using bridge::guarded;

Image::Image(std::string_view literal) {
  if (literal.data() == nullptr) return;
  bridge::PlainText plain;
  Datum array = bridge::input_value(TEXTARRAYOID, -1, std::string(literal));
  struct Elements {
    Datum* items;
    bool* nulls;
    int count;
  };
  Elements e = guarded([=] {
    Elements found{};
    deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT, &found.items, &found.nulls,
                      &found.count);
    return found;
  });
  auto value = [&](int i) {
    return e.nulls[i] ? std::nullopt : std::optional(bridge::string_of(e.items[i]));
  };
  for (int i = 0; i + 2 < e.count; i += 3)
    columns_.push_back({value(i).value_or(""), value(i + 1), value(i + 2)});
}

const Image::Column* Image::find(const std::string& name) const {
  for (const Column& column : columns_)
    if (column.name == name) return &column;
  return nullptr;
}

std::optional<std::string> image_text(const TargetColumn& column, const Datum* values, const bool* nulls) {
  if (nulls[column.attnum - 1]) return std::nullopt;
  return bridge::output_text(column.type, values[column.attnum - 1]);
}

Datum make_image(const Plan& plan, const Datum* stored, const bool* stored_nulls, const Datum* came,
                 const bool* came_nulls) {
  size_t count = plan.mapped().size();
  auto* items = guarded([=] { return static_cast<Datum*>(palloc(sizeof(Datum) * 3 * (count + 1))); });
  auto* nulls = guarded([=] { return static_cast<bool*>(palloc0(3 * (count + 1))); });
  size_t i = 0;
  bridge::PlainText plain;
  for (int attnum : plan.mapped()) {
    const TargetColumn& column = plan.target().column(attnum);
    items[i++] = bridge::text_datum(column.name);
    for (const std::optional<std::string>& text :
         {image_text(column, stored, stored_nulls), image_text(column, came, came_nulls)}) {
      nulls[i] = !text;
      items[i] = text ? bridge::text_datum(*text) : 0;
      i++;
    }
  }
  int dim = static_cast<int>(count);
  return guarded([=] {
    int dims[2] = {dim, 3}, lower[2] = {1, 1};
    return PointerGetDatum(
        construct_md_array(items, nulls, 2, dims, lower, TEXTOID, -1, false, TYPALIGN_INT));
  });
}

Datum row_json(const Plan& plan, const Datum* values, const bool* nulls) {
  TupleDesc shape = plan.target().shape;
  const int* mapped = plan.mapped().data();
  int count = static_cast<int>(plan.mapped().size());
  bridge::PlainText plain;
  return guarded([=] {
    TupleDesc columns = CreateTemplateTupleDesc(count);
    auto* v = static_cast<Datum*>(palloc(sizeof(Datum) * count));
    auto* n = static_cast<bool*>(palloc(sizeof(bool) * count));
    for (int i = 0; i < count; i++) {
      TupleDescCopyEntry(columns, static_cast<AttrNumber>(i + 1), shape, static_cast<AttrNumber>(mapped[i]));
      v[i] = values[mapped[i] - 1];
      n[i] = nulls[mapped[i] - 1];
    }
    Datum row = HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(columns), v, n));
    char* json = TextDatumGetCString(DirectFunctionCall1(row_to_json, row));
    return DirectFunctionCall1(jsonb_in, CStringGetDatum(json));
  });
}

void came_values(const Plan& plan, const Image& image, Batch& batch, Datum* values, bool* nulls) {
  bridge::InMemory in(batch.memory.get());
  bridge::PlainText plain;
  for (int attnum : plan.mapped()) {
    const TargetColumn& column = plan.target().column(attnum);
    const Image::Column* known = image.find(column.name);
    if (!known || !known->came) continue;
    values[attnum - 1] = bridge::input_value(column.type, column.typmod, *known->came);
    nulls[attnum - 1] = false;
  }
}

}  // namespace portage::load
