// The target table as a plan sees it: its shape, keys and everything that decides how rows may be written to
// it, copied out of the catalogs so that it outlives the transaction. Knows nothing of definitions or items.
#pragma once

#include "bridge/scope.hpp"

namespace portage {

struct TargetColumn {
  int attnum;
  std::string name;
  Oid type;
  int32_t typmod;
  Oid collation;
  bool not_null;
  bool has_default;  ///< an expression, a domain's default, or an identity
  char identity;     ///< 'a'lways, by 'd'efault or 0
  char generated;    ///< 's'tored, 'v'irtual or 0
  bool dropped;
  bool by_value;
  int16_t length;
  char align;
};

struct UniqueIndex {
  Oid oid;                      ///< REINDEX CONCURRENTLY gives it another
  std::string name;             ///< of the index
  std::string constraint;       ///< "" where the index belongs to none
  std::vector<int> attnums;     ///< key columns in the index's order; empty where there are expressions
  std::vector<Oid> equality;    ///< equality operator per key column (equalimage of the index's opclass)
  std::vector<Oid> collations;  ///< per key column
  bool primary, immediate, partial, expressions, valid;
  bool nulls_not_distinct;
  std::string terms;  ///< node strings of expressions and predicate; "" where there are none

  /// The same by all that is defined, if not by its OID.
  bool is_like(const UniqueIndex& other) const;
};

struct ForeignKey {
  Oid oid;
  std::string name;
  std::vector<int> attnums;  ///< referencing columns
  Oid parent;
  std::vector<int> parent_attnums;
  std::vector<Oid> equality;  ///< parent column = referencing column, per pair
  char match;                 ///< 's'imple, 'f'ull
  bool deferrable, deferred;
};

struct TargetCheck {
  std::string name;
  std::string expression;    ///< node string, see stringToNode()
  std::vector<int> attnums;  ///< columns mentioned; 0 for a whole-row reference
  bool validated;
};

/// A sequence from which defaults draw, other than those of identities.
struct DefaultSequence {
  Oid oid;
  std::string name;
};

/// Which triggers fire on rows and statements of ours.
struct TargetTriggers {
  bool insert_before_row, insert_after_row, insert_instead_row, insert_before_statement,
      insert_after_statement;
  bool update_before_row, update_after_row, update_instead_row, update_before_statement,
      update_after_statement;
  bool transition_tables;

  bool operator==(const TargetTriggers&) const = default;
};

/// A description that stays valid over transactions. Copies share the tuple descriptor.
struct Target {
  Oid oid = InvalidOid;
  std::string schema, name;
  Oid owner = InvalidOid;
  char relkind = 0;
  int natts = 0;
  std::vector<TargetColumn> columns;  ///< by attnum - 1, dropped ones included
  Oid key_index = InvalidOid;         ///< invalid for views and foreign tables, and while it is away
  std::vector<int> key;               ///< attnums in the index's order
  std::vector<UniqueIndex> unique_indexes;
  std::vector<ForeignKey> foreign_keys;
  std::vector<TargetCheck> checks;
  TargetTriggers triggers{};
  bool has_exclusion = false;
  bool has_rules = false;
  bool row_security = false;  ///< enabled on the table, for whomever: see row_security_active()
  bool is_partition = false, has_children = false;
  std::string deferrable, deferred;  ///< constraints that can be, or are, deferred, for SET CONSTRAINTS
  std::vector<DefaultSequence> default_sequences;
  std::shared_ptr<bridge::Memory> memory;
  TupleDesc shape = nullptr;  ///< with constraints; lives in `memory`

  bool ordinary() const { return relkind == RELKIND_RELATION; }
  std::string quoted_name() const;
  /// The column of that name, or nullptr.
  const TargetColumn* column(std::string_view name) const;
  const TargetColumn& column(int attnum) const { return columns[attnum - 1]; }
  std::vector<std::string> column_names() const;  ///< live ones
  /// The attnums, ascending, of those columns that (still) exist.
  std::vector<int> attnums(const std::vector<std::string>& names) const;
};

/// Describes a table. `key_columns`: the definition's "key" (empty: the primary key); `proposal`: columns for
/// the DDL that the hint proposes when there is no usable key; `absent_key`: the columns of the key whose
/// index is away for a while. Throws PZ002, or 42P01 when the table is gone. Needs a
/// connected SPI.
Target describe_target(Oid table, const std::vector<std::string>& key_columns = {},
                       const std::vector<std::string>& proposal = {},
                       const std::vector<std::string>& absent_key = {});

/// True while the table still is what was described: names, types, constraints, keys and triggers. Indexes
/// that have been rebuilt concurrently are known by their new OIDs after that. Cheap.
bool unchanged(Target& target);

/// What differs now, in words, several separated by "; "; "" if nothing.
std::string difference(const Target& target);

/// Whether row level security applies to this role on this table.
bool row_security_active(const Target& target, Oid role);

}  // namespace portage
