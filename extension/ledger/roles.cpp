// See roles.hpp; with the SQL-callable functions acts_as, granted_to_caller and role_name
// (sql/05-roles.sql).
#include "ledger/roles.hpp"

#include "bridge/entry.hpp"
#include "ledger/known_roles.hpp"

namespace portage::ledger {

using bridge::guarded;

namespace {

bool is_superuser(Oid user) {
  return guarded([=] { return superuser_arg(user); });
}

/// As pg_has_role(role, 'MEMBER') of a role that the ledger names: one that is gone is nobody's, but for
/// superusers, who see everything.
bool is_member(Oid user, Oid role) {
  return is_superuser(user) || (is_trusted(role) && guarded([=] { return is_member_of_role(user, role); }));
}

}  // namespace

Role recorded_role(Oid oid, std::string name) {
  if (!is_trusted(oid)) return {InvalidOid, std::move(name)};
  const char* now = guarded([=] { return static_cast<const char*>(GetUserNameFromId(oid, true)); });
  if (!now) return {InvalidOid, std::move(name)};
  return {oid, now};
}

std::string user_name(Oid role) {
  char* name = guarded([=] { return GetUserNameFromId(role, false); });
  std::string copy(name);
  pfree(name);
  return copy;
}

Oid role_named(std::string_view name) {
  std::string copy(name);
  const char* text = copy.c_str();
  return guarded([=] { return get_role_oid(text, true); });
}

bool is_admin(Oid user) {
  if (is_superuser(user)) return true;
  if (is_foreign()) return false;
  const char* admin = GetConfigOption("portage.admin_role", true, false);
  if (!admin || admin[0] == '\0') return false;
  Oid role = role_named(admin);
  return OidIsValid(role) && guarded([=] { return is_member_of_role(user, role); });
}

bool is_granted(Oid user, Oid role) {
  return OidIsValid(role) ? is_member(user, role) : !is_foreign() || is_superuser(user);
}

bool acts_for(Oid user, Oid role) {
  return OidIsValid(role) &&
         guarded([=] { return has_privs_of_role(user, role) || bridge::can_set_role(user, role); });
}

}  // namespace portage::ledger

using namespace portage;

// In C, so that portage.admin_role is ours when it is read: before the library is loaded anybody can set it.
PORTAGE_FUNCTION(portage_is_admin) {
  (void)fcinfo;
  return BoolGetDatum(ledger::is_admin(GetUserId()));
}

PORTAGE_FUNCTION(portage_acts_as) { return BoolGetDatum(ledger::is_member(GetUserId(), PG_GETARG_OID(0))); }

PORTAGE_FUNCTION(portage_granted_to_caller) {
  return BoolGetDatum(ledger::is_granted(GetUserId(), PG_GETARG_OID(0)));
}

PORTAGE_FUNCTION(portage_role_name) {
  std::string name = ledger::recorded_role(PG_GETARG_OID(0), NameStr(*PG_GETARG_NAME(1))).name;
  const char* text = name.c_str();
  return bridge::guarded([=] { return DirectFunctionCall1(namein, CStringGetDatum(text)); });
}
