#!/usr/bin/python3
"""What a definition calls sensitive is shown to nobody but the pipeline's owner, and kept of a run nowhere at all.

Every value at a sensitive path is a marker. First masked_raw() gets items of all shapes but the right one. Then pipelines
are run through every entry, with targets whose triggers, domains, checks and constraints tell the values wherever an error
or a message has a place for a text; and every relation and function of the schema that a role can read is searched, all
errors that were raised, to the owner as well, and the server's log at its most talkative. PORTAGE_SEED repeats a run."""

import itertools
import json
import os
import random
import re
import sys

import psycopg2

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import Server, check, finish  # noqa: E402
from sessions import Session, until  # noqa: E402

SEED = int(os.environ.get('PORTAGE_SEED', random.randrange(1 << 32)))
chance = random.Random(SEED)
numbers = itertools.count(1)

MARKER = re.compile('zqx[0-9]+zqx', re.IGNORECASE)
HEX = re.compile('7a7178(?:3[0-9])+7a7178', re.IGNORECASE)


def secret():
    return f'zqx{next(numbers)}zqx'


def secrets_in(text):
    text = str(text)
    return sorted(set(MARKER.findall(text)) | set(HEX.findall(text)))


def none_in(name, text):
    found = secrets_in(text)
    at = str(text).lower().find(found[0].lower()) if found else 0
    return check(name, not found, f'{len(found)} secrets, the first in: {str(text)[max(0, at - 200):at + 100]}')


# ---------------------------------------------------------------- raw input

KEYS = ['name', 'p', 'a b', 'x.y', 'Email', 'Größe', '', 'k"q']


def spelled(steps):
    text = ''
    for step in steps:
        if isinstance(step, int):
            text += f'[{step}]'
        else:
            text += ('.' if text else '') + '"' + step.replace('\\', '\\\\').replace('"', '\\"') + '"'
    return text


def random_path():
    steps = [chance.choice(KEYS)]
    for _ in range(chance.randrange(4)):
        steps.append(chance.randrange(3) if chance.random() < 0.3 else chance.choice(KEYS))
    return steps


def fits(steps, leaf):
    """A node at which the steps lead to the leaf; a list of (key, node) is an object, so that a key may come twice."""
    if not steps:
        return leaf
    inner = fits(steps[1:], leaf)
    if isinstance(steps[0], int):
        return [None] * steps[0] + [inner]
    return [('note', 'plain'), (steps[0], inner)] if chance.random() < 0.5 else [(steps[0], inner)]


def is_object(node):
    return isinstance(node, list) and all(isinstance(one, tuple) for one in node) and node != []


def written(node):
    if is_object(node):
        return '{' + ', '.join(key_text(key) + ': ' + written(value) for key, value in node) + '}'
    if isinstance(node, list):
        return '[' + ', '.join(map(written, node)) + ']'
    return json.dumps(node, ensure_ascii=chance.random() < 0.5)


def key_text(key):
    if chance.random() < 0.1:
        return '"' + ''.join('\\u%04x' % ord(c) for c in key) + '"'
    return json.dumps(key)


def other_case(key):
    swapped = key.swapcase()
    return swapped if swapped != key and len(swapped) == len(key) else key + 'x'


def telling():
    """Something with secrets in it, of whatever shape."""
    return chance.choice([lambda: secret(), lambda: [secret()], lambda: [('email', secret())], lambda: [[('q', [secret()])]],
                          lambda: [('name', secret()), ('p', secret())], lambda: 'a ' + secret() + ' b'])()


