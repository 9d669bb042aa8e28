#!/usr/bin/python3
"""Groups of pipelines in the background: their order, side by side, a member that fails, cancel, resume and rollback, a
worker that is killed and a server that is restarted in the middle, references in both orders. Real processes."""

import contextlib
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import PATIENCE, Server, check, finish  # noqa: E402
from sessions import GATES, Gate, Session, told, until  # noqa: E402

ITEMS = 3000

# name: what it comes after, or what its column "parent" refers to
CHAIN = {'a': {}, 'b': {'refers': 'a'}, 'c': {'after': 'b'}, 'd': {}, 'e': {'after': ['a', 'd']}}


def create(admin, name, refers=None, after=None):
    """A pipeline from the table old_NAME to the table NAME."""
    admin.rows(f'CREATE TABLE old_{name} (id int PRIMARY KEY, parent int)')
    admin.rows(f'INSERT INTO old_{name} SELECT g, g FROM generate_series(1, {ITEMS}) g')
    admin.rows(f'CREATE TABLE {name} (id int PRIMARY KEY, parent int)')
    define(admin, 'create', name, refers, after)


def define(admin, verb, name, refers=None, after=None):
    parent = f'{{"from": "parent", "references": "{refers}"}}' if refers else '"parent"'
    names = ', '.join(f'"{one}"' for one in ([after] if isinstance(after, str) else after or []))
    target = f"'{name}', " if verb == 'create' else ''
    admin.rows(f"""SELECT portage.{verb}_pipeline('{name}', {target}'{{"format": "rows", "legacy_id": "id",
        "columns": {{"id": "id", "parent": {parent}}}, "source": {{"table": "old_{name}"}}{f', "after": [{names}]' if names else ''}}}')""")


@contextlib.contextmanager
def held_up(server, *tables):
    """Who works on these members holds until the end of the block."""
    with Session(server) as locker:
        locker.rows('BEGIN')
        locker.rows(f'LOCK TABLE {", ".join(tables)} IN SHARE MODE')
        yield


def run_group(session, names, options='{}'):
    return session.value('SELECT portage.run_group(%s, %s::jsonb)', list(names), options)


def states(admin, group):
    return dict(admin.rows('SELECT pipeline, status FROM portage.group_status(%s)', group))


def status(admin, group):
    return admin.value('SELECT status FROM portage.groups WHERE group_id = %s', group)


def wait(admin, group):
    return admin.value('CALL portage.wait_group(%s, %s)', group, f'{PATIENCE} s')


def run_of(admin, group, name):
    return admin.value('SELECT run_id FROM portage.group_status(%s) WHERE pipeline = %s', group, name)


def worker_of(admin, group, name):
    """The process that works on a member, when there is one."""
    return until(lambda: admin.value("SELECT owner_pid FROM portage.migration_runs WHERE id = %s AND status = 'running'",
                                     run_of(admin, group, name)))


def landed(admin, names):
    return [admin.value(f'SELECT count(*) FROM {name}') for name in names]


def all_in(admin, group, names):
    check('... completed', status(admin, group) == 'completed', (status(admin, group), states(admin, group)))
    check('... with everything', landed(admin, names) == [ITEMS] * len(names), landed(admin, names))
    balanced = admin.value("""SELECT bool_and(read = inserted AND read = %s AND open_parked = 0) FROM portage.migration_runs
        WHERE group_id = %s""", ITEMS, group)
    check('... and balanced books', balanced)


def in_order(admin, group, first, then):
    return admin.value('SELECT f.completed_at <= t.started_at FROM portage.migration_runs f, portage.migration_runs t '
                       'WHERE f.id = %s AND t.id = %s', run_of(admin, group, first), run_of(admin, group, then))


def take_back(admin, group, names):
    error = admin.error('CALL portage.rollback_group(%s)', group)
    check('rollback takes all of it back', error is None and landed(admin, names) == [0] * len(names),
          (told(error), landed(admin, names)))
    check('... and says so', status(admin, group) == 'rolled_back' and
          not set(states(admin, group).values()) - {'rolled_back', 'pending', 'skipped', 'cancelled'}, states(admin, group))


