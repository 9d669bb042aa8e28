#!/usr/bin/python3
"""An ordinary role brings code of its own into whatever PostgreSQL runs while we work: not one way gives it a right. Told
as it was done are the ways by which roles did gain once (maintenance and autovacuum, calls of superusers, definers' functions,
pools, squatted names), and more of their kind. Not tried here: policies, rules, casts, generated columns as doors; verify_run,
replay_run, tick, the launcher, schedules and groups as entries. Where code is refused, its canary is seen to fire elsewhere or
the refusal is checked: what never came to the door proves nothing."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from hostile import Attacker, Canaries  # noqa: E402
from portage_server import Server, check, finish  # noqa: E402
from sessions import Session, told, until  # noqa: E402

ITEM = '{"id": 1}'
DEFINITION = '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id"}, "match": ["id"]}'


def prepare(admin):
    admin.rows('CREATE EXTENSION pg_portage')
    admin.rows('CREATE ROLE victim LOGIN; CREATE SCHEMA vault AUTHORIZATION victim; CREATE ROLE pool LOGIN NOINHERIT; '
               'GRANT victim TO pool')
    admin.rows("SET ROLE victim; CREATE TABLE vault.secret (s text); INSERT INTO vault.secret VALUES ('s'); RESET ROLE")


# ---------------------------------------------------------------- the ways that were open

def with_a_table_behind(server, admin, name):
    """The target's trigger fills a second table, whose deferred trigger waits for COMMIT: there it bites for good."""
    role = Attacker(server, admin, name)
    role.rows(f'SET search_path = {name}')
    role.rows('CREATE TABLE target (id int PRIMARY KEY)')
    role.rows('CREATE TABLE behind (id int)')
    role.rows('CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS '
              f'$$ BEGIN INSERT INTO {name}.behind VALUES (NEW.id); RETURN NEW; END $$')
    role.rows('CREATE TRIGGER fill AFTER INSERT ON target FOR EACH ROW EXECUTE FUNCTION fill()')
    role.rows(f"""CREATE FUNCTION bite() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM {name}.canary('deferred, on a table behind');
        BEGIN EXECUTE 'RESET ROLE'; EXECUTE 'ALTER ROLE {name} SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
        RETURN NULL; END $$""")
    role.rows('CREATE CONSTRAINT TRIGGER bite AFTER INSERT ON behind DEFERRABLE INITIALLY DEFERRED '
              'FOR EACH ROW EXECUTE FUNCTION bite()')
    role.rows(f"SELECT portage.create_pipeline('{name}', '{name}.target', %s)", DEFINITION)
    return role


def opens_a_run(role):
    """A function that opens a run of its owner's and starts it, once and only for others; as a trigger, and in an index."""
    name = role.name
    role.rows('CREATE TABLE opened (run bigint)')
    role.rows(f"""CREATE FUNCTION open_one() RETURNS integer LANGUAGE plpgsql AS $$
        DECLARE run bigint;
        BEGIN
          IF session_user = '{name}' OR EXISTS (SELECT FROM {name}.opened) THEN RETURN 1; END IF;
          run := portage.open_run('{name}');
          INSERT INTO {name}.opened VALUES (run);
          PERFORM portage.submit(run, pg_catalog.format('{{"id": %s}}', run));
          PERFORM portage.start(run);
          RETURN 1;
        END $$""")
    role.rows('CREATE FUNCTION indexed(id int) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN 1; END $$')
    role.rows('CREATE TABLE bait (id int)')
    role.rows('CREATE INDEX ON bait (indexed(id))')
    role.rows(f'CREATE OR REPLACE FUNCTION indexed(id int) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS '
              f'$$ BEGIN RETURN {name}.open_one(); END $$')
    role.rows('INSERT INTO bait VALUES (1)')


