// See new_space.hpp.
#include "ledger/new_space.hpp"

#include "ledger/as_ledger.hpp"

namespace portage::ledger {

std::optional<int64_t> empty_since(const MappingSpace& space) {
  AsLedger as;
  bridge::ByIndex by_index;
  static const bridge::Statement select(
      "SELECT coalesce(pg_sequence_last_value('portage.migration_batches_id_seq'), 0) "
      "WHERE NOT EXISTS (SELECT FROM portage.all_mappings m WHERE m.pipeline_id = $1 AND m.scope = $2)");
  bridge::Result rows = select.run(space.pipeline_id, space.scope);
  if (rows.empty()) return std::nullopt;
  return rows.bigint(0, 1);
}

bool untouched_since(const MappingSpace& space, int64_t run_id, int64_t batch) {
  AsLedger as;
  bridge::ByIndex by_index;
  // The space '' may be that of all scopes.
  static const bridge::Statement select(
      "SELECT NOT EXISTS (SELECT FROM portage.migration_runs r WHERE r.pipeline_id = $3 AND $4 IN (r.scope, "
      "'') "
      "AND r.id <> $2 AND EXISTS (SELECT FROM portage.migration_batches b WHERE b.run_id = r.id AND b.id > "
      "$1))");
  return select.run(batch, run_id, space.pipeline_id, space.scope).boolean(0, 1);
}

}  // namespace portage::ledger
