// Memory stays bounded by the batch, whatever the size of the input: the arena, and items of hundreds of
// megabytes that are made on the fly.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "formats_support.hpp"

namespace portage::formats::testing {
namespace {

/// A head, so many bytes of filler, a tail: never all of it at once.
class LargeSource final : public ByteSource {
 public:
  LargeSource(std::string head, uint64_t filler, std::string tail)
      : head_(std::move(head)), filler_(filler), tail_(std::move(tail)) {}
  size_t read(char* buffer, size_t capacity) override {
    if (!head_.empty()) return take(head_, buffer, capacity);
    if (filler_ != 0) {
      size_t bytes = size_t(std::min<uint64_t>(capacity, filler_));
      std::memset(buffer, 'x', bytes);
      filler_ -= bytes;
      return bytes;
    }
    return take(tail_, buffer, capacity);
  }

 private:
  static size_t take(std::string& text, char* buffer, size_t capacity) {
    size_t bytes = std::min(capacity, text.size());
    std::memcpy(buffer, text.data(), bytes);
    text.erase(0, bytes);
    return bytes;
  }
  std::string head_;
  uint64_t filler_;
  std::string tail_;
};

constexpr uint64_t huge = 300'000'000;

long peak_kilobytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

// All records of a source, with the arena's use checked after each.
std::vector<Row> read_bounded(Open open, ByteSource& source, const Options& options) {
  auto reader = open(source, options, nullptr);
  Arena arena(4096);
  Record record;
  std::vector<Row> rows;
  long before = peak_kilobytes();
  while (reader->next(arena, record)) {
    EXPECT_LT(arena.used(), 2 * fault_head_bytes);
    rows.push_back(copy_of(record, options.paths.size()));
    arena.reset();
  }
  // The window may grow up to the limit of an item, and be copied once while it does.
  EXPECT_LT(peak_kilobytes() - before, long(3 * options.max_item_bytes / 1024 + 20'000));
  return rows;
}

void expect_one_reject(const std::vector<Row>& rows, const std::string& rule, uint64_t length) {
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].rule, "");
  EXPECT_EQ(rows[1].rule, rule);
  EXPECT_EQ(rows[1].length, length);
  EXPECT_EQ(rows[1].raw.size(), fault_head_bytes);
  EXPECT_EQ(rows[2].rule, "");
  EXPECT_EQ(rows[2].offset, rows[1].offset + length + 1);
}

Options small_limit() {
  Options options = with_paths({"a"});
  options.max_item_bytes = 8'000'000;
  return options;
}

TEST(Memory, ALineOf300Megabytes) {
  LargeSource source("{\"a\":1}\n{\"a\":\"", huge, "\"}\n{\"a\":2}");
  expect_one_reject(read_bounded(open_ndjson, source, small_limit()), "item_too_large", huge + 8);
}

TEST(Memory, AnItemOf300Megabytes) {
  LargeSource source("[{\"a\":1},{\"a\":\"", huge, "\"},{\"a\":2}]");
  expect_one_reject(read_bounded(open_json, source, small_limit()), "item_too_large", huge + 8);
}

TEST(Memory, ARowOf300Megabytes) {
  LargeSource source("a,b\n1,2\n3,", huge, "\n4,5\n");
  expect_one_reject(read_bounded(open_csv, source, small_limit()), "item_too_large", huge + 2);
}

TEST(Memory, AnUnclosedQuoteBefore300Megabytes) {
  LargeSource source("a,b\n1,2\n3,\"", huge, "\n4,5\n");
  expect_one_reject(read_bounded(open_csv, source, small_limit()), "unterminated_quote", huge + 3);
}

TEST(Memory, SkippedPartsOfADocumentAreNotHeld) {
  Options options = small_limit();
  options.items = std::get<Path>(parse_path("items"));
  LargeSource source("{\"skipped\":[\"", huge, "\"],\"items\":[{\"a\":1}]}");
  auto rows = read_bounded(open_json, source, options);
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].offset, huge + 25);
}

TEST(Memory, ABrokenRestIsNotHeld) {
  LargeSource source("[{\"a\":1}}", huge, "");
  auto rows = read_bounded(open_json, source, small_limit());
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[1].rule, "document_malformed");
  EXPECT_EQ(rows[1].length, huge + 1);
}

