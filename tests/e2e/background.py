#!/usr/bin/python3
"""Runs that look after themselves: background workers, pause, resume, cancel and retry, locks that others hold, and what
tick(), wait() and other workers do for a run that waits. Real processes, real signals."""

import contextlib
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..', 'lib'))
from portage_server import Server, check, finish
from sessions import GATES, PATIENT, Gate, Session, left, until

ITEMS = 60000


def prepare(session):
    session.rows('CREATE EXTENSION pg_portage')
    session.rows(GATES)
    session.rows('CREATE TABLE source (id bigint PRIMARY KEY, name text NOT NULL)')
    session.rows(f"INSERT INTO source SELECT g, 'name ' || g FROM generate_series(1, {ITEMS}) g")
    session.rows('CREATE TABLE target (id bigint PRIMARY KEY, name text NOT NULL)')
    session.rows("""SELECT portage.create_pipeline('copy', 'target',
        '{"format": "rows", "legacy_id": "id", "columns": {"id": "id", "name": "name"}}')""")
    session.rows("CREATE TRIGGER gate BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION gates.keep('id')")


def open_run(session, options='{}', scope=''):
    run = session.value("SELECT portage.open_run('copy', %s, %s)", scope, options)
    session.rows("SELECT portage.attach_table(%s, 'source')", run)
    return run


def status(session, run):
    return session.value('SELECT status FROM portage.migration_runs WHERE id = %s', run)


def hold_reason(session, run):
    return session.value('SELECT hold_reason FROM portage.progress WHERE run_id = %s', run) or ''


def owner(session, run):
    return session.value('SELECT owner_pid FROM portage.migration_runs WHERE id = %s', run)


def balanced(session, run):
    return session.value("""SELECT r.read = %s AND r.read = r.inserted + r.updated + r.unchanged + r.skipped + r.invalid + r.failed
        AND (SELECT count(*) = %s AND count(DISTINCT id) = %s FROM target)
        AND (SELECT count(*) = %s FROM portage.migration_items i WHERE i.run_id = r.id)
        FROM portage.migration_runs r WHERE r.id = %s""", ITEMS, ITEMS, ITEMS, ITEMS, run)


def take_back(session, run):
    session.rows('CALL portage.rollback(%s)', run)
    check('rollback brings the target back', session.value('SELECT count(*) FROM target') == 0)


def test_start(server):
    with Session(server) as admin:
        prepare(admin)
        run = open_run(admin)
        with Session(server) as starter:
            starter.rows('SELECT portage.start(%s)', run)
        check('the run completes though the client has gone', until(lambda: status(admin, run) == 'completed'))
        check('and everything landed', balanced(admin, run))
        check('it was verified', admin.value('SELECT verified FROM portage.migration_runs WHERE id = %s', run))
        take_back(admin, run)

        run = open_run(admin)
        admin.rows('BEGIN')
        admin.rows('SELECT portage.start(%s)', run)
        admin.rows('ROLLBACK')
        later = open_run(admin, '{"dry_run": true, "limit": 1}', 'later')
        admin.rows('SELECT portage.start(%s)', later)
        check('a start that is rolled back starts nothing, though a later one has been', admin.value('CALL portage.wait(%s)', later) ==
              'completed' and status(admin, run) == 'pending')
        error = admin.error('CALL portage.wait(%s)', run)
        check('waiting for what was not started is an error', error is not None and error.pgcode == 'PZ006')
        admin.rows('SELECT portage.start(%s)', run)
        check('wait tells how it ended', admin.value('CALL portage.wait(%s)', run) == 'completed')
        error = admin.error('SELECT portage.start(%s)', run)
        check('a run that has ended cannot be started', error is not None and error.pgcode == 'PZ006')
        take_back(admin, run)

        run = open_run(admin, '{"max_rejects": 0}')
        admin.rows("ALTER TABLE target ADD CHECK (id <> 77) NOT VALID")
        admin.rows('SELECT portage.start(%s)', run)
        check('a run that fails says so itself', admin.value('CALL portage.wait(%s)', run) == 'failed')
        check('with its reason', admin.value('SELECT error_code FROM portage.migration_runs WHERE id = %s', run) == 'PZ011')
        admin.rows('CALL portage.rollback(%s)', run)
        admin.rows('ALTER TABLE target DROP CONSTRAINT target_id_check')


