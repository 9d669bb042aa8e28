// See expression.hpp.
#include "pipeline/expression.hpp"

#include "pipeline/definition.hpp"

extern "C" {
#include "nodes/bitmapset.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_node.h"
#include "parser/parse_type.h"
#include "parser/parser.h"
}

namespace portage {
namespace {

using bridge::Error;
using bridge::guarded;

/// What the column hook and the code around it share. Plain, since errors jump over it.
struct Request {
  const char* sql;
  TupleDesc shape;
  const Variables::Relation* relations;
  int relation_count;
  bool must_qualify;
  Oid type;
  int32 typmod;
  bool any_cast;
  bool condition;
  const char* what;
  // results
  Bitmapset* used;
  char missing[NAMEDATALEN];
};

Node* variable_raw(Request* request, ParseState* parse, int first, int count, const char* name,
                   int location) {
  TupleDesc shape = request->shape;
  for (int i = first; i < first + count; i++) {
    Form_pg_attribute a = TupleDescAttr(shape, i);
    if (a->attisdropped || strcmp(NameStr(a->attname), name) != 0) continue;
    Var* var = makeVar(1, static_cast<AttrNumber>(i + 1), a->atttypid, a->atttypmod, a->attcollation, 0);
    var->location = location;
    request->used = bms_add_member(request->used, i + 1);
    return reinterpret_cast<Node*>(var);
  }
  strlcpy(request->missing, name, NAMEDATALEN);
  ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN), errmsg("column \"%s\" does not exist", name),
                  parser_errposition(parse, location)));
}

/// Resolves `name` and `table.name`; all else is left to the parser, which finds no table and says so.
Node* column_ref_hook(ParseState* parse, ColumnRef* reference) {
  auto* request = static_cast<Request*>(parse->p_ref_hook_state);
  List* fields = reference->fields;
  if (!IsA(llast(fields), String)) return nullptr;
  const char* last = strVal(llast(fields));
  if (list_length(fields) == 1 && request->must_qualify)
    ereport(ERROR, (errcode(ERRCODE_AMBIGUOUS_COLUMN), errmsg("column reference \"%s\" is ambiguous", last),
                    errhint("Write %s.%s or %s.%s.", request->relations[0].name, last,
                            request->relations[1].name, last),
                    parser_errposition(parse, reference->location)));
  if (list_length(fields) == 1)
    return variable_raw(request, parse, 0, request->shape->natts, last, reference->location);
  for (int i = 0; list_length(fields) == 2 && i < request->relation_count; i++) {
    const Variables::Relation& relation = request->relations[i];
    if (strcmp(strVal(linitial(fields)), relation.name) == 0)
      return variable_raw(request, parse, relation.first, relation.count, last, reference->location);
  }
  return nullptr;
}

/// The one expression of the text, or an error.
Node* parse_raw(const char* sql) {
  List* statements = raw_parser(sql, RAW_PARSE_PLPGSQL_EXPR);
  auto* raw = static_cast<RawStmt*>(linitial(statements));
  if (list_length(statements) == 1 && IsA(raw->stmt, SelectStmt)) {
    auto* select = reinterpret_cast<SelectStmt*>(raw->stmt);
    bool plain = !select->distinctClause && !select->intoClause && !select->fromClause &&
                 !select->whereClause && !select->groupClause && !select->havingClause &&
                 !select->windowClause && !select->valuesLists && !select->sortClause &&
                 !select->limitOffset && !select->limitCount && !select->lockingClause &&
                 !select->withClause && select->op == SETOP_NONE && list_length(select->targetList) == 1;
    if (plain) {
      auto* target = static_cast<ResTarget*>(linitial(select->targetList));
      if (!target->name && !target->indirection) return target->val;
    }
  }
  ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR), errmsg("\"%s\" is not a single expression", sql),
                  errhint("Write one scalar expression, as in a CHECK constraint.")));
}

Node* coerce_raw(ParseState* parse, Node* node, const Request* request) {
  Oid type = exprType(node);
  if (request->condition && type != BOOLOID && type != UNKNOWNOID)
    ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
                    errmsg("%s must be of type boolean, not type %s", request->what, format_type_be(type)),
                    parser_errposition(parse, exprLocation(node))));
  Node* coerced = coerce_to_target_type(parse, node, type, request->type, request->typmod,
                                        request->any_cast ? COERCION_EXPLICIT : COERCION_ASSIGNMENT,
                                        request->any_cast ? COERCE_EXPLICIT_CAST : COERCE_IMPLICIT_CAST, -1);
  if (!coerced)
    ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
                    errmsg("%s is of type %s but expression is of type %s", request->what,
                           format_type_be(request->type), format_type_be(type)),
                    errhint("You will need to rewrite or cast the expression."),
                    parser_errposition(parse, exprLocation(node))));
  return coerced;
}

