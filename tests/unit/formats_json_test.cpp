// JSON documents: finding the items, cutting them, and what remains of a broken document. Every text goes
// through the properties that hold for any input (odd reads, resuming at every item).
#include <gtest/gtest.h>

#include <stdexcept>

#include "formats_support.hpp"

namespace portage::formats::testing {
namespace {

using Strings = std::vector<std::string>;

Options at(const char* items) {
  Options options = with_paths({"$item"});
  if (*items) options.items = std::get<Path>(parse_path(items));
  return options;
}

std::vector<Row> read(std::string_view text, const Options& options) {
  EXPECT_EQ(property_violation(open_json, text, options), "") << text;
  return read_text(open_json, text, options);
}

// `offset+length` and rule or the raw text of each record.
Strings outline(std::string_view text, const Options& options) {
  Strings lines;
  for (const Row& row : read(text, options)) {
    lines.push_back(row.rule.empty()
                        ? row.raw
                        : row.rule + " " + std::to_string(row.offset) + "+" + std::to_string(row.length));
  }
  return lines;
}

Strings outline(std::string_view text, const char* items = "") { return outline(text, at(items)); }

TEST(Json, ElementsOfARootArray) {
  EXPECT_EQ(outline(R"([{"a":1}, {"b":[2,{"c":"]}"}]} ,3,"x,y",null ])"),
            (Strings{R"({"a":1})", R"({"b":[2,{"c":"]}"}]})", "3", R"("x,y")", "null"}));
  EXPECT_EQ(outline(" [ ] "), Strings{});
}

TEST(Json, AnyOtherRootIsOneItem) {
  EXPECT_EQ(outline(" {\"a\":[1,2]} \n"), (Strings{"{\"a\":[1,2]}"}));
  EXPECT_EQ(outline(" 1e400 "), (Strings{"1e400"}));
  EXPECT_EQ(outline("\"text\"\n"), (Strings{"\"text\""}));
  EXPECT_EQ(outline("null"), (Strings{"null"}));
}

TEST(Json, ItemsAtAPath) {
  EXPECT_EQ(outline(R"({"x":[9,{"items":[8]}],"items":[1,2],"y":{"items":[7]}})", "items"),
            (Strings{"1", "2"}));
  EXPECT_EQ(outline(R"({"data":[{"i":[0]},{"i":[1]},{"i":[2]}]})", "data[1].i"), (Strings{"1"}));
  EXPECT_EQ(outline(R"([[1,2],[3,4]])", "[1]"), (Strings{"3", "4"}));
  EXPECT_EQ(outline(R"({"a":{"b":{"c":[1]}}})", "a.b.c"), (Strings{"1"}));
  EXPECT_EQ(outline(R"({"639-3":[{"n":1}]})", "639-3"), (Strings{"{\"n\":1}"}));
  EXPECT_EQ(outline(R"({"items":[]})", "items"), Strings{});
}

TEST(Json, AnObjectAtThePathIsOneItem) {
  EXPECT_EQ(outline(R"({"a":{"b":{"c":[1]}},"d":1})", "a.b"), (Strings{"{\"c\":[1]}"}));
  EXPECT_EQ(outline(R"([0,{"c":1}])", "[1]"), (Strings{"{\"c\":1}"}));
}

TEST(Json, KeysAreComparedUnescaped) {
  EXPECT_EQ(outline(R"({"\u0069tem\u0073":[1],"it\"ems":[2]})", "items"), (Strings{"1"}));
  EXPECT_EQ(outline(R"({"items":[1],"it\"ems":[2]})", R"("it\"ems")"), (Strings{"2"}));
  EXPECT_EQ(outline(R"({"\ud800":[1],"a":[2]})", "a"), (Strings{"2"}));
}

TEST(Json, AKeyThatOccursTwiceIsReadTwice) {
  EXPECT_EQ(outline(R"({"items":[1],"x":0,"items":[2,3]})", "items"), (Strings{"1", "2", "3"}));
  EXPECT_EQ(outline(R"({"a":{"b":[1]},"a":{"b":[2]}})", "a.b"), (Strings{"1", "2"}));
}

