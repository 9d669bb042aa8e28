# A private server for a shell test, in about two seconds: no TCP port, nothing installed, nothing left behind.
#
#   . "$(dirname "$0")/../lib/server.sh"
#   portage_server_start fsync=on shared_preload_libraries=pg_cron
#   psql -c 'CREATE EXTENSION pg_portage'      # PGHOST, PGPORT, PGUSER and PGDATABASE point to it
#   portage_server_kill9; portage_server_restart
#   portage_check 'one row landed' test "$(psql -c 'SELECT count(*) FROM t')" = 1
#   portage_counts                             # the last line, and the exit code
#
# One server per script. Works as root too: the server itself then runs as postgres. The trap on EXIT cleans up;
# a script with a trap of its own calls portage_server_cleanup in it.

. "$(dirname "${BASH_SOURCE[0]}")/stage.sh"

PORTAGE_SERVER= # its directory: data/, log, the socket
PORTAGE_OWN_STAGE=

# As the user that the server runs as: initdb and postgres refuse root.
portage_as_server() {
  if [ "$(id -u)" = 0 ]; then
    (cd / && HOME=/ setpriv --reuid postgres --regid postgres --init-groups "$@")
  else
    (cd / && "$@")
  fi
}

# portage_server_start [guc=value ...]
portage_server_start() {
  local bin setting
  bin=$("$PG_CONFIG" --bindir)
  trap portage_server_cleanup EXIT
  if [ -z "${PORTAGE_STAGE:-}" ]; then
    PORTAGE_OWN_STAGE=$(mktemp -d /tmp/portage-stage.XXXXXX) || return
    chmod 755 "$PORTAGE_OWN_STAGE"
    export PORTAGE_STAGE=$PORTAGE_OWN_STAGE
    portage_stage "$PORTAGE_STAGE" || return
  fi
  PORTAGE_SERVER=$(mktemp -d "${TMPDIR:-/tmp}/server.XXXXXX") || return
  chmod 755 "$PORTAGE_SERVER"
  [ "$(id -u)" != 0 ] || chown postgres: "$PORTAGE_SERVER"
  portage_as_server "$bin/initdb" -D "$PORTAGE_SERVER/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 \
    --no-sync >"$PORTAGE_SERVER/initdb.log" 2>&1 || { cat "$PORTAGE_SERVER/initdb.log" >&2; return 1; }
  unset PGHOSTADDR PGSERVICE PGPASSWORD PGOPTIONS
  export PGHOST=$PORTAGE_SERVER PGPORT=5432 PGUSER=postgres PGDATABASE=postgres
  {
    printf '%s\n' "listen_addresses=''" "unix_socket_directories='$PORTAGE_SERVER'" "port=5432" "fsync=off" \
      "max_connections=50" "log_min_messages=warning"
    { portage_stage_settings; printf '%s\n' "$@"; } | sed -n "s/'/''/g; s/^\([^=]*\)=\(.*\)/\1='\2'/p"
  } | portage_as_server tee -a "$PORTAGE_SERVER/data/postgresql.conf" >/dev/null
  portage_server_up
}

portage_server_up() {
  portage_as_server "$("$PG_CONFIG" --bindir)/pg_ctl" -D "$PORTAGE_SERVER/data" -l "$PORTAGE_SERVER/log" -w -t 120 -s start ||
    { tail -n 50 "$PORTAGE_SERVER/log" >&2; return 1; }
}

# portage_server_stop [fast|smart|immediate]
portage_server_stop() {
  portage_as_server "$("$PG_CONFIG" --bindir)/pg_ctl" -D "$PORTAGE_SERVER/data" -m "${1:-fast}" -w -t 120 -s stop
}

# As if the power went: postmaster and every process of it at once, none of them can say goodbye.
portage_server_kill9() {
  local postmaster all pid
  postmaster=$(head -n 1 "$PORTAGE_SERVER/data/postmaster.pid") || return
  kill -STOP "$postmaster" # or it would start new children meanwhile
  all="$postmaster $(ps -o pid= --ppid "$postmaster")"
  kill -KILL $all
  for pid in $all; do
    while kill -0 "$pid" 2>/dev/null && ! ps -o stat= -p "$pid" | grep -q '^Z'; do sleep 0.05; done
  done
  # Where init reaps nothing (containers), the dead postmaster's number looks alive to the next one.
  rm -f "$PORTAGE_SERVER/data/postmaster.pid" "$PORTAGE_SERVER"/.s.PGSQL.*
}

# After a stop, a kill9, or neither.
portage_server_restart() {
  ! portage_as_server "$("$PG_CONFIG" --bindir)/pg_ctl" -D "$PORTAGE_SERVER/data" status >/dev/null 2>&1 ||
    portage_server_stop
  portage_server_up
}

portage_server_cleanup() {
  if [ -n "$PORTAGE_SERVER" ]; then
    [ ! -f "$PORTAGE_SERVER/data/postmaster.pid" ] || portage_server_stop immediate >/dev/null 2>&1
    rm -rf "$PORTAGE_SERVER"
    PORTAGE_SERVER=
  fi
  if [ -n "$PORTAGE_OWN_STAGE" ]; then
    rm -rf "$PORTAGE_OWN_STAGE"
    PORTAGE_OWN_STAGE=
    unset PORTAGE_STAGE
  fi
}

# psql as tests want it: no psqlrc, bare values, an error is an exit code.
psql() { command psql -X -q -A -t -v ON_ERROR_STOP=1 "$@"; }

PORTAGE_PASSED=0
PORTAGE_FAILED=0

# portage_check NAME COMMAND...: passes if the command does.
portage_check() {
  local name=$1
  shift
  if "$@"; then
    PORTAGE_PASSED=$((PORTAGE_PASSED + 1))
    echo "ok      $name"
  else
    PORTAGE_FAILED=$((PORTAGE_FAILED + 1))
    echo "FAILED  $name: $*"
  fi
}

# The last line that every test script prints.
portage_counts() {
  echo "$PORTAGE_PASSED passed, $PORTAGE_FAILED failed"
  [ "$PORTAGE_FAILED" = 0 ]
}
