// See scope.hpp.
#include "bridge/scope.hpp"

namespace portage::bridge {

Memory::Memory(const char* name, MemoryContext parent)
    : context_(guarded([=] { return AllocSetContextCreateInternal(parent, name, ALLOCSET_DEFAULT_SIZES); })) {
}

AsUser::AsUser(Oid user, int flags) {
  GetUserIdAndSecContext(&user_, &context_);
  Oid previous = user_;
  if (user != previous && !guarded([=] { return can_set_role(user, previous); }))
    flags |= SECURITY_RESTRICTED_OPERATION;
  if (user == previous && (context_ | flags) == context_) return;
  if (flags & SECURITY_RESTRICTED_OPERATION) level_ = NewGUCNestLevel();
  SetUserIdAndSecContext(user, context_ | flags);
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

}  // namespace portage::bridge
