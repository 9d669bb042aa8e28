// See run_hashes.hpp.
#include "load/run_hashes.hpp"

#include "ledger/runs.hpp"

namespace portage::load {

RunHashes::RunHashes(const Plan& plan, int64_t run_id, std::vector<std::string> columns)
    : target_(plan.target()),
      run_id_(run_id),
      columns_(std::move(columns)),
      shape_(row_shape(target_, columns_, plan.mapped())) {}

std::vector<int> RunHashes::columns_of(const Plan& plan, int64_t run_id) {
  ledger::HashedColumns then = ledger::hashed_columns_of(run_id);
  const Target& target = plan.target();
  if (then.shape.empty()) return target.attnums(then.names);
  return RowShape(target, then.shape, then.names, target.column_names()).attnums();
}

RunHashes::Known& RunHashes::of(int64_t run_id) {
  auto found = known_.find(run_id);
  if (found != known_.end()) return found->second;
  Known known;
  if (run_id == run_id_) {
    known.same = true;
  } else {
    ledger::HashedColumns then = ledger::hashed_columns_of(run_id);
    known.same = then.names == columns_ && then.shape == shape_;
    if (!known.same && !then.shape.empty())
      known.shape = std::make_unique<RowShape>(target_, then.shape, then.names, columns_);
  }
  return known_.emplace(run_id, std::move(known)).first->second;
}

AsLeft RunHashes::compare(const ledger::Mapping& mapping, const Row& row) {
  const Known& run = of(mapping.run_id);
  if (run.same) return static_cast<int64_t>(row.row_hash) == mapping.row_hash ? AsLeft::yes : AsLeft::no;
  if (!run.shape) return AsLeft::unknown;  // the run is not known any more
  if (run.shape->whole()) {
    std::optional<uint64_t> hash = run.shape->row_hash(row.values, row.nulls);
    if (hash && static_cast<int64_t>(*hash) == mapping.row_hash) return AsLeft::yes;
    if (!run.shape->altered()) return AsLeft::no;
  }
  std::optional<uint64_t> mapped = run.shape->source_hash(row.values, row.nulls);
  return mapped && static_cast<int64_t>(*mapped) == mapping.source_hash ? AsLeft::yes : AsLeft::unknown;
}

std::vector<std::string> RunHashes::gone(int64_t run_id) {
  const Known& run = of(run_id);
  return run.shape ? run.shape->gone() : std::vector<std::string>();
}

void RunHashes::bring_up(int64_t run_id, Image& image) {
  if (image.empty()) return;
  const Known& run = of(run_id);
  if (!run.shape) return;
  const RowShape& shape = *run.shape;
  image.change([&](Image::Column& column) {
    const TargetColumn* now = shape.column_now(target_, column.name);
    if (!now) return;
    column.name = now->name;
    for (std::optional<std::string>* text : {&column.stored, &column.came})
      if (*text) *text = shape.text_now(*now, **text);
  });
}

}  // namespace portage::load
