#!/usr/bin/python3
"""Who owns a run, when its owner sleeps: a process that is stopped (SIGSTOP) until its lease has run out. Between two batches
another session takes the run over, and the sleeper, awake again, is told so (PZ013) and has changed nothing; within a batch
it cannot be taken over, and who tries is told why. An owner whose statement is over, though its session lives and could leave
no word of it: it is an owner no more. And an operator whose wish meets a run that is just being taken up, or is about to end:
it is obeyed."""

import os
import random
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import Server, check, finish  # noqa: E402
from sessions import GATES, Gate, Session, left, told, until  # noqa: E402

SEED = int(os.environ.get('PORTAGE_SEED', random.SystemRandom().randrange(1 << 32)))
ITEMS = 3000


def prepare(admin):
    admin.rows('CREATE EXTENSION pg_portage')
    admin.rows('CREATE TABLE source (id integer PRIMARY KEY, name text)')
    admin.rows(f"INSERT INTO source SELECT n, 'name ' || n FROM generate_series(1, {ITEMS}) n")
    admin.rows('CREATE TABLE target (scope text, id integer, name text, PRIMARY KEY (scope, id))')
    admin.rows(GATES)
    admin.rows("CREATE TRIGGER gate BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION gates.keep('id')")
    admin.rows("""SELECT portage.create_pipeline('copy', 'target', '{"format": "rows", "legacy_id": "id",
        "columns": {"scope": "$scope", "id": "id", "name": "name"}}')""")
    admin.rows("CREATE TRIGGER gate_back BEFORE DELETE ON target FOR EACH ROW EXECUTE FUNCTION gates.keep_old('id')")
    admin.rows("""SELECT portage.create_pipeline('checked', 'target', '{"format": "rows", "legacy_id": "id",
        "columns": {"scope": "$scope", "id": "id", "name": "name"},
        "checks": {"gate": {"sql": "SELECT gates.pass(''check'') = ''check''"}}}')""")


def open_run(admin, scope, batch_size=100, first=1, last=ITEMS, pipeline='copy'):
    run = admin.value('SELECT portage.open_run(%s, %s, %s)', pipeline, scope, '{"batch_size": %d}' % batch_size)
    admin.rows("SELECT portage.attach_query(%s, %s, key => '{id}')", run, f'SELECT * FROM source WHERE id BETWEEN {first} AND {last}')
    return run


def status(admin, run):
    return admin.value('SELECT status FROM portage.migration_runs WHERE id = %s', run)


def owner(admin, run):
    return admin.value('SELECT owner_pid FROM portage.migration_runs WHERE id = %s', run)


def books(admin, run):
    """What is not in order: each item is in target, ledger and counters once."""
    return admin.rows("""SELECT * FROM (SELECT r.scope, r.status, r.read, r.inserted,
        (SELECT count(*) FROM target t WHERE t.scope = r.scope) AS target,
        (SELECT count(*) FROM portage.all_items i WHERE i.run_id = r.id AND i.revision = 0) AS items,
        (SELECT sum(b.read) FROM portage.migration_batches b WHERE b.run_id = r.id) AS batches,
        (SELECT count(*) FROM portage.legacy_mappings m WHERE m.run_id = r.id) AS mappings
      FROM portage.migration_runs r WHERE r.id = %s) b
      WHERE NOT (read = inserted AND read = target AND read = items AND read = batches AND read = mappings)""", run)


def stop(pid):
    os.kill(pid, signal.SIGSTOP)
    until(lambda: stopped(pid))


def stopped(pid):
    with open(f'/proc/{pid}/stat', encoding='utf-8') as file:
        return file.read().rpartition(')')[2].split()[0] == 'T'


def stop_between_batches(chance, admin, pid):
    """While the run holds it is most of the time in no transaction."""
    for _ in range(200):
        stop(pid)
        if not admin.value("SELECT count(*) FROM pg_locks WHERE pid = %s AND locktype = 'advisory'", pid):
            return True
        os.kill(pid, signal.SIGCONT)
        time.sleep(chance.random() * 0.2)
    return False


def lease_runs_out(admin, run):
    return until(lambda: admin.value('SELECT owner_lease < clock_timestamp() FROM portage.migration_runs WHERE id = %s', run))


