// A reject's raw input, made into a record again: whole from the ledger or the source, and parsed alone as
// the one item that it is. Knows formats and parts; knows nothing of what becomes of the record.
#pragma once

#include "formats/item_parser.hpp"
#include "ledger/parts.hpp"
#include "ledger/replay.hpp"
#include "pipeline/plan.hpp"

namespace portage::run {

class RejectReader {
 public:
  /// `plan` must outlive it. `role`: as whom sources are read.
  RejectReader(int64_t run_id, const Plan& plan, size_t max_item_bytes, Oid role);

  /// Why a reject cannot be read again as it was.
  enum class Obstacle { none, no_single_item, raw_missing, header_missing };

  /// Fills `record`, in the memory of the arena, with the place that the reject has in the source. Takes
  /// reject.raw if that is whole, else completes it.
  Obstacle read(ledger::Reject& reject, formats::Arena&, formats::Record& record);
  /// Reads one more into the batch, or raises PZ031.
  void add_to(Batch&, ledger::Reject& reject);
  /// Raises PZ031 with what can be done about it.
  [[noreturn]] void refuse(const ledger::Reject&, Obstacle) const;
  /// Text of the user's in the encoding of the source.
  std::string as_in_source(const std::string& text) const;

  const ledger::Part& part(int32_t number) const;

 private:
  bool complete(ledger::Reject&) const;
  Obstacle read_csv(const ledger::Reject&, formats::Arena&, formats::Record&);
  const std::string& header_state(int32_t part);

  int64_t run_id_;
  const Plan& plan_;
  formats::Options options_;
  Oid role_;
  formats::ItemParser parser_;
  std::vector<ledger::Part> parts_;
  std::map<int32_t, std::string> headers_;  // of CSV parts: a checkpoint's state behind the header
};

}  // namespace portage::run
