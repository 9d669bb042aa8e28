// See source_cursors.hpp. The numbers of batches tell what was before what: they grow with each, and a dump
// carries them on.
#include "ledger/source_cursors.hpp"

#include "ledger/as_ledger.hpp"

namespace portage::ledger {

using bridge::Result;
using bridge::Statement;

std::optional<std::string> source_position(const Run& run, const Part& part) {
  AsLedger as;
  static const Statement select(
      "SELECT position FROM portage.source_cursors WHERE pipeline_id = $1 AND scope = $2 AND source = $3 AND "
      "cursor_column = $4 ORDER BY batch_id DESC LIMIT 1");
  Result rows = select.run(run.pipeline_id, run.scope, part.query, part.cursor_column);
  if (rows.empty()) return std::nullopt;
  return rows.text(0, 1);
}

void set_source_position(const Run& run, const Part& part, const std::string& key) {
  AsLedger as;
  // What is read again (an overlap, or all) does not move it back. cursor_type is a name of PostgreSQL's own.
  std::string reached = "json_array_element_text($6::json, 0)::" + part.cursor_type;
  bridge::execute(
      "INSERT INTO portage.source_cursors (pipeline_id, scope, run_id, source, cursor_column, position, "
      "batch_id) SELECT $1, $2, $3, $4, $5, json_array_element_text($6::json, 0), (SELECT max(b.id) FROM "
      "portage.migration_batches b WHERE b.run_id = $3) WHERE NOT EXISTS (SELECT FROM portage.source_cursors "
      "c "
      "WHERE c.pipeline_id = $1 AND c.scope = $2 AND c.source = $4 AND c.cursor_column = $5 AND "
      "c.position::" +
          part.cursor_type + " > " + reached +
          ") ON CONFLICT (pipeline_id, scope, run_id) DO UPDATE SET source = excluded.source, cursor_column "
          "= "
          "excluded.cursor_column, position = excluded.position, batch_id = excluded.batch_id, moved_at = "
          "clock_timestamp()",
      {bridge::param(run.pipeline_id), bridge::param(run.scope), bridge::param(run.id),
       bridge::param(part.query), bridge::param(part.cursor_column), bridge::param(key)});
}

void forget_source_positions(const Run& run, bool shared) {
  AsLedger as;
  static const Statement remove(
      "DELETE FROM portage.source_cursors WHERE pipeline_id = $1 AND (scope = $2 OR $4) AND batch_id >= "
      "(SELECT "
      "min(b.id) FROM portage.migration_batches b WHERE b.run_id = $3)");
  remove.run(run.pipeline_id, run.scope, run.id, shared);
}

}  // namespace portage::ledger
