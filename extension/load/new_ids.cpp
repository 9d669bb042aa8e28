// See new_ids.hpp.
#include "load/new_ids.hpp"

#include "ledger/mapping_pack.hpp"
#include "ledger/new_space.hpp"

extern "C" {
#include "lib/bloomfilter.h"
}

namespace portage::load {

using bridge::guarded;

// Asking a Bloom filter, and adding to it, raises nothing.
namespace {

unsigned char* bytes_of(std::string_view id) {
  return reinterpret_cast<unsigned char*>(const_cast<char*>(id.data()));
}

}  // namespace

NewIds::NewIds(int64_t run_id, ledger::MappingSpace space, int64_t expected_items)
    : run_id_(run_id),
      space_(std::move(space)),
      memory_("portage new ids", PortalContext ? PortalContext : CurrentMemoryContext),
      expected_(expected_items) {}

std::vector<std::string_view> NewIds::to_look_up(const std::vector<Item*>& items) {
  if (!asked_) since_ = ledger::empty_since(space_);
  asked_ = true;
  helps_ = since_ && ledger::untouched_since(space_, run_id_, *since_);
  std::vector<std::string_view> ids(items.size());
  for (size_t i = 0; i < items.size(); i++) ids[i] = items[i]->legacy_id;
  if (!helps_) return ids;
  for (std::string_view& id : ids)
    if (id.data() && ledger::comes_before(last_, id) &&
        (!filter_ || bloom_lacks_element(filter_, bytes_of(id), id.size())))
      id = {};
  return ids;
}

void NewIds::remember(const Item* items, size_t n) {
  if (!since_) return;
  if (!filter_ && take_in_order(items, n)) return;
  if (!filter_) {
    bridge::InMemory in(memory_.get());
    filter_ = guarded([expected = expected_] { return bloom_create(expected, 32 * 1024, 0); });
  }
  for (size_t i = 0; i < n; i++)
    if (items[i].legacy_id.data())
      bloom_add_element(filter_, bytes_of(items[i].legacy_id), items[i].legacy_id.size());
}

/// False, and nothing is done, where more than a few of the ids come before others.
bool NewIds::take_in_order(const Item* items, size_t n) {
  std::string_view last = last_;
  size_t back = 0;
  for (size_t i = 0; i < n; i++) {
    std::string_view id = items[i].legacy_id;
    if (!id.data()) continue;
    if (ledger::comes_before(id, last))
      back++;
    else
      last = id;
  }
  if (back > n / 10) return false;
  last_ = std::string(last);
  return true;
}

}  // namespace portage::load
