#!/usr/bin/python3
"""Initial loads: whatever happens to a run whose target has no indexes meanwhile, it ends as a plain run on the same input
does, and the indexes are as they were. Small random inputs full of duplicates of every kind; runs that are killed at random
moments, and while indexes are built; others who read, wait, and write what is in the way; runs that fail, pause, are
cancelled or taken back; and who may do it.

PORTAGE_SEED repeats a run, PORTAGE_TRIALS sets the number of random inputs."""

import json
import os
import random
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from crash import weather  # noqa: E402
from disturbed import (COUNTERS, INVARIANTS, ITEM_ROWS, ITEMS, MAPPINGS, TARGET_ROWS, compare, dataset, furnish,  # noqa: E402
                       open_run, values)
from portage_server import Server, check, finish  # noqa: E402
from sessions import GATES, PATIENT, Gate, Session, left, ndjson, told, until  # noqa: E402

SEED = int(os.environ.get('PORTAGE_SEED', random.SystemRandom().randrange(1 << 32)))
TRIALS = int(os.environ.get('PORTAGE_TRIALS', '25'))

INDEXES = """SELECT c.relname, pg_get_indexdef(c.oid), k.conname, pg_get_constraintdef(k.oid), k.condeferred, s.spcname,
  obj_description(c.oid, 'pg_class'), obj_description(k.oid, 'pg_constraint'), i.indisvalid
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid LEFT JOIN pg_constraint k ON k.conindid = c.oid AND k.contype <> 'f'
  LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace WHERE i.indrelid = '{table}'::regclass ORDER BY 1"""

SETUP = """
CREATE TABLE parents (id integer PRIMARY KEY);
INSERT INTO parents VALUES (1), (2);
CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, owner text NOT NULL, word text NOT NULL,
                value integer NOT NULL CHECK (value <> 7), parent integer REFERENCES parents, ticket integer, a integer, b integer,
                UNIQUE (owner, word), UNIQUE (owner, ticket) DEFERRABLE INITIALLY DEFERRED);
CREATE UNIQUE INDEX pairs ON t (a, b);
CREATE INDEX by_value ON t (value) WHERE value > 1;
CREATE INDEX by_word ON t (lower(word)) TABLESPACE elsewhere;
COMMENT ON INDEX pairs IS 'two of a kind';
-- Nothing but the legacy id tells its rows apart.
CREATE TABLE u (id uuid DEFAULT gen_random_uuid() CONSTRAINT key_of_u PRIMARY KEY, word text NOT NULL, value integer NOT NULL CHECK (value <> 7),
                parent integer REFERENCES parents, ticket integer, a integer, b integer);
CREATE INDEX u_by_value ON u (value);
COMMENT ON CONSTRAINT key_of_u ON u IS 'drawn';
SELECT portage.create_pipeline('q', 'u', '{"format": "ndjson", "legacy_id": "id", "columns": {"word": "word", "value": "value",
  "parent": "parent", "ticket": "ticket", "a": "a", "b": "b"}, "rules": {"not_eight": "value <> 8"}}');
SELECT portage.create_pipeline('p', 't', '{"format": "ndjson", "legacy_id": "id", "match": ["owner", "word"],
  "columns": {"owner": "$scope", "word": "word", "value": "value", "parent": "parent", "ticket": "ticket", "a": "a", "b": "b"},
  "rules": {"not_eight": "value <> 8"}}');
"""


def random_items(chance):
    """Few ids, words, tickets and pairs, so that most items repeat something."""
    items = []
    for _ in range(chance.choice((6, 12, 30))):
        word = chance.randrange(10)
        items.append({'id': f'i{word if chance.random() < 0.6 else chance.randrange(12)}', 'word': f'w{word}',
                      'value': chance.choice((1, 1, 1, 2, 3, 7, 8)), 'parent': chance.choice((1, 1, 2, 2, 2, 9)),
                      'ticket': chance.choice((None, None, 1, 2, 3)), 'a': chance.choice((None, 1, 2)), 'b': chance.choice((1, 2))})
    return items


