// See target_reader.hpp.
#include "pipeline/target_reader.hpp"

extern "C" {
#include "catalog/pg_constraint.h"
#include "catalog/pg_index.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "nodes/nodes.h"
#include "optimizer/optimizer.h"
#include "rewrite/prs2lock.h"
}

namespace portage {
namespace {

using bridge::guarded;

/// An open relation. The lock stays until the end of the transaction, as is the custom.
class OpenRelation {
 public:
  explicit OpenRelation(Oid oid)
      : relation(guarded([=] { return try_relation_open(oid, AccessShareLock); })) {}
  ~OpenRelation() {
    if (relation) relation_close(relation, NoLock);
  }
  OpenRelation(const OpenRelation&) = delete;
  OpenRelation& operator=(const OpenRelation&) = delete;
  Relation const relation;
};

void read_columns(Target& target) {
  TupleDesc shape = target.shape;
  target.natts = shape->natts;
  for (int i = 0; i < shape->natts; i++) {
    Form_pg_attribute a = TupleDescAttr(shape, i);
    bool has_default = a->atthasdef && a->attgenerated == '\0';
    if (!a->attisdropped && !has_default) {
      Oid type = a->atttypid;
      has_default = a->attidentity != '\0' || (get_typtype(type) == TYPTYPE_DOMAIN &&
                                               guarded([=] { return get_typdefault(type) != nullptr; }));
    }
    target.columns.push_back({i + 1, NameStr(a->attname), a->atttypid, a->atttypmod, a->attcollation,
                              a->attnotnull, has_default, a->attidentity, a->attgenerated, a->attisdropped,
                              a->attbyval, a->attlen, a->attalign});
  }
}

struct IndexFacts {
  bool unique, primary, immediate, valid, partial, exclusion, nulls_not_distinct;
  int columns;
  int16 attnums[INDEX_MAX_KEYS];
  Oid equality[INDEX_MAX_KEYS], collations[INDEX_MAX_KEYS];
  char name[NAMEDATALEN];
  const char *constraint, *terms;
};

IndexFacts index_facts_raw(Oid oid) {
  IndexFacts facts;
  memset(&facts, 0, sizeof facts);
  Relation index = index_open(oid, AccessShareLock);
  Form_pg_index form = index->rd_index;
  facts.unique = form->indisunique;
  facts.primary = form->indisprimary;
  facts.immediate = form->indimmediate;
  facts.valid = form->indisvalid && form->indisready && form->indislive;
  facts.exclusion = form->indisexclusion;
  facts.nulls_not_distinct = form->indnullsnotdistinct;
  facts.partial = !heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, nullptr);
  facts.columns = form->indnkeyatts;
  for (int i = 0; i < facts.columns; i++) {
    facts.attnums[i] = form->indkey.values[i];
    facts.collations[i] = index->rd_indcollation[i];
    facts.equality[i] = get_opfamily_member(index->rd_opfamily[i], index->rd_opcintype[i],
                                            index->rd_opcintype[i], BTEqualStrategyNumber);
  }
  List* expressions = RelationGetIndexExpressions(index);
  List* predicate = RelationGetIndexPredicate(index);
  if (expressions || predicate) facts.terms = nodeToString(list_make2(expressions, predicate));
  strlcpy(facts.name, RelationGetRelationName(index), NAMEDATALEN);
  Oid constraint = get_index_constraint(oid);
  if (OidIsValid(constraint)) facts.constraint = get_constraint_name(constraint);
  index_close(index, NoLock);
  return facts;
}

void read_indexes(Target& target, Relation relation) {
  if (!relation->rd_rel->relhasindex) return;
  List* oids = guarded([=] { return RelationGetIndexList(relation); });
  ListCell* cell;
  foreach (cell, oids) {
    Oid oid = lfirst_oid(cell);
    IndexFacts facts = guarded([=] { return index_facts_raw(oid); });
    if (facts.exclusion) target.has_exclusion = true;
    if (!facts.unique) continue;
    UniqueIndex index{oid,
                      facts.name,
                      facts.constraint ? facts.constraint : "",
                      {},
                      {},
                      {},
                      facts.primary,
                      facts.immediate,
                      facts.partial,
                      false,
                      facts.valid,
                      facts.nulls_not_distinct,
                      facts.terms ? facts.terms : ""};
    for (int i = 0; i < facts.columns; i++) {
      if (facts.attnums[i] <= 0) index.expressions = true;
      index.attnums.push_back(facts.attnums[i]);
      index.equality.push_back(facts.equality[i]);
      index.collations.push_back(facts.collations[i]);
    }
    if (index.expressions) index.attnums.clear();
    target.unique_indexes.push_back(std::move(index));
  }
}

/// Raw code. False for constraints that are not ours to judge: not enforced, or the shadow, one per partition
/// of the parent table, of a constraint that stands in the list itself.
bool foreign_key_counts_raw(const ForeignKeyCacheInfo* info) {
  if (!bridge::foreign_key_is_enforced(*info)) return false;
  HeapTuple tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(info->conoid));
  if (!HeapTupleIsValid(tuple)) return false;
  Oid parent = reinterpret_cast<Form_pg_constraint>(GETSTRUCT(tuple))->conparentid;
  ReleaseSysCache(tuple);
  if (!OidIsValid(parent)) return true;
  tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(parent));
  if (!HeapTupleIsValid(tuple)) return true;
  bool shadow = reinterpret_cast<Form_pg_constraint>(GETSTRUCT(tuple))->conrelid == info->conrelid;
  ReleaseSysCache(tuple);
  return !shadow;
}

