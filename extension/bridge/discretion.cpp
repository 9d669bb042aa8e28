// See discretion.hpp.
#include "bridge/discretion.hpp"

extern "C" {
#include "utils/guc.h"
}

namespace portage::bridge {
namespace {

constinit int depth = 0;
constinit bool sticky = false;
constinit int servers_level = WARNING;  // log_min_messages as it is set
constinit bool speaking = false;        // it is we who tell something
constinit emit_log_hook_type next_hook = nullptr;

bool is_one_of(const char* name, const char* const* names, size_t n) {
  return name && std::any_of(names, names + n, [=](const char* one) { return strcmp(one, name) == 0; });
}

/// PostgreSQL's functions whose errors say in their message, and in the names that come with it, nothing but
/// names of objects; values stand in the detail alone. Told apart by the function: a SQLSTATE can be raised
/// by anybody, a message is translated, and what users' code raises comes from a function of its language.
bool names_only(const ErrorReport& report) {
  static constexpr const char* functions[] = {
      // constraints
      "ExecConstraints", "ReportNotNullViolationError", "ExecPartitionCheckEmitError", "ExecFindPartition",
      "ExecWithCheckOptions", "_bt_check_unique", "_bt_check_third_page",
      "check_exclusion_or_unique_constraint", "comparetup_index_btree", "comparetup_index_btree_tiebreak",
      "ri_ReportViolation", "domain_check_input", "ExecEvalConstraintNotNull", "ExecEvalConstraintCheck",
      // rights
      "aclcheck_error", "aclcheck_error_col", "check_enable_rls", "PreventCommandIfReadOnly",
      "afterTriggerMarkEvents",
      // others at the same time; cancel and shutdown; the disk
      "DeadLockReport", "heap_lock_tuple", "heapam_tuple_lock", "ExecUpdate", "ExecDelete", "ExecLockRows",
      "GetTupleForTrigger", "CheckForSerializableConflictOut", "OnConflict_CheckForSerializationFailure",
      "PreCommit_CheckForSerializationFailure", "ProcessInterrupts", "mdextend", "mdzeroextend"};
  return is_one_of(report.funcname.c_str(), functions, lengthof(functions));
}

/// As errstart() decides it.
bool is_logged(int level, int least) {
  if (level == LOG || level == LOG_SERVER_ONLY) return least == LOG || least <= ERROR;
  if (level == WARNING_CLIENT_ONLY) return false;
  return least == LOG ? level >= FATAL : level >= least;
}

/// Whoever writes a trigger may well quote a value in a notice, and PostgreSQL itself tells at DEBUG1 which
/// table there is not. What administrators have written to the log (auto_explain, audits, waits for locks) is
/// theirs.
void on_message(ErrorData* error) {
  static constexpr const char* languages[] = {"exec_stmt_raise", "PLy_output", "do_util_elog", "pltcl_elog"};
  if (depth > 0 && error->elevel < ERROR) {
    bool for_log = (error->elevel == LOG || error->elevel == LOG_SERVER_ONLY) &&
                   !is_one_of(error->funcname, languages, lengthof(languages));
    if (speaking || for_log)
      error->output_to_server = is_logged(error->elevel, servers_level);
    else
      error->output_to_server = error->output_to_client = false;
  }
  if (next_hook && error->output_to_server) next_hook(error);
}

void begin() {
  if (depth++ > 0) return;
  sticky = true;
  servers_level = log_min_messages;
  // What is on its way to the client alone is not shown to the hook: so nothing is.
  log_min_messages = std::min({log_min_messages, client_min_messages, INFO});
}

void end() {
  if (--depth == 0) log_min_messages = servers_level;
}

}  // namespace

Discretion::Discretion(bool on) : on_(on) {
  if (on_) begin();
}

Discretion& Discretion::operator=(const Discretion& other) {
  if (other.on_) begin();
  if (on_) end();
  on_ = other.on_;
  return *this;
}

Discretion::~Discretion() {
  if (on_) end();
}

bool discreet() { return depth > 0; }

bool was_discreet() { return sticky; }

bool forget_discretion(bool before) {
  bool was = sticky;
  sticky = before || depth > 0;
  return was;
}

Speaking::Speaking() { speaking = true; }
Speaking::~Speaking() { speaking = false; }

std::string quotable(std::string_view value) { return discreet() ? "***" : std::string(value); }

ErrorReport withheld(const ErrorReport& report) {
  ErrorReport told;
  told.sqlerrcode = report.sqlerrcode;
  told.filename = report.filename;
  told.lineno = report.lineno;
  told.funcname = report.funcname;
  if (names_only(report)) {
    told.message = report.message;
    told.schema_name = report.schema_name;
    told.table_name = report.table_name;
    told.column_name = report.column_name;
    told.datatype_name = report.datatype_name;
    told.constraint_name = report.constraint_name;
    return told;
  }
  told.message = "error " + sqlstate_text(report.sqlerrcode) +
                 ", whose text is withheld, as it may quote sensitive values";
  told.hint =
      "The pipeline's definition names sensitive paths. What is wrong with single items is told to the "
      "pipeline's owner: portage.rejects.";
  return told;
}

void watch_messages() {
  next_hook = emit_log_hook;
  emit_log_hook = on_message;
}

}  // namespace portage::bridge
