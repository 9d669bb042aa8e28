#!/usr/bin/python3
"""Keys that are equal, though spelled differently: citext, numeric, interval, floats, jsonb, ranges, text under a collation that is not
deterministic. A model with the operator's own equality says what must become of each item, under every policy of duplicates, whatever
the batches, with a unique index on the key or none. Then keys of which several rows stand there: no one of them is meant."""

import json
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import Server, check, finish  # noqa: E402
from sessions import Session, ndjson  # noqa: E402

SEED = int(os.environ.get('PORTAGE_SEED') or random.randrange(1 << 32))

# By type: spellings of equal keys.
KEYS = {
    'citext': [['Anna', 'ANNA', 'anna'], ['Bert', 'bERT'], ['Cleo']],
    'numeric': [['1.0', '1.00', '1'], ['2', '2.000'], ['0', '-0.0', '0.00'], ['NaN']],
    'interval': [['1 day', '24:00', '86400 seconds'], ['1 mon', '30 days'], ['2 days']],
    'float8': [['0', '-0'], ['1.5', '15e-1'], ['NaN']],
    'jsonb': [['{"a": 1.0}', '{"a": 1.00}', '{"a":1}'], ['[1, 2]', '[1,2.0]'], ['true']],
    'text COLLATE nocase': [['Anna', 'ANNA', 'anna'], ['Bert', 'bERT'], ['Cleo']],
    'bpchar': [['a', 'a  '], ['b', 'b '], ['c']],
    'numeric[]': [['{1.0,2}', '{1.00,2.0}'], ['{3}', '{3.0}']],
    'numrange': [['[1.0,2.0)', '[1,2)'], ['[3,4]', '[3.0,4.00]']],
    'money': [['1', '1.00'], ['2', '$2.00']],
    'text': [['Anna'], ['ANNA'], ['anna']],
}


def model(items, duplicates):
    """The rows that must be there: by class of key, v of the item that lands; and the outcomes."""
    rows, outcomes = {}, []
    for _, group, v in items:
        if group not in rows:
            rows[group] = v
            outcomes.append('inserted')
        elif duplicates == 'last':
            rows[group] = v
            outcomes.append('updated')
        else:
            outcomes.append({'reject': 'invalid', 'first': 'skipped'}[duplicates])
    return rows, outcomes


def duplicates(server, source):
    with Session(server) as session:
        for kind, classes in KEYS.items():
            type_ = kind
            for unique in (True, False):
                session.rows('DROP TABLE IF EXISTS t CASCADE')
                session.rows(f'CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, k {type_} NOT NULL, v int)' + ('; ALTER TABLE t ADD UNIQUE (k)' if unique else ''))
                for policy in ('reject', 'first', 'last'):
                    name = f'{kind} {unique} {policy}'
                    session.rows('SELECT portage.create_pipeline(%s, %s, %s)', name, 't', json.dumps({
                        'format': 'ndjson', 'legacy_id': 'n', 'columns': {'k': 'k', 'v': 'n'}, 'match': ['k'], 'duplicates': policy}))
                    items = [(spelling, group, 0) for group, all_ in enumerate(classes) for spelling in all_ * 3]
                    source.shuffle(items)
                    items = [(spelling, group, n + 1) for n, (spelling, group, _) in enumerate(items)]
                    rows, outcomes = model(items, policy)
                    spelled = {group: spelling for spelling, group, v in items if rows[group] == v}
                    payload = '\n'.join('{"n": %d, "k": %s}' % (v, spelling if kind == 'jsonb' else json.dumps(spelling)) for spelling, _, v in items)
                    for size in (1, 3, 100):
                        session.rows('TRUNCATE t')
                        run = session.value('SELECT run_id FROM portage.migrate(%s, %s, %s, %s)', name, payload, f'{size}', json.dumps({'batch_size': size}))
                        status = session.value('SELECT status FROM portage.status(%s)', run)
                        found = [s for s, in session.rows('SELECT DISTINCT ON (ordinal) status FROM portage.migration_items WHERE run_id = %s ORDER BY ordinal, revision DESC', run)]
                        there = sorted(v for v, in session.rows('SELECT v FROM t'))
                        check(f'{kind}, unique {unique}, duplicates {policy}, batches of {size}', status == 'completed' and there == sorted(rows.values()) and found == outcomes,
                              f'{there} instead of {sorted(rows.values())}, {found} instead of {outcomes}')
                        alike = session.rows(f'SELECT count(*) FROM t JOIN unnest(%s::text[], %s::int[]) AS w (k, v) USING (v) WHERE t.k::text = w.k::{type_}::text',
                                             [spelled[g] for g in rows], [rows[g] for g in rows])[0][0]
                        check(f'{kind}, unique {unique}, duplicates {policy}, batches of {size}: spelled as the item has it', alike == len(rows), f'{alike} of {len(rows)}')


