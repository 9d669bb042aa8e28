// See rows_part.hpp. The key decides: what was there when the run was sealed is read exactly once, because
// the greatest key of that moment is the end.
#include "run/rows_part.hpp"

#include "bridge/codes.hpp"
#include "formats/item_parser.hpp"

namespace portage::run {
namespace {

using bridge::Error;
using bridge::execute;
using bridge::param;
using bridge::Result;

constexpr long page_rows = 2000;

struct KeyColumn {
  std::string name, type;
  bool builtin;
};

/// The key columns with their types; raises if the query does not have them.
std::vector<KeyColumn> key_of(const ledger::Part& part) {
  Result shape = execute("SELECT * FROM (" + part.query + "\n) q LIMIT 0", {}, true);
  std::vector<KeyColumn> key;
  std::string names;
  for (int i = 0; i < shape.shape()->natts; i++)
    (names += i ? ", " : "") += NameStr(TupleDescAttr(shape.shape(), i)->attname);
  for (const std::string& name : part.key_columns) {
    Oid type = InvalidOid;
    int32_t typmod = -1;
    for (int i = 0; i < shape.shape()->natts; i++)
      if (name == NameStr(TupleDescAttr(shape.shape(), i)->attname)) {
        type = TupleDescAttr(shape.shape(), i)->atttypid;
        typmod = TupleDescAttr(shape.shape(), i)->atttypmod;
      }
    if (!OidIsValid(type))
      throw Error(ERRCODE_UNDEFINED_COLUMN, "key column \"" + name + "\" is not in the query")
          .detail("The query has the columns " + names + ".");
    key.push_back({bridge::quoted(name),
                   bridge::guarded([=] { return format_type_with_typemod(type, typmod); }),
                   type < FirstNormalObjectId});
  }
  return key;
}

std::string column_list(const std::vector<KeyColumn>& key) {
  std::string text;
  for (const KeyColumn& column : key) (text += text.empty() ? "" : ", ") += "q." + column.name;
  return text;
}

/// The key as JSON array of texts: exact, whatever the types.
std::string key_as_text(const std::vector<KeyColumn>& key) {
  std::string text = "pg_catalog.json_build_array(";
  for (size_t i = 0; i < key.size(); i++) (text += i ? ", " : "") += "q." + key[i].name + "::text";
  return text + ")::text";
}

/// ROW(...) of a key given as parameter $n holding such a JSON array.
std::string key_from_text(const std::vector<KeyColumn>& key, const char* parameter) {
  std::string text;
  for (size_t i = 0; i < key.size(); i++)
    (text += i ? ", " : "") += "pg_catalog.json_array_element_text(" + std::string(parameter) +
                               "::pg_catalog.json, " + std::to_string(i) + ")::" + key[i].type;
  return text;
}

/// A comparison of keys: PostgreSQL's own, whatever the search_path, where the types are its own.
std::string compare(const std::vector<KeyColumn>& key, const char* op) {
  bool builtin = std::all_of(key.begin(), key.end(), [](const KeyColumn& column) { return column.builtin; });
  return builtin ? " OPERATOR(pg_catalog." + std::string(op) + ") " : " " + std::string(op) + " ";
}

/// " AND " the cursor's value from which on the part is read, as parameter; "" where it is read from the
/// beginning.
std::string from_cursor(const ledger::Part& part, const std::vector<KeyColumn>& key, const char* parameter) {
  if (!part.cursor_from) return "";
  const KeyColumn& cursor = key.front();
  return " AND q." + cursor.name + (cursor.builtin ? " OPERATOR(pg_catalog.>=) " : " >= ") + parameter +
         "::" + cursor.type;
}

class RowsReader final : public formats::Reader {
 public:
  RowsReader(const ledger::Part& part, const StoredPipeline& pipeline, const formats::Options& options,
             const ledger::Range* resume)
      : part_(part),
        pipeline_(pipeline),
        want_item_(options.want_item),
        max_item_bytes_(options.max_item_bytes),
        parser_(options.paths, options.max_depth) {
    if (resume) {
      last_ = resume->checkpoint.state;
      line_ = resume->checkpoint.line;
    }
    done_ = !part.last_key.has_value();
  }

  bool next(formats::Arena& arena, formats::Record& record) override {
    if (position_ >= page_.size()) fetch();
    if (position_ >= page_.size()) return false;
    auto& [text, key] = page_[position_++];
    record = formats::Record{};
    record.line = line_++;
    record.offset = 0;
    record.length = text.size();
    if (text.size() > max_item_bytes_) {
      record.raw = arena.copy(std::string_view(text).substr(0, formats::fault_head_bytes));
      record.fault = formats::make_fault(arena, formats::FaultCode::item_too_large);
    } else {
      record.raw = arena.copy(text);
      parser_.parse(record.raw, arena, record);
      if (!record.fault && want_item_) record.item = record.raw;
    }
    last_ = std::move(key);
    return true;
  }

  formats::Checkpoint checkpoint() const override { return {0, line_, last_}; }

