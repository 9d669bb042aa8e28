// See ownership.hpp.
#include "run/ownership.hpp"

#include "bridge/background.hpp"
#include "bridge/codes.hpp"
#include "bridge/entry.hpp"
#include "bridge/json.hpp"
#include "run/access.hpp"
#include "settings.hpp"

namespace portage::run {

using bridge::Error;
using bridge::format;
using Clock = std::chrono::steady_clock;

bool lock_patiently(int64_t pipeline_id, const std::string& scope, bool exclusive) {
  bool locked = try_lock(pipeline_id, scope, exclusive);
  for (int i = 0; !locked && i < 50; i++) {
    bridge::nap(10);
    locked = try_lock(pipeline_id, scope, exclusive);
  }
  return locked;
}

bool Ownership::take_turn() {
  turn_ = Clock::now();
  bool locked = commits_ == Commits::yes ? lock_patiently(run_.pipeline_id, scope_, false)
                                         : try_lock(run_.pipeline_id, scope_, false);
  if (!locked && helps_) request_ = ledger::Request::pause;
  if (!locked && !helps_ && commits_ == Commits::yes)
    throw Error(ERRCODE_LOCK_NOT_AVAILABLE, "another session has taken this pipeline and scope")
        .hint(format("CALL portage.run(%lld); goes on from here.", static_cast<long long>(run_.id)));
  return look();
}

void Ownership::end_turn() {
  double took = std::chrono::duration<double, std::milli>(Clock::now() - turn_).count();
  if (!helps_ && took > settings::lease_duration / 3.0) ledger::renew_lease(run_.id);
}

bool Ownership::last_look() {
  ledger::lock_run(run_.id);
  return look();
}

bool Ownership::look() {
  if (helps_) {
    if (!stopped() && !ledger::takes_helpers(run_.id)) request_ = ledger::Request::pause;
    return !stopped();
  }
  std::optional<ledger::Request> wanted = ledger::owners_turn(run_.id, run_.status.c_str());
  if (!wanted)
    throw Error(codes::stale_owner, format("run %lld has been taken over", static_cast<long long>(run_.id)));
  if (!stopped()) request_ = *wanted;
  return !stopped();
}

bool Ownership::rest(double milliseconds) {
  Clock::time_point end = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                             std::chrono::duration<double, std::milli>(milliseconds));
  while (!stopped() && Clock::now() < end) {
    double left = std::chrono::duration<double, std::milli>(end - Clock::now()).count();
    bridge::nap(static_cast<long>(std::clamp(left, 1.0, 200.0)));
    look();
    bridge::commit();
  }
  return !stopped();
}

void Ownership::hold(const std::string& reason) {
  if (helps_ || reason == held_) return;  // the owner tells of the run
  if (held_.empty()) {
    ledger::add_event(run_.id, "held", "{\"reason\": " + bridge::json_quoted(reason) + "}");
    bridge::notice(format("portage: run %lld holds: ", static_cast<long long>(run_.id)) + reason, "", LOG);
  }
  ledger::set_hold(run_.id, reason);
  held_ = reason;
  bridge::commit();
}

void Ownership::release() {
  if (held_.empty()) return;
  ledger::add_event(run_.id, "released");
  ledger::set_hold(run_.id, "");
  held_.clear();
  bridge::commit();
}

}  // namespace portage::run
