// See initial_load.hpp; with the SQL-callable function restore_indexes (sql/30-runs.sql).
#include "run/initial_load.hpp"

#include "bridge/codes.hpp"
#include "bridge/entry.hpp"
#include "bridge/subxact.hpp"
#include "ledger/replay.hpp"
#include "ledger/settle.hpp"
#include "load/batch_relation.hpp"
#include "load/key_lookup.hpp"
#include "load/target_indexes.hpp"
#include "load/writer_choice.hpp"
#include "run/access.hpp"
#include "run/arguments.hpp"
#include "run/job.hpp"
#include "run/parallel.hpp"
#include "run/settle.hpp"
#include "run/states.hpp"

namespace portage::run {

using bridge::Error;
using bridge::format;
using ledger::DeferredIndex;

namespace {

constexpr int64_t greatest_page = 5000, least_page = 1;
constexpr int64_t most_groups = 100000, most_rows = 1000000;  // of equal rows, looked at in one go

/// A unique index whose look-up and whose collisions can be told from the values that items bring.
std::string index_reason(const Plan& plan, const UniqueIndex& index) {
  const Target& target = plan.target();
  std::string name = "unique index " + bridge::quoted(index.name);
  if (index.partial || index.expressions) return name + " covers expressions or some of the rows only";
  size_t brought = 0;
  for (size_t i = 0; i < index.attnums.size(); i++) {
    const TargetColumn& column = target.column(index.attnums[i]);
    brought += std::binary_search(plan.mapped().begin(), plan.mapped().end(), column.attnum);
    if (index.equality[i] != load::equality_of(column.type)) return name + " compares in a way of its own";
    if (index.nulls_not_distinct && !column.not_null) return name + " takes nulls for equal";
  }
  if (brought > 0 && brought < index.attnums.size())
    return name + " has columns that items bring, and others";
  return "";
}

/// Why the unique indexes of the target stay: items must be seen, or judged again afterwards.
std::string unique_reason(const ledger::Run& run, const Options& options, const Plan& plan,
                          const load::Policy& policy) {
  std::string reason = order_reason(plan, options, policy, ledger::parts_of(run.id));
  if (!reason.empty()) return reason;
  for (const Reference& reference : plan.references())
    if (reference.pipeline_id == run.pipeline_id) return "items of the pipeline refer to each other";
  if (!plan.match().empty() && !load::are_unique(plan.target(), plan.match()))
    return "no unique index covers the columns of \"match\"";
  for (const UniqueIndex& index : plan.target().unique_indexes) {
    if (!index.valid || index.oid == plan.target().key_index) continue;
    reason = index_reason(plan, index);
    if (!reason.empty()) return reason;
  }
  return "";
}

Error not_unique(const DeferredIndex& index, int64_t run_id, const std::string& detail) {
  return Error(ERRCODE_UNIQUE_VIOLATION,
               "index " + bridge::quoted_name(index.schema, index.name) + " cannot be put back")
      .detail(detail)
      .hint(format("Mend these rows, then CALL portage.restore_indexes(%lld); its definition is in "
                   "portage.deferred_indexes.",
                   static_cast<long long>(run_id)));
}

/// Why the index of the key stays. It may go where no item can meet a row, and no two rows can get the same
/// key.
std::string key_reason(const Plan& plan, bool nothing_meets) {
  bool brought = std::any_of(plan.key().begin(), plan.key().end(), [&](int attnum) {
    return std::binary_search(plan.mapped().begin(), plan.mapped().end(), attnum);
  });
  if (brought || !nothing_meets) return "rows are found by it";
  return load::draws_apart(plan.target(), plan.key()) ? "" : "rows may be given equal keys";
}

}  // namespace

std::vector<Blocker> initial_load_blockers(const Plan& plan, const ledger::MappingSpace& space) {
  std::vector<Blocker> blockers;
  const Target& target = plan.target();
  std::string table = target.quoted_name();
  load::WriterChoice writer = load::choose_writer(target);
  if (writer.name != "fast") {
    blockers.push_back({ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "initial_load needs an ordinary table",
                        "Of " + table + " it is said: " + writer.reason + ".",
                        "Leave initial_load out: the import takes any target."});
    return blockers;
  }
  bridge::Settings plain_path;
  plain_path.set("search_path", "pg_catalog, pg_temp");
  bridge::Result facts = bridge::execute(
      "SELECT pg_has_role(c.relowner, 'USAGE'), has_schema_privilege(c.relnamespace, 'CREATE'), "
      "c.relpersistence = 't', pg_get_userbyid(c.relowner)::text, current_user::text FROM pg_class c WHERE "
      "c.oid = $1",
      {bridge::param_oid(target.oid)});
  if (facts.empty()) throw Error(ERRCODE_UNDEFINED_TABLE, "table " + table + " does not exist");
  std::string role = bridge::quoted(facts.text(0, 5));
  if (!facts.boolean(0, 1))
    blockers.push_back({ERRCODE_INSUFFICIENT_PRIVILEGE, "must be owner of table " + table,
                        "An initial load drops indexes of its target and creates them again.",
                        "Let its owner import, or GRANT " + bridge::quoted(facts.text(0, 4)) + " TO " + role +
                            "; or leave initial_load out."});
  else if (!facts.boolean(0, 2))
    blockers.push_back({ERRCODE_INSUFFICIENT_PRIVILEGE,
                        "permission denied for schema " + bridge::quoted(target.schema),
                        "An initial load creates the indexes of its target again.",
                        "GRANT CREATE ON SCHEMA " + bridge::quoted(target.schema) + " TO " + role + ";"});
  if (facts.boolean(0, 3))
    blockers.push_back({ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "initial_load needs an ordinary table",
                        "Table " + table + " is a temporary one.", "Leave initial_load out."});
  if (!blockers.empty()) return blockers;
  if (!bridge::execute("SELECT FROM ONLY " + table + " LIMIT 1").empty())
    blockers.push_back({ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "initial_load needs an empty target",
                        "Table " + table + " has rows.",
                        "Leave initial_load out: what is there is found by its indexes then."});
  if (int64_t known = ledger::count_mappings(space); known > 0)
    blockers.push_back({ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                        "initial_load is for the first import of a pipeline",
                        format("Legacy ids that are mapped already: %lld.", static_cast<long long>(known)),
                        "Leave initial_load out, or roll the earlier runs back."});
  return blockers;
}

std::vector<DeferredIndex> judge_indexes(const ledger::Run& run, const Options& options, const Plan& plan,
                                         const load::Policy& policy) {
  std::string reason = unique_reason(run, options, plan, policy);
  std::vector<DeferredIndex> indexes = load::indexes_of(plan.target());
  DeferredIndex* key = nullptr;
  std::string name;
  for (const UniqueIndex& index : plan.target().unique_indexes)
    if (index.oid == plan.target().key_index) name = index.name;
  bool all = true;  // unique ones go
  for (DeferredIndex& index : indexes) {
    index.is_key = index.name == name;
    if (index.is_key) {
      key = &index;
      continue;
    }
    if (index.is_unique && index.stays.empty()) index.stays = reason;
    all = all && !(index.is_unique && !index.stays.empty());
  }
  if (key && key->stays.empty()) key->stays = key_reason(plan, all && reason.empty());
  return indexes;
}

Stage::Page DeferIndexes::page() {
  if (!lock_) lock_.emplace(plan_.target().oid);
  lock_->hold();
  if (ledger::has_deferred_indexes(run_.id)) {
    require_same_key();
    return {true, {}, nullptr, 0};
  }
  hold_target(plan_, run_.id, ShareRowExclusiveLock);
  bridge::AsUser as(role_);
  refuse(initial_load_blockers(plan_, policy_.space));
  std::vector<DeferredIndex> indexes = judge_indexes(run_, options_, plan_, policy_);
  for (const DeferredIndex& index : indexes)
    if (index.stays.empty()) load::drop_index(plan_.target(), index);
  ledger::insert_deferred_indexes(run_.id, indexes);
  return {true, {}, nullptr, 0};
}

/// Mappings hold the key that was taken away: another one, made meanwhile, is not what rows are found by.
void DeferIndexes::require_same_key() const {
  for (const DeferredIndex& index : ledger::missing_indexes(run_.id)) {
    std::vector<std::string> now;
    for (int attnum : plan_.key()) now.push_back(plan_.target().column(attnum).name);
    if (!index.is_key || index.columns == now) continue;
    throw Error(codes::target_changed,
                "target " + plan_.target().quoted_name() + " has got another key since the run began")
        .detail("The run found rows by " + bridge::quoted_name(index.schema, index.name) + ": " +
                index.definition + ".")
        .hint(format("Drop the new key; CALL portage.run(%lld); goes on then, and builds the other one.",
                     static_cast<long long>(run_.id)));
  }
}

Stage::Page RestoreIndexes::page() {
  batch_.reset();
  taking_ = 0;
  bridge::InMemory in(batch_.memory.get());
  if (!colliding_.empty()) return take_back();
  std::vector<DeferredIndex> missing = ledger::missing_indexes(run_.id);
  if (missing.empty()) return {true, {}, nullptr, 0};
  const DeferredIndex& index = missing.front();
  std::optional<Error> error;
  {
    bridge::AsUser as(role_);
    error = bridge::attempt([&] { load::create_index(plan_.target(), index); });
  }
  if (!error) {
    ledger::set_restored(run_.id, index.position);
    return {missing.size() == 1, {}, nullptr, 0};
  }
  if (error->code() != ERRCODE_UNIQUE_VIOLATION || !index.is_unique) throw *error;
  if (index.is_key)
    throw not_unique(index, run_.id, error->report().detail);  // which is whose, nobody can tell
  colliding_ = collisions(index);
  return take_back();
}

void RestoreIndexes::committed() {
  colliding_.erase(colliding_.begin(), colliding_.begin() + static_cast<std::ptrdiff_t>(taking_));
  taking_ = 0;
  size_ = std::min(size_ * 2, greatest_page);
}

bool RestoreIndexes::shrink() {
  if (size_ == least_page) return false;
  size_ = std::max(size_ / 4, least_page);
  return true;
}

Stage::Page RestoreIndexes::take_back() {
  if (!rollback_) rollback_.emplace(*ledger::find_run(run_.id), role_, undo::Drifted::keep, false);
  taking_ = std::min(colliding_.size(), static_cast<size_t>(size_));
  return take_back_to_judge(run_.id, policy_.space, *rollback_, batch_,
                            {colliding_.begin(), colliding_.begin() + static_cast<std::ptrdiff_t>(taking_)},
                            spared_);
}

/// Rows that are equal by a unique index which is to be built: a number for each group, and the row's key.
std::vector<std::pair<int64_t, std::string>> RestoreIndexes::equal_rows(const DeferredIndex& index) {
  const Target& target = plan_.target();
  std::string columns, names, filled, same, keys;
  for (size_t i = 0; i < index.columns.size(); i++) {
    const TargetColumn* column = target.column(index.columns[i]);
    if (!column) return {};
    std::string name = bridge::quoted(column->name), own = "c" + std::to_string(i + 1);
    (columns += columns.empty() ? "" : ", ") += name;
    (names += ", ") += own;
    (filled += filled.empty() ? "" : " AND ") += name + " IS NOT NULL";
    (same += same.empty() ? "" : " AND ") +=
        "t." + name + " " + load::operator_text(load::equality_of(column->type)) + " d." + own;
  }
  for (int attnum : plan_.key()) (keys += ", t.") += bridge::quoted(target.column(attnum).name);
  std::string table = "ONLY " + target.quoted_name();
  // Nobody may have looked at the table yet: what is planned for few rows would compare each with all.
  bridge::Settings for_many;
  for_many.set("enable_nestloop", "off").set("jit", "off");
  bridge::Result rows = bridge::execute(
      "WITH d (g" + names + ") AS MATERIALIZED (SELECT pg_catalog.row_number() OVER (), x.* FROM (SELECT " +
      columns + " FROM " + table + " WHERE " + filled + " GROUP BY " + columns +
      " HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 1 LIMIT " + std::to_string(most_groups) +
      ") x) SELECT d.g" + keys + " FROM d JOIN " + table + " t ON " + same + " LIMIT " +
      std::to_string(most_rows));
  std::vector<std::pair<int64_t, std::string>> found;
  std::vector<Datum> values(static_cast<size_t>(target.natts), 0);
  auto nulls = std::make_unique<bool[]>(static_cast<size_t>(target.natts));
  bridge::PlainText plain;
  for (size_t i = 0; i < rows.size(); i++) {
    if ((i & 1023) == 0) bridge::check_interrupts();
    for (size_t k = 0; k < plan_.key().size(); k++)
      values[static_cast<size_t>(plan_.key()[k]) - 1] = rows.datum(i, static_cast<int>(k) + 2);
    found.emplace_back(rows.bigint(i, 1), plan_.key_text(values.data(), nulls.get()));
  }
  return found;
}

/// The items of the run that are to be judged again so that the index can be built, the highest first: of
/// equal ones all but the lowest; and all that are equal to a row which is not the run's.
std::vector<int64_t> RestoreIndexes::collisions(const DeferredIndex& index) {
  std::vector<std::pair<int64_t, std::string>> rows;
  {
    bridge::AsUser as(role_);
    rows = equal_rows(index);
  }
  std::vector<std::string> keys;
  for (const auto& row : rows) keys.push_back(row.second);
  std::unordered_map<std::string, int64_t> ordinals = ledger::standing_ordinals(run_.id, keys);
  struct Group {
    std::vector<int64_t> ours;
    std::vector<std::string> others;
  };
  std::map<int64_t, Group> groups;
  for (const auto& [number, key] : rows) {
    auto known = ordinals.find(key);
    if (known == ordinals.end() || spared_.count(known->second))
      groups[number].others.push_back(key);
    else
      groups[number].ours.push_back(known->second);
  }
  std::vector<int64_t> found;
  std::string strangers;
  for (auto& [number, group] : groups) {
    std::sort(group.ours.begin(), group.ours.end());
    found.insert(found.end(), group.ours.begin() + (group.others.empty() ? 1 : 0), group.ours.end());
    if (group.others.size() > 1 && strangers.empty())
      strangers = "Rows with the keys " + group.others[0] + " and " + group.others[1] + " are equal by it.";
  }
  std::sort(found.rbegin(), found.rend());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  if (!found.empty()) return found;
  throw not_unique(
      index, run_.id,
      (strangers.empty() ? "Its rows are not unique." : strangers) +
          format(" Run %lld did not write them, or others have changed them, or refer to them, since.",
                 static_cast<long long>(run_.id)));
}

namespace {

/// What is missing; or only the key, which comes first.
void restore(const ledger::Run& found, bool only_key) {
  Job job(found, Commits::yes);
  SessionLock alone(found.pipeline_id, job.policy.space.scope);
  if (!alone.held()) refuse_second(found.pipeline_id, job.policy.space.scope);
  job.run = *ledger::find_run(found.id);
  if (job.run.owner_alive && !job.run.owner_is_me) refuse_second(found.pipeline_id, job.policy.space.scope);
  TargetLock lock(job.plan->target().oid);
  RestoreIndexes stage(job.run, *job.plan, job.role, job.policy);
  for (bool finished = false; !finished;) {
    bool moved = false;
    std::optional<Error> error = bridge::transact([&] {
      LockLimit locks(true);
      lock.hold();
      Stage::Page page = stage.page();
      finished = page.finished || only_key;
      moved = page.counts.parked > 0;
      if (moved) ledger::update_counters(job.run.id, true);
    });
    if (error) throw *error;
    stage.committed();
  }
}

}  // namespace

void restore_indexes(const ledger::Run& run) { restore(run, false); }

void restore_key_before_rollback(const ledger::Run& run) {
  std::vector<DeferredIndex> missing = ledger::missing_indexes(run.id);
  bool concerned = may_become(run.status, "rolling_back") || run.status == "rolling_back";
  if (concerned && !missing.empty() && missing.front().is_key) restore(run, true);
}

void restore_indexes_after_rollback(int64_t run_id) {
  if (ledger::missing_indexes(run_id).empty()) return;
  ledger::Run run = *ledger::find_run(run_id);
  if (run.status != "paused") restore_indexes(run);
}

}  // namespace portage::run

using namespace portage;

PORTAGE_FUNCTION(portage_restore_indexes) {
  run::Arguments a(fcinfo);
  bridge::require_nonatomic(fcinfo, "restore_indexes");
  bridge::Spi spi(true);
  run::restore_indexes(run::run_to_change(a.run(0)));
  spi.finish();
  return 0;
}
