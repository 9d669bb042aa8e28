// mapping, undo, row_hash and relationships: one walk over the items of a run that have landed, a page at a
// time. Each has its mapping (its own, or one that a later ledger entry explains), its before-image where it
// changed a row, and a row in the target that is as recorded, or that somebody has changed since.
#include "verify/items.hpp"

#include "bridge/subxact.hpp"
#include "ledger/as_ledger.hpp"
#include "ledger/retention.hpp"
#include "load/run_hashes.hpp"
#include "run/options.hpp"

namespace portage::verify {
namespace {

using bridge::param;
using bridge::Result;
using ledger::LandedItem;

constexpr int64_t page = 2000;
constexpr size_t lost_page = 50000;

/// True where the incoming values are what is stored: nothing of the target's own, no merging, comes between.
bool stores_what_comes(const Scene& scene) {
  OnConflict policy =
      run::parse_options(scene.run.options).on_conflict.value_or(scene.plan.definition().on_conflict);
  return policy != OnConflict::merge && policy != OnConflict::ask;
}

bool nothing_interferes(const Target& target) {
  return target.ordinary() && !target.has_rules && !target.has_children &&
         target.triggers == TargetTriggers{};
}

class ItemWalk {
 public:
  explicit ItemWalk(const Scene& scene)
      : scene_(scene),
        images_(scene),
        parents_(scene),
        plain_(stores_what_comes(scene)),
        untouched_(nothing_interferes(scene.plan.target())) {
    std::vector<std::string> names;
    for (int attnum : scene.hashed) names.push_back(scene.plan.target().column(attnum).name);
    hashes_ = std::make_unique<load::RunHashes>(scene.plan, 0, names);
    for (const std::string& name : hashes_->gone(scene.run.id)) columns_gone_.add(name);
  }

  std::vector<Check> work() {
    Batch batch;
    int64_t below = INT64_MAX;
    for (;;) {
      batch.reset();
      {
        bridge::InMemory in(batch.memory.get());
        std::vector<LandedItem> items =
            ledger::landed_items(scene_.run.id, scene_.space, below, page, batch.arena);
        if (items.empty()) break;
        below = items.back().ordinal;
        look_at_ledger(items);
        if (scene_.depth != Depth::counts) look_at_rows(batch, items);
      }
      scene_.page_end();
    }
    settle_lost();
    name_mappings_without_item();
    std::vector<Check> checks{mapping_.none("mapping"), undo_.none("undo")};
    if (scene_.depth == Depth::counts) return checks;
    checks.push_back(row_check());
    checks.push_back(parents_.result());
    // Who deletes a row that was migrated may mean it.
    checks.push_back({"unchanged_rows", "warning", std::to_string(unchanged_),
                      std::to_string(unchanged_ - unchanged_gone_.size()), unchanged_gone_.empty(),
                      "{\"gone\": " + unchanged_gone_.list() + "}"});
    return checks;
  }

 private:
  bool is_ours(const LandedItem& item) const {
    return item.mapping.found && item.mapping.run_id == scene_.run.id && item.mapping.ordinal == item.ordinal;
  }

  // the ledger

  void look_at_ledger(const std::vector<LandedItem>& items) {
    std::vector<const LandedItem*> foreign;
    for (const LandedItem& item : items) {
      if (is_ours(item)) {
        ours_++;
        look_at_own_mapping(item);
      } else if (item.outcome == Outcome::unchanged) {
        if (!item.mapping.found && item.legacy_id.data() != nullptr)
          lost_.push_back(
              {item_name(item.ordinal) + ": unchanged, but no mapping", std::string(item.legacy_id), ""});
        else if (!item.mapping.found)
          mapping_.add(item_name(item.ordinal) + ": no legacy id");
      } else {
        foreign.push_back(&item);
      }
      look_at_undo(item);
    }
    if (!foreign.empty()) look_for_reasons(foreign);
    if (lost_.size() >= lost_page) settle_lost();
  }

  void look_at_own_mapping(const LandedItem& item) {
    const ledger::Mapping& mapping = item.mapping;
    if (mapping.target_key != item.target_key)
      mapping_.add(item_name(item.ordinal) + ": mapping says key " + quotable(mapping.target_key) +
                   ", item says " + quotable(item.target_key));
    bool fits = item.outcome == Outcome::inserted  ? mapping.origin == 'i'
                : item.outcome == Outcome::updated ? mapping.origin != 'a'
                                                   : true;
    if (!fits)
      mapping_.add(item_name(item.ordinal) + ": its mapping's origin does not fit an item that was " +
                   (item.outcome == Outcome::inserted ? "inserted" : "updated"));
  }

