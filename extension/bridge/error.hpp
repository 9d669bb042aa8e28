// Errors on the C++ side of the boundary. One exception type carries everything that a PostgreSQL error
// report can say, whether Postgres raised it (guard.hpp) or we did; entry.hpp turns it back into ereport.
// Knows nothing of what went wrong in the domain.
#pragma once

#include "bridge/pg.hpp"

namespace portage::bridge {

/// Every field of PostgreSQL's ErrorData that has a meaning beyond the frame that raised it. All of them are
/// copies: what an ErrorData points to, the place in the source included, goes with its memory context.
struct ErrorReport {
  int sqlerrcode = ERRCODE_INTERNAL_ERROR;
  std::string message, detail, detail_log, hint, context;
  std::string schema_name, table_name, column_name, datatype_name, constraint_name;
  std::string internalquery;
  int internalpos = 0;
  int cursorpos = 0;               // never passed on: it points into a text that only the catcher knows
  std::string filename, funcname;  // of the source that raised it; our own errors have none
  int lineno = 0;
};

/// An error on its way out. Cheap to copy; the report is shared.
class Error : public std::exception {
 public:
  explicit Error(ErrorReport report) : report_(std::make_shared<ErrorReport>(std::move(report))) {}
  /// Our own error; `sqlerrcode` is an ERRCODE_ macro or one of ours (codes.hpp).
  Error(int sqlerrcode, std::string message) : report_(std::make_shared<ErrorReport>()) {
    report_->sqlerrcode = sqlerrcode;
    report_->message = std::move(message);
  }
  Error& detail(std::string text) { return report_->detail = std::move(text), *this; }
  Error& hint(std::string text) { return report_->hint = std::move(text), *this; }
  Error& column(std::string name) { return report_->column_name = std::move(name), *this; }
  Error& constraint(std::string name) { return report_->constraint_name = std::move(name), *this; }
  Error& table(std::string name) { return report_->table_name = std::move(name), *this; }

  const ErrorReport& report() const { return *report_; }
  int code() const { return report_->sqlerrcode; }
  const std::string& message() const { return report_->message; }
  /// The five characters of the SQLSTATE.
  std::string sqlstate() const;
  const char* what() const noexcept override { return report_->message.c_str(); }

 private:
  std::shared_ptr<ErrorReport> report_;
};

/// The five characters of an encoded SQLSTATE, and back.
std::string sqlstate_text(int sqlerrcode);
int sqlstate_code(std::string_view five_characters);

/// Copies the error in flight out of Postgres and clears it. 53200 in its place if there is no memory for
/// that.
ErrorReport take_error_in_flight();

/// Raw code: the memory through which errors are copied. What one leaves there, the next one finds gone.
MemoryContext error_scratch_raw();

/// printf-style message; never raises.
std::string format(const char* pattern, ...) __attribute__((format(printf, 1, 2)));

}  // namespace portage::bridge
