// What may pass if one waits: locks that others hold, deadlocks, lost connections, a full disk. Decides
// whether what failed is tried again, and waits before it is; knows nothing of what that is.
#pragma once

#include "bridge/scope.hpp"
#include "run/ownership.hpp"

namespace portage::run {

/// A limit to the time of what is being tried (from construction to destruction): beyond it the backend
/// cancels it as a user would.
class TimeLimit {
 public:
  explicit TimeLimit(double milliseconds);  ///< 0: none
  ~TimeLimit();
  TimeLimit(const TimeLimit&) = delete;
  TimeLimit& operator=(const TimeLimit&) = delete;
  static bool ran_out();  ///< the last one did
};

/// For its lifetime a lock that others hold is waited for as long as portage.lock_timeout says, unless the
/// session has a limit of its own.
class LockLimit {
 public:
  /// `commits`: whether what is tried is a transaction of its own, and may step back.
  explicit LockLimit(bool commits);

 private:
  bridge::Settings settings_;
};

class Patience {
 public:
  /// `attempts`: how often what failed is tried again (option retry_attempts).
  Patience(Ownership& ownership, int attempts) : ownership_(ownership), allowed_(attempts) {}

  /// Waits as long as is fit for what failed to be tried again, or raises the error if it will not pass. True
  /// if it is to be tried in halves (`divisible`: it can be): it takes too long, or it keeps failing. To be
  /// called in a transaction of its own, which it ends.
  bool bear(const bridge::Error&, bool divisible);
  /// It went well.
  void forget();

 private:
  Ownership& ownership_;
  int allowed_;
  int attempts_ = 0;
  bool waited_ = false;
};

/// True for errors that may be gone when the same is tried again.
bool is_transient(int sqlerrcode);

}  // namespace portage::run
