// The item parser: what is extracted from good items, and what each kind of bad item is called.
#include <gtest/gtest.h>

#include <algorithm>

#include "formats/bracket_scanner.hpp"
#include "formats/item_parser.hpp"
#include "formats/text.hpp"
#include "formats_support.hpp"

namespace portage::formats::testing {
namespace {

using Strings = std::vector<std::string>;

Row parse(std::string_view json, std::initializer_list<const char*> paths = {}, size_t max_depth = 512) {
  Options options = with_paths(paths);
  ItemParser parser(options.paths, max_depth);
  Arena arena(4096);
  Record record;
  bool good = parser.parse(arena.copy(json), arena, record);
  EXPECT_EQ(good, record.fault == nullptr);
  return copy_of(record, options.paths.size());
}

Strings fields(std::string_view json, std::initializer_list<const char*> paths) {
  Row row = parse(json, paths);
  EXPECT_EQ(row.rule, "") << json << row.detail;
  return row.fields;
}

TEST(Item, EveryKindOfValue) {
  EXPECT_EQ(fields(R"({"s":"x","n":-1.50e+3,"t":true,"f":false,"z":null,"o":{"a": [1] },"a":[ 1, 2 ]})",
                   {"s", "n", "t", "f", "z", "o", "a", "nothing"}),
            (Strings{"string:x", "number:-1.50e+3", "boolean:true", "boolean:false",
                     "null:", R"(json:{"a": [1] })", "json:[ 1, 2 ]", "missing:"}));
}

TEST(Item, NumbersKeepTheirText) {
  EXPECT_EQ(fields(R"([1e400, 123456789012345678901234567890, -0, 1.0])", {"[0]", "[1]", "[2]", "[3]"}),
            (Strings{"number:1e400", "number:123456789012345678901234567890", "number:-0", "number:1.0"}));
}

TEST(Item, PathsIntoContainers) {
  std::string_view json = R"({"a":{"b":[{"c":1},{"c":"two"}]},"x.y":{"":3}})";
  EXPECT_EQ(fields(json, {"a.b[1].c", "a.b[0].c", "a.b[2].c", "a.b", "a", "\"x.y\".\"\"", "a.b.c", "a[0]",
                          "$item"}),
            (Strings{"string:two", "number:1", "missing:", R"(json:[{"c":1},{"c":"two"}])",
                     R"(json:{"b":[{"c":1},{"c":"two"}]})", "number:3",
                     "missing:", "missing:", "json:" + std::string(json)}));
}

TEST(Item, TheSamePathTwice) {
  EXPECT_EQ(fields(R"({"a":1})", {"a", "a"}), (Strings{"number:1", "number:1"}));
}

TEST(Item, OfDuplicateKeysTheLastWinsAsAWhole) {
  EXPECT_EQ(fields(R"({"a":1,"a":"2"})", {"a"}), (Strings{"string:2"}));
  EXPECT_EQ(fields(R"({"a":{"b":1,"c":2},"a":{"c":3}})", {"a.b", "a.c", "a"}),
            (Strings{"missing:", "number:3", R"(json:{"c":3})"}));
  EXPECT_EQ(fields(R"({"a":{"b":1},"a":null})", {"a.b", "a"}), (Strings{"missing:", "null:"}));
  EXPECT_EQ(fields(R"({"a":1,"\u0061":2})", {"a"}), (Strings{"number:2"}));
}

TEST(Item, EscapesAreTakenOut) {
  EXPECT_EQ(fields(R"({"k\u00e9y":"a\"\\\/\b\f\n\r\t\u00e4\u20ac\ud83d\ude00z"})", {"kéy"}),
            (Strings{"string:a\"\\/\b\f\n\r\tä€😀z"}));
  EXPECT_EQ(fields(R"(["\u0000x"])", {"[0]"}), (Strings{std::string("string:\0x", 9)}));
}

// A path's key that is a backslash, or ends with one, must not meet the beginning of an escape.
TEST(Item, KeysThatBeginAlike) {
  EXPECT_EQ(fields(R"({"abc":1,"ab":2,"a":3})", {"a", "ab", "abc"}),
            (Strings{"number:3", "number:2", "number:1"}));
  EXPECT_EQ(fields(R"({"a\\":1,"b":2})", {R"("a\\")", "b"}), (Strings{"number:1", "number:2"}));
  EXPECT_EQ(fields(R"({"a\"x":1,"b":2})", {R"("a\\")", "b"}), (Strings{"missing:", "number:2"}));
  EXPECT_EQ(fields(R"({"a\"x":1,"b":2})", {R"("a\"x")", "b"}), (Strings{"number:1", "number:2"}));
}

TEST(Item, ScalarsAreItemsToo) {
  EXPECT_EQ(fields(" 1e400 ", {"$item", "a"}), (Strings{"number:1e400", "missing:"}));
  EXPECT_EQ(fields(R"("a\nb")", {"$item"}), (Strings{"string:a\nb"}));
  EXPECT_EQ(fields("null", {"$item"}), (Strings{"null:"}));
  EXPECT_EQ(fields("false", {"$item"}), (Strings{"boolean:false"}));
}

TEST(Item, StringsWithoutEscapesAreNotCopied) {
  Options options = with_paths({"a"});
  ItemParser parser(options.paths, 512);
  Arena arena;
  Record record;
  std::string_view json = arena.copy(R"({"a":"text"})");
  ASSERT_TRUE(parser.parse(json, arena, record));
  EXPECT_EQ(record.fields[0].text.data(), json.data() + 6);
}

TEST(Item, MalformedWhereverItStands) {
  const char* values[] = {
      "tru",
      "True",
      "nul",
      "nan",
      "NaN",
      "Infinity",
      "-",
      "+1",
      "01",
      "1.",
      ".5",
      "1e",
      "1e+",
      "0x10",
      "1_000",
      "--1",
      "1.2.3",
      "'a'",
      "\"\\x\"",
      "\"\\u12\"",
      "\"\\u12g4\"",
      "\"a\\",
      "\"abc",
      "\"a\"b",
      "\"a\"\"b\"",
      "1 2",
      "{",
      "}",
      "[",
      "]",
      "[1",
      "1]",
      "[1,]",
      "[,1]",
      "[1 2]",
      "[1}",
      "{\"a\"}",
      "{\"a\":}",
      "{\"a\":1,}",
      "{,}",
      "{a:1}",
      "{1:2}",
      "{\"a\" 1}",
      "{\"a\":1 \"b\":2}",
      "{\"a\":1]",
      "[{\"a\":1]}",
      ":",
      ",",
      "[1,2",
      "{\"a\":{\"b\":1}",
      "[[1]",
      "\"\t\"",
      "\"a\nb\"",
      "/**/1",
      "\\",
      "a",
      "truefalse",
      "nulll",
      "\"\\ud800\"",
      "\"\\udc00\"",
      "\"\\ud800\\u0041\"",
      "\"\\ud800x\"",
      "\"\\ud83d\\ud83d\"",
  };
  for (std::string value : values) {
    for (std::string json :
         {value, "[" + value + "]", "{\"a\":" + value + "}", "{\"skipped\":" + value + ",\"a\":1}"}) {
      Row row = parse(json, {"a", "[0]"});
      EXPECT_EQ(row.rule, "malformed_json") << json;
      EXPECT_EQ(row.sqlstate, "22P02") << json;
      EXPECT_EQ(row.message, "invalid JSON") << json;
      EXPECT_NE(row.detail, "") << json;
    }
  }
}

TEST(Item, TruncatedAtEveryByte) {
  std::string json = R"( {"a":{"b":[1,-2.5e3,true,null,"x\u00e4\"y"]},"ü":"€","z":{}})";
  EXPECT_EQ(parse(json).rule, "");
  for (size_t n = 0; n < json.size(); ++n) {
    Row row = parse(json.substr(0, n), {"a.b[1]"});
    EXPECT_TRUE(row.rule == "malformed_json" || row.rule == "invalid_encoding") << n << row.rule;
  }
}

