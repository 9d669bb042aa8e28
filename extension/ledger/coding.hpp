// Numbers and texts as bytes, for what the ledger packs: base 128, low bits first. Knows nothing of what is
// packed.
#pragma once

#include "bridge/pg.hpp"

namespace portage::ledger {

/// Appends to a string.
struct Encoder {
  std::string& to;

  void number(uint64_t value) {
    while (value >= 128) {
      to += static_cast<char>((value & 127) | 128);
      value >>= 7;
    }
    to += static_cast<char>(value);
  }
  void signed_number(int64_t value) {
    uint64_t bits = static_cast<uint64_t>(value);
    number((bits << 1) ^ (value < 0 ? ~uint64_t{0} : 0));
  }
  /// data() == nullptr: null
  void text(std::string_view text) {
    number(text.data() ? text.size() + 1 : 0);
    to += text;
  }
  void fixed(int64_t value) { to.append(reinterpret_cast<const char*>(&value), sizeof value); }
};

/// The same out of bytes that may be damaged: then `good` becomes false. Plain, for raw code.
struct Decoder {
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
  /// As many bytes as there must be; nullptr if there are not.
  const char* bytes(uint64 size) {
    if (size > static_cast<uint64>(end - at)) {
      good = false;
      return nullptr;
    }
    const char* start = at;
    at += size;
    return start;
  }
  const char* text(size_t* size) {
    uint64 length = number();
    *size = 0;
    const char* start = length == 0 ? nullptr : bytes(length - 1);
    if (start) *size = static_cast<size_t>(length - 1);
    return start;
  }
  int64 fixed() {
    int64 value = 0;
    if (const char* start = bytes(sizeof value)) memcpy(&value, start, sizeof value);
    return value;
  }
};

/// Sums of damaged numbers wrap around instead of being undefined.
inline int64 plus(int64 a, int64 b) {
  return static_cast<int64>(static_cast<uint64>(a) + static_cast<uint64>(b));
}

}  // namespace portage::ledger