def taken_over(chance, server, admin, what, who, by):
    """`who` works on the run and is stopped between two batches; `by` takes it over."""
    rolling_back = what == 'rollback'
    run = open_run(admin, f'{what} {who} {by}')
    name = f'{what}, {who} stopped, taken over by {by}'
    if rolling_back:
        admin.rows('CALL portage.run(%s)', run)
    with Session(server) as sleeper, Session(server) as locker:
        locker.rows('BEGIN')
        locker.rows('LOCK TABLE target IN SHARE MODE')
        pending = None
        if who == 'session':
            pending = sleeper.begin('CALL portage.rollback(%s)' if rolling_back else 'CALL portage.run(%s)', run)
        elif rolling_back:
            pid = begin_rollback(admin, sleeper, run)
            admin.rows('SELECT pg_terminate_backend(%s)', pid)
            left(admin, pid)
            admin.rows('CALL portage.tick()')
        else:
            admin.rows('SELECT portage.start(%s)', run)
        check(f'{name}: it holds', until(lambda: 'lock' in (admin.value(
            'SELECT hold_reason FROM portage.progress WHERE run_id = %s AND is_running', run) or '')))
        pid = owner(admin, run)
        check(f'{name}: it is stopped between two batches', stop_between_batches(chance, admin, pid))
        locker.rows('COMMIT')
        lease_runs_out(admin, run)
        check(f'{name}: the run shows as interrupted', admin.rows(
            'SELECT is_running FROM portage.progress WHERE run_id = %s', run) == [(False,)])
        check(f'{name}: and is nobody\'s', admin.value('SELECT count(*) FROM portage.locks WHERE run_id = %s', run) == 0)
        admin.rows('CALL portage.run(%s)' if by == 'session' else 'SELECT portage.resume(%s)', run)
        end = 'rolled_back' if rolling_back else 'completed'
        check(f'{name}: it goes on to the end', until(lambda: status(admin, run) == end), status(admin, run))
        events = admin.value('SELECT count(*) FROM portage.migration_events WHERE run_id = %s', run)
        os.kill(pid, signal.SIGCONT)
        if pending:
            error = pending.wait().error
            check(f'{name}: the stale owner is told', error is not None and error.pgcode == 'PZ013', told(error))
        else:
            left(admin, pid)
            with open(server.log, encoding='utf-8') as log:
                check(f'{name}: the stale owner is told', any(
                    line.startswith(f'{pid} PZ013 ') and f'run {run} has been taken over' in line for line in log))
        check(f'{name}: and has changed nothing', status(admin, run) == end and events == admin.value(
            'SELECT count(*) FROM portage.migration_events WHERE run_id = %s', run))
        if rolling_back:
            check(f'{name}: all is taken back', admin.rows("SELECT (SELECT count(*) FROM target WHERE scope = r.scope), "
                "(SELECT sum(rolled_back) FROM portage.migration_batches b WHERE b.run_id = r.id) FROM portage.migration_runs r "
                'WHERE id = %s', run) == [(0, ITEMS)])
        else:
            check(f'{name}: nothing is doubled or lost', not books(admin, run) and
                  admin.value('SELECT inserted FROM portage.migration_runs WHERE id = %s', run) == ITEMS, books(admin, run))


def begin_rollback(admin, session, run):
    """Until it holds behind a lock; gives its process."""
    session.begin('CALL portage.rollback(%s)', run)
    until(lambda: 'lock' in (admin.value('SELECT hold_reason FROM portage.progress WHERE run_id = %s', run) or ''))
    return session.pid


def at_the_gate(admin, scope):
    """A started run that stands in its 51st batch: of one item each, as such a one has no time limit."""
    run = open_run(admin, scope, 1, 1450, 1550)
    admin.rows('SELECT portage.start(%s)', run)
    check(f'{scope}: it is in a batch', until(lambda: admin.value(
        "SELECT a.wait_event = 'advisory' FROM portage.migration_runs r JOIN pg_stat_activity a ON a.pid = r.owner_pid WHERE r.id = %s", run)))
    return run