def test_order(server, admin):
    with held_up(server, 'a', 'd'):
        with Session(server) as starter:
            group = run_group(starter, reversed(CHAIN))
        together = until(lambda: admin.value("SELECT count(*) = 2 FROM portage.group_status(%s) s JOIN portage.migration_runs r ON "
                                             "r.id = s.run_id WHERE r.status = 'running' AND r.owner_pid IS NOT NULL", group))
        check('two members are worked on side by side', together, states(admin, group))
        check('two and no more', admin.value("SELECT count(*) FILTER (WHERE status = 'pending') = 3 FROM portage.group_status(%s)", group),
              states(admin, group))
    check('a group goes on though the session is gone', until(lambda: status(admin, group) == 'completed'), states(admin, group))
    all_in(admin, group, CHAIN)
    for first, then in (('a', 'b'), ('b', 'c'), ('a', 'e'), ('d', 'e')):
        check(f'{first} before {then}', in_order(admin, group, first, then))
    check('what can be begun is, whatever its level', admin.value(
        "SELECT array_agg(level ORDER BY pipeline) FROM portage.group_status(%s)", group) == [0, 1, 2, 0, 1])
    take_back(admin, group, CHAIN)
    group = run_group(admin, CHAIN, '{"workers": 1}')
    check('one after the other', wait(admin, group) == 'completed')
    all_in(admin, group, CHAIN)
    check('... never two', admin.value("""SELECT NOT EXISTS (SELECT FROM portage.migration_runs x JOIN portage.migration_runs y
        ON x.group_id = y.group_id AND x.id <> y.id AND x.started_at >= y.started_at AND x.started_at < y.completed_at
        WHERE x.group_id = %s)""", group))
    take_back(admin, group, CHAIN)
    admin.rows('BEGIN')
    group = run_group(admin, CHAIN)
    admin.rows('ROLLBACK')
    check('a group that is rolled back with its transaction never was', status(admin, group) is None)


def test_failure(admin):
    admin.rows('ALTER TABLE b ADD CONSTRAINT not_7 CHECK (id <> 7)')
    group = run_group(admin, CHAIN, '{"options": {"max_rejects": 0}}')
    check('a group with a member that fails has failed', wait(admin, group) == 'failed', states(admin, group))
    found = states(admin, group)
    check('what waited for it is skipped, the rest completes', found == {
        'a': 'completed', 'b': 'failed', 'c': 'skipped', 'd': 'completed', 'e': 'completed'}, found)
    reason = admin.value("SELECT reason FROM portage.group_status(%s) WHERE pipeline = 'c'", group)
    check('... and says why', reason == f"run {run_of(admin, group, 'b')} of pipeline \"b\" is failed", reason)
    check('... the failed one, too', 'too many rejects' in admin.value(
        "SELECT reason FROM portage.group_status(%s) WHERE pipeline = 'b'", group))
    admin.rows('SELECT portage.resume_group(%s)', group)
    check('resumed for nothing it fails again', wait(admin, group) == 'failed')
    admin.rows('ALTER TABLE b DROP CONSTRAINT not_7')
    admin.rows('CALL portage.rollback(%s)', run_of(admin, group, 'b'))
    admin.rows('SELECT portage.resume_group(%s)', group)
    check('what was taken back does not come again', wait(admin, group) == 'failed' and states(admin, group)['b'] == 'rolled_back')
    take_back(admin, group, CHAIN)
    # Blocked, not failed: a right is missing when its turn comes.
    with Session(admin.server) as theirs:
        theirs.rows('SET SESSION AUTHORIZATION importer')
        with held_up(admin.server, 'a'):
            group = run_group(theirs, ('a', 'b', 'c'))
            admin.rows('REVOKE INSERT ON b FROM importer')
        check('a member that may not begin fails', wait(theirs, group) == 'failed', states(admin, group))
        check('... with the right that it lacks', 'permission denied' in admin.value(
            "SELECT reason FROM portage.group_status(%s) WHERE pipeline = 'b'", group))
        admin.rows('GRANT INSERT ON b TO importer')
        theirs.rows('SELECT portage.resume_group(%s)', group)
        check('resume_group gives all their turn', wait(theirs, group) == 'completed', states(admin, group))
        check('as the group''s role', admin.value(
            "SELECT bool_and(role_name = 'importer') FROM portage.migration_runs WHERE group_id = %s", group))
    all_in(admin, group, ('a', 'b', 'c'))
    take_back(admin, group, ('a', 'b', 'c'))


def test_control(admin):
    admin.rows(GATES)
    admin.rows("CREATE TRIGGER gate BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION gates.keep('id')")
    with Gate(admin.server, 1500) as gate:
        group = run_group(admin, CHAIN, '{"workers": 1, "options": {"batch_size": 200}}')
        gate.somebody_waits()
        error = admin.error('CALL portage.rollback_group(%s)', group)
        check('what is under way is not taken back', error is not None and error.pgcode == 'PZ006', told(error))
        admin.rows('SELECT portage.pause(%s)', run_of(admin, group, 'a'))
        check('a paused member', until(lambda: states(admin, group)['a'] == 'paused'), states(admin, group))
        check('does not hold up what does not wait for it', until(lambda: states(admin, group)['d'] == 'completed'), states(admin, group))
        check('... but the group', status(admin, group) == 'running' and states(admin, group)['e'] == 'pending', states(admin, group))
        admin.rows('SELECT portage.resume_group(%s)', group)
        check('resume_group goes on with it', worker_of(admin, group, 'a') is not None)
        admin.rows('SELECT portage.cancel_group(%s)', group)
    check('cancel in the middle', until(lambda: set(states(admin, group).values()) == {'cancelled', 'completed'}), states(admin, group))
    check('... ends the group', status(admin, group) == 'cancelled')
    check('... in mid-member, with or without the batch in hand', landed(admin, 'a') in ([1400], [1600]), landed(admin, 'a'))
    admin.rows('CALL portage.tick()')
    check('... for good', wait(admin, group) == 'cancelled')
    admin.rows('DROP TRIGGER gate ON a')
    take_back(admin, group, CHAIN)


