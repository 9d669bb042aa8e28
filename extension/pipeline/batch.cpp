// See batch.hpp.
#include "pipeline/batch.hpp"

namespace portage {

void Batch::add_issue(Item& item, std::string_view rule, std::string_view sqlstate, std::string_view column,
                      std::string_view message, std::string_view detail, std::string_view constraint,
                      bool warning) {
  Issue* issue = arena.make_array<Issue>(1);
  issue->rule = arena.copy(rule);
  memcpy(issue->sqlstate, sqlstate.data(), std::min<size_t>(sqlstate.size(), 5));
  issue->column = arena.copy(column);
  issue->constraint = arena.copy(constraint);
  issue->message = arena.copy(message);
  issue->detail = arena.copy(detail);
  issue->warning = warning;
  Issue** end = &item.issues;
  while (*end) end = &(*end)->next;
  *end = issue;
}

void Batch::reject(Item& item, Outcome outcome, std::string_view rule, const bridge::Error& error) {
  // The texts are for the pipeline's owner; the names are shown to others, too.
  const bridge::ErrorReport &all = error.full(), &told = error.report();
  add_issue(item, rule, error.sqlstate(), told.column_name, all.message, all.detail, told.constraint_name);
  item.outcome = outcome;
}

}  // namespace portage
