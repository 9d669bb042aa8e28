// The raw loops behind Plan::prepare and what they share with it: a cursor that survives an error's jump.
// Each loop runs from the cursor to the end, or stops where the C++ side has something to record.
#pragma once

#include "pipeline/plan_body.hpp"

namespace portage {

/// Why a loop came back.
enum class Stop : uint8_t { done, not_selected, broken_rule, no_legacy_id, null_value, broken_check };

/// The state of one pass over a batch. Plain. The loops keep `item` and `step` up to date before each call
/// that may raise; whoever handles a stop or an error advances `step`.
struct Work {
  Plan::Body* body;
  MemoryContext memory;  ///< of the batch
  Item** items;
  ItemState* states;
  size_t count;
  size_t item;
  int step;
  // the part's context
  std::string_view texts[3];  ///< scope, name, path
  Datum text_datums[3];
  bool has_mtime;
  TimestampTz mtime;
  std::string_view mtime_text;
  char digits[24];
  Meeting** meetings;      ///< merge_raw: by position, in place of `items`
  int reference;           ///< referred_ids_raw, take_keys_raw: which of the references
  std::string_view* ids;   ///< likewise, by position: legacy ids, and what they became
  std::string_view* keys;  ///< data() == nullptr: nothing
  // draw_defaults_raw
  const ColumnDefault* defaults;
  int default_count;
};

/// Steps: 0 the item as jsonb, 1 "where", then the columns' expressions, then the legacy id's.
Stop evaluate_items_raw(Work* work);
/// Steps: the conversions, then the early defaults.
Stop convert_raw_pass(Work* work);
/// Steps: 0, the legacy id that the item refers to; a null is a value.
Stop referred_ids_raw(Work* work);
/// Steps: 0, the key that it became, as a value of the column.
Stop take_keys_raw(Work* work);
/// Steps: the rules.
Stop judge_rules_raw(Work* work);
/// Steps: 0 the legacy id, then NOT NULL per mapped column, then the checks.
Stop judge_table_raw(Work* work);
/// Steps: 0, the hashes of the next items together; 1, one by one, to find the one that raises; 2, it is
/// found.
Stop hash_items_raw(Work* work);
/// Steps: the defaults.
Stop draw_defaults_raw(Work* work);

}  // namespace portage
