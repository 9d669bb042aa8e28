#!/bin/bash
# make check-matrix: a newcomer's two commands on each Debian and PostgreSQL that README names, in bare chroots: git clone
# of what is committed here, then make check, which brings what it needs.
#
# Needs root. The chroots stay for the next time in PORTAGE_MATRIX, a place where nobody else can write: root works in them; FRESH=1 makes them anew. MATRIX chooses
# ("trixie:17 sid:18!"; what is marked with ! is told, but fails nothing). QUICK=1 is that of make check.
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
matrix=${MATRIX:-bookworm:15 trixie:17 sid:18!}
place=${PORTAGE_MATRIX:-/var/cache/pg_portage-matrix}
logs=$root/build/matrix
[ "$(id -u)" = 0 ] || { echo "chroots need root: sudo make check-matrix" >&2; exit 1; }
mkdir -p "$place" "$logs" || exit 1

# From where apt has its own packages, if that is Debian.
mirror=${MIRROR:-$(apt-get indextargets --format '$(ORIGIN) $(SITE)' 'Created-By: Packages' 2>/dev/null |
  awk '$1 == "Debian" && $2 !~ /security/ { print $2; exit }')}
[ -n "$mirror" ] || { echo "apt knows no mirror of Debian: name one, MIRROR=http://…/debian" >&2; exit 1; }

# inside DIR COMMAND...: with /proc and /dev/shm of its own; what it has started ends with it.
inside() {
  unshare --mount --pid --fork --kill-child bash -c '
    dir=$1; shift
    mount -t proc proc "$dir/proc" && mkdir -p "$dir/dev/shm" && mount -t tmpfs -o mode=1777 tmpfs "$dir/dev/shm" &&
      exec chroot "$dir" env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb LANG=C.UTF-8 "$@"' inside "$@"
}

# A mirror may stand still, for reproducible builds: its lists are old then, and no less right.
make_chroot() {
  local suite=$1 dir=$2
  rm -rf "$dir.new" "$dir"
  debootstrap --variant=minbase --include=ca-certificates,git,make "$suite" "$dir.new" "$mirror" &&
    echo 'Acquire::Check-Valid-Until "false";' >"$dir.new/etc/apt/apt.conf.d/99-old-mirror" &&
    mv "$dir.new" "$dir"
}

rows=() failed=0
for entry in $matrix; do
  gating=yes
  [[ $entry != *! ]] || gating=
  entry=${entry%!}
  suite=${entry%:*} major=${entry#*:} dir=$place/${entry%:*} log=$logs/$suite.log start=$SECONDS
  echo "$suite, PostgreSQL $major: $log"
  : >"$log"
  last=
  if { [ -d "$dir" ] && [ -z "${FRESH:-}" ]; } || make_chroot "$suite" "$dir" >>"$log" 2>&1; then
    rm -rf "$dir/root/pg_portage"
    git clone -q "$root" "$dir/root/pg_portage" >>"$log" 2>&1 &&
      inside "$dir" make -C /root/pg_portage --no-print-directory check PG_MAJOR="$major" QUICK="${QUICK:-}" >>"$log" 2>&1 </dev/null
    last=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$log" | tail -n 1)
  fi
  version=$(inside "$dir" "/usr/lib/postgresql/$major/bin/postgres" --version 2>/dev/null | awk '{ print $3 }')
  [[ $last =~ ', 0 failed'$ ]] || { [ -z "$gating" ] || failed=1; grep 'FAILED' "$log" | head -n 20; }
  rows+=("$(printf '%-10s %-11s %-26s %6s s%s' "$suite" "${version:-$major}" "${last:-did not come to its end}" \
    $((SECONDS - start)) "$([ -n "$gating" ] || echo '   (recorded only)')")")
done
printf '\n%-10s %-11s %-26s %8s\n' Debian PostgreSQL 'make check' time
printf '%s\n' "${rows[@]}"
exit "$failed"
