#!/usr/bin/python3
"""Who may do what. Target rights are those of SQL, and what is missing is named as the GRANT that
helps; the ledger is seen by those whom it concerns and written by nobody; nobody's code runs with another's rights."""

import itertools
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import Server, check, finish  # noqa: E402
from sessions import Session, ndjson, told  # noqa: E402

LEDGER = ['known_roles', 'pipelines', 'pipeline_versions', 'pipeline_grants', 'migration_runs', 'migration_parts',
          'migration_payloads', 'migration_ranges', 'migration_batches', 'item_rows', 'item_packs', 'item_corrections', 'schedule_rows',
          'mapping_rows', 'mapping_packs', 'migration_undo', 'row_moves', 'missing_rows', 'migration_conflicts', 'source_cursors', 'predictions', 'deferred_indexes',
          'migration_events',
          'data_integrity_checks', 'run_groups', 'group_members']
RAW = ['migration_payloads', 'item_rows', 'item_packs', 'packed_items', 'all_items', 'mapping_rows', 'mapping_packs', 'packed_mappings',
       'all_mappings', 'item_corrections', 'migration_undo', 'row_moves', 'missing_rows',
       'migration_conflicts', 'predictions', 'schedule_rows', 'known_roles', 'recorded_roles']

names = itertools.count(1)


def refused(name, error, code='42501', *texts):
    """The error has this SQLSTATE, and each text stands in its message, detail or hint."""
    everything = told(error)
    check(name, error is not None and error.pgcode == code and all(text in everything for text in texts), everything)


def counts(row):
    """inserted, updated, unchanged, skipped, invalid, failed of a run_info."""
    return tuple(row[0])


COUNTS = 'inserted, updated, unchanged, skipped, invalid, failed'


# ---------------------------------------------------------------- the target

TARGET_GRANTS = {
    'insert': ['INSERT (id, "user", word, hits) ON app.progress'],
    'select': ['SELECT (id, "user", word, hits) ON app.progress'],
    'usage': ['USAGE ON SCHEMA app'],
    'sequence': ['USAGE ON SEQUENCE app.progress_id_seq'],
}


def target_rights(server, admin):
    """A role with exactly the rights of SQL imports; without any one of them it is told which."""
    admin.rows('CREATE SCHEMA app')
    admin.rows('CREATE TABLE app.progress (id serial PRIMARY KEY, "user" text NOT NULL, word text NOT NULL, hits int, '
               'secret text DEFAULT $$x$$, UNIQUE ("user", word))')
    admin.rows('CREATE ROLE loader LOGIN')
    admin.rows('GRANT CREATE ON DATABASE postgres TO loader')
    every = [grant for group in TARGET_GRANTS.values() for grant in group]
    for grant in every:
        admin.rows(f'GRANT {grant} TO loader')
    loader = Session(server, 'loader')
    definition = ('{"format": "ndjson", "legacy_id": "id", "columns": {"user": "$scope", "word": "word", "hits": "hits"},'
                  ' "match": ["user", "word"]}')
    loader.rows("SELECT portage.create_pipeline('words', 'app.progress', %s)", definition)
    loader.rows("SELECT portage.create_pipeline('words_over', 'app.progress', %s)",
                definition[:-1] + ', "on_conflict": "overwrite"}')

    def migrate(pipeline, scope, word, hits):
        return loader.rows(f'SELECT {COUNTS} FROM portage.migrate(%s, %s, %s)', pipeline,
                           ndjson([{'id': word, 'word': word, 'hits': hits}]), scope)

    def migrate_error(pipeline, scope):
        return loader.error('SELECT portage.migrate(%s, %s, %s)', pipeline,
                            ndjson([{'id': 'w', 'word': 'w', 'hits': 1}]), scope)

    check('the minimal rights suffice', migrate('words', 'u0', 'one', 1) == [(1, 0, 0, 0, 0, 0)])
    check('nothing is missing in plan()',
          loader.value("SELECT portage.plan('words', '{}', 'u0') -> 'blockers'") == [])

    pieces = [('INSERT (%s) ON app.progress' % column, f'the right to insert {column}')
              for column in ('id', '"user"', 'word', 'hits')]
    pieces += [('SELECT (%s) ON app.progress' % column, f'the right to select {column}')
               for column in ('id', '"user"', 'word', 'hits')]
    pieces += [('USAGE ON SCHEMA app', 'the right to use the schema'),
               ('USAGE ON SEQUENCE app.progress_id_seq', 'the right to use the sequence')]
    for number, (piece, what) in enumerate(pieces, 1):
        scope = f'u{number}'
        admin.rows(f'REVOKE {piece} FROM loader')
        error = migrate_error('words', scope)
        hint = error.diag.message_hint if error else ''
        refused(f'without {what}', error, '42501', f'GRANT {piece} TO loader;')
        plan = loader.value("SELECT portage.plan('words', '{}', %s)", scope)
        check(f'without {what}: plan() says the same',
              not plan['can_proceed'] and [b['remedy'] for b in plan['blockers']] == (hint or '').split('\n') and
              all(b['sqlstate'] == '42501' for b in plan['blockers']), plan['blockers'])
        check(f'without {what}: nothing of the run stays',
              loader.value('SELECT count(*) FROM portage.migration_runs WHERE scope = %s', scope) == 0)
        if re.fullmatch(r'(GRANT [^;]+ TO loader;\n?)+', hint or ''):
            admin.rows(hint)
        check(f'without {what}: the GRANT of the hint helps', migrate_error('words', scope) is None)

    admin.rows('REVOKE INSERT (word, hits), SELECT (hits) ON app.progress FROM loader')
    refused('several rights missing are named in one go', migrate_error('words', 'v'), '42501',
            'GRANT INSERT (word, hits) ON app.progress TO loader;', 'GRANT SELECT (hits) ON app.progress TO loader;')
    admin.rows(migrate_error('words', 'v').diag.message_hint)

    # overwrite needs UPDATE on what it sets, and nothing else does
    refused('overwrite without UPDATE', migrate_error('words_over', 'o'), '42501', 'UPDATE (')
    hint = migrate_error('words_over', 'o').diag.message_hint
    plan = loader.value("SELECT portage.plan('words_over', '{}', 'o')")
    check('overwrite without UPDATE: plan() says the same', [b['remedy'] for b in plan['blockers']] == [hint], plan)
    check('overwrite without UPDATE: only for what it sets', 'hits' in hint and 'secret' not in hint and ' id' not in hint, hint)
    check('an item that changed is skipped where nothing may be updated',
          migrate('words', 'u0', 'one', 2) == [(0, 0, 0, 1, 0, 0)])
    run = loader.value('SELECT max(id) FROM portage.migration_runs')
    check('... and the reject says 42501',
          loader.rows('SELECT rule, sqlstate FROM portage.rejects WHERE run_id = %s', run) == [('privilege', '42501')])
    check('... and plan() recommends the GRANT',
          'no_update' in str(loader.value("SELECT portage.plan('words', '{}', 'u0') -> 'recommendations'")))
    admin.rows(hint)
    check('overwrite with the UPDATE of the hint', migrate_error('words_over', 'o') is None)
    check('... changes the row', migrate('words_over', 'o', 'w', 7) == [(0, 1, 0, 0, 0, 0)])
    option_error = loader.error("SELECT portage.migrate('words', '{}', 'o2', '{\"on_conflict\": \"overwrite\"}')")
    check('on_conflict as an option asks for the same', option_error is None, told(option_error))
    for column in ('"user"', 'word', 'hits'):
        admin.rows(f'REVOKE UPDATE ({column}) ON app.progress FROM loader')
        refused(f'overwrite without UPDATE of {column}', migrate_error('words_over', 'o'), '42501',
                f'GRANT UPDATE ({column}) ON app.progress TO loader;')
        refused(f'overwrite by option without UPDATE of {column}',
                loader.error("SELECT portage.migrate('words', '{}', 'o2', '{\"on_conflict\": \"overwrite\"}')"), '42501',
                f'GRANT UPDATE ({column}) ON app.progress TO loader;')
        admin.rows(migrate_error('words_over', 'o').diag.message_hint)

    # CALL run and import say the same, before anything is read
    admin.rows('REVOKE INSERT (hits) ON app.progress FROM loader')
    refused('CALL import without a right', loader.error("CALL portage.import('words', payload => '{}', scope => 'i')"),
            '42501', 'GRANT INSERT (hits) ON app.progress TO loader;')
    run = loader.value("SELECT portage.open_run('words', 'r')")
    loader.rows("SELECT portage.submit(%s, %s)", run, ndjson([{'id': 'r', 'word': 'r', 'hits': 1}]))
    refused('CALL run without a right', loader.error('CALL portage.run(%s)', run), '42501', 'GRANT INSERT (hits)')
    check('a refused run is still pending', loader.value('SELECT status FROM portage.status(%s)', run) == 'pending')
    admin.rows('GRANT INSERT (hits) ON app.progress TO loader')
    loader.rows('CALL portage.run(%s)', run)
    check('... and runs once the right is there', loader.value('SELECT status FROM portage.status(%s)', run) == 'completed')

    # an identity column needs no right on its sequence; whole-table grants are as good; so are a group's and PUBLIC's
    admin.rows('CREATE TABLE app.by_identity (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, word text UNIQUE NOT NULL)')
    admin.rows('GRANT SELECT, INSERT ON app.by_identity TO loader')
    loader.rows("SELECT portage.create_pipeline('by_identity', 'app.by_identity', "
                "'{\"format\": \"ndjson\", \"legacy_id\": \"id\", \"columns\": {\"word\": \"word\"}, \"match\": [\"word\"]}')")
    check('an identity column needs no right on its sequence',
          migrate('by_identity', '', 'one', 0) == [(1, 0, 0, 0, 0, 0)])
    admin.rows('REVOKE ALL ON app.by_identity FROM loader; CREATE ROLE writers; GRANT writers TO loader; '
               'GRANT SELECT, INSERT ON app.by_identity TO writers')
    check('rights by membership count', migrate('by_identity', '', 'two', 0) == [(1, 0, 0, 0, 0, 0)])
    admin.rows('REVOKE ALL ON app.by_identity FROM writers; GRANT SELECT, INSERT ON app.by_identity TO PUBLIC')
    check('rights of PUBLIC count', migrate('by_identity', '', 'three', 0) == [(1, 0, 0, 0, 0, 0)])
    admin.rows('REVOKE ALL ON app.by_identity FROM PUBLIC')
    refused('a role whose name needs quoting gets a hint that works', odd_role(server, admin), '42501',
            'TO "Odd Role";')
    rls_on_target(server, admin)
    loader.close()


