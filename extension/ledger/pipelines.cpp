// See pipelines.hpp.
#include <nlohmann/json.hpp>

#include "ledger/pipelines.hpp"

#include "bridge/codes.hpp"
#include "bridge/json.hpp"
#include "bridge/spi.hpp"
#include "ledger/as_ledger.hpp"
#include "ledger/known_roles.hpp"

namespace portage::ledger {

using bridge::Error;
using bridge::format;
using bridge::guarded;
using bridge::param;
using bridge::Result;
using bridge::Statement;

Oid resolve_target(Oid target, const std::string& schema, const std::string& name) {
  const char* s = schema.c_str();
  const char* n = name.c_str();
  return guarded([=] {
    char* name_now = get_rel_name(target);
    char* schema_now = name_now ? get_namespace_name(get_rel_namespace(target)) : nullptr;
    if (name_now && schema_now && strcmp(name_now, n) == 0 && strcmp(schema_now, s) == 0) return target;
    Oid namespace_oid = get_namespace_oid(s, true);
    return OidIsValid(namespace_oid) ? get_relname_relid(n, namespace_oid) : InvalidOid;
  });
}

namespace {

/// Columns of a stored version as `stored` reads them.
#define PORTAGE_VERSION_COLUMNS                                                                     \
  "p.id, p.name, v.version, p.owner, p.owner_name::text, v.definition, v.search_path, v.timezone, " \
  "v.target_oid, "                                                                                  \
  "v.target_schema, "                                                                               \
  "v.target_name, v.refers_to::text, v.sensitive IS NOT NULL, v.settings::text"

StoredPipeline stored(const Result& row) {
  StoredPipeline pipeline;
  pipeline.id = row.bigint(0, 1);
  pipeline.name = row.text(0, 2);
  pipeline.version = row.integer(0, 3);
  pipeline.owner = role_in(row, 0, 4).oid;
  pipeline.definition = row.text(0, 6);
  pipeline.search_path = row.text(0, 7);
  pipeline.timezone = row.text(0, 8);
  pipeline.target_schema = row.text(0, 10);
  pipeline.target_name = row.text(0, 11);
  pipeline.target = resolve_target(row.oid(0, 9), pipeline.target_schema, pipeline.target_name);
  if (std::string refers_to = row.text(0, 12); refers_to != "{}")
    pipeline.refers_to = nlohmann::json::parse(refers_to).get<decltype(pipeline.refers_to)>();
  pipeline.sensitive = row.boolean(0, 13);
  pipeline.settings = nlohmann::json::parse(row.text(0, 14)).get<ValueSettings>();
  return pipeline;
}

}  // namespace

StoredPipeline current_version(int64_t id) {
  constinit static Statement find("SELECT " PORTAGE_VERSION_COLUMNS
                                  " FROM portage.pipelines p JOIN portage.pipeline_versions v ON "
                                  "v.pipeline_id = p.id AND v.version = p.current_version"
                                  " WHERE p.id = $1");
  AsLedger ledger;
  Result row = find.run(id);
  if (row.empty()) throw Error(codes::unknown_pipeline, "pipeline was dropped meanwhile");
  return stored(row);
}

StoredPipeline pipeline_version(int64_t id, int version) {
  constinit static Statement find(
      "SELECT " PORTAGE_VERSION_COLUMNS
      " FROM portage.pipelines p JOIN portage.pipeline_versions v ON v.pipeline_id = p.id"
      " WHERE p.id = $1 AND v.version = $2");
  AsLedger ledger;
  Result row = find.run(id, static_cast<int32_t>(version));
  if (row.empty())
    throw Error(codes::unknown_pipeline,
                format("pipeline %lld has no version %d", static_cast<long long>(id), version));
  return stored(row);
}

namespace {

void insert_version(int64_t id, int version, Oid author, const NewVersion& fresh) {
  constinit static Statement insert(
      "INSERT INTO portage.pipeline_versions (pipeline_id, version, definition, target_oid, target_schema,"
      " target_name, search_path, timezone, author, author_name, refers_to, sensitive, sensitive_id,"
      " sensitive_key, settings) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)");
  std::string refers_to;
  for (const auto& [name, other] : fresh.refers_to)
    refers_to += (refers_to.empty() ? "" : ", ") + bridge::json_quoted(name) + ": " +
                 std::to_string(other ? other : id);
  const Sensitivity& sensitivity = fresh.sensitivity;
  bridge::Param paths = sensitivity.paths.empty() ? bridge::param_null(TEXTARRAYOID)
                                                  : bridge::param_text_array(sensitivity.paths);
  insert({param(id), param(static_cast<int32_t>(version)), bridge::param_json(fresh.definition, false),
          bridge::param_oid(fresh.target), param(fresh.target_schema), param(fresh.target_name),
          param(fresh.search_path), param(fresh.timezone), bridge::param_oid(author),
          param(user_name(author)), bridge::param_json("{" + refers_to + "}"), paths, param(sensitivity.id),
          param(sensitivity.key), bridge::param_json(nlohmann::json(fresh.settings).dump())});
}

}  // namespace

int64_t insert_pipeline(const std::string& name, Oid owner, const NewVersion& fresh) {
  constinit static Statement insert(
      "INSERT INTO portage.pipelines (name, owner, owner_name, current_version) VALUES ($1, $2, $3, 1)"
      " ON CONFLICT (name, owner) DO NOTHING RETURNING id");
  std::string owner_name = user_name(owner);
  know_role(owner);
  AsLedger ledger;
  Result row = insert({param(name), bridge::param_oid(owner), param(owner_name)});
  if (row.empty())
    throw Error(ERRCODE_DUPLICATE_OBJECT, format("pipeline \"%s\" already exists", name.c_str()))
        .hint("Use replace_pipeline() to give it a new definition, or another name.");
  int64_t id = row.bigint(0, 1);
  insert_version(id, 1, owner, fresh);
  return id;
}

int append_version(int64_t id, Oid author, const NewVersion& fresh) {
  constinit static Statement raise(
      "UPDATE portage.pipelines SET current_version = current_version + 1 WHERE id = $1 RETURNING "
      "current_version");
  know_role(author);
  AsLedger ledger;
  Result row = raise.run(id);
  if (row.empty()) throw Error(codes::unknown_pipeline, "pipeline was dropped meanwhile");
  int version = row.integer(0, 1);
  insert_version(id, version, author, fresh);
  return version;
}

void delete_pipeline(int64_t id) {
  constinit static Statement grants("DELETE FROM portage.pipeline_grants WHERE pipeline_id = $1");
  constinit static Statement versions("DELETE FROM portage.pipeline_versions WHERE pipeline_id = $1");
  constinit static Statement schedules("DELETE FROM portage.schedule_rows WHERE pipeline_id = $1");
  constinit static Statement pipelines("DELETE FROM portage.pipelines WHERE id = $1");
  AsLedger ledger;
  grants.run(id);
  versions.run(id);
  schedules.run(id);
  pipelines.run(id);
}

void grant(int64_t id, Oid owner, Oid role, const std::string& role_name, const std::string& privilege,
           Oid grantor, bool by_admin) {
  constinit static Statement insert(
      "INSERT INTO portage.pipeline_grants AS g (pipeline_id, owner, role_oid, role_name, privilege, grantor,"
      " grantor_name, by_admin) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
      " ON CONFLICT (pipeline_id, role_oid, privilege) DO UPDATE SET grantor = excluded.grantor,"
      " grantor_name = excluded.grantor_name, by_admin = true, granted_at = now()"
      " WHERE excluded.by_admin AND NOT g.by_admin");
  if (OidIsValid(role)) know_role(role);
  know_role(grantor);
  std::string grantor_name = user_name(grantor);
  AsLedger ledger;
  insert({param(id), bridge::param_oid(owner), bridge::param_oid(role), param(role_name), param(privilege),
          bridge::param_oid(grantor), param(grantor_name), param(by_admin)});
}

void revoke(int64_t id, const std::string& role_name, const std::string& privilege) {
  constinit static Statement remove(
      "DELETE FROM portage.pipeline_grants g WHERE pipeline_id = $1 AND privilege = $4 AND CASE WHEN $2 = 0 "
      "THEN role_name = $3::name AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = g.role_oid) ELSE "
      "role_oid = $2 END");
  refuse_foreign(true);  // its oid is recorded for another role
  Oid role = role_name == "public" ? InvalidOid : role_named(role_name);
  AsLedger ledger;
  remove({param(id), bridge::param_oid(role), param(role_name), param(privilege)});
}

}  // namespace portage::ledger
