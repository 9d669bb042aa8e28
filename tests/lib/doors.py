"""The doors: every place where PostgreSQL, or a definition, runs code of the role that owns a target, with a canary of
hostile.py in each. Many stand on one table, so that one call tries them all; each canary names its door and its table. A door
is a line of DOORS, which says what must be done for it to open:

    convert                   items become rows
    insert, update, delete    ... of the target
    select                    the target's rows are looked at
    check                     the definition's own checks are made
    source                    the definition's source is read
    merge, dispute            item and row become one, or it waits for a decision
    depend                    rows that refer to the target's go along with these
    build, analyze            indexes are built, statistics gathered

    kit = Kit(server, admin, 'mallory')      # a role with all of them, and a pipeline per table
    kit.expected('insert update', tables)    # what has to be told
"""

import json
from dataclasses import dataclass

from hostile import Attacker

ROWS = 'id int PRIMARY KEY, v int, d text'
# Each is the target of a pipeline of that name. `plain` has nothing that keeps its rows from being written below SQL.
TABLES = {
    'target': f'CREATE TABLE target ({ROWS})',
    'plain': f'CREATE TABLE plain ({ROWS})',
    'ruled': f'CREATE TABLE ruled ({ROWS})',
    'parts': f'CREATE TABLE parts ({ROWS}) PARTITION BY RANGE (id); CREATE TABLE part PARTITION OF parts DEFAULT',
    'shown': f'CREATE TABLE shown_rows ({ROWS})',
    'said': f'CREATE TABLE said ({ROWS})',
    'typed': f'CREATE TYPE pair AS (n int); CREATE TABLE typed ({ROWS}, p pair)',
    'asked': f'CREATE TABLE asked ({ROWS}, e mood)',
    'keyed': 'CREATE TABLE keyed (id key PRIMARY KEY, v int, d text)',
    'child': f'CREATE TABLE child ({ROWS}, parent int)',
    'empty': f'CREATE TABLE empty ({ROWS})',
}
ORDINARY = 'target plain ruled parts said typed asked keyed child empty'
ALL = ORDINARY + ' shown'
BY_SQL = 'target parts said'
WRITTEN = 'insert update delete'


@dataclass(frozen=True)
class Door:
    """`sql` builds it into table {t} of schema {s}; without any it is in the definition, see Kit.definition(). {canary} sings,
    {innocent} may stand where PostgreSQL takes immutable functions only, {each} is the same for each row, {note} is what a
    trigger executes, which tells the event, too; {x} is a name for whatever needs one. {mark} only tells who it is: an index that
    compares holds a lock on a page, which no subtransaction may end."""
    name: str
    tables: str
    opens: str
    sql: str = ''
    by_superuser: bool = False


