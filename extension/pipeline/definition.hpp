// A pipeline's definition as its author wrote it: JSON text in, a checked structure out. Pure C++: it knows
// the keys and their grammar, and nothing of tables, types or SQL; whether a column or an expression makes
// sense is decided later, by plan.hpp.
#pragma once

#include <exception>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/path.hpp"
#include "formats/record.hpp"

namespace portage {

/// What is wrong with a definition, and where.
struct DefinitionFault : std::exception {
  std::string path;     ///< JSON path of the fault: `columns.review_count.default`; "" for the whole
  std::string message;  ///< PostgreSQL style
  std::string hint;     ///< "" or a sentence
  bool unsupported;     ///< understood but not supported: SQLSTATE 0A000 instead of PZ001

  DefinitionFault(std::string path, std::string message, std::string hint = "", bool unsupported = false)
      : path(std::move(path)), message(std::move(message)), hint(std::move(hint)), unsupported(unsupported) {}
  const char* what() const noexcept override { return message.c_str(); }
};

enum class Format : uint8_t { json, ndjson, csv, rows };
enum class Variable : uint8_t { scope, name, path, ordinal, line, mtime };
enum class OnConflict : uint8_t { skip, overwrite, newest, merge, ask, fail };
/// Which of several items of one input with one legacy id, or match key, lands.
enum class Duplicates : uint8_t { reject, first, last };
/// How two values of a column become one; `fill`: the incoming one, unless it is null.
enum class Strategy : uint8_t { fill, existing, incoming, greatest, least, sum, unite, concat, newest, sql };

/// A value written in the definition itself, in the form that a reader would have found it in.
struct Constant {
  formats::Kind kind = formats::Kind::null;
  std::string text;
};

/// Where a value comes from: a path, a variable, a constant or an expression.
struct ValueSource {
  enum class Kind : uint8_t { path, variable, constant, sql };
  Kind kind = Kind::path;
  formats::Path path;
  Variable variable = Variable::scope;
  Constant constant;
  std::string sql;
  std::string references;            ///< the pipeline whose legacy ids the values are; "" for none
  std::optional<Constant> fallback;  ///< "default": stands in for null and missing
  std::string place;                 ///< JSON path in the definition, for messages: `columns.a.sql`
};

struct ColumnMapping {
  std::string column;  ///< name in the target
  ValueSource source;
};

struct Rule {
  std::string name;
  std::string sql;
  std::string message;  ///< "" for the default message
  bool warning = false;
  bool null_fails = false;
  std::string place;
};

/// What "merge" says about a column.
struct MergeRule {
  std::string column;
  Strategy strategy = Strategy::fill;
  std::string sql;  ///< over incoming.*, existing.* and base.*
  std::string place;
};

/// A query over the imported data that verification evaluates; see checks.hpp.
struct DataCheck {
  enum class Severity : uint8_t { warning, error, critical };
  std::string name;
  std::string sql;
  Constant expected{formats::Kind::boolean, "true"};
  bool has_expected = false;  ///< written, not by default
  Severity severity = Severity::error;
  std::string message;  ///< "" for none
  std::string place;
};

struct CsvFormat {
  char delimiter = ',';
  std::optional<char> quote = '"';
  std::optional<char> escape;  ///< none: the quote
  bool header = true;
  std::vector<std::string> columns;
  std::optional<std::string> null_string;
  std::string encoding = "UTF8";
};

struct DataVersion {
  formats::Path from;               ///< in the document, not in the item
  std::vector<std::string> accept;  ///< scalars as text
};

/// Where a run takes its data from that is given none.
struct PipelineSource {
  enum class Kind : uint8_t { files, query, table };
  Kind kind = Kind::files;
  std::string text;              ///< a path or glob, the query, or the table's name
  std::vector<std::string> key;  ///< query: column names; empty: its result is copied
  std::string cursor;            ///< a column that grows with every change; "": everything is read each time
  std::string overlap;           ///< how far before the last position is read again; "": the default
  bool overlap_is_number = false;
};

/// What becomes of migrated items that are gone from a source which was read completely.
struct MissingItems {
  enum class Fate : uint8_t { keep, mark, remove };
  Fate fate = Fate::keep;
  double at_most = 0.5;  ///< remove: of the mapped items, the share beyond which nothing is deleted
};

/// How far is read again by a cursor that is a time.
inline constexpr const char* default_overlap = "5 minutes";

/// A definition, checked as far as that goes without a database.
struct Definition {
  Format format = Format::json;
  formats::Path items;                 ///< no steps: the root
  std::vector<ValueSource> legacy_id;  ///< one or more paths or variables, or one expression
  std::vector<ColumnMapping> columns;  ///< in the order written
  std::vector<Rule> rules;
  std::vector<DataCheck> checks;
  std::string where;               ///< "" or an expression: items for which it is not true are skipped
  std::vector<std::string> match;  ///< column names
  std::vector<std::string> key;    ///< column names; empty: the primary key
  OnConflict on_conflict = OnConflict::skip;
  std::vector<MergeRule> merge;  ///< in the order written
  std::string newest_by;         ///< column name; "" for none
  Duplicates duplicates = Duplicates::reject;
  std::optional<DataVersion> data_version;
  std::string timezone;                         ///< "": the session's at creation
  std::string datestyle;                        ///< likewise
  std::map<std::string, std::string> settings;  ///< others that values hang on, by name; likewise
  std::vector<formats::Path> sensitive;
  bool scoped = true;
  bool exclusive = false;  ///< no other run on the same target
  CsvFormat csv;
  std::optional<PipelineSource> source;
  std::vector<std::string> after;  ///< pipelines that come first in a group
  std::string retain;              ///< "" or an interval: how long ended runs are known item by item
  MissingItems missing;
  bool leave_sequences = false;  ///< those of identity and serial columns stay where they are
};

/// What "settings" may name: whatever else has a say in what a text means as a value, or in an expression.
extern const std::vector<std::string> value_setting_names;

/// Reads a definition. Throws DefinitionFault.
Definition parse_definition(std::string_view json);

/// The policy of a name, nothing for an unknown one; and all names in order.
std::optional<OnConflict> on_conflict_named(std::string_view name);
extern const std::vector<std::string> on_conflict_names;

/// The words of `candidates` nearest to `word` by edit distance, as a hint: `Perhaps you meant "a" or "b".`;
/// "" when none is near.
std::string nearest_hint(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace portage