def bend(steps):
    """An item in which what belongs at the path stands somewhere beside it."""
    at = chance.randrange(len(steps))
    step, behind = steps[at], steps[at + 1:]
    shape = chance.choice(['scalar', 'array', 'object', 'case', 'case too', 'doubled', 'short', 'deeper', 'below'])
    if shape == 'scalar':
        node = secret()
    elif shape == 'array':
        node = [fits(behind, secret()) for _ in range(chance.randrange(1, 3))] + [fits(steps[at:], secret())]
        if isinstance(step, int):
            node = [('0', fits(behind, secret())), (str(step), secret())]
    elif shape == 'object':
        node = [('wrong', telling())] if not isinstance(step, str) or step != 'wrong' else telling()
    elif shape in ('case', 'case too') and isinstance(step, str):
        if other_case(step) == step + 'x' and shape == 'case too':
            return bend(steps)  # two keys, of which one is simply another
        node = [(other_case(step), fits(behind, secret()))]
        if shape == 'case too':
            node += [(step, fits(behind, secret()))]
    elif shape == 'doubled' and isinstance(step, str):
        node = [(step, chance.choice([fits(behind, secret()), secret(), [secret()]])) for _ in range(chance.randrange(2, 4))]
    elif shape == 'short' and isinstance(step, int) and step > 0:
        node = [telling() for _ in range(step)]
    elif shape == 'deeper':
        node = fits(steps[at:], telling())
    else:
        node = fits([step] + behind, telling())
    return fits(steps[:at], node)


def disfigured(text):
    """No JSON any more."""
    cut = chance.randrange(len(text))
    return chance.choice([text[:cut], text + text[cut:], text.replace('"', '', 1), text.replace(':', '', 1), f'{text} {text}',
                          f'[{text}]', text[1:], f'"{secret()}"', f'{secret()},{secret()}', text.replace('{', '{{', 1)])


def raw_input(admin, rounds):
    rows = []
    for _ in range(rounds):
        paths = [random_path() for _ in range(chance.choice([1, 1, 1, 2]))]
        if len(paths) == 1:
            text = written(bend(paths[0]) if chance.random() < 0.9 else fits(paths[0], secret()))
        else:  # the members of the two items together, whoever of them is bent
            members = [node if is_object(node) else [('other', 0)] for node in (fits(path, secret()) for path in paths)]
            text = written(members[0] + members[1])
        if chance.random() < 0.15:
            text = disfigured(text)
        rows.append((text, [spelled(path) for path in paths]))
    deep = [('[' * 100000 + f'"{secret()}"' + ']' * 100000, ['p']),
            ('{"p":' * 100000 + f'"{secret()}"' + '}' * 100000, ['p']),
            ('{"p": {"q": ' + '[' * 400 + f'"{secret()}"' + ']' * 400 + '}}', ['p.q']),
            (f'{{"p": "{secret()}"}}', ['p"']), (f'{{"p": "{secret()}"}}', ['$item']), (f'{{"a": "{secret()}"}}', ['["a"]'])]
    admin.rows('CREATE TABLE raw_input (text text, paths text[])')
    with admin.connection.cursor() as cursor:
        cursor.executemany('INSERT INTO raw_input VALUES (%s, %s)', rows + deep)
    shown = admin.rows("SELECT text, paths, portage.masked_raw(convert_to(text, 'UTF8'), paths) FROM raw_input")
    leaks = [(text[:300], paths, masked[:300]) for text, paths, masked in shown if secrets_in(masked)]
    check(f'masked_raw() shows no secret in {len(shown)} items of wrong shapes', not leaks, (len(leaks), leaks[:3]))
    check('... and what it is shown had some', sum(bool(secrets_in(text)) for text, _, _ in shown) > len(shown) * 0.8)
    check('... and it shows what is not sensitive', sum('plain' in masked for _, _, masked in shown) > rounds / 20)

    def masked(text, *paths):
        return admin.value("SELECT portage.masked_raw(convert_to(%s, 'UTF8'), %s)", text, list(paths))

    for text, path, wanted in [
            ('{"p": {"email": "S", "n": 1}, "m": 2}', 'p.email', '{"p":{"email":"***","n":1},"m":2}'),
            ('{"p": "S", "m": 2}', 'p.email', '{"p":"***","m":2}'),
            ('{"p": [{"email": "S"}], "m": 2}', 'p.email', '{"p":"***","m":2}'),
            ('{"p": {"Email": "S"}, "m": 2}', 'p.email', '{"p":"***","m":2}'),
            ('{"p": {"Email": "S", "email": "T"}, "m": 2}', 'p.email', '{"p":"***","m":2}'),
            ('{"p": {"email": "S", "email": "T"}, "m": 2}', 'p.email', '{"p":{"email":"***"},"m":2}'),
            ('{"p": "S", "p": {"email": "T"}, "m": 2}', 'p.email', '{"p":{"email":"***"},"m":2}'),
            ('{"P": "S", "m": 2}', 'p.email', '***'), ('{"m": 2}', 'p', '***'), ('["S"]', '[0]', '***'),
            ('{"p": ["S", 2]}', 'p[0]', '{"p":["***",2]}'), ('{"p": ["S", 2]}', 'p[2]', '{"p":"***"}'),
            ('{"p": null, "m": 2}', 'p', '{"p":"***","m":2}'), ('S,1', 'p', '***'), ('', 'p', '***'),
            ('{"p": 1}', '$item', '***')]:
        check(f'{text} at {path}', masked(text, path) == wanted, masked(text, path))


