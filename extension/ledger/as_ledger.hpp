// Acting as the owner of portage's own tables. The one way to them: callers decide beforehand, as the user
// who asks, what that user may do.
#pragma once

#include "bridge/scope.hpp"

namespace portage::ledger {

/// The role that owns the ledger's tables. Throws when the extension is not installed in this database.
Oid ledger_owner();

/// For its lifetime statements run as the ledger's owner, with search_path = pg_catalog, pg_temp. Must end
/// before the subtransaction in which it began does, and must not span a commit.
class AsLedger {
 public:
  AsLedger() : user_(ledger_owner()) { settings_.set("search_path", "pg_catalog, pg_temp"); }

 private:
  bridge::AsUser user_;
  bridge::Settings settings_;
};

}  // namespace portage::ledger
