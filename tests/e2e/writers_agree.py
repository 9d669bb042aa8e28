#!/usr/bin/python3
"""The fast writer gives what the SQL writer gives. Each case runs in two databases, in one with portage.writer = sql:
the same rows, mappings with both hashes, items, rejects, conflicts, before-images and traces of triggers, and the same
again after everything is taken back. Then the tables that are not for the fast writer: they say why."""

import json
import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import Server, check, finish  # noqa: E402
from sessions import Session, ndjson, told  # noqa: E402

SEED = int(os.environ.get('PORTAGE_SEED') or random.randrange(1 << 32))
ORDINARY = 'the target is an ordinary table'


class Case:
    """`runs`: lists of items, or (items, options, scope); `between`: SQL before each run but the first."""

    def __init__(self, name, ddl, definition, runs, traces=(), role=None, reason=ORDINARY, between='',
                 lands=True):
        self.name, self.ddl, self.runs = name, ddl, runs
        self.definition = {'format': 'ndjson', 'legacy_id': 'id', **definition}
        self.traces, self.role, self.reason, self.between, self.lands = traces, role, reason, between, lands

    def outcome(self, session, writer):
        """All that can be seen of the case in one database: a list of (what, value)."""
        schema = 'case_' + ''.join(c if c.isalnum() else '_' for c in self.name)
        session.rows(f'CREATE SCHEMA {schema}; SET search_path = {schema}, public; {self.ddl}')
        seen, ids = [], []
        if self.role:
            session.rows(f'GRANT USAGE ON SCHEMA {schema} TO {self.role}; SET ROLE {self.role}')
        session.rows(f'SET portage.writer = {writer}')
        error = session.error('SELECT portage.create_pipeline(%s, %s::regclass, %s::json)', self.name, 't',
                              json.dumps(self.definition))
        seen.append(('definition', told(error)))
        for number, run in enumerate([] if error else self.runs):
            items, options, scope = run if isinstance(run, tuple) else (run, {}, '')
            if number and self.between:
                session.rows(f'RESET ROLE; {self.between}; ' + (f'SET ROLE {self.role}' if self.role else ''))
            run_id = session.value('SELECT portage.open_run(%s, %s, options => %s::jsonb)', self.name, scope,
                                   json.dumps({'batch_size': 40, **options}))
            session.rows('SELECT portage.submit(%s, %s)', run_id, ndjson(items))
            planned = session.value('SELECT portage.plan(%s)', run_id)['writer']
            error = session.error('CALL portage.run(%s)', run_id)
            seen.append((f'run {number}', told(error)))
            ids.append(run_id)
            if error is None:
                used = session.value("SELECT portage.report(%s) -> 'writer'", run_id)
                expected = ('fast', self.reason) if writer == 'auto' and self.reason == ORDINARY else \
                    ('sql', self.reason if writer == 'auto' else 'portage.writer is sql')
                check(f'{self.name}: written by {expected[0]}', (used['name'], used['reason']) == expected
                      and planned == used, f'planned {planned}, used {used}')
        session.rows('RESET ROLE')
        if self.lands:
            check(f'{self.name}: something lands', session.value(
                'SELECT sum(inserted) > 0 FROM portage.migration_runs WHERE id = ANY (%s)', ids) is True, str(seen))
        seen += self.look(session, 'after the runs', ids)
        for run_id in reversed(ids):
            error = session.error("CALL portage.rollback(%s, '{\"drifted\": \"keep\"}')", run_id)
            seen.append(('rollback', told(error)))
        seen += self.look(session, 'after the rollback', ids)
        return seen

    def look(self, session, when, ids):
        """Runs are numbered from 0: other cases may have had more of them in one database than in the other."""
        seen = []

        def see(what, sql, *arguments):
            seen.append((f'{when}: {what}', session.rows(sql, *arguments)))

        number = 'array_position(%s::bigint[], run_id)'
        columns = [name for name, in session.rows(
            'SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped '
            'ORDER BY attnum', 't')]
        see('rows', f"SELECT ROW({', '.join(columns)})::text FROM t ORDER BY 1")
        for trace in self.traces:
            see(trace, f'SELECT x::text FROM {trace} x ORDER BY 1')
        see('counts', 'SELECT status, read, inserted, updated, unchanged, skipped, conflicted, parked, invalid, failed, '
            'verified FROM portage.migration_runs WHERE id = ANY (%s) ORDER BY id', ids)
        see('items', f'SELECT {number}, ordinal, revision, status, legacy_id, target_key, error_class, rule, sqlstate, '
            'column_name, message FROM portage.migration_items WHERE run_id = ANY (%s) ORDER BY 1, 2, 3', ids, ids)
        see('rejects', f'SELECT {number}, ordinal, issues::text, raw FROM portage.rejects WHERE run_id = ANY (%s) '
            'ORDER BY 1, 2', ids, ids)
        see('mappings', f"SELECT {number}, ordinal, scope, legacy_id, origin, source_hash, target_key, row_hash, "
            f"image FROM portage.legacy_mappings WHERE run_id = ANY (%s) "
            'ORDER BY 1, 2, 3, 4', ids, ids)
        see('before-images', f'SELECT {number}, ordinal, revision, target_key, columns, before, after_hashes FROM '
            'portage.migration_undo WHERE run_id = ANY (%s) ORDER BY 1, 2, 3', ids, ids)
        see('conflicts', f'SELECT {number}, ordinal, incoming::text, existing::text, base::text, disputed, existing_hash '
            'FROM portage.migration_conflicts WHERE run_id = ANY (%s) ORDER BY 1, 2', ids, ids)
        return seen


