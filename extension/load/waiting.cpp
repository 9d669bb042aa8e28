// See waiting.hpp.
#include "load/waiting.hpp"

#include "bridge/spi.hpp"

extern "C" {
#include "common/hashfn.h"
#include "utils/typcache.h"
}

namespace portage::load {
namespace {

uint64_t hash_of(std::string_view text, uint64_t seed) {
  return hash_bytes_extended(reinterpret_cast<const unsigned char*>(text.data()),
                             static_cast<int>(text.size()), seed);
}

}  // namespace

Waiting::Waiting(const Plan& plan) : memory_("portage waiting items") {
  MemoryContext context = memory_.get();
  for (int attnum : plan.match()) {
    const TargetColumn& column = plan.target().column(attnum);
    Oid type = column.type;
    FmgrInfo* hash = bridge::guarded([=]() -> FmgrInfo* {
      TypeCacheEntry* entry = lookup_type_cache(type, TYPECACHE_HASH_EXTENDED_PROC);
      if (!OidIsValid(entry->hash_extended_proc)) return nullptr;
      auto* info = static_cast<FmgrInfo*>(MemoryContextAlloc(context, sizeof(FmgrInfo)));
      fmgr_info_cxt(entry->hash_extended_proc, info, context);
      return info;
    });
    match_.push_back({attnum, column.collation, hash, type});
  }
}

KnownBy Waiting::known_by(const Item& item) const {
  KnownBy known;
  if (item.legacy_id.data() != nullptr) known.id = hash_of(item.legacy_id, 1) | 1;
  if (match_.empty() || !item.values) return known;
  uint64_t hash = 2;
  for (const Column& column : match_) {
    if (item.nulls[column.attnum - 1]) return known;
    Datum value = item.values[column.attnum - 1];
    uint64_t one;
    if (column.hash) {
      FmgrInfo* info = column.hash;
      Oid collation = column.collation;
      one = bridge::guarded(
          [=] { return DatumGetUInt64(FunctionCall2Coll(info, collation, value, UInt64GetDatum(0))); });
    } else {
      bridge::PlainText plain;
      one = hash_of(bridge::output_text(column.type, value), 3);
    }
    hash = hash_combine64(hash, one);
  }
  known.match = hash | 1;
  return known;
}

}  // namespace portage::load
