// What becomes of a run that has ended: keep() saves it from retention, cleanup() drops what it keeps for
// later, snapshot() gives back what was submitted (sql/50-undo.sql).
#include "bridge/codes.hpp"
#include "bridge/entry.hpp"
#include "ledger/parts.hpp"
#include "ledger/retention.hpp"
#include "run/access.hpp"

using namespace portage;
using bridge::Error;
using bridge::format;

namespace {

int64_t run_argument(FunctionCallInfo fcinfo) {
  if (fcinfo->args[0].isnull) throw Error(ERRCODE_NULL_VALUE_NOT_ALLOWED, "the run must not be null");
  return DatumGetInt64(fcinfo->args[0].value);
}

/// A run whose raw input the caller may see: not that of sensitive pipelines, but for their owner.
ledger::Run run_with_raw_input(int64_t id) {
  ledger::Run run = run::run_to_read(id);
  // The operator by its full name: one of the caller's own could make this another run.
  bridge::Result visible = bridge::execute(
      "SELECT sensitive IS NULL FROM portage.visible_runs WHERE run_id OPERATOR(pg_catalog.=) $1",
      {bridge::param(run.id)});
  if (visible.empty() || !visible.boolean(0, 1))
    throw Error(ERRCODE_INSUFFICIENT_PRIVILEGE, "what was submitted to this pipeline is for its owner only")
        .detail("The definition names sensitive paths.");
  return run;
}

std::string content_of(const ledger::Run& run, const ledger::Part& part) {
  std::vector<ledger::Chunk> chunks = ledger::chunks_of(run.id, part.number);
  if (chunks.empty() && part.byte_length.value_or(0) > 0)
    throw Error(ERRCODE_NO_DATA_FOUND, format("the payload of part %d of run %lld was dropped", part.number,
                                              static_cast<long long>(run.id)))
        .detail("It was not to be kept (option keep_payload), or portage.cleanup() dropped it.");
  int64_t bytes = 0;
  for (const ledger::Chunk& chunk : chunks) bytes += chunk.length;
  if (bytes > static_cast<int64_t>(MaxAllocSize - VARHDRSZ))
    throw Error(ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format("part %d has %lld bytes, which is more than a value can have", part.number,
                       static_cast<long long>(bytes)))
        .hint("Submit large payloads as files, or in several parts.");
  std::string content;
  content.reserve(static_cast<size_t>(bytes));
  for (const ledger::Chunk& chunk : chunks) {
    bridge::check_interrupts();
    content += ledger::chunk_bytes(run.id, part.number, chunk.number);
  }
  return content;
}

}  // namespace

PORTAGE_FUNCTION(portage_keep) {
  bridge::Spi spi;
  ledger::keep_for_ever(run::run_to_change(run_argument(fcinfo)).id);
  spi.finish();
  return 0;
}

PORTAGE_FUNCTION(portage_cleanup) {
  bridge::Spi spi;
  ledger::Run run = run::run_to_change(run_argument(fcinfo));
  if (run.status != "completed" && run.status != "failed" && run.status != "cancelled" &&
      run.status != "rolled_back")
    throw Error(codes::wrong_state, format("run %lld is %s and cannot be cleaned up",
                                           static_cast<long long>(run.id), run.status.c_str()))
        .hint("Only a run that has ended can: completed, failed, cancelled or rolled_back.");
  ledger::Dropped dropped = ledger::drop_kept(run.id);
  std::string counts = format(
      "{\"payload_chunks\": %lld, \"payload_bytes\": %lld, \"raw_inputs\": %lld, \"before_images\": %lld}",
      static_cast<long long>(dropped.chunks), static_cast<long long>(dropped.chunk_bytes),
      static_cast<long long>(dropped.raw_inputs), static_cast<long long>(dropped.before_images));
  if (dropped.first) ledger::add_event(run.id, "cleaned_up", counts);
  Datum answer = bridge::param_json(counts).value;
  spi.finish();
  return answer;
}

PORTAGE_FUNCTION(portage_snapshot_parts) {
  bridge::Spi spi;
  ledger::Run run = run_with_raw_input(run_argument(fcinfo));
  std::vector<int64_t> numbers;
  for (const ledger::Part& part : ledger::parts_of(run.id))
    if (part.kind == "payload") numbers.push_back(part.number);
  Datum answer = bridge::param_int8_array(numbers).value;
  spi.finish();
  return answer;
}

PORTAGE_FUNCTION(portage_snapshot) {
  bridge::Spi spi;
  ledger::Run run = run_with_raw_input(run_argument(fcinfo));
  if (fcinfo->args[1].isnull) throw Error(ERRCODE_NULL_VALUE_NOT_ALLOWED, "the part must not be null");
  int32_t number = DatumGetInt32(fcinfo->args[1].value);
  std::optional<ledger::Part> found;
  for (ledger::Part& part : ledger::parts_of(run.id))
    if (part.number == number) found = std::move(part);
  if (!found)
    throw Error(ERRCODE_NO_DATA_FOUND,
                format("run %lld has no part %d", static_cast<long long>(run.id), number));
  if (found->kind != "payload")
    throw Error(ERRCODE_WRONG_OBJECT_TYPE,
                format("part %d of run %lld was not submitted", number, static_cast<long long>(run.id)))
        .detail("It is a " + (found->kind == "large_object" ? std::string("large object") : found->kind) +
                ", whose bytes the ledger does not keep.");
  std::string content = content_of(run, *found);
  spi.finish();
  return bridge::text_datum(content);
}
