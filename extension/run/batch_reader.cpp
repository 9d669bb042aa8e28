// See batch_reader.hpp.
#include "run/batch_reader.hpp"

#include "bridge/codes.hpp"
#include "ledger/references.hpp"

extern "C" {
#include "common/hashfn.h"
}

namespace portage::run {
namespace {

using bridge::Error;
using bridge::format;

constexpr uint64_t batch_bytes = 8 << 20;  // of raw input
constexpr size_t batch_memory = 48 << 20;  // of everything that reading makes of it

void check_header(formats::Reader& reader, const ledger::Part& part, const Plan& plan) {
  const std::vector<std::string>* header = reader.columns();
  if (!header || header->empty()) return;
  for (const ColumnMapping& mapping : plan.definition().columns) {
    const ValueSource& source = mapping.source;
    if (source.kind != ValueSource::Kind::path || source.fallback || source.path.steps.size() != 1) continue;
    const std::string& name = source.path.steps[0].key;
    if (std::find(header->begin(), header->end(), name) != header->end()) continue;
    std::string names;
    for (const std::string& column : *header) (names += names.empty() ? "" : ", ") += column;
    std::string hint = nearest_hint(name, *header);
    if (hint.empty() || bridge::discreet())
      hint = header->size() == 1 ? "Is \"delimiter\" right?" : "Map another column, or give a default.";
    throw Error(codes::missing_source_column,
                "column \"" + name + "\" is not in the header of \"" + part.name + "\"")
        .quote("The header has " + names + ".")  // which may be an item, where a header is missing
        .hint(hint);
  }
}

void take_sample(Batch& batch, double share) {
  for (Item& item : batch.items) {
    if (item.outcome != Outcome::pending || item.legacy_id.data() == nullptr) continue;
    uint64 hash = hash_bytes_extended(reinterpret_cast<const unsigned char*>(item.legacy_id.data()),
                                      static_cast<int>(item.legacy_id.size()), 0);
    if (static_cast<double>(hash) / 18446744073709551616.0 < share) continue;
    item.outcome = Outcome::skipped;
    batch.add_issue(item, "sample", "00000", "", "not in the sample", {}, {}, true);
  }
}

}  // namespace

load::Policy policy_of(const ledger::Run& run, const Options& options, const Plan& plan) {
  load::Policy policy;
  policy.on_conflict = options.on_conflict.value_or(plan.definition().on_conflict);
  if (policy.on_conflict == OnConflict::newest && plan.definition().newest_by.empty())
    throw Error(codes::invalid_option,
                "on_conflict \"newest\" needs \"newest_by\" in the pipeline's definition")
        .hint("portage.replace_pipeline() adds it: it names the column that tells which of two is newer.");
  policy.duplicates = plan.definition().duplicates;
  policy.purpose = options.dry_run ? load::Purpose::dry_run : load::Purpose::import;
  policy.incremental = options.incremental;
  policy.run_id = run.id;
  policy.space = {run.pipeline_id, plan.definition().scoped ? run.scope : ""};
  return policy;
}

namespace {

formats::Options reading(const Plan& plan, const Options& options) {
  formats::Options reading = plan.reader_options();
  reading.max_item_bytes = static_cast<size_t>(options.max_item_bytes);
  return reading;
}

}  // namespace

std::unique_ptr<OpenPart> open_items(const ledger::Run& run, const ledger::Part& part, const Plan& plan,
                                     const Options& options, const ledger::Range* resume, bool places_only) {
  formats::Options how = reading(plan, options);
  how.places_only = places_only;
  std::unique_ptr<OpenPart> open = open_part(run.id, part, plan, how, resume);
  if (!resume) check_header(open->reader(), part, plan);
  return open;
}

std::unique_ptr<OpenPart> open_items(std::string_view bytes, const ledger::Part& part, const Plan& plan,
                                     const Options& options) {
  std::unique_ptr<OpenPart> open = open_bytes(bytes, part, plan, reading(plan, options));
  check_header(open->reader(), part, plan);
  return open;
}

bool read_batch(OpenPart& part, Batch& batch, Position position, int64_t wanted) {
  while (batch.items.size() < static_cast<size_t>(wanted) && batch.raw_bytes < batch_bytes &&
         batch.arena.used() < batch_memory) {
    Item item;
    memset(static_cast<void*>(&item), 0, sizeof item);
    if (!part.reader().next(batch.arena, item.record)) return true;
    item.ordinal = position.cursor_ordinal++;
    if (item.ordinal < position.next_ordinal) continue;  // in the ledger already
    if ((batch.items.size() & 255) == 0) bridge::check_interrupts();
    batch.raw_bytes += item.record.length;
    batch.items.push_back(item);
  }
  return false;
}

void prepare_batch(Plan& plan, Batch& batch, const ledger::Run& run, const ledger::Part& part,
                   const Options& options, Waits waits) {
  std::optional<TimestampTz> mtime;
  if (part.modified_us) mtime = *part.modified_us - (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
  plan.prepare(batch, {run.scope, part.name, part.path, mtime, waits.close_circles, waits.park_rejects},
               ledger::translator(plan, run.scope, batch.arena));
  if (options.sample) take_sample(batch, *options.sample);
}

void hold_target(Plan& plan, int64_t run_id, LOCKMODE mode) {
  // What is going to be done to the table is waited for first, then compared: later it cannot change any
  // more.
  Oid target = plan.target().oid;
  bridge::guarded([=] { LockRelationOid(target, mode); });
  if (plan.target_is_unchanged()) return;
  throw Error(codes::target_changed,
              "target " + plan.target().quoted_name() + " has changed since the run began")
      .detail(difference(plan.target()))
      .hint(format(
          "CALL portage.run(%lld); goes on if the pipeline still fits the table. Else SELECT "
          "portage.cancel(%lld); then adapt the pipeline with portage.replace_pipeline(), and open a new "
          "run: what is migrated is known.",
          static_cast<long long>(run_id), static_cast<long long>(run_id)));
}

}  // namespace portage::run
