// The SQL-callable functions of verification (sql/55-verify.sql).
#include "bridge/codes.hpp"
#include "bridge/entry.hpp"
#include "run/access.hpp"
#include "verify/verification.hpp"

using namespace portage;

namespace {

ledger::Run chosen_run(FunctionCallInfo fcinfo) {
  return run::run_to_change(fcinfo->args[0].isnull ? run::latest_run()
                                                   : DatumGetInt64(fcinfo->args[0].value));
}

verify::Depth chosen_depth(FunctionCallInfo fcinfo) {
  return verify::parse_depth(fcinfo->args[1].isnull ? "hashes" : bridge::string_of(fcinfo->args[1].value));
}

void tell(const verify::Check& check) {
  std::string text = "check " + check.name + ": ";
  if (check.passed) {
    text += "passed";
  } else {
    text += check.severity == "warning" ? "warning" : "FAILED";
    text += ", expected " + check.expected.value_or("null") + ", found " + check.actual.value_or("null");
  }
  bridge::notice(text, check.passed ? "" : check.details);
}

}  // namespace

PORTAGE_FUNCTION(portage_verify) {
  bridge::Spi spi;
  verify::Depth depth = chosen_depth(fcinfo);
  ledger::Run run = chosen_run(fcinfo);
  TimestampTz made;
  {
    verify::Verification verification(run, run::role_of(run), depth);
    made = verification.work(false).made;
  }
  spi.finish();
  return TimestampTzGetDatum(made);
}

PORTAGE_FUNCTION(portage_verify_run) {
  bridge::require_nonatomic(fcinfo, "verify_run", "portage.verify(), which is one transaction",
                            "between its pages");
  bridge::Spi spi(true);
  verify::Depth depth = chosen_depth(fcinfo);
  ledger::Run run = chosen_run(fcinfo);
  {
    verify::Verification verification(run, run::role_of(run), depth);
    verification.on_check = tell;
    verify::Verdict verdict = verification.work(true);
    long long id = static_cast<long long>(run.id);
    bridge::notice(verdict.verified
                       ? bridge::format("run %lld is verified", id)
                       : bridge::format("run %lld is not verified: %s", id, verdict.failed.c_str()));
  }
  spi.finish();
  return 0;
}
