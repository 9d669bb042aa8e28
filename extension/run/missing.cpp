// See missing.hpp.
#include "run/missing.hpp"

#include "bridge/clock.hpp"
#include "bridge/codes.hpp"
#include "bridge/deferral.hpp"
#include "bridge/entry.hpp"
#include "bridge/json.hpp"
#include "bridge/subxact.hpp"
#include "load/writer_choice.hpp"
#include "run/batch_reader.hpp"

namespace portage::run {
namespace {

using bridge::Error;
using bridge::format;
using Fate = MissingItems::Fate;

constexpr int64_t greatest_page = 5000, least_page = 1;
constexpr const char* waits = "waits";  // for rows of the target that refer to it: these may be missing, too

}  // namespace

Missing::Missing(const ledger::Run& run, const Options& options, Plan& plan, Oid role, load::Policy policy)
    : run_(run),
      options_(options),
      plan_(plan),
      role_(role),
      policy_(std::move(policy)),
      hashes_(plan, run.id, policy_.hash_columns),
      size_(options.batch_size ? options.batch_size : 1000) {
  if (!deletes()) return;
  bridge::AsUser as(role_);
  std::vector<int> hashed = plan_.target().attnums(policy_.hash_columns);
  writer_ = load::make_writer(plan_, hashed);
  target_ = std::make_unique<undo::TargetUndo>(plan_, *writer_, hashed);
  dependants_ = std::make_unique<undo::DependantFinder>(plan_, role_, run_.role.name);
}

bool Missing::deletes() const { return plan_.definition().missing.fate == Fate::remove; }

Stage::Page Missing::page() {
  batch_.reset();
  next_step_ = step_;
  next_after_ = after_;
  page_waiting_ = page_gone_ = 0;
  if (step_ == Step::look) {
    ledger::clear_marks(policy_.space, run_.id);
    next_step_ = list() ? Step::settle : Step::done;
    return {next_step_ == Step::done, {}, nullptr, 0};
  }
  bridge::InMemory in(batch_.memory.get());
  std::string started = bridge::now_text();
  std::vector<ledger::MissingRow> rows = ledger::missing_page(run_.id, after_, size_, batch_.arena);
  if (rows.empty()) {
    // Another round helps rows to which others that were missing referred.
    if (waiting_ > 0) {
      next_after_ = 0;
      return {};
    }
    next_step_ = Step::done;
    if (std::string settled = ledger::missing_settled(run_.id); !settled.empty())
      ledger::add_event(run_.id, "missing_settled", settled);
    return {true, {}, nullptr, 0};
  }
  next_after_ = rows.back().seq;
  if (deletes()) {
    hold_target(plan_, run_.id, RowExclusiveLock);
    bridge::AsUser as(role_);
    bridge::defer_nothing();
    std::vector<Case> cases = judge(rows);
    std::vector<Case*> open;
    for (Case& c : cases)
      if (c.missing->reason.empty()) open.push_back(&c);
    halving_.begin();
    if (!remove_open(open)) next_after_ = open[halving_.stopped_at()]->missing->seq - 1;
  }
  std::vector<const ledger::MissingRow*> settled;
  for (ledger::MissingRow& row : rows) {
    if (row.seq > next_after_) break;
    if (row.reason == waits) {
      page_waiting_++;
      if (!last_round_) continue;
      row.reason = "referred_to";
    }
    page_gone_ += row.deleted;
    settled.push_back(&row);
  }
  if (last_round_) page_waiting_ = 0;
  ledger::settle_missing(policy_.space, run_.id, settled, started);
  return {};
}

void Missing::committed() {
  if (step_ == Step::settle && next_after_ == 0 && after_ > 0) {  // a round is over
    last_round_ = gone_ == 0;
    waiting_ = gone_ = 0;
  }
  step_ = next_step_;
  after_ = next_after_;
  waiting_ += page_waiting_;
  gone_ += page_gone_;
  size_ = std::min(size_ * 2, options_.batch_size ? options_.batch_size : greatest_page);
}

bool Missing::shrink() {
  if (size_ == least_page) return false;
  size_ = std::max(size_ / 4, least_page);
  return true;
}

void Missing::ignore(const std::string& reason) const {
  ledger::add_event(run_.id, "missing_ignored", "{\"reason\": " + bridge::json_quoted(reason) + "}");
  bridge::notice(format("run %lld takes no item for missing: ", static_cast<long long>(run_.id)) + reason);
}

/// Finds what is gone, unless that is known already. False: there is nothing to be done.
bool Missing::list() {
  if (plan_.definition().missing.fate == Fate::keep) return false;
  if (ledger::missing_listed(run_.id)) return true;
  std::string reason = options_.limit    ? "it was limited to a number of items"
                       : options_.sample ? "it read a sample"
                                         : ledger::unreadable_reason(policy_.space, run_.id);
  if (!reason.empty()) {
    ignore(reason);
    return false;
  }
  bridge::Subtransaction listed;
  ledger::MissingCounts counts = ledger::list_missing(policy_.space, run_.id, deletes());
  double most = plan_.definition().missing.at_most * static_cast<double>(counts.mapped);
  if (!deletes() || static_cast<double>(counts.to_delete) <= most) {
    listed.release();
    return counts.found > 0;
  }
  listed.rollback();
  ignore(format("rows of %lld of %lld mapped items would be deleted, which is beyond \"at_most\"",
                static_cast<long long>(counts.to_delete), static_cast<long long>(counts.mapped)));
  return false;
}

/// Locks the rows that may go, and says of those that must not, why.
std::vector<Missing::Case> Missing::judge(std::vector<ledger::MissingRow>& rows) {
  std::vector<Case> cases;
  std::vector<std::string_view> keys;
  for (ledger::MissingRow& row : rows) {
    if (row.reason.empty() && !row.mapped) row.reason = "mapping_missing";
    if (!row.reason.empty()) continue;
    cases.push_back({&row, {}});
    keys.push_back(row.target_key);
  }
  std::vector<load::Row> found = writer_->find_by_key(batch_, keys, true);
  for (size_t i = 0; i < cases.size(); i++) {
    ledger::MissingRow& missing = *cases[i].missing;
    cases[i].row = found[i];
    if (!found[i].found) {
      missing.reason = "gone";
      continue;
    }
    load::AsLeft as_left = hashes_.compare(missing.mapping, found[i]);
    if (as_left != load::AsLeft::yes) missing.reason = as_left == load::AsLeft::no ? "changed" : "unknown";
  }
  return cases;
}

/// Deletes the rows of cases; a single one that fails stays. False if the transaction's subtransactions are
/// used up.
bool Missing::remove_open(std::vector<Case*>& cases) {
  auto work = [&](size_t low, size_t high) {
    remove({cases.begin() + static_cast<std::ptrdiff_t>(low),
            cases.begin() + static_cast<std::ptrdiff_t>(high)});
    writer_->check_deferred();
  };
  auto failed = [&](size_t low, size_t high, const Error& error) {
    if (bridge::concerns_whole_batch(error.code())) throw error;
    for (size_t i = low; i < high; i++) {
      cases[i]->missing->deleted = false;
      cases[i]->missing->reason.clear();
    }
    if (high - low == 1)
      cases[low]->missing->reason = error.code() == ERRCODE_FOREIGN_KEY_VIOLATION
                                        ? "referred_to"
                                        : error.sqlstate() + " " + error.message();
    return false;
  };
  return halving_.over(0, cases.size(), work, failed);
}

/// A row to which another one refers that does not go along stays, whatever the constraint would do.
void Missing::remove(std::vector<Case*> cases) {
  std::vector<const load::Row*> rows;
  for (bool settled = false; !settled;) {
    rows.clear();
    for (const Case* c : cases) rows.push_back(&c->row);
    undo::Tree tree = dependants_->find(batch_, rows, false, false);
    std::map<size_t, const char*> stay;
    for (const undo::OwnRow& own : tree.own)
      if (own.refers_to) stay[*own.refers_to] = waits;
    for (size_t position : tree.referred) stay[position] = "referred_to";
    std::vector<Case*> free;
    for (size_t i = 0; i < cases.size(); i++) {
      if (auto found = stay.find(i); found != stay.end())
        cases[i]->missing->reason = found->second;
      else
        free.push_back(cases[i]);
    }
    settled = stay.empty();
    cases.swap(free);
  }
  std::vector<bool> removed = target_->remove(batch_, rows, {}, {});
  for (size_t i = 0; i < cases.size(); i++) {
    ledger::MissingRow& missing = *cases[i]->missing;
    missing.deleted = removed[i];
    if (removed[i])
      keep_image(missing, cases[i]->row);
    else
      missing.reason = "kept_by_trigger";
  }
}

/// The whole row, but for what is generated.
void Missing::keep_image(ledger::MissingRow& missing, const load::Row& row) const {
  missing.columns.clear();
  missing.before.clear();
  bridge::PlainText plain;
  for (const TargetColumn& column : plan_.target().columns) {
    if (column.dropped || column.generated) continue;
    int i = column.attnum - 1;
    missing.columns.push_back(column.name);
    missing.before.push_back(row.nulls[i] ? std::nullopt
                                          : std::optional(bridge::output_text(column.type, row.values[i])));
  }
  missing.before_hash = static_cast<int64_t>(row.row_hash);
}

}  // namespace portage::run
