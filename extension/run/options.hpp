// The options of a run (docs/reference.md lists them): one name each, unknown names refused with the nearest
// ones.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "pipeline/definition.hpp"

namespace portage::run {

struct Options {
  int64_t batch_size = 0;  ///< items; 0: auto
  bool incremental = true;
  std::optional<OnConflict> on_conflict;  ///< overrides the pipeline's
  std::optional<int64_t> max_rejects;
  std::optional<double> max_reject_share;  ///< 0..1, from "5%"
  bool keep_payload = true;
  int64_t max_item_bytes = 64 << 20;
  std::optional<int64_t> max_part_bytes;
  bool skip_large_parts = true;
  std::optional<int64_t> limit;
  std::optional<double> sample;  ///< 0..1, from "1%"
  bool raise = false;
  std::optional<bool> verify;  ///< default: runs are verified, what migrate() does is not
  bool dry_run = false;
  bool validate_first = false;
  int workers = 1;         ///< that import side by side, where the result is that of one (parallel.hpp)
  int retry_attempts = 3;  ///< of a batch, for errors that may pass
  bool rollback_on_failure = false;  ///< "on_failure": "rollback"
  bool initial_load = false;         ///< indexes of the target are built when all is imported
};

/// Parses and checks the options. Raises PZ003 naming the option and the nearest known names; 0A000 for an
/// option that this version does not carry out.
Options parse_options(const std::string& json);

}  // namespace portage::run
