// The memory of a batch: a bump allocator for everything that lives exactly as long as the batch does.
// It knows nothing of records, formats or PostgreSQL; it only hands out bytes and takes them all back at
// once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string_view>
#include <type_traits>
#include <vector>

namespace portage::formats {

/// Bump allocator. Nothing is freed singly and no destructor is ever run: only trivially destructible
/// things may live here. Not thread-safe, not copyable.
class Arena {
 public:
  /// Readable bytes behind every block, so that SIMD code may read past the end of any allocation.
  static constexpr size_t padding = 64;

  /// `first_block`: bytes of the first block; it is allocated on first use.
  explicit Arena(size_t first_block = 256 * 1024) : first_block_(first_block) {}
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  /// Uninitialised bytes, aligned to `align` (a power of two, at most 16). Throws std::bad_alloc.
  char* allocate(size_t bytes, size_t align = 8) {
    size_t start = (position_ + align - 1) & ~(align - 1);
    if (start <= limit_ && bytes <= limit_ - start) {
      position_ = start + bytes;
      return current_ + start;
    }
    return allocate_slow(bytes);
  }

  /// A copy of `text`, followed by a NUL (so that a parser that looks one byte too far finds nothing of use)
  /// and at least `padding` readable bytes (undefined, possibly a later allocation). Throws std::bad_alloc.
  std::string_view copy(std::string_view text) {
    char* target = allocate(text.size() + 1, 1);
    if (!text.empty()) std::memcpy(target, text.data(), text.size());
    target[text.size()] = '\0';
    return {target, text.size()};
  }

  /// A zeroed array of `n` objects. Throws std::bad_alloc.
  template <class T>
  T* make_array(size_t n) {
    static_assert(std::is_trivially_destructible_v<T> && std::is_trivially_copyable_v<T>,
                  "the arena runs no destructors");
    static_assert(alignof(T) <= 16);
    if (n > SIZE_MAX / sizeof(T)) throw std::bad_alloc();
    char* target = allocate(n * sizeof(T), alignof(T));
    if (n != 0) std::memset(target, 0, n * sizeof(T));
    return reinterpret_cast<T*>(target);
  }

  /// Makes room for the next batch, in the blocks that this one has used: to give pages back and ask for them
  /// again costs time for each item. Everything handed out before is dangling afterwards.
  void reset();

  /// Bytes in use, including what alignment and the ends of blocks waste.
  size_t used() const { return finished_ + position_; }

 private:
  char* allocate_slow(size_t bytes);

  struct Block {
    std::unique_ptr<char[]> bytes;
    size_t size;  // usable
  };

  std::vector<Block> blocks_;
  size_t used_blocks_ = 0;  // those behind wait to be used again
  size_t first_block_;
  char* current_ = nullptr;
  size_t position_ = 0;
  size_t limit_ = 0;     // usable bytes of the current block
  size_t finished_ = 0;  // bytes of the blocks before the current one
};

}  // namespace portage::formats
