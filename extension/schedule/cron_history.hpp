// What pg_cron writes down about each heartbeat, which nobody else trims.
#pragma once

namespace portage::schedule {

/// Deletes what pg_cron has noted of the job "CALL portage.tick()" more than portage.cron_history days ago,
/// as far as the current user may; never an error. Once a minute at most in a process. Needs SPI.
void trim_cron_history();

}  // namespace portage::schedule
