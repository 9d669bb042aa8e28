// CSV: dialects, headers, nulls, ragged rows, and finding back after a quote that never closes. Every text
// goes through the properties that hold for any input (odd reads, resuming at every row).
#include <gtest/gtest.h>

#include <stdexcept>

#include "formats_support.hpp"

namespace portage::formats::testing {
namespace {

using Strings = std::vector<std::string>;

std::vector<Row> read(std::string_view text, const Options& options) {
  EXPECT_EQ(property_violation(open_csv, text, options), "") << text;
  return read_text(open_csv, text, options);
}

// `line:` and the fields, or rule and span, of each record.
Strings outline(std::string_view text, const Options& options = with_paths({"a", "b"})) {
  Strings lines;
  for (const Row& row : read(text, options)) {
    std::string line = std::to_string(row.line) + ":";
    if (!row.rule.empty())
      line += " " + row.rule + " " + std::to_string(row.offset) + "+" + std::to_string(row.length);
    for (const std::string& field : row.fields)
      line += " " + (field == "null:" ? "null" : field.substr(field.find(':') + 1));
    lines.push_back(line);
  }
  return lines;
}

TEST(Csv, HeaderAndRows) {
  EXPECT_EQ(outline("a,b\n1,2\n3,4\n"), (Strings{"2: 1 2", "3: 3 4"}));
  EXPECT_EQ(outline("b,a\r\n1,2\r\n3,4"), (Strings{"2: 2 1", "3: 4 3"}));
  EXPECT_EQ(outline("\xEF\xBB\xBF\"a\",b\n1,2\n"), (Strings{"2: 1 2"}));
  EXPECT_EQ(outline("a,b\n"), Strings{});
  EXPECT_EQ(outline("a,b"), Strings{});
}

TEST(Csv, PlaceOfARow) {
  auto rows = read("a,b\r\n\"1\n\",2\r\n3,4\r\n", with_paths({"a"}));
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].raw, "\"1\n\",2");
  EXPECT_EQ(rows[0].offset, 5u);
  EXPECT_EQ(rows[1].line, 4u);
  EXPECT_EQ(rows[1].raw, "3,4");
}

TEST(Csv, Quotes) {
  EXPECT_EQ(outline("a,b\n\"x,y\",\"say \"\"hi\"\"\"\n"), (Strings{"2: x,y say \"hi\""}));
  EXPECT_EQ(outline("a,b\n\"line\r\nline\",2\n3,4\n"), (Strings{"2: line\r\nline 2", "4: 3 4"}));
  EXPECT_EQ(outline("a,b\n1,\"2\""), (Strings{"2: 1 2"}));
  EXPECT_EQ(outline("a,b\n1,\"2\"\r"), (Strings{"2: 1 2"}));
  EXPECT_EQ(outline("a,b\n\"\"\"\",\"\"\"\"\"\"\n"), (Strings{"2: \" \"\""}));
}

TEST(Csv, AQuoteInsideAFieldIsAnOrdinaryCharacter) {
  EXPECT_EQ(outline("a,b\n5\" disk, \"x\"\n1,2\n"), (Strings{"2: 5\" disk  \"x\"", "3: 1 2"}));
}

TEST(Csv, NullIsTheUnquotedEmptyString) {
  EXPECT_EQ(outline("a,b\n,\"\"\nNULL,x\n"), (Strings{"2: null ", "3: NULL x"}));
  auto rows = read("a,b\n,\"\"\n", with_paths({"a", "b"}));
  EXPECT_EQ(rows[0].fields, (Strings{"null:", "string:"}));
}

TEST(Csv, NullStringOnlyWithoutQuotes) {
  Options options = with_paths({"a", "b"});
  options.null_string = "\\N";
  auto rows = read("a,b\n\\N,\"\\N\"\n,x\n", options);
  EXPECT_EQ(rows[0].fields, (Strings{"null:", "string:\\N"}));
  EXPECT_EQ(rows[1].fields, (Strings{"string:", "string:x"}));
}