def items(count, make, start=1):
    return [{'id': f'i{n}', **make(n)} for n in range(start, start + count)]


AUDIT = """CREATE TABLE audit (n serial, seen text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO audit (seen) VALUES (NEW::text || ' of ' || (SELECT count(*) FROM {table})); RETURN NULL; END $$;"""

CASES = [
    Case('defaults', """CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int, b text DEFAULT 'x' || 1,
           c int GENERATED BY DEFAULT AS IDENTITY, s serial, d date DEFAULT '2020-02-02', e text, f text DEFAULT current_user,
           g int GENERATED ALWAYS AS (a * 2) STORED, h text GENERATED ALWAYS AS (upper(b) || coalesce(e, '-')) STORED)""",
         {'columns': {'a': 'a', 'e': 'e'}}, [items(100, lambda n: {'a': n, 'e': None if n % 3 else f'e{n}'})]),
    Case('identity given', """CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int GENERATED BY DEFAULT AS IDENTITY)""",
         {'columns': {'id': 'n', 'a': 'a'}}, [items(50, lambda n: {'n': 1000 + n, 'a': n}),
                                              items(50, lambda n: {'n': 1000 + n, 'a': -n})]),
    Case('generated key', """CREATE TABLE t (a int NOT NULL, k text GENERATED ALWAYS AS ('k' || a::text) STORED PRIMARY KEY)"""
         .replace("a::text", "to_char_(a)").replace('CREATE TABLE', """CREATE FUNCTION to_char_(int) RETURNS text IMMUTABLE
           LANGUAGE sql AS 'SELECT $1::text'; CREATE TABLE"""),
         {'columns': {'a': 'a'}}, [items(60, lambda n: {'a': n % 55})]),
    Case('check and not null', """CREATE TABLE t (id text PRIMARY KEY, a int NOT NULL CHECK (a > 0), b int NOT NULL DEFAULT 7,
           CONSTRAINT sum CHECK (a + b < 100), c int DEFAULT 1, CONSTRAINT with_default CHECK (c <> a))""",
         {'columns': {'id': 'id', 'a': 'a'}},
         [items(120, lambda n: {'a': None if n % 40 == 0 else n - 3})]),
    Case('domains', """CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE DOMAIN needed AS text NOT NULL;
           CREATE DOMAIN given AS int DEFAULT 5 CHECK (VALUE < 10); CREATE DOMAIN many AS int[] CHECK (cardinality(VALUE) < 3);
           CREATE TABLE t (id text PRIMARY KEY, a positive, b given, c many)""",
         {'columns': {'id': 'id', 'a': 'a', 'c': 'c'}},
         [items(60, lambda n: {'a': n % 7, 'c': list(range(n % 4))})]),
    Case('domain that refuses nulls', """CREATE DOMAIN needed AS text NOT NULL; CREATE TABLE t (id text PRIMARY KEY, a needed, b int)""",
         {'columns': {'id': 'id', 'b': 'b'}}, [items(5, lambda n: {'b': n})], lands=False),
    Case('unique indexes', """CREATE TABLE t (id text PRIMARY KEY, a int UNIQUE, b text, c int, d int);
           CREATE UNIQUE INDEX t_expression ON t (lower(b)); CREATE UNIQUE INDEX t_partial ON t (c) WHERE d > 0;
           CREATE UNIQUE INDEX t_two ON t (a, c) INCLUDE (d); CREATE INDEX t_plain ON t (d, b);
           INSERT INTO t VALUES ('old', 7, 'OLD', 1, 1)""",
         {'columns': {'id': 'id', 'a': 'a', 'b': 'b', 'c': 'c', 'd': 'd'}},
         [items(150, lambda n: {'a': n if n % 30 else 1, 'b': f'b{n}' if n % 41 else 'Old', 'c': n % 140, 'd': n % 3})]),
    Case('deferred', """CREATE TABLE t (id int PRIMARY KEY, a int UNIQUE DEFERRABLE INITIALLY DEFERRED,
           b int CONSTRAINT later UNIQUE DEFERRABLE, parent int REFERENCES t DEFERRABLE INITIALLY DEFERRED)""",
         {'columns': {'id': 'n', 'a': 'a', 'b': 'b', 'parent': 'parent'}},
         [items(100, lambda n: {'n': n, 'a': n if n % 33 else 2, 'b': n if n % 37 else 3,
                                'parent': n + 1 if n % 40 and n % 10 else None if n % 3 else 5000})]),
    Case('foreign keys', """CREATE TABLE p (a int, b int, PRIMARY KEY (a, b)); INSERT INTO p SELECT n, n % 5 FROM generate_series(1, 50) n;
           CREATE TABLE t (id text PRIMARY KEY, a int, b int, c int DEFAULT 1, d int DEFAULT 1, FOREIGN KEY (a, b) REFERENCES p,
             FOREIGN KEY (c, d) REFERENCES p MATCH FULL, self text REFERENCES t)""",
         {'columns': {'id': 'id', 'a': 'a', 'b': 'b', 'self': 'self'}},
         [items(90, lambda n: {'a': n % 60, 'b': n % 5 if n % 20 else None, 'self': f'i{n - 1}' if n % 9 == 0 else
                               'nobody' if n % 31 == 0 else None})]),
    Case('after triggers', AUDIT.format(table='t') + """CREATE TABLE t (id text PRIMARY KEY, a int, b text DEFAULT 'b',
           g int GENERATED ALWAYS AS (a + 1) STORED);
           CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             RAISE EXCEPTION 'no %', NEW.a USING ERRCODE = 'P0042', COLUMN = 'a'; END $$;
           CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             UPDATE t SET b = 'changed' WHERE id = NEW.id; RETURN NULL; END $$;
           CREATE FUNCTION take() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             DELETE FROM t WHERE id = NEW.id; RETURN NULL; END $$;
           CREATE TRIGGER a AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note();
           CREATE TRIGGER b AFTER INSERT ON t FOR EACH ROW WHEN (NEW.a % 17 = 0) EXECUTE FUNCTION refuse();
           CREATE TRIGGER c AFTER INSERT ON t FOR EACH ROW WHEN (NEW.a % 11 = 0) EXECUTE FUNCTION change();
           CREATE TRIGGER d AFTER INSERT ON t FOR EACH ROW WHEN (NEW.a % 29 = 0) EXECUTE FUNCTION take();
           CREATE TRIGGER e BEFORE UPDATE ON t FOR EACH ROW WHEN (false) EXECUTE FUNCTION refuse();
           CREATE TABLE seen_by_deferred (a int);
           CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO seen_by_deferred VALUES (NEW.a); RETURN NULL; END $$;
           CREATE CONSTRAINT TRIGGER f AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION look()""",
         {'columns': {'id': 'id', 'a': 'a'}}, [items(80, lambda n: {'a': n})],
         traces=['(SELECT seen FROM audit)', 'seen_by_deferred']),
    Case('wide', """CREATE TABLE t (id int PRIMARY KEY, a text, b bytea, c jsonb, d text);
           ALTER TABLE t ALTER d SET STORAGE EXTERNAL""",
         {'columns': {'id': 'n', 'a': 'a', 'b': 'b', 'c': 'c', 'd': 'd'}},
         [items(60, lambda n: {'n': n, 'a': f'{n} ' * (n * 300), 'b': '\\x' + f'{n:02x}' * (n * 200),
                               'c': {'k': ['v' * n] * n}, 'd': chr(97 + n % 26) * (n * 997)}),
          items(60, lambda n: {'n': n, 'a': f'{n} ' * (n * 300 + n % 2), 'b': None, 'c': None, 'd': 'd' * 5000})]),
    Case('shape', """CREATE TABLE t (gone int, id int, gone2 text, a text, CONSTRAINT k PRIMARY KEY (id));
           INSERT INTO t (id, a) VALUES (1, 'old'), (2, 'a2'), (500, 'x'); ALTER TABLE t DROP gone, DROP gone2;
           ALTER TABLE t ADD later int NOT NULL DEFAULT 42, ADD last text DEFAULT 'missing'""",
         {'columns': {'id': 'n', 'a': 'a'}}, [items(60, lambda n: {'n': n, 'a': f'a{n}'})]),
    Case('types', """CREATE TYPE colour AS ENUM ('red', 'green'); CREATE TYPE pair AS (x int, y text);
           CREATE TABLE t (id uuid PRIMARY KEY, a int[], b colour, c pair, d int4range, e numeric(12,3), f timestamptz, g interval,
             h text[], i char(5), j xml, k inet, l tsrange[], m colour[], n pair[], o float4, p bit(3), q money)""",
         {'columns': {'id': 'u', **{c: c for c in 'abcdefghiklmnopq'}}},
         [items(60, lambda n: {'u': f'00000000-0000-0000-0000-{n:012d}', 'a': [n, None], 'b': ['red', 'green', 'blue'][n % 3],
                               'c': f'({n},"y {n}")', 'd': f'[{n},{n + 5})' if n % 9 else 'empty', 'e': f'{n}.50', 'f': f'2024-01-01T00:00:{n % 60:02d}+02',
                               'g': f'{n} days', 'h': ['ä', None, str(n)], 'i': 'x' * (n % 5), 'k': f'10.0.0.{n}',
                               'l': ['[2020-01-01,2021-01-01)'], 'm': ['red'], 'n': [f'({n},z)'], 'o': n / 3, 'p': '101', 'q': '12.50'})]),
    Case('partition', """CREATE TABLE whole (id int, a int, PRIMARY KEY (id, a)) PARTITION BY RANGE (a);
           CREATE TABLE t PARTITION OF whole FOR VALUES FROM (0) TO (50)""",
         {'columns': {'id': 'n', 'a': 'a'}}, [items(60, lambda n: {'n': n, 'a': n})]),
    Case('nulls in match', """CREATE TABLE t (id serial PRIMARY KEY, a int, b text, c int, UNIQUE (a, b), UNIQUE NULLS NOT DISTINCT (c, a));
           INSERT INTO t (a, b) VALUES (1, NULL), (NULL, 'b'), (2, 'b2'), (3, 'other')""",
         {'columns': {'a': 'a', 'b': 'b', 'c': 'c'}, 'match': ['a', 'b'], 'on_conflict': 'overwrite'},
         [items(40, lambda n: {'a': n % 6 or None, 'b': None if n % 5 == 0 else f'b{n % 6}', 'c': n})]),
    Case('match beyond the index', """CREATE TABLE t (id int PRIMARY KEY, a text UNIQUE, b text COLLATE "C");
           INSERT INTO t VALUES (1000, 'a1', 'b1'), (1001, 'a2', 'different')""",
         {'columns': {'id': 'n', 'a': 'a', 'b': 'b'}, 'match': ['a', 'b'], 'on_conflict': 'overwrite'},
         [items(30, lambda n: {'n': 1000 if n == 1 else n, 'a': f'a{n}', 'b': f'b{n}'})]),
    Case('descending index', """CREATE TABLE t (id int, a text, v int); CREATE UNIQUE INDEX k ON t (id DESC, a NULLS FIRST);
           ALTER TABLE t ALTER id SET NOT NULL, ALTER a SET NOT NULL; INSERT INTO t VALUES (5, 'a', 0), (6, 'b', 0)""",
         {'columns': {'id': 'n', 'a': 'a', 'v': 'v'}, 'key': ['id', 'a'], 'on_conflict': 'overwrite'},
         [items(50, lambda n: {'n': n % 20, 'a': 'ab'[n % 2], 'v': n})]),
    Case('column privileges', """CREATE TABLE t (id int PRIMARY KEY, a int, secret text DEFAULT 'hidden', s serial);
           GRANT INSERT (id, a), SELECT (id, a), DELETE ON t TO columns_only; GRANT USAGE ON SEQUENCE t_s_seq TO columns_only""",
         {'columns': {'id': 'n', 'a': 'a'}}, [items(50, lambda n: {'n': n, 'a': n}), items(50, lambda n: {'n': n, 'a': n + 1})],
         role='columns_only'),
    Case('disabled trigger', '''CREATE TABLE t (id int PRIMARY KEY, a int);
           CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'fired'; END $$;
           CREATE TRIGGER b BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION never(); ALTER TABLE t DISABLE TRIGGER b''',
         {'columns': {'id': 'n', 'a': 'a'}}, [items(50, lambda n: {'n': n, 'a': n})]),
    Case('no rights', 'CREATE TABLE t (id int PRIMARY KEY, a int); GRANT SELECT ON t TO columns_only',
         {'columns': {'id': 'n', 'a': 'a'}}, [items(5, lambda n: {'n': n, 'a': n})], role='columns_only', lands=False),
    Case('sequence without rights', """CREATE TABLE t (id int PRIMARY KEY, a int, s serial);
           GRANT INSERT, SELECT, DELETE ON t TO columns_only; GRANT USAGE ON SEQUENCE t_s_seq TO columns_only""",
         {'columns': {'id': 'n', 'a': 'a'}}, [items(20, lambda n: {'n': n, 'a': n}), items(20, lambda n: {'n': n + 100, 'a': n})],
         role='columns_only', between='REVOKE ALL ON SEQUENCE t_s_seq FROM columns_only'),
]

