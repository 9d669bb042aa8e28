// See parallel.hpp.
#include "run/parallel.hpp"

#include "bridge/spi.hpp"

namespace portage::run {
namespace {

bool includes(const std::vector<int>& all, const std::vector<int>& some) {
  return std::all_of(some.begin(), some.end(),
                     [&](int one) { return std::find(all.begin(), all.end(), one) != all.end(); });
}

/// Items meet by what `match` compares. An index that could refuse an item for any other reason lets in
/// whoever comes first.
std::string index_reason(const Plan& plan) {
  const std::vector<int>&mapped = plan.mapped(), &match = plan.match();
  bool matched = match.empty();
  for (const UniqueIndex& index : plan.target().unique_indexes) {
    if (!index.valid) continue;
    std::string name = "unique index " + bridge::quoted(index.name);
    if (index.partial || index.expressions) return name + " covers expressions or some of the rows only";
    bool ours = std::any_of(index.attnums.begin(), index.attnums.end(), [&](int attnum) {
      return std::find(mapped.begin(), mapped.end(), attnum) != mapped.end();
    });
    if (!ours) continue;
    if (match.empty() || !includes(index.attnums, match)) return name + " is not what \"match\" compares";
    bool nullable = std::any_of(index.attnums.begin(), index.attnums.end(),
                                [&](int attnum) { return !plan.target().column(attnum).not_null; });
    if (index.nulls_not_distinct && nullable) return name + " takes nulls for equal";
    if (!index.immediate) return name + " is deferrable";
    matched = matched || includes(match, index.attnums);
  }
  return matched ? "" : "no unique index covers the columns of \"match\"";
}

}  // namespace

std::string order_reason(const Plan& plan, const Options& options, const load::Policy& policy,
                         const std::vector<ledger::Part>& parts) {
  const Target& target = plan.target();
  if (options.dry_run) return "a dry run predicts in the order of the items";
  if (policy.on_conflict == OnConflict::fail) return "\"on_conflict\": \"fail\" ends with the first conflict";
  if (policy.duplicates == Duplicates::last)
    return "with \"duplicates\": \"last\" items take the place of those before them";
  for (const ledger::Part& part : parts)
    if (part.kind == "query")
      return "what is read of a query, or a table, may change while it is read (snapshot => true copies it)";
  if (target.relkind != RELKIND_RELATION && target.relkind != RELKIND_PARTITIONED_TABLE)
    return "the target is no ordinary table";
  if (target.relkind == RELKIND_RELATION && target.has_children)
    return "other tables inherit from the target";
  if (target.has_rules) return "the target has rules";
  if (target.has_exclusion) return "the target has an exclusion constraint";
  for (const ForeignKey& key : target.foreign_keys)
    if (key.parent == target.oid) return "rows of the target refer to each other";
  Oid oid = target.oid;
  bool may_take_back = bridge::guarded([=] {
    return pg_class_aclcheck(oid, GetUserId(), ACL_DELETE) == ACLCHECK_OK &&
           pg_class_aclcheck(oid, GetUserId(), ACL_UPDATE) == ACLCHECK_OK;
  });
  if (!may_take_back)
    return "items that came too early are taken back, which needs DELETE and UPDATE on the target";
  bridge::Settings plain_path;
  plain_path.set("search_path", "pg_catalog, pg_temp");
  bridge::Result triggers = bridge::execute(
      "SELECT tgname FROM pg_catalog.pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'D' AND (tgrelid = "
      "$1 "
      "OR tgrelid IN (SELECT relid FROM pg_catalog.pg_partition_tree($1))) ORDER BY tgname LIMIT 1",
      {bridge::param_oid(oid)});
  if (!triggers.empty())
    return "trigger " + bridge::quoted(triggers.text(0, 1)) + " may see the order of the items";
  return "";
}

std::string one_worker_reason(const Plan& plan, const Options& options, const load::Policy& policy,
                              const std::vector<ledger::Part>& parts) {
  std::string reason = order_reason(plan, options, policy, parts);
  if (reason.empty() && plan.refers_to_itself()) reason = "the pipeline refers to itself";
  return reason.empty() ? index_reason(plan) : reason;
}

}  // namespace portage::run
