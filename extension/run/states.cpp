// See states.hpp.
#include "bridge/codes.hpp"
#include "bridge/entry.hpp"
#include "ledger/runs.hpp"
#include "run/states.hpp"

namespace portage::run {

void refuse_transition(int64_t run_id, std::string_view from, std::string_view to) {
  std::string possible;
  for (const Transition& t : transitions)
    if (t.from == from) (possible += possible.empty() ? "" : ", ") += t.to;
  throw bridge::Error(codes::wrong_state,
                      bridge::format("run %lld is %s and cannot become %s", static_cast<long long>(run_id),
                                     std::string(from).c_str(), std::string(to).c_str()))
      .hint(possible.empty() ? "The run has ended; open a new one with portage.open_run()."
                             : "From here it can become: " + possible + ".");
}

namespace {

using Change = bool (*)(int64_t run_id, const std::string& from, const std::string& to);

void change(int64_t run_id, const std::string& from, const std::string& to, const std::string& event,
            const std::string& details, Change write) {
  if (!may_become(from, to)) refuse_transition(run_id, from, to);
  if (!write(run_id, from, to)) {
    std::optional<ledger::Run> now = ledger::find_run(run_id);
    refuse_transition(run_id, now ? now->status : "gone", to);
  }
  ledger::add_event(run_id, event, details);
  bridge::notice(
      bridge::format("portage: run %lld: %s -> %s", static_cast<long long>(run_id), from.c_str(), to.c_str()),
      "", LOG);
}

}  // namespace

void move(int64_t run_id, const std::string& from, const std::string& to, const std::string& event,
          const std::string& details) {
  change(run_id, from, to, event, details, ledger::set_status);
}

void pause(int64_t run_id, const std::string& from, const std::string& details) {
  change(
      run_id, from, "paused", "paused", details,
      [](int64_t id, const std::string& state, const std::string&) { return ledger::pause_run(id, state); });
}

}  // namespace portage::run
