// A lock on a run's target that outlasts its transactions. Knows nothing of what it is for.
#pragma once

#include "bridge/spi.hpp"

namespace portage::run {

/// Others may read the table and not write it, over the commits of a procedure: until the object, or the
/// session, ends. A transaction that is rolled back lets go of it, too: hold() is asked in each.
class TargetLock {
 public:
  explicit TargetLock(Oid table) : table_(table) {}
  ~TargetLock();
  TargetLock(const TargetLock&) = delete;
  TargetLock& operator=(const TargetLock&) = delete;
  void hold();  ///< waits as long as lock_timeout says

 private:
  bool held() const { return taken_ == bridge::rollbacks(); }

  Oid table_;
  std::optional<uint64_t> taken_;  ///< when, by the count of rollbacks
};

}  // namespace portage::run
