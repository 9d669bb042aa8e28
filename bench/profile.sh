#!/bin/bash
# Where the time of an import (W1), of its repetition (W3) or of snapshots (W2) goes: bench/profile.sh [W1|W2|W3] [ITEMS].
# Prints text, as README.md shows it. Needs perf.
set -euo pipefail
command -v perf >/dev/null || { echo "perf is not installed (Debian: linux-perf)" >&2; exit 1; }
perf record -q -o /dev/null -e cpu-clock true 2>/dev/null ||
  { echo "perf may not record here: see /proc/sys/kernel/perf_event_paranoid" >&2; exit 1; }
exec /usr/bin/python3 "$(dirname "$0")/profile.py" "$@"
