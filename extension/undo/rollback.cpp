// See rollback.hpp.
#include "undo/rollback.hpp"

#include "bridge/codes.hpp"
#include "bridge/entry.hpp"
#include "bridge/json.hpp"
#include "bridge/subxact.hpp"
#include "ledger/pipelines.hpp"
#include "pipeline/error_class.hpp"
#include "run/access.hpp"
#include "run/states.hpp"
#include "settings.hpp"

namespace portage::undo {

using bridge::Error;
using bridge::format;
using ledger::LandedItem;

namespace {

constexpr int64_t first_page = 500, least_page = 100, greatest_page = 10000;
constexpr size_t page_memory = 48 << 20;  // of the rows and values of a page

/// Subtransactions that write take an xid, and a backend keeps 64 of them cheaply: one transaction takes
/// half.
constexpr int max_subtransactions = 32;

double now_ms() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

std::string now_text() {
  TimestampTz now = GetCurrentTimestamp();
  return bridge::guarded([=] { return pstrdup(timestamptz_to_str(now)); });
}

}  // namespace

/// How many items are looked at in one go: by the time that they take (portage.batch_target) and the memory.
class Page {
 public:
  int64_t size() const { return size_; }
  void start() { started_ = now_ms(); }
  void adapt(const Batch& batch) {
    double ratio = settings::batch_target / std::max(now_ms() - started_, 1.0);
    MemoryContext context = batch.memory.get();
    size_t used = batch.arena.used() + bridge::guarded([=] {
                    return static_cast<size_t>(MemoryContextMemAllocated(context, true));
                  });
    ratio =
        std::min(ratio, static_cast<double>(page_memory) / static_cast<double>(std::max<size_t>(used, 1)));
    size_ = std::clamp(static_cast<int64_t>(static_cast<double>(size_) * std::clamp(ratio, 0.25, 4.0)),
                       least_page, greatest_page);
  }
  void shrink() { size_ = std::max(size_ / 4, least_page); }