def odd_role(server, admin):
    admin.rows('CREATE ROLE "Odd Role" LOGIN; GRANT USAGE ON SCHEMA app TO "Odd Role"; '
               "SELECT portage.grant_pipeline('loader/by_identity', 'Odd Role', 'run')")
    with Session(server, 'Odd Role') as odd:
        error = odd.error("SELECT portage.migrate('by_identity', '{\"id\": 9, \"word\": \"nine\"}'::text)")
        if error and error.diag.message_hint:
            admin.rows(error.diag.message_hint)
        check('... really', odd.error("SELECT portage.migrate('by_identity', '{\"id\": 9, \"word\": \"nine\"}'::text)") is None)
        return error


def rls_on_target(server, admin):
    """Row level security on the target is obeyed, in both directions."""
    admin.rows('CREATE TABLE app.guarded (id int PRIMARY KEY, owner name NOT NULL DEFAULT current_user, word text); '
               'ALTER TABLE app.guarded ENABLE ROW LEVEL SECURITY; '
               "CREATE POLICY own ON app.guarded USING (owner = current_user AND word <> 'forbidden'); "
               'CREATE ROLE carol LOGIN; GRANT USAGE ON SCHEMA app TO carol; '
               "GRANT SELECT, INSERT, UPDATE ON app.guarded TO carol; INSERT INTO app.guarded VALUES (1, 'postgres', 'hidden')")
    with Session(server, 'carol') as carol:
        carol.rows("SELECT portage.create_pipeline('guarded', 'app.guarded', "
                   "'{\"format\": \"ndjson\", \"legacy_id\": \"id\", \"columns\": {\"id\": \"id\", \"word\": \"word\"}, "
                   "\"on_conflict\": \"overwrite\"}')")
        info = carol.rows(f"SELECT {COUNTS}, run_id FROM portage.migrate('guarded', %s)",
                          ndjson([{'id': 1, 'word': 'mine'}, {'id': 2, 'word': 'forbidden'}, {'id': 3, 'word': 'fine'}]))
        check('row level security on the target: what it forbids are rejects, the rest lands',
              info[0][:4] == (1, 0, 0, 0) and info[0][4] + info[0][5] == 2, info)
        rejects = carol.rows('SELECT ordinal, sqlstate FROM portage.rejects WHERE run_id = %s ORDER BY 1', info[0][6])
        check('... with the SQLSTATEs of SQL', rejects == [(1, '23505'), (2, '42501')], rejects)
        check('... and the hidden row is untouched', admin.value('SELECT word FROM app.guarded WHERE id = 1') == 'hidden')


# ---------------------------------------------------------------- sources

def sources(server, admin):
    """Files need pg_read_server_files at every opening; tables, queries and large objects need what SQL needs."""
    path = os.path.join(server.directory, 'words.ndjson')
    with open(path, 'w', encoding='utf-8') as file:
        file.write(ndjson([{'id': f'f{n}', 'word': f'f{n}', 'hits': n} for n in range(3)]))
    os.chmod(path, 0o644)
    loader = Session(server, 'loader')
    run = loader.value("SELECT portage.open_run('words', 'file')")
    refused('attach_file without pg_read_server_files', loader.error('SELECT portage.attach_file(%s, %s)', run, path),
            '42501', 'GRANT pg_read_server_files TO loader;')
    refused('import(file) without it', loader.error("CALL portage.import('words', file => %s, scope => 'x')", path), '42501',
            'pg_read_server_files')
    refused('... nor does a file tell by its error whether it is there',
            loader.error("SELECT portage.attach_file(%s, '/no/such/file')", run), '42501', 'pg_read_server_files')
    admin.rows('GRANT pg_read_server_files TO loader')
    check('attach_file with it', loader.error('SELECT portage.attach_file(%s, %s)', run, path) is None)
    admin.rows('REVOKE pg_read_server_files FROM loader')
    refused('it is checked again when the file is opened', loader.error('CALL portage.run(%s)', run), '42501',
            'GRANT pg_read_server_files TO loader;')
    check('... and the run can be called again when it is back',
          admin.error('GRANT pg_read_server_files TO loader') is None and loader.error('CALL portage.run(%s)', run) is None and
          loader.value('SELECT inserted FROM portage.status(%s)', run) == 3)

    closed = os.path.join(server.directory, 'closed.ndjson')
    with open(closed, 'w', encoding='utf-8') as file:
        file.write('{}')
    os.chmod(closed, 0)
    run = loader.value("SELECT portage.open_run('words', 'file2')")
    if os.geteuid() == 0:  # else the server runs as we do, and owns the file
        refused('a file that the server\'s user may not read', loader.error('SELECT portage.attach_file(%s, %s)', run, closed),
                '42501', 'closed.ndjson', 'Permission denied')
    for bad, code in (('/no/such/file', '58P01'), (server.directory + '/*.nothing', '58P01'), (server.directory, '42809'),
                      ('/dev/zero', '42809'), ('', None)):
        error = loader.error('SELECT portage.attach_file(%s, %s)', run, bad)
        check(f'attach_file of {os.path.basename(bad) or "an empty path"} is an error',
              error is not None and error.pgcode != 'XX000' and code in (None, error.pgcode), told(error))
    loader.rows('SELECT portage.cancel(%s)', run)

    admin.rows('CREATE TABLE app.secrets (id int PRIMARY KEY, word text); INSERT INTO app.secrets VALUES (1, $$s$$)')
    loader.rows("SELECT portage.create_pipeline('from_rows', 'app.progress', '{\"format\": \"rows\", \"legacy_id\": \"id\", "
                "\"columns\": {\"user\": \"$scope\", \"word\": \"word\"}, \"match\": [\"user\", \"word\"]}')")
    run = loader.value("SELECT portage.open_run('from_rows', 'q')")
    for what, sql in (('attach_table', "SELECT portage.attach_table(%s, 'app.secrets')"),
                      ('attach_query', "SELECT portage.attach_query(%s, 'SELECT * FROM app.secrets', ARRAY['id'])"),
                      ('attach_query with snapshot', "SELECT portage.attach_query(%s, 'SELECT * FROM app.secrets', NULL, true)")):
        refused(f'{what} of a table that the role may not read', loader.error(sql, run), '42501', 'secrets')
    admin.rows('GRANT SELECT ON app.secrets TO loader')
    loader.rows("SELECT portage.attach_query(%s, 'SELECT * FROM app.secrets', ARRAY['id'])", run)
    admin.rows('REVOKE SELECT ON app.secrets FROM loader')
    refused('a query is read as the run\'s role when it runs', loader.error('CALL portage.run(%s)', run), '42501', 'secrets')
    superuser_error = admin.error('CALL portage.run(%s)', run)
    refused('... also if a superuser resumes it', superuser_error, '42501', 'secrets')
    loader.rows('SELECT portage.cancel(%s)', run)

    oid = admin.value("SELECT lo_from_bytea(0, '{}')")
    run = loader.value("SELECT portage.open_run('words', 'lo')")
    refused('attach_large_object of somebody else', loader.error('SELECT portage.attach_large_object(%s, %s)', run, oid), '42501')
    admin.rows(f'GRANT SELECT ON LARGE OBJECT {oid} TO loader')
    check('... with the right to read it',
          loader.error('SELECT portage.attach_large_object(%s, %s)', run, oid) is None)
    admin.rows(f'REVOKE SELECT ON LARGE OBJECT {oid} FROM loader')
    refused('... which is looked at again when it is read', loader.error('CALL portage.run(%s)', run), '42501')
    loader.close()


