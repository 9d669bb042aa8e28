// SQL expressions of a definition: parsed, type-checked and compiled by Postgres itself over a row of ours
// instead of a table's. Knows nothing of items or batches; who the current user is, is the caller's affair.
#pragma once

#include "bridge/scope.hpp"

namespace portage {

/// A compiled expression. Plain; lives in the memory context that it was compiled in.
struct Expression {
  ExprState* state = nullptr;
  Oid type = InvalidOid;
  bool by_value = false;
  int16 length = 0;
  bool immutable = false;       ///< the same variables give the same value for ever
  bool names_a_moment = false;  ///< 'now' and the like stand in it for the moment of the compilation
};

/// The row that an expression sees: its columns are the variables.
struct Variables {
  /// A stretch of columns, and the name that may qualify them ("" for none).
  struct Relation {
    const char* name;
    int first, count;
  };
  TupleDesc shape;
  std::vector<Relation> relations;
  bool must_qualify = false;  ///< where several relations have the same columns
};

/// What an expression must give.
struct Wanted {
  Oid type;
  int32_t typmod = -1;
  bool any_cast = false;   ///< as by an explicit cast, else as in an assignment
  std::string what;        ///< for messages: `column "x"`
  bool condition = false;  ///< a boolean, without any cast
};

/// Compiles `sql` into the current memory context. `place` is its JSON path in the definition, `used` gets
/// the attnums of the variables that it mentions. Errors keep PostgreSQL's SQLSTATE and message; the detail
/// says where in the definition, the hint names the nearest variables.
Expression compile_expression(const std::string& sql, const Variables& variables, const Wanted& wanted,
                              const std::string& place, std::vector<int>& used);

/// An expression that is already a tree over the shape's columns, as from a catalog: planned and compiled
/// into the current memory context.
Expression compile_tree(Node* tree);

/// The error with its place in the definition in the detail.
bridge::Error at_place(const bridge::Error& error, const std::string& place, const std::string& sql = "");

}  // namespace portage
