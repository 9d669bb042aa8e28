// Which class an error is told under: validation, processing, database or system. One table, from the rule
// that failed or else the SQLSTATE.
#pragma once

#include <string_view>

namespace portage {

/// The error_class of an issue. `rule`: ours ("conversion"), the definition's, or ""; `sqlstate`: five
/// characters.
std::string_view error_class(std::string_view rule, std::string_view sqlstate);

}  // namespace portage