# ---------------------------------------------------------------- the ledger

def ledger_is_not_written(server, admin):
    """No ordinary role writes the ledger by hand: not the owner of the pipeline, not a member of admin_role."""
    admin.rows("CREATE ROLE operators; CREATE ROLE oscar LOGIN IN ROLE operators")
    admin.rows("ALTER SYSTEM SET portage.admin_role = 'operators'")
    admin.rows('SELECT pg_reload_conf()')
    tables = {row[0] for row in admin.rows("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'portage'::regnamespace")}
    check('no table of the ledger is forgotten here', tables == set(LEDGER), tables ^ set(LEDGER))
    for user in ('loader', 'oscar'):
        with Session(server, user) as session:
            for table in LEDGER:
                column = admin.value("SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND "
                                     "attidentity = '' ORDER BY attnum LIMIT 1", 'portage.' + table)
                for sql in (f'INSERT INTO portage.{table} DEFAULT VALUES', f'UPDATE portage.{table} SET {column} = {column}',
                            f'DELETE FROM portage.{table}', f'TRUNCATE portage.{table}', f'DROP TABLE portage.{table}',
                            f'ALTER TABLE portage.{table} DISABLE ROW LEVEL SECURITY',
                            f'CREATE TRIGGER t AFTER INSERT ON portage.{table} EXECUTE FUNCTION suppress_redundant_updates_trigger()',
                            f'BEGIN; LOCK TABLE portage.{table} IN EXCLUSIVE MODE'):
                    error = session.error(sql)
                    session.rows('ROLLBACK')
                    if error is None or error.pgcode != '42501':
                        check(f'{user}: {sql}', False, told(error))
            check(f'{user} cannot write any table of the ledger', True)
            sequences = [row[0] for row in admin.rows("SELECT oid::regclass::text FROM pg_class WHERE relkind = 'S' AND "
                                                      "relnamespace = 'portage'::regnamespace")]
            errors = [session.error(sql) for s in sequences
                      for sql in (f"SELECT setval('{s}', 1)", f"SELECT nextval('{s}')", f'SELECT last_value FROM {s}')]
            check(f'{user} cannot touch its sequences',
                  len(sequences) >= 4 and all(e is not None and e.pgcode == '42501' for e in errors), errors)
            errors = [session.error(f'SELECT count(*) FROM portage.{table}') for table in RAW]
            check(f'{user} cannot read payloads, item rows and undo', all(e is not None and e.pgcode == '42501' for e in errors))
            errors = [session.error(f'{verb} portage.{view} {rest}') for view in ('rejects', 'migration_items', 'progress', 'visible_runs')
                      for verb, rest in (('DELETE FROM', ''), ('INSERT INTO', 'DEFAULT VALUES'))]
            check(f'{user} cannot write through the views', all(e is not None for e in errors), errors)


