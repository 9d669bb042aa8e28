// See loader.hpp. The order of decisions for one item: a duplicate within the input; known by its legacy id;
// unchanged; its row by mapping, else by match; conflict policy; foreign keys; then the write itself.
// Duplicates are in duplicates.cpp, what is kept for undoing in before_images.cpp.
#include "load/loader.hpp"

#include "bridge/codes.hpp"
#include "bridge/subxact.hpp"
#include "pipeline/hash.hpp"

extern "C" {
#include "utils/datum.h"
}

namespace portage::load {

using bridge::Error;
using bridge::guarded;
using ledger::Mapping;

namespace {

/// Subtransactions that write take an xid, and a backend keeps 64 of them cheaply: one transaction takes
/// half.
constexpr int max_subtransactions = 32;

/// The rule that a failed write broke: that of the constraint, else of the trigger that raised; "" where the
/// SQLSTATE says all that is known.
std::string_view rule_of(int code) {
  switch (code) {
    case ERRCODE_NOT_NULL_VIOLATION:
      return "not_null";
    case ERRCODE_CHECK_VIOLATION:
      return "check";
    case ERRCODE_UNIQUE_VIOLATION:
      return "unique";
    case ERRCODE_FOREIGN_KEY_VIOLATION:
      return "foreign_key";
    case ERRCODE_EXCLUSION_VIOLATION:
      return "exclusion";
    default:
      return ERRCODE_TO_CATEGORY(code) == ERRCODE_TO_CATEGORY(ERRCODE_RAISE_EXCEPTION) ? "trigger" : "";
  }
}

long long shown(int64_t ordinal) { return static_cast<long long>(ordinal); }

/// A row that a policy of the target forbids is that row's fault, though the SQLSTATE is that of a missing
/// right. Told apart by the function that raised it: the message is translated.
bool breaks_row_policy(const Error& error) {
  const char* raised_by = error.report().funcname;
  return error.code() == ERRCODE_INSUFFICIENT_PRIVILEGE && raised_by &&
         strcmp(raised_by, "ExecWithCheckOptions") == 0;
}

std::vector<std::string> met_keys(const std::vector<Row>& rows) {
  std::vector<std::string> keys;
  for (const Row& row : rows)
    if (row.found) keys.emplace_back(row.key);
  return keys;
}

double now_ms() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

Loader::Loader(Plan& plan, Writer& writer, Policy policy)
    : plan_(plan), writer_(writer), policy_(std::move(policy)) {
  if (policy_.purpose != Purpose::import)
    predictions_ = std::make_unique<Predictions>(plan_, policy_.run_id, policy_.session);
}

size_t Loader::load(Batch& batch, size_t from) {
  if (policy_.purpose == Purpose::import) return load_rows(batch, from);
  size_t settled = 0;
  {
    bridge::Subtransaction undone;
    settled = load_rows(batch, from);
  }
  // There is nothing to undo, no mapping, and no row whose key the target itself would have made.
  undo_.clear();
  bool own_key = std::all_of(plan_.key().begin(), plan_.key().end(), [&](int attnum) {
    return std::binary_search(plan_.mapped().begin(), plan_.mapped().end(), attnum);
  });
  for (size_t i = from; i < settled; i++) {
    Item& item = batch.items[i];
    item.origin = 0;
    if (item.outcome == Outcome::inserted && !own_key) item.target_key = {};
  }
  return settled;
}

size_t Loader::load_rows(Batch& batch, size_t from) {
  std::vector<Untouched> before;
  for (size_t i = from; i < batch.items.size(); i++) {
    Issue* last = batch.items[i].issues;
    while (last && last->next) last = last->next;
    before.push_back({batch.items[i], last});
  }
  size_t end = batch.items.size();
  for (;;) {
    std::vector<Item*> open;
    for (size_t i = from; i < end; i++)
      if (batch.items[i].outcome == Outcome::pending) open.push_back(&batch.items[i]);
    followers_.clear();
    duplicate_of_.clear();
    double start = now_ms();
    look_up_mappings(batch, open);
    find_duplicates(batch, open);
    timings_.look_up += now_ms() - start;
    // What repeats an item of this very batch is a duplicate only if that one lands, as it would be if a
    // batch ended between the two. Where it does not, the batch ends there: the rest is the next
    // transaction's.
    std::optional<bridge::Subtransaction> whole;
    if (!followers_.empty()) whole.emplace();
    size_t settled = load_until(batch, from, end, open, before);
    size_t orphan = judge_followers(batch, settled);
    if (orphan == settled) {
      if (whole) whole->release();
      return settled;
    }
    whole->rollback();
    restore(batch, from, from, end, before);
    end = orphan;
  }
}

/// Items [first, end) as they were before the call.
void Loader::restore(Batch& batch, size_t from, size_t first, size_t end,
                     const std::vector<Untouched>& before) {
  for (size_t i = first; i < end; i++) {
    const Untouched& untouched = before[i - from];
    if (untouched.item.outcome != Outcome::pending) continue;
    batch.items[i] = untouched.item;
    if (untouched.last_issue) untouched.last_issue->next = nullptr;
  }
}

size_t Loader::load_until(Batch& batch, size_t from, size_t end_position, std::vector<Item*>& open,
                          const std::vector<Untouched>& before) {
  work_.clear();
  undo_.clear();
  subtransactions_ = 0;
  double start = now_ms();
  open.erase(std::remove_if(open.begin(), open.end(), [](Item* i) { return i->outcome != Outcome::pending; }),
             open.end());
  classify(batch, open);
  check_parents(batch);
  predict_unique(batch);
  for (Work& work : work_)
    for (Issue* issue = work.item->issues; issue; issue = issue->next) work.remarks = issue;
  double looked_up = now_ms();
  timings_.look_up += looked_up - start;

  bool writes = policy_.purpose != Purpose::validate;
  if (!writes)
    for (Work& work : work_) work.item->outcome = work.is_update ? Outcome::updated : Outcome::inserted;
  bool all = !writes || work_.empty() || settle(batch, 0, work_.size());
  timings_.target += now_ms() - looked_up;
  const Item* end = !all ? work_[stopped_at_].item : cut_;
  size_t settled = end ? static_cast<size_t>(end - batch.items.data()) : end_position;
  if (end) {
    restore(batch, from, settled, end_position, before);
    work_.erase(
        std::remove_if(work_.begin(), work_.end(), [=](const Work& work) { return work.item >= end; }),
        work_.end());
    undo_.erase(
        std::remove_if(undo_.begin(), undo_.end(), [=](const ledger::Undo& u) { return u.item >= end; }),
        undo_.end());
  }
  if (writes) keep_undo(batch);
  return settled;
}

void Loader::classify(Batch& batch, const std::vector<Item*>& items) {
  std::vector<Mapping> mappings(items.size());
  for (size_t i = 0; i < items.size(); i++)
    if (auto known = mappings_.find(items[i]); known != mappings_.end()) mappings[i] = known->second;
  std::vector<Row> rows(items.size());
  std::vector<size_t> by_key_positions, by_match_positions;
  std::vector<std::string_view> keys;
  for (size_t i = 0; i < items.size(); i++) {
    Item& item = *items[i];
    const Mapping& mapping = mappings[i];
    if (!mapping.found) {
      by_match_positions.push_back(i);
    } else if (policy_.incremental && mapping.source_hash == static_cast<int64_t>(item.source_hash)) {
      item.outcome = Outcome::unchanged;
      item.target_key = mapping.target_key;
    } else {
      by_key_positions.push_back(i);
      keys.push_back(mapping.target_key);
    }
  }
  std::vector<Row> by_key = writer_.find_by_key(batch, keys, false);
  for (size_t j = 0; j < by_key.size(); j++) {
    if (by_key[j].found)
      rows[by_key_positions[j]] = by_key[j];
    else
      by_match_positions.push_back(by_key_positions[j]);  // deleted since: as if it had never been
  }
  std::sort(by_match_positions.begin(), by_match_positions.end());
  std::vector<Item*> to_match;
  for (size_t i : by_match_positions) to_match.push_back(items[i]);
  std::vector<Row> by_match = writer_.find_by_match(batch, to_match);
  std::vector<bool> matched(items.size(), false);  // has no row of its own, and may meet another item's
  for (size_t j = 0; j < by_match.size(); j++) {
    rows[by_match_positions[j]] = by_match[j];
    matched[by_match_positions[j]] = true;
  }
  std::vector<const Row*> met;  // did this run write them?
  for (size_t i = 0; i < items.size(); i++)
    if (rows[i].found && (policy_.park || matched[i])) met.push_back(&rows[i]);
  std::unordered_map<std::string, int64_t> ours = written_by_run(met);
  if (seen_) {
    // Rows that an item before found unchanged, or adopted, were not written by the run, and are taken all
    // the same.
    for (const auto& [key, ordinal] : seen_->find_keys(met_keys(by_match))) ours.emplace(key, ordinal);
  }
  std::vector<int64_t> predicted(items.size(), 0);
  if (predictions_) {
    ours = predictions_->find_keys(met_keys(by_match));
    predicted = predictions_->find_match(items);
  }
  std::unordered_map<std::string_view, int64_t> taken;  // rows that items of this batch are to change
  cut_ = nullptr;
  for (size_t i = 0; i < items.size(); i++) {
    Item& item = *items[i];
    if (item.outcome == Outcome::unchanged) ours.emplace(std::string(item.target_key), item.ordinal);
    if (item.outcome != Outcome::pending) continue;
    auto before = rows[i].found ? taken.find(rows[i].key) : taken.end();
    if (before != taken.end() && policy_.park) {
      add_duplicate(batch, item, false, before->second);
      continue;
    }
    if (before != taken.end()) {
      // What it finds must not hang on where a batch ends: this one ends here.
      cut_ = &item;
      break;
    }
    if (rows[i].found && (policy_.park || matched[i])) {
      auto it = ours.find(std::string(rows[i].key));
      if (it != ours.end()) {
        add_duplicate(batch, item, false, it->second);
        continue;
      }
    }
    if (predicted[i] && !rows[i].found)
      add_duplicate(batch, item, false, predicted[i]);
    else
      meet(batch, item, mappings[i], rows[i]);
    if (item.outcome == Outcome::pending && rows[i].found) taken.emplace(rows[i].key, item.ordinal);
    if (item.outcome == Outcome::unchanged) ours.emplace(std::string(item.target_key), item.ordinal);
  }
  if (policy_.purpose != Purpose::validate) lock_and_look_again(batch);
  std::sort(work_.begin(), work_.end(),
            [](const Work& a, const Work& b) { return a.item->ordinal < b.item->ordinal; });
  if (policy_.purpose == Purpose::validate) return;  // which draws no numbers either
  std::vector<Item*> fresh_items;
  for (Work& work : work_)
    if (!work.is_update) fresh_items.push_back(work.item);
  plan_.draw_key_defaults(batch, fresh_items.data(), fresh_items.size());
  drop_decided();
}

/// Which of these rows the run has written, and by which item, as far as their mappings say it.
std::unordered_map<std::string, int64_t> Loader::written_by_run(const std::vector<const Row*>& rows) const {
  std::vector<std::string> keys;
  for (const Row* row : rows) {
    bool older = TransactionIdIsNormal(row->xmin) && policy_.first_xid &&
                 TransactionIdPrecedes(row->xmin, static_cast<TransactionId>(policy_.first_xid));
    if (row->found && !older) keys.emplace_back(row->key);
  }
  return ledger::keys_written_by(policy_.space, policy_.run_id, keys);
}

/// Takes out of work_ what has got an outcome since.
void Loader::drop_decided() {
  work_.erase(std::remove_if(work_.begin(), work_.end(),
                             [](const Work& w) { return w.item->outcome != Outcome::pending; }),
              work_.end());
}

/// Rows to be changed are locked and looked at once more: what happened to them meanwhile counts.
void Loader::lock_and_look_again(Batch& batch) {
  std::vector<std::string_view> locked_keys;
  std::vector<Work*> locked;
  for (Work& work : work_)
    if (work.is_update) {
      locked_keys.push_back(work.update.before.key);
      locked.push_back(&work);
    }
  std::vector<Row> fresh = writer_.find_by_key(batch, locked_keys, true);
  std::vector<Work> again;
  for (size_t j = 0; j < locked.size(); j++) {
    Work& work = *locked[j];
    if (fresh[j].found && fresh[j].row_hash == work.update.before.row_hash) {
      work.update.before = fresh[j];
      continue;
    }
    again.push_back(work);
    again.back().update.before = fresh[j];
    work.item->outcome = Outcome::unchanged;  // taken out of work_ below, then met anew
  }
  if (again.empty()) return;
  drop_decided();
  std::unordered_map<std::string, int64_t> ours;
  if (policy_.park) {
    std::vector<const Row*> changed;
    for (const Work& work : again) changed.push_back(&work.update.before);
    ours = written_by_run(changed);
  }
  for (Work& work : again) {
    work.item->outcome = Outcome::pending;
    const Row& row = work.update.before;
    auto writer = row.found ? ours.find(std::string(row.key)) : ours.end();
    if (writer != ours.end())
      add_duplicate(batch, *work.item, false, writer->second);
    else
      meet(batch, *work.item, work.mapping, row);
  }
}

/// Decides for an item that is no duplicate and not known to be unchanged; `row` may be "not found".
void Loader::meet(Batch& batch, Item& item, const Mapping& mapping, const Row& row) {
  if (!row.found) {
    work_.push_back({&item, mapping, false, {}});
    item.origin = 'i';
    return;
  }
  item.target_key = row.key;
  item.row_hash = row.row_hash;
  if (row.content_hash == item.source_hash) {
    item.outcome = Outcome::unchanged;
    // Identical content is no conflict: the row is adopted, or its mapping learns the new source hash.
    if (!mapping.found)
      item.origin = 'a';
    else if (mapping.source_hash != static_cast<int64_t>(item.source_hash)) {
      // where its own row is gone, the row met by match is another one
      item.origin = mapping.target_key == row.key ? mapping.origin : 'a';
      undo_.push_back({&item, row.key, 0, 0, std::nullopt, mapping});
    }
    return;
  }
  bool newer = policy_.replay && mapping.found && mapping.run_id > policy_.run_id;
  bool ours = mapping.found && !newer && mapping.row_hash == hash_as_in_run(mapping.run_id, row);
  if ((ours || policy_.on_conflict == OnConflict::overwrite) && !policy_.may_update) {
    item.outcome = Outcome::skipped;
    batch.add_issue(item, "privilege", "42501", "",
                    "the row has changed in the source, but the run's role may not update the target",
                    "portage.plan(run) lists the missing GRANT.");
    return;
  }
  if (ours || policy_.on_conflict == OnConflict::overwrite) {
    if (policy_.park && moves_row(item, row)) {
      park(batch, item, "changes what its row is found by");
      return;
    }
    work_.push_back({&item, mapping, true, {&item, row, {}}});
    item.origin = mapping.found && mapping.origin == 'i' && mapping.target_key == row.key ? 'i' : 'o';
    return;
  }
  std::string message =
      bridge::format(newer           ? "the row with key %s was migrated by a later run"
                     : mapping.found ? "the row with key %s was changed since it was migrated"
                                     : "a row with key %s exists with different content",
                     std::string(row.key).c_str());
  if (policy_.on_conflict == OnConflict::fail)
    throw Error(codes::conflict_failed, bridge::format("item %lld: ", shown(item.ordinal)) + message)
        .detail("The pipeline, or the run, says \"on_conflict\": \"fail\".")
        .hint(
            "Nothing of this batch was written. Choose \"skip\" or \"overwrite\", or settle the row by "
            "hand.");
  item.outcome = Outcome::skipped;
  batch.add_issue(item, "conflict", "PZ012", "", message);
}

/// The hash of a row over the columns that another run's hashes cover; 0 where these cannot be read any more.
int64_t Loader::hash_as_in_run(int64_t run_id, const Row& row) {
  auto known = hashers_.find(run_id);
  if (known == hashers_.end()) {
    RunHasher made;
    std::vector<std::string> names =
        run_id == policy_.run_id ? policy_.hash_columns : ledger::hash_columns_of(run_id);
    made.same = names == policy_.hash_columns;
    for (const std::string& name : names) {
      const TargetColumn* column = plan_.target().column(name);
      bool readable = column && std::find(policy_.hash_columns.begin(), policy_.hash_columns.end(), name) !=
                                    policy_.hash_columns.end();
      if (readable)
        made.attnums.push_back(column->attnum);
      else
        made.readable = false;
    }
    std::sort(made.attnums.begin(), made.attnums.end());
    known = hashers_.emplace(run_id, std::move(made)).first;
  }
  const RunHasher& run = known->second;
  if (run.same) return static_cast<int64_t>(row.row_hash);
  if (!run.readable) return 0;
  bridge::Memory memory("portage row hash");
  RowHasher hasher = RowHasher::make(plan_.target().shape, run.attnums, memory.get());
  const RowHasher* h = &hasher;
  const Datum* values = row.values;
  const bool* nulls = row.nulls;
  return static_cast<int64_t>(guarded([=] { return (*h)(values, nulls); }));
}

void Loader::check_parents(Batch& batch) {
  const Target& target = plan_.target();
  if (target.triggers.insert_before_row || target.triggers.update_before_row)
    return;  // may supply the parent
  for (const ForeignKey& key : target.foreign_keys) {
    bool mapped = key.match == 's' && key.parent != target.oid;
    for (int attnum : key.attnums)
      mapped = mapped && std::binary_search(plan_.mapped().begin(), plan_.mapped().end(), attnum);
    if (!mapped || work_.empty()) continue;
    std::vector<Item*> items;
    for (Work& work : work_) items.push_back(work.item);
    for (size_t position : writer_.without_parent(batch, key, items)) {
      Item& item = *items[position];
      std::string columns, values;
      for (int attnum : key.attnums) {
        (columns += columns.empty() ? "" : ", ") += target.column(attnum).name;
        (values += values.empty() ? "" : ", ") +=
            bridge::output_text(target.column(attnum).type, item.values[attnum - 1]);
      }
      if (policy_.park) {  // an item before it may make it a duplicate
        park(batch, item, "refers to a row that is not there");
        continue;
      }
      Oid parent = key.parent;
      char* parent_name = guarded([=] { return get_rel_name(parent); });
      item.outcome = Outcome::invalid;
      item.origin = 0;
      batch.add_issue(item, "foreign_key", "23503", target.column(key.attnums[0]).name,
                      "insert or update on table \"" + target.name + "\" violates foreign key constraint \"" +
                          key.name + "\"",
                      "Key (" + columns + ")=(" + values + ") is not present in table \"" +
                          (parent_name ? parent_name : "") + "\".",
                      key.name);
    }
    drop_decided();
  }
}

/// What stands in no target cannot stand in the way there: rows that earlier batches would have written, in
/// the unique indexes that `match` does not cover.
void Loader::predict_unique(Batch& batch) {
  const TargetTriggers& triggers = plan_.target().triggers;
  if (!predictions_ || work_.empty() || triggers.insert_before_row) return;
  std::vector<Item*> fresh;
  for (Work& work : work_)
    if (!work.is_update) fresh.push_back(work.item);
  std::vector<Predictions::Clash> clashes = predictions_->find_unique(fresh);
  for (size_t i = 0; i < fresh.size(); i++) {
    if (!clashes[i].index) continue;
    const UniqueIndex& index = *clashes[i].index;
    fresh[i]->outcome = Outcome::invalid;
    fresh[i]->origin = 0;
    batch.add_issue(*fresh[i], "unique", "23505", "",
                    "duplicate key value violates unique constraint \"" + index.name + "\"", {}, index.name);
  }
  drop_decided();
}

/// Phase B over work_[low, high). False if the transaction's subtransactions are used up; stopped_at_ says
/// where.
bool Loader::settle(Batch& batch, size_t low, size_t high) {
  if (subtransactions_ >= max_subtransactions) {
    stopped_at_ = low;
    return false;
  }
  subtransactions_++;
  bridge::check_interrupts();
  std::optional<Error> error = bridge::attempt([&] { write(batch, low, high); });
  if (!error) return true;
  if (bridge::concerns_whole_batch(error->code()) && !breaks_row_policy(*error)) throw *error;
  if (high - low > 1) {
    size_t middle = low + (high - low) / 2;
    return settle(batch, low, middle) && settle(batch, middle, high);
  }
  Work& work = work_[low];
  if (policy_.park) {  // items before it may have written what stands in its way, or take it out of the way
    if (!work.is_update) work.item->target_key = {};
    park(batch, *work.item, "was refused by the target: " + error->message());
    return true;
  }
  if (error->code() == ERRCODE_UNIQUE_VIOLATION && !work.looked_again) {
    // Somebody else wrote the row since we looked, or an item before this one in the batch is equal by the
    // index's own rules: look again, once.
    work.looked_again = true;
    resolve_single(batch, work, *error);
    if (work.item->outcome == Outcome::pending) return settle(batch, low, high);
    return true;
  }
  work.forget_attempt();
  batch.reject(*work.item,
               ERRCODE_TO_CATEGORY(error->code()) == ERRCODE_TO_CATEGORY(ERRCODE_UNIQUE_VIOLATION) ||
                       ERRCODE_TO_CATEGORY(error->code()) == ERRCODE_TO_CATEGORY(ERRCODE_DATA_EXCEPTION)
                   ? Outcome::invalid
                   : Outcome::failed,
               rule_of(error->code()), *error);
  work.item->origin = 0;
  work.item->target_key = {};
  return true;
}

/// A unique violation of one item: if its row can be found now, it is a duplicate or a conflict; else a
/// reject.
void Loader::resolve_single(Batch& batch, Work& work, const Error& error) {
  Item& item = *work.item;
  Row row;
  if (!work.is_update) row = writer_.find_by_match(batch, {&item})[0];
  if (!row.found) {
    work.forget_attempt();
    batch.reject(item, Outcome::invalid, "unique", error);
    item.origin = 0;
    item.target_key = {};
    return;
  }
  for (const Work& earlier : work_) {
    if (earlier.item->ordinal >= item.ordinal) break;
    if (earlier.item->origin && earlier.item->target_key == row.key) {
      item.origin = 0;
      add_duplicate(batch, item, false, earlier.item->ordinal);
      return;
    }
  }
  std::vector<Work> kept;
  kept.swap(work_);  // meet() appends to work_: give it an empty one
  Mapping mapping = work.mapping;
  item.origin = 0;
  meet(batch, item, mapping, row);
  bool to_write = !work_.empty();
  Work decided = to_write ? work_[0] : Work{};
  kept.swap(work_);
  if (to_write) {
    Row fresh = writer_.find_by_key(batch, {row.key}, true)[0];
    decided.looked_again = true;
    if (fresh.found) decided.update.before = fresh;
    work = decided;
  }
}

void Loader::write(Batch& batch, size_t low, size_t high) {
  std::vector<Item*> inserts;
  std::vector<Update*> updates;
  for (size_t i = low; i < high; i++) {
    Work& work = work_[i];
    work.forget_attempt();
    if (work.is_update)
      updates.push_back(&work.update);
    else
      inserts.push_back(work.item);
  }
  writer_.insert(batch, inserts);
  writer_.update(batch, updates);
  writer_.check_deferred();
  writer_.reread(batch, inserts, updates);
}

}  // namespace portage::load
