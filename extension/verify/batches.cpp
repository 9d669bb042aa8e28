// balance and item_count: the run's counters, its batches, its ranges and its items tell the same story, and
// every ordinal is there once. Ledger only; items are read by groups of batches, each a page.
#include "ledger/as_ledger.hpp"
#include "ledger/parts.hpp"
#include "verify/check.hpp"

namespace portage::verify {
namespace {

using bridge::param;
using bridge::Result;

constexpr const char* outcomes[] = {"inserted",   "updated", "unchanged", "skipped",
                                    "conflicted", "parked",  "invalid",   "failed"};
constexpr int outcome_kinds = 8;
constexpr int64_t page = 20000;  // items

struct BatchSpan {
  int64_t id, first, last, read;
  int32_t part;
  int64_t counts[outcome_kinds];
};

/// "item 7", "items 7 to 9"
std::string items_name(int64_t first, int64_t last) {
  if (first == last) return item_name(first);
  return "items " + std::to_string(first) + " to " + std::to_string(last);
}

class BatchCheck {
 public:
  explicit BatchCheck(const Scene& scene) : scene_(scene), run_id_(scene.run.id) {}

  std::vector<Check> work() {
    read_batches();
    compare_run();
    compare_ranges();
    scene_.page_end();
    for (size_t i = 0; i < batches_.size();) {
      size_t end = i;
      for (int64_t items = 0; end < batches_.size() && items < page; end++) items += batches_[end].read;
      compare_items(i, end);
      i = end;
      scene_.page_end();
    }
    compare_rest();
    std::string missing = missing_.list();
    return {{"balance", "error", "equal", balance_.empty() ? "equal" : "different", balance_.empty(),
             "{\"found\": " + balance_.list() + "}"},
            {"item_count", "error", std::to_string(read_), std::to_string(items_),
             read_ == items_ && spans_.empty() && missing_.empty(),
             "{\"missing_ordinals\": " + missing + ", \"found\": " + spans_.list() + "}"}};
  }

 private:
  /// What is in no batch, but for what several workers have not come to yet.
  void name_gap(int64_t first, int64_t last) {
    for (auto [from, end] : unread_) {
      if (from > last || end <= first) continue;
      if (from > first) spans_.add(items_name(first, from - 1) + ": in no batch");
      first = end;
    }
    if (first <= last) spans_.add(items_name(first, last) + ": in no batch");
  }

  void read_batches() {
    ledger::AsLedger as;
    Result unread = bridge::execute(
        "SELECT next_ordinal, end_ordinal FROM portage.migration_ranges WHERE run_id = $1 AND next_ordinal < "
        "end_ordinal ORDER BY 1",
        {param(run_id_)});
    for (size_t i = 0; i < unread.size(); i++) unread_.emplace_back(unread.bigint(i, 1), unread.bigint(i, 2));
    Result rows = bridge::execute(
        "SELECT id, first_ordinal, last_ordinal, read, part, inserted, updated, unchanged, skipped, "
        "conflicted, parked, "
        "invalid, failed FROM portage.migration_batches WHERE run_id = $1 AND kind = 'import' AND read > 0 "
        "ORDER BY first_ordinal, id",
        {param(run_id_)});
    for (size_t i = 0; i < rows.size(); i++) {
      BatchSpan batch{rows.bigint(i, 1), rows.bigint(i, 2),  rows.bigint(i, 3),
                      rows.bigint(i, 4), rows.integer(i, 5), {}};
      for (int k = 0; k < outcome_kinds; k++) batch.counts[k] = rows.bigint(i, 6 + k);
      name_gap(end_ + 1, batch.first - 1);
      if (batch.first <= end_)
        spans_.add(items_name(batch.first, std::min(end_, batch.last)) + ": in several batches");
      end_ = std::max(end_, batch.last);
      read_ += batch.read;
      batches_.push_back(batch);
    }
  }

  /// The counters of a run are written when it ends: they are the sums over all its batches.
  void compare_run() {
    ledger::AsLedger as;
    std::string sums, counters;
    for (const char* name : outcomes) {
      sums += std::string(", coalesce(sum(b.") + name + "), 0)::bigint";
      counters += std::string(", r.") + name;
    }
    Result rows = bridge::execute(
        "SELECT r.read IS NOT NULL AND r.status IN ('completed', 'failed', 'cancelled', "
        "'rolling_back', 'rolled_back'), r.read" +
            counters +
            ", s.* FROM portage.migration_runs r CROSS JOIN LATERAL (SELECT "
            "coalesce(sum(b.read), 0)::bigint" +
            sums + " FROM portage.migration_batches b WHERE b.run_id = r.id) s WHERE r.id = $1",
        {param(run_id_)});
    if (rows.empty() || !rows.boolean(0, 1)) return;
    for (int k = 0; k <= outcome_kinds; k++) {
      int64_t run = rows.bigint(0, 2 + k), batches = rows.bigint(0, 3 + outcome_kinds + k);
      if (run == batches) continue;
      balance_.add(std::string(k ? outcomes[k - 1] : "read") + ": the run says " + std::to_string(run) +
                   ", its batches " + std::to_string(batches));
    }
  }

