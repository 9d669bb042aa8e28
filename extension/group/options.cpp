// See options.hpp. One table says which options there are and how each is read.
#include <nlohmann/json.hpp>

#include "group/options.hpp"

#include "run/option_table.hpp"
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
  Options options;
  run::read_options(json, "a group", "{\"workers\": 4, \"options\": {\"verify\": false}}", known, options,
                    "The options of the runs go into \"options\".");
  run::parse_options(options.run_options);
  return options;
}

}  // namespace portage::group
