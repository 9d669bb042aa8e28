// See as_ledger.hpp.
#include "ledger/as_ledger.hpp"

namespace portage::ledger {

Oid ledger_owner() {
  Oid owner = bridge::guarded([] {
    Oid schema = get_namespace_oid("portage", true);
    Oid table = OidIsValid(schema) ? get_relname_relid("pipelines", schema) : InvalidOid;
    HeapTuple tuple = OidIsValid(table) ? SearchSysCache1(RELOID, ObjectIdGetDatum(table)) : nullptr;
    if (!HeapTupleIsValid(tuple)) return InvalidOid;
    Oid found = reinterpret_cast<Form_pg_class>(GETSTRUCT(tuple))->relowner;
    ReleaseSysCache(tuple);
    return found;
  });
  if (!OidIsValid(owner))
    throw bridge::Error(ERRCODE_UNDEFINED_TABLE, "relation \"portage.pipelines\" does not exist")
        .hint("Run CREATE EXTENSION pg_portage in this database.");
  return owner;
}

}  // namespace portage::ledger
