#!/usr/bin/python3
"""Schedules, by a clock of the test's own: downtime over due times, overlap, time zones, blackout windows, deadlines,
retries, two heartbeats at once, other roles' schedules. And one by pg_cron's heartbeat, which takes up to two minutes."""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import PATIENCE, Server, check, finish  # noqa: E402
from sessions import Session, told, until  # noqa: E402

ITEMS = 20


def prepare(admin):
    admin.rows('CREATE EXTENSION pg_portage')
    admin.rows('CREATE TABLE source (id bigint PRIMARY KEY, name text)')
    admin.rows(f"INSERT INTO source SELECT g, 'name ' || g FROM generate_series(1, {ITEMS}) g")
    admin.rows('CREATE TABLE target (owner text, id bigint, name text NOT NULL, PRIMARY KEY (owner, id))')
    admin.rows("""SELECT portage.create_pipeline('nightly', 'target', '{"format": "rows", "legacy_id": "id",
        "columns": {"owner": "$scope", "id": "id", "name": "name"}, "source": {"table": "source"}}')""")


def schedule(session, scope, cron, next_due, pipeline='nightly', **options):
    """A schedule whose next due time is the one that the test begins with."""
    session.rows('SELECT portage.schedule(%s, %s, %s::jsonb)', pipeline, cron,
                 json.dumps({'timezone': 'UTC', **options, 'scope': scope}))
    with Session(session.server) as admin:
        admin.rows('UPDATE portage.schedule_rows SET next_due_at = %s, next_run_at = %s WHERE scope = %s', next_due, next_due, scope)


def workers_leave(admin):
    """Waits until those have gone that have no run any more: they are heartbeats, too, and a schedule that one of them
    looks at is passed over by others meanwhile."""
    until(lambda: admin.value("SELECT count(*) = 0 FROM pg_stat_activity a WHERE backend_type = 'portage worker' AND NOT EXISTS ("
                              'SELECT FROM portage.migration_runs r WHERE r.owner_pid = a.pid)'))


def tick(session, now):
    workers_leave(session)
    session.rows('CALL portage.tick(now => %s)', now)


def runs(admin, scope):
    return admin.rows('SELECT id, status FROM portage.migration_runs WHERE scope = %s ORDER BY id', scope)


def ended(admin, scope):
    """Nobody works for the scope any more; its runs' states."""
    for run, status in runs(admin, scope):
        if status in ('queued', 'running', 'verifying'):
            admin.rows('CALL portage.wait(%s, %s)', run, f'{PATIENCE} s')
    return [status for _, status in runs(admin, scope)]


def works(admin, scope):
    """The newest run of the scope, when a worker has it. (One that finds the scope's lock held leaves it to the next.)"""
    def look():
        run = runs(admin, scope)[-1][0]
        return admin.value("CALL portage.wait(%s, '100 ms')", run) == 'running' and run
    return until(look)


def shown(admin, scope, columns):
    admin.rows("SET timezone = 'UTC'")
    row = admin.rows(f'SELECT {columns} FROM portage.schedules WHERE scope = %s', scope)[0]
    return tuple(value.strftime('%Y-%m-%d %H:%M') if hasattr(value, 'strftime') else value for value in row)


def test_in_time(admin):
    schedule(admin, 'time', '0 2 * * *', '2031-01-01 02:00Z', options={'batch_size': 7})
    tick(admin, '2031-01-01 01:59:59Z')
    check('before its time nothing is begun', runs(admin, 'time') == [])
    tick(admin, '2031-01-01 02:00Z')
    check('at its time it is', ended(admin, 'time') == ['completed'], runs(admin, 'time'))
    run = runs(admin, 'time')[0][0]
    check('from the pipeline''s source', admin.value('SELECT count(*) FROM target WHERE owner = %s', 'time') == ITEMS)
    check('with the options of its runs', admin.value(
        'SELECT count(*) FROM portage.migration_batches WHERE run_id = %s', run) == 3)
    found = shown(admin, 'time', 'next_run_at, last_due_at, last_run, last_status, last_error')
    check('and the view says so', found == ('2031-01-02 02:00', '2031-01-01 02:00', run, 'completed', None), found)
    check('the run says whose it is', admin.value("SELECT metadata ->> 'due_at' LIKE '2031-01-01 02:00%%' AND metadata ? 'schedule' "
                                                  'FROM portage.migration_runs WHERE id = %s', run))
    tick(admin, '2031-01-01 02:01Z')
    check('once', len(runs(admin, 'time')) == 1)
    schedule(admin, 'look', '0 2 * * *', '2031-01-01 02:00Z', detect_only=True)
    tick(admin, '2031-01-01 02:00Z')
    check('detect_only: the run says what it would do', ended(admin, 'look') == ['completed'] and admin.value(
        "SELECT dry_run AND inserted = %s FROM portage.migration_runs WHERE scope = 'look'", ITEMS))
    check('... and does not', admin.value("SELECT count(*) FROM target WHERE owner = 'look'") == 0)


