// See row_reader.hpp.
#include "load/row_reader.hpp"

#include "bridge/discretion.hpp"
#include "bridge/spi.hpp"

extern "C" {
#include "utils/datum.h"
}

namespace portage::load {

using bridge::guarded;

RowReader::RowReader(Plan& plan, const std::vector<int>& hash_columns, MemoryContext memory) : plan_(plan) {
  std::set<int> columns(hash_columns.begin(), hash_columns.end());
  columns.insert(plan.key().begin(), plan.key().end());
  columns.insert(plan.mapped().begin(), plan.mapped().end());
  columns.insert(plan.merge_reads().begin(), plan.merge_reads().end());
  columns_.assign(columns.begin(), columns.end());
  row_hasher_ = RowHasher::make(plan.target().shape, hash_columns, memory);
}

Row RowReader::empty_row(Batch& batch) const {
  size_t natts = static_cast<size_t>(plan_.target().natts);
  Row row;
  row.found = true;
  row.values = batch.arena.make_array<Datum>(natts);
  row.nulls = batch.arena.make_array<bool>(natts);
  memset(row.nulls, true, natts);
  return row;
}

void RowReader::finish(Batch& batch, Row& row) const {
  Row* r = &row;
  guarded([=, this] { r->row_hash = row_hasher_(r->values, r->nulls); });
  row.key = batch.arena.copy(plan_.key_text(row.values, row.nulls));
}

Row RowReader::read(Batch& batch, HeapTuple tuple, TupleDesc shape, int first_column) const {
  Row row = empty_row(batch);
  Row* r = &row;
  bridge::InMemory in(batch.memory.get());
  const int* columns = columns_.data();
  int count = static_cast<int>(columns_.size());
  guarded([=, this] {
    for (int i = 0; i < count; i++) {
      bool null;
      Datum value = heap_getattr(tuple, first_column + i, shape, &null);
      Form_pg_attribute attribute = TupleDescAttr(shape, first_column + i - 1);
      r->nulls[columns[i] - 1] = null;
      r->values[columns[i] - 1] = null ? 0 : datumCopy(value, attribute->attbyval, attribute->attlen);
    }
  });
  finish(batch, row);
  return row;
}

Row RowReader::read(Batch& batch, TupleTableSlot* slot) const {
  Row row = empty_row(batch);
  Row* r = &row;
  bridge::InMemory in(batch.memory.get());
  const int* columns = columns_.data();
  int count = static_cast<int>(columns_.size());
  guarded([=, this] {
    if (count > 0) slot_getsomeattrs(slot, columns[count - 1]);
    for (int i = 0; i < count; i++) {
      int index = columns[i] - 1;
      Form_pg_attribute attribute = TupleDescAttr(slot->tts_tupleDescriptor, index);
      r->nulls[index] = slot->tts_isnull[index];
      r->values[index] =
          r->nulls[index] ? 0 : datumCopy(slot->tts_values[index], attribute->attbyval, attribute->attlen);
    }
    bool null;
    r->xmin = DatumGetTransactionId(slot_getsysattr(slot, MinTransactionIdAttributeNumber, &null));
  });
  finish(batch, row);
  return row;
}

Datum* key_values(Batch& batch, const Plan& plan, std::string_view key) {
  const std::vector<int>& columns = plan.key();
  auto* values = batch.arena.make_array<Datum>(columns.size());
  std::vector<std::string> texts;
  if (columns.size() == 1) {
    texts.emplace_back(key);
  } else {
    static const bridge::Statement elements(
        "SELECT value FROM pg_catalog.json_array_elements_text($1::json) WITH ORDINALITY ORDER BY "
        "ordinality");
    bridge::Result parts = elements.run(key);
    for (size_t i = 0; i < parts.size(); i++) texts.push_back(parts.text(i, 1));
  }
  if (texts.size() != columns.size())
    throw bridge::Error(ERRCODE_DATA_EXCEPTION, "the recorded key \"" + bridge::quotable(key) +
                                                    "\" does not fit the key of " +
                                                    plan.target().quoted_name());
  bridge::InMemory in(batch.memory.get());
  for (size_t i = 0; i < texts.size(); i++) {
    const TargetColumn& column = plan.target().column(columns[i]);
    values[i] = bridge::input_value(column.type, column.typmod, texts[i]);
  }
  return values;
}

std::vector<int> inserted_columns(const Plan& plan) {
  std::set<int> columns(plan.mapped().begin(), plan.mapped().end());
  columns.insert(plan.early().begin(), plan.early().end());
  for (int attnum : plan.key())
    if (plan.target().column(attnum).has_default && !plan.target().column(attnum).generated)
      columns.insert(attnum);
  return {columns.begin(), columns.end()};
}

}  // namespace portage::load
