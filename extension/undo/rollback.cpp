// See rollback.hpp.
#include "undo/rollback.hpp"

#include "bridge/clock.hpp"
#include "bridge/deferral.hpp"
#include "bridge/entry.hpp"
#include "bridge/json.hpp"
#include "bridge/subxact.hpp"
#include "ledger/compiled.hpp"
#include "ledger/missing.hpp"
#include "pipeline/error_class.hpp"
#include "run/access.hpp"
#include "run/states.hpp"
#include "settings.hpp"
#include "undo/rollback_body.hpp"

namespace portage::undo {

using bridge::Error;
using bridge::format;
using ledger::LandedItem;

namespace {

constexpr size_t page_memory = 48 << 20;  // of the rows and values of a page

}  // namespace

void Page::start() { started_ = bridge::now_ms(); }

void Page::adapt(const Batch& batch) {
  double ratio = settings::batch_target / std::max(bridge::now_ms() - started_, 1.0);
  MemoryContext context = batch.memory.get();
  size_t used = batch.arena.used() + bridge::guarded([=] {
                  return static_cast<size_t>(MemoryContextMemAllocated(context, true));
                });
  ratio = std::min(ratio, static_cast<double>(page_memory) / static_cast<double>(std::max<size_t>(used, 1)));
  size_ = std::clamp(static_cast<int64_t>(static_cast<double>(size_) * std::clamp(ratio, 0.25, 4.0)), least,
                     greatest);
}

Drifted parse_drifted(const std::string& word) {
  if (word == "refuse") return Drifted::refuse;
  if (word == "keep") return Drifted::keep;
  if (word == "force") return Drifted::force;
  throw Error(ERRCODE_INVALID_PARAMETER_VALUE,
              "drifted must be \"refuse\", \"keep\" or \"force\", not \"" + word + "\"");
}

Rollback::Rollback(const ledger::Run& run, Oid role, Drifted drifted, bool cascade)
    : run_(run), role_(role), drifted_(drifted), cascade_(cascade) {
  plan_ = ledger::compile(run, role_);
  bridge::AsUser as(role_);
  space_ = {run.pipeline_id, plan_->definition().scoped ? run.scope : ""};
  std::vector<int> hashed = load::RunHashes::columns_of(*plan_, run.id);
  std::vector<std::string> names;
  for (int attnum : hashed) names.push_back(plan_->target().column(attnum).name);
  hashes_ = std::make_unique<load::RunHashes>(*plan_, 0, names);
  const Target& target = plan_->target();
  for (int attnum : plan_->key()) unique_columns_.insert(target.column(attnum).name);
  for (const UniqueIndex& index : target.unique_indexes)
    if (index.valid && !index.partial && !index.expressions)
      for (int attnum : index.attnums) unique_columns_.insert(target.column(attnum).name);
  writer_ = load::make_writer(*plan_, hashed);
  target_ = std::make_unique<TargetUndo>(*plan_, *writer_, hashed);
  dependants_ = std::make_unique<DependantFinder>(*plan_, role_, run.role.name);
}

Rollback::~Rollback() = default;

Rollback Rollback::resumed(const ledger::Run& run, Oid role) {
  bridge::Result options = bridge::execute(
      "SELECT pg_catalog.jsonb_extract_path_text($1, 'drifted'), pg_catalog.jsonb_extract_path_text($1, "
      "'cascade')",
      {bridge::param_json(ledger::rollback_options(run.id))});
  return Rollback(run, role, parse_drifted(options.text(0, 1)), options.text(0, 2) == "true");
}

void Rollback::work() {
  if (std::optional<Error> error = bridge::committing([this] { take_all_back(); })) fail(*error);
}

void Rollback::take_all_back() {
  Page page;
  for (bool again = true; again;) {
    bool progress = false;
    spared_ = 0;
    spared_for_.clear();
    // Rows that the run has deleted come first: that was the last thing that it did.
    for (bool deleted : {true, false}) {
      int64_t below = INT64_MAX;
      while (work_off_page(page, deleted, below, progress)) bridge::check_interrupts();
      if (ownership_->stopped()) break;
    }
    if (ownership_->stopped()) return pause();
    // Another round helps only rows that others of the run referred to, have written after them, or stood in
    // the place of. What refers to them when none of the run is left to do so, is somebody else's.
    again = ((spared_for_[overwritten] > 0 || spared_for_["waits"] > 0) && progress) ||
            (spared_for_["referred_to"] > 0 && (progress || (cascade_ && !strangers_too_)));
    strangers_too_ = strangers_too_ || (cascade_ && !progress);
  }
  take_back_marks();
  // A wish was accepted until now. Whoever has another one finds the run at its end.
  if (!ownership_->last_look()) return pause();
  bool whole = is_whole();
  std::string end = whole ? "rolled_back" : ledger::state_before_rollback(run_.id);
  run::move(run_.id, "rolling_back", end, whole ? "rollback_completed" : "rollback_incomplete", report());
  ledger::finish_rollback(run_.id, whole);
  std::string details;
  auto tell = [&](const std::string& what, int64_t count) {
    if (count > 0) details += (details.empty() ? "" : "\n") + what + ": " + std::to_string(count);
  };
  tell("deleted rows restored", restored_);
  tell("rows that were gone", gone_);
  for (const auto& [why, count] : spared_for_) tell("spared, " + why, count);
  tell("restored with differences", with_differences_);
  tell("dependants deleted", dependants_deleted_);
  tell("dependants changed", dependants_changed_);
  if (!whole)
    details += format("\nWhen what stands in the way is gone, CALL portage.rollback(%lld); goes on.",
                      static_cast<long long>(run_.id));
  bridge::notice(format("run %lld is %s; items taken back: %lld, spared: %lld",
                        static_cast<long long>(run_.id), whole ? "rolled back" : "partly rolled back",
                        static_cast<long long>(taken_ - gone_), static_cast<long long>(spared_)),
                 details);
  bridge::commit();
}

void Rollback::pause() {
  run::pause(run_.id, "rolling_back");
  bridge::commit();
  bridge::notice(
      format("run %lld is paused", static_cast<long long>(run_.id)),
      format("SELECT portage.resume(%lld); goes on with the rollback.", static_cast<long long>(run_.id)));
}

/// What was not given back although it should have been stays to be given back. What others have changed, and
/// is to be kept, is theirs.
bool Rollback::is_whole() const {
  static const std::set<std::string> kept{"changed", "unknown", "later_run", "mapping_missing", "taken"};
  return std::all_of(spared_for_.begin(), spared_for_.end(), [&](const auto& spared) {
    return spared.second == 0 || (drifted_ != Drifted::force && kept.count(spared.first) > 0);
  });
}

/// The next items below an ordinal, or rows that the run has deleted below a number: one transaction. False
/// if there are none.
bool Rollback::work_off_page(Page& page, bool deleted, int64_t& below, bool& progress) {
  Batch batch;
  bool more = true;
  page.start();
  std::optional<Error> error = bridge::transact([&] {
    bridge::InMemory in(batch.memory.get());
    run::LockLimit locks(true);
    if (!ownership_->take_turn()) return;
    std::vector<LandedItem> items =
        deleted ? ledger::deleted_rows(run_.id, space_, below, page.size(), batch.arena)
                : ledger::landed_items(run_.id, space_, below, page.size(), batch.arena);
    more = !items.empty();
    if (!more) return;
    // An item whose row a higher one has changed after it finds it as it was once that is taken back.
    std::set<std::string_view> rows;
    auto again = std::find_if(items.begin(), items.end(), [&](const LandedItem& item) {
      return item.concerned && item.outcome != Outcome::unchanged && !rows.insert(item.target_key).second;
    });
    items.erase(again, items.end());
    int64_t next_below = items.back().ordinal;
    std::string started = bridge::now_text();
    std::vector<Case> cases;
    {
      bridge::AsUser as(role_);
      bridge::defer_nothing();
      cases = deleted ? judge_deleted(batch, items, true) : judge(batch, items, true);
      if (!deleted) forgive_own(cases);
      std::vector<Case*> open;
      for (Case& c : cases) {
        if (c.spared == overwritten) continue;
        if (c.drift == "waits" || (!c.drift.empty() && c.drift != "gone" && drifted_ != Drifted::force))
          c.spared = c.drift;
        else if (c.taken)
          c.spared = "taken";
        else
          open.push_back(&c);
      }
      halving_.begin();
      if (!take_back_open(batch, open)) {
        // The transaction has had its subtransactions: what is settled is committed, the rest is the next
        // one's.
        next_below = open[halving_.stopped_at()]->item->ordinal + 1;
        page.shrink();
      }
    }
    std::vector<LandedItem*> taken;
    for (Case& c : cases) {
      if (c.item->ordinal < next_below) break;
      if (c.done) {
        c.item->row_taken = c.row.found && c.item->outcome != Outcome::unchanged;
        c.item->row_died = c.item->outcome == Outcome::inserted && !c.drift.empty();
        if (c.drift == "gone") gone_++;
        taken.push_back(c.item);
      } else {
        spared_++;
        spared_for_[c.spared]++;
      }
    }
    if (deleted)
      ledger::write_restored(run_.id, space_, taken, started);
    else
      ledger::write_rollback(run_.id, space_, taken, started);
    (deleted ? restored_ : taken_) += static_cast<int64_t>(taken.size());
    progress = progress || !taken.empty();
    below = next_below;
    ownership_->end_turn();
  });
  if (error) {  // the page is as if it had never been; what will not pass is raised
    if (patience_->bear(*error, page.size() > Page::least)) page.shrink();
    return true;
  }
  patience_->forget();
  if (ownership_->stopped()) return false;
  if (more && !halving_.exhausted()) page.adapt(batch);
  return more;
}

std::vector<LandedItem*> Rollback::take_back_some(Batch& batch, std::vector<LandedItem>& items,
                                                  std::set<int64_t>& spared) {
  bridge::AsUser as(role_);
  bridge::defer_nothing();
  std::vector<Case> cases = judge(batch, items, true);
  std::vector<Case*> open;
  for (Case& c : cases) {
    if (c.drift.empty() || c.drift == "gone")
      open.push_back(&c);
    else
      c.spared = c.drift;
  }
  halving_.begin();
  take_back_open(batch, open);
  std::vector<LandedItem*> taken;
  for (LandedItem& item : items)
    if (!item.concerned) taken.push_back(&item);  // it did nothing
  for (Case& c : cases) {
    c.item->row_taken = c.done && c.row.found && c.item->outcome != Outcome::unchanged;
    if (c.done) taken.push_back(c.item);
    if (!c.spared.empty()) spared.insert(c.item->ordinal);
  }
  return taken;
}

/// Takes cases back, in descending order of the items: a later one may refer to an earlier one. A single one
/// that fails is spared. False if the transaction's subtransactions are used up.
bool Rollback::take_back_open(Batch& batch, std::vector<Case*>& cases) {
  int64_t differences = 0, deleted = 0, changed = 0;
  auto work = [&](size_t low, size_t high) {
    differences = with_differences_;
    deleted = dependants_deleted_;
    changed = dependants_changed_;
    std::vector<Case*> some(cases.begin() + static_cast<std::ptrdiff_t>(low),
                            cases.begin() + static_cast<std::ptrdiff_t>(high));
    take_back(batch, some);
    writer_->check_deferred();
  };
  auto failed = [&](size_t low, size_t high, const Error& error) {
    with_differences_ = differences;
    dependants_deleted_ = deleted;
    dependants_changed_ = changed;
    if (bridge::concerns_whole_batch(error.code())) throw error;
    for (size_t i = low; i < high; i++) {
      cases[i]->done = false;
      cases[i]->spared.clear();
    }
    if (high - low == 1)
      cases[low]->spared = error.code() == ERRCODE_FOREIGN_KEY_VIOLATION
                               ? (cases[low]->item->deleted ? "waits" : "referred_to")
                               : error.sqlstate() + " " + error.message();
    return false;
  };
  return halving_.over(0, cases.size(), work, failed);
}

void Rollback::take_back(Batch& batch, std::vector<Case*>& cases) {
  std::vector<Case*> deletions;
  std::vector<Case*> restorations;
  std::vector<Case*> deleted;
  for (Case* c : cases) {
    if (c->item->deleted)
      deleted.push_back(c);
    else if (c->item->outcome == Outcome::unchanged || !c->row.found)
      c->done = true;
    else if (c->item->outcome == Outcome::inserted)
      deletions.push_back(c);
    else
      restorations.push_back(c);
  }
  put_back(batch, deleted);
  remove(batch, deletions);
  std::vector<Restore> restores;
  for (Case* c : restorations) restores.push_back({&c->row, &c->item->columns, &c->item->before, {}});
  std::vector<Restore> with_columns;
  std::vector<Case*> owners;
  for (size_t i = 0; i < restorations.size(); i++) {
    if (restorations[i]->item->columns.empty()) {
      restorations[i]->done = true;
    } else {
      with_columns.push_back(restores[i]);
      owners.push_back(restorations[i]);
    }
  }
  target_->restore(batch, with_columns);
  for (size_t i = 0; i < owners.size(); i++) {
    owners[i]->done = with_columns[i].after.found;
    owners[i]->item->back_key = with_columns[i].after.key;
    if (!owners[i]->done)
      owners[i]->spared = "kept_by_trigger";
    else if (owners[i]->item->before_hash && owners[i]->drift.empty() &&
             static_cast<int64_t>(with_columns[i].after.row_hash) != *owners[i]->item->before_hash)
      with_differences_++;
  }
}

/// Deletes rows of the run. A row to which another row refers that does not go along stays.
void Rollback::remove(Batch& batch, std::vector<Case*>& cases) {
  std::vector<const load::Row*> rows;
  std::vector<load::BatchRow> others;
  Tree tree;
  for (bool settled = false; !settled;) {
    rows.clear();
    others.clear();
    for (const Case* c : cases) rows.push_back(&c->row);
    tree = dependants_->find(batch, rows, cascade_, strangers_too_);
    std::set<size_t> waiting;
    if (!cascade_) waiting = tree.referred;
    std::unordered_set<std::string> ours;
    if (strangers_too_) {
      std::vector<std::string> keys;
      for (const OwnRow& own : tree.own) keys.push_back(own.key);
      ours = ledger::landed_keys(run_.id, keys);
    }
    bool others_wait = false;
    for (const OwnRow& own : tree.own) {
      if (strangers_too_ && !ours.count(own.key)) {
        if (tree.found[own.constraint].deleted()) others.push_back(own.row);
        tree.found[own.constraint].rows++;
      } else if (own.refers_to) {
        waiting.insert(*own.refers_to);
      } else {
        others_wait = true;
      }
    }
    if (others_wait && waiting.empty())  // on which of the rows it hangs, halving tells
      throw Error(ERRCODE_FOREIGN_KEY_VIOLATION, "rows of the run hang on rows to be deleted");
    std::vector<Case*> free;
    for (size_t i = 0; i < cases.size(); i++) {
      if (waiting.count(i))
        cases[i]->spared = "referred_to";
      else
        free.push_back(cases[i]);
    }
    settled = waiting.empty();
    cases.swap(free);
  }
  require_grants(dependant_tables, {tree.missing_grants.begin(), tree.missing_grants.end()}, run_.role.name);
  refuse_strangers_code(tree.strangers_code, run_.role.name);
  std::vector<bool> removed = target_->remove(batch, rows, dependants_->deletions(tree), others);
  for (size_t i = 0; i < cases.size(); i++) {
    cases[i]->done = removed[i];
    if (!removed[i]) cases[i]->spared = "kept_by_trigger";
  }
  for (const Dependants& d : tree.found) (d.deleted() ? dependants_deleted_ : dependants_changed_) += d.rows;
}

std::string Rollback::report() const {
  std::string spared;
  for (const auto& [why, count] : spared_for_)
    if (count > 0)
      spared += (spared.empty() ? "" : ", ") + bridge::json_quoted(why) + ": " + std::to_string(count);
  std::string restored;
  if (gone_ > 0) restored = format(", \"gone\": %lld", static_cast<long long>(gone_));
  if (restored_ > 0) restored += format(", \"restored\": %lld", static_cast<long long>(restored_));
  return format(
      "{\"rolled_back\": %lld, \"spared\": {%s}, \"restored_with_differences\": %lld, "
      "\"dependants_deleted\": %lld, \"dependants_changed\": %lld%s}",
      static_cast<long long>(taken_), spared.c_str(), static_cast<long long>(with_differences_),
      static_cast<long long>(dependants_deleted_), static_cast<long long>(dependants_changed_),
      restored.c_str());
}

/// Records why the rollback stops, and raises the error: work() has rolled back what it had broken off. An
/// interrupt that comes meanwhile is told instead.
void Rollback::fail(const Error& error) {
  std::string code = error.sqlstate();
  std::optional<Error> late = bridge::transact([&] {
    run::LockLimit locks(true);
    if (bridge::is_interrupt(error.code())) {
      ledger::release_run(run_.id);  // stays rolling_back without an owner: CALL rollback() again resumes it
    } else if (error.code() != codes::stale_owner) {
      run::move(run_.id, "rolling_back", "failed", "migration_failed", "{\"code\": \"" + code + "\"}");
      ledger::fail_rollback(run_.id, error.message(), std::string(error_class("", code)), code);
    }
  });
  // Where that has failed, nobody believes in the run's owner any more when this statement is over.
  if (late && (bridge::is_interrupt(late->code()) || !bridge::is_interrupt(error.code()))) throw *late;
  throw error;
}

}  // namespace portage::undo
