// See error_class.hpp: the table.
#include "pipeline/error_class.hpp"

namespace portage {
namespace {

struct Row {
  std::string_view prefix;  // of the SQLSTATE
  std::string_view error_class;
};

// Rules of ours whose class is not that of their SQLSTATE. A rule of the definition is validation always: it
// is known by not standing here and by 23514, or by whatever its expression raised.
constexpr Row by_rule[] = {
    {"conversion", "validation"},
    {"expression", "validation"},
    {"legacy_id", "validation"},
    {"where", "validation"},
    {"domain", "validation"},
    {"data_version", "validation"},
    {"duplicate", "validation"},
    {"match", "validation"},
    {"not_null", "database"},
    {"check", "database"},
    {"unique", "database"},
    {"foreign_key", "database"},
    {"exclusion", "database"},
    {"trigger", "database"},
    {"default", "database"},
    // the readers' faults (formats/record.cpp)
    {"malformed_json", "processing"},
    {"invalid_encoding", "processing"},
    {"item_too_large", "processing"},
    {"nesting_too_deep", "processing"},
    {"empty_payload", "processing"},
    {"items_not_found", "processing"},
    {"document_malformed", "processing"},
    {"document_incomplete", "processing"},
    {"ragged_row", "processing"},
    {"malformed_row", "processing"},
    {"unterminated_quote", "processing"},
    {"duplicate_header", "processing"},
};

// The longest prefix that fits stands first.
constexpr Row by_sqlstate[] = {
    {"23514", "validation"}, {"PZ010", "processing"}, {"PZ014", "processing"}, {"PZ015", "processing"},
    {"PZ011", "validation"}, {"PZ016", "validation"}, {"PZ017", "processing"}, {"22P04", "processing"},
    {"22021", "processing"}, {"53", "system"},        {"57", "system"},        {"58", "system"},
    {"08", "system"},        {"54", "system"},        {"XX", "system"},        {"23", "database"},
    {"25", "database"},      {"40", "database"},      {"42", "database"},      {"44", "database"},
    {"55", "database"},      {"09", "database"},      {"27", "database"},      {"P0", "database"},
    {"PZ", "database"},      {"22", "validation"},    {"00", "validation"},
};

}  // namespace

std::string_view error_class(std::string_view rule, std::string_view sqlstate) {
  for (const Row& row : by_rule)
    if (rule == row.prefix) return row.error_class;
  for (const Row& row : by_sqlstate)
    if (sqlstate.starts_with(row.prefix)) return row.error_class;
  return "database";
}

}  // namespace portage
