#!/usr/bin/python3
"""Runs that are disturbed at random moments (kill -9 of the backend, kill -9 of the whole server, a terminated session,
a cancelled statement) and resumed by CALL portage.run() until they are completed. Target and ledger must equal those of
an undisturbed run in batches of another size: what is compared, tests/lib/disturbed.py says.

The moments follow from a seed, which is printed; PORTAGE_SEED repeats them (as far as moments can be repeated)."""

import contextlib
import os
import random
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
import psycopg2  # noqa: E402
from disturbed import (COUNTERS, INVARIANTS, ITEM_ROWS, ITEMS, MAPPINGS, READ, TARGET_ROWS, UNDO, compare,  # noqa: E402
                       connect_again, dataset, furnish, open_run, options_of, values, word_ahead)
from portage_server import Server, check, finish  # noqa: E402
from sessions import PATIENT, Gate, Session, ended, left, until  # noqa: E402

SEED = int(os.environ.get('PORTAGE_SEED', random.SystemRandom().randrange(1 << 32)))


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
        server.kill9_backend(work.pid)
    elif how == 'kill -9 of the server':
        server.kill9()
        server.restart()
    else:
        function = 'pg_terminate_backend' if how == 'a terminated session' else 'pg_cancel_backend'
        with Session(server, dbname=database) as session:
            session.rows(f'SELECT {function}(%s)', work.pid)
            left(session, work.pid)  # after a cancel, too: the session ends with its statement
    ended([work])


def weather(chance, server, database, run, data, disturbances):
    """Works the run off through the disturbances, a gate in its way each time; gives those that hit it at work."""
    hits = []
    for how in disturbances:
        with connect_again(server, database) as watch:
            batches = 'SELECT count(*) FROM portage.migration_batches WHERE run_id = {run}'
            goal = values(watch, batches, run=run)[0][0] + chance.randrange(1, 8)
            with Gate(server, word_ahead(chance, data, values(watch, READ, run=run)[0][0]), dbname=database):
                work = Work(server, database, run)
                until(lambda: values(watch, batches, run=run)[0][0] >= goal or values(
                    watch, "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = {pid}", pid=work.pid) == [(True,)])
                time.sleep(chance.random() * 0.03)
                disturb(server, database, work, how)
        if work.error is not None:
            hits.append((how, str(work.error).splitlines()[0]))
    for _ in range(3):
        with connect_again(server, database) as watch:
            if values(watch, 'SELECT status FROM portage.migration_runs WHERE id = {run}', run=run)[0][0] == 'completed':
                return hits, None
        work = Work(server, database, run)
        ended([work])
        if work.error is None:
            break
    return hits, work.error


def prepare(server, database, name, data, batch_size):
    furnish(server, database, name, data)
    with server.connect(database) as connection:
        return open_run(connection, name, data, options_of(name, batch_size))


def scenario(chance, server, name, disturbances):
    data = dataset(name, SEED, server.directory)
    calm_run = prepare(server, f'calm_{name}', name, data, 1000)
    with server.connect(f'calm_{name}') as connection, connection.cursor() as cursor:
        cursor.execute(f'CALL portage.run({calm_run})')
    run = prepare(server, f'stormy_{name}', name, data, 60)
    hits, error = weather(chance, server, f'stormy_{name}', run, data, disturbances)
    check(f'{name}: it was disturbed at work', len(hits) == len(disturbances), hits)
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
    with Server(max_wal_size='1GB', checkpoint_timeout='30s', **PATIENT) as server:
        for name in ('ndjson', 'json', 'csv', 'query', 'overwrite', 'skip'):
            disturbances = kinds[:]
            chance.shuffle(disturbances)
            start = time.monotonic()
            scenario(chance, server, name, disturbances)
            print(f'        {name}: {time.monotonic() - start:.0f} s', flush=True)
    finish()


if __name__ == '__main__':
    main()
