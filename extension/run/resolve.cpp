// See resolve.hpp.
#include "run/resolve.hpp"

#include "bridge/clock.hpp"
#include "bridge/codes.hpp"
#include "bridge/entry.hpp"
#include "bridge/json.hpp"

extern "C" {
#include "utils/datum.h"
}

namespace portage::run {
namespace {

using bridge::Error;
using bridge::format;
using ledger::OpenConflict;

constexpr int64_t page_size = 1000;
constexpr int64_t page_bytes = 8 << 20;   // of raw input
constexpr size_t page_memory = 48 << 20;  // of everything that reading makes of it

std::string mapped_names(const Plan& plan) {
  std::string names;
  for (int attnum : plan.mapped()) (names += names.empty() ? "" : ", ") += plan.target().column(attnum).name;
  return names;
}

/// It repeats an item that has been decided about, and is a reject like others of its kind.
bool is_duplicate(const Item& item) {
  return item.outcome == Outcome::invalid && item.issues && item.issues->rule == "duplicate";
}

}  // namespace

Resolve::Resolve(const ledger::Run& run, Commits commits)
    : Reopened(run, commits, "conflicts cannot be resolved") {
  begin(true);
}

ResolveCounts Resolve::some(const std::vector<Decision>& decisions) {
  size_t done = 0;
  while (done < decisions.size()) {
    std::vector<OpenConflict> conflicts;
    std::vector<Decision> page;
    for (size_t i = done; i < decisions.size() && page.size() < static_cast<size_t>(page_size); i++) {
      std::optional<OpenConflict> conflict = ledger::find_conflict(run_.id, decisions[i].ordinal);
      if (!conflict)
        throw Error(codes::not_a_reject,
                    format("item %lld of run %lld does not wait for a decision",
                           static_cast<long long>(decisions[i].ordinal), static_cast<long long>(run_.id)))
            .hint(format("SELECT * FROM portage.open_conflicts WHERE run_id = %lld; lists what does.",
                         static_cast<long long>(run_.id)));
      if (!conflicts.empty() && conflicts[0].item.part != conflict->item.part) break;
      conflicts.push_back(std::move(*conflict));
      page.push_back(decisions[i]);
    }
    done += static_cast<size_t>(load(conflicts, page, true));
    bridge::check_interrupts();
  }
  tell("");
  return finish();
}

ResolveCounts Resolve::all(const std::string& resolution, const ledger::ConflictFilter& filter) {
  int64_t after = 0;
  for (;;) {
    bridge::Memory scratch("portage resolve scratch");
    bridge::InMemory in(scratch.get());
    begin_page();
    std::vector<OpenConflict> found = ledger::open_conflicts(run_.id, after, page_size, page_bytes);
    if (found.empty()) break;
    int64_t last = found.back().item.ordinal;
    std::vector<OpenConflict> conflicts;
    for (OpenConflict& one : ledger::filtered(std::move(found), filter)) {
      if (!conflicts.empty() && one.item.part != conflicts[0].item.part) {
        last = one.item.ordinal - 1;
        break;
      }
      conflicts.push_back(std::move(one));
    }
    if (!conflicts.empty()) {
      std::vector<Decision> decisions;
      for (const OpenConflict& one : conflicts)
        decisions.push_back({one.item.ordinal, resolution == "suggested" ? one.suggested : resolution, {}});
      size_t asked = conflicts.size();
      size_t settled = static_cast<size_t>(load(conflicts, decisions, false));
      if (settled < asked) last = conflicts[settled].item.ordinal - 1;
      tell(resolution);
      if (commits_ == Commits::yes) bridge::commit();
    }
    after = last;
    bridge::check_interrupts();
  }
  if (kept_open_ > 0)
    bridge::notice(
        format("conflicts of run %lld that stay open, their rows being others or not valid then: %lld",
               static_cast<long long>(run_.id), static_cast<long long>(kept_open_)),
        format("Of the first, item %lld, SELECT portage.resolve(%lld, %lld, ...); tells why.",
               static_cast<long long>(first_kept_open_), static_cast<long long>(run_.id),
               static_cast<long long>(first_kept_open_)),
        WARNING);
  return finish();
}

/// Carries decisions about items of one part out, as far as one transaction reaches; how many of them.
int64_t Resolve::load(std::vector<OpenConflict>& conflicts, const std::vector<Decision>& decisions,
                      bool strict) {
  double began = bridge::now_ms();
  TimestampTz started = GetCurrentTimestamp();
  check_target();
  Batch batch;
  bridge::InMemory in(batch.memory.get());
  std::unordered_map<int64_t, load::Resolution> resolutions;
  for (size_t i = 0; i < conflicts.size(); i++) {
    if (i > 0 && batch.arena.used() > page_memory) break;
    OpenConflict& conflict = conflicts[i];
    reader_->add_to(batch, conflict.item);
    resolutions[conflict.item.ordinal] = resolution_of(batch, conflict, decisions[i], strict);
  }
  loader_->decide_by(std::move(resolutions));
  ledger::BatchRecord record;
  record.kind = "resolve";
  record.started_at = started;
  size_t settled = Reopened::load(batch, reader_->part(conflicts[0].item.part), record, began);
  std::vector<Item> items;
  std::vector<int32_t> revisions;
  std::unordered_map<const Item*, size_t> positions;
  for (size_t i = 0; i < settled; i++) {
    const Item& item = batch.items[i];
    bool decided = item.outcome == Outcome::inserted || item.outcome == Outcome::updated ||
                   item.outcome == Outcome::unchanged || item.outcome == Outcome::skipped ||
                   is_duplicate(item);
    if (!decided) {
      if (strict) refuse_invalid(item);
      if (kept_open_++ == 0) first_kept_open_ = item.ordinal;
      continue;
    }
    positions[&item] = items.size();
    items.push_back(item);
    revisions.push_back(conflicts[i].item.revision + 1);
    ledger::count_of(record.counts, item.outcome)++;
    record.counts.conflicted--;
    ledger::note_resolution(run_.id, conflicts[i], decisions[i].resolution, decisions[i].value);
    disputed_.insert(conflicts[i].disputed.begin(), conflicts[i].disputed.end());
    resolved_++;
  }
  if (!items.empty()) write(record, items, revisions, positions);
  return static_cast<int64_t>(settled);
}

/// What the loader needs to know of a decision.
load::Resolution Resolve::resolution_of(Batch& batch, const OpenConflict& conflict, const Decision& decision,
                                        bool strict) const {
  using Kind = load::Resolution::Kind;
  static const std::vector<std::string> words{"incoming", "existing", "merged", "value"};
  auto word = std::find(words.begin(), words.end(), decision.resolution);
  if (word == words.end()) {
    std::string hint = nearest_hint(decision.resolution, words);
    throw Error(ERRCODE_INVALID_PARAMETER_VALUE, "unknown resolution \"" + decision.resolution + "\"")
        .hint(hint.empty() ? "Known are incoming, existing, merged and value." : hint);
  }
  load::Resolution resolution{
      static_cast<Kind>(word - words.begin()), conflict.existing_hash, nullptr, nullptr, {}, strict};
  if ((resolution.kind == Kind::value) != decision.value.has_value())
    throw Error(ERRCODE_INVALID_PARAMETER_VALUE, decision.value
                                                     ? "only the resolution \"value\" takes a value"
                                                     : "the resolution \"value\" needs a value")
        .hint("It is a JSON object of columns: '{\"phone\": \"+49 1234\"}'.");
  if (resolution.kind != Kind::value) return resolution;
  const Target& target = plan_->target();
  bridge::AsUser as(role_);
  bridge::Settings pinned;
  plan_->pin_settings(pinned);
  bridge::Result keys =
      bridge::execute("SELECT pg_catalog.jsonb_object_keys($1)", {bridge::param_json(*decision.value)});
  for (size_t i = 0; i < keys.size(); i++) {
    const TargetColumn* column = target.column(keys.text(i, 1));
    if (!column || !std::binary_search(plan_->mapped().begin(), plan_->mapped().end(), column->attnum))
      throw Error(ERRCODE_INVALID_PARAMETER_VALUE,
                  "the value names \"" + keys.text(i, 1) + "\", which is no column that the pipeline maps")
          .hint("It maps " + mapped_names(*plan_) + ".");
    resolution.given_columns.push_back(column->attnum);
  }
  bridge::Result row = bridge::execute(
      "SELECT r.* FROM pg_catalog.jsonb_populate_record(NULL::" + target.quoted_name() + ", $1) r",
      {bridge::param_json(*decision.value)});
  size_t natts = static_cast<size_t>(target.natts);
  auto* values = batch.arena.make_array<Datum>(natts);
  auto* nulls = batch.arena.make_array<bool>(natts);
  memset(nulls, true, natts);
  bridge::InMemory in(batch.memory.get());
  TupleDesc shape = row.shape();
  for (int i = 0; i < shape->natts; i++) {
    const TargetColumn* column = target.column(NameStr(TupleDescAttr(shape, i)->attname));
    bool null;
    Datum value = row.datum(0, i + 1, &null);
    if (!column || null) continue;
    bool by_value = column->by_value;
    int length = column->length;
    values[column->attnum - 1] = bridge::guarded([=] { return datumCopy(value, by_value, length); });
    nulls[column->attnum - 1] = false;
  }
  resolution.given = values;
  resolution.given_nulls = nulls;
  return resolution;
}

void Resolve::refuse_invalid(const Item& item) const {
  const Issue* issue = item.issues;
  while (issue && issue->warning && issue->next) issue = issue->next;
  Error error(
      issue ? MAKE_SQLSTATE(issue->sqlstate[0], issue->sqlstate[1], issue->sqlstate[2], issue->sqlstate[3],
                            issue->sqlstate[4])
            : ERRCODE_INTERNAL_ERROR,
      format("the decision about item %lld gives no valid row", static_cast<long long>(item.ordinal)) +
          (issue ? ": " + std::string(issue->message) : ""));
  if (issue && !issue->detail.empty()) error.detail(std::string(issue->detail));
  error.hint("Nothing was resolved. Decide otherwise, or give a \"value\".");
  throw error;
}

/// Counters and an event, for what was done since the last time.
void Resolve::tell(const std::string& resolution) {
  if (resolved_ == told_) return;
  ledger::update_counters(run_.id, true);
  std::string word = resolution.empty() ? "" : ", \"resolution\": " + bridge::json_quoted(resolution);
  ledger::add_event(run_.id, "conflict_resolved",
                    format("{\"count\": %lld", static_cast<long long>(resolved_ - told_)) + word + "}");
  told_ = resolved_;
}

ResolveCounts Resolve::finish() {
  int64_t remaining = ledger::sum_batches(run_.id).conflicted;
  if (remaining == 0) let_complete();
  return {resolved_, remaining};
}

}  // namespace portage::run