  void look_at_undo(const LandedItem& item) {
    if (cleaned_up_) return;  // before-images went with it
    std::string name = item_name(item.ordinal);
    bool image = item.before_hash.has_value();
    if (item.outcome == Outcome::updated) {
      // Without the hash of the whole row: what an earlier run had found was handed on when that was taken
      // back.
      if (!item.has_undo || (!image && item.columns.empty()) || item.columns.size() != item.before.size())
        undo_.add(name + ": updated key " + quotable(item.target_key) + ", no before-image");
      else if (image && item.columns.empty() && is_ours(item) && *item.before_hash != item.mapping.row_hash)
        undo_.add(name + ": updated key " + quotable(item.target_key) + ", an empty before-image");
    } else if (item.has_undo && (image || !item.columns.empty() || !item.before.empty())) {
      undo_.add(name + ": has a before-image, but changed no row");
    } else if (item.outcome == Outcome::unchanged && is_ours(item) && item.mapping.origin != 'a' &&
               !item.has_undo) {
      undo_.add(name + ": the mapping that it replaced is not kept");
    }
  }

  /// Items whose mapping is not theirs any more, or gone. A reason is that a later item took the mapping over
  /// (its undo, or that of one in between, says so), or that an earlier run was taken back by force.
  void look_for_reasons(const std::vector<const LandedItem*>& items) {
    std::vector<int64_t> ordinals, runs, places;
    std::vector<std::string> keys;
    for (const LandedItem* item : items) {
      ordinals.push_back(item->ordinal);
      runs.push_back(item->mapping.found ? item->mapping.run_id : 0);
      places.push_back(item->mapping.found ? item->mapping.ordinal : 0);
      keys.emplace_back(item->target_key);
    }
    ledger::AsLedger as;
    ByPage by_page;
    // UNION, not UNION ALL: what is damaged may lead in a circle.
    static const bridge::Statement reasons(
        "WITH RECURSIVE up AS (SELECT c.item, c.key, c.run_id, c.ordinal, false AS reached FROM "
        "unnest($2::bigint[], "
        "$3::bigint[], $4::bigint[], $5::text[]) AS c (item, run_id, ordinal, key) "
        "UNION SELECT up.item, up.key, u.mapping_run_id, u.mapping_ordinal, u.mapping_run_id = $1 AND "
        "u.mapping_ordinal "
        "= up.item AND u.mapping_target_key = up.key COLLATE \"C\" FROM up CROSS JOIN LATERAL (SELECT * FROM "
        "portage.migration_undo u WHERE u.run_id = up.run_id AND u.ordinal = up.ordinal AND u.mapping_run_id "
        "IS NOT NULL "
        "OFFSET 0) u WHERE NOT up.reached), "
        "missing AS (SELECT c.item FROM unnest($2::bigint[]) AS c (item) EXCEPT SELECT up.item FROM up WHERE "
        "up.reached), "
        "down AS (SELECT m.item, $1::bigint AS run_id, m.item AS ordinal FROM missing m "
        "UNION SELECT d.item, u.mapping_run_id, u.mapping_ordinal FROM down d CROSS JOIN LATERAL (SELECT * "
        "FROM "
        "portage.migration_undo u WHERE u.run_id = d.run_id AND u.ordinal = d.ordinal AND u.mapping_run_id "
        "IS NOT NULL "
        "OFFSET 0) u) "
        "SELECT m.item FROM missing m WHERE m.item NOT IN (SELECT d.item FROM down d CROSS JOIN LATERAL "
        "(SELECT FROM "
        "portage.item_rows r WHERE r.run_id = d.run_id AND r.ordinal = d.ordinal AND r.status = "
        "'rolled_back' OFFSET 0) r "
        "WHERE d.run_id <> $1)");
    Result rows =
        reasons({param(scene_.run.id), bridge::param_int8_array(ordinals), bridge::param_int8_array(runs),
                 bridge::param_int8_array(places), bridge::param_text_array(keys)});
    std::set<int64_t> without;
    for (size_t i = 0; i < rows.size(); i++) without.insert(rows.bigint(i, 1));
    for (const LandedItem* item : items) {
      if (!without.count(item->ordinal)) continue;
      std::string name = item_name(item->ordinal);
      name += !item->mapping.found
                  ? ": no mapping"
                  : ": its mapping says " + item_name(item->mapping.ordinal) + " of run " +
                        std::to_string(item->mapping.run_id) + ", which did not take it over";
      lost_.push_back({std::move(name), std::string(item->legacy_id), std::string(item->target_key)});
    }
  }

