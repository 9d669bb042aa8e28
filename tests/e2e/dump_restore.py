#!/usr/bin/python3
"""pg_dump and restore carry everything: pipelines, grants, runs with their parts and payloads, items, mappings, undo,
events, and the numbering. What is restored works on: with other oids of tables and roles, in another cluster, and from the
middle of a run. DROP EXTENSION leaves nothing behind."""

import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import Server, check, finish  # noqa: E402
from sessions import GATES, PATIENT, Gate, Session, ndjson, told  # noqa: E402

ROLES = ['owner', 'runner', 'reader', 'stranger']
COUNTS = 'status, read, inserted, updated, unchanged, skipped, invalid, failed'
DEFINITION = """{"format": "ndjson", "legacy_id": "id", "columns": {"code": "code", "n": "n", "day": "day", "owner": {"sql": "current_user::text"}},
  "match": ["code"], "on_conflict": "overwrite", "rules": {"positive": "n >= 0"}, "sensitive": ["day"]}"""


def items(first, last, add=0):
    return [{'id': f'c{n}', 'code': f'c{n}', 'n': n + add, 'day': '2024-02-29'} for n in range(first, last + 1)]


def tool(server, program, *arguments, stdin=None):
    done = subprocess.run([os.path.join(server.bindir, program), *arguments], env=server.environment(), input=stdin,
                          capture_output=True, check=False)
    check(f'{program} succeeds without a warning', done.returncode == 0 and not done.stderr, done.stderr.decode()[-2000:])
    return done.stdout


def contents(session):
    """Every table of the ledger as text, and where its sequences stand."""
    tables = [row[0] for row in session.rows("SELECT relname FROM pg_class WHERE relnamespace = 'portage'::regnamespace AND relkind = 'r' ORDER BY 1")]
    sequences = [row[0] for row in session.rows("SELECT relname FROM pg_class WHERE relnamespace = 'portage'::regnamespace AND relkind = 'S' ORDER BY 1")]
    found = {table: session.rows(f'SELECT t::text FROM portage.{table} t ORDER BY 1') for table in tables}
    found.update({sequence: session.rows(f'SELECT last_value, is_called FROM portage.{sequence}') for sequence in sequences})
    return found


def views(session):
    """What the views show, but for what depends on the moment or on oids."""
    return {
        'rejects': session.rows('SELECT * FROM portage.rejects ORDER BY run_id, ordinal'),
        'migration_items': session.rows('SELECT * FROM portage.migration_items ORDER BY run_id, ordinal, revision'),
        'progress': session.rows('SELECT run_id, pipeline, scope, status, read, inserted, updated, unchanged, invalid, open_rejects FROM portage.progress ORDER BY 1'),
        'lookup': session.rows("SELECT portage.lookup('owner/words', 'c' || n) FROM generate_series(1, 60) n"),
        'summary': session.rows("SELECT s FROM (SELECT id FROM portage.migration_runs WHERE status <> 'running' ORDER BY id) r, portage.summary(id) s"),
        'row_hash': session.rows('SELECT portage.row_hash(w) FROM app.words w ORDER BY code'),
    }


def make_source(server, admin):
    for role in ROLES:
        admin.rows(f'CREATE ROLE {role} LOGIN')
    admin.rows('CREATE SCHEMA app; CREATE TABLE app.words (id bigserial PRIMARY KEY, code text NOT NULL UNIQUE, n int, day date, owner text, note text); '
               "INSERT INTO app.words (code, n, note) VALUES ('c1', -5, 'was there'), ('c2', 2, 'was there'); "
               + GATES + "CREATE TRIGGER gate BEFORE INSERT ON app.words FOR EACH ROW EXECUTE FUNCTION gates.keep('n');"
               'GRANT USAGE ON SCHEMA app TO owner, runner; GRANT ALL ON app.words TO owner, runner; '
               'GRANT ALL ON SEQUENCE app.words_id_seq TO owner, runner')
    with Session(server, 'owner') as owner:
        owner.rows("SELECT portage.create_pipeline('dropped later', 'app.words', %s)", DEFINITION)
        owner.rows("SELECT portage.create_pipeline('words', 'app.words', %s)", DEFINITION)
        owner.rows("SELECT portage.drop_pipeline('dropped later')")
        owner.rows("SELECT portage.replace_pipeline('words', %s)", DEFINITION)
        owner.rows("SELECT portage.grant_pipeline('words', 'runner', 'run')")
        owner.rows("CALL portage.import('words', payload => %s)",
                   ndjson(items(1, 50) + [{'id': 'bad', 'code': 'bad', 'n': -1, 'day': '2024-01-01'}, {'id': 'worse', 'code': 'worse', 'n': 1, 'day': 'x'}])
                   + '\n{"id": broken ä\t')
        owner.rows("SELECT portage.replay(max(id), 52, %s) FROM portage.migration_runs", ndjson([{'id': 'worse', 'code': 'worse', 'n': 1, 'day': 'y'}]))
        owner.rows("CALL portage.import('words', payload => %s)", ndjson(items(1, 20, add=100)))  # updates, hence undo
        pending = owner.value("SELECT portage.open_run('words', 'later', name => 'pending', metadata => '{\"k\": [1, null]}')")
        owner.rows('SELECT portage.submit(%s, %s)', pending, ndjson(items(61, 65)))
    admin.rows("SELECT portage.grant_pipeline('owner/words', 'reader', 'read')")
    with Session(server, 'runner') as runner:
        runner.rows("SELECT portage.migrate('owner/words', %s, 'of the runner')", ndjson(items(51, 60)))
    check('there is something of everything', all(admin.value(f'SELECT count(*) FROM portage.{table}') > 0 for table in (
        'pipelines', 'pipeline_versions', 'pipeline_grants', 'migration_runs', 'migration_parts', 'migration_payloads', 'migration_ranges',
        'migration_batches', 'item_rows', 'item_packs', 'item_corrections', 'mapping_rows', 'mapping_packs', 'migration_undo', 'migration_events')))
    return pending


