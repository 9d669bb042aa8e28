#!/usr/bin/python3
"""An ordinary role brings code of its own into whatever PostgreSQL runs while we work: not one way gives it a right.

Every door (doors.py: defaults, domains, indexes, triggers, policies, rules, types, definitions, ...) is tried by every entry: a line
of ENTRIES is a call, by whom it is made, and what it does. A canary in each door tells as whom it ran and what it could get
(hostile.py); that the doors open by which a call's work leads is checked, as what never came to a door proves nothing, and so is
that the canaries do sing where PostgreSQL gives their owner all. After each call in somebody else's session it is looked for what
the doors have left behind in it.

Then, told as it was done, the ways by which roles did gain once (maintenance and autovacuum, calls of superusers, definers'
functions, pools, squatted names), more of their kind, and what one run leaves in a worker for the next."""

import json
import os
import re
import sys
from dataclasses import dataclass

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from doors import TABLES, Kit  # noqa: E402
from hostile import Attacker, Canaries  # noqa: E402
from portage_server import Server, check, finish  # noqa: E402
from sessions import GATES, PATIENT, Gate, Session, told, until  # noqa: E402

ITEM = '{"id": 1}'
DEFINITION = '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id"}, "match": ["id"]}'


def prepare(server, admin):
    admin.rows('CREATE EXTENSION pg_portage')
    admin.rows('CREATE ROLE victim LOGIN; CREATE SCHEMA vault AUTHORIZATION victim; CREATE ROLE pool LOGIN NOINHERIT; '
               'GRANT victim TO pool')
    admin.rows('CREATE ROLE tenant LOGIN; GRANT tenant TO pool')
    admin.rows('GRANT USAGE ON SCHEMA vault TO PUBLIC; CREATE SCHEMA help; GRANT USAGE ON SCHEMA help TO PUBLIC')
    admin.rows("""CREATE FUNCTION help.convenient(pipeline text, items text) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS
        $$ BEGIN RETURN (SELECT run_id FROM portage.migrate(pipeline, items)); END $$""")
    with Session(server, 'victim') as victim:
        victim.rows('CREATE TABLE vault.parents (id int PRIMARY KEY); GRANT ALL ON vault.parents TO tenant')
        victim.rows("SELECT portage.create_pipeline('parents', 'vault.parents', %s)", DEFINITION)
    admin.rows("SELECT portage.grant_pipeline('victim/parents', 'public', 'read'), portage.grant_pipeline('victim/parents', 'tenant', 'run')")
    admin.rows("SET ROLE victim; CREATE TABLE vault.secret (s text); INSERT INTO vault.secret VALUES ('s'); RESET ROLE")


# ---------------------------------------------------------------- every door, by every way in

@dataclass(frozen=True)
class Caller:
    """Whose session it is, what stands around the call, and as whom code may run then."""
    user: str
    before: tuple = ()
    after: tuple = ()
    options: str = ''
    runs_as: str = '{me}'


PLAIN = '-c search_path=pg_catalog,public'
CALLERS = {
    'the role': Caller('{me}'),
    'a superuser': Caller('postgres'),
    'a superuser with its schema in the path': Caller('postgres', options='-c search_path={me},pg_catalog'),
    'a superuser after SET SESSION AUTHORIZATION': Caller('postgres', ('SET SESSION AUTHORIZATION {me}',), ('RESET SESSION AUTHORIZATION',)),
    'a superuser in a transaction': Caller('postgres', ('BEGIN',), ('COMMIT',)),
    'a superuser after SET ROLE': Caller('postgres', ('SET ROLE {me}',), ('RESET ROLE',)),
    'a pool after SET ROLE': Caller('pool', ('SET ROLE {me}',), ('RESET ROLE',)),
    'the launcher': Caller('postgres', options=PLAIN),
    'a pool': Caller('pool', ('BEGIN', 'SET LOCAL ROLE {me}'), ('COMMIT',)),
    'a pool for another role': Caller('pool', ('BEGIN', 'SET LOCAL ROLE tenant'), ('COMMIT',), runs_as='tenant {me}'),
}


# What the role does itself beforehand; what is given is {run} in the call.

def opened(kit, table):
    run = kit.role.value('SELECT portage.open_run(%s)', table)
    kit.role.rows('SELECT portage.submit(%s, %s)', run, kit.items())
    return run


def imported(kit, table):
    return kit.role.value('SELECT run_id FROM portage.migrate(%s, %s)', table, kit.items())


def rejected(kit, table):
    """An item was refused that would land now."""
    kit.role.rows('INSERT INTO refusals VALUES (%s)', kit.at + 1)
    run = imported(kit, table)
    kit.role.rows('DELETE FROM refusals')
    return run


def occupied(kit, table, d='y'):
    """A row is there before, with other content."""
    kit.role.rows(f'INSERT INTO {table} (id, v, d) VALUES (%s, 0, %s)', kit.at + 1, d)


def alike(kit, table):
    """... but only where the definition says how both become one."""
    occupied(kit, table, 'x')
    kit.role.rows(f"UPDATE {table} SET e = 'a' WHERE id = %s", kit.at + 1)


def disputed(kit, table):
    occupied(kit, table)
    return imported(kit, table)


def parked(kit, table, by=imported):
    """What the items refer to has been brought by somebody who may not act as the role."""
    run = by(kit, table)
    with Session(kit.role.server, 'tenant') as tenant:
        tenant.rows("SELECT portage.migrate('victim/parents', %s)", json.dumps({'id': kit.at}))
    return run