TEST(Json, LinesAndOffsets) {
  auto rows = read("\xEF\xBB\xBF{\n\"items\": [\n  {\"a\":\n1},\n\n  2]}\n", at("items"));
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].line, 3u);
  EXPECT_EQ(rows[0].offset, 18u);
  EXPECT_EQ(rows[0].length, 8u);
  EXPECT_EQ(rows[1].line, 6u);
}

TEST(Json, TheWholeItemOnRequest) {
  Options options = at("");
  options.want_item = true;
  auto rows = read("[ {\"a\" : 1} , tru]", options);
  EXPECT_EQ(rows[0].item, "{\"a\" : 1}");
  EXPECT_EQ(rows[1].item, "");
}

TEST(Json, AMalformedItemDoesNotStopTheReading) {
  EXPECT_EQ(outline("[{\"a\":1},{\"a\": tru},{\"a\" 2},\"\xff\",[,],{\"b\":2},nul,\"\\x\",3]"),
            (Strings{"{\"a\":1}", "malformed_json 9+10", "malformed_json 20+7", "invalid_encoding 28+3",
                     "malformed_json 32+3", "{\"b\":2}", "malformed_json 44+3", "malformed_json 48+4", "3"}));
}

TEST(Json, BrokenStructureIsOneRejectToTheEnd) {
  EXPECT_EQ(outline(R"([1,{"a":[2},3,4])"), (Strings{"1", "document_malformed 3+13"}));
  EXPECT_EQ(outline(R"([{"a":1} {"a":2}])"), (Strings{"{\"a\":1}", "document_malformed 9+8"}));
  EXPECT_EQ(outline("[1 2,3]"), (Strings{"1", "document_malformed 3+4"}));
  EXPECT_EQ(outline("[1,,2]"), (Strings{"1", "document_malformed 3+3"}));
  EXPECT_EQ(outline("[1,2,]"), (Strings{"1", "2", "document_malformed 5+1"}));
  EXPECT_EQ(outline("[1,:2]"), (Strings{"1", "document_malformed 3+3"}));
  EXPECT_EQ(outline("[1}"), (Strings{"1", "document_malformed 2+1"}));
  EXPECT_EQ(outline("[1]]"), (Strings{"1", "document_malformed 3+1"}));
  EXPECT_EQ(outline("[1] [2]"), (Strings{"1", "document_malformed 4+3"}));
  EXPECT_EQ(outline("{\"a\":1}\n{\"a\":2}\n"), (Strings{"{\"a\":1}", "document_malformed 8+8"}));
  EXPECT_EQ(outline(R"({"items":[1],x})", "items"), (Strings{"1", "document_malformed 13+2"}));
  EXPECT_EQ(outline(R"({"items":[1]])", "items"), (Strings{"1", "document_malformed 12+1"}));
  EXPECT_EQ(outline(R"({"items":[1],"x":[}})", "items"), (Strings{"1", "document_malformed 17+3"}));
  EXPECT_EQ(outline(R"({"items" [1]})", "items"), (Strings{"document_malformed 9+4"}));
  EXPECT_EQ(outline(R"({"a":,"items":[1]})", "items"), (Strings{"document_malformed 5+13"}));
  EXPECT_EQ(outline(R"({items:[1]})", "items"), (Strings{"document_malformed 1+10"}));
}

TEST(Json, TheDetailOfABrokenStructure) {
  EXPECT_EQ(read("[1 2]", at(""))[1].detail, "Expected a comma or \"]\", found \"2\".");
  EXPECT_EQ(read("[1,\xff]", at(""))[1].rule, "invalid_encoding");
  EXPECT_EQ(read("{\"i\":[1],\xff}", at("i"))[1].detail, "Expected a key, found 0xff.");
}

TEST(Json, AMissingEndKeepsWhatCameBefore) {
  EXPECT_EQ(outline(R"({"items":[{"a":1},{"a":2},{"a":)", "items"),
            (Strings{"{\"a\":1}", "{\"a\":2}", "document_incomplete 26+5"}));
  EXPECT_EQ(outline(R"([{"a":1},{"a":2})"), (Strings{"{\"a\":1}", "{\"a\":2}", "document_incomplete 16+0"}));
  EXPECT_EQ(outline("[12,34"), (Strings{"12", "document_incomplete 4+2"}));
  EXPECT_EQ(outline("[\"a\",\"b"), (Strings{"\"a\"", "document_incomplete 5+2"}));
}

