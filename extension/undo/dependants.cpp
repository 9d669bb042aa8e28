// See dependants.hpp. Level by level: the rows of a table that are to go are a relation
// (load/batch_relation), joined with each table that refers to it. A row is met once, so that rows in a
// circle end.
#include "undo/dependants.hpp"

#include "pipeline/target_reader.hpp"

extern "C" {
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "rewrite/prs2lock.h"
#include "utils/acl.h"
#include "utils/datum.h"
}

namespace portage::undo {

using bridge::guarded;
using bridge::Result;
using load::BatchRow;

/// A foreign key from another table to a node's.
struct DependantFinder::Key {
  std::string name, table, schema;  // table: quoted
  Oid child_table, owner, schema_oid;
  char on_delete;
  std::vector<int> child, parent;  // attnums
  std::string equal;               // child column = relation column, joined by AND
  bool partitioned = false;
  std::set<Oid> partitions{};  // of the node's table to which the key refers; empty: to all of it
  std::string relation_name{};
  std::unique_ptr<load::BatchRelation> relation{};  // for a key to some partitions; else the node's serves
  /// As it is read and written: what refers to an ordinary table is no business of those that inherit from
  /// it.
  std::string only() const { return (partitioned ? "" : "ONLY ") + table; }
};

/// A table on the way, with the rows of it that are to go.
struct DependantFinder::Node {
  Target target;
  std::vector<Key> keys;
  std::set<int> columns;  // that keys refer to
  std::string relation_name;
  std::unique_ptr<load::BatchRelation> relation;
  std::vector<BatchRow> rows;
  std::vector<Oid> tables;  // the partition that each row is in

