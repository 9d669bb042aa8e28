// The writer for any target: set-based SQL over the batch (batch_relation.hpp), so that privileges, row level
// security, triggers, rules and partitions are PostgreSQL's own business. Rows come back by RETURNING, in the
// order in which they went in.
#include "bridge/deferral.hpp"
#include "load/key_lookup.hpp"
#include "load/batch_relation.hpp"
#include "load/row_reader.hpp"

extern "C" {
#include "catalog/pg_constraint.h"
#include "utils/datum.h"
}

namespace portage::load {
namespace {

/// Keys that are told of rows among which an item cannot choose.
constexpr size_t most_candidates = 5;

using bridge::execute;
using bridge::guarded;
using bridge::Result;

class SqlWriter final : public Writer {
 public:
  SqlWriter(Plan& plan, const std::vector<int>& hash_columns);

  std::vector<Row> find_by_match(Batch&, const std::vector<Item*>&) override;
  std::vector<Row> find_by_key(Batch&, const std::vector<std::string_view>& keys, bool lock) override;
  void insert(Batch&, const std::vector<Item*>&) override;
  void update(Batch&, std::vector<Update*>&) override;
  std::vector<size_t> without_parent(Batch&, const ForeignKey&, const std::vector<Item*>&) override;
  void check_deferred() override;
  void reread(Batch&, const std::vector<Item*>& inserts, const std::vector<Update*>& updates) override;

 private:
  std::string batch_column(int attnum) const { return "b.c" + std::to_string(attnum); }
  std::string list(const std::vector<int>& attnums, const std::string& prefix) const;
  /// `t.a = b.cN AND ...`; with `key`, over the old key's columns b.k1 ...
  std::string same(const std::vector<int>& attnums, bool key) const;
  Row read_row(Batch& batch, const Result& result, size_t row, int first_column) const {
    return rows_.read(batch, result.tuple(row), result.shape(), first_column);
  }
  void land(Batch&, Item&, const Row&) const;

