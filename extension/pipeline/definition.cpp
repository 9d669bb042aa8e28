// See definition.hpp. One function per key; each names the JSON path of what it refuses.
#include "pipeline/definition.hpp"

#include <algorithm>
#include <cctype>

#include "pipeline/definition_nodes.hpp"

namespace portage {
namespace {

using namespace nodes;
using formats::Kind;

formats::Path path_of(const JsonNode& node) {
  if (node.is_list()) {
    Names keys;
    for (const JsonNode& element : node.elements) keys.push_back(text_of(element, "a key of a path"));
    if (keys.empty()) fault(node, "a path must not be empty");
    return formats::path_of_keys(std::move(keys));
  }
  if (!node.is_string()) fault(node, "a path must be a string or a list of keys");
  auto parsed = formats::parse_path(text_of(node, "a path"));
  if (auto* error = std::get_if<formats::PathError>(&parsed))
    fault(node, "path \"" + node.text + "\" is not valid: " + error->message,
          "See byte " + std::to_string(error->position + 1) +
              " of the path. A key with special characters is written in double quotes.");
  return std::move(std::get<formats::Path>(parsed));
}

/// A path or a variable.
ValueSource path_source(const JsonNode& node) {
  static const Names variables{"$scope", "$name", "$path", "$ordinal", "$line", "$mtime"};
  ValueSource source;
  source.place = node.path;
  if (node.is_string() && node.text.starts_with("$") && node.text != "$item") {
    auto found = std::find(variables.begin(), variables.end(), node.text);
    if (found == variables.end()) {
      std::string hint = nearest_hint(node.text, variables);
      if (hint.empty()) hint = "Variables are " + listed(variables) + ".";
      fault(node, "unknown variable \"" + node.text + "\"",
            hint + " A key that begins with $ is written in double quotes.");
    }
    source.kind = ValueSource::Kind::variable;
    source.variable = static_cast<Variable>(found - variables.begin());
    return source;
  }
  source.path = path_of(node);
  return source;
}

Constant constant_of(const JsonNode& node) {
  return {node.kind, node.kind == Kind::json ? to_json(node) : node.text};
}

ValueSource column_source(const JsonNode& node) {
  if (!node.is_object()) return path_source(node);
  known_keys(node, {"from", "sql", "value", "default", "references"});
  const JsonNode* from = node.find("from");
  const JsonNode* sql = node.find("sql");
  const JsonNode* value = node.find("value");
  if ((from != nullptr) + (sql != nullptr) + (value != nullptr) != 1)
    fault(node, "a column needs exactly one of \"from\", \"sql\" and \"value\"");
  ValueSource source;
  if (from) {
    source = path_source(*from);
  } else if (sql) {
    source.kind = ValueSource::Kind::sql;
    source.sql = nonempty_text_of(*sql, "an expression");
    source.place = sql->path;
  } else {
    source.kind = ValueSource::Kind::constant;
    source.constant = constant_of(*value);
    source.place = value->path;
  }
  if (auto* fallback = node.find("default")) {
    if (!from) fault(*fallback, "\"default\" needs \"from\"", "In \"sql\" write coalesce(..., default).");
    source.fallback = constant_of(*fallback);
  }
  if (auto* references = node.find("references")) {
    if (!from)
      fault(*references, "\"references\" needs \"from\"",
            "It says where the other pipeline's legacy id stands.");
    source.references = nonempty_text_of(*references, "\"references\"");
  }
  return source;
}

void read_legacy_id(Definition& definition, const JsonNode& node) {
  if (node.is_list()) {
    if (node.elements.empty()) fault(node, "\"legacy_id\" must not be an empty list");
    for (const JsonNode& element : node.elements) definition.legacy_id.push_back(path_source(element));
  } else if (node.is_object()) {
    known_keys(node, {"sql"});
    const JsonNode* sql = node.find("sql");
    if (!sql) fault(node, "\"legacy_id\" needs \"sql\" when it is an object");
    ValueSource& source = definition.legacy_id.emplace_back();
    source.kind = ValueSource::Kind::sql;
    source.sql = nonempty_text_of(*sql, "an expression");
    source.place = sql->path;
  } else {
    if (!node.is_string())
      fault(node, "\"legacy_id\" must be a path, a list of paths or an object with \"sql\"");
    definition.legacy_id.push_back(path_source(node));
  }
}

Rule rule_of(const std::string& name, const JsonNode& node) {
  // The rules that we report ourselves; an issue must not leave open whose it is.
  static const Names reserved{"conversion",
                              "expression",
                              "domain",
                              "default",
                              "not_null",
                              "check",
                              "legacy_id",
                              "where",
                              "duplicate",
                              "unique",
                              "foreign_key",
                              "exclusion",
                              "trigger",
                              "data_version",
                              "malformed_json",
                              "invalid_encoding",
                              "item_too_large",
                              "nesting_too_deep",
                              "empty_payload",
                              "items_not_found",
                              "document_malformed",
                              "document_incomplete",
                              "ragged_row",
                              "malformed_row",
                              "unterminated_quote",
                              "duplicate_header",
                              "conflict",
                              "match",
                              "merge",
                              "privilege",
                              "parked",
                              "reference",
                              "sample",
                              "cancelled_by_trigger"};
  Rule rule;
  rule.name = name;
  rule.place = node.path;
  if (name.empty()) fault(node, "a rule's name must not be empty");
  if (std::find(reserved.begin(), reserved.end(), name) != reserved.end())
    fault(node, "rule name \"" + name + "\" is reserved", "It is the name of a check that is always made.");
  if (node.is_string()) {
    rule.sql = nonempty_text_of(node, "an expression");
    return rule;
  }
  if (!node.is_object()) fault(node, "a rule must be an expression or an object with \"sql\"");
  known_keys(node, {"sql", "message", "severity", "nulls"});
  const JsonNode* sql = node.find("sql");
  if (!sql) fault(node, "a rule needs \"sql\"");
  rule.sql = nonempty_text_of(*sql, "an expression");
  rule.place = sql->path;
  if (auto* message = node.find("message")) rule.message = nonempty_text_of(*message, "\"message\"");
  if (auto* severity = node.find("severity")) {
    const std::string& text = text_of(*severity, "\"severity\"");
    if (text != "error" && text != "warning")
      fault(*severity, "\"severity\" must be \"error\" or \"warning\"",
            nearest_hint(text, {"error", "warning"}));
    rule.warning = text == "warning";
  }
  if (auto* nulls = node.find("nulls")) {
    const std::string& text = text_of(*nulls, "\"nulls\"");
    if (text != "pass" && text != "fail")
      fault(*nulls, "\"nulls\" must be \"pass\" or \"fail\"", nearest_hint(text, {"pass", "fail"}));
    rule.null_fails = text == "fail";
  }
  return rule;
}

DataCheck check_of(const std::string& name, const JsonNode& node) {
  // What verification looks at by itself; a result must not leave open whose it is.
  static const Names built_in{"balance",       "item_count",     "mapping",           "undo",
                              "row_hash",      "duplicate_key",  "duplicate_content", "duplicate_match",
                              "relationships", "unchanged_rows", "payload",           "source"};
  static const Names severities{"warning", "error", "critical"};
  DataCheck check;
  check.name = name;
  check.place = node.path;
  if (name.empty()) fault(node, "a check's name must not be empty");
  if (name.find('\0') != std::string::npos) fault(node, "a check's name must not contain \\u0000");
  if (std::find(built_in.begin(), built_in.end(), name) != built_in.end())
    fault(node, "check name \"" + name + "\" is reserved", "It is the name of a check that is always made.");
  if (node.is_string()) {
    check.sql = nonempty_text_of(node, "a query");
    return check;
  }
  if (!node.is_object()) fault(node, "a check must be a query or an object with \"sql\"");
  known_keys(node, {"sql", "expected", "severity", "message"});
  const JsonNode* sql = node.find("sql");
  if (!sql) fault(node, "a check needs \"sql\"");
  check.sql = nonempty_text_of(*sql, "a query");
  check.place = sql->path;
  if (auto* expected = node.find("expected")) {
    if (expected->kind == Kind::json)
      fault(*expected, "\"expected\" must be a string, a number, true, false or null");
    if (expected->is_string()) text_of(*expected, "\"expected\"");
    check.expected = constant_of(*expected);
    check.has_expected = true;
  }
  if (auto* message = node.find("message")) check.message = nonempty_text_of(*message, "\"message\"");
  if (auto* severity = node.find("severity")) {
    const std::string& text = text_of(*severity, "\"severity\"");
    auto found = std::find(severities.begin(), severities.end(), text);
    if (found == severities.end())
      fault(*severity, "\"severity\" must be " + listed(severities), nearest_hint(text, severities));
    check.severity = static_cast<DataCheck::Severity>(found - severities.begin());
  }
  return check;
}

char one_byte(const JsonNode& node, const char* what) {
  const std::string& text = text_of(node, what);
  if (text.size() != 1 || static_cast<unsigned char>(text[0]) > 126)
    fault(node, std::string(what) + " must be a single ASCII character", "In JSON, a tab is \"\\t\".");
  if (text[0] == '\n' || text[0] == '\r') fault(node, std::string(what) + " must not be an end of line");
  return text[0];
}

CsvFormat csv_of(const JsonNode& node) {
  CsvFormat csv;
  need_object(node, "\"csv\"");
  known_keys(node, {"delimiter", "quote", "escape", "header", "columns", "null", "encoding"});
  const JsonNode* delimiter = node.find("delimiter");
  const JsonNode* quote = node.find("quote");
  const JsonNode* escape = node.find("escape");
  if (delimiter) csv.delimiter = one_byte(*delimiter, "\"delimiter\"");
  if (quote) {
    csv.quote.reset();
    if (quote->kind != Kind::null) csv.quote = one_byte(*quote, "\"quote\"");
  }
  if (csv.quote == csv.delimiter)
    fault(quote ? *quote : *delimiter, "\"quote\" and \"delimiter\" must differ");
  if (escape) {
    if (!csv.quote) fault(*escape, "\"escape\" has no meaning without \"quote\"");
    csv.escape = one_byte(*escape, "\"escape\"");
    if (csv.escape == csv.delimiter) fault(*escape, "\"escape\" and \"delimiter\" must differ");
  }
  if (auto* header = node.find("header")) csv.header = boolean_of(*header, "\"header\"");
  if (auto* columns = node.find("columns")) csv.columns = names_of(*columns, "\"columns\"");
  if (!csv.header && csv.columns.empty())
    fault(node, "a CSV without header needs \"columns\"", "Name the columns of the file in their order.");
  if (auto* null = node.find("null")) csv.null_string = text_of(*null, "\"null\"");
  if (auto* encoding = node.find("encoding")) csv.encoding = nonempty_text_of(*encoding, "\"encoding\"");
  return csv;
}

DataVersion data_version_of(const JsonNode& node) {
  DataVersion version;
  need_object(node, "\"data_version\"");
  known_keys(node, {"from", "accept"});
  const JsonNode* from = node.find("from");
  const JsonNode* accept = node.find("accept");
  if (!from || !accept) fault(node, "\"data_version\" needs \"from\" and \"accept\"");
  version.from = path_of(*from);
  if (!accept->is_list() || accept->elements.empty())
    fault(*accept, "\"accept\" must be a list of versions that is not empty");
  for (const JsonNode& element : accept->elements) {
    if (element.kind != Kind::string && element.kind != Kind::number)
      fault(element, "a version must be a string or a number");
    version.accept.push_back(element.text);
  }
  return version;
}

std::map<std::string, std::string> settings_of(const JsonNode& node) {
  need_object(node, "\"settings\"");
  std::map<std::string, std::string> settings;
  for (const auto& [name, value] : node.members) {
    if (std::find(value_setting_names.begin(), value_setting_names.end(), name) ==
        value_setting_names.end()) {
      std::string hint = nearest_hint(name, value_setting_names);
      if (name == "datestyle" || name == "timezone")
        hint = "\"" + name + "\" is a key of the definition itself.";
      else if (hint.empty())
        hint = "Settings that values hang on are " + listed(value_setting_names) + ".";
      fault(value, "unknown setting \"" + name + "\"", hint);
    }
    settings[name] = value.kind == Kind::boolean ? value.text : text_of(value, "a setting");
  }
  return settings;
}

/// "sequences": whether those of identity and serial columns stay where they are.
bool leaves_sequences(const JsonNode& node) {
  const std::string& text = text_of(node, "\"sequences\"");
  if (text != "advance" && text != "leave")
    fault(node, "\"sequences\" must be \"advance\" or \"leave\"", nearest_hint(text, {"advance", "leave"}));
  return text == "leave";
}

Format format_of(const JsonNode& node) {
  static const Names known{"json", "ndjson", "csv", "rows"};
  const std::string& text = text_of(node, "\"format\"");
  auto found = std::find(known.begin(), known.end(), text);
  if (found != known.end()) return static_cast<Format>(found - known.begin());
  std::string hint = "Supported formats are " + listed(known) + ".";
  if (text == "markdown" || text == "text" || text == "localstorage")
    unsupported(node, "format \"" + text + "\" is not supported yet", hint);
  fault(node, "unknown format \"" + text + "\"", hint);
}

void read_columns(Definition& definition, const JsonNode& node) {
  need_object(node, "\"columns\"");
  if (node.members.empty()) fault(node, "\"columns\" must not be empty");
  for (const auto& [name, value] : node.members) definition.columns.push_back({name, column_source(value)});
}

void check_together(const Definition& definition, const JsonNode& root) {
  if (definition.format != Format::json && root.find("items"))
    fault(*root.find("items"), "\"items\" has a meaning only for format \"json\"");
  if (definition.format != Format::csv && root.find("csv"))
    fault(*root.find("csv"), "\"csv\" has a meaning only for format \"csv\"");
  if (definition.format != Format::json && definition.data_version)
    fault(*root.find("data_version"), "\"data_version\" has a meaning only for format \"json\"",
          "Give the version of a part to submit().");
  if (definition.missing.fate != MissingItems::Fate::keep && definition.source &&
      !definition.source->cursor.empty())
    fault(*root.find("missing"), "\"missing\" needs a source that is read completely",
          "A run that reads on by \"cursor\" does not see what is gone.");
}

}  // namespace

const std::vector<std::string> value_setting_names{"intervalstyle",
                                                   "lc_monetary",
                                                   "xmloption",
                                                   "array_nulls",
                                                   "timezone_abbreviations",
                                                   "default_text_search_config",
                                                   "lc_numeric",
                                                   "lc_time"};

Definition parse_definition(std::string_view json) {
  JsonNode root = parse_json_tree(json);
  if (!root.is_object()) fault(root, "a definition must be a JSON object");
  known_keys(root,
             {"format",   "items",     "legacy_id",   "columns",   "rules",     "checks",     "where",
              "match",    "key",       "on_conflict", "merge",     "newest_by", "duplicates", "data_version",
              "timezone", "sensitive", "scoped",      "exclusive", "csv",       "source",     "retain",
              "after",    "missing",   "datestyle",   "settings",  "sequences"});
  for (const char* required : {"format", "legacy_id", "columns"})
    if (!root.find(required))
      fault(root, std::string("\"") + required + "\" is missing",
            "A definition needs \"format\", \"legacy_id\" and \"columns\".");

  Definition definition;
  definition.format = format_of(*root.find("format"));
  read_legacy_id(definition, *root.find("legacy_id"));
  read_columns(definition, *root.find("columns"));
  if (auto* items = root.find("items")) definition.items = path_of(*items);
  if (auto* rules = root.find("rules")) {
    need_object(*rules, "\"rules\"");
    for (const auto& [name, value] : rules->members) definition.rules.push_back(rule_of(name, value));
  }
  if (auto* checks = root.find("checks")) {
    need_object(*checks, "\"checks\"");
    for (const auto& [name, value] : checks->members) definition.checks.push_back(check_of(name, value));
  }
  if (auto* where = root.find("where")) definition.where = nonempty_text_of(*where, "\"where\"");
  if (auto* match = root.find("match")) definition.match = names_of(*match, "\"match\"");
  if (auto* key = root.find("key")) definition.key = names_of(*key, "\"key\"");
  read_conflicts(definition, root);
  if (auto* version = root.find("data_version")) definition.data_version = data_version_of(*version);
  if (auto* timezone = root.find("timezone"))
    definition.timezone = nonempty_text_of(*timezone, "\"timezone\"");
  if (auto* datestyle = root.find("datestyle"))
    definition.datestyle = nonempty_text_of(*datestyle, "\"datestyle\"");
  if (auto* settings = root.find("settings")) definition.settings = settings_of(*settings);
  if (auto* scoped = root.find("scoped")) definition.scoped = boolean_of(*scoped, "\"scoped\"");
  if (auto* sequences = root.find("sequences")) definition.leave_sequences = leaves_sequences(*sequences);
  if (auto* exclusive = root.find("exclusive"))
    definition.exclusive = boolean_of(*exclusive, "\"exclusive\"");
  if (auto* csv = root.find("csv")) definition.csv = csv_of(*csv);
  if (auto* after = root.find("after")) definition.after = names_of(*after, "\"after\"", "pipeline");
  if (auto* retain = root.find("retain")) definition.retain = nonempty_text_of(*retain, "\"retain\"");
  if (auto* source = root.find("source")) definition.source = source_of(*source, definition.format);
  if (auto* missing = root.find("missing")) definition.missing = missing_of(*missing);
  if (auto* sensitive = root.find("sensitive")) {
    if (!sensitive->is_list()) fault(*sensitive, "\"sensitive\" must be a list of paths");
    for (const JsonNode& element : sensitive->elements) definition.sensitive.push_back(path_of(element));
  }
  check_together(definition, root);
  return definition;
}

namespace {

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); j++) row[j] = j;
  for (size_t i = 1; i <= a.size(); i++) {
    size_t diagonal = row[0]++;
    for (size_t j = 1; j <= b.size(); j++) {
      bool same = std::tolower(static_cast<unsigned char>(a[i - 1])) ==
                  std::tolower(static_cast<unsigned char>(b[j - 1]));
      size_t replaced = diagonal + (same ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string nearest_hint(std::string_view word, const std::vector<std::string>& candidates) {
  if (word.size() > 200) return "";
  size_t limit = std::max<size_t>(1, std::min<size_t>(3, word.size() / 2));
  std::vector<std::pair<size_t, std::string>> near;
  for (const std::string& candidate : candidates) {
    if (candidate.size() > word.size() + limit || word.size() > candidate.size() + limit) continue;
    size_t distance = edit_distance(word, candidate);
    if (distance <= limit) near.emplace_back(distance, candidate);
  }
  if (near.empty()) return "";
  std::stable_sort(near.begin(), near.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  Names names;
  for (const auto& [distance, name] : near)
    if (names.size() < 3 && distance == near.front().first) names.push_back(name);
  return "Perhaps you meant " + listed(names) + ".";
}

}  // namespace portage
