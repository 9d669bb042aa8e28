// See sensitivity.hpp.
#include "pipeline/sensitivity.hpp"

namespace portage {
namespace {

/// One leads to the other, or to what holds it.
bool meet(const formats::Path& a, const formats::Path& b) {
  size_t n = std::min(a.steps.size(), b.steps.size());
  return std::equal(a.steps.begin(), a.steps.begin() + static_cast<std::ptrdiff_t>(n), b.steps.begin());
}

bool tells(const ValueSource& source, const std::vector<formats::Path>& sensitive) {
  if (source.kind == ValueSource::Kind::sql) return true;
  return source.kind == ValueSource::Kind::path &&
         std::any_of(sensitive.begin(), sensitive.end(),
                     [&](const formats::Path& path) { return meet(path, source.path); });
}

}  // namespace

Sensitivity sensitivity_of(const Definition& definition, const Target& target, const std::vector<int>& key) {
  Sensitivity found;
  const std::vector<formats::Path>& sensitive = definition.sensitive;
  if (sensitive.empty()) return found;
  for (const formats::Path& path : sensitive) found.paths.push_back(formats::to_text(path));
  for (const ValueSource& part : definition.legacy_id) found.id = found.id || tells(part, sensitive);
  for (int attnum : key) {
    const TargetColumn& column = target.column(attnum);
    found.key = found.key || column.generated;
    for (const ColumnMapping& mapping : definition.columns)
      if (mapping.column == column.name) found.key = found.key || tells(mapping.source, sensitive);
  }
  return found;
}

}  // namespace portage
