#!/bin/bash
# Installs what is missing of docker/packages.txt; does nothing when nothing is. `make deps` and .ci/run call it:
# a script rather than a make recipe, because on a fresh machine make itself is on the list.
# PG_MAJOR chooses the server (default: the one of pg_config, else the newest of 15 to 18 that apt knows).
set -euo pipefail
cd "$(dirname "$0")/.."
export DEBIAN_FRONTEND=noninteractive

command -v apt-get >/dev/null || { echo "make deps knows only apt; please install by hand what docker/packages.txt lists" >&2; exit 1; }
if [ "$(id -u)" = 0 ]; then
  as_root=()
elif command -v sudo >/dev/null; then
  as_root=(sudo --preserve-env=DEBIAN_FRONTEND)
else
  as_root=(no_root)
fi
no_root() { echo "installing packages needs root: run make deps as root, or install sudo" >&2; exit 1; }

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

updated=
update() {
  [ -z "$updated" ] || return 0
  echo "deps: apt-get update"
  "${as_root[@]}" apt-get -q -q update
  updated=1
}

newest_major() {
  local major
  for major in 18 17 16 15; do
    if [ -n "$(apt-cache show "postgresql-server-dev-$major" 2>/dev/null)" ]; then
      echo "$major"
      return
    fi
  done
}

major=${PG_MAJOR:-}
[ -n "$major" ] || major=$("${PG_CONFIG:-pg_config}" --version 2>/dev/null | sed -n 's/^PostgreSQL \([0-9]*\).*/\1/p') || true
case $major in 15 | 16 | 17 | 18) ;; *) major=$(newest_major) ;; esac
if [ -z "$major" ]; then
  update
  major=$(newest_major)
fi
[ -n "$major" ] || { echo "apt knows no PostgreSQL between 15 and 18" >&2; exit 1; }

missing=()
while read -r package; do
  installed "$package" || missing+=("$package")
done < <(sed -e 's/#.*//' -e "s/@PG_MAJOR@/$major/" docker/packages.txt | awk 'NF { print $1 }')

if [ ${#missing[@]} = 0 ]; then
  echo "deps: everything in docker/packages.txt is installed (PostgreSQL $major)"
  exit
fi
update
echo "deps: installing ${missing[*]}"
"${as_root[@]}" apt-get install -q -q -y --no-install-recommends "${missing[@]}"
