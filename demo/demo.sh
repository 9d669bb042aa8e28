#!/bin/bash
# make demo: real data into a typed table, on a private throwaway server; nothing is installed, nothing is left behind.
# Every number is compared with what other tools count in the same files (python3, grep). Exit code 0 means that all
# were as expected.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8
. tests/lib/server.sh

languages=/usr/share/iso-codes/json/iso_639-3.json
books=demo/books.ndjson
wrong=0

step() { printf '\n%s  %s\n\n' "$1" "$2"; }

# SQL that comes by standard input: shown, then run.
show_and_run() {
  local sql
  sql=$(cat)
  sed 's/^\(.\)/   \1/' <<<"$sql"
  psql -v books="$PORTAGE_SERVER/books.ndjson" >/dev/null <<<"$sql"
}

# A CALL is shown and run; what the server says meanwhile is shown too. Leaves the run's number in $run.
call() {
  sed 's/^/   /' <<<"$1"
  echo
  psql -c "${1//$books/$PORTAGE_SERVER/books.ndjson}" >"$PORTAGE_SERVER/run" 2>"$PORTAGE_SERVER/said" || {
    cat "$PORTAGE_SERVER/said" >&2
    exit 1
  }
  sed 's/^NOTICE:  /   /' "$PORTAGE_SERVER/said"
  run=$(cat "$PORTAGE_SERVER/run")
}

# A query's result as psql aligns it.
table() { command psql -X -q -P footer=off -c "$1" | sed '$d; s/^/  /; s/ *$//'; }

# expect WHAT EXPECTED FOUND
expect() {
  [ "$2" != "$3" ] || return 0
  wrong=$((wrong + 1))
  printf '   NOT AS EXPECTED: %s: expected %s, found %s\n' "$1" "$2" "$3"
}

# What a run counted, as "read=7910 inserted=7910"; counters that are 0 are left out.
counts() {
  psql -c "SELECT string_agg(name || '=' || count, ' ' ORDER BY position)
           FROM portage.progress, LATERAL (VALUES (1, 'read', read), (2, 'inserted', inserted), (3, 'updated', updated),
             (4, 'unchanged', unchanged), (5, 'skipped', skipped), (6, 'conflicted', conflicted), (7, 'parked', parked),
             (8, 'invalid', invalid), (9, 'failed', failed)) AS k (position, name, count)
           WHERE run_id = $1 AND count > 0"
}

for file in "$languages" "$books"; do
  [ -r "$file" ] || {
    echo "$file is missing: make deps installs the package iso-codes" >&2
    exit 1
  }
done

# What other tools find in the files. Each defect in books.ndjson tells itself what it should be found to be:
# rule, SQLSTATE and column; what lands with a warning names the rule as a remark.
all_languages=$(python3 -c 'import json, sys; print(len(json.load(open(sys.argv[1]))["639-3"]))' "$languages")
languages_by_python() {
  python3 -c '
import json, sys
columns = "alpha_3 name scope type alpha_2 bibliographic common_name inverted_name".split()
for item in sorted(json.load(open(sys.argv[1]))["639-3"], key=lambda item: item["alpha_3"]):
    print(*(item.get(column, "\\N") for column in columns), sep="\t")' "$languages"
}
languages_by_sql() { psql -c 'COPY (SELECT * FROM languages ORDER BY alpha_3 COLLATE "C") TO STDOUT'; }
all_books=$(grep -a -c . "$books")
bad_books=$(grep -a -c '"expect"' "$books")
remarks=$(grep -a -n -o '"remark": "[^"]*"' "$books" | sed 's/^\([0-9]*\):"remark": "\(.*\)"$/\1 \2/')
defects=$(grep -a -n -o '"expect": "[^"]*"' "$books" | sed 's/^\([0-9]*\):"expect": "\(.*\)"$/\1 \2/')

echo 'pg_portage: legacy data into typed tables, every item accounted for'

step 1 'A private server, and the extension in it'
echo '   CREATE EXTENSION pg_portage;'
portage_server_start
psql -c 'CREATE EXTENSION pg_portage'
install -m 644 "$books" "$PORTAGE_SERVER/books.ndjson"

