#!/usr/bin/python3
"""Runs that delete what is gone from their source, and rollbacks of these, killed at random moments (kill -9 of the backend
or of the whole server) and called again: target, mappings and what the ledger says of missing items must equal those of
an undisturbed run, and after the rollback everything must be as it was; also with several workers.

The moments follow from a seed, which is printed; PORTAGE_SEED repeats them (as far as moments can be repeated)."""

import contextlib
import json
import os
import random
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
import psycopg2  # noqa: E402
from portage_server import Server, check, finish  # noqa: E402
from sessions import ended, until  # noqa: E402

SEED = int(os.environ.get('PORTAGE_SEED', random.SystemRandom().randrange(1 << 32)))
ITEMS = 12000
DEFINITION = {'format': 'ndjson', 'legacy_id': 'n', 'match': ['code'],
              'columns': {'code': 'code', 'v': 'v', 'parent': {'from': 'parent', 'references': 'trees'}},
              'missing': {'do': 'delete', 'at_most': '90%'}}
ROWS = 'SELECT * FROM app.trees ORDER BY id'
MAPPINGS = 'SELECT legacy_id, target_key, origin, source_hash, row_hash, run_id, ordinal, missing_since IS NULL ' \
           'FROM portage.legacy_mappings ORDER BY legacy_id'
MISSING = 'SELECT legacy_id, target_key, status, reason FROM portage.missing_items ORDER BY legacy_id'
DELETED = "SELECT count(*), sum(deleted) FROM portage.migration_batches WHERE kind = 'missing'"