def test_catch_up(admin):
    for catch_up in ('skip', 'once', 'all'):
        schedule(admin, catch_up, '0 * * * *', '2031-01-01 01:00Z', catch_up=catch_up)
    now = '2031-01-01 03:30Z'
    tick(admin, now)
    columns = 'last_due_at, next_run_at, skipped_missed, skipped_running'
    check('skip: what was missed is passed over', runs(admin, 'skip') == [])
    found = shown(admin, 'skip', columns)
    check('... and counted', found == (None, '2031-01-01 04:00', 3, 0), found)
    check('once: one run makes up for all', ended(admin, 'once') == ['completed'])
    found = shown(admin, 'once', columns)
    check('... that of the last', found == ('2031-01-01 03:00', '2031-01-01 04:00', 2, 0), found)
    for hour in (1, 2, 3):
        check(f'all: hour {hour}', ended(admin, 'all') == ['completed'] * hour, runs(admin, 'all'))
        found = shown(admin, 'all', columns)
        check('... in its turn', found == (f'2031-01-01 0{hour}:00', f'2031-01-01 0{hour + 1}:00', 0, 0), found)
        tick(admin, now)
    check('... and no more', len(runs(admin, 'all')) == 3)


def test_overlap(admin):
    schedule(admin, 'slow', '*/10 * * * *', '2031-02-01 00:00Z')
    schedule(admin, 'patient', '*/10 * * * *', '2031-02-01 00:00Z', catch_up='all')
    with Session(admin.server) as locker:
        locker.rows('BEGIN')
        locker.rows('LOCK TABLE target IN SHARE MODE')
        for minute in (0, 10, 20):
            tick(admin, f'2031-02-01 00:{minute:02}Z')
        for scope in ('slow', 'patient'):
            check(f'{scope}: nothing piles up behind a run', len(runs(admin, scope)) == 1, runs(admin, scope))
            found = shown(admin, scope, 'skipped_running, skipped_missed, last_due_at, next_run_at')
            check('... what came meanwhile is counted', found == (2, 0, '2031-02-01 00:00', '2031-02-01 00:30'), found)
        locker.rows('COMMIT')
    for scope in ('slow', 'patient'):
        check(f'{scope}: it ends', ended(admin, scope) == ['completed'])
    tick(admin, '2031-02-01 00:30Z')
    check('and the next one begins', ended(admin, 'slow') == ['completed'] * 2)
    # What was missed waits behind the run that makes up for the one before.
    ended(admin, 'patient')
    schedule(admin, 'patient', '*/10 * * * *', '2031-02-01 01:00Z', catch_up='all')
    with Session(admin.server) as locker:
        locker.rows('BEGIN')
        locker.rows('LOCK TABLE target IN SHARE MODE')
        tick(admin, '2031-02-01 01:25Z')
        tick(admin, '2031-02-01 01:26Z')
        found = shown(admin, 'patient', 'skipped_running, last_due_at, next_run_at')
        check('all: what was missed waits for its turn', found == (2, '2031-02-01 01:00', '2031-02-01 01:10'), found)
        locker.rows('COMMIT')
    ended(admin, 'patient')
    tick(admin, '2031-02-01 01:27Z')
    check('... and has it', ended(admin, 'patient') == ['completed'] * 4, runs(admin, 'patient'))
    admin.rows("SELECT portage.unschedule('nightly', s.scope) FROM portage.schedules s WHERE s.scope IN ('slow', 'patient')")


