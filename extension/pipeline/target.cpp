// See target.hpp. Reads the relation cache, which does the catalog work; what it hands out is copied at once.
#include "pipeline/target.hpp"

#include "bridge/codes.hpp"
#include "bridge/spi.hpp"
#include "pipeline/target_reader.hpp"

extern "C" {
#include "utils/rls.h"
}

namespace portage {

using bridge::Error;
using bridge::format;
using bridge::guarded;

namespace {

std::string column_list(const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + bridge::quoted(name);
  return list;
}

bool all_not_null(const Target& target, const std::vector<int>& attnums) {
  return std::all_of(attnums.begin(), attnums.end(),
                     [&](int attnum) { return target.column(attnum).not_null; });
}

bool usable_as_key(const Target& target, const UniqueIndex& index) {
  return index.immediate && !index.partial && !index.expressions && index.valid &&
         all_not_null(target, index.attnums);
}

std::vector<std::string> names_of(const Target& target, const std::vector<int>& attnums) {
  std::vector<std::string> names;
  for (int attnum : attnums) names.push_back(target.column(attnum).name);
  return names;
}

/// What the user could do to get a usable key, as SQL or as a definition key.
std::string key_hint(const Target& target, const std::vector<std::string>& wanted, bool named) {
  std::string table = "ALTER TABLE " + target.quoted_name();
  if (named) {
    std::string hint = "Run: ";
    for (const std::string& name : wanted)
      if (auto* column = target.column(name); column && !column->not_null)
        hint += table + " ALTER COLUMN " + bridge::quoted(name) + " SET NOT NULL; ";
    return hint + table + " ADD UNIQUE (" + column_list(wanted) + ");";
  }
  std::string hint = "Run: " + table, columns = wanted.empty() ? "..." : column_list(wanted);
  for (const UniqueIndex& index : target.unique_indexes)
    if (index.primary) {  // there is one, but it is deferrable
      hint += " DROP CONSTRAINT " + bridge::quoted(index.name) + ",";
      columns = column_list(names_of(target, index.attnums));
    }
  hint += " ADD PRIMARY KEY (" + columns + ");";
  for (const UniqueIndex& index : target.unique_indexes)
    if (usable_as_key(target, index)) {
      std::string list;
      for (const std::string& name : names_of(target, index.attnums))
        list += (list.empty() ? "\"" : ", \"") + name + "\"";
      return hint + " Or name a unique constraint in the definition: \"key\": [" + list + "].";
    }
  return hint;
}

std::vector<int> attnums_of(const Target& target, const std::vector<std::string>& names) {
  std::vector<int> attnums;
  for (const std::string& name : names) {
    auto* column = target.column(name);
    if (!column)
      throw Error(ERRCODE_UNDEFINED_COLUMN, format("column \"%s\" of relation \"%s\" does not exist",
                                                   name.c_str(), target.name.c_str()));
    attnums.push_back(column->attnum);
  }
  return attnums;
}

void choose_key(Target& target, const std::vector<std::string>& key_columns,
                const std::vector<std::string>& proposal, const std::vector<std::string>& absent_key) {
  std::vector<int> wanted = attnums_of(target, key_columns);
  if (target.relkind == RELKIND_VIEW || target.relkind == RELKIND_FOREIGN_TABLE) {
    // Nothing can enforce a key there; the author's word is all there is.
    if (wanted.empty())
      throw Error(codes::unusable_target, format("\"%s\" has no key", target.name.c_str()))
          .detail("Views and foreign tables cannot have a unique index.")
          .hint("Name the identifying columns in the definition: \"key\": [...].");
    target.key = wanted;
    return;
  }
  std::vector<int> sorted = wanted;
  std::sort(sorted.begin(), sorted.end());
  std::string why = wanted.empty()
                        ? "It has no primary key."
                        : "No unique constraint covers exactly (" + column_list(key_columns) + ").";
  for (const UniqueIndex& index : target.unique_indexes) {
    std::vector<int> covered = index.attnums;
    std::sort(covered.begin(), covered.end());
    if (wanted.empty() ? !index.primary : covered != sorted) continue;
    if (usable_as_key(target, index)) {
      target.key_index = index.oid;
      target.key = index.attnums;
      return;
    }
    const char* fault = !index.immediate ? "is deferrable"
                        : index.partial  ? "is partial"
                        : !index.valid   ? "is not valid"
                                         : "has columns that may be null";
    why = "Unique index " + bridge::quoted(index.name) + " " + fault + ".";
  }
  if (!absent_key.empty()) {
    target.key = attnums_of(target, absent_key);
    return;
  }
  throw Error(codes::unusable_target, format("table \"%s\" has no usable key", target.name.c_str()))
      .detail(why)
      .hint(key_hint(target, wanted.empty() ? proposal : key_columns, !wanted.empty()));
}

void check_kind(const Target& target) {
  switch (target.relkind) {
    case RELKIND_RELATION:
    case RELKIND_PARTITIONED_TABLE:
    case RELKIND_FOREIGN_TABLE:
      return;
    case RELKIND_VIEW:
      if (target.triggers.insert_instead_row) return;
      throw Error(codes::unusable_target,
                  format("view \"%s\" has no INSTEAD OF INSERT trigger", target.name.c_str()))
          .hint("Import into the table behind the view, or give the view an INSTEAD OF trigger.");
    default:
      throw Error(codes::unusable_target, format("\"%s\" is not a table", target.name.c_str()))
          .hint(
              "The target is a table, a partitioned table, a foreign table or a view with INSTEAD OF "
              "triggers.");
  }
}

std::string type_name(const TargetColumn& column) {
  Oid type = column.type;
  int32_t typmod = column.typmod;
  return guarded([=] { return static_cast<const char*>(format_type_with_typemod(type, typmod)); });
}

/// The differences of one column, each ended by "; ".
std::string column_difference(const TargetColumn& before, const TargetColumn& now) {
  std::string column = "column " + bridge::quoted(before.name);
  if (now.dropped) return before.dropped ? "" : column + " was dropped; ";
  std::string text;
  if (now.name != before.name) text += column + " was renamed to " + bridge::quoted(now.name) + "; ";
  if (now.type != before.type || now.typmod != before.typmod)
    text += column + " was of type " + type_name(before) + " and is of type " + type_name(now) + "; ";
  if (now.collation != before.collation) text += column + " has another collation; ";
  if (now.not_null != before.not_null)
    text += column + (now.not_null ? " is now NOT NULL; " : " may now be null; ");
  if (now.generated != before.generated || now.identity != before.identity ||
      now.has_default != before.has_default)
    text += column + " has another default; ";
  return text;
}

/// What the relation cache does not know: constraints that can be deferred, of the table and of those that
/// refer to it, and the sequences of its defaults. A constraint in a schema that is closed to the role cannot
/// be named by it: the commit judges that one.
void read_catalogs(Target& target) {
  bridge::Settings plain_path;
  plain_path.set("search_path", "pg_catalog, pg_temp");
  static const bridge::Statement constraints(
      "SELECT string_agg(DISTINCT format('%I.%I', n.nspname, c.conname), ', '), "
      "string_agg(DISTINCT format('%I.%I', n.nspname, c.conname), ', ') FILTER (WHERE c.condeferred) "
      "FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace "
      "WHERE c.condeferrable AND (c.conrelid = $1 OR c.confrelid = $1) AND has_schema_privilege(n.oid, "
      "'USAGE')");
  bridge::Result deferrable = constraints({bridge::param_oid(target.oid)});
  target.deferrable = deferrable.text(0, 1);
  target.deferred = deferrable.text(0, 2);
  if (std::none_of(target.columns.begin(), target.columns.end(), [](const TargetColumn& column) {
        return column.has_default && !column.identity && !column.generated;
      }))
    return;
  static const bridge::Statement sequences(
      "SELECT DISTINCT s.oid, s.oid::pg_catalog.regclass::text FROM pg_catalog.pg_attrdef a "
      "JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = "
      "a.oid JOIN pg_catalog.pg_class s ON s.oid = d.refobjid AND s.relkind = 'S' WHERE a.adrelid = $1");
  bridge::Result drawn = sequences({bridge::param_oid(target.oid)});
  for (size_t i = 0; i < drawn.size(); i++)
    target.default_sequences.push_back({drawn.oid(i, 1), drawn.text(i, 2)});
}

template <class T>
std::string set_difference(const std::vector<T>& before, const std::vector<T>& now, const char* what) {
  auto same = [](const T& a, const T& b) {
    if constexpr (std::is_same_v<T, TargetCheck>)
      return a.name == b.name && a.expression == b.expression;
    else if constexpr (std::is_same_v<T, UniqueIndex>)
      return a.is_like(b);
    else
      return a.oid == b.oid;
  };
  // An index that is being built, or is left of one that could not be, is no rule of the table yet.
  auto counts = [](const T& one) {
    if constexpr (std::is_same_v<T, UniqueIndex>) return one.valid;
    return true;
  };
  auto missing = [&](const std::vector<T>& from, const std::vector<T>& in, const char* fate) {
    std::string text;
    for (const T& one : from)
      if (counts(one) && std::none_of(in.begin(), in.end(),
                                      [&](const T& other) { return counts(other) && same(one, other); }))
        text += std::string(what) + " " + bridge::quoted(one.name) + fate;
    return text;
  };
  return missing(before, now, " is gone; ") + missing(now, before, " is new; ");
}

std::string difference(const Target& before, const Target& now) {
  std::string text;
  if (now.name != before.name || now.schema != before.schema)
    text += "table " + before.quoted_name() + " is now " + now.quoted_name() + "; ";
  for (int i = 0; i < std::min(before.natts, now.natts); i++)
    text += column_difference(before.columns[i], now.columns[i]);
  for (int i = before.natts; i < now.natts; i++)
    if (!now.columns[i].dropped) text += "column " + bridge::quoted(now.columns[i].name) + " is new; ";
  text += set_difference(before.unique_indexes, now.unique_indexes, "unique index");
  text += set_difference(before.foreign_keys, now.foreign_keys, "foreign key");
  text += set_difference(before.checks, now.checks, "check constraint");
  if (now.triggers != before.triggers) text += "other triggers fire; ";
  if (now.has_exclusion != before.has_exclusion) text += "exclusion constraints were added or dropped; ";
  if (now.has_rules != before.has_rules) text += "rules were added or dropped; ";
  if (now.row_security != before.row_security)
    text += now.row_security ? "row level security is now on; " : "row level security is now off; ";
  if (now.relkind != before.relkind || now.has_children != before.has_children)
    text += "the kind of the table is another; ";
  if (!text.empty()) text.resize(text.size() - 2);
  return text;
}

/// Of two descriptions that do not differ: the OIDs that the indexes have now.
void adopt_indexes(Target& target, const Target& now) {
  for (UniqueIndex& index : target.unique_indexes) {
    if (!index.valid) continue;
    auto found = std::find_if(now.unique_indexes.begin(), now.unique_indexes.end(),
                              [&](const UniqueIndex& other) { return other.valid && index.is_like(other); });
    if (target.key_index == index.oid) target.key_index = found->oid;
    index.oid = found->oid;
  }
}

}  // namespace

bool UniqueIndex::is_like(const UniqueIndex& other) const {
  auto all = [](const UniqueIndex& i) {
    return std::tie(i.name, i.constraint, i.attnums, i.equality, i.collations, i.primary, i.immediate,
                    i.partial, i.expressions, i.nulls_not_distinct, i.terms);
  };
  return all(*this) == all(other);
}

std::string Target::quoted_name() const { return bridge::quoted_name(schema, name); }

const TargetColumn* Target::column(std::string_view wanted) const {
  for (const TargetColumn& column : columns)
    if (!column.dropped && column.name == wanted) return &column;
  return nullptr;
}

std::vector<int> Target::attnums(const std::vector<std::string>& names) const {
  std::vector<int> found;
  for (const std::string& name : names)
    if (const TargetColumn* one = column(name)) found.push_back(one->attnum);
  std::sort(found.begin(), found.end());
  return found;
}

std::vector<std::string> Target::column_names() const {
  std::vector<std::string> names;
  for (const TargetColumn& column : columns)
    if (!column.dropped) names.push_back(column.name);
  return names;
}

Target describe_target(Oid table, const std::vector<std::string>& key_columns,
                       const std::vector<std::string>& proposal, const std::vector<std::string>& absent_key) {
  Target target = read_target(table);
  check_kind(target);
  choose_key(target, key_columns, proposal, absent_key);
  read_catalogs(target);
  return target;
}

bool unchanged(Target& target) {
  if (still_same(target)) return true;
  if (!exists(target.oid)) return false;
  Target now = read_target(target.oid);
  if (!difference(target, now).empty()) return false;
  adopt_indexes(target, now);
  return true;
}

std::string difference(const Target& before) {
  if (!exists(before.oid)) return "table " + before.quoted_name() + " was dropped";
  return difference(before, read_target(before.oid));
}

bool row_security_active(const Target& target, Oid role) {
  Oid table = target.oid;
  return guarded([=] { return check_enable_rls(table, role, true) == RLS_ENABLED; });
}

}  // namespace portage
