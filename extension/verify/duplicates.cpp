// duplicate_key, duplicate_content and duplicate_match: two legacy ids with one row, two with the same
// content, two rows of the target with one match key. Mappings are read in pages: a Bloom filter of bounded
// size finds what may be there twice, a second walk, only where there is such, says what is.
#include "bridge/subxact.hpp"
#include "ledger/as_ledger.hpp"
#include "load/key_lookup.hpp"
#include "pipeline/checks.hpp"
#include "verify/check.hpp"

extern "C" {
#include "common/hashfn.h"
#include "lib/bloomfilter.h"
}

namespace portage::verify {
namespace {

using bridge::guarded;
using bridge::param;
using bridge::Result;

/// Hashes that have been seen more than once, with a few that have not.
class Repeats {
 public:
  explicit Repeats(int64_t expected)
      : memory_("portage repeats", PortalContext ? PortalContext : CurrentMemoryContext) {
    bridge::InMemory in(memory_.get());
    // Two bytes per element make a wrong "maybe" rarer than one in a thousand.
    int64_t elements = std::clamp<int64_t>(expected, 100000, 64000000) * 2;
    filter_ = guarded([=] { return bloom_create(elements, 64 * 1024, 0); });
  }
  void add(int64_t hash) {
    bloom_filter* filter = filter_;
    auto* bytes = reinterpret_cast<unsigned char*>(&hash);
    bool fresh = guarded([=] {
      bool lacks = bloom_lacks_element(filter, bytes, sizeof(int64_t));
      if (lacks) bloom_add_element(filter, bytes, sizeof(int64_t));
      return lacks;
    });
    if (!fresh && repeated_.size() < most) repeated_.insert(hash);
  }
  bool has(int64_t hash) const { return repeated_.count(hash) > 0; }
  bool empty() const { return repeated_.empty(); }

 private:
  static constexpr size_t most = 100000;
  bridge::Memory memory_;
  bloom_filter* filter_;
  std::unordered_set<int64_t> repeated_;
};

/// Mappings that have something in common.
struct Group {
  int64_t size = 0;
  bool of_run = false, inserted_twice = false;
  std::set<int64_t> inserted_by;  // runs
  std::string legacy_ids;

  void add(const std::string& legacy_id, int64_t run_id, bool inserted, int64_t ours) {
    if (size++ < 10) (legacy_ids += size > 1 ? ", " : "") += quotable(legacy_id);
    of_run = of_run || run_id == ours;
    if (inserted && !inserted_by.insert(run_id).second) inserted_twice = true;
  }
};

class MappingWalk {
 public:
  explicit MappingWalk(const Scene& scene)
      : scene_(scene), expected_(mappings()), by_key_(expected_), by_content_(expected_) {}

  std::vector<Check> work() {
    walk([&](const ledger::WalkedMapping& m) {
      by_key_.add(hash_of(m.target_key));
      by_content_.add(m.source_hash);
    });
    if (!by_key_.empty() || !by_content_.empty())
      walk([&](const ledger::WalkedMapping& m) {
        bool inserted = m.origin == 'i';
        if (by_key_.has(hash_of(m.target_key)))
          keys_[m.target_key].add(m.legacy_id, m.run_id, inserted, scene_.run.id);
        if (by_content_.has(m.source_hash))
          contents_[m.source_hash].add(m.legacy_id, m.run_id, inserted, scene_.run.id);
      });
    Findings keys, contents;
    bool twice = false;
    for (const auto& [key, group] : keys_) {
      if (group.size < 2 || !group.of_run) continue;
      keys.add("key " + quotable(key) + ": legacy ids " + group.legacy_ids);
      twice = twice || group.inserted_twice;
    }
    for (const auto& [hash, group] : contents_)
      if (group.size > 1 && group.of_run) contents.add("legacy ids " + group.legacy_ids);
    // Several ids share a row where an item met, or overwrote, the row of another: that is told. One run
    // cannot have inserted it twice.
    return {keys.none("duplicate_key", keys.empty() || twice ? "error" : "warning"),
            contents.none("duplicate_content", "warning")};
  }

 private:
  static int64_t hash_of(const std::string& text) {
    return static_cast<int64_t>(hash_bytes_extended(reinterpret_cast<const unsigned char*>(text.data()),
                                                    static_cast<int>(text.size()), 0));
  }

  int64_t mappings() const {
    ledger::AsLedger as;
    Result rows = bridge::execute(
        "SELECT coalesce(sum(coalesce(m.read, (SELECT sum(b.read) FROM portage.migration_batches b WHERE "
        "b.run_id = "
        "m.id))), 0)::bigint FROM portage.migration_runs m WHERE m.pipeline_id = $1",
        {param(scene_.space.pipeline_id)});
    return rows.bigint(0, 1);
  }

  template <class F>
  void walk(F&& visit) {
    walk_mappings(scene_, [&](const std::vector<ledger::WalkedMapping>& page) {
      for (const ledger::WalkedMapping& mapping : page) visit(mapping);
    });
  }

  const Scene& scene_;
  int64_t expected_;
  Repeats by_key_, by_content_;
  std::map<std::string, Group> keys_;
  std::map<int64_t, Group> contents_;
};

/// Rows that an item would find together. One query over the whole table: without a unique index on the match
/// columns, every batch of an import has read it so.
std::optional<Check> duplicate_match(const Scene& scene) {
  const Target& target = scene.plan.target();
  if (scene.plan.match().empty() || load::are_unique(target, scene.plan.match())) return std::nullopt;
  std::string columns, not_null;
  for (int attnum : scene.plan.match()) {
    std::string name = "t." + bridge::quoted(target.column(attnum).name);
    (columns += columns.empty() ? "" : ", ") += name;
    (not_null += not_null.empty() ? "" : " AND ") += name + " IS NOT NULL";
  }
  Findings findings;
  bridge::AsUser as(scene.role);
  std::optional<bridge::Error> error = bridge::attempt([&] {
    bridge::PlainText plain;
    Result rows = bridge::execute("SELECT pg_catalog.count(*), " + columns + " FROM " + target.quoted_name() +
                                      " t WHERE " + not_null + " GROUP BY " + columns +
                                      " HAVING pg_catalog.count(*) > 1 ORDER BY 2 LIMIT 1000",
                                  {}, true);
    for (size_t i = 0; i < rows.size(); i++) {
      std::string values;
      for (size_t c = 0; c < scene.plan.match().size(); c++)
        (values += c ? ", " : "") += rows.text(i, static_cast<int>(c) + 2);
      findings.add("(" + quotable(values) + "): " + rows.text(i, 1) + " rows");
    }
  });
  if (error && ends_verification(error->code())) throw *error;
  if (error) findings.add("cannot be looked for: " + error->message());
  return findings.none("duplicate_match", "warning");
}

}  // namespace

std::vector<Check> check_duplicates(const Scene& scene) {
  std::vector<Check> checks = MappingWalk(scene).work();
  if (scene.depth == Depth::counts) return checks;
  if (std::optional<Check> match = duplicate_match(scene)) checks.push_back(*match);
  scene.page_end();
  return checks;
}

}  // namespace portage::verify