def test_roles(server):
    with Session(server) as admin:
        admin.rows('CREATE ROLE nologin_role')
        admin.rows('CREATE ROLE worker_role LOGIN')
        admin.rows('GRANT nologin_role TO worker_role')
        admin.rows('CREATE TABLE theirs (id bigint PRIMARY KEY, name text NOT NULL)')
        admin.rows('GRANT SELECT ON source TO nologin_role')
        with Session(server, 'worker_role') as theirs:
            theirs.rows('SET ROLE nologin_role')
            theirs.rows("""SELECT portage.create_pipeline('theirs', 'theirs',
                '{"format": "rows", "legacy_id": "id", "columns": {"id": "id", "name": "name"}}')""")
            run = theirs.value("SELECT portage.open_run('theirs')")
            theirs.rows("SELECT portage.attach_table(%s, 'source')", run)
            theirs.rows('SELECT portage.start(%s)', run)
            check('a run that may not begin fails', theirs.value('CALL portage.wait(%s)', run) == 'failed')
            check('and names the right that is missing', 'permission denied' in (theirs.value(
                'SELECT error FROM portage.migration_runs WHERE id = %s', run) or ''))
            admin.rows('GRANT SELECT, INSERT, DELETE ON theirs TO nologin_role')
            theirs.rows('SELECT portage.retry(%s)', run)
            check('retry goes on', theirs.value('CALL portage.wait(%s)', run) == 'completed')
            check('as the run''s role', theirs.value('SELECT count(*) FROM theirs') == ITEMS)
        with Session(server) as other:
            other.rows('SET SESSION AUTHORIZATION nologin_role')
            run = other.value("SELECT portage.open_run('theirs')")
            other.rows("SELECT portage.attach_table(%s, 'source')", run)
            error = other.error('SELECT portage.start(%s)', run)
            if server.version < 17:
                check('a session user without LOGIN is refused', error is not None and error.pgcode == '0A000')
                check('with the way out', error is not None and f'CALL portage.run({run})' in error.diag.message_hint)
                check('and the run is as it was', status(other, run) == 'pending')


@contextlib.contextmanager
def patient(admin):
    """Whoever connects meanwhile stays at a gate."""
    for setting, value in PATIENT.items():
        admin.rows(f"ALTER DATABASE postgres SET {setting} = '{value}'")
    yield
    admin.rows('ALTER DATABASE postgres RESET ALL')


def test_control(server):
    def read():
        return admin.value('SELECT read FROM portage.progress WHERE run_id = %s', run)

    with Session(server) as admin, patient(admin):
        run = open_run(admin, '{"batch_size": 1000}')
        with Gate(server, 2500) as gate:
            admin.rows('SELECT portage.start(%s)', run)
            check('it begins', gate.somebody_waits() and read() == 2000, read())
            admin.rows('SELECT portage.pause(%s)', run)
        check('pause takes effect', until(lambda: status(admin, run) == 'paused'))
        check('in the middle', read() == 3000, read())
        check('and its process has gone', owner(admin, run) is None)
        check('progress names the way on', f'portage.resume({run})' in hold_reason(admin, run))
        error = admin.error('SELECT portage.pause(%s)', run)
        check('what is paused cannot be paused', error is not None and error.pgcode == 'PZ006')
        with Gate(server, 4500) as gate:
            admin.rows('SELECT portage.resume(%s)', run)
            check('resume goes on', gate.somebody_waits() and read() == 4000, read())
            admin.rows('SELECT portage.cancel(%s)', run)
        check('cancel takes effect', until(lambda: status(admin, run) == 'cancelled'))
        events = admin.value("SELECT array_agg(event_type ORDER BY seq) FROM portage.migration_events WHERE run_id = %s AND "
                             "event_type <> 'stage_changed'", run)
        check('each change is an event: %s' % events,
              events == ['run_created', 'queued', 'migration_started', 'paused', 'resumed', 'resumed', 'cancelled'])
        take_back(admin, run)

        run = open_run(admin, '{"batch_size": 1000}')
        with Session(server) as runner:
            with Gate(server, 2500) as gate:
                pending = runner.begin('CALL portage.run(%s)', run)
                gate.wait_for(runner)
                admin.rows('SELECT portage.pause(%s)', run)
            pending.result()
            check('a run in a session pauses, too, and the session is free', status(admin, run) == 'paused')
            runner.rows('CALL portage.run(%s)', run)
        check('and goes on there', status(admin, run) == 'completed' and balanced(admin, run))
        take_back(admin, run)


