// See pack.hpp. Numbers are base 128, low bits first; places are differences from where the item before lets
// expect them, hence mostly zero. lz4 (the column's compression) does the rest.
#include "ledger/pack.hpp"

namespace portage::ledger {
namespace {

constexpr char version = 1;
constexpr size_t large_pack = 256 * 1024;

/// Numbers out of bytes that may be damaged.
struct Cursor {
  const char *at, *end;
  bool good;

  uint64 number() {
    uint64 value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (at == end) break;
      uint64 byte = static_cast<unsigned char>(*at++);
      value |= (byte & 127) << shift;
      if (byte < 128) return value;
    }
    good = false;
    return 0;
  }

  int64 signed_number() {
    uint64 coded = number();
    return static_cast<int64>((coded >> 1) ^ (~(coded & 1) + 1));
  }

  const char* text(size_t* size) {
    uint64 length = number();
    *size = 0;
    if (length == 0) return nullptr;
    if (length - 1 > static_cast<uint64>(end - at)) {
      good = false;
      return nullptr;
    }
    const char* start = at;
    *size = static_cast<size_t>(length - 1);
    at += *size;
    return start;
  }
};

/// Sums of damaged numbers wrap around instead of being undefined.
int64 plus(int64 a, int64 b) { return static_cast<int64>(static_cast<uint64>(a) + static_cast<uint64>(b)); }

}  // namespace

bool packable(const Item& item) {
  return !item.issues && (item.outcome == Outcome::inserted || item.outcome == Outcome::updated ||
                          item.outcome == Outcome::unchanged);
}

void Packer::number(uint64_t value) {
  while (value >= 128) {
    content_ += static_cast<char>((value & 127) | 128);
    value >>= 7;
  }
  content_ += static_cast<char>(value);
}

void Packer::signed_number(int64_t value) {
  uint64_t bits = static_cast<uint64_t>(value);
  number((bits << 1) ^ (value < 0 ? ~uint64_t{0} : 0));
}

void Packer::text(std::string_view text) {
  number(text.data() ? text.size() + 1 : 0);
  content_ += text;
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
  number(static_cast<uint64_t>(item.ordinal - before_.ordinal - 1));
  content_ += static_cast<char>(item.outcome);
  signed_number(line - before_.line - 1);
  signed_number(offset - (before_.byte_offset + before_.byte_length + 1));
  signed_number(length - before_.byte_length);
  text(item.legacy_id);
  text(item.target_key.empty() ? std::string_view() : item.target_key);
  before_ = {item.ordinal, line, offset, length, item.outcome, nullptr, nullptr, 0, 0};
  count_++;
}

void unpack_raw(const char* bytes, size_t size, int64 first_ordinal, int count, PackedItem* items) {
  Cursor in{bytes, bytes + size, size > 0 && *bytes == version};
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
