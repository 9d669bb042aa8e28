// See transfer.hpp; with the SQL-callable functions transfer_run and transfer_pipeline (sql/64-roles.sql).
#include "run/transfer.hpp"

#include "bridge/codes.hpp"
#include "bridge/entry.hpp"
#include "bridge/json.hpp"
#include "ledger/parts.hpp"
#include "ledger/pipelines.hpp"
#include "ledger/transfers.hpp"
#include "run/access.hpp"
#include "run/states.hpp"

namespace portage::run {

using bridge::Error;
using bridge::format;
using ledger::Role;

void refuse_transferred(const ledger::Run& now, Oid role) {
  if (now.role.oid == role) return;
  throw Error(codes::wrong_state,
              format("run %lld was given to another role at this moment", static_cast<long long>(now.id)))
      .hint("Try again.");
}

namespace {

/// The role of that name, if the current user may make it the owner of what `former` owns: `what`.
Role new_owner(const std::string& name, Oid former, const std::string& what) {
  Oid me = GetUserId();
  Role role{ledger::role_named(name), name};
  if (!OidIsValid(role.oid)) throw Error(ERRCODE_UNDEFINED_OBJECT, "role \"" + name + "\" does not exist");
  if (bridge::guarded([=] { return superuser_arg(me); })) return role;
  if (!ledger::acts_for(me, former))
    throw Error(ERRCODE_INSUFFICIENT_PRIVILEGE, "must be owner of " + what)
        .detail("To give it away takes its present role, or a member of that, or a superuser.");
  if (!bridge::guarded([me, oid = role.oid] { return bridge::can_set_role(me, oid); }))
    throw Error(ERRCODE_INSUFFICIENT_PRIVILEGE, "must be able to SET ROLE \"" + name + "\"")
        .detail("What the role owns could be used to act with its rights.");
  return role;
}

/// Files and queries would be read as the new role, though it did not name them: only where the pipeline's
/// owner, whose definition may have, has that role's rights, too.
void require_trust(const ledger::Run& run, const Role& to) {
  std::vector<ledger::Part> parts = ledger::parts_of(run.id);
  if (std::all_of(parts.begin(), parts.end(), [](const auto& part) { return part.kind == "payload"; }))
    return;
  Oid owner = ledger::pipeline_version(run.pipeline_id, run.version).owner;
  if (OidIsValid(owner) && ledger::acts_for(owner, to.oid)) return;
  throw Error(ERRCODE_INSUFFICIENT_PRIVILEGE, format("the sources of run %lld are not read as role \"%s\"",
                                                     static_cast<long long>(run.id), to.name.c_str()))
      .detail("The run has files or queries, and the owner of the pipeline has not the rights of that role.")
      .hint("Give the pipeline to that role first: SELECT portage.transfer_pipeline(" +
            bridge::quoted_literal(ledger::name_of_pipeline(run.pipeline_id, true).value_or(run.pipeline)) +
            ", " + bridge::quoted_literal(to.name) + ");");
}

void refuse_in_hand(const ledger::Run& run) {
  bool scoped = parse_definition(ledger::pipeline_version(run.pipeline_id, run.version).definition).scoped;
  if (!try_lock(run.pipeline_id, scoped ? run.scope : "", true))
    refuse_second(run.pipeline_id, scoped ? std::optional(run.scope) : std::nullopt);
  if (!in_work(run.status) || !run.owner_alive || run.owner_is_me) return;
  throw Error(codes::run_in_progress, "a migration is in progress")
      .detail(format("Run %lld is being worked on by process %d.", static_cast<long long>(run.id),
                     run.owner_pid.value_or(0)))
      .hint(format("Wait for it, or SELECT portage.pause(%lld);", static_cast<long long>(run.id)));
}

std::string from_to(const Role& from, const Role& to) {
  return "\"from\": " + bridge::json_quoted(from.name) + ", \"to\": " + bridge::json_quoted(to.name) + "}";
}

void transfer_run(int64_t id, const std::string& name) {
  ledger::Run asked = run_to_read(id);
  Role to = new_owner(name, asked.role.oid, format("run %lld", static_cast<long long>(id)));
  for (int64_t one : ledger::lock_run_and_group(id)) {
    ledger::Run run = *ledger::find_run(one);
    if (run.role.oid == to.oid) continue;
    refuse_transferred(run, asked.role.oid);
    refuse_in_hand(run);
    require_trust(run, to);
    ledger::give_run(one, to);
    ledger::add_event(one, "transferred", "{" + from_to(run.role, to));
  }
}

void transfer_pipeline(const StoredPipeline& pipeline, const std::string& name) {
  Role to = new_owner(name, pipeline.owner, "pipeline \"" + pipeline.name + "\"");
  if (pipeline.owner == to.oid) return;
  Role from = ledger::give_pipeline(pipeline.id, to);
  if (from.oid != pipeline.owner)
    throw Error(ERRCODE_T_R_SERIALIZATION_FAILURE, "the pipeline was given to another role at this moment");
  ledger::add_pipeline_event(
      "pipeline_transferred",
      format("{\"pipeline_id\": %lld, \"scope\": \"\", \"pipeline\": ", static_cast<long long>(pipeline.id)) +
          bridge::json_quoted(pipeline.name) + ", " + from_to(from, to));
}

}  // namespace
}  // namespace portage::run

using namespace portage;

PORTAGE_FUNCTION(portage_transfer_run) {
  bridge::Spi spi;
  run::transfer_run(PG_GETARG_INT64(0), NameStr(*PG_GETARG_NAME(1)));
  spi.finish();
  return 0;
}

PORTAGE_FUNCTION(portage_transfer_pipeline) {
  bridge::Spi spi;
  StoredPipeline pipeline = ledger::find_pipeline(bridge::string_of(PG_GETARG_DATUM(0)), ledger::Need::own);
  run::transfer_pipeline(pipeline, NameStr(*PG_GETARG_NAME(1)));
  spi.finish();
  return Int64GetDatum(pipeline.id);
}
