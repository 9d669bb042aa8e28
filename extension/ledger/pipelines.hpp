// Pipelines, their versions and grants in the ledger: the only reader and writer of these three tables, and
// the place that says who may do what with a pipeline. Knows nothing of what a definition means. All
// functions need a connected SPI.
#pragma once

#include "pipeline/plan.hpp"

namespace portage::ledger {

/// What the caller wants of a pipeline.
enum class Need : uint8_t { read, run, own };

/// True if the user is a superuser or a member of portage.admin_role.
bool is_admin(Oid user);
/// True if the user has the rights of the role or may SET ROLE to it. False for an invalid role.
bool acts_for(Oid user, Oid role);
/// The role of that name now, or InvalidOid. Roles are stored as oid and name; the name decides, since after
/// a restore an oid may mean somebody else.
Oid role_named(std::string_view name);

/// The current version of the pipeline, for the current user. Throws PZ004 with the nearest names when there
/// is none that the user may see, 42501 when it may be seen but not used so.
StoredPipeline find_pipeline(std::string_view name, Need need);
/// One version, whoever asks. Throws PZ004.
StoredPipeline pipeline_version(int64_t id, int version);
/// The table of that oid if it has the name, else the one of that name, else InvalidOid.
Oid resolve_target(Oid target, const std::string& schema, const std::string& name);

/// What create and replace store.
struct NewVersion {
  std::string definition, search_path, timezone;
  Oid target;
  std::string target_schema, target_name;
};
/// Returns the id. Throws 42710 when the name is taken.
int64_t insert_pipeline(const std::string& name, Oid owner, const NewVersion&);
/// Appends a version and makes it the current one. Returns its number.
int append_version(int64_t id, Oid author, const NewVersion&);
void delete_pipeline(int64_t id);
void grant(int64_t id, const std::string& owner, Oid role, const std::string& role_name,
           const std::string& privilege);
void revoke(int64_t id, const std::string& role_name, const std::string& privilege);

// In history.cpp.
bool has_history(int64_t pipeline_id);  ///< it has runs
void erase_history(
    int64_t pipeline_id);  ///< erases its runs and all that hangs on them; imported rows stay. PZ007

}  // namespace portage::ledger