def compare(what, source, copy):
    for name, rows in source.items():
        check(f'{what}: {name} is the same', copy.get(name) == rows,
              next(((a, b) for a, b in zip(rows, copy.get(name, [])) if a != b), (len(rows), len(copy.get(name, [])))))


def works_on(what, server, dbname, pending, interrupted):
    """The restored database takes up where the old one stood."""
    admin = Session(server, dbname=dbname)
    owner, runner, reader, stranger = (Session(server, role, dbname=dbname) for role in ROLES)
    check(f'{what}: the target has another oid than the ledger remembers',
          admin.value("SELECT bool_and(target_oid <> 'app.words'::regclass) FROM portage.pipeline_versions"))
    # the run that was under way when the dump was taken
    check(f'{what}: a run that was under way shows as interrupted',
          admin.rows('SELECT status, is_running, processed_items FROM portage.status(%s)', interrupted) == [('running', False, 100)],
          admin.rows('SELECT status, is_running, processed_items FROM portage.status(%s)', interrupted))
    error = owner.error('CALL portage.run(%s)', interrupted)
    check(f'{what}: ... and goes on here', error is None and
          admin.rows(f'SELECT {COUNTS} FROM portage.status(%s)', interrupted) == [('completed', 300, 300, 0, 0, 0, 0, 0)],
          (told(error), admin.rows(f'SELECT {COUNTS} FROM portage.status(%s)', interrupted)))
    check(f'{what}: a pending run can be run', owner.error('CALL portage.run(%s)', pending) is None and
          admin.value('SELECT inserted FROM portage.status(%s)', pending) == 5)
    # incremental
    greatest = admin.value('SELECT max(id) FROM portage.migration_runs')
    events = admin.value('SELECT max(id) FROM portage.migration_events')
    error = owner.error("CALL portage.import('words', payload => %s)", ndjson(items(1, 20, add=100) + items(21, 50)))
    run = admin.value('SELECT max(id) FROM portage.migration_runs')
    check(f'{what}: an incremental run finds everything unchanged', error is None and
          admin.rows(f'SELECT {COUNTS} FROM portage.status(%s)', run) == [('completed', 50, 0, 0, 50, 0, 0, 0)],
          (told(error), admin.rows(f'SELECT {COUNTS} FROM portage.status(%s)', run)))
    check(f'{what}: the numbering of runs and events goes on', run == greatest + 1 and admin.value('SELECT min(id) FROM portage.migration_events WHERE run_id = %s', run) > events)
    check(f'{what}: a change is an update, with its before-image',
          owner.value("SELECT updated FROM portage.migrate('words', %s)", ndjson(items(30, 30, add=7))) == 1 and
          admin.value("SELECT before[array_position(columns, 'n')] FROM portage.migration_undo WHERE run_id = (SELECT max(id) FROM portage.migration_runs)") == '30')
    ids = [row[0] for row in admin.rows('SELECT id FROM portage.pipelines')]
    fresh = owner.value("SELECT portage.create_pipeline('fresh', 'app.words', %s)", DEFINITION)
    check(f'{what}: a new pipeline gets a fresh id', fresh > max(ids), (fresh, ids))
    # rights go by the role
    check(f'{what}: the owner is the owner', owner.error("SELECT portage.replace_pipeline('words', %s)", DEFINITION) is None and
          owner.value("SELECT count(*) FROM portage.migration_runs WHERE pipeline = 'words'") == admin.value("SELECT count(*) FROM portage.migration_runs WHERE pipeline = 'words'"))
    check(f"{what}: 'run' is 'run'", runner.error("SELECT portage.migrate('owner/words', %s, 'of the runner')", ndjson(items(51, 60))) is None and
          runner.value("SELECT count(DISTINCT role_name) = 1 AND min(role_name) = 'runner' FROM portage.migration_runs"))
    check(f"{what}: expressions are evaluated as the owner", admin.value("SELECT owner FROM app.words WHERE code = 'c55'") == 'owner')
    check(f"{what}: 'read' is 'read'", reader.value("SELECT count(*) FROM portage.rejects") == 3 and
          reader.error("SELECT portage.migrate('words', '{}'::text)").pgcode == '42501')
    check(f'{what}: what an administrator granted is found by its bare name, what the owner granted is not',
          runner.error("SELECT portage.pipeline_id('words')").pgcode == 'PZ004' and
          reader.value("SELECT portage.pipeline_name(portage.pipeline_id('words'))") == 'words')
    check(f'{what}: sensitive stays sensitive', reader.value("SELECT bool_and(raw LIKE '%%***%%') FROM portage.rejects") and
          owner.value("SELECT bool_or(raw LIKE '%%2024-01-01%%') FROM portage.rejects"))
    check(f'{what}: a stranger sees nothing', all(stranger.value(f'SELECT count(*) FROM portage.{relation}') == 0 for relation in (
        'pipelines', 'migration_runs', 'migration_items', 'rejects', 'legacy_mappings', 'migration_parts', 'migration_events')))
    refused = stranger.error('DELETE FROM portage.migration_runs')
    check(f'{what}: nobody writes the ledger by hand', refused is not None and refused.pgcode == '42501')
    for session in (owner, runner, reader, stranger, admin):
        session.close()