def big(server):
    """The reported one: 60,000 items, whose result must not hang on the batches."""
    with Session(server) as session:
        session.rows('DROP TABLE IF EXISTS people; CREATE TABLE people (name citext PRIMARY KEY, v int)')
        session.rows("""SELECT portage.create_pipeline('people', 'people', '{"format": "csv", "legacy_id": "n", "match": ["name"], "duplicates": "last",
                          "columns": {"name": "name", "v": "n"}}')""")
        names = random.Random(7)
        items = [(n, ''.join(c.upper() if names.random() < 0.3 else c for c in f'name{names.randrange(31075)}')) for n in range(60000)]
        payload = 'n,name\n' + ''.join(f'{n},{name}\n' for n, name in items)
        last = {}
        for n, name in items:
            last[name.lower()] = n
        for size in (500, 20000):
            session.rows('TRUNCATE people')
            session.rows("CALL portage.import('people', payload => %s, scope => %s, options => %s)", payload, f'{size}', json.dumps({'batch_size': size}))
            wrong = sum(1 for name, v in session.rows('SELECT lower(name::text), v FROM people') if last.get(name) != v)
            check(f'60,000 items in batches of {size}: the last of each name', wrong == 0 and session.value('SELECT count(*) FROM people') == len(last), f'{wrong} of {len(last)}')


def ambiguous(server):
    """Several rows that an item finds: none is overwritten, and the reject names them."""
    with Session(server) as session:
        session.rows("""CREATE TABLE accounts (id int PRIMARY KEY, email text, name text, deleted_at date);
            CREATE UNIQUE INDEX accounts_live ON accounts (email) WHERE deleted_at IS NULL;
            INSERT INTO accounts VALUES (1, 'a@x', 'gone', '2020-01-01'), (2, 'a@x', 'gone too', '2021-01-01'), (3, 'a@x', 'live', NULL), (4, 'b@x', 'b', NULL)""")
        before = session.rows('SELECT * FROM accounts WHERE id <= 3 ORDER BY id')
        session.rows("""SELECT portage.create_pipeline('accounts', 'accounts', '{"format": "ndjson", "legacy_id": "n", "match": ["email"], "on_conflict": "overwrite",
                          "columns": {"id": "id", "email": "email", "name": "name"}}')""")
        for policy in ('overwrite', 'skip', 'merge', 'ask', 'newest'):
            options = {'on_conflict': policy} if policy in ('overwrite', 'skip', 'merge', 'ask') else {}
            run = session.value("SELECT run_id FROM portage.migrate('accounts', %s, %s, %s)", ndjson(
                [{'n': 1, 'id': 9, 'email': 'a@x', 'name': 'new'}, {'n': 2, 'id': 4, 'email': 'b@x', 'name': 'b'}]), policy, json.dumps(options))
            rejects = session.rows('SELECT ordinal, rule, sqlstate, column_name, message FROM portage.rejects WHERE run_id = %s', run)
            check(f'{policy}: an item that finds several rows is a reject that names them', rejects ==
                  [(1, 'match', '21000', 'email', 'more than one row matches: keys 1, 2, 3')], str(rejects))
            check(f'{policy}: no row is touched', session.rows('SELECT * FROM accounts WHERE id <= 3 ORDER BY id') == before)
        run = session.value("SELECT portage.open_run('accounts', 'plan')")
        session.rows('SELECT portage.submit(%s, %s)', run, '{"n": 1}')
        plan = session.value('SELECT portage.plan(%s)', run)
        check('plan warns', any(r['code'] == 'match_index' and 'more than one row is a reject' in r['text'] for r in plan['recommendations']), str(plan['recommendations']))


print(f'seed {SEED}')
with Server() as server:
    server.psql("CREATE EXTENSION pg_portage; CREATE EXTENSION citext; "
                "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    duplicates(server, random.Random(SEED))
    big(server)
    ambiguous(server)
finish()
