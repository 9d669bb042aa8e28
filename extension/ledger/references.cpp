// See references.hpp.
#include "ledger/references.hpp"

#include "bridge/codes.hpp"
#include "ledger/as_ledger.hpp"
#include "ledger/compiled.hpp"
#include "ledger/pipelines.hpp"
#include "ledger/run_index.hpp"

extern "C" {
#include "parser/parse_coerce.h"
}

namespace portage::ledger {
namespace {

using bridge::Error;
using bridge::param;

Error fault(const std::string& place, const std::string& message, const std::string& hint) {
  return Error(codes::invalid_definition, message).detail("at " + place).hint(hint);
}

/// For the owner of the referring pipeline: what it may not see, its pipeline cannot show to others. PZ001 if
/// there is none.
StoredPipeline named(const std::string& pipeline, Oid owner, const std::string& place) {
  try {
    bridge::AsUser as(owner);
    return find_pipeline(pipeline, Need::read);
  } catch (const Error& error) {
    if (error.code() != codes::unknown_pipeline && error.code() != ERRCODE_AMBIGUOUS_ALIAS) throw;
    const bridge::ErrorReport& report = error.report();
    std::string hint = report.detail + (report.detail.empty() ? "" : " ") + report.hint;
    throw fault(place, report.message, hint.empty() ? "Create that pipeline first." : hint);
  }
}

/// The one that was meant when the definition was stored.
StoredPipeline referred(const Reference& reference, Oid owner) {
  try {
    bridge::AsUser as(owner);
    return find_pipeline(reference.pipeline_id, reference.pipeline, Need::read);
  } catch (const Error& error) {
    if (error.code() != codes::unknown_pipeline) throw;
    throw Error(error.code(), error.message())
        .detail("The one that was meant at " + reference.place +
                " was dropped, or may not be seen by the owner any more.")
        .hint("To have another one take its place, give the definition to portage.replace_pipeline() again.");
  }
}

}  // namespace

Translate translator(const Plan& plan, const std::string& scope, formats::Arena& arena) {
  auto spaces = std::make_shared<std::map<std::string, MappingSpace>>();
  for (const Reference& reference : plan.references()) {
    StoredPipeline pipeline = referred(reference, plan.owner());
    bool scoped = parse_definition(pipeline.definition).scoped;
    (*spaces)[reference.pipeline] = {pipeline.id, scoped ? scope : ""};
  }
  return [spaces, &arena](const Reference& reference, const std::vector<std::string_view>& ids) {
    std::vector<std::string_view> keys;
    keys.reserve(ids.size());
    for (const Mapping& mapping : find_mappings(spaces->at(reference.pipeline), ids, arena))
      keys.push_back(mapping.found ? mapping.target_key : std::string_view());
    return keys;
  };
}

std::map<std::string, int64_t> check_references(const Plan& plan, const StoredPipeline& own) {
  std::map<std::string, int64_t> ids;
  auto is_own = [&](const std::string& name) {
    return name == own.name || name == user_name(own.owner) + "/" + own.name;
  };
  for (const Reference& reference : plan.references()) {
    std::unique_ptr<Plan> other;
    const Target* target = &plan.target();
    std::vector<int> key = plan.key();
    ids[reference.pipeline] = 0;
    if (!is_own(reference.pipeline)) {
      StoredPipeline found = named(reference.pipeline, plan.owner(), reference.place);
      if (!OidIsValid(found.owner))
        throw fault(reference.place,
                    "the owner of pipeline \"" + reference.pipeline + "\" does not exist any more", "");
      ids[reference.pipeline] = found.id;
      // Its target's domains, defaults and constraints are its owner's affair, not the author's.
      bridge::AsUser as(found.owner);
      other = compile(found);
      target = &other->target();
      key = other->key();
    }
    if (key.size() != 1)
      throw fault(reference.place, "pipeline \"" + reference.pipeline + "\" has a key of several columns",
                  "Only a key of one column fits into a column.");
    Oid from = target->column(key[0]).type, to = plan.target().column(reference.attnum).type;
    bool fits = bridge::guarded([=] { return can_coerce_type(1, &from, &to, COERCION_ASSIGNMENT); });
    if (fits) continue;
    throw fault(
        reference.place,
        "column \"" + plan.target().column(reference.attnum).name + "\" cannot take keys of pipeline \"" +
            reference.pipeline + "\"",
        bridge::format("They are of type %s.", bridge::guarded([=] { return format_type_be(from); })));
  }
  for (const std::string& first : plan.definition().after) {
    if (is_own(first)) throw fault("after", "a pipeline cannot come after itself", "");
    ids[first] = named(first, plan.owner(), "after").id;
  }
  return ids;
}

namespace {

/// Runs r with parked items, and the pipelines p that these refer to.
constexpr const char* waiting =
    " FROM portage.migration_runs r JOIN portage.pipeline_versions v ON v.pipeline_id = r.pipeline_id AND "
    "v.version = r.pipeline_version WHERE r.open_parked > 0 AND NOT r.dry_run AND r.cleaned_at IS NULL AND "
    "r.status IN ('completed', 'failed', 'cancelled', 'awaiting_resolution') AND EXISTS (SELECT FROM "
    "json_each(v.definition -> 'columns') AS c (name, source) CROSS JOIN LATERAL (SELECT (v.refers_to ->> "
    "CASE WHEN json_typeof(c.source) = 'object' THEN c.source ->> 'references' END)::bigint) AS p (id) "
    "WHERE ";

}  // namespace

std::vector<int64_t> runs_waiting_for(int64_t pipeline_id, const std::optional<std::string>& scope) {
  std::vector<int64_t> parked = runs_in("migration_runs_parked");
  if (parked.empty()) return {};
  AsLedger as;
  static const std::string sql = std::string("SELECT r.id") + waiting +
                                 "p.id = $1) AND ($2 IS NULL OR r.scope = $2) AND r.id = ANY ($3) "
                                 "ORDER BY r.id";
  static const bridge::Statement select(sql.c_str());
  bridge::Result rows = select({param(pipeline_id), param(scope), bridge::param_int8_array(parked)});
  std::vector<int64_t> runs;
  for (size_t i = 0; i < rows.size(); i++) runs.push_back(rows.bigint(i, 1));
  return runs;
}

std::vector<RunWithNews> runs_with_news() {
  AsLedger as;
  static const std::string sql =
      std::string("SELECT r.id, r.role_oid, r.role_name::text, r.session_role_oid, r.session_role::text") +
      waiting +
      "EXISTS (SELECT FROM portage.migration_runs n WHERE n.pipeline_id = p.id AND n.status = 'completed' "
      "AND "
      "n.completed_at > coalesce(r.references_tried_at, r.completed_at))) ORDER BY r.id";
  bridge::Result rows = bridge::execute(sql);
  std::vector<RunWithNews> runs;
  for (size_t i = 0; i < rows.size(); i++)
    runs.push_back({rows.bigint(i, 1), role_in(rows, i, 2), role_in(rows, i, 4)});
  return runs;
}

std::string moment_of_all_seen() {
  AsLedger as;
  // What others have done and not committed yet may bear an earlier time than ours.
  static const bridge::Statement select(
      "SELECT least(clock_timestamp(), min(xact_start) FILTER (WHERE backend_xid IS NOT NULL))::text FROM "
      "pg_catalog.pg_stat_activity WHERE datname = pg_catalog.current_database() AND pid <> "
      "pg_catalog.pg_backend_pid()");
  return select.run().text(0, 1);
}

void note_references_tried(int64_t run_id, const std::string& moment) {
  AsLedger as;
  static const bridge::Statement update(
      "UPDATE portage.migration_runs SET references_tried_at = $2::timestamptz WHERE id = $1");
  update.run(run_id, moment);
}

}  // namespace portage::ledger