def two_roles(server, admin):
    """Each role sees what it owns, or was granted: over every table and view."""
    admin.rows('CREATE TABLE app.notes (id int, owner text, body text, PRIMARY KEY (id, owner))')
    pipelines = {}
    for user in ('ann', 'bob'):
        admin.rows(f'CREATE ROLE {user} LOGIN; GRANT USAGE ON SCHEMA app TO {user}; GRANT ALL ON app.notes TO {user}')
        with Session(server, user) as session:
            session.rows("SELECT portage.create_pipeline(%s, 'app.notes', %s)", f'notes of {user}',
                         '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id", "owner": {"value": "%s"}, '
                         '"body": "body"}}' % user)
            pipelines[user] = []
            for scope in ('s1', 's2'):
                # three items: one lands, one is a reject; then a change, for undo
                pipelines[user].append(session.value(
                    "SELECT run_id FROM portage.migrate(%s, %s, %s)", f'notes of {user}',
                    ndjson([{'id': 1 if scope == 's1' else 2, 'body': f'{user} {scope}'}, {'id': None, 'body': 'lost'}]), scope))
    runs_of = {user: set(runs) for user, runs in pipelines.items()}
    seen = {
        'migration_runs': 'id', 'migration_parts': 'run_id', 'migration_ranges': 'run_id', 'migration_batches': 'run_id',
        'migration_events': 'run_id', 'legacy_mappings': 'run_id', 'migration_items': 'run_id', 'rejects': 'run_id',
        'progress': 'run_id', 'visible_runs': 'run_id'}

    def sees(session):
        return {relation: {row[0] for row in session.rows(f'SELECT {column} FROM portage.{relation}')}
                for relation, column in seen.items()}

    ann, bob = Session(server, 'ann'), Session(server, 'bob')
    for user, session in (('ann', ann), ('bob', bob)):
        found = sees(session)
        for relation, ids in found.items():
            check(f'{user} sees its own runs and no other in {relation}', ids == runs_of[user], ids)
        check(f'{user} sees its own pipeline only',
              session.rows('SELECT name FROM portage.pipelines') == [(f'notes of {user}',)] and
              session.value('SELECT count(*) FROM portage.pipeline_versions') == 1)
    theirs = pipelines['bob'][0]
    check('status() of a foreign run is null', ann.value('SELECT run_id FROM portage.status(%s)', theirs) is None)
    check('summary() of a foreign run is empty', ann.rows('SELECT portage.summary(%s)', theirs) == [])
    for what, sql in (('plan', 'SELECT portage.plan(%s)'), ('reject_raw', 'SELECT portage.reject_raw(%s, 2)'),
                      ('submit', "SELECT portage.submit(%s, 'x'::text)"), ('attach_file', "SELECT portage.attach_file(%s, '/x')"),
                      ('attach_query', "SELECT portage.attach_query(%s, 'SELECT 1')"),
                      ('attach_table', "SELECT portage.attach_table(%s, 'app.notes')"),
                      ('attach_large_object', 'SELECT portage.attach_large_object(%s, 1)'),
                      ('cancel', 'SELECT portage.cancel(%s)'), ('run', 'CALL portage.run(%s)')):
        refused(f'{what} of a foreign run: not even its existence is told', ann.error(sql, theirs), 'PZ005', f'there is no run {theirs}')
    for what, sql in (('migrate', "SELECT portage.migrate('notes of bob', '{}'::text)"), ('open_run', "SELECT portage.open_run('notes of bob')"),
                      ('import', "CALL portage.import('notes of bob', payload => '{}')"),
                      ('replace_pipeline', "SELECT portage.replace_pipeline('notes of bob', '{}')"),
                      ('drop_pipeline', "SELECT portage.drop_pipeline('notes of bob', true)"),
                      ('grant_pipeline', "SELECT portage.grant_pipeline('notes of bob', 'ann', 'run')"),
                      ('revoke_pipeline', "SELECT portage.revoke_pipeline('notes of bob', 'ann', 'run')"),
                      ('plan', "SELECT portage.plan('notes of bob', '{}', '')"), ('lookup', "SELECT portage.lookup('notes of bob', '1', 's1')"),
                      ('last_run', "SELECT portage.last_run('notes of bob', 's1')")):
        refused(f'{what} of a foreign pipeline: not even its existence is told', ann.error(sql), 'PZ004')
        addressed = ann.error(sql.replace("'notes", "'bob/notes"))
        refused('... nor behind the name of its owner', addressed, 'PZ004')
        check('... without a hint', not addressed.diag.message_hint, told(addressed))

    # the name of a setting can be set by anybody before the library is loaded
    with Session(server, 'ann') as fresh:
        fresh.error("SET portage.admin_role = 'ann'")
        check('portage.admin_role set by an ordinary role counts for nothing', sees(fresh)['migration_runs'] == runs_of['ann'])
    with Session(server, 'ann', options='-c portage.admin_role=ann') as fresh:
        check('... neither when it came with the connection', sees(fresh)['migration_runs'] == runs_of['ann'])
    with Session(server, 'ann') as fresh:
        fresh.value('SELECT portage.raw_text($$x$$)')
        refused('... and is refused once the library is loaded', fresh.error("SET portage.admin_role = 'ann'"), '42501')

    # portage.scope
    for session, notes in ((ann, 'notes of ann'), (admin, 'ann/notes of ann')):
        session.rows("SET portage.scope = 's2'")
        for relation in seen:
            ids = {row[0] for row in session.rows(f'SELECT {seen[relation]} FROM portage.{relation}')}
            check(f'portage.scope limits {relation}' + (' even for ann' if session is ann else ' '),
                  session is admin or ids == {pipelines['ann'][1]}, ids)
        for what, sql in (('plan', 'SELECT portage.plan(%s)'), ('reject_raw', 'SELECT portage.reject_raw(%s, 2)'),
                          ('cancel', 'SELECT portage.cancel(%s)'), ('submit', "SELECT portage.submit(%s, ''::text)"),
                          ('CALL run', 'CALL portage.run(%s)')):
            refused(f'portage.scope limits {what}()', session.error(sql, pipelines['ann'][0]), '42501', 's2')
        refused('portage.scope limits migrate()',
                session.error("SELECT portage.migrate(%s, '{}'::text, 's1')", notes), '42501', 's2')
        refused('portage.scope limits import()',
                session.error("CALL portage.import(%s, payload => '{}')", notes), '42501', 's2')
        check('portage.scope limits status()', session.value('SELECT run_id FROM portage.status(%s)', pipelines['ann'][0]) is None)
        check('portage.scope limits lookup()', session.value("SELECT portage.lookup(%s, '1', 's1')", notes) is None)
        session.rows('RESET portage.scope')

    # grants
    refused('grant_pipeline by another', bob.error("SELECT portage.grant_pipeline('notes of ann', 'bob', 'run')"), 'PZ004')
    refused('an unknown privilege', ann.error("SELECT portage.grant_pipeline('notes of ann', 'bob', 'all')"), '22023')
    refused('an unknown role', ann.error("SELECT portage.grant_pipeline('notes of ann', 'nobody', 'run')"), '42704')
    ann.rows("SELECT portage.grant_pipeline('notes of ann', 'bob', 'read')")
    found = sees(bob)
    check("'read' shows the runs of the pipeline", all(ids == runs_of['ann'] | runs_of['bob'] for ids in found.values()), found)
    refused("'read' does not let run", bob.error("SELECT portage.migrate('ann/notes of ann', '{}'::text)"), '42501',
            "grant_pipeline('notes of ann', 'bob', 'run')")
    refused("'read' does not let open", bob.error("SELECT portage.open_run('ann/notes of ann')"), '42501')
    for what, sql in (('submit', "SELECT portage.submit(%s, 'x'::text)"), ('cancel', 'SELECT portage.cancel(%s)'),
                      ('run', 'CALL portage.run(%s)'), ('attach_query', "SELECT portage.attach_query(%s, 'SELECT 1')")):
        refused(f"'read' does not let {what}", bob.error(sql, pipelines['ann'][0]), '42501', 'ann')
    check("'read' shows rejects", bob.value('SELECT count(*) FROM portage.rejects WHERE run_id = ANY (%s)', pipelines['ann']) == 2)
    refused("'read' does not let replace", bob.error("SELECT portage.replace_pipeline('ann/notes of ann', '{}')"), '42501', 'must be owner')
    refused("'read' does not let drop", bob.error("SELECT portage.drop_pipeline('ann/notes of ann', true)"), '42501', 'must be owner')
    refused("'read' does not let grant", bob.error("SELECT portage.grant_pipeline('ann/notes of ann', 'bob', 'run')"), '42501', 'must be owner')
    ann.rows("SELECT portage.revoke_pipeline('notes of ann', 'bob', 'read')")
    check('revoked is revoked', all(ids == runs_of['bob'] for ids in sees(bob).values()))
    ann.rows("SELECT portage.grant_pipeline('notes of ann', 'bob', 'run')")
    run = bob.value("SELECT run_id FROM portage.migrate('ann/notes of ann', %s, 's3')", ndjson([{'id': 3, 'body': 'by bob'}]))
    check("'run' lets run", bob.value('SELECT inserted FROM portage.status(%s)', run) == 1)
    check("... the run is the runner's", bob.value('SELECT role_name FROM portage.migration_runs WHERE id = %s', run) == 'bob')
    check("... the pipeline's owner sees it, too", ann.value('SELECT run_id FROM portage.status(%s)', run) == run)
    check("... the runner does not see the others' runs", sees(bob)['migration_runs'] == runs_of['bob'] | {run})
    refused("... the pipeline's owner may not change it", ann.error('SELECT portage.cancel(%s)', run), '42501', 'bob')
    refused("'run' does not let replace", bob.error("SELECT portage.replace_pipeline('ann/notes of ann', '{}')"), '42501', 'must be owner')
    ann.rows("SELECT portage.revoke_pipeline('notes of ann', 'bob', 'run')")
    refused('a revoked role opens no more runs', bob.error("SELECT portage.open_run('ann/notes of ann')"), 'PZ004')
    refused('a grant to public is for administrators', ann.error("SELECT portage.grant_pipeline('notes of ann', 'public', 'read')"), '42501',
            'portage.admin_role')
    admin.rows("SELECT portage.grant_pipeline('ann/notes of ann', 'public', 'read')")
    check('a grant to public is for everybody', sees(bob)['migration_runs'] >= runs_of['ann'])
    ann.rows("SELECT portage.revoke_pipeline('notes of ann', 'public', 'read')")

    # admin_role
    oscar = Session(server, 'oscar')
    everything = {row[0] for row in admin.rows('SELECT id FROM portage.migration_runs')}
    check('a member of admin_role sees all runs', sees(oscar)['migration_runs'] == everything)
    pending = ann.value("SELECT portage.open_run('notes of ann', 's9')")
    check('a member of admin_role may cancel any run', oscar.error('SELECT portage.cancel(%s)', pending) is None)
    refused("a member of admin_role does not act as a run's role without being a member",
            oscar.error('CALL portage.run(%s)', ann.value("SELECT portage.open_run('notes of ann', 's10')")), '42501', 'act as role "ann"')
    refused('a member of admin_role may not rewrite a pipeline',
            oscar.error("SELECT portage.replace_pipeline('ann/notes of ann', '{}')"), '42501', 'must be owner')

    # members of a role
    admin.rows('CREATE ROLE deputy LOGIN; GRANT ann TO deputy')
    with Session(server, 'deputy') as deputy:
        check('a member of the owner sees what the owner sees', sees(deputy)['migration_runs'] >= runs_of['ann'])
        run = ann.value("SELECT portage.open_run('notes of ann', 's11')")
        check('... and may submit to its run', deputy.error("SELECT portage.submit(%s, %s)", run, '{"id": 11}') is None)
        check('... and run it, as the owner', deputy.error('CALL portage.run(%s)', run) is None and
              deputy.value('SELECT role_name FROM portage.migration_runs WHERE id = %s', run) == 'ann')
    leaks(server, admin, ann, bob, runs_of)
    for session in (ann, bob, oscar):
        session.close()


def leaks(server, admin, ann, bob, runs_of):
    """Functions and operators of the reader's own, however cheap, never see a hidden row."""
    admin.rows('CREATE SCHEMA evil; GRANT ALL ON SCHEMA evil TO ann, bob')
    with Session(server, 'bob') as session:
        session.rows('SET search_path = evil, pg_catalog')
        session.rows('CREATE TABLE evil.seen (what text)')
        session.rows("CREATE FUNCTION evil.leak(text) RETURNS boolean COST 0.0000001 LANGUAGE plpgsql AS "
                     "$$BEGIN RAISE NOTICE 'leak %', $1; RETURN true; END$$")
        foreign = {str(i) for i in runs_of['ann']}
        for relation, column in (('rejects', 'run_id'), ('migration_items', 'run_id'), ('migration_runs', 'id'), ('migration_parts', 'run_id'),
                                 ('progress', 'run_id'), ('visible_runs', 'run_id'), ('legacy_mappings', 'run_id'), ('migration_events', 'run_id'),
                                 ('migration_batches', 'run_id'), ('pipelines', 'owner_name')):
            session.connection.notices.clear()
            session.rows(f'SELECT 1 FROM portage.{relation} WHERE evil.leak({column}::text)')
            leaked = {notice.strip().rpartition(' ')[2] for notice in session.connection.notices if 'leak' in notice}
            check(f'a leaky function in WHERE sees no hidden row of {relation}',
                  leaked and not leaked & (foreign | {'ann'}), leaked)
        for left, right in (('text', 'text'), ('bigint', 'bigint'), ('name', 'name'), ('integer', 'integer'), ('oid', 'oid'), ('name', 'text')):
            session.rows(f'CREATE FUNCTION evil.yes({left}, {right}) RETURNS boolean LANGUAGE sql AS $$SELECT true$$')
            session.rows(f'CREATE OPERATOR evil.= (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = evil.yes)')
        found = {relation: {row[0] for row in session.rows(f'SELECT {column} FROM portage.{relation}')}
                 for relation, column in (('migration_runs', 'id'), ('rejects', 'run_id'), ('migration_items', 'run_id'), ('progress', 'run_id'))}
        check("operators in the reader's search_path do not widen what it sees",
              not any(ids & runs_of['ann'] for ids in found.values()), found)
        check('... nor do its functions', session.value('SELECT portage.is_admin()') is False and
              session.value("SELECT portage.acts_as('ann'::regrole)") is False)
        refused('... nor does lookup() find a foreign mapping', session.error("SELECT portage.lookup('ann/notes of ann', '1', 's1')"), 'PZ004')
        check('... nor status() a foreign run', session.value('SELECT run_id FROM portage.status(%s)', min(runs_of['ann'])) is None)
    admin.rows('DROP SCHEMA evil CASCADE')


