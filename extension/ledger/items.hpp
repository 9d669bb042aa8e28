// What the ledger keeps per item: item_rows and item_packs, mapping_rows and mapping_packs, migration_undo,
// and the batch's own row. The only code that knows their physical layout.
#pragma once

#include "ledger/runs.hpp"
#include "pipeline/batch.hpp"

namespace portage::ledger {

/// What the ledger knows of a legacy id. Texts live in the batch's arena.
struct Mapping {
  bool found;
  std::string_view target_key;
  char origin;  ///< 'i', 'a', 'o'
  int64_t source_hash, row_hash, run_id, ordinal;
  ItemPointerData place;  ///< of the mapping's row, while the transaction lasts and nobody writes it
  int entry;              ///< in the pack that is that row; -1: it has a row of its own
  bool has_image;
  std::string_view image;  ///< read_images(): a literal of text[]; data() == nullptr: there is none
};

/// Which mappings are meant: ids are per pipeline and, unless the pipeline shares them, per scope.
struct MappingSpace {
  int64_t pipeline_id;
  std::string scope;
};

/// Looks up the legacy ids of `items` (those that have one); result[i] belongs to items[i]. `trail`: where
/// the last look-up of an input ended, and on return where this one has: the next items' mappings may stand
/// behind it.
std::vector<Mapping> find_mappings(const MappingSpace&, const std::vector<Item*>& items, formats::Arena&,
                                   std::optional<ItemPointerData>* trail = nullptr);
/// The same for ids; one whose data() is nullptr has none.
std::vector<Mapping> find_mappings(const MappingSpace&, const std::vector<std::string_view>& legacy_ids,
                                   formats::Arena&, std::optional<ItemPointerData>* trail = nullptr);
/// Fills in the images of those of the mappings that have one; mappings[i] is of items[i].
void read_images(const MappingSpace&, const std::vector<Item*>& items, std::vector<Mapping*>& mappings,
                 formats::Arena&);
/// How many mappings there are.
int64_t count_mappings(const MappingSpace&);
/// Which of these target keys were written by the run, and the lowest ordinal that did. For duplicates
/// between batches.
std::unordered_map<std::string, int64_t> keys_written_by(const MappingSpace&, int64_t run_id,
                                                         const std::vector<std::string>& keys);
/// Which of these target keys were written last by later runs of the space.
std::unordered_set<std::string> keys_written_after(const MappingSpace&, int64_t run_id,
                                                   const std::vector<std::string>& keys);

struct UnchangedItem {
  int64_t ordinal;
  std::string legacy_id, target_key;
};
/// The run's unchanged items after an ordinal, in order: a page.
std::vector<UnchangedItem> unchanged_items(int64_t run_id, int64_t after, int64_t limit);
/// The lowest ordinals at which the run found items with these values of a column (legacy_id or target_key)
/// unchanged. Reads the run's items once.
std::unordered_map<std::string, int64_t> unchanged_ordinals(int64_t run_id, const char* column,
                                                            const std::vector<std::string>& values);

/// The before-image of a row that an item changed: column names and output texts. Lives in the batch's
/// memory.
struct Undo {
  Item* item;
  std::string_view target_key;  ///< of the row before the change
  Datum columns, before;        ///< text[]; 0 if only the mapping changed
  std::optional<int64_t> before_hash;
  Mapping mapping;         ///< the mapping before; found = false: there was none
  Datum after_hashes = 0;  ///< bigint[]: text_hash() of the columns afterwards
};

/// By which a value in a before-image is known again as the one that an item wrote; of a value's output text
/// (bridge::PlainText). Null has a hash, too.
int64_t text_hash(const std::optional<std::string_view>& text);

/// An item that waits for a decision. Lives in the batch's memory.
struct Conflict {
  Item* item;
  Datum incoming, existing, base;  ///< jsonb objects of the mapped columns; base 0: never migrated
  std::vector<std::string> disputed;
  int64_t existing_hash;  ///< of the row's mapped columns: whether it is still the row that was looked at
  std::string_view suggested;
};

/// What one batch leaves in the ledger.
struct BatchRecord {
  int64_t run_id;
  const char* kind = "import";
  std::string actor;  ///< who caused these revisions, where that is not the run itself
  int32_t part, range_no;
  int64_t epoch;
  Counts counts;
  int64_t bytes = 0;
  int64_t ambiguous_dates = 0;
  TimestampTz started_at = 0;
  std::vector<std::pair<const char*, double>> timings;  ///< phases, milliseconds; "ledger" is added
  int64_t wal_bytes = 0, memory_bytes = 0;
  const std::vector<Conflict>* conflicts = nullptr;
  bool last_wins = false;  ///< items take the mappings of those before them in the run
  bool alone = false;      ///< nobody else writes mappings of the space: they may be packed
};

/// The word of migration_items.status, and back (pending: none of them).
std::string_view outcome_name(Outcome);
Outcome outcome_named(std::string_view name);
/// The counter of an outcome. Pending is an error of ours (PZ018).
int64_t& count_of(Counts&, Outcome);
/// Counts the outcomes of items [0, n). An item without an outcome is an error of ours (PZ018).
Counts count_outcomes(const Item* items, size_t n);
/// The issues of an item as a JSON array.
std::string issues_json(const Item&);

/// The number of the next batch. To be taken when the batch has written the target: of two batches that wrote
/// the same row, the later one then has the higher number.
int64_t next_batch_id();

/// Writes item rows, mappings and undo of items [0, n); then the batch row, whose CHECK proves that the books
/// balance. `revisions` by position; empty: all are 0.
void write_batch(const BatchRecord&, const MappingSpace&, const Item* items, size_t n,
                 const std::vector<Undo>&, const std::vector<int32_t>& revisions = {});

/// Where the raw input of an item is.
struct RawItem {
  int32_t part;
  int64_t offset, length;
  std::string kept;  ///< what the ledger has of it
};
/// The newest revision of an item that did not land.
std::optional<RawItem> find_raw(int64_t run_id, int64_t ordinal);

/// Raw input of a reject: up to this many bytes are kept with the item.
inline constexpr size_t max_kept_raw = 64 * 1024;

}  // namespace portage::ledger
