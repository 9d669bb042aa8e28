// Sequences from which the target's columns draw, where the items bring the values: left behind, they would
// give the application numbers that are taken. Knows values of rows that have been written, not runs.
#pragma once

#include "pipeline/plan.hpp"

namespace portage::load {

/// A sequence of a mapped column.
struct ColumnSequence {
  int attnum;
  std::string column, name;  ///< the sequence's, as SQL needs it
  Oid oid;
  int64_t start, greatest;
  std::string reason;  ///< why it is left where it is; "": it is not
};

/// Those of the mapped columns, as the current user may treat them.
std::vector<ColumnSequence> column_sequences(const Plan&);

/// One that a batch has found behind the values that it wrote.
struct SequenceStep {
  const ColumnSequence* sequence;
  int64_t value;  ///< the greatest that was written
  bool done;      ///< the sequence goes on behind it now
};

class Sequences {
 public:
  explicit Sequences(const Plan& plan) : all_(column_sequences(plan)) {}

  /// What the rows of items that landed have outrun. At once, whatever becomes of the transaction, and never
  /// backwards; those that are to stay, and those that somebody holds, are told only.
  std::vector<SequenceStep> follow(const Item* items, size_t n, const Target&);

 private:
  std::vector<ColumnSequence> all_;
  std::map<Oid, int64_t> behind_;  // what could not be done, or is told already
};

}  // namespace portage::load
