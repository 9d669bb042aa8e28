// See new_keys.hpp.
#include "load/new_keys.hpp"

extern "C" {
#include "access/nbtree.h"
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
      hasher_(RowHasher::make(target.shape, attnums, memory_.get())) {}

/// As 1.0 and 1.00 are not: such keys would be refused as somebody else's.
bool NewKeys::equal_is_same() const {
  return std::all_of(attnums_.begin(), attnums_.end(), [&](int attnum) {
    Oid type = target_.column(attnum).type, collation = target_.column(attnum).collation;
    return guarded([=] {
      TypeCacheEntry* entry = lookup_type_cache(type, TYPECACHE_BTREE_OPFAMILY);
      Oid function = OidIsValid(entry->btree_opf)
                         ? get_opfamily_proc(entry->btree_opf, entry->btree_opintype, entry->btree_opintype,
                                             BTEQUALIMAGE_PROC)
                         : InvalidOid;
      return OidIsValid(function) &&
             DatumGetBool(OidFunctionCall1Coll(function, collation, ObjectIdGetDatum(entry->btree_opintype)));
    });
  });
}

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
      !equal_is_same() || in_order(first))
    return;
  bridge::InMemory in(memory_.get());
  filter_ = guarded([] { return bloom_create(expected, filter_kilobytes, 0); });
}

std::vector<uint64_t> NewKeys::hashes(const std::vector<Sought>& rows) const {
  std::vector<uint64_t> hashes(rows.size());
  std::vector<HashedRow> hashed;
  hashed.reserve(rows.size());
  for (size_t i = 0; i < rows.size(); i++) hashed.push_back({rows[i].values, rows[i].nulls, &hashes[i]});
  const RowHasher* hasher = &hasher_;
  const HashedRow* all = hashed.data();
  size_t count = hashed.size();
  guarded([=] { (*hasher)(all, count); });
  return hashes;
}

std::vector<size_t> NewKeys::perhaps(const std::vector<Sought>& keys) {
  std::vector<size_t> positions;
  std::vector<uint64_t> wanted = hashes(keys);
  for (size_t i = 0; i < wanted.size(); i++)
    if (!bloom_lacks_element(filter_, reinterpret_cast<unsigned char*>(&wanted[i]), sizeof wanted[i]))
      positions.push_back(i);
  return positions;
}

void NewKeys::add(const std::vector<Sought>& rows) {
  for (uint64_t hash : hashes(rows))
    bloom_add_element(filter_, reinterpret_cast<unsigned char*>(&hash), sizeof hash);
}

}  // namespace portage::load
