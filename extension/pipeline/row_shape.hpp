// What the columns were that a run's row hashes cover: kept with the run, since tables change. By it the hash
// of a row can be made as that run would have made it, where that still can be known.
#pragma once

#include "pipeline/hash.hpp"
#include "pipeline/target.hpp"

namespace portage {

/// The columns as they are now, as kept with a run.
std::string row_shape(const Target&, const std::vector<std::string>& columns, const std::vector<int>& mapped);

/// The columns as they were.
class RowShape {
 public:
  /// `text`: what row_shape() gave. `columns`: those of the target that can be read now.
  RowShape(const Target&, const std::string& text, const std::vector<std::string>& names,
           const std::vector<std::string>& columns);
  RowShape(const RowShape&) = delete;

  /// No column is gone, or cannot be read any more.
  bool whole() const { return whole_; }
  /// A column has another type now, or an enum other labels.
  bool altered() const { return altered_; }
  /// What a column that was called so is now; nullptr if it is gone, or was none of these.
  const TargetColumn* column_now(const Target&, const std::string& name_then) const;
  /// What a value's text (bridge::PlainText) has become with the column's type.
  std::string text_now(const TargetColumn&, const std::string& text_then) const;
  std::vector<std::string> gone() const;  ///< names of columns that are
  /// The attnums, ascending, of those of the columns that are there now.
  std::vector<int> attnums() const;
  /// The hash of a row over all of the columns, as they were; nothing if a value cannot be what it was.
  std::optional<uint64_t> row_hash(const Datum* values, const bool* nulls) const {
    return hash(rows_, values, nulls);
  }
  /// The same over those that were mapped; nothing as well if one of these is gone, or none is known.
  std::optional<uint64_t> source_hash(const Datum* values, const bool* nulls) const {
    return mapped_whole_ ? hash(sources_, values, nulls) : std::nullopt;
  }

 private:
  struct Column {
    int index = -1;  // now; -1: it is gone
    int then;        // its attnum
    std::string name;
    Oid type, type_now = InvalidOid;
    int32_t typmod;
    bool mapped, convert = false;
  };
  std::optional<uint64_t> hash(const RowHasher&, const Datum* values, const bool* nulls) const;
  Datum value_then(const Column&, Datum value) const;

  bridge::Memory memory_;
  std::vector<Column> columns_;
  std::map<Oid, std::string> labels_;  // of enums that have others now, as they were
  RowHasher rows_, sources_;
  bool whole_ = true, mapped_whole_ = true, altered_ = false;
};

}  // namespace portage
