// See whole_run.hpp.
#include "ledger/whole_run.hpp"

#include "bridge/clock.hpp"
#include "ledger/known_roles.hpp"
#include "ledger/owners.hpp"
#include "ledger/rows.hpp"

extern "C" {
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
}

namespace portage::ledger {
namespace {

using bridge::Constraints;
using bridge::TableWriter;
using bridge::text_datum;

Datum name_datum(const std::string& text) {
  const char* name = text.c_str();
  return bridge::guarded([=] { return DirectFunctionCall1(namein, CStringGetDatum(name)); });
}

void set_text(TableWriter& row, const char* column, const std::optional<std::string>& text) {
  if (text) row.set(column, text_datum(*text));
}

void write_run(const WholeRun& run) {
  const NewRun& opened = run.opened;
  std::string session = user_name(opened.session_role);
  know_role(opened.role);
  know_role(opened.session_role);
  TableWriter row("portage", "migration_runs", Constraints::checked);
  row.begin_row();
  row.set("id", Int64GetDatum(opened.id));
  row.set("uuid", bridge::guarded([] { return DirectFunctionCall1(gen_random_uuid, 0); }));
  row.set("pipeline_id", Int64GetDatum(opened.pipeline_id));
  row.set("pipeline", text_datum(opened.pipeline));
  row.set("pipeline_version", Int32GetDatum(opened.version));
  row.set("scope", text_datum(opened.scope));
  row.set("status", text_datum(run.status));
  row.set("options", bridge::param_json(opened.options).value);
  set_counts(row, run.counts);
  if (run.status == "completed") row.set("total_items", Int64GetDatum(run.counts.read));
  row.set("open_rejects", Int64GetDatum(run.counts.rejects()));
  row.set("open_conflicts", Int64GetDatum(run.counts.conflicted));
  row.set("open_parked", Int64GetDatum(run.counts.parked));
  row.set("created_at", TimestampTzGetDatum(run.created_at));
  row.set("started_at", TimestampTzGetDatum(run.started_at));
  row.set("completed_at", TimestampTzGetDatum(run.completed_at));
  row.set("session_role_oid", ObjectIdGetDatum(opened.session_role));
  row.set("session_role", name_datum(session));
  row.set("role_oid", ObjectIdGetDatum(opened.role));
  row.set("role_name", name_datum(user_name(opened.role)));
  row.set("requested_by", text_datum(session));
  row.set("dry_run", BoolGetDatum(false));
  row.set("timezone", text_datum(opened.timezone));
  row.set("hash_columns", bridge::param_text_array(run.hashed.names).value);
  row.set("hash_shape", text_datum(run.hashed.shape));
  row.set("first_xid", current_xid());
  row.set("background", BoolGetDatum(false));
  row.set("workers", Int32GetDatum(1));
  row.set("writer", text_datum(run.writer));
  row.set("writer_reason", text_datum(run.writer_reason));
  row.add();
  row.finish();
}

void write_part(const WholeRun& run) {
  TableWriter row("portage", "migration_parts", Constraints::checked);
  row.begin_row();
  row.set("run_id", Int64GetDatum(run.opened.id));
  row.set("part", Int32GetDatum(run.part.number));
  row.set("kind", text_datum(run.part.kind));
  row.set("name", text_datum(run.part.name));
  row.set("key_columns", bridge::param_text_array(run.part.key_columns).value);
  row.set("byte_length", Int64GetDatum(*run.part.byte_length));
  set_text(row, "sha256", run.sha256);
  row.set("created_at", TimestampTzGetDatum(run.created_at));
  row.add();
  row.finish();
}

void write_range(const WholeRun& run) {
  const Range& range = run.range;
  TableWriter row("portage", "migration_ranges", Constraints::checked);
  row.begin_row();
  row.set("run_id", Int64GetDatum(run.opened.id));
  row.set("part", Int32GetDatum(range.part));
  row.set("range_no", Int32GetDatum(range.number));
  row.set("first_ordinal", Int64GetDatum(range.first_ordinal));
  row.set("next_ordinal", Int64GetDatum(range.next_ordinal));
  row.set("cursor_ordinal", Int64GetDatum(range.cursor_ordinal));
  row.set("next_byte", Int64GetDatum(static_cast<int64>(range.checkpoint.offset)));
  row.set("next_line", Int64GetDatum(static_cast<int64>(range.checkpoint.line)));
  row.set("reader_state", text_datum(range.checkpoint.state));
  row.set("done", BoolGetDatum(range.done));
  row.set("owner_pid", Int32GetDatum(MyProcPid));
  row.set("owner_started_at", TimestampTzGetDatum(MyStartTimestamp));
  if (bridge::Param begin = statement_begin(); !begin.null) row.set("owner_statement_at", begin.value);
  row.set("epoch", Int64GetDatum(range.epoch));
  row.set("attempts", Int32GetDatum(1));
  row.add();
  row.finish();
}

void write_payload(const WholeRun& run) {
  TableWriter row("portage", "migration_payloads", Constraints::checked);
  row.begin_row();
  row.set("run_id", Int64GetDatum(run.opened.id));
  row.set("part", Int32GetDatum(run.part.number));
  row.set("chunk_no", Int32GetDatum(1));
  row.set("sha256", text_datum(run.payload_sha256));
  row.set("content", text_datum(run.kept_payload));
  row.add();
  row.finish();
}

void write_event(const WholeRun& run) {
  TableWriter row("portage", "migration_events", Constraints::checked);
  row.begin_row();
  row.set("id", Int64GetDatum(bridge::next_number("portage", "migration_events_id_seq")));
  row.set("run_id", Int64GetDatum(run.opened.id));
  row.set("seq", Int64GetDatum(run.events_before + 1));
  row.set("event_type", text_datum(run.event));
  row.set("actor", text_datum(session_user_name()));
  row.set("created_at", bridge::now_datum());
  row.set("details", bridge::param_json(run.details).value);
  row.add();
  row.finish();
}

Datum rounded(double value, int32 digits) {
  return bridge::guarded([=] {
    Datum number = DirectFunctionCall1(float8_numeric, Float8GetDatum(value));
    return DirectFunctionCall2(numeric_round, number, Int32GetDatum(digits));
  });
}

Datum share(int64 part, int64 whole) {
  return bridge::guarded([=] {
    Datum share = DirectFunctionCall2(numeric_div, NumericGetDatum(int64_to_numeric(part)),
                                      NumericGetDatum(int64_to_numeric(whole)));
    return DirectFunctionCall2(numeric_round, share, Int32GetDatum(4));
  });
}

}  // namespace

Datum info_of_completed(const WholeRun& run, TupleDesc shape) {
  bridge::NamedRow row(shape);
  const Counts& c = run.counts;
  row.set("run_id", Int64GetDatum(run.opened.id));
  row.set("pipeline", text_datum(run.opened.pipeline));
  row.set("scope", text_datum(run.opened.scope));
  row.set("status", text_datum(run.status));
  row.set("is_running", BoolGetDatum(false));
  row.set("percentage", rounded(100, 1));
  row.set("processed_items", Int64GetDatum(c.read));
  row.set("total_items", Int64GetDatum(c.read));
  row.set("processed_parts", Int32GetDatum(1));
  row.set("total_parts", Int32GetDatum(1));
  set_counts(row, c);
  row.set("open_rejects", Int64GetDatum(c.rejects()));
  row.set("open_conflicts", Int64GetDatum(c.conflicted));
  row.set("open_parked", Int64GetDatum(c.parked));
  if (c.read > 0) {
    row.set("success_rate", share(c.inserted + c.updated + c.unchanged, c.read));
    row.set("error_rate", share(c.rejects(), c.read));
  }
  if (double seconds = static_cast<double>(run.completed_at - run.started_at) / USECS_PER_SEC; seconds > 0) {
    row.set("items_per_second", rounded(static_cast<double>(c.read) / seconds, 0));
    row.set("parts_per_minute", rounded(60 / seconds, 1));
  }
  row.set("workers", Int32GetDatum(0));
  row.set("errors", bridge::param_json("[]").value);
  row.set("started_at", TimestampTzGetDatum(run.started_at));
  row.set("completed_at", TimestampTzGetDatum(run.completed_at));
  row.set("dry_run", BoolGetDatum(false));
  return row.composite();
}

void write_whole_run(const WholeRun& run) {
  bridge::Memory memory("portage whole run");
  bridge::InMemory in(memory.get());
  write_part(run);
  write_range(run);
  if (run.kept_payload.data()) write_payload(run);
  write_event(run);
  write_run(run);
}

}  // namespace portage::ledger