  Plan& plan_;
  const Target& target_;
  bridge::Memory memory_;
  RowReader rows_;
  const std::vector<int>& read_;
  std::vector<int> inserted_, settable_;
  bool overriding_ = false, match_indexed_ = false, has_xmin_ = false, rehash_ = false;
  std::unique_ptr<BatchRelation> batch_;
};

std::string SqlWriter::list(const std::vector<int>& attnums, const std::string& prefix) const {
  std::string text;
  for (int attnum : attnums)
    (text += text.empty() ? "" : ", ") += prefix + bridge::quoted(target_.column(attnum).name);
  return text;
}

std::string SqlWriter::same(const std::vector<int>& attnums, bool key) const {
  std::string text;
  for (size_t i = 0; i < attnums.size(); i++) {
    const TargetColumn& column = target_.column(attnums[i]);
    std::string other = key ? "b.k" + std::to_string(i + 1) : batch_column(attnums[i]);
    (text += text.empty() ? "" : " AND ") +=
        "t." + bridge::quoted(column.name) + " " + operator_text(equality_of(column.type)) + " " + other;
  }
  return text;
}

SqlWriter::SqlWriter(Plan& plan, const std::vector<int>& hash_columns)
    : plan_(plan),
      target_(plan.target()),
      memory_("portage sql writer", PortalContext ? PortalContext : CurrentMemoryContext),
      rows_(plan, hash_columns, memory_.get()),
      read_(rows_.columns()),
      inserted_(inserted_columns(plan)) {
  for (int attnum : inserted_) overriding_ |= target_.column(attnum).identity == 'a';
  for (int attnum : plan.mapped()) {
    bool in_key = std::find(plan.key().begin(), plan.key().end(), attnum) != plan.key().end();
    if (!in_key && target_.column(attnum).identity != 'a') settable_.push_back(attnum);
  }

  match_indexed_ = are_unique(target_, plan.match());

  Oid oid = target_.oid;
  has_xmin_ = target_.ordinary() &&
              guarded([=] { return pg_class_aclcheck(oid, GetUserId(), ACL_SELECT) == ACLCHECK_OK; });
  // What an AFTER trigger does to the row is not in RETURNING: such rows are read again before they are
  // hashed.
  rehash_ = target_.triggers.insert_after_row || target_.triggers.insert_after_statement ||
            target_.triggers.update_after_row || target_.triggers.update_after_statement;

  std::set<int> visible(inserted_.begin(), inserted_.end());
  visible.insert(plan.match().begin(), plan.match().end());
  visible.insert(plan.key().begin(), plan.key().end());
  batch_ =
      std::make_unique<BatchRelation>(target_, std::vector<int>(visible.begin(), visible.end()), plan.key());
}

std::vector<Row> SqlWriter::find_by_match(Batch& batch, const std::vector<Item*>& items) {
  std::vector<Row> found(items.size());
  if (items.empty() || plan_.match().empty()) return found;
  std::string sql = "SELECT b.o, " + std::string(has_xmin_ ? "t.xmin" : "'0'::pg_catalog.xid") + ", " +
                    list(read_, "t.") + " FROM portage_batch b JOIN " + target_.quoted_name() + " t ON " +
                    same(plan_.match(), false);
  std::vector<BatchRow> rows;
  for (Item* item : items) rows.push_back({item->values, item->nulls, nullptr});
  bridge::ByIndex index_only(match_indexed_);
  Result result = batch_->run(sql, rows);
  bridge::PlainText plain;
  std::map<size_t, std::set<std::string>> several;  // without a unique index more than one row may match
  for (size_t i = 0; i < result.size(); i++) {
    auto position = static_cast<size_t>(result.integer(i, 1));
    Row& row = found[position];
    if (row.found) {
      std::set<std::string>& keys = several[position];
      keys.emplace(row.key);
      if (keys.size() < most_candidates) keys.emplace(read_row(batch, result, i, 3).key);
      continue;
    }
    row = read_row(batch, result, i, 3);
    row.xmin = DatumGetTransactionId(result.datum(i, 2));
  }
  for (const auto& [position, keys] : several) {
    std::string listed;
    for (const std::string& key : keys) (listed += listed.empty() ? "" : ", ") += key;
    if (keys.size() == most_candidates) listed += ", ...";
    found[position].candidates = batch.arena.copy(listed);
  }
  return found;
}

std::vector<Row> SqlWriter::find_by_key(Batch& batch, const std::vector<std::string_view>& keys, bool lock) {
  std::vector<Row> found(keys.size());
  if (keys.empty()) return found;
  std::vector<BatchRow> rows;
  {
    bridge::PlainText plain;
    for (std::string_view key : keys) rows.push_back({nullptr, nullptr, key_values(batch, plan_, key)});
  }
  std::string sql = "SELECT b.o, " + std::string(has_xmin_ ? "t.xmin" : "'0'::pg_catalog.xid") + ", " +
                    list(read_, "t.") + " FROM portage_batch b JOIN " + target_.quoted_name() + " t ON " +
                    same(plan_.key(), true) + (lock ? " FOR UPDATE OF t" : "");
  bridge::ByIndex index_only(OidIsValid(target_.key_index));
  Result result = batch_->run(sql, rows);
  bridge::PlainText plain;
  for (size_t i = 0; i < result.size(); i++) {
    Row& row = found[result.integer(i, 1)] = read_row(batch, result, i, 3);
    row.xmin = DatumGetTransactionId(result.datum(i, 2));
  }
  return found;
}

void SqlWriter::land(Batch&, Item& item, const Row& row) const {
  item.target_key = row.key;
  item.row_hash = row.row_hash;
  item.stored = row.values;
  item.stored_nulls = row.nulls;
}

void SqlWriter::insert(Batch& batch, const std::vector<Item*>& items) {
  if (items.empty()) return;
  std::string values;
  for (int attnum : inserted_) (values += values.empty() ? "" : ", ") += batch_column(attnum);
  std::string sql = "INSERT INTO " + target_.quoted_name() + " (" + list(inserted_, "") + ")" +
                    (overriding_ ? " OVERRIDING SYSTEM VALUE" : "") + " SELECT " + values +
                    " FROM portage_batch b RETURNING " + list(read_, "");
  std::vector<BatchRow> rows;
  for (Item* item : items) rows.push_back({item->values, item->nulls, nullptr});
  Result result = batch_->run(sql, rows);
  bridge::PlainText plain;
  if (result.size() == items.size()) {
    for (size_t i = 0; i < items.size(); i++) land(batch, *items[i], read_row(batch, result, i, 1));
  } else {
    // A trigger or a rule kept rows out. Which ones is known by the keys that we sent; where the target makes
    // the key itself, only one item at a time can tell: the caller halves.
    std::unordered_map<std::string_view, Row> by_key;
    for (size_t i = 0; i < result.size(); i++) {
      Row row = read_row(batch, result, i, 1);
      by_key.emplace(row.key, row);
    }
    size_t matched = 0;
    std::vector<Item*> cancelled;
    for (Item* item : items) {
      auto it = by_key.find(batch.arena.copy(plan_.key_text(item->values, item->nulls)));
      if (it == by_key.end()) {
        cancelled.push_back(item);
      } else {
        land(batch, *item, it->second);
        matched++;
      }
    }
    if (matched != result.size() && items.size() > 1)
      throw bridge::Error(ERRCODE_TRIGGERED_ACTION_EXCEPTION,
                          "a trigger kept rows out of " + target_.quoted_name());
    for (Item* item : cancelled) {
      item->outcome = Outcome::skipped;
      batch.add_issue(*item, "cancelled_by_trigger", "09000", "",
                      "a trigger or rule on " + target_.quoted_name() + " kept the row out");
    }
  }
}

void SqlWriter::update(Batch& batch, std::vector<Update*>& updates) {
  if (updates.empty()) return;
  // The key is set only where it changes: setting it to itself would ask for a privilege that nobody needs.
  bool key_changes = false;
  std::vector<int> mapped_key;
  for (int attnum : plan_.key())
    if (std::find(plan_.mapped().begin(), plan_.mapped().end(), attnum) != plan_.mapped().end())
      mapped_key.push_back(attnum);
  for (Update* update : updates)
    for (int attnum : mapped_key) {
      const TargetColumn& column = target_.column(attnum);
      Datum incoming = update->item->values[attnum - 1], existing = update->before.values[attnum - 1];
      bool by_value = column.by_value;
      int length = column.length;
      key_changes |= !guarded([=] { return datum_image_eq(incoming, existing, by_value, length); });
    }
  std::string set;
  std::vector<int> columns = settable_;
  if (key_changes) columns.insert(columns.end(), mapped_key.begin(), mapped_key.end());
  for (int attnum : columns)
    (set += set.empty() ? "" : ", ") +=
        bridge::quoted(target_.column(attnum).name) + " = " + batch_column(attnum);
  std::vector<BatchRow> rows;
  for (Update* update : updates) {
    auto* key = batch.arena.make_array<Datum>(plan_.key().size());
    for (size_t k = 0; k < plan_.key().size(); k++) key[k] = update->before.values[plan_.key()[k] - 1];
    rows.push_back({update->item->values, update->item->nulls, key});
  }
  if (set.empty()) {
    for (Update* update : updates) update->after = update->before;
  } else {
    std::string sql = "UPDATE " + target_.quoted_name() + " t SET " + set + " FROM portage_batch b WHERE " +
                      same(plan_.key(), true) + " RETURNING b.o, " + list(read_, "t.");
    bridge::ByIndex index_only(OidIsValid(target_.key_index));
    Result result = batch_->run(sql, rows);
    bridge::PlainText plain;
    for (Update* update : updates) update->after = Row{};
    for (size_t i = 0; i < result.size(); i++)
      updates[result.integer(i, 1)]->after = read_row(batch, result, i, 2);
  }
  for (Update* update : updates) {
    if (update->after.found) {
      land(batch, *update->item, update->after);
    } else {
      update->item->outcome = Outcome::skipped;
      batch.add_issue(*update->item, "cancelled_by_trigger", "09000", "",
                      "a trigger or policy on " + target_.quoted_name() + " kept the row from being updated");
    }
  }
}

void SqlWriter::reread(Batch& batch, const std::vector<Item*>& inserts, const std::vector<Update*>& updates) {
  if (!rehash_) return;
  std::vector<std::string_view> keys;
  std::vector<std::pair<Item*, Update*>> landed;
  for (Item* item : inserts)
    if (item->outcome != Outcome::skipped) landed.emplace_back(item, nullptr);
  for (Update* update : updates)
    if (update->after.found) landed.emplace_back(update->item, update);
  for (auto& [item, update] : landed) keys.push_back(item->target_key);
  std::vector<Row> again = find_by_key(batch, keys, false);
  for (size_t i = 0; i < landed.size(); i++) {
    auto [item, update] = landed[i];
    if (again[i].found) {
      land(batch, *item, again[i]);
      if (update) update->after = again[i];
    } else {
      item->outcome = Outcome::skipped;
      batch.add_issue(*item, "cancelled_by_trigger", "09000", "",
                      "a trigger on " + target_.quoted_name() + " took the row away again");
    }
  }
}

std::vector<size_t> SqlWriter::without_parent(Batch&, const ForeignKey& key,
                                              const std::vector<Item*>& items) {
  std::vector<size_t> missing;
  // As the constraint's own trigger does it: as the owner of the parent table, past row level security.
  struct Parent {
    Oid owner;
    char* schema;
    char* name;
  };
  Oid parent_oid = key.parent;
  Parent parent = guarded([=] {
    HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(parent_oid));
    if (!HeapTupleIsValid(tuple)) elog(ERROR, "cache lookup failed for relation %u", parent_oid);
    auto* form = reinterpret_cast<Form_pg_class>(GETSTRUCT(tuple));
    Parent found{form->relowner, get_namespace_name(form->relnamespace), pstrdup(NameStr(form->relname))};
    ReleaseSysCache(tuple);
    return found;
  });
  std::string same_key, not_null;
  for (size_t i = 0; i < key.attnums.size(); i++) {
    AttrNumber attnum = static_cast<AttrNumber>(key.parent_attnums[i]);
    const char* column = guarded([=] { return get_attname(parent_oid, attnum, false); });
    std::string ours = batch_column(key.attnums[i]);
    (same_key += same_key.empty() ? "" : " AND ") +=
        "p." + bridge::quoted(column) + " " + operator_text(key.equality[i]) + " " + ours;
    (not_null += not_null.empty() ? "" : " AND ") += ours + " IS NOT NULL";
  }
  std::string sql = "SELECT b.o FROM portage_batch b WHERE " + not_null + " AND NOT EXISTS (SELECT 1 FROM " +
                    bridge::quoted_name(parent.schema, parent.name) + " p WHERE " + same_key + ")";
  std::vector<BatchRow> rows;
  for (Item* item : items) rows.push_back({item->values, item->nulls, nullptr});
  bridge::ByIndex index_only(true);
  bridge::AsUser owner(parent.owner, SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
  Result result = batch_->run(sql, rows);
  for (size_t i = 0; i < result.size(); i++) missing.push_back(result.integer(i, 1));
  return missing;
}

void SqlWriter::check_deferred() {
  if (bridge::judge_deferred()) return;
  if (target_.deferrable.empty()) return;
  execute("SET CONSTRAINTS " + target_.deferrable + " IMMEDIATE");
  // Somebody else's triggers may not wait until we are who we were (bridge::AsUser): they stay immediate.
  if (!target_.deferred.empty() && !InSecurityRestrictedOperation())
    execute("SET CONSTRAINTS " + target_.deferred + " DEFERRED");
}

}  // namespace

std::unique_ptr<Writer> make_sql_writer(Plan& plan, const std::vector<int>& hash_columns) {
  return std::make_unique<SqlWriter>(plan, hash_columns);
}

}  // namespace portage::load