def outcome(session, run, table):
    """The items' last outcomes, rows and mappings, without surrogate keys."""
    items = session.rows(f"""SELECT DISTINCT ON (i.ordinal) i.ordinal, i.line, i.status, i.legacy_id, t.word, i.error_class, i.rule, i.sqlstate,
        i.column_name, i.message, i.issues::text, convert_from(i.raw, 'UTF8') FROM portage.all_items i LEFT JOIN {table} t ON t.id::text = i.target_key
        WHERE i.run_id = %s ORDER BY i.ordinal, i.revision DESC""", run)
    return {'items': [tuple(re.sub(r'\(owner, (\w+)\)=\([^,]*,', r'(owner, \1)=(OWNER,', v) if isinstance(v, str) else v for v in row)
                      for row in items],
            'target': session.rows(f'SELECT word, value, parent, ticket, a, b FROM {table} ORDER BY 1, 2, 3, 4, 5, 6'),
            'mappings': session.rows(f"""SELECT m.legacy_id, t.word, m.origin, m.ordinal FROM portage.legacy_mappings m
                LEFT JOIN {table} t ON t.id::text = m.target_key WHERE m.run_id = %s ORDER BY 1""", run),
            'counters': session.rows('SELECT status, read, inserted, updated, unchanged, skipped, conflicted, parked, invalid, failed, '
                                     'open_rejects FROM portage.migration_runs WHERE id = %s', run)}


def imported(session, pipeline, table, items, scope, **options):
    session.rows(f'TRUNCATE {table}')
    run = session.value('SELECT portage.open_run(%s, %s, %s)', pipeline, scope, json.dumps(options))
    session.rows('SELECT portage.submit(%s, %s)', run, ndjson(items))
    session.rows('CALL portage.run(%s)', run)
    return run


def small_inputs(server):
    check('items were taken back and judged again', small_inputs_of(server, 'p', 't', 3) > TRIALS)
    check('where only the key is away, none are', small_inputs_of(server, 'q', 'u', 0) == 0)


def small_inputs_of(server, pipeline, table, unique):
    """How many items were parked for a while."""
    chance = random.Random(SEED)
    taken_back = 0
    with Session(server, dbname='small') as session:
        before = session.rows(INDEXES.format(table=table))
        for trial in range(TRIALS):
            items = random_items(chance)
            truth = outcome(session, imported(session, pipeline, table, items, f'plain {trial}', batch_size=1), table)
            for size in (1, 2, 5, 1000):
                run = imported(session, pipeline, table, items, f'initial {trial} {size}', batch_size=size, initial_load=True)
                found = outcome(session, run, table)
                wrong = {what: [(a, b) for a, b in zip(truth[what], found[what]) if a != b] for what in truth
                         if truth[what] != found[what]}
                if not check(f'{table}, input {trial} in batches of {size}: as without initial_load', not wrong, (wrong, items)):
                    return taken_back
                away = session.rows('SELECT count(*) FILTER (WHERE is_key), count(*) FILTER (WHERE NOT is_key) FROM portage.deferred_indexes '
                                    'WHERE run_id = %s AND is_unique AND restored_at IS NOT NULL', run)
                if not check(f'{table}, input {trial} in batches of {size}: its key and other unique indexes were away',
                             away == [(1, unique)], away):
                    return taken_back
                taken_back += session.value("SELECT count(*) FROM portage.item_rows WHERE run_id = %s AND status = 'parked'", run)
            after = session.rows(INDEXES.format(table=table))
            if not check(f'{table}, input {trial}: the indexes are as they were', before == after, (before, after)):
                break
    return taken_back


# The indexes of app.progress beside its unique ones; one of them has a gate.
MORE = """
DROP TRIGGER no_taboo ON app.progress;
CREATE FUNCTION app.gated(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN gates.pass($1); END';
CREATE INDEX by_lemma ON app.progress (lemma, review_count DESC);
CREATE INDEX by_course ON app.progress (course_id) WHERE course_id > 10;
CREATE INDEX gated ON app.progress (app.gated(lemma));
COMMENT ON INDEX app.by_course IS 'courses';
COMMENT ON CONSTRAINT ticket_key ON app.progress IS 'once';
"""


