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

void try_source(const Plan& plan) {
  if (!plan.definition().source) return;
  const PipelineSource& source = *plan.definition().source;
  if (source.kind == PipelineSource::Kind::table) {
    try {
      source_table(source.text);
    } catch (const Error& error) {
      throw at_place(error, "source.table");
    }
  }
  if (source.kind != PipelineSource::Kind::query) return;
  std::vector<std::string> columns;
  try {
    bridge::Result shape = bridge::execute("SELECT * FROM (" + source.text + "\n) q LIMIT 0", {}, true);
    for (int i = 0; i < shape.shape()->natts; i++)
      columns.emplace_back(NameStr(TupleDescAttr(shape.shape(), i)->attname));
  } catch (const Error& error) {
    throw at_place(error, "source.query");
  }
  for (const std::string& name : source.key)
    if (std::find(columns.begin(), columns.end(), name) == columns.end())
      throw Error(codes::invalid_definition, "key column \"" + name + "\" is not in the query")
          .detail("at source.key")
          .hint(nearest_hint(name, columns));
}

}  // namespace portage