# ---------------------------------------------------------------- code of others

def code_of_others(server, admin):
    """A pipeline's expressions are its owner's code: whoever runs it lends it no rights."""
    admin.rows('CREATE TABLE app.boss_only (secret text); INSERT INTO app.boss_only VALUES ($$top$$); '
               'CREATE ROLE mallory LOGIN; CREATE ROLE victim LOGIN; CREATE SCHEMA m AUTHORIZATION mallory; '
               'GRANT USAGE ON SCHEMA m TO victim; GRANT USAGE ON SCHEMA app TO mallory')
    mallory = Session(server, 'mallory')
    mallory.rows('CREATE TABLE m.t (id int PRIMARY KEY, who text, extra text); GRANT ALL ON m.t TO victim; '
                 'CREATE TABLE m.log (what text); GRANT INSERT ON m.log TO PUBLIC')
    # Each function tells who it runs as; the others try something that only the runner may do.
    mallory.rows("CREATE FUNCTION m.who(text) RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN current_user; END$$")
    attempts = {
        'creates a role': "EXECUTE 'CREATE ROLE owned SUPERUSER';",
        'alters its role': "EXECUTE 'ALTER ROLE mallory SUPERUSER';",
        'sets the role': "EXECUTE 'SET ROLE postgres'; EXECUTE 'ALTER ROLE mallory SUPERUSER';",
        'sets the local role': "PERFORM set_config('role', 'postgres', true); EXECUTE 'ALTER ROLE mallory SUPERUSER';",
        'resets the role': "EXECUTE 'RESET ROLE'; EXECUTE 'ALTER ROLE mallory SUPERUSER';",
        'resets the session authorization': "EXECUTE 'RESET SESSION AUTHORIZATION'; EXECUTE 'ALTER ROLE mallory SUPERUSER';",
        'reads a table of the superuser': 'PERFORM 1 FROM app.boss_only;',
        'declares a cursor with hold': "EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT m.later()';",
        'creates a temporary table': "EXECUTE 'CREATE TEMP TABLE trap (x int)';",
        'queues a deferred trigger': 'INSERT INTO m.later_log VALUES (1);',
        'sets the search_path of the session': "PERFORM set_config('search_path', 'm, pg_catalog', false);",
        'writes the ledger': "UPDATE portage.pipelines SET owner_name = 'postgres';",
    }
    mallory.rows('CREATE FUNCTION m.later() RETURNS int LANGUAGE plpgsql AS $$BEGIN INSERT INTO m.log VALUES (current_user); RETURN 1; END$$')
    mallory.rows('CREATE TABLE m.later_log (x int); CREATE FUNCTION m.fire() RETURNS trigger LANGUAGE plpgsql AS '
                 '$$BEGIN INSERT INTO m.log VALUES (current_user); RETURN NULL; END$$; '
                 'CREATE CONSTRAINT TRIGGER fire AFTER INSERT ON m.later_log DEFERRABLE INITIALLY DEFERRED '
                 'FOR EACH ROW EXECUTE FUNCTION m.fire()')

    def pipeline(column_sql, rule=None, search_path=None, extra=''):
        name = f'trap {next(names)}'
        if search_path:
            mallory.rows(f'SET search_path = {search_path}')
        rules = '' if rule is None else ', "rules": {"r": "%s"}' % rule
        mallory.rows("SELECT portage.create_pipeline(%s, 'm.t', %s)", name,
                     '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id", "who": {"sql": "%s"}}%s%s}'
                     % (column_sql, rules, extra))
        mallory.rows('RESET search_path')
        mallory.rows("SELECT portage.grant_pipeline(%s, 'victim', 'run')", name)
        return f'mallory/{name}'

    plain = pipeline("m.who('x')")
    victim = Session(server, 'victim')
    admin.rows('GRANT USAGE ON SCHEMA m TO PUBLIC')
    runners = (('a superuser', admin), ("a role with 'run'", victim))
    for what, runner in runners:
        key = next(names)
        for how, sql in (('migrate', "SELECT portage.migrate(%s, '{\"id\": %s}'::text, %s)"),
                         ('import', "CALL portage.import(%s, payload => '{\"id\": %s}', scope => %s)")):
            key = next(names)
            error = runner.error(sql, plain, key, f's{key}')
            check(f'{how} by {what}: the expression runs as the owner of the pipeline',
                  error is None and admin.value('SELECT who FROM m.t WHERE id = %s', key) == 'mallory', told(error))
    # An immutable function is evaluated as early as possible: that, too, is in the owner's name.
    mallory.rows("CREATE FUNCTION m.early() RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN current_user; END$$; "
                 "CREATE FUNCTION m.early_rule(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS "
                 "$$BEGIN RETURN current_user = 'mallory'; END$$")
    early = pipeline('m.early()', "m.early_rule('x')")
    by_path = pipeline("upper('x')", search_path='m, pg_catalog')
    mallory.rows("CREATE FUNCTION m.upper(text) RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN current_user; END$$; "
                 "CREATE FUNCTION m.concat_who(int, int) RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN current_user; END$$; "
                 'CREATE OPERATOR m.+ (LEFTARG = int, RIGHTARG = int, FUNCTION = m.concat_who)')
    by_operator = pipeline('1 + 2', search_path='m, pg_catalog')
    for what, runner in runners:
        for how, name in (('an immutable function', early), ('a function found by search_path', by_path),
                          ('an operator found by search_path', by_operator)):
            key = next(names)
            error = runner.error("SELECT portage.migrate(%s, %s, %s)", name, '{"id": %d}' % key, f's{key}')
            check(f'{how}, run by {what}, runs as the owner of the pipeline',
                  error is None and admin.value('SELECT who FROM m.t WHERE id = %s', key) == 'mallory',
                  (told(error), admin.rows('SELECT who FROM m.t WHERE id = %s', key)))
            error = runner.error("SELECT portage.plan(%s, '{}', %s)", name, f's{key}')
            check(f'plan() of it by {what}', error is None, told(error))
    for attempt, body in attempts.items():
        function = f'm.try{next(names)}'
        for place in ('column', 'rule'):
            mallory.rows(f'CREATE OR REPLACE FUNCTION {function}(text) RETURNS text LANGUAGE plpgsql AS $$BEGIN {body} '
                         "RETURN 'done'; END$$")
            name = pipeline(f"{function}('x')") if place == 'column' else pipeline("'x'::text", f"{function}(who) = 'done'")
            for what, runner in runners:
                key = next(names)
                before = runner.value('SHOW search_path')
                runner.error("CALL portage.import(%s, payload => %s, scope => %s)", name, '{"id": %d}' % key, f's{key}')
                bad = []
                if admin.value("SELECT count(*) FROM pg_roles WHERE rolname = 'owned' OR (rolname = 'mallory' AND rolsuper)"):
                    bad.append('gained superuser')
                if attempt.startswith('reads') and admin.value('SELECT count(*) FROM m.t WHERE id = %s', key):
                    bad.append('read a table that its owner may not read')
                if admin.value("SELECT count(*) FROM m.log WHERE what <> 'mallory'"):
                    bad.append('code ran as ' + admin.value('SELECT max(what) FROM m.log'))
                    admin.rows('TRUNCATE m.log')
                if runner.value('SHOW search_path') != before:
                    bad.append('changed the search_path of the session')
                    runner.rows('RESET search_path')
                if runner.value("SELECT count(*) FROM pg_class WHERE relname = 'trap'"):
                    bad.append('left a temporary table')
                if runner.value("SELECT current_user = session_user") is not True:
                    bad.append('another current_user')
                if admin.value("SELECT count(*) FROM portage.pipelines WHERE owner_name = 'postgres'"):
                    bad.append('wrote the ledger')
                check(f'a {place} whose function {attempt}, run by {what}, gains nothing', not bad, bad)

    # A trigger on the target runs as the run's role; a superuser who only continues the run lends it nothing.
    mallory.rows('CREATE FUNCTION m.on_row() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.extra := current_user; RETURN NEW; END$$; '
                 'CREATE TRIGGER on_row BEFORE INSERT ON m.t FOR EACH ROW EXECUTE FUNCTION m.on_row()')
    run = mallory.value("SELECT portage.open_run('trap 1', 'resumed')")
    key = next(names)
    mallory.rows('SELECT portage.submit(%s, %s)', run, '{"id": %d}' % key)
    error = admin.error('CALL portage.run(%s)', run)
    check("a superuser who continues a run acts as the run's role",
          admin.rows('SELECT who, extra FROM m.t WHERE id = %s', key) == [('mallory', 'mallory')], told(error))
    for attempt, body in attempts.items():
        mallory.rows(f'CREATE OR REPLACE FUNCTION m.on_row() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body} RETURN NEW; END$$')
        key = next(names)
        run = mallory.value("SELECT portage.open_run('trap 1', %s)", f's{key}')
        mallory.rows('SELECT portage.submit(%s, %s)', run, '{"id": %d}' % key)
        before = admin.value('SHOW search_path')
        admin.error('CALL portage.run(%s)', run)
        bad = []
        if admin.value("SELECT count(*) FROM pg_roles WHERE rolname = 'owned' OR (rolname = 'mallory' AND rolsuper)"):
            bad.append('gained superuser')
        if attempt.startswith('reads') and admin.value('SELECT count(*) FROM m.t WHERE id = %s', key):
            bad.append('read a table that its owner may not read')
        if admin.value("SELECT count(*) FROM m.log WHERE what <> 'mallory'"):
            bad.append('code ran as ' + admin.value("SELECT max(what) FROM m.log WHERE what <> 'mallory'"))
        admin.rows('TRUNCATE m.log')
        if admin.value('SHOW search_path') != before:
            bad.append('changed the search_path of the session')
            admin.rows('RESET search_path')
        if admin.value("SELECT count(*) FROM pg_class WHERE relname = 'trap'"):
            bad.append('left a temporary table')
            admin.rows('DROP TABLE IF EXISTS trap')
        check(f'a trigger that {attempt}, on a run that a superuser continues, gains nothing', not bad, bad)
    mallory.rows('DROP TRIGGER on_row ON m.t')

    # The same for an attached query.
    mallory.rows("SELECT portage.create_pipeline('m rows', 'm.t', '{\"format\": \"rows\", \"legacy_id\": \"id\", "
                 "\"columns\": {\"id\": \"id\", \"who\": \"who\"}}')")
    run = mallory.value("SELECT portage.open_run('m rows')")
    mallory.rows("SELECT portage.attach_query(%s, 'SELECT 777 AS id, m.who(''x'') AS who', ARRAY['id'])", run)
    error = admin.error('CALL portage.run(%s)', run)
    check("an attached query of a run that a superuser continues is read as the run's role",
          error is None and admin.value('SELECT who FROM m.t WHERE id = 777') == 'mallory', told(error))

    # A target with a deferred constraint can still be loaded so.
    mallory.rows('CREATE TABLE m.parent (id int PRIMARY KEY); CREATE TABLE m.child (id int PRIMARY KEY, parent int REFERENCES '
                 'm.parent DEFERRABLE INITIALLY DEFERRED, boss int REFERENCES m.child DEFERRABLE INITIALLY DEFERRED); '
                 'INSERT INTO m.parent VALUES (1)')
    mallory.rows("SELECT portage.create_pipeline('child', 'm.child', '{\"format\": \"ndjson\", \"legacy_id\": \"id\", "
                 "\"columns\": {\"id\": \"id\", \"parent\": \"parent\", \"boss\": \"boss\"}}')")
    for what, runner in (('its own role', mallory), ('a superuser', admin)):
        base = next(names) * 100
        run = mallory.value("SELECT portage.open_run('child', %s)", f's{base}')
        mallory.rows('SELECT portage.submit(%s, %s)', run,
                     ndjson([{'id': base + 1, 'parent': 1, 'boss': base + 2}, {'id': base + 2, 'parent': 1, 'boss': None},
                             {'id': base + 3, 'parent': 99}]))
        error = runner.error('CALL portage.run(%s)', run)
        found = mallory.rows(f'SELECT status, {COUNTS} FROM portage.status(%s)', run)
        check(f'deferred constraints of a run continued by {what} are judged in it',
              error is None and found == [('completed', 2, 0, 0, 0, 1, 0)], (told(error), found))
    mallory.close()
    victim.close()


