// A run of a pipeline that says itself where its data is. See entry_points.hpp.
#include "ledger/pipelines.hpp"
#include "run/access.hpp"
#include "run/entry_points.hpp"

namespace portage::run {

using bridge::Error;

namespace {

/// What the owner wrote is read with the rights of the run's role: only where these are the owner's, too,
/// does nobody get at anything by it. Else a query would be a way to act as whoever runs the pipeline.
void require_trust(const ledger::Run& run, const StoredPipeline& pipeline) {
  if (ledger::acts_for(pipeline.owner, run.role.oid)) return;
  std::string owner = OidIsValid(pipeline.owner) ? ledger::user_name(pipeline.owner) : "";
  throw Error(ERRCODE_INSUFFICIENT_PRIVILEGE,
              "the source of pipeline \"" + run.pipeline + "\" is not read as role \"" + run.role.name + "\"")
      .detail(owner.empty()
                  ? "The owner of the pipeline does not exist any more."
                  : "The owner of the pipeline, \"" + owner + "\", has not the rights of that role.")
      .hint(owner.empty()
                ? "Name the data: file, query or payload."
                : "SET ROLE " + bridge::quoted(owner) + "; first, or name the data: file, query or payload.");
}

void attach_rows(const ledger::Run& run, const PipelineSource& source) {
  Oid role = role_of(run);
  std::optional<SourceRows> rows;
  {
    bridge::AsUser as(role);
    rows = source_rows(source);
  }
  ledger::Part part;
  part.name = rows->table.empty() ? "query" : rows->table;
  part.query = rows->query;
  part.key_columns = rows->key;
  part.cursor_column = source.cursor;
  part.cursor_type = rows->cursor_type;
  if (!source.cursor.empty()) part.source_table = rows->table;
  attach_query(run, std::move(part), rows->key.empty());
}

}  // namespace

void attach_source(const ledger::Run& run) {
  StoredPipeline pipeline = ledger::pipeline_version(run.pipeline_id, run.version);
  std::optional<PipelineSource> source = parse_definition(pipeline.definition).source;
  if (!source)
    throw Error(ERRCODE_INVALID_PARAMETER_VALUE, "pipeline \"" + run.pipeline + "\" has no source")
        .hint(
            "Name the data: file, query or payload. Or let the definition say where it is: \"source\": "
            "{\"files\": \"/srv/export/*.json\"}.");
  require_trust(run, pipeline);
  bridge::Settings pinned;
  pinned.set("search_path", pipeline.search_path);
  switch (source->kind) {
    case PipelineSource::Kind::files:
      attach_files(run, source->text);
      break;
    case PipelineSource::Kind::query:
    case PipelineSource::Kind::table:
      attach_rows(run, *source);
      break;
  }
}

}  // namespace portage::run