  load::BatchRelation& relation_of(const Key& key) const { return key.relation ? *key.relation : *relation; }
  /// Rows [first, last) to which a key may refer, and where they stand.
  std::vector<BatchRow> rows_for(const Key& key, size_t first, size_t last,
                                 std::vector<size_t>* places) const {
    std::vector<BatchRow> some;
    for (size_t i = first; i < last; i++) {
      if (!key.partitions.empty() && !key.partitions.count(tables[i])) continue;
      some.push_back(rows[i]);
      if (places) places->push_back(i);
    }
    return some;
  }
};

const char* Dependants::action() const {
  switch (on_delete) {
    case 'r':
      return "restrict";
    case 'c':
      return "cascade";
    case 'n':
      return "set null";
    case 'd':
      return "set default";
    default:
      return "no action";
  }
}

DependantFinder::DependantFinder(Plan& plan, Oid role, std::string role_name)
    : plan_(plan), role_(role), role_name_(std::move(role_name)) {
  node(plan.target().oid);
}

DependantFinder::~DependantFinder() = default;

bool DependantFinder::any() const { return !nodes_.at(plan_.target().oid)->keys.empty(); }

DependantFinder::Node& DependantFinder::node(Oid table) {
  std::unique_ptr<Node>& known = nodes_[table];
  if (known) return *known;
  auto made = std::make_unique<Node>();
  made->target = table == plan_.target().oid ? plan_.target() : read_target(table);
  bridge::Settings plain_path;
  plain_path.set("search_path", "pg_catalog, pg_temp");
  // Of the constraints that a partitioned table hands down, the one that stands highest and still refers to
  // this table; and what refers to one of its partitions only. Columns by their numbers in this table.
  Result keys = bridge::execute(
      "WITH RECURSIVE tables AS (SELECT relid AS oid FROM pg_partition_tree($1) UNION SELECT $1), up AS "
      "(SELECT "
      "c.oid, c.conname, c.conparentid FROM pg_constraint c WHERE c.contype = 'f' AND c.confrelid IN (SELECT "
      "oid FROM tables) UNION ALL SELECT u.oid, p.conname, p.conparentid FROM up u JOIN pg_constraint p ON "
      "p.oid = u.conparentid) "
      "SELECT u.conname::text, format('%I.%I', n.nspname, r.relname), n.nspname::text, r.oid, r.relowner, "
      "n.oid, c.confdeltype::text, k.child, k.parent, k.equal, r.relkind = 'p', CASE WHEN c.confrelid <> $1 "
      "THEN ARRAY(SELECT t.relid::int8 FROM pg_partition_tree(c.confrelid) t) END FROM pg_constraint c JOIN "
      "up "
      "u ON u.oid = c.oid AND u.conparentid = 0 JOIN pg_class r ON r.oid = c.conrelid JOIN pg_namespace n ON "
      "n.oid = r.relnamespace CROSS JOIN LATERAL (SELECT array_agg(f.child::int8 ORDER BY f.place) AS child, "
      "array_agg(ta.attnum::int8 ORDER BY f.place) AS parent, string_agg(format('c.%I OPERATOR(%I.%s) "
      "b.c%s', "
      "ca.attname, o.nspname, op.oprname, ta.attnum), ' AND ') AS equal FROM ROWS FROM (unnest(c.conkey), "
      "unnest(c.confkey), unnest(c.conpfeqop)) WITH ORDINALITY AS f (child, parent, operator, place) JOIN "
      "pg_attribute ca ON ca.attrelid = c.conrelid AND ca.attnum = f.child JOIN pg_attribute pa ON "
      "pa.attrelid "
      "= c.confrelid AND pa.attnum = f.parent JOIN pg_attribute ta ON ta.attrelid = $1 AND ta.attname = "
      "pa.attname JOIN pg_operator op ON op.oid = f.operator JOIN pg_namespace o ON o.oid = op.oprnamespace) "
      "k "
      "WHERE c.contype = 'f' AND c.confrelid IN (SELECT oid FROM tables) AND NOT EXISTS (SELECT FROM "
      "pg_constraint p WHERE p.oid = c.conparentid AND p.confrelid IN (SELECT oid FROM tables)) "
      "AND coalesce((to_jsonb(c) ->> 'conenforced')::boolean, true) ORDER BY 2, 1",
      {bridge::param_oid(table)});
  auto oids = [&](size_t row, int column = 12) {
    bridge::Result list =
        bridge::execute("SELECT unnest($1)", {{INT8ARRAYOID, keys.datum(row, column), false}});
    std::vector<int64_t> found;
    for (size_t i = 0; i < list.size(); i++) found.push_back(list.bigint(i, 1));
    return found;
  };
  auto numbers = [&](size_t row, int column) {
    std::vector<int64_t> found = oids(row, column);
    return std::vector<int>(found.begin(), found.end());
  };
  for (size_t i = 0; i < keys.size(); i++) {
    Key key{keys.text(i, 1), keys.text(i, 2),  keys.text(i, 3),    keys.oid(i, 4),
            keys.oid(i, 5),  keys.oid(i, 6),   keys.text(i, 7)[0], numbers(i, 8),
            numbers(i, 9),   keys.text(i, 10), keys.boolean(i, 11)};
    if (!keys.is_null(i, 12))
      for (int64_t oid : oids(i)) key.partitions.insert(static_cast<Oid>(oid));
    made->columns.insert(key.parent.begin(), key.parent.end());
    made->keys.push_back(std::move(key));
  }
  auto relation = [&](const std::string& name) {
    return std::make_unique<load::BatchRelation>(
        made->target, std::vector<int>(made->columns.begin(), made->columns.end()),
        table == plan_.target().oid ? plan_.key() : std::vector<int>(), name.c_str());
  };
  made->relation_name = "portage_dependants_" + std::to_string(table);
  if (!made->keys.empty()) made->relation = relation(made->relation_name);
  for (size_t i = 0; i < made->keys.size(); i++) {
    Key& key = made->keys[i];
    key.relation_name = made->relation_name;
    if (key.partitions.empty()) continue;
    key.relation_name += "_" + std::to_string(i);
    key.relation = relation(key.relation_name);
  }
  known = std::move(made);
  return *known;
}

/// The rows given, as the rows of the target that are to go.
void DependantFinder::start(Batch& batch, Node& target, const std::vector<const load::Row*>& rows) {
  for (auto& [oid, known] : nodes_) {
    known->rows.clear();
    known->tables.clear();
  }
  seen_.clear();
  own_keys_.clear();
  positions_.clear();
  for (const load::Row* row : rows) {
    auto* key = batch.arena.make_array<Datum>(plan_.key().size());
    for (size_t k = 0; k < plan_.key().size(); k++) key[k] = row->values[plan_.key()[k] - 1];
    target.rows.push_back({row->values, row->nulls, key});
    own_keys_.emplace(row->key);
  }
  // What is referred to need not be among the columns that the role reads: as the owner, then.
  std::string list;
  for (int attnum : target.columns) list += ", t." + bridge::quoted(target.target.column(attnum).name);
  std::string same;
  for (size_t k = 0; k < plan_.key().size(); k++) {
    const TargetColumn& column = target.target.column(plan_.key()[k]);
    (same += k ? " AND " : "") += "t." + bridge::quoted(column.name) + " " +
                                  load::operator_text(load::equality_of(column.type)) + " b.k" +
                                  std::to_string(k + 1);
  }
  bool all_in_key = std::all_of(target.columns.begin(), target.columns.end(), [&](int attnum) {
    return std::find(plan_.key().begin(), plan_.key().end(), attnum) != plan_.key().end();
  });
  bool some_partitions = std::any_of(target.keys.begin(), target.keys.end(),
                                     [](const Key& key) { return !key.partitions.empty(); });
  target.tables.assign(rows.size(), target.target.oid);
  if ((all_in_key && !some_partitions) || rows.empty()) return;
  bridge::AsUser owner(target.target.owner, SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
  bridge::ByIndex by_index(OidIsValid(target.target.key_index));
  Result result = target.relation->run("SELECT b.o, t.tableoid" + list + " FROM " + target.relation_name +
                                           " b JOIN " + target.target.quoted_name() + " t ON " + same,
                                       target.rows);
  bridge::InMemory in(batch.memory.get());
  size_t natts = static_cast<size_t>(target.target.natts);
  for (size_t i = 0; i < result.size(); i++) {
    BatchRow& row = target.rows[static_cast<size_t>(result.integer(i, 1))];
    target.tables[static_cast<size_t>(result.integer(i, 1))] = result.oid(i, 2);
    auto* values = batch.arena.make_array<Datum>(natts);
    auto* nulls = batch.arena.make_array<bool>(natts);
    memset(nulls, true, natts);
    int at = 3;
    for (int attnum : target.columns) {
      const TargetColumn& column = target.target.column(attnum);
      Datum value = result.datum(i, at++, &nulls[attnum - 1]);
      bool by_value = column.by_value;
      int length = column.length;
      if (!nulls[attnum - 1])
        values[attnum - 1] = guarded([=] { return datumCopy(value, by_value, length); });
    }
    row.values = values;
    row.nulls = nulls;
  }
}

Tree DependantFinder::find(Batch& batch, const std::vector<const load::Row*>& rows, bool all_levels,
                           bool through_own) {
  Tree tree;
  through_own_ = through_own;
  if (rows.empty() || !any()) return tree;
  Node& target = node(plan_.target().oid);
  start(batch, target, rows);
  std::map<Oid, size_t> done;
  bool more = true;
  for (int level = 1; more; level++) {
    more = false;
    std::vector<std::tuple<Oid, size_t, size_t>> work;
    for (auto& [oid, known] : nodes_)
      if (done[oid] < known->rows.size()) work.emplace_back(oid, done[oid], known->rows.size());
    for (auto [oid, first, last] : work) {
      done[oid] = last;
      Node& parent = node(oid);
      for (size_t k = 0; k < parent.keys.size(); k++) follow(batch, parent, k, first, last, level, tree);
      more = true;
    }
    if (!all_levels) break;
  }
  return tree;
}

/// The rows that refer over a key to rows [first, last) of a table.
void DependantFinder::follow(Batch& batch, Node& parent, size_t number, size_t first, size_t last, int level,
                             Tree& tree) {
  const Key& key = parent.keys[number];
  bool to_target = key.child_table == plan_.target().oid;
  bool from_target = parent.target.oid == plan_.target().oid;
  bool deletes = key.on_delete != 'n' && key.on_delete != 'd';
  Node* child = deletes || to_target ? &node(key.child_table) : nullptr;
  bool singly = child && (to_target || !child->keys.empty());  // else their number says it all
  std::vector<int> columns;
  std::string list;
  if (singly) {
    std::set<int> wanted(child->columns);
    if (to_target) wanted.insert(plan_.key().begin(), plan_.key().end());
    columns.assign(wanted.begin(), wanted.end());
    for (int attnum : columns) list += ", c." + bridge::quoted(child->target.column(attnum).name);
  }
  std::vector<size_t> places;
  std::vector<BatchRow> some = parent.rows_for(key, first, last, &places);
  if (some.empty()) return;
  // Runs as the owner of the other table: nothing here may be looked up in the caller's search_path.
  std::string sql =
      (singly ? "SELECT b.o, c.tableoid, c.ctid" + list : std::string("SELECT b.o, pg_catalog.count(*)")) +
      " FROM " + key.relation_name + " b JOIN " + key.only() + " c ON " + key.equal +
      (singly ? "" : " GROUP BY b.o");
  std::optional<bridge::AsUser> owner(std::in_place, key.owner,
                                      SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
  Result result = parent.relation_of(key).run(sql, some);
  owner.reset();
  if (result.empty()) return;
  bridge::InMemory in(batch.memory.get());
  auto entry = [&]() -> size_t {
    auto [at, fresh] = positions_.insert({{parent.target.oid, number}, tree.found.size()});
    if (fresh) tree.found.push_back({key.table, key.name, key.on_delete, level, 0});
    return at->second;
  };
  bool given = from_target && level == 1;  // the rows referred to are those that find() was given
  int64_t counted = 0;
  for (size_t i = 0; i < result.size(); i++) {
    size_t position = places[static_cast<size_t>(result.integer(i, 1))];
    if (!singly) {
      tree.found[entry()].rows += result.bigint(i, 2);
      counted++;
      if (given && !to_target) tree.referred.insert(position);
      continue;
    }
    Oid table = result.oid(i, 2);
    Datum place = result.datum(i, 3);
    auto* tid = reinterpret_cast<ItemPointer>(DatumGetPointer(place));
    std::pair<uint64_t, int> at{ItemPointerGetBlockNumber(tid),
                                static_cast<int>(ItemPointerGetOffsetNumber(tid))};
    size_t natts = static_cast<size_t>(child->target.natts);
    auto* values = batch.arena.make_array<Datum>(natts);
    auto* nulls = batch.arena.make_array<bool>(natts);
    memset(nulls, true, natts);
    for (size_t c = 0; c < columns.size(); c++) {
      const TargetColumn& column = child->target.column(columns[c]);
      Datum value = result.datum(i, static_cast<int>(c) + 4, &nulls[column.attnum - 1]);
      bool by_value = column.by_value;
      int length = column.length;
      if (!nulls[column.attnum - 1])
        values[column.attnum - 1] = guarded([=] { return datumCopy(value, by_value, length); });
    }
    BatchRow row{values, nulls, nullptr};
    if (to_target) {
      bridge::PlainText plain;
      std::string text = plan_.key_text(values, nulls);
      if (own_keys_.count(text)) continue;  // goes anyway, or has been met
      auto* datums = batch.arena.make_array<Datum>(plan_.key().size());
      for (size_t k = 0; k < plan_.key().size(); k++) datums[k] = values[plan_.key()[k] - 1];
      row.key = datums;
      tree.own.push_back({text, entry(), given ? std::optional(position) : std::nullopt, row});
      if (deletes && through_own_) {
        own_keys_.insert(text);
        child->rows.push_back(row);
        child->tables.push_back(table);
      }
    } else {
      if (given) tree.referred.insert(position);
      if (!seen_.insert({table, at}).second) continue;
      child->rows.push_back(row);
      child->tables.push_back(table);
      tree.found[entry()].rows++;
      counted++;
    }
  }
  if (counted == 0 || to_target) return;
  check_code(key, tree);
  if (key.on_delete != 'a' && key.on_delete != 'r') return;
  tree.to_delete.insert({parent.target.oid, number});
  check_rights(key, tree);
}

/// DELETE, and SELECT on the columns by which the rows are found.
void DependantFinder::check_rights(const Key& key, Tree& tree) const {
  Oid table = key.child_table, role = role_, schema = key.schema_oid;
  const std::string& name = key.table;
  std::string to = " TO " + bridge::quoted(role_name_) + ";";
  if (guarded([=] { return bridge::schema_usage_missing(schema, role); }))
    tree.missing_grants.insert("GRANT USAGE ON SCHEMA " + bridge::quoted(key.schema) + to);
  if (guarded([=] { return pg_class_aclcheck(table, role, ACL_DELETE) != ACLCHECK_OK; }))
    tree.missing_grants.insert("GRANT DELETE ON " + name + to);
  if (guarded([=] { return pg_class_aclcheck(table, role, ACL_SELECT) == ACLCHECK_OK; })) return;
  std::string columns;
  for (int attnum : key.child) {
    auto number = static_cast<AttrNumber>(attnum);
    if (guarded([=] { return pg_attribute_aclcheck(table, number, role, ACL_SELECT) == ACLCHECK_OK; }))
      continue;
    const char* column = guarded([=] { return get_attname(table, number, false); });
    (columns += columns.empty() ? "" : ", ") += bridge::quoted(column);
  }
  if (!columns.empty()) tree.missing_grants.insert("GRANT SELECT (" + columns + ") ON " + name + to);
}

/// Triggers, rules and policies for DELETE run as the role that deletes, and anybody may make a table that
/// refers to one. So do triggers that fire after what a constraint does by itself, though it does that as the
/// table's owner. So the owner must be the role, somebody who can become it, or the target's owner, whose
/// code the role runs anyway. Not a role that the role is a member of: others are members, too. The lock
/// keeps such code from being added between this look and the deletion.
void DependantFinder::check_code(const Key& key, Tree& tree) const {
  Oid table = key.child_table, role = role_, target_owner = plan_.target().owner;
  bool partitioned = key.partitioned, updates = key.on_delete == 'n' || key.on_delete == 'd';
  bool by_itself = updates || key.on_delete == 'c';  // then policies do not apply
  bool strangers = guarded([=] {
    LOCKMODE lock = RecoveryInProgress() ? AccessShareLock : RowExclusiveLock;
    List* tables = partitioned ? find_all_inheritors(table, lock, nullptr) : list_make1_oid(table);
    bool found = false;
    ListCell* cell;
    foreach (cell, tables) {
      Relation relation = table_open(lfirst_oid(cell), lock);
      Oid owner = relation->rd_rel->relowner;
      bool code = !by_itself && relation->rd_rsdesc != nullptr;
      for (int i = 0; relation->trigdesc && i < relation->trigdesc->numtriggers; i++) {
        const Trigger& trigger = relation->trigdesc->triggers[i];
        bool fires = updates ? TRIGGER_FOR_UPDATE(trigger.tgtype) : TRIGGER_FOR_DELETE(trigger.tgtype);
        code |= !trigger.tgisinternal && fires;
      }
      for (int i = 0; relation->rd_rules && i < relation->rd_rules->numLocks; i++)
        code |= relation->rd_rules->rules[i]->event == (updates ? CMD_UPDATE : CMD_DELETE);
      table_close(relation, NoLock);
      found |= code && owner != target_owner && !is_member_of_role(owner, role);
    }
    return found;
  });
  if (strangers) tree.strangers_code.insert(key.table);
}

DependantFinder::Deletions DependantFinder::deletions(const Tree& tree) {
  Deletions d;
  std::set<std::string> filled;
  int number = 0;
  for (auto [oid, k] : tree.to_delete) {
    Node& parent = node(oid);
    const Key& key = parent.keys[k];
    if (filled.insert(key.relation_name).second)
      d.fillings.push_back(
          parent.relation_of(key).fill(parent.rows_for(key, 0, parent.rows.size(), nullptr)));
    d.with += std::string(d.with.empty() ? "WITH " : ", ") + "d" + std::to_string(++number) +
              " AS (DELETE FROM " + key.only() + " c USING " + key.relation_name + " b WHERE " + key.equal +
              ")";
  }
  if (!d.with.empty()) d.with += " ";
  return d;
}

}  // namespace portage::undo
