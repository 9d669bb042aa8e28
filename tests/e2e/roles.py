#!/usr/bin/python3
"""Roles are their oids. A role that is renamed keeps what it has, and whoever gets its old name has none of it; what belonged
to a role that is gone is nobody's until a superuser gives it to another; and in a ledger whose oids are those of another
cluster, or not known, nobody is trusted before adopt_roles()."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import Server, check, finish  # noqa: E402
from sessions import Session, left, ndjson, told, until  # noqa: E402

DEFINITION = ('{"format": "ndjson", "legacy_id": "id", "columns": {"code": "code", "n": "n", "secret": "secret"}, "match": ["code"], '
              '"sensitive": ["secret"], "rules": {"positive": "n >= 0"}}')
ROWS = '{"format": "rows", "legacy_id": "id", "columns": {"code": "code", "n": "n"}, "match": ["code"], "source": {"table": "app.legacy"}}'


def items(first, last):
    return [{'id': f'i{n}', 'code': f'c{n}', 'n': n, 'secret': f'SECRET{n}'} for n in range(first, last + 1)]


def refused(name, error, code='42501', *texts):
    everything = told(error)
    check(name, error is not None and error.pgcode == code and all(text in everything for text in texts), everything)


def accepted(name, error):
    check(name, error is None, told(error))


def make_role(admin, name):
    admin.rows(f'CREATE ROLE {name} LOGIN; GRANT USAGE ON SCHEMA app TO {name}; GRANT ALL ON ALL TABLES IN SCHEMA app TO {name}; '
               f'GRANT USAGE ON ALL SEQUENCES IN SCHEMA app TO {name}')


def orphans(admin):
    return admin.rows("SELECT value, state FROM portage.health() WHERE signal = 'gone_roles'")[0]


def oid_of(admin, role):
    return admin.value('SELECT oid::bigint FROM pg_roles WHERE rolname = %s', role)


# ---------------------------------------------------------------- renamed

def renamed(server, admin):
    """The role is the same under its new name; the old name, given to another, gives that one nothing."""
    make_role(admin, 'importer')
    make_role(admin, 'assistant')
    with Session(server, 'importer') as importer:
        importer.rows("SELECT portage.create_pipeline('words', 'app.words', %s)", DEFINITION)
        admin.rows("SELECT portage.grant_pipeline('importer/words', 'assistant', 'run')")  # so that its bare name will do
        run = importer.value("SELECT run_id FROM portage.migrate('words', %s)", ndjson([*items(1, 3), {**items(4, 4)[0], 'n': -4}]))
        pending = importer.value("SELECT portage.open_run('words', 'later')")
        importer.rows('SELECT portage.submit(%s, %s)', pending, ndjson(items(11, 13)))
    with Session(server, 'assistant') as assistant:
        assistant.rows("SELECT portage.migrate('importer/words', %s, 'of the assistant')", ndjson(items(21, 22)))
    admin.rows('ALTER ROLE importer RENAME TO importer2; ALTER ROLE assistant RENAME TO assistant2')
    make_role(admin, 'importer')
    make_role(admin, 'assistant')
    with Session(server, 'importer2') as same, Session(server, 'importer') as namesake:
        check('renamed: the role sees its runs', same.value('SELECT count(*) FROM portage.migration_runs') == 3)
        check('renamed: ... and its rejects unmasked', same.value('SELECT raw FROM portage.rejects').count('SECRET4') == 1)
        check('renamed: ... under its new name', same.value("SELECT portage.report(%s) ->> 'role'", run) == 'importer2')
        check('renamed: the name of that time stays recorded', same.value('SELECT role_name FROM portage.migration_runs WHERE id = %s', run) == 'importer')
        accepted('renamed: ... and owns its pipeline', same.error("SELECT portage.replace_pipeline('words', %s)", DEFINITION))
        accepted('renamed: ... and goes on with its runs', same.error('CALL portage.run(%s)', pending))
        accepted('renamed: ... and takes them back', same.error('CALL portage.rollback(%s)', pending))
        for relation in ('pipelines', 'pipeline_grants', 'pipeline_versions', 'migration_runs', 'migration_parts', 'migration_events', 'rejects',
                         'migration_items', 'legacy_mappings', 'progress', 'schedules', 'groups', 'locks', 'history'):
            check(f'the namesake sees nothing in {relation}', namesake.value(f'SELECT count(*) FROM portage.{relation}') == 0)
        for what, sql in (('migrates', "SELECT portage.migrate('words', '{}'::text)"), ('drops', "SELECT portage.drop_pipeline('words', true)"),
                          ('replaces', "SELECT portage.replace_pipeline('words', '{}')"), ('grants', "SELECT portage.grant_pipeline('words', 'public', 'read')"),
                          ('gives away', "SELECT portage.transfer_pipeline('words', 'importer')")):
            refused(f'the namesake: nothing that it {what}', namesake.error(sql), 'PZ004')
        for what, sql in (('goes on with', 'CALL portage.run(%s)'), ('takes back', 'CALL portage.rollback(%s)'), ('replays', 'SELECT portage.replay(%s)'),
                          ('reads', 'SELECT portage.report_markdown(%s)'), ('takes over', "SELECT portage.transfer_run(%s, 'importer')")):
            error = namesake.error(sql, run)
            check(f'the namesake: no run that it {what}', what == 'reads' and namesake.value(sql, run) is None or error is not None and error.pgcode == 'PZ005',
                  told(error))
        check('the namesake has no run to go on with', namesake.error('CALL portage.run()').pgcode == 'PZ005')
    with Session(server, 'assistant2') as same, Session(server, 'assistant') as namesake:
        accepted('renamed: a grant is that of the role', same.error("SELECT portage.migrate('importer2/words', %s, 'again')", ndjson(items(23, 23))))
        refused('renamed: ... not of the name', namesake.error("SELECT portage.migrate('importer2/words', '{}'::text)"), 'PZ004')
        refused('renamed: ... and the old address is that of the new role, which has nothing', same.error("SELECT portage.migrate('importer/words', '{}'::text)"), 'PZ004')
    check('renamed: nobody is gone', orphans(admin) == (0, 'ok'))
    check('renamed: health() has noted the names', admin.value("SELECT count(*) FROM portage.known_roles WHERE name IN ('importer2', 'assistant2') AND NOT gone") == 2)
    admin.rows('DROP OWNED BY importer, assistant; DROP ROLE importer, assistant')


def renamed_in_mid_run(server, admin):
    """Neither an import nor the verification behind it notices."""
    make_role(admin, 'before')
    gate = Session(server)
    gate.rows('INSERT INTO app.closed VALUES (150)')
    gate.rows('SELECT pg_advisory_lock(4711)')
    with Session(server, 'before') as session:
        session.rows("SELECT portage.create_pipeline('renamed in mid-run', 'app.words', %s)", DEFINITION)
        run = session.value("SELECT portage.open_run('renamed in mid-run', '', '{\"batch_size\": 20, \"verify\": true}')")
        session.rows('SELECT portage.submit(%s, %s)', run, ndjson(items(101, 200)))
        under_way = session.begin('CALL portage.run(%s)', run)
        check('mid-run: a batch waits', until(lambda: admin.value("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s", session.pid)))
        admin.rows('ALTER ROLE before RENAME TO after')
        make_role(admin, 'before')
        gate.rows('TRUNCATE app.closed')
        gate.close()
        check('mid-run: the run goes on', under_way.wait().error is None, told(under_way.error))
        check('mid-run: ... and is verified', session.rows('SELECT status, inserted FROM portage.status(%s)', run) == [('completed', 100)] and
              session.value('SELECT verified FROM portage.migration_runs WHERE id = %s', run) is True)
    admin.rows('DROP OWNED BY before; DROP ROLE before')


# ---------------------------------------------------------------- gone

def gone(server, admin):
    """What a dropped role leaves is nobody's, also not of a role that gets its oid; superusers are told how to go on."""
    for role in ('clerk', 'manager', 'revenant'):
        make_role(admin, role)
    with Session(server, 'clerk') as clerk:
        clerk.rows('CREATE TEMP TABLE nothing ()')
        clerk.rows("SELECT portage.create_pipeline('of the clerk', 'app.words', %s)", DEFINITION)
        clerk.rows("SELECT portage.create_pipeline('nightly', 'app.words', %s)", ROWS)
        clerk.rows("SELECT portage.schedule('nightly', '0 3 * * *')")
        run = clerk.value("SELECT run_id FROM portage.migrate('of the clerk', %s)", ndjson(items(301, 305)))
        by_file = clerk.value("SELECT portage.open_run('nightly', '')")
        clerk.rows('SELECT portage.attach_source(%s)', by_file)
        clerk.rows('CALL portage.run(%s)', by_file)
    left(admin, clerk.pid)  # with its temporary table
    clerk_oid = oid_of(admin, 'clerk')
    accepted('gone: the role can be dropped', admin.error('REASSIGN OWNED BY clerk TO manager') or admin.error('DROP OWNED BY clerk') or admin.error('DROP ROLE clerk'))
    # the ledger still names what it was
    check('gone: superusers still see its runs', admin.rows('SELECT role_name, status FROM portage.migration_runs WHERE id = %s', run) == [('clerk', 'completed')])
    for what, sql in (('rolled back', f'CALL portage.rollback({run})'), ('replayed', f'SELECT portage.replay({run})'), ('verified', f'SELECT * FROM portage.verify({run})')):
        refused(f'gone: its run cannot be {what}', admin.error(sql), '42704', 'role "clerk"', f'transfer_run({run}, role)')
    for what, sql in (('run', "SELECT portage.migrate('clerk/of the clerk', '{}'::text)"), ('opened', "SELECT portage.open_run('clerk/of the clerk')"),
                      ('replaced', "SELECT portage.replace_pipeline('clerk/of the clerk', '{}')"), ('granted', "SELECT portage.grant_pipeline('clerk/of the clerk', 'manager', 'run')")):
        refused(f'gone: its pipeline cannot be {what}', admin.error(sql), '42704', "transfer_pipeline('clerk/of the clerk', role)")
    check('gone: health() tells of it', orphans(admin) == (5, 'mend'), orphans(admin))
    # whoever gets the oid, which takes some four billion others in between
    admin.rows('DROP OWNED BY revenant; UPDATE pg_authid SET oid = %s WHERE rolname = %s', clerk_oid, 'revenant')
    admin.rows('GRANT USAGE ON SCHEMA app TO revenant; GRANT ALL ON app.words TO revenant')
    with Session(server, 'revenant') as revenant:
        for relation in ('pipelines', 'migration_runs', 'rejects', 'schedules', 'migration_items'):
            check(f'given its oid: nothing is seen in {relation}', revenant.value(f'SELECT count(*) FROM portage.{relation}') == 0)
        refused('given its oid: no run is taken back', revenant.error('CALL portage.rollback(%s)', run), 'PZ005')
        refused('given its oid: no pipeline is dropped', revenant.error("SELECT portage.drop_pipeline('of the clerk', true)"), 'PZ004')
        refused('given its oid: nothing is begun in its name', revenant.error("SELECT portage.create_pipeline('mine', 'app.words', %s)", DEFINITION), '55000', 'adopt_roles')
    check('given its oid: still nobody has it', orphans(admin) == (5, 'mend'))
    shown = admin.rows('SELECT name, old_oid::bigint, new_oid, remark, pipelines, runs, schedules FROM portage.adopt_roles()')
    check('given its oid: adopt_roles() tells the two apart', shown == [('clerk', clerk_oid, None, 'it was gone before', 2, 2, 1)], shown)
    admin.rows('SELECT portage.adopt_roles(confirm => true)')
    check('... and then there is nothing to adopt', admin.rows('SELECT * FROM portage.adopt_roles()') == [])
    check('... and it is gone as before', orphans(admin) == (5, 'mend') and
          admin.value('SELECT role_name FROM portage.migration_runs WHERE id = %s AND role_oid <> %s', run, clerk_oid) == 'clerk')
    with Session(server, 'revenant') as revenant:
        accepted('... and the other one has a life of its own', revenant.error("SELECT portage.create_pipeline('mine', 'app.words', %s)", DEFINITION))
        check('... with what is its own', revenant.rows('SELECT name FROM portage.pipelines') == [('mine',)])
        revenant.rows("SELECT portage.drop_pipeline('mine')")
    admin.rows('DROP OWNED BY revenant; DROP ROLE revenant')
    # given to another
    with Session(server, 'manager') as manager:
        refused('gone: nobody but a superuser gives it away', manager.error("SELECT portage.transfer_run(%s, 'manager')", run), 'PZ005')
        refused('gone: ... nor the pipeline', manager.error("SELECT portage.transfer_pipeline('of the clerk', 'manager')"), 'PZ004')
        accepted('gone: a superuser gives the run away', admin.error("SELECT portage.transfer_run(%s, 'manager')", run))
        refused('gone: ... not one with sources, while its pipeline is nobody\'s', admin.error("SELECT portage.transfer_run(%s, 'manager')", by_file), '42501',
                "transfer_pipeline('clerk/nightly', 'manager')")
        for name in ('of the clerk', 'nightly'):
            accepted(f'gone: ... and the pipeline {name}', admin.error("SELECT portage.transfer_pipeline(%s, 'manager')", 'clerk/' + name))
        accepted('gone: ... and then the run with sources', admin.error("SELECT portage.transfer_run(%s, 'manager')", by_file))
        check('gone: the schedule went along', manager.rows('SELECT pipeline, owner FROM portage.schedules') == [('nightly', 'manager')])
        check('gone: health() is content', orphans(admin) == (0, 'ok'), orphans(admin))
        accepted('gone: the new role takes the run back', manager.error('CALL portage.rollback(%s)', run))
        check('gone: ... and its rows are gone', admin.value("SELECT count(*) FROM app.words WHERE code BETWEEN 'c301' AND 'c305'") == 0)
        accepted('gone: ... the other one, too', manager.error('CALL portage.rollback(%s)', by_file))
        accepted('gone: ... and imports', manager.error("SELECT portage.migrate('of the clerk', %s)", ndjson(items(306, 306))))
        check('gone: events tell of it', manager.rows("SELECT details ->> 'from', details ->> 'to' FROM portage.migration_events WHERE run_id = %s AND "
                                                      "event_type = 'transferred'", run) == [('clerk', 'manager')] and
              manager.value("SELECT count(*) FROM portage.migration_events WHERE run_id = 0 AND event_type = 'pipeline_transferred'") == 2)