TEST(Csv, Dialects) {
  Options options = with_paths({"a", "b"});
  options.delimiter = '\t';
  EXPECT_EQ(outline("a\tb\n1,5\t\"2\t\"\n", options), (Strings{"2: 1,5 2\t"}));
  options.delimiter = ';';
  options.quote = '\'';
  EXPECT_EQ(outline("a;b\n'x;''y';\"z\"\n", options), (Strings{"2: x;'y \"z\""}));
  options.quote.reset();
  EXPECT_EQ(outline("a;b\n'x;'y\n\"x;\"\"\n", options), (Strings{"2: 'x 'y", "3: \"x \"\""}));
}

TEST(Csv, AnEscapeOtherThanTheQuote) {
  Options options = with_paths({"a", "b"});
  options.escape = '\\';
  EXPECT_EQ(outline(R"(a,b
"say \"hi\", \\ \n",x\y
)",
                    options),
            (Strings{R"(2: say "hi", \ \n x\y)"}));
  EXPECT_EQ(outline("a,b\n\"x\"\"y\",2\n", options), (Strings{"2: malformed_row 4+8"}));
  EXPECT_EQ(outline("a,b\n1,\"x\\", options), (Strings{"2: unterminated_quote 4+5"}));
  EXPECT_EQ(outline("a,b\n1,\"x\\\"\n1,2\n", options), (Strings{"2: unterminated_quote 4+6", "3: 1 2"}));
}

TEST(Csv, NamedColumns) {
  Options options = with_paths({"b"});
  options.columns = {"a", "b"};
  options.header = false;
  EXPECT_EQ(outline("\xEF\xBB\xBF"
                    "1,2\n3,4\n",
                    options),
            (Strings{"1: 2", "2: 4"}));
  EXPECT_EQ(outline("", options), Strings{});
  options.header = true;
  EXPECT_EQ(outline("x,y,z\n1,2\n3,4\n", options), (Strings{"2: 2", "3: 4"}));
  options.columns.clear();
  options.header = false;
  TextSource source("");
  EXPECT_THROW(open_csv(source, options), std::invalid_argument);
}

TEST(Csv, ColumnsAreReadOnDemand) {
  TextSource source("\na,\"b \"\"c\"\"\"\n1,2\n", 1);
  auto reader = open_csv(source, with_paths({"a"}));
  const Reader& constant = *reader;
  EXPECT_EQ(*constant.columns(), (Strings{"a", "b \"c\""}));
  EXPECT_EQ(reader->checkpoint().line, 3u);
  Arena arena;
  Record record;
  ASSERT_TRUE(reader->next(arena, record));
  EXPECT_EQ(record.fields[0].text, "1");
}

TEST(Csv, PathsThatNameNoColumn) {
  auto rows = read("a,b\n1,2\n", with_paths({"c", "a.b", "a[0]", "[0]", "a", "$item"}));
  EXPECT_EQ(rows[0].fields, (Strings{"missing:", "missing:", "missing:", "missing:", "string:1",
                                     R"(json:{"a":"1","b":"2"})"}));
}

TEST(Csv, TheWholeItem) {
  Options options = with_paths({});
  options.want_item = true;
  auto rows = read("\"a\"\"1\",ü,c\n\"x\ty\\\",,\"\"\n", options);
  EXPECT_EQ(rows[0].item, R"({"a\"1":"x\u0009y\\","ü":null,"c":""})");
}

TEST(Csv, BlankLinesAreNoItems) {
  EXPECT_EQ(outline("\n\r\na,b\n\n1,2\n\r\n\n3,4\n\n"), (Strings{"5: 1 2", "8: 3 4"}));
  EXPECT_EQ(outline("a\n \n\"\"\n\n", with_paths({"a"})), (Strings{"2:  ", "3: "}));
}

TEST(Csv, RaggedRows) {
  auto rows = read("a,b\n1\n1,2,3\n,\n1,2,\n\"x\ny\"\n1,2\n", with_paths({"a"}));
  ASSERT_EQ(rows.size(), 6u);
  EXPECT_EQ(rows[0].rule, "ragged_row");
  EXPECT_EQ(rows[0].sqlstate, "22P04");
  EXPECT_EQ(rows[0].detail, "The row has 1 fields, expected 2.");
  EXPECT_EQ(rows[1].detail, "The row has 3 fields, expected 2.");
  EXPECT_EQ(rows[2].rule, "");
  EXPECT_EQ(rows[3].rule, "ragged_row");
  EXPECT_EQ(rows[4].rule, "ragged_row");
  EXPECT_EQ(rows[4].raw, "\"x\ny\"");
  EXPECT_EQ(rows[5].line, 8u);
}

