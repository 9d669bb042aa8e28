// See target_lock.hpp.
#include "run/target_lock.hpp"

namespace portage::run {

void TargetLock::hold() {
  if (held()) return;
  LockRelId id{table_, MyDatabaseId};
  bridge::guarded([id] {
    LockRelId copy = id;
    LockRelationIdForSession(&copy, ShareRowExclusiveLock);
  });
  taken_ = bridge::rollbacks();
}

TargetLock::~TargetLock() {
  if (!held() || bridge::unwinding()) return;  // the rollback that is to come lets go of it
  LockRelId id{table_, MyDatabaseId};
  try {
    bridge::guarded([id] {
      LockRelId copy = id;
      UnlockRelationIdForSession(&copy, ShareRowExclusiveLock);
    });
  } catch (const bridge::Error&) {  // the session's end lets go of it
  }
}

}  // namespace portage::run
