// What differs between PostgreSQL 15, 16, 17 and 18, and nothing else: the only file that looks at
// PG_VERSION_NUM. Included by pg.hpp.
#pragma once

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 190000
#error "pg_portage needs PostgreSQL 15, 16, 17 or 18"
#endif

namespace portage::bridge {

// 16 renamed is_member_of_role's SET ROLE meaning: membership alone no longer allows SET ROLE.
inline bool can_set_role(Oid member, Oid role) {
#if PG_VERSION_NUM >= 160000
  return member_can_set_role(member, role);
#else
  return is_member_of_role(member, role);
#endif
}

// 16 has one function for all kinds of objects.
inline bool schema_usage_missing(Oid schema, Oid role) {
#if PG_VERSION_NUM >= 160000
  return object_aclcheck(NamespaceRelationId, schema, role, ACL_USAGE) != ACLCHECK_OK;
#else
  return pg_namespace_aclcheck(schema, role, ACL_USAGE) != ACLCHECK_OK;
#endif
}

inline bool database_connect_missing(Oid database, Oid role) {
#if PG_VERSION_NUM >= 160000
  return object_aclcheck(DatabaseRelationId, database, role, ACL_CONNECT) != ACLCHECK_OK;
#else
  return pg_database_aclcheck(database, role, ACL_CONNECT) != ACLCHECK_OK;
#endif
}

// 16 and 18 added arguments for summarizing indexes and ON CONFLICT. Returns the deferrable unique indexes
// that have met an equal key.
inline List* insert_index_entries(ResultRelInfo* result, TupleTableSlot* slot, EState* executor) {
#if PG_VERSION_NUM >= 160000
  return ExecInsertIndexTuples(result, slot, executor, false, false, nullptr, NIL, false);
#else
  return ExecInsertIndexTuples(result, slot, executor, false, false, nullptr, NIL);
#endif
}

/// A range table of one relation.
struct RangeTable {
  List* tables;
  List* rights;  ///< from 16 on beside the tables
};

/// The range table of a statement that asks for these rights: SELECT of the columns in `selected`, and what
/// `mode` says of those in `inserted`. Raw code.
inline RangeTable range_table_of(Relation relation, int lock, AclMode mode, const int* inserted,
                                 int inserted_count, const int* selected, int selected_count) {
  RangeTable table{NIL, NIL};
  auto* entry = makeNode(RangeTblEntry);
  entry->rtekind = RTE_RELATION;
  entry->relid = RelationGetRelid(relation);
  entry->relkind = relation->rd_rel->relkind;
  entry->rellockmode = lock;
#if PG_VERSION_NUM >= 160000
  RTEPermissionInfo* rights = addRTEPermissionInfo(&table.rights, entry);
#else
  RangeTblEntry* rights = entry;
#endif
  rights->requiredPerms = mode | (selected_count > 0 ? ACL_SELECT : ACL_NO_RIGHTS);
  for (int i = 0; i < inserted_count; i++)
    rights->insertedCols =
        bms_add_member(rights->insertedCols, inserted[i] - FirstLowInvalidHeapAttributeNumber);
  for (int i = 0; i < selected_count; i++)
    rights->selectedCols =
        bms_add_member(rights->selectedCols, selected[i] - FirstLowInvalidHeapAttributeNumber);
  table.tables = list_make1(entry);
  return table;
}

/// Raises 42501 as the executor does, for the current user.
inline void check_rights(const RangeTable& table) {
#if PG_VERSION_NUM >= 160000
  ExecCheckPermissions(table.tables, table.rights, true);
#else
  ExecCheckRTPerms(table.tables, true);
#endif
}

inline void init_range_table(EState* executor, const RangeTable& table) {
#if PG_VERSION_NUM >= 180000
  ExecInitRangeTable(executor, table.tables, table.rights, bms_make_singleton(1));
#elif PG_VERSION_NUM >= 160000
  ExecInitRangeTable(executor, table.tables, table.rights);
#else
  ExecInitRangeTable(executor, table.tables);
#endif
}

// 18 added the scan's instrumentation.
inline IndexScanDesc begin_index_scan(Relation table, Relation index, Snapshot snapshot, int keys) {
#if PG_VERSION_NUM >= 180000
  return index_beginscan(table, index, snapshot, nullptr, keys, 0);
#else
  return index_beginscan(table, index, snapshot, keys, 0);
#endif
}

// 17 and 18 added arguments; 18 has another word for the direction of an order.
inline ForeignPath* foreign_path(PlannerInfo* root, RelOptInfo* rel, double start, double cost, List* order,
                                 List* how) {
#if PG_VERSION_NUM >= 180000
  return create_foreignscan_path(root, rel, nullptr, rel->rows, 0, start, cost, order, nullptr, nullptr, NIL,
                                 how);
#elif PG_VERSION_NUM >= 170000
  return create_foreignscan_path(root, rel, nullptr, rel->rows, start, cost, order, nullptr, nullptr, NIL,
                                 how);
#else
  return create_foreignscan_path(root, rel, nullptr, rel->rows, start, cost, order, nullptr, nullptr, how);
#endif
}
inline bool is_descending(const PathKey* key) {
#if PG_VERSION_NUM >= 180000
  return key->pk_cmptype == COMPARE_GT;
#else
  return key->pk_strategy == BTGreaterStrategyNumber;
#endif
}

// Up to 15 the callback was declared without arguments, which in C++ means none.
inline bool walk_expression(Node* node, bool (*walker)(Node*, void*), void* context) {
#if PG_VERSION_NUM >= 160000
  return expression_tree_walker(node, walker, context);
#else
  return expression_tree_walker(node, reinterpret_cast<bool (*)()>(reinterpret_cast<void (*)()>(walker)),
                                context);
#endif
}

// 18 took away an argument that nobody used.
inline void run_portal(Portal portal, DestReceiver* to) {
  QueryCompletion completion;
#if PG_VERSION_NUM >= 180000
  PortalRun(portal, FETCH_ALL, true, to, to, &completion);
#else
  PortalRun(portal, FETCH_ALL, true, true, to, to, &completion);
#endif
}

// 17 lets a background worker connect as a role without LOGIN.
#if PG_VERSION_NUM >= 170000
inline constexpr uint32 worker_connection_flags = BGWORKER_BYPASS_ROLELOGINCHECK;
inline constexpr bool worker_needs_login = false;
#else
inline constexpr uint32 worker_connection_flags = 0;
inline constexpr bool worker_needs_login = true;
#endif

// 18 added NOT ENFORCED.
inline bool foreign_key_is_enforced([[maybe_unused]] const ForeignKeyCacheInfo& key) {
#if PG_VERSION_NUM >= 180000
  return key.conenforced;
#else
  return true;
#endif
}
inline bool check_is_enforced([[maybe_unused]] const ConstrCheck& check) {
#if PG_VERSION_NUM >= 180000
  return check.ccenforced;
#else
  return true;
#endif
}

}  // namespace portage::bridge