POLICIES = """CREATE TABLE t (id int PRIMARY KEY, a int, b text, c timestamptz DEFAULT '2020-01-01');
  INSERT INTO t SELECT n, n, 'old', '2024-01-01' FROM generate_series(1, 60, 2) n"""
for policy in ('skip', 'overwrite', 'merge', 'newest', 'ask', 'fail'):
    more = {'newest_by': 'c'} if policy == 'newest' else {}
    CASES.append(Case(f'policy {policy}', POLICIES, {
        'columns': {'id': 'n', 'a': 'a', 'b': 'b', 'c': 'c'}, 'on_conflict': policy, **more,
        **({'merge': {'a': 'sum', 'c': 'greatest'}} if policy == 'merge' else {})},
        [items(90, lambda n: {'n': n, 'a': n, 'b': 'new' if n % 4 else 'old', 'c': f'202{n % 9}-05-05'})
         if policy != 'fail' else items(80, lambda n: {'n': n if n > 61 else n + 100, 'a': n, 'b': 'new', 'c': None}),
         items(90, lambda n: {'n': n, 'a': n + n % 2, 'b': 'newer', 'c': '2029-09-09'})],
        between="UPDATE t SET b = 'drifted' WHERE id % 7 = 0; DELETE FROM t WHERE id % 13 = 0"))