def within_a_batch(server, admin, wish):
    """Nobody can take over what is in the sleeper's hands; an operator's wish waits for it."""
    name = f'stopped within a batch, then {wish}'
    with Gate(server, 1500), Session(server) as other:
        run = at_the_gate(admin, name)
        pid = owner(admin, run)
        stop(pid)
        lease_runs_out(admin, run)
        error = other.error('CALL portage.run(%s)', run)
        check(f'{name}: who tries to take it over is told why not', error is not None and error.pgcode == 'PZ007' and
              f'process {pid}' in told(error), told(error))
        admin.rows('CALL portage.tick()')
        pending = None
        if wish != 'nothing':
            pending = other.begin(f'SELECT portage.{wish}(%s)', run)
            until(lambda: pending.done() or admin.value("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s", other.pid))
            check(f'{name}: that cannot be done yet', status(admin, run) == 'running', status(admin, run))
        os.kill(pid, signal.SIGCONT)
        check(f'{name}: no error', not pending or pending.wait().error is None, pending and told(pending.error))
    end = {'nothing': 'completed', 'pause': 'paused', 'cancel': 'cancelled'}[wish]
    check(f'{name}: awake again, it is {end}', until(lambda: status(admin, run) == end), status(admin, run))
    if wish == 'pause':
        check(f'{name}: what it had in hand stays', admin.value('SELECT read FROM portage.progress WHERE run_id = %s', run) == 51)
        admin.rows('SELECT portage.resume(%s)', run)
        until(lambda: status(admin, run) == 'completed')
    check(f'{name}: the books balance', not books(admin, run), books(admin, run))
    check(f'{name}: with what it had in hand', admin.value('SELECT inserted FROM portage.migration_runs WHERE id = %s', run) ==
          (51 if wish == 'cancel' else 101))


def wishes(chance, server, admin):
    """At whatever moment a run is met that begins or works, it does what was asked of it: a gate keeps it from being over."""
    wrong, met = [], set()
    for n in range(40):
        wish, end = (('pause', 'paused'), ('cancel', 'cancelled'))[n % 2]
        with Gate(server, chance.randrange(1, ITEMS - 100)) as gate:
            run = open_run(admin, f'wish {n}')
            admin.rows('SELECT portage.start(%s)', run)
            if n % 8 < 2:
                gate.somebody_waits()
            else:
                time.sleep(chance.random() * 0.06)
            met.add(status(admin, run))
            error = admin.error(f'SELECT portage.{wish}(%s)', run)
        if error is not None:
            wrong.append((n, wish, told(error)))
        # Not before its worker has gone: what that does behind the back of a run that has been ended shows in the books.
        elif not until(lambda: status(admin, run) == end and not admin.value(
                "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'portage worker'")):
            wrong.append((n, wish, status(admin, run), admin.rows(
                'SELECT event_type, created_at::text FROM portage.migration_events WHERE run_id = %s ORDER BY seq', run)))
        elif admin.value('SELECT read FROM portage.migration_runs WHERE id = %s', run) is not None and books(admin, run):
            wrong.append((n, wish, books(admin, run)))
    check(f'forty wishes at runs that begin or work: all are obeyed ({", ".join(sorted(met))})', not wrong and 'running' in met, (wrong[:5], met))


def owner_dies(server, admin, scope, wish):
    """Its run stands at the gate when the owner is asked for something, and then ended."""
    with Gate(server, 1500):
        run = at_the_gate(admin, scope)
        admin.rows(f'SELECT portage.{wish}(%s)', run)
        pid = owner(admin, run)
        check(f'{scope}: its owner can be ended', admin.value('SELECT pg_terminate_backend(%s)', pid))
        left(admin, pid)
    return run


def wish_and_death(server, admin):
    """A wish outlives the owner that it was meant for."""
    for wish, end in (('pause', 'paused'), ('cancel', 'cancelled')):
        run = owner_dies(server, admin, f'died before {wish}', wish)
        admin.rows('CALL portage.tick()')
        check(f'the owner died before it could {wish}: its successor does', until(lambda: status(admin, run) == end), status(admin, run))
        read = admin.value('SELECT read FROM portage.progress WHERE run_id = %s', run)
        check('... and nothing more', read == 50, read)
    run = owner_dies(server, admin, 'died, and called', 'pause')
    admin.rows('CALL portage.run(%s)', run)
    check('who calls run() himself wants it to go on', status(admin, run) == 'completed' and not books(admin, run), status(admin, run))


