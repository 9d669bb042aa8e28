#!/usr/bin/python3
"""A run of a million items in a background worker, paused, resumed and cancelled at random moments: how long it takes from
the commit of the call until the run is in that state (printed, not asserted), and that a rollback then brings the target
back exactly. PORTAGE_ITEMS sets another number, PORTAGE_SEED repeats the moments."""

import os
import random
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from defects import TARGET, Dataset  # noqa: E402
from portage_server import Server, check, finish  # noqa: E402
from sessions import Session, until  # noqa: E402

ITEMS = int(os.environ.get('PORTAGE_ITEMS', '1000000'))
SEED = int(os.environ.get('PORTAGE_SEED', random.SystemRandom().randrange(1 << 32)))
TIMES = 10


class Operator:
    def __init__(self, server):
        self.admin = Session(server)
        self.took = {}

    def status(self, run):
        return self.admin.rows('SELECT status, is_running FROM portage.progress WHERE run_id = %s', run)[0]

    def read(self, run):
        return self.admin.value('SELECT sum(read) FROM portage.migration_batches WHERE run_id = %s', run) or 0

    def ask(self, run, wish, there):
        """Asks, and measures until it is so."""
        self.admin.rows(f'SELECT portage.{wish}(%s)', run)
        start = time.monotonic()
        reached = until(there)
        self.took.setdefault(wish, []).append(1000 * (time.monotonic() - start))
        check(f'{wish} takes effect', reached, self.status(run))

    def open(self, data, scope):
        run = self.admin.value("SELECT portage.open_run('words', %s)", scope)
        self.admin.rows('SELECT portage.attach_file(%s, %s)', run, data.path)
        self.admin.rows('SELECT portage.start(%s)', run)
        return run


def main():
    print(f'seed {SEED}', flush=True)
    chance = random.Random(SEED)
    with Server(max_wal_size='4GB') as server:
        operator = Operator(server)
        admin = operator.admin
        admin.rows('CREATE EXTENSION pg_portage')
        admin.rows(TARGET)
        data = Dataset('ndjson', ITEMS, SEED, server.directory)
        admin.rows("SELECT portage.create_pipeline('words', 'app.progress', %s)", data.definition(on_conflict='overwrite'))
        # every hundredth row is there, and is overwritten
        admin.rows("INSERT INTO app.progress (user_id, word_id, lemma, review_count, correct_count, streak) "
                   f"SELECT 'one', 'word ' || n, 'before', 1, 1, 1 FROM generate_series(100, {ITEMS}, 100) n")
        state = "SELECT count(*), md5(string_agg(md5(p::text), '' ORDER BY id)) FROM app.progress p"
        before = admin.rows(state)

        run = operator.open(data, 'one')
        check('it begins', until(lambda: operator.read(run) > 0))
        for _ in range(TIMES):
            time.sleep(chance.random() * 3)
            operator.ask(run, 'pause', lambda: operator.status(run) == ('paused', False))
            read = operator.read(run)
            time.sleep(chance.random())
            check('paused, it reads nothing', operator.read(run) == read)
            operator.ask(run, 'resume', lambda: operator.status(run) == ('running', True) and operator.read(run) > read)
        read = operator.read(run)
        check('all of this happened in mid-run', 0 < read < ITEMS, read)
        print(f'figures after ten pauses {read} of {ITEMS} items had been read', flush=True)
        for n in range(TIMES):
            time.sleep(chance.random() * 3)
            operator.ask(run, 'cancel', lambda: operator.status(run) == ('cancelled', False))
            counted, landed = admin.rows('SELECT read, (SELECT count(*) FROM portage.legacy_mappings WHERE run_id = r.id) '
                                         'FROM portage.migration_runs r WHERE id = %s', run)[0]
            check('cancelled in mid-run, the books balance', 0 < counted < ITEMS and landed > 0 and counted == operator.read(run), counted)
            start = time.monotonic()
            admin.rows('CALL portage.rollback(%s)', run)
            if n == 0:
                print(f'figures the rollback of {landed} landed items took {time.monotonic() - start:.1f} s')
            check('rollback brings the target back exactly', admin.rows(state) == before, admin.rows(state))
            check('and leaves no mapping', admin.value('SELECT count(*) FROM portage.legacy_mappings') == 0)
            if n < TIMES - 1:
                run = operator.open(data, 'one')
                until(lambda: operator.read(run) > 0)
        for wish, took in operator.took.items():
            print(f'figures {wish}: {len(took)} times, min {min(took):.0f} ms, median {statistics.median(took):.0f} ms, max {max(took):.0f} ms')
    finish()


main()
