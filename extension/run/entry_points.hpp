// What the SQL-callable functions of run/ share: opening a run, adding parts, and running it here and now.
#pragma once

#include "pipeline/source_table.hpp"
#include "run/worker.hpp"

namespace portage::run {

/// Opens a run of a pipeline that the caller may run: checks options and scope; returns its id. `announce`:
/// with an event. `session_role`: in whose name, if it is not the session user's.
int64_t open_run(const StoredPipeline&, const std::string& scope, const std::string& options,
                 const std::optional<std::string>& name, const std::optional<std::string>& metadata,
                 bool announce = true, Oid session_role = InvalidOid);

/// The run that would be opened, without a row yet. The pipeline may be run, and the options are known ones.
ledger::NewRun new_run(const StoredPipeline&, const std::string& scope, const std::string& options);

/// What submit() is told about a chunk.
struct Submission {
  std::string name;
  std::optional<int32_t> chunk_no;
  std::optional<std::string> sha256;  ///< 32 bytes
  std::optional<std::string> data_version;
};
/// Adds bytes to a part; the same chunk again changes nothing. Returns the part's number.
int32_t submit(const ledger::Run&, std::string_view bytes, const Submission&);

void attach_files(const ledger::Run&, const std::string& path_or_glob);
/// A part with name, query, key columns and perhaps a cursor; `snapshot`: its result is copied now.
int32_t attach_query(const ledger::Run&, ledger::Part, bool snapshot);

int32_t attach_table(const ledger::Run&, const SourceTable&);
/// What the pipeline's own source has now, as the run's role (attach_source.cpp). 22023 without a source;
/// 42501 where the pipeline's owner has not the rights of that role.
void attach_source(const ledger::Run&);

/// The run, if it may still take parts.
ledger::Run open_for_parts(int64_t id);

/// Works the run off in this session, committing per batch. Who shows progress to somebody was called by
/// somebody, and an earlier wish to pause or cancel is forgotten. `recorded`: whether the ledger tells of the
/// error that is raised.
void run_here(int64_t id, bool show_progress, bool* recorded = nullptr);

/// Works the run off in the caller's transaction. A failure of the run is recorded in it, unless `raise`:
/// what it did is undone then; misuse raises.
void work_in_caller(const ledger::Run&, bool raise);

/// Joins the workers of a run that is being imported by several; returns when nothing is left for it to do.
/// The caller may commit.
void help(const ledger::Run&);

/// The summary, as NOTICE lines.
void print_summary(int64_t id);

}  // namespace portage::run
