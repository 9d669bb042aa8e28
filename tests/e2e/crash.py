#!/usr/bin/python3
"""Runs that are disturbed at random moments (kill -9 of the backend, kill -9 of the whole server, a terminated session,
a cancelled statement) and resumed by CALL portage.run() until they are completed. Target and ledger must equal those of
an undisturbed run in batches of another size: surrogate keys are mapped through the natural key; times, epochs, batch
boundaries and event numbers are left out (DESIGN, promise 1).

The moments follow from a seed, which is printed; PORTAGE_SEED repeats them (as far as moments can be repeated)."""

import contextlib
import os
import random
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
import psycopg2  # noqa: E402
from defects import TARGET, Dataset  # noqa: E402
from portage_server import Server, check, finish  # noqa: E402

SEED = int(os.environ.get('PORTAGE_SEED', random.SystemRandom().randrange(1 << 32)))
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
  "columns": {{"user_id": "$scope", "word_id": "word", "lemma": "lemma", "review_count": "reviews", "correct_count": {{"value": 0}},
               "streak": {{"value": 1}}, "course_id": "course"}}}}');
"""

TARGET_ROWS = """SELECT user_id, word_id, lemma, review_count, correct_count, streak, accuracy, last_reviewed_at::text,
  due_on::text, ease_factor, course_id, ticket, note FROM app.progress ORDER BY user_id, word_id"""
ITEM_ROWS = """SELECT i.ordinal, i.revision, i.part, i.line, i.byte_offset, i.byte_length, i.status, i.legacy_id, p.word_id,
  i.target_key IS NULL, i.error_class, i.rule, i.sqlstate, i.column_name, i.message, i.issues::text, i.raw::text
  FROM portage.item_rows i LEFT JOIN app.progress p ON p.id::text = i.target_key WHERE i.run_id = {run}
  ORDER BY i.ordinal, i.revision"""
MAPPINGS = """SELECT m.legacy_id, m.scope, p.word_id, m.origin, m.source_hash, m.ordinal, m.run_id = {run}
  FROM portage.legacy_mappings m LEFT JOIN app.progress p ON p.id::text = m.target_key ORDER BY m.legacy_id"""
UNDO = """SELECT u.ordinal, u.revision, p.word_id, u.columns, u.before, u.before_hash, u.mapping_target_key, u.mapping_origin,
  u.mapping_source_hash, u.mapping_ordinal FROM portage.migration_undo u LEFT JOIN app.progress p ON p.id::text = u.target_key
  WHERE u.run_id = {run} ORDER BY u.ordinal, u.revision"""
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
         FROM portage.item_rows WHERE run_id = {run}) i WHERE r.id = {run}
          AND (r.read, r.inserted, r.updated, r.unchanged, r.skipped, r.invalid, r.failed) IS DISTINCT FROM
              (i.read, i.inserted, i.updated, i.unchanged, i.skipped, i.invalid, i.failed)""",
    'batches follow each other without gap or overlap': """SELECT id FROM (SELECT id, first_ordinal,
       coalesce(lag(last_ordinal) OVER (ORDER BY id), 0) AS before FROM portage.migration_batches
       WHERE run_id = {run} AND read > 0) b WHERE first_ordinal <> before + 1""",
    'each batch has the items that it counts': """SELECT b.id FROM portage.migration_batches b WHERE run_id = {run}
       AND read <> (SELECT count(*) FROM portage.item_rows i WHERE i.run_id = {run}
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


def prepare(server, database, scenario, data, options):
    """A database with everything in it but the run's work; gives the run's id."""
    server.psql(f'CREATE DATABASE {database}')
    with server.connect(database) as connection, connection.cursor() as cursor:
        cursor.execute('CREATE EXTENSION pg_portage')
        cursor.execute(TARGET)
        if scenario == 'query':
            cursor.execute(SOURCE.format(items=ITEMS))
        else:
            cursor.execute("SELECT portage.create_pipeline(%s, 'app.progress', %s)", (scenario, data.definition()))
        if scenario in ('overwrite', 'skip'):
            cursor.execute(EXISTING.format(items=ITEMS))
        cursor.execute('SELECT portage.open_run(%s, options => %s)', (scenario, options))
        run = cursor.fetchone()[0]
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


def connect_again(server, database):
    """After a crash the server is back in a moment."""
    deadline = time.monotonic() + 60
    while True:
        try:
            connection = server.connect(database)
            values(connection, 'SELECT 1')
            return connection
        except psycopg2.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class Work(threading.Thread):
    """CALL portage.run() in a session of its own."""

    def __init__(self, server, database, run):
        super().__init__(daemon=True)
        self.connection, self.run_id, self.error = connect_again(server, database), run, None
        self.pid = self.connection.get_backend_pid()
        self.start()

    def run(self):
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(f'CALL portage.run({self.run_id})')
        except psycopg2.Error as error:
            self.error = error
        with contextlib.suppress(psycopg2.Error):
            self.connection.close()


def disturb(server, database, work, how):
    if how == 'kill -9 of the backend':
        with server.connect(database) as bystander:
            with contextlib.suppress(ProcessLookupError):
                os.kill(work.pid, signal.SIGKILL)
            # The server ends every session, then recovers; unless the backend had just gone by itself.
            with contextlib.suppress(psycopg2.OperationalError):
                for _ in range(500):
                    values(bystander, 'SELECT pg_sleep(0.01)')
    elif how == 'kill -9 of the server':
        server.kill9()
    else:
        function = 'pg_terminate_backend' if how == 'a terminated session' else 'pg_cancel_backend'
        with server.connect(database) as connection:
            values(connection, 'SELECT {function}({pid})', function=function, pid=work.pid)
    work.join(60)
    if how == 'kill -9 of the server':
        server.restart()


def weather(chance, server, database, run, disturbances):
    """Works the run off through the disturbances; gives those that hit it at work."""
    hits = []
    for how in disturbances:
        with connect_again(server, database) as watch:
            batches = 'SELECT count(*) FROM portage.migration_batches WHERE run_id = {run}'
            goal = values(watch, batches, run=run)[0][0] + chance.randrange(1, 8)
            work = Work(server, database, run)
            while work.is_alive() and values(watch, batches, run=run)[0][0] < goal:
                time.sleep(0.001)
            time.sleep(chance.random() * 0.03)
        if not work.is_alive():
            break
        disturb(server, database, work, how)
        if work.error is not None:
            hits.append((how, str(work.error).splitlines()[0]))
    for _ in range(3):
        with connect_again(server, database) as watch:
            if values(watch, 'SELECT status FROM portage.migration_runs WHERE id = {run}', run=run)[0][0] == 'completed':
                return hits, None
        work = Work(server, database, run)
        work.join(60)
        if work.error is None:
            break
    return hits, work.error


def compare(name, what, calm, stormy):
    different = [(a, b) for a, b in zip(calm, stormy) if a != b]
    check(f'{name}: {what}', calm == stormy, f'{len(calm)} and {len(stormy)} rows; first differences: {different[:3]}')


def scenario(chance, server, name, data, options, disturbances):
    calm_run = prepare(server, f'calm_{name}', name, data, options % 1000)
    with server.connect(f'calm_{name}') as connection, connection.cursor() as cursor:
        cursor.execute(f'CALL portage.run({calm_run})')
    run = prepare(server, f'stormy_{name}', name, data, options % 60)
    hits, error = weather(chance, server, f'stormy_{name}', run, disturbances)
    check(f'{name}: it was disturbed at work', len(hits) >= 3, hits)
    check(f'{name}: called again, the run finishes', error is None, error)
    with server.connect(f'calm_{name}') as calm, server.connect(f'stormy_{name}') as stormy:
        counters = values(calm, COUNTERS, run=calm_run)
        check(f'{name}: the undisturbed run completed, with rejects', counters[0][0] == 'completed' and
              counters[0][1] == ITEMS and counters[0][8] > 0, counters)
        for what, sql in (('the run\'s counters', COUNTERS), ('the target\'s rows', TARGET_ROWS),
                          ('the items', ITEM_ROWS), ('the mappings', MAPPINGS), ('the before-images', UNDO)):
            compare(name, what + ' equal those of the undisturbed run', values(calm, sql, run=calm_run),
                    values(stormy, sql, run=run))
        for what, sql in INVARIANTS.items():
            for connection, kind, number in ((calm, 'undisturbed', calm_run), (stormy, 'disturbed', run)):
                found = values(connection, sql, run=number)
                check(f'{name}, {kind}: {what}', not found, found[:5])
        if name == 'overwrite':
            check('overwrite: rows were overwritten, adopted and inserted',
                  len(values(stormy, 'SELECT DISTINCT origin FROM portage.legacy_mappings')) == 3)
            check('overwrite: there are before-images', len(values(stormy, UNDO, run=run)) > ITEMS / 10)
    server.psql(f'DROP DATABASE calm_{name}')
    server.psql(f'DROP DATABASE stormy_{name}')


def main():
    print(f'seed {SEED}', flush=True)
    chance = random.Random(SEED)
    kinds = ['kill -9 of the backend', 'kill -9 of the server', 'kill -9 of the backend', 'a terminated session',
             'a cancelled statement', 'kill -9 of the backend']
    with Server(max_wal_size='1GB', checkpoint_timeout='30s') as server:
        for name in ('ndjson', 'json', 'csv', 'query', 'overwrite', 'skip'):
            form = name if name in ('json', 'csv') else 'ndjson'
            data = Dataset(form, ITEMS, SEED, server.directory, DEFECTS) if name != 'query' else None
            options = '{"batch_size": %%d%s}' % (', "on_conflict": "overwrite"' if name == 'overwrite' else '')
            disturbances = kinds[:]
            chance.shuffle(disturbances)
            start = time.monotonic()
            scenario(chance, server, name, data, options, disturbances)
            print(f'        {name}: {time.monotonic() - start:.0f} s', flush=True)
    finish()


if __name__ == '__main__':
    main()