DOORS = (
    # what belongs to a column
    Door('a default', ORDINARY, 'insert', 'ALTER TABLE {t} ADD def boolean DEFAULT {canary}'),
    Door('a generated column', ORDINARY, 'insert', 'ALTER TABLE {t} ADD gen boolean GENERATED ALWAYS AS ({each}) STORED'),
    Door('a constant in a generated column', ORDINARY, 'insert', 'ALTER TABLE {t} ADD con boolean GENERATED ALWAYS AS ({innocent}) STORED'),
    Door('a CHECK', ORDINARY, 'insert update', 'ALTER TABLE {t} ADD CHECK ({canary})'),
    Door('a constant in a CHECK', ORDINARY, 'insert update', 'ALTER TABLE {t} ADD CHECK ({innocent} AND id > 0)'),
    Door('a domain', ORDINARY, 'convert', 'CREATE DOMAIN {x} AS text CHECK ({canary}); ALTER TABLE {t} ALTER d TYPE {x}'),
    Door("a key's domain", 'keyed', 'convert select', 'ALTER DOMAIN key ADD CHECK ({canary})'),
    Door("a domain's default", ORDINARY, 'insert', 'CREATE DOMAIN {x} AS boolean DEFAULT {canary}; ALTER TABLE {t} ADD dd {x}'),
    # indexes and statistics
    Door('an index expression', ORDINARY, 'insert build', 'CREATE INDEX ON {t} (({each}))'),
    Door('the condition of an index', ORDINARY, 'insert build', 'CREATE INDEX ON {t} (v) WHERE {each}'),
    Door('an expression with statistics', ORDINARY, 'analyze', 'CREATE STATISTICS {x} ON ({each}), v FROM {t}'),
    # triggers of the target
    Door('a trigger before rows', BY_SQL, WRITTEN, 'CREATE TRIGGER {x} BEFORE {write} ON {t} FOR EACH ROW {note}'),
    Door('the condition of a trigger', BY_SQL, 'insert update delete', 'CREATE TRIGGER {x} BEFORE {write} ON {t} FOR EACH ROW WHEN ({canary}) {note}'),
    Door('a trigger after rows', ORDINARY, WRITTEN, 'CREATE TRIGGER {x} AFTER {write} ON {t} FOR EACH ROW {note}'),
    Door('a trigger before statements', BY_SQL, WRITTEN, 'CREATE TRIGGER {x} BEFORE {write} ON {t} {note}'),
    Door('a trigger after statements', BY_SQL, WRITTEN, 'CREATE TRIGGER {x} AFTER {write} ON {t} {note}'),
    Door('a deferred trigger', ORDINARY, WRITTEN, 'CREATE CONSTRAINT TRIGGER {x} AFTER {write} ON {t} {deferred} {note}'),
    Door('a trigger of a partition', 'parts', WRITTEN, 'CREATE TRIGGER {x} AFTER {write} ON part FOR EACH ROW {note}'),
    # ... and of tables behind it
    Door('a deferred trigger behind', ORDINARY, 'insert', 'CREATE TABLE behind_{t} (id int); {fill}behind_{t}\');'
         'CREATE CONSTRAINT TRIGGER {x} AFTER INSERT ON behind_{t} {deferred} {note}'),
    Door('SET CONSTRAINTS in a trigger, and a deferred trigger behind', 'said', 'insert', 'CREATE TABLE after_{t} (id int); '
         'CREATE TRIGGER {x} BEFORE INSERT ON {t} FOR EACH ROW EXECUTE FUNCTION say(); {fill}after_{t}\');'
         'CREATE CONSTRAINT TRIGGER {x} AFTER INSERT ON after_{t} {deferred} {note}'),
    Door('a trigger of a table that refers to it', 'target plain', 'depend', 'CREATE TABLE refers_{t} (id int REFERENCES {t}); '
         'CREATE TRIGGER {x} BEFORE DELETE ON refers_{t} FOR EACH ROW {note}'),
    Door('a deferred trigger of such a table', 'target plain', 'depend', 'CREATE CONSTRAINT TRIGGER {x} AFTER DELETE ON refers_{t} {deferred} {note}'),
    Door('a trigger behind a cascade', 'target plain', 'depend', 'CREATE TABLE hangs_{t} (id int REFERENCES {t} ON DELETE CASCADE); '
         'CREATE TRIGGER {x} AFTER DELETE ON hangs_{t} FOR EACH ROW {note}'),
    Door('a deferred trigger behind a cascade', 'target plain', 'depend', 'CREATE CONSTRAINT TRIGGER {x} AFTER DELETE ON hangs_{t} {deferred} {note}'),
    # row level security, rules, views
    Door('a policy, USING', 'target', 'select update delete', 'ALTER TABLE {t} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; '
         'CREATE POLICY {x} ON {t} USING ({canary}) WITH CHECK (true)'),
    Door('a policy, WITH CHECK', 'target', 'insert update', 'CREATE POLICY {x} ON {t} AS RESTRICTIVE USING (true) WITH CHECK ({canary})'),
    Door('a rule for INSERT', 'ruled', 'insert', 'CREATE TABLE ruled_too (b boolean); '
         'CREATE RULE {x} AS ON INSERT TO {t} DO ALSO INSERT INTO ruled_too SELECT {canary}'),
    Door('a rule for UPDATE', 'ruled', 'update', 'CREATE RULE {x} AS ON UPDATE TO {t} DO ALSO INSERT INTO ruled_too SELECT {canary}'),
    Door('a rule for DELETE', 'ruled', 'delete', 'CREATE RULE {x} AS ON DELETE TO {t} DO ALSO INSERT INTO ruled_too SELECT {canary}'),
    Door("a view's own condition", 'shown', 'select update delete', 'CREATE VIEW {t} AS SELECT * FROM shown_rows WHERE {canary}'),
    Door('an INSTEAD OF trigger', 'shown', WRITTEN, 'CREATE TRIGGER {x} INSTEAD OF {write} ON {t} FOR EACH ROW {note};'
         'CREATE TRIGGER {x}_ INSTEAD OF {write} ON {t} FOR EACH ROW EXECUTE FUNCTION write_shown()'),
    # types of one's own
    Door('a cast', 'typed', 'convert', 'CREATE FUNCTION to_pair(t text) RETURNS pair LANGUAGE plpgsql AS '
         '$$ BEGIN PERFORM {canary}; RETURN ROW(t::pg_catalog.int4); END $$; CREATE CAST (text AS pair) WITH FUNCTION to_pair(text) AS ASSIGNMENT'),
    Door('an operator', 'typed', 'convert', 'CREATE FUNCTION same(a pair, b pair) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS '
         '$$ BEGIN PERFORM {innocent}; RETURN a.n OPERATOR(pg_catalog.=) b.n; END $$; CREATE OPERATOR === (LEFTARG = pair, RIGHTARG = pair, FUNCTION = same)'),
    Door("a type's own equality", 'typed', 'convert', 'CREATE FUNCTION equal(a pair, b pair) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS '
         '$$ BEGIN {mark}; RETURN a.n OPERATOR(pg_catalog.=) b.n; END $$; CREATE OPERATOR = (LEFTARG = pair, RIGHTARG = pair, FUNCTION = equal)'),
    Door("a type's own order", 'typed', 'insert', """CREATE FUNCTION compare(a pair, b pair) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
         $$ BEGIN {mark}; RETURN pg_catalog.btint4cmp(a.n, b.n); END $$;
         CREATE FUNCTION less(a pair, b pair) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT {s}.compare($1, $2) OPERATOR(pg_catalog.<) 0';
         CREATE FUNCTION more(a pair, b pair) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT {s}.compare($1, $2) OPERATOR(pg_catalog.>) 0';
         CREATE OPERATOR < (LEFTARG = pair, RIGHTARG = pair, FUNCTION = less);
         CREATE OPERATOR > (LEFTARG = pair, RIGHTARG = pair, FUNCTION = more);"""),
    Door('an operator class', 'typed', '', """CREATE OPERATOR CLASS {s}.{x} DEFAULT FOR TYPE {s}.pair USING btree AS
         OPERATOR 1 {s}.<, OPERATOR 3 {s}.=, OPERATOR 5 {s}.>, FUNCTION 1 {s}.compare({s}.pair, {s}.pair);
         ALTER TABLE {s}.{t} ADD UNIQUE (p)""", by_superuser=True),
    Door('a cast to json', 'asked', 'dispute', 'CREATE FUNCTION as_json(m mood) RETURNS json LANGUAGE plpgsql AS '
         '$$ BEGIN PERFORM {canary}; RETURN pg_catalog.to_json(m::text); END $$; CREATE CAST (mood AS json) WITH FUNCTION as_json(mood)'),
    # the definition
    Door('an expression', ALL, 'convert'),
    Door('the legacy id', ALL, 'convert'),
    Door('where', ALL, 'convert'),
    Door('a rule', ALL, 'convert'),
    Door('a check', ALL, 'check'),
    Door('a source', ALL, 'source', 'CREATE VIEW source_{t} AS SELECT f.*, some_mood() AS e FROM feed f WHERE {canary}'),
    Door('merge', 'asked', 'merge'),
)

