// SQL-callable functions for tests/e2e/bridge.py: errors of every origin, raised below C++ frames whose
// destructors count. They use the bridge as the extension does, and know nothing of the extension.
#include "bridge/entry.hpp"
#include "bridge/scope.hpp"
#include "bridge/spi.hpp"
#include "bridge/subxact.hpp"

extern "C" {
#include "catalog/pg_class_d.h"
#include "utils/resowner.h"
PG_MODULE_MAGIC;
}

namespace portage::bridge {
namespace {

constinit int64_t born = 0, died = 0;

/// Every test frame holds one: an error that skips a destructor shows in the balance.
struct Counted {
  Counted() { born++; }
  ~Counted() { died++; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  std::string memory = std::string(100, 'x');  // a leak if it is skipped
};

volatile int error_level = ERROR;  // so that no compiler knows that raise_raw() never returns

/// An error that has every field.
void raise_raw() {
  ereport(
      error_level,
      (errcode(ERRCODE_CHECK_VIOLATION), errmsg("the message"), errdetail("The detail."),
       errdetail_log("The detail for the log."), errhint("The hint."), errcontext("the innermost context"),
       err_generic_string(PG_DIAG_SCHEMA_NAME, "a schema"), err_generic_string(PG_DIAG_TABLE_NAME, "a table"),
       err_generic_string(PG_DIAG_COLUMN_NAME, "a column"),
       err_generic_string(PG_DIAG_DATATYPE_NAME, "a datatype"),
       err_generic_string(PG_DIAG_CONSTRAINT_NAME, "a constraint")));
}

/// C++ frames only, then the error.
void deep(int frames) {
  Counted here;
  if (frames == 0) return guarded([] { raise_raw(); });
  deep(frames - 1);
  here.memory += "not a tail call";
}

/// `levels` times through SQL, each level an entry, a guard and an SPI connection of its own.
void raise_below(int levels) {
  Counted here;
  if (levels == 0) return deep(5);
  Spi spi;
  execute("SELECT portage_test_raise(" + std::to_string(levels - 1) + ")");
  spi.finish();
}

void throw_kind(const std::string& kind) {
  Counted here;
  if (kind == "runtime_error") throw std::runtime_error("something of the library's");
  if (kind == "percent") throw std::runtime_error("100 %s of %n");
  if (kind == "long") throw std::runtime_error(std::string(100000, 'x'));
  if (kind == "bad_alloc") throw std::bad_alloc();
  if (kind == "out of memory") {
    volatile size_t too_much = size_t{1} << 46;
    std::vector<char> never(too_much);
    here.memory += never.back();
  }
  if (kind == "length_error") here.memory.resize(here.memory.max_size() + 1);
  if (kind == "unknown") throw 42;
  if (kind == "own")
    throw Error(MAKE_SQLSTATE('P', 'Z', '0', '0', '1'), "our own message")
        .detail("Our detail.")
        .hint("Our hint.")
        .column("our column")
        .constraint("our constraint");
  if (kind == "own in percent") throw Error(ERRCODE_DATA_EXCEPTION, "100 %s").detail("%d").hint("%n");
  if (kind == "postgres") raise_below(0);
  throw Error(ERRCODE_INVALID_PARAMETER_VALUE, "no such kind: " + kind);
}

std::string argument(FunctionCallInfo fcinfo, int n) { return string_of(PG_GETARG_DATUM(n)); }

/// attempt() of some SQL; raises if it does not leave memory context and resource owner as they were.
std::string attempted(const std::string& sql) {
  MemoryContext context = CurrentMemoryContext;
  ResourceOwner owner = CurrentResourceOwner;
  sigjmp_buf* jump = PG_exception_stack;
  ErrorContextCallback* callbacks = error_context_stack;
  int nesting = GetCurrentTransactionNestLevel();
  std::optional<Error> error = attempt([&] {
    Counted here;
    execute(sql);
  });
  if (context != CurrentMemoryContext) return "another memory context";
  if (owner != CurrentResourceOwner) return "another resource owner";
  if (jump != PG_exception_stack || callbacks != error_context_stack) return "other error stacks";
  if (nesting != GetCurrentTransactionNestLevel()) return "another nesting level";
  return error ? error->sqlstate() + " " + error->message() : "ok";
}

}  // namespace

PORTAGE_FUNCTION(portage_test_raise) {
  raise_below(PG_GETARG_INT32(0));
  PG_RETURN_VOID();
}

PORTAGE_FUNCTION(portage_test_throw) {
  throw_kind(argument(fcinfo, 0));
  PG_RETURN_VOID();
}

/// Objects that were made and not destroyed.
PORTAGE_FUNCTION(portage_test_undestroyed) { PG_RETURN_INT64(born - died); }

PORTAGE_FUNCTION(portage_test_destroyed) { PG_RETURN_INT64(died); }

/// Runs SQL unprotected: its error is to pass through.
PORTAGE_FUNCTION(portage_test_sql) {
  Counted here;
  Spi spi;
  execute(argument(fcinfo, 0));
  spi.finish();
  PG_RETURN_VOID();
}

PORTAGE_FUNCTION(portage_test_attempt) {
  Spi spi;
  std::string result = attempted(argument(fcinfo, 0));
  spi.finish();
  return text_datum(result);
}

/// first; then, in a subtransaction of the outer's, second; then third.
PORTAGE_FUNCTION(portage_test_nested) {
  std::string first = argument(fcinfo, 0), second = argument(fcinfo, 1), third = argument(fcinfo, 2), inner;
  Spi spi;
  MemoryContext context = CurrentMemoryContext;
  ResourceOwner owner = CurrentResourceOwner;
  std::optional<Error> outer = attempt([&] {
    Counted here;
    execute(first);
    inner = attempted(second);
    execute(third);
  });
  if (context != CurrentMemoryContext || owner != CurrentResourceOwner)
    inner = "context or owner not restored";
  spi.finish();
  return text_datum(inner + "; " + (outer ? outer->sqlstate() : "ok"));
}

/// What is not an Error rolls back, too, and passes.
PORTAGE_FUNCTION(portage_test_attempt_throw) {
  std::string sql = argument(fcinfo, 0);
  Spi spi;
  std::string result;
  try {
    attempt([&] {
      execute(sql);
      throw std::runtime_error("through the attempt");
    });
  } catch (const std::runtime_error& error) {
    result = error.what();
  }
  spi.finish();
  return text_datum(result);
}

/// Fails n times inside C++, swallowing each, in one statement.
PORTAGE_FUNCTION(portage_test_attempt_many) {
  int n = PG_GETARG_INT32(0);
  int64_t failed = 0;
  for (int i = 0; i < n; i++) {
    check_interrupts();
    if (attempt([&] { deep(3); })) failed++;
  }
  PG_RETURN_INT64(failed);
}

/// Runs SQL as another role with another DateStyle.
PORTAGE_FUNCTION(portage_test_disguised) {
  std::string sql = argument(fcinfo, 1), style = argument(fcinfo, 2);
  Oid role = PG_GETARG_OID(0);
  bool swallow = PG_GETARG_BOOL(3);
  Spi spi;
  std::string result = "ok";
  auto work = [&] {
    Counted here;
    Settings settings;
    settings.set("datestyle", style).set("extra_float_digits", "0");
    AsUser as(role);
    result = execute(sql).text(0, 1);
  };
  if (swallow) {
    if (std::optional<Error> error = attempt(work)) result = error->sqlstate();
  } else {
    work();
  }
  spi.finish();
  return text_datum(result);
}

/// Loops until it is interrupted, C++ objects on the stack.
PORTAGE_FUNCTION(portage_test_loop) {
  for (int64_t i = 0;; i++) {
    Counted here;
    if (i % 1000 == 0) check_interrupts();
  }
}

/// The promise of guarded(): the counts by which interrupts are held off are as before the call.
PORTAGE_FUNCTION(portage_test_holdoff) {
  struct Hold {
    Hold() { HOLD_INTERRUPTS(); }
    ~Hold() { RESUME_INTERRUPTS(); }
  };
  uint32 before = InterruptHoldoffCount;
  uint32 within = 0;
  std::optional<Error> error = attempt([&] {
    Hold hold;
    try {
      guarded([] { raise_raw(); });
    } catch (const Error&) {
      within = InterruptHoldoffCount;
      throw;
    }
  });
  PG_RETURN_BOOL(error && within == before + 1 && InterruptHoldoffCount == before);
}

/// Something open when the error comes; `rows` outlives it.
void leave_open(const std::string& what, Result& rows) {
  if (what == "snapshot") guarded([] { PushActiveSnapshot(GetTransactionSnapshot()); });
  if (what == "scan")
    guarded([] {
      Relation relation = table_open(RelationRelationId, AccessShareLock);
      TableScanDesc scan = table_beginscan(relation, GetActiveSnapshot(), 0, nullptr);
      (void)heap_getnext(scan, ForwardScanDirection);  // keeps its page pinned
    });
  if (what == "portal")
    guarded([] {
      Portal portal =
          SPI_cursor_open_with_args("left", "SELECT * FROM pg_class", 0, nullptr, nullptr, nullptr, true, 0);
      SPI_cursor_fetch(portal, true, 2);
    });
  if (what == "connection")
    guarded([] {
      SPI_connect();
      SPI_execute("SELECT 1", true, 0);
    });
  if (what == "rows") rows = execute("SELECT g FROM generate_series(1, 100) g");
  if (what == "error in SQL") execute("INSERT INTO t SELECT 1 / (g - 50) FROM generate_series(1, 100) g");
  if (what == "nested") {
    Subtransaction inner;
    Result held = execute("SELECT 1");
    raise_below(2);
  }
  guarded([] { raise_raw(); });
}

/// A procedure: three transactions fail with something open, each between two that are committed. Told at its
/// end: what was found not to be as before.
PORTAGE_FUNCTION(portage_test_transactions) {
  std::string what = argument(fcinfo, 0), wrong;
  require_nonatomic(fcinfo, "transactions");
  Spi spi(true);
  for (int i = 0; i < 3; i++) {
    MemoryContext context = CurrentMemoryContext;
    ResourceOwner owner = CurrentResourceOwner;
    int nesting = GetCurrentTransactionNestLevel();
    uint64_t before = rollbacks();
    Result rows;
    std::optional<Error> error = transact([&] {
      Counted here;
      execute("INSERT INTO t VALUES (900)");
      leave_open(what, rows);
    });
    if (!error || rollbacks() != before + 1) wrong += "no error; ";
    if (context != CurrentMemoryContext) wrong += "another memory context; ";
    if (nesting != GetCurrentTransactionNestLevel()) wrong += "another nesting level; ";
    if (owner == nullptr || CurrentResourceOwner == nullptr) wrong += "no resource owner; ";
    if (!rows.empty()) wrong += "rows of what was rolled back; ";
    if (ActiveSnapshotSet()) wrong += "a snapshot; ";
    execute("INSERT INTO t VALUES ($1)", {param(100 + i)});
    commit();
  }
  if (!wrong.empty()) throw Error(ERRCODE_INTERNAL_ERROR, wrong);
  if (what == "at the end") {
    execute("INSERT INTO t VALUES (901)");
    leave_open("snapshot", *std::make_unique<Result>());
  }
  spi.finish();
  PG_RETURN_VOID();
}

PORTAGE_FUNCTION(portage_test_notice) {
  notice(argument(fcinfo, 0), argument(fcinfo, 1));
  PG_RETURN_VOID();
}

}  // namespace portage::bridge