def outcome(way, role, canaries, fires=True):
    """Whether the role has gained; `fires`: its code ran at all, or else was refused."""
    admin = role.admin
    settled = until(lambda: not admin.value("SELECT count(*) FROM portage.migration_runs WHERE status IN "
                                            "('queued', 'running', 'verifying', 'rolling_back')"))
    check(f'{way}: what was begun has ended', settled)
    notes = canaries.new()
    if fires:
        check(f'{way}: the code has run', notes)
    gains = sorted({f'{n.door} as {n.session}/{n.user}: {n.gains}' for n in notes if n.gains})
    check(f'{way}: nothing is gained', not gains, '; '.join(gains))
    if not check(f'{way}: nobody has become superuser', not role.is_superuser()):
        admin.rows(f'ALTER ROLE {role.name} NOSUPERUSER')
    return notes


def by_maintenance(server, admin, canaries):
    """A superuser's REINDEX or ANALYZE, or autovacuum, runs an index expression: it opens a run in the superuser's session."""
    for number, statement in enumerate(('REINDEX TABLE %s.bait', 'ANALYZE %s.bait', 'VACUUM ANALYZE %s.bait', 'autovacuum')):
        role = with_a_table_behind(server, admin, f'indexer{number}')
        opens_a_run(role)
        if statement == 'autovacuum':
            role.rows('ALTER TABLE bait SET (autovacuum_analyze_threshold = 0, autovacuum_analyze_scale_factor = 0, '
                      'autovacuum_enabled = true)')
            role.rows('DELETE FROM bait')
            role.rows('ALTER FUNCTION indexed(int) RENAME TO kept')
            role.rows('ALTER FUNCTION kept(int) RENAME TO indexed')
            role.rows('INSERT INTO bait VALUES (2)')
            check('an index expression, autovacuum: it came by', until(lambda: admin.value(
                "SELECT autoanalyze_count FROM pg_stat_all_tables WHERE relid = %s::regclass", f'{role.name}.bait')))
        else:
            error = admin.error(statement % role.name)
            check(f'an index expression, {statement % role.name}: goes on, or is refused',
                  error is None or error.pgcode == '42501', told(error))
        outcome(f'an index expression, {statement.replace("%s.", "")}', role, canaries)
        role.close()


def by_call(server, admin, canaries):
    """A superuser's CALL of somebody's run whose trigger opens another; and somebody's SECURITY DEFINER function."""
    role = with_a_table_behind(server, admin, 'caller')
    opens_a_run(role)
    role.rows('CREATE FUNCTION open_another() RETURNS trigger LANGUAGE plpgsql AS '
              '$$ BEGIN PERFORM caller.open_one(); RETURN NEW; END $$')
    role.rows('CREATE TRIGGER open_another AFTER INSERT ON target FOR EACH ROW EXECUTE FUNCTION open_another()')
    run = role.value("SELECT portage.open_run('caller')")
    role.rows('SELECT portage.submit(%s, %s)', run, ITEM)
    error = admin.error('CALL portage.run(%s)', run)
    check("a superuser's CALL of somebody's run: goes on, or says why not", error is None or error.pgcode == '42501', told(error))
    outcome("a superuser's CALL of somebody's run", role, canaries)
    role.close()
    for name, body in (('definer_starts', "run := portage.open_run('{0}'); PERFORM portage.submit(run, '{1}'); PERFORM portage.start(run)"),
                       ('definer_migrates', "PERFORM portage.migrate('{0}', '{1}'::text)")):
        role = with_a_table_behind(server, admin, name)
        role.rows('CREATE FUNCTION useful() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS '
                  f'$$ DECLARE run bigint; BEGIN {body.format(name, ITEM)}; END $$')
        error = admin.error(f'SELECT {name}.useful()')
        check(f'a superuser calls {name}: goes on, or is refused', error is None or error.pgcode == '42501', told(error))
        outcome(f'a superuser calls {name}', role, canaries, fires=error is None)
        role.close()


