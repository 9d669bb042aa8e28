// A run or a pipeline that is given to another role, by the rules of ALTER ... OWNER TO.
#pragma once

#include "ledger/runs.hpp"

namespace portage::run {

/// Whoever takes a run has looked at its role before nobody else could take it: PZ006 if it was given to
/// another one since.
void refuse_transferred(const ledger::Run& now, Oid role);

}  // namespace portage::run
