// See target_lock.hpp.
#include "run/target_lock.hpp"

namespace portage::run {
namespace {

bool held_raw(Oid table) {
  Relation relation = table_open(table, AccessShareLock);
  bool held = CheckRelationLockedByMe(relation, ShareRowExclusiveLock, false);
  table_close(relation, NoLock);
  return held;
}

}  // namespace

void TargetLock::hold() {
  Oid table = table_;
  bridge::guarded([=] {
    if (held_raw(table)) return;
    LockRelId id{table, MyDatabaseId};
    LockRelationIdForSession(&id, ShareRowExclusiveLock);
  });
}

TargetLock::~TargetLock() {
  if (!IsTransactionState()) return;  // what is rolled back lets go of it
  Oid table = table_;
  try {
    bridge::guarded([=] {
      LockRelId id{table, MyDatabaseId};
      if (held_raw(table)) UnlockRelationIdForSession(&id, ShareRowExclusiveLock);
    });
  } catch (const bridge::Error&) {  // the session's end lets go of it
  }
}

}  // namespace portage::run
