// See patience.hpp.
#include "run/patience.hpp"

#include "bridge/codes.hpp"
#include "bridge/entry.hpp"
#include "settings.hpp"

extern "C" {
#include "common/pg_prng.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/timeout.h"
}

namespace portage::run {

using bridge::Error;
using bridge::format;

namespace {

constexpr double first_wait = 100, longest_wait = 10000;  // milliseconds
constexpr double lock_wait = 250;

constinit bool registered = false;
constinit TimeoutId timeout_id = USER_TIMEOUT;
constinit volatile sig_atomic_t fired = false;

/// As statement_timeout does it, but told apart by `fired`.
void on_timeout() {
  fired = true;
  InterruptPending = true;
  QueryCancelPending = true;
  SetLatch(MyLatch);
}

/// The statement has a limit of its own, which may pass at the same moment.
bool statement_ran_out() {
  return StatementTimeout > 0 && TimestampDifferenceExceeds(GetCurrentStatementStartTimestamp(),
                                                            GetCurrentTimestamp(), StatementTimeout);
}

}  // namespace

TimeLimit::TimeLimit(double milliseconds) {
  fired = false;
  if (milliseconds <= 0) return;
  int after = static_cast<int>(milliseconds);
  bridge::guarded([=] {
    if (!registered) timeout_id = RegisterTimeout(USER_TIMEOUT, on_timeout);
    registered = true;
    enable_timeout_after(timeout_id, after);
  });
}

TimeLimit::~TimeLimit() {
  if (!registered) return;
  disable_timeout(timeout_id, false);
  // It may have come when all was done.
  if (fired && !get_timeout_indicator(STATEMENT_TIMEOUT, false)) QueryCancelPending = false;
}

bool TimeLimit::ran_out() { return fired && !statement_ran_out(); }

bool is_transient(int code) {
  int category = ERRCODE_TO_CATEGORY(code);
  return category == ERRCODE_TO_CATEGORY(ERRCODE_T_R_SERIALIZATION_FAILURE) ||
         category == ERRCODE_TO_CATEGORY(ERRCODE_CONNECTION_EXCEPTION) ||
         category == ERRCODE_TO_CATEGORY(ERRCODE_INSUFFICIENT_RESOURCES) ||
         code == ERRCODE_LOCK_NOT_AVAILABLE;
}

LockLimit::LockLimit(bool commits) {
  if (commits && LockTimeout == 0) settings_.set("lock_timeout", std::to_string(settings::lock_timeout));
}

bool Patience::bear(const Error& error, bool divisible) {
  if (error.code() == ERRCODE_QUERY_CANCELED && TimeLimit::ran_out()) return divisible;
  if (!is_transient(error.code())) throw error;
  bool locked_out = error.code() == ERRCODE_LOCK_NOT_AVAILABLE;
  if (locked_out && LockTimeout != 0) throw error;  // the session has a limit of its own
  waited_ = true;
  if (locked_out) {
    // Not an attempt that failed: whoever holds the lock is let have it.
    ownership_.hold("waits for a lock that another session holds");
    ownership_.rest(lock_wait);
    return false;
  }
  attempts_++;
  if (attempts_ > allowed_) {
    if (!divisible || allowed_ == 0) throw error;
    attempts_ = 1;  // the halves are tried as often
    return true;
  }
  double wait = std::min(first_wait * std::pow(2, attempts_ - 1), longest_wait);
  wait *= 0.5 + pg_prng_double(&pg_global_prng_state);  // so that two do not meet again
  ownership_.hold("tries again: " + error.message());
  ownership_.rest(wait);
  return false;
}

void Patience::forget() {
  attempts_ = 0;
  if (waited_) ownership_.release();
  waited_ = false;
}

}  // namespace portage::run
