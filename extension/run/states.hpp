// The life of a run as one explicit table: every change of state that exists, with a sentence. Everything
// else is an error that names both states.
#pragma once

#include <string>
#include <string_view>

namespace portage::run {

struct Transition {
  std::string_view from, to, when;
};

/// Every transition there is.
inline constexpr Transition transitions[] = {
    {"pending", "queued", "start() asked for a background worker"},
    {"pending", "running", "CALL run() works it off here"},
    {"pending", "cancelled", "cancel() before anything was read"},
    {"queued", "running", "a worker took it"},
    {"queued", "paused", "pause() before a worker took it"},
    {"queued", "cancelled", "cancel() before a worker took it"},
    {"queued", "failed", "no worker could take it"},
    {"running", "paused", "pause(), or the target changed its shape"},
    {"running", "awaiting_resolution", "all is read; conflicts wait for a decision"},
    {"running", "verifying", "all is read and settled"},
    {"running", "completed", "all is read and settled, and verification was not asked for"},
    {"running", "failed", "an error that concerns more than single items"},
    {"running", "cancelled", "cancel() between two batches"},
    {"paused", "queued", "resume() of a run that no worker had taken"},
    {"paused", "running", "resume()"},
    {"paused", "verifying", "resume() of a run that was verifying"},
    {"paused", "rolling_back", "resume() of a run that was rolling back"},
    {"paused", "failed", "the run cannot go on"},
    {"paused", "cancelled", "cancel()"},
    {"awaiting_resolution", "running", "the last conflict was resolved"},
    {"awaiting_resolution", "cancelled", "cancel()"},
    {"awaiting_resolution", "rolling_back", "rollback() instead of a decision"},
    {"verifying", "completed", "the checks are done"},
    {"verifying", "paused", "pause()"},
    {"verifying", "failed", "a check of severity critical did not pass"},
    {"verifying", "cancelled", "cancel()"},
    {"failed", "running", "retry(), or CALL run() again"},
    {"failed", "rolling_back", "rollback()"},
    {"completed", "rolling_back", "rollback()"},
    {"cancelled", "rolling_back", "rollback()"},
    {"rolling_back", "rolled_back", "everything is taken back"},
    {"rolling_back", "paused", "pause()"},
    {"rolling_back", "failed", "an error stopped the rollback; it can be resumed"},
    {"rolling_back", "completed", "a part of the items was taken back; rollback() again goes on"},
    {"rolling_back", "cancelled", "the same of a run that was cancelled"},
};

/// True if the transition exists.
constexpr bool may_become(std::string_view from, std::string_view to) {
  for (const Transition& t : transitions)
    if (t.from == from && t.to == to) return true;
  return false;
}

/// True in the states in which a process is at work on the run, or was when it went away.
constexpr bool in_work(std::string_view status) {
  return status == "running" || status == "verifying" || status == "rolling_back";
}

/// Moves a run, records the event and writes one line to the server's log. Raises PZ006 if there is no such
/// transition, or if the run has left `from` meanwhile.
void move(int64_t run_id, const std::string& from, const std::string& to, const std::string& event,
          const std::string& details = "{}");

/// Moves a run to paused, from where resume() returns it; likewise.
void pause(int64_t run_id, const std::string& from, const std::string& details = "{}");

/// The error for a transition that does not exist, naming both states and what can be done instead.
[[noreturn]] void refuse_transition(int64_t run_id, std::string_view from, std::string_view to);

}  // namespace portage::run