  /// Items without a mapping that would be theirs, or lead to them: a run that was taken back has taken it
  /// along; where it was a row that the item wrote after it, by force, and then it was the same row. (What
  /// such a run had found has been handed on, so that the chain of mappings does not lead to it any more.)
  void settle_lost() {
    if (lost_.empty()) return;
    std::vector<std::string> ids;
    for (const Lost& one : lost_) ids.push_back(one.legacy_id);
    std::set<std::pair<std::string, std::string>> taken_back;
    std::set<std::string> deleted;
    {
      ledger::AsLedger as;
      bridge::Memory memory("portage lost items");
      bridge::InMemory in(memory.get());
      Result rows = bridge::execute(
          "SELECT DISTINCT i.legacy_id, i.target_key FROM portage.item_rows i WHERE i.status = 'rolled_back' "
          "AND i.legacy_id = ANY ($1 COLLATE \"C\") AND i.run_id IN (SELECT r.id FROM portage.migration_runs "
          "r WHERE r.pipeline_id = $2) AND i.run_id <> $3 UNION SELECT m.legacy_id, NULL FROM "
          // a later run has deleted the row, since its source did not have the item any more
          "portage.missing_rows m WHERE m.pipeline_id = $2 AND m.scope = $4 AND m.legacy_id = ANY ($1 "
          "COLLATE "
          "\"C\") AND m.status IN ('deleted', 'taken_back') AND m.run_id > $3",
          {bridge::param_text_array(ids), param(scene_.space.pipeline_id), param(scene_.run.id),
           param(scene_.space.scope)});
      for (size_t i = 0; i < rows.size(); i++) {
        if (rows.is_null(i, 2)) deleted.insert(rows.text(i, 1));
        taken_back.emplace(rows.text(i, 1), rows.text(i, 2));
        taken_back.emplace(rows.text(i, 1), "");
      }
    }
    for (Lost& one : lost_)
      if (!taken_back.count({one.legacy_id, one.target_key}) && !deleted.count(one.legacy_id))
        mapping_.add(std::move(one.finding));
    lost_.clear();
    scene_.page_end();
  }

  /// The other way round. One by one only where the run has more mappings than items that have theirs.
  void name_mappings_without_item() {
    int64_t count = 0;
    walk_mappings(scene_, [&](const std::vector<ledger::WalkedMapping>& page) {
      for (const ledger::WalkedMapping& mapping : page) count += mapping.run_id == scene_.run.id;
    });
    if (count == ours_) return;
    walk_mappings(scene_, [&](const std::vector<ledger::WalkedMapping>& page) {
      std::vector<std::string> ids;
      std::vector<int64_t> ordinals;
      for (const ledger::WalkedMapping& mapping : page) {
        if (mapping.run_id != scene_.run.id) continue;
        ids.push_back(mapping.legacy_id);
        ordinals.push_back(mapping.ordinal);
      }
      if (ids.empty()) return;
      bridge::Memory memory("portage mappings");
      bridge::InMemory in(memory.get());
      ledger::AsLedger as;
      ByPage by_page;
      static const bridge::Statement select(
          "SELECT u.legacy_id FROM unnest($2::text[], $3::bigint[]) AS u (legacy_id, ordinal) WHERE NOT "
          "EXISTS (SELECT FROM portage.all_items i WHERE i.run_id = $1 AND i.ordinal = u.ordinal AND "
          "i.legacy_id = u.legacy_id COLLATE \"C\" AND i.status IN ('inserted', 'updated', 'unchanged') AND "
          "NOT EXISTS (SELECT FROM portage.item_rows l WHERE l.run_id = i.run_id AND l.ordinal = i.ordinal "
          "AND l.revision > i.revision OFFSET 0) OFFSET 0)");
      Result rows =
          select({param(scene_.run.id), bridge::param_text_array(ids), bridge::param_int8_array(ordinals)});
      for (size_t i = 0; i < rows.size(); i++)
        mapping_.add("mapping of " + quotable(rows.text(i, 1)) + ": no item");
    });
  }

  // the target

