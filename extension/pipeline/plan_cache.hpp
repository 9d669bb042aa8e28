// Compiled pipelines that a session keeps from one call to the next: to compile one takes as long as to
// import some dozens of items. What a plan may hang on is any object of the catalogs, so that any change
// there that reaches the session makes it forget them all. Knows nothing of runs.
#pragma once

#include "pipeline/plan.hpp"

namespace portage {

/// How many changes of the catalogs this session has been told of.
uint64_t catalog_changes();

/// The pipeline as Plan::compile() would make it now for the current user, one that was kept if there is one.
/// Raises what compiling raises.
std::unique_ptr<Plan> take_plan(const StoredPipeline&);

/// Keeps a plan for the session's next take_plan(), unless the catalogs have changed since it was compiled.
/// Not to be called for one in which an error was raised and not caught by itself: it goes with the error.
void keep_plan(std::unique_ptr<Plan>);

}  // namespace portage
