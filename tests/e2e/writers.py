#!/usr/bin/python3
"""An application goes on writing to the target while runs of every conflict policy migrate into it: the same keys are
inserted, updated and deleted by real sessions. No run fails, nothing that the application has committed is lost, and what
happens at the same moment becomes a conflict like any other.

Every writer keeps its own account of what it has committed, key by key; afterwards each row must be explained by it."""

import os
import random
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
import psycopg2  # noqa: E402
from portage_server import Server, check, finish  # noqa: E402
from sessions import Session, ended, ndjson, until  # noqa: E402

SEED = int(os.environ.get('PORTAGE_SEED') or random.randrange(1 << 32))
KEYS, WRITERS, PRESENT = 4000, 4, 2000
ITEM_VISITS, APP_VISITS = 7, 1000

TARGET = """
CREATE TABLE app.{name} (code text PRIMARY KEY, phone text, visits bigint NOT NULL, touched int NOT NULL DEFAULT 0);
INSERT INTO app.{name} (code, phone, visits) SELECT 'k' || n, 'old', 1 FROM generate_series(1, {present}) n;
"""
DEFINITION = """{{"format": "ndjson", "legacy_id": "id", "columns": {{"code": "code", "phone": "phone", "visits": "visits"}},
  "on_conflict": "{policy}", "merge": {{"visits": "sum"}}}}"""


