// The sliding window and the spans that are rejected without being buffered, see window.hpp.
#include "formats/window.hpp"

#include <algorithm>
#include <cstring>

#include "formats/text.hpp"

#include "formats/no_postgres.hpp"

namespace portage::formats {

bool Window::fill(size_t wanted) {
  if (ended_) return false;
  size_t before = size();
  make_room(std::max(wanted, before + 1));
  while (size() < wanted || size() == before) {
    size_t got = source_.read(buffer_.get() + end_, capacity_ - end_);
    if (got == 0) {
      ended_ = true;
      break;
    }
    end_ += got;
  }
  return size() > before;
}

void Window::make_room(size_t wanted) {
  // A buffer that grew for one large item is given back as soon as what is left fits the usual one.
  bool oversized = capacity_ > usual_capacity && wanted <= usual_capacity / 2;
  if (wanted > capacity_ || oversized) {
    size_t capacity = std::max(usual_capacity, wanted);
    std::unique_ptr<char[]> larger(new char[capacity]);
    if (size() != 0) std::memcpy(larger.get(), data(), size());
    buffer_ = std::move(larger);
    capacity_ = capacity;
  } else if (begin_ != 0) {
    std::memmove(buffer_.get(), data(), size());
  }
  end_ -= begin_;
  begin_ = 0;
}

void Window::consume(size_t bytes) { consume(bytes, count_newlines(data(), bytes)); }

void Window::skip_byte_order_mark() {
  if (offset_ != 0) return;
  if (size() < byte_order_mark.size()) fill(byte_order_mark.size());
  if (view().starts_with(byte_order_mark)) consume(byte_order_mark.size(), 0);
}

void RejectSpan::start(const Window& window) {
  head_.clear();
  offset_ = window.offset();
  line_ = window.line();
  length_ = 0;
}

void RejectSpan::take(Window& window, size_t bytes) {
  if (head_.size() < fault_head_bytes) {
    head_.append(window.data(), std::min(bytes, fault_head_bytes - head_.size()));
  }
  length_ += bytes;
  window.consume(bytes);
}

void RejectSpan::take_rest(Window& window) {
  do {
    take(window, window.size());
  } while (window.fill());
}

void RejectSpan::finish(Arena& arena, Record& record, FaultCode code, std::string_view detail,
                        size_t trim_end) const {
  record = Record{};
  record.line = line_;
  record.offset = offset_;
  record.length = length_ - trim_end;
  record.raw =
      arena.copy(std::string_view(head_).substr(0, std::min<uint64_t>(record.length, fault_head_bytes)));
  record.fault = make_fault(arena, code, detail);
}

}  // namespace portage::formats