 private:
  void fetch() {
    page_.clear();
    position_ = 0;
    if (done_) return;
    QuerySettings settings(part_, pipeline_);
    // By the key's index, however little the planner knows of a table that has just been filled: a sort of
    // all that is left, page after page, would be quadratic.
    bridge::Settings in_order;
    in_order.set("enable_sort", "off").set("enable_bitmapscan", "off");
    std::vector<KeyColumn> key = key_of(part_);
    std::string sql = "SELECT pg_catalog.row_to_json(q)::text, " + key_as_text(key) + " FROM (" +
                      part_.query + "\n) q WHERE ROW(" + column_list(key) + ")" + compare(key, "<=") +
                      "ROW(" + key_from_text(key, "$1") + ")";
    if (!last_.empty())
      sql +=
          " AND ROW(" + column_list(key) + ")" + compare(key, ">") + "ROW(" + key_from_text(key, "$2") + ")";
    sql += from_cursor(part_, key, "$3");
    // one more than the page: of two rows with one key, a later page would not see the second
    sql += " ORDER BY " + column_list(key) + " LIMIT " + std::to_string(page_rows + 1);
    Result rows = execute(sql, {param(*part_.last_key), param(last_), param(part_.cursor_from)}, false);
    for (size_t i = 0; i < rows.size(); i++) {
      std::string at = rows.text(i, 2);
      if (!page_.empty() && page_.back().second == at)
        throw Error(ERRCODE_CARDINALITY_VIOLATION, "the key of the query is not unique")
            .quote("Several rows have the key " + at + ".")
            .hint("Take a key that is unique and not null, or copy the result: snapshot => true.");
      page_.emplace_back(rows.text(i, 1), std::move(at));
    }
    done_ = rows.size() <= page_rows;
    if (!done_) page_.pop_back();
  }

  const ledger::Part& part_;
  const StoredPipeline& pipeline_;
  bool want_item_;
  size_t max_item_bytes_;
  formats::ItemParser parser_;
  std::vector<std::pair<std::string, std::string>> page_;
  size_t position_ = 0;
  std::string last_;
  uint64_t line_ = 1;
  bool done_ = false;
};

class RowsPart final : public OpenPart {
 public:
  RowsPart(const ledger::Part& part, const StoredPipeline& pipeline, const formats::Options& options,
           const ledger::Range* resume)
      : part_(part), pipeline_(pipeline), reader_(part_, pipeline_, options, resume) {}
  formats::Reader& reader() override { return reader_; }

 private:
  ledger::Part part_;
  StoredPipeline pipeline_;  // the plan may be compiled anew meanwhile
  RowsReader reader_;
};

}  // namespace

std::unique_ptr<OpenPart> open_rows(const ledger::Part& part, const StoredPipeline& pipeline,
                                    formats::Options options, const ledger::Range* resume) {
  return std::make_unique<RowsPart>(part, pipeline, options, resume);
}

void check_query(ledger::Part& part, const StoredPipeline& pipeline) {
  QuerySettings settings(part, pipeline);
  if (part.key_columns.empty())
    throw Error(ERRCODE_INVALID_PARAMETER_VALUE, "a query needs a key to be read by pages")
        .hint("Name a unique, not-null column: key => 'id'; or copy the result now: snapshot => true.");
  key_of(part);
}

std::optional<std::string> last_key_of(const ledger::Part& part, const StoredPipeline& pipeline) {
  QuerySettings settings(part, pipeline);
  std::vector<KeyColumn> key = key_of(part);
  std::string order, nulls;
  for (const KeyColumn& column : key) {
    (order += order.empty() ? "" : ", ") += "q." + column.name + " DESC";
    (nulls += nulls.empty() ? "" : " OR ") += "q." + column.name + " IS NULL";
  }
  // Of a table's key and cursor it is known that they are not null: no look at all its rows is needed.
  if (part.source_table.empty() &&
      execute("SELECT EXISTS (SELECT 1 FROM (" + part.query + "\n) q WHERE " + nulls + ")", {}, false)
          .boolean(0, 1))
    throw Error(ERRCODE_NULL_VALUE_NOT_ALLOWED, "the key of the query is null in some rows")
        .hint("Take a key that is unique and not null, or copy the result: snapshot => true.");
  bridge::Settings in_order;
  if (!part.source_table.empty()) in_order.set("enable_sort", "off");
  Result rows = execute("SELECT " + key_as_text(key) + " FROM (" + part.query + "\n) q WHERE true" +
                            from_cursor(part, key, "$1") + " ORDER BY " + order + " LIMIT 1",
                        {param(part.cursor_from)});
  if (rows.empty()) return std::nullopt;
  std::string last = rows.text(0, 1);
  if (!part.cursor_column.empty() && last.starts_with("[\"infinity\""))
    throw Error(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE, "the cursor of the source is infinite in some rows")
        .hint("Nothing could ever come after them: give \"" + part.cursor_column +
              "\" the time of their last change.");
  return last;
}

int64_t rows_of(const ledger::Part& part, const StoredPipeline& pipeline) {
  QuerySettings settings(part, pipeline);
  std::vector<KeyColumn> key = key_of(part);
  return execute("SELECT pg_catalog.count(*) FROM (" + part.query + "\n) q WHERE true" +
                     from_cursor(part, key, "$1"),
                 {param(part.cursor_from)})
      .bigint(0, 1);
}

}  // namespace portage::run
