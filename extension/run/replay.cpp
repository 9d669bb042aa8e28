// See replay.hpp.
#include "run/replay.hpp"

#include "bridge/codes.hpp"
#include "bridge/entry.hpp"
#include "ledger/pipelines.hpp"
#include "run/preflight.hpp"

namespace portage::run {
namespace {

using bridge::Error;
using bridge::format;
using ledger::Reject;

constexpr int64_t first_page = 1000, least_page = 100;
constexpr int64_t page_bytes = 8 << 20;   // of raw input
constexpr size_t page_memory = 48 << 20;  // of everything that reading makes of it
constexpr const char* kept_rejected =
    "duplicate";  // of an item that landed: only a correction can change that

bool landed(Outcome outcome) {
  return outcome == Outcome::inserted || outcome == Outcome::updated || outcome == Outcome::unchanged;
}

/// What "where" or a sample left out is no reject.
bool left_out(const std::string& status, std::string_view rule) {
  return status == "skipped" && (rule == "where" || rule == "sample");
}

double now_ms() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

/// As the ledger has it: the order of keys and the spaces are jsonb's.
std::string stored_issues(const Item& item) {
  if (!item.issues) return "";
  return bridge::output_text(JSONBOID, bridge::param_json(ledger::issues_json(item)).value);
}

}  // namespace

Replay::Replay(const ledger::Run& run, Commits commits)
    : run_(run),
      commits_(commits),
      options_(parse_options(run.options)),
      role_(role_of(run)),
      page_size_(first_page) {
  refuse_purged(run.id);
  options_.sample.reset();  // what was sampled out is no reject; a corrected id is meant to land
  StoredPipeline pipeline = ledger::pipeline_version(run.pipeline_id, run.version);
  pipeline.timezone = run.timezone;
  {
    bridge::AsUser as(role_);
    plan_ = Plan::compile(pipeline);
  }
  policy_ = policy_of(run, options_, *plan_);
  policy_.replay = true;
  begin();
}

void Replay::begin() {
  std::optional<std::string> excluded;  // where scopes share their ids, all of them
  if (plan_->definition().scoped) excluded = run_.scope;
  if (commits_ == Commits::yes) lock_.emplace(run_.pipeline_id, policy_.space.scope);
  if (lock_ ? !lock_->held() : !try_lock(run_.pipeline_id, policy_.space.scope, true))
    refuse_second(run_.pipeline_id, excluded);
  run_ = *ledger::find_run(run_.id);  // as it is now that nobody else can change it
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
  refuse(server_blockers(*plan_, run_.pipeline_id, run_.scope, run_.id));
  policy_.hash_columns = run_.hash_columns;
  reader_ =
      std::make_unique<RejectReader>(run_.id, *plan_, static_cast<size_t>(options_.max_item_bytes), role_);
  bridge::AsUser as(role_);
  refuse(missing_privileges(*plan_, policy_.on_conflict == OnConflict::overwrite));
  policy_.may_update = may_update(*plan_);
  writer_ = load::make_sql_writer(*plan_, plan_->target().attnums(policy_.hash_columns));
  loader_ = std::make_unique<load::Loader>(*plan_, *writer_, policy_);
  int64_t unchanged_items = ledger::sum_batches(run_.id).unchanged;
  if (unchanged_items > 0) loader_->recall(unchanged_items);
  // What the caller's transaction has left to be judged later must not be blamed on items.
  if (commits_ == Commits::no) writer_->check_deferred();
}

void Replay::check_state() const {
  long long id = static_cast<long long>(run_.id);
  std::optional<ledger::ReplayState> now = ledger::replay_state(run_.id);
  if (!now) throw Error(codes::unknown_run, format("there is no run %lld", id)).hint("It has been erased.");
  if (now->dry_run)
    throw Error(codes::wrong_state, format("run %lld was a dry run and has nothing to be replayed", id))
        .hint("Nothing of it was written. Import for real; what is rejected then can be replayed.");
  const std::string& status = now->status;
  if (status == "completed" || status == "failed" || status == "cancelled" || status == "awaiting_resolution")
    return;
  throw Error(codes::wrong_state,
              format("run %lld is %s and its rejects cannot be replayed", id, status.c_str()))
      .hint(status == "rolled_back"    ? "What it brought has been taken back. Open a new run."
            : status == "rolling_back" ? format("CALL portage.rollback(%lld); goes on with it.", id)
                                       : format("CALL portage.run(%lld); first.", id));
}

/// Others may have changed the table between two transactions, or be about to.
void Replay::check_target() {
  Oid target = plan_->target().oid;
  bridge::guarded([=] { LockRelationOid(target, RowExclusiveLock); });
  if (unchanged(plan_->target())) return;
  throw Error(codes::target_changed,
              "target " + plan_->target().quoted_name() + " has changed since the replay began")
      .detail(difference(plan_->target()))
      .hint(
          "What was committed stays. Call again: the pipeline is then compiled against the table as it is.");
}

ReplayCounts Replay::all() {
  int64_t after = 0;
  if (commits_ == Commits::yes) {
    std::optional<int64_t> cursor = ledger::replay_state(run_.id)->cursor;
    after = cursor.value_or(0);
    if (cursor)
      bridge::notice(format("the interrupted replay of run %lld goes on after item %lld",
                            static_cast<long long>(run_.id), static_cast<long long>(after)));
    bridge::commit();
  }
  while (std::optional<int64_t> last = page(after)) {
    after = *last;
    if (commits_ == Commits::yes) {
      ledger::set_replay_cursor(run_.id, after);
      tell();
      bridge::commit();
    }
    bridge::check_interrupts();
  }
  ledger::set_replay_cursor(run_.id, std::nullopt);
  tell();
  if (commits_ == Commits::yes) bridge::commit();
  warn();
  return counts_;
}

ReplayCounts Replay::one(int64_t ordinal, const std::optional<std::string>& corrected) {
  long long run = static_cast<long long>(run_.id), item = static_cast<long long>(ordinal);
  std::optional<Reject> found = ledger::find_reject(run_.id, ordinal);
  std::string hint =
      format("SELECT * FROM portage.rejects WHERE run_id = %lld; lists what can be replayed.", run);
  if (!found) throw Error(codes::not_a_reject, format("run %lld has no item %lld", run, item)).hint(hint);
  bool open = found->status == "invalid" || found->status == "failed" ||
              (found->status == "skipped" && !left_out(found->status, found->rule));
  if (!open)
    throw Error(codes::not_a_reject, format("item %lld of run %lld is %s and cannot be replayed", item, run,
                                            found->status.c_str()))
        .detail("Only what did not land can be replayed.")
        .hint(hint);
  if (corrected) {
    found->raw = reader_->as_in_source(*corrected);
    found->corrected = true;
  } else if (found->rule != kept_rejected) {
    formats::Arena arena;
    formats::Record record;
    Obstacle obstacle = reader_->read(*found, arena, record);
    if (obstacle != Obstacle::none) reader_->refuse(*found, obstacle);
  }
  std::vector<Reject> rejects{std::move(*found)};
  load(rejects, corrected.has_value());
  tell(format(", \"ordinal\": %lld, \"corrected\": %s", item, corrected ? "true" : "false"));
  return counts_;
}

/// The next rejects of one part; the ordinal of the last one that was settled, nothing if there are none.
std::optional<int64_t> Replay::page(int64_t after) {
  bridge::Memory scratch("portage replay scratch");
  bridge::InMemory in(scratch.get());
  if (commits_ == Commits::yes) {
    // held already, unless somebody's trigger has let go of all locks of the session
    if (!try_lock(run_.pipeline_id, policy_.space.scope, true)) refuse_second(run_.pipeline_id, std::nullopt);
    check_state();
  }
  std::vector<Reject> rejects = ledger::open_rejects(run_.id, after, page_size_, page_bytes);
  if (rejects.empty()) return std::nullopt;
  for (size_t i = 1; i < rejects.size(); i++)
    if (rejects[i].part != rejects[0].part) {
      rejects.resize(i);
      break;
    }
  int64_t last = rejects.back().ordinal, settled = load(rejects, false);
  page_size_ = settled == last ? std::min(page_size_ * 2, first_page) : std::max(page_size_ / 2, least_page);
  return settled;
}

/// Takes rejects of one part through the pipeline into target and ledger, as far as one transaction reaches;
/// the ordinal up to which that was.
int64_t Replay::load(std::vector<Reject>& rejects, bool corrected) {
  std::string started = bridge::output_text(TIMESTAMPTZOID, TimestampTzGetDatum(GetCurrentTimestamp()));
  check_target();
  Batch batch;
  double start = now_ms();
  std::vector<Reject*> tried, passed_over;
  for (Reject& reject : rejects) {
    if (batch.arena.used() > page_memory) {
      rejects.resize(static_cast<size_t>(&reject - rejects.data()));
      break;
    }
    bool duplicate = !corrected && reject.rule == kept_rejected;
    Item item;
    memset(static_cast<void*>(&item), 0, sizeof item);
    item.ordinal = reject.ordinal;
    Obstacle obstacle = duplicate ? Obstacle::none : reader_->read(reject, batch.arena, item.record);
    if (obstacle == Obstacle::header_missing && corrected) reader_->refuse(reject, obstacle);
    if (obstacle == Obstacle::raw_missing && unreadable_++ == 0) first_unreadable_ = reject.ordinal;
    if (duplicate || obstacle != Obstacle::none) {
      passed_over.push_back(&reject);
      continue;
    }
    tried.push_back(&reject);
    batch.items.push_back(item);
  }
  int64_t last = rejects.back().ordinal;
  if (!tried.empty()) {
    const ledger::Part& part = reader_->part(tried[0]->part);
    bridge::AsUser as(role_);
    if (InSecurityRestrictedOperation()) bridge::execute("SET CONSTRAINTS ALL IMMEDIATE");
    double read = now_ms();
    prepare_batch(*plan_, batch, run_, part, options_);
    double converted = now_ms();
    load::Timings before = loader_->timings();
    size_t settled = loader_->load(batch, 0);
    const load::Timings& after = loader_->timings();
    if (settled < batch.items.size()) last = batch.items[settled - 1].ordinal;
    ledger::BatchRecord record;
    record.run_id = run_.id;
    record.kind = "replay";
    record.actor = ledger::session_user_name();
    record.part = part.number;
    record.range_no = 1;
    record.epoch = 0;
    record.started_at = started;
    record.timings = {{"read", read - start},
                      {"convert", converted - read},
                      {"look_up", after.look_up - before.look_up},
                      {"target", after.target - before.target}};
    tried.resize(settled);
    write(record, batch, tried, corrected);
  }
  for (const Reject* reject : passed_over)
    if (reject->ordinal <= last) count(nullptr);
  return last;
}

/// New revisions for what is not as it was; items [0, rejects.size()) of the batch have been settled.
void Replay::write(ledger::BatchRecord& record, Batch& batch, const std::vector<Reject*>& rejects,
                   bool corrected) {
  std::vector<Item> items;
  std::vector<int32_t> revisions;
  std::unordered_map<const Item*, size_t> positions;
  for (size_t i = 0; i < rejects.size(); i++) {
    const Reject& reject = *rejects[i];
    const Item& item = batch.items[i];
    count(&item);
    if (!corrected && item.outcome == reject.outcome && stored_issues(item) == reject.issues) continue;
    positions[&item] = items.size();
    items.push_back(item);
    revisions.push_back(reject.revision + 1);
    ledger::count_of(record.counts, item.outcome)++;
    ledger::count_of(record.counts, reject.outcome)--;
    if (corrected) ledger::insert_correction(run_.id, reject, revisions.back());
  }
  if (items.empty()) return;
  std::vector<ledger::Undo> undo = loader_->undo();
  for (ledger::Undo& one : undo) one.item = &items[positions.at(one.item)];
  ledger::write_batch(record, policy_.space, items.data(), items.size(), undo, revisions);
  loader_->remember(items.data(), items.size(), 0);
  changed_ = true;
}

/// What became of one more reject; no item: it was not tried.
void Replay::count(const Item* item) {
  counts_.replayed++;
  if (item && landed(item->outcome))
    counts_.landed++;
  else if (!item || item->outcome != Outcome::skipped || !item->issues ||
           !left_out("skipped", item->issues->rule))
    counts_.still_rejected++;
}

/// Counters and an event, for what was done since the last time.
void Replay::tell(const std::string& more) {
  if (changed_) ledger::update_counters(run_.id);
  changed_ = false;
  if (counts_.replayed == told_.replayed) return;
  ledger::add_event(
      run_.id, "replayed",
      format("{\"replayed\": %lld, \"landed\": %lld, \"still_rejected\": %lld%s}",
             static_cast<long long>(counts_.replayed - told_.replayed),
             static_cast<long long>(counts_.landed - told_.landed),
             static_cast<long long>(counts_.still_rejected - told_.still_rejected), more.c_str()));
  told_ = counts_;
}

/// One reject that cannot be read must not keep the others from landing; but it is told.
void Replay::warn() const {
  if (unreadable_ == 0) return;
  bridge::notice(format("rejects of run %lld that could not be read again: %lld",
                        static_cast<long long>(run_.id), static_cast<long long>(unreadable_)),
                 format("Of the first, item %lld, SELECT portage.replay(%lld, %lld); tells why.",
                        static_cast<long long>(first_unreadable_), static_cast<long long>(run_.id),
                        static_cast<long long>(first_unreadable_)),
                 WARNING);
}

}  // namespace portage::run
