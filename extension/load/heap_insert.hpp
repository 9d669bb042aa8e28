// Rows into an ordinary table as COPY brings them: heap tuples many at a time, then their index entries and
// the events of AFTER ROW triggers, foreign keys among them. Raw code throughout; knows of items only where
// their values are. That the table is an ordinary one is the caller's affair (writer_choice.hpp).
#pragma once

#include "pipeline/batch.hpp"

namespace portage::load {

/// What is to be written, and the state of writing. Plain. After an error the end of the subtransaction
/// closes what is open.
struct HeapInsert {
  static constexpr int capacity = 1000;             ///< rows
  static constexpr size_t size_limit = 256 * 1024;  ///< bytes of input

  // Set once by the owner.
  TupleDesc shape;   ///< of the target, a copy: slots that pin the relation cache's own cost a millisecond
  const int* given;  ///< attnums of the columns that items bring
  int given_count;
  const int* read;  ///< attnums of the columns that are kept of what is stored
  int read_count;
  MemoryContext slot_memory;

  // Of one table that is open.
  struct Default {
    int index;
    ExprState* state;
    bool by_value;
    int16 length;
  };
  Relation relation;
  EState* executor;
  ResultRelInfo* result;
  BulkInsertState bulk;
  CommandId command;
  Default* defaults;  ///< of the columns that items do not bring
  int default_count;
  bool has_generated;
  MemoryContext batch_memory;

  TupleTableSlot* slots[capacity];
  int waiting;
  size_t waiting_bytes;
};

/// Begins to write to the open relation, which is locked for it; checks that this may be written to now.
void begin_insert_raw(HeapInsert*, Relation, MemoryContext batch_memory, int count);
/// Writes a row and fills the `stored` arrays (natts each, null for what is not read).
void insert_raw(HeapInsert*, Item*, Datum* stored, bool* stored_nulls);
/// Writes what waits, fires the triggers. The relation stays open.
void end_insert_raw(HeapInsert*);

}  // namespace portage::load
