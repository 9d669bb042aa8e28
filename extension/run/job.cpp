// See job.hpp.
#include "run/job.hpp"

#include "ledger/compiled.hpp"
#include "ledger/pipelines.hpp"
#include "run/access.hpp"

namespace portage::run {
namespace {

std::unique_ptr<Plan> plan_of(const ledger::Run& run, StoredPipeline pipeline, Oid role) {
  pipeline.timezone = run.timezone;
  bridge::AsUser as(role);
  return ledger::compile(pipeline, run.id);
}

}  // namespace

Job::Job(const ledger::Run& opened, Commits who_commits, bool helps)
    : Job(opened, ledger::pipeline_version(opened.pipeline_id, opened.version), who_commits, helps) {}

Job::Job(const ledger::Run& opened, const StoredPipeline& pipeline, Commits who_commits, bool helps)
    : run(opened),
      commits(who_commits),
      options(parse_options(opened.options)),
      role(role_of(opened)),
      plan(plan_of(run, pipeline, role)),
      policy(policy_of(run, options, *plan)),
      ownership(run, policy.space.scope, commits, helps) {}

void Job::compile() { plan = ledger::compile(run, role); }

}  // namespace portage::run
