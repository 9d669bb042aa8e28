// See conflicts.hpp.
#include "ledger/conflicts.hpp"

#include "ledger/as_ledger.hpp"
#include "ledger/undo_rows.hpp"

namespace portage::ledger {
namespace {

using bridge::param;
using bridge::Result;

/// Items that wait for a decision, with what is known of their conflicts.
std::vector<OpenConflict> with_details(int64_t run_id, std::vector<Reject> items) {
  std::vector<OpenConflict> conflicts;
  if (items.empty()) return conflicts;
  std::vector<int64_t> ordinals;
  for (const Reject& item : items) ordinals.push_back(item.ordinal);
  AsLedger as;
  bridge::ByIndex by_index;
  static const bridge::Statement select(
      "SELECT c.ordinal, c.revision, c.existing_hash, c.disputed, c.suggested FROM "
      "portage.migration_conflicts c "
      "WHERE c.run_id = $1 AND c.ordinal = ANY ($2) ORDER BY c.ordinal, c.revision");
  Result rows = select({param(run_id), bridge::param_int8_array(ordinals)});
  size_t at = 0;
  for (size_t i = 0; i < rows.size(); i++) {
    while (at < items.size() && items[at].ordinal < rows.bigint(i, 1)) at++;
    if (at == items.size()) break;
    if (items[at].ordinal != rows.bigint(i, 1) || items[at].revision != rows.integer(i, 2)) continue;
    conflicts.push_back({std::move(items[at]), rows.bigint(i, 3), names_of(rows, i, 4), rows.text(i, 5)});
    at++;
  }
  return conflicts;
}

}  // namespace

std::vector<OpenConflict> open_conflicts(int64_t run_id, int64_t after, int64_t limit, int64_t bytes) {
  return with_details(run_id, conflicted_items(run_id, after, limit, bytes));
}

std::vector<OpenConflict> filtered(std::vector<OpenConflict> conflicts, const ConflictFilter& filter) {
  auto has = [](const std::vector<std::string>& names, const std::string& name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  std::erase_if(conflicts, [&](const OpenConflict& one) {
    bool columns = filter.columns.empty() ||
                   std::all_of(one.disputed.begin(), one.disputed.end(),
                               [&](const std::string& name) { return has(filter.columns, name); });
    bool id = filter.legacy_ids.empty() || has(filter.legacy_ids, one.item.legacy_id);
    return !columns || !id || (!filter.suggested.empty() && filter.suggested != one.suggested);
  });
  return conflicts;
}

std::optional<OpenConflict> find_conflict(int64_t run_id, int64_t ordinal) {
  std::optional<Reject> item = find_reject(run_id, ordinal);
  if (!item || item->outcome != Outcome::conflicted) return std::nullopt;
  std::vector<Reject> items{std::move(*item)};
  std::vector<OpenConflict> found = with_details(run_id, std::move(items));
  if (found.empty()) return std::nullopt;
  return std::move(found[0]);
}

std::vector<int64_t> conflicts_of_id(int64_t run_id, const std::string& legacy_id) {
  AsLedger as;
  static const bridge::Statement select(
      "SELECT i.ordinal FROM portage.item_rows i WHERE i.run_id = $1 AND i.status IN ('invalid', 'failed', "
      "'skipped', 'conflicted', 'parked') AND i.status = 'conflicted' AND i.legacy_id = $2 COLLATE \"C\" AND "
      "NOT "
      "EXISTS (SELECT FROM portage.item_rows later WHERE later.run_id = i.run_id AND later.ordinal = "
      "i.ordinal AND "
      "later.revision > i.revision) ORDER BY 1");
  Result rows = select.run(run_id, legacy_id);
  std::vector<int64_t> ordinals;
  for (size_t i = 0; i < rows.size(); i++) ordinals.push_back(rows.bigint(i, 1));
  return ordinals;
}

void note_resolution(int64_t run_id, const OpenConflict& conflict, const std::string& resolution,
                     const std::optional<std::string>& value) {
  std::string actor = session_user_name();
  bridge::Param json = value ? bridge::param_json(*value) : bridge::param_null(JSONBOID);
  AsLedger as;
  static const bridge::Statement update(
      "UPDATE portage.migration_conflicts SET resolution = $4, value = $5, resolved_by = $6, resolved_at = "
      "clock_timestamp() WHERE run_id = $1 AND ordinal = $2 AND revision = $3");
  update({param(run_id), param(conflict.item.ordinal), param(conflict.item.revision), param(resolution), json,
          param(actor)});
}

}  // namespace portage::ledger
