// Where the bytes of a part come from: chunks in the ledger, a file on the server, a large object, or the
// rows of a query. Everything is read as the run's role, and everything can be opened again at a cursor.
#pragma once

#include "formats/reader.hpp"
#include "ledger/parts.hpp"
#include "pipeline/plan.hpp"

namespace portage::run {

/// A part opened for reading. Keeps no transaction, snapshot or lock between batches.
class OpenPart {
 public:
  virtual ~OpenPart() = default;
  virtual formats::Reader& reader() = 0;
  /// Raises PZ010 if the source is not what it was when it was attached.
  virtual void check_unchanged() {}
  /// SHA-256 of all bytes, if they have been read from the first to the last.
  virtual std::optional<std::string> digest() { return std::nullopt; }
  /// Bytes of the whole part, if known: for progress.
  virtual std::optional<int64_t> total_bytes() const { return std::nullopt; }
};

/// Opens a part at a cursor (nullptr: at its beginning). The current user is the run's role.
std::unique_ptr<OpenPart> open_part(int64_t run_id, const ledger::Part&, const Plan&, formats::Options,
                                    const ledger::Range* resume);

/// Opens a part whose bytes, all of them, are at hand: they must outlive it.
std::unique_ptr<OpenPart> open_bytes(std::string_view bytes, const ledger::Part&, const Plan&,
                                     formats::Options);

/// The canonical files that a path or glob means, as parts with their identity. Raises 42501 without
/// pg_read_server_files, 58P01 if there is none.
std::vector<ledger::Part> files_of(const std::string& path_or_glob);

/// Queries are read under the search_path with which they were attached, and under the settings that the
/// pipeline's values hang on: what they make of texts, and what becomes of their values as texts, is the same
/// in every session.
class QuerySettings {
 public:
  QuerySettings(const ledger::Part& part, const StoredPipeline& pipeline) {
    if (!part.search_path.empty()) settings_.set("search_path", part.search_path);
    pin_value_settings(settings_, pipeline.timezone, pipeline.settings, true);
  }

 private:
  bridge::Settings settings_;
};

/// Fills in what a query part needs: key columns checked, its shape known to work.
void check_query(ledger::Part&, const StoredPipeline&);
/// The greatest key of a query part now; nothing if it has no rows.
std::optional<std::string> last_key_of(const ledger::Part&, const StoredPipeline&);
/// How many rows a query part has, from its cursor_from on.
int64_t rows_of(const ledger::Part&, const StoredPipeline&);

/// Bytes [offset, offset + length) of a part that is bytes; fewer at its end. The current user is the run's
/// role.
std::string read_span(int64_t run_id, const ledger::Part&, uint64_t offset, uint64_t length);

}  // namespace portage::run
