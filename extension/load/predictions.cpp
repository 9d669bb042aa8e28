// See predictions.hpp.
#include "load/predictions.hpp"

#include "bridge/spi.hpp"

extern "C" {
#include "utils/typcache.h"
}

namespace portage::load {

using bridge::guarded;
using ledger::Prediction;

namespace {

constexpr const char *an_id = "id", *a_key = "key";

bool landed(const Item& item) {
  return item.outcome == Outcome::inserted || item.outcome == Outcome::updated ||
         item.outcome == Outcome::unchanged;
}

}  // namespace

Predictions::Predictions(const Plan& plan, int64_t run_id, int32_t session)
    : plan_(plan),
      run_id_(run_id),
      session_(session),
      memory_("portage predictions", PortalContext ? PortalContext : CurrentMemoryContext) {
  if (!plan.match().empty()) match_ = make_key("match", plan.match(), nullptr);
  std::set<int> match(plan.match().begin(), plan.match().end());
  for (const UniqueIndex& index : plan.target().unique_indexes) {
    if (index.partial || index.expressions || !index.valid || index.attnums.empty()) continue;
    if (std::set<int>(index.attnums.begin(), index.attnums.end()) == match) continue;
    bool mapped = std::all_of(index.attnums.begin(), index.attnums.end(), [&](int attnum) {
      return std::binary_search(plan.mapped().begin(), plan.mapped().end(), attnum);
    });
    if (mapped) unique_.push_back(make_key("unique " + index.name, index.attnums, &index));
  }
}

Predictions::Key Predictions::make_key(const std::string& kind, const std::vector<int>& attnums,
                                       const UniqueIndex* index) const {
  Key key{kind, attnums, {}, index};
  MemoryContext memory = memory_.get();
  for (int attnum : attnums) {
    Oid type = plan_.target().column(attnum).type;
    key.hashes.push_back(guarded([=]() -> FmgrInfo* {
      Oid function = lookup_type_cache(type, TYPECACHE_HASH_EXTENDED_PROC)->hash_extended_proc;
      if (!OidIsValid(function)) return nullptr;
      auto* hash = static_cast<FmgrInfo*>(MemoryContextAlloc(memory, sizeof(FmgrInfo)));
      fmgr_info_cxt(function, hash, memory);
      return hash;
    }));
  }
  return key;
}

std::optional<std::string> Predictions::value_of(const Key& key, const Item& item) const {
  std::string text;
  uint64 seed = 0;
  for (size_t i = 0; i < key.attnums.size(); i++) {
    const TargetColumn& column = plan_.target().column(key.attnums[i]);
    int position = key.attnums[i] - 1;
    if (item.nulls[position]) {
      if (!key.index || !key.index->nulls_not_distinct) return std::nullopt;
      seed = seed * 31 + 1;
      continue;
    }
    Datum value = item.values[position];
    if (FmgrInfo* hash = key.hashes[i]) {
      Oid collation = key.index ? key.index->collations[i] : column.collation;
      seed = guarded(
          [=] { return DatumGetUInt64(FunctionCall2Coll(hash, collation, value, UInt64GetDatum(seed))); });
    } else {
      bridge::PlainText plain;
      (text += '\x01') += bridge::output_text(column.type, value);
    }
  }
  return bridge::format("%016llx", static_cast<unsigned long long>(seed)) + text;
}

std::vector<int64_t> Predictions::find(const Key& key, const std::vector<Item*>& items) const {
  std::vector<int64_t> ordinals(items.size(), 0);
  std::vector<std::optional<std::string>> values;
  std::vector<std::string> wanted;
  for (const Item* item : items) {
    values.push_back(value_of(key, *item));
    if (values.back()) wanted.push_back(*values.back());
  }
  std::unordered_map<std::string, int64_t> known =
      ledger::find_predictions(run_id_, session_, key.kind, wanted);
  for (size_t i = 0; i < items.size(); i++) {
    if (!values[i]) continue;
    auto it = known.find(*values[i]);
    if (it != known.end()) ordinals[i] = it->second;
  }
  return ordinals;
}

std::vector<int64_t> Predictions::find_ids(const std::vector<Item*>& items) const {
  std::vector<int64_t> ordinals(items.size(), 0);
  std::vector<std::string> ids;
  for (const Item* item : items)
    if (item->legacy_id.data()) ids.emplace_back(item->legacy_id);
  std::unordered_map<std::string, int64_t> known = ledger::find_predictions(run_id_, session_, an_id, ids);
  for (size_t i = 0; i < items.size() && !known.empty(); i++) {
    auto it = known.find(std::string(items[i]->legacy_id));
    if (it != known.end()) ordinals[i] = it->second;
  }
  return ordinals;
}

std::unordered_map<std::string, int64_t> Predictions::find_keys(const std::vector<std::string>& keys) const {
  return ledger::find_predictions(run_id_, session_, a_key, keys);
}

std::vector<int64_t> Predictions::find_match(const std::vector<Item*>& items) const {
  return match_ ? find(*match_, items) : std::vector<int64_t>(items.size(), 0);
}

std::vector<Predictions::Clash> Predictions::find_unique(const std::vector<Item*>& items) const {
  std::vector<Clash> clashes(items.size(), Clash{nullptr});
  for (const Key& key : unique_) {
    std::vector<int64_t> ordinals = find(key, items);
    for (size_t i = 0; i < items.size(); i++)
      if (ordinals[i] && !clashes[i].index) clashes[i].index = key.index;
  }
  return clashes;
}

void Predictions::remember(const Item* items, size_t n) const {
  std::vector<Prediction> predictions;
  for (size_t i = 0; i < n; i++) {
    const Item& item = items[i];
    if (!landed(item)) continue;
    if (item.legacy_id.data()) predictions.push_back({an_id, std::string(item.legacy_id), item.ordinal});
    if (item.outcome != Outcome::inserted)
      predictions.push_back({a_key, std::string(item.target_key), item.ordinal});
    if (item.outcome == Outcome::unchanged) continue;  // what it would write stands there already
    auto add = [&](const Key& key) {
      if (std::optional<std::string> value = value_of(key, item))
        predictions.push_back({key.kind, *value, item.ordinal});
    };
    if (match_) add(*match_);
    for (const Key& key : unique_) add(key);
  }
  ledger::write_predictions(run_id_, session_, predictions);
}

}  // namespace portage::load
