// A sliding window over a byte source: the bytes not yet consumed, with their place in the part. It bounds
// the memory of a reader; it does not know what the bytes mean.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "formats/arena.hpp"
#include "formats/reader.hpp"
#include "formats/record.hpp"

namespace portage::formats {

/// Unread bytes of a source. Pointers into it are valid until the next fill().
class Window {
 public:
  /// Usual size of the buffer; it grows only for an item that does not fit.
  static constexpr size_t usual_capacity = 512 * 1024;

  Window(ByteSource& source, const Checkpoint* resume)
      : source_(source), offset_(resume ? resume->offset : 0), line_(resume ? resume->line : 1) {}

  const char* data() const { return buffer_.get() + begin_; }
  size_t size() const { return end_ - begin_; }
  std::string_view view() const { return {data(), size()}; }
  /// Whether the source has nothing more; known only after a fill that came back empty or short.
  bool ended() const { return ended_; }
  /// Place of data()[0] in the part.
  uint64_t offset() const { return offset_; }
  uint64_t line() const { return line_; }

  /// Reads more, at least until `wanted` bytes are here or the source ends; false if not a single byte came.
  bool fill(size_t wanted = 0);
  /// Reads more, growing with what is here, so that rescanning after each fill costs linear time in all; but
  /// asks for no more than `limit` bytes, so that a window holds one large item and not two.
  bool fill_towards(size_t limit) {
    size_t wanted = size() < 4096 ? size() + 1 : size() * 2;
    return fill(wanted < limit ? wanted : limit);
  }

  /// Drops `bytes` from the front, which hold `newlines` line feeds.
  void consume(size_t bytes, uint64_t newlines) {
    begin_ += bytes;
    offset_ += bytes;
    line_ += newlines;
  }
  /// Drops `bytes` from the front, counting their line feeds.
  void consume(size_t bytes);

  /// Skips a byte order mark at the beginning of the part.
  void skip_byte_order_mark();

 private:
  void make_room(size_t wanted);

  ByteSource& source_;
  std::unique_ptr<char[]> buffer_;
  size_t capacity_ = 0;
  size_t begin_ = 0;
  size_t end_ = 0;
  uint64_t offset_;
  uint64_t line_;
  bool ended_ = false;
};

/// `max_item_bytes`, small enough to do sums with.
inline size_t item_limit(const Options& options) {
  constexpr size_t most = SIZE_MAX / 8;
  return options.max_item_bytes < most ? options.max_item_bytes : most;
}

/// A span that becomes one reject without being buffered: it keeps the head and counts the rest.
class RejectSpan {
 public:
  /// Begins at the window's front.
  void start(const Window& window);
  /// Takes `bytes` from the window's front into the span.
  void take(Window& window, size_t bytes);
  /// Takes everything up to the end of the source.
  void take_rest(Window& window);
  uint64_t length() const { return length_; }
  /// Fills place, raw and fault of `record`; `trim_end`: bytes of a line end to leave out.
  void finish(Arena& arena, Record& record, FaultCode code, std::string_view detail,
              size_t trim_end = 0) const;

 private:
  std::string head_;
  uint64_t offset_ = 0;
  uint64_t line_ = 1;
  uint64_t length_ = 0;
};

}  // namespace portage::formats
