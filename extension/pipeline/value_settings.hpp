// The settings that have a say in what a text means as a value. A version of a pipeline pins them, so that an
// item becomes the same row whoever runs it, wherever: to what COPY would take in the session in which the
// pipeline was created, unless the definition says otherwise.
#pragma once

#include "pipeline/definition.hpp"

#include "bridge/scope.hpp"

namespace portage {

/// By name, "datestyle" among them ("ISO, DMY": what dates become as text is always ISO). TimeZone is apart.
using ValueSettings = std::map<std::string, std::string>;

/// Those of a new version: the definition's, else those of the version before, else the session's. PZ001 for
/// a value that PostgreSQL does not take. Nothing is checked that the definition does not say.
ValueSettings value_settings(const Definition&, const ValueSettings* before);

/// Sets them, and those on which texts hang that values become, for a block. `of_sql`: also those that only
/// functions look at.
void pin_value_settings(bridge::Settings&, const std::string& timezone, const ValueSettings&, bool of_sql);

}  // namespace portage
