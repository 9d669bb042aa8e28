#!/usr/bin/python3
"""Several workers on one run: whoever comes first, the ledger and the target are those of one worker.

The same input, full of items that meet each other and what is there already, is imported by one worker, by several background
workers, and by sessions that join by hand while the owner of the run is held up at its first piece. PORTAGE_SEED repeats the
random part, PORTAGE_TRIALS sets its length."""

import csv
import io
import json
import os
import random
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import Server, check, finish  # noqa: E402
from sessions import Session, told, until  # noqa: E402

SEED = int(os.environ.get('PORTAGE_SEED', '1'))
TRIALS = int(os.environ.get('PORTAGE_TRIALS', '1'))
ITEMS = 1200

SETUP = """
CREATE EXTENSION pg_portage;
CREATE SCHEMA app;
CREATE TABLE app.parents (id int PRIMARY KEY);
INSERT INTO app.parents VALUES (1), (2);
"""
TARGET = """
CREATE TABLE app.{name} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code text NOT NULL UNIQUE, n int CHECK (n < 2000),
                         parent int REFERENCES app.parents, note text);
INSERT INTO app.{name} (code, n, parent, note) SELECT 'e' || g, g, 1, 'there' FROM generate_series(0, 39) g;
"""
FORMATS = {'ndjson': '"format": "ndjson"', 'json': '"format": "json", "items": "all.items"', 'csv': '"format": "csv"',
           'rows': '"format": "rows"'}
REST = ', "legacy_id": "id", "columns": {"code": "code", "n": "n", "parent": "parent", "note": "note"}, "match": ["code"]'


def item(identity, code, n, parent=1, note='x'):
    return {'id': identity, 'code': code, 'n': n, 'parent': parent, 'note': note}


def first_input():
    return [item(f'm{i}', f'c{i}', i) for i in range(200)]


def second_input(rng, count):
    """Items of every kind, from few ids and codes, so that most of them meet another one; the first meets none."""
    def one():
        i, j = rng.randrange(1, 200), rng.randrange(40)
        kind = rng.choices(['unchanged', 'changed', 'moved', 'new', 'same', 'conflict', 'other', 'bad', 'orphan', 'chain', 'fresh'],
                           [8, 8, 6, 8, 3, 4, 5, 2, 3, 6, 30])[0]
        if kind == 'unchanged':
            return item(f'm{i}', f'c{i}', i)
        if kind == 'changed':
            return item(f'm{i}', f'c{i}', 1000 + rng.randrange(3))
        if kind == 'moved':
            return item(f'm{i}', rng.choice([f'z{j}', f'e{j}', f'c{j}', f'n{j}']), i)
        if kind == 'new':
            return item(f'k{rng.randrange(300)}', f'n{rng.randrange(300)}', j, note='line\n"two", ' + str(j))
        if kind == 'same':
            return item(f'a{j}', f'e{j}', j, note='there')
        if kind == 'conflict':
            return item(f'b{j}', f'e{j}', j + 1)
        if kind == 'other':
            return item(f'x{rng.randrange(20)}', f'c{i}', 7)
        if kind == 'bad':
            return item(f'k{j}', f'n{j}', rng.choice(['seven', 5000]))
        if kind == 'orphan':
            return item(f'k{rng.randrange(60)}', f'n{rng.randrange(60)}', 3, parent=99)
        if kind == 'chain':
            return item(f'A{rng.randrange(8)}', f'K{rng.randrange(8)}', rng.randrange(4))
        return item(f'f{rng.randrange(100000)}', f'g{rng.randrange(100000)}', j)
    return [item('m0', 'c0', 1500), *(one() for _ in range(count - 1))]


def payload(form, items):
    if form == 'json':
        return json.dumps({'before': [1, {'items': 2}], 'all': {'x': '[', 'items': items}, 'after': {}})
    if form == 'csv':
        text = io.StringIO()
        writer = csv.DictWriter(text, ['id', 'code', 'n', 'parent', 'note'])
        writer.writeheader()
        writer.writerows(items)
        return text.getvalue()
    lines = [json.dumps(one) for one in items]
    lines[3:3] = ['', '   ']  # blank lines are no items
    return '\n'.join(lines)


