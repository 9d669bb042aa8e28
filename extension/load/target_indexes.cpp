// See target_indexes.hpp. The catalogs are read under an empty search_path, so that definitions name their
// schemas.
#include "load/target_indexes.hpp"

#include "bridge/spi.hpp"
#include "ledger/arrays.hpp"

namespace portage::load {

using bridge::execute;
using ledger::DeferredIndex;

namespace {

class PlainPath {
 public:
  PlainPath() { settings_.set("search_path", "pg_catalog, pg_temp"); }
  bridge::Settings& settings() { return settings_; }

 private:
  bridge::Settings settings_;
};

/// Why an index `i` (its relation `c`, its constraint `k`, its tablespace `s`) has to stay.
constexpr const char* stays =
    "CASE WHEN NOT (i.indisvalid AND i.indisready AND i.indislive) THEN 'it is not valid' "
    "WHEN i.indisexclusion THEN 'it belongs to an exclusion constraint' "
    "WHEN EXISTS (SELECT FROM pg_constraint f WHERE f.contype = 'f' AND f.conindid = i.indexrelid) THEN 'a "
    "foreign key refers to it' "
    "WHEN i.indisreplident THEN 'it is the replica identity of the table' "
    "WHEN i.indisprimary AND t.relreplident = 'd' AND (EXISTS (SELECT FROM pg_publication p WHERE "
    "p.puballtables) OR EXISTS (SELECT FROM pg_publication_rel p WHERE p.prrelid = t.oid) OR EXISTS (SELECT "
    "FROM pg_publication_namespace p WHERE p.pnnspid = t.relnamespace)) THEN 'it is the replica identity of "
    "a "
    "published table' "
    "WHEN i.indisclustered THEN 'the table is to be clustered by it' "
    "WHEN c.relispartition OR k.conparentid <> 0 OR NOT k.conislocal THEN 'it belongs to an index of a "
    "parent' "
    "WHEN EXISTS (SELECT FROM pg_depend d WHERE d.deptype IN ('e', 'x') AND ((d.classid = "
    "'pg_class'::regclass "
    "AND d.objid = i.indexrelid) OR (d.classid = 'pg_constraint'::regclass AND d.objid = k.oid))) THEN 'an "
    "extension has it' "
    "WHEN EXISTS (SELECT FROM pg_depend d WHERE d.deptype <> 'i' AND ((d.refclassid = 'pg_class'::regclass "
    "AND "
    "d.refobjid = i.indexrelid) OR (d.refclassid = 'pg_constraint'::regclass AND d.refobjid = k.oid))) THEN "
    "'other objects depend on it' "
    "WHEN EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = i.indexrelid AND coalesce(a.attstattarget, "
    "-1) >= 0) THEN 'it has statistics targets of its own' "
    "WHEN s.oid IS NOT NULL AND NOT has_tablespace_privilege(s.oid, 'CREATE') THEN 'the role may not create "
    "in its tablespace' "
    // what is equal by the column's collation is all that can be looked for
    "WHEN i.indisunique AND EXISTS (SELECT FROM unnest(i.indkey::int2[], i.indcollation::oid[]) AS x "
    "(attnum, "
    "id) JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = x.attnum JOIN pg_collation l "
    "ON "
    "l.oid = x.id WHERE x.id <> a.attcollation AND NOT l.collisdeterministic) THEN 'it has a "
    "collation of its own' END";

/// The definition of the index as it stands; "" if there is no valid one of that name.
std::string definition_of(const DeferredIndex& index) {
  bridge::Result rows = execute(
      "SELECT pg_get_indexdef(c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
      "JOIN pg_index i ON i.indexrelid = c.oid WHERE n.nspname = $1 AND c.relname = $2 AND i.indisvalid",
      {bridge::param(index.schema), bridge::param(index.name)});
  return rows.empty() ? "" : rows.text(0, 1);
}

bool has_constraint(const Target& target, const std::string& name) {
  return !execute("SELECT FROM pg_constraint WHERE conrelid = $1 AND conname = $2",
                  {bridge::param_oid(target.oid), bridge::param(name)})
              .empty();
}

}  // namespace

std::vector<DeferredIndex> indexes_of(const Target& target) {
  PlainPath path;
  static const std::string sql =
      std::string(
          "SELECT n.nspname::text, c.relname::text, i.indisunique, pg_get_indexdef(i.indexrelid), "
          "k.conname::text, CASE k.contype WHEN 'p' THEN 'PRIMARY KEY' ELSE 'UNIQUE' END || CASE WHEN "
          "k.condeferrable THEN ' DEFERRABLE' ELSE '' END || CASE WHEN k.condeferred THEN ' INITIALLY "
          "DEFERRED' ELSE '' END, s.spcname::text, obj_description(i.indexrelid, 'pg_class'), "
          "obj_description(k.oid, 'pg_constraint'), ARRAY(SELECT a.attname::text FROM "
          "generate_series(0, i.indnkeyatts - 1) AS x (n) JOIN pg_attribute a ON a.attrelid = i.indrelid AND "
          "a.attnum = i.indkey[x.n] ORDER BY x.n), ") +
      stays +
      " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid JOIN "
      "pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND "
      "k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x') LEFT JOIN pg_tablespace s ON s.oid = "
      "c.reltablespace WHERE i.indrelid = $1 ORDER BY i.indexrelid";
  bridge::Result rows = execute(sql, {bridge::param_oid(target.oid)});
  std::vector<DeferredIndex> indexes;
  for (size_t i = 0; i < rows.size(); i++) {
    DeferredIndex one;
    one.schema = rows.text(i, 1);
    one.name = rows.text(i, 2);
    one.is_unique = rows.boolean(i, 3);
    one.definition = rows.text(i, 4);
    one.constraint = rows.text(i, 5);
    if (!one.constraint.empty()) one.constraint_definition = rows.text(i, 6);
    one.tablespace = rows.text(i, 7);
    one.comment = rows.maybe_text(i, 8);
    one.constraint_comment = rows.maybe_text(i, 9);
    if (one.is_unique) one.columns = ledger::names_of(rows, i, 10);
    one.stays = rows.text(i, 11);
    one.position = static_cast<int32_t>(i + 1);
    indexes.push_back(std::move(one));
  }
  return indexes;
}

bool draws_apart(const Target& target, const std::vector<int>& attnums) {
  PlainPath path;
  // A sequence belongs to an identity column, and a default depends on the one that it asks.
  return execute(
             "SELECT EXISTS (SELECT FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND "
             "d.adnum = a.attnum CROSS JOIN LATERAL pg_get_expr(d.adbin, d.adrelid) AS drawn WHERE "
             "a.attrelid = "
             "$1 AND a.attnum = ANY ($2) AND (a.atttypid = 'uuid'::regtype AND drawn = 'gen_random_uuid()' "
             "OR "
             "a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) AND (a.attidentity <> '' OR "
             "drawn ~ '^nextval\\(''[^'']*''::regclass\\)$') AND NOT EXISTS (SELECT FROM pg_depend x JOIN "
             "pg_sequence s ON s.seqrelid IN (x.objid, x.refobjid) WHERE s.seqcycle AND ((x.classid = "
             "'pg_class'::regclass AND x.deptype = 'i' AND x.refclassid = 'pg_class'::regclass AND "
             "x.refobjid = "
             "a.attrelid AND x.refobjsubid = a.attnum) OR (x.classid = 'pg_attrdef'::regclass AND x.objid = "
             "d.oid "
             "AND x.refclassid = 'pg_class'::regclass)))))",
             {bridge::param_oid(target.oid), bridge::param_int8_array({attnums.begin(), attnums.end()})})
      .boolean(0, 1);
}

void drop_index(const Target& target, const DeferredIndex& index) {
  PlainPath path;
  if (index.constraint.empty())
    execute("DROP INDEX " + bridge::quoted_name(index.schema, index.name) + " RESTRICT");
  else
    execute("ALTER TABLE " + target.quoted_name() + " DROP CONSTRAINT " + bridge::quoted(index.constraint) +
            " RESTRICT");
}

void create_index(const Target& target, const DeferredIndex& index) {
  PlainPath path;
  std::string name = bridge::quoted_name(index.schema, index.name);
  if (definition_of(index) != index.definition) {  // nobody has made it by hand
    path.settings().set("default_tablespace", index.tablespace);
    execute(index.definition);
  }
  if (!index.constraint.empty() && !has_constraint(target, index.constraint)) {
    execute(
        "ALTER TABLE " + target.quoted_name() + " ADD CONSTRAINT " + bridge::quoted(index.constraint) + " " +
        (index.constraint_definition.starts_with("PRIMARY KEY") ? "PRIMARY KEY" : "UNIQUE") +
        " USING INDEX " + bridge::quoted(index.name) +
        index.constraint_definition.substr(index.constraint_definition.starts_with("PRIMARY KEY") ? 11 : 6));
    if (index.constraint_comment)
      execute("COMMENT ON CONSTRAINT " + bridge::quoted(index.constraint) + " ON " + target.quoted_name() +
              " IS " + bridge::quoted_literal(*index.constraint_comment));
  }
  if (index.comment) execute("COMMENT ON INDEX " + name + " IS " + bridge::quoted_literal(*index.comment));
}

}  // namespace portage::load