# Into an empty table, in no order: what is not the run's own is not looked for (load/new_keys), but may be there all the same.
for policy in ('skip', 'overwrite'):
    for type_, key in (('text', 'c{}'), ('numeric', '{}.0')):
        code = [key.format(n * 7919 % 2503) for n in range(2501)]
        again = {1100: code[5].replace('.0', '.00'), 1900: code[5]}
        CASES.append(Case(f'keys in no order, {type_}, {policy}', f"""CREATE TABLE t (code {type_} PRIMARY KEY, v int);
               CREATE FUNCTION more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO t (code, v) VALUES ('{code[1800]}', 0), ('{code[2300]}', 2300); RETURN NULL; END $$;
               CREATE TRIGGER m AFTER INSERT ON t FOR EACH ROW WHEN (NEW.v = 700) EXECUTE FUNCTION more()""",
            {'columns': {'code': 'code', 'v': 'v'}, 'match': ['code'], 'on_conflict': policy},
            [(items(2500, lambda n, code=code, again=again: {'code': again.get(n, code[n]), 'v': n if n != 30 else 31}), {'batch_size': 500}, ''),
             (items(2500, lambda n, code=code: {'code': code[n], 'v': n + n % 2}), {'batch_size': 500}, '')]))

# ... nor does the run know a key that an update has given to a row of its own.
CASES.append(Case('keys in no order, changed by the run', 'CREATE TABLE t (id text PRIMARY KEY, code text NOT NULL UNIQUE, v int)',
                  {'columns': {'id': 'key', 'code': 'code', 'v': 'v'}, 'match': ['code'], 'duplicates': 'last', 'on_conflict': 'skip'},
                  [([{'id': f'i{5 if n == 900 else n}', 'key': f'k{5 if n == 900 else n}',
                      'code': 'elsewhere' if n in (900, 1500) else f'c{n * 7919 % 2503}', 'v': n} for n in range(1, 2001)],
                    {'batch_size': 500}, '')]))

