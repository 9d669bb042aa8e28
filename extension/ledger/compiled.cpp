// See compiled.hpp. Nothing is asked as long as there is a key.
#include "ledger/compiled.hpp"

#include "bridge/codes.hpp"
#include "bridge/scope.hpp"
#include "ledger/deferred_indexes.hpp"
#include "ledger/pipelines.hpp"
#include "pipeline/plan_cache.hpp"

namespace portage::ledger {

using bridge::Error;
using bridge::format;

std::unique_ptr<Plan> compile(const StoredPipeline& pipeline, int64_t run_id) {
  std::optional<Error> fault;
  try {
    return take_plan(pipeline);
  } catch (const Error& error) {
    if (error.code() != codes::unusable_target) throw;
    fault = error;
  }
  std::optional<MissingKey> key = missing_key(pipeline.target_schema, pipeline.target_name, run_id);
  if (!key) throw *fault;
  if (key->run_id != run_id) {
    long long other = static_cast<long long>(key->run_id);
    throw Error(fault->code(), fault->message())
        .detail(format("Run %lld, an initial load, has its indexes away until all is imported.", other))
        .hint(
            format("Wait for that run. If nobody works on it, CALL portage.run(%lld); goes on with it, CALL "
                   "portage.restore_indexes(%lld); builds them without it.",
                   other, other));
  }
  StoredPipeline known = pipeline;
  known.absent_key = key->columns;
  return Plan::compile(known);
}

std::unique_ptr<Plan> compile(const Run& run, Oid role) {
  StoredPipeline pipeline = pipeline_version(run.pipeline_id, run.version);
  pipeline.timezone = run.timezone;
  HashedColumns then = hashed_columns_of(run.id);
  pipeline.names_then = then.names;
  pipeline.shape_then = then.shape;
  bridge::AsUser as(role);
  return compile(pipeline, run.id);
}

}  // namespace portage::ledger
