// Whether a run can be taken back as it is: what has become of its rows, what hangs on them, what its role
// may not do; and the begin of a rollback, which asks all that first. See rollback.hpp.
#include <numeric>

#include "bridge/spi.hpp"
#include "ledger/missing.hpp"
#include "ledger/row_moves.hpp"
#include "ledger/source_cursors.hpp"
#include "run/access.hpp"
#include "run/options.hpp"
#include "run/states.hpp"
#include "run/transfer.hpp"
#include "undo/rollback_body.hpp"

namespace portage::undo {

using bridge::Error;
using bridge::format;
using ledger::LandedItem;

namespace {

constexpr size_t many_pending = 50000;

}  // namespace

std::vector<Rollback::Case> Rollback::judge(Batch& batch, std::vector<LandedItem>& items, bool lock) {
  std::vector<Case> cases;
  for (LandedItem& item : items) {
    if (!item.concerned) continue;
    for (std::string& name : item.columns) name = plan_->name_now(name);
    cases.push_back({&item, {}, "", "", false});
  }
  std::vector<load::Row> rows(cases.size());
  auto find = [&](const std::vector<size_t>& positions) {
    std::vector<std::string_view> keys;
    std::vector<size_t> alive;
    for (size_t i : positions) {
      rows[i] = {};
      if (cases[i].item->row_key.data() == nullptr) continue;
      keys.push_back(cases[i].item->row_key);
      alive.push_back(i);
    }
    std::vector<load::Row> found = writer_->find_by_key(batch, keys, lock);
    for (size_t j = 0; j < alive.size(); j++) rows[alive[j]] = found[j];
  };
  std::vector<size_t> all(cases.size());
  std::iota(all.begin(), all.end(), 0);
  find(all);
  auto ours = [&](const LandedItem& item) {
    return item.mapping.found && item.mapping.run_id == run_.id && item.mapping.ordinal == item.ordinal;
  };
  // What is not there as the item left it may have another key since; another row may have the one it had.
  std::vector<LandedItem*> lost;
  std::vector<size_t> positions;
  for (size_t i = 0; i < cases.size(); i++) {
    const LandedItem& item = *cases[i].item;
    if (item.outcome == Outcome::unchanged) continue;  // only its mapping is ours
    bool as_left = rows[i].found && hashes_->compare(item.mapping, rows[i]) == load::AsLeft::yes;
    if (ours(item) && !as_left) {
      lost.push_back(cases[i].item);
      positions.push_back(i);
    }
  }
  if (!lost.empty()) {
    ledger::follow_rows(run_.id, lost, batch.arena);
    std::erase_if(positions, [&](size_t i) { return cases[i].item->stays.empty(); });
    find(positions);
  }
  for (size_t i = 0; i < cases.size(); i++) {
    Case& c = cases[i];
    LandedItem& item = *c.item;
    if (!item.row_replaced && item.held == LandedItem::Held::no) c.row = rows[i];
    if (c.row.found) item.row_key = c.row.key;
    if (item.outcome == Outcome::unchanged) continue;
    if (!c.row.found)
      c.drift = item.held == LandedItem::Held::later ? "later_run" : "gone";
    else if (!item.mapping.found)
      c.drift = "mapping_missing";
    else if (!ours(item))
      c.drift = "later_run";
    else if (load::AsLeft as_left = hashes_->compare(item.mapping, c.row); as_left != load::AsLeft::yes)
      c.drift = as_left == load::AsLeft::no ? "changed" : "unknown";
  }
  look_for_takers(batch, cases);
  return cases;
}

/// Rows that are to have values again by which a unique index knows them: others may have these meanwhile.
void Rollback::look_for_takers(Batch& batch, std::vector<Case>& cases) {
  std::vector<Restore> rows;
  std::vector<Case*> restored;
  for (Case& c : cases) {
    const LandedItem& item = *c.item;
    bool unique = item.outcome == Outcome::updated && c.row.found &&
                  std::any_of(item.columns.begin(), item.columns.end(),
                              [&](const std::string& name) { return unique_columns_.count(name) > 0; });
    if (!unique) continue;
    rows.push_back({&c.row, &item.columns, &item.before, {}});
    restored.push_back(&c);
  }
  if (rows.empty()) return;
  std::vector<std::string> takers = target_->taken(batch, rows), met;
  for (const std::string& key : takers)
    if (!key.empty()) met.push_back(key);
  if (met.empty()) return;
  std::unordered_set<std::string> own = ledger::landed_keys(run_.id, met);
  for (const Case& c : cases)  // the key that an item has left may be another row's by now
    if (c.item->outcome != Outcome::unchanged && c.row.key != c.item->target_key)
      own.erase(std::string(c.item->target_key));
  for (const Case& c : cases)
    if (c.item->outcome != Outcome::unchanged && c.row.found) own.emplace(c.row.key);
  for (size_t i = 0; i < restored.size(); i++) {
    if (takers[i].empty()) continue;
    restored[i]->taken = true;
    if (own.count(takers[i]))  // which goes, too
      restored[i]->drift = "waits";
    else if (restored[i]->drift.empty())
      restored[i]->drift = "taken";
  }
}

/// What another item of the run has made of a row afterwards is no drift of the one before: that one waits
/// for it.
void Rollback::forgive_own(std::vector<Case>& cases) {
  std::vector<const LandedItem*> suspects;
  for (const Case& c : cases)
    if (c.drift == "changed" || c.drift == "unknown" || c.drift == "later_run" ||
        c.drift == "mapping_missing")
      suspects.push_back(c.item);
  std::set<int64_t> own = ledger::overwritten_in_run(run_.id, suspects);
  for (Case& c : cases) {
    if (!own.count(c.item->ordinal)) continue;
    c.drift.clear();
    c.spared = overwritten;
  }
}

std::vector<std::string> Rollback::missing_grants() {
  std::vector<std::string> grants;
  Oid target = plan_->target().oid, role = role_;
  std::string on = plan_->target().quoted_name() + " TO " + bridge::quoted(run_.role.name) + ";";
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
  bool deleted = ledger::any_deleted(run_.id);
  if (deleted && lacks(ACL_INSERT)) grants.push_back("GRANT INSERT ON " + on);
  if ((inserted || updated || deleted) && !any_update) grants.push_back("GRANT UPDATE ON " + on);
  return grants;
}

Findings Rollback::examine() {
  Findings found;
  bridge::AsUser as(role_);
  Batch batch;
  Page page;
  Pending pending;
  std::set<std::string> met;
  int64_t below = INT64_MAX;
  for (;;) {
    batch.reset();
    page.start();
    std::vector<LandedItem> items = ledger::landed_items(run_.id, space_, below, page.size(), batch.arena);
    if (items.empty()) break;
    bridge::InMemory in(batch.memory.get());
    below = items.back().ordinal;
    std::vector<Case> cases = judge(batch, items, false);
    forgive_own(cases);
    note(found, cases);
    std::vector<const load::Row*> to_delete;
    for (const Case& c : cases)
      if (c.item->outcome == Outcome::inserted && c.row.found) to_delete.push_back(&c.row);
    look_at_dependants(batch, to_delete, found, pending);
    if (pending.size() >= many_pending) settle_pending(batch, found, pending, met);
    page.adapt(batch);
    bridge::check_interrupts();
  }
  settle_pending(batch, found, pending, met);
  for (below = INT64_MAX;;) {
    batch.reset();
    page.start();
    std::vector<LandedItem> rows = ledger::deleted_rows(run_.id, space_, below, page.size(), batch.arena);
    if (rows.empty()) break;
    bridge::InMemory in(batch.memory.get());
    below = rows.back().ordinal;
    note(found, judge_deleted(batch, rows, false));
    page.adapt(batch);
    bridge::check_interrupts();
  }
  return found;
}

void Rollback::note(Findings& found, const std::vector<Case>& cases) const {
  found.items += static_cast<int64_t>(cases.size());
  for (const Case& c : cases) {
    found.gone += c.drift == "gone";
    found.changed += c.drift == "changed";
    found.unknown += c.drift == "unknown";
    found.later_run += c.drift == "later_run";
    found.mapping_missing += c.drift == "mapping_missing";
    found.taken += c.drift == "taken";
    if (c.drift.empty() || c.drift == "gone" || c.drift == "waits" || found.examples.size() >= 5) continue;
    std::string what = c.item->deleted ? "deleted row of " + std::string(c.item->legacy_id)
                                       : format("item %lld", static_cast<long long>(c.item->ordinal));
    found.examples.push_back(what + ", key " + bridge::quotable(c.item->target_key) + ": " + c.drift);
  }
}

/// What hangs on rows that are to be deleted. Rows of the target among it may be items of the run, whose turn
/// comes: they wait to be told apart.
void Rollback::look_at_dependants(Batch& batch, const std::vector<const load::Row*>& rows, Findings& found,
                                  Pending& pending) {
  Tree tree = dependants_->find(batch, rows, true, false);
  auto add = [&](const Dependants& d) {
    if (d.rows == 0) return;
    for (Dependants& known : found.dependants)
      if (known.table == d.table && known.constraint == d.constraint) {
        known.rows += d.rows;
        return;
      }
    found.dependants.push_back(d);
  };
  for (const Dependants& d : tree.found) add(d);
  found.missing_grants.insert(tree.missing_grants.begin(), tree.missing_grants.end());
  found.strangers_code.insert(tree.strangers_code.begin(), tree.strangers_code.end());
  for (const OwnRow& own : tree.own) pending.emplace_back(tree.found[own.constraint], own.key);
}

/// Tells rows of the target that hang on the run's from the run's own, and looks at what hangs on the former.
void Rollback::settle_pending(Batch& batch, Findings& found, Pending& pending, std::set<std::string>& met) {
  while (!pending.empty()) {
    std::vector<std::string> keys;
    for (const auto& [constraint, key] : pending) keys.push_back(key);
    std::unordered_set<std::string> ours = ledger::landed_keys(run_.id, keys);
    std::vector<std::string_view> strangers;
    Pending now;
    now.swap(pending);
    for (auto& [constraint, key] : now) {
      if (ours.count(key) || !met.insert(key).second) continue;
      auto known = std::find_if(found.dependants.begin(), found.dependants.end(), [&](const Dependants& d) {
        return d.table == constraint.table && d.constraint == constraint.constraint;
      });
      if (known == found.dependants.end()) {
        constraint.rows = 0;
        known = found.dependants.insert(known, constraint);
      }
      known->rows++;
      if (constraint.deleted()) strangers.push_back(batch.arena.copy(key));
    }
    bridge::InMemory in(batch.memory.get());
    std::vector<load::Row> rows = writer_->find_by_key(batch, strangers, false);
    std::vector<const load::Row*> to_delete;
    for (const load::Row& row : rows)
      if (row.found) to_delete.push_back(&row);
    look_at_dependants(batch, to_delete, found, pending);
  }
}

void require_grants(const std::string& on, const std::vector<std::string>& grants, const std::string& role) {
  if (grants.empty()) return;
  std::string all;
  for (const std::string& grant : grants) (all += all.empty() ? "" : "\n") += grant;
  throw Error(ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied for " + on)
      .detail("A rollback deletes and updates rows as role " + bridge::quoted(role) + ".")
      .hint(all);
}

void refuse_strangers_code(const std::set<std::string>& tables, const std::string& role) {
  if (tables.empty()) return;
  std::string all;
  for (const std::string& table : tables) (all += all.empty() ? "" : ", ") += table;
  throw Error(ERRCODE_INSUFFICIENT_PRIVILEGE, "a rollback does not run the code of strangers")
      .detail("Triggers, rules or policies would run as role " + bridge::quoted(role) + ": " + all + ".")
      .hint("Delete the rows of these tables first, or let their owners do it.");
}

void Rollback::begin() {
  std::optional<std::string> excluded;  // where scopes share their ids, all of them
  if (plan_->definition().scoped) excluded = run_.scope;
  if (!run::try_lock(run_.pipeline_id, space_.scope, true)) run::refuse_second(run_.pipeline_id, excluded);
  run::refuse_transferred(*ledger::find_run(run_.id), role_);
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
  run::require_key(*plan_, run_.id);
  require_grants("table " + plan_->target().quoted_name(), missing_grants(), run_.role.name);
  if (!resumed && (drifted_ == Drifted::refuse || (dependants_->any() && !spare_dependants_))) {
    Findings found = examine();
    if (cascade_) {
      require_grants(dependant_tables, {found.missing_grants.begin(), found.missing_grants.end()},
                     run_.role.name);
      refuse_strangers_code(found.strangers_code, run_.role.name);
    }
    if (drifted_ == Drifted::refuse && found.drifted() > 0) {
      std::string detail = format(
          "Of %lld rows, %lld are not as the run left them (changed: %lld, written by a later "
          "run: %lld).",
          static_cast<long long>(found.items), static_cast<long long>(found.drifted()),
          static_cast<long long>(found.changed), static_cast<long long>(found.later_run));
      if (found.taken > 0)
        detail += format(" In the place of %lld rows stand others.", static_cast<long long>(found.taken));
      for (const std::string& example : found.examples) detail += "\n" + example;
      throw Error(codes::drifted, format("run %lld cannot be rolled back: rows have changed since",
                                         static_cast<long long>(run_.id)))
          .detail(detail)
          .hint(
              format("Nothing was changed. CALL portage.rollback(%lld, drifted => 'keep') spares these rows, "
                     "'force' overrides them.",
                     static_cast<long long>(run_.id)));
    }
    if (!cascade_ && !spare_dependants_ && !found.dependants.empty()) {
      std::string detail;
      for (const Dependants& d : found.dependants)
        (detail += detail.empty() ? "" : "\n") +=
            format("Rows of %s (%s) that refer to %s: %lld.", d.table.c_str(), d.constraint.c_str(),
                   d.level == 1 ? "rows of the run" : "such rows", static_cast<long long>(d.rows));
      throw Error(codes::has_dependants,
                  format("run %lld cannot be rolled back: other rows refer to its rows",
                         static_cast<long long>(run_.id)))
          .detail(detail)
          .hint(format("Nothing was changed. Remove these rows first, or let them go along: "
                       "CALL portage.rollback(%lld, cascade => true).",
                       static_cast<long long>(run_.id)));
    }
  }
  if (resumed)
    ledger::add_event(run_.id, "resumed", "{\"step\": \"rolling_back\"}");
  else
    run::move(run_.id, run_.status, "rolling_back", "rollback_started");
  std::string from = run_.status;
  run_.status = "rolling_back";
  if (!ledger::own_run(run_.id, run_.status, run_.status, run::lock_key(run_.pipeline_id, space_.scope)))
    run::refuse_transition(run_.id, ledger::find_run(run_.id)->status, run_.status);
  ledger::set_rollback_options(run_.id,
                               drifted_ == Drifted::refuse ? "refuse"
                               : drifted_ == Drifted::keep ? "keep"
                                                           : "force",
                               cascade_, from);
  ownership_ = std::make_unique<run::Ownership>(run_, space_.scope, run::Commits::yes);
  patience_ = std::make_unique<run::Patience>(*ownership_, run::parse_options(run_.options).retry_attempts);
  ledger::forget_source_positions(run_, !plan_->definition().scoped);
  ledger::set_step(run_.id, "rolling_back");
  bridge::commit();
}

}  // namespace portage::undo
