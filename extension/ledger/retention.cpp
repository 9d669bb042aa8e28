// See retention.hpp.
#include "ledger/retention.hpp"

#include "ledger/as_ledger.hpp"

namespace portage::ledger {

using bridge::Statement;

Dropped drop_kept(int64_t run_id) {
  AsLedger as;
  Dropped dropped;
  static const Statement payload(
      "WITH gone AS (DELETE FROM portage.migration_payloads WHERE run_id = $1 RETURNING "
      "octet_length(content)) "
      "SELECT count(*), coalesce(sum(octet_length), 0)::bigint FROM gone");
  bridge::Result gone = payload.run(run_id);
  dropped.chunks = gone.bigint(0, 1);
  dropped.chunk_bytes = gone.bigint(0, 2);
  static const Statement raw(
      "UPDATE portage.item_rows SET raw = NULL WHERE run_id = $1 AND raw IS NOT NULL AND status IN "
      "('invalid', 'failed', 'skipped', 'conflicted', 'parked')");
  dropped.raw_inputs = static_cast<int64_t>(raw.run(run_id).processed());
  static const Statement corrections("DELETE FROM portage.item_corrections WHERE run_id = $1");
  dropped.raw_inputs += static_cast<int64_t>(corrections.run(run_id).processed());
  static const Statement conflicts("DELETE FROM portage.migration_conflicts WHERE run_id = $1");
  dropped.raw_inputs += static_cast<int64_t>(conflicts.run(run_id).processed());
  static const Statement images(
      "UPDATE portage.migration_undo SET columns = NULL, before = NULL, before_hash = NULL, after_hashes = "
      "NULL WHERE run_id = $1 AND columns IS NOT NULL AND mapping_run_id IS NOT NULL");
  dropped.before_images = static_cast<int64_t>(images.run(run_id).processed());
  static const Statement others(
      "DELETE FROM portage.migration_undo WHERE run_id = $1 AND mapping_run_id IS NULL");
  dropped.before_images += static_cast<int64_t>(others.run(run_id).processed());
  static const Statement note(
      "UPDATE portage.migration_runs SET cleaned_at = clock_timestamp() WHERE id = $1 AND cleaned_at IS "
      "NULL");
  dropped.first = note.run(run_id).processed() == 1;
  return dropped;
}

void keep_for_ever(int64_t run_id) {
  AsLedger as;
  static const Statement keep(
      "UPDATE portage.migration_runs SET expires_at = 'infinity' WHERE id = $1 AND expires_at IS DISTINCT "
      "FROM 'infinity'");
  keep.run(run_id);
}

bool cleaned_up(int64_t run_id) {
  AsLedger as;
  static const Statement select(
      "SELECT FROM portage.migration_runs WHERE id = $1 AND cleaned_at IS NOT NULL");
  return !select.run(run_id).empty();
}

}  // namespace portage::ledger
