// What a dry run or a validation would have written so far: the table `predictions`, which spills to disk by
// itself and lets an interrupted dry run go on.
#pragma once

#include "ledger/items.hpp"

namespace portage::ledger {

struct Prediction {
  std::string kind;  ///< "id", "key", or the index whose key values are hashed in `key`
  std::string key;
  int64_t ordinal;
};

/// `session`: 0 for the run's own, else the backend that validates it.
void write_predictions(int64_t run_id, int32_t session, const std::vector<Prediction>&);
/// Which of these keys were predicted, and the ordinals that would have written them.
std::unordered_map<std::string, int64_t> find_predictions(int64_t run_id, int32_t session,
                                                          const std::string& kind,
                                                          const std::vector<std::string>& keys);
void forget_predictions(int64_t run_id, int32_t session);

}  // namespace portage::ledger
