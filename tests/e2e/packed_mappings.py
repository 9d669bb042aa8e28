#!/usr/bin/python3
"""Packed mappings must behave as rows do. Random steps (imports in all sorts of orders, by one worker and by two, with
changes, with items that go and come; snapshots of few; rollbacks; verifications) are taken on twin pipelines; of the one
all mappings are made rows after each step. Targets, mappings, outcomes and answers must be the same at each time, and packs
must be as they are to be: in order, apart from each other, without a mapping that has a row, too. Then: hostile ids, damaged
bytes, two sessions at once, an old snapshot.

PORTAGE_SEED repeats a series, PORTAGE_STEPS sets its length (default 15 for each definition)."""

import json
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import Server, check, finish  # noqa: E402
from sessions import Session, ndjson, told  # noqa: E402

SEED = int(os.environ.get('PORTAGE_SEED') or random.SystemRandom().randrange(1 << 32))
STEPS = int(os.environ.get('PORTAGE_STEPS') or 15)
TWINS = ('packed', 'rows')

DEFINITIONS = {
    'skip': {},
    'overwrite': {'on_conflict': 'overwrite'},
    'merge': {'on_conflict': 'merge', 'merge': {'v': 'greatest'}},
    'last wins': {'duplicates': 'last', 'on_conflict': 'overwrite'},
    'marks': {'missing': 'mark'},
    'deletes': {'missing': {'do': 'delete', 'at_most': '100%'}},
    'scopes share': {'scoped': False},
}
IDS = {
    'numbers': str,
    'padded': lambda n: f'{n:07}',
    'texts': lambda n: f'item {n}' + ' ö' * (n % 7),
    'long': lambda n: f'{n * 7919 % 1000:03}' + 'x' * (n % 5 * 400),  # beyond 1,024 bytes: hashed
}

INVARIANTS = {
    'packs of a space are apart': """
SELECT * FROM (SELECT p.*, lag(last_key) OVER (PARTITION BY pipeline_id, scope ORDER BY first_key) AS before
                 FROM portage.mapping_packs p) p WHERE first_key > last_key OR before >= first_key""",
    'packs hold as many as they say': """
SELECT 1 WHERE (SELECT count(*) FROM portage.packed_mappings) <> (SELECT coalesce(sum(entries), 0) FROM portage.mapping_packs)""",
    'none is empty': 'SELECT 1 FROM portage.mapping_packs WHERE entries < 1',
    'no legacy id is packed and has a row': """
SELECT legacy_id FROM portage.all_mappings GROUP BY pipeline_id, scope, legacy_id HAVING count(*) > 1""",
}


def check_packs(admin, name):
    for what, query in INVARIANTS.items():
        found = admin.rows(query)
        check(f'{name}: {what}', not found, found[:3])
    packs = {}
    for pipeline, scope, first, last, run in admin.rows('SELECT pipeline_id, scope, first_key, last_key, run_id FROM portage.mapping_packs'):
        packs.setdefault((pipeline, scope), []).append((bytes(first), bytes(last), run))
    astray = []
    for pipeline, scope, legacy_id, run in admin.rows('SELECT pipeline_id, scope, legacy_id, run_id FROM portage.packed_mappings'):
        key = len(legacy_id.encode()).to_bytes(2, 'big') + legacy_id.encode()
        if [pack_run for first, last, pack_run in packs[pipeline, scope] if first <= key <= last] != [run]:
            astray.append((pipeline, scope, legacy_id))
    check(f'{name}: every mapping is in the one pack that reaches over it', not astray, astray[:3])
    sample = admin.rows('SELECT p.name, m.scope, m.legacy_id, m.target_key FROM portage.legacy_mappings m JOIN portage.pipelines p ON '
                        'p.id = m.pipeline_id ORDER BY random() LIMIT 200')
    lost = [row for row in sample if admin.value('SELECT portage.lookup(%s, %s, %s)', row[0], row[2], row[1]) != row[3]]
    check(f'{name}: lookup finds each', not lost, lost[:3])


