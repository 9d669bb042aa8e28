// See source_table.hpp.
#include "pipeline/source_table.hpp"

#include "bridge/codes.hpp"
#include "bridge/spi.hpp"
#include "pipeline/expression.hpp"

namespace portage {

using bridge::Error;

SourceTable source_table(Oid table) {
  bridge::Settings plain_path;
  plain_path.set("search_path", "pg_catalog, pg_temp");
  bridge::Result named = bridge::execute(
      "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c "
      "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1",
      {bridge::param_oid(table)});
  if (named.empty()) throw Error(ERRCODE_UNDEFINED_TABLE, "the source table does not exist");
  SourceTable source{table, named.text(0, 1), {}};
  bridge::Result key = bridge::execute(
      "SELECT a.attname::text FROM pg_catalog.pg_index i CROSS JOIN LATERAL "
      "pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, position) "
      "JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum "
      "WHERE i.indrelid = $1 AND i.indisprimary AND k.position <= i.indnkeyatts ORDER BY k.position",
      {bridge::param_oid(table)});
  for (size_t i = 0; i < key.size(); i++) source.key.push_back(key.text(i, 1));
  if (source.key.empty())
    throw Error(ERRCODE_INVALID_PARAMETER_VALUE, "table " + source.name + " has no primary key to be read by")
        .hint("Use a query: SELECT * FROM " + source.name + ", with a key, or copied as a snapshot.");
  return source;
}

SourceTable source_table(const std::string& name) {
  bridge::Result found =
      bridge::execute("SELECT pg_catalog.to_regclass($1)::pg_catalog.oid", {bridge::param(name)});
  if (found.is_null(0, 1))
    throw Error(ERRCODE_UNDEFINED_TABLE, "relation \"" + name + "\" does not exist")
        .hint("Write the schema, too: \"schema.name\".");
  return source_table(found.oid(0, 1));
}

namespace {

Error fault(const char* place, std::string message, const std::string& hint = "") {
  return Error(codes::invalid_definition, std::move(message))
      .detail(std::string("at source.") + place)
      .hint(hint);
}

bool is_integer(Oid type) { return type == INT2OID || type == INT4OID || type == INT8OID; }

/// The names and types of what a query gives.
std::vector<std::pair<std::string, Oid>> columns_of(const std::string& query) {
  std::vector<std::pair<std::string, Oid>> columns;
  bridge::Result shape = bridge::execute("SELECT * FROM (" + query + "\n) q LIMIT 0", {}, true);
  for (int i = 0; i < shape.shape()->natts; i++) {
    Oid type = TupleDescAttr(shape.shape(), i)->atttypid;
    columns.emplace_back(NameStr(TupleDescAttr(shape.shape(), i)->attname),
                         bridge::guarded([=] { return getBaseType(type); }));
  }
  return columns;
}

Oid type_named(const std::vector<std::pair<std::string, Oid>>& columns, const std::string& name,
               const char* place) {
  std::vector<std::string> names;
  for (const auto& [column, type] : columns) {
    if (column == name) return type;
    names.push_back(column);
  }
  throw fault(place, "column \"" + name + "\" is not in the source", nearest_hint(name, names));
}

void check_overlap(const PipelineSource& source, Oid type, bool known_table) {
  if (is_integer(type)) {
    if (!source.overlap.empty() &&
        (!source.overlap_is_number || source.overlap.find_first_not_of("0123456789") != std::string::npos))
      throw fault("overlap",
                  "the \"overlap\" of a cursor that is a number must be a whole number of at least 0");
    if (source.overlap.empty() && !known_table)
      throw fault(
          "cursor", "a query whose cursor is a number needs an \"overlap\"",
          "Of a table it is known who is still writing; the rows of a query may come late: say by how much "
          "their numbers can lie behind, such as \"overlap\": 1000.");
    return;
  }
  if (source.overlap.empty()) return;
  if (source.overlap_is_number)
    throw fault("overlap", "the \"overlap\" of a cursor that is a time must be an interval",
                std::string("Such as \"") + default_overlap + "\".");
  try {
    bridge::Result good =
        bridge::execute("SELECT $1::pg_catalog.interval OPERATOR(pg_catalog.>=) pg_catalog.make_interval()",
                        {bridge::param(source.overlap)});
    if (good.boolean(0, 1)) return;
  } catch (const Error& error) {
    throw at_place(error, "source.overlap");
  }
  throw fault("overlap", "\"overlap\" must not be negative");
}

/// What the catalog says of a table's column as a cursor.
struct CursorColumn {
  bool unique;
};
CursorColumn cursor_column(const SourceTable& table, const std::string& name) {
  bridge::Settings plain_path;
  plain_path.set("search_path", "pg_catalog, pg_temp");
  bridge::Result found = bridge::execute(
      "SELECT a.attnotnull, EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisunique "
      "AND "
      "i.indisvalid AND i.indpred IS NULL AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum), (SELECT "
      "s.seqrelid::regclass::text FROM pg_sequence s WHERE s.seqcache > 1 AND (s.seqrelid IN (SELECT d.objid "
      "FROM "
      "pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND "
      "d.refobjid = "
      "a.attrelid AND d.refobjsubid = a.attnum) OR s.seqrelid IN (SELECT d.refobjid FROM pg_attrdef f JOIN "
      "pg_depend d "
      "ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_class'::regclass "
      "WHERE f.adrelid "
      "= a.attrelid AND f.adnum = a.attnum)) LIMIT 1) FROM pg_attribute a WHERE a.attrelid = $1 AND "
      "a.attname = $2 AND "
      "a.attnum > 0 AND NOT a.attisdropped",
      {bridge::param_oid(table.oid), bridge::param(name)});
  if (!found.boolean(0, 1))
    throw fault("cursor", "cursor column \"" + name + "\" of " + table.name + " is not NOT NULL",
                "ALTER TABLE " + table.name + " ALTER COLUMN " + bridge::quoted(name) + " SET NOT NULL;");
  if (!found.is_null(0, 3))
    throw fault(
        "cursor", "sequence " + found.text(0, 3) + " is cached, so that its numbers come in no order",
        "ALTER SEQUENCE " + found.text(0, 3) + " CACHE 1; or read the table by a query with an \"overlap\".");
  return {found.boolean(0, 2)};
}

}  // namespace

SourceRows source_rows(const PipelineSource& source) {
  bool is_table = source.kind == PipelineSource::Kind::table;
  SourceRows rows;
  try {
    if (is_table) {
      SourceTable table = source_table(source.text);
      rows = {"SELECT * FROM " + table.name, table.name, table.key, "", table.oid};
    } else {
      rows = {source.text, "", source.key, "", InvalidOid};
    }
  } catch (const Error& error) {
    throw at_place(error, "source.table");
  }
  std::vector<std::pair<std::string, Oid>> columns;
  try {
    columns = columns_of(rows.query);
  } catch (const Error& error) {
    throw at_place(error, is_table ? "source.table" : "source.query");
  }
  for (const std::string& name : rows.key) type_named(columns, name, "key");
  if (source.cursor.empty()) return rows;
  Oid type = type_named(columns, source.cursor, "cursor");
  if (!is_integer(type) && type != TIMESTAMPOID && type != TIMESTAMPTZOID && type != DATEOID)
    throw fault("cursor", "cursor column \"" + source.cursor + "\" is neither a whole number nor a time",
                "It must grow with every row that is new or changed.");
  check_overlap(source, type, is_table);
  rows.cursor_type = bridge::guarded([=] { return format_type_be(type); });
  bool unique = is_table && cursor_column({rows.table_oid, rows.table, {}}, source.cursor).unique;
  std::erase(rows.key, source.cursor);
  if (unique) rows.key.clear();
  rows.key.insert(rows.key.begin(), source.cursor);
  return rows;
}

void try_source(const Plan& plan) {
  const std::optional<PipelineSource>& source = plan.definition().source;
  if (source && source->kind != PipelineSource::Kind::files) source_rows(*source);
}

}  // namespace portage
