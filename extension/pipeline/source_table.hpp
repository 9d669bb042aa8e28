// The definition's "source" as far as it lies in the database: tables and queries, looked at as the current
// user. Knows nothing of runs and parts.
#pragma once

#include "pipeline/plan.hpp"

namespace portage {

/// A table that items are read from.
struct SourceTable {
  Oid oid = InvalidOid;
  std::string name;              ///< schema.name, quoted
  std::vector<std::string> key;  ///< of the primary key
};

/// Throws 42P01 for what is no relation, 22023 where it has no primary key to be read by.
SourceTable source_table(Oid table);
/// The same by a name, which is looked up under the search_path that is set.
SourceTable source_table(const std::string& name);

/// How a source's rows are read: a table or query of a definition as it is now.
struct SourceRows {
  std::string query;
  std::string table;             ///< schema.name, quoted; "" for a query
  std::vector<std::string> key;  ///< the order of reading; a cursor comes first, and alone where it is unique
  std::string cursor_type;       ///< its type's name; "": there is no cursor
  Oid table_oid = InvalidOid;
};
/// Throws PZ001 or PostgreSQL's own code, with the place in the detail.
SourceRows source_rows(const PipelineSource&);

/// Whether the definition's source can be what it says, as far as that can be known before a run: PZ001 or
/// PostgreSQL's own code, with the place in the detail. Files may come later.
void try_source(const Plan&);

}  // namespace portage
