// See new_ids.hpp.
#include "load/new_ids.hpp"

#include "ledger/mapping_pack.hpp"
#include "ledger/new_space.hpp"

extern "C" {
#include "lib/bloomfilter.h"
}

namespace portage::load {

using bridge::guarded;

namespace {

unsigned char* bytes_of(std::string_view id) {
  return reinterpret_cast<unsigned char*>(const_cast<char*>(id.data()));
}

}  // namespace

NewIds::NewIds(int64_t run_id, ledger::MappingSpace space, int64_t expected_items)
    : run_id_(run_id),
      space_(std::move(space)),
      memory_("portage new ids", PortalContext ? PortalContext : CurrentMemoryContext) {
  bridge::InMemory in(memory_.get());
  filter_ = guarded([=] { return bloom_create(expected_items, 32 * 1024, 0); });
}

std::vector<std::string_view> NewIds::to_look_up(const std::vector<Item*>& items) {
  if (!asked_) since_ = ledger::empty_since(space_);
  asked_ = true;
  helps_ = since_ && ledger::untouched_since(space_, run_id_, *since_);
  std::vector<std::string_view> ids(items.size());
  for (size_t i = 0; i < items.size(); i++) ids[i] = items[i]->legacy_id;
  if (!helps_) return ids;
  bloom_filter* filter = filter_;
  std::string_view* all = ids.data();
  size_t count = ids.size();
  std::string_view last = last_;
  guarded([=] {
    for (size_t i = 0; i < count; i++)
      if (all[i].data() && (ledger::comes_before(last, all[i]) ||
                            bloom_lacks_element(filter, bytes_of(all[i]), all[i].size())))
        all[i] = {};
  });
  return ids;
}

void NewIds::remember(const Item* items, size_t n) {
  if (!since_) return;
  bloom_filter* filter = filter_;
  std::string_view last = last_;
  last = guarded([=] {
    std::string_view last_now = last;
    for (size_t i = 0; i < n; i++) {
      std::string_view id = items[i].legacy_id;
      if (id.data() == nullptr) continue;
      bloom_add_element(filter, bytes_of(id), id.size());
      if (ledger::comes_before(last_now, id)) last_now = id;
    }
    return last_now;
  });
  last_ = std::string(last);
}

}  // namespace portage::load
