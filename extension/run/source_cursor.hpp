// Reading a source from where the last run ended: where that is, and whether everything before the end of
// this run can be seen yet. Knows nothing of how rows are read.
#pragma once

#include "run/job.hpp"

namespace portage::run {

/// From which value of the cursor on the part is to be read, as text; nothing: from the beginning. The
/// current user is the run's role.
std::optional<std::string> cursor_start(const ledger::Run&, const ledger::Part&, const Options&, const Plan&);

/// Waits until those transactions are over that may still commit rows before the end of the part, which has
/// been fixed before: who writes to its table now. Holds no transaction meanwhile, and stops with the run;
/// 55P03 after the session's lock_timeout, if it has one.
void wait_for_writers(Job&, const ledger::Part&);

/// True if the run moves the source's cursor: not where it leaves out what it reads.
bool moves_cursor(const ledger::Part&, const Options&);

}  // namespace portage::run