def test_disasters(server):
    with Session(server) as admin:
        with held_up(server, 'a'):
            group = run_group(admin, CHAIN, '{"options": {"batch_size": 500}}')
            os.kill(worker_of(admin, group, 'a'), signal.SIGTERM)
        check('a worker that is ended in the middle is replaced', wait(admin, group) == 'completed', states(admin, group))
        all_in(admin, group, CHAIN)
        take_back(admin, group, CHAIN)
        with held_up(server, 'a'):
            group = run_group(admin, CHAIN, '{"options": {"batch_size": 500}}')
            worker_of(admin, group, 'a')
            server.kill9()
            server.restart()
    with Session(server) as admin:
        check('after a crash nothing goes on by itself', states(admin, group)['c'] == 'pending')

        def ticks():
            admin.rows('CALL portage.tick()')
            return status(admin, group) != 'running'
        check('tick() gets it going again', until(ticks), states(admin, group))
        all_in(admin, group, CHAIN)
        take_back(admin, group, CHAIN)
        # The member is complete, and whoever should have moved the group on is not there.
        with held_up(server, 'a'):
            group = run_group(admin, CHAIN)
            worker_of(admin, group, 'a')
            admin.rows('SELECT portage.pause(%s)', run_of(admin, group, 'a'))
            until(lambda: states(admin, group)['a'] == 'paused')
        until(lambda: states(admin, group)['d'] == 'completed')
        admin.rows('CALL portage.run(%s)', run_of(admin, group, 'a'))
        check('what was worked off by hand counts', states(admin, group)['a'] == 'completed' and wait(admin, group) == 'completed',
              states(admin, group))
        all_in(admin, group, CHAIN)
        take_back(admin, group, CHAIN)
    with Session(server) as admin:
        group = run_group(admin, CHAIN, '{"background": false}')
        check('a group without workers waits for work_group', wait(admin, group) == 'running' and
              set(states(admin, group).values()) == {'pending'})
        with Session(server) as worker, held_up(server, 'b'):
            work = worker.begin('CALL portage.work_group(%s)', group)
            worker_of(admin, group, 'b')
            admin.rows('SELECT pg_cancel_backend(%s)', worker.pid)
            check('work_group can be cancelled', work.wait().error is not None and work.error.pgcode == '57014', told(work.error))
        check('... and nobody works any more', status(admin, group) == 'running' and states(admin, group)['c'] == 'pending')
        check('called again it goes on', admin.value('CALL portage.work_group(%s)', group) == 'completed', states(admin, group))
        all_in(admin, group, CHAIN)
        take_back(admin, group, CHAIN)


def test_mutual(admin):
    """Each refers to the other, and both run at the same time."""
    create(admin, 'm')
    create(admin, 'n', refers='m')
    define(admin, 'replace', 'm', refers='n')
    admin.rows('UPDATE old_m SET parent = NULL WHERE id % 2 = 1')
    admin.rows('UPDATE old_n SET parent = NULL WHERE id % 2 = 0')
    group = run_group(admin, ('m', 'n'))
    check('references in both orders', wait(admin, group) == 'completed', states(admin, group))
    all_in(admin, group, ('m', 'n'))
    take_back(admin, group, ('m', 'n'))
    admin.rows('DELETE FROM old_n WHERE id > 2990')
    for workers in (1, 2):
        group = run_group(admin, ('m', 'n'), '{"workers": %d}' % workers)
        check(f'with {workers} workers: what misses something at the end', wait(admin, group) == 'completed', states(admin, group))
        found = admin.rows("SELECT pipeline, inserted, parked, invalid FROM portage.group_status(%s) ORDER BY 1", group)
        check('... is a reject', found == [('m', 2995, 0, 5), ('n', 2990, 0, 0)], found)
        message = admin.value("SELECT min(message) FROM portage.rejects WHERE run_id = %s", run_of(admin, group, 'm'))
        check('... that names what is missing', message and '"2992"' in message, message)
        take_back(admin, group, ('m', 'n'))


with Server(max_worker_processes=16) as one:
    with Session(one) as postgres:
        postgres.server = one
        postgres.rows('CREATE EXTENSION pg_portage')
        postgres.rows('CREATE ROLE importer LOGIN')
        for pipeline, depends in CHAIN.items():
            create(postgres, pipeline, **depends)
            postgres.rows(f'GRANT SELECT ON old_{pipeline} TO importer')
            postgres.rows(f'GRANT ALL ON {pipeline} TO importer')
            postgres.rows("SELECT portage.grant_pipeline(%s, 'importer', 'run')", pipeline)
        test_order(one, postgres)
        test_failure(postgres)
        test_control(postgres)
        test_mutual(postgres)
    test_disasters(one)
finish()
