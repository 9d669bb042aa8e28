// See data_version.hpp.
#include "run/data_version.hpp"

#include "bridge/codes.hpp"
#include "bridge/discretion.hpp"
#include "bridge/error.hpp"
#include "run/source.hpp"

namespace portage::run {
namespace {

/// The scalar at `path` of a JSON document, without holding the document.
std::optional<std::string> version_in_document(int64_t run_id, const ledger::Part& part, const Plan& plan,
                                               const formats::Path& path) {
  formats::Options options;
  options.items = path;
  options.scalar_items = true;
  options.paths = {formats::Path{}};
  std::unique_ptr<OpenPart> open = open_part(run_id, part, plan, options, nullptr);
  formats::Arena arena;
  formats::Record record;
  if (!open->reader().next(arena, record) || record.fault) return std::nullopt;
  const formats::Field& field = record.fields[0];
  if (field.kind == formats::Kind::missing || field.kind == formats::Kind::null) return std::nullopt;
  return std::string(field.text);
}

}  // namespace

std::optional<std::string> data_version_of(int64_t run_id, const ledger::Part& part, const Plan& plan) {
  const std::optional<DataVersion>& wanted = plan.definition().data_version;
  if (part.data_version || !wanted || plan.definition().format != Format::json || part.kind == "query")
    return part.data_version;
  return version_in_document(run_id, part, plan, wanted->from);
}

void check_data_version(int64_t run_id, const ledger::Part& part, const Plan& plan) {
  const DataVersion& wanted = *plan.definition().data_version;
  std::optional<std::string> version = data_version_of(run_id, part, plan);
  if (version && std::find(wanted.accept.begin(), wanted.accept.end(), *version) != wanted.accept.end())
    return;
  std::string accepted;
  for (const std::string& one : wanted.accept) (accepted += accepted.empty() ? "" : ", ") += one;
  throw bridge::Error(codes::unknown_data_version,
                      version ? "data version \"" + bridge::quotable(*version) + "\" of part \"" + part.name +
                                    "\" is not accepted"
                              : "part \"" + part.name + "\" does not tell its data version")
      .detail("The pipeline accepts " + accepted + ".")
      .hint(
          "Nothing was written. Extend \"data_version\" with portage.replace_pipeline(), or give "
          "data_version when "
          "submitting.");
}

}  // namespace portage::run
