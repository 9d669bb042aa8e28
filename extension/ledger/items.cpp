// See items.hpp. Rows go in by multi-insert (bridge/table_writer). Mappings are looked up in mappings.cpp.
#include "ledger/items.hpp"

#include "bridge/clock.hpp"
#include "bridge/codes.hpp"
#include "bridge/json.hpp"
#include "bridge/table_writer.hpp"
#include "ledger/as_ledger.hpp"
#include "ledger/mapping_packs.hpp"
#include "ledger/pack.hpp"
#include "ledger/row_moves.hpp"
#include "ledger/rows.hpp"
#include "pipeline/error_class.hpp"

extern "C" {
#include "common/hashfn.h"
}

namespace portage::ledger {
namespace {

using bridge::guarded;
using bridge::json_quoted;
using bridge::param;
using bridge::text_datum;

constexpr std::string_view outcome_names[outcome_count] = {
    "pending", "inserted", "updated", "unchanged", "skipped", "conflicted", "parked", "invalid", "failed"};

/// The revision that items[i] gets.
int32_t revision_at(const std::vector<int32_t>& revisions, size_t i) {
  return revisions.empty() ? 0 : revisions[i];
}

/// What an import has landed without a remark. Revisions, and what needs a word, are rows.
bool is_packed(const BatchRecord& record, const Item& item) {
  return strcmp(record.kind, "import") == 0 && packable(item);
}

void write_packs(const BatchRecord& record, const Item* items, size_t n) {
  bridge::TableWriter rows("portage", "item_packs");
  Packer pack;
  auto close = [&] {
    if (pack.count() == 0) return;
    Datum* v = rows.values();
    memset(rows.nulls(), 0, sizeof(bool) * static_cast<size_t>(rows.natts()));
    v[0] = Int64GetDatum(record.run_id);
    v[1] = Int64GetDatum(pack.first_ordinal());
    v[2] = Int32GetDatum(record.part);
    v[3] = Int32GetDatum(pack.count());
    v[4] = text_datum(pack.content());
    rows.add();
    pack.clear();
  };
  for (size_t i = 0; i < n; i++) {
    if (!is_packed(record, items[i])) continue;
    if (pack.is_full_for(items[i])) close();
    pack.add(items[i]);
  }
  close();
  rows.finish();
}

void write_items(const BatchRecord& record, const Item* items, size_t n,
                 const std::vector<int32_t>& revisions) {
  if (std::all_of(items, items + n, [&](const Item& item) { return is_packed(record, item); })) return;
  bridge::TableWriter rows("portage", "item_rows");
  Datum* v = rows.values();
  bool* null = rows.nulls();
  Datum names[outcome_count];
  for (int i = 0; i < outcome_count; i++) names[i] = text_datum(outcome_names[i]);
  auto optional_text = [&](int column, std::string_view text) {
    null[column] = text.empty();
    v[column] = text.empty() ? 0 : text_datum(text);
  };
  for (size_t i = 0; i < n; i++) {
    const Item& item = items[i];
    if ((i & 255) == 0) bridge::check_interrupts();
    if (is_packed(record, item)) continue;
    memset(null, 0, sizeof(bool) * rows.natts());
    v[0] = Int64GetDatum(record.run_id);
    v[1] = Int64GetDatum(item.ordinal);
    v[2] = Int32GetDatum(revision_at(revisions, i));
    v[3] = Int32GetDatum(record.part);
    v[4] = Int64GetDatum(static_cast<int64>(item.record.line));
    v[5] = Int64GetDatum(static_cast<int64>(item.record.offset));
    v[6] = Int64GetDatum(static_cast<int64>(item.record.length));
    v[7] = names[static_cast<int>(item.outcome)];
    null[8] = item.legacy_id.data() == nullptr;
    v[8] = null[8] ? 0 : text_datum(item.legacy_id);
    optional_text(9, item.target_key);
    const Issue* first = item.issues;
    while (first && first->warning && first->next) first = first->next;  // the cause before the remarks
    for (int column = 10; column <= 16; column++) null[column] = true;
    if (first) {
      if (!first->warning) optional_text(10, error_class(first->rule, first->sqlstate));
      optional_text(11, first->rule);
      optional_text(12, first->sqlstate);
      optional_text(13, first->column);
      optional_text(14, first->message);
      null[15] = false;
      std::string json = issues_json(item);
      v[15] = bridge::param_json(json).value;
    }
    bool landed = item.outcome == Outcome::inserted || item.outcome == Outcome::updated ||
                  item.outcome == Outcome::unchanged;
    if (!landed) {
      null[16] = false;
      v[16] = text_datum(item.record.raw.substr(0, max_kept_raw));
    }
    optional_text(17, record.actor);
    rows.add();
  }
  rows.finish();
}

/// Another worker of the run has written a mapping since this one looked: the batch is simply done again.
bridge::Error overtaken() {
  return bridge::Error(ERRCODE_T_R_SERIALIZATION_FAILURE,
                       "another worker has taken a legacy id of this batch meanwhile")
      .hint("Nothing of the batch was kept; it is done again.");
}

bool is_taken_id(const bridge::Error& error) {
  return error.code() == ERRCODE_UNIQUE_VIOLATION && error.report().schema_name == "portage" &&
         error.report().table_name == "mapping_rows";
}

PackedMapping mapping_of(const Item& item) {
  return {item.legacy_id,
          item.target_key,
          item.origin,
          static_cast<int64_t>(item.source_hash),
          static_cast<int64_t>(item.row_hash),
          item.ordinal};
}

void insert_mappings(const BatchRecord& record, const MappingSpace& space, const Item* items, size_t n) {
  std::vector<PackedMapping> plain;
  std::vector<MappingRow> rows;
  for (size_t i = 0; i < n; i++) {
    const Item& item = items[i];
    if (!item.origin || item.mapped_before || item.legacy_id.data() == nullptr) continue;
    if (item.image || !record.alone)
      rows.push_back({mapping_of(item), record.run_id, item.image});
    else
      plain.push_back(mapping_of(item));
  }
  for (size_t i : pack_mappings(space, record.run_id, plain)) rows.push_back({plain[i], record.run_id});
  insert_mapping_rows(space, rows);
}

void update_mappings(const BatchRecord& record, const MappingSpace& space, const Item* items, size_t n) {
  std::vector<const Item*> mapped;
  std::vector<std::string_view> wanted;
  for (size_t i = 0; i < n; i++) {
    if (!items[i].origin || !items[i].mapped_before) continue;
    mapped.push_back(&items[i]);
    wanted.push_back(items[i].legacy_id);
  }
  if (mapped.empty()) return;
  std::vector<MappingRow> unpacked;
  take_out(space, wanted, [&](size_t i, const PackedMapping& old, int64_t run_id) {
    const Item& item = *mapped[i];
    bool may = run_id != record.run_id || old.ordinal == item.ordinal ||
               (record.last_wins && old.ordinal < item.ordinal);
    if (!may) throw overtaken();
    unpacked.push_back({mapping_of(item), record.run_id, item.image});
    mapped[i] = nullptr;
  });
  insert_mapping_rows(space, unpacked);
  std::vector<std::string> ids, keys, origins, images;
  std::vector<int64_t> source_hashes, row_hashes, ordinals;
  for (const Item* one : mapped) {
    if (!one) continue;
    const Item& item = *one;
    images.push_back(item.image ? bridge::output_text(TEXTARRAYOID, item.image) : "");
    ids.emplace_back(item.legacy_id);
    keys.emplace_back(item.target_key);
    origins.emplace_back(origin_name(item.origin));
    source_hashes.push_back(static_cast<int64_t>(item.source_hash));
    row_hashes.push_back(static_cast<int64_t>(item.row_hash));
    ordinals.push_back(item.ordinal);
  }
  if (ids.empty()) return;
  AsLedger as;
  // Each mapping is found by its whole key, whatever the planner knows of the table (see ledger/undo.cpp).
  bridge::ByIndex by_index;
  static const bridge::Statement update(
      "UPDATE portage.mapping_rows m SET target_key = n.target_key, origin = n.origin, "
      "source_hash = n.source_hash, row_hash = n.row_hash, run_id = $3, ordinal = n.ordinal, "
      "image = nullif(n.image, '')::text[], missing_since = NULL "
      "FROM (SELECT u.*, x.place FROM unnest($4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], "
      "$9::bigint[], $10::text[]) AS u (legacy_id, target_key, origin, source_hash, row_hash, ordinal, "
      "image) "
      "CROSS JOIN LATERAL "
      "(SELECT k.ctid AS place FROM portage.mapping_rows k WHERE k.pipeline_id = $1 AND k.scope = $2 "
      "AND k.legacy_id = u.legacy_id COLLATE \"C\" OFFSET 0) x) n WHERE m.ctid = n.place "
      // of a row that has changed meanwhile its place is not compared again: this is
      "AND (m.run_id <> $3 OR m.ordinal = n.ordinal OR ($11 AND m.ordinal < n.ordinal))");
  uint64_t written = update({param(space.pipeline_id), param(space.scope), param(record.run_id),
                             bridge::param_text_array(ids), bridge::param_text_array(keys),
                             bridge::param_text_array(origins), bridge::param_int8_array(source_hashes),
                             bridge::param_int8_array(row_hashes), bridge::param_int8_array(ordinals),
                             bridge::param_text_array(images), param(record.last_wins)})
                         .processed();
  if (written != ids.size()) throw overtaken();
}

void write_undo(const BatchRecord& record, int64_t batch_id, const Item* items, const std::vector<Undo>& undo,
                const std::vector<int32_t>& revisions) {
  if (undo.empty()) return;
  bridge::TableWriter rows("portage", "migration_undo");
  Datum* v = rows.values();
  bool* null = rows.nulls();
  for (const Undo& one : undo) {
    memset(null, 0, sizeof(bool) * rows.natts());
    v[0] = Int64GetDatum(record.run_id);
    v[1] = Int64GetDatum(one.item->ordinal);
    v[2] = Int32GetDatum(revision_at(revisions, static_cast<size_t>(one.item - items)));
    v[3] = text_datum(one.target_key);
    v[4] = one.columns;
    v[5] = one.before;
    null[4] = null[5] = one.columns == 0;
    null[6] = !one.before_hash;
    v[6] = Int64GetDatum(one.before_hash.value_or(0));
    if (one.mapping.found) {
      v[7] = text_datum(one.mapping.target_key);
      v[8] = text_datum(origin_name(one.mapping.origin));
      v[9] = Int64GetDatum(one.mapping.source_hash);
      v[10] = Int64GetDatum(one.mapping.row_hash);
      v[11] = Int64GetDatum(one.mapping.run_id);
      v[12] = Int64GetDatum(one.mapping.ordinal);
    } else {
      for (int column = 7; column <= 12; column++) null[column] = true;
    }
    v[13] = Int64GetDatum(batch_id);
    v[14] = one.after_hashes;
    null[14] = one.after_hashes == 0;
    null[15] = one.mapping.image.data() == nullptr;
    v[15] = null[15] ? 0 : bridge::input_value(TEXTARRAYOID, -1, std::string(one.mapping.image));
    rows.add();
  }
  rows.finish();
}

void write_conflicts(const BatchRecord& record, const Item* items, const std::vector<int32_t>& revisions) {
  if (!record.conflicts || record.conflicts->empty()) return;
  bridge::TableWriter rows("portage", "migration_conflicts");
  Datum* v = rows.values();
  bool* null = rows.nulls();
  for (const Conflict& one : *record.conflicts) {
    memset(null, 0, sizeof(bool) * rows.natts());
    v[0] = Int64GetDatum(record.run_id);
    v[1] = Int64GetDatum(one.item->ordinal);
    v[2] = Int32GetDatum(revision_at(revisions, static_cast<size_t>(one.item - items)));
    null[3] = one.item->legacy_id.data() == nullptr;
    v[3] = null[3] ? 0 : text_datum(one.item->legacy_id);
    v[4] = text_datum(one.item->target_key);
    v[5] = one.incoming;
    v[6] = one.existing;
    v[7] = one.base;
    null[7] = one.base == 0;
    v[8] = bridge::param_text_array(one.disputed).value;
    v[9] = Int64GetDatum(one.existing_hash);
    v[10] = text_datum(one.suggested);
    for (int column = 11; column <= 14; column++) null[column] = true;
    rows.add();
  }
  rows.finish();
}

}  // namespace

std::vector<UnchangedItem> unchanged_items(int64_t run_id, int64_t after, int64_t limit) {
  AsLedger as;
  static const bridge::Statement select(
      "SELECT ordinal, legacy_id, target_key FROM portage.all_items i WHERE run_id = $1 AND ordinal > $2 "
      "AND status = 'unchanged' AND legacy_id IS NOT NULL AND NOT EXISTS (SELECT FROM portage.item_rows "
      "later WHERE later.run_id = i.run_id AND later.ordinal = i.ordinal AND later.revision > i.revision) "
      "ORDER BY ordinal LIMIT $3");
  bridge::Result rows = select.run(run_id, after, limit);
  std::vector<UnchangedItem> page;
  for (size_t i = 0; i < rows.size(); i++)
    page.push_back({rows.bigint(i, 1), rows.text(i, 2), rows.text(i, 3)});
  return page;
}

std::unordered_map<std::string, int64_t> unchanged_ordinals(int64_t run_id, const char* column,
                                                            const std::vector<std::string>& values) {
  std::unordered_map<std::string, int64_t> ordinals;
  if (values.empty()) return ordinals;
  AsLedger as;
  std::string name = column;
  bridge::Result rows = bridge::execute(
      "SELECT " + name +
          ", min(ordinal) FROM portage.all_items i WHERE run_id = $1 AND status = 'unchanged' AND " + name +
          " = ANY ($2 COLLATE \"C\") AND NOT EXISTS (SELECT FROM portage.item_rows later WHERE later.run_id "
          "= "
          "i.run_id AND later.ordinal = i.ordinal AND later.revision > i.revision) GROUP BY 1",
      {param(run_id), bridge::param_text_array(values)});
  for (size_t i = 0; i < rows.size(); i++) ordinals[rows.text(i, 1)] = rows.bigint(i, 2);
  return ordinals;
}

std::optional<RawItem> find_raw(int64_t run_id, int64_t ordinal) {
  AsLedger as;
  static const bridge::Statement select(
      "SELECT i.part, i.byte_offset, coalesce(length(c.raw), i.byte_length), coalesce(c.raw, i.raw) FROM "
      "portage.item_rows i LEFT JOIN LATERAL (SELECT raw FROM portage.item_corrections k WHERE k.run_id = "
      "i.run_id AND k.ordinal = i.ordinal ORDER BY k.revision DESC LIMIT 1) c ON true WHERE i.run_id = $1 "
      "AND i.ordinal = $2 AND i.raw IS NOT NULL ORDER BY i.revision DESC LIMIT 1");
  bridge::Result rows = select.run(run_id, ordinal);
  if (rows.empty()) return std::nullopt;
  return RawItem{rows.integer(0, 1), rows.bigint(0, 2), rows.bigint(0, 3),
                 bridge::string_of(rows.datum(0, 4))};
}

std::string_view outcome_name(Outcome outcome) { return outcome_names[static_cast<int>(outcome)]; }

Outcome outcome_named(std::string_view name) {
  for (int i = 1; i < outcome_count; i++)
    if (outcome_names[i] == name) return static_cast<Outcome>(i);
  return Outcome::pending;
}

int64_t& count_of(Counts& c, Outcome outcome) {
  switch (outcome) {
    case Outcome::inserted:
      return c.inserted;
    case Outcome::updated:
      return c.updated;
    case Outcome::unchanged:
      return c.unchanged;
    case Outcome::skipped:
      return c.skipped;
    case Outcome::conflicted:
      return c.conflicted;
    case Outcome::parked:
      return c.parked;
    case Outcome::invalid:
      return c.invalid;
    case Outcome::failed:
      return c.failed;
    case Outcome::pending:
      break;
  }
  throw bridge::Error(codes::unbalanced, "an item has no outcome")
      .hint("This is an error of pg_portage; the batch was not committed.");
}

Counts count_outcomes(const Item* items, size_t n) {
  Counts c;
  c.read = static_cast<int64_t>(n);
  for (size_t i = 0; i < n; i++) count_of(c, items[i].outcome)++;
  return c;
}

std::string issues_json(const Item& item) {
  std::string json = "[";
  for (const Issue* issue = item.issues; issue; issue = issue->next) {
    if (json.size() > 1) json += ", ";
    json += "{\"rule\": " + json_quoted(issue->rule) + ", \"sqlstate\": " + json_quoted(issue->sqlstate);
    if (!issue->column.empty()) json += ", \"column\": " + json_quoted(issue->column);
    if (!issue->constraint.empty()) json += ", \"constraint\": " + json_quoted(issue->constraint);
    json += ", \"message\": " + json_quoted(issue->message);
    if (!issue->detail.empty()) json += ", \"detail\": " + json_quoted(issue->detail);
    json += std::string(", \"severity\": ") + (issue->warning ? "\"warning\"" : "\"error\"") + "}";
  }
  return json + "]";
}

int64_t text_hash(const std::optional<std::string_view>& text) {
  if (!text) return 0;
  return static_cast<int64_t>(hash_bytes_extended(reinterpret_cast<const unsigned char*>(text->data()),
                                                  static_cast<int>(text->size()), 1));
}

int64_t next_batch_id() { return bridge::next_number("portage", "migration_batches_id_seq"); }

namespace {

/// The batch's own row; its constraints prove that the books balance.
void write_batch_row(const BatchRecord& record, int64_t batch_id, const Item* items, size_t n,
                     double ledger_ms) {
  std::string timings = bridge::format("{\"ledger\": %.3f", ledger_ms);
  for (const auto& [phase, milliseconds] : record.timings)
    timings += bridge::format(", \"%s\": %.3f", phase, milliseconds);
  timings += "}";
  bridge::TableWriter row("portage", "migration_batches", bridge::Constraints::checked);
  row.begin_row();
  auto number = [&](const char* column, int64_t value) { row.set(column, Int64GetDatum(value)); };
  number("id", batch_id);
  number("run_id", record.run_id);
  row.set("kind", text_datum(record.kind));
  row.set("part", Int32GetDatum(record.part));
  row.set("range_no", Int32GetDatum(record.range_no));
  number("first_ordinal", n ? items[0].ordinal : 0);
  number("last_ordinal", n ? items[n - 1].ordinal : -1);
  set_counts(row, record.counts);
  number("rolled_back", 0);
  number("deleted", 0);
  number("epoch", record.epoch);
  row.set("xid", current_xid());
  row.set("started_at", TimestampTzGetDatum(record.started_at));
  row.set("finished_at", bridge::now_datum());
  number("bytes", record.bytes);
  number("ambiguous_dates", record.ambiguous_dates);
  row.set("timings", bridge::param_json(timings).value);
  number("wal_bytes", record.wal_bytes);
  number("memory_bytes", record.memory_bytes);
  row.add();
  row.finish();
}

}  // namespace

void write_batch(const BatchRecord& record, const MappingSpace& space, const Item* items, size_t n,
                 const std::vector<Undo>& undo, const std::vector<int32_t>& revisions) {
  auto began = std::chrono::steady_clock::now();
  bridge::Memory memory("portage ledger");
  bridge::InMemory in(memory.get());
  write_packs(record, items, n);
  write_items(record, items, n, revisions);
  try {
    insert_mappings(record, space, items, n);
  } catch (const bridge::Error& error) {
    if (is_taken_id(error)) throw overtaken();
    throw;
  }
  update_mappings(record, space, items, n);
  int64_t batch_id = next_batch_id();
  write_undo(record, batch_id, items, undo, revisions);
  std::vector<RowMove> moves;
  for (const Undo& one : undo)
    if (one.columns != 0 && one.item->target_key != one.target_key)
      moves.push_back({one.item->ordinal, one.target_key, one.item->target_key});
  write_row_moves(record.run_id, batch_id, moves);
  write_conflicts(record, items, revisions);
  double ledger = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began).count();
  write_batch_row(record, batch_id, items, n, ledger);
}

}  // namespace portage::ledger
