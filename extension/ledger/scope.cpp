// See scope.hpp; with the SQL-callable function in_scope (sql/00-schema.sql).
#include "ledger/scope.hpp"

#include "bridge/entry.hpp"
#include "bridge/spi.hpp"
#include "settings.hpp"

namespace portage::ledger {
namespace {

using bridge::Error;

std::string_view own_scope() { return settings::scope ? settings::scope : ""; }

[[noreturn]] void refuse() {
  if (own_scope().empty())
    throw Error(ERRCODE_INSUFFICIENT_PRIVILEGE, "this session has no scope")
        .detail("The setting portage.scope_required says that it must have one.")
        .hint("SET portage.scope = '...'; or set_config('portage.scope', ..., true) in each transaction.");
  throw Error(ERRCODE_INSUFFICIENT_PRIVILEGE,
              "this session is limited to the scope \"" + std::string(own_scope()) + "\"")
      .hint("The setting portage.scope says so.");
}

}  // namespace

bool in_scope(std::string_view scope) {
  return own_scope().empty() ? !settings::scope_required : own_scope() == scope;
}

void require_scope(const std::string& scope) {
  if (!in_scope(scope)) refuse();
}

void require_all_scopes(const char* what) {
  if (own_scope().empty() && !settings::scope_required) return;
  throw Error(ERRCODE_INSUFFICIENT_PRIVILEGE, std::string(what) + " concerns all scopes")
      .detail("This session is limited to one (portage.scope), or must have one (portage.scope_required).")
      .hint("Leave it to a session that is not limited.");
}

}  // namespace portage::ledger

using namespace portage;

PORTAGE_FUNCTION(portage_in_scope) {
  return BoolGetDatum(ledger::in_scope(bridge::string_of(fcinfo->args[0].value)));
}