class Writer(threading.Thread):
    """Writes until it is told to stop, each statement a transaction; remembers what was committed, by key."""

    def __init__(self, server, name, number, stop):
        super().__init__(daemon=True)
        self.session = Session(server)
        self.name_, self.number, self.stop = name, number, stop
        self.random = random.Random(SEED + number)
        self.added = {}   # key -> how many visits
        self.phone = {}   # key -> the last phone number; each writer has keys of its own
        self.error = None

    def run(self):
        serial = 0
        try:
            while not self.stop.is_set():
                serial += 1
                key = self.random.randrange(1, KEYS // WRITERS + 1) * WRITERS - self.number
                phone = f'w{self.number}-{serial}'
                # As an application does it: whoever comes first inserts.
                self.session.rows(
                    f'INSERT INTO app.{self.name_} AS t (code, phone, visits, touched) VALUES (%s, %s, %s, 1) '
                    f'ON CONFLICT (code) DO UPDATE SET phone = excluded.phone, visits = t.visits + %s, '
                    f'touched = t.touched + 1', f'k{key}', phone, APP_VISITS, APP_VISITS)
                self.added[key] = self.added.get(key, 0) + 1
                self.phone[key] = phone
        except psycopg2.Error as error:
            self.error = error


def migrate(server, admin, policy, workers):
    """A run among the writers; its id, and what they have committed in all."""
    name = f'{policy}_{workers}'
    admin.rows(TARGET.format(name=name, present=PRESENT))
    admin.rows('SELECT portage.create_pipeline(%s, %s::regclass, %s::json)', name, f'app.{name}',
               DEFINITION.format(policy=policy))
    run = admin.value('SELECT portage.open_run(%s, options => %s::jsonb)', name,
                      f'{{"batch_size": 100, "workers": {workers}}}')
    order = list(range(1, KEYS + 1))
    random.Random(SEED).shuffle(order)
    admin.rows('SELECT portage.submit(%s, %s)', run,
               ndjson({'id': n, 'code': f'k{n}', 'phone': 'item', 'visits': ITEM_VISITS} for n in order))
    stop = threading.Event()
    writers = [Writer(server, name, number, stop) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    until(lambda: all(len(writer.added) > 50 for writer in writers))
    with Session(server) as session:
        error = session.error('CALL portage.run(%s)', run)
    stop.set()
    ended(writers)
    check(f'{name}: the run does not fail', error is None, str(error))
    check(f'{name}: no writer fails', all(writer.error is None for writer in writers),
          str([str(writer.error) for writer in writers]))
    added = {key: count for writer in writers for key, count in writer.added.items()}
    phone = {key: value for writer in writers for key, value in writer.phone.items()}
    return name, run, added, phone


def counts(admin, run):
    names = 'read, inserted, updated, unchanged, skipped, conflicted, invalid, failed'
    row = admin.rows(f'SELECT status, verified, {names} FROM portage.migration_runs WHERE id = %s', run)[0]
    return dict(zip(['status', 'verified', *names.split(', ')], row))


def explained(admin, name, run, added, phone, policy):
    """Keys whose row is not what the writers' account and the item's outcome say."""
    wrong = []
    outcome = dict(admin.rows(
        "SELECT legacy_id::int, status FROM portage.migration_items i WHERE run_id = %s AND NOT EXISTS (SELECT FROM "
        "portage.migration_items l WHERE l.run_id = i.run_id AND l.ordinal = i.ordinal AND l.revision > i.revision)", run))
    replaced = dict(admin.rows(
        "SELECT substr(target_key, 2)::int, before[array_position(columns, 'phone')] FROM portage.migration_undo "
        "WHERE run_id = %s AND columns IS NOT NULL", run))
    found = admin.rows(f'SELECT substr(code, 2)::int, phone, visits, touched FROM app.{name}')
    if len(found) != KEYS:
        wrong.append(f'{len(found)} rows')
    for key, row_phone, visits, touched in found:
        count = added.get(key, 0)
        before = (1 if key <= PRESENT else 0) + count * APP_VISITS
        landed = outcome[key] in ('inserted', 'updated')
        if policy == 'merge':
            ok = visits == before + ITEM_VISITS     # a sum: whatever came first, both are in it
        elif policy == 'overwrite':
            # What the item replaced is in the before-image; what was written after it stands there.
            ok = row_phone == phone.get(key) or replaced.get(key) is not None or row_phone == 'item'
            ok = ok and (count == 0 or phone[key] in (row_phone, replaced.get(key)))
        else:
            # skip and ask: a row that was there is left alone; one that the item inserted first is written over by the writer.
            ok = visits == count * APP_VISITS + (ITEM_VISITS if outcome[key] == 'inserted' else 1 if key <= PRESENT else 0)
            if policy == 'ask' and outcome[key] == 'updated':
                ok = visits == before + ITEM_VISITS
            ok = ok and (count == 0 or row_phone == phone[key])
        if touched != count:
            ok = False                              # a column that the pipeline does not map is never touched
        if not ok:
            wrong.append(f'k{key}: {row_phone} {visits} {touched}, item {outcome[key]} {landed}, written {count} times, '
                         f'last {phone.get(key)}, replaced {replaced.get(key)}')
    return wrong


print(f'seed {SEED}')
with Server(max_worker_processes=16) as server:
    admin = Session(server)
    admin.rows('CREATE EXTENSION pg_portage')
    admin.rows('CREATE SCHEMA app')
    for policy, workers in (('merge', 1), ('skip', 1), ('overwrite', 1), ('ask', 1), ('merge', 2)):
        name, run, added, phone = migrate(server, admin, policy, workers)
        found = counts(admin, run)
        races = sum(added.values())
        print(f'        {name}: {races} writes of {len(added)} keys meanwhile; {found}')
        check(f'{name}: the writers were at it', races > 200, str(races))
        check(f'{name}: the run ends as it should', found['status'] == ('awaiting_resolution' if policy == 'ask' else 'completed'),
              str(found))
        check(f'{name}: no item is rejected', found['invalid'] + found['failed'] == 0, str(found))
        check(f'{name}: all is read', found['read'] == KEYS)
        if policy != 'ask':
            check(f'{name}: verified', found['verified'] is True)
        wrong = explained(admin, name, run, added, phone, policy)
        check(f'{name}: every row is explained by who wrote it', not wrong, f'{len(wrong)}: ' + '; '.join(wrong[:5]))
        if policy == 'ask':
            before = admin.rows(f'SELECT code, visits, touched FROM app.{name} ORDER BY code')
            resolved = admin.rows('SELECT * FROM portage.resolve_all(%s, %s)', run, 'existing')[0]
            check(f'{name}: what has changed since it was looked at stays open, the rest is decided',
                  resolved[0] > 0 and resolved[0] + resolved[1] == found['conflicted'], str(resolved))
            check(f'{name}: rows are the same but for what merging adds',
                  [(c, t) for c, v, t in before] ==
                  admin.rows(f'SELECT code, touched FROM app.{name} ORDER BY code'))
finish()
