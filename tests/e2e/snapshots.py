#!/usr/bin/python3
"""A snapshot that migrate() takes in one go leaves what the worker leaves. Each case runs in two databases, in one of them
with a limit that no input reaches, which is for the worker: answers, errors, rows, runs, parts, ranges, batches, events,
items, mappings, before-images, conflicts and payloads are the same; and so they are after rollback, replay, decisions,
verification, forget() and purge(). Then several sessions at once."""

import json
import os
import random
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import Server, check, finish  # noqa: E402
from sessions import Session, ended, ndjson, told  # noqa: E402

SEED = int(os.environ.get('PORTAGE_SEED') or random.randrange(1 << 32))

# What says when, by whom, or under which number, and what differs by the option that tells the two apart.
VARIES = {
    'migration_runs': {'uuid', 'created_at', 'started_at', 'completed_at', 'options', 'first_xid', 'references_tried_at',
                       'owner_lease', 'purged_at', 'cleaned_at'},
    'migration_parts': {'created_at'}, 'migration_payloads': set(), 'item_packs': set(), 'item_rows': set(),
    'migration_ranges': {'owner_pid', 'owner_started_at', 'owner_statement_at'},
    'migration_batches': {'id', 'xid', 'started_at', 'finished_at', 'timings', 'wal_bytes', 'memory_bytes'},
    'migration_events': {'id', 'created_at'}, 'legacy_mappings': {'missing_since'}, 'migration_undo': {'batch_id'},
    'migration_conflicts': {'resolved_at', 'created_at'}, 'data_integrity_checks': {'checked_at'}}
ANSWER = ('run_id, pipeline, scope, status, is_running, current_step, percentage, processed_items, total_items, processed_parts, '
          'total_parts, read, inserted, updated, unchanged, skipped, conflicted, parked, invalid, failed, open_rejects, '
          'open_conflicts, open_parked, success_rate, error_rate, workers, batch_size, hold_reason, '
          "(SELECT jsonb_agg(e - 'time') FROM jsonb_array_elements(errors) e), started_at <= completed_at, dry_run")
TABLE = """
CREATE TABLE words (u text NOT NULL, w int NOT NULL, qty int CHECK (qty < 1000), at timestamptz, note text,
                    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, UNIQUE (u, w));"""
# Without an identity, whose numbers are not the same where a batch was tried in one go first.
PLAIN = TABLE.replace('id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, UNIQUE', 'PRIMARY KEY')
COLUMNS = {'u': '$scope', 'w': 'w', 'qty': {'from': 'qty', 'default': 7}, 'at': 'at', 'note': 'note'}
WORDS = {'format': 'json', 'legacy_id': 'id', 'columns': COLUMNS, 'match': ['u', 'w'],
         'rules': {'not_negative': 'qty >= 0', 'unusual': {'sql': 'qty < 500', 'severity': 'warning'}}}


def item(n, **more):
    return {'id': f'i{n}', 'w': n, 'qty': n % 90, 'at': '2024-02-03T04:05:06Z', 'note': f'note {n}', **more}


def items(first, last, **more):
    return [item(n, **more) for n in range(first, last + 1)]


