// To which scope a session is limited (portage.scope, portage.scope_required): the one place that says what
// an empty setting means.
#pragma once

#include <string>

namespace portage::ledger {

/// Whether the session may see and do something in the scope.
bool in_scope(std::string_view scope);
/// 42501 where it may not.
void require_scope(const std::string& scope);
/// 42501 if the session is limited at all; `what` concerns all scopes.
void require_all_scopes(const char* what);

}  // namespace portage::ledger