# ---------------------------------------------------------------- runs

SETUP = """
CREATE ROLE owner LOGIN; CREATE ROLE reader LOGIN; CREATE ROLE runner LOGIN; CREATE ROLE operator LOGIN;
GRANT pg_read_server_files TO runner;
CREATE SCHEMA app; GRANT ALL ON SCHEMA app TO PUBLIC;
ALTER DATABASE postgres SET search_path = app, public;
SET search_path = app;
CREATE DOMAIN address AS text CHECK (VALUE NOT LIKE 'domain%');
CREATE TABLE people (id bigint PRIMARY KEY, email address UNIQUE, code integer, kind text NOT NULL DEFAULT 'good',
  CONSTRAINT no_check CHECK (email NOT LIKE 'check%'));
CREATE TABLE mails (email text PRIMARY KEY, kind text NOT NULL DEFAULT 'good');
CREATE TABLE other (email text, CONSTRAINT other_check CHECK (email NOT LIKE '%zqx%'));
CREATE TABLE payloads (id bigint PRIMARY KEY, body text);
CREATE TABLE source (id bigint PRIMARY KEY, email text, kind text);
CREATE FUNCTION tell(text) RETURNS integer LANGUAGE sql AS $$ SELECT $1::integer $$;

CREATE FUNCTION say(kind text, email text) RETURNS void LANGUAGE plpgsql AS $say$
BEGIN
  CASE kind
    WHEN 'text' THEN RAISE EXCEPTION 'no %', email USING DETAIL = email, HINT = email;
    WHEN 'names' THEN RAISE EXCEPTION USING MESSAGE = email, ERRCODE = '23514', SCHEMA = email, TABLE = email, COLUMN = email,
      CONSTRAINT = email, DATATYPE = email, DETAIL = email, HINT = email;
    WHEN 'insert' THEN INSERT INTO other VALUES (email);
    WHEN 'cast' THEN PERFORM email::integer;
    WHEN 'function' THEN PERFORM tell(email);
    WHEN 'dynamic' THEN EXECUTE format('SELECT %L::integer', email);
    WHEN 'syntax' THEN EXECUTE 'SELECT ' || quote_literal(email) || ' FROM WHERE';
    WHEN 'table' THEN EXECUTE format('SELECT * FROM %I', email);
    WHEN 'messages' THEN
      RAISE DEBUG 'debug %', email; RAISE LOG 'log %', email; RAISE INFO 'info %', email; RAISE NOTICE 'notice %', email;
      RAISE WARNING 'warning %', email USING DETAIL = email, HINT = email;
    WHEN 'good' THEN NULL;
    ELSE  -- a SQLSTATE
      RAISE EXCEPTION 'no %', email USING ERRCODE = kind, DETAIL = email, HINT = email, TABLE = email, CONSTRAINT = email;
  END CASE;
END $say$;
CREATE FUNCTION at_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    IF OLD.kind LIKE 'delete %' THEN PERFORM say(substr(OLD.kind, 8), OLD.email); END IF;
    RETURN OLD;
  END IF;
  IF NEW.kind NOT LIKE '% %' THEN PERFORM say(NEW.kind, NEW.email); END IF;
  RETURN NEW;
END $$;
CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.kind LIKE 'later %' THEN PERFORM say(substr(NEW.kind, 7), NEW.email); END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER at_once BEFORE INSERT OR UPDATE OR DELETE ON people FOR EACH ROW EXECUTE FUNCTION at_once();
CREATE TRIGGER at_once BEFORE INSERT OR UPDATE OR DELETE ON mails FOR EACH ROW EXECUTE FUNCTION at_once();
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON people DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION later();
GRANT ALL ON ALL TABLES IN SCHEMA app TO owner, runner;
GRANT ALL ON SCHEMA app TO owner, runner;
ALTER ROLE runner SET client_min_messages = debug1; ALTER ROLE runner SET log_min_messages = error;
ALTER ROLE owner SET lock_timeout = '10s'; ALTER ROLE runner SET lock_timeout = '10s';  -- else 55P03 is waited for
"""