class Case:
    """`steps`: SQL, or (payload, options[, scope]) for migrate(); a payload that is no text becomes JSON. `long`: which of them
    the worker has to take in any case; None: none is looked at."""

    def __init__(self, name, definition, steps, ddl=TABLE, long=()):
        self.name, self.ddl, self.definition, self.steps, self.long = name, ddl, definition, steps, long

    def outcome(self, session, admin, worker):
        """All that can be seen of the case in one database: a list of (what, value)."""
        session.rows(f'CREATE SCHEMA case_{self.name}; SET search_path = case_{self.name}, public; {self.ddl}')
        session.rows('SELECT portage.create_pipeline(%s, %s::regclass, %s::json)', self.name, 'words', json.dumps(self.definition))
        seen = []
        for number, step in enumerate(self.steps):
            if isinstance(step, str):
                run = session.value('SELECT max(id) FROM portage.migration_runs') if 'RUN' in step else None
                options = '{"limit": 1000000}' if worker else '{}'
                found, error = self.attempt(session, step.replace('CALL_IT', f"SELECT status FROM portage.migrate('{self.name}'")
                                            .replace('OPTIONS', f"'', '{options}')").replace('PIPELINE', self.name)
                                            .replace('RUN', str(run)))
            else:
                payload, options, scope = (*step, '')[:3]
                payload = payload if isinstance(payload, str) else json.dumps(payload)
                updated = self.updated_runs(session)
                found, error = self.attempt(session, f'SELECT {ANSWER}, i::text FROM portage.migrate(%s, %s, %s, %s) i', self.name,
                                            payload, scope, json.dumps({**({'limit': 1000000} if worker else {}), **options}))
                if found:
                    (*found[0], told_now), = found
                    found = found[0]
                    told_later = session.value('SELECT portage.status(%s)::text', found[0])
                    check(f'{self.name}, step {number}: the answer is what status() says', told_now == told_later,
                          (told_now, told_later))
                if self.long is not None and not error:
                    changed = self.updated_runs(session) > updated
                    longer = worker or number in self.long
                    check(f'{self.name}, step {number}: {"by the worker" if longer else "in one go"}', changed == longer)
            seen.append((f'step {number}', (found, told(error))))
            seen += self.look(admin, number)
        return seen

    @staticmethod
    def attempt(session, sql, *arguments):
        try:
            return session.rows(sql, *arguments), None
        except Exception as error:  # noqa: BLE001: it is compared
            if not hasattr(error, 'pgcode'):
                raise
            return None, error

    @staticmethod
    def updated_runs(session):
        session.rows('SELECT pg_stat_force_next_flush()')
        return session.value("SELECT pg_stat_get_tuples_updated('portage.migration_runs'::regclass)")

    def look(self, session, step):
        seen = [(f'after step {step}: words', session.rows(f'SELECT x::text FROM case_{self.name}.words x ORDER BY 1'))]
        for table, varies in VARIES.items():
            found = [{key: value for key, value in row.items() if key not in varies}
                     for row, in session.rows(f"SELECT to_jsonb(x) || CASE WHEN '{table}' = 'migration_runs' THEN jsonb_build_object("
                                                   f"'hash_shape', (to_jsonb(x) ->> 'hash_shape')::jsonb - 'table') ELSE '{{}}' END FROM portage.{table} x")]
            seen.append((f'after step {step}: {table}', sorted(json.dumps(row, sort_keys=True) for row in found)))
        return seen


ROLL_BACK = "CALL portage.rollback(RUN, 'keep')"
VERIFY = 'SELECT name, passed, expected, actual FROM portage.verify(RUN) ORDER BY 1'


def bad_items():
    return [item(1), item(2, qty='many'), item(3, qty=-1), item(4, qty=700), item(5, w=None), {'w': 6}, 'no object', 7,
            item(8, at='yesterday evening'), item(1, note='again'), item(9, w=1), item(10, qty=5000), item(11, qty=None),
            item(12, note='x' * 3000)]