  void look_at_rows(Batch& batch, const std::vector<LandedItem>& items) {
    std::vector<std::string_view> keys, unchanged_keys;
    std::vector<const LandedItem*> concerned, unchanged;
    for (const LandedItem& item : items) {
      if (!item.concerned && item.mapping.found) {
        unchanged.push_back(&item);
        unchanged_keys.push_back(item.mapping.target_key);
      }
      if (!item.concerned) continue;
      concerned.push_back(&item);
      keys.push_back(item.target_key);
    }
    bridge::AsUser as(scene_.role);
    std::vector<load::Row> rows = find_rows(batch, concerned, keys);
    std::vector<BeforeImage> images;
    for (size_t i = 0; i < concerned.size(); i++) {
      const LandedItem& item = *concerned[i];
      landed_++;
      if (!item.mapping.found || item.mapping.run_id != scene_.run.id) {
        later_run_++;
      } else if (!rows[i].found) {
        gone_.add(name_of(item));
      } else if (load::AsLeft as_left = hashes_->compare(item.mapping, rows[i]);
                 as_left != load::AsLeft::yes) {
        (as_left == load::AsLeft::no ? changed_ : unknown_).add(name_of(item));
      } else {
        as_recorded_++;
        bool comparable =
            plain_ && hashes_->same(scene_.run.id) && item.revision == 0 &&
            (item.outcome == Outcome::unchanged || (item.outcome == Outcome::inserted && untouched_));
        if (comparable && static_cast<int64_t>(scene_.plan.source_hash(rows[i].values, rows[i].nulls)) !=
                              item.mapping.source_hash)
          wrong_source_hash_.add(name_of(item));
        if (item.outcome == Outcome::updated && item.before_hash && !item.columns.empty() && is_ours(item))
          images.push_back({&item, &rows[i]});
      }
    }
    images_.look_at(batch, images, undo_);
    parents_.look_at(batch, rows);
    // An unchanged item is known by what it was; whether its row still stands was nobody's question yet.
    std::vector<load::Row> stand = find_rows(batch, unchanged, unchanged_keys);
    unchanged_ += static_cast<int64_t>(stand.size());
    for (size_t i = 0; i < stand.size(); i++)
      if (!stand[i].found) unchanged_gone_.add(name_of(*unchanged[i]));
  }

  /// A recorded key that is none of the target's is found one by one.
  std::vector<load::Row> find_rows(Batch& batch, const std::vector<const LandedItem*>& items,
                                   const std::vector<std::string_view>& keys) {
    std::vector<load::Row> rows;
    auto find = [&](const std::vector<std::string_view>& some) {
      std::optional<bridge::Error> error =
          bridge::attempt([&] { rows = scene_.writer.find_by_key(batch, some, false); });
      if (error && ERRCODE_TO_CATEGORY(error->code()) != ERRCODE_TO_CATEGORY(ERRCODE_DATA_EXCEPTION))
        throw *error;
      return error;
    };
    if (!find(keys)) return rows;
    std::vector<load::Row> all(keys.size());
    for (size_t i = 0; i < keys.size(); i++) {
      if (std::optional<bridge::Error> error = find({keys[i]}))
        wrong_keys_.add(name_of(*items[i]) + ": " + error->message());
      else
        all[i] = rows[0];
    }
    return all;
  }

  static std::string name_of(const LandedItem& item) {
    return item_name(item.ordinal) + ", key " + quotable(item.target_key);
  }

  Check row_check() const {
    auto number = [](int64_t n) { return std::to_string(n); };
    Check check{"row_hash",
                "error",
                number(landed_ - later_run_),
                number(as_recorded_),
                wrong_source_hash_.empty() && wrong_keys_.empty(),
                "{\"changed_since\": " + number(changed_.size()) + ", \"changed\": " + changed_.list() +
                    ", \"gone\": " + number(gone_.size()) + ", \"gone_rows\": " + gone_.list() +
                    ", \"later_run\": " + number(later_run_)};
    if (!wrong_source_hash_.empty()) check.details += ", \"wrong_source_hash\": " + wrong_source_hash_.list();
    if (!wrong_keys_.empty()) check.details += ", \"wrong_keys\": " + wrong_keys_.list();
    // A column that was dropped since was part of every hash: rows are judged by those that the run has
    // mapped.
    if (!columns_gone_.empty()) check.details += ", \"columns_gone\": " + columns_gone_.list();
    if (!unknown_.empty()) {
      check.details += ", \"unknown\": " + unknown_.list();
      if (check.passed) check.severity = "warning";
      check.passed = false;
    }
    check.details += "}";
    return check;
  }

  const Scene& scene_;
  BeforeImages images_;
  Parents parents_;
  bool plain_, untouched_;
  bool cleaned_up_ = ledger::cleaned_up(scene_.run.id);
  Findings mapping_, undo_, changed_, gone_, wrong_source_hash_, wrong_keys_, columns_gone_, unchanged_gone_,
      unknown_;
  std::unique_ptr<load::RunHashes> hashes_;
  int64_t ours_ = 0, landed_ = 0, as_recorded_ = 0, later_run_ = 0, unchanged_ = 0;
  struct Lost {
    std::string finding, legacy_id, target_key;  ///< no key: whatever row it was
  };
  std::vector<Lost> lost_;
};

}  // namespace

std::vector<Check> check_items(const Scene& scene) { return ItemWalk(scene).work(); }

}  // namespace portage::verify
