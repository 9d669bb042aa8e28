// Four hashes side by side, each continued with a value of its own, with the results of
// hash_bytes_extended(). Its mixing is a chain of steps that wait for each other; with one value the
// processor waits, too. Pure arithmetic: knows nothing of types or rows.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace portage {

/// Where numbers are not stored low byte first, hash_bytes_extended() puts bytes together in another way.
inline constexpr bool has_hash_lanes = std::endian::native == std::endian::little;

class HashLanes {
 public:
  static constexpr int count = 4;

  /// Continues each lane with the bytes at `data`, `size` of them; where `data` is nullptr, with nothing.
  void add_bytes(const char* const (&data)[count], const uint32_t (&size)[count]) {
    Words length{}, present{};
    uint32_t blocks = 0;
    for (int i = 0; i < count; i++) {
      length[i] = size[i];
      present[i] = data[i] ? ~0u : 0;
      if (data[i] && size[i] / block > blocks) blocks = size[i] / block;
    }
    State s = begin(length);
    for (uint32_t n = 0; n < blocks; n++) {
      State mixed = s;
      Words here{};
      for (int i = 0; i < count; i++) {
        if (!data[i] || n >= size[i] / block) continue;
        here[i] = ~0u;
        const char* at = data[i] + static_cast<size_t>(n) * block;
        mixed.a[i] += load<uint32_t>(at);
        mixed.b[i] += load<uint32_t>(at + 4);
        mixed.c[i] += load<uint32_t>(at + 8);
      }
      mix(mixed);
      s = {chosen(here, mixed.a, s.a), chosen(here, mixed.b, s.b), chosen(here, mixed.c, s.c)};
    }
    for (int i = 0; i < count; i++) {
      if (!data[i]) continue;
      uint32_t rest = size[i] % block;
      const char* at = data[i] + (size[i] - rest);
      uint64_t low = 0;
      if (rest >= 8) {
        low = load<uint64_t>(at);
        // The lowest byte of the third word is the length's.
        if (rest > 8)
          s.c[i] += static_cast<uint32_t>(load<uint64_t>(at + rest - 8) >> (8 * (16 - rest))) << 8;
      } else if (rest >= 4) {
        low = load<uint32_t>(at) | (static_cast<uint64_t>(load<uint32_t>(at + rest - 4)) >> (8 * (8 - rest)))
                                       << 32;
      } else {
        for (uint32_t n = 0; n < rest; n++)
          low |= static_cast<uint64_t>(static_cast<unsigned char>(at[n])) << (8 * n);
      }
      s.a[i] += static_cast<uint32_t>(low);
      s.b[i] += static_cast<uint32_t>(low >> 32);
    }
    finish(s);
    low_ = chosen(present, s.c, low_);
    high_ = chosen(present, s.b, high_);
  }

  /// The same with up to eight bytes each, which `values` hold, the first one lowest.
  void add_small(const uint64_t (&values)[count], uint32_t size, const bool (&nulls)[count]) {
    Words length{}, present{}, a{}, b{};
    for (int i = 0; i < count; i++) {
      length[i] = size;
      present[i] = nulls[i] ? 0 : ~0u;
      a[i] = static_cast<uint32_t>(values[i]);
      b[i] = static_cast<uint32_t>(values[i] >> 32);
    }
    State s = begin(length);
    s.a += a;
    s.b += b;
    finish(s);
    low_ = chosen(present, s.c, low_);
    high_ = chosen(present, s.b, high_);
  }

  /// Continues each lane with a number of 32 bits, as hash_bytes_uint32_extended() does.
  void add_number(const uint32_t (&values)[count]) {
    State s = begin(Words{4, 4, 4, 4});
    s.a += Words{values[0], values[1], values[2], values[3]};
    finish(s);
    low_ = s.c;
    high_ = s.b;
  }

  uint64_t get(int lane) const { return static_cast<uint64_t>(high_[lane]) << 32 | low_[lane]; }
  void set(int lane, uint64_t hash) {
    high_[lane] = static_cast<uint32_t>(hash >> 32);
    low_[lane] = static_cast<uint32_t>(hash);
  }

 private:
  using Words = uint32_t __attribute__((vector_size(4 * count)));
  struct State {
    Words a, b, c;
  };
  static constexpr uint32_t block = 12;

  template <class Number>
  static Number load(const char* at) {
    Number number;
    std::memcpy(&number, at, sizeof number);
    return number;
  }
  static Words chosen(Words mask, Words yes, Words no) { return (mask & yes) | (~mask & no); }
  static Words rotated(Words x, int by) { return x << by | x >> (32 - by); }

  /// The state before any byte. A hash of zero is no seed.
  State begin(Words length) const {
    Words start = length + (0x9e3779b9u + 3923095u);
    State seeded{start + high_, start + low_, start};
    mix(seeded);
    auto mask = reinterpret_cast<Words>((high_ | low_) != 0);
    return {chosen(mask, seeded.a, start), chosen(mask, seeded.b, start), chosen(mask, seeded.c, start)};
  }
  static void mix(State& s) {
    auto step = [](Words& x, Words& y, Words& z, int by) {
      x -= z;
      x ^= rotated(z, by);
      z += y;
    };
    step(s.a, s.b, s.c, 4);
    step(s.b, s.c, s.a, 6);
    step(s.c, s.a, s.b, 8);
    step(s.a, s.b, s.c, 16);
    step(s.b, s.c, s.a, 19);
    step(s.c, s.a, s.b, 4);
  }
  static void finish(State& s) {
    auto step = [](Words& x, Words y, int by) {
      x ^= y;
      x -= rotated(y, by);
    };
    step(s.c, s.b, 14);
    step(s.a, s.c, 11);
    step(s.b, s.a, 25);
    step(s.c, s.b, 16);
    step(s.a, s.c, 4);
    step(s.b, s.a, 14);
    step(s.c, s.b, 24);
  }

  Words high_{}, low_{};
};

}  // namespace portage
