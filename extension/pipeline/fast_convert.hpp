// Short ways from text to Datum for the common types. Each accepts only what it is certain about and declines
// the rest; it never raises, but for lack of memory.
#pragma once

#include "pipeline/convert.hpp"

namespace portage {

/// Raw code. False: the input function must decide. The Datum is in the current memory context.
bool fast_convert_raw(ConvertKind kind, int32 typmod, const char* text, size_t size, Datum* value);

}  // namespace portage
