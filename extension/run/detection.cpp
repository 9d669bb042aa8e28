// detect(): what an input holds, beside what is migrated. It is read through the compiled pipeline, in a
// subtransaction that is undone; ids that were met are remembered as a validation does it, so that memory is
// bounded.
#include <nlohmann/json.hpp>

#include "bridge/codes.hpp"
#include "bridge/entry.hpp"
#include "bridge/subxact.hpp"
#include "ledger/pipelines.hpp"
#include "ledger/predictions.hpp"
#include "run/arguments.hpp"
#include "run/data_version.hpp"
#include "run/entry_points.hpp"
#include "run/plan_report.hpp"
#include "run/preflight.hpp"

namespace portage::run {
namespace {

using bridge::Error;
using Json = nlohmann::ordered_json;

constexpr int64_t batch_items = 5000;
constexpr int64_t low_complexity = 10000,
                  medium_complexity = 1000000;  // items to be written; docs/reference.md

class Detection {
 public:
  explicit Detection(const ledger::Run& run) : run_(run) {}

  /// Reads everything; what it seals and remembers is the caller's to undo.
  Json work() {
    std::optional<Error> error = bridge::attempt([&] { read(); });
    if (error) {
      if (bridge::concerns_whole_batch(error->code()) && error->code() != ERRCODE_INSUFFICIENT_PRIVILEGE)
        throw *error;
      block(error->message(), error->report().detail);
      complete_ = false;
    }
    return answer();
  }

 private:
  void block(const std::string& message, const std::string& detail) {
    blockers_.push_back(detail.empty() ? message : message + ": " + detail);
  }

  void read() {
    Worker worker(run_, Commits::no);
    space_ = worker.space();
    for (const Blocker& b : server_blockers(worker.plan(), run_.pipeline_id, run_.scope, run_.id))
      block(b.message, b.detail);
    {
      bridge::AsUser as(worker.role());
      for (const Blocker& b : missing_privileges(worker.plan(), worker.overwrites(), true))
        block(b.message, b.detail);
      for (const ledger::Part& part : ledger::parts_of(run_.id))
        if (!data_version_) data_version_ = data_version_of(run_.id, part, worker.plan());
    }
    worker.seal();
    for (const ledger::Part& part : ledger::parts_of(run_.id)) {
      if (part.skipped || !part.cursor_column.empty()) complete_ = false;
      if (!part.skipped) read_part(worker, part);
    }
  }

  void read_part(Worker& worker, const ledger::Part& part) {
    std::unique_ptr<OpenPart> open;
    Batch batch;
    int64_t bytes = 0;
    for (bool at_end = false; !at_end;) {
      bridge::Memory scratch("portage detection scratch");
      bridge::InMemory in(scratch.get());
      bridge::AsUser as(worker.role());
      if (!open) open = open_items(run_, part, worker.plan(), worker.options(), nullptr);
      open->check_unchanged();
      int64_t next = items_ + 1;
      at_end = read_batch(*open, batch, {next, next}, batch_items);
      prepare_batch(worker.plan(), batch, run_, part, worker.options());
      for (const Item& item : batch.items) bytes += static_cast<int64_t>(item.record.length);
      look_at(batch);
      items_ += static_cast<int64_t>(batch.items.size());
      batch.reset();
      bridge::check_interrupts();
    }
    size_ += part.byte_length.value_or(bytes);
  }

  void look_at(Batch& batch) {
    std::vector<Item*> items;
    std::vector<std::string> ids;
    for (Item& item : batch.items) {
      if (item.outcome != Outcome::pending && item.outcome != Outcome::skipped) rejects_++;
      if (item.legacy_id.data() == nullptr) {
        complete_ = false;  // whoever it was, is not gone
        continue;
      }
      items.push_back(&item);
      ids.emplace_back(item.legacy_id);
    }
    std::unordered_map<std::string, int64_t> before = ledger::find_predictions(run_.id, MyProcPid, "id", ids);
    std::vector<ledger::Mapping> mappings = ledger::find_mappings(space_, items, batch.arena);
    std::vector<ledger::Prediction> fresh;
    std::unordered_set<std::string> here;
    for (size_t i = 0; i < items.size(); i++) {
      const Item& item = *items[i];
      bool pending = item.outcome == Outcome::pending;
      if (before.count(ids[i]) || !here.insert(ids[i]).second) {
        if (pending) rejects_++;  // a duplicate: the first one counts
        continue;
      }
      fresh.push_back({"id", ids[i], item.ordinal});
      if (mappings[i].found) mapped_++;
      if (!pending) continue;
      bool same = mappings[i].found && mappings[i].source_hash == static_cast<int64_t>(item.source_hash);
      (!mappings[i].found ? new_ : same ? unchanged_ : changed_)++;
    }
    ledger::write_predictions(run_.id, MyProcPid, fresh);
  }

