// See checks.hpp.
#include "pipeline/checks.hpp"

#include "bridge/codes.hpp"
#include "bridge/spi.hpp"
#include "bridge/subxact.hpp"
#include "pipeline/expression.hpp"
#include "pipeline/plan_body.hpp"

extern "C" {
#include "catalog/pg_proc.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "utils/fmgroids.h"
}

namespace portage {
namespace {

using bridge::Error;
using bridge::format;
using bridge::guarded;
using formats::Kind;

constexpr Oid parameter_types[] = {INT8OID, TEXTOID};

bool is_number(Oid type) {
  switch (getBaseType(type)) {
    case INT2OID:
    case INT4OID:
    case INT8OID:
    case FLOAT4OID:
    case FLOAT8OID:
    case NUMERICOID:
    case OIDOID:
      return true;
    default:
      return false;
  }
}

/// The type of the one column that the query gives.
Oid analyse_raw(const char* sql) {
  List* statements = raw_parser(sql, RAW_PARSE_DEFAULT);
  auto* raw = list_length(statements) == 1 ? linitial_node(RawStmt, statements) : nullptr;
  if (!raw || !IsA(raw->stmt, SelectStmt))
    ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR), errmsg("a check must be a single SELECT")));
  Query* query = parse_analyze_fixedparams(raw, sql, parameter_types, lengthof(parameter_types), nullptr);
  if (query->commandType != CMD_SELECT || query->utilityStmt || query->hasModifyingCTE)
    ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR), errmsg("a check must be a SELECT that only reads")));
  if (query->rowMarks) ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR), errmsg("a check must not lock rows")));
  TargetEntry* only = nullptr;
  int columns = 0;
  ListCell* cell;
  foreach (cell, query->targetList) {
    auto* entry = lfirst_node(TargetEntry, cell);
    if (entry->resjunk) continue;
    columns++;
    only = entry;
  }
  if (columns != 1)
    ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR), errmsg("a check must give one column, not %d", columns)));
  return exprType(reinterpret_cast<Node*>(only->expr));
}

/// The check's severity must not depend on a comparison that can never hold.
void check_expected_raw(Oid type, bool wants_boolean, bool wants_number, bool by_default) {
  if (wants_boolean && getBaseType(type) != BOOLOID)
    ereport(ERROR,
            (errcode(ERRCODE_DATATYPE_MISMATCH),
             errmsg("a check that gives type %s cannot be compared with true or false", format_type_be(type)),
             errhint(by_default
                         ? "Without \"expected\" a check must be true: add \"expected\", or compare in the "
                           "query."
                         : "Compare in the query, or expect a value of that type.")));
  if (wants_number && !is_number(type))
    ereport(ERROR,
            (errcode(ERRCODE_DATATYPE_MISMATCH),
             errmsg("a check that gives type %s cannot be compared with a number", format_type_be(type)),
             errhint("Cast the value to numeric, or expect a string: the value's text.")));
}

bool same_number(const std::string& one, const std::string& other) {
  return bridge::execute("SELECT $1::pg_catalog.numeric OPERATOR(pg_catalog.=) $2::pg_catalog.numeric",
                         {bridge::param(one), bridge::param(other)}, true)
      .boolean(0, 1);
}

/// The value of the query, or null. Several rows are an error, as in a scalar subquery.
CheckValue value_of(const DataCheck& check, int64_t run_id, const std::string& scope) {
  CheckValue result;
  // Not "read only" in SPI's sense, which would be under the caller's snapshot: that does not see what
  // migrate() has just written. The transaction itself is read-only here.
  bridge::Result rows = bridge::execute(check.sql, {bridge::param(run_id), bridge::param(scope)}, false, 2);
  if (rows.size() > 1) throw Error(ERRCODE_CARDINALITY_VIOLATION, "the check gives more than one row");
  Oid type = InvalidOid;
  if (!rows.empty() && !rows.is_null(0, 1)) {
    type = TupleDescAttr(rows.shape(), 0)->atttypid;
    bool boolean = guarded([=] { return getBaseType(type) == BOOLOID; });
    result.actual = boolean ? (rows.boolean(0, 1) ? "true" : "false") : rows.text(0, 1);
  }
  if (check.expected.kind != Kind::null) result.expected = check.expected.text;
  bool number =
      check.expected.kind == Kind::number && result.actual && guarded([=] { return is_number(type); });
  result.passed = number ? same_number(*result.actual, *result.expected) : result.actual == result.expected;
  return result;
}