def test_clocks(admin):
    schedule(admin, 'berlin', '30 2 * * *', '2031-03-30 01:00Z', timezone='Europe/Berlin')
    tick(admin, '2031-03-30 00:59Z')
    check('a time that the clock skips does not come before', runs(admin, 'berlin') == [])
    tick(admin, '2031-03-30 01:00Z')
    check('it comes when the clock is put on', ended(admin, 'berlin') == ['completed'])
    found = shown(admin, 'berlin', 'next_run_at')
    check('and the next day by summer time', found == ('2031-03-31 00:30',), found)
    admin.rows("UPDATE portage.schedule_rows SET next_due_at = '2031-10-26 00:30Z', next_run_at = '2031-10-26 00:30Z' WHERE scope = 'berlin'")
    tick(admin, '2031-10-26 00:30Z')
    check('a time that comes twice is the first', ended(admin, 'berlin') == ['completed'] * 2)
    tick(admin, '2031-10-26 01:30Z')
    check('and not the second', len(runs(admin, 'berlin')) == 2)
    found = shown(admin, 'berlin', 'next_run_at')
    check('the next day is by winter time', found == ('2031-10-27 01:30',), found)
    schedule(admin, 'york', '0 9 * * *', '2031-07-01 13:00Z', timezone='America/New_York')
    tick(admin, '2031-07-01 13:00Z')
    check('nine in New York is thirteen in Greenwich', ended(admin, 'york') == ['completed'])
    schedule(admin, 'leap', '0 0 29 2 *', '2028-02-29 00:00Z')
    tick(admin, '2028-02-29 00:00Z')
    check('leap day', ended(admin, 'leap') == ['completed'])
    found = shown(admin, 'leap', 'next_run_at')
    check('comes again in four years', found == ('2032-02-29 00:00',), found)
    admin.rows("SELECT portage.unschedule('nightly', s.scope) FROM portage.schedules s WHERE s.scope IN ('berlin', 'york', 'leap')")


def test_blackout(admin):
    schedule(admin, 'dark', '0 * * * *', '2031-04-01 21:00Z', blackout=[{'from': '21:30', 'to': '00:30'}])
    tick(admin, '2031-04-01 21:00Z')
    check('before the window it runs', ended(admin, 'dark') == ['completed'])
    found = shown(admin, 'dark', 'next_due_at, next_run_at')
    check('what is due in it waits for its end', found == ('2031-04-01 22:00', '2031-04-02 00:30'), found)
    for now in ('2031-04-01 22:00Z', '2031-04-01 23:00Z', '2031-04-02 00:29Z'):
        tick(admin, now)
    check('and is not begun before', len(runs(admin, 'dark')) == 1)
    tick(admin, '2031-04-02 00:30Z')
    check('then it is, once', ended(admin, 'dark') == ['completed'] * 2)
    found = shown(admin, 'dark', 'last_due_at, next_run_at, skipped_missed, skipped_running')
    check('and none of it was missed', found == ('2031-04-01 22:00', '2031-04-02 01:00', 0, 0), found)
    admin.rows("SELECT portage.unschedule('nightly', 'dark')")


def test_deadline(admin):
    schedule(admin, 'late', '0 2 * * *', '2031-05-01 02:00Z', deadline='1 hour')
    tick(admin, '2031-05-01 03:00:01Z')
    check('beyond its deadline a due time is not begun', runs(admin, 'late') == [])
    found = shown(admin, 'late', 'skipped_late, skipped_missed, next_run_at')
    check('but counted', found == (1, 0, '2031-05-02 02:00'), found)
    with Session(admin.server) as locker:
        locker.rows('BEGIN')
        locker.rows('LOCK TABLE target IN SHARE MODE')
        tick(admin, '2031-05-02 02:30Z')
        check('in time it is begun', works(admin, 'late') is not None)
        tick(admin, '2031-05-02 02:59Z')
        check('and works until the deadline', [s for _, s in runs(admin, 'late')] == ['running'])
        tick(admin, '2031-05-02 03:00Z')
        check('at which it is cancelled', until(lambda: [s for _, s in runs(admin, 'late')] == ['cancelled']), runs(admin, 'late'))
        tick(admin, '2031-05-03 02:00Z')
        # The worker that has just ended is a heartbeat, too: what it looks at is passed over by others meanwhile.
        until(lambda: len(runs(admin, 'late')) == 2 or tick(admin, '2031-05-03 02:00Z'))
        run = works(admin, 'late')
        admin.rows('SELECT portage.pause(%s)', run)
        until(lambda: runs(admin, 'late')[1][1] == 'paused')
        tick(admin, '2031-05-03 04:00Z')
        check('what somebody has paused is let alone', runs(admin, 'late')[1][1] == 'paused')
        admin.rows('SELECT portage.cancel(%s)', run)
        locker.rows('COMMIT')
    admin.rows("SELECT portage.unschedule('nightly', 'late')")


