// See reject_reader.hpp.
#include "run/reject_reader.hpp"

#include "bridge/codes.hpp"
#include "bridge/subxact.hpp"
#include "formats/text.hpp"
#include "run/source.hpp"

namespace portage::run {
namespace {

using bridge::Error;

/// What these rejected is no item but a stretch of the source, or an item of which only the head was kept.
constexpr std::string_view rules_of_spans[] = {"items_not_found", "document_malformed", "document_incomplete",
                                               "empty_payload",   "unterminated_quote", "duplicate_header",
                                               "item_too_large"};

class TextSource final : public formats::ByteSource {
 public:
  explicit TextSource(std::string_view text) : text_(text) {}
  size_t read(char* buffer, size_t capacity) override {
    size_t size = std::min(capacity, text_.size());
    memcpy(buffer, text_.data(), size);
    text_.remove_prefix(size);
    return size;
  }

 private:
  std::string_view text_;
};

}  // namespace

RejectReader::RejectReader(int64_t run_id, const Plan& plan, size_t max_item_bytes, Oid role)
    : run_id_(run_id),
      plan_(plan),
      options_(plan.reader_options()),
      role_(role),
      parser_(options_.paths, options_.max_depth),
      parts_(ledger::parts_of(run_id)) {
  options_.max_item_bytes = max_item_bytes;
}

const ledger::Part& RejectReader::part(int32_t number) const {
  for (const ledger::Part& part : parts_)
    if (part.number == number) return part;
  throw Error(ERRCODE_INTERNAL_ERROR,
              bridge::format("run %lld has no part %d", static_cast<long long>(run_id_), number));
}

/// False if the source does not have it any more.
bool RejectReader::complete(ledger::Reject& reject) const {
  if (reject.corrected || static_cast<int64_t>(reject.raw.size()) >= reject.length) return true;
  const ledger::Part& source = part(reject.part);
  if (source.kind == "query") return false;
  std::string whole;
  std::optional<Error> error = bridge::attempt([&] {
    bridge::AsUser as(role_);
    whole = read_span(run_id_, source, static_cast<uint64_t>(reject.offset),
                      static_cast<uint64_t>(reject.length));
  });
  if (error && error->code() != codes::source_changed && error->code() != ERRCODE_UNDEFINED_OBJECT)
    throw *error;
  if (error || static_cast<int64_t>(whole.size()) != reject.length) return false;
  reject.raw = std::move(whole);
  return true;
}

RejectReader::Obstacle RejectReader::read(ledger::Reject& reject, formats::Arena& arena,
                                          formats::Record& record) {
  if (!reject.corrected)
    for (std::string_view rule : rules_of_spans)
      if (reject.rule == rule) return Obstacle::no_single_item;
  if (!complete(reject)) return Obstacle::raw_missing;
  record = formats::Record{};
  if (plan_.definition().format == Format::csv) {
    Obstacle obstacle = read_csv(reject, arena, record);
    if (obstacle != Obstacle::none) return obstacle;
  } else {
    record.raw = arena.copy(reject.raw);
    if (record.raw.size() > options_.max_item_bytes)
      record.fault = formats::make_fault(arena, formats::FaultCode::item_too_large,
                                         bridge::format("The item has %zu bytes, the limit is %zu.",
                                                        record.raw.size(), options_.max_item_bytes));
    else if (parser_.parse(record.raw, arena, record) && options_.want_item)
      record.item = formats::trim(record.raw);
  }
  record.line = static_cast<uint64_t>(reject.line);
  record.offset = static_cast<uint64_t>(reject.offset);
  record.length = static_cast<uint64_t>(reject.length);
  return Obstacle::none;
}

void RejectReader::add_to(Batch& batch, ledger::Reject& reject) {
  Item item;
  memset(static_cast<void*>(&item), 0, sizeof item);
  item.ordinal = reject.ordinal;
  Obstacle obstacle = read(reject, batch.arena, item.record);
  if (obstacle != Obstacle::none) refuse(reject, obstacle);
  batch.items.push_back(item);
}

RejectReader::Obstacle RejectReader::read_csv(const ledger::Reject& reject, formats::Arena& arena,
                                              formats::Record& record) {
  formats::Checkpoint behind_header;
  if (options_.header) {
    behind_header.state = header_state(reject.part);
    if (behind_header.state.empty()) return Obstacle::header_missing;
  }
  TextSource source(reject.raw);
  std::unique_ptr<formats::Reader> reader =
      formats::open_csv(source, options_, options_.header ? &behind_header : nullptr);
  formats::Record second;
  if (reader->next(arena, record) && !reader->next(arena, second)) return Obstacle::none;
  if (!reject.corrected) return Obstacle::no_single_item;
  throw Error(ERRCODE_INVALID_PARAMETER_VALUE, "the corrected input must be one CSV record")
      .hint("Give the fields of one row, in the order of the header, without the header.");
}

/// What the reader noted of the header when the part was read; "" if there was none that could be used.
const std::string& RejectReader::header_state(int32_t part) {
  auto known = headers_.find(part);
  if (known != headers_.end()) return known->second;
  std::optional<ledger::Range> range = ledger::find_range(run_id_, part);
  std::string state = range ? range->checkpoint.state : "";
  if (state.size() > 1)
    state[0] = 'c';
  else
    state.clear();
  return headers_[part] = state;
}

void RejectReader::refuse(const ledger::Reject& reject, Obstacle obstacle) const {
  long long run = static_cast<long long>(run_id_), ordinal = static_cast<long long>(reject.ordinal);
  std::string call =
      bridge::format("SELECT * FROM portage.replay(%lld, %lld, corrected => '...');", run, ordinal);
  if (obstacle == Obstacle::header_missing)
    throw Error(
        codes::raw_input_missing,
        bridge::format("item %lld of run %lld cannot be replayed: its part has no header that could be "
                       "read",
                       ordinal, run))
        .detail("The names of the columns are not known.")
        .hint("Mend the header in the source and import it by a new run.");
  if (obstacle == Obstacle::no_single_item)
    throw Error(codes::raw_input_missing,
                bridge::format("item %lld of run %lld is no single item and cannot be replayed as it was",
                               ordinal, run))
        .detail(bridge::format("It was rejected by rule \"%s\": %lld bytes of the source from byte %lld on.",
                               reject.rule.c_str(), static_cast<long long>(reject.length),
                               static_cast<long long>(reject.offset)))
        .hint("Give the one item that it should have been: " + call);
  throw Error(codes::raw_input_missing,
              bridge::format("the raw input of item %lld of run %lld is not there any more", ordinal, run))
      .detail(bridge::format("The ledger keeps %zu of its %lld bytes, and the source is gone or has changed.",
                             reject.raw.size(), static_cast<long long>(reject.length)))
      .hint("Give the item itself: " + call);
}

std::string RejectReader::as_in_source(const std::string& text) const {
  const Definition& definition = plan_.definition();
  int source = definition.format == Format::csv    ? pg_char_to_encoding(definition.csv.encoding.c_str())
               : definition.format == Format::rows ? GetDatabaseEncoding()
                                                   : PG_UTF8;
  const char* bytes = text.c_str();
  int size = static_cast<int>(text.size());
  char* converted = bridge::guarded([=] {
    return reinterpret_cast<char*>(pg_do_encoding_conversion(
        reinterpret_cast<unsigned char*>(const_cast<char*>(bytes)), size, GetDatabaseEncoding(), source));
  });
  // the very same pointer: nothing was to be converted, and zeros would be no end
  return converted == bytes ? text : std::string(converted);
}

}  // namespace portage::run