# ---------------------------------------------------------------- the search_path of the caller

EVIL = """
CREATE SCHEMA evil2;
CREATE TABLE evil2.calls (what text);
CREATE FUNCTION evil2.note(text) RETURNS void LANGUAGE plpgsql AS $$
  BEGIN INSERT INTO evil2.calls VALUES ($1); END $$;
"""


def evil_search_path(server, admin):
    """Our own SQL means pg_catalog's operators and functions, whatever stands first in the caller's search_path."""
    admin.rows(EVIL)
    for left, right in itertools.product(('bigint', 'integer', 'smallint', 'text', 'name', 'oid', 'boolean', 'timestamptz', 'numeric', '"char"'), repeat=2):
        for operator in ('=', '<>', '<', '>'):
            if operator != '=' and left != right:
                continue
            function = f'f{next(names)}'
            admin.rows(f"CREATE FUNCTION evil2.{function}({left}, {right}) RETURNS boolean LANGUAGE plpgsql AS "
                       f"$$BEGIN PERFORM evil2.note('{left} {operator} {right}'); RETURN true; END$$; "
                       f'CREATE OPERATOR evil2.{operator} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = evil2.{function})')
    for operator, left, right, result in (('+', 'bigint', 'integer', 'bigint'), ('-', 'timestamptz', 'timestamptz', 'interval'),
                                          ('*', 'bigint', 'bigint', 'bigint'), ('||', 'text', 'text', 'text'), ('->', 'jsonb', 'text', 'jsonb'),
                                          ('->>', 'jsonb', 'text', 'text'), ('->', 'json', 'text', 'json'), ('->>', 'json', 'integer', 'text')):
        function = f'f{next(names)}'
        admin.rows(f"CREATE FUNCTION evil2.{function}({left}, {right}) RETURNS {result} LANGUAGE plpgsql AS "
                   f"$$BEGIN PERFORM evil2.note('{left} {operator} {right}'); RETURN NULL; END$$; "
                   f'CREATE OPERATOR evil2.{operator} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = evil2.{function})')
    for function, result in (('count()', 'bigint'), ('unnest(text[])', 'SETOF text'), ('unnest(anyarray)', 'SETOF anyelement'), ('now()', 'timestamptz'),
                             ('clock_timestamp()', 'timestamptz'), ('format(text, VARIADIC "any")', None), ('pg_backend_pid()', 'integer'), ('lpad(text, integer)', 'text'),
                             ('rpad(text, integer)', 'text'), ('to_char(bigint, text)', 'text'), ('round(numeric, integer)', 'numeric'), ('array_to_json(anyarray)', 'json'),
                             ('jsonb_build_object()', 'jsonb'), ('json_array_elements_text(json)', 'SETOF text'), ('pg_stat_get_activity(integer)', 'integer'),
                             ('row_to_json(record)', 'json'), ('to_char(numeric, text)', 'text'), ('pg_current_xact_id()', 'xid8'), ('current_setting(text, boolean)', 'text')):
        if result:
            admin.rows(f"CREATE FUNCTION evil2.{function} RETURNS {result} LANGUAGE plpgsql AS $$BEGIN PERFORM evil2.note('{function}'); RETURN; END$$"
                       if result.startswith('SETOF') else
                       f"CREATE FUNCTION evil2.{function} RETURNS {result} LANGUAGE plpgsql AS $$BEGIN PERFORM evil2.note('{function}'); RETURN NULL; END$$")
    for aggregate, argument in (('sum', 'bigint'), ('max', 'bigint'), ('min', 'bigint')):
        admin.rows(f"CREATE FUNCTION evil2.{aggregate}_step(bigint, {argument}) RETURNS bigint LANGUAGE plpgsql AS "
                   f"$$BEGIN PERFORM evil2.note('{aggregate}'); RETURN 42; END$$; "
                   f"CREATE AGGREGATE evil2.{aggregate} ({argument}) (SFUNC = evil2.{aggregate}_step, STYPE = bigint)")
    admin.rows('CREATE VIEW evil2.pipelines AS SELECT 1 AS id; CREATE VIEW evil2.pg_class AS SELECT 1 AS oid; CREATE VIEW evil2.pg_roles AS SELECT 1 AS oid; '
               'CREATE TABLE app.quiet (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, code text UNIQUE NOT NULL, n int CHECK (n >= 0), '
               'parent bigint REFERENCES app.quiet, UNIQUE (n) DEFERRABLE INITIALLY DEFERRED); GRANT ALL ON SCHEMA evil2 TO PUBLIC')
    definition = ('{"format": "ndjson", "legacy_id": "id", "columns": {"code": "code", "n": "n"}, "match": ["code"], '
                  '"on_conflict": "overwrite", "rules": {"small": "n OPERATOR(pg_catalog.<) 100"}, "sensitive": ["n"]}')
    path = os.path.join(server.directory, 'quiet.ndjson')
    with open(path, 'w', encoding='utf-8') as file:
        file.write(ndjson([{'id': n, 'code': f'c{n}', 'n': n} for n in range(5)] + [{'id': 9, 'code': 'c1', 'n': 9}, {'id': 10, 'code': 'x', 'n': -1}]))
    os.chmod(path, 0o644)
    admin.rows("SELECT portage.create_pipeline('quiet0', 'app.quiet', %s)", definition)  # before the path turns evil
    with Session(server) as session:
        session.rows('SET search_path = evil2, pg_catalog')

        def quiet(name, sql, *arguments):
            session.rows('DELETE FROM evil2.calls')
            error, answer = None, None
            try:
                answer = session.rows(sql, *arguments)
            except Exception as raised:  # noqa: BLE001
                error = raised
            calls = admin.rows('SELECT what, count(*) FROM evil2.calls GROUP BY 1')
            check(f'evil search_path: {name}', error is None and not calls, (calls, error))
            return answer

        session.rows('SELECT 1 = 1')
        check('the trap is one', admin.value('SELECT count(*) FROM evil2.calls') == 1)
        quiet('create_pipeline', "SELECT portage.create_pipeline('quiet', 'app.quiet', %s)", definition)
        quiet('replace_pipeline', "SELECT portage.replace_pipeline('quiet', %s)", definition)
        quiet('grant_pipeline', "SELECT portage.grant_pipeline('quiet', 'bob', 'read')")
        quiet('revoke_pipeline', "SELECT portage.revoke_pipeline('quiet', 'bob', 'read')")
        run = quiet('migrate', "SELECT run_id FROM portage.migrate('quiet', %s, 's')",
                    ndjson([{'id': 1, 'code': 'a', 'n': 51}, {'id': 2, 'code': 'b', 'n': -1}, {'id': 3, 'code': 'a', 'n': 53}]))[0][0]
        check('... with the right counts', admin.rows(f'SELECT {COUNTS} FROM portage.status(%s)', run) == [(1, 0, 0, 0, 2, 0)],
              admin.rows(f'SELECT {COUNTS} FROM portage.status(%s)', run))
        quiet('migrate again, with a change', "SELECT run_id FROM portage.migrate('quiet', %s, 's')",
              ndjson([{'id': 1, 'code': 'a', 'n': 52}]))
        quiet('import of a file', "CALL portage.import('quiet', file => %s)", path)
        check('... with the right rows', admin.value("SELECT count(*) FROM app.quiet WHERE code LIKE 'c%%'") == 5)
        quiet('import again', "CALL portage.import('quiet', file => %s)", path)
        open_run = quiet('open_run', "SELECT portage.open_run('quiet', 'o')")[0][0]
        quiet('submit', 'SELECT portage.submit(%s, %s)', open_run, '{"id": 1, "code": "o", "n": 60}')
        quiet('plan(run)', 'SELECT portage.plan(%s)', open_run)
        quiet('run', 'CALL portage.run(%s)', open_run)
        quiet('plan(pipeline)', "SELECT portage.plan('quiet', '{}', '')")
        cancelled = quiet('open_run', "SELECT portage.open_run('quiet', 'o2')")[0][0]
        quiet('cancel', 'SELECT portage.cancel(%s)', cancelled)
        quiet('status(run)', 'SELECT portage.status(%s)', run)
        quiet('status(pipeline, scope)', "SELECT portage.status('quiet', 's')")
        quiet('last_run', "SELECT portage.last_run('quiet', 's')")
        found = quiet('lookup', "SELECT portage.lookup('quiet', '1', 's')")
        check('... finds it', found and found[0][0] is not None, found)
        summary = quiet('summary', 'SELECT portage.summary(%s)', run)
        check('... has its lines', summary and len(summary) >= 5, summary)
        for view in ('rejects', 'migration_items', 'progress', 'visible_runs', 'migration_runs', 'legacy_mappings', 'migration_parts',
                     'migration_batches', 'migration_events', 'pipelines', 'pipeline_versions', 'pipeline_grants'):
            quiet(f'view {view}', f'SELECT * FROM portage.{view}')
        quiet('reject_raw', 'SELECT portage.reject_raw(%s, 2)', run)
        quiet('row_hash', 'SELECT portage.row_hash(q) FROM app.quiet q')
        session.rows('SET search_path = pg_catalog')
        admin.rows('CREATE TABLE app.legacy (id bigint PRIMARY KEY, code text, n int); INSERT INTO app.legacy VALUES (1, $$l1$$, 71), (2, $$l2$$, 72)')
        admin.rows("SELECT portage.create_pipeline('quiet rows', 'app.quiet', %s)", definition.replace('ndjson', 'rows'))
        session.rows('SET search_path = evil2, pg_catalog')
        rows_run = quiet('open_run', "SELECT portage.open_run('quiet rows', 'r')")[0][0]
        quiet('attach_table', "SELECT portage.attach_table(%s, 'app.legacy')", rows_run)
        quiet('run of a table', 'CALL portage.run(%s)', rows_run)
        check('... reads it', admin.value("SELECT count(*) FROM app.quiet WHERE code IN ('l1', 'l2')") == 2)
        quiet('can_rollback', 'SELECT portage.can_rollback(%s)', open_run)
        quiet('verify', 'SELECT portage.verify(%s)', open_run)
        quiet('rollback', 'CALL portage.rollback(%s)', open_run)
        check('... takes the row away', admin.value("SELECT count(*) FROM app.quiet WHERE code = 'o'") == 0)
        quiet('drop_pipeline', "SELECT portage.drop_pipeline('quiet rows', true)")
    late = admin.rows("SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang "
                      "WHERE p.pronamespace = 'portage'::regnamespace AND l.lanname <> 'c' AND p.prosqlbody IS NULL "
                      "AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false)")
    check('no function of ours is parsed under the path of its caller', late == [], late)
    # as an ordinary role, whose rows row level security chooses
    with Session(server, 'bob') as bob:
        bob.rows('SET search_path = evil2, pg_catalog')
        admin.rows('GRANT ALL ON ALL TABLES IN SCHEMA evil2 TO bob; TRUNCATE evil2.calls')
        for relation in ('migration_runs', 'rejects', 'migration_items', 'progress', 'legacy_mappings', 'pipelines'):
            bob.rows(f'SELECT * FROM portage.{relation}')
        calls = admin.rows('SELECT DISTINCT what FROM evil2.calls')
        check('evil search_path: the policies of the ledger', not calls, calls)
    admin.rows('DROP SCHEMA evil2 CASCADE')


