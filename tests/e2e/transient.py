#!/usr/bin/python3
"""What passes is tried again: a deadlock with another session, serialization failures, the connection to a foreign server,
each provoked with the real thing. What does not pass is not tried again, and retry_attempts: 0 tries nothing twice."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import Server, check, finish  # noqa: E402
from sessions import PATIENT, Session, ndjson, told, until  # noqa: E402

ITEMS = 300
GATE = 4711

# The target's trigger keeps two counters, as real triggers do: the first item of a batch of a hundred the one, the last
# the other. What an item brings in `step` says what it waits for.
TABLES = f"""
CREATE TABLE counters (name text PRIMARY KEY, n integer NOT NULL);
INSERT INTO counters VALUES ('one', 0), ('other', 0), ('read', 0);
CREATE TABLE target (scope text, id integer, step text, PRIMARY KEY (scope, id));
CREATE FUNCTION count_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.step IN ('one', 'other') THEN UPDATE counters SET n = n + 1 WHERE name = NEW.step; END IF;
  IF NEW.step = 'read' THEN PERFORM n FROM counters WHERE name = 'read'; END IF;
  IF NEW.step = 'gate' THEN PERFORM pg_advisory_xact_lock_shared({GATE}); END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER count_up BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION count_up();
"""


class Gate:
    """Items whose step is 'gate' wait until it is opened."""

    def __init__(self, server):
        self.keeper = Session(server)
        self.keeper.rows('SELECT pg_advisory_lock(%s)', GATE)

    def somebody_waits(self):
        return until(lambda: self.keeper.value(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted", GATE))

    def open(self):
        self.keeper.close()


def open_run(admin, scope, steps, **options):
    """300 items in batches of a hundred; `steps`: what the items of these numbers do."""
    more = ''.join(f', "{name}": {value}' for name, value in options.items())
    run = admin.value("SELECT portage.open_run('p', %s, %s)", scope, '{"batch_size": 100%s}' % more)
    admin.rows('SELECT portage.submit(%s, %s)', run, ndjson([{'id': n, 'step': steps.get(n)} for n in range(1, ITEMS + 1)]))
    return run


def told_of(admin, run):
    return admin.rows("""SELECT r.status, r.error_code, g.attempts, coalesce(g.last_error, ''), r.read, r.inserted,
        (SELECT count(*) FROM portage.rejects j WHERE j.run_id = r.id), (SELECT count(*) FROM target t WHERE t.scope = r.scope),
        (SELECT count(*) FROM portage.migration_items i WHERE i.run_id = r.id),
        ARRAY(SELECT e.event_type FROM portage.migration_events e WHERE e.run_id = r.id AND e.event_type IN ('held', 'released') ORDER BY seq)
      FROM portage.migration_runs r JOIN portage.migration_ranges g ON g.run_id = r.id WHERE r.id = %s""", run)[0]


def retried(what, admin, run, code):
    """It completed at a second attempt, and nothing of the first is left."""
    found = told_of(admin, run)
    check(f'{what}: the run completes', found[0] == 'completed' and found[1] is None, found)
    check(f'{what}: the range tells of two attempts, and why', found[2] == 2 and found[3].startswith(code), found)
    check(f'{what}: every item landed, once', found[4:9] == (ITEMS, ITEMS, 0, ITEMS, ITEMS), found)
    check(f'{what}: it held meanwhile', found[9] == ['held', 'released'], found)


def finish_run(admin, run):
    return until(lambda: admin.value('SELECT status FROM portage.migration_runs WHERE id = %s', run) in ('completed', 'failed'))


def deadlock(server, admin, number, **options):
    run = open_run(admin, f'deadlock {number}', {101: 'one', 200: 'other'}, **options)
    with Session(server) as rival:
        rival.rows("SET deadlock_timeout = '1h'")  # the run is to be the one that finds it
        rival.rows('BEGIN')
        rival.rows("UPDATE counters SET n = n + 10 WHERE name = 'other'")
        admin.rows('SELECT portage.start(%s)', run)
        check('deadlock: the run waits for the other session', until(lambda: admin.value(
            'SELECT count(*) FROM pg_stat_activity a JOIN portage.migration_runs r ON r.owner_pid = a.pid '
            'WHERE r.id = %s AND %s = ANY (pg_blocking_pids(a.pid))', run, rival.pid)))
        pending = rival.begin("UPDATE counters SET n = n + 10 WHERE name = 'one'")
        pending.result()
        rival.rows('COMMIT')
    finish_run(admin, run)
    return run


def deadlocks(server, admin):
    run = deadlock(server, admin, 1)
    retried('deadlock', admin, run, '40P01')
    check('deadlock: both have counted', admin.rows("SELECT n FROM counters WHERE name <> 'read'") == [(11,), (11,)])
    run = deadlock(server, admin, 2, retry_attempts=0)
    found = told_of(admin, run)
    check('retry_attempts 0: the run fails at once', found[:2] == ('failed', '40P01') and found[2] == 1 and found[9] == [], found)
    check('retry_attempts 0: what was committed before stays', found[4] == 100 and found[7] == 100, found)
    admin.rows('SELECT portage.retry(%s)', run)
    finish_run(admin, run)
    check('retry_attempts 0: retry() goes on to the end', told_of(admin, run)[0] == 'completed' and told_of(admin, run)[7] == ITEMS)


def serialization(server, admin):
    admin.rows('CREATE ROLE careful LOGIN')
    admin.rows('ALTER ROLE careful SET default_transaction_isolation = serializable')
    admin.rows('GRANT SELECT, INSERT, UPDATE, DELETE ON target, counters TO careful')
    admin.rows("SELECT portage.grant_pipeline('p', 'careful', 'run')")
    with Session(server, 'careful') as careful, Session(server) as rival:
        for what, steps in (('concurrent update', {150: 'gate', 200: 'one'}), ('write skew', {101: 'read', 200: 'gate'})):
            gate = Gate(server)
            run = open_run(careful, what, steps)
            careful.rows('SELECT portage.start(%s)', run)
            check(f'{what}: the run is in its second batch', gate.somebody_waits())
            if what == 'concurrent update':
                rival.rows("UPDATE counters SET n = n + 1 WHERE name = 'one'")
            else:
                rival.rows('BEGIN ISOLATION LEVEL SERIALIZABLE')
                rival.rows("SELECT count(*) FROM target")
                rival.rows("UPDATE counters SET n = n + 1 WHERE name = 'read'")
                rival.rows('COMMIT')
            gate.open()
            finish_run(admin, run)
            retried(what, admin, run, '40001')


def foreign_server(server, admin, remote, distant):
    """Rows come from another server, and go to it, which ends the connection now and then, and falls down once."""
    distant.rows("CREATE TABLE words (id integer PRIMARY KEY, step text)")
    distant.rows(f"INSERT INTO words SELECT n, 'word ' || n FROM generate_series(1, 20000) n")
    distant.rows('CREATE TABLE copies (id integer PRIMARY KEY, step text)')
    admin.rows('CREATE EXTENSION postgres_fdw')
    admin.rows(f"CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{remote.directory}', port '5432', dbname 'postgres')")
    admin.rows("CREATE USER MAPPING FOR postgres SERVER far OPTIONS (user 'postgres')")
    admin.rows('CREATE FOREIGN TABLE far_words (id integer NOT NULL, step text) SERVER far OPTIONS (table_name \'words\')')
    admin.rows('CREATE FOREIGN TABLE far_copies (id integer NOT NULL, step text) SERVER far OPTIONS (table_name \'copies\')')
    admin.rows('CREATE TABLE near (id integer PRIMARY KEY, step text)')
    columns = '"columns": {"id": "id", "step": "step"}'
    admin.rows('SELECT portage.create_pipeline(%s, %s, %s)', 'from far', 'near', '{"format": "rows", "legacy_id": "id", %s}' % columns)
    admin.rows('SELECT portage.create_pipeline(%s, %s, %s)', 'to far', 'far_copies',
               '{"format": "rows", "legacy_id": "id", "key": ["id"], %s}' % columns)
    for pipeline, source, target in (('from far', 'far_words', 'near'), ('to far', 'near', 'far_copies')):
        run = admin.value("SELECT portage.open_run(%s, options => '{\"batch_size\": 500}')", pipeline)
        admin.rows("SELECT portage.attach_query(%s, %s, key => '{id}')", run, f'SELECT id, step FROM {source}')
        admin.rows('SELECT portage.start(%s)', run)

        def batches():
            return admin.value('SELECT count(*) FROM portage.migration_batches WHERE run_id = %s', run)

        def status():
            return admin.value('SELECT status FROM portage.migration_runs WHERE id = %s', run)

        lost = 0
        for goal in (2, 6, 10, 14):
            until(lambda: batches() >= goal or status() == 'failed')
            if goal == 10:
                remote.kill9()
                remote.start()
            else:
                with Session(remote) as watch:
                    lost += watch.value("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'postgres_fdw'")
        finish_run(admin, run)
        check(f'{pipeline}: connections were cut', lost > 0)
        check(f'{pipeline}: the run completes', status() == 'completed', admin.rows(
            'SELECT status, error_code, error, (SELECT count(*) FROM portage.migration_batches WHERE run_id = r.id) FROM portage.migration_runs r WHERE id = %s', run))
        attempts, error = admin.rows('SELECT attempts, last_error FROM portage.migration_ranges WHERE run_id = %s', run)[0]
        check(f'{pipeline}: the range tells of the attempts, and why', attempts > 1 and error, (attempts, error))
        check(f'{pipeline}: nothing is doubled, lost or blamed', admin.rows(
            f"SELECT count(*), count(DISTINCT id), (SELECT count(*) FROM portage.migration_items WHERE run_id = {run}), "
            f"(SELECT count(*) FROM portage.rejects WHERE run_id = {run}) FROM {target}") == [(20000, 20000, 20000, 0)])
        print(f'        {pipeline}: {attempts} attempts, {lost} connections cut, last: {error}')


def permanent(server, admin):
    """A source that cannot be read beyond a row: trying again would help nothing."""
    admin.rows('CREATE TABLE divisors (id integer PRIMARY KEY, n integer)')
    admin.rows('INSERT INTO divisors SELECT n, n - 250 FROM generate_series(1, 300) n')
    admin.rows("""SELECT portage.create_pipeline('divided', 'target', '{"format": "rows", "legacy_id": "id",
        "columns": {"scope": "$scope", "id": "id", "step": "step"}}')""")
    run = admin.value("""SELECT portage.open_run('divided', 'permanent', '{"batch_size": 100}')""")
    admin.rows("SELECT portage.attach_query(%s, 'SELECT id, (1 / n)::text AS step FROM divisors', key => '{id}')", run)
    admin.rows('SELECT portage.start(%s)', run)
    finish_run(admin, run)
    found = told_of(admin, run)
    check('a permanent error: the run fails at once', found[:4] == ('failed', '22012', 1, '') and found[9] == [], found)
    admin.rows('UPDATE divisors SET n = 1 WHERE n = 0')
    admin.rows('SELECT portage.retry(%s)', run)
    finish_run(admin, run)
    found = told_of(admin, run)
    check('a permanent error: mended, retry() goes on to the end', found[0] == 'completed' and found[7:9] == (ITEMS, ITEMS), found)


with Server(deadlock_timeout='2s', **PATIENT) as the_server, Session(the_server) as superuser:
    superuser.rows('CREATE EXTENSION pg_portage')
    superuser.rows(TABLES)
    superuser.rows("""SELECT portage.create_pipeline('p', 'target', '{"format": "ndjson", "legacy_id": "id",
        "columns": {"scope": "$scope", "id": "id", "step": "step"}}')""")
    deadlocks(the_server, superuser)
    serialization(the_server, superuser)
    permanent(the_server, superuser)
    if superuser.value("SELECT count(*) FROM pg_available_extensions WHERE name = 'postgres_fdw'"):
        with Server() as other_server, Session(other_server) as far_end:
            foreign_server(the_server, superuser, other_server, far_end)
    else:
        print('SKIPPED: postgres_fdw is not installed')
finish()