class Place:
    """A target of its own, with what was there and what a first run has brought."""

    def __init__(self, server, name, form, rest=''):
        self.server, self.name, self.form = server, name, form
        self.admin = Session(server)
        self.admin.rows(TARGET.format(name=name))
        self.admin.rows('SELECT portage.create_pipeline(%s, %s, %s)', name, f'app.{name}',
                        '{' + FORMATS[form] + REST + rest + '}')
        self.admin.rows('CALL portage.run(%s)', self.open(first_input(), {}))
        self.admin.rows(f"UPDATE app.{name} SET n = n + 300 WHERE code ~ '^c1[0-4]$' OR code ~ '^c18.$'")
        self.admin.rows(f"DELETE FROM app.{name} WHERE code ~ '^c17.$'")
        self.before = self.state()

    def open(self, items, options, table=None):
        run = self.admin.value("SELECT portage.open_run(%s, '', %s)", self.name, json.dumps(options))
        if table:
            self.admin.rows('SELECT portage.attach_table(%s, %s)', run, table)
        elif self.form == 'rows':
            self.admin.rows("SELECT portage.attach_query(%s, 'SELECT * FROM json_to_recordset(''' || replace(%s, '''', '''''') "
                            "|| ''') AS x (id text, code text, n text, parent int, note text)', snapshot => true)",
                            run, json.dumps(items))
        else:
            half = len(items) // 2  # two parts: their ordinals go on
            self.admin.rows('SELECT portage.submit(%s, %s, %s)', run, payload(self.form, items[:half]), 'one')
            self.admin.rows('SELECT portage.submit(%s, %s, %s)', run, payload(self.form, items[half:]), 'two')
        return run

    def state(self):
        return {'rows': self.admin.rows(f'SELECT * FROM app.{self.name} ORDER BY id'),
                'mappings': self.admin.rows(
                    'SELECT m.legacy_id, m.target_key, m.origin, m.source_hash, m.row_hash, m.run_id, m.ordinal FROM '
                    'portage.legacy_mappings m JOIN portage.pipelines p ON p.id = m.pipeline_id WHERE p.name = %s ORDER BY 1',
                    self.name)}

    def outcome(self, run):
        """All that has to be the same, with keys that the target made replaced by what stands in their rows."""
        rows = {str(row[0]): row[1:] for row in self.admin.rows(f'SELECT * FROM app.{self.name}')}

        def named(text):
            return text and re.sub(r'key (\d+)', lambda key: 'key of ' + str(rows.get(key[1], ['?'])[0]),
                                   text.replace(self.name, 'target'))
        items = self.admin.rows(
            'SELECT DISTINCT ON (ordinal) ordinal, status, rule, sqlstate, column_name, message, legacy_id, target_key, line FROM '
            'portage.migration_items WHERE run_id = %s ORDER BY ordinal, revision DESC', run)
        counters = ('read, inserted, updated, unchanged, skipped, conflicted, parked, invalid, failed, open_rejects, open_parked, '
                    'status, verified')
        return {
            'items': [(*one[:5], named(one[5]), one[6], rows.get(one[7], one[7] and 'gone'), one[8]) for one in items],
            'target': sorted(map(repr, rows.values())),
            'mappings': [(m[0], rows.get(m[1], 'gone'), m[2], m[3], m[5] == run, m[6])
                         for m in self.state()['mappings']],
            'run': self.admin.rows(f'SELECT {counters} FROM portage.migration_runs WHERE id = %s', run),
            'raw': [(one[0], one[1], named(one[2])) for one in self.admin.rows(
                'SELECT ordinal, raw, issues::text FROM portage.rejects WHERE run_id = %s ORDER BY 1', run)],
        }

    def take_back(self, run):
        """What is wrong with the rollback; "" if it is not refused, and all is as before."""
        error = self.admin.error('CALL portage.rollback(%s)', run)
        return told(error) if error else '' if self.state() == self.before else 'rows or mappings are not as before'

    def unsound(self, run):
        """What the verification finds, down to the source."""
        return self.admin.rows("SELECT name, expected, actual, details FROM portage.verify(%s, 'source') WHERE NOT passed AND "
                               "severity <> 'warning'", run)