def imported_for_itself(kit, table):
    """With nobody behind: in a function with rights of its own."""
    return kit.role.value('SELECT useful(%s, %s)', table, kit.items())


def parked_for_itself(kit, table):
    return parked(kit, table, imported_for_itself)


def waiting(kit, table):
    imported(kit, table)
    return kit.at


def paused(kit, table):
    run = opened(kit, table)
    kit.role.rows('BEGIN')
    kit.role.rows('SELECT portage.start(%s)', run)
    kit.role.rows('SELECT portage.pause(%s)', run)
    kit.role.rows('COMMIT')
    return run


def failed(kit, table):
    """A run whose role had lost a right meanwhile."""
    run = opened(kit, table)
    kit.role.rows(f'REVOKE INSERT ON {table} FROM {kit.name}')
    kit.role.rows('SELECT portage.start(%s)', run)
    until(lambda: kit.status(run) == 'failed')
    kit.role.rows(f'GRANT INSERT ON {table} TO {kit.name}')
    return run


def fed(kit, table):
    """The pipeline's source has something new."""
    kit.role.rows('DELETE FROM feed')
    kit.role.rows('INSERT INTO feed SELECT id, v, parent FROM json_to_recordset(%s) AS f (id int, v int, parent int)',
                  '[%s]' % kit.items().replace('\n', ','))


def scheduled(kit, table, call="portage.schedule(%s, '0 2 * * *')"):
    fed(kit, table)
    kit.role.rows('SELECT ' + call, table)
    kit.admin.rows("UPDATE portage.schedule_rows SET next_due_at = now() - interval '1 second', next_run_at = now() - interval '1 second'")


def scheduled_for_itself(kit, table):
    scheduled(kit, table, 'arrange(%s)')


def grouped(kit, table):
    fed(kit, table)
    return kit.role.value('SELECT portage.run_group(%s, %s)', [table], '{"background": false}')


def group_imported(kit, table):
    group = grouped(kit, table)
    kit.role.rows('CALL portage.work_group(%s)', group)
    return group


def emptied(kit, table):
    kit.role.rows(f'TRUNCATE {table}')
    kit.role.rows('SELECT portage.drop_pipeline(%s, true)', table)
    kit.create_pipeline(table)


def depended_on(kit, table):
    """Rows of another table of the role's refer to the run's."""
    run = imported(kit, table)
    kit.role.rows(f'INSERT INTO refers_{table} SELECT id FROM {table} WHERE id > 1')
    kit.role.rows(f'INSERT INTO hangs_{table} SELECT id FROM {table} WHERE id > 1')
    return run


@dataclass(frozen=True)
class Entry:
    """A way in: the call, by whom, of which pipelines, and what is done by it, which says what doors must open (doors.py)."""
    name: str
    callers: str
    call: str
    opens: str
    tables: str = 'target plain'
    first: object = None
    last: str = ''
    refused: bool = False

    def is_done_elsewhere(self):
        """By a worker or the launcher, some time."""
        return bool(re.search(r'^SELECT$|tick|start|resume|retry|run_group', self.call))


