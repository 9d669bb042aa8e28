// The one table of faults. Nothing else may spell a SQLSTATE or the name of a rule of this layer.
#include "formats/record.hpp"

#include <new>

#include "formats/no_postgres.hpp"

namespace portage::formats {

namespace {

// In the order of FaultCode.
constexpr FaultInfo fault_table[] = {
    {"22P02", "malformed_json", "invalid JSON"},
    {"22021", "invalid_encoding", "invalid byte sequence for encoding \"UTF8\""},
    {"54000", "item_too_large", "item is too large"},
    {"54000", "nesting_too_deep", "item is nested too deeply"},
    {"22P02", "empty_payload", "payload is empty"},
    {"22035", "items_not_found", "no items at the path"},
    {"22P02", "document_malformed", "document is malformed"},
    {"22P02", "document_incomplete", "document ends too early"},
    {"22P04", "ragged_row", "row has the wrong number of fields"},
    {"22P04", "malformed_row", "unexpected text after closing quote"},
    {"22P04", "unterminated_quote", "quoted field is not terminated"},
    {"22P04", "duplicate_header", "header names a column twice"},
};
static_assert(sizeof(fault_table) / sizeof(fault_table[0]) == size_t(FaultCode::duplicate_header) + 1);

}  // namespace

const FaultInfo& fault_info(FaultCode code) { return fault_table[size_t(code)]; }

const Fault* make_fault(Arena& arena, FaultCode code, std::string_view detail, std::string_view message) {
  if (message.empty()) message = fault_info(code).message;
  return new (arena.allocate(sizeof(Fault), alignof(Fault))) Fault{code, message, arena.copy(detail)};
}

}  // namespace portage::formats
