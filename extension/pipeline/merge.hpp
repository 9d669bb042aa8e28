// How an item and the row that it meets become one: the strategies of "merge" and "newest_by" as expressions
// of PostgreSQL's own over incoming.*, existing.* and base.*. For pipeline/ only; run by Plan::merge.
#pragma once

#include "pipeline/plan_body.hpp"

namespace portage {

/// Compiles "merge" and "newest_by" into the body. The current user is the pipeline's owner.
void compile_merging(Plan::Body&);

}  // namespace portage
