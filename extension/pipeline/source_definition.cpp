// See definition.hpp: the key "source".
#include "pipeline/definition_nodes.hpp"

namespace portage {

using namespace nodes;

PipelineSource source_of(const JsonNode& node, Format format) {
  need_object(node, "\"source\"");
  known_keys(node, {"files", "query", "table", "key", "cursor", "overlap"});
  static const std::pair<const char*, PipelineSource::Kind> kinds[] = {
      {"files", PipelineSource::Kind::files},
      {"query", PipelineSource::Kind::query},
      {"table", PipelineSource::Kind::table}};
  PipelineSource source;
  const JsonNode* from = nullptr;
  for (const auto& [name, kind] : kinds) {
    const JsonNode* found = node.find(name);
    if (found && from) fault(*found, "a source has exactly one of \"files\", \"query\" and \"table\"");
    if (!found) continue;
    from = found;
    source.kind = kind;
    source.text = nonempty_text_of(*found, (std::string("\"") + name + "\"").c_str());
  }
  if (!from) fault(node, "a source has exactly one of \"files\", \"query\" and \"table\"");
  bool files = source.kind == PipelineSource::Kind::files;
  if (files && source.text[0] != '/')
    fault(*from, "the path of a file must be absolute: \"" + source.text + "\"",
          "Give the path on the server, beginning with \"/\".");
  if (files != (format != Format::rows))
    fault(*from, files ? "format \"rows\" does not read files" : "rows of the database need format \"rows\"",
          files ? "Files are \"json\", \"ndjson\" or \"csv\"; rows are read by \"query\" or \"table\"."
                : "Each row is an item whose keys are the columns.");
  if (const JsonNode* key = node.find("key")) {
    if (source.kind != PipelineSource::Kind::query)
      fault(*key, "\"key\" has a meaning only for a query", "A table is read by its primary key.");
    source.key = names_of(*key, "\"key\"");
  }
  if (const JsonNode* cursor = node.find("cursor")) {
    if (files) fault(*cursor, "\"cursor\" has a meaning only for a query or table");
    source.cursor = nonempty_text_of(*cursor, "\"cursor\"");
    if (source.kind == PipelineSource::Kind::query && source.key.empty())
      fault(*cursor, "a query with a cursor needs a \"key\", too",
            "Name columns that are unique and not null; the cursor may be one of them.");
  }
  if (const JsonNode* overlap = node.find("overlap")) {
    if (source.cursor.empty()) fault(*overlap, "\"overlap\" needs a \"cursor\"");
    source.overlap_is_number = overlap->kind == formats::Kind::number;
    source.overlap = source.overlap_is_number ? overlap->text : nonempty_text_of(*overlap, "\"overlap\"");
  }
  return source;
}

}  // namespace portage