def by_pool(server, admin, canaries):
    """A pool's role migrates for one of its roles; at COMMIT the trigger behind is another one of them."""
    admin.rows('CREATE ROLE tenant; GRANT tenant TO pool')
    role = with_a_table_behind(server, admin, 'pooled')
    admin.rows('GRANT pooled TO pool')
    role.rows('GRANT ALL ON target, behind TO tenant')
    role.rows("SELECT portage.grant_pipeline('pooled', 'tenant', 'run')")
    with Session(server, 'pool') as pool:
        for number, (who, pipeline) in enumerate((('pooled', 'pooled'), ('tenant', 'pooled/pooled'))):
            pool.rows('BEGIN')
            pool.rows(f'SET LOCAL ROLE {who}')
            error = pool.error('SELECT portage.migrate(%s, %s)', pipeline, '{"id": %d}' % (10 + number))
            if error is not None and error.pgcode == 'PZ004':  # where names are not yet said with their owners
                pool.rows('ROLLBACK')
                pool.rows('BEGIN')
                pool.rows(f'SET LOCAL ROLE {who}')
                error = pool.error("SELECT portage.migrate('pooled', %s)", '{"id": %d}' % (10 + number))
            check(f'a pool as {who}: migrates', error is None, told(error))
            pool.rows('COMMIT')
            outcome(f'a pool as {who}', role, canaries)
    role.close()


def by_name(server, admin, canaries):
    """A stranger was first to claim the name that somebody uses for a pipeline of his own making."""
    role = Attacker(server, admin, 'squatter')
    role.rows('CREATE TABLE squatter.target (id int PRIMARY KEY)')
    role.rows("CREATE TRIGGER note BEFORE INSERT ON squatter.target FOR EACH ROW EXECUTE FUNCTION squatter.note('target')")
    role.rows('GRANT ALL ON squatter.target TO PUBLIC')
    role.rows("SELECT portage.create_pipeline('customers', 'squatter.target', %s)", DEFINITION)
    admin.rows('CREATE ROLE honest LOGIN')
    role.error("SELECT portage.grant_pipeline('customers', 'public', 'run')")
    role.error("SELECT portage.grant_pipeline('customers', 'honest', 'run')")
    with Session(server, 'honest') as honest:
        error = honest.error("SELECT portage.migrate('customers', %s)", ITEM)
        check("a stranger's pipeline of a plain name is not run", error is not None, told(error))
    check('and no code of his either', not [n for n in canaries.new() if n.user != 'squatter'])
    role.close()


def ways_that_were_open(server, admin, canaries):
    by_maintenance(server, admin, canaries)
    by_call(server, admin, canaries)
    by_pool(server, admin, canaries)
    by_name(server, admin, canaries)


# ---------------------------------------------------------------- more of their kind

def with_types_of_the_session(server, admin, canaries):
    """Who may run a pipeline gives its session a type that its owner's expressions name, and a relation that its checks name:
    pg_temp comes before everything where a search_path does not say otherwise."""
    role = Attacker(server, admin, 'runner')
    admin.rows("SET ROLE victim; CREATE TABLE vault.target (id int PRIMARY KEY, w text); GRANT ALL ON vault.target TO runner; "
               'GRANT USAGE ON SCHEMA vault TO runner; RESET ROLE')
    with Session(server, 'victim') as victim:
        victim.rows('SET search_path = vault')
        victim.rows("SELECT portage.create_pipeline('typed', 'vault.target', %s)", '{"format": "ndjson", "legacy_id": "id", '
                    '"columns": {"id": "id", "w": {"sql": "(item->>\'w\')::text"}}, "match": ["id"], '
                    '"checks": {"some": {"sql": "SELECT count(*) >= 0 FROM secret"}}}')
        victim.rows("SELECT portage.grant_pipeline('typed', 'runner', 'run')")
    role.rows("CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (runner.canary('a type in pg_temp'))")
    role.rows("CREATE TEMP VIEW secret AS SELECT 1 WHERE runner.canary('a view in pg_temp')")
    role.rows('GRANT SELECT ON secret TO PUBLIC')
    for pipeline in ('typed', 'victim/typed'):
        run = None
        if role.error('SELECT portage.open_run(%s)', pipeline) is None:
            run = role.value('SELECT portage.open_run(%s)', pipeline)
            role.rows('SELECT portage.submit(%s, %s)', run, '{"id": 1, "w": "x"}')
            error = role.error('CALL portage.run(%s)', run)
            check('types and views of the session: the run goes on', error is None, told(error))
            break
    check('types and views of the session: it could be run', run is not None)
    others = [n for n in outcome('types and views of the session', role, canaries, fires=False) if n.user != 'runner']
    check("types and views of the session: they are not the pipeline's", not others, others)
    role.close()