class Twins:
    """Two pipelines of one definition, each with a table of its own."""

    def __init__(self, admin, name, more, rng):
        self.admin, self.rng, self.name = admin, rng, name.replace(' ', '_')
        self.names = {twin: f'{self.name}_{twin}' for twin in TWINS}
        self.runs = []  # [(run of the one, run of the other)]
        self.make_id = IDS[rng.choice(sorted(IDS))]
        self.values = {}
        for twin, table in self.names.items():
            admin.rows(f'CREATE TABLE app.{table} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, who text NOT NULL, code text NOT NULL, '
                       'v integer NOT NULL CHECK (v >= 0), UNIQUE (who, code))')
            columns = {'who': '$scope', 'code': 'code', 'v': 'v'}
            if 'scoped' in more:
                columns['who'] = {'value': 'everybody'}
            admin.rows('SELECT portage.create_pipeline(%s, %s, %s)', table, f'app.{table}', json.dumps(
                {'format': 'ndjson', 'legacy_id': 'id', 'columns': columns, 'match': ['who', 'code'], **more}))

    def both(self, act):
        """What the step answered on both sides, run numbers apart."""
        answers = []
        for twin, table in self.names.items():
            try:
                answers.append(act(table))
            except Exception as error:  # noqa: BLE001
                answers.append(getattr(error, 'pgcode', None) or str(error))
            if twin == 'rows':
                self.admin.rows('WITH m AS (SELECT m.* FROM portage.packed_mappings m JOIN portage.pipelines p ON p.id = m.pipeline_id '
                                'WHERE p.name = %s) INSERT INTO portage.mapping_rows SELECT * FROM m', table)
                self.admin.rows('DELETE FROM portage.mapping_packs WHERE pipeline_id = (SELECT id FROM portage.pipelines WHERE name = %s)', table)
        return answers

    def new_runs(self):
        found = [self.admin.rows('SELECT id FROM portage.migration_runs WHERE pipeline = %s ORDER BY id', table) for table in self.names.values()]
        self.runs = [(a, b) for (a,), (b,) in zip(*found)]

    def items(self):
        """A stretch or a sample of ids, in one order or another; some changed, some bad, some twice."""
        rng = self.rng
        top = max(self.values, default=0)
        begin = rng.choice((1, top + 1, rng.randint(1, top + 1)))
        numbers = list(range(begin, begin + rng.choice((3, 30, 300, 1500) if self.values else (30, 300, 1500))))
        kind = rng.random()
        if kind < 0.3:
            rng.shuffle(numbers)
        elif kind < 0.5:
            numbers = sorted(rng.sample(numbers, len(numbers) // 3))
        items = []
        for n in numbers:
            if rng.random() < 0.05 or n not in self.values:
                self.values[n] = rng.randint(0, 100)
            items.append({'id': self.make_id(n), 'code': f'c{n}', 'v': self.values[n]})
            if rng.random() < 0.01:
                items.append(dict(items[-1], v=-1))
        if rng.random() < 0.2:
            items.insert(rng.randrange(len(items)), rng.choice(items))
        return items

    def step(self):
        rng, admin = self.rng, self.admin
        # The first one is what packs are made by; of the others chance might find none.
        kind = rng.choice(('import', 'import', 'import', 'migrate', 'rollback', 'verify', 'stranger', 'workers')) if self.values else 'import'
        if kind in ('import', 'workers'):
            text, scope = ndjson(self.items()), rng.choice(('', 'a', 'b'))
            options = json.dumps({'batch_size': rng.choice((50, 200, 1000)), 'workers': 2 if kind == 'workers' else 1})
            answers = self.both(lambda table: admin.rows('CALL portage.import(%s, payload => %s, scope => %s, options => %s)', table, text,
                                                         scope, options) and None)
        elif kind == 'migrate':
            text, scope = ndjson(self.items()[:rng.choice((1, 4, 100))]), rng.choice(('', 'a', 'b'))
            answers = self.both(lambda table: admin.rows('SELECT status, inserted, updated, unchanged, skipped, invalid, failed '
                                                         'FROM portage.migrate(%s, %s, %s)', table, text, scope))
        elif kind == 'rollback' and self.runs:
            pair, drift = rng.choice(self.runs[-6:]), rng.choice(('keep', 'force'))
            of = {table: pair[i] for i, table in enumerate(self.names.values())}
            answers = self.both(lambda table: admin.rows('CALL portage.rollback(%s, %s)', of[table], drift) and None)
        elif kind == 'verify' and self.runs:
            pair = rng.choice(self.runs)
            of = {table: pair[i] for i, table in enumerate(self.names.values())}
            answers = self.both(lambda table: admin.rows("SELECT name, passed FROM portage.verify(%s, 'source') ORDER BY 1", of[table]))
        else:
            numbers = [f'c{rng.choice(sorted(self.values))}' for _ in range(3)] if self.values else []
            answers = self.both(lambda table: admin.rows(f'UPDATE app.{table} SET v = v + 1000 WHERE code = ANY (%s)', numbers) and None)
        self.new_runs()
        return kind, answers

    def state(self, side):
        table, number = list(self.names.values())[side], {pair[side]: i for i, pair in enumerate(self.runs)}
        admin = self.admin
        rows = admin.rows(f'SELECT who, code, v FROM app.{table} ORDER BY 1, 2')
        mappings = admin.rows("SELECT m.scope, m.legacy_id, t.who || '/' || t.code, m.origin, m.source_hash, m.run_id, m.ordinal, "
                              'm.image::text, m.missing_since IS NULL FROM portage.legacy_mappings m JOIN portage.pipelines p ON '
                              f'p.id = m.pipeline_id LEFT JOIN app.{table} t ON t.id::text = m.target_key WHERE p.name = %s ORDER BY 1, 2', table)
        mappings = [(*m[:5], number.get(m[5]), *m[6:]) for m in mappings]
        runs = admin.rows('SELECT status, read, inserted, updated, unchanged, skipped, invalid, failed, verified FROM portage.migration_runs '
                          'WHERE pipeline = %s ORDER BY id', table)
        last = [admin.rows('SELECT ordinal, revision, status, legacy_id, error_class FROM portage.migration_items WHERE run_id = %s '
                           'ORDER BY 1, 2', pair[side]) for pair in self.runs[-2:]]
        mapped = admin.rows('SELECT mapped, open_rejects FROM portage.statistics WHERE pipeline = %s', table)
        return {'target': rows, 'mappings': mappings, 'runs': runs, 'items': last, 'statistics': mapped}


def differences(one, other):
    return [f'{what}: {next(((a, b) for a, b in zip(one[what], other[what]) if a != b), (len(one[what]), len(other[what])))}'
            for what in one if one[what] != other[what]]


def twins(admin, name, more, rng):
    pair = Twins(admin, name, more, rng)
    wrong, kinds, packed = [], {}, 0
    for number in range(STEPS):
        kind, answers = pair.step()
        kinds[kind] = kinds.get(kind, 0) + 1
        if answers[0] != answers[1]:
            wrong.append((number, kind, 'answers', answers))
        wrong += [(number, kind, difference) for difference in differences(pair.state(0), pair.state(1))]
        packed += admin.value('SELECT count(*) FROM portage.mapping_packs m JOIN portage.pipelines p ON p.id = m.pipeline_id WHERE p.name = %s',
                              pair.names['packed']) > 0
        if wrong:
            break
    check(f'{name}: packed mappings behave as rows', not wrong, wrong[:3])
    check(f'{name}: ... and there were some', packed > 0 or 'merge' in more.values(), (packed, kinds))
    check_packs(admin, name)


def hostile(admin):
    """Ids that are hard on an order of bytes and on a page."""
    admin.rows("CREATE TABLE app.hostile (id text PRIMARY KEY, v integer)")
    admin.rows("SELECT portage.create_pipeline('hostile', 'app.hostile', %s)",
               json.dumps({'format': 'json', 'legacy_id': 'id', 'columns': {'id': 'id', 'v': 'v'}}))
    ids = ['', ' ', '0', '00', '-1', 'a', 'A', 'ä', '\u0001', '\uffff', '\U0001f600', '"', '\\', 'x' * 1024, 'x' * 1023, 'é' * 512, 'x' * 1025, 'y' * 5000] + \
          [chr(c) * k for c in range(33, 127) for k in (1, 2, 700)]
    ids = list(dict.fromkeys(ids))
    for scope in ('', 'ö' * 40, 's' * 1500):
        items = [{'id': i, 'v': n} for n, i in enumerate(ids)]
        error = admin.error("SELECT portage.migrate('hostile', %s, %s)", json.dumps(items), scope)
        admin.rows('TRUNCATE app.hostile')
        found = {} if error else dict(admin.rows("SELECT legacy_id, ordinal FROM portage.legacy_mappings m JOIN portage.pipelines p ON p.id = m.pipeline_id "
                                                 "WHERE p.name = 'hostile' AND m.scope = %s", scope))
        lost = [i for n, i in enumerate(ids, 1) if len(i.encode()) <= 1024 and i and found.get(i) != n]
        check(f'hostile ids in a scope of {len(scope.encode())} bytes', not lost and not error, (told(error), lost[:3]))
    check('... some of them packed', admin.value("SELECT count(*) FROM portage.mapping_packs m JOIN portage.pipelines p ON p.id = m.pipeline_id "
                                                 "WHERE p.name = 'hostile'") > 3)
    check_packs(admin, 'hostile')


def damaged(admin, rng):
    """Whatever the bytes: an error or an answer."""
    where = "ctid = (SELECT min(ctid) FROM portage.mapping_packs WHERE entries > 100)"
    pipeline, scope, length = admin.rows(f'SELECT pipeline_id, scope, length(content) FROM portage.mapping_packs WHERE {where}')[0]
    name, first = admin.rows('SELECT p.name, m.legacy_id FROM portage.packed_mappings m JOIN portage.pipelines p ON p.id = m.pipeline_id '
                             'WHERE m.pipeline_id = %s AND m.scope = %s LIMIT 1', pipeline, scope)[0]
    codes, others = {}, []
    snapshot = ndjson([{'id': first, 'code': 'c-damaged', 'v': 1}] + [{'id': f'{n}', 'code': f'c{n}', 'v': 1} for n in range(1, 400)])
    for _ in range(300):
        at = rng.randrange(length)
        change = rng.choice((f'content = set_byte(content, {at}, {rng.randrange(256)})', f'content = substr(content, 1, {at})',
                             f'entries = entries + {rng.choice((-1, 1, 5000, -5000))}', "content = content || '\\xff'",
                             "first_key = ''", "first_key = '\\x0001ff'", "last_key = '\\x00'", f"last_key = '\\x{'ff' * 40}'"))
        admin.rows("BEGIN; SET LOCAL statement_timeout = '60s'")
        try:
            admin.rows(f'UPDATE portage.mapping_packs SET {change} WHERE {where}')
            admin.rows('SAVEPOINT s')
            for statement, arguments in (('SELECT count(*), max(length(target_key)), max(length(legacy_id)) FROM portage.legacy_mappings', ()),
                                         ('SELECT status FROM portage.migrate(%s, %s, %s)', (name, snapshot, scope))):
                error = admin.error(statement, *arguments)
                code = getattr(error, 'pgcode', 'none')
                codes[code] = codes.get(code, 0) + 1
                if code not in ('none', 'XX001', '22021', '23505', '40001'):  # read; damaged; bytes that are no text; an id that is there
                    others.append((change, statement[:30], told(error)))
                admin.rows('ROLLBACK TO s')
        finally:
            admin.rows('ROLLBACK')
    check('damaged packs are read or refused', not others and codes.get('XX001', 0) > 100, (codes, others[:3]))


def at_once(server, admin):
    """A session that looks at an old state, and one that changes packs meanwhile."""
    admin.rows('CREATE TABLE app.both (id integer PRIMARY KEY, v integer)')
    admin.rows("SELECT portage.create_pipeline('both', 'app.both', %s)",
               json.dumps({'format': 'ndjson', 'legacy_id': 'id', 'columns': {'id': 'id', 'v': 'v'}}))
    items = [{'id': n, 'v': 0} for n in range(1, 3001)]
    admin.rows("CALL portage.import('both', payload => %s)", ndjson(items))
    sight = 'SELECT count(*), sum(ordinal), count(DISTINCT run_id), count(DISTINCT legacy_id) FROM portage.legacy_mappings m JOIN ' \
            "portage.pipelines p ON p.id = m.pipeline_id WHERE p.name = 'both'"
    with Session(server) as old:
        old.rows('BEGIN ISOLATION LEVEL REPEATABLE READ')
        before = old.rows(sight)
        changed = [dict(item, v=1) if item['id'] % 3 == 0 else item for item in items]
        admin.rows("CALL portage.import('both', payload => %s, options => '{\"workers\": 2, \"batch_size\": 100}')", ndjson(changed))
        check('an old snapshot sees the mappings as they were', old.rows(sight) == before)
        check('... and finds each of them', old.value("SELECT count(portage.lookup('both', n::text)) FROM generate_series(1, 3000) n") == 3000)
        error = old.error("SELECT portage.migrate('both', %s)", ndjson([{'id': 3, 'v': 7}]))
        check('... and changes none of them', getattr(error, 'pgcode', None) == '40001', told(error))
        old.rows('ROLLBACK')
    check('two workers have taken out what changed', admin.rows(sight) == [(3000, 3000 * 3001 // 2, 2, 3000)], admin.rows(sight))
    check('... and nothing else', admin.value("SELECT count(*) FROM portage.mapping_rows r JOIN portage.pipelines p ON p.id = r.pipeline_id "
                                              "WHERE p.name = 'both'") == 1000)


def main():
    print(f'seed {SEED} (PORTAGE_SEED={SEED} repeats it)', flush=True)
    with Server(max_worker_processes=16) as server, Session(server) as admin:
        admin.rows('CREATE EXTENSION pg_portage; CREATE SCHEMA app')
        for number, (name, more) in enumerate(DEFINITIONS.items()):
            twins(admin, name, more, random.Random(SEED + number))
        hostile(admin)
        damaged(admin, random.Random(SEED))
        at_once(server, admin)
    finish()


if __name__ == '__main__':
    main()