OTHERS = [
    ('a trigger fires before rows are inserted into the target', AUDIT.format(table='t') + """CREATE TABLE t (id int PRIMARY KEY, a int);
       CREATE FUNCTION half() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.a % 2 = 0 THEN RETURN NULL; END IF; RETURN NEW; END $$;
       CREATE TRIGGER b BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION half()""", None),
    ('a trigger fires once per statement on the target', """CREATE TABLE t (id int PRIMARY KEY, a int); CREATE TABLE log (n int);
       CREATE FUNCTION logged() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES (1); RETURN NULL; END $$;
       CREATE TRIGGER s AFTER INSERT ON t EXECUTE FUNCTION logged()""", None),
    ('the target is partitioned', """CREATE TABLE t (id int PRIMARY KEY, a int) PARTITION BY HASH (id);
       CREATE TABLE t0 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 0);
       CREATE TABLE t1 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 1)""", None),
    ('the target is a view', '''CREATE TABLE b (id int PRIMARY KEY, a int); CREATE VIEW t AS SELECT * FROM b;
       CREATE FUNCTION through() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO b VALUES (NEW.id, NEW.a); RETURN NEW; END $$;
       CREATE TRIGGER i INSTEAD OF INSERT ON t FOR EACH ROW EXECUTE FUNCTION through()''', None),
    ('other tables inherit from the target', 'CREATE TABLE t (id int PRIMARY KEY, a int); CREATE TABLE child () INHERITS (t)', None),
    ('rules rewrite what is written to the target', """CREATE TABLE t (id int PRIMARY KEY, a int); CREATE TABLE log (n int);
       CREATE RULE r AS ON UPDATE TO t DO ALSO INSERT INTO log VALUES (1)""", None),
    ('the target has an exclusion constraint', 'CREATE TABLE t (id int PRIMARY KEY, a int, EXCLUDE USING btree (a WITH =))', None),
    ('row level security applies to this role', """CREATE TABLE t (id int PRIMARY KEY, a int); ALTER TABLE t ENABLE ROW LEVEL SECURITY;
       CREATE POLICY p ON t USING (a < 30); GRANT ALL ON t TO columns_only""", 'columns_only'),
]
for reason, ddl, role in OTHERS:
    CASES.append(Case(f'not fast, {reason}', ddl, {'columns': {'id': 'n', 'a': 'a'}, 'key': ['id']},
                      [items(50, lambda n: {'n': n, 'a': n})], role=role, reason=reason))


