// The slow path of the arena: getting blocks and giving them back. It must not know what is stored in them.
#include "formats/arena.hpp"

#include <algorithm>

#include "formats/no_postgres.hpp"

namespace portage::formats {

namespace {
// Blocks double up to this size: few allocations for a big batch, little waste for a small one. Larger ones,
// for single huge values, are not kept.
constexpr size_t largest_regular_block = size_t{8} << 20;
}  // namespace

char* Arena::allocate_slow(size_t bytes) {
  // 16 more: a block from operator new[] is aligned to 16, so no allocation in a fresh block needs more.
  if (bytes > SIZE_MAX / 2) throw std::bad_alloc();
  if (used_blocks_ == blocks_.size() || blocks_[used_blocks_].size < bytes + 16) {
    size_t wanted = used_blocks_ == 0 ? first_block_ : std::min(limit_ * 2, largest_regular_block);
    size_t size = std::max({wanted, bytes + 16, size_t{4096}});
    // new char[n] without parentheses: the bytes stay untouched, so unused pages cost nothing.
    std::unique_ptr<char[]> block(new char[size + padding]);
    blocks_.insert(blocks_.begin() + static_cast<ptrdiff_t>(used_blocks_), {std::move(block), size});
  }
  const Block& block = blocks_[used_blocks_++];
  finished_ += limit_;
  position_ = bytes;
  limit_ = block.size;
  current_ = block.bytes.get();
  return current_;
}

void Arena::reset() {
  blocks_.resize(used_blocks_);
  std::erase_if(blocks_, [](const Block& block) { return block.size > largest_regular_block; });
  used_blocks_ = 0;
  current_ = nullptr;
  position_ = limit_ = finished_ = 0;
}

}  // namespace portage::formats
