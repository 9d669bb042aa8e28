#!/usr/bin/python3
"""Runs that look after themselves are killed at random moments: whoever works on them, a session or a background worker
(SIGKILL, SIGTERM), and the whole server (SIGKILL of the postmaster and its children), while they import, verify and roll
back. Where pg_portage is preloaded nobody calls anything: the launcher resumes them; elsewhere CALL tick() does, or CALL
run(). Target and ledger must equal those of an undisturbed run in batches of another size, and the rollback must bring the
target back to the last row: what is compared, tests/lib/disturbed.py says.

The moments follow from a seed, which is printed; PORTAGE_SEED repeats them (as far as moments can be repeated), and
PORTAGE_KILLS asks for more than 20 kills that hit a run at work. Arguments choose scenarios (default: all)."""

import collections
import contextlib
import os
import random
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
import psycopg2  # noqa: E402
from disturbed import (COUNTERS, INVARIANTS, ITEM_ROWS, ITEMS, MAPPINGS, READ, TARGET_ROWS, UNDO, compare,  # noqa: E402
                       connect_again, dataset, furnish, gone, open_run, options_of, values, word_ahead)
from portage_server import PATIENCE, Server, check, finish  # noqa: E402
from sessions import Gate, Session, until  # noqa: E402

SEED = int(os.environ.get('PORTAGE_SEED', random.SystemRandom().randrange(1 << 32)))
KILLS = int(os.environ.get('PORTAGE_KILLS', '20'))

# The scenarios of tests/lib/disturbed.py, and options that the disturbed run has beyond its batch size.
SCENARIOS = {'ndjson': {}, 'csv': {}, 'query': {}, 'overwrite': {}, 'workers': {'workers': 2}}
HOW = ('SIGKILL of who works', 'SIGTERM of who works', 'SIGKILL of the server')

EXACT_ROWS = 'SELECT p::text FROM app.progress p ORDER BY id'
ROLLED_BACK = "SELECT sum(rolled_back) FROM portage.migration_batches WHERE run_id = {run} AND kind = 'rollback'"
STATUSES = """SELECT DISTINCT ON (ordinal) ordinal, status, legacy_id, rule, message FROM portage.migration_items
  WHERE run_id = {run} ORDER BY ordinal, revision DESC"""
LANDED = {'the run\'s counters': COUNTERS, 'the target\'s rows': TARGET_ROWS, 'the items': ITEM_ROWS, 'the mappings': MAPPINGS,
          'the before-images': UNDO}
TAKEN_BACK = {'the run\'s counters': COUNTERS, 'the number of items taken back': ROLLED_BACK, 'the items': STATUSES,
              'the mappings': MAPPINGS}
WORKERS = """SELECT w.pid FROM (SELECT owner_pid AS pid FROM portage.migration_runs WHERE id = {run}
  UNION SELECT owner_pid FROM portage.migration_ranges WHERE run_id = {run} AND NOT done) w JOIN pg_stat_activity a USING (pid)
  WHERE a.datname = current_database()"""


class Place:
    """A database of a server, with a connection that is renewed when the server is back."""

    def __init__(self, server, preloaded, scenario, calm):
        self.server, self.preloaded, self.scenario, self.calm = server, preloaded, scenario, calm
        self.database = scenario
        self.connection = None

    def look(self, sql, **names):
        end = time.monotonic() + PATIENCE
        while True:
            try:
                if self.connection is None:
                    self.connection = connect_again(self.server, self.database)
                return values(self.connection, sql, **names)
            except psycopg2.Error as error:
                if not gone(error) or time.monotonic() > end:
                    raise
                self.connection = None

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None


class Call(threading.Thread):
    """A CALL in a session of its own, whose end nobody regrets."""

    def __init__(self, place, call):
        super().__init__(daemon=True)
        self.connection, self.call, self.error = connect_again(place.server, place.database), call, None
        self.start()

    def run(self):
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(self.call)
        except psycopg2.Error as error:
            self.error = error
        with contextlib.suppress(psycopg2.Error):
            self.connection.close()