TEST(Json, TruncatedAtEveryByte) {
  std::string text =
      R"( {"meta":{"n":[1,"]"]},"items":[{"a":1,"b":"x\"y"},[2],"s",4 ],"tail":[{}],"u":"\u00e4"} )";
  Strings whole = outline(text, "items");
  ASSERT_EQ(whole, (Strings{R"({"a":1,"b":"x\"y"})", "[2]", "\"s\"", "4"}));
  size_t end = text.rfind('}') + 1;
  for (size_t n = 0; n < end; ++n) {
    auto rows = read(text.substr(0, n), at("items"));
    ASSERT_GE(rows.size(), 1u) << n;
    const Row& last = rows.back();
    EXPECT_EQ(last.rule, n < 2 ? "empty_payload" : "document_incomplete") << n;
    EXPECT_EQ(last.offset + last.length, n);
    for (size_t i = 0; i + 1 < rows.size(); ++i) EXPECT_EQ(rows[i].raw, whole.at(i)) << n;
  }
}

TEST(Json, NoItemsAtThePath) {
  EXPECT_EQ(outline(R"({"a":[1]})", "items"), (Strings{"items_not_found 0+9"}));
  EXPECT_EQ(outline(R"([{"items":[1]}])", "items"), (Strings{"items_not_found 0+15"}));
  EXPECT_EQ(outline(R"({"a":[1]})", "a[0][0]"), (Strings{"items_not_found 0+9"}));
  EXPECT_EQ(outline(R"({"a":[1]})", "a[7]"), (Strings{"items_not_found 0+9"}));
  EXPECT_EQ(outline(R"({"a":null,"b":1})", "a"), (Strings{"items_not_found 5+4"}));
  EXPECT_EQ(outline(R"({"a":"text"})", "a"), (Strings{"items_not_found 5+6"}));
  EXPECT_EQ(outline("hello world", "a"), (Strings{"items_not_found 0+11"}));
  EXPECT_EQ(outline("\"x\" ", "a"), (Strings{"items_not_found 0+4"}));
  auto rows = read(R"({"b":1})", at("a.b"));
  EXPECT_EQ(rows[0].sqlstate, "22035");
  EXPECT_EQ(rows[0].detail, "The document has no array or object at a.b.");
  EXPECT_EQ(rows[0].raw, R"({"b":1})");
}

TEST(Json, AScalarAtThePathIsAnItemOnRequest) {
  Options options = at("a");
  options.scalar_items = true;
  EXPECT_EQ(outline(R"({"a":"v2","b":1})", options), (Strings{"\"v2\""}));
  EXPECT_EQ(outline(R"({"a":null})", options), (Strings{"null"}));
  EXPECT_EQ(outline(R"({"a":[1,2],"a":3})", options), (Strings{"1", "2", "3"}));
  EXPECT_EQ(outline(R"({"a":tru,"b":1})", options), (Strings{"malformed_json 5+3"}));
  EXPECT_EQ(outline(R"({"a":,"b":1})", options), (Strings{"document_malformed 5+7"}));
  EXPECT_EQ(outline(R"({"a":12)", options), (Strings{"document_incomplete 5+2"}));
  EXPECT_EQ(outline(R"({"b":1})", options), (Strings{"items_not_found 0+7"}));
}

TEST(Json, ARootThatIsNoJson) {
  EXPECT_EQ(outline("hello, world"), (Strings{"malformed_json 0+12"}));
  EXPECT_EQ(outline("<html>\n"), (Strings{"malformed_json 0+6"}));
  EXPECT_EQ(outline("]"), (Strings{"malformed_json 0+1"}));
  EXPECT_EQ(outline("\xff\xfe[\0", at("")), (Strings{"invalid_encoding 0+3"}));
}

