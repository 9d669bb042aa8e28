// The batch as a relation that SQL can see: an ephemeral named relation (mostly "portage_batch") with columns
// o (position), k1.. (a row's old key) and c<attnum> (the items' values). Statements over it are prepared
// once and kept.
#pragma once

#include "bridge/spi.hpp"
#include "pipeline/target.hpp"

extern "C" {
#include "utils/queryenvironment.h"
#include "utils/tuplestore.h"
}

namespace portage::load {

/// One row of the relation: pointers to values by attnum - 1, and optionally the old key.
struct BatchRow {
  const Datum* values;
  const bool* nulls;
  const Datum* key;  ///< by position in the key; null pointer: k columns are null
};

class BatchRelation {
 public:
  /// `columns`: attnums that statements may mention; `key`: attnums of the key.
  BatchRelation(const Target&, std::vector<int> columns, std::vector<int> key,
                const char* name = "portage_batch");
  ~BatchRelation();
  BatchRelation(const BatchRelation&) = delete;
  BatchRelation& operator=(const BatchRelation&) = delete;

  /// Fills the relation as long as what is returned lives: for statements that mention several relations.
  class Filling;
  std::unique_ptr<Filling> fill(const std::vector<BatchRow>& rows);
  /// Runs a statement over these rows. Statements are known by their text; each is planned once.
  bridge::Result run(const std::string& sql, const std::vector<BatchRow>& rows);

 private:
  MemoryContext memory_ = nullptr;  ///< of SPI's connection, which may have to keep the relation
  std::vector<int> columns_, key_;
  EphemeralNamedRelation relation_ = nullptr;
  std::unordered_map<std::string, SPIPlanPtr> plans_;
};

/// The relation with its rows. It takes the place of whichever had its name before (after an error, SPI may
/// stand in a trigger's connection, so that nothing can be taken away then). Empties it at its end, after an
/// error as well: halving a batch fails often, and each time with a large store.
class BatchRelation::Filling {
 public:
  Filling(EphemeralNamedRelation relation, Tuplestorestate* store);
  ~Filling();
  Filling(const Filling&) = delete;
  Filling& operator=(const Filling&) = delete;

 private:
  EphemeralNamedRelation relation_;
  Tuplestorestate* store_;
};

/// `OPERATOR(schema.name)` of an operator.
std::string operator_text(Oid op);
/// The default equality operator of a type.
Oid equality_of(Oid type);

}  // namespace portage::load