LOADS = 'convert insert update'
MAIN = 'target plain ruled parts shown typed keyed'
ENTRIES = (
    # importing
    Entry('migrate()', 'the role,a superuser,a superuser with its schema in the path,a superuser in a transaction,a superuser after SET ROLE,'
          'a superuser after SET SESSION AUTHORIZATION,a pool,a pool for another role', 'SELECT portage.migrate({pipeline}, {items})', LOADS, MAIN),
    Entry('migrate() where a trigger puts something off', 'the role', 'SELECT portage.migrate({pipeline}, {items})', LOADS, 'said'),
    Entry('migrate() where a trigger puts something off', 'a superuser,a superuser in a transaction,a superuser after SET ROLE,a pool,'
          'a pool for another role', 'SELECT portage.migrate({pipeline}, {items})', '', 'said', refused=True),
    Entry('run() where a trigger puts something off', 'the role', 'CALL portage.run({run})', LOADS, 'said', opened),
    Entry('run() where a trigger puts something off', 'a superuser', 'CALL portage.run({run})', '', 'said', opened, refused=True),
    Entry('import()', 'the role,a superuser', 'CALL portage.import({pipeline}, payload => {items})', LOADS + ' check', MAIN),
    Entry('run()', 'the role,a superuser,a superuser with its schema in the path,a superuser after SET ROLE,'
          'a superuser after SET SESSION AUTHORIZATION', 'CALL portage.run({run})',
          LOADS + ' check', MAIN, opened),
    Entry('import() of the source', 'the role,a superuser', 'CALL portage.import({pipeline})', LOADS + ' check source', first=fed),
    Entry('import() with options', 'a superuser', """CALL portage.import({pipeline}, payload => {items},
          options => '{{"validate_first": true, "batch_size": 1}}')""", LOADS + ' check'),
    Entry('a dry run', 'a superuser', """CALL portage.import({pipeline}, payload => {items}, options => '{{"dry_run": true}}')""", LOADS),
    Entry('an initial load', 'the role,a superuser', """CALL portage.import({pipeline}, payload => {items}, options => '{{"initial_load": true}}')""",
          'convert insert check build', 'empty', emptied),
    Entry("the role's own SECURITY DEFINER function", 'a superuser', "SELECT {me}.useful('{table}', {items})", LOADS, MAIN),
    Entry("a superuser's SECURITY DEFINER function", 'the role', 'SELECT help.convenient({pipeline}, {items})', LOADS, MAIN),
    # workers
    Entry('start()', 'the role,a superuser,a pool', 'SELECT portage.start({run})', LOADS + ' check', MAIN, opened),
    Entry('resume()', 'a superuser', 'SELECT portage.resume({run})', LOADS + ' check', first=paused),
    Entry('retry()', 'a superuser', 'SELECT portage.retry({run})', LOADS + ' check', first=failed),
    Entry('run() of a failed run', 'a superuser', 'CALL portage.run({run})', LOADS + ' check', first=failed),
    # the heartbeat, schedules and groups
    Entry('a schedule, tick()', 'the role,a superuser with its schema in the path', 'CALL portage.tick()', LOADS + ' check source', first=scheduled,
          last='SELECT portage.unschedule({pipeline})'),
    Entry('a schedule, tick(now)', 'a superuser', "CALL portage.tick(now() + interval '2 minutes')", LOADS + ' check source', first=scheduled,
          last='SELECT portage.unschedule({pipeline})'),
    Entry('work_group()', 'the role,a superuser with its schema in the path', 'CALL portage.work_group({run})', LOADS + ' check source', first=grouped),
    Entry('run_group()', 'the role,a superuser', 'SELECT portage.run_group(ARRAY[{pipeline}])', LOADS + ' check source', first=fed),
    Entry('rollback_group()', 'a superuser', 'CALL portage.rollback_group({run})', 'update delete', first=group_imported),
    # what was put off
    Entry('replay()', 'a superuser', 'SELECT portage.replay({run})', 'convert insert', 'target plain typed keyed', rejected),
    Entry('replay() of one, corrected', 'a superuser', "SELECT portage.replay({run}, 2, {item})", 'convert insert', 'target plain typed keyed', rejected),
    Entry('replay_run()', 'the role,a superuser with its schema in the path', 'CALL portage.replay_run({run})', 'convert insert', 'target plain ruled typed keyed', rejected),
    Entry('migrate() that ends in a dispute', 'the role,a superuser', 'SELECT portage.migrate({pipeline}, {items})', 'dispute', 'asked', occupied),
    Entry('migrate() that merges', 'the role,a superuser', 'SELECT portage.migrate({pipeline}, {items})', 'merge', 'asked', alike),
    Entry('resolve_run()', 'the role,a superuser', "CALL portage.resolve_run({run}, 'incoming')", 'update', 'asked', disputed),
    Entry('resolve()', 'a superuser', "SELECT portage.resolve({run}, 2, 'incoming')", 'update', 'asked', disputed),
    Entry('resolve_all()', 'a superuser', "SELECT portage.resolve_all({run}, 'merged')", 'update', 'asked', disputed),
    Entry('settle_run()', 'the role,a superuser', 'CALL portage.settle_run({run})', 'insert', 'child', parked),
    Entry('settle()', 'a superuser', 'SELECT portage.settle({run})', 'insert', 'child', parked),
    Entry('a run of the pipeline that is referred to', 'a superuser', """CALL portage.import('victim/parents', payload => '{{"id": {run}}}')""",
          'insert', 'child', waiting),
    Entry('what is parked, tick()', 'the role,a superuser with its schema in the path', 'CALL portage.tick()', 'insert', 'child', parked),
    # taking back, proving, looking
    Entry('rollback()', 'the role,a superuser with its schema in the path', 'CALL portage.rollback({run})', 'update delete', MAIN, imported),
    Entry('rollback() with cascade', 'the role,a superuser', 'CALL portage.rollback({run}, cascade => true)', 'update delete depend', first=depended_on),
    Entry('can_rollback()', 'a superuser', 'SELECT portage.can_rollback({run})', 'select', MAIN, imported),
    Entry('verify()', 'the role,a superuser', 'SELECT count(*) FROM portage.verify({run})', 'check select', MAIN, imported),
    Entry('verify_run()', 'the role,a superuser with its schema in the path', "CALL portage.verify_run({run}, 'source')", 'check convert select', MAIN, imported),
    Entry('validate()', 'the role,a superuser', 'SELECT portage.validate({run})', 'convert', MAIN, opened),
    Entry('plan(run)', 'a superuser', 'SELECT portage.plan({run})', '', MAIN, opened),
    Entry('plan()', 'the role,a superuser', 'SELECT portage.plan({pipeline}, {items})', '', MAIN),
    Entry('detect(run)', 'a superuser', 'SELECT portage.detect({run})', 'convert', MAIN, opened),
    Entry('detect()', 'the role,a superuser', 'SELECT portage.detect({pipeline}, {items})', 'convert', MAIN),
    Entry('detect() of the source', 'a superuser', 'SELECT portage.detect({pipeline})', 'convert source', first=fed),
    Entry('replace_pipeline()', 'a superuser', 'SELECT portage.replace_pipeline({pipeline}, {definition})', '', MAIN),
    # PostgreSQL's own maintenance
    Entry('REINDEX', 'a superuser', 'REINDEX TABLE {me}.{table}', 'build', 'target plain typed'),
    Entry('ANALYZE', 'a superuser', 'ANALYZE {me}.{table}', 'build analyze', 'target plain typed'),
)
# Of a role that may not log in. Where a worker has to, it connects as who stood behind the role when the run was opened; if
# that is nobody, since it was in a definer's function, the heartbeat does the work itself.
ENTRIES_WITHOUT_LOGIN = (
    Entry('start()', 'a pool,a superuser', 'SELECT portage.start({run})', LOADS + ' check', MAIN, opened),
    Entry('resume()', 'a superuser', 'SELECT portage.resume({run})', LOADS + ' check', first=paused),
    Entry('retry()', 'a superuser', 'SELECT portage.retry({run})', LOADS + ' check', first=failed),
    Entry('run()', 'a pool after SET ROLE,a superuser', 'CALL portage.run({run})', LOADS + ' check', first=opened),
    Entry('rollback()', 'a pool after SET ROLE', 'CALL portage.rollback({run})', 'update delete', first=imported),
    Entry('a schedule, tick()', 'a superuser', 'CALL portage.tick()', LOADS + ' check source', first=scheduled,
          last='SELECT portage.unschedule({pipeline})'),
    Entry('run_group()', 'a pool after SET ROLE', 'SELECT portage.run_group(ARRAY[{pipeline}])', LOADS + ' check source', first=fed),
    Entry('what is parked, tick()', 'a superuser', 'CALL portage.tick()', 'insert', 'child', parked),
    Entry('what is parked and nobody stands behind, tick()', 'a superuser', 'CALL portage.tick()', 'insert', 'child', parked_for_itself),
    Entry('a schedule behind which nobody stands, tick()', 'a superuser', 'CALL portage.tick()', 'source', 'parts', scheduled_for_itself,
          last='SELECT portage.unschedule({pipeline})'),
)
# Those of them that come by without a call, where a launcher is.
ENTRIES_OF_THE_LAUNCHER = (
    Entry('a schedule', 'the launcher', 'SELECT', LOADS + ' check source', first=scheduled, last='SELECT portage.unschedule({pipeline})'),
    Entry('what is parked', 'the launcher', 'SELECT', 'insert', 'child', parked),
)
ENTRIES_OF_THE_LAUNCHER_WITHOUT_LOGIN = ENTRIES_OF_THE_LAUNCHER + (
    Entry('what is parked and nobody stands behind', 'the launcher', 'SELECT', 'insert', 'child', parked_for_itself),
    Entry('a schedule behind which nobody stands', 'the launcher', 'SELECT', 'source', 'parts', scheduled_for_itself,
          last='SELECT portage.unschedule({pipeline})'),
)
# Calls in which nobody's code runs.
SILENT = ('SELECT portage.status({run})', 'SELECT portage.report({run})', 'SELECT portage.report_markdown({run})', 'SELECT portage.summary({run})',
          'SELECT portage.keep({run})', 'SELECT portage.pause({run})', 'SELECT portage.cancel({run})', 'SELECT portage.cleanup({run})',
          "CALL portage.purge('1 day')", 'CALL portage.wait({run})', 'SELECT portage.snapshot({run})', 'SELECT portage.reject_raw({run}, 1)',
          'SELECT portage.progress_data({run})', 'SELECT * FROM portage.health()',
          'SELECT portage.unschedule({pipeline})', 'SELECT portage.lookup({pipeline}, {text})')


