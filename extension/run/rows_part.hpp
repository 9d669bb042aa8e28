// A part that is a query: read by pages of its key, each page a statement of its own, so that no snapshot
// lives longer than a batch. Rows travel as JSON text, like any other item.
#pragma once

#include "run/source.hpp"

namespace portage::run {

std::unique_ptr<OpenPart> open_rows(const ledger::Part&, const StoredPipeline&, formats::Options,
                                    const ledger::Range* resume);

}  // namespace portage::run
