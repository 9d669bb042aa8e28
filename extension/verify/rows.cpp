// See items.hpp.
#include "bridge/subxact.hpp"
#include "pipeline/checks.hpp"
#include "verify/items.hpp"

namespace portage::verify {

using bridge::guarded;

BeforeImages::BeforeImages(const Scene& scene)
    : scene_(scene),
      memory_("portage before-images", PortalContext ? PortalContext : CurrentMemoryContext),
      hasher_(RowHasher::make(scene.plan.target().shape, scene.hashed, memory_.get())) {}

bool BeforeImages::fits(Batch& batch, const BeforeImage& image) const {
  const Target& target = scene_.plan.target();
  size_t natts = static_cast<size_t>(target.natts);
  auto* values = batch.arena.make_array<Datum>(natts);
  auto* nulls = batch.arena.make_array<bool>(natts);
  memcpy(values, image.row->values, sizeof(Datum) * natts);
  memcpy(nulls, image.row->nulls, sizeof(bool) * natts);
  for (size_t i = 0; i < image.item->columns.size(); i++) {
    const TargetColumn* column = target.column(image.item->columns[i]);
    if (!column) return false;
    const std::optional<std::string>& text = image.item->before[i];
    size_t at = static_cast<size_t>(column->attnum - 1);
    nulls[at] = !text;
    if (!text) continue;
    values[at] = bridge::input_value(column->type, column->typmod, *text);
  }
  const RowHasher* hasher = &hasher_;
  return static_cast<int64_t>(guarded([=] { return (*hasher)(values, nulls); })) == *image.item->before_hash;
}

void BeforeImages::look_at(Batch& batch, const std::vector<BeforeImage>& images, Findings& findings) {
  auto tell = [&](const BeforeImage& image, const std::string& what) {
    findings.add(item_name(image.item->ordinal) + ": the before-image of key " +
                 quotable(image.item->target_key) + what);
  };
  bridge::InMemory in(batch.memory.get());
  // A value that cannot be read any more is found one by one.
  std::vector<const BeforeImage*> wrong;
  std::optional<bridge::Error> unreadable;
  if (!images.empty())
    unreadable = bridge::attempt([&] {
      bridge::PlainText plain;
      for (const BeforeImage& image : images)
        if (!fits(batch, image)) wrong.push_back(&image);
    });
  if (!unreadable) {
    for (const BeforeImage* image : wrong) tell(*image, " does not fit its hash");
    return;
  }
  for (const BeforeImage& image : images) {
    bool right = false;
    std::optional<bridge::Error> error = bridge::attempt([&] {
      bridge::PlainText plain;
      right = fits(batch, image);
    });
    if (error && ends_verification(error->code())) throw *error;
    if (error)
      tell(image, " cannot be read: " + error->message());
    else if (!right)
      tell(image, " does not fit its hash");
  }
}

Parents::Parents(const Scene& scene)
    : scene_(scene), memory_("portage foreign keys", PortalContext ? PortalContext : CurrentMemoryContext) {
  if (scene.depth == Depth::counts) return;
  const Target& target = scene.plan.target();
  // What the writer reads of a row.
  std::set<int> read(scene.hashed.begin(), scene.hashed.end());
  read.insert(scene.plan.key().begin(), scene.plan.key().end());
  read.insert(scene.plan.mapped().begin(), scene.plan.mapped().end());
  std::set<int> wanted;
  for (const ForeignKey& key : target.foreign_keys) {
    if (!std::all_of(key.attnums.begin(), key.attnums.end(),
                     [&](int attnum) { return read.count(attnum); })) {
      unread_.add(key.name);
      continue;
    }
    wanted.insert(key.attnums.begin(), key.attnums.end());
    struct Names {
      Oid owner;
      char *schema, *name;
    };
    Oid parent = key.parent;
    Names names = guarded([=] {
      HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(parent));
      if (!HeapTupleIsValid(tuple)) elog(ERROR, "cache lookup failed for relation %u", parent);
      auto* form = reinterpret_cast<Form_pg_class>(GETSTRUCT(tuple));
      Names found{form->relowner, get_namespace_name(form->relnamespace), pstrdup(NameStr(form->relname))};
      ReleaseSysCache(tuple);
      return found;
    });
    std::string same;
    for (size_t i = 0; i < key.attnums.size(); i++) {
      AttrNumber attnum = static_cast<AttrNumber>(key.parent_attnums[i]);
      const char* column = guarded([=] { return get_attname(parent, attnum, false); });
      (same += i ? " AND " : "") += "p." + bridge::quoted(column) + " " +
                                    load::operator_text(key.equality[i]) + " b.c" +
                                    std::to_string(key.attnums[i]);
    }
    std::vector<int> attnums(key.attnums);
    std::sort(attnums.begin(), attnums.end());
    keys_.push_back({&key,
                     "SELECT b.o FROM portage_verify b WHERE NOT EXISTS (SELECT 1 FROM " +
                         bridge::quoted_name(names.schema, names.name) + " p WHERE " + same + ")",
                     names.owner,
                     RowHasher::make(target.shape, attnums, memory_.get()),
                     {},
                     0,
                     ""});
  }
  if (!wanted.empty())
    batch_ = std::make_unique<load::BatchRelation>(target, std::vector<int>(wanted.begin(), wanted.end()),
                                                   std::vector<int>{}, "portage_verify");
}

void Parents::look_at(Batch& batch, const std::vector<load::Row>& rows) {
  constexpr size_t most_known = 1000000;
  bridge::InMemory in(batch.memory.get());
  for (Key& key : keys_) {
    std::vector<load::BatchRow> values;
    std::vector<std::pair<const load::Row*, uint64_t>> asked;
    for (const load::Row& row : rows) {
      if (!row.found || std::any_of(key.key->attnums.begin(), key.key->attnums.end(),
                                    [&](int attnum) { return row.nulls[attnum - 1]; }))
        continue;
      const RowHasher* hasher = &key.hasher;
      const Datum* datums = row.values;
      const bool* nulls = row.nulls;
      uint64_t hash = guarded([=] { return (*hasher)(datums, nulls); });
      if (key.known.count(hash)) continue;
      asked.emplace_back(&row, hash);
      values.push_back({datums, nulls, nullptr});
    }
    if (asked.empty()) continue;
    std::set<size_t> orphans;
    {
      ByPage by_page;
      bridge::AsUser owner(key.owner, SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
      bridge::Result missing = batch_->run(key.sql, values);
      for (size_t i = 0; i < missing.size(); i++) orphans.insert(static_cast<size_t>(missing.integer(i, 1)));
    }
    if (key.known.size() > most_known) key.known.clear();
    for (size_t i = 0; i < asked.size(); i++) {
      if (!orphans.count(i)) {
        key.known.insert(asked[i].second);
      } else if (key.orphans++ < 10) {
        (key.keys += key.keys.empty() ? "" : ", ") += quotable(asked[i].first->key);
      }
    }
  }
}

Check Parents::result() const {
  int64_t orphans = 0;
  Findings found;
  for (const Key& key : keys_) {
    if (key.orphans == 0) continue;
    orphans += key.orphans;
    found.add(key.key->name + ": " + std::to_string(key.orphans) + " rows without parent, keys " + key.keys +
              (key.orphans > 10 ? ", ..." : ""));
  }
  return {"relationships",
          "error",
          "0",
          std::to_string(orphans),
          orphans == 0,
          "{\"found\": " + found.list() + ", \"not_readable\": " + unread_.list() + "}"};
}

}  // namespace portage::verify