def by_reference(server, admin, canaries):
    """Somebody's definition refers to a stranger's pipeline, whose target has code in it."""
    role = Attacker(server, admin, 'referred')
    role.rows("CREATE DOMAIN referred.biting AS text CHECK (referred.canary('a domain of the pipeline that is referred to'))")
    role.rows("CREATE FUNCTION referred.dft() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM "
              "referred.canary('a default'); RETURN 1; END $$")
    role.rows("CREATE TABLE referred.target (id int PRIMARY KEY, d referred.biting, n int DEFAULT referred.dft(), "
              "CHECK (referred.innocent('a constant in a CHECK') AND id > 0))")
    role.rows("SELECT portage.create_pipeline('referred', 'referred.target', %s)", '{"format": "ndjson", "legacy_id": "id", '
              '"columns": {"id": "id", "d": {"value": "x"}}, "rules": {"r": "n > 0"}, "match": ["id"]}')
    role.arm()
    role.rows("SELECT portage.grant_pipeline('referred', 'victim', 'read')")
    canaries.new()
    with Session(server, 'victim') as victim:
        victim.rows('CREATE TABLE vault.referring (id int PRIMARY KEY, r int)')
        for name in ('referred', 'referred/referred'):
            error = victim.error("SELECT portage.create_pipeline('referring', 'vault.referring', %s)", '{"format": "ndjson", '
                                 '"legacy_id": "id", "columns": {"id": "id", "r": {"from": "r", "references": "%s"}}}' % name)
            if error is None:
                break
        check("a reference to a stranger's pipeline: is taken", error is None, told(error))
    notes = canaries.new()
    check("a reference to a stranger's pipeline: its code does not run as somebody else",
          not [n for n in notes if n.user != 'referred'], sorted({f'{n.door} as {n.user}: {n.gains}' for n in notes}))
    for name in ('referred', 'referred/referred'):
        error = admin.error('SELECT portage.replace_pipeline(%s, %s)', name, '{"format": "ndjson", "legacy_id": "id", '
                            '"columns": {"id": "id", "d": {"value": "y"}}, "rules": {"r": "n > 0"}, "match": ["id"]}')
        if error is None:
            break
    notes = canaries.new()
    check("a superuser replaces a stranger's pipeline: no code of it runs as superuser",
          not [n for n in notes if n.user != 'referred'], sorted({f'{n.door} as {n.user}: {n.gains}' for n in notes}))
    role.close()


def by_cascade(server, admin, canaries):
    """Whose rows go along with a rollback is told by foreign keys, which strangers may have made: with triggers."""
    role = Attacker(server, admin, 'dependant')
    with Session(server, 'victim') as victim:
        victim.rows('CREATE TABLE vault.parent (id int PRIMARY KEY); GRANT REFERENCES ON vault.parent TO dependant; '
                    'GRANT USAGE ON SCHEMA vault TO dependant')
        victim.rows("SELECT portage.create_pipeline('parent', 'vault.parent', %s)", DEFINITION)
        run = victim.value("SELECT run_id FROM portage.migrate('parent', %s)", ITEM)
        role.rows('CREATE TABLE dependant.child (id int REFERENCES vault.parent); GRANT ALL ON dependant.child TO PUBLIC')
        role.rows("CREATE TRIGGER note BEFORE DELETE ON dependant.child FOR EACH ROW EXECUTE FUNCTION dependant.note('a dependant')")
        role.rows('INSERT INTO dependant.child VALUES (1)')
        canaries.new()
        reasons = victim.value("SELECT (portage.can_rollback(%s)).reasons::text", run)
        check("a stranger's dependants: can_rollback() tells of their code", 'dependant.child (delete' in reasons, reasons)
        error = victim.error('CALL portage.rollback(%s, cascade => true)', run)
        check("a stranger's dependants: are not deleted", error is not None and error.pgcode == '42501', told(error))
        check("a stranger's dependants: nothing has begun", victim.value('SELECT count(*) FROM vault.parent') == 1 and
              admin.value('SELECT status FROM portage.migration_runs WHERE id = %s', run) == 'completed')
        check("a stranger's dependants: none of their code has run", not canaries.new())
        role.rows('DELETE FROM dependant.child')
        check("a stranger's dependants: the canary sings where its owner deletes", [n for n in canaries.new() if not n.gains])
        error = victim.error('CALL portage.rollback(%s, cascade => true)', run)
        check("a stranger's dependants: once they have gone, the rows go", error is None, told(error))
    role.close()