def test_retry(admin):
    admin.rows('CREATE ROLE importer LOGIN')
    # A worker that ends is a heartbeat, too, by the true clock: not here.
    admin.rows('REVOKE EXECUTE ON PROCEDURE portage.tick() FROM PUBLIC')
    admin.rows('GRANT SELECT ON source TO importer')
    admin.rows('CREATE TABLE theirs (id bigint PRIMARY KEY, name text)')
    with Session(admin.server, 'importer') as theirs:
        theirs.server = admin.server
        theirs.rows("""SELECT portage.create_pipeline('theirs', 'theirs', '{"format": "rows", "legacy_id": "id",
            "columns": {"id": "id", "name": "name"}, "source": {"table": "source"}}')""")
        schedule(theirs, 'again', '0 2 * * *', '2031-06-01 02:00Z', 'theirs', retry_attempts=2)
        schedule(theirs, 'never', '0 2 * * *', '2031-06-01 02:00Z', 'theirs', retry_attempts=0)
    tick(admin, '2031-06-01 02:00Z')
    check('a run that may not write fails', ended(admin, 'again') == ['failed'], runs(admin, 'again'))
    ended(admin, 'never')
    tick(admin, '2031-06-01 02:01Z')
    found = shown(admin, 'again', 'attempts, retry_at, last_status')
    check('it is to be tried again in a minute', found == (1, '2031-06-01 02:02', 'failed'), found)
    check('... and the view says why', 'permission denied' in (shown(admin, 'again', 'last_error')[0] or ''))
    found = shown(admin, 'never', 'attempts, retry_at, last_status')
    check('... where that is wanted', found == (0, None, 'failed'), found)
    tick(admin, '2031-06-01 02:02Z')
    check('the same run', ended(admin, 'again') == ['failed'] and admin.value(
        "SELECT count(*) FROM portage.migration_events WHERE run_id = %s AND event_type = 'retried'", runs(admin, 'again')[0][0]) > 0)
    tick(admin, '2031-06-01 02:03Z')
    found = shown(admin, 'again', 'attempts, retry_at')
    check('then after two', found == (2, '2031-06-01 02:05'), found)
    admin.rows('GRANT SELECT, INSERT ON theirs TO importer')
    tick(admin, '2031-06-01 02:04Z')
    check('not before', ended(admin, 'again') == ['failed'])
    tick(admin, '2031-06-01 02:05Z')
    check('when the cause is mended it completes', ended(admin, 'again') == ['completed'] and admin.value('SELECT count(*) FROM theirs') == ITEMS)
    tick(admin, '2031-06-01 02:06Z')
    found = shown(admin, 'again', 'retry_at, last_status, last_error')
    check('and that was that', found == (None, 'completed', None), found)
    tick(admin, '2031-06-01 03:00Z')
    check('without retries it waits for its next time', ended(admin, 'never') == ['failed'])
    admin.rows("SELECT portage.unschedule('importer/theirs', s.scope) FROM portage.schedules s WHERE s.pipeline = 'theirs'")
    admin.rows('GRANT EXECUTE ON PROCEDURE portage.tick() TO PUBLIC')


