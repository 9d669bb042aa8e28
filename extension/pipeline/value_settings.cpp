// See value_settings.hpp.
#include "pipeline/value_settings.hpp"

#include "bridge/codes.hpp"

namespace portage {

using bridge::Error;
using bridge::guarded;

namespace {

std::string current(const char* name) {
  return guarded([=] { return GetConfigOption(name, false, false); });
}

/// The order of day, month and year is all of it that readings hang on.
std::string iso(const std::string& datestyle) {
  size_t comma = datestyle.rfind(' ');
  return "ISO, " + (comma == std::string::npos ? datestyle : datestyle.substr(comma + 1));
}

/// The value as PostgreSQL spells it.
std::string checked(const std::string& name, const std::string& value, const std::string& place) {
  try {
    bridge::Settings settings;
    settings.set(name.c_str(), value);
    return current(name.c_str());
  } catch (const Error& error) {
    throw Error(codes::invalid_definition, error.message()).detail("at " + place).hint(error.report().hint);
  }
}

/// Those that only functions look at: to_tsvector(), to_char() and the like.
bool is_of_functions(const std::string& name) {
  return name == "default_text_search_config" || name == "lc_numeric" || name == "lc_time";
}

}  // namespace

ValueSettings value_settings(const Definition& definition, const ValueSettings* before) {
  ValueSettings settings;
  auto known = [&](const std::string& name) -> std::optional<std::string> {
    if (!before) return std::nullopt;
    auto found = before->find(name);
    return found == before->end() ? std::nullopt : std::optional(found->second);
  };
  if (!definition.datestyle.empty())
    settings["datestyle"] = iso(checked("datestyle", definition.datestyle, "datestyle"));
  else
    settings["datestyle"] = known("datestyle").value_or(iso(current("datestyle")));
  for (const std::string& name : value_setting_names) {
    auto said = definition.settings.find(name);
    if (said != definition.settings.end())
      settings[name] = checked(name, said->second, "settings." + name);
    else
      settings[name] = known(name).value_or(current(name.c_str()));
  }
  return settings;
}

void pin_value_settings(bridge::Settings& settings, const std::string& timezone, const ValueSettings& values,
                        bool of_sql) {
  struct Setting {
    const char* name;
    const char* value;
    bool differs;
  };
  std::vector<Setting> all{{"timezone", timezone.c_str(), false},
                           {"extra_float_digits", "1", false},
                           {"bytea_output", "hex", false},
                           {"xmlbinary", "base64", false},
                           {"quote_all_identifiers", "off", false}};
  for (const auto& [name, value] : values)
    if (of_sql || !is_of_functions(name)) all.push_back({name.c_str(), value.c_str(), false});
  Setting* first = all.data();
  size_t count = all.size();
  guarded([=] {  // mostly they are as they should be: looked at together
    for (size_t i = 0; i < count; i++)
      first[i].differs = strcmp(GetConfigOption(first[i].name, false, false), first[i].value) != 0;
  });
  for (const Setting& setting : all)
    if (setting.differs) settings.set(setting.name, setting.value);
}

}  // namespace portage
