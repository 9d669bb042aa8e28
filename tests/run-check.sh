#!/bin/bash
# make check: builds, stages, runs the suites named as arguments, and ends with the sum "N passed, N failed".
#
# Everything lives in one directory under /tmp, since the checkout may lie where user postgres cannot look; it is gone
# afterwards, together with any server that a test left behind. Logs stay in build/check/.
#
# A suite is a function suite_NAME that calls `count PASSED FAILED`. What does not count, fails: a test script that
# dies before its counts, one that is not executable, a suite without tests, one that does not come to its end.
# Test scripts run side by side, as many as there are cores, so each must be safe beside any other: no port, path or
# name of its own that another could have, nothing that concerns the whole machine.
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
umask 022

# Seconds that a suite takes on two idle cores; their sum stays under 25 minutes. They are printed, not enforced: what is
# killed is a program (of the test scripts: a script) that takes three times as long as its suite should, six times where
# there is one core.
declare -A budget=([build]=390 [unit]=200 [regress]=100 [e2e]=750 [docs]=60 [long]=43200)
cores=$(nproc)
limit() { echo $((budget[$1] * (cores > 1 ? 3 : 6))); }

# No suite may meet somebody's real server.
for name in $(compgen -e PG | grep -v -x -e PG_CONFIG -e PG_COLOR); do unset "$name"; done
. tests/lib/stage.sh

work=$(mktemp -d /tmp/portage.XXXXXX) || exit 1
chmod 755 "$work"
export PORTAGE_STAGE=$work/stage TMPDIR=$work/tmp
mkdir "$PORTAGE_STAGE" "$TMPDIR"
chmod 1777 "$TMPDIR"
logs=$root/build/check
times=$root/build/check-times # seconds and script, of all checks so far
rm -rf "$logs"
mkdir -p "$logs" || exit 1
export root work logs

# Ends what runs in the background here. It passes that on to its own, and is waited for.
end_jobs() {
  local pids
  pids=$(jobs -p)
  [ -z "$pids" ] || { kill -TERM $pids && wait $pids; } 2>/dev/null
}
clean_up() {
  trap - EXIT
  end_jobs
  local pidfile postmaster
  while read -r pidfile; do
    postmaster=$(head -n 1 "$pidfile")
    kill -QUIT "$postmaster" 2>/dev/null # an immediate shutdown
    for _ in {1..100}; do kill -0 "$postmaster" 2>/dev/null && sleep 0.1 || break; done
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
  wait $!
  status=$?
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
  limited "$(limit build)" "$logs/build.log" bash tests/lib/stage.sh make "$PORTAGE_STAGE"
}

suite_unit() {
  local log=$logs/unit.log
  limited "$(limit unit)" "$log" bash -c '
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
  PGPORT=$((20000 + RANDOM % 10000)) limited "$(limit regress)" "$log" \
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

# Those of the scripts that took longest the last time come first, so that no long one is left for the end. Of what has
# not run here before nobody knows: before all others, by size.
longest_first() {
  local script seconds
  for script in "$@"; do
    [ -f "$script" ] || continue
    seconds=$(awk -v script="$script" '$2 == script { last = $1 } END { print last }' "$times" 2>/dev/null)
    echo "${seconds:-100000} $(stat -c %s "$script") $script"
  done | sort -k1,1nr -k2,2nr | cut -d ' ' -f 3-
}

# one_script SUITE FILE: in a process of its own. It prints its own "N passed, N failed" as its last line; what
# is to be said about it goes out in one piece, and its counts into a file.
one_script() {
  trap - EXIT
  trap 'end_jobs; exit 143' TERM
  local suite=$1 script=$2 log=$logs/$1-$(basename "$2").log status last start=$SECONDS suite_passed=0 suite_failed=0
  limited "$(limit "$suite")" "$log" "$script"
  status=$?
  last=$(tail -n 1 "$log")
  echo "$((SECONDS - start)) $script" >>"$times"
  {
    flock 9
    if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
      count "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}"
      echo "  $script: $last, $((SECONDS - start)) s"
      sed -n 's/^SKIPPED/    &/p' "$log"
      [ "$status" = 0 ] && [ "$suite_failed" = 0 ] || show "$log"
      [ "$status" = 0 ] || [ "$suite_failed" != 0 ] || fail "$script ended with $status"
    else
      fail "$script ended with $status and without counts" "$log"
    fi
    echo "$suite_passed $suite_failed" >>"$work/$suite.counts"
  } 9>>"$work/output.lock"
}

# scripts SUITE FILE...: as many at once as there are cores; with V=1 one by one, since all output comes as it is written.
scripts() {
  local suite=$1 script passed failed most=$((cores < 4 ? cores : 4)) begun=0
  [ -z "${V:-}" ] || most=1
  shift
  : >"$work/$suite.counts"
  for script in $(longest_first "$@"); do
    [ -x "$script" ] || { fail "$script is not executable"; continue; }
    [ "$begun" -lt "$most" ] || wait -n
    one_script "$suite" "$script" &
    begun=$((begun + 1))
  done
  wait
  while read -r passed failed; do count "$passed" "$failed"; done <"$work/$suite.counts"
  [ "$(wc -l <"$work/$suite.counts")" = "$begun" ] || fail "not every script of $suite was heard of"
}

suite_e2e() { scripts e2e tests/e2e/*.sh tests/e2e/*.py; }
suite_docs() { scripts docs tests/docs/*.sh tests/docs/*.py; }
suite_long() { cores=1 scripts long tests/long/*.sh tests/long/*.py; } # one by one: they measure

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
