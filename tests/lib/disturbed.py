"""What the tests share in which runs are disturbed at random moments: runs with everything in them, and the queries by
which target and ledger must equal those of an undisturbed run in batches of another size. Surrogate keys are mapped
through the natural key; times, epochs, batch boundaries and event numbers are left out."""

import json
import time

import psycopg2

from defects import TARGET, Dataset
from portage_server import PATIENCE, check
from sessions import GATES

ITEMS, DEFECTS = 6000, 120

# Rows that are there before the run: every third item's; every ninth with the very content that the item has.
EXISTING = """
INSERT INTO app.progress (user_id, word_id, lemma, review_count, correct_count, streak, accuracy, last_reviewed_at,
                          due_on, ease_factor, course_id, note)
SELECT '', 'word ' || n, CASE WHEN n % 9 = 0 THEN 'lemma-' || n % 5003 ELSE 'older' END, reviews,
       n * 3 % (reviews + 1), n % 11, n * 3 % (reviews + 1) / reviews,
       make_timestamptz(2024, 1 + n % 12, 1 + n % 28, n % 24, n % 60, 0, 'UTC'), make_date(2025, 1 + n % 12, 1 + n % 28),
       (13 + n % 30) / 10.0, 1 + n % 50, CASE WHEN n % 97 = 0 THEN 'früh "übt" sich, 日本語' WHEN n % 101 = 0 THEN E'a\\nb' END
  FROM (SELECT n, 1 + n * 7 % 90 AS reviews FROM generate_series(3, {items}, 3) AS n) AS numbers;
"""

CHECKS = {'gated': "SELECT gates.pass('verified') = 'verified'"}

# A table of the old world, with the same defects as far as a table can have them.
SOURCE = """
CREATE SCHEMA legacy;
CREATE TABLE legacy.words (no integer PRIMARY KEY, id text, word text, lemma text, reviews text, course integer);
INSERT INTO legacy.words
SELECT n, CASE WHEN n % 401 <> 0 THEN 'v-' || n END, 'word ' || CASE WHEN n % 503 = 0 THEN 1 ELSE n END,
       CASE WHEN n % 607 = 0 THEN repeat('x', 50) WHEN n % 701 = 0 THEN 'taboo' ELSE 'lemma' END,
       CASE WHEN n % 809 = 0 THEN 'many' ELSE (n % 90)::text END, CASE WHEN n % 907 = 0 THEN 999 ELSE 1 + n % 50 END
  FROM generate_series(1, {items}) AS n;
SELECT portage.create_pipeline('query', 'app.progress', '{{"format": "rows", "legacy_id": "id", "match": ["user_id", "word_id"],
  "columns": {{"user_id": "$scope", "word_id": {{"sql": "gates.pass(item ->> ''word'')"}}, "lemma": "lemma", "review_count": "reviews", "correct_count": {{"value": 0}},
               "streak": {{"value": 1}}, "course_id": "course"}},
  "checks": {{"gated": "SELECT gates.pass(''verified'') = ''verified''"}}}}');
"""

TARGET_ROWS = """SELECT user_id, word_id, lemma, review_count, correct_count, streak, accuracy, last_reviewed_at::text,
  due_on::text, ease_factor, course_id, ticket, note FROM app.progress ORDER BY user_id, word_id"""
ITEM_ROWS = """SELECT DISTINCT ON (i.ordinal) i.ordinal, i.part, i.line, i.byte_offset, i.byte_length, i.status, i.legacy_id, p.word_id,
  i.target_key IS NULL, i.error_class, i.rule, i.sqlstate, i.column_name, i.message, i.issues::text, i.raw::text
  FROM portage.all_items i LEFT JOIN app.progress p ON p.id::text = i.target_key WHERE i.run_id = {run}
  ORDER BY i.ordinal, i.revision DESC"""
MAPPINGS = """SELECT m.legacy_id, m.scope, p.word_id, m.origin, m.source_hash, m.ordinal, m.run_id = {run}
  FROM portage.legacy_mappings m LEFT JOIN app.progress p ON p.id::text = m.target_key ORDER BY m.legacy_id"""