def drop_and_create(server, admin):
    admin.rows('CREATE DATABASE clean')
    with Session(server, dbname='clean') as session:
        for attempt in ('first', 'second'):
            session.rows('CREATE EXTENSION pg_portage')
            session.rows('CREATE SCHEMA IF NOT EXISTS app; CREATE TABLE IF NOT EXISTS app.t (id int PRIMARY KEY)')
            check(f'{attempt} time: a fresh ledger begins with 1',
                  session.value("SELECT portage.create_pipeline('t', 'app.t', '{\"format\": \"ndjson\", \"legacy_id\": \"id\", \"columns\": {\"id\": \"id\"}}')") == 1 and
                  session.value("SELECT run_id FROM portage.migrate('t', '{\"id\": %s}'::text)" % (1 if attempt == 'first' else 2)) == 1)
            session.rows('DROP TABLE app.t' if attempt == 'second' else 'SELECT 1')
            error = session.error('DROP EXTENSION pg_portage')
            check(f'{attempt} time: DROP EXTENSION needs no CASCADE', error is None, told(error))
            left = session.rows("SELECT relname FROM pg_class WHERE relnamespace = 'portage'::regnamespace UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = "
                                "'portage'::regnamespace UNION ALL SELECT typname FROM pg_type WHERE typnamespace = 'portage'::regnamespace")
            check(f'{attempt} time: nothing is left', left == [], left)
        check('imported rows stay', session.value("SELECT to_regclass('app.t') IS NULL"))
        # dropped in the middle of things, and by a session that has used it
        session.rows('CREATE EXTENSION pg_portage; CREATE TABLE app.t (id int PRIMARY KEY)')
        error = session.error("SELECT portage.create_pipeline('t', 'app.t', '{\"format\": \"ndjson\", \"legacy_id\": \"id\", \"columns\": {\"id\": \"id\"}}')")
        check('a session that saw the old extension works with the new one', error is None and
              session.error("SELECT portage.migrate('t', '{\"id\": 1}'::text)") is None, told(error))
        session.rows('BEGIN; DROP EXTENSION pg_portage; ROLLBACK')
        check('... also after a DROP that was rolled back', session.value("SELECT unchanged FROM portage.migrate('t', '{\"id\": 1}'::text)") == 1)
        # a view of the user's own holds the extension back, as it should
        session.rows('CREATE VIEW app.mine AS SELECT * FROM portage.rejects')
        error = session.error('DROP EXTENSION pg_portage')
        check('DROP EXTENSION respects what depends on it', error is not None and error.pgcode == '2BP01', told(error))
        check('... until told otherwise', session.error('DROP EXTENSION pg_portage CASCADE') is None)