TEST(Item, EveryByteReplacedByEveryOtherNeverCrashes) {
  std::string json = R"({"a":[1.5,"\u00e4",true,null],"b":{"c":"d"}})";
  for (size_t i = 0; i < json.size(); ++i) {
    for (int c = 0; c < 256; ++c) {
      std::string changed = json;
      changed[i] = char(c);
      parse(changed, {"a[1]", "b.c", "b"});
    }
  }
}

TEST(Item, LoneSurrogatesAreNamed) {
  EXPECT_EQ(parse(R"({"a":"x\udc00"})").detail,
            "Unpaired surrogate in a Unicode escape at byte 7 of the item.");
  EXPECT_EQ(parse(R"({"\ud800":1})", {"a"}).detail,
            "Unpaired surrogate in a Unicode escape at byte 2 of the item.");
}

TEST(Item, InvalidEncoding) {
  for (std::string bytes : {"\xff", "\xc3", "\xc3(", "\xed\xa0\x80", "\xc0\x80", "\xe2\x82",
                            "\xf5\x80\x80\x80", "\x80", "\xf0\x80\x80\x80"}) {
    for (std::string json : {"{\"a\":\"" + bytes + "\"}", "\"" + bytes + "\"", "{\"" + bytes + "\":1}", bytes,
                             "[" + bytes + "]"}) {
      Row row = parse(json, {"a"});
      EXPECT_EQ(row.rule, "invalid_encoding") << json;
      EXPECT_EQ(row.sqlstate, "22021");
    }
  }
  EXPECT_EQ(parse("{\"a\":\"x\xff\"}").detail, "Byte 7 of the item is 0xff.");
}

