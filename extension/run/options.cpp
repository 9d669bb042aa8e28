// See options.hpp. One table says which options there are and how each is read.
#include <nlohmann/json.hpp>

#include "run/options.hpp"

#include "run/option_table.hpp"

namespace portage::run {
namespace {

using bridge::Error;
using Json = nlohmann::json;

[[noreturn]] void fault(const std::string& name, const std::string& wanted) {
  throw Error(codes::invalid_option, "option \"" + name + "\" must be " + wanted)
      .hint("See docs/reference.md for the options of a run.");
}

int64_t bytes_or_count(const std::string& name, const Json& value, int64_t least) {
  if (!value.is_number_integer() || value.get<int64_t>() < least)
    fault(name, "a whole number of at least " + std::to_string(least));
  return value.get<int64_t>();
}

bool flag(const std::string& name, const Json& value) {
  if (!value.is_boolean()) fault(name, "true or false");
  return value.get<bool>();
}

std::optional<double> percent(const Json& value) {
  if (!value.is_string()) return std::nullopt;
  std::string text = value.get<std::string>();
  double number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() - 1 || *end != '%' ||
      !(number >= 0 && number <= 100))
    return std::nullopt;
  return number / 100;
}

/// Options of later stages: refused unless given as what happens anyway.
void only(const std::string& name, const Json& value, const Json& what_happens) {
  if (value == what_happens) return;
  throw Error(ERRCODE_FEATURE_NOT_SUPPORTED,
              "option \"" + name + "\": this version does not support " + value.dump())
      .hint("Leave it out, or set it to " + what_happens.dump() + ".");
}

using Reader = void (*)(Options&, const std::string&, const Json&);

struct Known {
  const char* name;
  Reader read;
};

constexpr Known known[] = {
    {"batch_size",
     [](Options& o, const std::string& n, const Json& v) {
       if (v.is_string() && v.get<std::string>() == "auto")
         o.batch_size = 0;
       else if (v.is_number_integer() && v.get<int64_t>() >= 1 && v.get<int64_t>() <= 1000000)
         o.batch_size = v.get<int64_t>();
       else
         fault(n, "\"auto\" or a whole number from 1 to 1000000");
     }},
    {"incremental", [](Options& o, const std::string& n, const Json& v) { o.incremental = flag(n, v); }},
    {"on_conflict",
     [](Options& o, const std::string& n, const Json& v) {
       if (v.is_string()) o.on_conflict = on_conflict_named(v.get<std::string>());
       if (!o.on_conflict) fault(n, "\"skip\", \"overwrite\", \"newest\", \"merge\", \"ask\" or \"fail\"");
     }},
    {"max_rejects",
     [](Options& o, const std::string& n, const Json& v) {
       if (v.is_number_integer() && v.get<int64_t>() >= 0)
         o.max_rejects = v.get<int64_t>();
       else if (!(o.max_reject_share = percent(v)))
         fault(n, "a whole number or a percentage such as \"5%\"");
     }},
    {"keep_payload", [](Options& o, const std::string& n, const Json& v) { o.keep_payload = flag(n, v); }},
    {"max_item_bytes",
     [](Options& o, const std::string& n, const Json& v) {
       o.max_item_bytes = bytes_or_count(n, v, 1);
       if (o.max_item_bytes > (int64_t{1} << 29)) fault(n, "at most 536870912 (512 MB)");
     }},
    {"max_part_bytes",
     [](Options& o, const std::string& n, const Json& v) { o.max_part_bytes = bytes_or_count(n, v, 1); }},
    {"skip_large_parts",
     [](Options& o, const std::string& n, const Json& v) { o.skip_large_parts = flag(n, v); }},
    {"limit", [](Options& o, const std::string& n, const Json& v) { o.limit = bytes_or_count(n, v, 0); }},
    {"sample",
     [](Options& o, const std::string& n, const Json& v) {
       if (!(o.sample = percent(v))) fault(n, "a percentage such as \"1%\"");
     }},
    {"raise", [](Options& o, const std::string& n, const Json& v) { o.raise = flag(n, v); }},
    {"dry_run", [](Options& o, const std::string& n, const Json& v) { o.dry_run = flag(n, v); }},
    {"validate_first",
     [](Options& o, const std::string& n, const Json& v) { o.validate_first = flag(n, v); }},
    {"on_failure",
     [](Options& o, const std::string& n, const Json& v) {
       if (v != "keep" && v != "rollback") fault(n, "\"keep\" or \"rollback\"");
       o.rollback_on_failure = v == "rollback";
     }},
    {"verify", [](Options& o, const std::string& n, const Json& v) { o.verify = flag(n, v); }},
    {"workers",
     [](Options& o, const std::string& n, const Json& v) {
       if (!v.is_number_integer() || v.get<int64_t>() < 1 || v.get<int64_t>() > 64)
         fault(n, "a whole number from 1 to 64");
       o.workers = v.get<int>();
     }},
    {"backup", [](Options&, const std::string& n, const Json& v) { only(n, v, false); }},
    {"initial_load", [](Options& o, const std::string& n, const Json& v) { o.initial_load = flag(n, v); }},
    {"notify", [](Options&, const std::string& n, const Json& v) { only(n, v, false); }},
    {"retry_attempts",
     [](Options& o, const std::string& n, const Json& v) {
       if (!v.is_number_integer() || v.get<int64_t>() < 0 || v.get<int64_t>() > 100)
         fault(n, "a whole number from 0 to 100");
       o.retry_attempts = v.get<int>();
     }},
};

}  // namespace

Options parse_options(const std::string& json) {
  Options options;
  read_options(json, "a run", "{\"batch_size\": 1000}", known, options);
  const char* other = options.dry_run ? "dry_run" : options.workers > 1 ? "workers" : nullptr;
  if (options.initial_load && other)
    throw Error(codes::invalid_option,
                std::string("options \"initial_load\" and \"") + other + "\" exclude each other")
        .hint(options.dry_run ? "A dry run writes nothing: leave initial_load out."
                              : "An initial load has one worker: leave one of the two out.");
  return options;
}

}  // namespace portage::run
