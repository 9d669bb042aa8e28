// Whether several workers may import one run: only where it can be settled afterwards (settle.hpp) so that
// the result is that of one worker. Looks at the target and the definition, knows nothing of workers.
#pragma once

#include "ledger/parts.hpp"
#include "load/loader.hpp"
#include "run/options.hpp"

namespace portage::run {

/// Why what a run lands without seeing what else it lands cannot be settled afterwards, whatever the target's
/// indexes are; "" if it can be. The current user is the run's role.
std::string order_reason(const Plan&, const Options&, const load::Policy&, const std::vector<ledger::Part>&);
/// Why the run has one worker whatever its options say, in words that follow "one worker, since"; "" if it
/// may have several. The current user is the run's role.
std::string one_worker_reason(const Plan&, const Options&, const load::Policy&,
                              const std::vector<ledger::Part>&);

}  // namespace portage::run