  /// How far the parts have been read is how far their batches reach.
  void compare_ranges() {
    std::map<int32_t, std::pair<int64_t, int64_t>> reach;  // part -> first, last
    for (const BatchSpan& batch : batches_) {
      auto [at, fresh] = reach.emplace(batch.part, std::pair(batch.first, batch.last));
      if (!fresh)
        at->second = {std::min(at->second.first, batch.first), std::max(at->second.second, batch.last)};
    }
    std::set<int32_t> parts;
    for (const ledger::Part& part : ledger::parts_of(run_id_)) parts.insert(part.number);
    for (const auto& [part, span] : reach)
      if (!parts.count(part)) spans_.add("part " + std::to_string(part) + ": is gone, its batches are not");
    ledger::AsLedger as;
    Result rows = bridge::execute(
        "SELECT part, coalesce(min(first_ordinal) FILTER (WHERE next_ordinal > first_ordinal), "
        "min(first_ordinal)), coalesce(max(next_ordinal) FILTER (WHERE next_ordinal > first_ordinal), "
        "min(first_ordinal)) FROM portage.migration_ranges WHERE run_id = $1 GROUP BY part",
        {param(run_id_)});
    std::set<int32_t> ranges;
    for (size_t i = 0; i < rows.size(); i++) {
      int32_t part = rows.integer(i, 1);
      ranges.insert(part);
      auto at = reach.find(part);
      int64_t read = at == reach.end() ? rows.bigint(i, 2) : at->second.second + 1;
      if (read != rows.bigint(i, 3) || (at != reach.end() && at->second.first != rows.bigint(i, 2)))
        spans_.add("part " + std::to_string(part) + ": read from " + std::to_string(rows.bigint(i, 2)) +
                   " to " + std::to_string(rows.bigint(i, 3) - 1) + ", its batches reach " +
                   (at == reach.end() ? "nowhere"
                                      : "from " + std::to_string(at->second.first) + " to " +
                                            std::to_string(at->second.second)));
    }
    for (const auto& [part, span] : reach)
      if (!ranges.count(part)) spans_.add("part " + std::to_string(part) + ": has batches, but no range");
  }

  void compare_items(size_t low, size_t high) {
    std::vector<int64_t> firsts, lasts, parts;
    for (size_t i = low; i < high; i++) {
      firsts.push_back(batches_[i].first);
      lasts.push_back(batches_[i].last);
      parts.push_back(batches_[i].part);
    }
    ledger::AsLedger as;
    bridge::Memory memory("portage batch check");
    bridge::InMemory in(memory.get());
    ByPage by_page;
    static const std::string sql = [] {
      std::string counts;
      for (const char* name : outcomes)
        counts += std::string(", count(*) FILTER (WHERE i.revision = 0 AND i.status = '") + name + "')";
      return "SELECT x.* FROM unnest($2::bigint[], $3::bigint[], $4::bigint[]) WITH ORDINALITY AS u (first, "
             "last, part, "
             "place) CROSS JOIN LATERAL (SELECT count(*) FILTER (WHERE i.revision = 0)" +
             counts +
             ", count(*) FILTER (WHERE i.status = 'rolled_back'), count(*) FILTER (WHERE i.revision > 0 AND "
             "i.status <> "
             "'rolled_back'), count(*) FILTER (WHERE " +
             odd +
             ") FROM portage.all_items i WHERE i.run_id = $1 AND "
             "i.ordinal BETWEEN u.first AND u.last) x ORDER BY u.place";
    }();
    Result rows = bridge::execute(sql, {param(run_id_), bridge::param_int8_array(firsts),
                                        bridge::param_int8_array(lasts), bridge::param_int8_array(parts)});
    for (size_t i = low; i < high; i++) {
      const BatchSpan& batch = batches_[i];
      size_t row = i - low;
      int64_t items = rows.bigint(row, 1), taken_back = rows.bigint(row, 2 + outcome_kinds),
              later = rows.bigint(row, 3 + outcome_kinds), wrong = rows.bigint(row, 4 + outcome_kinds);
      items_ += items;
      taken_back_ += taken_back;
      for (int k = 0; k < outcome_kinds; k++)
        if (batch.counts[k] != rows.bigint(row, 2 + k))
          balance_.add("batch " + std::to_string(batch.id) + " (" + items_name(batch.first, batch.last) +
                       "), " + outcomes[k] + ": the batch says " + std::to_string(batch.counts[k]) +
                       ", its items " + std::to_string(rows.bigint(row, 2 + k)));
      if (items != batch.last - batch.first + 1)
        name(
            "SELECT o FROM pg_catalog.generate_series($2::bigint, $3::bigint) AS o WHERE NOT EXISTS (SELECT "
            "FROM "
            "portage.all_items i WHERE i.run_id = $1 AND i.ordinal = o AND i.revision = 0)",
            batch, missing_, "");
      if (wrong > 0) name_odd(batch);
      if (later + taken_back > 0)
        name(
            "SELECT i.ordinal FROM portage.all_items i WHERE i.run_id = $1 AND i.ordinal BETWEEN $2 AND $3 "
            "GROUP BY "
            "i.ordinal HAVING max(i.revision) + 1 <> count(*)",
            batch, balance_, ": a revision is missing");
      if (taken_back > 0)
        name(
            "SELECT i.ordinal FROM portage.all_items i WHERE i.run_id = $1 AND i.ordinal BETWEEN $2 AND $3 "
            "AND i.status = "
            "'rolled_back' GROUP BY i.ordinal HAVING count(*) > 1",
            batch, balance_, ": taken back twice");
      if (later > 0)
        name(
            "SELECT i.ordinal FROM portage.all_items i WHERE i.run_id = $1 AND i.ordinal BETWEEN $2 AND $3 "
            "AND i.revision "
            "> 0 AND i.status <> 'rolled_back' AND NOT EXISTS (SELECT FROM portage.migration_batches b WHERE "
            "b.run_id = "
            "$1 AND b.kind IN ('settle', 'replay', 'resolve') AND i.ordinal BETWEEN b.first_ordinal AND "
            "b.last_ordinal)",
            batch, balance_, ": has a revision of no batch");
    }
  }

