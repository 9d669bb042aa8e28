// See batch_relation.hpp. A new tuplestore per statement: the scan of one never frees its read pointer,
// so that one that served many statements would grow slower with each.
#include "load/batch_relation.hpp"

extern "C" {
#include "catalog/pg_operator.h"
}

namespace portage::load {

using bridge::guarded;

BatchRelation::BatchRelation(const Target& target, std::vector<int> columns, std::vector<int> key,
                             const char* name)
    : columns_(std::move(columns)), key_(std::move(key)) {
  MemoryContext connection = bridge::Spi::memory();
  memory_ = guarded(
      [=] { return AllocSetContextCreate(connection, "portage batch relation", ALLOCSET_SMALL_SIZES); });
  bridge::InMemory in(memory_);
  int count = static_cast<int>(1 + key_.size() + columns_.size());
  TupleDesc shape = guarded([=] { return CreateTemplateTupleDesc(count); });
  auto define = [&](int number, const std::string& name, Oid type, int32_t typmod, Oid collation) {
    const char* text = name.c_str();
    guarded([=] {
      TupleDescInitEntry(shape, static_cast<AttrNumber>(number), text, type, typmod, 0);
      TupleDescInitEntryCollation(shape, static_cast<AttrNumber>(number), collation);
    });
  };
  define(1, "o", INT4OID, -1, InvalidOid);
  int number = 2;
  for (size_t i = 0; i < key_.size(); i++) {
    const TargetColumn& column = target.column(key_[i]);
    define(number++, "k" + std::to_string(i + 1), column.type, column.typmod, column.collation);
  }
  for (int attnum : columns_) {
    const TargetColumn& column = target.column(attnum);
    define(number++, "c" + std::to_string(attnum), column.type, column.typmod, column.collation);
  }
  relation_ = guarded([=] {
    auto* enr = static_cast<EphemeralNamedRelation>(palloc0(sizeof(EphemeralNamedRelationData)));
    enr->md.name = pstrdup(name);
    enr->md.reliddesc = InvalidOid;
    enr->md.tupdesc = shape;
    enr->md.enrtype = ENR_NAMED_TUPLESTORE;
    enr->md.enrtuples = 1000;
    return enr;
  });
}

BatchRelation::~BatchRelation() {
  try {
    for (auto& [sql, plan] : plans_) {
      SPIPlanPtr p = plan;
      guarded([=] { SPI_freeplan(p); });
    }
    // On the way out of an error SPI may stand in a trigger's connection: ours keeps the relation, empty,
    // until the next one takes its name, or the connection ends.
    if (bridge::unwinding()) return;
    const char* name = relation_->md.name;
    guarded([=] { (void)SPI_unregister_relation(name); });
    MemoryContextDelete(memory_);
  } catch (...) {
    // The end of the connection frees what is left.
  }
}

BatchRelation::Filling::Filling(EphemeralNamedRelation relation, Tuplestorestate* store)
    : relation_(relation), store_(store) {
  relation_->reldata = store;
  // SPI makes its list of relations in the current context, and keeps it as long as the connection lasts.
  bridge::InMemory in(bridge::Spi::memory());
  guarded([=] {
    SPI_unregister_relation(relation->md.name);
    int code = SPI_register_relation(relation);
    if (code != SPI_OK_REL_REGISTER)
      elog(ERROR, "SPI_register_relation failed: %s", SPI_result_code_string(code));
  });
}

BatchRelation::Filling::~Filling() {
  relation_->reldata = nullptr;
  try {
    Tuplestorestate* store = store_;
    guarded([=] { tuplestore_end(store); });
  } catch (...) {
    // It could not write what nobody will read.
  }
}

std::unique_ptr<BatchRelation::Filling> BatchRelation::fill(const std::vector<BatchRow>& rows) {
  TupleDesc shape = relation_->md.tupdesc;
  int width = shape->natts, keys = static_cast<int>(key_.size());
  const int* columns = columns_.data();
  int column_count = static_cast<int>(columns_.size());
  auto* store = guarded([] { return tuplestore_begin_heap(false, false, std::max(work_mem, 64 * 1024)); });
  auto filling = std::make_unique<Filling>(relation_, store);
  const BatchRow* first = rows.data();
  int count = static_cast<int>(rows.size());
  guarded([=] {
    auto* values = static_cast<Datum*>(palloc(sizeof(Datum) * width));
    auto* nulls = static_cast<bool*>(palloc(sizeof(bool) * width));
    for (int i = 0; i < count; i++) {
      const BatchRow& row = first[i];
      values[0] = Int32GetDatum(i);
      nulls[0] = false;
      for (int k = 0; k < keys; k++) {
        nulls[1 + k] = row.key == nullptr;
        values[1 + k] = row.key ? row.key[k] : 0;
      }
      for (int c = 0; c < column_count; c++) {
        int index = columns[c] - 1;
        nulls[1 + keys + c] = row.values == nullptr || row.nulls[index];
        values[1 + keys + c] = row.values ? row.values[index] : 0;
      }
      tuplestore_putvalues(store, shape, values, nulls);
    }
  });
  relation_->md.enrtuples = count;
  return filling;
}

bridge::Result BatchRelation::run(const std::string& sql, const std::vector<BatchRow>& rows) {
  std::unique_ptr<Filling> filling = fill(rows);
  SPIPlanPtr& plan = plans_[sql];
  if (!plan) {
    const char* text = sql.c_str();
    plan = guarded([=] {
      SPIPlanPtr made = SPI_prepare(text, 0, nullptr);
      if (!made) elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
      SPI_keepplan(made);
      return made;
    });
  }
  SPIPlanPtr ready = plan;
  int code = guarded([=] { return SPI_execute_plan(ready, nullptr, nullptr, false, 0); });
  bridge::Result result(SPI_tuptable, SPI_processed);
  SPI_tuptable = nullptr;
  if (code < 0)
    throw bridge::Error(ERRCODE_INTERNAL_ERROR,
                        bridge::format("SPI failed: %s", SPI_result_code_string(code)));
  return result;
}

std::string operator_text(Oid op) {
  struct Names {
    char* schema;
    char* name;
  };
  Names names = guarded([=] {
    HeapTuple tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(op));
    if (!HeapTupleIsValid(tuple)) elog(ERROR, "cache lookup failed for operator %u", op);
    auto* form = reinterpret_cast<Form_pg_operator>(GETSTRUCT(tuple));
    Names found{get_namespace_name(form->oprnamespace), pstrdup(NameStr(form->oprname))};
    ReleaseSysCache(tuple);
    return found;
  });
  return "OPERATOR(" + bridge::quoted(names.schema) + "." + names.name + ")";
}

Oid equality_of(Oid type) {
  return guarded([=] {
    TypeCacheEntry* entry = lookup_type_cache(type, TYPECACHE_EQ_OPR);
    if (!OidIsValid(entry->eq_opr))
      ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
                      errmsg("type %s has no equality operator", format_type_be(type)),
                      errhint("Take another column for \"match\".")));
    return entry->eq_opr;
  });
}

}  // namespace portage::load
