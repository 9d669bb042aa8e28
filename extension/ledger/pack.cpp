// See pack.hpp. Places are differences from where the item before lets
// expect them, hence mostly zero. lz4 (the column's compression) does the rest.
#include "ledger/pack.hpp"

#include "ledger/coding.hpp"

namespace portage::ledger {
namespace {

constexpr char version = 1;
constexpr size_t large_pack = 256 * 1024;

}  // namespace

bool packable(const Item& item) {
  return !item.issues && (item.outcome == Outcome::inserted || item.outcome == Outcome::updated ||
                          item.outcome == Outcome::unchanged);
}

bool Packer::is_full_for(const Item& item) const {
  return count_ > 0 && (item.ordinal - first_ >= pack_span || content_.size() >= large_pack);
}

void Packer::clear() {
  content_.clear();
  count_ = 0;
}

void Packer::add(const Item& item) {
  if (count_ == 0) {
    content_.assign(1, version);
    first_ = item.ordinal;
    before_ = {};
    before_.ordinal = first_ - 1;
  }
  int64_t line = static_cast<int64_t>(item.record.line), offset = static_cast<int64_t>(item.record.offset),
          length = static_cast<int64_t>(item.record.length);
  Encoder out{content_};
  out.number(static_cast<uint64_t>(item.ordinal - before_.ordinal - 1));
  content_ += static_cast<char>(item.outcome);
  out.signed_number(line - before_.line - 1);
  out.signed_number(offset - (before_.byte_offset + before_.byte_length + 1));
  out.signed_number(length - before_.byte_length);
  out.text(item.legacy_id);
  out.text(item.target_key.empty() ? std::string_view() : item.target_key);
  before_ = {item.ordinal, line, offset, length, item.outcome, nullptr, nullptr, 0, 0};
  count_++;
}

void unpack_raw(const char* bytes, size_t size, int64 first_ordinal, int count, PackedItem* items) {
  Decoder in{bytes, bytes + size, size > 0 && *bytes == version};
  if (in.good) in.at++;
  PackedItem before;
  memset(&before, 0, sizeof before);
  before.ordinal = first_ordinal - 1;
  for (int i = 0; i < count && in.good; i++) {
    PackedItem& item = items[i];
    item.ordinal = plus(before.ordinal, static_cast<int64>(in.number() + 1));
    uint64 outcome = in.number();
    in.good = in.good && outcome >= static_cast<uint64>(Outcome::inserted) &&
              outcome <= static_cast<uint64>(Outcome::unchanged);
    item.outcome = static_cast<Outcome>(outcome & 3);
    item.line = plus(before.line, plus(in.signed_number(), 1));
    item.byte_offset = plus(plus(before.byte_offset, before.byte_length), plus(in.signed_number(), 1));
    item.byte_length = plus(before.byte_length, in.signed_number());
    item.legacy_id = in.text(&item.legacy_id_size);
    item.target_key = in.text(&item.target_key_size);
    before = item;
  }
  if (!in.good || in.at != in.end)
    ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED), errmsg("a pack of items is damaged"),
                    errdetail("It begins with item %lld and should hold %d items.",
                              static_cast<long long>(first_ordinal), count),
                    errhint("Restore portage.item_packs from a backup.")));
}

}  // namespace portage::ledger