UNDO = """SELECT u.ordinal, p.word_id, u.columns, u.before, u.before_hash, u.mapping_target_key, u.mapping_origin,
  u.mapping_source_hash, u.mapping_ordinal FROM portage.migration_undo u LEFT JOIN app.progress p ON p.id::text = u.target_key
  WHERE u.run_id = {run} AND NOT EXISTS (SELECT FROM portage.item_rows r WHERE r.run_id = u.run_id AND r.ordinal = u.ordinal
    AND r.revision > u.revision AND r.status = 'parked')  -- of what was taken back, to be judged in its turn
  ORDER BY u.ordinal, u.revision"""
COUNTERS = """SELECT status, read, inserted, updated, unchanged, skipped, conflicted, parked, invalid, failed, open_rejects,
  error FROM portage.migration_runs WHERE id = {run}"""

# What must hold in every ledger, whatever happened; each query finds the exceptions.
INVARIANTS = {
    'the books balance per batch': """SELECT id FROM portage.migration_batches WHERE run_id = {run}
       AND read <> inserted + updated + unchanged + skipped + conflicted + parked + invalid + failed""",
    'the run\'s counters are the sums of its batches': """SELECT r.id FROM portage.migration_runs r, (
       SELECT sum(read) AS read, sum(inserted) AS inserted, sum(updated) AS updated, sum(unchanged) AS unchanged,
              sum(skipped) AS skipped, sum(invalid) AS invalid, sum(failed) AS failed
         FROM portage.migration_batches WHERE run_id = {run}) b WHERE r.id = {run}
          AND (r.read, r.inserted, r.updated, r.unchanged, r.skipped, r.invalid, r.failed) IS DISTINCT FROM
              (b.read, b.inserted, b.updated, b.unchanged, b.skipped, b.invalid, b.failed)""",
    'the counters agree with the items': """SELECT r.id FROM portage.migration_runs r, (
       SELECT count(*) AS read, count(*) FILTER (WHERE status = 'inserted') AS inserted,
              count(*) FILTER (WHERE status = 'updated') AS updated, count(*) FILTER (WHERE status = 'unchanged') AS unchanged,
              count(*) FILTER (WHERE status = 'skipped') AS skipped, count(*) FILTER (WHERE status = 'invalid') AS invalid,
              count(*) FILTER (WHERE status = 'failed') AS failed
         FROM (SELECT DISTINCT ON (ordinal) * FROM portage.all_items WHERE run_id = {run} ORDER BY ordinal, revision DESC) l) i
        WHERE r.id = {run}
          AND (r.read, r.inserted, r.updated, r.unchanged, r.skipped, r.invalid, r.failed) IS DISTINCT FROM
              (i.read, i.inserted, i.updated, i.unchanged, i.skipped, i.invalid, i.failed)""",
    'batches follow each other without gap or overlap': """SELECT id FROM (SELECT id, first_ordinal,
       coalesce(lag(last_ordinal) OVER (ORDER BY first_ordinal), 0) AS before FROM portage.migration_batches
       WHERE run_id = {run} AND read > 0) b WHERE first_ordinal <> before + 1""",
    'each batch has the items that it counts': """SELECT b.id FROM portage.migration_batches b WHERE run_id = {run} AND kind = 'import'
       AND read <> (SELECT count(*) FROM portage.all_items i WHERE i.run_id = {run} AND i.revision = 0
                    AND i.ordinal BETWEEN b.first_ordinal AND b.last_ordinal)""",
    'each mapping has its row, with the hash that it records': """SELECT m.legacy_id FROM portage.legacy_mappings m
       LEFT JOIN app.progress p ON p.id::text = m.target_key
       WHERE m.run_id = {run} AND portage.row_hash(p) IS DISTINCT FROM m.row_hash""",
    'every range is read to its end': 'SELECT part FROM portage.migration_ranges WHERE run_id = {run} AND NOT done',
    'nothing is prepared or locked': "SELECT locktype FROM pg_locks WHERE locktype = 'advisory'",
}


