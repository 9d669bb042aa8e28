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
  Oid oid(int i, const char* name) const {
    if (null(i))
      throw bridge::Error(ERRCODE_NULL_VALUE_NOT_ALLOWED,
                          std::string("argument \"") + name + "\" must not be null");
    return DatumGetObjectId(info_->args[i].value);
  }

 private:
  FunctionCallInfo info_;
};

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
