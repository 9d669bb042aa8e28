// See reopened.hpp.
#include "run/reopened.hpp"

#include "bridge/clock.hpp"
#include "bridge/codes.hpp"
#include "bridge/deferral.hpp"
#include "ledger/compiled.hpp"
#include "ledger/deferred_indexes.hpp"
#include "ledger/replay.hpp"
#include "run/entry_points.hpp"
#include "run/preflight.hpp"
#include "run/stage.hpp"
#include "run/transfer.hpp"

namespace portage::run {

using bridge::Error;
using bridge::format;

Reopened::Reopened(const ledger::Run& run, Commits commits, const char* what)
    : run_(run), commits_(commits), options_(parse_options(run.options)), role_(role_of(run)), what_(what) {
  refuse_purged(run.id);
  options_.sample.reset();  // what was sampled out is no reject; a corrected id is meant to land
  plan_ = ledger::compile(run, role_);
  policy_ = policy_of(run, options_, *plan_);
  policy_.replay = true;
}

void Reopened::begin(bool overwrites) {
  std::optional<std::string> excluded;  // where scopes share their ids, all of them
  if (plan_->definition().scoped) excluded = run_.scope;
  if (commits_ == Commits::yes) lock_.emplace(run_.pipeline_id, policy_.space.scope);
  if (lock_ ? !lock_->held() : !try_lock(run_.pipeline_id, policy_.space.scope, true))
    refuse_second(run_.pipeline_id, excluded);
  run_ = *ledger::find_run(run_.id);  // as it is now that nobody else can change it
  refuse_transferred(run_, role_);
  if (ledger::runs_changed_since_snapshot(run_.pipeline_id, excluded))
    throw Error(ERRCODE_T_R_SERIALIZATION_FAILURE, "could not serialize access due to a concurrent migration")
        .detail("This pipeline and scope was migrated after the transaction took its snapshot.")
        .hint("The transaction might succeed if retried.");
  if (run_.owner_alive && !run_.owner_is_me)
    throw Error(codes::run_in_progress, "a migration is in progress")
        .detail(format("Run %lld is being worked on by process %d.", static_cast<long long>(run_.id),
                       run_.owner_pid.value_or(0)))
        .hint("Try again when it has ended.");
  check_state();
  if (!ledger::missing_indexes(run_.id).empty())  // by them duplicates are known
    throw Error(codes::wrong_state,
                format("indexes of the target are missing since run %lld", static_cast<long long>(run_.id)))
        .detail("Items would not meet the rows that they repeat.")
        .hint(format("CALL portage.restore_indexes(%lld); builds them.", static_cast<long long>(run_.id)));
  refuse(server_blockers(*plan_, run_.pipeline_id, run_.scope, run_.id));
  policy_.hash_columns = run_.hash_columns;
  reader_ =
      std::make_unique<RejectReader>(run_.id, *plan_, static_cast<size_t>(options_.max_item_bytes), role_);
  bridge::AsUser as(role_);
  refuse(missing_privileges(*plan_, overwrites));
  policy_.may_update = may_update(*plan_);
  writer_ = load::make_writer(*plan_, plan_->target().attnums(policy_.hash_columns));
  loader_ = std::make_unique<load::Loader>(*plan_, *writer_, policy_);
  int64_t unchanged_items = ledger::sum_batches(run_.id).unchanged;
  if (unchanged_items > 0) loader_->recall(unchanged_items);
  // What the caller's transaction has left to be judged later must not be blamed on items.
  if (commits_ == Commits::no) writer_->check_deferred();
}

void Reopened::check_state() const {
  long long id = static_cast<long long>(run_.id);
  std::optional<ledger::ReplayState> now = ledger::replay_state(run_.id);
  if (!now) throw Error(codes::unknown_run, format("there is no run %lld", id)).hint("It has been erased.");
  if (now->dry_run)
    throw Error(codes::wrong_state, format("run %lld was a dry run and its %s", id, what_))
        .hint("Nothing of it was written. Import for real; what does not land then can be taken up again.");
  const std::string& status = now->status;
  if (status == "completed" || status == "failed" || status == "cancelled" || status == "awaiting_resolution")
    return;
  throw Error(codes::wrong_state, format("run %lld is %s and its %s", id, status.c_str(), what_))
      .hint(status == "rolled_back"    ? "What it brought has been taken back. Open a new run."
            : status == "rolling_back" ? format("CALL portage.rollback(%lld); goes on with it.", id)
                                       : format("CALL portage.run(%lld); first.", id));
}

/// Others may have changed the table between two transactions, or be about to.
void Reopened::check_target() {
  Oid target = plan_->target().oid;
  bridge::guarded([=] { LockRelationOid(target, RowExclusiveLock); });
  if (plan_->target_is_unchanged()) return;
  throw Error(codes::target_changed,
              "target " + plan_->target().quoted_name() + " has changed since this began")
      .detail(difference(plan_->target()))
      .hint(
          "What was committed stays. Call again: the pipeline is then compiled against the table as it is.");
}

/// A transaction of a procedure begins.
void Reopened::begin_page() {
  if (commits_ == Commits::no) return;
  // held already, unless somebody's trigger has let go of all locks of the session
  if (!try_lock(run_.pipeline_id, policy_.space.scope, true)) refuse_second(run_.pipeline_id, std::nullopt);
  check_state();
}

/// Reads items of one part again and takes them through the pipeline into the target, as far as one
/// transaction reaches. `record` gets what is to be told of it; the number of items that have an outcome.
size_t Reopened::load(Batch& batch, const ledger::Part& part, ledger::BatchRecord& record, double began) {
  bridge::AsUser as(role_);
  bridge::defer_nothing();
  double read = bridge::now_ms();
  prepare_batch(*plan_, batch, run_, part, options_);
  double converted = bridge::now_ms();
  load::Timings before = loader_->timings();
  size_t settled = loader_->load(batch, 0);
  const load::Timings& after = loader_->timings();
  record.run_id = run_.id;
  record.actor = ledger::session_user_name();
  record.part = part.number;
  record.range_no = 1;
  record.epoch = 0;
  record.timings = {{"read", read - began},
                    {"convert", converted - read},
                    {"look_up", after.look_up - before.look_up},
                    {"target", after.target - before.target}};
  return settled;
}

/// New revisions for items of a batch that load() has settled.
void Reopened::write(ledger::BatchRecord& record, std::vector<Item>& items,
                     const std::vector<int32_t>& revisions,
                     const std::unordered_map<const Item*, size_t>& places) {
  record.last_wins = policy_.duplicates == Duplicates::last;
  write_revisions(record, policy_.space, *loader_, items, revisions, places);
}

/// No item waits for a decision any more: a run that waited for that goes on to its end.
void Reopened::let_complete() {
  std::optional<ledger::Run> run = ledger::find_run(run_.id);
  if (!run || run->status != "awaiting_resolution") return;
  loader_.reset();
  writer_.reset();
  if (commits_ == Commits::yes) {
    bridge::commit();
    run_here(run_.id, false);
  } else {
    work_in_caller(*run, false);
  }
}

}  // namespace portage::run