CASES = [
    Case('good', WORDS, [(items(1, 100), {}, 'ann'), (items(1, 100), {}, 'bob'), VERIFY, ROLL_BACK, VERIFY]),
    Case('again', WORDS, [(items(1, 50), {}), (items(1, 60), {'keep_payload': False}), (items(1, 50, qty=3), {}), VERIFY, ROLL_BACK,
                          ROLL_BACK]),
    Case('overwrite', {**WORDS, 'on_conflict': 'overwrite'}, [
        (items(1, 20), {}), (items(1, 20, qty=5) + items(31, 40), {}), ROLL_BACK, VERIFY]),
    Case('strangers', {**WORDS, 'on_conflict': 'overwrite'}, [(items(4, 8), {}, 'eve'), (items(1, 9, qty=1), {}, 'eve'), ROLL_BACK],
         ddl=TABLE + "INSERT INTO words (u, w, qty) SELECT 'eve', n, 3 FROM generate_series(3, 6) n;"),
    Case('merge', {**WORDS, 'on_conflict': 'merge', 'merge': {'qty': 'greatest'}}, [
        (items(1, 9), {}), 'UPDATE words SET note = note || qty WHERE w < 5', (items(3, 12, qty=8), {}), ROLL_BACK]),
    Case('ask', {**WORDS, 'on_conflict': 'ask'}, [
        (items(1, 9), {}), (items(3, 12, qty=8), {'keep_payload': False}),
        "SELECT portage.resolve_all(RUN, 'incoming')", ROLL_BACK],
         ddl=TABLE + "INSERT INTO words (u, w, qty) VALUES ('', 10, 3), ('', 11, 4);"),
    Case('bad', WORDS, [(bad_items(), {}, 'ann'), VERIFY,
                        'SELECT portage.replay(RUN, 2, \'{"id": "i2", "w": 2, "qty": 6}\')',
                        'SELECT * FROM portage.replay(RUN)', ROLL_BACK]),
    Case('duplicates', {**WORDS, 'duplicates': 'last'}, [(items(1, 5) + items(3, 8, qty=2) + [item(20, w=2)], {})], ddl=PLAIN, long={0}),
    Case('first', {**WORDS, 'duplicates': 'first'}, [(items(1, 5) + items(3, 8, qty=2) + [item(20, w=2)], {})]),
    Case('empty', WORDS, [('[]', {}), ('', {}), ('{}', {}), ('[' + json.dumps(item(1)), {}), ('[1, {]', {}), ('  [] x', {})]),
    Case('csv', {**WORDS, 'format': 'csv'}, [
        ('id,w,qty,at,note\n1,1,1,,"a\n b"\n2,2,x,,\n3,3\n', {}), ('id,w,qty\n1,1,1\n', {}), ROLL_BACK], long={1}),
    Case('ndjson', {**WORDS, 'format': 'ndjson'}, [(ndjson(items(1, 5)) + '\n\nbroken\n' + ndjson(items(6, 7)), {})]),
    Case('rejects', WORDS, [(bad_items(), {'max_rejects': 20}), (bad_items(), {'max_rejects': 2}), (bad_items(), {'max_rejects': '5%'}),
                            (bad_items(), {'max_rejects': 2, 'raise': True})], ddl=PLAIN, long=None),
    Case('many', WORDS, [(items(1, 30), {'batch_size': 7})], long=None),
    Case('fail', {**WORDS, 'on_conflict': 'fail'}, [(items(1, 5), {}), (items(4, 9), {})],
         ddl=PLAIN + "INSERT INTO words (u, w) VALUES ('', 9);", long=None),
    Case('triggers', WORDS, [(items(1, 40), {}), ROLL_BACK], ddl=TABLE + """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          IF NEW.w % 13 = 0 THEN RAISE EXCEPTION 'not %', NEW.w; END IF;
          IF NEW.w = 5 THEN UPDATE words SET note = 'by a trigger' WHERE id = NEW.id; END IF; RETURN NEW; END $$;
        CREATE TRIGGER refuse AFTER INSERT ON words FOR EACH ROW EXECUTE FUNCTION refuse();"""),
    Case('before', WORDS, [(items(1, 10), {}), ROLL_BACK], ddl=TABLE + """
        CREATE FUNCTION mend() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.note := upper(NEW.note);
          RETURN CASE WHEN NEW.w <> 4 THEN NEW END; END $$;
        CREATE TRIGGER mend BEFORE INSERT ON words FOR EACH ROW EXECUTE FUNCTION mend();"""),
    Case('parents', {**WORDS, 'columns': {**COLUMNS, 'note': 'note'}}, [
        ([item(n, note='ab'[n % 2] if n != 7 else 'c') for n in range(1, 12)], {})], ddl="""
        CREATE TABLE notes (note text PRIMARY KEY); INSERT INTO notes VALUES ('a'), ('b');""" + TABLE.replace(
            'note text', 'note text REFERENCES notes DEFERRABLE INITIALLY DEFERRED')),
    Case('waiting', {**WORDS, 'match': ['w'], 'columns': {**COLUMNS, 'parent': {'from': 'parent', 'references': 'waiting'}}}, [
        ([item(1, parent='i2'), item(2), item(3, parent='i99')], {}), ([item(99)], {})],
         ddl='CREATE TABLE words (u text, w int PRIMARY KEY, qty int, at timestamptz, note text, parent int);', long=None),
    Case('transactions', WORDS, ["BEGIN; SAVEPOINT s; CALL_IT, '[{\"id\": 1, \"w\": 1}]', OPTIONS", 'SELECT 1/0', 'ROLLBACK'], long=None),
    Case('savepoint', WORDS, [
        "BEGIN; SAVEPOINT s; CALL_IT, '[{\"id\": 1, \"w\": 1}]', OPTIONS; ROLLBACK TO s; CALL_IT, '[{\"id\": 2, \"w\": 2}]', OPTIONS; "
        "CALL_IT, '[{\"id\": 2, \"w\": 2, \"qty\": 3}]', OPTIONS; COMMIT"], long=None),
    Case('snapshot', WORDS, [
        "BEGIN ISOLATION LEVEL REPEATABLE READ; CALL_IT, '[{\"id\": 1, \"w\": 1}]', OPTIONS; COMMIT",
        "BEGIN READ ONLY; CALL_IT, '[{\"id\": 2, \"w\": 2}]', OPTIONS", 'ROLLBACK',
        "SET portage.scope = 'ann'", ([item(1)], {}, 'bob'), ([item(1)], {}, 'ann'), 'RESET portage.scope'], long=None),
    Case('deferred', WORDS, [
        "BEGIN; INSERT INTO words (u, w, note) VALUES ('x', 1, 'none'); CALL_IT, '[{\"id\": 1, \"w\": 1}]', OPTIONS", 'ROLLBACK'],
         ddl="CREATE TABLE notes (note text PRIMARY KEY);" + TABLE.replace(
             'note text', 'note text REFERENCES notes DEFERRABLE INITIALLY DEFERRED'), long=None),
    Case('timeout', WORDS, [
        "SET statement_timeout = 5000", ([item(1), item(2)], {}), 'RESET statement_timeout', ([item(1)], {})], long=None,
         ddl=TABLE + """
        CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          IF NEW.w = 2 THEN PERFORM pg_sleep(60); END IF; RETURN NEW; END $$;
        CREATE TRIGGER late AFTER INSERT ON words FOR EACH ROW EXECUTE FUNCTION late();"""),
    Case('erased', WORDS, [(items(1, 9), {}, 'ann'), (bad_items(), {}, 'bob'), "SELECT * FROM portage.forget('PIPELINE', 'ann')",
                           "CALL portage.purge(interval '0 s')", (items(1, 3), {}, 'ann')], long=None),
    Case('rights', WORDS, [
        'GRANT USAGE ON SCHEMA case_rights TO carl; SET ROLE carl', ([item(1)], {}), 'RESET ROLE',
        "SELECT portage.grant_pipeline('PIPELINE', 'carl', 'run'); SET ROLE carl", ([item(1)], {}), 'RESET ROLE',
        'GRANT INSERT, SELECT ON words TO carl; SET ROLE carl', ([item(1), item(2)], {}), 'RESET ROLE',
        'REVOKE INSERT ON words FROM carl; SET ROLE carl', ([item(3)], {}), 'RESET ROLE'], long=None),
]


