# Where the extension under test lies, and the settings by which a server finds it there instead of in the system.
# Sourced by shell scripts; `bash tests/lib/stage.sh make` and `… settings` serve the others.
# Nothing is installed: PORTAGE_STAGE is the DESTDIR. `make check` sets it; a test run alone stages for itself.

PORTAGE_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if [ -z "${PG_CONFIG:-}" ]; then
  PG_CONFIG=$(command -v pg_config || printf '%s\n' /usr/lib/postgresql/1[5678]/bin/pg_config | tail -n 1)
fi
export PORTAGE_ROOT PG_CONFIG

# portage_stage DIR: builds and stages into DIR, readable by everybody, since the server may be another user.
portage_stage() {
  (
    umask 022
    make --no-print-directory -s -C "$PORTAGE_ROOT" -j "$(nproc)" all >&2 &&
      make --no-print-directory -s -C "$PORTAGE_ROOT" install DESTDIR="$1" >&2
  )
}

# One line guc=value each. Debian's extension_destdir exists up to 17; 18 has extension_control_path.
portage_stage_settings() {
  local share lib
  share=$("$PG_CONFIG" --sharedir) lib=$("$PG_CONFIG" --pkglibdir)
  if grep -q '^#*extension_destdir' "$share/postgresql.conf.sample"; then
    echo "extension_destdir=$PORTAGE_STAGE"
  else
    echo "extension_control_path=$PORTAGE_STAGE$share:\$system"
  fi
  echo "dynamic_library_path=$PORTAGE_STAGE$lib:\$libdir"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  case ${1:-} in
    make) portage_stage "${2:?directory}" ;;
    settings) portage_stage_settings ;;
    *) echo "usage: stage.sh make DIR | settings" >&2; exit 2 ;;
  esac
fi
