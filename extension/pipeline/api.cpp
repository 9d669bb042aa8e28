// The SQL functions about pipelines: create, replace, drop, grant, revoke. Each checks ownership itself; none
// has a SET clause, because the caller's search_path is what a version pins.
#include "bridge/codes.hpp"
#include "bridge/entry.hpp"
#include "bridge/subxact.hpp"
#include "ledger/compiled.hpp"
#include "ledger/known_roles.hpp"
#include "ledger/pipelines.hpp"
#include "ledger/references.hpp"
#include "ledger/scope.hpp"
#include "pipeline/checks.hpp"
#include "pipeline/source_table.hpp"

namespace portage {
namespace {

using bridge::Error;
using bridge::format;
using ledger::Need;

std::string text_argument(FunctionCallInfo fcinfo, int number) {
  return bridge::string_of(PG_GETARG_DATUM(number));
}

std::string name_argument(FunctionCallInfo fcinfo, int number) { return NameStr(*PG_GETARG_NAME(number)); }

std::string setting(const char* name) {
  return bridge::guarded([=] { return GetConfigOption(name, false, false); });
}

/// How long runs are to be known: an interval that is read when the time has come.
void try_retention(const std::string& interval) {
  if (interval.empty()) return;
  bool positive = false;
  std::optional<Error> error = bridge::attempt([&] {
    positive =
        bridge::execute("SELECT $1::pg_catalog.interval OPERATOR(pg_catalog.>) '0'::pg_catalog.interval",
                        {bridge::param(interval)})
            .boolean(0, 1);
  });
  if (!error && positive) return;
  throw Error(codes::invalid_definition, "\"retain\" must be a positive interval, not \"" + interval + "\"")
      .detail("at retain")
      .hint("For example: \"90 days\".");
}

/// Compiles the definition against its target, to see whether it can be; fills in what is pinned. As the
/// pipeline's owner, as everything of it is evaluated: who replaces it may have more rights. What a new
/// version does not say of the settings that values hang on is as in the one before.
ledger::NewVersion checked(StoredPipeline& pipeline) {
  bool is_new = pipeline.version == 0;
  pipeline.refers_to.clear();
  pipeline.search_path = setting("search_path");
  if (is_new) pipeline.timezone = setting("timezone");
  Definition definition;
  try {
    definition = parse_definition(pipeline.definition);
  } catch (const DefinitionFault&) {
    // compile() will say so
  }
  if (!definition.timezone.empty()) pipeline.timezone = definition.timezone;
  pipeline.settings = value_settings(definition, is_new ? nullptr : &pipeline.settings);
  bridge::AsUser as(pipeline.owner);
  std::unique_ptr<Plan> plan = ledger::compile(pipeline);
  try_checks(*plan);
  try_source(*plan);
  pipeline.refers_to = ledger::check_references(*plan, pipeline);
  try_retention(plan->definition().retain);
  return {pipeline.definition,
          pipeline.search_path,
          pipeline.timezone,
          pipeline.settings,
          pipeline.target,
          pipeline.target_schema,
          pipeline.target_name,
          pipeline.refers_to,
          sensitivity_of(plan->definition(), plan->target(), plan->key())};
}

void check_privilege(const std::string& privilege) {
  if (privilege == "run" || privilege == "read") return;
  Error error(ERRCODE_INVALID_PARAMETER_VALUE, format("unknown privilege \"%s\"", privilege.c_str()));
  throw error.hint("Privileges are \"run\" (open runs and see these) and \"read\" (see the runs of all).");
}

}  // namespace
}  // namespace portage

using namespace portage;

PORTAGE_FUNCTION(portage_pipeline_id) {
  bridge::Spi spi;
  int64_t id = ledger::pipeline_named(text_argument(fcinfo, 0));
  spi.finish();
  return Int64GetDatum(id);
}

PORTAGE_FUNCTION(portage_pipeline_name) {
  bridge::Spi spi;
  std::optional<std::string> name = ledger::name_of_pipeline(PG_GETARG_INT64(0), true);
  spi.finish();
  fcinfo->isnull = !name;
  return name ? bridge::text_datum(*name) : 0;
}