def difference(one, several):
    for name, expected in one.items():
        if expected == several[name]:
            continue
        pairs = [(a, b) for a, b in zip(expected, several[name]) if a != b]
        return f'{name}: {len(expected)} and {len(several[name])}, first {pairs[:3]}'
    return ''


def run_by_hand(place, run, helpers):
    """The owner is held up at its first item until the helpers have done all that is cut. What went wrong."""
    keeper, owner = Session(place.server), Session(place.server)
    keeper.rows('BEGIN')
    keeper.rows(f"SELECT FROM app.{place.name} WHERE code = 'c0' FOR UPDATE")
    pending = owner.begin('CALL portage.run(%s)', run)
    until(lambda: place.admin.value("SELECT count(*) > 0 FROM portage.migration_ranges WHERE run_id = %s AND owner_pid = %s",
                                    run, owner.pid))
    joined = [Session(place.server) for _ in range(helpers)]
    work = [session.begin('CALL portage.work(%s)', run) for session in joined]
    done = until(lambda: place.admin.value(
        'SELECT count(*) FILTER (WHERE done) >= 5 AND count(*) FILTER (WHERE NOT done AND end_ordinal IS NOT NULL) = 1 '
        'FROM portage.migration_ranges WHERE run_id = %s', run))
    keeper.rows('COMMIT')
    keeper.close()
    pending.wait()
    for one in work:
        one.wait()
    errors = [told(one.error) for one in [pending, *work] if one.error] + ([] if done else ['the helpers did not do their part'])
    for session in [owner, *joined]:
        session.close()
    return errors


def compare(servers, rng, form, policy, number):
    items = second_input(rng, ITEMS)
    options = {'on_conflict': policy, 'batch_size': 10}
    reference = None
    for how, workers in (('one', 1), ('background', 2), ('background', 4), ('by hand', 3)):
        server = servers['hand' if how == 'by hand' else 'background']
        place = Place(server, f'{form}_{policy}_{number}_{how.replace(" ", "_")}{workers}', form)
        run = place.open(items, {**options, 'workers': workers})
        name = f'{form}, {policy}, {number}: {workers} workers, {how}'
        if how == 'by hand':
            errors = run_by_hand(place, run, 2)
            check(f'{name}: nobody fails', not errors, errors)
        else:
            place.admin.rows('CALL portage.run(%s)', run)
        outcome = place.outcome(run)
        if workers == 1:
            reference = outcome
        else:
            shared = place.admin.value(
                'SELECT count(*) FROM portage.migration_ranges WHERE run_id = %s', run)
            check(f'{name}: cut into pieces', shared > 8, shared)
            check(f'{name}: as by one worker', outcome == reference, difference(reference, outcome))
        check(f'{name}: verified', not place.unsound(run), place.unsound(run))
        back = place.take_back(run)
        check(f'{name}: rolled back', not back, back)
        place.admin.close()


