// See new_keys.hpp.
#include "load/new_keys.hpp"

extern "C" {
#include "lib/bloomfilter.h"
#include "storage/bufmgr.h"
#include "utils/typcache.h"
}

namespace portage::load {

using bridge::guarded;
using bridge::Sought;

namespace {

constexpr size_t worthwhile = 200;             // keys in the first batch
constexpr int64_t expected = 8 * 1024 * 1024;  // keys: 16 MB
constexpr int filter_kilobytes = 16 * 1024;

}  // namespace

NewKeys::NewKeys(const Target& target, const std::vector<int>& attnums)
    : target_(target),
      attnums_(attnums),
      memory_("portage new keys", PortalContext ? PortalContext : CurrentMemoryContext),
      equality_(target, attnums) {}

/// Whether the index would be gone through from one end to the other.
bool NewKeys::in_order(const std::vector<Sought>& keys) const {
  size_t back = 0;
  for (size_t i = 1; i < keys.size(); i++) {
    for (int attnum : attnums_) {
      const TargetColumn& column = target_.column(attnum);
      Oid type = column.type, collation = column.collation;
      if (keys[i].nulls[attnum - 1] || keys[i - 1].nulls[attnum - 1]) break;
      Datum before = keys[i - 1].values[attnum - 1], value = keys[i].values[attnum - 1];
      int order = guarded([=] {
        TypeCacheEntry* entry = lookup_type_cache(type, TYPECACHE_CMP_PROC_FINFO);
        if (!OidIsValid(entry->cmp_proc_finfo.fn_oid)) return 0;
        return DatumGetInt32(FunctionCall2Coll(&entry->cmp_proc_finfo, collation, before, value));
      });
      if (order == 0) continue;
      back += order > 0;
      break;
    }
  }
  return back <= keys.size() / 10;
}

void NewKeys::begin(Relation table, const std::vector<Sought>& first) {
  begun_ = true;
  if (first.size() < worthwhile || guarded([=] { return RelationGetNumberOfBlocks(table); }) > 0 ||
      !equality_.by_bytes() || in_order(first))
    return;
  bridge::InMemory in(memory_.get());
  filter_ = guarded([] { return bloom_create(expected, filter_kilobytes, 0); });
}

std::vector<size_t> NewKeys::perhaps(const std::vector<Sought>& keys) {
  std::vector<size_t> positions;
  std::vector<uint64_t> wanted = equality_.hashes(keys);
  for (size_t i = 0; i < wanted.size(); i++)
    if (!bloom_lacks_element(filter_, reinterpret_cast<unsigned char*>(&wanted[i]), sizeof wanted[i]))
      positions.push_back(i);
  return positions;
}

void NewKeys::add(const std::vector<Sought>& rows) {
  for (uint64_t hash : equality_.hashes(rows))
    bloom_add_element(filter_, reinterpret_cast<unsigned char*>(&hash), sizeof hash);
}

}  // namespace portage::load