TEST(Memory, ARowOfEightMillionFields) {
  Options options = small_limit();
  std::string text = "a,b\n1,2\n" + std::string(options.max_item_bytes - 1, ',') + "\n4,5\n";
  TextSource source(text);
  auto reader = open_csv(source, options, nullptr);
  Arena arena(4096);
  Record record;
  long before = peak_kilobytes();
  ASSERT_TRUE(reader->next(arena, record));
  ASSERT_TRUE(reader->next(arena, record));
  EXPECT_EQ(record.fault->code, FaultCode::ragged_row);
  EXPECT_EQ(record.fault->detail, "The row has 8000000 fields, expected 2.");
  EXPECT_LT(peak_kilobytes() - before, long(4 * options.max_item_bytes / 1024 + 20'000));
  ASSERT_TRUE(reader->next(arena, record));
  EXPECT_EQ(record.fault, nullptr);
}

TEST(Arena, AlignsCopiesAndCounts) {
  Arena arena(4096);
  EXPECT_EQ(arena.used(), 0u);
  arena.allocate(1, 1);
  for (size_t align : {1, 2, 4, 8, 16}) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(arena.allocate(3, align)) % align, 0u);
  }
  std::string_view copy = arena.copy("text");
  EXPECT_EQ(copy, "text");
  EXPECT_EQ(copy.data()[4], '\0');
  const uint64_t* zeroes = arena.make_array<uint64_t>(100);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(zeroes[i], 0u);
  EXPECT_EQ(arena.copy("").size(), 0u);
}

TEST(Arena, ThePaddingIsReadable) {
  Arena arena(4096);
  for (size_t size : {1, 4000, 4095, 4096, 5000, 100000}) {
    std::string_view copy = arena.copy(std::string(size, 'x'));
    std::string padding(copy.data() + copy.size(), Arena::padding);
    EXPECT_EQ(padding[0], '\0');
  }
}

TEST(Arena, TheNextBatchGetsTheSameBlocks) {
  Arena arena(4096);
  auto fill = [&] {
    std::vector<char*> places;
    for (int i = 0; i < 1000; ++i) places.push_back(arena.allocate(1000));
    EXPECT_GE(arena.used(), 1'000'000u);
    return places;
  };
  std::vector<char*> first = fill();
  arena.reset();
  EXPECT_EQ(arena.used(), 0u);
  EXPECT_EQ(fill(), first);
}

TEST(Arena, ALargeValueFindsNoRoomInASmallBlock) {
  Arena arena(4096);
  for (int round = 0; round < 3; ++round) {
    std::memset(arena.allocate(100), 1, 100);
    std::memset(arena.allocate(100'000), 2, 100'000);
    char* small = arena.allocate(100);
    std::memset(small, 3, 100);
    char* large = arena.allocate(1'000'000);
    std::memset(large, 4, 1'000'000);
    EXPECT_EQ(small[99], 3);
    EXPECT_EQ(large[999'999], 4);
    EXPECT_GE(arena.used(), 1'100'200u);
    arena.reset();
  }
}

TEST(Arena, AHugeFirstValueIsGivenBack) {
  Arena arena(4096);
  std::memset(arena.allocate(10'000'000), 1, 10'000'000);
  arena.reset();
  arena.allocate(4000);
  arena.allocate(4000);
  EXPECT_LT(arena.used(), 30'000u);
}

TEST(Arena, ImpossibleSizesThrow) {
  Arena arena;
  EXPECT_THROW(arena.allocate(SIZE_MAX - 8), std::bad_alloc);
  EXPECT_THROW(arena.make_array<uint64_t>(SIZE_MAX / 4), std::bad_alloc);
}

TEST(FaultTable, EveryRuleHasASqlstateAndAMessageInStyle) {
  for (int code = 0; code <= int(FaultCode::duplicate_header); ++code) {
    const FaultInfo& info = fault_info(FaultCode(code));
    EXPECT_EQ(std::strlen(info.sqlstate), 5u);
    std::string message = info.message;
    EXPECT_TRUE(message[0] >= 'a' && message[0] <= 'z') << message;
    EXPECT_NE(message.back(), '.');
  }
}

}  // namespace
}  // namespace portage::formats::testing
