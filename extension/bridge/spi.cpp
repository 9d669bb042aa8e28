// See spi.hpp.
#include "bridge/spi.hpp"

extern "C" {
#include "catalog/pg_type_d.h"
}

namespace portage::bridge {

Param param(int64_t value) { return {INT8OID, Int64GetDatum(value), false}; }
Param param(int32_t value) { return {INT4OID, Int32GetDatum(value), false}; }
Param param(bool value) { return {BOOLOID, BoolGetDatum(value), false}; }
Param param_oid(Oid value) { return {OIDOID, ObjectIdGetDatum(value), false}; }
Param param_null(Oid type) { return {type, 0, true}; }
Param param(std::string_view value) { return {TEXTOID, text_datum(value), false}; }

Param param_bytea(std::string_view value) { return {BYTEAOID, text_datum(value), false}; }

Param param_json(std::string_view value, bool binary) {
  if (!binary) return {JSONOID, text_datum(value), false};
  const char* text = value.data();
  size_t size = value.size();
  Datum json = guarded([=] {
    char* copy = pnstrdup(text, size);
    return DirectFunctionCall1(jsonb_in, CStringGetDatum(copy));
  });
  return {JSONBOID, json, false};
}

Param param_text_array(const std::vector<std::string>& values) {
  const std::string* first = values.data();
  int count = static_cast<int>(values.size());
  Datum array = guarded([=] {
    auto* items = static_cast<Datum*>(palloc(sizeof(Datum) * (count + 1)));
    for (int i = 0; i < count; i++)
      items[i] =
          PointerGetDatum(cstring_to_text_with_len(first[i].data(), static_cast<int>(first[i].size())));
    return PointerGetDatum(construct_array(items, count, TEXTOID, -1, false, TYPALIGN_INT));
  });
  return {TEXTARRAYOID, array, false};
}

Param param_int8_array(const std::vector<int64_t>& values) {
  const int64_t* first = values.data();
  int count = static_cast<int>(values.size());
  Datum array = guarded([=] {
    auto* items = static_cast<Datum*>(palloc(sizeof(Datum) * (count + 1)));
    for (int i = 0; i < count; i++) items[i] = Int64GetDatum(first[i]);
    return PointerGetDatum(construct_array(items, count, INT8OID, 8, true, TYPALIGN_DOUBLE));
  });
  return {INT8ARRAYOID, array, false};
}

namespace {

constinit Result* results = nullptr;  // those that hold rows

}  // namespace

void Result::hold(SPITupleTable* table) noexcept {
  table_ = table;
  if (!table) return;
  before_ = nullptr;
  after_ = results;
  if (results) results->before_ = this;
  results = this;
}

SPITupleTable* Result::let_go() noexcept {
  if (!table_) return nullptr;
  (before_ ? before_->after_ : results) = after_;
  if (after_) after_->before_ = before_;
  return std::exchange(table_, nullptr);
}

/// On the way out of an error nothing is freed: it goes with the subtransaction, and SPI may be in the middle
/// of another connection, to which the rows do not belong.
void Result::free() noexcept {
  SPITupleTable* table = let_go();
  if (table && !unwinding()) SPI_freetuptable(table);
}

bool Result::none() { return results == nullptr; }

void Result::forget(SubTransactionId from) {
  for (Result *result = results, *next; result; result = next) {
    next = result->after_;
    if (result->table_->subid >= from) result->let_go();
  }
}

Datum Result::datum(size_t row, int column, bool* null) const {
  HeapTuple tuple = table_->vals[row];
  TupleDesc shape = table_->tupdesc;
  bool is_null = false;
  Datum value =
      guarded([tuple, shape, column, out = &is_null] { return SPI_getbinval(tuple, shape, column, out); });
  if (null) *null = is_null;
  return is_null ? Datum(0) : value;
}

bool Result::is_null(size_t row, int column) const {
  bool null;
  datum(row, column, &null);
  return null;
}

std::string Result::text(size_t row, int column) const { return maybe_text(row, column).value_or(""); }

std::optional<std::string> Result::maybe_text(size_t row, int column) const {
  bool null;
  Datum value = datum(row, column, &null);
  if (null) return std::nullopt;
  return output_text(TupleDescAttr(table_->tupdesc, column - 1)->atttypid, value);
}

int64_t Result::bigint(size_t row, int column) const { return DatumGetInt64(datum(row, column)); }
int32_t Result::integer(size_t row, int column) const { return DatumGetInt32(datum(row, column)); }
bool Result::boolean(size_t row, int column) const { return DatumGetBool(datum(row, column)); }
Oid Result::oid(size_t row, int column) const { return DatumGetObjectId(datum(row, column)); }

namespace {

void check_spi(int code) {
  if (code < 0) throw Error(ERRCODE_INTERNAL_ERROR, format("SPI failed: %s", SPI_result_code_string(code)));
}

constexpr int max_params = 40;

struct Arguments {
  Oid types[max_params];
  Datum values[max_params];
  char nulls[max_params + 1];
  int count;