def random_case(number, source):
    """Random columns, constraints and items, some of which break them; the second run changes some."""
    kinds = {'int': lambda: source.choice([source.randrange(1000), None, 'x', 2 ** 40]), 'text': lambda: source.choice([None, 'é' * source.randrange(50)]),
             'numeric': lambda: source.choice([None, source.random(), '1e400']), 'date': lambda: source.choice([None, '2024-02-29', '2023-02-29']),
             'boolean': lambda: source.choice([True, False, None, 'maybe']), 'jsonb': lambda: source.choice([None, [1, {'a': None}]])}
    columns = {f'c{n}': source.choice(list(kinds)) for n in range(source.randrange(1, 9))}
    ddl = ['id int PRIMARY KEY']
    for name, kind in columns.items():
        ddl.append(f'{name} {kind}' + source.choice(['', '', ' NOT NULL', ' UNIQUE' if kind in ('int', 'text') else '',
                                                     f' CHECK ({name} IS NOT NULL)', ' UNIQUE DEFERRABLE INITIALLY DEFERRED' if kind == 'int' else '']))
    ddl += ["extra text DEFAULT 'extra'", 'twice int GENERATED ALWAYS AS (id * 2) STORED']
    mapped = ['id', *columns]

    def item(n):
        return {'id': f'i{n}', **{name: kinds[kind]() if source.random() < 0.2 else
                                  {'int': n, 'text': f't{n}', 'numeric': n / 7, 'date': '2024-01-31', 'boolean': True, 'jsonb': {'n': n}}[kind]
                                  for name, kind in columns.items()}, 'n': n if source.random() > 0.02 else n - 1}

    first = [item(n) for n in range(1, 200)]
    source.shuffle(first)
    second = [item(int(i['id'][1:])) if source.random() < 0.1 else i for i in first] + [item(n) for n in range(200, 230)]
    policy = source.choice(['skip', 'overwrite', 'merge'])
    return Case(f'random {number}', f"CREATE TABLE t ({', '.join(ddl)})",
                {'columns': {'id': 'n', **{c: c for c in mapped[1:]}}, 'on_conflict': policy},
                [first, (second, {'dry_run': source.random() < 0.3}, ''), second])