def interrupted(server, rng, form, policy, number, how):
    """Killed with the whole server, or paused, again and again, and gone on with: the result is that of one worker."""
    items = second_input(rng, ITEMS)
    options = {'on_conflict': policy, 'batch_size': 10}
    one = Place(server, f'{how}_{form}_{policy}_{number}_one', form)
    run = one.open(items, options)
    one.admin.rows('CALL portage.run(%s)', run)
    reference = one.outcome(run)
    one.admin.close()
    place = Place(server, f'{how}_{form}_{policy}_{number}', form)
    run = place.open(items, {**options, 'workers': 3})
    times = 0
    while times < 5:
        session, keeper = Session(server), Session(server)
        # The item that finds this row waits for it, whoever works on it: the run is not over before it is met.
        keeper.rows('BEGIN')
        keeper.rows(f"SELECT FROM app.{place.name} WHERE code = 'c0' FOR UPDATE")
        pending = session.begin('CALL portage.run(%s)', run)
        time.sleep(rng.uniform(0.1, 1.5))
        until(lambda: place.admin.value('SELECT is_running FROM portage.progress WHERE run_id = %s', run))
        times += 1
        if how == 'killed':
            server.kill9()
            server.restart()
            place.admin = Session(server)
        else:
            place.admin.rows('SELECT portage.pause(%s)', run)
        pending.wait()
        session.close()
        keeper.close()
    if place.admin.value('SELECT status FROM portage.migration_runs WHERE id = %s', run) != 'completed':
        place.admin.rows('CALL portage.run(%s)', run)
    outcome = place.outcome(run)
    name = f'{form}, {policy}, {number}: {how} {times} times'
    check(f'{name}: as by one worker', outcome == reference, difference(reference, outcome))
    check(f'{name}: verified', not place.unsound(run), place.unsound(run))
    back = place.take_back(run)
    check(f'{name}: rolled back', not back, back)
    place.admin.close()


def refusals(server):
    """Who cannot be helped, and targets for which one worker is all there is."""
    place = Place(server, 'alone', 'ndjson')
    admin = place.admin
    run = place.open(first_input(), {'workers': 2})
    error = admin.error('CALL portage.work(%s)', run)
    check('a run that has not begun takes no helpers', error and error.pgcode == 'PZ006', told(error))
    for what, ddl in (
            ('trigger', "CREATE TRIGGER t AFTER INSERT ON app.alone FOR EACH ROW WHEN (false) EXECUTE FUNCTION "
                        "suppress_redundant_updates_trigger()"),
            ('unique index', 'CREATE UNIQUE INDEX other ON app.alone (n) WHERE n < 0'),
            ('refer to each other', 'ALTER TABLE app.alone ADD FOREIGN KEY (parent) REFERENCES app.alone NOT VALID'),
            ('exclusion', 'ALTER TABLE app.alone ADD EXCLUDE (note WITH =) WHERE (n < 0)')):
        admin.rows('BEGIN')
        admin.rows(ddl)
        reason = admin.value("SELECT portage.plan(%s) -> 'workers' ->> 'reason'", run)
        admin.rows('ROLLBACK')
        check(f'one worker: {what}', what in (reason or ''), reason)
    check('several workers otherwise', admin.value("SELECT portage.plan(%s) -> 'workers' ->> 'number'", run) == '2')
    admin.rows('CREATE TABLE app.source AS SELECT g AS id, g::text AS code, g % 100 AS n, 1 AS parent FROM generate_series(1, 3000) g')
    admin.rows('ALTER TABLE app.source ADD PRIMARY KEY (id)')
    rows = Place(server, 'live', 'rows')
    run = rows.open([], {'workers': 2}, 'app.source')
    admin.rows('CALL portage.run(%s)', run)
    found = admin.rows('SELECT workers, inserted FROM portage.migration_runs WHERE id = %s', run)
    check('a table that is read live has one worker', found == [(1, 3000)], found)
    error = admin.error('CALL portage.work(%s)', run)
    check('and takes no helpers', error and error.pgcode == 'PZ006', told(error))


def main():
    print(f'PORTAGE_SEED={SEED} PORTAGE_TRIALS={TRIALS}')
    rng = random.Random(SEED)
    with Server(max_worker_processes=12) as background, Server(max_worker_processes=0) as hand:
        for server in (background, hand):
            server.psql(SETUP)
        servers = {'background': background, 'hand': hand}
        for number in range(TRIALS):
            for position, form in enumerate(FORMATS):
                both = ['skip', 'overwrite']
                for policy in both if TRIALS > 1 else [both[position % 2]]:
                    compare(servers, rng, form, policy, number)
            form, policy = rng.choice(list(FORMATS)), rng.choice(('skip', 'overwrite'))
            interrupted(background, rng, form, policy, number, 'paused')
            interrupted(background, rng, form, policy, number, 'killed')
        refusals(background)
    finish()


main()