TEST(Csv, TextAfterAClosingQuote) {
  auto rows = read("a,b\n\"1\"x,2\n3,4\n1,\"2\" \n5,6\n\"7\"\r,8\n", with_paths({"a"}));
  ASSERT_EQ(rows.size(), 5u);
  EXPECT_EQ(rows[0].rule, "malformed_row");
  EXPECT_EQ(rows[0].sqlstate, "22P04");
  EXPECT_EQ(rows[0].raw, "\"1\"x,2");
  EXPECT_EQ(rows[1].raw, "3,4");
  EXPECT_EQ(rows[2].rule, "malformed_row");
  EXPECT_EQ(rows[3].raw, "5,6");
  EXPECT_EQ(rows[4].rule, "malformed_row");
}

TEST(Csv, FaultsOfTheHeaderRejectThePart) {
  EXPECT_EQ(outline(""), (Strings{"1: empty_payload 0+0"}));
  EXPECT_EQ(outline("\n\n"), (Strings{"3: empty_payload 2+0"}));
  EXPECT_EQ(outline("a,b,a\n1,2,3\n"), (Strings{"1: duplicate_header 0+12"}));
  EXPECT_EQ(outline("a,,\n1,2,3\n"), (Strings{"1: duplicate_header 0+10"}));
  EXPECT_EQ(outline("a,\"b\n1,2\n"), (Strings{"1: unterminated_quote 0+9"}));
  EXPECT_EQ(outline("a,\"b\"c\n1,2\n"), (Strings{"1: malformed_row 0+11"}));
  EXPECT_EQ(outline("a,\xff\n1,2\n"), (Strings{"1: invalid_encoding 0+8"}));
  auto rows = read("a,b,a\n1,2,3\n", with_paths({"a"}));
  EXPECT_EQ(rows[0].detail, "Columns 1 and 3 have the same name.");
  TextSource source("a,a\n");
  EXPECT_TRUE(open_csv(source, {})->columns()->empty());
}

TEST(Csv, AHeaderOfTooManyColumns) {
  auto rows = read_text(open_csv, std::string(70000, ','), {});
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].rule, "item_too_large");
}

TEST(Csv, AHeaderOfAnyBytesSurvivesACheckpoint) {
  Options options = with_paths({"a,b", "%41", "ü", "c\nd"});
  EXPECT_EQ(outline("\"a,b\",%41,ü,\"c\nd\",\"\"\n1,2,3,4,5\n6,7,8,9,0\n", options),
            (Strings{"3: 1 2 3 4", "4: 6 7 8 9"}));
}

TEST(Csv, InvalidEncodingIsAMatterOfTheRow) {
  auto rows = read("a,b\n1,x\xff\n3,4\n", with_paths({"b"}));
  EXPECT_EQ(rows[0].rule, "invalid_encoding");
  EXPECT_EQ(rows[0].sqlstate, "22021");
  EXPECT_EQ(rows[0].detail, "Byte 3 of the row is 0xff.");
  EXPECT_EQ(rows[1].rule, "");
  Options latin = with_paths({"b"});
  latin.utf8 = false;
  EXPECT_EQ(outline("a,b\n1,x\xe4\n", latin), (Strings{"2: x\xe4"}));
}

TEST(Csv, AQuoteThatNeverClosesCostsOneRow) {
  std::string text = "a,b\n1,one\n2,\"two\n";
  for (int i = 3; i < 60; ++i) text += std::to_string(i) + ",x\n";
  auto rows = read(text, with_paths({"a"}));
  ASSERT_EQ(rows.size(), 59u);
  EXPECT_EQ(rows[1].rule, "unterminated_quote");
  EXPECT_EQ(rows[1].sqlstate, "22P04");
  EXPECT_EQ(rows[1].raw, "2,\"two");
  EXPECT_EQ(rows[2].fields, (Strings{"string:3"}));
  EXPECT_EQ(rows[2].line, 4u);
  EXPECT_EQ(rows.back().line, 60u);
}