# PATIENT: a batch that stepped back from the gate would change the ledger between dump and comparison.
with Server(**PATIENT) as source_server, Server() as other_server:
    source = Session(source_server)
    source.rows('CREATE EXTENSION pg_portage')
    pending_run = make_source(source_server, source)
    # a run that is in its second batch when the dump is taken
    gate = Gate(source_server, 1150)
    worker = Session(source_server, 'owner')
    worker.rows("SET portage.lock_timeout = '10min'")  # the ledger stands still while it is dumped, however long that takes
    interrupted_run = worker.value("SELECT portage.open_run('words', 'under way', '{\"batch_size\": 100}')")
    worker.rows('SELECT portage.submit(%s, %s)', interrupted_run, ndjson(items(1001, 1300)))
    under_way = worker.begin('CALL portage.run(%s)', interrupted_run)
    check('a run is under way', gate.wait_for(worker))
    plain = tool(source_server, 'pg_dump', '--no-sync')
    archive = os.path.join(source_server.directory, 'archive')
    tool(source_server, 'pg_dump', '--no-sync', '-Fc', '-f', archive)
    ledger, shown = contents(source), views(source)

    # plain, into a new database of the same cluster, while the run is still under way in the old one
    source.rows('CREATE DATABASE plain')
    with Session(source_server, dbname='plain') as session:
        session.rows('CREATE TABLE moves_the_oids ()')
    tool(source_server, 'psql', '-X', '-q', '-o', os.devnull, '-v', 'ON_ERROR_STOP=1', '-d', 'plain', stdin=plain)
    with Session(source_server, dbname='plain') as session:
        compare('plain', ledger, contents(session))
        compare('plain', shown, views(session))
    works_on('plain', source_server, 'plain', pending_run, interrupted_run)
    check('the run in the old database is not touched by that', not under_way.done())
    gate.open()
    check('... and completes', under_way.wait().error is None and
          source.rows(f'SELECT {COUNTS} FROM portage.status(%s)', interrupted_run) == [('completed', 300, 300, 0, 0, 0, 0, 0)])
    worker.close()

    # custom format, into another cluster, where the roles have each other's oids
    other = Session(other_server)
    for role in ['somebody', *reversed(ROLES)]:
        other.rows(f'CREATE ROLE {role} LOGIN')
    names = "SELECT oid::int, rolname FROM pg_roles WHERE rolname = ANY (%s) ORDER BY 1"
    check('in the other cluster the oids mean other roles', source.rows(names, ROLES) != other.rows(names, ROLES))
    other.rows('CREATE DATABASE custom')
    tool(other_server, 'pg_restore', '--exit-on-error', '-j', '2', '-d', 'custom', archive)
    with Session(other_server, dbname='custom') as session:
        compare('custom', ledger, contents(session))
        compare('custom', shown, views(session))
        for role in ROLES:
            with Session(other_server, role, dbname='custom') as somebody:
                check(f'custom: before adopt_roles() {role} sees nothing', all(somebody.value(f'SELECT count(*) FROM portage.{relation}') == 0 for relation in (
                    'pipelines', 'pipeline_grants', 'migration_runs', 'migration_items', 'rejects', 'legacy_mappings', 'migration_parts', 'migration_events')))
                for sql in (f'CALL portage.run({pending_run})', "SELECT portage.migrate('words', '{}'::text)", "SELECT portage.drop_pipeline('words', true)"):
                    error = somebody.error(sql)
                    check(f'custom: ... and is told why: {sql}', error is not None and error.pgcode == '55000', told(error))
        adopted = session.rows('SELECT name, old_oid <> new_oid, remark FROM portage.adopt_roles(confirm => true)')
        check('custom: adopt_roles() finds each by its name',
              {row for row in adopted if row[0] in ROLES} == {(role, True, None) for role in ('owner', 'runner', 'reader')}, adopted)
        compare('custom, adopted', shown, views(session))
    works_on('custom', other_server, 'custom', pending_run, interrupted_run)

    # a role that the other cluster does not have: its runs are there for the superuser, and harm nobody
    other.rows('CREATE DATABASE lacking')
    other.rows('DROP OWNED BY runner')
    with Session(other_server, dbname='custom') as session:
        session.rows('DROP OWNED BY runner')
    other.rows('DROP ROLE runner')
    subprocess.run([os.path.join(other_server.bindir, 'pg_restore'), '-d', 'lacking', '-x', archive], env=other_server.environment(),
                   capture_output=True, check=False)
    with Session(other_server, dbname='lacking') as session, Session(other_server, 'owner', dbname='lacking') as owner_there:
        check('without one of the roles, the ledger is complete all the same', contents(session) == ledger)
        check('... and can be read', session.error('SELECT * FROM portage.progress') is None and owner_there.error('SELECT * FROM portage.rejects') is None)
        check('... adopt_roles() tells of it', session.rows("SELECT new_oid, remark FROM portage.adopt_roles(true) WHERE name = 'runner'") == [(None, 'no role has this name')])
        check('... the owner still sees the runs of the role that is gone',
              owner_there.value("SELECT count(*) FROM portage.migration_runs WHERE role_name = 'runner'") == 1)
    drop_and_create(source_server, source)
    source.close()
    other.close()
finish()
