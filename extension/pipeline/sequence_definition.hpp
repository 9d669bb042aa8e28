// The key "sequences" of a definition, which is asked for only where a sequence is behind.
#pragma once

#include <string_view>

namespace portage {

/// Whether a definition, which has been checked, leaves the sequences of its columns where they are.
bool leaves_sequences(std::string_view json);

}  // namespace portage