def prepared(server, database, data, **options):
    furnish(server, database, 'ndjson', data)
    server.psql(MORE, '-d', database)
    with server.connect(database) as connection:
        return open_run(connection, 'ndjson', data, json.dumps(options))


def killed(server):
    """At random moments of the import, and while indexes are built."""
    chance = random.Random(SEED)
    data = dataset('ndjson', SEED, server.directory)
    calm_run = prepared(server, 'calm', data, batch_size=1000)
    with server.connect('calm') as connection:
        before = values(connection, INDEXES, table='app.progress')
        values_of(connection, f'CALL portage.run({calm_run})')
    run = prepared(server, 'stormy', data, batch_size=60, initial_load=True)
    kinds = ['kill -9 of the backend', 'kill -9 of the server', 'a terminated session', 'a cancelled statement']
    chance.shuffle(kinds)
    hits, error = weather(chance, server, 'stormy', run, data, kinds)
    check('it was disturbed at work', len(hits) == len(kinds), hits)
    check('called again, the run finishes', error is None, error)
    with server.connect('calm') as calm, server.connect('stormy') as stormy:
        counters = values(calm, COUNTERS, run=calm_run)
        check('the undisturbed run completed, with rejects', counters[0][0] == 'completed' and counters[0][1] == ITEMS and
              counters[0][8] > 0, counters)
        for what, sql in (('the run\'s counters', COUNTERS), ('the target\'s rows', TARGET_ROWS), ('the items', ITEM_ROWS),
                          ('the mappings', MAPPINGS)):
            compare('killed', what + ' equal those of a plain run', values(calm, sql, run=calm_run), values(stormy, sql, run=run))
        compare('killed', 'the indexes are as they were', before, values(stormy, INDEXES, table='app.progress'))
        away = values(stormy, 'SELECT count(*) FROM portage.deferred_indexes WHERE is_key AND restored_at IS NOT NULL')
        check('killed: its key was away', away == [(1,)], away)
        for what, sql in INVARIANTS.items():
            found = values(stormy, sql, run=run)
            check(f'killed: {what}', not found, found[:5])
    # And now while it builds.
    run = prepared(server, 'building', data, batch_size=1000, initial_load=True)
    for how in ('the backend', 'the server'):
        with Session(server, dbname='building') as watch, \
                Gate(server, f'lemma-{chance.randrange(1, 5000)}', dbname='building') as gate:
            session = Session(server, dbname='building')
            pending = session.begin(f'CALL portage.run({run})')
            gate.wait_for(session)
            building = watch.rows("SELECT current_step, (SELECT count(*) FROM pg_stat_progress_create_index WHERE relid = 'app.progress'::regclass) "
                                  'FROM portage.progress WHERE run_id = %s', run)
            check(f'{how}: progress tells that indexes are built', building == [('indexing', 1)], building)
            if how == 'the backend':
                watch.rows('SELECT pg_terminate_backend(%s)', session.pid)
                left(watch, session.pid)
            else:
                server.kill9()
                server.restart()
        pending.wait()
        with server.connect('building') as watch:
            missing = values(watch, 'SELECT count(*) FROM portage.deferred_indexes WHERE stays IS NULL AND restored_at IS NULL')
            told_of = values(watch, 'SELECT hold_reason FROM portage.progress WHERE run_id = {run}', run=run)
            check(f'{how} was killed while it built: an index is missing, and progress tells', missing[0][0] > 0 and told_of[0][0] ==
                  f'interrupted: CALL portage.run({run}) resumes it; indexes of the target are missing until then', (missing, told_of))
            health = values(watch, "SELECT value, state FROM portage.health() WHERE signal = 'missing_indexes'")
            check(f'{how}: health tells', health == [(missing[0][0], 'mend')], health)
    with server.connect('building') as connection, server.connect('calm') as calm:
        values_of(connection, f'CALL portage.run({run})')
        compare('killed while it built', 'the target\'s rows equal those of a plain run', values(calm, TARGET_ROWS), values(connection, TARGET_ROWS))
        compare('killed while it built', 'the indexes are as they were', before, values(connection, INDEXES, table='app.progress'))
        health = values(connection, "SELECT value, state FROM portage.health() WHERE signal = 'missing_indexes'")
        check('health is content again', health == [(0, 'ok')], health)
        values_of(connection, f'CALL portage.rollback({run})')
        check('taken back, nothing is left', values(connection, 'SELECT (SELECT count(*) FROM app.progress), '
                                                    '(SELECT count(*) FROM portage.legacy_mappings)') == [(0, 0)])


