// See parts.hpp.
#include "ledger/parts.hpp"

#include "ledger/arrays.hpp"
#include "ledger/as_ledger.hpp"

namespace portage::ledger {

using bridge::param;
using bridge::Result;
using bridge::Statement;

int32_t insert_part(int64_t run_id, const Part& part) {
  AsLedger as;
  static const Statement insert(
      "INSERT INTO portage.migration_parts (run_id, part, kind, name, path, query, key_columns, "
      "large_object, "
      "byte_length, data_version, device, inode, modified_at, search_path, cursor_column, cursor_type, "
      "source_table) SELECT $1, coalesce(max(part), 0) "
      "+ 1, $2, $3, "
      "nullif($4, ''), nullif($5, ''), $6, nullif($7, 0::oid), $8, $9, $10, $11, $12::timestamptz, "
      "nullif($13, ''), nullif($14, ''), nullif($15, ''), nullif($16, '') "
      "FROM portage.migration_parts WHERE run_id = $1 RETURNING part");
  return insert({param(run_id), param(part.kind), param(part.name), param(part.path), param(part.query),
                 bridge::param_text_array(part.key_columns), bridge::param_oid(part.large_object),
                 param(part.byte_length), param(part.data_version), param(part.device), param(part.inode),
                 param(part.modified_at), param(part.search_path), param(part.cursor_column),
                 param(part.cursor_type), param(part.source_table)})
      .integer(0, 1);
}

std::vector<Part> parts_of(int64_t run_id) {
  AsLedger as;
  static const Statement select(
      "SELECT part, kind, name, coalesce(path, ''), coalesce(query, ''), key_columns, "
      "last_key, "
      "coalesce(large_object, 0::oid), byte_length, data_version, device, inode, "
      "(extract(epoch FROM modified_at) * 1000000)::bigint, skipped, coalesce(search_path, ''), "
      "coalesce(cursor_column, ''), coalesce(cursor_type, ''), coalesce(source_table, ''), cursor_from "
      "FROM portage.migration_parts WHERE run_id = $1 ORDER BY part");
  Result rows = select.run(run_id);
  std::vector<Part> parts;
  for (size_t i = 0; i < rows.size(); i++) {
    Part part;
    part.number = rows.integer(i, 1);
    part.kind = rows.text(i, 2);
    part.name = rows.text(i, 3);
    part.path = rows.text(i, 4);
    part.query = rows.text(i, 5);
    part.key_columns = names_of(rows, i, 6);
    part.last_key = rows.maybe_text(i, 7);
    part.large_object = rows.oid(i, 8);
    if (!rows.is_null(i, 9)) part.byte_length = rows.bigint(i, 9);
    part.data_version = rows.maybe_text(i, 10);
    if (!rows.is_null(i, 11)) part.device = rows.bigint(i, 11);
    if (!rows.is_null(i, 12)) part.inode = rows.bigint(i, 12);
    if (!rows.is_null(i, 13)) part.modified_us = rows.bigint(i, 13);
    part.skipped = rows.maybe_text(i, 14);
    part.search_path = rows.text(i, 15);
    part.cursor_column = rows.text(i, 16);
    part.cursor_type = rows.text(i, 17);
    part.source_table = rows.text(i, 18);
    part.cursor_from = rows.maybe_text(i, 19);
    parts.push_back(std::move(part));
  }
  return parts;
}

void set_part_size(int64_t run_id, int32_t part, int64_t bytes) {
  AsLedger as;
  static const Statement update(
      "UPDATE portage.migration_parts SET byte_length = $3 WHERE run_id = $1 AND part = $2");
  update.run(run_id, part, bytes);
}

void set_part_sha256(int64_t run_id, int32_t part, const std::string& digest) {
  AsLedger as;
  static const Statement update(
      "UPDATE portage.migration_parts SET sha256 = $3 WHERE run_id = $1 AND part = $2");
  update({param(run_id), param(part), bridge::param_bytea(digest)});
}

void set_part_last_key(int64_t run_id, int32_t part, const std::optional<std::string>& key) {
  AsLedger as;
  static const Statement update(
      "UPDATE portage.migration_parts SET last_key = $3 WHERE run_id = $1 AND part = $2");
  update.run(run_id, part, key);
}

void set_part_cursor_from(int64_t run_id, int32_t part, const std::optional<std::string>& from) {
  AsLedger as;
  static const Statement update(
      "UPDATE portage.migration_parts SET cursor_from = $3 WHERE run_id = $1 AND part = $2");
  update.run(run_id, part, from);
}

void set_part_skipped(int64_t run_id, int32_t part, const std::string& reason) {
  AsLedger as;
  static const Statement update(
      "UPDATE portage.migration_parts SET skipped = $3 WHERE run_id = $1 AND part = $2");
  update.run(run_id, part, reason);
}

std::optional<int32_t> find_payload_part(int64_t run_id, const std::string& name) {
  AsLedger as;
  static const Statement select(
      "SELECT part FROM portage.migration_parts WHERE run_id = $1 AND kind = 'payload' AND name = $2");
  Result rows = select.run(run_id, name);
  if (rows.empty()) return std::nullopt;
  return rows.integer(0, 1);
}

std::optional<std::string> chunk_digest(int64_t run_id, int32_t part, int32_t chunk_no) {
  AsLedger as;
  static const Statement select(
      "SELECT sha256 FROM portage.migration_payloads WHERE run_id = $1 AND part = $2 AND chunk_no = $3");
  Result rows = select.run(run_id, part, chunk_no);
  if (rows.empty()) return std::nullopt;
  return bridge::string_of(rows.datum(0, 1));
}

void insert_chunk(int64_t run_id, int32_t part, int32_t chunk_no, const std::string& digest,
                  std::string_view bytes) {
  AsLedger as;
  static const Statement insert(
      "INSERT INTO portage.migration_payloads (run_id, part, chunk_no, sha256, content) VALUES ($1, $2, $3, "
      "$4, $5)");
  insert(
      {param(run_id), param(part), param(chunk_no), bridge::param_bytea(digest), bridge::param_bytea(bytes)});
}

int32_t next_chunk(int64_t run_id, int32_t part) {
  AsLedger as;
  static const Statement select(
      "SELECT coalesce(max(chunk_no), 0) + 1 FROM portage.migration_payloads WHERE run_id = $1 AND part = "
      "$2");
  return select.run(run_id, part).integer(0, 1);
}

std::vector<Chunk> chunks_of(int64_t run_id, int32_t part) {
  AsLedger as;
  static const Statement select(
      "SELECT chunk_no, octet_length(content)::bigint FROM portage.migration_payloads "
      "WHERE run_id = $1 AND part = $2 ORDER BY chunk_no");
  Result rows = select.run(run_id, part);
  std::vector<Chunk> chunks;
  for (size_t i = 0; i < rows.size(); i++) chunks.push_back({rows.integer(i, 1), rows.bigint(i, 2)});
  return chunks;
}

std::string chunk_bytes(int64_t run_id, int32_t part, int32_t chunk_no) {
  AsLedger as;
  static const Statement select(
      "SELECT content FROM portage.migration_payloads WHERE run_id = $1 AND part = $2 AND chunk_no = $3");
  Result rows = select.run(run_id, part, chunk_no);
  if (rows.empty())
    throw bridge::Error(ERRCODE_NO_DATA_FOUND,
                        bridge::format("chunk %d of part %d is missing", chunk_no, part));
  return bridge::string_of(rows.datum(0, 1));
}

void drop_payloads(int64_t run_id) {
  AsLedger as;
  static const Statement remove("DELETE FROM portage.migration_payloads WHERE run_id = $1");
  remove.run(run_id);
}

}  // namespace portage::ledger
