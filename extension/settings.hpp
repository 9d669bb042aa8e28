// The extension's settings (GUCs), defined in module.cpp.
#pragma once

namespace portage::settings {

extern int batch_target;       ///< portage.batch_target, milliseconds
extern int progress_interval;  ///< portage.progress_interval, milliseconds
extern int migrate_limit;      ///< portage.migrate_limit, megabytes
extern int lease_duration;     ///< portage.lease_duration, milliseconds
extern int lock_timeout;       ///< portage.lock_timeout, milliseconds
extern char* admin_role;       ///< portage.admin_role, "" if none
extern char* scope;            ///< portage.scope, "" if not limited

}  // namespace portage::settings
