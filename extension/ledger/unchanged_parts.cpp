// See unchanged_parts.hpp. All parts at once: a directory may have thousands of them. The numbers of batches
// tell what came after what.
#include "ledger/unchanged_parts.hpp"

#include "ledger/as_ledger.hpp"

namespace portage::ledger {
namespace {

using bridge::param;
using bridge::Result;

/// $1 the run, $2 its pipeline, $3 version, $4 scope, $5 time zone, $6 whether places count, $7 and $8 the
/// lengths.
const std::string& earlier_parts() {
  static const std::string sql =
      "WITH mine AS (SELECT p.part, p.byte_length, p.sha256, CASE WHEN $6 THEN p.name END AS name, CASE WHEN "
      "$6 THEN p.path END AS path FROM portage.migration_parts p WHERE p.run_id = $1 AND p.kind <> 'query' "
      "AND p.skipped IS NULL AND p.byte_length BETWEEN $7 AND $8), earlier AS (SELECT p.run_id, p.part, "
      "p.byte_length, p.sha256, CASE WHEN $6 THEN p.name END AS name, CASE WHEN $6 THEN p.path END AS path "
      "FROM portage.migration_runs r JOIN portage.migration_parts p ON p.run_id = r.id WHERE r.pipeline_id = "
      "$2 AND r.pipeline_version = $3 AND r.scope = $4 AND r.timezone = $5 AND r.id <> $1 AND r.status = "
      "'completed' AND NOT r.dry_run AND r.purged_at IS NULL AND r.options ->> 'limit' IS NULL AND r.options "
      "->> 'sample' IS NULL AND r.options ->> 'max_item_bytes' IS NOT DISTINCT FROM (SELECT m.options ->> "
      "'max_item_bytes' FROM portage.migration_runs m WHERE m.id = $1) AND p.sha256 IS NOT NULL AND "
      "p.skipped IS NULL), same AS (SELECT m.part, e.run_id, e.part AS read_part, m.sha256 = e.sha256 AS "
      "identical FROM mine m JOIN earlier e ON e.byte_length = m.byte_length AND e.name IS NOT DISTINCT FROM "
      "m.name AND e.path IS NOT DISTINCT FROM m.path) ";
  return sql;
}

}  // namespace

std::vector<int32_t> parts_of_known_length(const Run& run, const Likeness& likeness) {
  AsLedger as;
  static const std::string sql = earlier_parts() +
                                 "SELECT DISTINCT s.part FROM same s WHERE NOT EXISTS (SELECT FROM "
                                 "portage.migration_ranges g WHERE g.run_id = $1) ORDER BY 1";
  static const bridge::Statement select(sql.c_str());
  Result rows = select.run(run.id, run.pipeline_id, run.version, run.scope, run.timezone, likeness.place,
                           likeness.least_bytes, likeness.greatest_bytes);
  std::vector<int32_t> parts;
  for (size_t i = 0; i < rows.size(); i++) parts.push_back(rows.integer(i, 1));
  return parts;
}

std::vector<SamePart> unchanged_parts(const Run& run, const MappingSpace& space,
                                      const std::vector<int64_t>& references, const Likeness& likeness) {
  AsLedger as;
  // An item that is inserted for the first time leaves all others alone; one that is inserted again, since
  // its row was gone, has the mapping that was before in migration_undo.
  static const std::string sql =
      earlier_parts() +
      ", newest AS (SELECT DISTINCT ON (s.part) s.part, s.run_id, s.read_part FROM same s WHERE s.identical "
      "ORDER BY s.part, s.run_id DESC, s.read_part), placed AS (SELECT n.*, (SELECT max(b.id) FROM "
      "portage.migration_batches b WHERE b.run_id = n.run_id AND b.kind = 'import' AND b.part = n.read_part) "
      "AS last_batch FROM newest n), family AS (SELECT r.id, r.purged_at IS NOT NULL AS purged FROM "
      "portage.migration_runs r WHERE r.id <> $1 AND NOT r.dry_run AND (r.pipeline_id = $2 AND ($9 = '' OR "
      "r.scope = $9) OR r.pipeline_id = ANY ($10))), "
      "since AS (SELECT b.run_id, b.id, b.updated <> 0 OR b.rolled_back <> 0 OR b.deleted <> 0 OR f.purged "
      "AS disturbs FROM family f JOIN portage.migration_batches b ON b.run_id = f.id WHERE b.id >= (SELECT "
      "min(p.last_batch) FROM placed p)), disturbed AS (SELECT greatest((SELECT max(s.id) FROM since s WHERE "
      "s.disturbs), (SELECT max(u.batch_id) FROM (SELECT DISTINCT s.run_id FROM since s) s JOIN "
      "portage.migration_undo u ON u.run_id = s.run_id)) AS batch) SELECT p.part, p.run_id, p.read_part FROM "
      "placed p, disturbed d WHERE p.last_batch >= coalesce(d.batch, 0) AND NOT EXISTS (SELECT FROM "
      "portage.item_rows i WHERE i.run_id = p.run_id AND i.part = p.read_part AND i.status IN ('invalid', "
      "'failed', 'skipped', 'conflicted', 'parked') AND NOT EXISTS (SELECT FROM portage.item_rows later "
      "WHERE later.run_id = i.run_id AND later.ordinal = i.ordinal AND later.revision > i.revision)) ORDER "
      "BY p.part";
  Result rows = bridge::execute(
      sql, {param(run.id), param(run.pipeline_id), param(run.version), param(run.scope), param(run.timezone),
            param(likeness.place), param(likeness.least_bytes), param(likeness.greatest_bytes),
            param(space.scope), bridge::param_int8_array(references)});
  std::vector<SamePart> same;
  for (size_t i = 0; i < rows.size(); i++)
    same.push_back({rows.integer(i, 1), rows.bigint(i, 2), rows.integer(i, 3)});
  return same;
}

}  // namespace portage::ledger
