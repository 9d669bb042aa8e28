// The compiled pipeline: takes a batch of records to typed values, phase A of fault isolation included,
// before anything is written. Knows the target's row type; knows nothing of how rows get into the target, of
// runs or of the ledger.
#pragma once

#include "pipeline/batch.hpp"
#include "pipeline/definition.hpp"
#include "pipeline/target.hpp"
#include "pipeline/value_settings.hpp"

#include "formats/reader.hpp"

namespace portage {

/// A version of a pipeline as it is stored; see ledger/pipelines.hpp.
struct StoredPipeline {
  int64_t id = 0;
  std::string name;
  int version = 0;
  Oid owner = InvalidOid;  ///< invalid when the role is gone
  std::string definition;  ///< JSON, verbatim
  bool sensitive = false;  ///< it names sensitive paths
  std::string search_path, timezone;
  ValueSettings settings;
  Oid target = InvalidOid;  ///< invalid when the table is gone
  std::string target_schema, target_name;
  std::map<std::string, int64_t> refers_to;  ///< the pipelines that the definition names
  std::vector<std::string> absent_key;  ///< columns of the target's key, where its index is away for a while
  /// What the columns of the target were when the run in hand began (row_shape.hpp): they may have been
  /// renamed.
  std::vector<std::string> names_then;
  std::string shape_then;
  bool by_administration = false;  ///< the user may use it only because it may use all

  bool operator==(const StoredPipeline&) const = default;
};

/// What the part says about all its items. The texts must outlive prepare(), and are in the server's
/// encoding.
struct ItemContext {
  std::string_view scope, name, path;
  std::optional<TimestampTz> mtime;
  /// Items that refer to others of the batch which have no row yet are to land with these: their references
  /// are left open (Item::open) where the column takes a null.
  bool close_circles = false;
  /// Items that refer to others of this pipeline which have no row yet are parked also where they are bad
  /// already: what else is wrong with them can be told when these have one.
  bool park_rejects = false;
};

/// A mapped column whose values come as legacy ids of another pipeline, or of this one.
struct Reference {
  int attnum;
  std::string pipeline;  ///< as the definition names it
  int64_t pipeline_id;   ///< 0 until the version is stored
  std::string place;     ///< JSON path in the definition
};

/// Translates legacy ids, set-wise: result[i] is the text of the key of the row that ids[i] became; data() ==
/// nullptr: it has not been migrated.
using Translate =
    std::function<std::vector<std::string_view>(const Reference&, const std::vector<std::string_view>& ids)>;

/// What becomes of a mapped column where an item meets a row.
enum class Take : uint8_t { existing, incoming, merged, given };

/// An item and the row with which it is to be brought together. Arrays by attnum - 1.
struct Meeting {
  Item* item;
  const Datum* existing;
  const bool* existing_nulls;
  const Datum* base;  ///< what the source said when the item was last migrated; nullptr: it never was
  const bool* base_nulls;
  const Take* fields;  ///< by position in Plan::mapped(); nullptr: only whether the item is newer is asked
  const Datum* given;  ///< values of fields that are `given`
  const bool* given_nulls;
  bool newer;     ///< the answer
  Issue* issues;  ///< those that stood on the item before
};

/// A pipeline, parsed, type-checked and ready to run. Compile and use it as the same role. It owns its memory
/// and holds neither locks nor references to caches, so that it works across the transactions of a procedure.
class Plan {
 public:
  /// Throws PZ001 with the JSON path of the fault in the detail, PZ002 for the target, or PostgreSQL's own
  /// code for an expression. Names and functions of expressions are resolved as the pipeline's owner.
  static std::unique_ptr<Plan> compile(const StoredPipeline&);
  ~Plan();

  const StoredPipeline& stored() const;
  const Definition& definition() const;  ///< with the names that the columns have now
  /// The name that a column of the definition, or of what a run has kept, has now.
  const std::string& name_now(const std::string& name) const;
  const Target& target() const;
  bool target_is_unchanged();  ///< see unchanged()
  Oid owner() const;           ///< the pipeline's
  formats::Options reader_options() const;
  const std::vector<int>& mapped()
      const;                            ///< attnums of the mapped columns, ascending: what source_hash covers
  const std::vector<int>& key() const;  ///< attnums of the key columns, in the key's order
  const std::vector<int>& match() const;  ///< attnums; empty: only the mapping identifies a row
  const std::vector<int>& early() const;  ///< unmapped columns that prepare() fills with their defaults

  const std::vector<Reference>& references() const;
  bool refers_to_itself() const;
  /// What items hang on beside the bytes of their part.
  struct Surroundings {
    bool place = false;  ///< the part's name or path
    bool other = false;  ///< ordinals, times, what a function that is not IMMUTABLE finds
  };
  const Surroundings& surroundings() const;

  /// Phase A: conversions, references, expressions, rules, NOT NULL, CHECK, domains, legacy id and source
  /// hash of every item whose outcome is pending. Bad items become invalid (or skipped, by "where") with
  /// their issues. An item whose only fault is that a reference cannot be translated yet becomes parked.
  /// Throws what concerns the whole batch. The current user must be the run's role.
  void prepare(Batch&, const ItemContext&, const Translate&);

  /// Evaluates the defaults of the key's columns that are neither mapped nor early, into the items' values.
  /// An item whose default cannot be computed becomes invalid.
  void draw_key_defaults(Batch&, Item** items, size_t count);

  /// Gives the items the values of their fields, and judges them again as prepare() did. An item whose values
  /// cannot be brought together, or are not valid then, becomes invalid; the others stay pending. What came
  /// stands in Item::came from then on. Expressions are evaluated as the pipeline's owner.
  void merge(Batch&, std::vector<Meeting*>&);
  /// Attnums that merging reads of the existing row, beside the mapped ones.
  const std::vector<int>& merge_reads() const;

  /// The text of the key of a row (values by attnum - 1): the output text, or the JSON array text of several.
  std::string key_text(const Datum* values, const bool* nulls) const;
  /// Fills target_key of items from what is stored of their rows.
  void name_keys(Batch&, const std::vector<Item*>&) const;

  /// Over the mapped columns (values by attnum - 1): Item::source_hash, and what a row has that is the same.
  uint64_t source_hash(const Datum* values, const bool* nulls) const;

  /// Under which texts become values, for a block.
  void pin_settings(bridge::Settings&) const;

  struct Body;  ///< plan_body.hpp; for the files of pipeline/ only
  const Body& body() const { return *body_; }

 private:
  Plan();
  void judge_again(Batch&, std::vector<Item*>&);
  std::unique_ptr<Body> body_;
};

}  // namespace portage
