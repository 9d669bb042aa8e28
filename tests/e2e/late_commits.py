#!/usr/bin/python3
"""Sources that are read on from a cursor: no row is missed, however late its transaction commits, and whatever becomes of
the session that reads. Usage: late_commits.py [SEED]"""

import os
import random
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import Server, check, finish  # noqa: E402
from sessions import GATES, PATIENT, Gate, Session, ended, told, until  # noqa: E402

SEED = int(sys.argv[1]) if len(sys.argv) > 1 else random.randrange(1 << 30)
LOG = 'CREATE TABLE {0} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), v text)'
DEFINITION = '{"format": "rows", "legacy_id": "id", "columns": {"id": "id", "v": "v"}, "source": %s}'
PARTED = """
CREATE TABLE parted (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (1) TO (1000);
CREATE TABLE parted_high PARTITION OF parted DEFAULT;
"""


class Place:
    """A source table with its copy, and a pipeline that reads it."""

    def __init__(self, server, admin, name, source, create=LOG):
        self.server, self.admin, self.name = server, admin, name
        admin.rows(create.format(name))
        admin.rows(f'CREATE TABLE {name}_copy (id bigint PRIMARY KEY, v text)')
        admin.rows('SELECT portage.create_pipeline(%s, %s, %s)', name, name + '_copy', DEFINITION % source)

    def insert(self, session, *values):
        for value in values:
            session.rows(f'INSERT INTO {self.name} (v) VALUES (%s)', value)

    def run(self, session):
        """An import that has been begun; it shows as pending until it has ended."""
        return session.begin('CALL portage.import(%s)', self.name)

    def holds(self):
        """Why the latest run holds, once it does."""
        return until(lambda: self.admin.value(
            "SELECT hold_reason FROM portage.last_run(%s) WHERE hold_reason LIKE 'waits for transactions%%'", self.name))

    def info(self, columns):
        return self.admin.rows(f'SELECT {columns} FROM portage.last_run(%s)', self.name)[0]

    def missed(self):
        return self.admin.rows(f'SELECT id, v FROM {self.name} EXCEPT SELECT id, v FROM {self.name}_copy ORDER BY 1 LIMIT 5')

    def extra(self):
        return self.admin.rows(f'SELECT id, v FROM {self.name}_copy EXCEPT SELECT id, v FROM {self.name} ORDER BY 1 LIMIT 5')

    def same(self, what):
        check(what + ': nothing is missed', self.missed() == [], self.missed())
        check(what + ': nothing is made up', self.extra() == [], self.extra())


def one_late(server, admin):
    """One transaction that took a number before the run, in all its ends."""
    place = Place(server, admin, 'late', '{"table": "late", "cursor": "id"}')
    blind = Place(server, admin, 'blind', '{"query": "TABLE blind", "key": "id", "cursor": "id", "overlap": 0}')
    with Session(server) as writer, Session(server) as reader:
        # Without waiting it would be missed: else this test could not tell.
        writer.rows('BEGIN')
        blind.insert(writer, 'late')
        blind.insert(admin, 'soon')
        blind.run(reader).result()
        writer.rows('COMMIT')
        blind.run(reader).result()
        check('a cursor that waits for nobody misses what commits late', [row[1] for row in blind.missed()] == ['late'],
              blind.missed())

        for end in ('COMMIT', 'ROLLBACK', "PREPARE TRANSACTION 'late'"):
            writer.rows('BEGIN')
            place.insert(writer, 'late ' + end)
            place.insert(admin, 'soon ' + end)
            pending = place.run(reader)
            reason = place.holds()
            check(f'{end}: the run holds and says why', reason and str(writer.pid) in reason, reason)
            with Session(server) as later:
                # Who begins to write when the end is fixed is the next run's.
                later.rows('BEGIN')
                place.insert(later, 'later ' + end)
                writer.rows(end)
                if end.startswith('PREPARE'):
                    until(lambda: pending.done() or 'a prepared transaction' in (place.info('hold_reason')[0] or ''))
                    check('a prepared transaction is waited for, too', not pending.done())
                    admin.rows("COMMIT PREPARED 'late'")
                pending.result()
                check(f'{end}: the run does not wait for who came later', True)
                seen = 3 if end.startswith('PREPARE') else 2  # with what came later the time before
                check(f'{end}: it read what had its number before', place.info('inserted') == (seen,), place.info('inserted'))
                later.rows('COMMIT')
        place.run(reader).result()
        place.same('in the end')

        writer.rows('BEGIN')
        place.insert(writer, 'slow')
        place.insert(admin, 'quick')
        reader.rows('SET lock_timeout = 300')
        error = reader.error('CALL portage.import(%s)', place.name)
        check('the session\'s lock_timeout bounds the wait', error is not None and error.pgcode == '55P03'
              and str(writer.pid) in (error.diag.message_detail or ''), told(error))
        reader.rows('RESET lock_timeout')
        check('nothing was read then', place.info('status, read') == ('failed', 0), place.info('status, read'))
        run = place.info('run_id')[0]
        pending = reader.begin('CALL portage.run(%s)', run)
        check('the run waits again', bool(place.holds()))
        writer.rows('COMMIT')
        pending.result()
        place.same('after the retry')

        writer.rows('BEGIN')
        place.insert(writer, 'never mind')
        pending = place.run(reader)
        place.holds()
        admin.rows('SELECT portage.cancel(%s)', place.info('run_id')[0])
        pending.wait()
        check('a run that waits can be cancelled', place.info('status') == ('cancelled',), place.info('status'))
        writer.rows('COMMIT')
        place.run(reader).result()
        place.same('after the cancelled run')

        parted = Place(server, admin, 'parted', '{"table": "parted", "cursor": "id"}', PARTED)
        writer.rows('BEGIN')
        writer.rows("INSERT INTO parted_low (id, v) OVERRIDING SYSTEM VALUE VALUES (nextval('parted_id_seq'), 'into the leaf')")
        parted.insert(admin, 'by the root')
        pending = parted.run(reader)
        check('who writes to a partition is waited for', bool(parted.holds()))
        writer.rows('COMMIT')
        pending.result()
        parted.same('partitions')


