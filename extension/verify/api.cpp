// verify(): the checks of a run, one function each, recorded in data_integrity_checks. Rows of the target are
// read as the run's role; the ledger is read as its owner.
#include "bridge/codes.hpp"
#include "bridge/entry.hpp"
#include "bridge/json.hpp"
#include "ledger/as_ledger.hpp"
#include "ledger/pipelines.hpp"
#include "ledger/undo.hpp"
#include "load/batch_relation.hpp"
#include "load/writer.hpp"
#include "run/access.hpp"

namespace portage::verify {
namespace {

using bridge::param;
using bridge::Result;

constexpr int64_t page = 2000;
constexpr size_t named = 10;  // findings that are named in the details

struct Check {
  std::string name, severity = "error", expected, actual;
  bool passed;
  std::string details = "{}";
};

std::string list_of(const std::vector<std::string>& texts) {
  std::string list;
  for (const std::string& text : texts) (list += list.empty() ? "" : ", ") += bridge::json_quoted(text);
  return "[" + list + "]";
}

/// A check that wants a query to give no rows; column 1 of the rows names what is wrong.
Check none(const std::string& name, const std::string& sql, const std::vector<bridge::Param>& params,
           const std::string& severity = "error") {
  ledger::AsLedger as;
  Result rows = bridge::execute(sql, params);
  std::vector<std::string> found;
  for (size_t i = 0; i < std::min(rows.size(), named); i++) found.push_back(rows.text(i, 1));
  return {
      name, severity, "0", std::to_string(rows.size()), rows.empty(), "{\"found\": " + list_of(found) + "}"};
}

/// The run's counters, its batches and its items tell the same story.
Check balance(const ledger::Run& run) {
  ledger::AsLedger as;
  Result rows = bridge::execute(
      "SELECT b.status, b.count, coalesce(i.count, 0) FROM (SELECT s.status, s.count FROM (SELECT "
      "sum(inserted) AS inserted, "
      "sum(updated) AS updated, sum(unchanged) AS unchanged, sum(skipped) AS skipped, sum(conflicted) AS "
      "conflicted, "
      "sum(parked) AS parked, sum(invalid) AS invalid, sum(failed) AS failed FROM portage.migration_batches "
      "WHERE run_id = $1) t CROSS JOIN LATERAL (VALUES ('inserted', inserted), "
      "('updated', updated), "
      "('unchanged', unchanged), ('skipped', skipped), ('conflicted', conflicted), ('parked', parked), "
      "('invalid', invalid), ('failed', failed)) AS s (status, count)) b LEFT JOIN (SELECT status, count(*) "
      "AS count "
      "FROM portage.item_rows r WHERE run_id = $1 AND status <> 'rolled_back' AND NOT EXISTS (SELECT FROM "
      "portage.item_rows later WHERE later.run_id = r.run_id AND later.ordinal = r.ordinal AND "
      "later.revision "
      "> r.revision AND later.status <> 'rolled_back') GROUP BY status) i ON i.status = b.status "
      "WHERE coalesce(b.count, 0) <> coalesce(i.count, 0) ORDER BY 1",
      {param(run.id)});
  std::vector<std::string> found;
  for (size_t i = 0; i < rows.size(); i++)
    found.push_back(rows.text(i, 1) + ": batches say " + rows.text(i, 2) + ", items " + rows.text(i, 3));
  return {"balance",    "error",
          "equal",      rows.empty() ? "equal" : "different",
          rows.empty(), "{\"found\": " + list_of(found) + "}"};
}

Check item_count(const ledger::Run& run) {
  ledger::AsLedger as;
  Result rows = bridge::execute(
      "SELECT coalesce((SELECT sum(read) FROM portage.migration_batches WHERE run_id = $1), 0)::text, "
      "count(DISTINCT ordinal)::text, coalesce(min(ordinal), 1) = 1 AND coalesce(max(ordinal), 0) = "
      "count(DISTINCT ordinal) "
      "FROM portage.item_rows WHERE run_id = $1",
      {param(run.id)});
  std::string read = rows.text(0, 1), items = rows.text(0, 2);
  bool dense = rows.boolean(0, 3);
  Check check{"item_count", "error", read, items, read == items && dense};
  if (!check.passed) {
    Result gaps = bridge::execute(
        "SELECT o::text FROM pg_catalog.generate_series(1, $2) AS o WHERE NOT EXISTS (SELECT FROM "
        "portage.item_rows i "
        "WHERE i.run_id = $1 AND i.ordinal = o) LIMIT 10",
        {param(run.id), param(static_cast<int64_t>(std::strtoll(read.c_str(), nullptr, 10)))});
    std::vector<std::string> missing;
    for (size_t i = 0; i < gaps.size(); i++) missing.push_back(gaps.text(i, 1));
    check.details = "{\"missing_ordinals\": " + list_of(missing) + "}";
  }
  return check;
}

/// Every landed item has its mapping, and every mapping of the run its item.
Check mapping(const ledger::Run& run, const ledger::MappingSpace& space) {
  return none(
      "mapping",
      "SELECT 'item ' || i.ordinal || CASE WHEN m.legacy_id IS NULL THEN ': no mapping' ELSE ': mapping says "
      "key ' || "
      "m.target_key || ', item says ' || i.target_key END FROM portage.item_rows i LEFT JOIN LATERAL (SELECT "
      "* "
      "FROM portage.legacy_mappings m WHERE m.pipeline_id = $2 AND m.scope = $3 AND m.legacy_id = "
      "i.legacy_id "
      "OFFSET 0) m ON true WHERE i.run_id = $1 "
      "AND i.status IN ('inserted', 'updated') AND NOT EXISTS (SELECT FROM portage.item_rows later WHERE "
      "later.run_id = i.run_id AND later.ordinal = i.ordinal AND later.revision > i.revision OFFSET 0) "
      "AND (m.legacy_id IS NULL OR (m.run_id = i.run_id AND (m.target_key <> i.target_key OR m.ordinal <> "
      "i.ordinal))) "
      // gone with an earlier run that was taken back by force
      "AND NOT (m.legacy_id IS NULL AND EXISTS (WITH RECURSIVE below AS (SELECT u.mapping_run_id AS run_id, "
      "u.mapping_ordinal AS ordinal FROM portage.migration_undo u WHERE u.run_id = i.run_id AND u.ordinal = "
      "i.ordinal AND u.revision = i.revision UNION ALL SELECT v.mapping_run_id, v.mapping_ordinal FROM below "
      "b "
      "JOIN portage.migration_undo v ON v.run_id = b.run_id AND v.ordinal = b.ordinal) SELECT FROM below b "
      "JOIN "
      "portage.item_rows r ON r.run_id = b.run_id AND r.ordinal = b.ordinal AND r.status = 'rolled_back')) "
      "UNION ALL SELECT 'mapping of ' || m.legacy_id || ': no item' FROM portage.legacy_mappings m "
      "WHERE m.pipeline_id = $2 AND m.scope = $3 AND m.run_id = $1 AND NOT EXISTS (SELECT FROM "
      "portage.item_rows i "
      "WHERE i.run_id = m.run_id AND i.ordinal = m.ordinal AND i.legacy_id = m.legacy_id) LIMIT 1000",
      {param(run.id), param(space.pipeline_id), param(space.scope)});
}

Check duplicate_key(const ledger::Run& run, const ledger::MappingSpace& space) {
  return none(
      "duplicate_key",
      "SELECT 'key ' || target_key || ': legacy ids ' || string_agg(legacy_id, ', ' ORDER BY legacy_id) "
      "FROM portage.legacy_mappings WHERE pipeline_id = $2 AND scope = $3 GROUP BY target_key HAVING "
      "count(*) > 1 "
      "AND bool_or(run_id = $1) LIMIT 1000",
      {param(run.id), param(space.pipeline_id), param(space.scope)});
}

Check duplicate_content(const ledger::Run& run, const ledger::MappingSpace& space) {
  return none(
      "duplicate_content",
      "SELECT 'legacy ids ' || string_agg(legacy_id, ', ' ORDER BY legacy_id) FROM portage.legacy_mappings "
      "WHERE pipeline_id = $2 AND scope = $3 GROUP BY source_hash HAVING count(*) > 1 AND bool_or(run_id = "
      "$1) LIMIT 1000",
      {param(run.id), param(space.pipeline_id), param(space.scope)}, "warning");
}

/// What was submitted is what is stored.
Check payload(const ledger::Run& run) {
  return none(
      "payload",
      "SELECT 'part ' || part || ', chunk ' || chunk_no FROM portage.migration_payloads WHERE run_id = $1 "
      "AND sha256 <> pg_catalog.sha256(content) ORDER BY part, chunk_no LIMIT 1000",
      {param(run.id)});
}

/// The rows of the target against their recorded hashes. What somebody changed or deleted since is told, and
/// is no failure; a key that the ledger cannot have written is.
Check row_hash(const ledger::Run& run, const ledger::MappingSpace& space, load::Writer& writer, Oid role) {
  Batch batch;
  int64_t landed = 0, as_recorded = 0, later_run = 0, changed = 0, gone = 0, below = INT64_MAX;
  std::vector<std::string> changed_keys, gone_keys;
  for (;;) {
    batch.reset();
    std::vector<ledger::LandedItem> items = ledger::landed_items(run.id, space, below, page, batch.arena);
    if (items.empty()) break;
    below = items.back().ordinal;
    std::vector<std::string_view> keys;
    for (const ledger::LandedItem& item : items) keys.push_back(item.target_key);
    bridge::AsUser as(role);
    std::vector<load::Row> rows = writer.find_by_key(batch, keys, false);
    for (size_t i = 0; i < items.size(); i++) {
      const ledger::LandedItem& item = items[i];
      if (!item.concerned) continue;
      landed++;
      std::string name = "item " + std::to_string(item.ordinal) + ", key " + std::string(item.target_key);
      if (!item.mapping.found || item.mapping.run_id != run.id) {
        later_run++;
      } else if (!rows[i].found) {
        gone++;
        if (gone_keys.size() < named) gone_keys.push_back(name);
      } else if (static_cast<int64_t>(rows[i].row_hash) != item.mapping.row_hash) {
        changed++;
        if (changed_keys.size() < named) changed_keys.push_back(name);
      } else {
        as_recorded++;
      }
    }
    bridge::check_interrupts();
  }
  std::string details = bridge::format(
      "{\"changed_since\": %lld, \"changed\": %s, \"gone\": %lld, \"gone_rows\": %s, "
      "\"later_run\": %lld}",
      static_cast<long long>(changed), list_of(changed_keys).c_str(), static_cast<long long>(gone),
      list_of(gone_keys).c_str(), static_cast<long long>(later_run));
  return {"row_hash",
          "error",
          std::to_string(landed - later_run),
          std::to_string(as_recorded),
          landed == as_recorded + later_run + changed + gone,
          details};
}

/// Rows whose foreign key finds no parent: constraints can be unvalidated, and triggers switched off.
Check relationships(const Plan& plan, Oid role) {
  const Target& target = plan.target();
  int64_t orphans = 0;
  std::vector<std::string> found, unread;
  bridge::AsUser as(role);
  bridge::Settings plain_path;
  plain_path.set("search_path", "pg_catalog, pg_temp");
  for (const ForeignKey& key : target.foreign_keys) {
    Oid parent = key.parent;
    bool readable =
        bridge::guarded([=] { return pg_class_aclcheck(parent, GetUserId(), ACL_SELECT) == ACLCHECK_OK; });
    if (!readable) {
      unread.push_back(key.name);
      continue;
    }
    Result names = bridge::execute(
        "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n "
        "ON n.oid = c.relnamespace WHERE c.oid = $1",
        {bridge::param_oid(parent)});
    std::string same, not_null;
    for (size_t i = 0; i < key.attnums.size(); i++) {
      std::string child = "t." + bridge::quoted(target.column(key.attnums[i]).name);
      AttrNumber attnum = static_cast<AttrNumber>(key.parent_attnums[i]);
      const char* column = bridge::guarded([=] { return get_attname(parent, attnum, false); });
      (same += i ? " AND " : "") +=
          "p." + bridge::quoted(column) + " " + load::operator_text(key.equality[i]) + " " + child;
      (not_null += i ? " AND " : "") += child + " IS NOT NULL";
    }
    Result rows =
        bridge::execute("SELECT count(*) FROM " + target.quoted_name() + " t WHERE " + not_null +
                        " AND NOT EXISTS (SELECT 1 FROM " +
                        bridge::quoted_name(names.text(0, 1), names.text(0, 2)) + " p WHERE " + same + ")");
    if (rows.bigint(0, 1) == 0) continue;
    orphans += rows.bigint(0, 1);
    found.push_back(key.name + ": " + rows.text(0, 1) + " rows without parent");
  }
  return {"relationships",
          "error",
          "0",
          std::to_string(orphans),
          orphans == 0,
          "{\"found\": " + list_of(found) + ", \"not_readable\": " + list_of(unread) + "}"};
}

void record(int64_t run_id, const Check& check, const std::string& at) {
  ledger::AsLedger as;
  static const bridge::Statement insert(
      "INSERT INTO portage.data_integrity_checks (run_id, name, severity, expected, actual, passed, details, "
      "checked_at) "
      "VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, $8::timestamptz)");
  insert.run(run_id, check.name, check.severity, check.expected, check.actual, check.passed, check.details,
             at);
  if (!check.passed && check.severity == "error")
    ledger::add_event(run_id, "check_failed", "{\"check\": " + bridge::json_quoted(check.name) + "}");
}

/// Makes and records all checks of a run; returns their common time.
TimestampTz verify(std::optional<int64_t> chosen) {
  int64_t id = chosen ? *chosen : run::latest_run();
  ledger::Run run = run::run_to_change(id);
  if (!run.sealed)
    throw bridge::Error(codes::wrong_state,
                        bridge::format("run %lld has not been started", static_cast<long long>(id)))
        .detail("There is nothing to verify.");
  Oid role = run::role_of(run);
  StoredPipeline pipeline = ledger::pipeline_version(run.pipeline_id, run.version);
  pipeline.timezone = run.timezone;
  std::unique_ptr<Plan> plan;
  std::unique_ptr<load::Writer> writer;
  {
    bridge::AsUser as(role);
    plan = Plan::compile(pipeline);
    std::vector<int> hashed;
    for (const std::string& name : run.hash_columns)
      if (const TargetColumn* column = plan->target().column(name)) hashed.push_back(column->attnum);
    std::sort(hashed.begin(), hashed.end());
    writer = load::make_sql_writer(*plan, hashed);
  }
  ledger::MappingSpace space{run.pipeline_id, plan->definition().scoped ? run.scope : ""};
  std::vector<Check> checks{balance(run),
                            item_count(run),
                            mapping(run, space),
                            row_hash(run, space, *writer, role),
                            duplicate_key(run, space),
                            duplicate_content(run, space),
                            relationships(*plan, role),
                            payload(run)};
  TimestampTz now = GetCurrentTimestamp();
  std::string at = bridge::guarded([=] { return pstrdup(timestamptz_to_str(now)); });
  bool verified = true;
  for (const Check& check : checks) {
    record(id, check, at);
    verified = verified && (check.passed || check.severity != "error");
  }
  ledger::set_verified(id, verified);
  return now;
}

}  // namespace
}  // namespace portage::verify

PORTAGE_FUNCTION(portage_verify) {
  portage::bridge::Spi spi;
  std::optional<int64_t> run;
  if (!fcinfo->args[0].isnull) run = DatumGetInt64(fcinfo->args[0].value);
  TimestampTz made = portage::verify::verify(run);
  spi.finish();
  return TimestampTzGetDatum(made);
}