 private:
  int64_t size_ = first_page;
  double started_ = 0;
};

/// An item and what has become of its row since.
struct Rollback::Case {
  LandedItem* item;
  load::Row row;
  std::string drift;   ///< "", "gone", "changed", "later_run", "mapping_missing"
  std::string spared;  ///< why, if it is
  bool done = false;
};

Drifted parse_drifted(const std::string& word) {
  if (word == "refuse") return Drifted::refuse;
  if (word == "keep") return Drifted::keep;
  if (word == "force") return Drifted::force;
  throw Error(ERRCODE_INVALID_PARAMETER_VALUE,
              "drifted must be \"refuse\", \"keep\" or \"force\", not \"" + word + "\"");
}

Rollback::Rollback(const ledger::Run& run, Oid role, Drifted drifted, bool cascade)
    : run_(run), role_(role), drifted_(drifted), cascade_(cascade) {
  StoredPipeline pipeline = ledger::pipeline_version(run.pipeline_id, run.version);
  pipeline.timezone = run.timezone;
  bridge::AsUser as(role_);
  plan_ = Plan::compile(pipeline);
  space_ = {run.pipeline_id, plan_->definition().scoped ? run.scope : ""};
  std::vector<int> hashed, readable;
  for (const std::string& name : run.hash_columns)
    if (const TargetColumn* column = plan_->target().column(name)) hashed.push_back(column->attnum);
  std::sort(hashed.begin(), hashed.end());
  writer_ = load::make_sql_writer(*plan_, hashed);
  target_ = std::make_unique<TargetUndo>(*plan_, *writer_, hashed);
}

Rollback::~Rollback() = default;

std::vector<Rollback::Case> Rollback::judge(Batch& batch, std::vector<LandedItem>& items, bool lock) {
  std::vector<Case> cases;
  std::vector<std::string_view> keys;
  for (LandedItem& item : items) {
    if (!item.concerned) continue;
    cases.push_back({&item, {}, "", "", false});
    keys.push_back(item.target_key);
  }
  std::vector<load::Row> rows = writer_->find_by_key(batch, keys, lock);
  for (size_t i = 0; i < cases.size(); i++) {
    Case& c = cases[i];
    c.row = rows[i];
    const LandedItem& item = *c.item;
    if (item.outcome == Outcome::unchanged) continue;  // only its mapping is ours
    bool ours = item.mapping.found && item.mapping.run_id == run_.id && item.mapping.ordinal == item.ordinal;
    if (!c.row.found)
      c.drift = "gone";
    else if (!item.mapping.found)
      c.drift = "mapping_missing";
    else if (!ours)
      c.drift = "later_run";
    else if (item.mapping.row_hash != static_cast<int64_t>(c.row.row_hash))
      c.drift = "changed";
  }
  return cases;
}

std::vector<std::string> Rollback::missing_grants() {
  std::vector<std::string> grants;
  Oid target = plan_->target().oid, role = role_;
  std::string on = plan_->target().quoted_name() + " TO " + bridge::quoted(run_.role_name) + ";";
  bridge::Settings plain_path;
  plain_path.set("search_path", "pg_catalog, pg_temp");
  bridge::Result kinds = bridge::execute(
      "SELECT coalesce(bool_or(status = 'inserted'), false), coalesce(bool_or(status = 'updated'), false) "
      "FROM portage.migration_items WHERE run_id = $1",
      {bridge::param(run_.id)});
  auto lacks = [=](AclMode mode) {
    return bridge::guarded([=] { return pg_class_aclcheck(target, role, mode) != ACLCHECK_OK; });
  };
  // Rows are locked before they are judged, which asks for UPDATE on some column.
  bool inserted = kinds.boolean(0, 1), updated = kinds.boolean(0, 2);
  if (inserted && lacks(ACL_DELETE)) grants.push_back("GRANT DELETE ON " + on);
  bool any_update = bridge::guarded([=] {
    return pg_attribute_aclcheck_all(target, role, ACL_UPDATE, ACLMASK_ANY) == ACLCHECK_OK ||
           pg_class_aclcheck(target, role, ACL_UPDATE) == ACLCHECK_OK;
  });
  if ((inserted || updated) && !any_update) grants.push_back("GRANT UPDATE ON " + on);
  return grants;
}

Findings Rollback::examine() {
  Findings found;
  bridge::AsUser as(role_);
  Batch batch;
  Page page;
  int64_t below = INT64_MAX;
  for (;;) {
    batch.reset();
    page.start();
    std::vector<LandedItem> items = ledger::landed_items(run_.id, space_, below, page.size(), batch.arena);
    if (items.empty()) break;
    bridge::InMemory in(batch.memory.get());
    below = items.back().ordinal;
    std::vector<Case> cases = judge(batch, items, false);
    found.items += static_cast<int64_t>(cases.size());
    std::vector<const load::Row*> to_delete;
    for (const Case& c : cases) {
      found.gone += c.drift == "gone";
      found.changed += c.drift == "changed";
      found.later_run += c.drift == "later_run";
      found.mapping_missing += c.drift == "mapping_missing";
      if (!c.drift.empty() && c.drift != "gone" && found.examples.size() < 5)
        found.examples.push_back(format("item %lld, key %s: %s", static_cast<long long>(c.item->ordinal),
                                        std::string(c.item->target_key).c_str(), c.drift.c_str()));
      if (c.item->outcome == Outcome::inserted && c.row.found) to_delete.push_back(&c.row);
    }
    for (const Dependants& d : target_->dependants(batch, to_delete))
      if (d.table != plan_->target().quoted_name())  // rows of the run among themselves go in several rounds
        found.dependants[d.table + " (" + d.constraint + ")"] += d.rows;
    page.adapt(batch);
    bridge::check_interrupts();
  }
  return found;
}

void Rollback::begin() {
  std::optional<std::string> excluded;  // where scopes share their ids, all of them
  if (plan_->definition().scoped) excluded = run_.scope;
  if (!run::try_lock(run_.pipeline_id, space_.scope, true)) run::refuse_second(run_.pipeline_id, excluded);
  if (std::optional<ledger::Run> active = ledger::find_active_run(run_.pipeline_id, excluded, run_.id))
    throw Error(codes::run_in_progress, "a migration is in progress")
        .detail(format("Run %lld of this pipeline and scope is %s.", static_cast<long long>(active->id),
                       active->status.c_str()))
        .hint("End it first.");
  bool resumed = run_.status == "rolling_back";
  if (resumed && run_.owner_alive && !run_.owner_is_me)
    throw Error(codes::run_in_progress, "a migration is in progress")
        .detail(format("Run %lld is being rolled back by process %d.", static_cast<long long>(run_.id),
                       run_.owner_pid.value_or(0)));
  if (!resumed && !run::may_become(run_.status, "rolling_back"))
    run::refuse_transition(run_.id, run_.status, "rolling_back");
  if (std::string obstacle = ledger::rollback_obstacle(run_.id); !obstacle.empty())
    throw Error(codes::wrong_state,
                format("run %lld cannot be rolled back: ", static_cast<long long>(run_.id)) + obstacle);
  if (std::vector<std::string> grants = missing_grants(); !grants.empty()) {
    std::string all;
    for (const std::string& grant : grants) (all += all.empty() ? "" : "\n") += grant;
    throw Error(ERRCODE_INSUFFICIENT_PRIVILEGE,
                "permission denied for table " + plan_->target().quoted_name())
        .detail("A rollback deletes and updates rows as role " + bridge::quoted(run_.role_name) + ".")
        .hint(all);
  }
  if (!resumed && (drifted_ == Drifted::refuse || !cascade_)) {
    Findings found = examine();
    if (drifted_ == Drifted::refuse && found.drifted() > 0) {
      std::string detail = format(
          "Of %lld rows, %lld are not as the run left them (changed: %lld, written by a later "
          "run: %lld).",
          static_cast<long long>(found.items), static_cast<long long>(found.drifted()),
          static_cast<long long>(found.changed), static_cast<long long>(found.later_run));
      for (const std::string& example : found.examples) detail += "\n" + example;
      throw Error(codes::drifted, format("run %lld cannot be rolled back: rows have changed since",
                                         static_cast<long long>(run_.id)))
          .detail(detail)
          .hint(
              format("Nothing was changed. CALL portage.rollback(%lld, drifted => 'keep') spares these rows, "
                     "'force' overrides them.",
                     static_cast<long long>(run_.id)));
    }
    if (!cascade_ && !found.dependants.empty()) {
      std::string detail;
      for (const auto& [name, rows] : found.dependants)
        (detail += detail.empty() ? "" : "\n") += format("Rows of %s that refer to rows of the run: %lld.",
                                                         name.c_str(), static_cast<long long>(rows));
      throw Error(codes::has_dependants,
                  format("run %lld cannot be rolled back: other rows refer to its rows",
                         static_cast<long long>(run_.id)))
          .detail(detail)
          .hint(format("Nothing was changed. Remove these rows first, or let them go along: "
                       "CALL portage.rollback(%lld, cascade => true).",
                       static_cast<long long>(run_.id)));
    }
  }
  if (!resumed) run::move(run_.id, run_.status, "rolling_back", "rollback_started");
  run_.status = "rolling_back";
  ledger::own_run(run_.id);
  ledger::set_step(run_.id, "rolling_back");
  bridge::commit();
}

void Rollback::work() {
  Page page;
  bool progress = true;
  while (progress) {  // another round helps only rows that others of the run referred to
    progress = false;
    spared_ = 0;
    spared_for_.clear();
    int64_t below = INT64_MAX;
    while (work_off_page(page, below, progress)) bridge::check_interrupts();
    if (spared_for_["referred_to"] == 0) break;
  }
  run::move(run_.id, "rolling_back", "rolled_back", "rollback_completed", report());
  ledger::finish_rollback(run_.id);
  std::string details;
  auto tell = [&](const std::string& what, int64_t count) {
    if (count > 0) details += (details.empty() ? "" : "\n") + what + ": " + std::to_string(count);
  };
  for (const auto& [why, count] : spared_for_) tell("spared, " + why, count);
  tell("restored with differences", with_differences_);
  tell("dependants deleted", dependants_deleted_);
  bridge::notice(
      format("run %lld is rolled back; items taken back: %lld, spared: %lld", static_cast<long long>(run_.id),
             static_cast<long long>(taken_), static_cast<long long>(spared_)),
      details);
  bridge::commit();
}

/// The next items below an ordinal: one transaction. False if there are none.
bool Rollback::work_off_page(Page& page, int64_t& below, bool& progress) {
  Batch batch;
  bool more = true;
  page.start();
  std::optional<Error> error = bridge::attempt([&] {
    bridge::InMemory in(batch.memory.get());
    bool cancel = false;
    if (!run::try_lock(run_.pipeline_id, space_.scope, false) ||
        !ledger::still_mine(run_.id, "rolling_back", &cancel))
      throw Error(codes::stale_owner,
                  format("run %lld has been taken over", static_cast<long long>(run_.id)));
    std::vector<LandedItem> items = ledger::landed_items(run_.id, space_, below, page.size(), batch.arena);
    more = !items.empty();
    if (!more) return;
    int64_t next_below = items.back().ordinal;
    std::string started = now_text();
    std::vector<Case> cases;
    {
      bridge::AsUser as(role_);
      if (InSecurityRestrictedOperation()) bridge::execute("SET CONSTRAINTS ALL IMMEDIATE");
      cases = judge(batch, items, true);
      std::vector<Case*> open;
      for (Case& c : cases) {
        if (!c.drift.empty() && c.drift != "gone" && drifted_ != Drifted::force)
          c.spared = c.drift;
        else
          open.push_back(&c);
      }
      subtransactions_ = 0;
      if (!attempt_range(batch, open, 0, open.size())) {
        // The transaction has had its subtransactions: what is settled is committed, the rest is the next
        // one's.
        next_below = open[stopped_at_]->item->ordinal + 1;
        page.shrink();
      }
    }
    std::vector<LandedItem*> taken;
    for (Case& c : cases) {
      if (c.item->ordinal < next_below) break;
      if (c.done) {
        c.item->row_taken = c.row.found && c.item->outcome != Outcome::unchanged;
        taken.push_back(c.item);
      } else {
        spared_++;
        spared_for_[c.spared]++;
      }
    }
    ledger::write_rollback(run_.id, space_, taken, started);
    taken_ += static_cast<int64_t>(taken.size());
    progress = progress || !taken.empty();
    below = next_below;
  });
  if (error) fail(*error);
  bridge::commit();
  if (more && subtransactions_ < max_subtransactions) page.adapt(batch);
  return more;
}

/// Takes cases[low, high) back in one subtransaction; halves what fails; a single one that fails is spared.
/// False if the transaction's subtransactions are used up; stopped_at_ says where.
bool Rollback::attempt_range(Batch& batch, std::vector<Case*>& cases, size_t low, size_t high) {
  if (low >= high) return true;
  if (subtransactions_ >= max_subtransactions) {
    stopped_at_ = low;
    return false;
  }
  subtransactions_++;
  bridge::check_interrupts();
  std::vector<Case*> some(cases.begin() + static_cast<std::ptrdiff_t>(low),
                          cases.begin() + static_cast<std::ptrdiff_t>(high));
  int64_t differences = with_differences_, deleted = dependants_deleted_;
  std::optional<Error> error = bridge::attempt([&] {
    take_back(batch, some);
    writer_->check_deferred();
  });
  if (!error) return true;
  with_differences_ = differences;
  dependants_deleted_ = deleted;
  if (bridge::concerns_whole_batch(error->code())) throw *error;
  for (Case* c : some) {
    c->done = false;
    c->spared.clear();
  }
  if (some.size() == 1) {
    some[0]->spared = error->code() == ERRCODE_FOREIGN_KEY_VIOLATION
                          ? "referred_to"
                          : error->sqlstate() + " " + error->message();
    return true;
  }
  size_t middle = low + (high - low) / 2;
  // in descending order of the items: a later one may refer to an earlier one
  return attempt_range(batch, cases, low, middle) && attempt_range(batch, cases, middle, high);
}

void Rollback::take_back(Batch& batch, std::vector<Case*>& cases) {
  std::vector<Case*> deletions;
  std::vector<Case*> restorations;
  for (Case* c : cases) {
    if (c->item->outcome == Outcome::unchanged || !c->row.found)
      c->done = true;
    else if (c->item->outcome == Outcome::inserted)
      deletions.push_back(c);
    else
      restorations.push_back(c);
  }
  auto rows_of = [](const std::vector<Case*>& list) {
    std::vector<const load::Row*> rows;
    for (const Case* c : list) rows.push_back(&c->row);
    return rows;
  };
  std::vector<const load::Row*> rows = rows_of(deletions);
  if (cascade_) {
    dependants_deleted_ += target_->delete_dependants(batch, rows);
  } else {
    std::set<size_t> referred;
    for (const Dependants& d : target_->dependants(batch, rows))
      referred.insert(d.positions.begin(), d.positions.end());
    std::vector<Case*> free;
    for (size_t i = 0; i < deletions.size(); i++) {
      if (referred.count(i))
        deletions[i]->spared = "referred_to";
      else
        free.push_back(deletions[i]);
    }
    deletions.swap(free);
    rows = rows_of(deletions);
  }
  std::vector<bool> removed = target_->remove(batch, rows);
  for (size_t i = 0; i < deletions.size(); i++) {
    deletions[i]->done = removed[i];
    if (!removed[i]) deletions[i]->spared = "kept_by_trigger";
  }
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
    if (!owners[i]->done)
      owners[i]->spared = "kept_by_trigger";
    else if (owners[i]->item->before_hash && owners[i]->drift.empty() &&
             static_cast<int64_t>(with_columns[i].after.row_hash) != *owners[i]->item->before_hash)
      with_differences_++;
  }
}

