#!/bin/bash
# make check: builds, stages, runs the suites named as arguments, and ends with the sum "N passed, N failed".
#
# Everything lives in one directory under /tmp, since the checkout may lie where user postgres cannot look; it is gone
# afterwards, together with any server that a test left behind. Logs stay in build/check/.
#
# A suite is a function suite_NAME that calls `count PASSED FAILED`. What does not count, fails: a test script that
# dies before its counts, one that is not executable, a suite without tests, one that runs out of its budget.
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
umask 022

# Seconds. The sum stays under 25 minutes.
declare -A budget=([build]=600 [unit]=300 [regress]=150 [e2e]=1300 [docs]=170 [long]=43200)

# No suite may meet somebody's real server.
for name in $(compgen -e PG | grep -v -x -e PG_CONFIG -e PG_COLOR); do unset "$name"; done
. tests/lib/stage.sh

work=$(mktemp -d /tmp/portage.XXXXXX) || exit 1
chmod 755 "$work"
export PORTAGE_STAGE=$work/stage TMPDIR=$work/tmp
mkdir "$PORTAGE_STAGE" "$TMPDIR"
chmod 1777 "$TMPDIR"
logs=$root/build/check
rm -rf "$logs"
mkdir -p "$logs" || exit 1
export root work logs

child=
clean_up() {
  trap - EXIT
  [ -z "$child" ] || { kill -TERM "$child" && wait "$child"; } 2>/dev/null
  local pidfile
  while read -r pidfile; do
    kill -QUIT "$(head -n 1 "$pidfile")" 2>/dev/null && sleep 1 # an immediate shutdown
  done < <(find "$work" -name postmaster.pid 2>/dev/null)
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# limited SECONDS LOG COMMAND...: in the background, so that Ctrl-C is heard; timeout ends the whole group.
limited() {
  local seconds=$1 log=$2 status
  shift 2
  if [ -n "${V:-}" ]; then
    timeout -k 20 "$seconds" "$@" > >(tee "$log") 2>&1 </dev/null &
  else
    timeout -k 20 "$seconds" "$@" >"$log" 2>&1 </dev/null &
  fi
  child=$!
  wait "$child"
  status=$?
  child=
  [ "$status" != 124 ] || echo "out of time: more than $seconds s" >>"$log"
  return "$status"
}

passed=0 failed=0
suite_passed=0 suite_failed=0
count() {
  suite_passed=$((suite_passed + $1))
  suite_failed=$((suite_failed + $2))
}
# fail TEXT [LOG]: one more failure, with the end of its log.
fail() {
  count 0 1
  echo "  FAILED  $1"
  show "${2:-}"
}
show() { [ -z "$1" ] || [ -n "${V:-}" ] || tail -n 200 "$1" | sed 's/^/    | /'; }

build() {
  limited "${budget[build]}" "$logs/build.log" bash tests/lib/stage.sh make "$PORTAGE_STAGE"
}

suite_unit() {
  local log=$logs/unit.log
  limited "${budget[unit]}" "$log" bash -c '
    cmake -S . -B build/cmake -DCMAKE_BUILD_TYPE=RelWithDebInfo \
      -DCMAKE_COMPILE_WARNING_AS_ERROR=$([ "${CI:-}" = true ] && echo ON || echo OFF) &&
    cmake --build build/cmake -j "$(nproc)" &&
    ctest --test-dir build/cmake --no-tests=error --output-on-failure -j "$(nproc)"'
  local status=$? numbers
  numbers=$(sed -n 's/.* tests passed, \([0-9]*\) tests\? failed out of \([0-9]*\).*/\1 \2/p' "$log" | tail -n 1)
  if [ -z "$numbers" ]; then
    fail "the unit tests did not run" "$log"
  else
    read -r bad all <<<"$numbers"
    count $((all - bad)) "$bad"
    [ "$status" = 0 ] || show "$log"
    [ "$status" = 0 ] || [ "$bad" != 0 ] || fail "ctest ended with $status"
  fi
}

# pg_regress on a copy of its inputs, because the server reads some of them itself.
suite_regress() {
  local log=$logs/regress.log options=() setting tests=${TESTS:-}
  local name major
  [ -n "$tests" ] || tests=$(basename -s .sql -a regress/sql/*.sql)
  for name in expected/*.out; do
    # name_1.out is another right answer of name
    [ -f "regress/sql/$(basename "$name" .out).sql" ] || [ -f "regress/sql/$(basename "${name%_[0-9].out}").sql" ] ||
      fail "$name belongs to no test"
  done
  cp -r regress expected "$work/" || { fail "no regression tests"; return; }
  chmod -R a+rX "$work/regress" "$work/expected"
  for name in $tests; do
    # One that has no expected output yet fails by its difference from nothing; pg_regress would give up on all.
    [ -f "$work/expected/$name.out" ] || : >"$work/expected/$name.out"
  done
  mkdir "$work/regress-out"
  ln -s ../expected "$work/regress-out/expected"
  chmod 1777 "$work/regress-out"
  major=$("$PG_CONFIG" --version | sed 's/^PostgreSQL \([0-9]*\).*/\1/')
  while read -r setting; do options+=(-o "$setting"); done < <(portage_stage_settings)
  # pg_virtualenv would take the first free port, as would another check at the same moment: begin at random instead.
  PGPORT=$((20000 + RANDOM % 10000)) limited "${budget[regress]}" "$log" \
    pg_virtualenv -t -v "$major" -c '--locale C.UTF-8 -e UTF8' "${options[@]}" bash -c '
      cd "$work/regress-out" && "$(dirname "$("$PG_CONFIG" --pgxs)")/../test/regress/pg_regress" \
        --inputdir="$work/regress" --outputdir=. --bindir="$("$PG_CONFIG" --bindir)" \
        --dbname=contrib_regression --encoding=UTF8 "$@"' regress $tests
  local status=$? ok bad
  ok=$(grep -c -E '^(test .* \.\.\. ok |ok [0-9]+ )' "$log")
  bad=$(grep -c -E '^(test .* \.\.\. FAILED|not ok [0-9]+ )' "$log")
  count "$ok" "$bad"
  cp -r "$work"/regress-out/results "$logs/" 2>/dev/null
  if [ "$status" != 0 ]; then
    show "$log"
    [ ! -s "$work/regress-out/regression.diffs" ] || cat "$work/regress-out/regression.diffs" | tee "$logs/regression.diffs"
    [ "$bad" != 0 ] || fail "pg_regress ended with $status"
  fi
  [ $((ok + bad)) = "$(wc -w <<<"$tests")" ] || fail "only $((ok + bad)) of $(wc -w <<<"$tests") regression tests ran"
}

# scripts SUITE FILE...: each prints its own "N passed, N failed" as its last line.
scripts() {
  local suite=$1 script log status last begun=$SECONDS start
  shift
  for script in "$@"; do
    [ -f "$script" ] || continue
    log=$logs/$suite-$(basename "$script").log
    [ -x "$script" ] || { fail "$script is not executable"; continue; }
    start=$SECONDS
    limited $((budget[$suite] - (SECONDS - begun) > 1 ? budget[$suite] - (SECONDS - begun) : 1)) "$log" "$script"
    status=$?
    last=$(tail -n 1 "$log")
    if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
      count "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}"
      echo "  $script: $last, $((SECONDS - start)) s"
      sed -n 's/^SKIPPED/    &/p' "$log"
      [ "$status" = 0 ] && [ "${BASH_REMATCH[2]}" = 0 ] || show "$log"
      [ "$status" = 0 ] || [ "${BASH_REMATCH[2]}" != 0 ] || fail "$script ended with $status"
    else
      fail "$script ended with $status and without counts" "$log"
    fi
  done
}

suite_e2e() { scripts e2e tests/e2e/*.sh tests/e2e/*.py; }
suite_docs() { scripts docs tests/docs/*.sh tests/docs/*.py; }
suite_long() { scripts long tests/long/*.sh tests/long/*.py; }

start=$SECONDS
build || { echo "the build failed"; tail -n 100 "$logs/build.log"; echo "0 passed, 1 failed" | tee "$logs/summary"; exit 1; }
[ ! -s "$logs/build.log" ] || cat "$logs/build.log" # warnings
echo "build: $((SECONDS - start)) s of ${budget[build]}"
for suite in "$@"; do
  [ "$(type -t "suite_$suite")" = function ] || { fail "there is no suite $suite"; failed=$((failed + 1)); continue; }
  suite_passed=0 suite_failed=0 start=$SECONDS
  "suite_$suite"
  [ $((suite_passed + suite_failed)) != 0 ] || fail "suite $suite has no tests"
  echo "$suite: $suite_passed passed, $suite_failed failed, $((SECONDS - start)) s of ${budget[$suite]}"
  passed=$((passed + suite_passed)) failed=$((failed + suite_failed))
done
echo "$passed passed, $failed failed" | tee "$logs/summary"
[ "$failed" = 0 ]