TEST(Csv, AQuoteClosedByALaterRowCostsOneRow) {
  EXPECT_EQ(outline("a,b\n1,\"one\n2,two\n3,\"three\"\n4,four\n"),
            (Strings{"2: unterminated_quote 4+6", "3: 2 two", "4: 3 three", "5: 4 four"}));
  EXPECT_EQ(outline("a,b\n\"1\",\"one\n\"2\",\"two\"\n\"3\",\"three\"\n"),
            (Strings{"2: unterminated_quote 4+8", "3: 2 two", "4: 3 three"}));
}

TEST(Csv, LinesThatDoNotFitBelongToTheReject) {
  EXPECT_EQ(outline("a,b\r\n1,\"one\r\nrest of it\r\n\r\n2,two,too many\r\n3,three\r\n"),
            (Strings{"2: unterminated_quote 5+36", "6: 3 three"}));
  EXPECT_EQ(outline("a,b\n1,\"one\nrest\n"), (Strings{"2: unterminated_quote 4+11"}));
  EXPECT_EQ(outline("a,b\n1,\"one"), (Strings{"2: unterminated_quote 4+6"}));
  // The quote of the second line closes that of the first, and the third is where rows fit again.
  EXPECT_EQ(outline("a,b\n1,\"one\n2,\"two\n3,three\n"),
            (Strings{"2: unterminated_quote 4+13", "4: 3 three"}));
}

TEST(Csv, AQuotedFieldHasAtMostAThousandLines) {
  for (int lines : {1000, 1001}) {
    std::string text = "a,b\n1,\"";
    for (int i = 0; i < lines; ++i) text += "x\n";
    text += "\"\n2,y\n";
    for (size_t chunk : {size_t{1}, size_t{100}, SIZE_MAX}) {
      auto rows = read_text(open_csv, text, with_paths({"a"}), chunk);
      ASSERT_EQ(rows.size(), 2u);
      EXPECT_EQ(rows[0].rule, lines == 1000 ? "" : "unterminated_quote");
      EXPECT_EQ(rows[1].raw, "2,y");
      EXPECT_EQ(rows[1].line, size_t(lines) + 3);
    }
  }
}

TEST(Csv, OneBadQuoteAmongManyRows) {
  std::string text = "a,b\n";
  for (int i = 0; i < 300000; ++i) text += std::to_string(i) + (i == 1000 ? ",\"x\n" : ",x\n");
  TextSource source(text);
  auto reader = open_csv(source, with_paths({"a"}));
  Arena arena;
  Record record;
  size_t good = 0;
  size_t bad = 0;
  while (reader->next(arena, record)) {
    ++(record.fault ? bad : good);
    arena.reset();
  }
  EXPECT_EQ(good, 299999u);
  EXPECT_EQ(bad, 1u);
}

TEST(Csv, RowsTooLarge) {
  Options options = with_paths({"a", "b"});
  options.max_item_bytes = 10;
  EXPECT_EQ(
      outline("a,b\n1,45678901\r\n1,456789012\r\n2,x\n\"123456\",1\n\"1234567\",1\n\"12345678901\",1\n3,z\n",
              options),
      (Strings{"2: 1 45678901", "3: item_too_large 16+11", "4: 2 x", "5: 123456 1", "6: item_too_large 44+11",
               "7: unterminated_quote 56+15", "8: 3 z"}));
  EXPECT_EQ(outline("a,b\n1,2345678901234567890", options), (Strings{"2: item_too_large 4+21"}));
  EXPECT_EQ(outline("a,bcdefghijkl\n1,2\n", options), (Strings{"1: item_too_large 0+18"}));
}

TEST(Csv, EveryByteReplacedKeepsTheProperties) {
  std::string text = "a,b\r\n1,\"x\"\"y\"\n\"2\n\",\n3,z";
  for (size_t i = 0; i < text.size(); ++i) {
    for (char c : {'"', ',', '\n', '\r', 'x', '\0', '\xff', '\\'}) {
      std::string changed = text;
      changed[i] = c;
      Options options = with_paths({"a", "b"});
      EXPECT_EQ(property_violation(open_csv, changed, options), "") << changed;
      options.escape = '\\';
      EXPECT_EQ(property_violation(open_csv, changed, options), "") << changed;
    }
  }
}

}  // namespace
}  // namespace portage::formats::testing