Node* analyze_raw(Request* request) {
  ParseState* parse = make_parsestate(nullptr);
  parse->p_sourcetext = request->sql;
  parse->p_pre_columnref_hook = column_ref_hook;
  parse->p_ref_hook_state = request;
  // The kind decides what is forbidden (subqueries, aggregates, windows, sets) and how that is said.
  Node* node = transformExpr(parse, parse_raw(request->sql), EXPR_KIND_CHECK_CONSTRAINT);
  node = coerce_raw(parse, node, request);
  assign_expr_collations(parse, node);
  free_parsestate(parse);
  return node;
}

Expression compile_raw(Node* tree) {
  Expr* planned = expression_planner(reinterpret_cast<Expr*>(tree));
  Expression expression;
  expression.type = exprType(reinterpret_cast<Node*>(planned));
  get_typlenbyval(expression.type, &expression.length, &expression.by_value);
  expression.immutable = !contain_mutable_functions(reinterpret_cast<Node*>(planned));
  expression.state = ExecInitExpr(planned, nullptr);
  return expression;
}

/// Any mention of such a word counts, but for calls.
bool names_a_moment(std::string_view sql) {
  auto in_word = [&](size_t i) {
    return i < sql.size() && (isalnum(static_cast<unsigned char>(sql[i])) || sql[i] == '_');
  };
  for (std::string_view word : {"now", "today", "tomorrow", "yesterday"})
    for (size_t i = 0; i + word.size() <= sql.size(); i++)
      if (pg_strncasecmp(sql.data() + i, word.data(), word.size()) == 0 && !in_word(i + word.size()) &&
          (i == 0 || !in_word(i - 1)) && !sql.substr(i + word.size()).starts_with('('))
        return true;
  return false;
}

std::vector<std::string> variable_names(TupleDesc shape) {
  std::vector<std::string> names;
  for (int i = 0; i < shape->natts; i++) {
    std::string name = NameStr(TupleDescAttr(shape, i)->attname);
    if (!TupleDescAttr(shape, i)->attisdropped && std::find(names.begin(), names.end(), name) == names.end())
      names.push_back(name);
  }
  return names;
}

}  // namespace

bridge::Error at_place(const Error& error, const std::string& place, const std::string& sql) {
  Error placed = error;
  return placed.change([&](bridge::ErrorReport& report) {
    report.detail = report.detail.empty() ? "at " + place : "at " + place + ": " + report.detail;
    if (report.cursorpos > 0 && !sql.empty()) {
      report.internalquery = sql;
      report.internalpos = report.cursorpos;
    }
  });
}

Expression compile_expression(const std::string& sql, const Variables& variables, const Wanted& wanted,
                              const std::string& place, std::vector<int>& used) {
  Request request;
  memset(&request, 0, sizeof request);
  request.sql = sql.c_str();
  request.shape = variables.shape;
  request.relations = variables.relations.data();
  request.relation_count = static_cast<int>(variables.relations.size());
  request.must_qualify = variables.must_qualify;
  request.type = wanted.type;
  request.typmod = wanted.typmod;
  request.any_cast = wanted.any_cast;
  request.condition = wanted.condition;
  request.what = wanted.what.c_str();
  bridge::Memory scratch("portage expression parser");
  MemoryContext keep = CurrentMemoryContext;
  MemoryContext work = scratch.get();
  Request* r = &request;
  try {
    Expression expression = guarded([=] {
      MemoryContextSwitchTo(work);
      Node* tree = analyze_raw(r);
      MemoryContextSwitchTo(keep);
      return compile_raw(static_cast<Node*>(copyObjectImpl(tree)));
    });
    for (int i = -1; (i = bms_next_member(request.used, i)) >= 0;) used.push_back(i);
    expression.names_a_moment = names_a_moment(sql);
    return expression;
  } catch (const Error& error) {
    Error placed = at_place(error, place, sql);
    if (request.missing[0] != '\0' && error.code() == ERRCODE_UNDEFINED_COLUMN) {
      std::string hint = nearest_hint(request.missing, variable_names(variables.shape));
      if (hint.empty()) {
        for (const std::string& name : variable_names(variables.shape))
          hint += (hint.empty() ? "" : ", ") + name;
        hint = "Known here are: " + hint + ".";
      }
      placed.hint(hint);
    }
    throw placed;
  }
}

Expression compile_tree(Node* tree) {
  return guarded([=] { return compile_raw(tree); });
}

}  // namespace portage