def values_of(connection, sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)


OTHERS = """
CREATE TABLE words (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code text NOT NULL UNIQUE, level integer);
CREATE INDEX by_level ON words (level);
SELECT portage.create_pipeline('words', 'words', '{"format": "ndjson", "legacy_id": "id", "match": "code",
  "columns": {"code": {"sql": "gates.pass(item ->> ''code'')"}, "level": "level"}, "on_conflict": "overwrite"}');
SELECT portage.create_pipeline('second', 'words', '{"format": "ndjson", "legacy_id": "id", "columns": {"code": "code"}}');
GRANT USAGE, CREATE ON SCHEMA public TO owner, stranger;
ALTER TABLE words OWNER TO owner;
SELECT portage.grant_pipeline('words', 'owner', 'run'), portage.grant_pipeline('words', 'stranger', 'run');
GRANT SELECT, INSERT, UPDATE, DELETE ON words TO stranger;
"""


class Slow:
    """An initial load of small batches that stands at a gate; its first three batches have been committed."""

    def __init__(self, server, items, user='postgres', **options):
        self.server = server
        self.watch, self.session = Session(server, dbname='others'), Session(server, user, dbname='others')
        self.run = self.session.value("SELECT portage.open_run('words', options => %s)",
                                      json.dumps({'initial_load': True, 'batch_size': 5, **options}))
        self.session.rows('SELECT portage.submit(%s, %s)', self.run, ndjson(items))
        self.start('c18')

    def start(self, at):
        self.gate = Gate(self.server, at, dbname='others')
        self.pending = self.session.begin('CALL portage.run(%s)', self.run)
        self.gate.wait_for(self.session)

    def go_on(self):
        """To the end of the call."""
        self.gate.open()
        return self.pending.wait()

    def missing(self):
        return self.watch.value('SELECT count(*) FROM portage.deferred_indexes WHERE run_id = %s AND stays IS NULL AND restored_at IS NULL',
                                self.run)

    def status(self):
        return self.watch.value('SELECT status FROM portage.status(%s)', self.run)

    def interrupt(self):
        self.watch.value('SELECT pg_terminate_backend(%s)', self.session.pid)
        left(self.watch, self.session.pid)
        self.go_on()
        self.session = Session(self.server, dbname='others')

    def again(self):
        """Taken back; the indexes are there."""
        self.watch.rows('CALL portage.rollback(%s)', self.run)
        found = (self.watch.value('SELECT count(*) FROM words'), self.missing(),
                 self.watch.value("SELECT count(*) FROM pg_index WHERE indrelid = 'words'::regclass AND indisvalid"),
                 self.watch.rows("SELECT pid, mode FROM pg_locks WHERE relation = 'words'::regclass AND granted"))
        check('taken back: the table is empty, the indexes are there, nothing is locked', found == (0, 0, 3, []), found)


def many(count, repeat=None):
    items = [{'id': n, 'code': f'c{n}', 'level': n % 7} for n in range(1, count + 1)]
    if repeat:
        items[-1]['code'] = repeat
    return items