def test_locks(server):
    with Session(server) as admin, Session(server) as locker:
        run = open_run(admin)
        locker.rows('BEGIN')
        locker.rows('LOCK TABLE target IN SHARE MODE')
        admin.rows('SELECT portage.start(%s)', run)
        check('the run holds behind a lock', until(lambda: 'lock' in hold_reason(admin, run)))
        check('and keeps nobody from the table', locker.value('SELECT count(*) FROM target') == 0)
        locker.rows('COMMIT')
        check('and goes on by itself', admin.value('CALL portage.wait(%s)', run) == 'completed' and balanced(admin, run))
        events = admin.value('SELECT array_agg(event_type) FROM portage.migration_events WHERE run_id = %s', run)
        check('both are events', 'held' in events and 'released' in events)

        locker.rows('BEGIN')
        locker.rows('LOCK TABLE target IN SHARE MODE')
        with Session(server) as roller:
            pending = roller.begin('CALL portage.rollback(%s)', run)
            check('a rollback holds, too', until(lambda: 'lock' in hold_reason(admin, run)))
            admin.rows('SELECT portage.pause(%s)', run)
            pending.result()
        check('and can be paused there', status(admin, run) == 'paused')
        locker.rows('COMMIT')
        admin.rows('SELECT portage.resume(%s)', run)
        check('resume goes on with the rollback', admin.value('CALL portage.wait(%s)', run) == 'rolled_back')
        check('to its end', admin.value('SELECT count(*) FROM target') == 0)


def test_slow_items(server):
    """A batch that exceeds its time limit is tried in halves."""
    with Session(server) as admin:
        admin.rows("CREATE FUNCTION sleepy() RETURNS trigger LANGUAGE plpgsql AS "
                   "$$ BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END $$")
        admin.rows('CREATE TRIGGER sleepy BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION sleepy()')
        run = admin.value("SELECT portage.open_run('copy', '', '{\"limit\": 300}')")
        admin.rows("SELECT portage.attach_table(%s, 'source')", run)
        admin.rows('SELECT portage.start(%s)', run)
        check('slow rows land', admin.value('CALL portage.wait(%s)', run) == 'completed'
              and admin.value('SELECT count(*) FROM target') == 300)
        check('in smaller batches', admin.value("SELECT max(read) FROM portage.migration_batches WHERE run_id = %s", run) < 300)
        check('and the range says why', 'too long' in (admin.value(
            'SELECT last_error FROM portage.migration_ranges WHERE run_id = %s', run) or ''))
        admin.rows('DROP TRIGGER sleepy ON target')
        admin.rows('CALL portage.rollback(%s)', run)


