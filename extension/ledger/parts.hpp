// migration_parts, migration_payloads and migration_ranges: where the bytes of a run come from, and how far
// they have been read.
#pragma once

#include "bridge/spi.hpp"

#include "formats/reader.hpp"

namespace portage::ledger {

struct Part {
  int32_t number = 0;
  std::string kind, name;  ///< kind: payload, file, query, large_object
  std::string path, query;
  std::vector<std::string> key_columns;
  std::optional<std::string> last_key;
  Oid large_object = InvalidOid;
  std::optional<int64_t> byte_length;
  std::optional<std::string> data_version;
  std::optional<int64_t> device, inode;
  std::optional<std::string> modified_at;  ///< timestamptz as text, to be written
  std::optional<int64_t> modified_us;      ///< the same as read: microseconds since 1970
  std::string search_path;                 ///< query: under which it was attached
  std::string cursor_column,
      cursor_type;           ///< query: it is read in this column's order, first of the key's; "": none
  std::string source_table;  ///< of a query with a cursor: the table, if it is one
  std::optional<std::string> cursor_from;  ///< the cursor's value from which on it is read
  std::optional<std::string> skipped;
};

/// Adds a part at the end; returns its number (from 1).
int32_t insert_part(int64_t run_id, const Part&);
std::vector<Part> parts_of(int64_t run_id);
void set_part_size(int64_t run_id, int32_t part, int64_t bytes);
void set_part_sha256(int64_t run_id, int32_t part, const std::string& digest);
void set_part_last_key(int64_t run_id, int32_t part, const std::optional<std::string>& key);
void set_part_cursor_from(int64_t run_id, int32_t part, const std::optional<std::string>& from);
void set_part_skipped(int64_t run_id, int32_t part, const std::string& reason);
std::optional<int32_t> find_payload_part(int64_t run_id, const std::string& name);

/// A chunk that stands already: its digest, or nothing.
std::optional<std::string> chunk_digest(int64_t run_id, int32_t part, int32_t chunk_no);
void insert_chunk(int64_t run_id, int32_t part, int32_t chunk_no, const std::string& digest,
                  std::string_view bytes);
int32_t next_chunk(int64_t run_id, int32_t part);
/// The numbers and lengths of a part's chunks, in order.
struct Chunk {
  int32_t number;
  int64_t length;
};
std::vector<Chunk> chunks_of(int64_t run_id, int32_t part);
std::string chunk_bytes(int64_t run_id, int32_t part, int32_t chunk_no);
void drop_payloads(int64_t run_id);

/// How far a range has been read. Items from cursor_ordinal to next_ordinal - 1 stand after `checkpoint` but
/// are already in the ledger.
struct Range {
  int32_t part = 0, number = 1;
  int64_t first_ordinal = 1, next_ordinal = 1, cursor_ordinal = 1;
  std::optional<int64_t> end_ordinal;  ///< behind the last one; nothing: as far as the part reaches
  formats::Checkpoint checkpoint;
  std::optional<std::string> last_key;
  bool done = false;
  int64_t epoch = 0;
};

/// The first range of a part.
std::optional<Range> find_range(int64_t run_id, int32_t part);
/// The last one: where several workers read the part, what is not cut into pieces yet.
std::optional<Range> last_range(int64_t run_id, int32_t part);
/// What has been read of a part from its beginning on without a gap, as one range; `done`: all of it.
std::optional<Range> read_so_far(int64_t run_id, int32_t part);
/// Creates the range if it is new; makes this backend its owner with a new epoch.
Range claim_range(int64_t run_id, int32_t part, int64_t first_ordinal);
/// Advances the cursor; with `lease` (milliseconds) the range stays ours for so long. Raises PZ013 if the
/// epoch is not ours any more: somebody else has taken over.
void advance_range(int64_t run_id, const Range&, int lease = 0);
/// Several workers: the part from this range on is to be cut. Creates it without an owner.
void open_tail(int64_t run_id, int32_t part, int64_t first_ordinal);
/// The tail ends before `end` and becomes a piece that can be claimed; with `next`, a new tail begins there,
/// else the part is cut to its end. A piece without items is done.
void cut_tail(int64_t run_id, const Range& tail, int64_t end, const formats::Checkpoint& at, bool next);
/// The next piece that nobody is working on, made this backend's for the time of a lease (milliseconds).
/// SKIP LOCKED: whoever claims one at the same moment gets another one.
std::optional<Range> claim_piece(int64_t run_id, int lease);
/// The same of a certain piece that is this backend's already, after an error.
Range reclaim(int64_t run_id, const Range&, int lease);
/// What this backend has claimed and not finished is anybody's again.
void release_pieces(int64_t run_id);
struct Pieces {
  int64_t open = 0;       ///< cut and not done
  int64_t unclaimed = 0;  ///< of them, nobody works on
};
Pieces pieces_of(int64_t run_id);
void record_range_error(int64_t run_id, int32_t part, int32_t number, const std::string& message);

}  // namespace portage::ledger