# What is left in a session, though not by whom it belongs to; and what an innocent statement brings to light.
LEFT = """SELECT pg_catalog.array_agg(l) FROM (
  SELECT 'setting ' || current_setting('hostile.left', true) WHERE current_setting('hostile.left', true) <> ''
  UNION ALL SELECT 'cursor ' || name FROM pg_catalog.pg_cursors WHERE name LIKE 'hostile%'
  UNION ALL SELECT 'statement ' || name FROM pg_catalog.pg_prepared_statements WHERE name LIKE 'hostile%'
  UNION ALL SELECT 'channel ' || c FROM pg_catalog.pg_listening_channels() c
  UNION ALL SELECT 'relation ' || relname FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema()
  UNION ALL SELECT 'type ' || typname FROM pg_catalog.pg_type WHERE typnamespace = pg_catalog.pg_my_temp_schema()
  UNION ALL SELECT 'function ' || proname FROM pg_catalog.pg_proc WHERE pronamespace = pg_catalog.pg_my_temp_schema()) _ (l)"""
INNOCENT = "SELECT 'x'::text, count(*) FROM pg_class"
WHO = "SELECT session_user, current_user, pg_catalog.current_setting('search_path'), pg_catalog.current_setting('role')"
AT_WORK = "SELECT count(*) FROM portage.migration_runs WHERE status IN ('queued', 'running', 'verifying', 'rolling_back')"
# A worker that has no run is a heartbeat.
WORKERS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'portage worker'"