def test_exclusive(server):
    """Two pipelines on one table, one of which wants it for itself alone."""
    with Session(server) as admin:
        admin.rows("""SELECT portage.create_pipeline('alone', 'target',
            '{"format": "rows", "legacy_id": "id", "columns": {"id": "id", "name": "name"}, "exclusive": true}')""")
        alone = admin.value("SELECT portage.open_run('alone')")
        admin.rows("SELECT portage.attach_table(%s, 'source')", alone)
        run = open_run(admin)
        with Session(server) as locker:
            locker.rows('BEGIN')
            locker.rows('LOCK TABLE target IN SHARE MODE')
            admin.rows('SELECT portage.start(%s)', run)
            check('a run is under way', until(lambda: 'lock' in hold_reason(admin, run)))
            error = admin.error('CALL portage.run(%s)', alone)
            check('an exclusive one does not begin beside it', error is not None and error.pgcode == 'PZ007'
                  and f'Run {run} ' in error.diag.message_detail)
            locker.rows('COMMIT')
        check('the first one ends', admin.value('CALL portage.wait(%s)', run) == 'completed')
        with Session(server) as locker:
            locker.rows('BEGIN')
            locker.rows('LOCK TABLE target IN SHARE MODE')
            admin.rows('SELECT portage.start(%s)', alone)
            check('the exclusive one is under way', until(lambda: 'lock' in hold_reason(admin, alone)))
            check('view locks shows what it has taken', admin.value(
                "SELECT count(*) FROM portage.locks WHERE run_id = %s AND resource = 'target public.target'", alone) == 1)
            other = open_run(admin, scope='other')
            error = admin.error('CALL portage.run(%s)', other)
            check('and keeps others from the table', error is not None and error.pgcode == 'PZ007'
                  and f'Run {alone} ' in error.diag.message_detail)
            locker.rows('COMMIT')
        check('until it ends', admin.value('CALL portage.wait(%s)', alone) == 'completed')
        admin.rows('SELECT portage.cancel(%s)', other)
        take_back(admin, run)


def test_killed_worker(server):
    with Session(server) as admin, Session(server) as locker:
        run = open_run(admin)
        locker.rows('BEGIN')
        locker.rows('LOCK TABLE target IN SHARE MODE')
        admin.rows('SELECT portage.start(%s)', run)
        check('a worker is at work', until(lambda: 'lock' in hold_reason(admin, run)))
        pid = owner(admin, run)
        admin.rows('SELECT pg_terminate_backend(%s)', pid)
        left(admin, pid)
        check('a run without its worker waits for one', 'background worker' in hold_reason(admin, run), hold_reason(admin, run))
        locker.rows('COMMIT')
        admin.rows('CALL portage.tick()')
        check('tick sends another', admin.value('CALL portage.wait(%s)', run) == 'completed' and balanced(admin, run))
        take_back(admin, run)


def test_archive(server):
    """WAL piles up behind an archiver that fails: the run holds, and goes on when it works again."""
    with Session(server) as admin:
        prepare(admin)
        for _ in range(5):
            admin.rows('CREATE TABLE wal ()')
            admin.rows('DROP TABLE wal')
            admin.rows('SELECT pg_switch_wal()')
        run = open_run(admin, '{"limit": 8000}')
        admin.rows('SELECT portage.start(%s)', run)
        check('the run holds while the archiver lags', until(lambda: 'archiver' in hold_reason(admin, run)))
        admin.rows("ALTER SYSTEM SET archive_command = '/bin/true'")
        admin.rows('SELECT pg_reload_conf()')
        check('and goes on by itself', admin.value('CALL portage.wait(%s)', run) == 'completed'
              and admin.value('SELECT count(*) FROM target') == 8000)
        events = admin.value('SELECT array_agg(event_type) FROM portage.migration_events WHERE run_id = %s', run)
        check('both are events', 'held' in events and 'released' in events)


def test_slots(server):
    """Two worker slots, and more runs than that."""
    with Session(server) as admin:
        prepare(admin)
        runs = [open_run(admin, scope='s%d' % i, options='{"limit": 3000}') for i in range(6)]
        admin.rows('BEGIN')
        for run in runs:
            admin.rows('SELECT portage.start(%s)', run)
        admin.rows('COMMIT')
        check('those without a slot say so', any('CALL portage.run' in hold_reason(admin, run) for run in runs))
        check('each has its turn', until(lambda: all(status(admin, run) == 'completed' for run in runs)))


with Server(fsync='off') as server:
    server.version = int(server.psql('SHOW server_version_num')) // 10000
    test_start(server)
    test_roles(server)
    test_control(server)
    test_locks(server)
    test_slow_items(server)
    test_exclusive(server)
    test_killed_worker(server)
with Server(archive_mode='on', archive_command='/bin/false', **{'portage.max_archive_backlog': 2}) as server:
    test_archive(server)
with Server(max_worker_processes=2, max_logical_replication_workers=0) as server:
    test_slots(server)
finish()
