// See settle.hpp. Each question is one pass over the run's items: there is no index by id or key, and none is
// worth its price at import.
#include "ledger/settle.hpp"

#include "ledger/as_ledger.hpp"

namespace portage::ledger {
namespace {

using bridge::param;
using bridge::Result;

/// What workers did side by side and still stands: items that landed, or met a row that kept them out. What
/// has been settled since was decided in the order of the items.
constexpr const char* standing =
    "SELECT i.ordinal, i.status, i.legacy_id, i.target_key FROM portage.all_items i WHERE i.run_id = $1 AND "
    "i.revision = 0 AND i.target_key IS NOT NULL AND i.status IN ('inserted', 'updated', 'unchanged', "
    "'skipped', 'conflicted') AND NOT EXISTS (SELECT FROM portage.item_rows later WHERE later.run_id = "
    "i.run_id AND later.ordinal = i.ordinal AND later.revision > i.revision)";

std::vector<int64_t> ordinals_of(const Result& rows) {
  std::vector<int64_t> ordinals;
  for (size_t i = 0; i < rows.size(); i++) ordinals.push_back(rows.bigint(i, 1));
  return ordinals;
}

}  // namespace

std::vector<int64_t> hidden_collisions(int64_t run_id, int64_t limit) {
  AsLedger as;
  auto groups = [](const std::string& name) {
    return "SELECT s.ordinal FROM (SELECT " + name + ", min(ordinal) AS first FROM standing WHERE " + name +
           " IS NOT NULL GROUP BY " + name +
           " HAVING count(*) > 1 AND bool_or(status IN ('inserted', 'updated', 'unchanged'))) g JOIN "
           "standing s USING (" +
           name + ") WHERE s.ordinal > g.first";
  };
  static const std::string sql = std::string("WITH standing AS NOT MATERIALIZED (") + standing + ") " +
                                 groups("legacy_id") + " UNION " + groups("target_key") +
                                 " ORDER BY 1 DESC LIMIT $2";
  // Nobody knows yet how many items a young ledger has: what is planned for few would compare each with all.
  bridge::Settings for_many;
  for_many.set("enable_nestloop", "off").set("jit", "off");
  return ordinals_of(bridge::execute(sql, {param(run_id), param(limit)}));
}

std::unordered_map<std::string, int64_t> standing_ordinals(int64_t run_id,
                                                           const std::vector<std::string>& keys) {
  std::unordered_map<std::string, int64_t> ordinals;
  if (keys.empty()) return ordinals;
  AsLedger as;
  static const std::string sql =
      std::string(standing) + " AND i.status = 'inserted' AND i.target_key = ANY ($2 COLLATE \"C\")";
  Result rows = bridge::execute(sql, {param(run_id), bridge::param_text_array(keys)});
  for (size_t i = 0; i < rows.size(); i++) ordinals[rows.text(i, 4)] = rows.bigint(i, 1);
  return ordinals;
}

std::vector<int64_t> in_the_way(int64_t run_id, const std::vector<Claim>& claims) {
  std::vector<int64_t> id_ordinals, key_ordinals;
  std::vector<std::string> ids, keys;
  for (const Claim& claim : claims) {
    if (!claim.legacy_id.empty()) {
      ids.push_back(claim.legacy_id);
      id_ordinals.push_back(claim.ordinal);
    }
    if (!claim.target_key.empty()) {
      keys.push_back(claim.target_key);
      key_ordinals.push_back(claim.ordinal);
    }
  }
  if (ids.empty() && keys.empty()) return {};
  AsLedger as;
  // The standing items once, filtered by hashed arrays, before anything is compared.
  static const std::string sql =
      std::string("WITH near AS MATERIALIZED (") + standing +
      " AND (i.legacy_id = ANY ($2 COLLATE \"C\") OR i.target_key = ANY ($4 COLLATE "
      "\"C\"))) "
      "SELECT n.ordinal FROM near n JOIN unnest($2, $3) AS c (legacy_id, ordinal) ON n.legacy_id = "
      "c.legacy_id COLLATE \"C\" WHERE n.ordinal > c.ordinal UNION SELECT n.ordinal FROM near n JOIN "
      "unnest($4, $5) AS c (target_key, ordinal) ON n.target_key = c.target_key COLLATE \"C\" WHERE "
      "n.ordinal "
      "> c.ordinal ORDER BY 1 DESC";
  return ordinals_of(bridge::execute(
      sql, {param(run_id), bridge::param_text_array(ids), bridge::param_int8_array(id_ordinals),
            bridge::param_text_array(keys), bridge::param_int8_array(key_ordinals)}));
}

}  // namespace portage::ledger