class Way:
    """An entry by one caller, by all its pipelines: what was told, and what is wrong."""

    def __init__(self, kit, canaries, entry, caller):
        self.kit, self.canaries, self.entry, self.caller = kit, canaries, entry, CALLERS[caller]
        self.name = f'{entry.name}, {caller}'
        self.notes, self.errors, self.left = [], [], []

    def filled(self, sql, table='', run=None):
        kit = self.kit
        return sql.format(me=kit.name, table=table, run=run, pipeline=quoted(f'{kit.name}/{table}'), items=quoted(kit.items()),
                          item=quoted(kit.items().split('\n')[1]), text=quoted('1'), definition=quoted(json.dumps(kit.definition(table))))

    def try_pipeline(self, table):
        kit, c = self.kit, self.caller
        by_launcher = self.entry.call == 'SELECT'  # who is there already
        self.hear(before=True)
        run = self.entry.first(kit, table) if self.entry.first else None
        if not by_launcher:
            self.settle()
            self.hear(before=True)
        call = self.filled(self.entry.call, table, run)
        with Session(kit.role.server, c.user.format(me=kit.name), options=c.options.format(me=kit.name)) as session:
            for statement in c.before:
                session.rows(self.filled(statement))
            who = session.rows(WHO)
            error = session.error(call)
            if self.entry.refused:
                if error is None or error.pgcode != '42501' or 'deferred trigger' not in str(error):
                    self.errors.append(f'{table}: {told(error)}')
                session.error('ROLLBACK')
                self.look(session, None)
            elif error:
                self.errors.append(f'{table}: {told(error)}')
            elif c.user.format(me=kit.name) != kit.name:
                self.look(session, who)
            for statement in c.after:
                session.error(statement)
            if not error and c.user.format(me=kit.name) != kit.name:
                self.look(session, None)
        if self.entry.is_done_elsewhere() and not error:
            until(lambda: self.hear() or kit.expected(self.entry.opens, table) <= self.told)
        self.settle()
        if self.entry.last:
            kit.role.rows(self.filled(self.entry.last, table, run))
        self.hear()

    def look(self, session, who):
        if who and session.rows(WHO) != who:
            self.left.append(f'{who} became {session.rows(WHO)}')
        session.rows('SET search_path = pg_catalog, public')
        session.rows(INNOCENT)
        self.left += session.value(LEFT) or []

    def settle(self):
        until(lambda: not self.kit.admin.value(AT_WORK) and not self.kit.admin.value(WORKERS))

    def hear(self, before=False):
        """What the role did itself beforehand opened doors, too; but that is not what is looked at."""
        me = self.kit.name
        allowed = {me} if before else set(self.caller.runs_as.format(me=me).split())
        notes = self.canaries.new()
        self.gains |= {str(n) for n in notes if n.gains or n.user not in (allowed if n.owner == me else {n.owner})}
        if not before:
            self.told |= {n.door for n in notes if n.owner == me}

    def run(self):
        self.gains, self.told = set(), set()
        for table in self.entry.tables.split():
            self.try_pipeline(table)
        missing = self.kit.expected(self.entry.opens, self.entry.tables) - self.told
        check(f'{self.name}: ' + ('is refused' if self.entry.refused else 'goes on'), not self.errors, '; '.join(self.errors))
        check(f'{self.name}: its doors open', not missing, sorted(missing))
        check(f'{self.name}: nobody gains', not self.gains, sorted(self.gains))
        check(f'{self.name}: nothing is left behind', not self.left, sorted(set(self.left)))
        return self.told


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def build(server, admin, name, by=None):
    kit = Kit(server, admin, name, by)
    kit.role.rows('GRANT ALL ON ALL TABLES IN SCHEMA ' + name + ' TO tenant')
    for table in TABLES:
        kit.role.rows("SELECT portage.grant_pipeline(%s, 'tenant', 'run')", table)
    return kit


def every_door(server, admin, canaries):
    kit, mute = build(server, admin, 'mallory'), build(server, admin, 'mute', 'pool')
    admin.rows('GRANT mallory TO pool')
    sings(server, kit, canaries)
    try_all(kit, canaries, ENTRIES)
    try_all(mute, canaries, ENTRIES_WITHOUT_LOGIN)
    by_event_trigger(admin, kit, canaries)
    silence(server, kit, canaries)
    return kit, mute


def try_all(kit, canaries, entries):
    for table in sorted({table for entry in entries for table in entry.tables.split()}):
        imported(kit, table)  # so that there is something to be changed
    for entry in entries:
        for caller in entry.callers.split(','):
            Way(kit, canaries, entry, caller).run()


def by_launcher(admin, kit, mute, canaries):
    for one, entries in ((kit, ENTRIES_OF_THE_LAUNCHER), (mute, ENTRIES_OF_THE_LAUNCHER_WITHOUT_LOGIN)):
        one.reconnect(admin)
        for entry in entries:
            Way(one, canaries, entry, 'the launcher').run()


def by_event_trigger(admin, kit, canaries):
    """Superusers alone make event triggers; this one calls a function of the role's, whoever it is that changes a table."""
    kit.role.rows("CREATE FUNCTION on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM mallory.canary('an event trigger'); END $$")
    admin.rows("CREATE EVENT TRIGGER on_ddl ON ddl_command_start WHEN TAG IN ('CREATE INDEX', 'DROP INDEX', 'ALTER TABLE') "
               'EXECUTE FUNCTION mallory.on_ddl()')
    load = next(entry for entry in ENTRIES if entry.name == 'an initial load')
    told_of = Way(kit, canaries, load, 'a superuser').run()
    check('an event trigger has opened', 'an event trigger' in told_of)
    admin.rows('DROP EVENT TRIGGER on_ddl')


