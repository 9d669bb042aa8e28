// What travels from stage to stage: a batch of items, each with its place in the source, its typed values and
// what became of it. Plain data; the stages (pipeline/, load/, ledger/) fill it in turn.
#pragma once

#include <string_view>
#include <vector>

#include "formats/arena.hpp"
#include "formats/record.hpp"

#include "bridge/scope.hpp"

namespace portage {

/// What became of an item; the words are those of migration_items.status.
enum class Outcome : uint8_t {
  pending,
  inserted,
  updated,
  unchanged,
  skipped,
  conflicted,
  parked,
  invalid,
  failed
};
inline constexpr int outcome_count = 9;

/// One thing that is wrong (or, as a warning, odd) with an item. Lives in the batch's arena.
struct Issue {
  std::string_view rule;        ///< the rule's name, ours ("conversion", "not_null", ...) or the definition's
  char sqlstate[6];             ///< five characters and a NUL; "23514" for a broken rule
  std::string_view column;      ///< target column, constraint's column or ""
  std::string_view constraint;  ///< constraint name or ""
  std::string_view message;     ///< PostgreSQL style
  std::string_view detail;
  bool warning;
  Issue* next;
};

/// A reference to an item that is to land together with this one. Lives in the batch's arena.
struct OpenReference {
  int attnum;
  std::string_view legacy_id;
  const OpenReference* next;
};

/// One legacy record on its way. Trivially copyable; all memory is the batch's.
struct Item {
  int64_t ordinal;  ///< dense, run-wide, from 1
  formats::Record record;
  Datum* values;  ///< natts of the target, by attnum - 1; only mapped and early default columns are filled
  bool* nulls;
  std::string_view legacy_id;  ///< empty data() == nullptr: none
  uint64_t source_hash;
  const OpenReference* open;  ///< columns that are null until both items are written
  Datum* came;                ///< the incoming values, where `values` are merged ones; else nullptr
  bool* came_nulls;
  Outcome outcome;
  Issue* issues;  ///< in the order found; warnings may stand on items that land
  // filled by load/
  std::string_view target_key;  ///< text of the key of the row that the item landed in or met
  uint64_t row_hash;
  const Datum* stored;  ///< the row as it was written, or found unchanged; by attnum - 1
  const bool* stored_nulls;
  Datum image;               ///< text[]: for the mapping; 0: none (load/image.hpp)
  char origin;               ///< 'i'nserted, 'a'dopted, 'o'verwritten; 0: no mapping is written
  bool mapped_before;        ///< a mapping existed; it is updated, not inserted
  uint16_t ambiguous_dates;  ///< dates that could be read in two ways, and nobody said in which
};

/// The items of one batch and the memory that they live in.
class Batch {
 public:
  Batch() : memory("portage batch") {}
  formats::Arena arena;   ///< bytes and plain structures
  bridge::Memory memory;  ///< Datums
  std::vector<Item> items;
  uint64_t raw_bytes = 0;

  void reset() {
    items.clear();
    arena.reset();
    memory.reset();
    raw_bytes = 0;
  }
  /// Adds an issue at the end of the item's list; the texts are copied into the arena.
  void add_issue(Item&, std::string_view rule, std::string_view sqlstate, std::string_view column,
                 std::string_view message, std::string_view detail = {}, std::string_view constraint = {},
                 bool warning = false);
  /// The item takes no further part. Adds the issue and sets the outcome.
  void reject(Item&, Outcome, std::string_view rule, const bridge::Error&);
};

}  // namespace portage
