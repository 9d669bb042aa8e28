// Row hashes as other runs would have them: each run's cover the columns that its role could read.
#pragma once

#include "load/writer.hpp"

namespace portage::load {

class RunHashes {
 public:
  /// `columns`: those that the rows at hand were read and hashed with, by the run in hand.
  RunHashes(const Target& target, int64_t run_id, std::vector<std::string> columns)
      : target_(target), run_id_(run_id), columns_(std::move(columns)) {}

  /// The hash of a row over the columns that a run's hashes cover; 0 where these cannot be read any more.
  int64_t of(int64_t run_id, const Row&);

 private:
  struct Hasher {
    bool same = false, readable = true;
    std::vector<int> attnums;
  };

  const Target& target_;
  int64_t run_id_;
  std::vector<std::string> columns_;
  std::unordered_map<int64_t, Hasher> hashers_;
};

}  // namespace portage::load
