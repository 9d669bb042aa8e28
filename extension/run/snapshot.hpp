// A snapshot in one go: what migrate() is mostly called with is one payload of few items, of which all is
// known when its only batch has been written. Then its run needs no row to be taken, looked at and finished,
// and the payload none to be read from. Whatever does not go so is left to the worker (worker.hpp), as if
// nothing had been done; the outcome is the same.
#pragma once

#include "ledger/pipelines.hpp"
#include "ledger/whole_run.hpp"
#include "run/options.hpp"

namespace portage::run {

/// Migrates the payload in the caller's transaction, as the run `opened`, which has an id and no row: what
/// became of it. Nothing if that takes more than one batch or one look: nothing is written then. Misuse
/// raises, and so does what concerns more than this run.
std::optional<ledger::WholeRun> migrate_in_one_go(const ledger::NewRun& opened, const StoredPipeline&,
                                                  const Options&, std::string_view payload);

}  // namespace portage::run
