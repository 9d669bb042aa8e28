// What the checks share: how a result looks, how findings are named, and the scene that they look at.
#pragma once

#include "ledger/mapping_packs.hpp"
#include "ledger/runs.hpp"
#include "load/writer.hpp"

namespace portage::verify {

/// How deep a verification looks: into the ledger alone; into the target and by the definition's checks, too;
/// and into the source, which is read once more.
enum class Depth { counts, hashes, source };
Depth parse_depth(const std::string& word);  ///< 22023 for other words

/// The result of one check, as it is recorded.
struct Check {
  std::string name, severity = "error";
  std::optional<std::string> expected, actual;
  bool passed = true;
  std::string details = "{}";  ///< a JSON object
};

/// What a check found: all are counted, the first few named.
class Findings {
 public:
  void add(std::string text) {
    if (count_++ < 10) texts_.push_back(std::move(text));
  }
  void count(int64_t more) { count_ += more; }  ///< of which no more is said
  int64_t size() const { return count_; }
  bool empty() const { return count_ == 0; }
  std::string list() const;  ///< a JSON array
  /// A check that wants no findings.
  Check none(const std::string& name, const std::string& severity = "error") const;

 private:
  int64_t count_ = 0;
  std::vector<std::string> texts_;
};

/// What is looked at. `page_end` is to be called between pages, without anything open: it may commit, and
/// raises when the run is not what it was.
struct Scene {
  const ledger::Run& run;
  Oid role;
  Depth depth;
  Plan& plan;
  load::Writer& writer;
  const std::vector<int>& hashed;  ///< attnums that row_hash covers
  const ledger::MappingSpace& space;
  std::function<void()> page_end;
};

// In the order of their files. Each reads the ledger as its owner and everything else as the run's role.
std::vector<Check> check_batches(const Scene&);  ///< balance, item_count
std::vector<Check> check_items(const Scene&);    ///< mapping, undo; with hashes also row_hash, relationships
std::vector<Check> check_duplicates(
    const Scene&);  ///< duplicate_key, duplicate_content, with hashes duplicate_match
Check check_payload(const Scene&);
Check check_source(const Scene&);
std::vector<Check> check_definition(const Scene&);  ///< the definition's own

/// How a page of the ledger is read: by its keys and in their order, whatever the planner believes of the
/// tables. A page is read in milliseconds; compiling its statement, which a wrong guess at its size would
/// lead to, takes longer.
class ByPage {
 public:
  ByPage() { settings_.set("enable_bitmapscan", "off").set("enable_sort", "off").set("jit", "off"); }

 private:
  bridge::ByIndex by_index_;
  bridge::Settings settings_;
};

/// Calls `visit` with all mappings of the scene's space, page by page.
template <class F>
void walk_mappings(const Scene& scene, F&& visit) {
  ledger::MappingWalk walk;
  for (;;) {
    std::vector<ledger::WalkedMapping> page = ledger::next_mappings(scene.space, walk);
    if (page.empty()) return;
    visit(page);
    scene.page_end();
  }
}

/// Findings quote keys, legacy ids and values only where that may be: checks are read by more people than
/// rows are.
using bridge::quotable;
/// "item 7"
std::string item_name(int64_t ordinal);

}  // namespace portage::verify