# What a trigger would leave behind for whoever's session it runs in.
TRAPS = {
    'a setting': "SELECT pg_catalog.set_config('hostile.left', 'x', false)",
    'a path': "SELECT pg_catalog.set_config('search_path', '{s}', false)",
    'a cursor': "DECLARE hostile CURSOR WITH HOLD FOR SELECT {s}.canary('a cursor')",
    'a statement': "PREPARE hostile AS SELECT {s}.canary('a statement')",
    'a channel': 'LISTEN hostile',
    'a table': 'CREATE TEMP TABLE hostile (b boolean)',
    'a view': "CREATE TEMP VIEW pg_class AS SELECT 1 WHERE {s}.canary('a view in pg_temp')",
    'a type': "CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK ({s}.canary('a type in pg_temp'))",
    'an enum': "CREATE TYPE pg_temp.hostile_enum AS ENUM ('a')",
}

# Functions and operators that are named like PostgreSQL's and stand before them in the role's path, as far as their types are
# plain: they do the same, and sing where they are called as anybody else.
SHADOWS = """
DO $do$
DECLARE
  plain oid[] := ARRAY['text', 'int8', 'int4', 'oid', 'bool', 'name', 'json', 'jsonb', 'timestamptz', 'interval', 'regclass', 'float8']::regtype[];
  sings text := $$ BEGIN IF current_user OPERATOR(pg_catalog.<>) '{s}' THEN PERFORM {s}.canary('a function named %s'); END IF; RETURN %s; END $$;
  p record;
BEGIN
  FOR p IN SELECT proname, pronargs, proargtypes::oid[] a, prorettype r FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f'
      AND NOT proretset AND pronargs < 3 AND provariadic = 0 AND prorettype = ANY (plain) AND proargtypes::oid[] <@ plain
      AND (proname NOT LIKE 'pg\\_%' OR proname = 'pg_try_advisory_xact_lock') LOOP
    EXECUTE format('CREATE FUNCTION {s}.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', p.proname,
      (SELECT string_agg(t::regtype::text, ', ' ORDER BY n) FROM unnest(p.a) WITH ORDINALITY AS t (t, n)), p.r::regtype,
      format(sings, p.proname, format('pg_catalog.%I(%s)', p.proname, (SELECT string_agg('$' || n, ', ') FROM generate_series(1, p.pronargs) n))));
  END LOOP;
  FOR p IN SELECT row_number() OVER () AS n, oprname, oprleft l, oprright r, oprresult FROM pg_operator
      WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprkind = 'b' AND oprleft = ANY (plain) AND oprright = ANY (plain) AND oprresult = ANY (plain) LOOP
    EXECUTE format('CREATE FUNCTION {s}.operator_%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS %L', p.n, p.l::regtype, p.r::regtype, p.oprresult::regtype,
      format(sings, translate(p.oprname, '|', '!'), format('$1 OPERATOR(pg_catalog.%s) $2', p.oprname)));
    EXECUTE format('CREATE OPERATOR {s}.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = {s}.operator_%s)', p.oprname, p.l::regtype, p.r::regtype, p.n);
  END LOOP;
END $do$
"""

