// The roles that the ledger names, and the cluster in which they have their oids (table known_roles). In a
// ledger that was restored into another cluster an oid means somebody else, or nobody: none is trusted there
// until a superuser has had the roles adopted by their names (adoption.cpp).
#pragma once

#include "bridge/error.hpp"

namespace portage::ledger {

/// True if the oid is that of a role which the ledger has named in this cluster and which is not gone since,
/// and the ledger names no role of another cluster.
bool is_trusted(Oid role);
/// True while the ledger names roles of another cluster: only superusers see it, and nothing new is written.
bool is_foreign();
/// Before the ledger names a role. Raises 55000 where it cannot know which of its oids mean whom.
void know_role(Oid role);
/// Raises 55000 while the ledger names roles of another cluster: for whoever is no superuser, or for all.
void refuse_foreign(bool superusers_too = false);
/// The error about a role that is gone, as `message` says; in a foreign ledger the one about that.
bridge::Error role_is_gone(const std::string& message, const std::string& hint);
bridge::Error owner_is_gone(const std::string& pipeline);
/// Notes what the roles are called now, and which of them are gone: for good, since their oids may be given
/// to others one day. Not where nothing can be written.
void refresh_known_roles();
/// How many pipelines, schedules, groups and runs are those of roles that are gone, or not known.
int64_t count_orphans();

/// What known_roles calls this cluster.
int64_t this_cluster();

}  // namespace portage::ledger