void read_foreign_keys(Target& target, Relation relation) {
  // A copy: the cached list may go with any invalidation.
  List* keys = guarded([=] { return static_cast<List*>(copyObjectImpl(RelationGetFKeyList(relation))); });
  ListCell* cell;
  foreach (cell, keys) {
    auto* info = static_cast<ForeignKeyCacheInfo*>(lfirst(cell));
    if (!guarded(foreign_key_counts_raw, static_cast<const ForeignKeyCacheInfo*>(info))) continue;
    struct Facts {
      char name[NAMEDATALEN];
      char match;
      bool deferrable, deferred, found;
    };
    Oid oid = info->conoid;
    Facts facts = guarded([=] {
      Facts f;
      memset(&f, 0, sizeof f);
      HeapTuple tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(oid));
      if (!HeapTupleIsValid(tuple)) return f;
      auto* form = reinterpret_cast<Form_pg_constraint>(GETSTRUCT(tuple));
      strlcpy(f.name, NameStr(form->conname), NAMEDATALEN);
      f.match = form->confmatchtype;
      f.deferrable = form->condeferrable;
      f.deferred = form->condeferred;
      f.found = true;
      ReleaseSysCache(tuple);
      return f;
    });
    if (!facts.found) continue;
    ForeignKey key{oid,           facts.name, {}, info->confrelid, {}, {}, facts.match, facts.deferrable,
                   facts.deferred};
    for (int i = 0; i < info->nkeys; i++) {
      key.attnums.push_back(info->conkey[i]);
      key.parent_attnums.push_back(info->confkey[i]);
      key.equality.push_back(info->conpfeqop[i]);
    }
    target.foreign_keys.push_back(std::move(key));
  }
}

void read_checks(Target& target) {
  TupleConstr* constraints = target.shape->constr;
  if (!constraints) return;
  for (int i = 0; i < constraints->num_check; i++) {
    const ConstrCheck& check = constraints->check[i];
    if (!bridge::check_is_enforced(check)) continue;
    TargetCheck copy{check.ccname, check.ccbin, {}, check.ccvalid};
    const char* text = check.ccbin;
    Bitmapset* used = guarded([=] {
      Bitmapset* set = nullptr;
      pull_varattnos(static_cast<Node*>(stringToNode(text)), 1, &set);
      return set;
    });
    for (int x = -1; (x = bms_next_member(used, x)) >= 0;)
      copy.attnums.push_back(x + FirstLowInvalidHeapAttributeNumber);
    target.checks.push_back(std::move(copy));
  }
}

}  // namespace

TargetTriggers triggers_of(Relation relation) {
  TargetTriggers triggers{};
  TriggerDesc* all = relation->trigdesc;
  for (int i = 0; all && i < all->numtriggers; i++) {
    const Trigger& t = all->triggers[i];
    // Internal ones (foreign keys, deferrable uniqueness) are judged as the constraints that they are.
    if (t.tgisinternal || t.tgenabled == TRIGGER_DISABLED) continue;
    bool row = TRIGGER_FOR_ROW(t.tgtype), before = TRIGGER_FOR_BEFORE(t.tgtype),
         after = TRIGGER_FOR_AFTER(t.tgtype);
    bool instead = TRIGGER_FOR_INSTEAD(t.tgtype);
    if (TRIGGER_FOR_INSERT(t.tgtype)) {
      triggers.insert_before_row |= row && before;
      triggers.insert_after_row |= row && after;
      triggers.insert_instead_row |= row && instead;
      triggers.insert_before_statement |= !row && before;
      triggers.insert_after_statement |= !row && after;
    }
    if (TRIGGER_FOR_UPDATE(t.tgtype)) {
      triggers.update_before_row |= row && before;
      triggers.update_after_row |= row && after;
      triggers.update_instead_row |= row && instead;
      triggers.update_before_statement |= !row && before;
      triggers.update_after_statement |= !row && after;
    }
    triggers.transition_tables |= t.tgoldtable || t.tgnewtable;
  }
  return triggers;
}