# What the doors have in common. Whatever the path of who comes by, these mean what they say.
HELPERS = """
CREATE TYPE mood AS ENUM ('a', 'b');
CREATE FUNCTION some_mood() RETURNS mood LANGUAGE sql IMMUTABLE AS $$ SELECT 'a'::{s}.mood $$;
CREATE DOMAIN key AS int;
CREATE TABLE feed (id int PRIMARY KEY, v int, parent int);
CREATE TABLE refusals (id int);
CREATE FUNCTION refused(id int) RETURNS boolean LANGUAGE plpgsql AS
  $$ BEGIN RETURN EXISTS (SELECT FROM {s}.refusals r WHERE r.id OPERATOR(pg_catalog.=) $1); END $$;
CREATE OR REPLACE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  PERFORM {s}.canary(pg_catalog.concat(TG_ARGV[0], ', ', pg_catalog.lower(TG_OP)));
  IF TG_OP OPERATOR(pg_catalog.=) 'DELETE' THEN RETURN OLD; END IF;
  RETURN NEW; END $$;
CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  EXECUTE pg_catalog.format('INSERT INTO {s}.%I VALUES ($1)', TG_ARGV[0]) USING NEW.id;
  RETURN NEW; END $$;
CREATE FUNCTION say() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SET CONSTRAINTS ALL DEFERRED; RETURN NEW; END $$;
CREATE FUNCTION leave() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF session_user OPERATOR(pg_catalog.=) '{s}' THEN RETURN NEW; END IF;
  PERFORM {s}.canary(TG_ARGV[0]);
  EXECUTE TG_ARGV[1];
  RETURN NEW;
EXCEPTION WHEN OTHERS THEN RETURN NEW; END $$;
CREATE FUNCTION useful(pipeline text, items text) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
  RETURN (SELECT run_id FROM portage.migrate(pipeline, items)); END $$;
CREATE FUNCTION arrange(pipeline text) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
  RETURN portage.schedule(pipeline, '0 2 * * *'); END $$;
CREATE FUNCTION write_shown() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF TG_OP OPERATOR(pg_catalog.=) 'INSERT' THEN INSERT INTO {s}.shown_rows VALUES (NEW.id, NEW.v, NEW.d); RETURN NEW; END IF;
  IF TG_OP OPERATOR(pg_catalog.=) 'UPDATE' THEN
    UPDATE {s}.shown_rows r SET v = NEW.v, d = NEW.d WHERE r.id OPERATOR(pg_catalog.=) OLD.id;
    RETURN NEW;
  END IF;
  DELETE FROM {s}.shown_rows r WHERE r.id OPERATOR(pg_catalog.=) OLD.id; RETURN OLD; END $$;
"""


