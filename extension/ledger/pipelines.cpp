// See pipelines.hpp.
#include "ledger/pipelines.hpp"

#include "bridge/codes.hpp"
#include "bridge/spi.hpp"
#include "ledger/as_ledger.hpp"

namespace portage::ledger {

using bridge::Error;
using bridge::format;
using bridge::guarded;
using bridge::param;
using bridge::Result;
using bridge::Statement;

bool is_admin(Oid user) {
  if (guarded([=] { return superuser_arg(user); })) return true;
  const char* admin = GetConfigOption("portage.admin_role", true, false);
  if (!admin || admin[0] == '\0') return false;
  Oid role = role_named(admin);
  return OidIsValid(role) && guarded([=] { return is_member_of_role(user, role); });
}

bool acts_for(Oid user, Oid role) {
  return OidIsValid(role) &&
         guarded([=] { return has_privs_of_role(user, role) || bridge::can_set_role(user, role); });
}

Oid role_named(std::string_view name) {
  std::string copy(name);
  const char* text = copy.c_str();
  return guarded([=] { return get_role_oid(text, true); });
}

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

std::string role_name(Oid role) {
  return guarded([=] { return static_cast<const char*>(GetUserNameFromId(role, false)); });
}

/// Columns of a stored version as `stored` reads them.
#define PORTAGE_VERSION_COLUMNS                                                                    \
  "p.id, p.name, v.version, p.owner_name, v.definition, v.search_path, v.timezone, v.target_oid, " \
  "v.target_schema, "                                                                              \
  "v.target_name"

StoredPipeline stored(const Result& row) {
  StoredPipeline pipeline;
  pipeline.id = row.bigint(0, 1);
  pipeline.name = row.text(0, 2);
  pipeline.version = row.integer(0, 3);
  pipeline.owner = role_named(row.text(0, 4));
  pipeline.definition = row.text(0, 5);
  pipeline.search_path = row.text(0, 6);
  pipeline.timezone = row.text(0, 7);
  pipeline.target_schema = row.text(0, 9);
  pipeline.target_name = row.text(0, 10);
  pipeline.target = resolve_target(row.oid(0, 8), pipeline.target_schema, pipeline.target_name);
  return pipeline;
}

/// 0 nothing, 1 read, 2 run: what the grants give the user.
int granted(int64_t id, Oid user) {
  constinit static Statement grants(
      "SELECT role_oid, role_name, privilege FROM portage.pipeline_grants WHERE pipeline_id = $1");
  Result rows = grants.run(id);
  int level = 0;
  for (size_t i = 0; i < rows.size(); i++) {
    std::string name = rows.text(i, 2);
    if (!(rows.oid(i, 1) == InvalidOid && name == "public")) {
      Oid role = role_named(name);
      if (!OidIsValid(role) || !guarded([=] { return is_member_of_role(user, role); })) continue;
    }
    level = std::max(level, rows.text(i, 3) == "run" ? 2 : 1);
  }
  return level;
}

/// Names that the user may see, for hints. Not as the ledger: row level security does the choosing.
std::vector<std::string> visible_names() {
  Result rows = bridge::execute("SELECT name FROM portage.pipelines LIMIT 1000", {}, true);
  std::vector<std::string> names;
  for (size_t i = 0; i < rows.size(); i++) names.push_back(rows.text(i, 1));
  return names;
}

[[noreturn]] void unknown(std::string_view name) {
  std::string text(name);
  Error error(codes::unknown_pipeline, format("pipeline \"%s\" does not exist", text.c_str()));
  std::string hint = nearest_hint(name, visible_names());
  if (!hint.empty()) error.hint(hint);
  throw error;
}

}  // namespace

StoredPipeline find_pipeline(std::string_view name, Need need) {
  constinit static Statement find("SELECT " PORTAGE_VERSION_COLUMNS
                                  " FROM portage.pipelines p JOIN portage.pipeline_versions v ON "
                                  "v.pipeline_id = p.id AND v.version = p.current_version"
                                  " WHERE p.name = $1");
  Oid user = GetUserId();
  StoredPipeline pipeline;
  int level = 0;
  bool found;
  {
    AsLedger ledger;
    Result row = find.run(name);
    found = !row.empty();
    if (found) {
      pipeline = stored(row);
      if (acts_for(user, pipeline.owner)) return pipeline;
      level = granted(pipeline.id, user);
    }
  }
  if (!found) unknown(name);
  bool admin = is_admin(user);
  // Not even its existence is told to those who may not see it.
  if (level == 0 && !admin) unknown(name);
  // An administrator may do anything but rewrite it (api.cpp): that would be to act as its owner.
  int needed = need == Need::read ? 1 : need == Need::run ? 2 : 3;
  if (admin || level >= needed) return pipeline;
  if (need == Need::own)
    throw Error(ERRCODE_INSUFFICIENT_PRIVILEGE,
                format("must be owner of pipeline \"%s\"", pipeline.name.c_str()));
  throw Error(ERRCODE_INSUFFICIENT_PRIVILEGE,
              format("permission denied for pipeline \"%s\"", pipeline.name.c_str()))
      .hint(format("Ask its owner for: SELECT portage.grant_pipeline(%s, %s, 'run');",
                   bridge::quoted_literal(pipeline.name).c_str(),
                   bridge::quoted_literal(role_name(user)).c_str()));
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
      " target_name, search_path, timezone, author, author_name)"
      " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)");
  insert({param(id), param(static_cast<int32_t>(version)), bridge::param_json(fresh.definition, false),
          bridge::param_oid(fresh.target), param(fresh.target_schema), param(fresh.target_name),
          param(fresh.search_path), param(fresh.timezone), bridge::param_oid(author),
          param(role_name(author))});
}

}  // namespace

int64_t insert_pipeline(const std::string& name, Oid owner, const NewVersion& fresh) {
  constinit static Statement insert(
      "INSERT INTO portage.pipelines (name, owner, owner_name, current_version) VALUES ($1, $2, $3, 1)"
      " ON CONFLICT (name) DO NOTHING RETURNING id");
  std::string owner_name = role_name(owner);
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

void grant(int64_t id, const std::string& owner, Oid role, const std::string& role_name,
           const std::string& privilege) {
  constinit static Statement insert(
      "INSERT INTO portage.pipeline_grants (pipeline_id, owner_name, role_oid, role_name, privilege)"
      " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING");
  AsLedger ledger;
  insert({param(id), param(owner), bridge::param_oid(role), param(role_name), param(privilege)});
}

void revoke(int64_t id, const std::string& role_name, const std::string& privilege) {
  constinit static Statement remove(
      "DELETE FROM portage.pipeline_grants WHERE pipeline_id = $1 AND role_name = $2 AND privilege = $3");
  AsLedger ledger;
  remove.run(id, role_name, privilege);
}

}  // namespace portage::ledger
