// See row_shape.hpp.
#include <nlohmann/json.hpp>

#include "pipeline/row_shape.hpp"

#include "bridge/subxact.hpp"

extern "C" {
#include "catalog/pg_enum.h"
#include "utils/catcache.h"
#include "utils/syscache.h"
}

namespace portage {

using bridge::guarded;
using Json = nlohmann::json;

namespace {

bool is_enum(Oid type) {
  return guarded([=] { return get_typtype(getBaseType(type)) == TYPTYPE_ENUM; });
}

/// The labels of an enum by their oids.
std::map<Oid, std::string> labels_of(Oid type) {
  struct Label {
    Oid oid;
    const char* text;
  };
  struct Labels {
    Label* all;
    int count;
  };
  Labels found = guarded([=] {
    CatCList* list = SearchSysCacheList1(ENUMTYPOIDNAME, ObjectIdGetDatum(getBaseType(type)));
    Labels labels{static_cast<Label*>(palloc(sizeof(Label) * (list->n_members + 1))), list->n_members};
    for (int i = 0; i < list->n_members; i++) {
      auto* form = reinterpret_cast<Form_pg_enum>(GETSTRUCT(&list->members[i]->tuple));
      labels.all[i] = {form->oid, pstrdup(NameStr(form->enumlabel))};
    }
    ReleaseCatCacheList(list);
    return labels;
  });
  std::map<Oid, std::string> labels;
  for (int i = 0; i < found.count; i++) labels[found.all[i].oid] = found.all[i].text;
  return labels;
}

bool type_exists(Oid type) {
  return guarded([=] { return SearchSysCacheExists1(TYPEOID, ObjectIdGetDatum(type)); });
}

}  // namespace

std::string row_shape(const Target& target, const std::vector<std::string>& columns,
                      const std::vector<int>& mapped) {
  Json shape{{"table", target.oid}};
  Json& all = shape["columns"] = Json::array();
  for (int attnum : target.attnums(columns)) {
    const TargetColumn& column = target.column(attnum);
    bool is_mapped = std::binary_search(mapped.begin(), mapped.end(), attnum);
    all.push_back({attnum, column.type, column.typmod, is_mapped ? 1 : 0});
    if (!is_enum(column.type)) continue;
    for (const auto& [oid, label] : labels_of(column.type)) shape["labels"][std::to_string(oid)] = label;
  }
  return shape.dump();
}

RowShape::RowShape(const Target& target, const std::string& text, const std::vector<std::string>& names,
                   const std::vector<std::string>& columns)
    : memory_("portage row shape", PortalContext ? PortalContext : CurrentMemoryContext) {
  Json shape = Json::parse(text);
  bool same_table = shape["table"].get<Oid>() == target.oid;
  std::vector<int> mapped;
  size_t n = 0;
  for (const Json& recorded : shape["columns"]) {
    Column column;
    column.then = recorded[0].get<int>();
    column.name = n < names.size() ? names[n] : "";
    column.type = recorded[1].get<Oid>();
    column.typmod = recorded[2].get<int32_t>();
    column.mapped = recorded[3].get<int>() != 0;
    n++;
    const TargetColumn* now = nullptr;
    if (!same_table)  // restored: by its name, and its type, which may have another oid
      now = target.column(column.name);
    else if (column.then <= target.natts && !target.column(column.then).dropped)
      now = &target.column(column.then);
    if (now && std::find(columns.begin(), columns.end(), now->name) == columns.end()) now = nullptr;
    if (now) {
      column.index = now->attnum - 1;
      column.type_now = now->type;
      if (!same_table && column.type >= FirstNormalObjectId) column.type = now->type;
      column.convert = column.type != now->type || column.typmod != now->typmod;
      if (!type_exists(column.type)) now = nullptr;
    }
    if (now && same_table && is_enum(column.type) && shape.contains("labels"))
      for (const auto& [oid, label] : labels_of(column.type)) {
        auto before = shape["labels"].find(std::to_string(oid));
        if (before != shape["labels"].end() && *before != label) labels_[oid] = before->get<std::string>();
      }
    if (!now) {
      whole_ = false;
      if (column.mapped) mapped_whole_ = false;
      column.index = -1;
    }
    columns_.push_back(std::move(column));
  }
  bridge::InMemory in(memory_.get());
  int count = static_cast<int>(columns_.size());
  TupleDesc then = guarded([=] { return CreateTemplateTupleDesc(count); });
  std::vector<int> all;
  for (int i = 0; i < count; i++) {
    const Column& column = columns_[static_cast<size_t>(i)];
    // A renamed label is hashed as the text that it was.
    Oid type = column.index < 0 ? TEXTOID : !labels_.empty() && is_enum(column.type) ? TEXTOID : column.type;
    int32_t typmod = type == column.type ? column.typmod : -1;
    guarded([=] { TupleDescInitEntry(then, static_cast<AttrNumber>(i + 1), nullptr, type, typmod, 0); });
    all.push_back(i + 1);
    if (column.mapped) mapped.push_back(i + 1);
  }
  if (mapped.empty()) mapped_whole_ = false;
  altered_ = !labels_.empty() ||
             std::any_of(columns_.begin(), columns_.end(), [](const Column& c) { return c.convert; });
  rows_ = RowHasher::make(then, all, memory_.get());
  sources_ = RowHasher::make(then, mapped, memory_.get());
}

const TargetColumn* RowShape::column_now(const Target& target, const std::string& name_then) const {
  for (const Column& column : columns_)
    if (column.name == name_then) return column.index < 0 ? nullptr : &target.column(column.index + 1);
  return nullptr;
}

std::string RowShape::text_now(const TargetColumn& now, const std::string& text_then) const {
  auto column = std::find_if(columns_.begin(), columns_.end(),
                             [&](const Column& c) { return c.index == now.attnum - 1; });
  if (column == columns_.end()) return text_then;
  if (is_enum(column->type))
    for (const auto& [oid, label] : labels_)
      if (label == text_then) return bridge::output_text(now.type, ObjectIdGetDatum(oid));
  if (!column->convert) return text_then;
  std::string text = text_then;
  std::optional<bridge::Error> error = bridge::attempt([&] {
    bridge::PlainText plain;
    text = bridge::output_text(now.type, bridge::input_value(now.type, now.typmod, text_then));
  });
  if (error && bridge::concerns_whole_batch(error->code())) throw *error;
  return error ? text_then : text;
}

std::vector<std::string> RowShape::gone() const {
  std::vector<std::string> names;
  for (const Column& column : columns_)
    if (column.index < 0) names.push_back(column.name);
  return names;
}

std::vector<int> RowShape::attnums() const {
  std::vector<int> attnums;
  for (const Column& column : columns_)
    if (column.index >= 0) attnums.push_back(column.index + 1);
  std::sort(attnums.begin(), attnums.end());
  return attnums;
}

Datum RowShape::value_then(const Column& column, Datum value) const {
  if (!labels_.empty() && is_enum(column.type)) {
    auto renamed = labels_.find(DatumGetObjectId(value));
    return bridge::text_datum(renamed != labels_.end() ? renamed->second
                                                       : bridge::output_text(column.type_now, value));
  }
  if (!column.convert) return value;
  return bridge::input_value(column.type, column.typmod, bridge::output_text(column.type_now, value));
}

std::optional<uint64_t> RowShape::hash(const RowHasher& hasher, const Datum* values,
                                       const bool* nulls) const {
  bridge::Memory scratch("portage row hash");
  bridge::InMemory in(scratch.get());
  std::vector<Datum> then(columns_.size(), 0);
  auto null = std::make_unique<bool[]>(columns_.size());
  bool any = std::any_of(columns_.begin(), columns_.end(), [](const Column& c) { return c.convert; });
  auto fill = [&] {
    bridge::PlainText plain;
    for (size_t i = 0; i < columns_.size(); i++) {
      const Column& column = columns_[i];
      null[i] = column.index < 0 || nulls[column.index];
      if (!null[i]) then[i] = value_then(column, values[column.index]);
    }
  };
  if (any) {
    // A value that the column's old type does not take was not there then.
    if (std::optional<bridge::Error> error = bridge::attempt(fill)) {
      if (bridge::concerns_whole_batch(error->code())) throw *error;
      return std::nullopt;
    }
  } else {
    fill();
  }
  const RowHasher* h = &hasher;
  const Datum* v = then.data();
  const bool* n = null.get();
  return guarded([=] { return (*h)(v, n); });
}

}  // namespace portage
