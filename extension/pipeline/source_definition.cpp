// See definition.hpp: the keys "source" and "missing".
#include <charconv>

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

MissingItems missing_of(const JsonNode& node) {
  static const Names fates{"keep", "mark", "delete"};
  const JsonNode* word = &node;
  const JsonNode* at_most = nullptr;
  if (node.is_object()) {
    known_keys(node, {"do", "at_most"});
    word = node.find("do");
    at_most = node.find("at_most");
    if (!word) fault(node, "\"missing\" needs \"do\" when it is an object");
  }
  const std::string& text = text_of(*word, "what is done with missing items");
  auto found = std::find(fates.begin(), fates.end(), text);
  if (found == fates.end()) {
    std::string hint = nearest_hint(text, fates);
    fault(*word, "unknown missing \"" + text + "\"",
          hint.empty() ? "Known are " + listed(fates) + "." : hint);
  }
  MissingItems missing;
  missing.fate = static_cast<MissingItems::Fate>(found - fates.begin());
  if (!at_most) return missing;
  if (missing.fate != MissingItems::Fate::remove)
    fault(*at_most, "\"at_most\" has a meaning only for \"do\": \"delete\"");
  const std::string& share = text_of(*at_most, "\"at_most\"");
  double percent = -1;
  const char *first = share.data(), *last = first + share.size() - (share.empty() ? 0 : 1);
  auto [end, error] = std::from_chars(first, last, percent, std::chars_format::fixed);
  if (share.empty() || *last != '%' || end != last || error != std::errc() || percent < 0 || percent > 100)
    fault(*at_most, "\"at_most\" must be a percentage such as \"90%\"",
          "It is the share of the mapped items that one run may delete.");
  missing.at_most = percent / 100;
  return missing;
}

}  // namespace portage