def checked_run(admin, scope):
    """A run whose verification stands at the gate 'check'."""
    return open_run(admin, scope, first=1, last=200, pipeline='checked')


def waits_for_lock(admin, session):
    return until(lambda: admin.value("SELECT wait_event_type = 'Lock' AND wait_event <> 'advisory' FROM pg_stat_activity WHERE pid = %s",
                                     session.pid))


def statement_is_over(server, admin, state):
    """The owner is cancelled, and once more while it waits for the run's row to say that it has left: the row goes on naming it."""
    name = f'cancelled while {state}'
    run = checked_run(admin, name) if state == 'verifying' else open_run(admin, name, first=1400, last=1600)
    with Session(server) as owning, Session(server) as locker, Session(server) as other:
        if state == 'rolling_back':
            admin.rows('CALL portage.run(%s)', run)
        with Gate(server, 'check' if state == 'verifying' else 1500) as gate:
            pending = owning.begin('CALL portage.rollback(%s)' if state == 'rolling_back' else 'CALL portage.run(%s)', run)
            gate.somebody_waits()
            check(f'{name}: it has an owner', status(admin, run) == state and owner(admin, run) == owning.pid and admin.value(
                'SELECT is_running FROM portage.progress WHERE run_id = %s', run), status(admin, run))
            locker.rows('BEGIN')
            locking = locker.begin('SELECT FROM portage.migration_runs WHERE id = %s FOR UPDATE', run)
            until(lambda: locking.done() or admin.value("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s", locker.pid))
            admin.rows('SELECT pg_cancel_backend(%s)', owning.pid)
            locking.result()
            waits_for_lock(admin, owning)
            admin.rows('SELECT pg_cancel_backend(%s)', owning.pid)
            error = pending.wait().error
            locker.rows('ROLLBACK')
        admin.rows('DELETE FROM gates.closed')
        check(f'{name}: that is what its caller hears', error is not None and error.pgcode == '57014', told(error))
        check(f'{name}: the row still names it', owner(admin, run) == owning.pid)
        check(f'{name}: it counts as interrupted', admin.rows('SELECT status, is_running FROM portage.progress WHERE run_id = %s', run) ==
              [(state, False)] and not admin.rows('SELECT * FROM portage.locks WHERE run_id = %s', run))
        check(f'{name}: its session lives', owning.value('SELECT 1') == 1)
        error = other.error('CALL portage.rollback(%s)' if state == 'rolling_back' else 'CALL portage.run(%s)', run)
        end = 'rolled_back' if state == 'rolling_back' else 'completed'
        check(f'{name}: another session goes on at once', error is None and status(admin, run) == end, (told(error), status(admin, run)))
        check(f'{name}: the books balance', state == 'rolling_back' or not books(admin, run), books(admin, run))


def nobody_looks(server, admin):
    """Where track_activities is off, nobody knows of statements: the process, the lease and the lock have to do."""
    run = open_run(admin, 'unseen', first=1400, last=1600)
    with Session(server) as owning, Gate(server, 1500) as gate:
        owning.rows('SET track_activities = off')
        pending = owning.begin('CALL portage.run(%s)', run)
        gate.somebody_waits()
        check('an owner that tells nobody what it does is one', admin.value('SELECT is_running FROM portage.progress WHERE run_id = %s', run))
        error = admin.error('SELECT portage.verify(%s)', run)
        check('... and is named', error is not None and error.pgcode == 'PZ007' and f'process {owning.pid}' in told(error), told(error))
        gate.open()
        check('... and ends its run', pending.wait().error is None and status(admin, run) == 'completed', status(admin, run))


def late_wishes(server, admin):
    """A wish that comes when the owner has asked for the last time: its transaction has the run's row when the owner wants it, and
    is committed then."""
    for what, wish, end in (('run', 'pause', 'paused'), ('run', 'cancel', 'cancelled'), ('rollback', 'pause', 'paused')):
        name = f'{wish} at the very end of a {what}'
        run = checked_run(admin, name)
        at = 'check'
        if what == 'rollback':
            admin.rows('CALL portage.run(%s)', run)
            at = 1
        with Session(server) as owning, Session(server) as operator:
            with Gate(server, at) as gate:
                pending = owning.begin(f'CALL portage.{what}(%s)', run)
                gate.somebody_waits()
                operator.rows('BEGIN')
                check(f'{name} is accepted', operator.error(f'SELECT portage.{wish}(%s)', run) is None)
                gate.open()
                waits_for_lock(admin, owning)
                operator.rows('COMMIT')
                error = pending.wait().error
            admin.rows('DELETE FROM gates.closed')
            check(f'{name}, and obeyed', error is None and status(admin, run) == end, (told(error), status(admin, run)))
            if end == 'paused':
                admin.rows(f'CALL portage.{what}(%s)', run)
                check(f'{name}: it can be gone on with', status(admin, run) == ('completed' if what == 'run' else 'rolled_back'), status(admin, run))