# What a row makes its table say; those with a SQLSTATE end the run, the others are an item's.
ITEM_KINDS = ['text', 'names', 'insert', 'cast', 'function', 'dynamic', 'syntax', 'messages', 'P0001', '22023']
RUN_KINDS = ['42501', 'XX000', '40001', '57014', '53100', '58000', '42P01', '25006', '55P03', 'table']

PEOPLE = {'format': 'ndjson', 'legacy_id': 'id', 'sensitive': ['p.email', 'code'],
          'columns': {'id': 'id', 'email': 'p.email', 'code': 'code', 'kind': 'kind'},
          'rules': {'no_rule': {'sql': "email NOT LIKE 'rule%'"}, 'cast_rule': "kind <> 'rulecast' OR email::integer > 0"},
          'checks': {'greatest': {'sql': 'SELECT max(email::text) FROM app.people', 'expected': 'nobody'},
                     'none': 'SELECT max(email::text) IS NULL FROM app.people',
                     'raises': 'SELECT max(app.tell(email)) = 1 FROM app.people'}}
MAILS = {'format': 'ndjson', 'legacy_id': 'email', 'sensitive': ['email'], 'columns': {'email': 'email', 'kind': 'kind'}}


def item(number, kind='good', prefix=''):
    return {'id': number, 'p': {'email': prefix + secret()}, 'kind': kind}


def misshapen(number):
    """Items that do not land, for reasons of their own."""
    return chance.choice([
        lambda: {'id': number, 'p': secret()},
        lambda: {'id': number, 'p': [{'email': secret()}]},
        lambda: {'id': number, 'p': {'Email': secret()}, 'code': secret()},
        lambda: {'id': number, 'p': {'email': {'x': secret()}}, 'code': 'x' + secret()},
        lambda: {'id': [secret()], 'p': {'email': secret()}},
        lambda: {'id': number, 'p': {'email': secret()}, 'code': secret()},
        lambda: {**item(number), 'kind': None},
        lambda: item(number, prefix='domain'), lambda: item(number, prefix='check'), lambda: item(number, prefix='rule'),
        lambda: item(number, kind='rulecast')])()


class Place:
    """The server, and what has been told so far."""

    def __init__(self, server):
        self.server, self.told, self.runs = server, [], {}
        self.admin = Session(server)
        self.people = {role: Session(server, role) for role in ('owner', 'reader', 'runner', 'operator')}
        self.next = itertools.count(1000)

    def payload(self, items):
        """The number of a payload: its text stands in no statement, which is what the documentation asks for."""
        lines = [one if isinstance(one, str) else json.dumps(one) for one in items]
        return self.admin.value('INSERT INTO app.payloads VALUES (%s, %s) RETURNING id', next(self.next), '\n'.join(lines))

    def does(self, role, sql, *arguments):
        """Runs it, and notes all that it tells: its error, and what is not the run's."""
        session = self.people[role]
        del session.connection.notices[:]
        answer = None
        try:
            answer = session.rows(sql, *arguments)
        except psycopg2.Error as error:
            d = error.diag
            self.told.append((sql, role, [d.sqlstate] + [getattr(d, name) for name in dir(d) if not name.startswith('_')]))
        self.told.append((sql, role, list(session.connection.notices)))
        return answer

    def newest(self):
        return self.admin.value('SELECT max(id) FROM portage.migration_runs')


