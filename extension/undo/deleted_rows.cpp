// Rows that the run has deleted, since their items were gone from its source: they return as they were,
// unless somebody has taken their place. See rollback.hpp.
#include <deque>

#include "bridge/spi.hpp"
#include "ledger/missing.hpp"
#include "undo/rollback_body.hpp"

namespace portage::undo {

using ledger::LandedItem;

/// What stands in the way of rows that are to return; `row` of a case is who has its key.
std::vector<Rollback::Case> Rollback::judge_deleted(Batch& batch, std::vector<LandedItem>& items, bool lock) {
  std::vector<Case> cases;
  std::vector<Restore> rows;
  std::vector<std::string_view> keys;
  for (LandedItem& item : items) {
    for (std::string& name : item.columns) name = plan_->name_now(name);
    cases.push_back({&item, {}, "", "", false});
    rows.push_back({nullptr, &item.columns, &item.before, {}});
    keys.push_back(item.target_key);
  }
  std::vector<std::string> takers = target_->taken(batch, rows);
  std::vector<load::Row> found = writer_->find_by_key(batch, keys, lock);
  std::vector<std::string> met;
  for (const std::string& key : takers)
    if (!key.empty()) met.push_back(key);
  std::unordered_set<std::string> ours = ledger::landed_keys(run_.id, met);
  for (size_t i = 0; i < cases.size(); i++) {
    Case& c = cases[i];
    c.row = found[i];
    const ledger::Mapping& mapping = c.item->mapping;
    bool own = (mapping.found && mapping.run_id == run_.id) || ours.count(takers[i]);
    if (own)  // what was replayed since
      c.drift = "waits";
    else if (mapping.found)
      c.drift = "later_run";
    else if (!takers[i].empty())
      c.drift = "taken";
  }
  return cases;
}

/// By force, a row that has the key becomes what the deleted one was. An item that has come again as another
/// row stays that.
void Rollback::put_back(Batch& batch, std::vector<Case*>& cases) {
  std::vector<Restore> fresh, changed;
  std::vector<Case*> inserted, updated;
  std::deque<std::pair<std::vector<std::string>, std::vector<std::optional<std::string>>>> settable;
  for (Case* c : cases) {
    LandedItem& item = *c->item;
    if (item.mapping.found && item.mapping.target_key != item.target_key) {
      c->spared = c->drift;
    } else if (!c->row.found) {
      fresh.push_back({nullptr, &item.columns, &item.before, {}});
      inserted.push_back(c);
    } else {
      auto& [columns, before] = settable.emplace_back();
      for (size_t i = 0; i < item.columns.size(); i++) {
        const TargetColumn* column = plan_->target().column(item.columns[i]);
        bool in_key = column && std::find(plan_->key().begin(), plan_->key().end(), column->attnum) !=
                                    plan_->key().end();
        if (in_key || (column && column->identity == 'a')) continue;
        columns.push_back(item.columns[i]);
        before.push_back(item.before[i]);
      }
      changed.push_back({&c->row, &columns, &before, {}});
      updated.push_back(c);
    }
  }
  target_->insert(batch, fresh);
  target_->restore(batch, changed);
  auto settle = [&](const std::vector<Case*>& some, const std::vector<Restore>& rows) {
    for (size_t i = 0; i < some.size(); i++) {
      const std::optional<int64_t>& hash = some[i]->item->before_hash;
      some[i]->done = rows[i].after.found;
      some[i]->item->back_key = rows[i].after.key;
      if (!some[i]->done)
        some[i]->spared = "kept_by_trigger";
      else if (hash && static_cast<int64_t>(rows[i].after.row_hash) != *hash)
        with_differences_++;
    }
  };
  settle(inserted, fresh);
  settle(updated, changed);
}

/// Items that the run has marked as missing are not, any more.
void Rollback::take_back_marks() {
  for (int64_t after = 0; ledger::take_back_marks(run_.id, after, 5000);) {
    bridge::commit();
    bridge::check_interrupts();
  }
}

}  // namespace portage::undo