def difference(once, worker):
    """What is only in one of the two, in words."""
    (what, one), (_, other) = once, worker
    if isinstance(one, list):
        one, other = [row for row in one if row not in other], [row for row in other if row not in one]
    return f'{what}:\n  in one go {one}\n  worker    {other}'


def changes(server):
    """What changes between two calls, in this session or another, shows at the next one."""
    with Session(server, dbname='changes') as here, Session(server, dbname='changes') as there:
        here.rows("CREATE EXTENSION pg_portage; CREATE TYPE mood AS ENUM ('sad', 'ok');"
                  'CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql IMMUTABLE RETURN n * 2;'
                  'CREATE TABLE t (id int PRIMARY KEY, qty int, m mood, extra text);'
                  'CREATE SEQUENCE numbers; CREATE TABLE parents (qty int PRIMARY KEY);'
                  'GRANT INSERT, SELECT ON t TO carl; GRANT USAGE, CREATE ON SCHEMA public TO carl')
        definition = {'format': 'json', 'legacy_id': 'id', 'columns': {'id': 'id', 'qty': {'sql': "twice((item->>'qty')::int)"}, 'm': 'm'}}
        here.rows("SELECT portage.create_pipeline('t', 't', %s::json)", json.dumps(definition))
        here.rows("SELECT portage.grant_pipeline('t', 'carl', 'run')")
        numbers = iter(range(1, 1000))

        def call(session=here, **more):
            n = next(numbers)
            error = session.error("SELECT portage.migrate('t', %s)", json.dumps([{'id': n, 'qty': n, 'm': 'ok', **more}]))
            return told(error) if error else here.rows('SELECT * FROM t WHERE id = %s', n)

        def is_row(name, found, n, *values):
            check(name, found == [(n, *values)], str(found))

        is_row('a row', call(), 1, 2, 'ok', None)
        for session, name in ((here, 'this session'), (there, 'another session')):
            base = next(numbers)
            session.rows('CREATE OR REPLACE FUNCTION twice(n int) RETURNS int LANGUAGE sql IMMUTABLE RETURN n * 20')
            is_row(f'{name}: a function', call(), base + 1, (base + 1) * 20, 'ok', None)
            session.rows('CREATE OR REPLACE FUNCTION twice(n int) RETURNS int LANGUAGE sql IMMUTABLE RETURN n * 2')
            is_row(f'{name}: and back', call(), base + 2, (base + 2) * 2, 'ok', None)
            call(m='glad')
            session.rows("ALTER TYPE mood ADD VALUE IF NOT EXISTS 'glad'")
            is_row(f'{name}: a label', call(m='glad'), base + 4, (base + 4) * 2, 'glad', None)
            session.rows("ALTER TABLE t ADD CHECK (qty <> %s)", (base + 5) * 2)
            check(f'{name}: a constraint', call() == [])
            session.rows("ALTER TABLE t ALTER extra SET DEFAULT 'new'")
            is_row(f'{name}: a default', call(), base + 6, (base + 6) * 2, 'ok', 'new')
            session.rows('ALTER TABLE t ALTER extra DROP DEFAULT')
            changed = {**definition, 'columns': {**definition['columns'], 'extra': {'value': name}}}
            session.rows("SELECT portage.replace_pipeline('t', %s::json)", json.dumps(changed))
            is_row(f'{name}: a definition', call(), base + 7, (base + 7) * 2, 'ok', name)
            session.rows("SELECT portage.replace_pipeline('t', %s::json)", json.dumps(definition))
            session.rows('ALTER TABLE t DROP COLUMN extra; ALTER TABLE t ADD extra text')
            is_row(f'{name}: a column', call(), base + 8, (base + 8) * 2, 'ok', None)
            here.rows('SET ROLE carl')
            session.rows('RESET ROLE; REVOKE INSERT ON t FROM carl; ' + ('SET ROLE carl' if session is here else ''))
            found = call()
            here.rows('RESET ROLE')
            check(f'{name}: a right', '42501' in str(found), str(found))
            session.rows("GRANT INSERT ON t TO carl; SELECT portage.revoke_pipeline('t', 'carl', 'run')")
            here.rows('SET ROLE carl')
            found = call()
            here.rows('RESET ROLE')
            check(f'{name}: the right to run it', 'PZ004' in str(found) or '42501' in str(found), str(found))
            session.rows("SELECT portage.grant_pipeline('t', 'carl', 'run')")
            here.rows('SET ROLE carl')
            found = call()
            here.rows('RESET ROLE')
            check(f'{name}: and again', len(found) == 1, str(found))
            session.rows("ALTER TABLE t ADD s int DEFAULT nextval('numbers')")
            here.rows('SET ROLE carl')
            found = [call()]
            session.rows('RESET ROLE; GRANT USAGE ON SEQUENCE numbers TO carl; ' + ('SET ROLE carl' if session is here else ''))
            found += [call()]
            session.rows('RESET ROLE; REVOKE USAGE ON SEQUENCE numbers FROM carl; ' + ('SET ROLE carl' if session is here else ''))
            found += [call()]
            here.rows('RESET ROLE')
            check(f'{name}: the right to a sequence', '42501' in str(found[0]) and len(found[1]) == 1 and '42501' in str(found[2]),
                  str(found))
            session.rows('ALTER TABLE t DROP COLUMN s; CREATE SCHEMA postgres;'
                         'CREATE FUNCTION postgres.twice(n int) RETURNS int LANGUAGE sql IMMUTABLE RETURN n * 200')
            n, found = next(numbers), call()
            is_row(f'{name}: a function that comes first', found, n + 1, (n + 1) * 200, 'ok', None)
            session.rows('DROP SCHEMA postgres CASCADE')
            is_row(f'{name}: and does not any more', call(), n + 2, (n + 2) * 2, 'ok', None)
            session.rows("ALTER TABLE t ADD FOREIGN KEY (qty) REFERENCES parents DEFERRABLE INITIALLY DEFERRED NOT VALID")
            check(f'{name}: a constraint that waits', call() == [])
            session.rows('ALTER TABLE t DROP CONSTRAINT t_qty_fkey')
            check(f'{name}: and is gone', len(call()) == 1)
            session.rows('ALTER TABLE t RENAME TO gone')
            check(f'{name}: the table is gone', 'PZ002' in str(call()))
            session.rows('ALTER TABLE gone RENAME TO t')
            check(f'{name}: and there again', len(call()) == 1)
        here.rows('BEGIN; CREATE OR REPLACE FUNCTION twice(n int) RETURNS int LANGUAGE sql IMMUTABLE RETURN n * 20')
        n, found = next(numbers), call()
        is_row('a transaction', found, n + 1, (n + 1) * 20, 'ok', None)
        here.rows('ROLLBACK')
        is_row('and its end', call(), n + 2, (n + 2) * 2, 'ok', None)
        moment = {**definition, 'columns': {**definition['columns'], 'extra': {'sql': "('now'::timestamptz)::text"}}}
        for text in (json.dumps(moment), json.dumps(moment).replace("'", '\\u0027')):  # as some programs write JSON
            here.rows("SELECT portage.replace_pipeline('t', %s::json)", text)
            check('a moment is that of the call', call()[0][3] != call()[0][3])
        plain = {**definition, 'columns': {**definition['columns'], 'qty': 'qty'}}
        for what, factor in ((plain, 1), (definition, 2)):  # with the same ids, in the same session
            here.rows('DROP EXTENSION pg_portage CASCADE; CREATE EXTENSION pg_portage')
            here.rows("SELECT portage.create_pipeline('t', 't', %s::json)", json.dumps(what))
            n, found = next(numbers), call()
            is_row('another extension', found, n + 1, (n + 1) * factor, 'ok', None)
        here.rows("SET timezone = 'Asia/Tokyo'; SET search_path = pg_catalog")
        check('settings', here.error("SELECT portage.migrate('t', '[{\"id\": 999, \"qty\": 1}]')") is None)


