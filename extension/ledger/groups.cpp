// See groups.hpp.
#include "ledger/groups.hpp"

#include "ledger/as_ledger.hpp"
#include "ledger/known_roles.hpp"

namespace portage::ledger {
namespace {

using bridge::param;
using bridge::Result;
using bridge::Statement;

constexpr const char* group_columns =
    "SELECT id, status, scope, role_oid, role_name::text, workers, background FROM portage.run_groups ";

Group group_of(const Result& rows, size_t i) {
  return {rows.bigint(i, 1),   rows.text(i, 2),    rows.text(i, 3),
          role_in(rows, i, 4), rows.integer(i, 6), rows.boolean(i, 7)};
}

std::optional<Group> only(const Result& rows) {
  if (rows.empty()) return std::nullopt;
  return group_of(rows, 0);
}

std::vector<int64_t> numbers(std::string_view array) {  // {1,2}
  std::vector<int64_t> values;
  for (const char *at = array.data() + 1, *end = array.data() + array.size() - 1; at < end; at++) {
    int64_t value = 0;
    at = std::from_chars(at, end, value).ptr;
    values.push_back(value);
  }
  return values;
}

}  // namespace

int64_t insert_group(const Group& group, const std::string& options) {
  Oid role = GetUserId();
  know_role(role);
  AsLedger as;
  static const Statement insert(
      "INSERT INTO portage.run_groups (scope, workers, background, options, role_oid, role_name, "
      "requested_by) SELECT $1, $2, $3, $4::jsonb, r.oid, r.rolname, session_user FROM pg_roles r WHERE "
      "r.oid = $5 RETURNING id");
  return insert({param(group.scope), param(group.workers), param(group.background), param(options),
                 bridge::param_oid(role)})
      .bigint(0, 1);
}

void insert_member(int64_t group, const Member& member) {
  AsLedger as;
  static const Statement insert(
      "INSERT INTO portage.group_members (group_id, run_id, level, waits_for) VALUES ($1, $2, $3, $4)");
  insert({param(group), param(member.run), param(member.level), bridge::param_int8_array(member.waits_for)});
  static const Statement mark("UPDATE portage.migration_runs SET group_id = $1 WHERE id = $2");
  mark.run(group, member.run);
}

std::optional<Group> find_group(int64_t id) {
  AsLedger as;
  return only(bridge::execute(std::string(group_columns) + "WHERE id = $1", {param(id)}));
}

std::optional<Group> lock_group(int64_t id, bool wait) {
  AsLedger as;
  return only(bridge::execute(
      std::string(group_columns) + "WHERE id = $1 FOR UPDATE" + (wait ? "" : " SKIP LOCKED"), {param(id)}));
}

std::vector<Group> groups_in_background() {
  AsLedger as;
  Result rows =
      bridge::execute(std::string(group_columns) + "WHERE status = 'running' AND background ORDER BY id");
  std::vector<Group> groups;
  for (size_t i = 0; i < rows.size(); i++) groups.push_back(group_of(rows, i));
  return groups;
}

std::vector<Member> members_of(int64_t group) {
  AsLedger as;
  static const Statement select(
      "SELECT m.run_id, r.pipeline, m.level, m.waits_for::text, m.again, coalesce(m.reason, ''), r.status, "
      "portage.run_owner_alive(r), r.started_at IS NOT NULL, r.dry_run, coalesce(r.open_parked, 0) "
      "FROM portage.group_members m JOIN portage.migration_runs r ON r.id = m.run_id WHERE m.group_id = $1 "
      "ORDER BY m.level, m.run_id");
  Result rows = select.run(group);
  std::vector<Member> members;
  for (size_t i = 0; i < rows.size(); i++)
    members.push_back({rows.bigint(i, 1), rows.text(i, 2), rows.integer(i, 3), numbers(rows.text(i, 4)),
                       rows.boolean(i, 5), rows.text(i, 6), rows.text(i, 7), rows.boolean(i, 8),
                       rows.boolean(i, 9), rows.boolean(i, 10), rows.bigint(i, 11)});
  return members;
}

void note_member(int64_t group, const Member& member) {
  AsLedger as;
  static const Statement update(
      "UPDATE portage.group_members SET again = $3, reason = nullif($4, '') WHERE group_id = $1 AND run_id = "
      "$2");
  update.run(group, member.run, member.again, member.reason);
}

void set_group_status(int64_t id, const std::string& status, const std::string& error) {
  AsLedger as;
  static const Statement update(
      "UPDATE portage.run_groups SET status = $2, error = nullif($3, ''), completed_at = CASE WHEN $2 NOT IN "
      "('running', 'rolling_back') THEN clock_timestamp() END WHERE id = $1");
  update.run(id, status, error);
}

void set_group_background(int64_t id) {
  AsLedger as;
  static const Statement update("UPDATE portage.run_groups SET background = true WHERE id = $1");
  update.run(id);
}

}  // namespace portage::ledger