def storm(server, admin, name, source, rounds, sizes):
    """Writers that commit late, or not at all, while one run follows the other."""
    place = Place(server, admin, name, source)
    rng = random.Random(f'{SEED} {name}')
    stop, written = threading.Event(), [0, 0]

    def write(seed):
        mine = random.Random(seed)
        with Session(server) as session:
            while not stop.is_set():
                session.rows('BEGIN')
                for _ in range(mine.randint(1, 4)):
                    place.insert(session, f'{seed} {mine.random()}')
                    time.sleep(mine.choice((0, 0, 0.002, 0.02)))
                if mine.random() < 0.3:
                    session.rows('SAVEPOINT s')
                    place.insert(session, 'undone')
                    session.rows('ROLLBACK TO s')
                good = mine.random() < 0.75
                session.rows('COMMIT' if good else 'ROLLBACK')
                written[good] += 1
                time.sleep(mine.choice((0.005, 0.01, 0.02)))

    threads = [threading.Thread(target=write, args=(rng.randrange(1 << 30),)) for _ in range(5)]
    for thread in threads:
        thread.start()
    inserted, misread = 0, 0
    try:
        with Session(server) as reader:
            for number in range(rounds):
                until(lambda: min(written) > number)  # on any machine something goes on beside each of the runs
                options = '{"batch_size": %d}' % rng.choice(sizes)
                reader.rows('CALL portage.import(%s, options => %s)', name, options)
                read, new, unchanged = place.info('read, inserted, unchanged')
                inserted += new
                misread += read != new + unchanged
    finally:
        stop.set()
        ended(threads)
    admin.rows('CALL portage.import(%s)', name)
    place.same(f'{name}, {rounds} runs beside writers')
    check(f'{name}: each row was read once, or found unchanged', misread == 0, misread)
    check(f'{name}: the writers committed and rolled back meanwhile', min(written) >= rounds and inserted > 0,
          (written, inserted))


def killed(server, admin):
    """The backend dies in the middle of an incremental run."""
    place = Place(server, admin, 'killed', '{"table": "killed", "cursor": "id"}')
    admin.rows("INSERT INTO killed (v) SELECT 'first ' || i FROM generate_series(1, 1000) i")
    admin.rows("CALL portage.import('killed')")
    admin.rows(GATES)
    admin.rows("CREATE TRIGGER gate BEFORE INSERT ON killed_copy FOR EACH ROW EXECUTE FUNCTION gates.keep('id')")
    admin.rows("INSERT INTO killed (v) SELECT 'second ' || i FROM generate_series(1, 3000) i")
    for kill in range(3):
        reader = Session(server)
        if kill == 0:
            run = admin.value("SELECT portage.open_run('killed', options => '{\"batch_size\": 50}')")
            admin.rows('SELECT portage.attach_source(%s)', run)
        with Gate(server, 1225 + 300 * kill) as gate:  # in the fifth batch, and six batches on
            pending = reader.begin('CALL portage.run(%s)', run)
            gate.wait_for(reader)
            server.kill9_backend(reader.pid)
            pending.wait()
        check(f'kill {kill + 1}: the session is gone', pending.error is not None)
        admin = Session(server)
        position = admin.value('SELECT position::bigint FROM portage.source_cursors WHERE run_id = %s', run)
        landed = admin.value('SELECT max(id) FROM killed_copy')
        check(f'kill {kill + 1}: the cursor is where the rows are', position == landed, (position, landed))
        # What is written meanwhile is the next run's.
        admin.rows("INSERT INTO killed (v) VALUES ('meanwhile')")
    check('the run was in its middle', landed == 1800, landed)
    admin.rows('CALL portage.run(%s)', run)
    found = admin.rows('SELECT read, inserted FROM portage.status(%s)', run)[0]
    check('resumed, it has read its rows once', found == (3000, 3000), found)
    admin.rows("CALL portage.import('killed')")
    place.admin = admin
    check('the next run reads what came meanwhile, and nothing else', place.info('read, inserted') == (3, 3),
          place.info('read, inserted'))
    place.same('after three kills')


print(f'seed {SEED}')
with Server(max_prepared_transactions=5, **PATIENT) as server, Session(server) as admin:
    admin.rows('CREATE EXTENSION pg_portage')
    one_late(server, admin)
    storm(server, admin, 'numbers', '{"table": "numbers", "cursor": "id"}', 30, (1, 3, 10, 1000))
    storm(server, admin, 'times', '{"table": "times", "cursor": "at", "overlap": "30 seconds"}', 10, (200, 1000))
    killed(server, admin)
finish()
