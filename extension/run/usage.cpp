// See usage.hpp.
#include "run/usage.hpp"

#include "bridge/pg.hpp"

#include <sys/resource.h>
#include <unistd.h>

extern "C" {
#include "executor/instrument.h"
}

namespace portage::run {
namespace {

double milliseconds(const struct timeval& time) {
  return static_cast<double>(time.tv_sec) * 1000 + static_cast<double>(time.tv_usec) / 1000;
}

}  // namespace

/// Shared buffers that a backend has touched count as its resident memory: only anonymous memory is its own.
int64_t private_memory() {
  FILE* pages = std::fopen("/proc/self/statm", "r");
  if (!pages) return 0;
  long long resident = 0, backed = 0;  // of these, by files and shared memory
  if (std::fscanf(pages, "%*d %lld %lld", &resident, &backed) != 2) resident = backed = 0;
  std::fclose(pages);
  return (resident - backed) * sysconf(_SC_PAGESIZE);
}

Usage usage_now() {
  struct rusage used;
  memset(&used, 0, sizeof used);
  getrusage(RUSAGE_SELF, &used);
  return {milliseconds(used.ru_utime) + milliseconds(used.ru_stime),
          static_cast<int64_t>(pgWalUsage.wal_bytes)};
}

}  // namespace portage::run