  /// Ordinals that a query over a batch's span gives. Reject and outcome do not go together, or the part is
  /// another.
  void name(const std::string& sql, const BatchSpan& batch, Findings& findings, const std::string& what) {
    Result rows = bridge::execute(sql + " ORDER BY 1 LIMIT 1000",
                                  {param(run_id_), param(batch.first), param(batch.last)});
    for (size_t i = 0; i < rows.size(); i++)
      findings.add(what.empty() ? std::to_string(rows.bigint(i, 1)) : item_name(rows.bigint(i, 1)) + what);
  }

  void name_odd(const BatchSpan& batch) {
    Result rows = bridge::execute(std::string("SELECT i.ordinal, i.status, i.part <> u.part FROM (SELECT $4 "
                                              "AS part) u CROSS JOIN portage.all_items "
                                              "i WHERE i.run_id = $1 AND i.ordinal BETWEEN $2 AND $3 AND (") +
                                      odd + ") ORDER BY 1 LIMIT 1000",
                                  {param(run_id_), param(batch.first), param(batch.last), param(batch.part)});
    for (size_t i = 0; i < rows.size(); i++)
      balance_.add(item_name(rows.bigint(i, 1)) +
                   (rows.boolean(i, 3)
                        ? ": is of another part than its batch"
                        : ": is " + rows.text(i, 2) + ", what is recorded with it says otherwise"));
  }

  /// What lies outside of all batches, and what was taken back.
  void compare_rest() {
    ledger::AsLedger as;
    Result rows = bridge::execute(
        "SELECT ordinal FROM portage.all_items WHERE run_id = $1 AND (ordinal > $2 OR ordinal < "
        "1) ORDER BY 1 LIMIT 1000",
        {param(run_id_), param(end_)});
    for (size_t i = 0; i < rows.size(); i++) spans_.add(item_name(rows.bigint(i, 1)) + ": in no batch");
    Result back = bridge::execute(
        "SELECT coalesce(sum(rolled_back), 0)::bigint FROM portage.migration_batches WHERE "
        "run_id = $1 AND kind = 'rollback'",
        {param(run_id_)});
    if (back.bigint(0, 1) != taken_back_)
      balance_.add("rolled_back: the batches say " + std::to_string(back.bigint(0, 1)) + ", the items " +
                   std::to_string(taken_back_));
  }

  // A landed item keeps neither raw input nor an error, any other has a reason. u.part: the batch's.
  static constexpr const char* odd =
      "i.part <> u.part OR (i.revision = 0 AND CASE WHEN i.status IN ('inserted', 'updated', 'unchanged') "
      "THEN i.raw IS "
      "NOT NULL OR i.error_class IS NOT NULL WHEN i.status IN ('invalid', 'failed', 'skipped') THEN "
      "i.sqlstate IS NULL "
      "ELSE i.status NOT IN ('conflicted', 'parked') END)";

  const Scene& scene_;
  int64_t run_id_;
  std::vector<BatchSpan> batches_;
  std::vector<std::pair<int64_t, int64_t>> unread_;  // first and end, in order
  int64_t end_ = 0, read_ = 0, items_ = 0, taken_back_ = 0;
  Findings balance_, spans_, missing_;
};

}  // namespace

std::vector<Check> check_batches(const Scene& scene) { return BatchCheck(scene).work(); }

}  // namespace portage::verify
