#!/usr/bin/python3
"""The health signals with the real thing behind each: an archiver that fails, a standby that stands still, sessions that
wait for a run, autovacuum on its target, old snapshots, multixacts. Each is seen, by anybody, and ends with its cause.
And the view of who works on what."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import Server, check, finish  # noqa: E402
from sessions import Session, told, until  # noqa: E402

TARGETS = """
CREATE EXTENSION pg_portage;
CREATE ROLE worker LOGIN;
CREATE ROLE reader LOGIN;
CREATE ROLE stranger LOGIN;
CREATE TABLE plain (id integer PRIMARY KEY, v text);
CREATE TABLE parted (id integer PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (1000000)
  WITH (autovacuum_enabled = off, autovacuum_vacuum_threshold = 100, autovacuum_vacuum_scale_factor = 0,
        autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1);
INSERT INTO parted SELECT n, repeat('x', 200) FROM generate_series(100000, 120000) AS n;
GRANT SELECT, INSERT, UPDATE ON plain, parted, parted_low TO worker;
CREATE TABLE source (id integer PRIMARY KEY);
INSERT INTO source SELECT generate_series(1, 5000);
GRANT SELECT ON source TO worker;
CREATE TABLE elsewhere (id integer);
"""


class Slow:
    """A run of batches that take two seconds, until it is cancelled; its first one has been committed."""

    def __init__(self, server, admin, pipeline):
        self.admin, self.session = admin, Session(server, 'worker')
        self.run = self.session.value("SELECT portage.open_run(%s, options => '{\"batch_size\": 100}')", pipeline)
        self.session.rows("SELECT portage.attach_table(%s, 'source')", self.run)
        self.pending = self.session.begin('CALL portage.run(%s)', self.run)

    def __enter__(self):
        if not until(lambda: self.admin.value('SELECT count(*) FROM portage.locks WHERE run_id = %s', self.run) == 2):
            raise RuntimeError('the run does not begin: ' + told(self.pending.error))
        return self

    def __exit__(self, *_):
        self.admin.rows('SELECT portage.cancel(%s)', self.run)
        self.pending.wait()
        self.session.close()


def signal(session, name, **thresholds):
    """value, state and explanation of a signal, as the session sees it under these thresholds."""
    for setting, value in thresholds.items():
        session.rows(f'SET portage.{setting} = {value}')
    return session.rows('SELECT value, state, explanation FROM portage.health() WHERE signal = %s', name)[0]


def archive(server, admin):
    found = signal(admin, 'archive_backlog')
    check('the archiver that fails has hardly any files waiting yet', found[0] is not None and found[0] < 5 and found[1] == 'ok', found)
    for n in range(8):
        admin.rows('INSERT INTO elsewhere VALUES (%s)', n)
        admin.rows('SELECT pg_switch_wal()')
    found = until(lambda: (lambda f: f[0] >= 8 and f)(signal(admin, 'archive_backlog', max_archive_backlog=5)))
    check('WAL files wait for the archiver: hold', found and found[1] == 'hold' and
          found[2] == f'{found[0]} WAL files wait for the archiver (limit 5)', found or signal(admin, 'archive_backlog'))
    check('the same number by the server\'s own function', admin.value(
        "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%%.ready'") == found[0], found)
    check('with the signal switched off they are counted all the same',
          signal(admin, 'archive_backlog', max_archive_backlog=-1)[:2] == (found[0], 'off'))
    admin.rows("ALTER SYSTEM SET archive_command = '/bin/true'")
    admin.rows('SELECT pg_reload_conf()')
    found = until(lambda: (lambda f: f[0] == 0 and f)(signal(admin, 'archive_backlog', max_archive_backlog=5)))
    check('when the archiver works it is over', found == (0, 'ok', '0 WAL files wait for the archiver'), found)


def snapshots(server, admin):
    def burn(count=60):
        for _ in range(count):
            admin.rows('SELECT pg_current_xact_id()')

    def age():
        return signal(admin, 'oldest_xmin', max_xmin_age=50)

    found = until(lambda: (lambda f: f[1] == 'ok' and f)(age()))
    check('nobody has an old snapshot', found, age())
    with Session(server, 'stranger') as old:
        old.rows('BEGIN ISOLATION LEVEL REPEATABLE READ')
        old.rows('SELECT 1')
        burn()
        found = age()
        check('an old snapshot: halve', found[0] >= 60 and found[1] == 'halve' and
              found[2] == f'the oldest snapshot is {found[0]} transactions old (limit 50)', found)
        old.rows('COMMIT')
        check('when it is gone it is over', until(lambda: age()[1] == 'ok'), age())
    with Session(server) as preparer:
        preparer.rows('BEGIN')
        preparer.rows('INSERT INTO elsewhere VALUES (0)')
        preparer.rows("PREPARE TRANSACTION 'forgotten'")
    burn()
    check('a prepared transaction: halve', age()[1] == 'halve', age())
    admin.rows("ROLLBACK PREPARED 'forgotten'")
    check('when it is rolled back it is over', until(lambda: age()[1] == 'ok'), age())
    admin.rows('CREATE DATABASE other')
    with Session(server, dbname='other') as other:
        other.rows('BEGIN ISOLATION LEVEL REPEATABLE READ')
        other.rows('SELECT 1')
        burn()
        check('an old snapshot of another database keeps nothing here', until(lambda: age()[1] == 'ok'), age())


def multixacts(server, admin):
    admin.rows('CREATE TABLE shared (id integer PRIMARY KEY)')
    admin.rows('INSERT INTO shared SELECT generate_series(1, 30000)')
    before = signal(admin, 'multixact_members', max_multixact_members=50000)
    check('no multixacts yet', before == (0, 'ok', 'about 0 members of multixacts are kept'), before)
    with Session(server) as one, Session(server) as two:
        one.rows('BEGIN')
        one.rows('SELECT count(*) FROM (SELECT FROM shared FOR KEY SHARE) AS locked')
        # Rows that the same transactions hold share a multixact: here a subtransaction per row.
        two.rows("""DO $$ BEGIN FOR n IN 1 .. 30000 LOOP
            BEGIN PERFORM FROM shared WHERE id = n FOR KEY SHARE; EXCEPTION WHEN division_by_zero THEN NULL; END;
        END LOOP; END $$""")
        admin.rows('CHECKPOINT')  # members reach the disk when their buffers are wanted for others, or here
        after = signal(admin, 'multixact_members')
        check('60,000 members: hold', after == (52352, 'hold', 'about 52,352 members of multixacts are kept (limit 50,000)'), after)
    check('with a higher threshold it is well', signal(admin, 'multixact_members', max_multixact_members=60000)[1] == 'ok')


def blocked(server, admin):
    stranger, reader = Session(server, 'stranger'), Session(server, 'reader')
    with Slow(server, admin, 'plain') as slow, Session(server) as locker:
        locker.rows('BEGIN')
        locker.rows('LOCK TABLE elsewhere')
        waiters = [Session(server) for _ in range(4)]
        pending = [waiters[0].begin('TABLE elsewhere')]
        pending += [waiter.begin('BEGIN; LOCK TABLE plain IN SHARE MODE; COMMIT') for waiter in waiters[1:]]

        def seen():
            found = signal(stranger, 'blocked_sessions', max_blocked_sessions=2)
            locks = reader.rows('SELECT resource, holder, waiting, epoch, acquired_at IS NOT NULL, expires_at FROM portage.locks '
                                'WHERE run_id = %s ORDER BY resource DESC', slow.run)
            return found[0] == 3 and len(locks) == 2 and len(locks[0][2]) == 3 and (found, locks)

        found, locks = until(seen) or (signal(stranger, 'blocked_sessions'), [])
        check('sessions that wait behind a run are counted, those behind others are not',
              found == (3, 'halve', '3 sessions wait for locks of running migrations (limit 2)'), found)
        check('also by who may see nothing of the run', stranger.value('SELECT count(*) FROM portage.locks') == 0)
        check('locks: the run and its range, by whoever may see the run', [(lock[0], lock[3]) for lock in locks] ==
              [('pipeline plain', None), ('part 1, range 1', 1)], locks)
        check('locks: held by the process', all(lock[1] == {'pid': slow.session.pid, 'role': 'worker', 'worker': None}
                                                for lock in locks), locks)
        check('locks: since when', locks and locks[0][4], locks)
        check('locks: who waits', all(set(lock[2]) == {waiter.pid for waiter in waiters[1:]} for lock in locks), locks)
        kinds = {holder['worker'] for holder, in admin.rows('SELECT holder FROM portage.locks')}
        check('locks: the kind of process, for who may see it', kinds == {'client backend'}, kinds)
        locker.rows('COMMIT')
        for one in pending:
            one.result()
        check('when they have got their locks it is over', until(lambda: signal(stranger, 'blocked_sessions')[:2] == (0, 'ok')))
    check('nothing is held when the run has ended', admin.value('SELECT count(*) FROM portage.locks') == 0)
    for session in (stranger, reader, *waiters):
        session.close()


def autovacuum(server, admin):
    def working():
        return admin.value("SELECT count(*) FROM pg_stat_progress_vacuum WHERE relid = 'parted_low'::regclass") == 1

    admin.rows('DELETE FROM parted WHERE id % 2 = 0')
    admin.rows('ALTER TABLE parted_low SET (autovacuum_enabled = on)')
    check('autovacuum has come', until(working))
    check('it counts only where a run writes', signal(admin, 'autovacuum') == (0, 'ok', 'autovacuum does not work on the target'))
    with Slow(server, admin, 'parted'):
        found = signal(admin, 'autovacuum')
        check('autovacuum works on a partition of the target: halve', found == (1, 'halve', 'autovacuum works on the target'), found)
        check('if that is wished', signal(admin, 'autovacuum', yield_to_autovacuum='off')[:2] == (1, 'off'))
        check('it was there all the while', working())
        admin.rows('SET portage.yield_to_autovacuum = on')
        admin.rows('ALTER TABLE parted_low SET (autovacuum_enabled = off)')
        admin.rows('SELECT pg_terminate_backend(pid) FROM pg_stat_progress_vacuum')
        check('when it has gone it is over', until(lambda: signal(admin, 'autovacuum')[:2] == (0, 'ok')))


def replication(server, admin):
    check('no standby, no signal', signal(admin, 'replication_lag', max_replication_lag=700) == (None, 'ok', 'no standby is connected'))
    with Server(standby_of=server, wal_receiver_status_interval='1s') as standby, Session(standby) as there:
        def lag():
            admin.rows('INSERT INTO elsewhere VALUES (1)')
            return signal(admin, 'replication_lag')

        found = until(lambda: (lambda f: f[0] is not None and f[1] == 'ok' and f)(lag()))
        check('a standby that keeps up', found and found[2] == f'the slowest standby is {found[0]} ms behind', found or lag())
        there.rows('SELECT pg_wal_replay_pause()')
        until(lambda: lag() and there.value('SELECT pg_get_wal_replay_pause_state()') == 'paused')
        found = until(lambda: (lambda f: f[1] == 'hold' and f)(lag()))
        check('a standby that stands still: hold', found and found[0] > 700 and found[2].endswith(' ms behind (limit 700)'), found or lag())
        there.rows('SELECT pg_wal_replay_resume()')
        check('when it has caught up it is over', until(lambda: lag()[1] == 'ok'), lag())
    check('a standby that is gone is no signal', until(lambda: signal(admin, 'replication_lag')[0] is None))


with Server(archive_mode='on', archive_command='/bin/false', max_prepared_transactions=2, autovacuum_naptime='1s',
            max_wal_senders=4, wal_level='replica') as server:
    server.psql(TARGETS)
    with Session(server) as admin, Session(server, 'worker') as worker:
        admin.rows('GRANT CREATE ON DATABASE postgres TO worker')
        for table in ('plain', 'parted'):
            worker.rows('SELECT portage.create_pipeline(%s, %s, %s)', table, table,
                        '{"format": "rows", "legacy_id": "id", "columns": {"id": "id", "v": {"sql": "pg_sleep(0.02)::text"}}}')
            worker.rows("SELECT portage.grant_pipeline(%s, 'reader', 'read')", table)
        archive(server, admin)
        snapshots(server, admin)
        multixacts(server, admin)
        blocked(server, admin)
        autovacuum(server, admin)
        replication(server, admin)
finish()
