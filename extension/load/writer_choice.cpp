// See writer_choice.hpp.
#include "load/writer_choice.hpp"

#include "load/fast_writer.hpp"
#include "pipeline/target_reader.hpp"
#include "settings.hpp"

extern "C" {
#include "catalog/catalog.h"
#include "utils/rls.h"
}

namespace portage::load {

const char* obstacle_raw(Relation relation, bool has_exclusion, int natts) {
  switch (relation->rd_rel->relkind) {
    case RELKIND_RELATION:
      break;
    case RELKIND_PARTITIONED_TABLE:
      return "the target is partitioned";
    case RELKIND_VIEW:
      return "the target is a view";
    case RELKIND_FOREIGN_TABLE:
      return "the target is a foreign table";
    default:
      return "the target is not an ordinary table";
  }
  if (IsSystemRelation(relation)) return "the target is a system table";
  if (relation->rd_tableam != GetHeapamTableAmRoutine())
    return "the target has a table access method of its own";
  if (relation->rd_rel->relhassubclass) return "other tables inherit from the target";
  if (has_write_rules(relation)) return "rules rewrite what is written to the target";
  if (check_enable_rls(RelationGetRelid(relation), InvalidOid, true) == RLS_ENABLED)
    return "row level security applies to this role";
  TargetTriggers triggers = triggers_of(relation);
  if (triggers.insert_before_row || triggers.insert_instead_row)
    return "a trigger fires before rows are inserted into the target";
  if (triggers.insert_before_statement || triggers.insert_after_statement)
    return "a trigger fires once per statement on the target";
  if (triggers.transition_tables) return "a trigger on the target reads transition tables";
  if (has_exclusion) return "the target has an exclusion constraint";
  TupleDesc shape = RelationGetDescr(relation);
  if (shape->natts != natts) return "the target has changed";
  for (int i = 0; i < natts; i++) {
    char generated = TupleDescAttr(shape, i)->attgenerated;
    if (generated != '\0' && generated != ATTRIBUTE_GENERATED_STORED)
      return "the target has generated columns that are not stored";
  }
  return nullptr;
}

WriterChoice choose_writer(const Target& target) {
  if (settings::writer == settings::Writers::sql) return {"sql", "portage.writer is sql"};
  Oid oid = target.oid;
  bool has_exclusion = target.has_exclusion;
  int natts = target.natts;
  const char* obstacle = bridge::guarded([=] {
    Relation relation = table_open(oid, AccessShareLock);
    const char* found = obstacle_raw(relation, has_exclusion, natts);
    table_close(relation, NoLock);
    return found;
  });
  if (obstacle) return {"sql", obstacle};
  return {"fast", "the target is an ordinary table"};
}

std::unique_ptr<Writer> make_writer(Plan& plan, const std::vector<int>& hash_columns) {
  std::unique_ptr<Writer> writer = make_sql_writer(plan, hash_columns);
  if (choose_writer(plan.target()).name == "sql") return writer;
  return make_fast_writer(plan, hash_columns, std::move(writer));
}

}  // namespace portage::load
