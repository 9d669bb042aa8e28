// Pipelines, their versions and grants in the ledger: the only reader and writer of these three tables, and
// the place that says who may do what with a pipeline. Knows nothing of what a definition means. All
// functions need a connected SPI.
#pragma once

#include "ledger/roles.hpp"
#include "pipeline/plan.hpp"
#include "pipeline/sensitivity.hpp"

namespace portage::ledger {

/// What the caller wants of a pipeline.
enum class Need : uint8_t { read, run, own };

// In names.cpp.
/// The current version of the pipeline that the name means to the current user. A bare name: one's own, else
/// that of a role one is a member of, else one that an administrator granted; `owner/name`: that role's.
/// 42P09 where a bare name could mean several, PZ004 with the nearest names when there is none that the user
/// may see, 42501 when it may be seen but not used so.
StoredPipeline find_pipeline(std::string_view name, Need need);
/// The same of a pipeline that is known; `name` is for the error.
StoredPipeline find_pipeline(int64_t id, std::string_view name, Need need);
/// The id of the pipeline that the name means. 42P09, PZ004.
int64_t pipeline_named(std::string_view name);
/// How the current user addresses the pipeline; nothing if there is none (that the user may see).
std::optional<std::string> name_of_pipeline(int64_t id, bool visible_only);

/// The current version, whoever asks.
StoredPipeline current_version(int64_t id);
/// One version, whoever asks. Throws PZ004.
StoredPipeline pipeline_version(int64_t id, int version);
/// The table of that oid if it has the name, else the one of that name, else InvalidOid.
Oid resolve_target(Oid target, const std::string& schema, const std::string& name);

/// What create and replace store.
struct NewVersion {
  std::string definition, search_path, timezone;
  ValueSettings settings;
  Oid target;
  std::string target_schema, target_name;
  std::map<std::string, int64_t> refers_to;  ///< 0: the pipeline itself
  Sensitivity sensitivity;
};
/// Returns the id. Throws 42710 when the owner has one of that name.
int64_t insert_pipeline(const std::string& name, Oid owner, const NewVersion&);
/// Appends a version and makes it the current one. Returns its number.
int append_version(int64_t id, Oid author, const NewVersion&);
void delete_pipeline(int64_t id);
/// `role`: invalid for public. What an administrator grants again becomes the administrator's.
void grant(int64_t id, Oid owner, Oid role, const std::string& role_name, const std::string& privilege,
           Oid grantor, bool by_admin);
/// A role of that name; where there is none (any more), the grants to those that were called so.
void revoke(int64_t id, const std::string& role_name, const std::string& privilege);

// In history.cpp.
bool has_history(int64_t pipeline_id);  ///< it has runs
void erase_history(
    int64_t pipeline_id);  ///< erases its runs and all that hangs on them; imported rows stay. PZ007

}  // namespace portage::ledger
