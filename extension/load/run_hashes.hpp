// Whether rows are as a run has left them. Each run's hashes cover the columns that its role could read, as
// they were then; the table may have others now, or of other types.
#pragma once

#include "ledger/items.hpp"
#include "load/image.hpp"
#include "load/writer.hpp"
#include "pipeline/row_shape.hpp"

namespace portage::load {

enum class AsLeft : uint8_t {
  yes,
  no,
  unknown  ///< a column is gone, or was made another, so that it cannot be told
};

class RunHashes {
 public:
  /// `columns`: those that the rows at hand were read and hashed with, by the run in hand (0: none of those
  /// whose mappings are asked about).
  RunHashes(const Plan& plan, int64_t run_id, std::vector<std::string> columns);

  /// The attnums of the columns that a run's hashes cover, as far as they are there now.
  static std::vector<int> columns_of(const Plan&, int64_t run_id);

  /// Whether the row is as the mapping's run has left it. Where columns are gone, by those that the run has
  /// mapped.
  AsLeft compare(const ledger::Mapping&, const Row&);
  /// The columns are what they were.
  bool same(int64_t run_id) { return of(run_id).same; }
  /// Those of the columns that are gone, as they were called.
  std::vector<std::string> gone(int64_t run_id);
  /// Gives an image that the run has left the names and types that the columns have now.
  void bring_up(int64_t run_id, Image&);

 private:
  struct Known {
    bool same = false;  // the columns are those of the run in hand
    std::unique_ptr<RowShape> shape;
  };
  Known& of(int64_t run_id);

  const Target& target_;
  int64_t run_id_;
  std::vector<std::string> columns_;
  std::string shape_;
  std::unordered_map<int64_t, Known> known_;
};

}  // namespace portage::load
