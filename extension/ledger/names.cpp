// What a pipeline's name means, and to whom. A name is unique per owner, so nobody can take one away from
// others: a bare name means what the user has a right to by its own roles or by an administrator's word,
// never what a stranger offers; `owner/name` means that role's, and nothing else. See pipelines.hpp.
#include "bridge/codes.hpp"
#include "bridge/spi.hpp"
#include "ledger/as_ledger.hpp"
#include "ledger/known_roles.hpp"
#include "ledger/pipelines.hpp"

namespace portage::ledger {
namespace {

using bridge::Error;
using bridge::format;
using bridge::guarded;
using bridge::Result;

/// How a user comes by a pipeline. From `vouched` on a bare name can mean it; the strongest claim decides.
enum class Claim : uint8_t { none, vouched, member, own };

/// A pipeline that a name could mean, as one user stands to it.
struct Candidate {
  int64_t id;
  std::string name;
  Role owner;
  Claim claim = Claim::none;
  int granted = 0;  ///< 0 nothing, 1 read, 2 run
  int level = 0;    ///< the same, with what one may without a grant; 3 all
  std::string address() const { return owner.name + "/" + name; }
};

/// As a superuser would not be by that alone. Of a role that is gone nobody is.
bool really_member(Oid user, Oid role) {
  return is_trusted(role) && guarded([=] { return is_member_of_role_nosuper(user, role); });
}

/// `rows`: pipelines, each with its grants.
std::vector<Candidate> candidates_of(const Result& rows, Oid user) {
  std::vector<Candidate> candidates;
  for (size_t i = 0; i < rows.size(); i++) {
    if (candidates.empty() || candidates.back().id != rows.bigint(i, 1)) {
      Candidate fresh{rows.bigint(i, 1), rows.text(i, 2), role_in(rows, i, 3)};
      if (acts_for(user, fresh.owner.oid)) {
        fresh.level = 3;
        // A membership that lets one act, not one that only lets one grant it to others.
        fresh.claim = user == fresh.owner.oid                ? Claim::own
                      : really_member(user, fresh.owner.oid) ? Claim::member
                                                             : Claim::none;
      }
      candidates.push_back(fresh);
    }
    if (rows.is_null(i, 5)) continue;
    Oid role = rows.oid(i, 5);
    if (OidIsValid(role) ? !really_member(user, role) : is_foreign()) continue;
    Candidate& candidate = candidates.back();
    candidate.granted = std::max(candidate.granted, rows.text(i, 6) == "run" ? 2 : 1);
    candidate.level = std::max(candidate.level, candidate.granted);
    if (rows.boolean(i, 7)) candidate.claim = std::max(candidate.claim, Claim::vouched);
  }
  return candidates;
}

#define PORTAGE_CANDIDATES                                                                      \
  "SELECT p.id, p.name, p.owner, p.owner_name::text, g.role_oid, g.privilege, g.by_admin FROM " \
  "portage.pipelines p LEFT JOIN portage.pipeline_grants g ON g.pipeline_id = p.id WHERE "

std::vector<Candidate> candidates_named(std::string_view name) {
  constinit static bridge::Statement find(PORTAGE_CANDIDATES "p.name = $1 ORDER BY p.id");
  Oid user = GetUserId();
  AsLedger ledger;
  return candidates_of(find.run(name), user);
}

std::optional<Candidate> candidate(int64_t id) {
  constinit static bridge::Statement find(PORTAGE_CANDIDATES "p.id = $1");
  Oid user = GetUserId();
  AsLedger ledger;
  std::vector<Candidate> found = candidates_of(find.run(id), user);
  if (found.empty()) return std::nullopt;
  return found[0];
}

/// What the bare name means: several where it is not clear which.
std::vector<Candidate> meant(const std::vector<Candidate>& candidates) {
  Claim strongest = Claim::vouched;
  for (const Candidate& c : candidates) strongest = std::max(strongest, c.claim);
  std::vector<Candidate> found;
  for (const Candidate& c : candidates)
    if (c.claim == strongest) found.push_back(c);
  return found;
}

/// Of that owner. A role that is gone is known by its last name, which a new one may have taken over.
std::vector<Candidate> of_owner(const std::vector<Candidate>& candidates, std::string_view owner) {
  Oid role = role_named(owner);
  std::vector<Candidate> found;
  for (const Candidate& c : candidates) {
    if (OidIsValid(role) && c.owner.oid == role) return {c};
    if (!OidIsValid(c.owner.oid) && c.owner.name == owner) found = {c};
  }
  return found;
}

constexpr size_t shown_names = 10;

std::string listed(const std::vector<std::string>& names, const char* between) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : between) + ("\"" + name + "\"");
  return text;
}