/// Functions whose result is not given by their arguments, or only by those of this moment. PostgreSQL's own
/// stable functions are conversions under settings that are pinned, or tell the time.
bool changes_raw(Oid function, void*) {
  switch (function) {
    case F_NOW:
    case F_TRANSACTION_TIMESTAMP:
    case F_STATEMENT_TIMESTAMP:
    case F_AGE_TIMESTAMP:
    case F_AGE_TIMESTAMPTZ:
    case F_CURRENT_USER:
    case F_SESSION_USER:
      return true;
  }
  char kind = func_volatile(function);
  return kind == PROVOLATILE_VOLATILE || (kind == PROVOLATILE_STABLE && function >= FirstNormalObjectId);
}

bool changes_walker_raw(Node* node, void* context) {
  if (!node) return false;
  if (IsA(node, SQLValueFunction) || IsA(node, NextValueExpr)) return true;
  if (check_functions_in_node(node, changes_raw, context)) return true;
  return bridge::walk_expression(node, changes_walker_raw, context);
}

}  // namespace

bool ends_verification(int code) {
  switch (ERRCODE_TO_CATEGORY(code)) {
    case MAKE_SQLSTATE('4', '0', '0', '0', '0'):
    case MAKE_SQLSTATE('5', '3', '0', '0', '0'):
    case MAKE_SQLSTATE('5', '7', '0', '0', '0'):
      return true;
    default:
      return false;
  }
}

void try_checks(const Plan& plan) {
  const Plan::Body& body = plan.body();
  if (body.definition.checks.empty()) return;
  AsPipelineOwner owner(body);
  for (const DataCheck& check : body.definition.checks) {
    const char* sql = check.sql.c_str();
    bool boolean = check.expected.kind == Kind::boolean, number = check.expected.kind == Kind::number;
    bool by_default = !check.has_expected;
    bridge::Memory scratch("portage check parser");
    MemoryContext work = scratch.get();
    try {
      guarded([=] {
        MemoryContextSwitchTo(work);
        check_expected_raw(analyse_raw(sql), boolean, number, by_default);
      });
    } catch (const Error& error) {
      throw at_place(error, check.place, check.sql);
    }
  }
}

CheckValue evaluate_check(const Plan& plan, const DataCheck& check, int64_t run_id,
                          const std::string& scope) {
  CheckValue result;
  try {
    // Rolled back whatever happens: nothing that the query called has left a trace.
    bridge::Subtransaction nothing_remains;
    AsPipelineOwner owner(plan.body());
    bridge::OnlyReading only_reading;
    result = value_of(check, run_id, scope);
  } catch (const Error& error) {
    if (ends_verification(error.code())) throw;
    if (check.expected.kind != Kind::null) result.expected = check.expected.text;
    result.error = error.message();
    result.sqlstate = error.sqlstate();
    result.passed = false;
  }
  return result;
}

bool is_repeatable(const Plan& plan) {
  const Plan::Body& body = plan.body();
  std::vector<const Expression*> all{&body.legacy_expression, &body.where};
  for (const MappedColumn* column : body.expressions) all.push_back(&column->expression);
  for (const CompiledRule& rule : body.rules) all.push_back(&rule.expression);
  for (const Expression* expression : all) {
    if (!expression->state) continue;
    auto* tree = reinterpret_cast<Node*>(expression->state->expr);
    if (guarded([=] { return changes_walker_raw(tree, nullptr); })) return false;
  }
  return true;
}

}  // namespace portage
