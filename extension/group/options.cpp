// See options.hpp. One table says which options there are and how each is read.
#include <nlohmann/json.hpp>

#include "group/options.hpp"

#include "bridge/codes.hpp"
#include "bridge/error.hpp"
#include "pipeline/definition.hpp"
#include "run/options.hpp"

namespace portage::group {
namespace {

using bridge::Error;
using Json = nlohmann::json;

[[noreturn]] void fault(const std::string& name, const std::string& wanted) {
  throw Error(codes::invalid_option, "option \"" + name + "\" must be " + wanted)
      .hint("See docs/reference.md for the options of a group.");
}

struct Known {
  const char* name;
  void (*read)(Options&, const std::string&, const Json&);
};

constexpr Known known[] = {
    {"scope",
     [](Options& o, const std::string& n, const Json& v) {
       if (!v.is_string()) fault(n, "a string");
       o.scope = v.get<std::string>();
     }},
    {"workers",
     [](Options& o, const std::string& n, const Json& v) {
       if (!v.is_number_integer() || v.get<int64_t>() < 1 || v.get<int64_t>() > 64)
         fault(n, "a whole number from 1 to 64");
       o.workers = v.get<int>();
     }},
    {"background",
     [](Options& o, const std::string& n, const Json& v) {
       if (!v.is_boolean()) fault(n, "true or false");
       o.background = v.get<bool>();
     }},
    {"options",
     [](Options& o, const std::string& n, const Json& v) {
       if (!v.is_object()) fault(n, "an object: the options of the runs");
       o.run_options = v.dump();
     }},
};

}  // namespace

Options parse_options(const std::string& json) {
  Json document = Json::parse(json.empty() ? "{}" : json, nullptr, false);
  if (!document.is_object())
    throw Error(codes::invalid_option, "the options of a group must be a JSON object")
        .hint("For example: '{\"workers\": 4, \"options\": {\"verify\": false}}'.");
  std::vector<std::string> names;
  for (const Known& one : known) names.emplace_back(one.name);
  Options options;
  for (const auto& [name, value] : document.items()) {
    const Known* match = nullptr;
    for (const Known& one : known)
      if (name == one.name) match = &one;
    if (!match) {
      std::string hint = nearest_hint(name, names);
      throw Error(codes::invalid_option, "unknown option \"" + name + "\"")
          .hint(hint.empty() ? "The options of the runs go into \"options\"." : hint);
    }
    match->read(options, name, value);
  }
  run::parse_options(options.run_options);
  return options;
}

}  // namespace portage::group
