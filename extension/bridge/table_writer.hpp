// Multi-insert into a table of our own, as COPY does it: heap tuples a thousand at a time, then their index
// entries. No privileges or triggers are looked at, and constraints only on request: only for the extension's
// own tables. And rows as values, by the names of their columns.
#pragma once

#include "bridge/scope.hpp"

namespace portage::bridge {

/// Sets the value of a column by its name. Raises 42703 where there is none.
void set_by_name(TupleDesc shape, Datum* values, bool* nulls, const char* column, Datum value);

/// A row as a value: null where nothing was set.
class NamedRow {
 public:
  explicit NamedRow(TupleDesc shape);
  void set(const char* column, Datum value) { set_by_name(shape_, values_, nulls_, column, value); }
  /// In the current memory context.
  Datum composite() const;

 private:
  TupleDesc shape_;
  Datum* values_;
  bool* nulls_;
};

enum class Constraints : bool { trusted, checked };

class TableWriter {
 public:
  /// Opens schema.name. The values given to add() must live until finish(). `constraints`: whether NOT NULL
  /// and CHECK are judged.
  TableWriter(const char* schema, const char* name, Constraints constraints = Constraints::trusted);
  TableWriter(const TableWriter&) = delete;
  TableWriter& operator=(const TableWriter&) = delete;

  /// The row being filled: values()[i] and nulls()[i] for column i + 1. Every column must be set each time.
  Datum* values() { return state_->values; }
  bool* nulls() { return state_->nulls; }
  int natts() const { return state_->natts; }
  /// The same by name, for tables with many columns: the row begins with nothing but nulls.
  void begin_row();
  void set(const char* column, Datum value);
  /// Queues the row; writes when a thousand are waiting.
  void add();
  /// Writes what waits and closes the table. Not called after an error: the (sub)transaction's end closes it.
  void finish();

 private:
  static constexpr int capacity = 1000;
  struct State {
    Relation relation;
    ResultRelInfo* result;
    EState* executor;
    BulkInsertState bulk;
    TupleDesc shape;
    TupleTableSlot* slots[capacity];
    Datum* values;
    bool* nulls;
    int natts, waiting;
    bool checks;
    CommandId command;
  };
  static void flush_raw(State*);

  Memory memory_;
  State* state_;
};

/// The next number of a sequence of our own. No privileges are looked at.
int64_t next_number(const char* schema, const char* sequence);

}  // namespace portage::bridge
