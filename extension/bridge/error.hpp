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

/// An error on its way out. Cheap to copy; its reports are shared. While this backend is discreet
/// (discretion.hpp) two things are known of what PostgreSQL or users' code has raised: all of it, and what
/// may be told.
class Error : public std::exception {
 public:
  explicit Error(ErrorReport report);
  /// Our own error; `sqlerrcode` is an ERRCODE_ macro or one of ours (codes.hpp). Its texts are told as they
  /// are: values go through quotable(), or into quote().
  Error(int sqlerrcode, std::string message);
  Error& detail(std::string text) {
    return change([&](ErrorReport& report) { report.detail = text; });
  }
  Error& hint(std::string text) {
    return change([&](ErrorReport& report) { report.hint = text; });
  }
  Error& column(std::string name) {
    return change([&](ErrorReport& report) { report.column_name = name; });
  }
  Error& constraint(std::string name) {
    return change([&](ErrorReport& report) { report.constraint_name = name; });
  }
  /// A detail that quotes values: not told while this backend is discreet.
  Error& quote(const std::string& text);

  /// What may be told of it to whoever sees what it is about.
  const ErrorReport& report() const { return *told_; }
  /// All of it: for what is kept of a single item.
  const ErrorReport& full() const { return *full_; }
  /// It came into being while this backend was discreet.
  bool discreet() const { return discreet_; }
  int code() const { return told_->sqlerrcode; }
  const std::string& message() const { return told_->message; }
  /// The five characters of the SQLSTATE.
  std::string sqlstate() const;
  const char* what() const noexcept override { return told_->message.c_str(); }

  /// Changes both reports, which may be shared with copies that stay as they are.
  template <class F>
  Error& change(F&& f) {
    auto changed = [&](const ErrorReport& report) {
      auto copy = std::make_shared<ErrorReport>(report);
      f(*copy);
      return copy;
    };
    bool same = told_ == full_;
    full_ = changed(*full_);
    told_ = same ? full_ : changed(*told_);
    return *this;
  }

 private:
  std::shared_ptr<const ErrorReport> full_, told_;
  bool discreet_;
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
