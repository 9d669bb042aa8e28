// See error.hpp. The copy out of ErrorData is the only place that looks into it.
#include "bridge/error.hpp"

#include <cstdarg>

#include "bridge/discretion.hpp"

namespace portage::bridge {

std::string sqlstate_text(int code) {
  std::string text(5, '0');
  for (int i = 0; i < 5; i++) {
    text[i] = PGUNSIXBIT(code);
    code >>= 6;
  }
  return text;
}

int sqlstate_code(std::string_view s) {
  return s.size() == 5 ? MAKE_SQLSTATE(s[0], s[1], s[2], s[3], s[4]) : ERRCODE_INTERNAL_ERROR;
}

Error::Error(ErrorReport report)
    : full_(std::make_shared<ErrorReport>(std::move(report))),
      told_(bridge::discreet() ? std::make_shared<ErrorReport>(withheld(*full_)) : full_),
      discreet_(bridge::discreet()) {}

Error::Error(int sqlerrcode, std::string message) : discreet_(bridge::discreet()) {
  auto report = std::make_shared<ErrorReport>();
  report->sqlerrcode = sqlerrcode;
  report->message = std::move(message);
  told_ = full_ = std::move(report);
}

Error& Error::quote(const std::string& text) {
  auto quoting = std::make_shared<ErrorReport>(*full_);
  quoting->detail = text;
  if (!discreet_) told_ = quoting;
  full_ = std::move(quoting);
  return *this;
}

std::string Error::sqlstate() const { return sqlstate_text(told_->sqlerrcode); }

static std::string or_empty(const char* text) { return text ? text : ""; }

MemoryContext error_scratch_raw() {
  static constinit MemoryContext scratch = nullptr;
  if (!scratch) scratch = AllocSetContextCreate(TopMemoryContext, "portage error", ALLOCSET_SMALL_SIZES);
  return scratch;
}

/// Null if there is no memory for the copy, an error that must not leave a C++ frame by a jump.
static ErrorData* copy_raw() {
  MemoryContext const context = CurrentMemoryContext;
  uint32 const holdoff = InterruptHoldoffCount;  // see guarded()
  uint32 const cancel_holdoff = QueryCancelHoldoffCount;
  ErrorData* volatile data = nullptr;
  PG_TRY();
  {
    error_context_stack = nullptr;
    MemoryContextSwitchTo(error_scratch_raw());
    data = CopyErrorData();
  }
  PG_CATCH();
  { data = nullptr; }
  PG_END_TRY();
  MemoryContextSwitchTo(context);
  InterruptHoldoffCount = holdoff;
  QueryCancelHoldoffCount = cancel_holdoff;
  FlushErrorState();
  return data;
}

ErrorReport take_error_in_flight() {
  ErrorReport report;
  // What CopyErrorData allocates, FreeErrorData does not free everywhere: it goes as a whole, so that 100,000
  // failing calls in one statement leave nothing behind.
  const ErrorData* data = copy_raw();
  if (!data) {
    report.sqlerrcode = ERRCODE_OUT_OF_MEMORY;
    report.message = "out of memory while an error was being copied";
    return report;
  }
  report.sqlerrcode = data->sqlerrcode;
  report.message = or_empty(data->message);
  report.detail = or_empty(data->detail);
  report.detail_log = or_empty(data->detail_log);
  report.hint = or_empty(data->hint);
  report.context = or_empty(data->context);
  report.schema_name = or_empty(data->schema_name);
  report.table_name = or_empty(data->table_name);
  report.column_name = or_empty(data->column_name);
  report.datatype_name = or_empty(data->datatype_name);
  report.constraint_name = or_empty(data->constraint_name);
  report.internalquery = or_empty(data->internalquery);
  report.internalpos = data->internalpos;
  report.cursorpos = data->cursorpos;
  report.filename = or_empty(data->filename);
  report.lineno = data->lineno;
  report.funcname = or_empty(data->funcname);
  MemoryContextReset(error_scratch_raw());
  return report;
}

std::string format(const char* pattern, ...) {
  va_list args, again;
  va_start(args, pattern);
  va_copy(again, args);
  int length = vsnprintf(nullptr, 0, pattern, args);
  va_end(args);
  std::string text(length > 0 ? length : 0, '\0');
  if (length > 0) vsnprintf(text.data(), text.size() + 1, pattern, again);
  va_end(again);
  return text;
}

}  // namespace portage::bridge
