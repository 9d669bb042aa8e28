// See teller.hpp. NOTIFY serialises commits: it is never part of a batch's transaction.
#include "run/teller.hpp"

#include "bridge/entry.hpp"
#include "settings.hpp"

namespace portage::run {

using bridge::format;
using Clock = std::chrono::steady_clock;

namespace {

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

}  // namespace

std::string grouped(int64_t number) {
  std::string digits = std::to_string(number);
  for (int i = static_cast<int>(digits.size()) - 3; i > 0; i -= 3) digits.insert(static_cast<size_t>(i), ",");
  return digits;
}

Teller::Teller(const ledger::Run& run, bool silent)
    : run_(run), silent_(silent), started_(Clock::now()), last_told_(started_) {}

Teller::~Teller() {
  if (!silent_) pgstat_report_appname(application_name);
}

void Teller::start(int64_t items, int64_t bytes_total) {
  started_ = last_told_ = Clock::now();
  told_items_ = items;
  bytes_total_ = bytes_total;
}

void Teller::progress(const ledger::Counts& counts, int64_t bytes_read) {
  if (silent_) return;
  double since = ms_since(last_told_);
  if (since < settings::progress_interval) return;
  double rate = static_cast<double>(counts.read - told_items_) * 1000 / std::max(since, 1.0);
  last_told_ = Clock::now();
  told_items_ = counts.read;
  std::string text = format("run %lld: %s items, %s/s", static_cast<long long>(run_.id),
                            grouped(counts.read).c_str(), grouped(static_cast<int64_t>(rate)).c_str());
  std::string activity = format("portage run %lld", static_cast<long long>(run_.id));
  if (bytes_total_ > 0) {
    double share = std::min(1.0, static_cast<double>(bytes_read) / static_cast<double>(bytes_total_));
    double elapsed = ms_since(started_) / 1000;
    text += format(", %.0f %%", share * 100);
    activity += format(": %.0f %%", share * 100);
    if (share > 0.01 && share < 1) text += format(", about %.0f s left", elapsed * (1 - share) / share);
  }
  if (counts.rejects() > 0) text += format(", %s rejects", grouped(counts.rejects()).c_str());
  if (notices_) bridge::notice(text);
  pgstat_report_appname(activity.c_str());
  notify("running", counts);
}

void Teller::state(const char* status, const ledger::Counts& counts) {
  if (!silent_) notify(status, counts);
}

void Teller::notify(const char* status, const ledger::Counts& counts) {
  // How many items there are is known when all are read.
  std::string total = strcmp(status, "running") == 0 ? "null" : std::to_string(counts.read);
  std::string payload =
      format("{\"run\": %lld, \"seq\": %lld, \"status\": \"%s\", \"done\": %lld, \"total\": %s}",
             static_cast<long long>(run_.id), static_cast<long long>(ledger::last_event(run_.id)), status,
             static_cast<long long>(counts.read), total.c_str());
  bridge::execute("SELECT pg_catalog.pg_notify('portage', $1)", {bridge::param(payload)});
  bridge::commit();
}

}  // namespace portage::run