# ---------------------------------------------------------------- transferred

def transferred(server, admin):
    """As ALTER ... OWNER TO: by whoever is the old role and could be the new one; never while somebody works on the run."""
    for role in ('old', 'new', 'two_hats', 'only_old', 'only_new', 'stranger', 'officer', 'reader'):
        make_role(admin, role)
    admin.rows("GRANT old TO two_hats, only_old; GRANT new TO two_hats, only_new; CREATE ROLE operators; GRANT operators TO officer; "
               "ALTER DATABASE postgres SET portage.admin_role = 'operators'")
    with Session(server, 'old') as old:
        old.rows("SELECT portage.create_pipeline('theirs', 'app.words', %s)", DEFINITION)
        old.rows("SELECT portage.grant_pipeline('theirs', 'reader', 'read')")
        run = old.value("SELECT portage.open_run('theirs', '')")
        old.rows('SELECT portage.submit(%s, %s)', run, ndjson(items(401, 403)))
    for user, codes in (('stranger', ('PZ005', 'PZ004')), ('only_new', ('PZ005', 'PZ004')), ('new', ('PZ005', 'PZ004')), ('reader', ('42501', '42501')),
                        ('officer', ('42501', '42501')), ('only_old', ('42501', '42501')), ('old', ('42501', '42501'))):
        with Session(server, user) as session:
            refused(f'{user} does not give the run to new', session.error("SELECT portage.transfer_run(%s, 'new')", run), codes[0])
            refused(f'{user} does not give the pipeline to new', session.error("SELECT portage.transfer_pipeline('old/theirs', 'new')"), codes[1])
    with Session(server, 'two_hats') as both:
        for what, role, code in (('one that is not there', 'nobody_at_all', '42704'), ('public', 'public', '42704'), ('one that it is not', 'stranger', '42501'),
                                 ('a superuser', 'postgres', '42501')):
            refused(f'not to {what}', both.error("SELECT portage.transfer_run(%s, %s)", run, role), code)
            refused(f'nor the pipeline to {what}', both.error("SELECT portage.transfer_pipeline('theirs', %s)", role), code)
        refused('no run that is not there', both.error("SELECT portage.transfer_run(987654321, 'new')"), 'PZ005')
        check('null is null', both.value("SELECT portage.transfer_run(NULL, 'new')") is None and both.value("SELECT portage.transfer_pipeline(NULL, 'new')") is None)
        accepted('to itself is nothing', both.error("SELECT portage.transfer_run(%s, 'old')", run) or both.error("SELECT portage.transfer_pipeline('theirs', 'old')"))
        check('... and is no event', both.value("SELECT count(*) FROM portage.migration_events WHERE event_type LIKE '%%transferred'") == 0)
        # while it is uncommitted, the old role cannot begin it; after it, it is not its any more
        with Session(server, 'old') as old:
            both.rows('BEGIN')
            both.rows("SELECT portage.transfer_run(%s, 'new')", run)
            refused('a run that is being given away is not begun', old.error('CALL portage.run(%s)', run), 'PZ007')
            both.rows('COMMIT')
            refused('... nor when it is given', old.error('CALL portage.run(%s)', run))
            refused('... nor given back', old.error("SELECT portage.transfer_run(%s, 'old')", run))
            check('... but seen, as of its pipeline', old.value('SELECT count(*) FROM portage.migration_runs WHERE id = %s', run) == 1)
        with Session(server, 'new') as new:
            accepted('the new role works it off', new.error('CALL portage.run(%s)', run))
        check('... as itself', admin.rows("SELECT DISTINCT by_role FROM app.words WHERE code BETWEEN 'c401' AND 'c403'") == [('new',)])
        check('... and as session role', admin.rows('SELECT role_name, session_role, requested_by FROM portage.migration_runs WHERE id = %s', run) == [('new', 'new', 'old')])
        accepted('whoever could be both gives the pipeline away', both.error("SELECT portage.transfer_pipeline('theirs', 'new')"))
    with Session(server, 'old') as old, Session(server, 'reader') as reader, Session(server, 'new') as new:
        refused('the pipeline is the old role\'s no more', old.error("SELECT portage.drop_pipeline('theirs')"), 'PZ004')
        check('grants stay', reader.value("SELECT count(*) FROM portage.migration_runs WHERE id = %s", run) == 1 and
              new.value('SELECT count(*) FROM portage.pipeline_grants') == 1)
        accepted('the new role owns it', new.error("SELECT portage.replace_pipeline('theirs', %s)", DEFINITION))

        # a run in work, paused, in the background
        new.rows("SELECT portage.transfer_pipeline('theirs', 'new')")
        gate = Session(server)
        gate.rows('INSERT INTO app.closed VALUES (530)')
        gate.rows('SELECT pg_advisory_lock(4711)')
        run = new.value("SELECT portage.open_run('theirs', 'in work', '{\"batch_size\": 20}')")
        new.rows('SELECT portage.submit(%s, %s)', run, ndjson(items(501, 600)))
        new.rows('SELECT portage.start(%s)', run)
        check('in work: a batch waits', until(lambda: admin.value("SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)")))
        refused('a run in work is not given away', admin.error("SELECT portage.transfer_run(%s, 'old')", run), 'PZ007')
        admin.rows('SELECT portage.pause(%s)', run)
        gate.rows('TRUNCATE app.closed')
        gate.close()
        check('in work: it is paused', until(lambda: admin.value('SELECT status FROM portage.status(%s)', run) == 'paused'))
        accepted('a paused run is given away', admin.error("SELECT portage.transfer_run(%s, 'old')", run))
        admin.rows('SELECT portage.resume(%s)', run)
        check('... and goes on as the other role', until(lambda: admin.value('SELECT status FROM portage.status(%s)', run) == 'completed') and
              admin.rows("SELECT by_role, count(*) > 0 FROM app.words WHERE code BETWEEN 'c501' AND 'c600' GROUP BY 1 ORDER BY 1") == [('new', True), ('old', True)],
              admin.rows('SELECT status, error FROM portage.migration_runs WHERE id = %s', run))
        accepted('... which takes all of it back', old.error('CALL portage.rollback(%s)', run))

        # an owner whose lease has run out learns that the run is another's
        run = new.value("SELECT portage.open_run('theirs', 'queued')")
        new.rows('SELECT portage.submit(%s, %s)', run, ndjson(items(601, 602)))
        admin.rows("UPDATE portage.migration_runs SET status = 'queued' WHERE id = %s", run)
        accepted('a queued run is given away', admin.error("SELECT portage.transfer_run(%s, 'old')", run))
        admin.rows('CALL portage.tick()')
        check('... and its worker comes as the other role', until(lambda: admin.value('SELECT status FROM portage.status(%s)', run) == 'completed') and
              admin.rows("SELECT DISTINCT by_role FROM app.words WHERE code IN ('c601', 'c602')") == [('old',)],
              admin.rows('SELECT status, error FROM portage.migration_runs WHERE id = %s', run))

        # sources are not read with the rights of a role that did not name them
        new.rows("SELECT portage.create_pipeline('with sources', 'app.words', %s)", ROWS)
        run = new.value("SELECT portage.open_run('with sources', 'copied')")
        new.rows("SELECT portage.attach_query(%s, 'SELECT * FROM app.legacy', snapshot => true)", run)
        accepted('sources: what was copied is none', admin.error("SELECT portage.transfer_run(%s, 'stranger')", run))
        run = new.value("SELECT portage.open_run('with sources', 'table')")
        new.rows("SELECT portage.attach_table(%s, 'app.legacy')", run)
        refused('sources: not as a role whose rights the pipeline\'s owner has not', admin.error("SELECT portage.transfer_run(%s, 'stranger')", run), '42501',
                "transfer_pipeline('new/with sources', 'stranger')")
        accepted('sources: where it has them', admin.error('GRANT stranger TO new') or admin.error("SELECT portage.transfer_run(%s, 'stranger')", run))

        # a group moves as one
        new.rows("SELECT portage.create_pipeline('more sources', 'app.words', %s)", ROWS)
        group = new.value("SELECT portage.run_group(ARRAY['with sources', 'more sources'], '{\"background\": false}')")
        members = [row[0] for row in new.rows('SELECT run_id FROM portage.group_status(%s)', group)]
        accepted('a group: by one of its runs', admin.error("SELECT portage.transfer_run(%s, 'stranger')", members[1]))
        check('a group: all of it', admin.rows('SELECT DISTINCT role_name FROM portage.migration_runs WHERE group_id = %s', group) == [('stranger',)] and
              admin.value('SELECT owner FROM portage.groups WHERE group_id = %s', group) == 'stranger')
        check('a group: with an event each', admin.value("SELECT count(*) FROM portage.migration_events WHERE event_type = 'transferred' AND run_id = ANY (%s)", members) == 2)
        with Session(server, 'stranger') as stranger:
            accepted('a group: its new role works it off', stranger.error('CALL portage.work_group(%s)', group))

        # a schedule of the owner goes along, another's stays
        new.rows("SELECT portage.schedule('with sources', '0 3 * * *')")
        admin.rows("SELECT portage.transfer_pipeline('new/with sources', 'old')")
        check('a schedule went along', old.rows('SELECT owner FROM portage.schedules') == [('old',)])
        due = admin.value("SELECT (next_run_at + interval '1 second')::text FROM portage.schedules WHERE pipeline = 'with sources'")
        admin.rows('CALL portage.tick(%s::timestamptz)', due)
        run = admin.value('SELECT max(id) FROM portage.migration_runs')
        check('... and runs as the new owner', admin.value('SELECT role_name FROM portage.migration_runs WHERE id = %s', run) == 'old')
        until(lambda: admin.value('SELECT status FROM portage.status(%s)', run) == 'completed')


