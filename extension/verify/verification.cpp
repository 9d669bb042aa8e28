// See verification.hpp.
#include "verify/verification.hpp"

#include "bridge/codes.hpp"
#include "bridge/json.hpp"
#include "ledger/as_ledger.hpp"
#include "ledger/compiled.hpp"
#include "load/run_hashes.hpp"
#include "run/access.hpp"

namespace portage::verify {

using bridge::Error;
using bridge::format;
using bridge::param;

Depth parse_depth(const std::string& word) {
  if (word == "counts") return Depth::counts;
  if (word == "hashes") return Depth::hashes;
  if (word == "source") return Depth::source;
  throw Error(ERRCODE_INVALID_PARAMETER_VALUE,
              "the depth must be \"counts\", \"hashes\" or \"source\", not \"" + word + "\"");
}

std::string Findings::list() const {
  std::string list;
  for (const std::string& text : texts_) (list += list.empty() ? "" : ", ") += bridge::json_quoted(text);
  return "[" + list + "]";
}

Check Findings::none(const std::string& name, const std::string& severity) const {
  return {name, severity, "0", std::to_string(count_), empty(), "{\"found\": " + list() + "}"};
}

std::string item_name(int64_t ordinal) { return "item " + std::to_string(ordinal); }

namespace {

/// The status of a run and its last batch; nothing if it is gone. `lock`: nobody changes it until the
/// transaction ends.
std::optional<std::string> state_of(int64_t id, bool lock) {
  ledger::AsLedger as;
  bridge::Result rows = bridge::execute(
      std::string(
          "SELECT r.status || ' ' || coalesce((SELECT max(b.id)::text FROM portage.migration_batches b WHERE "
          "b.run_id = r.id), '') FROM portage.migration_runs r WHERE r.id = $1") +
          (lock ? " FOR NO KEY UPDATE" : ""),
      {param(id)});
  if (rows.empty()) return std::nullopt;
  return rows.text(0, 1);
}

bool was_dry(int64_t id) {
  ledger::AsLedger as;
  return bridge::execute("SELECT dry_run FROM portage.migration_runs WHERE id = $1", {param(id)})
      .boolean(0, 1);
}

}  // namespace

Verification::Verification(const ledger::Run& run, Oid role, Depth depth)
    : run_(run), role_(role), depth_(depth) {
  long long id = static_cast<long long>(run.id);
  if (!run.sealed)
    throw Error(codes::wrong_state, format("run %lld has not been started", id))
        .detail("There is nothing to verify.");
  run::refuse_purged(run.id);
  if (was_dry(run.id))
    throw Error(codes::wrong_state, format("run %lld was a dry run", id))
        .detail("It wrote nothing that could be verified.");
  if (run.owner_alive && !run.owner_is_me)
    throw Error(codes::run_in_progress, "a migration is in progress")
        .detail(format("Run %lld is %s; process %d works on it.", id, run.status.c_str(),
                       run.owner_pid.value_or(0)))
        .hint("Verify it when it has ended.");
  plan_ = ledger::compile(run, role_);
  run::require_key(*plan_, run.id);
  bridge::AsUser as(role_);
  hashed_ = load::RunHashes::columns_of(*plan_, run.id);
  writer_ = load::make_writer(*plan_, hashed_);
  space_ = {run.pipeline_id, plan_->definition().scoped ? run.scope : ""};
}

Verification::~Verification() = default;

void Verification::require_same(bool lock) {
  std::optional<std::string> state = state_of(run_.id, lock);
  if (state == state_) return;
  Error error(codes::wrong_state, format(state ? "run %lld changed while it was verified"
                                               : "run %lld was erased while it was verified",
                                         static_cast<long long>(run_.id)));
  error.detail("Nothing was recorded.");
  if (state) error.hint("Verify it again when nobody works on it.");
  throw error;
}

void Verification::page_end() {
  bridge::check_interrupts();
  if (commit_between_) {
    if (on_page) on_page();
    bridge::commit();
  }
  if (on_page) on_page();
  require_same(false);
}

void Verification::record(const std::vector<Check>& checks, const std::string& at) {
  ledger::AsLedger as;
  static const bridge::Statement insert(
      "INSERT INTO portage.data_integrity_checks (run_id, name, severity, expected, actual, passed, details, "
      "checked_at) "
      "VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, $8::timestamptz)");
  for (const Check& check : checks) {
    insert.run(run_.id, check.name, check.severity, check.expected, check.actual, check.passed, check.details,
               at);
    if (!check.passed && check.severity != "warning")
      ledger::add_event(run_.id, "check_failed", "{\"check\": " + bridge::json_quoted(check.name) + "}");
  }
}

Verdict Verification::work(bool commit_between) {
  commit_between_ = commit_between;
  if (on_page) on_page();
  state_ = state_of(run_.id, false).value_or("");
  Scene scene{run_, role_, depth_, *plan_, *writer_, hashed_, space_, [this] { page_end(); }};
  std::vector<Check> checks;
  auto add = [&](std::vector<Check> more) {
    for (Check& check : more) {
      if (on_check) on_check(check);
      checks.push_back(std::move(check));
    }
  };
  add(check_batches(scene));
  add(check_items(scene));
  add(check_duplicates(scene));
  if (depth_ != Depth::counts) {
    add({check_payload(scene)});
    if (depth_ == Depth::source) add({check_source(scene)});
    add(check_definition(scene));
  }
  require_same(true);
  Verdict verdict{true, false, "", GetCurrentTimestamp()};
  for (const Check& check : checks) {
    if (check.passed || check.severity == "warning") continue;
    verdict.verified = false;
    verdict.critical = verdict.critical || check.severity == "critical";
    (verdict.failed += verdict.failed.empty() ? "" : ", ") += check.name;
  }
  TimestampTz now = verdict.made;
  record(checks, bridge::guarded([=] { return pstrdup(timestamptz_to_str(now)); }));
  ledger::set_verified(run_.id, verdict.verified);
  if (commit_between_) bridge::commit();
  return verdict;
}

}  // namespace portage::verify
