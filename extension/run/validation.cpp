// See validation.hpp.
#include "run/validation.hpp"

#include "bridge/subxact.hpp"
#include "ledger/predictions.hpp"

namespace portage::run {
namespace {

constexpr int64_t batch_items = 5000;

}  // namespace

Validation::Validation(const ledger::Run& run, const Options& options, Plan& plan, Oid role,
                       load::Policy policy, int32_t session)
    : run_(run), options_(options), plan_(plan), role_(role), session_(session) {
  policy.purpose = load::Purpose::validate;
  policy.session = session;
  bridge::AsUser as(role);
  writer_ = load::make_writer(plan, plan.target().attnums(policy.hash_columns));
  loader_ = std::make_unique<load::Loader>(plan, *writer_, std::move(policy));
}

void Validation::work(const Gate& gate, bool commit) {
  ledger::forget_predictions(run_.id, session_);  // an earlier one may have been interrupted
  for (const ledger::Part& part : ledger::parts_of(run_.id)) {
    if (stopped_ || out_of_items()) break;
    if (part.skipped) continue;
    if (options_.max_part_bytes && part.byte_length.value_or(0) > *options_.max_part_bytes) continue;
    work_off_part(part, gate, commit);
  }
  ledger::forget_predictions(run_.id, session_);
  if (commit) bridge::commit();
}

void Validation::work_off_part(const ledger::Part& part, const Gate& gate, bool commit) {
  std::unique_ptr<OpenPart> open;
  Batch batch;
  bool at_end = false;
  while (!at_end && !stopped_ && !out_of_items()) {
    std::optional<bridge::Error> error = bridge::attempt([&] {
      bridge::Memory scratch("portage validation scratch");
      bridge::InMemory in(scratch.get());
      stopped_ = !gate();
      if (stopped_) return;
      hold_target(plan_, run_.id, AccessShareLock);
      bridge::AsUser as(role_);
      if (!open) open = open_items(run_, part, plan_, options_, nullptr);
      open->check_unchanged();
      int64_t next = counts_.read + 1;
      int64_t wanted = options_.limit ? std::min(batch_items, *options_.limit - counts_.read) : batch_items;
      at_end = read_batch(*open, batch, {next, next}, wanted);
      prepare_batch(plan_, batch, run_, part, options_);
      for (size_t done = 0; done < batch.items.size();) done = loader_->load(batch, done);
      for (const Item& item : batch.items) note(part, item);
      loader_->remember(batch.items.data(), batch.items.size(), 0);
      counts_ += ledger::count_outcomes(batch.items.data(), batch.items.size());
    });
    if (error) throw *error;
    batch.reset();
    if (commit) bridge::commit();
    bridge::check_interrupts();
  }
}

void Validation::note(const ledger::Part& part, const Item& item) {
  for (const Issue* issue = item.issues; issue; issue = issue->next) {
    if (strcmp(issue->sqlstate, "00000") == 0) continue;  // left out on purpose: "where" and "sample"
    auto [it, fresh] = findings_.try_emplace(
        {issue->warning, std::string(issue->rule), issue->sqlstate, std::string(issue->column)});
    Finding& finding = it->second;
    if (fresh)
      finding = {std::string(issue->rule),
                 issue->sqlstate,
                 std::string(issue->column),
                 issue->warning,
                 0,
                 item.ordinal,
                 static_cast<int64_t>(item.record.line),
                 part.number,
                 std::string(issue->message)};
    finding.count++;
  }
}

std::vector<Finding> Validation::findings() const {
  std::vector<Finding> sorted;
  for (const auto& [kind, finding] : findings_) sorted.push_back(finding);
  std::sort(sorted.begin(), sorted.end(), [](const Finding& a, const Finding& b) {
    return std::tuple(-a.count, a.ordinal) < std::tuple(-b.count, b.ordinal);
  });
  return sorted;
}

}  // namespace portage::run
