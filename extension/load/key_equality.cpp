// See key_equality.hpp.
#include "load/key_equality.hpp"

#include "load/batch_relation.hpp"

extern "C" {
#include "access/nbtree.h"
#include "utils/datum.h"
#include "utils/typcache.h"
}

namespace portage::load {

using bridge::guarded;
using bridge::Sought;

namespace {

/// Whether equal values are the same bytes, as an index that leaves duplicates out of its pages asks.
bool equal_is_same_raw(Oid type, Oid collation) {
  TypeCacheEntry* entry = lookup_type_cache(type, TYPECACHE_BTREE_OPFAMILY);
  Oid function = OidIsValid(entry->btree_opf) ? get_opfamily_proc(entry->btree_opf, entry->btree_opintype,
                                                                  entry->btree_opintype, BTEQUALIMAGE_PROC)
                                              : InvalidOid;
  return OidIsValid(function) &&
         DatumGetBool(OidFunctionCall1Coll(function, collation, ObjectIdGetDatum(entry->btree_opintype)));
}

FmgrInfo* function_raw(Oid function, MemoryContext memory) {
  if (!OidIsValid(function)) return nullptr;
  auto* info = static_cast<FmgrInfo*>(MemoryContextAlloc(memory, sizeof(FmgrInfo)));
  fmgr_info_cxt(function, info, memory);
  return info;
}

struct Ranking {
  FmgrInfo* compare;
  Oid collation;
  int index;
  const Sought* keys;
};

int compare_raw(const void* one, const void* other, void* ranking) {
  auto* by = static_cast<Ranking*>(ranking);
  auto value = [=](const void* position) {
    return by->keys[*static_cast<const size_t*>(position)].values[by->index];
  };
  return DatumGetInt32(FunctionCall2Coll(by->compare, by->collation, value(one), value(other)));
}

}  // namespace

KeyEquality::KeyEquality(const Target& target, const std::vector<int>& attnums)
    : memory_("portage key equality", PortalContext ? PortalContext : CurrentMemoryContext),
      attnums_(attnums),
      hasher_(RowHasher::make(target.shape, attnums, memory_.get())) {
  MemoryContext memory = memory_.get();
  for (int attnum : attnums) {
    const TargetColumn& column = target.column(attnum);
    Oid type = column.type, collation = column.collation;
    by_bytes_ = by_bytes_ && guarded([=] { return equal_is_same_raw(type, collation); });
    columns_.push_back(
        {attnum - 1, type, collation, nullptr, nullptr, nullptr, column.by_value, column.length});
  }
  if (by_bytes_) return;
  for (Column& column : columns_) {
    Oid equality = equality_of(column.type);
    Column* c = &column;
    guarded([=] {
      c->equal = function_raw(get_opcode(equality), memory);
      TypeCacheEntry* entry =
          lookup_type_cache(c->type, TYPECACHE_HASH_EXTENDED_PROC | TYPECACHE_CMP_PROC | TYPECACHE_EQ_OPR);
      c->hash = function_raw(entry->hash_extended_proc, memory);
      if (!c->hash) c->compare = function_raw(entry->cmp_proc, memory);
    });
  }
}

std::vector<uint64_t> KeyEquality::hashes(const std::vector<Sought>& keys) const {
  std::vector<uint64_t> hashes(keys.size(), 0);
  bridge::Memory scratch("portage key hashes");
  bridge::InMemory in(scratch.get());
  if (by_bytes_) {
    std::vector<HashedRow> hashed;
    hashed.reserve(keys.size());
    for (size_t i = 0; i < keys.size(); i++) hashed.push_back({keys[i].values, keys[i].nulls, &hashes[i]});
    const RowHasher* hasher = &hasher_;
    const HashedRow* all = hashed.data();
    size_t count = hashed.size();
    guarded([=] { (*hasher)(all, count); });
    return hashes;
  }
  const Sought* first = keys.data();
  size_t count = keys.size();
  uint64_t* out = hashes.data();
  MemoryContext memory = scratch.get();
  for (const Column& column : columns_) {
    if (!column.hash) {
      add_ranks(column, keys, hashes);
      continue;
    }
    const Column* c = &column;
    guarded([=] {
      for (size_t i = 0; i < count; i++) {
        if (first[i].nulls[c->index]) continue;
        out[i] = DatumGetUInt64(FunctionCall2Coll(c->hash, c->collation, first[i].values[c->index],
                                                  UInt64GetDatum(out[i] * 31 + 1)));
        MemoryContextReset(memory);
      }
    });
  }
  return hashes;
}

/// In place of a hash, each value's place among the others in their order. PostgreSQL's own sort, since the
/// comparison may be anybody's: one that contradicts itself leads the standard library's out of the array.
void KeyEquality::add_ranks(const Column& column, const std::vector<Sought>& keys,
                            std::vector<uint64_t>& hashes) const {
  std::vector<size_t> order;
  for (size_t i = 0; i < keys.size(); i++)
    if (!keys[i].nulls[column.index]) order.push_back(i);
  if (!column.compare) return;  // each is compared with each
  Ranking ranking{column.compare, column.collation, column.index, keys.data()};
  Ranking* by = &ranking;
  size_t* first = order.data();
  size_t count = order.size();
  uint64_t* out = hashes.data();
  guarded([=] {
    qsort_arg(first, count, sizeof(size_t), compare_raw, by);
    uint64_t rank = 0;
    for (size_t i = 0; i < count; i++) {
      if (i > 0 && compare_raw(&first[i - 1], &first[i], by) != 0) rank++;
      out[first[i]] = out[first[i]] * 31 + rank;
    }
  });
}

bool KeyEquality::same(const Datum* one, const Datum* other) const {
  const Column* columns = columns_.data();
  size_t count = columns_.size();
  bool by_bytes = by_bytes_;
  return guarded([=] {
    for (size_t i = 0; i < count; i++) {
      const Column& c = columns[i];
      Datum a = one[c.index], b = other[c.index];
      if (by_bytes ? !datum_image_eq(a, b, c.by_value, c.length)
                   : !DatumGetBool(FunctionCall2Coll(c.equal, c.collation, a, b)))
        return false;
    }
    return true;
  });
}

}  // namespace portage::load
