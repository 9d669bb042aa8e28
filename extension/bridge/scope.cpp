// See scope.hpp.
#include "bridge/scope.hpp"

namespace portage::bridge {

Memory::Memory(const char* name, MemoryContext parent)
    : context_(guarded([=] { return AllocSetContextCreateInternal(parent, name, ALLOCSET_DEFAULT_SIZES); })) {}

Settings& Settings::set(const char* name, const std::string& value) {
  const char* text = value.c_str();
  guarded([=] {
    (void)set_config_option(name, text, superuser() ? PGC_SUSET : PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
                            true, 0, false);
  });
  return *this;
}

}  // namespace portage::bridge
