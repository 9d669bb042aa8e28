#!/usr/bin/python3
"""A statement_timeout, or a pg_cancel_backend, at moments spread over whatever a call does: 57014 and nothing else, told from
where it was noticed; the session can be used at once and holds no lock; nobody counts as the run's owner any more, though the
session lives; another session goes on at once, and the end is that of a call that nobody disturbed.

PORTAGE_MOMENTS sets the number of moments of each kind and call; "all" means each millisecond of it. PORTAGE_CASES names the
calls to try."""

import collections
import json
import os
import sys
import threading
import time

import psycopg2
import psycopg2.extensions

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import Server, check, finish  # noqa: E402
from sessions import GATES, Gate, Session, ndjson, told, until  # noqa: E402

MOMENTS = os.environ.get('PORTAGE_MOMENTS', '6')
CASES = os.environ.get('PORTAGE_CASES', '').split()
ITEMS = 2000
BAD = 4  # of them

SETUP = """
CREATE EXTENSION pg_portage;
CREATE ROLE clerk LOGIN;
CREATE SCHEMA app;
GRANT USAGE ON SCHEMA app TO clerk;
SET search_path = app;
CREATE TABLE parents (id int PRIMARY KEY);
INSERT INTO parents VALUES (0), (1), (2);
CREATE TABLE t (scope text, id int, word text, n int CHECK (n <> 7), parent int REFERENCES parents, PRIMARY KEY (scope, id));
CREATE TABLE flag (up boolean);
CREATE FUNCTION is_up() RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN EXISTS (SELECT FROM app.flag WHERE up); END';
CREATE TABLE contact (scope text, id int, city text, PRIMARY KEY (scope, id));
CREATE TABLE author (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, scope text, name text, UNIQUE (scope, name));
CREATE TABLE book (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, scope text, title text, author int NOT NULL REFERENCES author, UNIQUE (scope, title));
CREATE TABLE alone (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, word text UNIQUE, n int);
CREATE INDEX by_n ON alone (n);
CREATE TABLE old_a (id int PRIMARY KEY, n int);
INSERT INTO old_a SELECT g, g FROM generate_series(1, 1000) g;
CREATE TABLE new_a (scope text, id int, n int, PRIMARY KEY (scope, id));
CREATE TABLE wide (id int PRIMARY KEY, {wide});
GRANT ALL ON ALL TABLES IN SCHEMA app TO clerk;
ALTER TABLE alone OWNER TO clerk;
GRANT CREATE ON SCHEMA app TO clerk;
"""
COLUMNS = [f'c{i}' for i in range(120)]
PIPELINES = {
    'p': ('t', {'format': 'ndjson', 'legacy_id': 'id', 'on_conflict': 'overwrite', 'columns': {
        'scope': '$scope', 'id': 'id', 'word': {'sql': "upper(item->>'word')"}, 'n': 'n', 'parent': 'parent'}}),
    'several': ('t', {'format': 'ndjson', 'legacy_id': 'id', 'columns': {
        'scope': '$scope', 'id': 'id', 'word': 'word', 'n': 'n', 'parent': 'parent'}}),
    'flagged': ('t', {'format': 'ndjson', 'legacy_id': 'id', 'columns': {'scope': '$scope', 'id': 'id', 'word': 'word'},
                      'rules': {'up': 'app.is_up()'}}),
    'asking': ('contact', {'format': 'ndjson', 'legacy_id': 'id', 'on_conflict': 'ask', 'match': ['scope', 'id'],
                           'columns': {'scope': '$scope', 'id': 'id', 'city': 'word'}}),
    'authors': ('author', {'format': 'ndjson', 'legacy_id': 'id', 'columns': {'scope': '$scope', 'name': 'word'}, 'match': ['scope', 'name']}),
    'books': ('book', {'format': 'ndjson', 'legacy_id': 'id', 'match': ['scope', 'title'], 'columns': {
        'scope': '$scope', 'title': 'word', 'author': {'from': 'parent', 'references': 'authors'}}}),
    'initial': ('alone', {'format': 'ndjson', 'legacy_id': 'id', 'match': ['word'],
                          'columns': {'word': {'sql': "gates.pass(item->>'word')"}, 'n': 'n'}}),
    'retaining': ('t', {'format': 'ndjson', 'legacy_id': 'id', 'retain': '30 days', 'columns': {'scope': '$scope', 'id': 'id', 'word': 'word'}}),
    'table_a': ('new_a', {'format': 'rows', 'legacy_id': 'id', 'source': {'table': 'app.old_a'},
                          'columns': {'scope': '$scope', 'id': 'id', 'n': 'n'}}),
    'table_b': ('new_a', {'format': 'rows', 'legacy_id': 'id', 'source': {'table': 'app.old_a'}, 'after': ['table_a'],
                          'columns': {'scope': {'sql': "'b ' || (item->>'id')"}, 'id': 'id', 'n': 'n'}}),
}


