// source: the parts are read and typed once more, and every item compared with what the ledger has of it: its
// place, its legacy id, and the hash of its values where it landed. Writes nothing; what expressions do is
// rolled back. Uses run/source.hpp, which opens parts and knows nothing of runs.
#include "run/source.hpp"

#include "bridge/codes.hpp"
#include "bridge/json.hpp"
#include "bridge/subxact.hpp"
#include "ledger/as_ledger.hpp"
#include "ledger/references.hpp"
#include "pipeline/checks.hpp"
#include "run/options.hpp"
#include "verify/check.hpp"

namespace portage::verify {
namespace {

using bridge::Error;
using bridge::param;
using bridge::Result;

constexpr size_t page = 2000;
constexpr uint64_t page_bytes = 8 << 20;
constexpr size_t page_memory = 48 << 20;

/// What the ledger has of an item when it was read, and whether that still is the last word.
struct Recorded {
  int64_t line, offset, length;
  std::string status;
  std::optional<std::string> legacy_id;
  bool later = false;  // replayed or resolved since
  bool mapped = false;
  int64_t source_hash = 0;
};

class SourceCheck {
 public:
  explicit SourceCheck(const Scene& scene)
      : scene_(scene), repeatable_(is_repeatable(scene.plan)), reading_(scene.plan.reader_options()) {
    reading_.max_item_bytes = static_cast<size_t>(run::parse_options(scene.run.options).max_item_bytes);
  }

  Check work() {
    for (const ledger::Part& part : ledger::parts_of(scene_.run.id)) {
      std::optional<ledger::Range> range = ledger::read_so_far(scene_.run.id, part.number);
      if (!range || part.skipped || range->next_ordinal == range->first_ordinal) continue;
      expected_ += range->next_ordinal - range->first_ordinal;
      if (part.kind == "payload" && part.byte_length.value_or(0) > 0 &&
          ledger::next_chunk(scene_.run.id, part.number) == 1)
        not_checked_.add("part " + std::to_string(part.number) + ": its payload is not kept any more");
      else
        read_part(part, *range);
    }
    Check check{"source",
                wrong() ? "error" : "warning",
                std::to_string(expected_),
                std::to_string(agreed_),
                !wrong() && not_checked_.empty(),
                "{\"found\": " + findings_.list() + ", \"parts\": " + parts_.list() +
                    ", \"not_checked\": " + not_checked_.list()};
    if (check.passed) check.severity = "error";
    if (!changed_.empty())
      check.details +=
          ", \"changed_since\": " + std::to_string(changed_.size()) + ", \"changed\": " + changed_.list();
    if (not_comparable_ > 0) check.details += ", \"not_comparable\": " + std::to_string(not_comparable_);
    check.details += "}";
    return check;
  }

 private:
  bool wrong() const { return !findings_.empty() || !parts_.empty(); }

  void read_part(const ledger::Part& part, const ledger::Range& range) {
    std::string name = "part " + std::to_string(part.number);
    std::unique_ptr<run::OpenPart> open;
    Batch batch;
    int64_t ordinal = range.first_ordinal;
    for (bool more = true; more;) {
      std::optional<Error> error;
      try {
        bridge::Subtransaction nothing_remains;
        bridge::InMemory in(batch.memory.get());
        more = read_page(part, range, open, batch, ordinal);
      } catch (const Error& raised) {
        if (ends_verification(raised.code())) throw;
        error = raised;
      }
      if (error) {
        std::string why = error->message();
        if (!error->report().detail.empty()) why += ": " + error->report().detail;
        not_checked_.add(name + ", from " + item_name(ordinal) + " on: " + why);
        break;
      }
      batch.reset();
      scene_.page_end();
    }
  }

