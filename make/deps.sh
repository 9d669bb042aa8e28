#!/bin/bash
# make/deps.sh [PART...]: installs what is missing of docker/packages.txt, all of it or the parts named; does nothing when
# nothing is missing. `make deps`, `make demo`, `make check` and .ci/run call it: a script rather than a make recipe, because
# on a fresh machine make itself is on the list.
# PG_MAJOR chooses the server (default: the one of pg_config, else the newest of 15 to 18 that apt knows).
set -euo pipefail
cd "$(dirname "$0")/.."
export DEBIAN_FRONTEND=noninteractive

parts=("$@")
[ $# != 0 ] || mapfile -t parts < <(sed -n 's/^\[\(.*\)\]$/\1/p' docker/packages.txt)

# A server that does not come from Debian's packages is as good, if it can be built for and started.
pg_config=${PG_CONFIG:-$(command -v pg_config || printf '%s\n' /usr/lib/postgresql/1[5678]/bin/pg_config | tail -n 1)}
own_server=
if [ -f "$("$pg_config" --pgxs 2>/dev/null)" ] && [ -x "$("$pg_config" --bindir)/initdb" ]; then own_server=yes; fi

if ! command -v apt-get >/dev/null; then
  # Elsewhere people know their own packages; without a server nothing can begin.
  [ $# = 0 ] || [ -z "$own_server" ] || exit 0
  echo "only apt is known here; please install by hand what docker/packages.txt lists (NO_DEPS=1: go on without)" >&2
  exit 1
fi

# as_root COMMAND...: by sudo where that is needed.
if [ "$(id -u)" = 0 ]; then
  sudo=()
elif command -v sudo >/dev/null; then
  sudo=(sudo "DEBIAN_FRONTEND=$DEBIAN_FRONTEND")
else
  sudo=(no_sudo)
fi
as_root() {
  if [ "${sudo[0]:-}" = no_sudo ]; then
    echo "this needs root, and there is no sudo; type as root: $*" >&2
    exit 1
  fi
  echo "deps: ${sudo[*]:+${sudo[*]} }$*"
  "${sudo[@]}" "$@"
}

updated=
update() {
  [ -z "$updated" ] || return 0
  as_root apt-get -q -q update
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
[ -n "$major" ] || major=$("$pg_config" --version 2>/dev/null | sed -n 's/^PostgreSQL \([0-9]*\).*/\1/p') || true
case $major in 15 | 16 | 17 | 18) ;; *) major=$(newest_major) ;; esac
if [ -z "$major" ]; then
  update
  major=$(newest_major)
fi
[ -n "$major" ] || { echo "apt knows no PostgreSQL between 15 and 18" >&2; exit 1; }

wanted=()
for part in "${parts[@]}"; do
  grep -q -x "\[$part\]" docker/packages.txt || { echo "docker/packages.txt has no part [$part]" >&2; exit 2; }
  while read -r package; do
    case $package in
      "postgresql-$major" | "postgresql-server-dev-$major") [ -z "$own_server" ] || continue ;;
    esac
    wanted+=("$package")
  done < <(sed -e 's/#.*//' -e "s/@PG_MAJOR@/$major/" docker/packages.txt |
    awk -v part="[$part]" '/^\[/ { inside = $1 == part; next } inside && NF { print $1 }')
done
installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${wanted[@]}" 2>/dev/null | sed -n 's/^installed //p') || true
mapfile -t missing < <(printf '%s\n' "${wanted[@]}" | grep -v -x -F -e "$installed" || true)

if [ ${#missing[@]} = 0 ]; then
  [ $# != 0 ] || echo "deps: everything in docker/packages.txt is installed (PostgreSQL $major)"
  exit
fi
update
as_root apt-get install -q -q -y --no-install-recommends "${missing[@]}"