def items(count=ITEMS, bad=0):
    return ndjson({'id': i, 'word': f'w{i}', 'n': 7 if bad and i % (count // bad) == 1 else 1000 + i, 'parent': i % 3}
                  for i in range(1, count + 1))


class Place:
    """Sessions, and what the cases need of the database."""

    def __init__(self, server):
        self.server = server
        self.admin = Session(server)
        self.victim = self.other = None
        self.number = 0
        self.anew()

    def anew(self):
        if self.victim:
            self.victim.close()
            self.other.close()
        self.victim, self.other = Session(self.server, 'clerk'), Session(self.server, 'clerk')

    def scope(self):
        self.number += 1
        return f's{self.number}'

    def open(self, pipeline, payload, **options):
        scope = self.scope()
        run = self.other.value('SELECT portage.open_run(%s, %s, %s)', pipeline, scope, json.dumps({'batch_size': 400, **options}))
        self.other.rows('SELECT portage.submit(%s, %s)', run, payload)
        return run, scope

    def imported(self, pipeline, payload, **options):
        run, scope = self.open(pipeline, payload, **options)
        self.other.rows('CALL portage.run(%s)', run)
        return run, scope

    def status(self, run):
        return self.admin.value('SELECT status FROM portage.migration_runs WHERE id = %s', run)

    def wrong_books(self, run, inserted, status='completed'):
        found = self.admin.rows("""SELECT r.status, r.read, r.inserted,
            (SELECT count(DISTINCT i.ordinal) FROM portage.all_items i WHERE i.run_id = r.id),
            (SELECT count(*) FROM portage.legacy_mappings m WHERE m.run_id = r.id) FROM portage.migration_runs r WHERE r.id = %s""", run)
        return found != [(status, ITEMS, inserted, ITEMS, inserted)] and found


class Case:
    """prepare() gives what is to be called, go_on() is what another session does at once, wrong() what is not as it would be
    had nobody disturbed it. `run`: whose owner there must not be."""

    run = None

    def __init__(self, place):
        self.place = place

    def go_on(self, other):
        if self.run and self.place.status(self.run) not in ('completed', 'rolled_back'):
            other.rows('CALL portage.run(%s)', self.run)

    def done(self):
        """Prepares the next one."""


class Run(Case):
    def prepare(self):
        self.run, self.scope = self.place.open('p', items(bad=BAD))
        return 'CALL portage.run(%s)', self.run

    def wrong(self):
        rows = self.place.admin.value('SELECT count(*) FROM app.t WHERE scope = %s', self.scope)
        return self.place.wrong_books(self.run, ITEMS - BAD) or (rows != ITEMS - BAD and rows)


class Rollback(Case):
    def prepare(self):
        place = self.place
        self.run, self.scope = place.open('p', items(bad=BAD))
        place.admin.rows("INSERT INTO app.t SELECT %s, g, 'before', 10 + g, 1 FROM generate_series(1, 500) g", self.scope)
        place.other.rows('CALL portage.run(%s)', self.run)
        return 'CALL portage.rollback(%s)', self.run

    def go_on(self, other):
        if self.place.status(self.run) != 'rolled_back':
            other.rows('CALL portage.rollback(%s)', self.run)

    def wrong(self):
        rows = self.place.admin.rows("SELECT count(*), count(*) FILTER (WHERE word = 'before') FROM app.t WHERE scope = %s", self.scope)
        left = self.place.admin.value('SELECT count(*) FROM portage.legacy_mappings WHERE run_id = %s', self.run)
        return (self.place.status(self.run) != 'rolled_back' or rows != [(500, 500)] or left) and (rows, left)


class VerifyRun(Case):
    def prepare(self):
        if not self.run:
            self.run, _ = self.place.imported('p', items(bad=BAD))
        return "CALL portage.verify_run(%s, 'source')", self.run

    def go_on(self, other):
        other.rows("CALL portage.verify_run(%s, 'source')", self.run)

    def wrong(self):
        verified = self.place.admin.value('SELECT verified FROM portage.migration_runs WHERE id = %s', self.run)
        return self.place.wrong_books(self.run, ITEMS - BAD) or (verified is not True and verified)


class ReplayRun(Case):
    def prepare(self):
        place = self.place
        place.admin.rows('DELETE FROM app.flag')
        self.run, self.scope = place.imported('flagged', items())
        place.admin.rows('INSERT INTO app.flag VALUES (true)')
        return 'CALL portage.replay_run(%s)', self.run

    def go_on(self, other):
        other.rows('CALL portage.replay_run(%s)', self.run)

    def wrong(self):
        return self.place.wrong_books(self.run, ITEMS)


class ResolveRun(Case):
    def prepare(self):
        place = self.place
        self.run, self.scope = place.open('asking', items())
        place.admin.rows("INSERT INTO app.contact SELECT %s, g, 'elsewhere' FROM generate_series(1, %s) g", self.scope, ITEMS)
        place.other.rows('CALL portage.run(%s)', self.run)
        return "CALL portage.resolve_run(%s, 'incoming')", self.run

    def go_on(self, other):
        if self.place.status(self.run) == 'awaiting_resolution':
            other.rows("CALL portage.resolve_run(%s, 'incoming')", self.run)
        if self.place.status(self.run) != 'completed':
            other.rows('CALL portage.run(%s)', self.run)

    def wrong(self):
        rows = self.place.admin.value("SELECT count(*) FROM app.contact WHERE scope = %s AND city = 'w' || id", self.scope)
        return (self.place.status(self.run), rows) != ('completed', ITEMS) and (self.place.status(self.run), rows)


class SettleRun(Case):
    def prepare(self):
        place = self.place
        self.run, self.scope = place.imported('books', items())
        place.admin.rows('REVOKE INSERT ON app.book FROM clerk')
        place.other.rows("SELECT portage.migrate('authors', %s, %s)", ndjson({'id': i, 'word': f'a{i}'} for i in range(3)), self.scope)
        place.admin.rows('GRANT INSERT ON app.book TO clerk')
        return 'CALL portage.settle_run(%s)', self.run

    def go_on(self, other):
        other.rows('CALL portage.settle_run(%s)', self.run)

    def wrong(self):
        return self.place.wrong_books(self.run, ITEMS)


class ImportWhatOthersWaitFor(SettleRun):
    """The end of a run settles what waits for it: not a part of the run any more."""

    def prepare(self):
        self.run, self.scope = self.place.imported('books', items())
        return ("CALL portage.import('authors', payload => %s, scope => %s)",
                ndjson({'id': i, 'word': f'a{i}'} for i in range(3)), self.scope)

    def go_on(self, other):
        begun = self.place.admin.value("SELECT id FROM portage.migration_runs WHERE pipeline = 'authors' AND scope = %s "
                                       "AND status <> 'completed'", self.scope)
        if begun:
            other.rows('CALL portage.run(%s)', begun)
        elif not self.place.admin.value("SELECT count(*) FROM portage.migration_runs WHERE pipeline = 'authors' AND scope = %s", self.scope):
            other.rows("CALL portage.import('authors', payload => %s, scope => %s)",
                       ndjson({'id': i, 'word': f'a{i}'} for i in range(3)), self.scope)
        other.rows('CALL portage.settle_run(%s)', self.run)


class InitialLoad(Case):
    """With the indexes away, and built again."""

    def prepare(self):
        self.place.admin.rows('TRUNCATE app.alone')
        self.run, _ = self.place.open('initial', items(), initial_load=True)
        return 'CALL portage.run(%s)', self.run

    def wrong(self):
        indexes = self.place.admin.value("SELECT count(*) FROM pg_index WHERE indrelid = 'app.alone'::regclass")
        return self.place.wrong_books(self.run, ITEMS) or (indexes != 3 and indexes)


class RestoreIndexes(Case):
    def prepare(self):
        place = self.place
        place.admin.rows('TRUNCATE app.alone')
        self.run, _ = place.open('initial', items(), initial_load=True)
        with Gate(place.server, f'w{ITEMS}') as gate, Session(place.server, 'clerk') as session:
            pending = session.begin('CALL portage.run(%s)', self.run)
            gate.somebody_waits()
            place.admin.rows('SELECT pg_cancel_backend(%s)', session.pid)
            pending.wait()
        place.admin.rows('DELETE FROM gates.closed')
        return 'CALL portage.restore_indexes(%s)', self.run

    def go_on(self, other):
        other.rows('CALL portage.restore_indexes(%s)', self.run)

    def wrong(self):
        indexes = self.place.admin.value("SELECT count(*) FROM pg_index WHERE indrelid = 'app.alone'::regclass")
        return indexes != 3 and indexes

    def done(self):
        self.place.other.rows('SELECT portage.cancel(%s)', self.run)


class ImportWithWorkers(Case):
    def prepare(self):
        self.scope, self.run = self.place.scope(), None
        return ('CALL portage.import(%s, payload => %s, scope => %s, options => %s)', 'several', items(), self.scope,
                '{"workers": 3, "batch_size": 200}')

    def go_on(self, other):
        self.run = self.place.admin.value('SELECT max(id) FROM portage.migration_runs WHERE scope = %s', self.scope)
        if self.run is None:
            sql, *arguments = self.prepare()
            other.rows(sql, *arguments)
            self.run = self.place.admin.value('SELECT max(id) FROM portage.migration_runs WHERE scope = %s', self.scope)
        elif self.place.status(self.run) != 'completed':
            other.rows('CALL portage.run(%s)', self.run)

    def wrong(self):
        self.run = self.place.admin.value('SELECT max(id) FROM portage.migration_runs WHERE scope = %s', self.scope)
        return self.place.wrong_books(self.run, ITEMS)


class Purge(Case):
    def prepare(self):
        self.run, _ = self.place.imported('p', items())
        return "CALL portage.purge('0 s')",

    def go_on(self, other):
        other.rows("CALL portage.purge('0 s')")

    def wrong(self):
        return self.place.admin.rows('SELECT isfinite(purged_at), (SELECT count(*) FROM portage.all_items WHERE run_id = r.id) '
                                     'FROM portage.migration_runs r WHERE id = %s', self.run) != [(True, 0)]


class Tick(Purge):
    def prepare(self):
        self.run, _ = self.place.imported('retaining', items())
        self.place.admin.rows("UPDATE portage.migration_runs SET completed_at = now() - interval '31 days' WHERE id = %s", self.run)
        self.place.admin.rows('UPDATE portage.pipelines SET retained_at = NULL')
        return 'CALL portage.tick()',

    def go_on(self, other):
        self.place.admin.rows('UPDATE portage.pipelines SET retained_at = NULL')  # once an hour, otherwise
        other.rows('CALL portage.tick()')


class WorkGroup(Case):
    def prepare(self):
        self.scope = self.place.scope()
        self.place.admin.rows("DELETE FROM app.new_a WHERE scope LIKE 'b %'")
        self.group = self.place.other.value("SELECT portage.run_group('{table_a,table_b}', %s)",
                                            json.dumps({'scope': self.scope, 'background': False}))
        return 'CALL portage.work_group(%s)', self.group

    def go_on(self, other):
        other.rows('CALL portage.work_group(%s)', self.group)

    def wrong(self):
        found = self.place.admin.rows('SELECT status, read, inserted + updated FROM portage.migration_runs WHERE group_id = %s ORDER BY id', self.group)
        return found != [('completed', 1000, 1000)] * 2 and found


class CreatePipeline(Case):
    def prepare(self):
        self.name = 'wide_' + self.place.scope()
        self.call = ('SELECT portage.create_pipeline(%s, %s, %s)', self.name, 'app.wide', json.dumps({
            'format': 'json', 'legacy_id': 'id', 'on_conflict': 'merge',
            'columns': {'id': 'id', **{c: {'sql': f"(item->>'{c}')::int"} for c in COLUMNS}},
            'merge': {c: {'sql': f'coalesce(existing.{c}, incoming.{c}) + 0'} for c in COLUMNS}}))
        return self.call

    def go_on(self, other):
        if not self.place.admin.value('SELECT count(*) FROM portage.pipelines WHERE name = %s', self.name):
            other.rows(*self.call)

    def wrong(self):
        return self.place.admin.value('SELECT count(*) FROM portage.pipelines WHERE name = %s', self.name) != 1

    def done(self):
        self.place.other.rows('SELECT portage.drop_pipeline(%s)', self.name)


class Migrate(Case):
    def prepare(self):
        self.scope = self.place.scope()
        self.call = ("SELECT portage.migrate('p', %s, %s)", items(bad=BAD), self.scope)
        return self.call

    def go_on(self, other):
        if not self.place.admin.value('SELECT count(*) FROM app.t WHERE scope = %s', self.scope):
            other.rows(*self.call)

    def wrong(self):
        run = self.place.admin.value('SELECT max(id) FROM portage.migration_runs WHERE scope = %s', self.scope)
        return self.place.wrong_books(run, ITEMS - BAD)


KINDS = {'run': Run, 'rollback': Rollback, 'verify_run': VerifyRun, 'replay_run': ReplayRun, 'resolve_run': ResolveRun,
         'settle_run': SettleRun, 'import, and what waits for it': ImportWhatOthersWaitFor, 'initial load': InitialLoad,
         'restore_indexes': RestoreIndexes, 'import with workers': ImportWithWorkers, 'tick': Tick, 'work_group': WorkGroup,
         'create_pipeline': CreatePipeline, 'migrate': Migrate, 'purge': Purge}


class Sweep:
    def __init__(self, place, name, case):
        self.place, self.name, self.case = place, name, case
        self.wrong, self.ends = [], collections.Counter()

    def moments(self):
        """Seconds that the call takes, and those after which it is disturbed."""
        took = []
        for _ in range(2):
            sql, *arguments = self.case.prepare()
            begin = time.monotonic()
            self.place.victim.rows(sql, *arguments)
            took.append(time.monotonic() - begin)
            wrong = self.case.wrong()
            check(f'{self.name}: undisturbed, all is well', not wrong, wrong)
            self.case.done()
        took = took[1]
        count = max(2, round(took * 1000)) if MOMENTS == 'all' else int(MOMENTS)
        return [took * (i + 0.5) / count for i in range(count)]

    def disturbed(self, kind, moment):
        sql, *arguments = self.case.prepare()
        victim, canceller = self.place.victim, None
        victim.connection.notices.clear()
        if kind == 'timeout':
            victim.rows(f'SET statement_timeout = {max(1, round(moment * 1000))}')
        else:
            def cancel():
                time.sleep(moment)
                self.place.admin.rows('SELECT pg_cancel_backend(%s)', victim.pid)
            canceller = threading.Thread(target=cancel)
            canceller.start()
        error = victim.error(sql, *arguments)
        if canceller:
            canceller.join()
        return error

    def usable(self, done):
        """What keeps the session from being used, or others from what it had."""
        place, victim = self.place, self.place.victim
        if victim.connection.closed:
            return 'the session is lost'
        warnings = [notice for notice in victim.connection.notices if notice.startswith('WARNING')]
        if warnings and any('items of run' not in notice for notice in warnings):
            return warnings
        if victim.connection.get_transaction_status() != psycopg2.extensions.TRANSACTION_STATUS_IDLE:
            return 'a transaction is left'
        # A timeout that falls between the last look and the end of a statement is PostgreSQL's to tell of, with the next one.
        late = victim.error('SET statement_timeout = 0')
        if done and late and late.pgcode == '57014':
            late = victim.error('SET statement_timeout = 0')
        error = late or victim.error('SELECT count(*) FROM portage.progress')
        if error:
            return told(error)
        locks = place.admin.rows('SELECT locktype, relation::regclass::text, objid, mode FROM pg_locks WHERE pid = %s', victim.pid)
        if locks:
            return ('locks', locks)
        owned = place.admin.rows('SELECT run_id, resource, expires_at FROM portage.locks WHERE (holder ->> %s)::int = %s', 'pid', victim.pid)
        if owned:
            return ('owned', owned)
        return None

    def one(self, kind, moment):
        where = f'{kind} after {1000 * moment:.1f} ms'
        error = self.disturbed(kind, moment)
        self.ends[error.pgcode if error else 'done'] += 1
        diag = error and error.diag
        if error and (error.pgcode, diag.source_file, diag.source_function) != ('57014', 'postgres.c', 'ProcessInterrupts'):
            self.wrong.append((where, told(error), diag.source_file, diag.source_function))
        unusable = self.usable(error is None)
        if unusable:
            self.wrong.append((where, unusable))
            self.ends['unusable'] += 1
        try:
            if error:
                self.case.go_on(self.place.other)
        except psycopg2.Error as refused:
            self.ends[f'then {refused.pgcode}'] += 1
            self.wrong.append((where, 'another session cannot go on', told(refused)))
            self.place.anew()  # with the session goes what it has
            until(lambda: self.place.admin.value("SELECT count(*) FROM pg_stat_activity WHERE usename = 'clerk'") == 2)
            self.case.go_on(self.place.other)
        wrong = self.case.wrong()
        if wrong:
            self.ends['wrong'] += 1
            self.wrong.append((where, 'the end is another one', wrong))
        if unusable or self.place.victim.connection.closed:
            self.place.anew()
        self.case.done()

    def work(self):
        moments = self.moments()
        for kind in ('timeout', 'cancel'):
            for moment in moments:
                self.one(kind, moment)
        print(f'figures {self.name}: {1000 * moments[-1]:.0f} ms, {dict(self.ends)}', flush=True)
        check(f'{self.name}: disturbed at {2 * len(moments)} moments, it ends with 57014, and another session goes on', not self.wrong,
              self.wrong[:4])


def main():
    with Server(log_min_messages='fatal', **{'portage.lease_duration': '1h', 'portage.admin_role': 'clerk'}) as server:
        server.psql(SETUP.format(wide=', '.join(f'{c} int' for c in COLUMNS)))
        server.psql(GATES)
        server.psql('GRANT EXECUTE ON PROCEDURE portage.purge(interval) TO clerk; GRANT ALL ON gates.closed TO clerk')
        place = Place(server)
        for name, (table, definition) in PIPELINES.items():
            place.other.rows('SELECT portage.create_pipeline(%s, %s, %s)', name, f'app.{table}', json.dumps(definition))
        for name, case in KINDS.items():
            if CASES and name not in CASES:
                continue
            Sweep(place, name, case(place)).work()
        with open(server.log, encoding='utf-8', errors='replace') as log:
            text = log.read()
        check('no server process was lost', 'was terminated by signal' not in text and 'PANIC' not in text)
    finish()


if __name__ == '__main__':
    main()