def sings(server, kit, canaries):
    """A superuser who writes into the tables, or calls the functions: PostgreSQL lets their owner have all. So the canaries can
    tell a gain where there is one."""
    with Session(server) as fool:
        for table in MAIN.split():
            for statement in ('INSERT INTO {} (id, v, d) VALUES (7, 0, 7)', 'UPDATE {} SET v = 1 WHERE id = 7', 'DELETE FROM {} WHERE id = 7'):
                fool.error(statement.format(f'mallory.{table}'))
    notes = canaries.new()
    gained = {n.door for n in notes if 'made itself superuser' in n.gains and 'read the vault' in n.gains}
    wanted = {tag for tag in kit.expected('insert update delete', MAIN) if 'a policy' not in tag and 'a type`s own' not in tag}
    check('a superuser who writes into the tables itself: all that are there sing', not wanted - gained, sorted(wanted - gained))
    with Session(server, options='-c search_path=mallory,pg_catalog') as fool:
        fool.rows("SELECT 'a' || 'b'")
    check("functions named like PostgreSQL's sing, too", [n for n in canaries.new() if 'made itself superuser' in n.gains])


def silence(server, kit, canaries):
    with Session(server) as session:
        views = [f'SELECT * FROM {view}' for view, in session.rows("SELECT oid::regclass::text FROM pg_class WHERE relkind = 'v' AND "
                                                                   "relnamespace = 'portage'::regnamespace ORDER BY 1")]
        for call in (*SILENT, *views, 'SELECT portage.drop_pipeline({pipeline}, true)'):
            run = imported(kit, 'target')
            canaries.new()
            error = session.error(Way(kit, canaries, ENTRIES[0], 'a superuser').filled(call, 'target', run))
            check(f'{call}: says no more than that it cannot', error is None or error.pgcode.startswith('PZ') or error.pgcode == '42704', told(error))
            notes = [n for n in canaries.new() if n.owner == kit.name]
            check(f"{call}: runs nobody's code", not notes, sorted(map(str, notes)))
    kit.create_pipeline('target')


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


def outcome(way, role, canaries, fires=True, all_notes=None):
    """Whether the role has gained; `fires`: its code ran at all, or else was refused. Looks at what was told since the last
    look, or at all that was ever told by the role's canaries."""
    admin = role.admin
    settled = until(lambda: not admin.value("SELECT count(*) FROM portage.migration_runs WHERE status IN "
                                            "('queued', 'running', 'verifying', 'rolling_back')"))
    check(f'{way}: what was begun has ended', settled)
    notes = [n for n in canaries.new() if n.owner == role.name or not n.owner.startswith('indexer')]
    if all_notes:
        notes = [n for n in canaries.all if n.owner == role.name]
    if fires:
        check(f'{way}: the code has run', notes)
    gains = sorted({f'{n.door} as {n.session}/{n.user}: {n.gains}' for n in notes if n.gains})
    check(f'{way}: nothing is gained', not gains, '; '.join(gains))
    if not check(f'{way}: nobody has become superuser', not role.is_superuser()):
        admin.rows(f'ALTER ROLE {role.name} NOSUPERUSER')
    return notes


def indexer(server, admin, number):
    role = with_a_table_behind(server, admin, f'indexer{number}')
    opens_a_run(role)
    return role


def before_autovacuum(server, admin):
    """It comes by in its own time, and meets an index expression that opens a run."""
    role = indexer(server, admin, 0)
    role.rows('ALTER TABLE bait SET (autovacuum_analyze_threshold = 0, autovacuum_analyze_scale_factor = 0, autovacuum_enabled = true)')
    role.rows('DELETE FROM bait')
    role.rows('INSERT INTO bait VALUES (2)')
    return role


def by_autovacuum(admin, role, canaries):
    check('an index expression, autovacuum: it came by', until(lambda: admin.value(
        "SELECT autoanalyze_count FROM pg_stat_all_tables WHERE relid = %s::regclass", f'{role.name}.bait')))
    outcome('an index expression, autovacuum', role, canaries, all_notes=True)
    role.close()


def by_maintenance(server, admin, canaries):
    """A superuser's REINDEX or ANALYZE runs an index expression: it opens a run in the superuser's session."""
    for number, statement in enumerate(('REINDEX TABLE %s.bait', 'ANALYZE %s.bait', 'VACUUM ANALYZE %s.bait'), 1):
        role = indexer(server, admin, number)
        error = admin.error(statement % role.name)
        check(f'an index expression, {statement % role.name}: goes on, or is refused',
              error is None or error.pgcode == '42501', told(error))
        outcome(f'an index expression, {statement.replace("%s.", "")}', role, canaries, all_notes=True)
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


# Tables that refer to somebody's, with code for what a rollback with cascade does to their rows.
DEPENDANTS = {
    'deletes': ('REFERENCES vault.parent', 'BEFORE DELETE', 'dependant'),
    'a constraint deletes': ('REFERENCES vault.parent ON DELETE CASCADE', 'AFTER DELETE', 'dependant'),
    'a constraint changes': ('REFERENCES vault.parent ON DELETE SET NULL', 'AFTER UPDATE', 'dependant'),
    'deletes for all of a shared role': ('REFERENCES vault.parent', 'AFTER DELETE', 'staff'),
}