  Arguments(const Param* params, size_t n) : count(static_cast<int>(n)) {
    if (n > max_params) throw Error(ERRCODE_INTERNAL_ERROR, "too many statement parameters");
    for (size_t i = 0; i < n; i++) {
      types[i] = params[i].type;
      values[i] = params[i].value;
      nulls[i] = params[i].null ? 'n' : ' ';
    }
    nulls[n] = '\0';
  }
};

}  // namespace

Result Statement::operator()(std::initializer_list<Param> params, bool read_only) const {
  MemoryContext context = CurrentMemoryContext;  // SPI leaves its own current
  Arguments arguments(params.begin(), params.size());
  Arguments* a = &arguments;
  if (!plan_) {
    const char* sql = sql_;
    plan_ = guarded([=] {
      SPIPlanPtr plan = SPI_prepare(sql, a->count, a->types);
      if (!plan) elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
      SPI_keepplan(plan);
      return plan;
    });
  }
  SPIPlanPtr plan = plan_;
  int code = guarded([=] { return SPI_execute_plan(plan, a->values, a->nulls, read_only, 0); });
  MemoryContextSwitchTo(context);
  check_spi(code);
  Result result(SPI_tuptable, SPI_processed);
  SPI_tuptable = nullptr;
  return result;
}

Result execute(const std::string& sql, const std::vector<Param>& params, bool read_only, long limit) {
  MemoryContext context = CurrentMemoryContext;
  Arguments arguments(params.data(), params.size());
  Arguments* a = &arguments;
  const char* text = sql.c_str();
  int code = guarded(
      [=] { return SPI_execute_with_args(text, a->count, a->types, a->values, a->nulls, read_only, limit); });
  MemoryContextSwitchTo(context);
  check_spi(code);
  Result result(SPI_tuptable, SPI_processed);
  SPI_tuptable = nullptr;
  return result;
}

Datum input_value(Oid type, int32_t typmod, const std::string& text) {
  const char* t = text.c_str();
  return guarded([=] {
    Oid input, parameter;
    getTypeInputInfo(type, &input, &parameter);
    return OidInputFunctionCall(input, const_cast<char*>(t), parameter, typmod);
  });
}

std::string output_text(Oid type, Datum value) {
  char* text = guarded([=] {
    Oid output;
    bool varlena;
    getTypeOutputInfo(type, &output, &varlena);
    return OidOutputFunctionCall(output, value);
  });
  std::string copy(text);
  pfree(text);
  return copy;
}

std::string string_of(Datum value) {
  struct Bytes {
    const char* data;
    size_t size;
    struct varlena* copy;
  };
  Bytes bytes = guarded([=] {
    auto* original = reinterpret_cast<struct varlena*>(DatumGetPointer(value));
    struct varlena* flat = pg_detoast_datum_packed(original);
    return Bytes{VARDATA_ANY(flat), VARSIZE_ANY_EXHDR(flat), flat == original ? nullptr : flat};
  });
  std::string copy(bytes.data, bytes.size);
  if (bytes.copy) pfree(bytes.copy);
  return copy;
}

Datum text_datum(std::string_view value) {
  const char* data = value.data();
  size_t size = value.size();
  return guarded([=] {
    if (size > MaxAllocSize - VARHDRSZ)
      ereport(ERROR,
              (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("value of %zu bytes is too long", size)));
    auto* text = static_cast<struct varlena*>(palloc(size + VARHDRSZ));
    SET_VARSIZE(text, size + VARHDRSZ);
    if (size) memcpy(VARDATA(text), data, size);
    return PointerGetDatum(text);
  });
}

std::string quoted(std::string_view identifier) {
  std::string copy(identifier);
  const char* text = copy.c_str();
  return guarded([=] { return quote_identifier(text); });
}

std::string quoted_name(std::string_view schema, std::string_view name) {
  return quoted(schema) + "." + quoted(name);
}

std::string quoted_literal(std::string_view value) {
  std::string copy(value);
  const char* text = copy.c_str();
  return guarded([=] { return const_cast<const char*>(quote_literal_cstr(text)); });
}

}  // namespace portage::bridge
