// Calling Postgres from C++. Postgres reports errors by longjmp, which must not cross a C++ frame with
// destructors: guarded() runs one piece of *raw* code (only trivially destructible locals, may ereport) and
// turns a jump into a thrown Error. Functions named *_raw, and lambdas given to guarded(), are raw code.
#pragma once

#include "bridge/error.hpp"

namespace portage::bridge {

/// Runs raw code. `f` may ereport; it must be trivially copyable and must not throw. The memory context is
/// afterwards what it was before. A Postgres error comes out as bridge::Error, with the error stacks and the
/// interrupt holdoff as before the call, too; it may be swallowed only after the enclosing subtransaction has
/// been rolled back (subxact.hpp).
template <class F, class... Args>
auto guarded(F f, Args... args) -> std::invoke_result_t<F, Args...> {
  using Result = std::invoke_result_t<F, Args...>;
  static_assert(std::is_trivially_copyable_v<F> && std::is_trivially_destructible_v<F>,
                "raw code may capture only trivial things (pointers, references, numbers)");
  static_assert((std::is_trivially_copyable_v<Args> && ...),
                "arguments of raw code must be trivially copyable");
  static_assert(std::is_void_v<Result> || std::is_trivially_copyable_v<Result>,
                "the result of raw code must be trivially copyable");
  MemoryContext const context = CurrentMemoryContext;
  sigjmp_buf* const jump = PG_exception_stack;
  ErrorContextCallback* const callbacks = error_context_stack;
  uint32 const holdoff = InterruptHoldoffCount;  // raising sets both to zero
  uint32 const cancel_holdoff = QueryCancelHoldoffCount;
  sigjmp_buf here;
  if (sigsetjmp(here, 0) == 0) {
    PG_exception_stack = &here;
    // Only what lies inside the raw code tells its context now; the outer frames add theirs when the error
    // finally leaves through entry.hpp.
    error_context_stack = nullptr;
    if constexpr (std::is_void_v<Result>) {
      f(args...);
      PG_exception_stack = jump;
      error_context_stack = callbacks;
      MemoryContextSwitchTo(
          context);  // SPI leaves its own, which would then collect what is allocated until its end
      return;
    } else {
      Result result = f(args...);
      PG_exception_stack = jump;
      error_context_stack = callbacks;
      MemoryContextSwitchTo(context);
      return result;
    }
  }
  PG_exception_stack = jump;
  error_context_stack = callbacks;
  InterruptHoldoffCount = holdoff;
  QueryCancelHoldoffCount = cancel_holdoff;
  MemoryContextSwitchTo(context);
  throw Error(take_error_in_flight());
}

/// Lets a cancel, a statement_timeout or a termination take effect here. Call it every few hundred items.
inline void check_interrupts() {
  if (INTERRUPTS_PENDING_CONDITION()) guarded([] { CHECK_FOR_INTERRUPTS(); });
}

}  // namespace portage::bridge