def runs_of_all_entries(place):
    admin, does = place.admin, place.does
    for role in ('reader', 'runner'):
        for name in PIPELINES:
            admin.rows('SELECT portage.grant_pipeline(%s, %s, %s)', 'owner/' + name, role, 'read' if role == 'reader' else 'run')
    serial = itertools.count(1)

    def some(kind):
        items = [item(next(serial)) for _ in range(3)] + [misshapen(next(serial)) for _ in range(4)]
        items += [item(next(serial), kind), '{"id": 1, "p": {"email": "' + secret()]
        return items

    seen = set()
    kinds = ITEM_KINDS + RUN_KINDS + ['later ' + kind for kind in ('text', '42501', 'XX000', '23514', 'insert')]
    for kind in kinds:
        for role in ('owner', 'runner'):
            for entry in ('migrate', 'import', 'start', 'raise'):
                if entry == 'start' and kind not in ('42501', 'text', 'table', 'later 42501'):
                    continue  # whether a session or a worker does it: each costs a process
                if role == 'owner' and entry in ('start', 'raise'):
                    continue
                number = place.payload(some(kind))
                scope = f'{kind} {role} {entry}'  # what one of them leaves undone is not in another's way
                body = '(SELECT body FROM app.payloads WHERE id = %s)'
                if entry in ('migrate', 'raise'):
                    options = '{"raise": true}' if entry == 'raise' else '{}'
                    does(role, f"SELECT * FROM portage.migrate('people', {body}, %s, '{options}')", number, scope)
                    continue
                run = does(role, "SELECT portage.open_run('people', %s, '{\"retry_attempts\": 1}')", scope)[0][0]
                does(role, f'SELECT portage.submit(%s, {body})', run, number)
                if entry == 'start':
                    does(role, 'SELECT portage.start(%s)', run)
                    admin.rows("CALL portage.wait(%s, '60 s')", run)
                else:
                    does(role, 'SELECT portage.plan(%s)', run)
                    does(role, 'SELECT portage.validate(%s)', run)
                    does(role, 'SELECT portage.detect(%s)', run)
                    does(role, 'CALL portage.run(%s)', run)
                status = admin.value('SELECT status FROM portage.migration_runs WHERE id = %s', run)
                seen.add((kind, status))
                place.runs.setdefault(status, []).append(run)
                if status == 'failed':
                    does(role, 'CALL portage.rollback(%s)', run)
                else:
                    does(role, 'SELECT * FROM portage.replay(%s)', run)
                    does(role, 'CALL portage.replay_run(%s)', run)
                    does(role, "SELECT * FROM portage.verify(%s, 'source')", run)
                    does(role, 'CALL portage.verify_run(%s)', run)
                for _, ordinal in zip(range(2), itertools.count(4)):
                    does(role, 'SELECT * FROM portage.replay(%s, %s)', run, ordinal)
                    does(role, 'SELECT * FROM portage.replay(%s, %s, (SELECT body FROM app.payloads WHERE id = %s))', run,
                         ordinal, place.payload([misshapen(next(serial))]))
                    does(role, 'SELECT portage.reject_raw(%s, %s)', run, ordinal)
                does(role, 'SELECT * FROM portage.can_rollback(%s)', run)
    for kind in ('40001', '53100', '58000'):
        check(f'a run fails by {kind}', (kind, 'failed') in seen, seen)
    check('a run completes with rejects', ('text', 'completed') in seen, seen)