def test_faults(admin):
    """What cannot be begun is noted, tried again, and in nobody's way."""
    path = os.path.join(admin.server.directory, 'late.ndjson')
    admin.rows("""SELECT portage.create_pipeline('files', 'target', json_build_object('format', 'ndjson', 'legacy_id', 'id',
        'columns', json_build_object('owner', '$scope', 'id', 'id', 'name', 'name'), 'source', json_build_object('files', %s::text)))""", path)
    schedule(admin, 'file', '0 2 * * *', '2031-08-01 02:00Z', 'files')
    schedule(admin, 'after', '0 2 * * *', '2031-08-01 02:00Z')
    admin.rows('CREATE ROLE leaves LOGIN; GRANT SELECT ON source TO leaves; GRANT SELECT, INSERT ON target TO leaves')
    with Session(admin.server, 'leaves') as leaves:
        leaves.server = admin.server
        leaves.rows("""SELECT portage.create_pipeline('left', 'target', '{"format": "rows", "legacy_id": "id",
            "columns": {"owner": "$scope", "id": "id", "name": "name"}, "source": {"table": "source"}}')""")
        schedule(leaves, 'left', '0 2 * * *', '2031-08-01 02:00Z', 'left')
    admin.rows('REVOKE ALL ON source, target FROM leaves; DROP ROLE leaves')
    tick(admin, '2031-08-01 02:00Z')
    check('a file that is not there', runs(admin, 'file') == [] and 'late.ndjson' in (shown(admin, 'file', 'last_error')[0] or ''),
          shown(admin, 'file', 'last_error'))
    check('a role that is gone', runs(admin, 'left') == [] and 'does not exist' in (shown(admin, 'left', 'last_error')[0] or ''),
          shown(admin, 'left', 'last_error'))
    check('neither keeps the others from their time', ended(admin, 'after') == ['completed'])
    check('the log has it', 'schedule of pipeline "files", scope "file": ' in admin.server.log_tail(2000))
    with open(path, 'w', encoding='utf-8') as file:
        file.write('{"id": 1, "name": "late"}\n')
    os.chmod(path, 0o644)
    tick(admin, '2031-08-01 02:01Z')
    check('when it is there it is read', ended(admin, 'file') == ['completed'], runs(admin, 'file'))
    check('and nothing is wrong any more', shown(admin, 'file', 'last_error, retry_at') == (None, None))
    admin.rows("SELECT portage.drop_pipeline('leaves/left', true)")
    check('a pipeline takes its schedules along', admin.value("SELECT count(*) FROM portage.schedule_rows WHERE scope = 'left'") == 0)
    admin.rows("SELECT portage.unschedule('files', 'file'), portage.unschedule('nightly', 'after')")


def test_two_ticks(admin):
    scopes = [f'two {i}' for i in range(20)]
    for scope in scopes:
        schedule(admin, scope, '0 2 * * *', '2031-09-01 02:00Z')
    with Session(admin.server) as one, Session(admin.server) as two:
        pending = [session.begin("CALL portage.tick(now => '2031-09-01 02:00Z')") for session in (one, two)]
        for each in pending:
            each.result()
    check('two heartbeats at once begin each once', [len(runs(admin, scope)) for scope in scopes] == [1] * 20,
          [len(runs(admin, scope)) for scope in scopes])
    check('and all of them complete', all(ended(admin, scope) == ['completed'] for scope in scopes))
    with Session(admin.server) as holder:
        holder.rows('BEGIN')
        holder.rows("SELECT FROM portage.schedule_rows WHERE scope = 'two 0' FOR UPDATE")
        tick(admin, '2031-09-02 02:00Z')
        check('one that another has in hand is not waited for', len(runs(admin, 'two 0')) == 1 and len(runs(admin, 'two 19')) == 2)
        holder.rows('ROLLBACK')
    tick(admin, '2031-09-02 02:00Z')
    check('its turn comes', len(runs(admin, 'two 0')) == 2)
    for scope in scopes:
        ended(admin, scope)
    admin.rows("SELECT portage.unschedule('nightly', s.scope) FROM portage.schedules s WHERE s.scope LIKE 'two %%'")