step 2 'A typed table, and a pipeline: how items become its rows'
show_and_run <demo/languages.sql

step 3 "The languages of the world: ISO 639-3, JSON, from Debian's iso-codes"
call "CALL portage.import('languages',
  file => '$languages');"
expect 'the run of the languages' "read=$all_languages inserted=$all_languages" "$(counts "$run")"
expect 'rows in the table' "$all_languages" "$(psql -c 'SELECT count(*) FROM languages')"
expect 'every value of every language' "$(languages_by_python | sha256sum)" "$(languages_by_sql | sha256sum)"
expect 'languages whose legacy id leads to their row' "$all_languages" \
  "$(psql -c "SELECT count(*) FROM languages WHERE portage.lookup('languages', alpha_3) = alpha_3")"
echo
table "SELECT alpha_3, name, type, alpha_2, inverted_name FROM languages
       WHERE alpha_3 IN ('deu', 'epo', 'fin', 'mri', 'nob') ORDER BY 1"

step 4 'The same file again: what has not changed is left alone'
call "CALL portage.import('languages',
  file => '$languages');"
expect 'the second run of the languages' "read=$all_languages unchanged=$all_languages" "$(counts "$run")"

step 5 "A table of books, and a file with $bad_books planted defects: $books"
show_and_run <demo/books.sql

step 6 'What would a run meet? Nothing is written yet'
planned=$(psql -v file="$PORTAGE_SERVER/books.ndjson" <<<"
  SELECT r.can_proceed, r.estimated_items
    FROM portage.open_run('books') AS run, portage.attach_file(run, :'file') AS parts, portage.plan(run),
         jsonb_to_record(plan) AS r (can_proceed boolean, estimated_items bigint), portage.cancel(run)")
printf "   portage.plan(run):  can_proceed %s, estimated_items %s\n" "${planned%|*}" "${planned#*|}"
expect 'the plan' "t|$all_books" "$planned"

step 7 'The import: what is wrong stays out, the rest lands'
call "CALL portage.import('books', file => '$books');"
expect 'the run of the books' "read=$all_books inserted=$((all_books - bad_books)) invalid=$bad_books" "$(counts "$run")"
expect 'rows in the table' $((all_books - bad_books)) "$(psql -c 'SELECT count(*) FROM books')"

step 8 'The rejects: where each stands, and why'
table "SELECT line, rule, column_name AS \"column\",
              CASE WHEN length(message) > 36 THEN left(message, 33) || '...' ELSE message END AS message
       FROM portage.rejects WHERE run_id = $run ORDER BY ordinal"
expect 'the rejects, each with line, rule, SQLSTATE and column' "$defects" \
  "$(psql -F ' ' -c "SELECT concat_ws(' ', line, rule, sqlstate, column_name) FROM portage.rejects
                     WHERE run_id = $run ORDER BY ordinal")"
expect 'what landed with a warning' "$remarks" \
  "$(psql -F ' ' -c "SELECT line, rule FROM portage.migration_items
                     WHERE run_id = $run AND status = 'inserted' AND rule IS NOT NULL ORDER BY ordinal")"
echo
echo '   All that is wrong with line 16, and its input as it came:'
echo
table "SELECT i.rule, i.message
       FROM portage.rejects r, jsonb_to_recordset(issues) AS i (rule text, message text)
       WHERE run_id = $run AND line = 16"
echo
psql -c "SELECT raw FROM portage.rejects WHERE run_id = $run AND line = 16" | fold -s -w 76 | sed 's/^/   /'
expect 'the raw input of line 16' "$(sed -n 16p "$books")" \
  "$(psql -c "SELECT raw FROM portage.rejects WHERE run_id = $run AND line = 16")"

step 9 'Stop'
portage_server_stop
if [ "$wrong" != 0 ]; then
  echo "   $wrong of the results above are not as expected."
  exit 1
fi
echo '   Every number above is what python3 and grep count in the same files.'
echo '   Go on: make check; make install; docs/guide.md'
