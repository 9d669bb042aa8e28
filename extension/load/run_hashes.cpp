// See run_hashes.hpp.
#include "load/run_hashes.hpp"

#include "ledger/runs.hpp"
#include "pipeline/hash.hpp"

namespace portage::load {

int64_t RunHashes::of(int64_t run_id, const Row& row) {
  auto known = hashers_.find(run_id);
  if (known == hashers_.end()) {
    Hasher made;
    std::vector<std::string> names = run_id == run_id_ ? columns_ : ledger::hash_columns_of(run_id);
    made.same = names == columns_;
    for (const std::string& name : names) {
      const TargetColumn* column = target_.column(name);
      if (column && std::find(columns_.begin(), columns_.end(), name) != columns_.end())
        made.attnums.push_back(column->attnum);
      else
        made.readable = false;
    }
    std::sort(made.attnums.begin(), made.attnums.end());
    known = hashers_.emplace(run_id, std::move(made)).first;
  }
  const Hasher& run = known->second;
  if (run.same) return static_cast<int64_t>(row.row_hash);
  if (!run.readable) return 0;
  bridge::Memory memory("portage row hash");
  RowHasher hasher = RowHasher::make(target_.shape, run.attnums, memory.get());
  const RowHasher* h = &hasher;
  const Datum* values = row.values;
  const bool* nulls = row.nulls;
  return static_cast<int64_t>(bridge::guarded([=] { return (*h)(values, nulls); }));
}

}  // namespace portage::load