def by_looking(server, admin, canaries):
    """A superuser only looks at what a stranger's pipeline would do."""
    role = Attacker(server, admin, 'looked_at')
    role.rows("CREATE DOMAIN looked_at.biting AS text CHECK (looked_at.canary('a domain'))")
    role.rows('CREATE TABLE looked_at.target (id int PRIMARY KEY, d looked_at.biting)')
    role.rows("SELECT portage.create_pipeline('looked_at', 'looked_at.target', %s)",
              '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id", "d": {"value": "x"}}, "match": ["id"]}')
    canaries.new()
    for call in ('plan', 'detect'):
        for name in ('looked_at', 'looked_at/looked_at'):
            with Session(server) as fresh:
                fresh.error(f"SELECT portage.{call}(%s, '{{\"id\": 1}}', '')", name)
        notes = canaries.new()
        check(f"a superuser's {call}() of a stranger's pipeline: no code of it runs as superuser",
              not [n for n in notes if n.user == 'postgres'], sorted({f'{n.door} as {n.user}: {n.gains}' for n in notes}))
    role.close()


def by_shared_role(server, admin, canaries):
    """A run of a role that several are members of: one has opened it, another gives it something to do."""
    role = with_a_table_behind(server, admin, 'sharer')
    admin.rows('CREATE ROLE shared; GRANT shared TO victim, sharer')
    role.rows('GRANT ALL ON target, behind TO shared')
    role.rows("SELECT portage.grant_pipeline('sharer', 'shared', 'run')")
    with Session(server, 'victim') as victim:
        victim.rows('SET ROLE shared')
        for name in ('sharer', 'sharer/sharer'):
            if victim.error('SELECT portage.open_run(%s)', name) is None:
                break
    run = admin.value('SELECT max(id) FROM portage.migration_runs')
    role.rows('SET ROLE shared')
    role.rows('SELECT portage.submit(%s, %s)', run, ITEM)
    error = role.error('SELECT portage.start(%s)', run)
    if error is not None:
        check('a shared run: is refused a worker, or has one', error.pgcode in ('42501', '0A000'), told(error))
        admin.rows('CALL portage.run(%s)', run)
    role.rows('RESET ROLE')
    outcome('a run of a shared role', role, canaries)
    role.close()


def before_the_extension(canaries):
    """A role that may create schemas makes ours before the extension is there: then it would be its owner's."""
    with Server() as server, Session(server) as admin:
        admin.rows('CREATE ROLE early LOGIN; GRANT CREATE ON DATABASE postgres TO early')
        with Session(server, 'early') as early:
            early.rows('CREATE SCHEMA portage')
        error = admin.error('CREATE EXTENSION pg_portage')
        owner = admin.value("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'portage'")
        check("the extension does not go into a stranger's schema", error is not None or owner != 'early', told(error))


def siblings(server, admin, canaries):
    with_types_of_the_session(server, admin, canaries)
    by_reference(server, admin, canaries)
    by_cascade(server, admin, canaries)
    by_looking(server, admin, canaries)
    by_shared_role(server, admin, canaries)
    before_the_extension(canaries)


with Server(max_worker_processes=16, autovacuum_naptime='1s') as server, Session(server) as admin:
    prepare(admin)
    canaries = Canaries(server)
    ways_that_were_open(server, admin, canaries)
    siblings(server, admin, canaries)
finish()
