#!/usr/bin/python3
"""Where a batch ends must not show in the result. Small random inputs full of duplicates of legacy ids
and match keys, of items that fail early and late, over rows that are there already, are imported item by item and in
batches of several sizes: the items' outcomes and the target's rows must be the same, also when the input comes again.

PORTAGE_SEED repeats a run, PORTAGE_TRIALS sets their number."""

import json
import os
import random
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import Server, check, finish  # noqa: E402

SEED = int(os.environ.get('PORTAGE_SEED', '1'))
TRIALS = int(os.environ.get('PORTAGE_TRIALS', '12'))
SIZES = (1, 2, 3, 7, 1000)  # the first is the truth: one item after the other

SETUP = """
CREATE EXTENSION pg_portage;
CREATE TABLE parents (id integer PRIMARY KEY);
INSERT INTO parents VALUES (1), (2);
CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, owner text NOT NULL, word text NOT NULL,
                value integer NOT NULL, parent integer REFERENCES parents, ticket integer,
                UNIQUE (owner, word), UNIQUE (owner, ticket) DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'refused'; END$$;
CREATE TRIGGER refuse AFTER INSERT OR UPDATE ON t FOR EACH ROW WHEN (NEW.value = 13) EXECUTE FUNCTION refuse();
SELECT portage.create_pipeline('p', 't', '{"format": "ndjson", "legacy_id": "id", "match": ["owner", "word"],
  "columns": {"owner": "$scope", "word": "word", "value": "value", "parent": "parent", "ticket": "ticket"},
  "rules": {"not_eight": "value <> 8"}}');
"""


def random_items(chance):
    """Few ids and words, so that most items repeat something."""
    items = []
    for _ in range(chance.choice((6, 12, 30))):
        word = chance.randrange(8)
        items.append({'id': f'i{word if chance.random() < 0.7 else chance.randrange(8)}', 'word': f'w{word}',
                      'value': chance.choice((1, 1, 2, 3, 8, 13)), 'parent': chance.choice((1, 1, 2, 2, 9)),
                      'ticket': chance.choice((None, None, None, 1, 2))})
    return items


def rows(cursor, sql, *arguments):
    cursor.execute(sql, arguments)
    return cursor.fetchall() if cursor.description else None


def result(cursor, run, scope):
    """Items and target rows without surrogate keys."""
    items = [(*row[:-1], re.sub(r'key \d+ ', 'key N ', row[-1] or '')) for row in rows(
        cursor, 'SELECT i.ordinal, i.status, i.legacy_id, t.word, i.rule, i.sqlstate, i.column_name, i.message '
        'FROM portage.migration_items i LEFT JOIN t ON t.id::text = i.target_key WHERE i.run_id = %s ORDER BY 1', run)]
    target = rows(cursor, 'SELECT word, value, parent, ticket FROM t WHERE owner = %s ORDER BY word', scope)
    mappings = rows(cursor, 'SELECT m.legacy_id, t.word, m.origin, m.source_hash, m.ordinal FROM portage.legacy_mappings m '
                    'LEFT JOIN t ON t.id::text = m.target_key WHERE m.scope = %s ORDER BY 1', scope)
    return {'items': items, 'target': target, 'mappings': [m[:3] + m[4:] for m in mappings]}


def difference(truth, found):
    for what, expected in truth.items():
        for a, b in zip(expected, found[what]):
            if a != b:
                return f'{what}: {b} instead of {a}'
        if len(expected) != len(found[what]):
            return f'{what}: {len(found[what])} instead of {len(expected)}'
    return ''


def main():
    print(f'seed {SEED}')
    chance = random.Random(SEED)
    with Server() as server, server.connect() as connection, connection.cursor() as cursor:
        server.psql(SETUP)
        for trial in range(TRIALS):
            first, second = random_items(chance), random_items(chance)
            existing = [(f'w{n}', chance.choice((1, 2)), chance.choice((1, 2))) for n in chance.sample(range(8), 3)]
            steps = {'new': first, 'again': first, 'changed': second}
            policy = chance.choice(('skip', 'overwrite'))
            truth = {}
            for size in SIZES:
                scope = f'{trial} {size}'
                for word, value, parent in existing:
                    rows(cursor, 'INSERT INTO t (owner, word, value, parent) VALUES (%s, %s, %s, %s)', scope, word, value,
                         parent)
                for step, items in steps.items():
                    options = json.dumps({'batch_size': size, 'on_conflict': policy})
                    (run,), = rows(cursor, 'CALL portage.import(%s, payload => %s, scope => %s, options => %s)', 'p',
                                   '\n'.join(map(json.dumps, items)), scope, options)
                    found = result(cursor, run, scope)
                    name = f'trial {trial} ({policy}), {step}, batches of {size}'
                    if size == SIZES[0]:
                        truth[step] = found
                    else:
                        check(name + ': as one by one', found == truth[step], difference(truth[step], found))
    finish()


if __name__ == '__main__':
    main()
