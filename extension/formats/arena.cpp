// The slow path of the arena: getting blocks and giving them back. It must not know what is stored in them.
#include "formats/arena.hpp"

#include <algorithm>

#include "formats/no_postgres.hpp"

namespace portage::formats {

namespace {
// Blocks double up to this size: few allocations for a big batch, little waste for a small one.
constexpr size_t largest_regular_block = size_t{8} << 20;
}  // namespace

char* Arena::allocate_slow(size_t bytes) {
  size_t wanted = blocks_.empty() ? first_block_ : std::min(limit_ * 2, largest_regular_block);
  // 16 more: a block from operator new[] is aligned to 16, so no allocation in a fresh block needs more.
  if (bytes > SIZE_MAX / 2) throw std::bad_alloc();
  size_t size = std::max({wanted, bytes + 16, size_t{4096}});
  // A huge value must not make the first block huge: that one is kept for ever.
  if (blocks_.empty() && size > first_block_ && first_block_ >= 4096) {
    allocate_slow(0);
    return allocate_slow(bytes);
  }
  // new char[n] without parentheses: the bytes stay untouched, so unused pages cost nothing.
  std::unique_ptr<char[]> block(new char[size + padding]);
  current_ = block.get();
  blocks_.push_back(std::move(block));
  if (blocks_.size() == 1) first_size_ = size;
  finished_ += limit_;
  position_ = bytes;
  limit_ = size;
  return current_;
}

void Arena::reset() {
  if (blocks_.empty()) return;
  blocks_.resize(1);
  current_ = blocks_.front().get();
  limit_ = first_size_;
  position_ = 0;
  finished_ = 0;
}

}  // namespace portage::formats