print(f'seed {SEED}')
source = random.Random(SEED)
CASES += [random_case(number, source) for number in range(int(os.environ.get('PORTAGE_CASES', '12')))]
dry = [(CASES[i].runs[0], {'dry_run': True}, '') for i in range(len(CASES))]
with Server() as server:
    admin = Session(server)
    admin.rows('CREATE ROLE columns_only')
    for name in ('fast', 'sql'):
        admin.rows(f'CREATE DATABASE {name}')
    found = {}
    for name in ('fast', 'sql'):
        with Session(server, dbname=name) as session:
            session.rows('CREATE EXTENSION pg_portage')
    for case, dry_run in zip(CASES, dry):
        case.runs = [dry_run, *case.runs]
        for name in ('fast', 'sql'):
            with Session(server, dbname=name) as session:
                found[name] = case.outcome(session, {'fast': 'auto', 'sql': 'sql'}[name])
        for fast, sql in zip(found['fast'], found['sql']):
            if fast != sql:
                only = fast[1] if isinstance(fast[1], str) else [row for row in fast[1] if row not in sql[1]]
                other = sql[1] if isinstance(sql[1], str) else [row for row in sql[1] if row not in fast[1]]
                check(f'{case.name}: {fast[0]}', False, f'fast {str(only)[:600]}\n          sql {str(other)[:600]}')
        check(f'{case.name}: both writers agree', found['fast'] == found['sql'], 'see above')
    # What a transaction has written itself it finds again, whatever its snapshot.
    for level in ('REPEATABLE READ', 'SERIALIZABLE'):
        for name in ('fast', 'sql'):
            with Session(server, dbname=name) as session:
                session.rows(f"SET portage.writer = {'sql' if name == 'sql' else 'auto'}")
                session.rows(f"""DROP TABLE IF EXISTS own; CREATE TABLE own (id int PRIMARY KEY, a int UNIQUE); INSERT INTO own VALUES (1, 1);
                                 SELECT portage.create_pipeline('own {level}', 'own',
                                   '{{"format": "ndjson", "legacy_id": "id", "columns": {{"id": "id", "a": "a"}}, "on_conflict": "overwrite"}}')""")
                session.rows(f'BEGIN ISOLATION LEVEL {level}')
                found[name] = [session.rows(
                    'SELECT status, inserted, updated, unchanged, invalid FROM portage.migrate(%s, %s)', f'own {level}',
                    ndjson({'id': n, 'a': n * times} for n in range(1, 6))) for times in (1, 10, 10)]
                session.rows('COMMIT')
                found[name].append(session.rows('SELECT id, a FROM own ORDER BY 1'))
        check(f'{level}: both writers agree', found['fast'] == found['sql'] and len(found['fast'][3]) == 5
              and found['fast'][1][0][2] == 5, str(found))
    # An index that was built after the transaction took its snapshot does not know all that the snapshot sees.
    for name in ('fast', 'sql'):
        with Session(server, dbname=name) as session, Session(server, dbname=name) as other:
            session.rows(f"""SET portage.writer = {'sql' if name == 'sql' else 'auto'};
                             CREATE TABLE late (id int PRIMARY KEY, k int NOT NULL, v int); INSERT INTO late VALUES (1, 1, 0);
                             SELECT portage.create_pipeline('late', 'late', '{{"format": "ndjson", "legacy_id": "id", "match": ["k"],
                               "columns": {{"id": "id", "k": "k", "v": "v"}}, "on_conflict": "skip"}}')""")
            session.rows('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1')
            other.rows('UPDATE late SET k = 2; ALTER TABLE late ADD UNIQUE (k)')
            check(f'{name}: the index is too young', other.value("SELECT indcheckxmin FROM pg_index WHERE indexrelid = 'late_k_key'::regclass"))
            found[name] = session.rows('SELECT status, inserted, skipped, invalid FROM portage.migrate(%s, %s)', 'late',
                                       ndjson([{'id': 7, 'k': 1, 'v': 5}]))
            session.rows('COMMIT')
    check('an index that is too young: both writers agree', found['fast'] == found['sql'] == [('completed', 0, 1, 0)], str(found))
    for name in ('fast', 'sql'):
        with Session(server, dbname=name) as session:
            check(f'{name}: no run is left in between', session.value(
                "SELECT count(*) FROM portage.migration_runs WHERE status NOT IN ('rolled_back', 'completed', 'failed', 'pending', "
                "'awaiting_resolution')") == 0)
finish()