def other_ways(place):
    """Settings, sources and stages of a run that tell values in words of our own."""
    admin, does = place.admin, place.does
    body = '(SELECT body FROM app.payloads WHERE id = %s)'
    serial = itertools.count(100000)

    # an import whose rows cannot be taken back, or deleted, without their being told of
    for kind in ('42501', 'text', 'XX000'):
        number = place.payload([item(next(serial), 'delete ' + kind) for _ in range(3)])
        does('runner', f"SELECT portage.migrate('people', {body})", number)
        does('runner', 'CALL portage.rollback(%s)', place.newest())
        does('runner', "CALL portage.rollback(%s, 'force')", place.newest())
        mails = [{'email': secret(), 'kind': 'delete ' + kind} for _ in range(3)]
        for some in (mails, mails[:1]):
            does('runner', f"SELECT portage.migrate('mails_gone', {body}, %s)", place.payload(some), kind)
    # too many rejects, told at the end, before the first write, and to the caller of a function
    rejects = [misshapen(next(serial)) for _ in range(20)]
    for options in ('{"max_rejects": 0}', '{"max_rejects": 0, "validate_first": true}', '{"dry_run": true}'):
        does('runner', f"SELECT portage.migrate('people', {body}, '', %s)", place.payload(rejects), options)
        run = does('runner', "SELECT portage.open_run('people', options => %s)", options)[0][0]
        does('runner', f'SELECT portage.submit(%s, {body})', run, place.payload(rejects))
        does('runner', 'CALL portage.run(%s)', run)
    # rows in dispute; the key is what is sensitive
    for name in ('mails', 'mails_fail', 'mails_ask'):
        mails = [{'email': secret(), 'kind': 'good'} for _ in range(4)]
        number = place.payload(mails)
        does('runner', f"SELECT portage.migrate(%s, {body}, 's')", name, number)
        run = place.newest()
        admin.rows("SET session_replication_role = replica; UPDATE app.mails SET kind = 'messages' WHERE email = %s; "
                   'RESET session_replication_role', mails[0]['email'])  # no word of its own trigger's about that
        admin.rows('DELETE FROM app.mails WHERE email = %s', mails[1]['email'])
        does('runner', "SELECT * FROM portage.verify(%s, 'source')", run)
        again = place.payload([{**mail, 'kind': 'other kind'} for mail in mails])
        does('runner', f"SELECT portage.migrate(%s, {body}, 's')", name, again)
        second = place.newest()
        admin.rows("UPDATE app.mails SET kind = 'changed since' WHERE email = %s", mails[0]['email'])
        does('runner', "SELECT * FROM portage.resolve(%s, 1, 'incoming')", second)
        does('runner', "SELECT * FROM portage.resolve(%s, '[{\"legacy_id\": \"nobody\", \"resolution\": \"incoming\"}]')", second)
        does('runner', "CALL portage.resolve_run(%s, 'incoming')", second)
        does('runner', 'CALL portage.rollback(%s)', run)
        does('runner', 'SELECT * FROM portage.can_rollback(%s)', second)
        for mail in mails[:2]:
            for role in ('runner', 'reader'):
                # who knows an id may ask for it, and is told nothing new
                place.told.append(('lookup', role, admin_as(place, role, 'SELECT portage.lookup_legacy(%s, %s, %s)', name,
                                                            mail['email'], 's')))
    # a source of rows, by a key that is sensitive; and one that cannot be read
    admin.rows('TRUNCATE app.source')
    for number in range(1, 30):
        admin.rows('INSERT INTO app.source VALUES (%s, %s, %s)', number, secret(), 'good')
    for query, key, snapshot in (("SELECT email, kind FROM app.source", '{email}', False),
                                 ("SELECT email, kind FROM app.source", '{kind}', False),
                                 ("SELECT email, kind, email::integer AS n FROM app.source", '{email}', False),
                                 ("SELECT email, kind, app.tell(email) FROM app.source", None, True)):
        run = does('runner', "SELECT portage.open_run('rows')")[0][0]
        does('runner', 'SELECT portage.attach_query(%s, %s, %s, %s)', run, query, key, snapshot)
        does('runner', 'CALL portage.run(%s)', run)
        does('runner', 'SELECT portage.plan(%s)', run)
    # a header that is none; a file that is none
    for name in ('csv', 'people'):
        does('runner', f'SELECT portage.migrate(%s, {body})', name,
             place.payload([f'{secret()},{secret()}', f'{secret()},good']))
    does('runner', f"SELECT portage.migrate('csv', {body})", place.payload(['email,kind', f'{secret()},42501', f'"{secret()}']))
    # several workers, whose parked items and deferred indexes are settled apart
    for options in ('{"workers": 2, "batch_size": 20}', '{"initial_load": true}'):
        kinds = ['good'] * 60 + ['text', 'names', '42501']
        mails = [{'email': secret(), 'kind': kind} for kind in kinds] + [{'email': secret()}]
        mails += mails[:5]
        run = does('owner', "SELECT portage.open_run('mails', 'w', %s)", options)[0][0]
        does('owner', f'SELECT portage.submit(%s, {body})', run, place.payload(mails))
        does('owner', 'CALL portage.run(%s)', run)
    # a schedule and a group, whose errors nobody is there to be told of
    admin.rows("INSERT INTO app.source VALUES (1000, %s, '42501')", secret())
    does('owner', "SELECT portage.schedule('nightly', '0 3 * * *', '{\"timezone\": \"UTC\"}')")
    for name, source in (('broken', 'SELECT email, kind, app.tell(email) AS n FROM app.source'),):
        definition = {**MAILS, 'format': 'rows', 'source': {'query': source}}
        does('owner', "SELECT portage.create_pipeline(%s, 'app.mails', %s)", name, json.dumps(definition))
        admin.rows('SELECT portage.grant_pipeline(%s, %s, %s)', 'owner/' + name, 'reader', 'read')
        does('owner', "SELECT portage.schedule(%s, '0 3 * * *', '{\"timezone\": \"UTC\"}')", name)
    admin.rows("UPDATE portage.schedule_rows SET next_due_at = '2030-01-01', next_run_at = '2030-01-01'")
    for minute in (1, 2, 3):
        admin.rows('CALL portage.tick(now => %s)', f'2030-01-01 00:0{minute}+00')
        until(lambda: admin.value("SELECT count(*) = 0 FROM portage.migration_runs WHERE pipeline IN ('nightly', 'broken') "
                                  "AND status IN ('queued', 'running', 'verifying')"))
    check('the schedules tell that they failed', admin.value('SELECT count(*) FROM portage.schedules WHERE last_error IS NOT NULL') == 2,
          admin.rows('SELECT pipeline, last_error, last_status FROM portage.schedules'))
    does('owner', 'SELECT portage.plan_group(%s)', ['nightly', 'broken'])
    does('owner', 'SELECT portage.run_group(%s)', ['nightly', 'broken'])
    group = does('owner', 'SELECT portage.run_group(%s)', ['nightly'])
    if group:
        does('owner', 'CALL portage.work_group(%s)', group[0][0])
        does('owner', 'CALL portage.wait_group(%s)', group[0][0])
        does('owner', 'CALL portage.rollback_group(%s)', group[0][0])