PORTAGE_FUNCTION(portage_create_pipeline) {
  StoredPipeline pipeline;
  pipeline.name = text_argument(fcinfo, 0);
  pipeline.target = PG_GETARG_OID(1);
  pipeline.definition = text_argument(fcinfo, 2);
  pipeline.owner = GetUserId();
  if (pipeline.name.empty())
    throw Error(ERRCODE_INVALID_PARAMETER_VALUE, "the name of a pipeline must not be empty");
  if (pipeline.name.find('/') != std::string::npos)
    throw Error(ERRCODE_INVALID_PARAMETER_VALUE, "the name of a pipeline must not contain a slash")
        .detail("owner/name addresses the pipeline of another role.");
  Oid table = pipeline.target;
  struct Names {
    const char* schema;
    const char* name;
  };
  Names names = bridge::guarded([=] {
    char* name = get_rel_name(table);
    return Names{name ? get_namespace_name(get_rel_namespace(table)) : nullptr, name};
  });
  if (!names.name || !names.schema)
    throw Error(ERRCODE_UNDEFINED_TABLE, format("relation with OID %u does not exist", table));
  pipeline.target_schema = names.schema;
  pipeline.target_name = names.name;
  bridge::Spi spi;
  ledger::NewVersion version = checked(pipeline);
  int64_t id = ledger::insert_pipeline(pipeline.name, pipeline.owner, version);
  spi.finish();
  return Int64GetDatum(id);
}

PORTAGE_FUNCTION(portage_replace_pipeline) {
  bridge::Spi spi;
  StoredPipeline pipeline = ledger::find_pipeline(text_argument(fcinfo, 0), Need::own);
  if (!OidIsValid(pipeline.owner)) throw ledger::owner_is_gone(*ledger::name_of_pipeline(pipeline.id, false));
  // More than administration: what is written here will be evaluated with the owner's rights.
  if (!ledger::acts_for(GetUserId(), pipeline.owner))
    throw Error(ERRCODE_INSUFFICIENT_PRIVILEGE,
                format("must be owner of pipeline \"%s\"", pipeline.name.c_str()))
        .detail("A pipeline's expressions are evaluated as its owner.");
  pipeline.definition = text_argument(fcinfo, 1);
  ledger::NewVersion version = checked(pipeline);
  ledger::append_version(pipeline.id, GetUserId(), version);
  spi.finish();
  return Int64GetDatum(pipeline.id);
}

PORTAGE_FUNCTION(portage_drop_pipeline) {
  bridge::Spi spi;
  StoredPipeline pipeline = ledger::find_pipeline(text_argument(fcinfo, 0), Need::own);
  if (ledger::has_history(pipeline.id)) {
    if (!PG_GETARG_BOOL(1))
      throw Error(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
                  format("pipeline \"%s\" has runs", pipeline.name.c_str()))
          .detail("Their items, mappings and before-images would be lost, and with them the way back.")
          .hint("Use drop_pipeline(name, with_history => true) to erase them, too; imported rows stay.");
    ledger::require_all_scopes("the history of a pipeline");
    ledger::erase_history(pipeline.id);
  }
  ledger::delete_pipeline(pipeline.id);
  spi.finish();
  return Int64GetDatum(pipeline.id);
}

PORTAGE_FUNCTION(portage_grant_pipeline) {
  bridge::Spi spi;
  StoredPipeline pipeline = ledger::find_pipeline(text_argument(fcinfo, 0), Need::own);
  std::string role = name_argument(fcinfo, 1), privilege = text_argument(fcinfo, 2);
  check_privilege(privilege);
  bool admin = ledger::is_admin(GetUserId());
  if (role == "public" && !admin)
    throw Error(ERRCODE_INSUFFICIENT_PRIVILEGE,
                format("permission denied to grant pipeline \"%s\" to public", pipeline.name.c_str()))
        .detail("What everybody finds under a name, administrators decide.")
        .hint("Grant it to roles, or ask a superuser or a member of portage.admin_role.");
  Oid oid = role == "public" ? InvalidOid : ledger::role_named(role);
  if (role != "public" && !OidIsValid(oid))
    throw Error(ERRCODE_UNDEFINED_OBJECT, format("role \"%s\" does not exist", role.c_str()));
  if (!OidIsValid(pipeline.owner)) throw ledger::owner_is_gone(*ledger::name_of_pipeline(pipeline.id, false));
  ledger::grant(pipeline.id, pipeline.owner, oid, role, privilege, GetUserId(), admin);
  spi.finish();
  return Int64GetDatum(pipeline.id);
}

PORTAGE_FUNCTION(portage_revoke_pipeline) {
  bridge::Spi spi;
  StoredPipeline pipeline = ledger::find_pipeline(text_argument(fcinfo, 0), Need::own);
  std::string privilege = text_argument(fcinfo, 2);
  check_privilege(privilege);
  ledger::revoke(pipeline.id, name_argument(fcinfo, 1), privilege);
  spi.finish();
  return Int64GetDatum(pipeline.id);
}
