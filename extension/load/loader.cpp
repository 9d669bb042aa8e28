// See loader.hpp. The order of decisions for one item: a duplicate within the input; known by its legacy id;
// unchanged; its row by mapping, else by match; conflict policy; foreign keys; then the write itself.
// Duplicates are in duplicates.cpp, rows that items meet in conflicts.cpp, the writing in phase_b.cpp, what
// is kept for undoing in before_images.cpp.
#include "load/loader.hpp"

#include "bridge/clock.hpp"
#include "bridge/json.hpp"
#include "bridge/subxact.hpp"
#include "ledger/runs.hpp"
#include "pipeline/hash.hpp"

extern "C" {
#include "utils/datum.h"
}

namespace portage::load {

using bridge::Error;
using bridge::guarded;
using ledger::Mapping;

namespace {

std::vector<std::string> met_keys(const std::vector<Row>& rows) {
  std::vector<std::string> keys;
  for (const Row& row : rows)
    if (row.found) keys.emplace_back(row.key);
  return keys;
}

}  // namespace

Loader::Loader(Plan& plan, Writer& writer, Policy policy)
    : plan_(plan),
      writer_(writer),
      policy_(std::move(policy)),
      hashes_(plan, policy_.run_id, policy_.hash_columns) {
  if (!plan_.references().empty()) waiting_ = std::make_unique<Waiting>(plan_);
  if (policy_.purpose != Purpose::import)
    predictions_ = std::make_unique<Predictions>(plan_, policy_.run_id, policy_.session);
}

/// The next number of a sequence must be none that an item has brought.
void Loader::follow_sequences(const Item* items, size_t n) {
  if (!sequences_) sequences_ = std::make_unique<Sequences>(plan_);
  std::vector<SequenceStep> steps = sequences_->follow(items, n, plan_.target());
  sequence_events_ = static_cast<int64_t>(steps.size());
  for (const SequenceStep& step : steps) {
    const std::string& reason = step.sequence->reason;
    std::string details = bridge::format("{\"sequence\": %s, \"column\": %s, \"value\": %lld",
                                         bridge::json_quoted(step.sequence->name).c_str(),
                                         bridge::json_quoted(step.sequence->column).c_str(),
                                         static_cast<long long>(step.value));
    if (!step.done)
      details += ", \"reason\": " +
                 bridge::json_quoted(reason.empty() ? "other sessions are drawing from it" : reason);
    ledger::add_event(policy_.run_id, step.done ? "sequence_advanced" : "sequence_behind", details + "}");
  }
}

size_t Loader::load(Batch& batch, size_t from) {
  if (policy_.purpose == Purpose::import) {
    size_t settled = load_rows(batch, from);
    follow_sequences(batch.items.data() + from, settled - from);
    return settled;
  }
  size_t settled = 0;
  {
    bridge::Subtransaction undone;
    settled = load_rows(batch, from);
  }
  // There is nothing to undo, no mapping, and no row whose key the target itself would have made.
  undo_.clear();
  conflicts_.clear();
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
  hold_back(batch, from);
  std::vector<Untouched> before;
  before.reserve(batch.items.size() - from);
  for (size_t i = from; i < batch.items.size(); i++) {
    Issue* last = batch.items[i].issues;
    while (last && last->next) last = last->next;
    before.push_back({batch.items[i], last});
  }
  size_t end = batch.items.size();
  for (;;) {
    std::vector<Item*> open;
    open.reserve(end - from);
    for (size_t i = from; i < end; i++)
      if (batch.items[i].outcome == Outcome::pending) open.push_back(&batch.items[i]);
    followers_.clear();
    duplicate_of_.clear();
    double start = bridge::now_ms();
    look_up_mappings(batch, open);
    if (const Item* repeated = find_duplicates(batch, open)) {
      end = static_cast<size_t>(repeated - batch.items.data());
      std::erase_if(open, [=](const Item* item) { return item >= repeated; });
    }
    timings_.look_up += bridge::now_ms() - start;
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
  conflicts_.clear();
  suggestions_.clear();
  halving_.begin();
  double start = bridge::now_ms();
  open.erase(std::remove_if(open.begin(), open.end(), [](Item* i) { return i->outcome != Outcome::pending; }),
             open.end());
  classify(batch, open);
  check_parents(batch);
  predict_unique(batch);
  for (Work& work : work_)
    for (Issue* issue = work.item->issues; issue; issue = issue->next) work.remarks = issue;
  double looked_up = bridge::now_ms();
  timings_.look_up += looked_up - start;

  bool writes = policy_.purpose != Purpose::validate;
  if (!writes)
    for (Work& work : work_) work.item->outcome = work.is_update ? Outcome::updated : Outcome::inserted;
  bool all = !writes || work_.empty() || settle(batch);
  timings_.target += bridge::now_ms() - looked_up;
  const Item* end = !all ? work_[halving_.stopped_at()].item : cut_;
  size_t settled = end ? static_cast<size_t>(end - batch.items.data()) : end_position;
  if (end) {
    restore(batch, from, settled, end_position, before);
    work_.erase(
        std::remove_if(work_.begin(), work_.end(), [=](const Work& work) { return work.item >= end; }),
        work_.end());
    std::erase_if(undo_, [=](const ledger::Undo& u) { return u.item >= end; });
    std::erase_if(conflicts_, [=](const ledger::Conflict& c) { return c.item >= end; });
  }
  if (writes) keep_undo(batch);
  return settled;
}

void Loader::classify(Batch& batch, const std::vector<Item*>& items) {
  cut_ = nullptr;
  std::vector<size_t> by_key_positions, by_match_positions;
  std::vector<std::string_view> keys;
  for (size_t i = 0; i < items.size(); i++) {
    Item& item = *items[i];
    const Mapping& mapping = mapping_of(item);
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
  if (by_key_positions.empty() && by_match_positions.empty()) return;
  std::vector<Row> rows(items.size());
  read_images(batch, items);
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
  std::vector<Row> by_match(to_match.size());
  if (!policy_.blind) by_match = writer_.find_by_match(batch, to_match);
  std::vector<bool> matched(items.size(), false);  // has no row of its own, and may meet another item's
  for (size_t j = 0; j < by_match.size(); j++) {
    if (by_match[j].found) rows[by_match_positions[j]] = by_match[j];
    matched[by_match_positions[j]] = true;
  }
  if (policy_.late) look_for_newer(rows);
  std::vector<const Row*> met;  // did this run write them?
  for (size_t i = 0; i < items.size(); i++)
    if (rows[i].found && (policy_.park || matched[i])) met.push_back(&rows[i]);
  std::unordered_map<std::string, int64_t> ours = written_by_run(met);
  auto is_taken = [&](std::string_view key, int64_t ordinal) {
    if (met.empty()) return;  // nobody asks
    auto [known, fresh] = ours.emplace(key, ordinal);
    if (!fresh) known->second = std::min(known->second, ordinal);
  };
  if (seen_) {
    // Rows that an item before found unchanged, or adopted, were not written by the run, and are taken all
    // the same.
    for (const auto& [key, ordinal] : seen_->find_keys(met_keys(by_match))) is_taken(key, ordinal);
  }
  std::vector<int64_t> predicted(items.size(), 0);
  if (predictions_) {
    ours = predictions_->find_keys(met_keys(by_match));
    predicted = predictions_->find_match(items);
  }
  work_.reserve(items.size());
  std::unordered_map<std::string_view, int64_t> taken;  // rows that items of this batch are to change
  for (size_t i = 0; i < items.size(); i++) {
    Item& item = *items[i];
    if (item.outcome == Outcome::unchanged) is_taken(item.target_key, item.ordinal);
    if (item.outcome != Outcome::pending) continue;
    if (!rows[i].candidates.empty()) {
      refuse_several(batch, item, rows[i]);
      continue;
    }
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
    int64_t first = predicted[i] && !rows[i].found ? predicted[i] : 0;
    if (rows[i].found && (policy_.park || matched[i]))
      if (auto it = ours.find(std::string(rows[i].key)); it != ours.end()) first = it->second;
    if (first && policy_.duplicates == Duplicates::last && first < item.ordinal) {
      if (rows[i].found)
        meet(batch, item, mapping_of(item), rows[i], true);
      else
        item.outcome = Outcome::updated;  // predicted: there is no row that could be updated
    } else if (first) {
      add_duplicate(batch, item, false, first);
      continue;
    } else {
      meet(batch, item, mapping_of(item), rows[i], false);
    }
    if (item.outcome == Outcome::pending && rows[i].found) taken.emplace(rows[i].key, item.ordinal);
    if (item.outcome == Outcome::unchanged) is_taken(item.target_key, item.ordinal);
  }
  decide(batch);
  if (policy_.purpose != Purpose::validate) lock_and_look_again(batch);
  auto in_order = [](const Work& a, const Work& b) { return a.item->ordinal < b.item->ordinal; };
  if (!std::is_sorted(work_.begin(), work_.end(), in_order)) std::sort(work_.begin(), work_.end(), in_order);
  if (policy_.purpose == Purpose::validate) return;  // which draws no numbers either
  std::vector<Item*> fresh_items;
  for (Work& work : work_)
    if (!work.is_update) fresh_items.push_back(work.item);
  plan_.draw_key_defaults(batch, fresh_items.data(), fresh_items.size());
  drop_decided();
}

/// Which of these rows later runs have written, under whatever legacy ids.
void Loader::look_for_newer(const std::vector<Row>& rows) {
  std::vector<std::string> keys;
  for (const Row& row : rows)
    if (row.found) keys.emplace_back(row.key);
  newer_rows_ = ledger::keys_written_after(policy_.space, policy_.run_id, keys);
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
    forget_merge(work);
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
      meet(batch, *work.item, work.mapping, row, work.replaces);
  }
  decide(batch);
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

}  // namespace portage::load
