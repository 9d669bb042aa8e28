#!/usr/bin/python3
"""Few worker slots, and strangers in them: the parallel workers of somebody's long query. A started run waits and says how
it can be worked off meanwhile; it is picked up by whatever finds a free slot: the launcher where pg_portage is preloaded,
elsewhere CALL wait() in another session, another run's worker that ends, or CALL tick(). And runs that no worker can ever
work off, because their role may not log in or is gone: they are let alone, and stand in nobody's way."""

import contextlib
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
import psycopg2  # noqa: E402
from portage_server import Server, check, finish  # noqa: E402
from sessions import Session, told, until  # noqa: E402

ITEMS = 2000


class Strangers:
    """So many worker slots are taken until the end of the block."""

    def __init__(self, server, slots):
        self.session, self.watch = Session(server), Session(server)
        for setting in (f'max_parallel_workers_per_gather = {slots}', f'max_parallel_workers = {slots}', 'parallel_setup_cost = 0',
                        'parallel_tuple_cost = 0', 'min_parallel_table_scan_size = 0'):
            self.session.rows('SET ' + setting)
        self.query = self.session.begin('SELECT count(*) FROM strangers WHERE linger(n)')
        check(f'strangers take {slots} worker slots', until(lambda: self.watch.value(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'parallel worker'") == slots))

    def leave(self):
        self.watch.rows('SELECT pg_cancel_backend(%s)', self.session.pid)
        with contextlib.suppress(psycopg2.Error):
            self.query.wait()
        check('strangers leave', until(lambda: self.watch.value(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'parallel worker'") == 0))
        self.session.close()
        self.watch.close()


def prepare(admin):
    admin.rows('CREATE EXTENSION pg_portage')
    admin.rows('CREATE TABLE strangers (n integer) WITH (parallel_workers = 8)')
    admin.rows('INSERT INTO strangers SELECT generate_series(1, 100000)')
    admin.rows('CREATE FUNCTION linger(n integer) RETURNS boolean LANGUAGE plpgsql PARALLEL SAFE COST 10000 AS '
               '$$ BEGIN PERFORM pg_sleep(3600); RETURN true; END $$')
    admin.rows('CREATE TABLE source (id bigint PRIMARY KEY, name text NOT NULL)')
    admin.rows(f"INSERT INTO source SELECT g, 'name ' || g FROM generate_series(1, {ITEMS}) g")
    admin.rows('CREATE TABLE target (owner text, id bigint, name text NOT NULL, PRIMARY KEY (owner, id))')
    admin.rows("""SELECT portage.create_pipeline('copy', 'target', '{"format": "rows", "legacy_id": "id",
        "columns": {"owner": "$scope", "id": "id", "name": "name"}}')""")


def open_run(session, scope):
    run = session.value("SELECT portage.open_run('copy', %s)", scope)
    session.rows("SELECT portage.attach_table(%s, 'source')", run)
    return run


def start(session, scope):
    run = open_run(session, scope)
    session.rows('SELECT portage.start(%s)', run)
    return run


def state(session, run):
    return session.rows('SELECT status, hold_reason FROM portage.progress WHERE run_id = %s', run)[0]


def completed(session, run):
    return until(lambda: state(session, run)[0] == 'completed') is not None and session.value(
        'SELECT inserted FROM portage.migration_runs WHERE id = %s', run) == ITEMS


def launcher_looks(admin, times):
    """Waits until the launcher, where there is one, has looked so often what there is to do."""
    looked = "SELECT query_start FROM pg_stat_activity WHERE backend_type = 'portage launcher' AND datname = current_database()"
    if admin.value('SHOW shared_preload_libraries') == 'pg_portage':
        for _ in range(times + 1):  # the first one may have begun before
            last = admin.value(looked)
            until(lambda: admin.value(looked) != last)


def waits(what, admin, run):
    launcher_looks(admin, 2)
    status, reason = state(admin, run)
    check(f'{what}: the run waits', status == 'queued', status)
    check(f'{what}: and names the way out', f'CALL portage.run({run})' in (reason or ''), reason)


def preloaded(server, admin):
    strangers = Strangers(server, 3)
    run = start(admin, 'later')
    waits('preloaded', admin, run)
    here = start(admin, 'here')
    with Session(server) as session:
        session.rows('CALL portage.run(%s)', here)
    check('preloaded: the way out is one', state(admin, here)[0] == 'completed')
    strangers.leave()
    check('preloaded: when a slot is free, the launcher has it worked off', completed(admin, run))


def unreachable_roles(server, admin):
    """What the launcher cannot have worked off it leaves alone; it is written neither to the log nor to the ledger."""
    admin.rows('CREATE ROLE shut LOGIN; CREATE ROLE dropped LOGIN; CREATE ROLE group_role; CREATE ROLE left_group LOGIN; '
               'CREATE ROLE no_entry LOGIN; CREATE ROLE lost LOGIN; GRANT group_role TO left_group; '
               'GRANT lost TO dropped')
    for role in ('shut', 'dropped', 'group_role', 'no_entry', 'lost'):
        admin.rows(f'GRANT SELECT ON source TO {role}')
        admin.rows(f'GRANT SELECT, INSERT, UPDATE, DELETE ON target TO {role}')
        admin.rows("SELECT portage.grant_pipeline('copy', %s, 'run')", role)
    strangers = Strangers(server, 3)
    runs = {}
    for role in ('shut', 'dropped', 'left_group', 'no_entry'):
        with Session(server, role) as session:
            if role == 'left_group':
                session.rows('SET ROLE group_role')
            runs[role] = start(session, role)
    with Session(server, 'dropped') as session:
        session.rows('SET ROLE lost')
        runs['lost'] = start(session, 'lost')
    last = start(admin, 'last')
    admin.rows('GRANT CONNECT ON DATABASE postgres TO shut')  # from 17 on, LOGIN is not what a worker needs
    admin.rows('ALTER ROLE shut NOLOGIN')
    admin.rows('REVOKE group_role FROM left_group')
    admin.rows('REVOKE CONNECT ON DATABASE postgres FROM PUBLIC')
    for role in ('dropped', 'lost'):
        admin.rows(f'REVOKE ALL ON source, target FROM {role}')
        admin.rows(f'DROP ROLE {role}')
    strangers.leave()
    check('a run behind such ones has its turn', completed(admin, last))
    with open(server.log, encoding='utf-8') as file:
        file.seek(0, os.SEEK_END)
        rows = admin.rows('SELECT id, xmin::text FROM portage.migration_runs WHERE status = %s ORDER BY id', 'queued')
        launcher_looks(admin, 3)
        lines = [line for line in file.read().splitlines() if 'FATAL' in line or 'ERROR' in line]
        check('the launcher does not try again and again what cannot be', not lines, lines[:3])
        expected = sorted(run for role, run in runs.items() if role != 'shut' or server.version < 17)
        check('all of them wait', [row[0] for row in rows] == expected, (rows, runs))
        again = admin.rows('SELECT id, xmin::text FROM portage.migration_runs WHERE status = %s ORDER BY id', 'queued')
        check('and are not written again and again', rows == again, (rows, again))
    admin.rows('GRANT CONNECT ON DATABASE postgres TO PUBLIC')
    admin.rows('ALTER ROLE shut LOGIN')
    admin.rows('REVOKE CONNECT ON DATABASE postgres FROM shut')
    admin.rows('GRANT group_role TO left_group')
    for role in ('shut', 'left_group', 'no_entry'):
        check(f'when {role} is as it was, its run goes on', completed(admin, runs[role]))
    for role in ('dropped', 'lost'):
        check(f'the run of the role that is gone waits for ever ({role})', state(admin, runs[role])[0] == 'queued')
        error = admin.error('SELECT portage.resume(%s)', runs[role])
        check('... who asks for a worker is told', error is not None and 'does not exist' in told(error), told(error))
        check('... and can end it', admin.error('SELECT portage.cancel(%s)', runs[role]) is None and
              state(admin, runs[role])[0] == 'cancelled')


def without_launcher(server, admin):
    strangers = Strangers(server, 3)
    run = start(admin, 'by wait')
    waits('without preload', admin, run)
    with Session(server) as waiter:
        pending = waiter.begin('CALL portage.wait(%s)', run)
        until(lambda: admin.value("SELECT state = 'active' FROM pg_stat_activity WHERE pid = %s", waiter.pid))
        check('wait() waits', not pending.done() and state(admin, run)[0] == 'queued')
        strangers.leave()
        check('wait() in another session has it worked off when a slot is free', pending.result() == [('completed',)])
    check('... completely', completed(admin, run))

    strangers = Strangers(server, 2)
    first, second = open_run(admin, 'first'), open_run(admin, 'second')
    with Session(server) as keeper:
        keeper.rows('BEGIN')
        keeper.rows('LOCK TABLE target IN SHARE MODE')
        admin.rows('SELECT portage.start(%s)', first)
        check('a run takes the last slot, and holds', until(lambda: 'lock' in (state(admin, first)[1] or '')))
        admin.rows('SELECT portage.start(%s)', second)
        waits('behind another run', admin, second)
        keeper.rows('COMMIT')
    check('the worker of the one works off the other, too', completed(admin, first) and completed(admin, second))
    check('... while the strangers are still there', not strangers.query.done())
    strangers.leave()

    strangers = Strangers(server, 3)
    run = start(admin, 'by tick')
    admin.rows('CALL portage.tick()')
    check('tick() finds no slot', state(admin, run)[0] == 'queued')
    strangers.leave()
    time.sleep(1)  # what does not happen shows in no state
    check('without a launcher nobody picks it up by himself', state(admin, run)[0] == 'queued')
    admin.rows('CALL portage.tick()')
    check('tick() has it worked off when a slot is free', completed(admin, run))


SETTINGS = {'max_logical_replication_workers': 0, 'portage.lock_timeout': '200ms'}
with Server(max_worker_processes=3, **SETTINGS) as the_server, Session(the_server) as superuser:
    prepare(superuser)
    without_launcher(the_server, superuser)
with Server(max_worker_processes=4, shared_preload_libraries='pg_portage', **SETTINGS) as the_server, Session(the_server) as superuser:
    the_server.version = superuser.connection.server_version // 10000
    prepare(superuser)
    preloaded(the_server, superuser)
    unreachable_roles(the_server, superuser)
finish()
