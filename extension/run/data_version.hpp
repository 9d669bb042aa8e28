// "data_version" of a definition: which versions of the application's data are understood. Unknown ones are
// refused before the first write.
#pragma once

#include "ledger/parts.hpp"
#include "pipeline/plan.hpp"

namespace portage::run {

/// The part's version: given at submission, else found in the document where the definition says where.
std::optional<std::string> data_version_of(int64_t run_id, const ledger::Part&, const Plan&);
/// Raises PZ016 if the part's version (given at submission, else found in the document) is not accepted.
void check_data_version(int64_t run_id, const ledger::Part&, const Plan&);

}  // namespace portage::run
