// See exclusion.hpp.
#include "run/exclusion.hpp"

#include "bridge/clock.hpp"
#include "bridge/codes.hpp"
#include "run/access.hpp"
#include "run/preflight.hpp"
#include "run/states.hpp"
#include "settings.hpp"

namespace portage::run {

using bridge::Error;
using bridge::format;

std::optional<std::string> excluded_scope(const Job& job) {
  if (!job.plan->definition().scoped) return std::nullopt;
  return job.run.scope;
}

namespace {

/// By one try. But who was interrupted may have had helpers, and these notice when they have done what they
/// have in hand.
bool lock_after_helpers(const Job& job) {
  auto& scope = job.policy.space.scope;
  bool locked = try_lock(job.run.pipeline_id, scope, true);
  bool left = job.commits == Commits::yes && in_work(job.run.status) && !job.run.owner_alive;
  double end = bridge::now_ms() + settings::lease_duration;
  for (bool more = left && job.run.workers > 1; !locked && more;) {
    ledger::Pieces pieces = ledger::pieces_of(job.run.id);
    more = pieces.open > pieces.unclaimed && bridge::now_ms() < end;
    locked = lock_patiently(job.run.pipeline_id, scope, true);
  }
  return locked;
}

}  // namespace

void exclude_others(const Job& job) {
  if (!lock_after_helpers(job)) refuse_second(job.run.pipeline_id, excluded_scope(job));
  if (ledger::runs_changed_since_snapshot(job.run.pipeline_id, excluded_scope(job)))
    throw Error(ERRCODE_T_R_SERIALIZATION_FAILURE, "could not serialize access due to a concurrent migration")
        .detail("This pipeline and scope was migrated after the transaction took its snapshot.")
        .hint("The transaction might succeed if retried.");
}

void check_blockers(const Job& job) {
  refuse(server_blockers(*job.plan, job.run.pipeline_id, job.run.scope, job.run.id));
  bridge::AsUser as(job.role);
  refuse(missing_privileges(*job.plan, load::overwrites(job.policy.on_conflict), !job.options.dry_run));
}

void refuse_rivals(const Job& job) {
  const Target& target = job.plan->target();
  bool exclusive = job.plan->definition().exclusive;
  std::optional<ledger::Run> rival;
  if (try_lock_target(target.oid, exclusive)) {
    rival = ledger::find_rival(target.schema, target.name, exclusive, job.run.id);
    if (!rival) return;
  }
  std::string detail = "Another session migrates into it at this moment.", hint = "Wait for it, or end it.";
  if (rival) {
    long long id = static_cast<long long>(rival->id);
    detail =
        format("Run %lld of pipeline \"%s\" is %s; ", id, rival->pipeline.c_str(), rival->status.c_str()) +
        (rival->owner_alive ? format("process %d works on it.", *rival->owner_pid) : "nobody works on it.");
    if (!rival->owner_alive)
      hint = format("CALL portage.run(%lld); goes on with it, SELECT portage.cancel(%lld); ends it.", id, id);
  }
  throw Error(codes::run_in_progress, "a migration into " + target.quoted_name() + " is in progress")
      .detail(detail + " One of the two pipelines is \"exclusive\".")
      .hint(hint);
}

}  // namespace portage::run