def payload(keep):
    """A forest: every item that is no root hangs on one before it."""
    lines = (json.dumps({'n': n, 'code': f'c{n}', 'v': f'value {n}', 'parent': n // 3 if n >= 3 and n % 4 else None})
             for n in range(1, ITEMS + 1) if keep(n))
    return '\n'.join(lines)


def kept(n):
    """Two thirds go; of the trees whose lower part stays nothing may go."""
    return n <= ITEMS // 6 or n % 6 == 0


def values(connection, sql, *arguments):
    with connection.cursor() as cursor:
        cursor.execute(sql, arguments or None)
        return cursor.fetchall() if cursor.description else None


def furnish(server, database, workers):
    server.psql(f'CREATE DATABASE {database}')
    with server.connect(database) as connection:
        values(connection, 'CREATE EXTENSION pg_portage; CREATE SCHEMA app; CREATE TABLE app.trees (id bigint GENERATED ALWAYS '
                           'AS IDENTITY PRIMARY KEY, code text NOT NULL UNIQUE, v text, parent bigint'
                           + (')' if workers > 1 else ' REFERENCES app.trees)') + '; CREATE INDEX ON app.trees (parent)')
        values(connection, "SELECT portage.create_pipeline('trees', 'app.trees', %s)", json.dumps(DEFINITION))
        # Who has to wait for its parent, and so the keys, depend on where batches end.
        values(connection, "CALL portage.import('trees', payload => %s, options => '{\"batch_size\": 1000}')", payload(lambda n: True))
        values(connection, "UPDATE app.trees SET v = 'changed since' WHERE id % 97 = 0")
        state = values(connection, ROWS), values(connection, MAPPINGS)
        (run,), = values(connection, "SELECT portage.open_run('trees', options => %s)",
                         json.dumps({'batch_size': 500, 'workers': workers}))
        values(connection, 'SELECT portage.submit(%s, %s)', run, payload(kept))
    return run, state


class Work(threading.Thread):
    def __init__(self, server, database, sql):
        super().__init__(daemon=True)
        self.connection, self.sql, self.error = server.connect(database), sql, None
        self.pid = self.connection.get_backend_pid()
        self.start()

    def run(self):
        try:
            values(self.connection, self.sql)
        except psycopg2.Error as error:
            self.error = error
        with contextlib.suppress(psycopg2.Error):
            self.connection.close()


# What a call cannot get past while somebody has done this, {n} being a leaf: its deletion waits for the row's lock, its
# return for who is about to insert such a row.
DELETING = "SELECT FROM app.trees WHERE code = 'c{n}' FOR UPDATE"
RETURNING = "INSERT INTO app.trees (code) VALUES ('c{n}')"


def leaves(connection, there):
    """The leaves to be deleted that are still there, or those that are gone."""
    found = dict(values(connection, "SELECT substr(code, 2)::integer, v FROM app.trees"))
    return [n for n in range(ITEMS // 3 + 1, ITEMS + 1) if not kept(n) and (found.get(n) == f'value {n}' if there else n not in found)]


def weather(chance, server, database, sql, progress, done, in_the_way):
    """Calls `sql` through kills until `done`; gives how many of them hit it at work, and its last error."""
    hits, error = 0, None
    for how in ('server', 'backend', 'backend', 'server'):
        with server.connect(database) as watch, server.connect(database) as keeper:
            values(keeper, 'BEGIN')
            values(keeper, in_the_way.format(n=chance.choice(leaves(watch, in_the_way is DELETING))))
            goal = values(watch, progress)[0][0] + chance.randrange(1, 3)
            work = Work(server, database, sql)
            until(lambda: values(watch, progress)[0][0] >= goal or values(
                watch, 'SELECT count(*) FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))', keeper.get_backend_pid())[0][0])
            time.sleep(chance.random() * 0.02)
            if how == 'server':
                server.kill9()
                server.restart()
            else:
                server.kill9_backend(work.pid)
            ended([work])
        hits += work.error is not None
    for _ in range(5):
        with server.connect(database) as watch:
            if values(watch, done)[0][0]:
                return hits, None
        work = Work(server, database, sql)
        ended([work])
        error = work.error
    return hits, error


def scenario(chance, server, name, workers):
    calm_run, _ = furnish(server, 'calm', workers)
    with server.connect('calm') as calm:
        values(calm, f'CALL portage.run({calm_run})')
    run, before = furnish(server, 'stormy', workers)
    hits, error = weather(chance, server, 'stormy', f'CALL portage.run({run})', DELETED,
                          f"SELECT status = 'completed' FROM portage.migration_runs WHERE id = {run}", DELETING)
    check(f'{name}: it was killed at work', hits == 4, hits)
    check(f'{name}: called again, the run finishes', error is None, error)
    with server.connect('calm') as calm, server.connect('stormy') as stormy:
        fates = dict(values(calm, "SELECT coalesce(reason, status), count(*) FROM portage.missing_items GROUP BY 1"))
        check(f'{name}: rows were deleted, and others kept', fates.get('deleted', 0) > ITEMS / 10 and fates.get('changed', 0) > 10
              and (workers > 1 or fates.get('referred_to', 0) > 10), fates)
        for what, sql in (('rows', ROWS), ('mappings', MAPPINGS), ('missing items', MISSING)):
            ours, theirs = values(calm, sql), values(stormy, sql)
            if workers > 1:  # which numbers rows got, and who wrote them, is another matter
                continue
            check(f'{name}: {what} equal those of the undisturbed run', ours == theirs,
                  next(((a, b) for a, b in zip(ours, theirs) if a != b), (len(ours), len(theirs))))
        check(f'{name}: the batches have what was deleted', values(stormy, DELETED)[0][1] == values(
            stormy, "SELECT count(*) FROM portage.missing_items WHERE status = 'deleted'")[0][0])
        check(f'{name}: no deleted row is there, and no mapping of it', not values(
            stormy, "SELECT FROM portage.missing_items m WHERE status = 'deleted' AND (m.target_key IN (SELECT t.id::text FROM "
                    "app.trees t) OR m.legacy_id IN (SELECT l.legacy_id FROM portage.legacy_mappings l))"))
        found = values(stormy, f'SELECT name, details FROM portage.verify({run}) WHERE NOT passed UNION ALL '
                               f'SELECT name, details FROM portage.verify({run - 1}) WHERE NOT passed')
        check(f'{name}: both runs are verified', not found, found)
    hits, error = weather(chance, server, 'stormy', f'CALL portage.rollback({run})',
                          "SELECT count(*) FROM portage.migration_batches WHERE kind = 'rollback'",
                          f"SELECT status = 'rolled_back' FROM portage.migration_runs WHERE id = {run}", RETURNING)
    check(f'{name}: the rollback was killed at work', hits == 4, hits)
    check(f'{name}: called again, the rollback finishes', error is None, error)
    with server.connect('stormy') as stormy:
        for what, sql, was in (('rows', ROWS, before[0]), ('mappings', MAPPINGS, before[1])):
            found = values(stormy, sql)
            check(f'{name}: after the rollback the {what} are as before', found == was,
                  next(((a, b) for a, b in zip(found, was) if a != b), (len(found), len(was))))
    server.psql('DROP DATABASE calm')
    server.psql('DROP DATABASE stormy')


def main():
    print(f'seed {SEED}', flush=True)
    chance = random.Random(SEED)
    with Server(max_wal_size='1GB') as server:
        for name, workers in (('a forest', 1), ('several workers', 3)):
            start = time.monotonic()
            scenario(chance, server, name, workers)
            print(f'        {name}: {time.monotonic() - start:.0f} s', flush=True)
    finish()


if __name__ == '__main__':
    main()
