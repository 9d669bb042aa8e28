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

/// Writes some items of a batch that the loader has just settled to the ledger, as new revisions; what it has
/// kept of them goes along. `items` are copies, and `places` says which of the batch's each is one of.
inline void write_revisions(ledger::BatchRecord& record, const ledger::MappingSpace& space,
                            load::Loader& loader, std::vector<Item>& items,
                            const std::vector<int32_t>& revisions,
                            const std::unordered_map<const Item*, size_t>& places) {
  auto of_copies = [&](auto kept) {
    std::erase_if(kept, [&](const auto& one) { return !places.count(one.item); });
    for (auto& one : kept) one.item = &items[places.at(one.item)];
    return kept;
  };
  std::vector<ledger::Conflict> conflicts = of_copies(loader.conflicts());
  record.conflicts = &conflicts;
  ledger::write_batch(record, space, items.data(), items.size(), of_copies(loader.undo()), revisions);
  loader.remember(items.data(), items.size(), 0);
}

}  // namespace portage::run