TEST(Item, TooDeep) {
  EXPECT_EQ(parse("[[[1]]]", {}, 3).rule, "");
  Row row = parse("[[[[1]]]]", {}, 3);
  EXPECT_EQ(row.rule, "nesting_too_deep");
  EXPECT_EQ(row.sqlstate, "54000");
  EXPECT_EQ(row.detail, "Nesting exceeds 3 levels at byte 3 of the item.");
  for (const char* open : {"[", "{\"a\":"}) {
    std::string deep;
    for (int i = 0; i < 100000; ++i) deep += open;
    EXPECT_EQ(parse(deep, {"a.a"}).rule, "malformed_json") << open;
    std::string closed = deep + "1" + std::string(100000, open[0] == '[' ? ']' : '}');
    EXPECT_EQ(parse(closed, {"a.a"}, SIZE_MAX).rule, "nesting_too_deep");
  }
  std::string most(ItemParser::deepest, '[');
  EXPECT_EQ(parse(most + std::string(ItemParser::deepest, ']'), {}, SIZE_MAX).rule, "");
}

TEST(Item, EmptyAndBlank) {
  EXPECT_EQ(parse("").detail, "The item is empty.");
  EXPECT_EQ(parse(" \n\t").rule, "malformed_json");
  EXPECT_EQ(parse(std::string_view("\0", 1)).rule, "malformed_json");
}

TEST(Item, OneParserForManyItems) {
  ItemParser parser(with_paths({"a"}).paths, 512);
  Arena arena;
  Record record;
  EXPECT_FALSE(parser.parse(arena.copy("{\"a\":"), arena, record));
  EXPECT_TRUE(parser.parse(arena.copy("{\"a\":1}"), arena, record));
  EXPECT_EQ(record.fault, nullptr);
  std::string large = "{\"a\":\"" + std::string(6'000'000, 'x') + "\"}";
  EXPECT_TRUE(parser.parse(arena.copy(large), arena, record));
  EXPECT_EQ(record.fields[0].text.size(), 6'000'000u);
  EXPECT_TRUE(parser.parse(arena.copy("{}"), arena, record));
  EXPECT_EQ(record.fields[0].kind, Kind::missing);
}

TEST(BracketScanner, SameResultHoweverTheBytesAreCut) {
  // Every piece below 64 bytes takes the byte-wise way, the whole the one by blocks.
  uint32_t random = 1;
  auto next = [&] { return random = random * 1664525 + 1013904223, random >> 16; };
  constexpr char alphabet[] = "[]{}\"\\\\\"a :,[{x";
  for (int round = 0; round < 20000; ++round) {
    std::string text(1, "[{\""[next() % 3]);
    size_t size = next() % 300;
    while (text.size() < size) text += alphabet[next() % (sizeof(alphabet) - 1 - (round % 2) * 6)];
    BracketScanner whole(8);
    whole.start();
    size_t taken = 0;
    auto result = whole.scan(text.data(), text.size(), taken);
    BracketScanner pieces(8);
    pieces.start();
    size_t sum = 0;
    auto last = BracketScanner::Result::more;
    while (last == BracketScanner::Result::more && sum < text.size()) {
      size_t step = 0;
      last = pieces.scan(text.data() + sum, std::min<size_t>(text.size() - sum, 1 + next() % 70), step);
      sum += step;
    }
    ASSERT_EQ(result, last) << text;
    ASSERT_EQ(taken, sum) << text;
  }
}

TEST(Text, CountsNewlines) {
  for (size_t size : {0, 1, 15, 16, 17, 4080, 4096, 100000}) {
    std::string text(size, '\n');
    EXPECT_EQ(count_newlines(text.data(), size), size);
    for (size_t i = 0; i < size; i += 2) text[i] = 'x';
    EXPECT_EQ(count_newlines(text.data(), size), size / 2);
  }
}

TEST(Text, FindsTheInvalidByteWhereSimdjsonSaysThereIsOne) {
  uint32_t random = 7;
  auto next = [&] { return random = random * 1664525 + 1013904223, random >> 16; };
  constexpr char alphabet[] = "a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\xed\xa0\xff\xc0\xf4\x90";
  for (int round = 0; round < 50000; ++round) {
    std::string text;
    for (size_t n = next() % 8; n > 0; --n) text += alphabet[next() % (sizeof(alphabet) - 1)];
    ASSERT_EQ(valid_utf8(text), find_invalid_utf8(text) == text.size());
  }
}

}  // namespace
}  // namespace portage::formats::testing