def by_cascade(server, admin, canaries):
    """Whose rows go along with a rollback is told by foreign keys, which strangers may have made: with triggers."""
    role = Attacker(server, admin, 'dependant')
    admin.rows('CREATE ROLE staff; GRANT staff TO victim, dependant; GRANT USAGE, CREATE ON SCHEMA dependant TO staff')
    with Session(server, 'victim') as victim:
        victim.rows('CREATE TABLE vault.parent (id int PRIMARY KEY); GRANT REFERENCES ON vault.parent TO dependant, staff')
        victim.rows("SELECT portage.create_pipeline('parent', 'vault.parent', %s)", DEFINITION)
        for number, (what, (refers, when, owner)) in enumerate(DEPENDANTS.items(), 1):
            way, table = f"a stranger's dependants, which a rollback {what}", f'dependant.child{number}'
            run = victim.value("SELECT run_id FROM portage.migrate('parent', %s)", '{"id": %d}' % number)
            role.rows(f'SET ROLE {owner}')
            role.rows(f'CREATE TABLE {table} (id int {refers}); GRANT ALL ON {table} TO PUBLIC')
            role.rows(f"CREATE TRIGGER note {when} ON {table} FOR EACH ROW EXECUTE FUNCTION dependant.note('a dependant')")
            role.rows(f'INSERT INTO {table} VALUES ({number})')
            role.rows('RESET ROLE')
            canaries.new()
            reasons = victim.value("SELECT (portage.can_rollback(%s)).reasons::text", run)
            check(f'{way}: can_rollback() tells of their code', f'{table} (delete' in reasons, reasons)
            for caller in (victim, admin):
                error = caller.error('CALL portage.rollback(%s, cascade => true)', run)
                check(f'{way}: is refused', error is not None and error.pgcode == '42501', told(error))
            check(f'{way}: nothing has begun', victim.value('SELECT count(*) FROM vault.parent WHERE id = %s', number) == 1 and
                  admin.value('SELECT status FROM portage.migration_runs WHERE id = %s', run) == 'completed')
            check(f'{way}: none of their code has run', not [n for n in canaries.new() if n.owner == 'dependant'])
            role.rows(f'UPDATE {table} SET id = id; DELETE FROM {table}')
            check(f'{way}: the canary sings where its owner writes', [n for n in canaries.new() if n.owner == 'dependant' and not n.gains])
            error = victim.error('CALL portage.rollback(%s, cascade => true)', run)
            check(f'{way}: once they have gone, the rows go', error is None, told(error))
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


def before_the_extension(server, admin):
    """A role that may create schemas makes ours before the extension is there: then it would be its owner's."""
    admin.rows('CREATE ROLE early LOGIN; GRANT CREATE ON DATABASE postgres TO early')
    with Session(server, 'early') as early:
        early.rows('CREATE SCHEMA portage')
    error = admin.error('CREATE EXTENSION pg_portage')
    owner = admin.value("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'portage'")
    check("the extension does not go into a stranger's schema", error is not None or owner != 'early', told(error))
    admin.rows('DROP SCHEMA portage')


LEAVE = """
CREATE FUNCTION leave() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  RAISE LOG 'found|%|%|%|%|%|%|', pg_backend_pid(), NEW.id, current_setting('hostile.left', true), to_regclass('pg_temp.hostile'),
    (SELECT count(*) FROM pg_prepared_statements WHERE name = 'hostile'),
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND objid = 4712);
  PERFORM set_config('hostile.left', 'x', false), pg_advisory_lock(4712);
  CREATE TEMP TABLE hostile (id int);
  PREPARE hostile AS SELECT 1;
  RETURN NEW;
END $$"""
FOUND = re.compile(r'found\|(\d+)\|(\d+)\|(.*?)\|(.*?)\|(\d+)\|(\d+)\|')


def between_two_runs(server, admin):
    """Both are worked off by one process, as there is no place for a second one."""
    admin.rows('CREATE EXTENSION pg_portage; CREATE ROLE twice LOGIN; CREATE SCHEMA twice AUTHORIZATION twice')
    server.psql(GATES)
    for name, value in PATIENT.items():
        admin.rows(f"ALTER ROLE twice SET {name} = '{value}'")
    with Session(server, 'twice') as role:
        role.rows('SET search_path = twice')
        role.rows('CREATE TABLE target (id int PRIMARY KEY)')
        role.rows(LEAVE)
        role.rows('CREATE TRIGGER a BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION leave()')
        role.rows("CREATE TRIGGER b BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION gates.keep('id')")
        role.rows("SELECT portage.create_pipeline('twice', 'target', %s)", DEFINITION)
        runs = []
        with Gate(server, at=1) as gate:
            for number in (1, 2):
                runs.append(role.value("SELECT portage.open_run('twice')"))
                role.rows('SELECT portage.submit(%s, %s)', runs[-1], '{"id": %d}' % number)
                role.rows('SELECT portage.start(%s)', runs[-1])
                gate.somebody_waits()
        until(lambda: not admin.value(AT_WORK))
        check('two runs, one worker: both are done', admin.value(
            "SELECT count(*) FROM portage.migration_runs WHERE id = ANY (%s) AND status = 'completed'", runs) == 2)
    with open(server.log, encoding='utf-8') as log:
        found = FOUND.findall(log.read())
    check('two runs, one worker: it was one process', len(found) == 2 and found[0][0] == found[1][0], found)
    check('two runs, one worker: nothing of the first meets the second', all(
        setting in ('', '<NULL>') and table == '<NULL>' and statements == locks == '0' for _, _, setting, table, statements, locks in found), found)


def on_a_small_server():
    with Server(max_worker_processes=1, max_logical_replication_workers=0) as server, Session(server) as admin:
        before_the_extension(server, admin)
        between_two_runs(server, admin)