def test_roles(admin):
    admin.rows('CREATE ROLE alice LOGIN; CREATE ROLE mallory LOGIN')
    admin.rows('CREATE TABLE hers (id bigint PRIMARY KEY, name text, writer name DEFAULT session_user)')
    admin.rows('GRANT SELECT ON source TO alice; GRANT SELECT, INSERT ON hers TO alice')
    with Session(admin.server, 'alice') as alice, Session(admin.server, 'mallory') as mallory:
        alice.server = admin.server
        alice.rows("""SELECT portage.create_pipeline('hers', 'hers', '{"format": "rows", "legacy_id": "id",
            "columns": {"id": "id", "name": "name"}, "source": {"table": "source"}}')""")
        workers_leave(admin)
        schedule(alice, 'hers', '0 2 * * *', '2001-01-01 02:00Z', 'hers')
        for session in (alice, mallory):
            error = session.error("CALL portage.tick(now => '2031-01-01')")
            check('the clock is a superuser''s to set', error is not None and error.pgcode == '42501', told(error))
        mallory.rows('CALL portage.tick()')
        check('nobody begins another role''s schedule', runs(admin, 'hers') == [])
        check('nor sees it', mallory.value('SELECT count(*) FROM portage.schedules') == 0)
        alice.rows('CALL portage.tick()')
        check('its owner does', ended(admin, 'hers') == ['completed'], runs(admin, 'hers'))
        found = shown(alice, 'hers', 'owner, last_status, skipped_missed > 9000')
        check('and sees it', found == ('alice', 'completed', True), found)
    workers_leave(admin)
    admin.rows("UPDATE portage.schedule_rows SET next_due_at = '2001-01-01 02:00Z', next_run_at = '2001-01-01 02:00Z' WHERE scope = 'hers'")
    admin.rows('TRUNCATE hers')
    admin.rows("UPDATE portage.schedule_rows SET options = jsonb_set(options, '{options}', '{\"incremental\": false}') WHERE scope = 'hers'")
    admin.rows('CALL portage.tick()')
    until(lambda: len(runs(admin, 'hers')) == 2)  # a worker of hers begins it
    check('an administrator''s heartbeat does, too', ended(admin, 'hers') == ['completed'] * 2, runs(admin, 'hers'))
    found = admin.rows("SELECT DISTINCT role_name, session_role, requested_by FROM portage.migration_runs WHERE scope = 'hers'")
    check('as the owner of the schedule', found == [('alice', 'alice', 'alice')], found)
    workers_leave(admin)
    check('in a session of the owner''s', admin.rows('SELECT DISTINCT writer FROM hers') == [('alice',)])
    # A right that is lost ends it.
    admin.rows("UPDATE portage.schedule_rows SET next_due_at = '2001-01-01 02:00Z', next_run_at = '2001-01-01 02:00Z' WHERE scope = 'hers'")
    admin.rows('REVOKE CONNECT ON DATABASE postgres FROM PUBLIC')
    admin.rows('CALL portage.tick()')
    check('who may not connect any more has no run', len(runs(admin, 'hers')) == 2
          and 'cannot connect' in (shown(admin, 'hers', 'last_error')[0] or ''), shown(admin, 'hers', 'last_error'))
    admin.rows('GRANT CONNECT ON DATABASE postgres TO PUBLIC')
    admin.rows("SELECT portage.unschedule('alice/hers', 'hers')")


def test_pg_cron(server):
    with Session(server) as admin:
        admin.server = server
        prepare(admin)
        admin.rows('CREATE EXTENSION pg_cron')
        admin.rows("SELECT cron.schedule('portage', '* * * * *', 'CALL portage.tick()')")
        admin.rows("""SELECT portage.schedule('nightly', '* * * * *', '{"scope": "cron"}')""")
        admin.rows("""INSERT INTO cron.job_run_details (jobid, runid, command, status, end_time)
            SELECT j.jobid, 1000 + d, j.command, 'succeeded', now() - make_interval(days => d) FROM cron.job j, unnest(ARRAY[2, 6, 8, 30]) d""")
        admin.rows("""INSERT INTO cron.job_run_details (jobid, runid, command, status, end_time)
            VALUES (99, 2000, 'SELECT 1', 'succeeded', now() - interval '30 days')""")
        admin.rows('CALL portage.tick()')
        left = [row[0] for row in admin.rows('SELECT runid FROM cron.job_run_details WHERE runid >= 1000 ORDER BY runid')]
        check('what pg_cron wrote about the heartbeat is kept for a week', left == [1002, 1006, 2000], left)
        check('a scheduled run completes by pg_cron''s heartbeat', until(
            lambda: 'completed' in [status for _, status in runs(admin, 'cron')]), runs(admin, 'cron'))
        check('the heartbeat succeeds', until(lambda: admin.value(
            "SELECT count(*) FROM cron.job_run_details WHERE command = 'CALL portage.tick()' AND status = 'succeeded' AND runid < 1000")))


with Server(**{'portage.lock_timeout': '200ms', 'log_min_messages': 'log'}) as the_server, Session(the_server) as superuser:
    superuser.server = the_server
    prepare(superuser)
    test_in_time(superuser)
    test_catch_up(superuser)
    superuser.rows("SELECT portage.unschedule('nightly', s.scope) FROM portage.schedules s")
    test_overlap(superuser)
    test_clocks(superuser)
    test_blackout(superuser)
    test_deadline(superuser)
    test_retry(superuser)
    test_faults(superuser)
    test_two_ticks(superuser)
    test_roles(superuser)
with Server(shared_preload_libraries='pg_cron', max_worker_processes=20,
            **{'cron.database_name': 'postgres', 'cron.use_background_workers': 'on'}) as the_server:
    test_pg_cron(the_server)
finish()
