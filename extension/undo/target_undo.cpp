// See target_undo.hpp.
#include "undo/target_undo.hpp"

extern "C" {
#include "utils/datum.h"
}

namespace portage::undo {

using bridge::guarded;
using bridge::Result;
using load::BatchRow;
using load::Row;

TargetUndo::TargetUndo(Plan& plan, load::Writer& writer, std::vector<int> readable)
    : plan_(plan), target_(plan.target()), writer_(writer) {
  std::set<int> columns(readable.begin(), readable.end());
  columns.insert(plan.key().begin(), plan.key().end());
  batch_ = std::make_unique<load::BatchRelation>(target_, std::vector<int>(columns.begin(), columns.end()),
                                                 plan.key(), "portage_undo");
}

std::vector<BatchRow> TargetUndo::batch_rows(Batch& batch, const std::vector<const Row*>& rows) const {
  std::vector<BatchRow> result;
  for (const Row* row : rows) {
    auto* key = batch.arena.make_array<Datum>(plan_.key().size());
    for (size_t k = 0; k < plan_.key().size(); k++) key[k] = row->values[plan_.key()[k] - 1];
    result.push_back({row->values, row->nulls, key});
  }
  return result;
}

std::string TargetUndo::same_key(const std::string& table_alias, const std::string& batch_alias) const {
  std::string text;
  for (size_t k = 0; k < plan_.key().size(); k++) {
    const TargetColumn& column = target_.column(plan_.key()[k]);
    (text += k ? " AND " : "") += table_alias + "." + bridge::quoted(column.name) + " " +
                                  load::operator_text(load::equality_of(column.type)) + " " + batch_alias +
                                  ".k" + std::to_string(k + 1);
  }
  return text;
}

std::vector<bool> TargetUndo::remove(Batch& batch, const std::vector<const Row*>& rows,
                                     const DependantFinder::Deletions& dependants,
                                     const std::vector<BatchRow>& others) {
  std::vector<bool> removed(rows.size(), false);
  if (rows.empty()) return removed;
  if (dependants.with.empty() && others.empty()) removed = writer_.remove(rows);
  std::vector<const Row*> left;
  std::vector<size_t> positions;
  for (size_t i = 0; i < rows.size(); i++)
    if (!removed[i]) {
      left.push_back(rows[i]);
      positions.push_back(i);
    }
  if (left.empty()) return removed;
  std::vector<BatchRow> all = batch_rows(batch, left);
  all.insert(all.end(), others.begin(), others.end());
  bridge::ByIndex by_index(dependants.with.empty());
  Result result = batch_->run(dependants.with + "DELETE FROM " + target_.quoted_name() +
                                  " t USING portage_undo b WHERE " + same_key("t", "b") + " RETURNING b.o",
                              all);
  for (size_t i = 0; i < result.size(); i++)
    if (auto position = static_cast<size_t>(result.integer(i, 1)); position < left.size())
      removed[positions[position]] = true;
  return removed;
}

/// The columns' values from their texts; others are null. Names that are none of the target's are an error.
void TargetUndo::parse(Batch& batch, const Restore& row, Datum* values, bool* nulls) const {
  memset(nulls, true, static_cast<size_t>(target_.natts));
  bridge::PlainText plain;
  bridge::InMemory in(batch.memory.get());
  for (size_t c = 0; c < row.columns->size(); c++) {
    const TargetColumn* column = target_.column((*row.columns)[c]);
    if (!column)
      throw bridge::Error(
          ERRCODE_UNDEFINED_COLUMN,
          "column \"" + (*row.columns)[c] + "\" of the before-images is gone from " + target_.quoted_name())
          .hint(
              "Add the column again to take the run back, or drop what remains of it with "
              "portage.cleanup().");
    const std::optional<std::string>& text = (*row.before)[c];
    int index = column->attnum - 1;
    nulls[index] = !text;
    if (!text) continue;
    values[index] = bridge::input_value(column->type, column->typmod, *text);
  }
}

/// Rows that a statement has returned, as position and key: triggers may have had their say.
void TargetUndo::read_again(Batch& batch, const Result& result, const std::vector<Restore*>& rows) {
  std::vector<Restore*> written;
  std::vector<std::string_view> keys;
  for (size_t i = 0; i < result.size(); i++) {
    auto* datums = batch.arena.make_array<Datum>(static_cast<size_t>(target_.natts));
    auto* nulls = batch.arena.make_array<bool>(static_cast<size_t>(target_.natts));
    bridge::InMemory in(batch.memory.get());
    for (size_t k = 0; k < plan_.key().size(); k++) {
      const TargetColumn& column = target_.column(plan_.key()[k]);
      Datum value = result.datum(i, static_cast<int>(k) + 2);
      bool by_value = column.by_value;
      int length = column.length;
      datums[column.attnum - 1] = guarded([=] { return datumCopy(value, by_value, length); });
    }
    bridge::PlainText plain;
    keys.push_back(batch.arena.copy(plan_.key_text(datums, nulls)));
    written.push_back(rows[static_cast<size_t>(result.integer(i, 1))]);
  }
  std::vector<Row> after = writer_.find_by_key(batch, keys, false);
  for (size_t i = 0; i < written.size(); i++) written[i]->after = after[i];
}

void TargetUndo::restore(Batch& batch, std::vector<Restore>& rows) {
  // One statement per set of columns that changed together.
  std::map<std::vector<std::string>, std::vector<Restore*>> groups;
  for (Restore& row : rows) groups[*row.columns].push_back(&row);
  for (auto& [names, members] : groups) {
    std::vector<BatchRow> values;
    for (Restore* restore : members) {
      auto* datums = batch.arena.make_array<Datum>(static_cast<size_t>(target_.natts));
      auto* nulls = batch.arena.make_array<bool>(static_cast<size_t>(target_.natts));
      parse(batch, *restore, datums, nulls);
      auto* key = batch.arena.make_array<Datum>(plan_.key().size());
      for (size_t k = 0; k < plan_.key().size(); k++) key[k] = restore->row->values[plan_.key()[k] - 1];
      values.push_back({datums, nulls, key});
    }
    std::string set, returned;
    for (const std::string& name : names)
      (set += set.empty() ? "" : ", ") +=
          bridge::quoted(name) + " = b.c" + std::to_string(target_.column(name)->attnum);
    for (int attnum : plan_.key()) (returned += ", t.") += bridge::quoted(target_.column(attnum).name);
    bridge::ByIndex by_index;
    read_again(
        batch,
        batch_->run("UPDATE " + target_.quoted_name() + " t SET " + set + " FROM portage_undo b WHERE " +
                        same_key("t", "b") + " RETURNING b.o" + returned,
                    values),
        members);
  }
}

void TargetUndo::insert(Batch& batch, std::vector<Restore>& rows) {
  std::map<std::vector<std::string>, std::vector<Restore*>> groups;
  for (Restore& row : rows) groups[*row.columns].push_back(&row);
  for (auto& [names, members] : groups) {
    std::vector<BatchRow> values;
    std::vector<std::string_view> keys;
    for (Restore* restore : members) {
      auto* datums = batch.arena.make_array<Datum>(static_cast<size_t>(target_.natts));
      auto* nulls = batch.arena.make_array<bool>(static_cast<size_t>(target_.natts));
      parse(batch, *restore, datums, nulls);
      bridge::PlainText plain;
      keys.push_back(batch.arena.copy(plan_.key_text(datums, nulls)));
      values.push_back({datums, nulls, nullptr});
    }
    std::string columns, from;
    bool overriding = false;
    for (const std::string& name : names) {
      const TargetColumn& column = *target_.column(name);
      overriding |= column.identity == 'a';
      (columns += columns.empty() ? "" : ", ") += bridge::quoted(name);
      (from += from.empty() ? "" : ", ") += "b.c" + std::to_string(column.attnum);
    }
    batch_->run("INSERT INTO " + target_.quoted_name() + " (" + columns + ")" +
                    (overriding ? " OVERRIDING SYSTEM VALUE" : "") + " SELECT " + from +
                    " FROM portage_undo b",
                values);
    std::vector<Row> after = writer_.find_by_key(batch, keys, false);
    for (size_t i = 0; i < members.size(); i++) members[i]->after = after[i];
  }
}

std::vector<std::string> TargetUndo::taken(Batch& batch, const std::vector<Restore>& rows) {
  std::vector<std::string> keys(rows.size());
  if (rows.empty()) return keys;
  std::vector<BatchRow> values;
  for (const Restore& row : rows) {
    auto* datums = batch.arena.make_array<Datum>(static_cast<size_t>(target_.natts));
    auto* nulls = batch.arena.make_array<bool>(static_cast<size_t>(target_.natts));
    parse(batch, row, datums, nulls);
    if (row.row)  // the other columns stay as they are
      for (const TargetColumn& column : target_.columns) {
        int i = column.attnum - 1;
        if (std::find(row.columns->begin(), row.columns->end(), column.name) != row.columns->end()) continue;
        datums[i] = row.row->values[i];
        nulls[i] = row.row->nulls[i];
      }
    values.push_back({datums, nulls, nullptr});
  }
  std::string returned;
  for (int attnum : plan_.key()) (returned += ", t.") += bridge::quoted(target_.column(attnum).name);
  std::vector<std::vector<int>> uniques{plan_.key()};
  for (const UniqueIndex& index : target_.unique_indexes)
    if (!index.partial && !index.expressions && index.valid) uniques.push_back(index.attnums);
  for (const std::vector<int>& unique : uniques) {
    std::string same;
    for (int attnum : unique) {
      const TargetColumn& column = target_.column(attnum);
      (same += same.empty() ? "" : " AND ") += "t." + bridge::quoted(column.name) + " " +
                                               load::operator_text(load::equality_of(column.type)) + " b.c" +
                                               std::to_string(attnum);
    }
    bridge::ByIndex by_index;
    Result result = batch_->run(
        "SELECT b.o" + returned + " FROM portage_undo b JOIN " + target_.quoted_name() + " t ON " + same,
        values);
    for (size_t i = 0; i < result.size(); i++) {
      std::string& key = keys[static_cast<size_t>(result.integer(i, 1))];
      if (!key.empty()) continue;
      auto* datums = batch.arena.make_array<Datum>(static_cast<size_t>(target_.natts));
      auto* nulls = batch.arena.make_array<bool>(static_cast<size_t>(target_.natts));
      for (size_t k = 0; k < plan_.key().size(); k++)
        datums[plan_.key()[k] - 1] = result.datum(i, static_cast<int>(k) + 2);
      bridge::PlainText plain;
      std::string taker = plan_.key_text(datums, nulls);
      const Row* own = rows[static_cast<size_t>(result.integer(i, 1))].row;
      if (!own || own->key != taker) key = std::move(taker);
    }
  }
  return keys;
}

}  // namespace portage::undo
