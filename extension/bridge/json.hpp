// JSON text from C++ strings: the little that composing details and answers needs.
#pragma once

#include "bridge/error.hpp"

namespace portage::bridge {

/// A JSON string literal, quotes included. The text must be valid in the server's encoding.
inline std::string json_quoted(std::string_view text) {
  std::string out = "\"";
  for (unsigned char c : text) {
    if (c == '"' || c == '\\')
      (out += '\\') += static_cast<char>(c);
    else if (c < 0x20)
      out += format("\\u%04x", c);
    else
      out += static_cast<char>(c);
  }
  return out + "\"";
}

}  // namespace portage::bridge
