// A stage of a run that works off items which are in the ledger already, page by page, each a transaction:
// what several workers left undecided (settle.hpp), what waits for references (unpark.hpp).
#pragma once

#include "ledger/runs.hpp"
#include "load/loader.hpp"

namespace portage::run {

class Stage {
 public:
  virtual ~Stage() = default;

  /// What a page has done, for counters and events.
  struct Page {
    bool finished = false;  ///< there is nothing more to be done
    ledger::Counts counts;  ///< read is 0: it moves
    const Item* items = nullptr;
    size_t n = 0;
  };
  /// Works off some more, in this transaction; until committed() is called the page is as if it had never
  /// been.
  virtual Page page() = 0;
  /// The transaction of the page has been committed.
  virtual void committed() = 0;
  /// Pages become smaller: one of them takes too long. False if they cannot.
  virtual bool shrink() = 0;
};

/// The policy of a run under which items are judged one after the other, in their order.
inline load::Policy in_order(load::Policy policy) {
  policy.park = false;
  return policy;
}

}  // namespace portage::run
