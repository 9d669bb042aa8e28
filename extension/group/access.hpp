// Who may do what with a group: as with its runs, whose role is the group's.
#pragma once

#include "ledger/groups.hpp"

namespace portage::group {

/// The group, if the current user may see one of its runs. PZ005.
ledger::Group group_to_read(int64_t id);
/// The group, if the current user may change its runs: its role, members of it, or an administrator. PZ005
/// or 42501. Nobody else changes it until the end of the transaction.
ledger::Group group_to_change(int64_t id);
/// True if the current user may act as the group's role, which working on its runs takes.
bool acts_for(const ledger::Group&);

}  // namespace portage::group