  Json answer() const {
    int64_t to_write = new_ + changed_;
    Json gone = nullptr;
    if (complete_) gone = ledger::count_mappings(space_) - mapped_;
    const char* complexity = to_write >= medium_complexity                ? "high"
                             : to_write >= low_complexity || rejects_ > 0 ? "medium"
                                                                          : "low";
    std::string advice =
        !blockers_.empty() ? "Remove the blockers first; portage.plan() names the remedies."
        : items_ == 0      ? "There is nothing to migrate."
        : to_write == 0    ? "All that can be migrated is migrated."
                        : "Migrate: " + grouped(new_) + " new and " + grouped(changed_) + " changed items.";
    if (blockers_.empty() && rejects_ > 0)
      advice += " Items that would be rejected: " + grouped(rejects_) + "; portage.validate() says why.";
    return {{"needed", to_write > 0},
            {"has_local_data", items_ > 0},
            {"item_count", items_},
            {"storage_size", size_},
            {"data_version", data_version_ ? Json(*data_version_) : Json(nullptr)},
            {"can_migrate", blockers_.empty()},
            {"blockers", blockers_},
            {"new", new_},
            {"changed", changed_},
            {"unchanged", unchanged_},
            {"gone", gone},
            {"complexity", complexity},
            {"estimated_duration", estimated_duration(run_.pipeline_id, items_).text},
            {"recommendation", advice}};
  }

  const ledger::Run& run_;
  ledger::MappingSpace space_{};
  std::vector<std::string> blockers_;
  std::optional<std::string> data_version_;
  bool complete_ = true;
  int64_t items_ = 0, size_ = 0, new_ = 0, changed_ = 0, unchanged_ = 0, rejects_ = 0, mapped_ = 0;
};

Json detection_of(const ledger::Run& run) {
  bridge::Subtransaction undone;  // sealing, and what is remembered of the input
  return Detection(run).work();
}

}  // namespace
}  // namespace portage::run

using namespace portage;
using namespace portage::run;

PORTAGE_FUNCTION(portage_detect) {
  Arguments a(fcinfo);
  bridge::Spi spi;
  StoredPipeline pipeline = ledger::find_pipeline(a.text(0, "pipeline"), ledger::Need::run);
  std::string scope = a.maybe_text(2).value_or("");
  Json found;
  {
    bridge::Subtransaction undone;  // a run only to be looked at
    int64_t id = open_run(pipeline, scope, "{}", std::nullopt, std::nullopt, false);
    ledger::Run run = *ledger::find_run(id);
    if (a.null(1))
      attach_source(run);
    else
      submit(run, a.text(1, "payload"), {"payload", std::nullopt, std::nullopt, std::nullopt});
    found = detection_of(run);
  }
  if (a.flag(3)) {
    Json details = {{"pipeline_id", pipeline.id}, {"pipeline", pipeline.name}, {"scope", scope}};
    for (const char* name : {"needed", "item_count", "storage_size", "data_version", "can_migrate", "new",
                             "changed", "unchanged", "gone"})
      details[name] = found[name];
    ledger::add_pipeline_event("data_detected", details.dump());
  }
  Datum answer = bridge::param_json(found.dump()).value;
  spi.finish();
  return answer;
}

PORTAGE_FUNCTION(portage_detect_run) {
  Arguments a(fcinfo);
  bridge::Spi spi;
  Json found = detection_of(run_to_change(a.run(0)));
  Datum answer = bridge::param_json(found.dump()).value;
  spi.finish();
  return answer;
}