[[noreturn]] void ambiguous(std::string_view name, const std::vector<Candidate>& several) {
  std::vector<std::string> addresses;
  for (const Candidate& c : several) addresses.push_back(c.address());
  throw Error(ERRCODE_AMBIGUOUS_ALIAS, format("pipeline name \"%s\" is ambiguous", std::string(name).c_str()))
      .detail("It could mean " + listed(addresses, " or ") + ".")
      .hint("Write the owner before the name.");
}

/// `others`: of the same name, whoever owns them.
[[noreturn]] void unknown(std::string_view name, const std::vector<Candidate>& others) {
  refuse_foreign();
  Error error(codes::unknown_pipeline, format("pipeline \"%s\" does not exist", std::string(name).c_str()));
  bool admin = is_admin(GetUserId());
  std::vector<std::string> names;
  for (const Candidate& c : others)
    if (admin || c.level > 0) names.push_back(c.claim == Claim::own ? c.name : c.address());
  if (names.size() > shown_names) names.resize(shown_names);
  if (!names.empty()) throw error.hint("Perhaps you meant " + listed(names, " or ") + ".");
  // Not as the ledger: row level security chooses what may be told.
  Result rows =
      bridge::execute("SELECT portage.pipeline_name(p.id) FROM portage.pipelines p LIMIT 1000", {}, true);
  for (size_t i = 0; i < rows.size(); i++) names.push_back(rows.text(i, 1));
  throw error.hint(nearest_hint(name, names));
}

Candidate resolve(std::string_view name) {
  size_t slash = name.rfind('/');
  bool bare = slash == std::string_view::npos;
  std::vector<Candidate> candidates = candidates_named(bare ? name : name.substr(slash + 1));
  std::vector<Candidate> found = bare ? meant(candidates) : of_owner(candidates, name.substr(0, slash));
  if (found.size() > 1) ambiguous(name, found);
  // Not even its existence is told to those who may not see it.
  if (found.empty() || (found[0].level == 0 && !is_admin(GetUserId()))) unknown(name, candidates);
  return found[0];
}

StoredPipeline usable(const Candidate& c, Need need) {
  // An administrator may do anything but rewrite it (api.cpp): that would be to act as its owner.
  int needed = need == Need::read ? 1 : need == Need::run ? 2 : 3;
  Oid user = GetUserId();
  if (c.level >= needed || is_admin(user)) {
    if (need == Need::run && !OidIsValid(c.owner.oid)) throw owner_is_gone(c.address());
    StoredPipeline pipeline = current_version(c.id);
    pipeline.by_administration = c.claim < Claim::member && c.granted < needed;
    return pipeline;
  }
  if (need == Need::own)
    throw Error(ERRCODE_INSUFFICIENT_PRIVILEGE, format("must be owner of pipeline \"%s\"", c.name.c_str()));
  throw Error(ERRCODE_INSUFFICIENT_PRIVILEGE, format("permission denied for pipeline \"%s\"", c.name.c_str()))
      .hint(format("Ask its owner for: SELECT portage.grant_pipeline(%s, %s, 'run');",
                   bridge::quoted_literal(c.name).c_str(), bridge::quoted_literal(user_name(user)).c_str()));
}

}  // namespace

StoredPipeline find_pipeline(std::string_view name, Need need) { return usable(resolve(name), need); }

StoredPipeline find_pipeline(int64_t id, std::string_view name, Need need) {
  std::optional<Candidate> found = candidate(id);
  if (!found || (found->level == 0 && !is_admin(GetUserId()))) {
    refuse_foreign();
    throw Error(codes::unknown_pipeline, format("pipeline \"%s\" does not exist", std::string(name).c_str()));
  }
  return usable(*found, need);
}

int64_t pipeline_named(std::string_view name) { return resolve(name).id; }

std::optional<std::string> name_of_pipeline(int64_t id, bool visible_only) {
  std::optional<Candidate> found = candidate(id);
  if (!found || (visible_only && found->level == 0 && !is_admin(GetUserId()))) return std::nullopt;
  std::vector<Candidate> bare = meant(candidates_named(found->name));
  return bare.size() == 1 && bare[0].id == id ? found->name : found->address();
}

}  // namespace portage::ledger
