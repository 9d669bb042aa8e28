// See unchanged_parts.hpp.
#include "run/unchanged_parts.hpp"

#include "bridge/entry.hpp"
#include "bridge/json.hpp"
#include "bridge/subxact.hpp"
#include "ledger/unchanged_parts.hpp"
#include "run/sha256.hpp"
#include "run/source.hpp"

namespace portage::run {
namespace {

using bridge::format;

constexpr int64_t piece = 8 << 20;              // digested in one go
constexpr int64_t per_transaction = 256 << 20;  // likewise, before a sign of life is given

/// Its items hang on nothing but the bytes, and what becomes of them is not asked one by one.
bool may_pass_over(const Job& job) {
  const Options& options = job.options;
  return options.incremental && !options.dry_run && !options.limit && !options.sample &&
         job.plan->definition().missing.fate == MissingItems::Fate::keep && !job.plan->surroundings().other;
}

template <class F>
void in_turn(Job& job, F&& work) {
  if (job.commits == Commits::no) {
    work();
    return;
  }
  std::optional<bridge::Error> error = bridge::transact([&] {
    bridge::Memory scratch("portage unchanged parts");
    bridge::InMemory in(scratch.get());
    if (job.ownership.take_turn()) work();
  });
  if (error) throw *error;
}

void digest(Job& job, const ledger::Part& part) {
  Sha256 hash;
  int64_t length = *part.byte_length;
  for (int64_t done = 0; done < length && !job.ownership.stopped();) {
    in_turn(job, [&] {
      for (int64_t end = std::min(length, done + per_transaction); done < end;) {
        std::string bytes;
        {
          bridge::AsUser as(job.role);
          bytes = read_span(job.run.id, part, static_cast<uint64_t>(done),
                            static_cast<uint64_t>(std::min(piece, end - done)));
        }
        if (bytes.empty()) {  // shorter than it was: whoever reads it says so
          done = length;
          return;
        }
        hash.add(bytes);
        done += static_cast<int64_t>(bytes.size());
        bridge::check_interrupts();
      }
      if (done == length) ledger::set_part_sha256(job.run.id, part.number, hash.finish());
    });
  }
}

/// One event and one message, however many they are.
void tell(const Job& job, const std::vector<const ledger::Part*>& passed) {
  constexpr size_t most = 3;
  std::string named, listed;
  for (size_t i = 0; i < std::min(passed.size(), most); i++) {
    const ledger::Part& part = *passed[i];
    named += (i ? "\n" : "") + part.name + ": " + *part.skipped;
    listed += format("%s{\"part\": %d, \"name\": ", i ? ", " : "", part.number) +
              bridge::json_quoted(part.name) + ", \"reason\": " + bridge::json_quoted(*part.skipped) + "}";
  }
  if (passed.size() > most) named += format("\nand %zu more", passed.size() - most);
  ledger::add_event(job.run.id, "parts_passed_over",
                    format("{\"count\": %zu, \"first\": [", passed.size()) + listed + "]}");
  bridge::notice(
      format("run %lld passes over unchanged parts: %zu", static_cast<long long>(job.run.id), passed.size()),
      named);
}

}  // namespace

int64_t pass_over_unchanged(Job& job, std::vector<ledger::Part>& parts) {
  bool any = std::any_of(parts.begin(), parts.end(), [](const ledger::Part& part) {
    return part.kind != "query" && part.byte_length.value_or(0) >= least_passed_over;
  });
  if (!any || !may_pass_over(job)) return 0;
  ledger::Likeness likeness{job.plan->surroundings().place, least_passed_over,
                            job.options.max_part_bytes.value_or(INT64_MAX)};
  std::vector<int32_t> candidates;
  in_turn(job, [&] { candidates = ledger::parts_of_known_length(job.run, likeness); });
  if (candidates.empty()) return 0;
  auto numbered = [&](int32_t number) {
    return std::find_if(parts.begin(), parts.end(), [=](const auto& part) { return part.number == number; });
  };
  for (int32_t number : candidates) {
    digest(job, *numbered(number));
    if (job.ownership.stopped()) return 0;
  }
  std::vector<const ledger::Part*> passed;
  int64_t bytes = 0;
  in_turn(job, [&] {
    std::vector<int64_t> references;
    for (const Reference& reference : job.plan->references()) references.push_back(reference.pipeline_id);
    for (const ledger::SamePart& same :
         ledger::unchanged_parts(job.run, job.policy.space, references, likeness)) {
      ledger::Part& part = *numbered(same.part);
      part.skipped = format("the same bytes as part %d of run %lld, and nothing has changed since",
                            same.read_part, static_cast<long long>(same.read_by));
      ledger::set_part_skipped(job.run.id, part.number, *part.skipped);
      bytes += *part.byte_length;
      passed.push_back(&part);
    }
    if (!passed.empty()) tell(job, passed);
  });
  return bytes;
}

}  // namespace portage::run