# ---------------------------------------------------------------- the role of a run

def role_of_a_run(server, admin):
    """A run keeps its role for ever."""
    admin.rows("CREATE ROLE grace LOGIN; GRANT USAGE ON SCHEMA app TO grace; GRANT ALL ON app.notes TO grace; CREATE ROLE heidi LOGIN; "
               'CREATE ROLE ivan LOGIN; GRANT USAGE ON SCHEMA app TO ivan; GRANT ALL ON app.notes TO ivan')
    grace, heidi = Session(server, 'grace'), Session(server, 'heidi')
    grace.rows("SELECT portage.create_pipeline('grace', 'app.notes', '{\"format\": \"ndjson\", \"legacy_id\": \"id\", "
               "\"columns\": {\"id\": \"id\", \"owner\": {\"sql\": \"current_user::text\"}, \"body\": \"body\"}}')")
    grace.rows("SELECT portage.grant_pipeline('grace', 'heidi', 'read')")
    run = grace.value("SELECT portage.open_run('grace', 'x')")
    grace.rows('SELECT portage.submit(%s, %s)', run, '{"id": 100, "body": "b"}')
    refused('B resumes a run of A without being a member', heidi.error('CALL portage.run(%s)', run), '42501', 'grace')
    admin.rows('REVOKE INSERT ON app.notes FROM grace')
    refused('a superuser who resumes it is held to what A may do', admin.error('CALL portage.run(%s)', run), '42501',
            'GRANT INSERT', 'TO grace;')
    admin.rows('GRANT INSERT ON app.notes TO grace')
    check('a superuser resumes a run of A', admin.error('CALL portage.run(%s)', run) is None)
    check('... as A', admin.rows('SELECT owner FROM app.notes WHERE id = 100') == [('grace',)])
    check('... and it stays the run of A', admin.value('SELECT role_name FROM portage.migration_runs WHERE id = %s', run) == 'grace')

    # opened under SET ROLE: the role is what counts, the session user is recorded
    admin.rows('GRANT grace TO heidi')
    with Session(server, 'heidi') as session:
        session.rows('SET ROLE grace')
        run = session.value("SELECT portage.open_run('grace', 'y')")
        session.rows('RESET ROLE')
        check('a run opened under SET ROLE belongs to that role',
              session.rows('SELECT role_name, session_role FROM portage.migration_runs WHERE id = %s', run) == [('grace', 'heidi')])
    admin.rows('REVOKE grace FROM heidi')
    refused('membership is looked at anew', heidi.error("SELECT portage.submit(%s, '{}')", run), '42501')

    # the role is dropped, or renamed
    with Session(server, 'ivan') as ivan:
        ivan.rows("SELECT portage.create_pipeline('ivan', 'app.notes', '{\"format\": \"ndjson\", \"legacy_id\": \"id\", "
                  "\"columns\": {\"id\": \"id\", \"owner\": {\"sql\": \"current_user::text\"}, \"body\": \"body\"}}')")
        run = ivan.value("SELECT portage.open_run('ivan', 'z')")
        ivan.rows('SELECT portage.submit(%s, %s)', run, '{"id": 200}')
    admin.rows('DROP OWNED BY ivan; DROP ROLE ivan')
    refused('a run whose role was dropped', admin.error('CALL portage.run(%s)', run), '42704', 'ivan')
    refused('a pipeline whose owner was dropped', admin.error("SELECT portage.migrate('ivan/ivan', '{\"id\": 201}'::text)"), '42704')
    check('... can still be looked at', admin.error('SELECT portage.status(%s)', run) is None and
          admin.error('SELECT * FROM portage.progress') is None and admin.error('SELECT portage.plan(%s)', run) is None,
          told(admin.error('SELECT portage.plan(%s)', run)))
    check('... cancelled', admin.error('SELECT portage.cancel(%s)', run) is None)
    check('... and dropped', admin.error("SELECT portage.drop_pipeline('ivan/ivan', true)") is None,
          told(admin.error("SELECT portage.drop_pipeline('ivan/ivan', true)")))
    grace.close()
    heidi.close()


