// What a query says of the columns of a foreign table of ours: for the planner's callbacks, raw code.
#pragma once

#include "bridge/scope.hpp"

extern "C" {
#include "nodes/pathnodes.h"
#include "optimizer/optimizer.h"
#include "optimizer/restrictinfo.h"
}

namespace portage::ledger {

/// "column operator value", where the value is known before the table is read.
struct Comparison {
  int attribute;
  Oid operation, collation;
  Node* value;
};

/// False if the clause is nothing of the kind.
inline bool comparison_of(PlannerInfo* root, RelOptInfo* rel, Expr* clause, Comparison* found) {
  if (!IsA(clause, OpExpr)) return false;
  auto* op = reinterpret_cast<OpExpr*>(clause);
  if (list_length(op->args) != 2) return false;
  auto* left = static_cast<Node*>(linitial(op->args));
  auto* right = static_cast<Node*>(lsecond(op->args));
  Oid operation = op->opno;
  auto is_ours = [=](Node* node) {
    if (!IsA(node, Var)) return false;
    auto* var = reinterpret_cast<Var*>(node);
    return var->varno == static_cast<int>(rel->relid) && var->varlevelsup == 0 && var->varattno > 0;
  };
  if (!is_ours(left)) {
    Node* swap = left;
    left = right;
    right = swap;
    operation = get_commutator(operation);
  }
  if (!is_ours(left) || !OidIsValid(operation)) return false;
  if (bms_is_member(static_cast<int>(rel->relid), pull_varnos(root, right)) ||
      contain_volatile_functions(right))
    return false;
  *found = {reinterpret_cast<Var*>(left)->varattno, operation, op->inputcollid, right};
  return true;
}

/// A value of one of the types that compare with bigint.
inline int64 as_bigint(Datum value, Oid type) {
  return type == INT2OID   ? static_cast<int64>(DatumGetInt16(value))
         : type == INT4OID ? static_cast<int64>(DatumGetInt32(value))
                           : DatumGetInt64(value);
}

}  // namespace portage::ledger