bool has_write_rules(Relation relation) {
  RuleLock* rules = relation->rd_rules;
  for (int i = 0; rules && i < rules->numLocks; i++)
    if (rules->rules[i]->event != CMD_SELECT) return true;
  return false;
}

bool exists(Oid table) { return OpenRelation(table).relation != nullptr; }

Target read_target(Oid table) {
  OpenRelation open(table);
  Relation relation = open.relation;
  if (!relation)
    throw bridge::Error(ERRCODE_UNDEFINED_TABLE,
                        bridge::format("relation with OID %u does not exist", table));
  Target target;
  target.oid = table;
  target.name = RelationGetRelationName(relation);
  Oid schema = RelationGetNamespace(relation);
  target.schema = guarded([=] { return static_cast<const char*>(get_namespace_name(schema)); });
  target.owner = relation->rd_rel->relowner;
  target.relkind = relation->rd_rel->relkind;
  target.memory = std::make_shared<bridge::Memory>("portage target", TopMemoryContext);
  {
    bridge::InMemory in(target.memory->get());
    target.shape = guarded([=] { return CreateTupleDescCopyConstr(RelationGetDescr(relation)); });
  }
  read_columns(target);
  read_indexes(target, relation);
  read_foreign_keys(target, relation);
  read_checks(target);
  target.triggers = triggers_of(relation);
  target.has_rules = has_write_rules(relation);
  target.row_security = relation->rd_rel->relrowsecurity;
  target.is_partition = relation->rd_rel->relispartition;
  target.has_children = relation->rd_rel->relhassubclass;
  return target;
}

bool still_same(const Target& target) {
  OpenRelation open(target.oid);
  Relation relation = open.relation;
  if (!relation || target.name != RelationGetRelationName(relation) ||
      target.relkind != relation->rd_rel->relkind)
    return false;
  if (target.row_security != relation->rd_rel->relrowsecurity ||
      target.has_children != relation->rd_rel->relhassubclass ||
      target.has_rules != has_write_rules(relation) || triggers_of(relation) != target.triggers)
    return false;
  TupleDesc shape = target.shape;
  const UniqueIndex* indexes = target.unique_indexes.data();
  size_t index_count = target.unique_indexes.size();
  const ForeignKey* keys = target.foreign_keys.data();
  size_t key_count = target.foreign_keys.size();
  const char* schema = target.schema.c_str();
  bool had_exclusion = target.has_exclusion;
  return guarded([=] {
    if (!equalTupleDescs(shape, RelationGetDescr(relation))) return false;
    char* schema_now = get_namespace_name(RelationGetNamespace(relation));
    if (!schema_now || strcmp(schema, schema_now) != 0) return false;
    List* oids = RelationGetIndexList(relation);
    size_t found = 0, valid = 0;
    for (size_t i = 0; i < index_count; i++) valid += indexes[i].valid;
    // Other indexes matter only if they are valid, and unique or exclude; let the slow comparison see.
    for (int i = 0; i < list_length(oids); i++) {
      Oid oid = list_nth_oid(oids, i);
      bool known = false;
      for (size_t j = 0; j < index_count; j++) known |= indexes[j].valid && indexes[j].oid == oid;
      HeapTuple tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(oid));
      if (!HeapTupleIsValid(tuple)) return false;
      auto* form = reinterpret_cast<Form_pg_index>(GETSTRUCT(tuple));
      bool counts = form->indisvalid && form->indisready && form->indislive;
      bool matters = counts && (form->indisunique || (form->indisexclusion && !had_exclusion));
      ReleaseSysCache(tuple);
      if (known && counts)
        found++;
      else if (matters)
        return false;
    }
    if (found != valid) return false;
    List* now = RelationGetFKeyList(relation);
    size_t enforced = 0;
    for (int i = 0; i < list_length(now); i++) {
      auto* info = static_cast<ForeignKeyCacheInfo*>(list_nth(now, i));
      if (!foreign_key_counts_raw(info)) continue;
      enforced++;
      Oid oid = info->conoid;
      bool known = false;
      for (size_t j = 0; j < key_count; j++) known |= keys[j].oid == oid;
      if (!known) return false;
    }
    return enforced == key_count;
  });
}

}  // namespace portage
