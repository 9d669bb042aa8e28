// How a JSON object of options is read: of a run, a schedule, a group. Each has one table that says which
// options there are, and how each is read.
#pragma once

#include <nlohmann/json.hpp>

#include "bridge/codes.hpp"
#include "bridge/error.hpp"
#include "pipeline/definition.hpp"

namespace portage::run {

/// Reads each option as its line of the table says. PZ003 for what is no object (with an example), and for
/// unknown names (with the nearest ones, or `otherwise`). `of`: "a run".
template <class Known, size_t N, class Into>
void read_options(const std::string& json, const std::string& of, const std::string& example,
                  const Known (&known)[N], Into& into, const std::string& otherwise = "") {
  auto document = nlohmann::json::parse(json.empty() ? "{}" : json, nullptr, false);
  if (!document.is_object())
    throw bridge::Error(codes::invalid_option, "the options of " + of + " must be a JSON object")
        .hint("For example: '" + example + "'.");
  std::vector<std::string> names;
  for (const Known& one : known) names.emplace_back(one.name);
  for (const auto& [name, value] : document.items()) {
    const Known* match = nullptr;
    for (const Known& one : known)
      if (name == one.name) match = &one;
    if (!match) {
      std::string hint = nearest_hint(name, names);
      throw bridge::Error(codes::invalid_option, "unknown option \"" + name + "\"")
          .hint(hint.empty() ? otherwise : hint);
    }
    match->read(into, name, value);
  }
}

}  // namespace portage::run