def by_pending(server, admin, canaries):
    """A transaction of somebody's that has constraints pending when it comes to a target with deferred triggers."""
    role = with_a_table_behind(server, admin, 'latecomer')
    admin.rows("""CREATE TABLE help.own (id int PRIMARY KEY); CREATE TABLE help.judged (at text, who name DEFAULT current_user);
        GRANT ALL ON help.judged TO PUBLIC;
        CREATE FUNCTION help.judge() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN INSERT INTO help.judged VALUES (current_setting('hostile.at')); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER judge AFTER INSERT ON help.own DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION help.judge()""")

    def judged():
        found = admin.rows('SELECT at, who FROM help.judged')
        admin.rows('TRUNCATE help.judged')
        return found

    def at(session, when):
        session.rows("SELECT set_config('hostile.at', %s, false)", when)

    migrate = "SELECT portage.migrate('latecomer/latecomer', %s)"
    with Session(server) as session:
        session.rows('BEGIN; INSERT INTO help.own VALUES (1)')
        at(session, 'during the call')
        error = session.error(migrate, '{"id": 1}')
        check('what is pending: the call goes on', error is None, told(error))
        at(session, 'after the call')
        session.rows('INSERT INTO help.own VALUES (2)')
        at(session, 'at the end')
        session.rows('COMMIT')
        found = judged()
        check('what is pending is judged at the end, and so is what comes after the call', found == [('at the end', 'postgres')] * 2, found)
        notes = [n for n in canaries.new() if n.owner == 'latecomer']
        check("what is pending: the target's has been, as the target's owner", notes and all(n.user == 'latecomer' and not n.gains for n in notes),
              '; '.join(map(str, notes)))
        session.rows('BEGIN; INSERT INTO latecomer.behind VALUES (0)')
        error = session.error(migrate, '{"id": 2}')
        check('what is pending for the same table: the call is refused', error is not None and error.pgcode == '42501' and
              'cannot fire deferred trigger within security-restricted operation' in str(error), told(error))
        session.rows('ROLLBACK')
        check('what is pending for the same table: nothing has fired', not [n for n in canaries.new() if n.owner == 'latecomer'])
        role.rows('CREATE FUNCTION hurry() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SET CONSTRAINTS ALL IMMEDIATE; RETURN NEW; END $$')
        role.rows('CREATE TRIGGER hurry BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION hurry()')
        session.rows('BEGIN; INSERT INTO help.own VALUES (3)')
        at(session, 'during the call')
        error = session.error(migrate, '{"id": 3}')
        check("a target's trigger may judge what is pending: it goes on", error is None, told(error))
        at(session, 'at the end')
        session.rows('COMMIT')
        found = judged()
        check("a target's trigger may judge what is pending, as the target's owner", found == [('during the call', 'latecomer')], found)
    canaries.new()
    role.close()


def by_a_closed_schema(server, admin):
    """Who may refer to somebody's table does so from where its owner may not look, by a constraint that can be deferred."""
    role = Attacker(server, admin, 'hermit')
    with Session(server, 'victim') as victim:
        victim.rows('CREATE TABLE vault.visited (id int PRIMARY KEY); GRANT REFERENCES ON vault.visited TO hermit')
        victim.rows("SELECT portage.create_pipeline('visited', 'vault.visited', %s)", DEFINITION)
        role.rows('CREATE TABLE hermit.child (id int, FOREIGN KEY (id) REFERENCES vault.visited DEFERRABLE INITIALLY DEFERRED)')
        role.rows('REVOKE USAGE ON SCHEMA hermit FROM PUBLIC')
        error = victim.error("SELECT portage.migrate('visited', %s)", ITEM)
        check("a constraint in a closed schema: does not stop the owner's import", error is None, told(error))
        error = admin.error("CALL portage.import('victim/visited', payload => %s)", '{"id": 2}')
        check("a constraint in a closed schema: nor a superuser's", error is None, told(error))
        run = admin.value("SELECT max(id) FROM portage.migration_runs WHERE pipeline = 'visited'")
        role.rows('INSERT INTO hermit.child VALUES (2)')
        error = victim.error('CALL portage.rollback(%s)', run)
        check('a constraint in a closed schema: what hangs on it is known', error is not None and error.pgcode == 'PZ021', told(error))
        role.rows('DELETE FROM hermit.child')
        error = victim.error('CALL portage.rollback(%s)', run)
        check('a constraint in a closed schema: the run can be taken back', error is None, told(error))
    role.close()


def siblings(server, admin, canaries):
    by_a_closed_schema(server, admin)
    by_pending(server, admin, canaries)
    with_types_of_the_session(server, admin, canaries)
    by_reference(server, admin, canaries)
    by_cascade(server, admin, canaries)
    by_looking(server, admin, canaries)
    by_shared_role(server, admin, canaries)
    on_a_small_server()


with Server(max_worker_processes=16, autovacuum_naptime='1s', log_error_verbosity='terse', log_min_error_statement='panic') as server:
    with Session(server) as admin:
        prepare(server, admin)
        canaries = Canaries(server)
        indexed = before_autovacuum(server, admin)
        kits = every_door(server, admin, canaries)
        ways_that_were_open(server, admin, canaries)
        siblings(server, admin, canaries)
        by_autovacuum(admin, indexed, canaries)
        admin.rows('ALTER ROLE postgres SET search_path = mallory, pg_catalog')  # the launcher's, too
    server.set('shared_preload_libraries', 'pg_portage')
    server.restart()
    with Session(server, options=PLAIN) as admin:
        by_launcher(admin, *kits, canaries)
finish()
