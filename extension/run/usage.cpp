// See usage.hpp.
#include "run/usage.hpp"

#include "bridge/pg.hpp"

#include <sys/resource.h>

extern "C" {
#include "executor/instrument.h"
}

namespace portage::run {
namespace {

/// Shared buffers that a backend has touched count as its resident memory: only anonymous memory is its own.
int64_t private_memory() {
  FILE* status = std::fopen("/proc/self/status", "r");
  if (!status) return 0;
  char line[128];
  long long kilobytes = 0;
  while (std::fgets(line, sizeof line, status))
    if (std::sscanf(line, "RssAnon: %lld", &kilobytes) == 1) break;
  std::fclose(status);
  return kilobytes * 1024;
}

double milliseconds(const struct timeval& time) {
  return static_cast<double>(time.tv_sec) * 1000 + static_cast<double>(time.tv_usec) / 1000;
}

}  // namespace

Usage usage_now() {
  struct rusage used;
  memset(&used, 0, sizeof used);
  getrusage(RUSAGE_SELF, &used);
  return {milliseconds(used.ru_utime) + milliseconds(used.ru_stime),
          static_cast<int64_t>(pgWalUsage.wal_bytes), private_memory()};
}

}  // namespace portage::run
