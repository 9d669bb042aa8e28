// What this backend has used so far: for the report of a run.
#pragma once

#include <cstdint>

namespace portage::run {

struct Usage {
  double cpu_ms;      ///< of the process, user and system
  int64_t wal_bytes;  ///< written by this backend
};

Usage usage_now();
/// Bytes of private memory now (RssAnon); 0 where the system does not tell.
int64_t private_memory();

}  // namespace portage::run
