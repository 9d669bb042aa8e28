// What the SQL-callable functions of run/ do with their arguments and results.
#pragma once

#include "bridge/codes.hpp"
#include "bridge/entry.hpp"
#include "bridge/spi.hpp"
#include "run/access.hpp"

namespace portage::run {

/// Arguments of a call, null-aware. Texts are copied.
class Arguments {
 public:
  explicit Arguments(FunctionCallInfo info) : info_(info) {}
  bool null(int i) const { return info_->nargs <= i || info_->args[i].isnull; }
  std::string text(int i, const char* name) const {
    if (null(i))
      throw bridge::Error(ERRCODE_NULL_VALUE_NOT_ALLOWED,
                          std::string("argument \"") + name + "\" must not be null");
    return bridge::string_of(info_->args[i].value);
  }
  std::optional<std::string> maybe_text(int i) const {
    if (null(i)) return std::nullopt;
    return bridge::string_of(info_->args[i].value);
  }
  std::optional<std::string> maybe_json(int i) const {
    if (null(i)) return std::nullopt;
    return bridge::output_text(JSONBOID, info_->args[i].value);
  }
  int64_t run(int i) const {
    if (null(i)) throw bridge::Error(ERRCODE_NULL_VALUE_NOT_ALLOWED, "the run must not be null");
    return DatumGetInt64(info_->args[i].value);
  }
  int64_t run_or_latest(int i) const { return null(i) ? latest_run() : run(i); }
  std::optional<int32_t> maybe_int(int i) const {
    if (null(i)) return std::nullopt;
    return DatumGetInt32(info_->args[i].value);
  }
  bool flag(int i) const { return !null(i) && DatumGetBool(info_->args[i].value); }
  /// An interval.
  std::optional<double> maybe_seconds(int i) const {
    if (null(i)) return std::nullopt;
    return std::stod(bridge::execute("SELECT pg_catalog.date_part('epoch', $1)::pg_catalog.text",
                                     {{INTERVALOID, info_->args[i].value, false}})
                         .text(0, 1));
  }
  /// The elements of a text[]; a null argument has none.
  std::vector<std::string> texts(int i, const char* name) const {
    std::vector<std::string> texts;
    if (null(i)) return texts;
    bridge::Result rows =
        bridge::execute("SELECT pg_catalog.unnest($1)", {{TEXTARRAYOID, info_->args[i].value, false}});
    for (size_t row = 0; row < rows.size(); row++) {
      if (rows.is_null(row, 1))
        throw bridge::Error(ERRCODE_NULL_VALUE_NOT_ALLOWED, std::string(name) + " must not be null");
      texts.push_back(rows.text(row, 1));
    }
    return texts;
  }
  Oid oid(int i, const char* name) const {
    if (null(i))
      throw bridge::Error(ERRCODE_NULL_VALUE_NOT_ALLOWED,
                          std::string("argument \"") + name + "\" must not be null");
    return DatumGetObjectId(info_->args[i].value);
  }

 private:
  FunctionCallInfo info_;
};

/// The result of a function or procedure with several OUT arguments of type bigint.
inline Datum numbers(FunctionCallInfo fcinfo, std::initializer_list<int64_t> values) {
  const int64_t* v = values.begin();
  int count = static_cast<int>(values.size());
  return bridge::guarded([=] {
    TupleDesc shape;
    if (get_call_result_type(fcinfo, nullptr, &shape) != TYPEFUNC_COMPOSITE)
      elog(ERROR, "unexpected result type");
    auto* datums = static_cast<Datum*>(palloc(sizeof(Datum) * count));
    auto* nulls = static_cast<bool*>(palloc0(count));
    for (int i = 0; i < count; i++) datums[i] = Int64GetDatum(v[i]);
    return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(shape), datums, nulls));
  });
}

/// The result of a procedure with one INOUT argument.
inline Datum inout(FunctionCallInfo fcinfo, Datum value) {
  return bridge::guarded([=] {
    TupleDesc shape;
    if (get_call_result_type(fcinfo, nullptr, &shape) != TYPEFUNC_COMPOSITE)
      elog(ERROR, "unexpected result type");
    Datum values[1] = {value};
    bool nulls[1] = {false};
    return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(shape), values, nulls));
  });
}

}  // namespace portage::run