  /// One page; false at the end of the part.
  bool read_page(const ledger::Part& part, const ledger::Range& range, std::unique_ptr<run::OpenPart>& open,
                 Batch& batch, int64_t& ordinal) {
    bridge::OnlyReading only_reading;
    bool at_end = false;
    std::string name = "part " + std::to_string(part.number);
    // A source that goes on changing is not the run's fault, but nobody could tell the difference.
    bool may_change = part.kind == "query" || part.kind == "large_object";
    Findings& findings = may_change ? changed_ : findings_;
    Findings& parts = may_change ? changed_ : parts_;
    int64_t first = ordinal;
    {
      bridge::AsUser as(scene_.role);
      if (!open) open = run::open_part(scene_.run.id, part, scene_.plan, reading_, nullptr);
      open->check_unchanged();
      while (ordinal < range.next_ordinal && batch.items.size() < page && batch.raw_bytes < page_bytes &&
             batch.arena.used() < page_memory) {
        Item item;
        memset(static_cast<void*>(&item), 0, sizeof item);
        if (!open->reader().next(batch.arena, item.record)) {
          parts.add(name + ": its source ends before " + item_name(ordinal) + ", the ledger goes on to " +
                    std::to_string(range.next_ordinal - 1));
          at_end = true;
          break;
        }
        item.ordinal = ordinal++;
        if ((batch.items.size() & 255) == 0) bridge::check_interrupts();
        batch.raw_bytes += item.record.length;
        batch.items.push_back(item);
      }
      if (!at_end && ordinal >= range.next_ordinal) at_end = true;
      std::optional<TimestampTz> mtime;
      if (part.modified_us)
        mtime = *part.modified_us - (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
      scene_.plan.prepare(batch, {scene_.run.scope, part.name, part.path, mtime},
                          ledger::translator(scene_.plan, scene_.run.scope, batch.arena));
    }
    std::map<int64_t, Recorded> recorded = read_ledger(first, ordinal - 1);
    for (const Item& item : batch.items) compare(part, item, recorded, findings);
    if (!at_end) return true;
    if (range.done && ordinal == range.next_ordinal) compare_end(part, range, *open, batch, parts);
    return false;
  }

  void compare_end(const ledger::Part& part, const ledger::Range& range, run::OpenPart& open, Batch& batch,
                   Findings& findings) {
    std::string name = "part " + std::to_string(part.number);
    bridge::AsUser as(scene_.role);
    formats::Record record{};
    if (open.reader().next(batch.arena, record)) {
      findings.add(name + ": its source has more items than the " +
                   std::to_string(range.next_ordinal - range.first_ordinal) + " of the ledger");
      return;
    }
    std::optional<std::string> digest = open.digest();
    ledger::AsLedger ledger;
    Result known =
        bridge::execute("SELECT sha256 FROM portage.migration_parts WHERE run_id = $1 AND part = $2",
                        {param(scene_.run.id), param(part.number)});
    if (digest && !known.empty() && !known.is_null(0, 1) && bridge::string_of(known.datum(0, 1)) != *digest)
      findings.add(name + ": its bytes are not those that were read (sha256)");
  }

  std::map<int64_t, Recorded> read_ledger(int64_t first, int64_t last) const {
    ledger::AsLedger as;
    ByPage by_page;
    static const bridge::Statement select(
        "SELECT ordinal, revision, status, line, byte_offset, byte_length, legacy_id FROM portage.all_items "
        "WHERE run_id = $1 AND ordinal BETWEEN $2 AND $3 ORDER BY run_id, ordinal, revision");
    Result rows = select.run(scene_.run.id, first, last);
    std::vector<std::string> ids(rows.size());
    std::vector<std::string_view> wanted(rows.size());
    for (size_t i = 0; i < rows.size(); i++) {
      if (rows.integer(i, 2) > 0 || rows.is_null(i, 7)) continue;
      ids[i] = rows.text(i, 7);
      wanted[i] = ids[i];
    }
    formats::Arena arena;
    std::vector<ledger::Mapping> mappings = ledger::find_mappings(scene_.space, wanted, arena);
    std::map<int64_t, Recorded> recorded;
    for (size_t i = 0; i < rows.size(); i++) {
      int64_t ordinal = rows.bigint(i, 1);
      if (rows.integer(i, 2) > 0) {
        auto known = recorded.find(ordinal);
        if (known != recorded.end()) known->second.later = true;
        continue;
      }
      const ledger::Mapping& m = mappings[i];
      bool ours = m.found && m.run_id == scene_.run.id && m.ordinal == ordinal;
      recorded[ordinal] = {rows.bigint(i, 4),
                           rows.bigint(i, 5),
                           rows.bigint(i, 6),
                           rows.text(i, 3),
                           rows.maybe_text(i, 7),
                           false,
                           ours,
                           ours ? m.source_hash : 0};
    }
    return recorded;
  }

  void compare(const ledger::Part& part, const Item& item, const std::map<int64_t, Recorded>& recorded,
               Findings& findings) {
    auto known = recorded.find(item.ordinal);
    std::string name = item_name(item.ordinal);
    if (known == recorded.end()) return findings.add(name + ": is in the source, not in the ledger");
    const Recorded& r = known->second;
    bool place = static_cast<int64_t>(item.record.line) == r.line &&
                 (part.kind == "query" || (static_cast<int64_t>(item.record.offset) == r.offset &&
                                           static_cast<int64_t>(item.record.length) == r.length));
    if (!place) return findings.add(name + ": stands elsewhere in the source");
    std::optional<std::string> id;
    if (item.legacy_id.data() != nullptr) id = std::string(item.legacy_id);
    if (id != r.legacy_id)
      return differs(findings, name + ": its legacy id is " + quotable(id.value_or("null")) +
                                   " in the source, " + quotable(r.legacy_id.value_or("null")) +
                                   " in the ledger");
    bool landed = r.status == "inserted" || r.status == "updated" || r.status == "unchanged";
    if (landed && item.outcome != Outcome::pending)
      return differs(findings, name + ": has landed, but is " +
                                   (item.outcome == Outcome::skipped ? "skipped" : "invalid") +
                                   " when read again");
    if (landed && !r.later && r.mapped && static_cast<int64_t>(item.source_hash) != r.source_hash)
      return differs(findings, name + ": its values are not those of the source (source_hash)");
    agreed_++;
  }

  /// Expressions that give something else another time prove nothing.
  void differs(Findings& findings, const std::string& what) {
    if (repeatable_)
      findings.add(what);
    else
      not_comparable_++;
  }

  const Scene& scene_;
  bool repeatable_;
  formats::Options reading_;
  int64_t expected_ = 0, agreed_ = 0, not_comparable_ = 0;
  Findings findings_, parts_, not_checked_, changed_;
};

}  // namespace

Check check_source(const Scene& scene) { return SourceCheck(scene).work(); }

}  // namespace portage::verify
