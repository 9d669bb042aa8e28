// See predictions.hpp.
#include "ledger/predictions.hpp"

#include "ledger/as_ledger.hpp"

namespace portage::ledger {

using bridge::param;

void write_predictions(int64_t run_id, int32_t session, const std::vector<Prediction>& predictions) {
  if (predictions.empty()) return;
  std::vector<std::string> kinds, keys;
  std::vector<int64_t> ordinals;
  for (const Prediction& one : predictions) {
    kinds.push_back(one.kind);
    keys.push_back(one.key);
    ordinals.push_back(one.ordinal);
  }
  AsLedger as;
  // The lowest ordinal is the one that lands: what is there already stays.
  static const bridge::Statement insert(
      "INSERT INTO portage.predictions (run_id, session, kind, key, ordinal) SELECT $1, $2, p.* FROM "
      "unnest($3::text[], $4::text[], $5::bigint[]) AS p ON CONFLICT DO NOTHING");
  insert({param(run_id), param(session), bridge::param_text_array(kinds), bridge::param_text_array(keys),
          bridge::param_int8_array(ordinals)});
}

std::unordered_map<std::string, int64_t> find_predictions(int64_t run_id, int32_t session,
                                                          const std::string& kind,
                                                          const std::vector<std::string>& keys) {
  std::unordered_map<std::string, int64_t> found;
  if (keys.empty()) return found;
  AsLedger as;
  bridge::ByIndex by_index;
  static const bridge::Statement select(
      "SELECT p.key, p.ordinal FROM pg_catalog.unnest($4::text[]) AS k (key) CROSS JOIN LATERAL (SELECT * "
      "FROM portage.predictions p WHERE p.run_id = $1 AND p.session = $2 AND p.kind = $3 AND p.key = k.key "
      "COLLATE \"C\" OFFSET 0) p");
  bridge::Result rows = select({param(run_id), param(session), param(kind), bridge::param_text_array(keys)});
  for (size_t i = 0; i < rows.size(); i++) found[rows.text(i, 1)] = rows.bigint(i, 2);
  return found;
}

void forget_predictions(int64_t run_id, int32_t session) {
  AsLedger as;
  static const bridge::Statement remove("DELETE FROM portage.predictions WHERE run_id = $1 AND session = $2");
  remove.run(run_id, session);
}

}  // namespace portage::ledger
