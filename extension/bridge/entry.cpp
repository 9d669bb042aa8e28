// See entry.hpp. The catch handlers only copy bytes into a plain slot; nothing is raised inside a catch.
#include "bridge/entry.hpp"

#include "bridge/deferral.hpp"
#include "bridge/discretion.hpp"

namespace portage::bridge {
namespace {

/// The plain slot: an ErrorData whose strings live until the next error. ThrowErrorData copies them.
struct Slot {
  ErrorData data;
  MemoryContext context;
  bool discreet;
};

char* keep(Slot& slot, const std::string& text) noexcept {
  if (text.empty()) return nullptr;
  auto* copy = static_cast<char*>(
      MemoryContextAllocExtended(slot.context, text.size() + 1, MCXT_ALLOC_NO_OOM | MCXT_ALLOC_HUGE));
  if (copy) memcpy(copy, text.c_str(), text.size() + 1);
  return copy;
}

/// The place of an error, which PostgreSQL does not copy: it takes it for a literal, and whoever catches the
/// error keeps the pointer for as long as he likes. So it stays for ever; there are only so many places.
const char* as_literal(const std::string& text) noexcept {
  static constinit std::unordered_set<std::string>* literals = nullptr;
  constexpr size_t most = 10000;  // more than PostgreSQL has functions that raise errors
  try {
    if (!literals) literals = new std::unordered_set<std::string>;
    auto known = literals->find(text);
    if (known != literals->end()) return known->c_str();
    return text.empty() || literals->size() >= most ? nullptr : literals->insert(text).first->c_str();
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

void keep_report(Slot& slot, const ErrorReport& report) noexcept {
  ErrorData& data = slot.data;
  data.sqlerrcode = report.sqlerrcode;
  data.message = keep(slot, report.message);
  data.detail = keep(slot, report.detail);
  data.detail_log = keep(slot, report.detail_log);
  data.hint = keep(slot, report.hint);
  data.context = keep(slot, report.context);
  data.schema_name = keep(slot, report.schema_name);
  data.table_name = keep(slot, report.table_name);
  data.column_name = keep(slot, report.column_name);
  data.datatype_name = keep(slot, report.datatype_name);
  data.constraint_name = keep(slot, report.constraint_name);
  data.internalquery = keep(slot, report.internalquery);
  data.internalpos = report.internalpos;
  data.filename = as_literal(report.filename);
  data.lineno = report.lineno;
  data.funcname = as_literal(report.funcname);
}

bool run(FunctionCallInfo fcinfo, Body body, Datum* result, Slot* slot) noexcept {
  try {
    CallFromSql call;
    *result = body(fcinfo);
    call.returns();
    return true;
  } catch (const Error& error) {
    keep_report(*slot, error.report());
    slot->discreet = error.discreet();
  } catch (const std::bad_alloc&) {
    slot->data.sqlerrcode = ERRCODE_OUT_OF_MEMORY;
    slot->data.message = const_cast<char*>("out of memory");
    slot->data.hint = const_cast<char*>("Lower the batch size, or give the server more memory.");
  } catch (const std::exception& error) {
    slot->data.sqlerrcode = ERRCODE_INTERNAL_ERROR;
    char text[512];
    slot->discreet = was_discreet();  // it may quote what it could not read
    snprintf(text, sizeof text, "unexpected C++ exception: %s", slot->discreet ? "***" : error.what());
    slot->data.message =
        static_cast<char*>(MemoryContextAllocExtended(slot->context, strlen(text) + 1, MCXT_ALLOC_NO_OOM));
    if (slot->data.message) memcpy(slot->data.message, text, strlen(text) + 1);
  } catch (...) {
    slot->data.sqlerrcode = ERRCODE_INTERNAL_ERROR;
    slot->data.message = const_cast<char*>("unexpected exception of an unknown type");
  }
  return false;
}

void hide_in_log(void*) {
  errhidestmt(true);
  errhidecontext(true);
}

}  // namespace

Datum enter(FunctionCallInfo fcinfo, Body body) {
  Slot slot;
  memset(&slot, 0, sizeof slot);
  slot.context = error_scratch_raw();
  MemoryContextReset(slot.context);
  MemoryContext const context = CurrentMemoryContext;
  sigjmp_buf* const jump = PG_exception_stack;
  ErrorContextCallback* const callbacks = error_context_stack;
  Datum result = 0;
  const bool before = forget_discretion();
  const bool good = run(fcinfo, body, &result, &slot);
  forget_discretion(before);
  if (good) return result;
  PG_exception_stack = jump;
  error_context_stack = callbacks;
  MemoryContextSwitchTo(context);
  ErrorData& data = slot.data;
  data.elevel = ERROR;
  data.output_to_server = true;
  data.output_to_client = true;
  if (!data.message) data.message = const_cast<char*>("out of memory while reporting an error");
  if (!data.filename) data.filename = __FILE__;
  if (!data.funcname) data.funcname = __func__;
  if (slot.discreet) {
    // The statement, and those around it, may hold a whole payload.
    ErrorContextCallback callback{callbacks, hide_in_log, nullptr};
    error_context_stack = &callback;
    ThrowErrorData(&data);
  }
  // ThrowErrorData, unlike ReThrowError, decides anew where the report goes: the first raise happened
  // under a guard and never reached the client or the log.
  ThrowErrorData(&data);
  pg_unreachable();
}

void require_nonatomic(FunctionCallInfo fcinfo, const std::string& name, const std::string& instead,
                       const std::string& when) {
  bool atomic = !(fcinfo->context && IsA(fcinfo->context, CallContext)) ||
                castNode(CallContext, fcinfo->context)->atomic;
  if (atomic)
    throw Error(ERRCODE_INVALID_TRANSACTION_TERMINATION,
                "portage." + name + "() commits " + when + " and cannot run inside a transaction")
        .hint("CALL it outside BEGIN ... COMMIT" + (instead.empty() ? "" : ", or use " + instead) + ".");
}

void notice(const std::string& message, const std::string& detail, int level) {
  const char* text = message.c_str();
  const char* more = detail.empty() ? nullptr : detail.c_str();
  Speaking ours;
  // In the server's log without the statement, which may hold a whole payload.
  guarded([=] {
    ereport(level, (errmsg_internal("%s", text), more ? errdetail_internal("%s", more) : 0,
                    errhidestmt(level == LOG)));
  });
}

}  // namespace portage::bridge
