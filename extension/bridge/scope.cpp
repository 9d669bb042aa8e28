// See scope.hpp.
#include "bridge/scope.hpp"

extern "C" {
#include "utils/varlena.h"
}

namespace portage::bridge {

Memory::Memory(const char* name, MemoryContext parent)
    : context_(guarded([=] { return AllocSetContextCreateInternal(parent, name, ALLOCSET_DEFAULT_SIZES); })) {
}

/// Everybody that code could become which outlives the block: by waiting for the commit, or by RESET ROLE.
static bool could_be_all_of_session(Oid user, Oid current) {
  for (Oid other : {current, GetOuterUserId(), GetSessionUserId(), GetAuthenticatedUserId()})
    if (user != other && !guarded([=] { return can_set_role(user, other); })) return false;
  return true;
}

AsUser::AsUser(Oid user, int flags) {
  GetUserIdAndSecContext(&user_, &context_);
  if (!could_be_all_of_session(user, user_)) flags |= SECURITY_RESTRICTED_OPERATION;
  if (user == user_ && (context_ | flags) == context_) return;
  if (flags & SECURITY_RESTRICTED_OPERATION) level_ = NewGUCNestLevel();
  SetUserIdAndSecContext(user, context_ | flags);
}

Oid session_of_current_user() {
  Oid user;
  int context;
  GetUserIdAndSecContext(&user, &context);
  return context == 0 && user == GetOuterUserId() ? GetSessionUserId() : user;
}

Settings& Settings::set(const char* name, const std::string& value) {
  const char* text = value.c_str();
  guarded([=] {
    const char* now = GetConfigOption(name, false, false);
    if (strcmp(now, text) == 0) return;  // to set it and set it back costs more than to look
    (void)set_config_option(name, text, superuser() ? PGC_SUSET : PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
                            true, 0, false);
  });
  return *this;
}

/// A search_path that cannot be read stays as it is: setting it says what is wrong.
static char* temporary_last_raw(const char* path) {
  List* names = NIL;
  if (!SplitIdentifierString(pstrdup(path), ',', &names)) return pstrdup(path);
  StringInfoData text;
  initStringInfo(&text);
  ListCell* cell;
  foreach (cell, names) {
    auto* name = static_cast<const char*>(lfirst(cell));
    if (strcmp(name, "pg_temp") != 0) appendStringInfo(&text, "%s, ", quote_identifier(name));
  }
  appendStringInfoString(&text, "pg_temp");
  return text.data;
}

Settings& Settings::set_path_of_another(const std::string& search_path) {
  const char* path = search_path.c_str();
  return set("search_path", guarded([=] { return temporary_last_raw(path); }));
}

PlainText::PlainText() {
  settings_.set("datestyle", "ISO, MDY").set("intervalstyle", "postgres").set("extra_float_digits", "1");
  settings_.set("bytea_output", "hex").set("timezone", "UTC").set("search_path", "pg_catalog, pg_temp");
  settings_.set("array_nulls", "on").set("xmloption", "content");
  // Of money. A locale is looked for when it is set: not for one that is the same.
  if (!guarded([] { return strncmp(GetConfigOption("lc_monetary", false, false), "C.", 2) == 0; }))
    settings_.set("lc_monetary", "C");
}

}  // namespace portage::bridge