# ---------------------------------------------------------------- of another cluster, or not known

def foreign(server, admin):
    """What pg_restore makes in another cluster, by hand: nobody is trusted, nothing is written, until a superuser says so."""
    for role in ('anna', 'bert', 'carl', 'dora'):
        make_role(admin, role)
    with Session(server, 'anna') as anna:
        anna.rows("SELECT portage.create_pipeline('shared', 'app.words', %s)", DEFINITION)
        admin.rows("SELECT portage.grant_pipeline('anna/shared', 'bert', 'run')")
        admin.rows("SELECT portage.grant_pipeline('anna/shared', 'carl', 'run')")
        run = anna.value("SELECT run_id FROM portage.migrate('shared', %s)", ndjson(items(701, 702)))
    admin.rows("SELECT portage.grant_pipeline('anna/shared', 'public', 'read')")
    with Session(server, 'dora') as dora:
        check('known: public reads', dora.value("SELECT count(*) FROM portage.migration_runs WHERE pipeline = 'shared'") == 1)
    anna, bert, officer = Session(server, 'anna'), Session(server, 'bert'), Session(server, 'officer')
    check('known: an administrator sees all', officer.value('SELECT count(*) FROM portage.migration_runs') == admin.value('SELECT count(*) FROM portage.migration_runs'))
    counts = admin.rows('SELECT count(*), (SELECT count(*) FROM portage.migration_runs), (SELECT count(*) FROM portage.pipeline_grants) FROM portage.pipelines')

    # the roles have each other's oids there, and two are not to be told apart
    admin.rows("UPDATE portage.known_roles SET cluster = cluster - 1; "
               "UPDATE portage.known_roles SET name = CASE name WHEN 'bert' THEN 'carl' WHEN 'carl' THEN 'bert' WHEN 'dora' THEN 'dora' ELSE name END; "
               "INSERT INTO portage.known_roles SELECT (oid::bigint + 100000)::oid, 'reader', false, min(cluster) FROM pg_roles, portage.known_roles WHERE rolname = 'reader' GROUP BY 1")
    for user, session in (('owner', anna), ('grantee', bert), ('administrator', officer)):
        for relation in ('pipelines', 'pipeline_grants', 'migration_runs', 'rejects', 'migration_items', 'legacy_mappings', 'progress', 'schedules', 'groups'):
            check(f'foreign: the {user} sees nothing in {relation}', session.value(f'SELECT count(*) FROM portage.{relation}') == 0)
        for sql in ("SELECT portage.migrate('shared', '{}'::text)", "SELECT portage.drop_pipeline('shared', true)", f'CALL portage.rollback({run})',
                    f"SELECT portage.transfer_run({run}, 'anna')", "SELECT portage.transfer_pipeline('shared', 'anna')", 'CALL portage.run()',
                    f"SELECT portage.cancel({run})"):
            refused(f'foreign: the {user} is told why: {sql}', session.error(sql), '55000', 'adopt_roles')
        refused(f'foreign: the {user} begins nothing new', session.error("SELECT portage.create_pipeline('new one', 'app.words', %s)", DEFINITION), '55000')
        refused(f'foreign: the {user} adopts nobody', session.error('SELECT * FROM portage.adopt_roles()'))
        refused(f'foreign: the {user} adopts nobody by confirming', session.error('SELECT * FROM portage.adopt_roles(true)'))
    for sql in ("SELECT portage.migrate('anna/shared', '{}'::text)", "SELECT portage.create_pipeline('new one', 'app.words', '%s')" % DEFINITION,
                "SELECT portage.grant_pipeline('anna/shared', 'dora', 'run')", "SELECT portage.revoke_pipeline('anna/shared', 'bert', 'run')", "SELECT portage.replace_pipeline('anna/shared', '%s')" % DEFINITION,
                f'CALL portage.rollback({run})', f"SELECT portage.transfer_run({run}, 'anna')", "SELECT portage.transfer_pipeline('anna/shared', 'anna')",
                "SELECT portage.open_run('anna/shared')"):
        refused(f'foreign: nor a superuser: {sql[:50]}', admin.error(sql), '55000', 'adopt_roles')
    check('foreign: a superuser sees all', admin.rows('SELECT count(*), (SELECT count(*) FROM portage.migration_runs), (SELECT count(*) FROM portage.pipeline_grants) '
                                                      'FROM portage.pipelines') == counts)
    check('foreign: health() says so', orphans(admin)[1] == 'mend')
    accepted('foreign: tick() leaves all alone', admin.error('CALL portage.tick()'))
    before = admin.rows('SELECT * FROM portage.recorded_roles ORDER BY 1, 2, 3')
    shown = {row[0]: row[1:] for row in admin.rows("SELECT name, new_oid::bigint, remark, grants, pipelines, runs FROM portage.adopt_roles() WHERE name <> 'reader'")}
    check('adopt_roles() shows who is who', shown['anna'] == (oid_of(admin, 'anna'), None, 0, 1, 1) and shown['bert'][0] == oid_of(admin, 'bert'), shown)
    twice = admin.rows("SELECT new_oid, remark FROM portage.adopt_roles() WHERE name = 'reader'")
    check('... and who is nobody', twice == [(None, 'several roles had this name')] * 2, twice)
    check('... and changes nothing', admin.rows('SELECT * FROM portage.recorded_roles ORDER BY 1, 2, 3') == before and anna.value('SELECT count(*) FROM portage.pipelines') == 0)
    admin.rows('BEGIN; SELECT portage.adopt_roles(true)')
    admin.rows('ROLLBACK')
    check('adopted and rolled back is not adopted', anna.value('SELECT count(*) FROM portage.pipelines') == 0 and
          admin.value('SELECT count(*) FROM portage.adopt_roles()') > 0)
    confirmed = admin.rows('SELECT * FROM portage.adopt_roles(confirm => true)')
    check('confirmed, the others are who they were', len(confirmed) > 4 and anna.value("SELECT count(*) FROM portage.migration_runs WHERE pipeline = 'shared'") == 1 and
          admin.rows('SELECT * FROM portage.adopt_roles()') == [])
    accepted('... in sessions that were there before', anna.error("SELECT portage.replace_pipeline('shared', %s)", DEFINITION) or
             bert.error("SELECT portage.migrate('shared', %s, 'of bert')", ndjson(items(703, 703))))
    check('... an administrator is one again', officer.value('SELECT count(*) FROM portage.migration_runs') > 1)
    check('two that had each other\'s oids have changed places', admin.rows(
        "SELECT g.role_name, r.rolname FROM portage.pipeline_grants g JOIN pg_roles r ON r.oid = g.role_oid JOIN portage.pipelines p ON p.id = g.pipeline_id "
        "WHERE p.name = 'shared' ORDER BY 1") == [('bert', 'carl'), ('carl', 'bert')])
    check('public is public', admin.value("SELECT count(*) FROM portage.pipeline_grants WHERE role_oid = 0 AND role_name = 'public'") == 1)
    with Session(server, 'reader') as reader:
        check('who was not told apart sees nothing', reader.value("SELECT count(*) FROM portage.migration_runs WHERE pipeline = 'theirs'") == 0)

    # a part was restored, without the table that says of which cluster
    admin.rows("DELETE FROM portage.known_roles WHERE name IN ('anna', 'bert')")
    check('not known: the owner sees nothing', anna.value("SELECT count(*) FROM portage.pipelines WHERE name <> 'shared'") == 0 and
          anna.value("SELECT count(*) FROM portage.rejects") == 0)
    refused('not known: ... and is told why', anna.error("SELECT portage.create_pipeline('new one', 'app.words', %s)", DEFINITION), '55000', 'adopt_roles')
    check('not known: health() says so', orphans(admin)[1] == 'mend')
    known = admin.rows('SELECT name, new_oid::bigint, remark FROM portage.adopt_roles(true)')
    check('not known: by the name of that time', ('anna', oid_of(admin, 'anna'), None) in known, known)
    accepted('not known: adopted, they are who they were', anna.error("SELECT portage.replace_pipeline('shared', %s)", DEFINITION))
    for session in (anna, bert, officer):
        session.close()


with Server() as private_server, Session(private_server) as superuser:
    superuser.rows('CREATE EXTENSION pg_portage')
    superuser.rows('CREATE SCHEMA app; CREATE TABLE app.words (id bigserial PRIMARY KEY, code text NOT NULL UNIQUE, n int, secret text, '
                   'by_role text DEFAULT current_user); CREATE TABLE app.closed (n int); CREATE TABLE app.legacy (id int PRIMARY KEY, code text, n int); '
                   "INSERT INTO app.legacy VALUES (1, 'l1', 1), (2, 'l2', 2); "
                   'CREATE FUNCTION app.gate() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN '
                   'IF EXISTS (SELECT FROM app.closed WHERE n = NEW.n) THEN PERFORM pg_advisory_xact_lock_shared(4711); END IF; RETURN NEW; END$$; '
                   'CREATE TRIGGER gate BEFORE INSERT ON app.words FOR EACH ROW EXECUTE FUNCTION app.gate()')
    renamed(private_server, superuser)
    renamed_in_mid_run(private_server, superuser)
    gone(private_server, superuser)
    transferred(private_server, superuser)
    foreign(private_server, superuser)
finish()
