// Phase B of fault isolation: writes a batch in one subtransaction, and halves what fails until it is known
// which items are at fault. The part of the loader that writes; see loader.hpp.
#include "load/loader.hpp"

#include "bridge/discretion.hpp"
#include "bridge/subxact.hpp"

namespace portage::load {

using bridge::Error;
using ledger::Mapping;

namespace {

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

/// A row that a policy of the target forbids is that row's fault, though the SQLSTATE is that of a missing
/// right. Told apart by the function that raised it: the message is translated.
bool breaks_row_policy(const Error& error) {
  return error.code() == ERRCODE_INSUFFICIENT_PRIVILEGE && error.report().funcname == "ExecWithCheckOptions";
}

/// Nobody's fault, or one that may pass: others can do nothing about it now.
bool concerns_all(const Error& error) {
  int code = error.code();
  switch (ERRCODE_TO_CATEGORY(code)) {
    case MAKE_SQLSTATE('0', '8', '0', '0', '0'):  // connection
    case MAKE_SQLSTATE('4', '0', '0', '0', '0'):  // serialization, deadlock
    case MAKE_SQLSTATE('5', '3', '0', '0', '0'):  // out of resources
    case MAKE_SQLSTATE('5', '7', '0', '0', '0'):  // cancel, shutdown
    case MAKE_SQLSTATE('5', '8', '0', '0', '0'):  // system error
      return true;
    default:
      // The last is what PostgreSQL says of a trigger that puts something off where it must not: that depends
      // on who calls.
      return code == ERRCODE_LOCK_NOT_AVAILABLE || code == ERRCODE_DATA_CORRUPTED ||
             code == ERRCODE_INDEX_CORRUPTED ||
             (code == ERRCODE_INSUFFICIENT_PRIVILEGE && error.report().funcname == "afterTriggerMarkEvents");
  }
}

Error named(const Error& error, const Item& item) {
  Error about = error;
  std::string text = bridge::format("Raised for item %lld (line %lld).", static_cast<long long>(item.ordinal),
                                    static_cast<long long>(item.record.line));
  about.change(
      [&](bridge::ErrorReport& report) { report.detail += (report.detail.empty() ? "" : " ") + text; });
  return about;
}

}  // namespace

/// Phase B. False if the transaction's subtransactions are used up. An error that could be anybody's fault is
/// the item's if others can be written: it is raised once some have failed so and none has been written.
bool Loader::settle(Batch& batch) {
  constexpr int most = 3;
  int failures = 0;
  bool any_written = false;
  std::optional<Error> unclear;
  auto raise = [&] {
    if (unclear && !any_written) throw *unclear;
  };
  bool all = halving_.over(
      0, work_.size(),
      [&](size_t low, size_t high) {
        write(batch, low, high);
        any_written = true;
      },
      [&](size_t low, size_t high, const Error& error) {
        if (concerns_all(error)) throw error;
        bool is_unclear = bridge::concerns_whole_batch(error.code()) && !breaks_row_policy(error);
        if (high - low > 1) return false;
        if (is_unclear && !unclear) unclear = named(error, *work_[low].item);
        if (is_unclear && ++failures == most) raise();
        return judge_single(batch, work_[low], error);
      });
  raise();
  return all;
}

/// What becomes of an item that is refused by itself; true: it is to be tried again.
bool Loader::judge_single(Batch& batch, Work& work, const Error& error) {
  if (policy_.park) {  // items before it may have written what stands in its way, or take it out of the way
    if (!work.is_update) work.item->target_key = {};
    park(batch, *work.item, "was refused by the target: " + error.full().message);
    return false;
  }
  if (error.code() == ERRCODE_UNIQUE_VIOLATION && !work.looked_again) {
    // Somebody else wrote the row since we looked, or an item before this one in the batch is equal by the
    // index's own rules: look again, once.
    work.looked_again = true;
    resolve_single(batch, work, error);
    return work.item->outcome == Outcome::pending;
  }
  work.forget_attempt();
  batch.reject(*work.item,
               ERRCODE_TO_CATEGORY(error.code()) == ERRCODE_TO_CATEGORY(ERRCODE_UNIQUE_VIOLATION) ||
                       ERRCODE_TO_CATEGORY(error.code()) == ERRCODE_TO_CATEGORY(ERRCODE_DATA_EXCEPTION)
                   ? Outcome::invalid
                   : Outcome::failed,
               rule_of(error.code()), error);
  work.item->origin = 0;
  work.item->target_key = {};
  return false;
}

/// A unique violation of one item: if its row can be found now, it is a duplicate or a conflict; else a
/// reject.
void Loader::resolve_single(Batch& batch, Work& work, const Error& error) {
  Item& item = *work.item;
  Row row;
  if (!work.is_update) row = writer_.find_by_match(batch, {&item})[0];
  if (!row.candidates.empty()) {
    work.forget_attempt();
    refuse_several(batch, item, row);
    return;
  }
  if (row.found) row = writer_.find_by_key(batch, {row.key}, true)[0];  // what it decides about stays so
  if (!row.found) {
    work.forget_attempt();
    batch.reject(item, Outcome::invalid, "unique", error);
    item.origin = 0;
    item.target_key = {};
    return;
  }
  bool replaces = false;
  for (const Work& earlier : work_) {
    if (earlier.item->ordinal >= item.ordinal) break;
    if (!earlier.item->origin || earlier.item->target_key != row.key) continue;
    replaces = policy_.duplicates == Duplicates::last;  // as it would in a batch of its own
    if (replaces) continue;
    item.origin = 0;
    add_duplicate(batch, item, false, earlier.item->ordinal);
    return;
  }
  std::vector<Work> kept;
  kept.swap(work_);  // meet() appends to work_: give it an empty one
  Mapping mapping = work.mapping;
  item.origin = 0;
  meet(batch, item, mapping, row, replaces);
  decide(batch);
  bool to_write = !work_.empty();
  Work decided = to_write ? work_[0] : Work{};
  kept.swap(work_);
  if (!to_write) return;
  decided.looked_again = true;
  work = decided;
}

/// Items that refer to each other get their references now that all have their rows; it is one write to the
/// ledger.
void Loader::close_references(Batch& batch, size_t low, size_t high) {
  if (std::none_of(work_.begin() + static_cast<ptrdiff_t>(low), work_.begin() + static_cast<ptrdiff_t>(high),
                   [](const Work& work) { return work.item->open != nullptr; }))
    return;
  std::unordered_map<std::string_view, const Item*> landed;
  for (size_t i = low; i < high; i++)
    if (work_[i].item->outcome == Outcome::pending && work_[i].item->legacy_id.data())
      landed.emplace(work_[i].item->legacy_id, work_[i].item);
  std::vector<Update> closing;
  std::vector<Work*> works;
  bridge::InMemory in(batch.memory.get());
  bridge::PlainText plain;
  for (size_t i = low; i < high; i++) {
    Item& item = *work_[i].item;
    if (!item.open || item.outcome != Outcome::pending) continue;
    for (const OpenReference* open = item.open; open; open = open->next) {
      auto other = landed.find(open->legacy_id);
      const TargetColumn& column = plan_.target().column(open->attnum);
      if (other == landed.end())
        throw Error(ERRCODE_FOREIGN_KEY_VIOLATION, "what column \"" + column.name + "\" refers to, \"" +
                                                       bridge::quotable(open->legacy_id) +
                                                       "\", does not land with it");
      item.values[open->attnum - 1] =
          bridge::input_value(column.type, column.typmod, std::string(other->second->target_key));
      item.nulls[open->attnum - 1] = false;
      if (!item.came) continue;
      item.came[open->attnum - 1] = item.values[open->attnum - 1];  // the source said so
      item.came_nulls[open->attnum - 1] = false;
    }
    Row row;
    row.found = true;
    row.values = const_cast<Datum*>(item.stored);
    row.nulls = const_cast<bool*>(item.stored_nulls);
    row.key = item.target_key;
    closing.push_back({&item, row, {}});
    works.push_back(&work_[i]);
  }
  std::vector<Update*> updates;
  for (Update& update : closing) updates.push_back(&update);
  writer_.update(batch, updates);
  for (size_t i = 0; i < works.size(); i++) {
    Item& item = *works[i]->item;
    works[i]->update.after = closing[i].after;
    item.source_hash = item.came ? plan_.source_hash(item.came, item.came_nulls)
                                 : plan_.source_hash(item.values, item.nulls);
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
  close_references(batch, low, high);
  writer_.check_deferred();
  writer_.reread(batch, inserts, updates);
}

}  // namespace portage::load
