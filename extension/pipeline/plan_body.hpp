// What a Plan is made of. Shared by the files that compile, run and read it; nobody else includes this.
#pragma once

#include "pipeline/convert.hpp"
#include "pipeline/expression.hpp"
#include "pipeline/hash.hpp"
#include "pipeline/plan.hpp"

namespace portage {

/// The variables of expressions over items, by attnum.
enum ItemVariable { item_json = 1, item_scope, item_name, item_path, item_ordinal, item_line, item_mtime };
inline constexpr int item_variables = 7;

/// Where a value is found, made ready: a field of the record, a variable or a constant.
struct Source {
  ValueSource::Kind kind;
  int field;  ///< index into Record::fields
  Variable variable;
  formats::Field constant;
  bool has_fallback;
  formats::Field fallback;
};

/// A mapped column. Plain; the texts belong to the definition.
struct MappedColumn {
  int attnum;
  const char* name;
  Source source;
  Converter converter;  ///< unused for expressions
  Expression expression;
  bool check_not_null;
  uint64_t bit;  ///< of this column in the sets of failed ones
};

struct CompiledRule {
  const Rule* rule;
  Expression expression;
  uint64_t columns;  ///< bits of the mapped columns that it mentions
};

struct CompiledCheck {
  const TargetCheck* check;
  Expression expression;
  uint64_t columns;
};

struct ColumnDefault {
  int attnum;
  const char* name;
  Expression expression;
};

/// How two values of a mapped column become one. Plain.
struct MergeColumn {
  int attnum;
  Strategy strategy;
  Expression expression;  ///< none for fill, existing and incoming
  int field;              ///< of the record, which an item may lack; -1: it always has a value, or null
};

/// What phase A knows about an item while it works on the batch.
struct ItemState {
  bool active;      ///< still to be worked on (invalid ones go on too, to find all their issues)
  bool id_failed;   ///< the legacy id's expression raised
  uint64_t failed;  ///< bits of columns without a value
  bool waits;       ///< a reference cannot be translated yet
  bool left_out;    ///< by "where"
  bool waits_own;   ///< for an item of this pipeline
};

struct Plan::Body {
  bridge::Memory memory{"portage plan", TopMemoryContext};
  bridge::Memory key_memory{"portage key text", memory.get()};  // scratch
  Oid role;                                                     // who compiled it
  uint64_t changes_before;                                      // see plan_cache.hpp
  StoredPipeline pipeline;
  Definition definition;
  std::map<std::string, std::string> renamed;  // columns of the target since the run began
  Target target;
  int encoding = PG_UTF8;            // of the source
  std::vector<formats::Path> paths;  // what the reader extracts
  std::vector<int> mapped, key, match, early;

  std::vector<MappedColumn> columns;       // by attnum
  std::vector<MappedColumn*> expressions;  // those given by "sql"
  std::vector<MappedColumn*> referring;    // those given by "references", as in `references`
  std::vector<MappedColumn*> conversions;  // the others
  std::vector<Reference> references;
  std::vector<Source> legacy_id;  // paths and variables
  Expression legacy_expression;   // or the expression
  Expression where;
  bool uses_item = false, uses_mtime = false;
  Surroundings surroundings;
  int item_encoding = PG_UTF8;  // of Record::item
  std::vector<CompiledRule> rules;
  std::vector<CompiledCheck> checks;
  std::vector<MergeColumn> merges;              // by position in `mapped`
  Expression newer;                             // "newest_by": whether the item is newer than the row
  std::vector<int> merge_existing, merge_base;  // attnums that these read of the row, and of the base
  TupleTableSlot* merge_slot = nullptr;         // incoming, existing and base, one behind the other
  std::vector<ColumnDefault> early_defaults, key_defaults;
  RowHasher source_hasher;
  std::vector<FmgrInfo> key_output;  // by key column

  ExprContext* executor = nullptr;
  TupleTableSlot* item_slot = nullptr;  // the variables of an item
  TupleTableSlot* row_slot = nullptr;   // the target's columns
  ConvertContext convert{};

  bool is_foreign_owner() const { return pipeline.owner != GetUserId(); }
  /// For conversions; for expressions of the pipeline's owner, with the search_path.
  void pin_settings(bridge::Settings& settings, bool search_path) const;
};

/// Acts as the pipeline's owner, restricted, with the pinned search_path; as ourselves if we are the owner.
class AsPipelineOwner {
 public:
  explicit AsPipelineOwner(const Plan::Body& body);

 private:
  std::optional<bridge::AsUser> user_;
  std::optional<bridge::Settings> settings_;  // begins after the change of user, and ends before
};

}  // namespace portage
