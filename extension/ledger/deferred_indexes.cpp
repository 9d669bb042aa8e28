// See deferred_indexes.hpp.
#include "ledger/deferred_indexes.hpp"

#include "ledger/arrays.hpp"
#include "ledger/as_ledger.hpp"

namespace portage::ledger {

using bridge::param;
using bridge::Result;
using bridge::Statement;

void insert_deferred_indexes(int64_t run_id, const std::vector<DeferredIndex>& indexes) {
  AsLedger as;
  static const Statement insert(
      "INSERT INTO portage.deferred_indexes (run_id, position, index_schema, index_name, is_unique, is_key, "
      "definition, constraint_name, constraint_definition, tablespace, index_comment, constraint_comment, "
      "columns, stays) VALUES ($1, $2, $3, $4, $5, $6, $7, nullif($8, ''), nullif($9, ''), nullif($10, ''), "
      "$11, $12, $13, nullif($14, ''))");
  for (const DeferredIndex& one : indexes)
    insert({param(run_id), param(one.position), param(one.schema), param(one.name), param(one.is_unique),
            param(one.is_key), param(one.definition), param(one.constraint), param(one.constraint_definition),
            param(one.tablespace), param(one.comment), param(one.constraint_comment),
            bridge::param_text_array(one.columns), param(one.stays)});
}

bool has_deferred_indexes(int64_t run_id) {
  AsLedger as;
  static const Statement select("SELECT FROM portage.deferred_indexes WHERE run_id = $1 LIMIT 1");
  return !select.run(run_id).empty();
}

bool deferred_unique_indexes(int64_t run_id) {
  AsLedger as;
  static const Statement select(
      "SELECT FROM portage.deferred_indexes WHERE run_id = $1 AND is_unique AND NOT is_key AND stays IS NULL "
      "LIMIT 1");
  return !select.run(run_id).empty();
}

std::vector<DeferredIndex> missing_indexes(int64_t run_id) {
  AsLedger as;
  static const Statement select(
      "SELECT position, index_schema, index_name, is_unique, definition, constraint_name, "
      "constraint_definition, tablespace, index_comment, constraint_comment, columns, is_key FROM "
      "portage.deferred_indexes WHERE run_id = $1 AND stays IS NULL AND restored_at IS NULL ORDER BY "
      "NOT is_key, position");
  Result rows = select.run(run_id);
  std::vector<DeferredIndex> indexes;
  for (size_t i = 0; i < rows.size(); i++) {
    DeferredIndex one;
    one.position = rows.integer(i, 1);
    one.schema = rows.text(i, 2);
    one.name = rows.text(i, 3);
    one.is_unique = rows.boolean(i, 4);
    one.definition = rows.text(i, 5);
    one.constraint = rows.text(i, 6);
    one.constraint_definition = rows.text(i, 7);
    one.tablespace = rows.text(i, 8);
    one.comment = rows.maybe_text(i, 9);
    one.constraint_comment = rows.maybe_text(i, 10);
    one.columns = names_of(rows, i, 11);
    one.is_key = rows.boolean(i, 12);
    indexes.push_back(std::move(one));
  }
  return indexes;
}

void set_restored(int64_t run_id, int32_t position) {
  AsLedger as;
  static const Statement update(
      "UPDATE portage.deferred_indexes SET restored_at = clock_timestamp() WHERE run_id = $1 AND position = "
      "$2");
  update.run(run_id, position);
}

std::optional<MissingKey> missing_key(const std::string& schema, const std::string& table, int64_t run_id) {
  AsLedger as;
  static const Statement select(
      "SELECT d.run_id, d.columns FROM portage.deferred_indexes d JOIN portage.migration_runs r ON r.id = "
      "d.run_id JOIN portage.pipeline_versions v ON v.pipeline_id = r.pipeline_id AND v.version = "
      "r.pipeline_version WHERE d.is_key AND d.stays IS NULL AND d.restored_at IS NULL AND v.target_schema = "
      "$1 AND v.target_name = $2 ORDER BY d.run_id = $3 DESC, d.run_id DESC LIMIT 1");
  Result rows = select({param(schema), param(table), param(run_id)});
  if (rows.empty()) return std::nullopt;
  return MissingKey{rows.bigint(0, 1), names_of(rows, 0, 2)};
}

int64_t abandoned_indexes() {
  AsLedger as;
  static const Statement select(
      "SELECT count(*) FROM portage.deferred_indexes d JOIN portage.migration_runs r ON r.id = d.run_id JOIN "
      "portage.pipeline_versions v ON v.pipeline_id = r.pipeline_id AND v.version = r.pipeline_version JOIN "
      "pg_namespace n ON n.nspname = v.target_schema JOIN pg_class c ON c.relnamespace = n.oid AND c.relname "
      "= v.target_name WHERE d.stays IS NULL AND d.restored_at IS NULL AND NOT "
      "portage.run_owner_alive(r)");
  return select().bigint(0, 1);
}

}  // namespace portage::ledger
