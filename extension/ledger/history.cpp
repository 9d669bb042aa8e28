// All that the ledger knows of a pipeline's runs, as a whole: whether there is any, and its erasure.
#include "bridge/codes.hpp"
#include "bridge/spi.hpp"
#include "ledger/as_ledger.hpp"
#include "ledger/pipelines.hpp"

namespace portage::ledger {

using bridge::param;

bool has_history(int64_t pipeline_id) {
  AsLedger as;
  static const bridge::Statement select("SELECT FROM portage.migration_runs WHERE pipeline_id = $1 LIMIT 1");
  return !select.run(pipeline_id).empty();
}

void erase_history(int64_t pipeline_id) {
  AsLedger as;
  bridge::Result active = bridge::execute(
      "SELECT r.id FROM portage.migration_runs r WHERE r.pipeline_id = $1 AND "
      "portage.run_owner_alive(r) LIMIT 1",
      {param(pipeline_id)});
  if (!active.empty())
    throw bridge::Error(codes::run_in_progress, "a migration is in progress")
        .detail(bridge::format("Run %lld of this pipeline is being worked on.",
                               static_cast<long long>(active.bigint(0, 1))))
        .hint(bridge::format("Wait for it, or SELECT portage.cancel(%lld);",
                             static_cast<long long>(active.bigint(0, 1))));
  bridge::Result missing = bridge::execute(
      "SELECT d.run_id FROM portage.deferred_indexes d JOIN portage.migration_runs r ON r.id = d.run_id JOIN "
      "portage.pipeline_versions v ON v.pipeline_id = r.pipeline_id AND v.version = r.pipeline_version JOIN "
      "pg_namespace n ON n.nspname = v.target_schema JOIN pg_class c ON c.relnamespace = n.oid AND c.relname "
      "= v.target_name WHERE r.pipeline_id = $1 AND d.stays IS NULL AND d.restored_at IS NULL LIMIT 1",
      {param(pipeline_id)});
  if (!missing.empty())
    throw bridge::Error(codes::wrong_state, "indexes of the target are missing since an initial load")
        .detail(bridge::format("What they were, only run %lld of this pipeline knows.",
                               static_cast<long long>(missing.bigint(0, 1))))
        .hint(bridge::format("CALL portage.restore_indexes(%lld); builds them.",
                             static_cast<long long>(missing.bigint(0, 1))));
  for (const char* table : {"migration_parts", "migration_payloads", "migration_ranges", "migration_batches",
                            "item_rows", "item_packs", "item_corrections", "migration_undo", "row_moves",
                            "missing_rows", "migration_conflicts", "predictions", "deferred_indexes",
                            "data_integrity_checks", "migration_events", "group_members"})
    bridge::execute(std::string("DELETE FROM portage.") + table +
                        " WHERE run_id IN (SELECT id FROM portage.migration_runs WHERE pipeline_id = $1)",
                    {param(pipeline_id)});
  bridge::execute(
      "DELETE FROM portage.migration_events WHERE run_id = 0 AND (details ->> 'pipeline_id')::bigint = $1",
      {param(pipeline_id)});
  bridge::execute("DELETE FROM portage.source_cursors WHERE pipeline_id = $1", {param(pipeline_id)});
  bridge::execute("DELETE FROM portage.mapping_rows WHERE pipeline_id = $1", {param(pipeline_id)});
  bridge::execute("DELETE FROM portage.mapping_packs WHERE pipeline_id = $1", {param(pipeline_id)});
  bridge::execute("DELETE FROM portage.migration_runs WHERE pipeline_id = $1", {param(pipeline_id)});
  bridge::execute(
      "DELETE FROM portage.run_groups g WHERE NOT EXISTS (SELECT FROM portage.group_members m WHERE "
      "m.group_id = g.id)");
}

}  // namespace portage::ledger
