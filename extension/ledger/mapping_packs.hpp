// The table mapping_packs. Mappings that an import writes together, with ids of an order of their own, are
// packed; packs of a pipeline and scope never reach into each other, and they only ever get smaller: a
// mapping that changes is taken out, and is a row of mapping_rows from then on.
#pragma once

#include "ledger/items.hpp"
#include "ledger/mapping_pack.hpp"

namespace portage::ledger {

/// The word of mapping_rows.origin.
inline std::string_view origin_name(char origin) {
  return origin == 'i' ? "inserted" : origin == 'a' ? "adopted" : "overwritten";
}

/// A mapping as a row of mapping_rows.
struct MappingRow {
  PackedMapping mapping;
  int64_t run_id;
  Datum image = 0;  ///< text[]; 0: none
};

/// Writes rows of mapping_rows.
void insert_mapping_rows(const MappingSpace&, const std::vector<MappingRow>&);

/// A packed mapping, and where it is.
struct PackedHit {
  size_t position;  ///< of the id that was looked for
  const PackedMapping& mapping;
  int64_t run_id;
  const std::string& pack;  ///< its first_key
  ItemPointerData place;
  int entry;
};

/// Looks for the ids at these positions and calls `found`, in the order of ids, for each that is packed.
void find_packed(const MappingSpace&, const std::vector<std::string_view>& ids, std::vector<size_t> positions,
                 const std::function<void(const PackedHit&)>& found);

/// Packs those of a run's new mappings that can be. Returns the positions of the others. Only while nobody
/// else writes mappings of the space.
std::vector<size_t> pack_mappings(const MappingSpace&, int64_t run_id, const std::vector<PackedMapping>&);

/// Takes mappings out of their packs, and calls `taken` with the position of the id and what the mapping was.
void take_out(const MappingSpace&, const std::vector<std::string_view>& ids,
              const std::function<void(size_t, const PackedMapping&, int64_t run_id)>& taken);

/// Makes rows of those of these mappings that are packed.
void make_rows(const MappingSpace&, const std::vector<std::string_view>& ids);

/// Where a walk through all mappings of a space stands.
struct MappingWalk {
  std::string from;
  bool packs = true;  ///< they come first: what becomes a row meanwhile is met twice rather than never
};
struct WalkedMapping {
  std::string legacy_id, target_key;
  char origin;
  int64_t source_hash, run_id, ordinal;
};
/// The next mappings, some thousands; empty: there are no more.
std::vector<WalkedMapping> next_mappings(const MappingSpace&, MappingWalk&);

}  // namespace portage::ledger
