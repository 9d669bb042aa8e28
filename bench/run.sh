#!/bin/bash
# make bench: what it measures, and by which variables it is steered, stands in README.md.
set -euo pipefail
exec /usr/bin/python3 "$(dirname "$0")/bench.py"