def values(connection, sql, **names):
    with connection.cursor() as cursor:
        cursor.execute(sql.format(**names))
        return cursor.fetchall()


def definition(data):
    """Of a pipeline in which an item waits at the gate of its word, and the verification at "verified"."""
    found = json.loads(data.definition(checks=CHECKS))
    found['columns']['word_id'] = {'sql': "gates.pass(item ->> 'word_id')"}
    return json.dumps(found)


READ = 'SELECT coalesce(max(last_ordinal), 0) FROM portage.migration_batches WHERE run_id = {run}'


def word_ahead(chance, data, read):
    """That of an item a little ahead of what has been read, without a defect, so that it is sure to come to its gate."""
    good = [n for n in range(read + 61, read + 500)
            if (n not in data.plan if data else all(n % bad for bad in (401, 503, 607, 701, 809, 907)))]
    return f'word {chance.choice(good)}'


def furnish(server, database, scenario, data):
    """A database with everything in it but a run; `data` is a Dataset, or None where the source is a query."""
    server.psql(f'CREATE DATABASE {database}')
    with server.connect(database) as connection, connection.cursor() as cursor:
        cursor.execute('CREATE EXTENSION pg_portage')
        cursor.execute(GATES)
        cursor.execute(TARGET)
        if scenario == 'query':
            cursor.execute(SOURCE.format(items=ITEMS))
        else:
            cursor.execute("SELECT portage.create_pipeline(%s, 'app.progress', %s)", (scenario, definition(data)))
        if scenario == 'workers':  # neither triggers nor deferred judgements: several workers cannot have them
            cursor.execute('DROP TRIGGER no_taboo ON app.progress; ALTER TABLE app.progress DROP CONSTRAINT ticket_key')
        if scenario in ('overwrite', 'skip', 'workers'):
            cursor.execute(EXISTING.format(items=ITEMS))


def open_run(connection, scenario, data, options):
    """A run that is ready to be started; gives its id."""
    run = values(connection, "SELECT portage.open_run('{name}', options => '{options}')", name=scenario, options=options)[0][0]
    with connection.cursor() as cursor:
        if scenario == 'query':
            cursor.execute("SELECT portage.attach_query(%s, %s, key => ARRAY['no'])",
                           (run, 'SELECT no, id, word, lemma, reviews, course FROM legacy.words'))
        elif scenario == 'csv':  # chunks cut anywhere
            with open(data.path, 'rb') as file:
                for number, chunk in enumerate(iter(lambda: file.read(50001), b''), 1):
                    cursor.execute('SELECT portage.submit(%s, %s::bytea, name => %s, chunk_no => %s)',
                                   (run, psycopg2.Binary(chunk), 'words.csv', number))
        else:
            cursor.execute('SELECT portage.attach_file(%s, %s)', (run, data.path))
    return run


def dataset(scenario, seed, directory):
    form = scenario if scenario in ('json', 'csv') else 'ndjson'
    return Dataset(form, ITEMS, seed, directory, DEFECTS) if scenario != 'query' else None


def options_of(scenario, batch_size, **more):
    if scenario in ('overwrite', 'workers'):
        more['on_conflict'] = 'overwrite'
    return json.dumps({'batch_size': batch_size, **more})


def gone(error):
    """The server went away, or is not there yet: it said so (class 57P), or could not say anything."""
    return error.pgcode is None or error.pgcode.startswith('57P')


def connect_again(server, database):
    """After a crash the server is back in a moment."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            connection = server.connect(database)
            values(connection, 'SELECT 1')
            return connection
        except psycopg2.Error as error:
            if not gone(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def compare(name, what, calm, stormy):
    different = [(a, b) for a, b in zip(calm, stormy) if a != b]
    check(f'{name}: {what}', calm == stormy, f'{len(calm)} and {len(stormy)} rows; first differences: {different[:3]}')
