// Roles as the ledger knows them: who a recorded role is, and what the current user may do in its name. A
// role is its oid, as long as there is one; a name is for messages, and for what a user calls it by.
#pragma once

#include "bridge/spi.hpp"

namespace portage::ledger {

/// A role that the ledger has recorded.
struct Role {
  Oid oid = InvalidOid;  ///< invalid: there is no such role any more
  std::string name;      ///< its present name; the recorded one if it is gone
};

/// Who the recorded role is. `name`: what it was called then.
Role recorded_role(Oid oid, std::string name);
/// The same of two columns of a statement's rows: the oid, and after it the name as text.
inline Role role_in(const bridge::Result& rows, size_t row, int column) {
  return recorded_role(rows.oid(row, column), rows.text(row, column + 1));
}
/// The name of a role that exists.
std::string user_name(Oid role);
/// The role that a user calls so, or InvalidOid. Not for what the ledger has recorded.
Oid role_named(std::string_view name);

/// True if the user is a superuser or a member of portage.admin_role.
bool is_admin(Oid user);
/// True if what was granted to the role holds for the user. Granted to the invalid role: to public.
bool is_granted(Oid user, Oid role);
/// True if the user has the rights of the role or may SET ROLE to it. False for an invalid role.
bool acts_for(Oid user, Oid role);

}  // namespace portage::ledger
