// See subxact.hpp.
#include "bridge/subxact.hpp"

extern "C" {
#include "utils/resowner.h"
}

namespace portage::bridge {

Subtransaction::Subtransaction() : context_(CurrentMemoryContext), owner_(CurrentResourceOwner) {
  guarded([] { BeginInternalSubTransaction(nullptr); });
  id_ = GetCurrentSubTransactionId();
  MemoryContextSwitchTo(context_);
  open_ = true;
}

void Subtransaction::release() {
  guarded([] { ReleaseCurrentSubTransaction(); });  // if it fails, there is still what can be rolled back
  open_ = false;
  MemoryContextSwitchTo(context_);
  CurrentResourceOwner = owner_;
}

void Subtransaction::rollback() {
  open_ = false;
  Result::forget(id_);
  guarded([] { RollbackAndReleaseCurrentSubTransaction(); });
  MemoryContextSwitchTo(context_);
  CurrentResourceOwner = owner_;
}

Subtransaction::~Subtransaction() {
  if (!open_) return;
  try {
    rollback();
  } catch (...) {
    // Rolling back does not fail short of a broken backend; the enclosing transaction then aborts anyway.
  }
}

bool concerns_whole_batch(int code) {
  switch (ERRCODE_TO_CATEGORY(code)) {
    case MAKE_SQLSTATE('0', '8', '0', '0', '0'):  // connection
    case MAKE_SQLSTATE('2', '5', '0', '0', '0'):  // invalid transaction state
    case MAKE_SQLSTATE('4', '0', '0', '0', '0'):  // serialization, deadlock
    case MAKE_SQLSTATE('5', '3', '0', '0', '0'):  // out of resources
    case MAKE_SQLSTATE('5', '7', '0', '0', '0'):  // cancel, shutdown
    case MAKE_SQLSTATE('5', '8', '0', '0', '0'):  // system error
    case MAKE_SQLSTATE('X', 'X', '0', '0', '0'):  // internal
      return true;
    default:
      return code == ERRCODE_INSUFFICIENT_PRIVILEGE || code == ERRCODE_LOCK_NOT_AVAILABLE ||
             code == ERRCODE_UNDEFINED_TABLE;
  }
}

bool is_interrupt(int code) {
  return ERRCODE_TO_CATEGORY(code) == ERRCODE_TO_CATEGORY(ERRCODE_QUERY_CANCELED);
}

}  // namespace portage::bridge