def others(server):
    admin = Session(server, dbname='others')
    before = admin.rows(INDEXES.format(table='words'))
    items = many(100)

    # Who reads, reads; who writes, waits.
    slow = Slow(server, items)
    check('while it works all indexes are away', slow.missing() == 3, slow.missing())
    reader, writer = Session(server, dbname='others'), Session(server, dbname='others')
    reader.rows("SET lock_timeout = '200ms'")
    for what, statement in (('is created', "SELECT portage.create_pipeline('third', 'words', (SELECT definition FROM portage.pipeline_versions LIMIT 1))"),
                            ('imports', "SELECT portage.migrate('second', '{}', options => '{\"raise\": true}')")):
        error = reader.error(statement)
        check(f'no other pipeline {what} while the key is away', error is not None and error.pgcode == 'PZ002' and
              f'Run {slow.run}, an initial load' in error.diag.message_detail and f'restore_indexes({slow.run})' in error.diag.message_hint,
              told(error))
    found = reader.value("SELECT portage.plan('second', '{}') #>> '{blockers,0,sqlstate}'")
    check('it is a blocker of theirs', found == 'PZ002', found)
    check('a reader reads what is committed', reader.value('SELECT count(*) FROM words') == 15 and not slow.pending.done())
    error = reader.error("UPDATE words SET level = 0 WHERE code = 'c1'")
    check('a writer with a limit is refused', error is not None and error.pgcode == '55P03', told(error))
    waiting = writer.begin("INSERT INTO words (code) VALUES ('late')")
    slow.gate.wait_for(writer)
    slow.go_on().result()
    waiting.result()
    check('a writer without one has its turn at the end', slow.status() == 'completed' and admin.value('SELECT count(*) FROM words') == 101)
    check('the indexes are as they were', admin.rows(INDEXES.format(table='words')) == before)
    admin.rows("DELETE FROM words WHERE code = 'late'")
    slow.again()

    # Paused, and gone on with.
    slow = Slow(server, many(60, repeat='c1'))
    admin.rows('SELECT portage.pause(%s)', slow.run)
    slow.go_on().result()
    reason = admin.value('SELECT hold_reason FROM portage.progress WHERE run_id = %s', slow.run)
    check('paused: progress tells that indexes are missing', slow.status() == 'paused' and slow.missing() == 3 and
          reason == f'paused; SELECT portage.resume({slow.run}) goes on; indexes of the target are missing until then', reason)
    check('paused: nothing is locked', not admin.rows("SELECT 1 FROM pg_locks WHERE relation = 'words'::regclass"))
    slow.start('c38')
    error = reader.error("UPDATE words SET level = 0 WHERE code = 'c1'")
    check('gone on with, it is locked again', error is not None and error.pgcode == '55P03', told(error))
    slow.go_on().result()
    rejects = admin.rows('SELECT ordinal, rule, message FROM portage.rejects WHERE run_id = %s', slow.run)
    check('what repeats an item from before the pause is a duplicate', slow.status() == 'completed' and
          rejects == [(60, 'duplicate', 'item 60 has the match key of item 1')], rejects)
    slow.again()

    # Paused, and put back without going on.
    slow = Slow(server, many(60, repeat='c1'))
    admin.rows('SELECT portage.pause(%s)', slow.run)
    slow.go_on().result()
    admin.rows('CALL portage.restore_indexes(%s)', slow.run)
    check('restore_indexes() puts back what a paused run lacks', slow.missing() == 0 and slow.status() == 'paused' and
          admin.rows(INDEXES.format(table='words')) == before)
    admin.rows('CALL portage.run(%s)', slow.run)
    check('and the run goes on with them', slow.status() == 'completed' and admin.value('SELECT count(*) FROM words') == 59)
    slow.again()

    # Cancelled, and failed.
    slow = Slow(server, items)
    admin.rows('SELECT portage.cancel(%s)', slow.run)
    slow.go_on().result()
    check('cancelled, it puts the indexes back', slow.status() == 'cancelled' and slow.missing() == 0 and
          admin.rows(INDEXES.format(table='words')) == before)
    slow.again()
    bad = many(60)
    bad[40]['level'] = bad[45]['level'] = 'no number'
    slow = Slow(server, bad, max_rejects=1)
    error = slow.go_on().error
    check('failed, it puts the indexes back', error is not None and error.pgcode == 'PZ011' and slow.status() == 'failed' and
          slow.missing() == 0 and admin.rows(INDEXES.format(table='words')) == before,
          (told(error), slow.status(), slow.missing(), admin.value('SELECT error FROM portage.migration_runs WHERE id = %s', slow.run)))
    slow.again()

    # Cancelled while nobody worked on it: told, and put back by hand or by the rollback.
    slow = Slow(server, many(60, repeat='c1'))
    slow.interrupt()
    admin.rows('SELECT portage.cancel(%s)', slow.run)
    reason = admin.value('SELECT hold_reason FROM portage.progress WHERE run_id = %s', slow.run)
    check('cancelled by hand: what to do is told', reason ==
          f'indexes of the target are missing: CALL portage.restore_indexes({slow.run}) builds them', reason)
    advice = admin.rows("SELECT sql FROM portage.recommendations(%s) WHERE code = 'indexes'", slow.run)
    check('and recommended', advice == [(f'CALL portage.restore_indexes({slow.run});',)], advice)
    error = admin.error('SELECT * FROM portage.replay(%s)', slow.run)
    check('nothing is replayed without them', error is not None and error.pgcode == 'PZ006' and 'restore_indexes' in error.diag.message_hint,
          told(error))
    error = admin.error('SELECT portage.verify(%s)', slow.run)
    check('nor verified', error is not None and error.pgcode == 'PZ006' and 'restore_indexes' in error.diag.message_hint, told(error))
    possible = admin.rows('SELECT possible, rows = (SELECT count(*) FROM words) FROM portage.can_rollback(%s)', slow.run)
    check('but it could be taken back', possible == [(True, True)], possible)
    error = admin.error("SELECT portage.drop_pipeline('words', true)")
    check('their definitions are not dropped', error is not None and error.pgcode == 'PZ006', told(error))
    slow.again()

    # Others have written while the run was interrupted: what its items meet, they meet as in any import.
    slow = Slow(server, many(60))
    slow.interrupt()
    admin.rows("INSERT INTO words (code, level) VALUES ('c2', 99), ('c55', 99)")
    slow.start('c38')
    slow.go_on().result()
    rows = admin.rows("SELECT w.code, w.level, m.origin FROM words w JOIN portage.legacy_mappings m ON m.target_key = w.id::text "
                      "WHERE w.code IN ('c2', 'c55') ORDER BY 1")
    check('rows of others that came meanwhile are met by the policy', slow.status() == 'completed' and
          rows == [('c2', 2, 'overwritten'), ('c55', 6, 'overwritten')] and admin.value('SELECT count(*) FROM words') == 60, rows)
    check('and the indexes are as they were', admin.rows(INDEXES.format(table='words')) == before)
    admin.rows("CALL portage.rollback(%s)", slow.run)
    check('taken back, the others\' rows are as they were', admin.rows('SELECT code, level FROM words ORDER BY 1') == [('c2', 99), ('c55', 99)])
    admin.rows('DELETE FROM words')

    # Rows that nobody can make unique but whoever wrote them.
    slow = Slow(server, many(60))
    slow.interrupt()
    admin.rows("INSERT INTO words (code) VALUES ('twice'), ('twice')")
    error = slow.session.error('CALL portage.run(%s)', slow.run)
    check('equal rows of others: it is told which, and what to do', error is not None and error.pgcode == '23505' and
          'words_code_key" cannot be put back' in error.diag.message_primary.replace('public.words_code_key', '"words_code_key"') and
          'are equal by it' in error.diag.message_detail and 'restore_indexes' in error.diag.message_hint, told(error))
    check('the run has failed, its items are there', slow.status() == 'failed' and admin.value('SELECT count(*) FROM words') == 62 and
          slow.missing() > 0)
    admin.rows("DELETE FROM words WHERE code = 'twice'")
    admin.rows('CALL portage.restore_indexes(%s)', slow.run)
    check('without them it is put back', slow.missing() == 0 and admin.rows(INDEXES.format(table='words')) == before)
    slow.session.rows('CALL portage.run(%s)', slow.run)
    check('and the run completes', slow.status() == 'completed')
    slow.again()

    # Rows of others with keys of the run's: nobody can tell which is whose.
    slow = Slow(server, many(60))
    slow.interrupt()
    key = admin.value("INSERT INTO words (id, code) OVERRIDING SYSTEM VALUE SELECT min(id), 'stranger' FROM words RETURNING id")
    error = slow.session.error('CALL portage.run(%s)', slow.run)
    check('a key twice: it is told which, and what to do', error is not None and error.pgcode == '23505' and
          'words_pkey cannot be put back' in error.diag.message_primary and f'Key (id)=({key}) is duplicated' in error.diag.message_detail and
          'restore_indexes' in error.diag.message_hint and slow.status() == 'failed' and slow.missing() == 3, (told(error), slow.missing()))
    error = admin.error('CALL portage.rollback(%s)', slow.run)
    check('nothing is taken back by a key that is there twice', error is not None and error.pgcode == '23505' and slow.status() == 'failed' and
          admin.value('SELECT count(*) FROM words') == 61, told(error))
    admin.rows("DELETE FROM words WHERE code = 'stranger'")
    slow.session.rows('CALL portage.run(%s)', slow.run)
    check('without it the run completes', slow.status() == 'completed' and admin.rows(INDEXES.format(table='words')) == before)
    slow.again()

    # Another key, made meanwhile.
    slow = Slow(server, many(60))
    slow.interrupt()
    admin.rows('ALTER TABLE words ADD CONSTRAINT other PRIMARY KEY (code)')
    error = slow.session.error('CALL portage.run(%s)', slow.run)
    check('another key than the run began with is refused', error is not None and error.pgcode == 'PZ009' and
          'words_pkey' in error.diag.message_detail and slow.status() == 'paused', (told(error), slow.status()))
    admin.rows('ALTER TABLE words DROP CONSTRAINT other')
    slow.session.rows('CALL portage.run(%s)', slow.run)
    check('without it the run completes', slow.status() == 'completed' and admin.rows(INDEXES.format(table='words')) == before)
    slow.again()

    # Taken back by itself.
    slow = Slow(server, bad, max_rejects=1, on_failure='rollback')
    error = slow.go_on().error
    check('failed and taken back, it has its indexes', error is not None and error.pgcode == 'PZ011' and slow.status() == 'rolled_back' and
          slow.missing() == 0 and admin.value('SELECT count(*) FROM words') == 0 and admin.rows(INDEXES.format(table='words')) == before,
          (told(error), slow.status(), slow.missing()))

    # Dumped in the middle: the copy goes on.
    slow = Slow(server, many(60, repeat='c1'))
    slow.interrupt()
    program = os.path.join(server.bindir, 'pg_dump')
    dump = subprocess.run([program, '--no-sync', 'others'], env=server.environment(), check=True, capture_output=True, text=True).stdout
    server.psql('CREATE DATABASE copied')
    server.psql(dump, '-d', 'copied')
    with Session(server, dbname='copied') as copy:
        copy.rows('CALL portage.run(%s)', slow.run)
        found = (copy.value('SELECT status FROM portage.status(%s)', slow.run), copy.value('SELECT count(*) FROM words'))
        check('a copy made of a dump has the key again when the run has gone on', found == ('completed', 59) and
              copy.rows(INDEXES.format(table='words')) == before, (found, copy.rows(INDEXES.format(table='words'))))
        copy.rows('CALL portage.rollback(%s)', slow.run)
        check('and is taken back', copy.value('SELECT count(*) FROM words') == 0)
    slow.start('c38')
    slow.go_on().result()
    slow.again()

    # Somebody is writing it when the run begins: waited for, and looked at again.
    for end, status in (('ROLLBACK', 'completed'), ('COMMIT', 'failed')):
        writer.rows('BEGIN')
        writer.rows("INSERT INTO words (code) VALUES ('early')")
        slow = Slow.__new__(Slow)
        slow.watch, slow.session = admin, Session(server, dbname='others')
        slow.session.rows("SET portage.lock_timeout = '200ms'")
        slow.run = admin.value("SELECT portage.open_run('words', options => '{\"initial_load\": true}')")
        admin.rows('SELECT portage.submit(%s, %s)', slow.run, ndjson(many(5)))
        pending = slow.session.begin('CALL portage.run(%s)', slow.run)
        held = until(lambda: admin.value('SELECT hold_reason FROM portage.progress WHERE run_id = %s', slow.run))
        check('a writer is waited for, and progress tells', held == 'waits for a lock that another session holds' and not pending.done(), held)
        writer.rows(end)
        error = pending.wait().error
        check(f'after its {end} the run has {status}', slow.status() == status and (error is None or (
            error.pgcode == '55000' and 'Table public.words has rows' in error.diag.message_detail)), (slow.status(), told(error)))
        check(f'after its {end} the indexes are as they were', admin.rows(INDEXES.format(table='words')) == before)
        admin.rows("DELETE FROM words WHERE code = 'early'")
        if status == 'failed':
            slow.session.rows('CALL portage.run(%s)', slow.run)
            check('tried again without its row, it completes', slow.status() == 'completed' and slow.missing() == 0)
        slow.again()

    # Whose table it is.
    owner, stranger = Session(server, 'owner', dbname='others'), Session(server, 'stranger', dbname='others')
    opened = "SELECT portage.open_run('words', options => '{\"initial_load\": true}')"
    run = stranger.value(opened)
    stranger.rows('SELECT portage.submit(%s, %s)', run, ndjson(many(5)))
    error = stranger.error('CALL portage.run(%s)', run)
    check('another role is refused', error is not None and error.pgcode == '42501' and 'must be owner of table' in error.diag.message_primary,
          told(error))
    check('and nothing was taken away', admin.rows(INDEXES.format(table='words')) == before)
    admin.rows('REVOKE CREATE ON SCHEMA public FROM owner, PUBLIC')
    run = owner.value(opened)
    owner.rows('SELECT portage.submit(%s, %s)', run, ndjson(many(5)))
    error = owner.error('CALL portage.run(%s)', run)
    check('an owner who could not create the indexes again is refused', error is not None and error.pgcode == '42501' and
          'GRANT CREATE ON SCHEMA' in error.diag.message_hint, told(error))
    admin.rows('GRANT CREATE ON SCHEMA public TO owner')
    owner.rows('CALL portage.run(%s)', run)
    check('the owner may', owner.value('SELECT status FROM portage.status(%s)', run) == 'completed' and
          admin.rows(INDEXES.format(table='words')) == before)
    check('another role sees nothing of it', stranger.value('SELECT count(*) FROM portage.deferred_indexes WHERE run_id = %s', run) == 0 and
          owner.value('SELECT count(*) FROM portage.deferred_indexes WHERE run_id = %s', run) == 3)
    owner.rows('CALL portage.rollback(%s)', run)

    # By a background worker.
    run = admin.value(opened)
    admin.rows('SELECT portage.submit(%s, %s)', run, ndjson(many(20, repeat='c3')))
    admin.rows('SELECT portage.start(%s)', run)
    status = admin.value('CALL portage.wait(%s, \'60 s\', NULL)', run)
    check('a background worker does it', status == 'completed' and admin.value('SELECT count(*) FROM words') == 19 and
          admin.rows(INDEXES.format(table='words')) == before, status)


def main():
    print(f'seed {SEED}', flush=True)
    with Server(max_wal_size='1GB', **PATIENT) as server:
        place = os.path.join(server.directory, 'elsewhere')
        server.psql("CREATE ROLE owner LOGIN; CREATE ROLE stranger LOGIN;")
        os.mkdir(place)
        if os.geteuid() == 0:
            import shutil
            shutil.chown(place, 'postgres', 'postgres')
        server.psql(f"CREATE TABLESPACE elsewhere LOCATION '{place}'")
        for database, setup in (('small', SETUP), ('others', GATES + OTHERS)):
            server.psql(f'CREATE DATABASE {database}')
            server.psql('CREATE EXTENSION pg_portage;' + setup, '-d', database)
        for part in (small_inputs, others, killed):
            start = time.monotonic()
            part(server)
            print(f'        {part.__name__}: {time.monotonic() - start:.0f} s', flush=True)
    finish()


if __name__ == '__main__':
    main()
