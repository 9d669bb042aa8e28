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

/// The rows of one statement. Movable; frees the rows when it goes. With the subtransaction in which it was
/// made, once that is rolled back, the rows are gone. Must not live across commit() or rollback().
class Result {
 public:
  Result() = default;
  Result(SPITupleTable* table, uint64_t processed) : processed_(processed) { hold(table); }
  Result(Result&& other) noexcept : processed_(other.processed_) { hold(other.let_go()); }
  Result& operator=(Result&& other) noexcept {
    SPITupleTable* mine = let_go();
    hold(other.let_go());
    other.hold(mine);
    processed_ = other.processed_;
    return *this;
  }
  ~Result() { free(); }
  /// Those of all results that were made in this subtransaction, or in a later one, are about to be freed.
  static void forget(SubTransactionId);
  /// There is none that holds rows.
  static bool none();

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
  void hold(SPITupleTable*) noexcept;
  SPITupleTable* let_go() noexcept;
  void free() noexcept;

  SPITupleTable* table_ = nullptr;
  uint64_t processed_ = 0;
  Result *before_ = nullptr, *after_ = nullptr;  // in the list of those that hold rows
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

class Subtransaction;

/// Connects to SPI. finish() at the end of a body that succeeded. The current memory context stays what it
/// was.
///
/// `nonatomic`: for a procedure that commits. Then a subtransaction is open all the time, in each of its
/// transactions: whatever an error leaves open that is caught (snapshots, scans, portals, pins, locks, other
/// connections to SPI) was opened in it, and is unwound where that is rolled back, in rollback() or in the
/// destructor; the transaction itself has none of it.
class Spi {
 public:
  explicit Spi(bool nonatomic = false);
  ~Spi();
  Spi(const Spi&) = delete;
  Spi& operator=(const Spi&) = delete;
  void finish();
  /// Lives as long as the innermost connection.
  static MemoryContext memory();

 private:
  friend void commit();
  friend void rollback();
  static Spi& committing();
  void begin();
  void end();

  Spi* outer_;
  MemoryContext memory_ = nullptr;
  std::unique_ptr<Subtransaction> kept_;
  bool nonatomic_;
};

/// Commits and begins anew. Only in a procedure that was called outside any transaction block. After an error
/// all is rolled back, and begun anew.
void commit();
/// Rolls back and begins anew; likewise. To be called wherever an error is caught (subxact.hpp), before
/// anything else is done.
void rollback();
/// How many transactions of this backend's procedures have been rolled back: what the session has locked over
/// its commits went with each.
uint64_t rollbacks();
/// An exception is on its way: what a destructor would do with PostgreSQL has to wait until it has been
/// caught and rolled back.
inline bool unwinding() { return std::uncaught_exceptions() > 0; }
/// Has `f(arg)` called when what is being unwound by an exception has been rolled back: in a
/// procedure that commits, for what its transactions do not take along.
void when_rolled_back(void (*f)(Datum), Datum arg) noexcept;

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