def side_by_side(server, dbname):
    """Eight sessions, each with calls for its own scopes and for one that all want."""
    with Session(server, dbname=dbname) as admin:
        admin.rows('SET search_path = public; ' + TABLE)
        admin.rows("SELECT portage.create_pipeline('crowd', 'words', %s::json)", json.dumps(WORDS))
        refused, strange = [], []

        def work(number):
            with Session(server, dbname=dbname) as session:
                for turn in range(25):
                    scope = 'all' if turn % 3 == 0 else f's{number}-{turn}'
                    payload = json.dumps(items(1, 20) if turn % 2 else items(turn, turn + 20))
                    error = session.error("SELECT portage.migrate('crowd', %s, %s)", payload, scope)
                    if error is not None:
                        (refused if error.pgcode == 'PZ007' and scope == 'all' else strange).append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        ended(threads)
        check('side by side: nothing is refused but the same scope at once', not strange, str(strange[:3]))
        runs = admin.rows("SELECT status, count(*) FROM portage.migration_runs WHERE pipeline = 'crowd' GROUP BY 1")
        check('side by side: every call has its run', runs == [('completed', 200 - len(refused))], f'{runs}, {len(refused)} refused')
        check('side by side: rows, mappings and counters agree', admin.rows(
            "SELECT (SELECT count(*) FROM words) = (SELECT count(*) FROM portage.legacy_mappings m JOIN portage.pipelines p "
            "ON p.id = m.pipeline_id AND p.name = 'crowd'), (SELECT count(*) FROM words) = (SELECT sum(inserted) FROM "
            "portage.migration_runs WHERE pipeline = 'crowd')") == [(True, True)])


def main():
    with Server() as server:
        with Session(server) as admin:
            admin.rows('CREATE ROLE carl LOGIN')
            for name in ('once', 'worker', 'changes'):
                admin.rows(f'CREATE DATABASE {name}')
        seen = {}
        for name in ('once', 'worker'):
            with Session(server, dbname=name) as session, Session(server, dbname=name) as admin:
                session.rows('CREATE EXTENSION pg_portage')
                for case in CASES:
                    seen[name, case.name] = case.outcome(session, admin, name == 'worker')
        for case in CASES:
            once, worker = seen['once', case.name], seen['worker', case.name]
            differ = [difference(*pair) for pair in zip(once, worker) if pair[0] != pair[1]]
            check(f'{case.name}: the same', not differ and len(once) == len(worker), '\n'.join(differ)[:3000])
        changes(server)
        side_by_side(server, 'once')


if __name__ == '__main__':
    main()
    finish()