def admin_as(place, role, sql, *arguments):
    """The answer, without what the role itself put into the question."""
    found = place.does(role, sql, *arguments)
    return [value for row in found or [] for value in row]


PIPELINES = {
    'people': ('people', PEOPLE), 'mails': ('mails', MAILS),
    'mails_fail': ('mails', {**MAILS, 'on_conflict': 'fail'}), 'mails_ask': ('mails', {**MAILS, 'on_conflict': 'ask'}),
    'mails_gone': ('mails', {**MAILS, 'missing': 'delete'}),
    'csv': ('mails', {**MAILS, 'format': 'csv'}), 'rows': ('mails', {**MAILS, 'format': 'rows'}),
    'nightly': ('mails', {**MAILS, 'format': 'rows', 'source': {'query': 'SELECT email, kind FROM app.source', 'key': ['email']}})}

# What the owner may see unmasked: single items.
OWNERS = {'rejects', 'migration_items', 'corrections', 'open_conflicts', 'resolved_conflicts', 'legacy_mappings', 'missing_items',
          'migration_parts', 'migration_ranges', 'source_cursors'}


def search(place):
    """Everything that the schema shows to each of the roles."""
    admin = place.admin
    relations = [name for name, in admin.rows(
        "SELECT relname FROM pg_class WHERE relnamespace = 'portage'::regnamespace AND relkind IN ('r', 'v', 'f', 'm') ORDER BY 1")]
    runs = [run for run, in admin.rows('SELECT id FROM portage.migration_runs ORDER BY id')]
    for role, session in place.people.items():
        read = 0
        for name in relations:
            if not admin.value('SELECT has_table_privilege(%s, %s, %s)', role, f'portage.{name}', 'SELECT'):
                continue
            rows = session.rows(f'SELECT * FROM portage.{name}')
            read += len(rows)
            if role != 'owner' or name not in OWNERS:
                none_in(f'{role} reads {name}, {len(rows)} rows', '\n'.join(map(str, rows)))
        check(f'{role} reads something', read > 500, read)
        for function in ('status({})', 'summary({})', 'progress_data({})', 'report({})', 'report_markdown({})',
                         'recommendations({})', 'rollback_findings({})', 'plan({})', 'validate({})', 'snapshot({})'):
            if role == 'owner' and re.match('report|summary|validate|snapshot', function):
                continue  # these show single items
            texts = []
            for run in runs if role == 'reader' else runs[chance.randrange(5)::5]:
                try:
                    texts += session.rows(f'SELECT f::text FROM portage.{function.format(run)} AS f')
                except psycopg2.Error as error:
                    texts.append((str(error),))
            none_in(f'{role} asks {function.format("run")} of {len(texts)} rows', '\n'.join(str(text) for text, in texts))
    groups = [group for group, in admin.rows('SELECT id FROM portage.run_groups')]
    for role in ('reader', 'runner', 'operator'):
        none_in(f'{role} asks for groups', [place.people[role].rows('SELECT portage.report_group(%s), portage.group_status(%s)',
                                                                    group, group) for group in groups])