def who_is_in_the_way(server, admin):
    """PZ007 names whoever it is, and nobody where there is nobody."""
    admin.rows('CREATE TABLE single (id integer PRIMARY KEY, name text)')
    admin.rows("""SELECT portage.create_pipeline(n, 'single', '{"format": "rows", "legacy_id": "id", "exclusive": true,
        "columns": {"id": "id", "name": "name"}}') FROM unnest('{one,two}'::text[]) n""")
    admin.rows("CREATE TRIGGER gate BEFORE INSERT ON single FOR EACH ROW EXECUTE FUNCTION gates.keep('id')")
    first, second = (open_run(admin, '', first=1, last=10, pipeline=n) for n in ('one', 'two'))
    with Session(server) as owning:
        with Gate(server, 5) as gate:
            pending = owning.begin('CALL portage.run(%s)', first)
            gate.somebody_waits()
            admin.rows('SELECT portage.pause(%s)', first)
            gate.open()
            pending.wait()
        error = admin.error('CALL portage.run(%s)', second)
        check('a run that is paused is in the hands of nobody', error is not None and error.pgcode == 'PZ007' and
              'is paused; nobody works on it' in told(error) and 'process' not in told(error), told(error))
    run = open_run(admin, 'gone', first=1400, last=1600)
    with Gate(server, 1500) as gate, Session(server) as operator:
        with Session(server) as owning:
            pending = owning.begin('CALL portage.run(%s)', run)
            gate.somebody_waits()
            admin.rows('SELECT pg_terminate_backend(%s)', owning.pid)
            pending.wait()
        left(admin, owning.pid)
        admin.rows('DELETE FROM gates.closed')
        operator.rows('BEGIN')
        operator.rows('SELECT portage.pause(%s)', run)
        error = admin.error('CALL portage.run(%s)', run)
        check('who has a run in hand for a moment is named, not who is gone', error is not None and error.pgcode == 'PZ007' and
              f'process {operator.pid}.' in told(error) and str(owning.pid) not in told(error), told(error))
        operator.rows('ROLLBACK')
    admin.rows('CALL portage.run(%s)', run)
    check('... and then it goes on', status(admin, run) == 'completed')


def main():
    print(f'seed {SEED}', flush=True)
    chance = random.Random(SEED)
    with Server(log_line_prefix='%p %e ', **{'portage.lease_duration': '1s', 'portage.lock_timeout': '100ms'}) as server, \
            Session(server) as admin:
        prepare(admin)
        for what in ('import', 'rollback'):
            taken_over(chance, server, admin, what, 'session', 'worker')
            taken_over(chance, server, admin, what, 'worker', 'session')
        admin.rows("ALTER SYSTEM SET portage.lock_timeout = '10min'")  # from now on batches wait at the gate
        admin.rows('SELECT pg_reload_conf()')
        until(lambda: admin.value('SHOW portage.lock_timeout') == '10min')
        for wish in ('nothing', 'pause', 'cancel'):
            within_a_batch(server, admin, wish)
        # A run that waits in a batch while its lease has run out is nobody's: not what is meant from here on.
        admin.rows("ALTER SYSTEM SET portage.lease_duration = '1h'")
        admin.rows('SELECT pg_reload_conf()')
        until(lambda: admin.value('SHOW portage.lease_duration') == '1h')
        wishes(chance, server, admin)
        wish_and_death(server, admin)
        for state in ('running', 'verifying', 'rolling_back'):
            statement_is_over(server, admin, state)
        nobody_looks(server, admin)
        late_wishes(server, admin)
        who_is_in_the_way(server, admin)
    finish()


main()