TEST(Json, AnEmptyPayload) {
  auto rows = read("", at("a"));
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].rule, "empty_payload");
  EXPECT_EQ(rows[0].sqlstate, "22P02");
  EXPECT_EQ(rows[0].length, 0u);
  EXPECT_EQ(outline(" \n"), (Strings{"empty_payload 0+2"}));
  EXPECT_EQ(outline("\xEF\xBB\xBF"), (Strings{"empty_payload 0+3"}));
}

TEST(Json, AnItemTooLargeIsOneRejectAndReadingGoesOn) {
  Options options = at("items");
  options.max_item_bytes = 8;
  EXPECT_EQ(
      outline(
          R"({"skipped, and as large as it likes":[[1,2,3,4,5,6,7,8]],"items":[{"a":12},{"a":123},"12345678",)"
          R"(123456789,{"a":[[[[}}]]]]}]})",
          options),
      (Strings{"{\"a\":12}", "item_too_large 75+9", "item_too_large 85+10", "item_too_large 96+9",
               "document_malformed 106+18"}));
  EXPECT_EQ(outline(R"({"items":[{"a":123456},1]})", options), (Strings{"item_too_large 10+12", "1"}));
  EXPECT_EQ(outline(R"({"items":[{"a":123456)", options), (Strings{"document_incomplete 10+11"}));
  EXPECT_EQ(outline(R"({"items":{"a":123456},"b":1})", options), (Strings{"item_too_large 9+12"}));
  options.items = Path{};
  EXPECT_EQ(outline("123456789", options), (Strings{"item_too_large 0+9"}));
  EXPECT_EQ(outline("12345678 ", options), (Strings{"item_too_large 0+9"}));
}

TEST(Json, TheHeadOfALargeRejectIsKept) {
  Options options = at("");
  options.max_item_bytes = 1000;
  std::string text = "[\"" + std::string(200000, 'x') + "\",1]";
  auto rows = read_text(open_json, text, options, 999);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].length, 200002u);
  EXPECT_EQ(rows[0].raw, text.substr(1, fault_head_bytes));
  EXPECT_EQ(rows[1].raw, "1");
}

TEST(Json, DeepNesting) {
  for (const char* open : {"[", "{\"a\":"}) {
    std::string deep;
    for (int i = 0; i < 100000; ++i) deep += open;
    std::string closed = deep + "1" + std::string(100000, open[0] == '[' ? ']' : '}');
    auto rows = read_text(open_json, "[0," + closed + ",1]", at(""));
    ASSERT_EQ(rows.size(), 3u);
    EXPECT_EQ(rows[1].rule, "nesting_too_deep");
    EXPECT_EQ(rows[1].length, closed.size());
    EXPECT_EQ(rows[2].raw, "1");
    rows = read_text(open_json, "[0," + deep, at(""));
    ASSERT_EQ(rows.size(), 2u);
    EXPECT_EQ(rows[1].rule, "document_incomplete");
    rows = read_text(open_json, "{\"x\":" + closed + ",\"i\":[1]}", at("i"));
    ASSERT_EQ(rows.size(), 1u);
    EXPECT_EQ(rows[0].raw, "1");
  }
}

TEST(Json, AKeyOfAnySizeIsPassed) {
  std::string text = "{\"" + std::string(300000, 'k') + "\":1,\"i\":[1]}";
  auto rows = read_text(open_json, text, at("i"), 1000);
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].raw, "1");
}

TEST(Json, ACheckpointOfAnotherShapeIsRefused) {
  for (const char* state : {"a{{", "a[0", "ax", "b", "a{[0[0"}) {
    TextSource source("");
    Checkpoint checkpoint{5, 1, state};
    EXPECT_THROW(open_json(source, at("a"), &checkpoint), std::invalid_argument) << state;
  }
}

TEST(Json, EveryByteReplacedKeepsTheProperties) {
  std::string text = R"({"m":[{}],"i":[{"a":"x\\"},[1], 2 ],"t":0})";
  for (size_t i = 0; i < text.size(); ++i) {
    for (char c : {'"', '\\', '[', ']', '{', '}', ',', ':', ' ', '\n', '1', '\0', '\xff'}) {
      std::string changed = text;
      changed[i] = c;
      EXPECT_EQ(property_violation(open_json, changed, at("i")), "") << changed;
    }
  }
}

}  // namespace
}  // namespace portage::formats::testing