# ---------------------------------------------------------------- sensitive paths

def sensitive(server, admin):
    """Sensitive paths show *** in rejects to all but the owner of the pipeline."""
    admin.rows('CREATE TABLE app.people (id int PRIMARY KEY, name text, ssn text CHECK (ssn ~ $$^[0-9]+$$), born date); '
               'CREATE ROLE judy LOGIN; CREATE ROLE reader LOGIN; CREATE ROLE runner LOGIN; '
               'GRANT USAGE ON SCHEMA app TO judy, runner; GRANT ALL ON app.people TO judy, runner')
    judy, reader, runner = (Session(server, user) for user in ('judy', 'reader', 'runner'))
    oscar = Session(server, 'oscar')
    columns = '"columns": {"id": "id", "name": "name", "ssn": "%s", "born": "born"}'
    judy.rows("SELECT portage.create_pipeline('people', 'app.people', %s)",
              '{"format": "ndjson", "legacy_id": "id", %s, "sensitive": ["tax.ssn", "born"]}' % (columns % 'tax.ssn'))
    judy.rows("SELECT portage.create_pipeline('people csv', 'app.people', %s)",
              '{"format": "csv", "legacy_id": "id", %s, "sensitive": ["ssn", "born"]}' % (columns % 'ssn'))
    for pipeline in ('people', 'people csv'):
        judy.rows("SELECT portage.grant_pipeline(%s, 'reader', 'read')", pipeline)
        judy.rows("SELECT portage.grant_pipeline(%s, 'runner', 'run')", pipeline)
    bad = [{'id': 1, 'name': 'Ada', 'tax': {'ssn': 'TOPSECRET'}, 'born': '1815-12-10'},      # a CHECK
           {'id': 2, 'name': 'Bob', 'tax': {'ssn': '1'}, 'born': 'TOPSECRET'},                # a conversion
           {'id': 'TOPSECRET', 'name': 'Cy', 'tax': {'ssn': '1'}, 'born': None},             # another column: its value is the reject's own
           {'id': 4, 'name': 'Di', 'tax': {'ssn': '4'}, 'born': '2000-02-30'}]
    payload = ndjson([bad[0], bad[1], bad[3]]) + '\n{"id": 5, "tax": {"ssn": "TOPSECRET"'  # broken JSON
    csv = 'id,name,ssn,born\n1,Ada,TOPSECRET,1815-12-10\n2,Bob,1,TOPSECRET\n3,Cy\n'
    for pipeline, bytes_, owner_run in (('people', payload, judy), ('people csv', csv, judy)):
        for scope, session in (('j', judy), ('r', runner)):
            run, invalid = session.rows("SELECT run_id, invalid FROM portage.migrate(%s, %s, %s)", f'judy/{pipeline}', bytes_, scope)[0]
            check(f'{pipeline}: the rejects are there', invalid >= 3, invalid)
            whole = str(judy.rows('SELECT * FROM portage.rejects WHERE run_id = %s', run))
            check(f'{pipeline}, run by {scope}: the owner of the pipeline sees everything', 'TOPSECRET' in whole, whole)
            others = [('reader', reader), ('a member of admin_role', oscar)] + ([('the runner', runner)] if scope == 'r' else [])
            for who, other in others:
                rows = other.rows('SELECT * FROM portage.rejects WHERE run_id = %s', run)
                check(f'{pipeline}, run by {scope}: {who} sees the rejects masked',
                      len(rows) == invalid and 'TOPSECRET' not in str(rows) and '***' in str(rows), rows)
                for relation in ('migration_items', 'migration_events', 'migration_runs', 'migration_batches', 'legacy_mappings', 'progress'):
                    column = 'id' if relation == 'migration_runs' else 'run_id'
                    if 'TOPSECRET' in str(other.rows(f'SELECT * FROM portage.{relation} r WHERE {column} = %s', run)):
                        check(f'{pipeline}: {relation} tells nothing to {who}', False)
                check(f'{pipeline}: summary() tells nothing to {who}',
                      'TOPSECRET' not in str(other.rows('SELECT portage.summary(%s)', run)))
                for ordinal in range(1, invalid + 1):
                    error = other.error('SELECT portage.reject_raw(%s, %s)', run, ordinal)
                    if error is None or error.pgcode != '42501' or 'TOPSECRET' in told(error):
                        check(f'{pipeline}: reject_raw for {who}', False, told(error))
                check(f'{pipeline}: reject_raw is refused to {who}', True)
            check(f'{pipeline}: reject_raw for the owner',
                  b'TOPSECRET' in bytes(judy.value('SELECT portage.reject_raw(%s, 1)', run)))
    masked = reader.value("SELECT raw FROM portage.rejects r JOIN portage.migration_runs m ON m.id = r.run_id "
                          "WHERE m.pipeline = 'people' AND r.ordinal = 1 LIMIT 1")
    check('what is not sensitive stays readable', '"Ada"' in masked and '"ssn":"***"' in masked.replace(' ', '') and
          '"born":"***"' in masked.replace(' ', ''), masked)
    # an operator of the reader's own must not turn reject_raw() round: it also sees runs that are not sensitive
    judy.rows("SELECT portage.create_pipeline('open people', 'app.people', %s)",
              '{"format": "ndjson", "legacy_id": "id", %s}' % (columns % 'ssn'))
    judy.rows("SELECT portage.grant_pipeline('open people', 'reader', 'read')")
    judy.rows("SELECT portage.migrate('open people', '{\"id\": \"x\"}'::text)")
    admin.rows('CREATE SCHEMA evil3 AUTHORIZATION reader')
    reader.rows('CREATE FUNCTION evil3.yes(bigint, bigint) RETURNS boolean LANGUAGE sql AS $$SELECT true$$; '
                'CREATE OPERATOR evil3.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil3.yes)')
    reader.rows('SET search_path = evil3, pg_catalog')
    run = judy.value("SELECT min(id) FROM portage.migration_runs WHERE pipeline = 'people'")
    refused('reject_raw with an operator of the reader\'s own', reader.error('SELECT portage.reject_raw(%s, 1)', run), '42501')
    log = open(server.log, encoding='utf-8', errors='replace').read()
    leaked = [line for line in log.split('\n') if 'TOPSECRET' in line]
    check("the server's log tells nothing of them", not leaked, leaked)
    for session in (judy, reader, runner, oscar):
        session.close()


with Server() as the_server:
    with Session(the_server) as superuser:
        superuser.rows('CREATE EXTENSION pg_portage')
        for section in (target_rights, sources, ledger_is_not_written, two_roles, code_of_others, evil_search_path, role_of_a_run, sensitive):
            section(the_server, superuser)
finish()
