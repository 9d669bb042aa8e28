// See access.hpp.
#include "group/access.hpp"

#include "bridge/codes.hpp"
#include "ledger/known_roles.hpp"
#include "ledger/pipelines.hpp"
#include "run/access.hpp"

namespace portage::group {
namespace {

using bridge::Error;
using bridge::format;

bool changes(const ledger::Group& group) {
  return ledger::is_admin(GetUserId()) || ledger::acts_for(GetUserId(), group.role.oid);
}

}  // namespace

ledger::Group group_to_read(int64_t id) {
  std::optional<ledger::Group> group = ledger::find_group(id);
  // row level security says it, as the current user
  bool visible = !bridge::execute("SELECT FROM portage.run_groups WHERE id OPERATOR(pg_catalog.=) $1",
                                  {bridge::param(id)})
                      .empty();
  if (!group || !(visible || changes(*group))) {
    ledger::refuse_foreign();
    throw Error(codes::unknown_run, format("there is no group %lld", static_cast<long long>(id)))
        .hint("SELECT * FROM portage.run_groups; lists the groups that you may see.");
  }
  run::require_scope(group->scope);
  return *group;
}

ledger::Group group_to_change(int64_t id) {
  ledger::Group group = group_to_read(id);
  if (!changes(group))
    throw Error(ERRCODE_INSUFFICIENT_PRIVILEGE,
                format("permission denied for group %lld", static_cast<long long>(id)))
        .detail("The group belongs to role \"" + group.role.name + "\".")
        .hint("Only that role, its members and members of portage.admin_role may change it.");
  return *ledger::lock_group(id, true);
}

bool acts_for(const ledger::Group& group) {
  Oid role = group.role.oid, me = GetUserId();
  return OidIsValid(role) && (role == me || bridge::guarded([=] { return bridge::can_set_role(me, role); }));
}

}  // namespace portage::group