std::string Rollback::report() const {
  std::string spared;
  for (const auto& [why, count] : spared_for_)
    if (count > 0)
      spared += (spared.empty() ? "" : ", ") + bridge::json_quoted(why) + ": " + std::to_string(count);
  return format(
      "{\"rolled_back\": %lld, \"spared\": {%s}, \"restored_with_differences\": %lld, "
      "\"dependants_deleted\": %lld}",
      static_cast<long long>(taken_), spared.c_str(), static_cast<long long>(with_differences_),
      static_cast<long long>(dependants_deleted_));
}

void take_back_failed(int64_t run_id) {
  // A connection of its own: the caller's writer has relations of the same names in its own.
  bridge::Spi spi(true);
  std::optional<ledger::Run> run = ledger::find_run(run_id);
  Rollback rollback(*run, run::role_of(*run), Drifted::keep, false);
  rollback.begin();
  rollback.work();
  spi.finish();
}

void Rollback::fail(const Error& error) {
  std::string code = error.sqlstate();
  bool interrupted = ERRCODE_TO_CATEGORY(error.code()) == ERRCODE_TO_CATEGORY(ERRCODE_QUERY_CANCELED);
  if (interrupted) {
    ledger::release_run(run_.id);  // stays rolling_back without an owner: CALL rollback() again resumes it
  } else if (error.code() != codes::stale_owner) {
    run::move(run_.id, "rolling_back", "failed", "migration_failed", "{\"code\": \"" + code + "\"}");
    ledger::fail_rollback(run_.id, error.message(), std::string(error_class("", code)), code);
  }
  bridge::commit();
  throw error;
}

}  // namespace portage::undo
