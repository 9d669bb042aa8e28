// What becomes of an item that meets a row: the part of the loader that knows the conflict policies. Policies
// that look at single fields compare three ways: what the source said, and what stood in the row, when the
// item was last migrated (image.hpp), with what they say now. See loader.hpp.
#include "load/loader.hpp"

#include "bridge/codes.hpp"
#include "bridge/discretion.hpp"

namespace portage::load {

using bridge::Error;
using bridge::format;
using bridge::guarded;
using ledger::Mapping;

namespace {

std::string listed(const Target& target, const std::vector<int>& attnums) {
  std::string names;
  for (int attnum : attnums) (names += names.empty() ? "" : ", ") += target.column(attnum).name;
  return names;
}

[[noreturn]] void refuse_outdated(int64_t run_id, const Item& item, const std::string& detail) {
  long long run = static_cast<long long>(run_id), ordinal = static_cast<long long>(item.ordinal);
  throw Error(codes::conflict_outdated,
              format("the conflict of item %lld of run %lld is not what it was", ordinal, run))
      .detail(detail)
      .hint(format("SELECT portage.replay(%lld, %lld); looks at the row again, then decide anew.", run,
                   ordinal));
}

}  // namespace

/// Decides for an item that is no duplicate and not known to be unchanged; `row` may be "not found".
/// `replaces`: the row is of an item before it in the same input, which it is to replace.
void Loader::meet(Batch& batch, Item& item, const Mapping& mapping, const Row& row, bool replaces) {
  const Resolution* decision = resolution_of(item);
  if (decision && (!row.found || decision->existing_hash !=
                                     static_cast<int64_t>(plan_.source_hash(row.values, row.nulls)))) {
    if (decision->strict)
      refuse_outdated(policy_.run_id, item,
                      row.found ? "The row with key " + bridge::quotable(row.key) + " has changed since."
                                : "The row is gone.");
    item.outcome = Outcome::conflicted;
    return;
  }
  if (!row.found) {
    Work& work = work_.emplace_back();
    work.item = &item;
    work.mapping = mapping;
    item.origin = 'i';
    return;
  }
  item.target_key = row.key;
  item.row_hash = row.row_hash;
  if (plan_.source_hash(row.values, row.nulls) == item.source_hash) {
    adopt(item, mapping, row);
    return;
  }
  bool newer = policy_.replay && ((mapping.found && mapping.run_id > policy_.run_id) ||
                                  newer_rows_.count(std::string(row.key)) > 0);
  AsLeft as_left = replaces                  ? AsLeft::yes
                   : mapping.found && !newer ? hashes_.compare(mapping, row)
                                             : AsLeft::no;
  bool ours = as_left == AsLeft::yes;
  if (by_fields() && !newer && !replaces) {
    meet_by_fields(batch, item, mapping, row, ours);
    return;
  }
  if (ours || (policy_.on_conflict == OnConflict::overwrite && !(newer && policy_.late))) {
    add_update(batch, item, mapping, row, replaces, nullptr);
    return;
  }
  if (policy_.on_conflict == OnConflict::newest && !newer) {
    auto* meeting = batch.arena.make_array<Meeting>(1);
    *meeting = {&item, row.values, row.nulls, nullptr, nullptr, nullptr, nullptr, nullptr, false, nullptr};
    add_update(batch, item, mapping, row, false, meeting);
    return;
  }
  auto message = [&](const std::string& key) {
    return format(
        newer ? "the row with key %s was migrated by a later run"
        : as_left == AsLeft::unknown
            ? "whether the row with key %s was changed since it was migrated cannot be told, since its "
              "columns are not what they were"
        : mapping.found ? "the row with key %s was changed since it was migrated"
                        : "a row with key %s exists with different content",
        key.c_str());
  };
  if (policy_.on_conflict == OnConflict::fail)
    throw Error(codes::conflict_failed, format("item %lld: ", static_cast<long long>(item.ordinal)) +
                                            message(bridge::quotable(row.key)))
        .detail("The pipeline, or the run, says \"on_conflict\": \"fail\".")
        .hint(
            "Nothing of this batch was written. Choose \"skip\" or \"overwrite\", or settle the row by "
            "hand.");
  keep_out(batch, item, message(std::string(row.key)));
}

/// Which of several rows is meant, nobody has said.
void Loader::refuse_several(Batch& batch, Item& item, const Row& row) {
  item.outcome = Outcome::invalid;
  item.origin = 0;
  item.target_key = {};
  batch.add_issue(item, "match", "21000", plan_.target().column(plan_.match()[0]).name,
                  "more than one row matches: keys " + std::string(row.candidates));
}

/// Identical content is no conflict: the row is adopted, or its mapping learns the new source hash.
void Loader::adopt(Item& item, const Mapping& mapping, const Row& row) {
  item.outcome = Outcome::unchanged;
  item.stored = row.values;
  item.stored_nulls = row.nulls;
  if (!mapping.found) {
    item.origin = 'a';
  } else if (mapping.source_hash != static_cast<int64_t>(item.source_hash)) {
    // where its own row is gone, the row met by match is another one
    item.origin = mapping.target_key == row.key ? mapping.origin : 'a';
    undo_.push_back({&item, row.key, 0, 0, std::nullopt, mapping});
  } else {
    item.origin = 0;
  }
}

bool Loader::lacks_update(Batch& batch, Item& item) const {
  if (policy_.may_update) return false;
  item.outcome = Outcome::skipped;
  batch.add_issue(item, "privilege", "42501", "",
                  "the row has changed in the source, but the run's role may not update the target",
                  "portage.plan(run) lists the missing GRANT.");
  return true;
}

void Loader::keep_out(Batch& batch, Item& item, const std::string& message) {
  item.outcome = Outcome::skipped;
  item.origin = 0;
  batch.add_issue(item, "conflict", "PZ012", "", message);
}

void Loader::add_update(Batch& batch, Item& item, const Mapping& mapping, const Row& row, bool replaces,
                        Meeting* meeting) {
  if (lacks_update(batch, item)) return;
  if (policy_.park && !meeting && moves_row(item, row)) {
    park(batch, item, "changes what its row is found by");
    return;
  }
  Work work{&item, mapping, true, {&item, row, {}}};
  work.replaces = replaces;
  work.meeting = meeting;
  work_.push_back(work);
  item.origin = mapping.found && mapping.origin == 'i' && mapping.target_key == row.key ? 'i' : 'o';
}

// Field by field.

/// What becomes of each field, by position in Plan::mapped(); the attnums of those that both sides have
/// changed, each in its own way.
std::vector<int> Loader::dispute(const Item& item, const Mapping& mapping, const Row& row, const Image& image,
                                 bool ours, Take* fields) const {
  const std::vector<int>&mapped = plan_.mapped(), &match = plan_.match();
  std::vector<int> disputed;
  bridge::PlainText plain;
  for (size_t i = 0; i < mapped.size(); i++) {
    const TargetColumn& column = plan_.target().column(mapped[i]);
    std::optional<std::string> incoming = image_text(column, item.values, item.nulls),
                               existing = image_text(column, row.values, row.nulls);
    const Image::Column* base = image.find(column.name);
    // What the row was found by is the same by its own type's rules.
    bool same = incoming == existing ||
                (!mapping.found && std::find(match.begin(), match.end(), mapped[i]) != match.end());
    bool ours_only = base ? existing == base->stored : ours;  // the row has not changed since
    bool theirs_only = base && incoming == base->came;        // the source has not
    fields[i] = same || theirs_only ? Take::existing : ours_only ? Take::incoming : Take::merged;
    if (fields[i] == Take::merged) disputed.push_back(mapped[i]);
  }
  return disputed;
}

void Loader::meet_by_fields(Batch& batch, Item& item, const Mapping& mapping, const Row& row, bool ours) {
  const Definition& definition = plan_.definition();
  Image image(mapping.image);
  hashes_.bring_up(mapping.run_id, image);
  auto* fields = batch.arena.make_array<Take>(plan_.mapped().size());
  std::vector<int> disputed = dispute(item, mapping, row, image, ours, fields);
  if (policy_.on_conflict == OnConflict::ask)  // what has a strategy needs no decision
    std::erase_if(disputed, [&](int attnum) {
      const std::string& name = plan_.target().column(attnum).name;
      return std::any_of(definition.merge.begin(), definition.merge.end(),
                         [&](const MergeRule& rule) { return rule.column == name; });
    });
  const Resolution* decision = resolution_of(item);
  if (policy_.on_conflict == OnConflict::ask && !disputed.empty() && !decision) {
    ask(batch, item, mapping, row, image, disputed);
    return;
  }
  if (decision) {
    auto is_given = [&](int attnum) {
      const std::vector<int>& given = decision->given_columns;
      return decision->kind == Resolution::Kind::value &&
             std::find(given.begin(), given.end(), attnum) != given.end();
    };
    for (size_t i = 0; i < plan_.mapped().size(); i++) {
      int attnum = plan_.mapped()[i];
      bool open = std::find(disputed.begin(), disputed.end(), attnum) != disputed.end();
      if (is_given(attnum))
        fields[i] = Take::given;
      else if (open && decision->kind == Resolution::Kind::value)
        throw Error(ERRCODE_INVALID_PARAMETER_VALUE,
                    format("the value for item %lld does not say what column \"%s\" is to be",
                           static_cast<long long>(item.ordinal), plan_.target().column(attnum).name.c_str()))
            .hint("Name each disputed column: " + listed(plan_.target(), disputed) + ".");
      else if (open)
        fields[i] = decision->kind == Resolution::Kind::incoming   ? Take::incoming
                    : decision->kind == Resolution::Kind::existing ? Take::existing
                                                                   : Take::merged;
    }
  }
  auto* meeting = batch.arena.make_array<Meeting>(1);
  size_t natts = static_cast<size_t>(plan_.target().natts);
  auto* base = batch.arena.make_array<Datum>(natts);
  auto* base_nulls = batch.arena.make_array<bool>(natts);
  memset(base_nulls, true, natts);
  came_values(plan_, image, batch, base, base_nulls);
  *meeting = {&item,
              row.values,
              row.nulls,
              base,
              base_nulls,
              fields,
              decision ? decision->given : nullptr,
              decision ? decision->given_nulls : nullptr,
              false,
              nullptr};
  if (std::all_of(fields, fields + plan_.mapped().size(), [](Take f) { return f == Take::existing; })) {
    adopt(item, mapping, row);
    return;
  }
  add_update(batch, item, mapping, row, false, meeting);
}

/// The item waits for a decision.
void Loader::ask(Batch& batch, Item& item, const Mapping& mapping, const Row& row, const Image& image,
                 const std::vector<int>& disputed) {
  const Target& target = plan_.target();
  item.outcome = Outcome::conflicted;
  item.origin = 0;
  bool several = disputed.size() > 1;
  batch.add_issue(item, "conflict", "PZ012", several ? "" : target.column(disputed[0]).name,
                  format("%s %s of the row with key %s ", several ? "columns" : "column",
                         listed(target, disputed).c_str(), std::string(row.key).c_str()) +
                      (mapping.found ? "changed on both sides"
                       : several     ? "differ from what stands there"
                                     : "differs from what stands there"));
  if (policy_.purpose != Purpose::import) return;
  bridge::InMemory in(batch.memory.get());
  Datum base_json = 0;
  if (!image.empty()) {
    size_t natts = static_cast<size_t>(target.natts);
    auto* base = batch.arena.make_array<Datum>(natts);
    auto* nulls = batch.arena.make_array<bool>(natts);
    memset(nulls, true, natts);
    came_values(plan_, image, batch, base, nulls);
    base_json = row_json(plan_, base, nulls);
  }
  std::vector<std::string> names;
  for (int attnum : disputed) names.push_back(target.column(attnum).name);
  conflicts_.push_back({&item, row_json(plan_, item.values, item.nulls),
                        row_json(plan_, row.values, row.nulls), base_json, names,
                        static_cast<int64_t>(plan_.source_hash(row.values, row.nulls)),
                        suggestion(item, row, disputed)});
  if (plan_.definition().newest_by.empty()) return;
  auto* asked = batch.arena.make_array<Item>(1);  // the one that decide() asks about: still pending
  *asked = item;
  asked->outcome = Outcome::pending;
  auto* meeting = batch.arena.make_array<Meeting>(1);
  *meeting = {asked, row.values, row.nulls, nullptr, nullptr, nullptr, nullptr, nullptr, false, nullptr};
  suggestions_.emplace_back(meeting, conflicts_.size() - 1);
}

/// Without "newest_by": a value beats no value, and what stands there beats what comes.
std::string_view Loader::suggestion(const Item& item, const Row& row,
                                    const std::vector<int>& disputed) const {
  bool none_there = std::all_of(disputed.begin(), disputed.end(),
                                [&](int attnum) { return row.nulls[attnum - 1] && !item.nulls[attnum - 1]; });
  return none_there ? "incoming" : "existing";
}

const Resolution* Loader::resolution_of(const Item& item) const {
  auto found = policy_.resolutions.find(item.ordinal);
  return found == policy_.resolutions.end() ? nullptr : &found->second;
}

/// Finds the values of items that are to be brought together with their rows, and whether items are newer.
void Loader::decide(Batch& batch) {
  std::vector<Work*> works;
  std::vector<Meeting*> meetings;
  for (Work& work : work_) {
    if (!work.meeting || work.decided) continue;
    work.decided = true;
    works.push_back(&work);
    meetings.push_back(work.meeting);
  }
  for (auto& [meeting, conflict] : suggestions_) meetings.push_back(meeting);
  if (meetings.empty()) return;
  plan_.merge(batch, meetings);
  for (auto& [meeting, conflict] : suggestions_)
    if (meeting->item->outcome == Outcome::pending)
      conflicts_[conflict].suggested = meeting->newer ? "incoming" : "existing";
  suggestions_.clear();
  for (Work* work : works) {
    Item& item = *work->item;
    const Row& row = work->update.before;
    if (item.outcome != Outcome::pending) {
      item.origin = 0;
      item.target_key = {};
    } else if (!work->meeting->fields) {
      if (!work->meeting->newer)
        keep_out(batch, item, format("the row with key %s is not older", std::string(row.key).c_str()));
    } else {
      if (plan_.source_hash(item.values, item.nulls) == plan_.source_hash(row.values, row.nulls))
        adopt(item, work->mapping, row);
      else if (policy_.park && moves_row(item, row))
        park(batch, item, "changes what its row is found by");
    }
  }
  drop_decided();
}

/// The item as it came, to meet a row once more.
void Loader::forget_merge(Work& work) {
  Item& item = *work.item;
  if (!item.came) return;
  item.values = item.came;
  item.nulls = item.came_nulls;
  for (const OpenReference* open = item.open; open; open = open->next) item.nulls[open->attnum - 1] = true;
  item.came = nullptr;
  item.issues = work.meeting->issues;
}

/// For mappings that have one and whose rows are going to be looked at.
void Loader::read_images(Batch& batch, const std::vector<Item*>& items) {
  std::vector<Item*> wanted;
  std::vector<Mapping*> places;
  for (size_t i = 0; i < items.size(); i++) {
    if (items[i]->outcome != Outcome::pending || !mapping_of(*items[i]).has_image) continue;
    wanted.push_back(items[i]);
    places.push_back(&mapping_of(*items[i]));
  }
  ledger::read_images(policy_.space, wanted, places, batch.arena);
}

}  // namespace portage::load
