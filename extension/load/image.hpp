// What a mapping remembers of an item under on_conflict "merge" and "ask": of each mapped column, as text,
// what stands in the row since it was last migrated, and what the source said then. The two differ where a
// merge, a decision or a trigger had its say. Also rows as JSON, for people. Knows values, not policies.
#pragma once

#include "pipeline/plan.hpp"

namespace portage::load {

class Image {
 public:
  struct Column {
    std::string name;
    std::optional<std::string> stored, came;
  };
  Image() = default;
  /// From the literal of a text[] {{name, stored, came}, ...}.
  explicit Image(std::string_view literal);
  const Column* find(const std::string& name) const;
  bool empty() const { return columns_.empty(); }
  template <class F>
  void change(F&& f) {
    for (Column& column : columns_) f(column);
  }

 private:
  std::vector<Column> columns_;
};

/// The text[] of an image, in the current memory context. Arrays by attnum - 1.
Datum make_image(const Plan&, const Datum* stored, const bool* stored_nulls, const Datum* came,
                 const bool* came_nulls);

/// A value's text as images have it: whatever the session's settings are (within bridge::PlainText).
std::optional<std::string> image_text(const TargetColumn&, const Datum* values, const bool* nulls);

/// The mapped columns of a row as a jsonb object, in the current memory context.
Datum row_json(const Plan&, const Datum* values, const bool* nulls);

/// What the source said, as values again; columns that the image does not know are null.
void came_values(const Plan&, const Image&, Batch&, Datum* values, bool* nulls);

}  // namespace portage::load