def main():
    print(f'PORTAGE_SEED={SEED}')
    with Server(log_min_messages='debug1', log_error_verbosity='verbose', log_min_error_statement='debug1',
                log_parameter_max_length_on_error=-1, **{'portage.admin_role': 'operator'},
                shared_preload_libraries='pg_portage') as server:
        with Session(server) as admin:
            admin.rows('CREATE EXTENSION pg_portage')
            raw_input(admin, int(os.environ.get('PORTAGE_ITEMS', 3000)))
            admin.rows(SETUP)
        place = Place(server)
        for name, (table, definition) in PIPELINES.items():
            place.people['owner'].rows('SELECT portage.create_pipeline(%s, %s, %s)', name, 'app.' + table, json.dumps(definition))
        runs_of_all_entries(place)
        other_ways(place)

        for what, role in sorted({(sql, role) for sql, role, _ in place.told}):
            none_in(f'{role} is told nothing by {what[:90]}', [texts for sql, who, texts in place.told if (sql, who) == (what, role)])
        check('the owner is told what is wrong with items', secrets_in(place.people['owner'].rows(
            'SELECT message, issues, raw FROM portage.rejects')) != [])
        check('... and others that something is', place.people['reader'].value(
            "SELECT count(*) FROM portage.rejects WHERE message = '***'") > 50)
        check('of runs that failed it is told by what', place.people['reader'].value(
            "SELECT count(*) FROM portage.migration_runs WHERE error ~ 'error 42501' AND error_code = '42501'") > 0,
            place.people['reader'].rows('SELECT DISTINCT error_code, error FROM portage.migration_runs'))
        search(place)

        # a payload in the text of a statement, which fails: neither it nor its context is written down
        marked = secret()
        error = place.people['runner'].error(
            "DO $$ BEGIN EXECUTE $x$SELECT portage.migrate('people', '{\"id\": 99999999, \"p\": {\"email\": \"" + marked +
            "\"}, \"kind\": \"42501\"}', 'literal', '{\"raise\": true}')$x$; END $$")
        check('a statement with a payload fails', error is not None and error.pgcode == '42501', error)
        # what others raise, and what a session raises afterwards, is told as ever
        for session in (place.people['runner'], place.people['owner']):
            session.rows("DO $$ BEGIN RAISE WARNING 'aloud'; END $$")
            check('messages are shown again', any('aloud' in notice for notice in session.connection.notices))
        with open(server.log, encoding='utf-8', errors='replace') as file:
            log = file.read()
        check('the log is talkative', 'DEBUG:' in log and 'LOCATION:' in log and 'aloud' in log)
        none_in(f'the log of {len(log)} bytes', log)
    finish()


main()
