// See preflight.hpp.
#include "run/preflight.hpp"

#include "bridge/codes.hpp"
#include "bridge/spi.hpp"
#include "load/row_reader.hpp"

extern "C" {
#include "access/xlog.h"
#include "catalog/pg_attribute.h"
}

namespace portage::run {
namespace {

using bridge::execute;
using bridge::guarded;
using bridge::param;

bool table_right(Oid table, AclMode mode) {
  return guarded([=] { return pg_class_aclcheck(table, GetUserId(), mode) == ACLCHECK_OK; });
}

bool column_right(Oid table, int attnum, AclMode mode) {
  return guarded([=] {
    return pg_attribute_aclcheck(table, static_cast<AttrNumber>(attnum), GetUserId(), mode) == ACLCHECK_OK;
  });
}

/// The columns for which the right is missing, as a quoted list.
std::string lacking(const Target& target, const std::vector<int>& attnums, AclMode mode) {
  if (table_right(target.oid, mode)) return "";
  std::string columns;
  for (int attnum : attnums)
    if (!column_right(target.oid, attnum, mode))
      (columns += columns.empty() ? "" : ", ") += bridge::quoted(target.column(attnum).name);
  return columns;
}

std::string current_role() {
  char* name = guarded([] { return GetUserNameFromId(GetUserId(), false); });
  return bridge::quoted(name);
}

std::vector<int> settable_columns(const Plan& plan) {
  std::vector<int> columns;
  for (int attnum : plan.mapped())
    if (std::find(plan.key().begin(), plan.key().end(), attnum) == plan.key().end() &&
        plan.target().column(attnum).identity != 'a')
      columns.push_back(attnum);
  return columns;
}

}  // namespace

bool may_update(const Plan& plan) {
  std::vector<int> columns = settable_columns(plan);
  if (columns.empty()) return table_right(plan.target().oid, ACL_UPDATE);
  return lacking(plan.target(), columns, ACL_UPDATE).empty();
}

std::vector<Blocker> missing_privileges(const Plan& plan, bool overwrites, bool deletes) {
  std::vector<Blocker> blockers;
  const Target& target = plan.target();
  std::string table = target.quoted_name(), role = current_role();
  auto add = [&](const std::string& what, const std::string& on, const std::string& grant) {
    blockers.push_back({ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied for " + on,
                        "Role " + role + " lacks " + what + ".", "GRANT " + grant + " TO " + role + ";"});
  };
  const std::string& schema = target.schema;
  Oid table_oid = target.oid;
  if (guarded([=] { return bridge::schema_usage_missing(get_rel_namespace(table_oid), GetUserId()); }))
    add("USAGE on schema " + bridge::quoted(schema), "schema " + bridge::quoted(schema),
        "USAGE ON SCHEMA " + bridge::quoted(schema));
  auto need = [&](const char* right, AclMode mode, const std::vector<int>& attnums) {
    std::string columns = lacking(target, attnums, mode);
    if (columns.empty()) return;
    add(std::string(right) + " (" + columns + ")", "table " + table,
        std::string(right) + " (" + columns + ") ON " + table);
  };
  std::set<int> read(plan.mapped().begin(), plan.mapped().end());
  read.insert(plan.key().begin(), plan.key().end());
  read.insert(plan.match().begin(), plan.match().end());
  read.insert(plan.merge_reads().begin(), plan.merge_reads().end());
  need("INSERT", ACL_INSERT, load::inserted_columns(plan));
  need("SELECT", ACL_SELECT, {read.begin(), read.end()});
  if (overwrites) need("UPDATE", ACL_UPDATE, settable_columns(plan));
  if (deletes && plan.definition().missing.fate == MissingItems::Fate::remove) {
    // The whole row is kept, so that it can be brought back; and it is locked, which asks for UPDATE on some
    // column.
    std::vector<int> all;
    for (const TargetColumn& column : target.columns)
      if (!column.dropped && !column.generated) all.push_back(column.attnum);
    if (blockers.empty()) need("SELECT", ACL_SELECT, all);
    if (!table_right(target.oid, ACL_DELETE)) add("DELETE", "table " + table, "DELETE ON " + table);
    Oid oid = target.oid;
    bool locks = table_right(oid, ACL_UPDATE) || guarded([=] {
                   return pg_attribute_aclcheck_all(oid, GetUserId(), ACL_UPDATE, ACLMASK_ANY) == ACLCHECK_OK;
                 });
    if (!locks && !overwrites) add("UPDATE", "table " + table, "UPDATE ON " + table);
  }
  // Identity columns need no right on their sequence; serial ones do.
  for (const DefaultSequence& sequence : target.default_sequences)
    if (!table_right(sequence.oid, ACL_USAGE | ACL_UPDATE))
      add("USAGE on sequence " + sequence.name, "sequence " + sequence.name,
          "USAGE ON SEQUENCE " + sequence.name);
  return blockers;
}

std::vector<std::string> readable_columns(const Target& target) {
  std::vector<std::string> names;
  bool all = table_right(target.oid, ACL_SELECT);
  for (const TargetColumn& column : target.columns)
    if (!column.dropped && !column.generated && (all || column_right(target.oid, column.attnum, ACL_SELECT)))
      names.push_back(column.name);
  return names;
}

std::optional<Blocker> read_only_blocker() {
  if (guarded([] { return RecoveryInProgress(); }))
    return Blocker{ERRCODE_READ_ONLY_SQL_TRANSACTION, "the server is in recovery",
                   "A standby takes no writes.", "Connect to the primary."};
  if (XactReadOnly)
    return Blocker{ERRCODE_READ_ONLY_SQL_TRANSACTION, "the transaction is read-only", "",
                   "SET TRANSACTION READ WRITE, or SET default_transaction_read_only = off."};
  return std::nullopt;
}

std::vector<Blocker> server_blockers(const Plan& plan, int64_t pipeline_id, const std::string& scope,
                                     int64_t run_id) {
  std::vector<Blocker> blockers;
  if (std::optional<Blocker> blocker = read_only_blocker()) blockers.push_back(*blocker);
  std::optional<std::string> excluded;  // where scopes share their ids, all of them
  if (plan.definition().scoped) excluded = scope;
  std::optional<ledger::Run> active = ledger::find_active_run(pipeline_id, excluded, run_id);
  if (active) {
    long long id = static_cast<long long>(active->id);
    if (active->owner_alive)
      blockers.push_back({codes::run_in_progress, "a migration is in progress",
                          bridge::format("Run %lld of this pipeline and scope is %s in process %d.", id,
                                         active->status.c_str(), active->owner_pid.value_or(0)),
                          bridge::format("Wait for it, or SELECT portage.cancel(%lld);", id)});
    else
      blockers.push_back(
          {codes::run_in_progress, "a migration is in progress",
           bridge::format("Run %lld of this pipeline and scope is %s, but nobody works on it: it was "
                          "interrupted.",
                          id, active->status.c_str()),
           bridge::format("CALL portage.run(%lld); resumes it, SELECT portage.cancel(%lld); ends it.", id,
                          id)});
  }
  return blockers;
}

void refuse(const std::vector<Blocker>& blockers) {
  if (blockers.empty()) return;
  bool same = true;
  std::string details, remedies;
  for (const Blocker& blocker : blockers) {
    same = same && blocker.sqlstate == blockers[0].sqlstate;
    (details += details.empty() ? "" : "\n") +=
        same && blockers.size() == 1
            ? blocker.detail
            : blocker.message + (blocker.detail.empty() ? "" : ": " + blocker.detail);
    if (!blocker.remedy.empty()) (remedies += remedies.empty() ? "" : "\n") += blocker.remedy;
  }
  throw bridge::Error(same ? blockers[0].sqlstate : codes::blocked,
                      same ? blockers[0].message : "migration is blocked")
      .detail(details)
      .hint(remedies);
}

}  // namespace portage::run
