// SQL from C++. A Statement is a literal with numbered parameters, prepared once per backend; a Result owns
// the rows it brought. Knows nothing of who the current user is: see scope.hpp and ledger/.
#pragma once

#include "bridge/guard.hpp"

namespace portage::bridge {

/// One parameter of a statement. The memory behind `value` must live until the call returns.
struct Param {
  Oid type;
  Datum value;
  bool null;
};

/// Parameters by C++ type. Texts are copied into the current memory context.
Param param(int64_t value);
Param param(int32_t value);
Param param(bool value);
Param param(std::string_view value);  // text
inline Param param(const std::string& value) { return param(std::string_view(value)); }
inline Param param(const char* value) { return param(std::string_view(value)); }
Param param_oid(Oid value);
Param param_null(Oid type);
Param param_json(std::string_view value, bool binary = true);  // jsonb, or json verbatim
Param param_bytea(std::string_view value);
Param param_text_array(const std::vector<std::string>& values);
Param param_int8_array(const std::vector<int64_t>& values);
template <class T>
Param param(const std::optional<T>& value) {
  if (value) return param(*value);
  return param_null(std::is_same_v<T, std::string> ? TEXTOID
                    : std::is_same_v<T, bool>      ? BOOLOID
                    : sizeof(T) == 4               ? INT4OID
                                                   : INT8OID);
}

/// The rows of one statement. Movable; frees the rows when it goes.
class Result {
 public:
  Result() = default;
  Result(SPITupleTable* table, uint64_t processed) : table_(table), processed_(processed) {}
  Result(Result&& other) noexcept
      : table_(std::exchange(other.table_, nullptr)), processed_(other.processed_) {}
  Result& operator=(Result&& other) noexcept {
    std::swap(table_, other.table_);
    processed_ = other.processed_;
    return *this;
  }
  ~Result() {
    if (table_) SPI_freetuptable(table_);
  }

  size_t size() const { return table_ ? table_->numvals : 0; }
  bool empty() const { return size() == 0; }
  uint64_t processed() const { return processed_; }  ///< rows affected
  TupleDesc shape() const { return table_->tupdesc; }
  HeapTuple tuple(size_t row) const { return table_->vals[row]; }
  /// Columns count from 1, as in SPI.
  Datum datum(size_t row, int column, bool* null = nullptr) const;
  bool is_null(size_t row, int column) const;
  std::string text(size_t row, int column) const;  ///< output text of any type; "" if null
  std::optional<std::string> maybe_text(size_t row, int column) const;
  int64_t bigint(size_t row, int column) const;  ///< int8; 0 if null
  int32_t integer(size_t row, int column) const;
  bool boolean(size_t row, int column) const;
  Oid oid(size_t row, int column) const;

 private:
  SPITupleTable* table_ = nullptr;
  uint64_t processed_ = 0;
};

/// A statement that is always the same; prepared at its first use in this backend and kept.
class Statement {
 public:
  constexpr explicit Statement(const char* sql) : sql_(sql) {}
  Result operator()(std::initializer_list<Param> params = {}, bool read_only = false) const;
  template <class... Args>
  Result run(const Args&... args) const {
    return (*this)({param(args)...});
  }

 private:
  const char* sql_;
  mutable SPIPlanPtr plan_ = nullptr;
};

/// A statement composed at run time, planned each time.
Result execute(const std::string& sql, const std::vector<Param>& params = {}, bool read_only = false,
               long limit = 0);

/// Connects to SPI. finish() at the end of a body that succeeded; after an error the end of the
/// (sub)transaction cleans up. The current memory context stays what it was.
class Spi {
 public:
  explicit Spi(bool nonatomic = false);
  void finish();
};

/// Commits and begins anew. Only in a procedure that was called outside any transaction block.
void commit();
/// Rolls back and begins anew; likewise.
void rollback();

/// The text of a Datum of a known type, through its output function.
std::string output_text(Oid type, Datum value);
/// The other way round, through its input function, in the current memory context.
Datum input_value(Oid type, int32_t typmod, const std::string& text);
/// The contents of a text, json or bytea Datum, detoasted.
std::string string_of(Datum text_value);
/// A text Datum in the current memory context.
Datum text_datum(std::string_view value);
/// An identifier as SQL needs it: quoted if it must be.
std::string quoted(std::string_view identifier);
std::string quoted_name(std::string_view schema, std::string_view name);
std::string quoted_literal(std::string_view value);

}  // namespace portage::bridge