class Storm:
    """One run from its start to its rollback, disturbed."""

    def __init__(self, chance, place, run, data):
        self.chance, self.place, self.run, self.data = chance, place, run, data
        self.kills, self.rollback = 0, None

    def look(self, sql):
        return self.place.look(sql, run=self.run)

    def status(self):
        return self.look('SELECT status FROM portage.migration_runs WHERE id = {run}')[0][0]

    def batches(self, kind):
        return self.look(f"SELECT count(*) FROM portage.migration_batches WHERE run_id = {{run}} AND kind = '{kind}'")[0][0]

    def go_on(self, statuses, reached):
        """Lets the run go on until something is true; False if its status is none of these any more, or never becomes so."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if reached():
                return True
            if self.status() not in statuses:
                return False
            self.heartbeat()
            time.sleep(0.002)
        check(f'{self.name()}: the run goes on by itself', False, self.look(
            'SELECT status, current_step, owner_pid, background, launched_at, now(), hold_reason FROM portage.migration_runs WHERE id = {run}') +
            self.look('SELECT part, range_no, done, owner_pid, epoch, first_ordinal, next_ordinal, end_ordinal FROM portage.migration_ranges '
                      'WHERE run_id = {run} AND NOT done ORDER BY 1, 2'))
        return False

    def heartbeat(self):
        """Where no launcher is, somebody calls tick() every now and then, or run()."""
        if self.place.preloaded or self.look(WORKERS):
            return
        call = self.chance.choice(('CALL portage.tick()', f'CALL portage.run({self.run})'))
        thread = Call(self.place, call)
        for _ in range(30):  # until it has the run
            if self.look(WORKERS) or not thread.is_alive() and thread.error:
                break
            time.sleep(0.01)

    def name(self):
        return f'{self.place.scenario}, {"launcher" if self.place.preloaded else "tick"}, run {self.run}'

    def waits(self):
        return self.look("SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")

    @contextlib.contextmanager
    def in_the_way(self, phase):
        """What the phase cannot get past meanwhile: it must not be over before the kill."""
        if phase == 'import':
            keeper = Gate(self.place.server, word_ahead(self.chance, self.data, self.look(READ)[0][0]), dbname=self.place.database)
        elif phase == 'verification':
            keeper = Gate(self.place.server, 'verified', dbname=self.place.database)
        else:
            keeper = Session(self.place.server, dbname=self.place.database)
            landed = keeper.rows('SELECT p.id FROM app.progress p JOIN portage.legacy_mappings m ON m.target_key = p.id::text '
                                 'WHERE m.run_id = %s', self.run)
            keeper.rows('BEGIN')
            if landed:
                keeper.rows('SELECT FROM app.progress WHERE id = %s FOR UPDATE', self.chance.choice(landed)[0])
        with keeper:
            yield

    def moment(self, phase):
        """Waits for a random moment of a phase; False if the phase is over."""
        if phase == 'import':
            goal = self.batches('import') + self.chance.randrange(0, 8)
            there = self.go_on(('queued', 'pending', 'running'), lambda: self.batches('import') >= goal or self.waits())
            pause = 0.03
        elif phase == 'verification':
            there = self.go_on(('queued', 'pending', 'running', 'verifying'), lambda: self.status() == 'verifying')
            pause = 0.15
        else:
            goal = self.batches('rollback') + self.chance.randrange(0, 6)
            self.roll_back()
            there = self.go_on(('rolling_back',), lambda: self.batches('rollback') >= goal or self.waits())
            pause = 0.03
        time.sleep(self.chance.random() * pause)
        return there

    def kill(self, how):
        server = self.place.server
        if how == 'SIGKILL of the server':
            server.kill9()
            server.start()
        else:
            pids = self.look(WORKERS)
            if not pids:  # between two of them
                return
            pid = self.chance.choice(pids)[0]
            if 'SIGKILL' in how:
                server.kill9_backend(pid)
            else:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
        self.kills += 1

    def rage(self, phase, hows):
        for how in hows:
            with self.in_the_way(phase):
                if not self.moment(phase):
                    break
                self.kill(how)

    def roll_back(self):
        """In a session, which may be killed before it has begun."""
        while self.status() == 'completed':
            if not self.rollback or not self.rollback.is_alive():
                self.rollback = Call(self.place, f'CALL portage.rollback({self.run})')
            time.sleep(0.002)

    def resumed(self):
        """How often, by phase."""
        return collections.Counter(dict(self.look("SELECT coalesce(details ->> 'step', 'importing'), count(*)::integer "
            "FROM portage.migration_events WHERE run_id = {run} AND event_type = 'resumed' GROUP BY 1")))

    def quiet(self):
        """Nobody works here any more."""
        until(lambda: not self.look("SELECT FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'portage worker'"))


def results(look, queries):
    return {what: look(sql) for what, sql in queries.items()}


def undisturbed(server, scenario, data):
    """What must come out."""
    with server.connect(scenario) as connection:
        before = values(connection, EXACT_ROWS)
        run = open_run(connection, scenario, data, options_of(scenario, 1000))

        def look(sql):
            return values(connection, sql, run=run)

        def call(sql):
            with connection.cursor() as cursor:
                cursor.execute(sql)

        call(f'CALL portage.run({run})')
        landed = results(look, LANDED)
        counters = landed['the run\'s counters'][0]
        check(f'{scenario}, undisturbed: completed, with rejects', counters[:2] == ('completed', ITEMS) and counters[8] > 0, counters)
        for what, sql in INVARIANTS.items():
            check(f'{scenario}, undisturbed: {what}', not look(sql), look(sql)[:5])
        call(f'CALL portage.rollback({run})')
        taken_back = results(look, TAKEN_BACK)
        check(f'{scenario}, undisturbed: the rollback brings the target back', look(EXACT_ROWS) == before)
    return landed, taken_back


def storm(chance, place, data, kills):
    """One run through so many kills; how often it had to be resumed, by phase."""
    connection = connect_again(place.server, place.database)
    before = values(connection, EXACT_ROWS)
    run = open_run(connection, place.scenario, data, options_of(place.scenario, 60, **SCENARIOS[place.scenario]))
    it = Storm(chance, place, run, data)
    hows = [HOW[n % len(HOW)] for n in range(kills)]
    chance.shuffle(hows)
    verifying, rolling_back = max(kills // 4, 1), max(kills // 4, 1)
    call = None
    if chance.random() < 0.5:
        values(connection, 'SELECT portage.start({run})', run=run)
    else:
        call = Call(place, f'CALL portage.run({run})')
    connection.close()
    it.rage('import', hows[verifying + rolling_back:])
    it.rage('verification', hows[:verifying])
    it.go_on(('queued', 'pending', 'running', 'verifying'), lambda: it.status() == 'completed')
    it.quiet()
    name = f'{it.name()}, {"called" if call else "started"}'
    for what, sql in LANDED.items():
        compare(name, what + ' equal those of the undisturbed run', place.calm[0][what], it.look(sql))
    for what, sql in INVARIANTS.items():
        found = it.look(sql)
        check(f'{name}: {what}', not found, found[:5])
    it.rage('rollback', hows[verifying:verifying + rolling_back])
    it.roll_back()
    it.go_on(('rolling_back',), lambda: it.status() == 'rolled_back')
    it.quiet()
    for what, sql in TAKEN_BACK.items():
        compare(name, what + ' equal those of the undisturbed rollback', place.calm[1][what], it.look(sql))
    compare(name, 'the target is as it was before the run', before, it.look(EXACT_ROWS))
    resumed = it.resumed()
    check(f'{name}: whoever resumed it did so after a kill', resumed.total() <= it.kills, f'{resumed} after {it.kills} kills')
    place.close()
    return resumed


def main():
    print(f'seed {SEED}', flush=True)
    chance = random.Random(SEED)
    chosen = sys.argv[1:] or list(SCENARIOS)
    settings = {'max_wal_size': '1GB', 'checkpoint_timeout': '30s', 'max_worker_processes': 20,
                'portage.batch_target': '10ms', 'max_logical_replication_workers': 0}
    with Server(**settings) as plain, Server(**settings) as preloaded:
        places = []
        for scenario in chosen:
            data = dataset(scenario, SEED, plain.directory)
            for server in (plain, preloaded):
                furnish(server, scenario, scenario, data)
            calm = undisturbed(plain, scenario, data)
            places += [(Place(preloaded, True, scenario, calm), data), (Place(plain, False, scenario, calm), data)]
        preloaded.set('shared_preload_libraries', 'pg_portage')
        preloaded.set('portage.databases', ','.join(chosen))
        preloaded.restart()
        hit = collections.Counter()
        each = min(max(KILLS // len(places) + 2, 4), 16)
        while True:
            for place, data in places:
                start = time.monotonic()
                resumed = storm(chance, place, data, each)
                hit += resumed
                print(f'        resumed {resumed.total()} times, {hit.total()} in all; {time.monotonic() - start:.0f} s', flush=True)
            if hit.total() >= KILLS:
                break
        figures = ', '.join(f'{count} {phase}' for phase, count in hit.items())
        print(f'figures {hit.total()} kills hit a run at work: {figures}')
        check('each phase was hit', len(hit) == 3, figures)
    finish()


if __name__ == '__main__':
    main()
