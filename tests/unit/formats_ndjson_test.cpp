// NDJSON: cutting lines. Every text goes through the properties that hold for any input (odd reads,
// resuming).
#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>

#include "formats_support.hpp"

namespace portage::formats::testing {
namespace {

using Strings = std::vector<std::string>;

std::vector<Row> read(std::string_view text, const Options& options = with_paths({"a"})) {
  EXPECT_EQ(property_violation(open_ndjson, text, options), "");
  return read_text(open_ndjson, text, options);
}

// `line:offset+length` and rule or first field of each record.
Strings outline(const std::vector<Row>& rows) {
  Strings lines;
  for (const Row& row : rows) {
    lines.push_back(std::to_string(row.line) + ":" + std::to_string(row.offset) + "+" +
                    std::to_string(row.length) + " " + (row.rule.empty() ? row.fields.at(0) : row.rule));
  }
  return lines;
}

TEST(Ndjson, OneItemPerLine) {
  EXPECT_EQ(outline(read("{\"a\":1}\n{\"a\":2}\n")), (Strings{"1:0+7 number:1", "2:8+7 number:2"}));
}

TEST(Ndjson, LastLineWithoutNewline) {
  EXPECT_EQ(outline(read("{\"a\":1}\n{\"a\":2}")), (Strings{"1:0+7 number:1", "2:8+7 number:2"}));
}

TEST(Ndjson, CarriageReturnsBlankLinesAndSpaces) {
  EXPECT_EQ(outline(read("\n \t\r\n  {\"a\":1} \r\n\r\n{\"a\":2}\r")),
            (Strings{"3:5+10 number:1", "5:19+7 number:2"}));
  Options options = with_paths({"a"});
  options.want_item = true;
  EXPECT_EQ(read("  {\"a\":1} \r\n", options).at(0).item, "{\"a\":1}");
}

TEST(Ndjson, ByteOrderMark) {
  EXPECT_EQ(outline(read("\xEF\xBB\xBF{\"a\":1}\n")), (Strings{"1:3+7 number:1"}));
  EXPECT_EQ(outline(read("\xEF\xBB\xBF")), Strings{});
  EXPECT_EQ(outline(read("\xEF\xBB")), (Strings{"1:0+2 invalid_encoding"}));
  EXPECT_EQ(outline(read("{\"a\":1}\n\xEF\xBB\xBF{\"a\":1}")),
            (Strings{"1:0+7 number:1", "2:8+10 malformed_json"}));
}

TEST(Ndjson, NothingIsNoItem) {
  EXPECT_TRUE(read("").empty());
  EXPECT_TRUE(read("\n\n  \r\n").empty());
}

TEST(Ndjson, BadLinesAreOneRejectEach) {
  auto rows = read("{\"a\":1}\n{\"a\":\n{\"a\":1} x\n{\"a\":1}{\"a\":2}\n\"\xff\"\nnonsense\n{\"a\":2}\n");
  EXPECT_EQ(outline(rows), (Strings{"1:0+7 number:1", "2:8+5 malformed_json", "3:14+9 malformed_json",
                                    "4:24+14 malformed_json", "5:39+3 invalid_encoding",
                                    "6:43+8 malformed_json", "7:52+7 number:2"}));
  EXPECT_EQ(rows[1].raw, "{\"a\":");
  EXPECT_EQ(rows[2].detail, "Unexpected text after the end of the value at byte 8 of the item.");
}

TEST(Ndjson, AnItemOverTwoLinesIsTwoRejects) {
  EXPECT_EQ(outline(read("{\"a\":\n1}\n")), (Strings{"1:0+5 malformed_json", "2:6+2 malformed_json"}));
}

TEST(Ndjson, ALineTooLargeIsOneReject) {
  Options options = with_paths({"a"});
  options.max_item_bytes = 8;
  auto rows =
      read("{\"a\":1}\n{\"a\":12}\r\n{\"a\":123}\n{\"a\":123}\r\n{\"a\":1234567890}\n{\"a\":2}\n          \n",
           options);
  EXPECT_EQ(outline(rows),
            (Strings{"1:0+7 number:1", "2:8+8 number:12", "3:18+9 item_too_large", "4:28+9 item_too_large",
                     "5:39+16 item_too_large", "6:56+7 number:2", "7:64+10 item_too_large"}));
  EXPECT_EQ(rows[2].sqlstate, "54000");
  EXPECT_EQ(rows[2].detail, "The line has 9 bytes, the limit is 8.");
  EXPECT_EQ(outline(read("0123456789", options)), (Strings{"1:0+10 item_too_large"}));
  EXPECT_EQ(outline(read("012345678\r", options)), (Strings{"1:0+9 item_too_large"}));
  EXPECT_EQ(outline(read("01234567\r\r", options)), (Strings{"1:0+9 item_too_large"}));
}

TEST(Ndjson, NulBytesAndControlCharacters) {
  std::string text = "{\"a\":\"0\"}\n0\n{\"a\":1}0\n";
  std::replace(text.begin(), text.end(), '0', '\0');
  EXPECT_EQ(outline(read(text)),
            (Strings{"1:0+9 malformed_json", "2:10+1 malformed_json", "3:12+8 malformed_json"}));
}

TEST(Ndjson, ItemsLargerThanTheWindow) {
  std::string text;
  for (size_t size : {10, 600'000, 10, 2'000'000, 10}) text += "{\"a\":\"" + std::string(size, 'x') + "\"}\n";
  auto rows = read_text(open_ndjson, text, with_paths({"a"}));
  ASSERT_EQ(rows.size(), 5u);
  for (const Row& row : rows) EXPECT_EQ(row.rule, "");
  EXPECT_EQ(rows, read_text(open_ndjson, text, with_paths({"a"}), 8192));
  EXPECT_EQ(rows[4].line, 5u);
}

TEST(Ndjson, ASourceThatThrowsIsPassedOn) {
  struct Failing final : ByteSource {
    size_t read(char* buffer, size_t) override {
      if (done++) throw std::runtime_error("disk");
      buffer[0] = '1';
      buffer[1] = '\n';
      buffer[2] = '2';
      return 3;
    }
    int done = 0;
  } source;
  auto reader = open_ndjson(source, {}, nullptr);
  Arena arena;
  Record record;
  EXPECT_TRUE(reader->next(arena, record));
  EXPECT_THROW(reader->next(arena, record), std::runtime_error);
}

TEST(Ndjson, HasNoColumns) {
  TextSource source("1");
  EXPECT_EQ(open_ndjson(source, {})->columns(), nullptr);
}

}  // namespace
}  // namespace portage::formats::testing
