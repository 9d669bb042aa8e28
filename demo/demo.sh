#!/bin/bash
# make demo: a migration from its files to its rollback, on a private throwaway server; nothing is installed, nothing is
# left behind. Every number is compared with what other tools count in the same files. Exit code 0 means that all were
# as expected. `demo.sh psql` (make demo-psql) does the same up to the verified table, and opens psql there.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8
. tests/lib/server.sh

play=$([ "${1:-}" != psql ] || echo yes)
languages=/usr/share/iso-codes/json/iso_639-3.json
wrong=0
steps=0

[ -r "$languages" ] || { echo "$languages is missing: make deps installs the package iso-codes" >&2; exit 1; }

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
  bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' plain=$'\e[0m'
else
  bold='' dim='' red='' plain=''
fi

step() {
  steps=$((steps + 1))
  printf '\n%s%2d  %s%s\n\n' "$bold" "$steps" "$1" "$plain"
}

# What the user would type; "$snapshot" stands for the file's real place.
snapshot=/srv/anna.json
shown() { sed "s/^\(.\)/   $dim\1/; s/\$/$plain/" <<<"$1"; }
real() { printf '%s' "${1//$snapshot/$PORTAGE_SERVER/anna.json}"; }

# SQL that comes by standard input: shown, then run.
show_and_run() {
  local sql
  sql=$(cat)
  shown "$sql"
  psql >/dev/null <<<"$sql"
}

# The NOTICEs of a CALL: progress as one line that is written over where there is a terminal, else a line each tenth.
told() {
  local line done='' said='' tenth=0
  while IFS= read -r line; do
    [ -z "$said" ] || continue
    line=${line#NOTICE:  }
    line=${line#DETAIL:  }
    if [[ $line =~ ^run\ [0-9]+:\ ([0-9,]+)\ items,\ ([0-9,]+)/s(,\ ([0-9]+)\ %)?(,\ about\ ([0-9]+)\ s\ left)? ]]; then
      local share=${BASH_REMATCH[4]:-0} bar
      bar=$(printf '%*s' $((share * 28 / 100)) '')
      line=$(printf '[%-28s] %3s %%  %9s items  %8s/s  %s' "${bar// /#}" "$share" "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}" \
        "${BASH_REMATCH[6]:+${BASH_REMATCH[6]} s left}")
      if [ -t 1 ]; then
        printf '\r   %-74s' "$line"
        done=yes
        continue
      fi
      [ $((share / 10)) -gt "$tenth" ] || continue
      tenth=$((share / 10))
    fi
    [ -z "$done" ] || printf '\r%-78s\r' ''
    done=''
    [ "${1:-}" = briefly ] && [[ $line = *'rejects, by kind'* ]] && said=yes && continue
    printf '   %s\n' "$line"
  done
}

# A CALL is shown and run; what the server says meanwhile is shown too, with "briefly" as a second word without the
# rejects. Leaves the run's number in $run.
call() {
  shown "$1"
  echo
  psql -c "$(real "$1")" 2>&1 >"$PORTAGE_SERVER/run" | told "${2:-}"
  [ "${PIPESTATUS[0]}" = 0 ] || exit 1
  run=$(cat "$PORTAGE_SERVER/run")
}

# What is refused: the error as psql prints it.
refused() {
  shown "$1"
  echo
  psql -c "$1" 2>&1 >/dev/null | fold -s -w 76 | sed 's/^/   /; s/ *$//' || true
}

# A query's result as psql aligns it; with a second word, the query is shown first.
table() {
  [ -z "${2:-}" ] || { shown "$1"; echo; }
  command psql -X -q -P footer=off -c "$1" | sed '$d; s/^/  /; s/ *$//'
}

# expect WHAT EXPECTED FOUND
expect() {
  [ "$2" != "$3" ] || return 0
  wrong=$((wrong + 1))
  printf '   %sNOT AS EXPECTED: %s: expected %s, found %s%s\n' "$red" "$1" "$2" "$3" "$plain"
}

# What a run counted, as "read=7910 inserted=7910"; counters that are 0 are left out.
counts() {
  psql -c "SELECT string_agg(name || '=' || count, ' ' ORDER BY position)
           FROM portage.progress, LATERAL (VALUES (1, 'read', read), (2, 'inserted', inserted), (3, 'updated', updated),
             (4, 'unchanged', unchanged), (5, 'skipped', skipped), (6, 'conflicted', conflicted), (7, 'parked', parked),
             (8, 'invalid', invalid), (9, 'failed', failed)) AS k (position, name, count)
           WHERE run_id = $1 AND count > 0"
}

# The whole table in a line.
checksum() { psql -c 'SELECT count(*), md5(string_agg(p::text, E'"'\n'"' ORDER BY word)) FROM progress p'; }

printf '%spg_portage: legacy data into typed tables, tracked, validated and reversible%s\n' "$bold" "$plain"

step 'A private server, and the extension in it'
shown 'CREATE EXTENSION pg_portage;'
portage_server_start portage.progress_interval=250
psql -c 'CREATE EXTENSION pg_portage'

step 'A typed table, and a pipeline: how items become its rows'
show_and_run <demo/languages.sql

step "The languages of the world: ISO 639-3, JSON, from Debian's iso-codes"
all=$(python3 -c 'import json, sys; print(len(json.load(open(sys.argv[1]))["639-3"]))' "$languages")
call "CALL portage.import('languages',
  file => '$languages');"
expect 'the run of the languages' "read=$all inserted=$all" "$(counts "$run")"
expect 'every value of every language' "$(python3 -c '
import json, sys
columns = "alpha_3 name scope type alpha_2 bibliographic common_name inverted_name".split()
for item in sorted(json.load(open(sys.argv[1]))["639-3"], key=lambda item: item["alpha_3"]):
    print(*(item.get(column, "\\N") for column in columns), sep="\t")' "$languages" | sha256sum)" \
  "$(psql -c 'COPY (SELECT * FROM languages ORDER BY alpha_3 COLLATE "C") TO STDOUT' | sha256sum)"

step "A learner's snapshot: 200,000 items, 200 of them defective, in eight kinds"
demo/snapshot.py "$PORTAGE_SERVER/anna.json" "$PORTAGE_SERVER/planted"
chmod 644 "$PORTAGE_SERVER/anna.json"
items=$(grep -c '"reviewCount"' "$PORTAGE_SERVER/anna.json")
defects=$(wc -l <"$PORTAGE_SERVER/planted")
good=$((items - defects))
printf '   %s: %s, %s items; its first lines:\n\n' "$snapshot" "$(du -h "$PORTAGE_SERVER/anna.json" | cut -f1)B" "$items"
head -n 3 "$PORTAGE_SERVER/anna.json" | fold -w 76 | sed 's/^/   /'
echo
show_and_run <demo/vocabulary.sql

if [ -z "$play" ]; then
  step 'What would become of it? Everything is read, nothing is written'
  shown "SELECT portage.open_run('vocabulary', 'anna') AS run \\gset
SELECT portage.attach_file(:run, '$snapshot');
SELECT portage.validate(:run);"
  echo
  validated=$(psql -c "SELECT portage.open_run('vocabulary', 'anna')")
  psql -c "SELECT portage.attach_file($validated, '$(real $snapshot)')" >/dev/null
  psql -c "CREATE TABLE validation AS SELECT portage.validate($validated) AS v"
  echo '   Its answer is JSON; as tables:'
  echo
  table "SELECT v->'ready' AS ready, v->'counts'->>'inserted' AS inserted, v->'counts'->>'invalid' AS invalid FROM validation"
  echo
  table "SELECT i->>'rule' AS rule, i->>'column' AS \"column\", i->>'count' AS items, i->'first'->>'line' AS first_line
         FROM validation, jsonb_array_elements(v->'issues') AS i ORDER BY 3 DESC, 1, 2"
  echo
  echo '   Nine rows for eight kinds: what has no id lacks the legacy id and the word.'
  psql -c "SELECT portage.cancel($validated)" >/dev/null
  expect 'kinds of defects, as planted and as validated' '8 9' \
    "$(cut -d' ' -f2- "$PORTAGE_SERVER/planted" | sort -u | wc -l) $(psql -c "SELECT jsonb_array_length(v->'issues') FROM validation")"
  expect 'the validation' "true $good $defects" \
    "$(psql -F ' ' -c "SELECT v->'ready', v->'counts'->>'inserted', v->'counts'->>'invalid' FROM validation")"
  expect 'rows in the table' 0 "$(psql -c 'SELECT count(*) FROM progress')"
fi

step 'The import: what is wrong stays out, the rest lands'
call "CALL portage.import('vocabulary', file => '$snapshot', scope => 'anna');"
imported=$run
expect 'the run of the snapshot' "read=$items inserted=$good invalid=$defects" "$(counts "$run")"
expect 'rows in the table' "$good" "$(psql -c 'SELECT count(*) FROM progress')"
expect 'every defect, with line, rule and column' "$(sort "$PORTAGE_SERVER/planted" | sha256sum)" \
  "$(psql -F ' ' -c "SELECT concat_ws(' ', line, rule, CASE rule WHEN 'conversion' THEN column_name END)
                     FROM portage.rejects WHERE run_id = $run" | sort | sha256sum)"

if [ -n "$play" ]; then
  echo
  echo '   The server is yours until you leave psql. For example:'
  echo
  shown "SELECT * FROM portage.rejects LIMIT 5;
SELECT portage.report();
SELECT * FROM portage.verify($imported);
CALL portage.rollback($imported);"
  echo
  command psql -X
  exit
fi

step 'The rejects: where each stands, and why'
table "SELECT ordinal, line, rule, left(raw, 34) AS raw FROM portage.rejects
WHERE run_id = $imported ORDER BY ordinal LIMIT 5;" shown

step 'One of them corrected by hand, and replayed'
reject=$(psql -c "SELECT min(ordinal) FROM portage.rejects WHERE run_id = $imported AND rule = 'ease_positive'")
before=$(psql -c "SELECT raw FROM portage.rejects WHERE run_id = $imported AND ordinal = $reject")
after=$(sed 's/-2.5/2.5/; s/,"\(reviewCount\|srs\|lastReviewedAt\)"/,\n "\1"/g' <<<"$before")
table "SELECT * FROM portage.replay($imported, $reject, corrected =>
'$after');" shown
good=$((good + 1))
expect 'rows in the table' "$good" "$(psql -c 'SELECT count(*) FROM progress')"
expect 'the corrected word' "2.5" \
  "$(psql -c "SELECT p.ease_factor FROM portage.migration_items i JOIN progress p ON p.word = i.legacy_id
              WHERE i.run_id = $imported AND i.ordinal = $reject AND i.status = 'inserted'")"

step 'The same snapshot again: what has not changed is left alone'
call "CALL portage.import('vocabulary', file => '$snapshot', scope => 'anna');" briefly
# the corrected item is still wrong in the file
expect 'the second run' "read=$items unchanged=$((good - 1)) invalid=$defects" "$(counts "$run")"

step 'Is it right? The ledger against itself, the table, and the file read again'
table "SELECT name, expected, actual, passed
FROM portage.verify($imported, 'source');" shown
expect 'failed checks' 0 "$(psql -c "SELECT count(*) FROM portage.data_integrity_checks WHERE run_id = $imported AND NOT passed")"

step 'Somebody goes on learning in the new application; the run cannot simply go'
show_and_run <<<"UPDATE progress SET review_count = review_count + 1 WHERE word = 'w000042';"
echo
refused "CALL portage.rollback($imported);"
echo
table "SELECT possible, drifted, reasons[1] AS reason FROM portage.can_rollback($imported);" shown
expect 'drifted rows' 1 "$(psql -c "SELECT drifted FROM portage.can_rollback($imported)")"
expect 'rows in the table' "$good" "$(psql -c 'SELECT count(*) FROM progress')"

step 'The rollback: all rows go but the one that is not ours any more'
call "CALL portage.rollback($imported, drifted => 'keep');"
expect 'what is left' 'w000042' "$(psql -c 'SELECT word FROM progress')"
expect 'the state of the run' 'rolled_back' "$(psql -c "SELECT status FROM portage.status($imported)")"

step 'Stop'
portage_server_stop
if [ "$wrong" != 0 ]; then
  echo "   $wrong of the results above are not as expected."
  exit 1
fi
cat <<'TEXT'
   Every number above is what python3 and grep count in the same files.
   To play on with the imported table: make demo-psql
   On a server and with a file of your own: docs/guide.md
   All tests: make check
TEXT
