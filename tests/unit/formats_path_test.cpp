// Paths: what is read, how it is spelled back, and what is refused where.
#include <gtest/gtest.h>

#include "formats/path.hpp"

namespace portage::formats {
namespace {

std::string steps_of(std::string_view text) {
  auto result = parse_path(text);
  if (auto* error = std::get_if<PathError>(&result)) {
    return "error at " + std::to_string(error->position) + ": " + error->message;
  }
  std::string shown;
  for (const Step& step : std::get<Path>(result).steps) {
    shown += step.is_index ? "[" + std::to_string(step.index) + "]" : "<" + step.key + ">";
  }
  return shown;
}

TEST(Path, ReadsKeysAndIndexes) {
  EXPECT_EQ(steps_of("a"), "<a>");
  EXPECT_EQ(steps_of("a.b[0].c"), "<a><b>[0]<c>");
  EXPECT_EQ(steps_of("[3][4294967295]"), "[3][4294967295]");
  EXPECT_EQ(steps_of("639-3"), "<639-3>");
  EXPECT_EQ(steps_of("first name.größe"), "<first name><größe>");
  EXPECT_EQ(steps_of(R"("a.b".c)"), "<a.b><c>");
  EXPECT_EQ(steps_of(R"(x."say \"hi\" \\".y)"), R"(<x><say "hi" \><y>)");
  EXPECT_EQ(steps_of(R"("")"), "<>");
  EXPECT_EQ(steps_of(R"("$scope")"), "<$scope>");
  EXPECT_EQ(steps_of("a.$b"), "<a><$b>");
}

TEST(Path, TheWholeItemHasNoSteps) {
  EXPECT_TRUE(std::get<Path>(parse_path("$item")).steps.empty());
  EXPECT_EQ(to_text(Path{}), "$item");
}

TEST(Path, RefusesWithThePlaceOfTheFault) {
  EXPECT_EQ(steps_of(""), "error at 0: a path must not be empty");
  EXPECT_EQ(steps_of("."), "error at 0: expected a key");
  EXPECT_EQ(steps_of("a."), "error at 2: expected a key");
  EXPECT_EQ(steps_of("a..b"), "error at 2: expected a key");
  EXPECT_EQ(steps_of("a.[0]"), "error at 2: expected a key");
  EXPECT_EQ(steps_of("a]"), "error at 1: expected . or [ or the end of the path");
  EXPECT_EQ(steps_of("a[0]b"), "error at 4: expected . or [ or the end of the path");
  EXPECT_EQ(steps_of("a\"b\""), "error at 1: expected . or [ or the end of the path");
  EXPECT_EQ(steps_of("a[]"),
            "error at 2: expected an index from 0; a key in brackets is written as .\"key\"");
  EXPECT_EQ(steps_of("a[\"b\"]"),
            "error at 2: expected an index from 0; a key in brackets is written as .\"key\"");
  EXPECT_EQ(steps_of("a[-1]"),
            "error at 2: expected an index from 0; a key in brackets is written as .\"key\"");
  EXPECT_EQ(steps_of("a[1"), "error at 3: expected ]");
  EXPECT_EQ(steps_of("a[01]"), "error at 2: an index has no leading zeros");
  EXPECT_EQ(steps_of("a[4294967296]"), "error at 11: the index is too large");
  EXPECT_EQ(steps_of("a.\"b"), "error at 2: the quoted key is not closed");
  EXPECT_EQ(steps_of("\"a\\n\""), "error at 2: only \\\" and \\\\ are escapes in a quoted key");
  EXPECT_EQ(steps_of("\"a\\"), "error at 2: only \\\" and \\\\ are escapes in a quoted key");
  EXPECT_EQ(steps_of("$scope"), "error at 0: a key that begins with $ must be quoted");
  EXPECT_EQ(steps_of(std::string_view("a\0b", 3)), "error at 1: a path must not hold a NUL byte");
}

TEST(Path, SpellingIsReadBackToTheSameSteps) {
  for (const char* text : {"a.b[0].c", R"("a.b"."c\"d\\")", "[0]", R"("".x)", R"("$a".$b)", "$item", "a b"}) {
    Path path = std::get<Path>(parse_path(text));
    EXPECT_EQ(to_text(path), text);
    EXPECT_EQ(std::get<Path>(parse_path(to_text(path))).steps, path.steps);
  }
  EXPECT_EQ(to_text(std::get<Path>(parse_path(R"("a"."b")"))), "a.b");
}

TEST(Path, KeysOfAnArrayAreTakenLiterally) {
  Path path = path_of_keys({"a.b", "0", "$x", ""});
  EXPECT_EQ(path.text, R"("a.b".0.$x."")");
  EXPECT_EQ(std::get<Path>(parse_path(path.text)).steps, path.steps);
}

}  // namespace
}  // namespace portage::formats
