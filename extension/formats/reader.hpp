// The front door of formats/: where bytes come from, what to extract, and the readers that turn one into
// records of the other. It knows neither files nor PostgreSQL: the caller supplies the bytes and the memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "formats/arena.hpp"
#include "formats/path.hpp"
#include "formats/record.hpp"

namespace portage::formats {

/// Where bytes come from. Owned by the caller, and must outlive the reader.
class ByteSource {
 public:
  virtual ~ByteSource();

  /// Puts between 1 and `capacity` bytes into `buffer` and returns their number; 0 means the end. May throw;
  /// the reader passes the exception on and must not be used afterwards.
  virtual size_t read(char* buffer, size_t capacity) = 0;
};

/// A place between two items from which reading can go on.
struct Checkpoint {
  uint64_t offset = 0;  ///< byte from which the source must deliver
  uint64_t line = 1;    ///< number of the line that holds this byte
  std::string state;    ///< opaque; printable ASCII, so any text column keeps it
};

/// What to read and how. The keys from `delimiter` on are for CSV only.
struct Options {
  Path items;                                ///< json: where the array of items is; no steps: the root
  bool scalar_items = false;                 ///< json: a scalar at `items` is an item too, instead of a fault
  std::vector<Path> paths;                   ///< what to extract; Record::fields has their order
  bool want_item = false;                    ///< fill Record::item
  size_t max_item_bytes = size_t{64} << 20;  ///< larger items are rejects, never buffered
  size_t max_depth = 512;  ///< of containers in one item; at most ItemParser::deepest is honoured
  /// Only cut items and do not look into them: a record has its place (line, offset, length) and nothing
  /// else, or the fault of a span that could not be cut. Number, places and checkpoints are those of reading.
  bool places_only = false;

  char delimiter = ',';
  std::optional<char> quote = '"';         ///< none: quotes are ordinary characters
  std::optional<char> escape;              ///< inside quotes, before a quote or itself; none: the quote
  bool header = true;                      ///< the first row holds names, not data
  std::vector<std::string> columns;        ///< names; with `header` too the header row is skipped unread
  std::optional<std::string> null_string;  ///< unquoted text that means null; none: the empty text
  bool utf8 = true;  ///< false: another encoding that is a superset of ASCII, not validated
};

/// Yields the records of one part, in order.
class Reader {
 public:
  virtual ~Reader();

  /// Fills `record` with the next item, good or bad, in the memory of `arena`; false at the end. Bad input is
  /// a record with a fault. Throws std::bad_alloc, and whatever the source throws.
  virtual bool next(Arena& arena, Record& record) = 0;

  /// Where the next item would begin: resuming there yields exactly the records that next() would.
  virtual Checkpoint checkpoint() const = 0;

  /// CSV: the names of the columns, reading the header if that has not happened yet (empty if the header is
  /// faulty; next() then tells why). Null for all other formats. Owned by the reader. May throw as next()
  /// does.
  virtual const std::vector<std::string>* columns() const;
};

/// One JSON document, of any size, whose items are the elements of the array at `options.items`. When
/// `resume` is given, the source must begin at `resume->offset`.
///
/// A key of the items' path that occurs twice is no error: the items of every occurrence are read, in order.
/// (Last-wins would need the whole document before the first item; dropping either would lose items
/// silently.)
std::unique_ptr<Reader> open_json(ByteSource& source, Options options, const Checkpoint* resume = nullptr);

/// One JSON item per line; blank lines are no items, but count as lines. An empty part has no items.
std::unique_ptr<Reader> open_ndjson(ByteSource& source, Options options, const Checkpoint* resume = nullptr);

/// CSV as in RFC 4180, with the variations of `options`. A path of one key names a column; any other path is
/// Kind::missing. Lines end with LF or CRLF. A quote has a meaning only at the beginning of a field.
std::unique_ptr<Reader> open_csv(ByteSource& source, Options options, const Checkpoint* resume = nullptr);

}  // namespace portage::formats