class Kit:
    """A role with every door, and a pipeline for each of its tables."""

    def __init__(self, server, admin, name, by=None):
        self.name, self.admin = name, admin
        self.role = role = Attacker(server, admin, name, by)
        self.n = self.at = 1
        role.rows(f'SET search_path = {name}')
        role.rows(HELPERS.format(s=name))
        for table, sql in TABLES.items():
            role.rows(sql)
        for door in DOORS:
            for table in door.tables.split():
                self.build(door, table)
        # When autovacuum comes by is not for a test to know.
        role.rows(f"""DO $$ DECLARE t regclass; BEGIN
            FOR t IN SELECT oid FROM pg_class WHERE relnamespace = '{name}'::regnamespace AND relkind = 'r' LOOP
              EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = false)', t); END LOOP; END $$""")
        for what, statement in TRAPS.items():
            role.rows(f"CREATE TRIGGER {self.unique()} BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION leave(%s, %s)",
                      f'leaves {what}', statement.format(s=name))
        role.rows(SHADOWS.replace('{s}', name))
        admin.rows(f'ALTER ROLE {name} SET search_path = {name}, pg_catalog')
        role.rows(f'SET search_path = {name}, pg_catalog')
        for table in TABLES:
            self.create_pipeline(table)
        role.arm()

    def create_pipeline(self, table):
        self.role.rows(f"SELECT portage.create_pipeline('{table}', '{table}', %s)", json.dumps(self.definition(table)))

    def reconnect(self, admin):
        self.admin = self.role.admin = admin
        self.role.sit_down()
        self.role.rows(f'SET search_path = {self.name}, pg_catalog')

    def status(self, run):
        return self.admin.value('SELECT status FROM portage.migration_runs WHERE id = %s', run)

    def items(self):
        """One item that each payload brings, changed, and one that no other does."""
        self.at += 1
        return "\n".join(json.dumps({'id': i, 'v': self.at, 'parent': self.at}) for i in (1, self.at))

    def unique(self):
        self.n += 1
        return f'x{self.n}'

    def canary(self, door, table):
        return f"{self.name}.canary('{self.tag(door, table)}')"

    @staticmethod
    def tag(door, table):
        return f"{door} of {table}".replace("'", '`')

    def build(self, door, table):
        tag = self.tag(door.name, table)
        x = self.unique()
        sql = door.sql.format(
            s=self.name, t=table, x=x, canary=self.canary(door.name, table), innocent=f"{self.name}.innocent('{tag}')",
            each=f"{self.name}.innocent('{tag}', id)", note=f"EXECUTE FUNCTION note('{tag}')",
            mark=f"RAISE LOG 'canary|{self.name}|%|%|%|?|', '{tag}', session_user, current_user", write='INSERT OR UPDATE OR DELETE',
            deferred='DEFERRABLE INITIALLY DEFERRED FOR EACH ROW',
            fill=f"CREATE TRIGGER {x}_fill AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION fill('")
        if sql:
            (self.admin if door.by_superuser else self.role).rows(sql)

    def definition(self, table):
        def sings(door):
            return self.canary(door, table)
        definition = {
            'format': 'rows',
            'legacy_id': {'sql': f"CASE WHEN {sings('the legacy id')} THEN item->>'id' END"},
            'columns': {'id': 'id', 'v': {'sql': f"CASE WHEN {sings('an expression')} THEN (item->>'v')::int END"}, 'd': {'value': 'x'}},
            'where': sings('where'),
            'rules': {'noted': sings('a rule'), 'refused': f'NOT {self.name}.refused(id)'},
            'checks': {'noted': f"SELECT {sings('a check')}"},
            'match': ['id'], 'on_conflict': 'overwrite',
            'source': {'query': f'SELECT * FROM {self.name}.source_{table}', 'key': 'id'}}
        if table in ('target', 'plain'):
            definition['missing'] = {'do': 'delete', 'at_most': '100%'}
        if table == 'parts':
            del definition['source']['key']  # so it is copied when the run is opened
        if table == 'shown':
            definition['key'] = ['id']
        if table == 'typed':
            definition['columns']['p'] = {'sql': "item->>'id'"}
            definition['match'] = ['p']
            definition['rules'].update(same='p === p', equal='p = p')
        if table == 'asked':
            definition['on_conflict'] = 'ask'
            definition['columns']['e'] = {'value': 'a'}
            definition['merge'] = {'v': {'sql': f"CASE WHEN {sings('merge')} THEN incoming.v END"}}
        if table == 'child':
            definition['columns']['parent'] = {'from': 'parent', 'references': 'victim/parents'}
        return definition

    def expected(self, opens, tables):
        """The tags of the doors that must open when all that is done."""
        done, tags = set(opens.split()), set()
        for door in DOORS:
            for table in set(door.tables.split()) & set(tables.split()):
                tag, events = self.tag(door.name, table), done & set(door.opens.split())
                if '{note}' in door.sql:
                    tags |= {f"{tag}, {event.replace('depend', 'delete')}" for event in events}
                elif events:
                    tags.add(tag)
        return tags
