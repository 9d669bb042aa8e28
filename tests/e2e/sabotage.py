#!/usr/bin/python3
"""Verification against sabotage: each kind of damage that can be done to target and ledger behind the extension's back is
found by verify(), by the check that is meant to, and told by item, key or part. What users change is told and is no
failure. Then 60 random damages, whose seed is printed (PORTAGE_SEED repeats them). And no false alarms: after whatever a
run can go through, every run is verified, down to its source."""

import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import Server, check, finish  # noqa: E402
from saboteur import Damage, Saboteur  # noqa: E402
from sessions import GATES, PATIENT, Gate, Session, ndjson  # noqa: E402

SEED = int(os.environ.get('PORTAGE_SEED', random.SystemRandom().randrange(1 << 32)))
ROUNDS = int(os.environ.get('PORTAGE_ROUNDS', '60'))

SETUP = """
CREATE EXTENSION pg_portage;
CREATE SCHEMA app;
CREATE TABLE app.shops (id int PRIMARY KEY);
INSERT INTO app.shops SELECT generate_series(1, 5);
CREATE TABLE app.goods (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, k text UNIQUE, v int, note text,
                        shop int REFERENCES app.shops, doubled int GENERATED ALWAYS AS (v * 2) STORED);
INSERT INTO app.goods (k, v, note, shop) SELECT 'k' || n, 0, CASE WHEN n % 2 = 0 THEN 'older' END, 1 FROM generate_series(41, 50) n;
INSERT INTO app.goods (k, v, note, shop) SELECT 'k' || n, n, 'note ' || n, 1 + n % 5 FROM generate_series(51, 55) n;
SELECT portage.create_pipeline('goods', 'app.goods', '{"format": "ndjson", "legacy_id": "id", "match": ["k"],
  "columns": {"k": "k", "v": "v", "note": "note", "shop": "shop"}, "on_conflict": "overwrite",
  "where": "item ->> ''k'' <> ''left out''"}');
CREATE TABLE app.loose (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, k text, v int);
SELECT portage.create_pipeline('loose', 'app.loose', '{"format": "ndjson", "legacy_id": "id", "match": ["k"],
  "columns": {"k": "k", "v": "v"}}');
CREATE ROLE clerk;
GRANT USAGE ON SCHEMA app TO clerk;
GRANT SELECT, INSERT, UPDATE, DELETE ON app.goods TO clerk;
"""


def good(n, v=None):
    return {'id': n, 'k': f'k{n}', 'v': n if v is None else v, 'note': f'note {n}', 'shop': 1 + n % 5}


class World:
    """Two runs: the first one inserts, overwrites, adopts and rejects, in several parts, chunks and batches; the second
    one changes items 1 to 10, finds 11 to 20 unchanged and adds some."""

    def __init__(self, server):
        self.session = Session(server)
        server.psql(SETUP)
        items = [good(n) for n in range(1, 61)]
        items[57]['v'] = 'many'
        items[58]['k'] = 'left out'
        items[59]['id'] = 1
        self.first = self.value("SELECT portage.open_run('goods', options => '{\"batch_size\": 10}')")
        for chunk, (low, high) in enumerate(((0, 12), (12, 20), (20, 30)), 1):
            self.value('SELECT portage.submit(%s, %s, %s, %s)', self.first, ndjson(items[low:high]) + '\n', 'one', chunk)
        self.value('SELECT portage.submit(%s, %s, %s)', self.first, ndjson(items[30:]) + '\n', 'two')
        self.rows('CALL portage.run(%s)', self.first)
        changed = [good(n, n + 1000) for n in range(1, 11)] + [good(n) for n in range(11, 21)]
        self.second = self.value("SELECT portage.open_run('goods', options => '{\"batch_size\": 7}')")
        self.value('SELECT portage.submit(%s, %s)', self.second, ndjson(changed + [good(n) for n in range(61, 66)]))
        self.rows('CALL portage.run(%s)', self.second)
        self.loose, = self.rows("SELECT run_id FROM portage.migrate('loose', %s)",
                                ndjson({'id': n, 'k': f'k{n}', 'v': n} for n in range(1, 8)))[0]

    def unpack(self):
        """Each item and mapping gets a row of its own, so that it can be damaged alone."""
        self.rows('INSERT INTO portage.item_rows SELECT * FROM portage.packed_items')
        self.rows('DELETE FROM portage.item_packs')
        self.rows('INSERT INTO portage.mapping_rows SELECT * FROM portage.packed_mappings')
        self.rows('DELETE FROM portage.mapping_packs')

    def rows(self, sql, *arguments):
        return self.session.rows(sql, *arguments)

    def value(self, sql, *arguments):
        return self.session.value(sql, *arguments)

    def verify(self, run, depth='source'):
        """name → (severity, passed, details as text)"""
        return {name: (severity, passed, details) for name, severity, passed, details in self.rows(
            'SELECT name, severity, passed, details::text FROM portage.verify(%s, %s)', run, depth)}

    def verified(self, run):
        return self.value('SELECT verified FROM portage.migration_runs WHERE id = %s', run)

    def items(self, run, *statuses):
        return [ordinal for ordinal, in self.rows('SELECT ordinal FROM portage.item_rows WHERE run_id = %s AND status = ANY (%s) '
                                                  'ORDER BY 1', run, list(statuses))]

    def key(self, run, ordinal):
        return self.value('SELECT target_key FROM portage.item_rows WHERE run_id = %s AND ordinal = %s', run, ordinal)

    def id(self, run, ordinal):
        return self.value('SELECT legacy_id FROM portage.item_rows WHERE run_id = %s AND ordinal = %s', run, ordinal)

    def batch_of(self, run, ordinal):
        return self.rows('SELECT id, first_ordinal, last_ordinal FROM portage.migration_batches WHERE run_id = %s AND %s '
                         'BETWEEN first_ordinal AND last_ordinal', run, ordinal)[0]


def found(world, damage):
    """Does the damage, verifies, takes it back. '' if it was found as it must be."""
    world.rows('BEGIN')
    try:
        world.rows(damage.sql)
        result = world.verify(damage.run)
        verified = world.verified(damage.run)
    finally:
        world.rows('ROLLBACK')
    severity, passed, details = result[damage.check]
    failed = {name: r[2] for name, r in result.items() if not r[1]}
    if not any(name in details for name in damage.names):
        return f'not named ({damage.names}): {failed or details}'
    if passed != damage.told:
        return f'{damage.check} {"passed" if passed else "failed"}: {failed}'
    if damage.told and (failed or not verified):
        return f'what may be a user\'s is no failure: {failed}'
    if not damage.told and (severity == 'warning') != damage.warning:
        return f'severity {severity}'
    if not damage.told and not damage.warning and verified is not False:
        return 'the run counts as verified'
    return ''


def packs(world):
    """Packs that are gone, of another part, or other bytes than were written."""
    run, first, part = world.rows('SELECT run_id, first_ordinal, part FROM portage.item_packs ORDER BY 1, 2 LIMIT 1')[0]
    where = f'run_id = {run} AND first_ordinal = {first}'
    for name, damage in (('removed', Damage(run, f'DELETE FROM portage.item_packs WHERE {where}', 'item_count', f'"{first}"')),
                         ('of another part', Damage(run, f'UPDATE portage.item_packs SET part = part + 1 WHERE {where}', 'balance',
                                                    f'item {first}: is of another part'))):
        problem = found(world, damage)
        check(f'a pack {name}: found and named', not problem, problem)
    rng = random.Random(SEED)
    length = world.value(f'SELECT length(content) FROM portage.item_packs WHERE {where}')
    read = told = 0
    others = []
    for _ in range(400):
        at = rng.randrange(length)
        change = rng.choice((f'content = set_byte(content, {at}, {rng.randrange(256)})', f'content = substr(content, 1, {at})',
                             f'items = items + {rng.choice((-1, 1, 10, 5000, -5000))}', "content = content || '\\xff'"))
        world.rows('BEGIN')
        try:
            world.rows(f'UPDATE portage.item_packs SET {change} WHERE {where}')
            world.rows('SELECT count(*), max(length(target_key)), max(length(legacy_id)) FROM portage.migration_items')
            read += 1
        except Exception as error:  # noqa: BLE001
            if getattr(error, 'pgcode', '') == 'XX001':
                told += 1
            elif getattr(error, 'pgcode', '') != '22021':  # bytes that are no text
                others.append((change, str(error)))
        finally:
            world.rows('ROLLBACK')
    check('damaged packs are read or refused', not others and read > 0 and told > 100, (read, told, others[:3]))


def every_kind(world):
    saboteur = Saboteur(world, random.Random(SEED))
    for name in saboteur.kinds:
        damage = getattr(saboteur, name)()
        problem = found(world, damage)
        check(name[2:].replace('_', ' ') + ': found and named', not problem, f'{problem}\n  {damage.sql}')


def at_random(world):
    rng = random.Random(SEED + 1)
    saboteur = Saboteur(world, rng)
    problems = []
    for number in range(ROUNDS):
        kind = rng.choice(saboteur.kinds)
        damage = getattr(saboteur, kind)()
        problem = found(world, damage)
        if problem:
            problems.append(f'{number}, {kind}: {problem}\n  {damage.sql}')
    check(f'{ROUNDS} random damages: each found and named', not problems, '\n'.join(problems))


def users(world):
    """What those with rights on the table do to it."""
    world.rows('BEGIN')
    world.rows('SET LOCAL ROLE clerk')
    world.rows("UPDATE app.goods SET v = v + 1 WHERE k IN ('k11', 'k42')")
    world.rows("DELETE FROM app.goods WHERE k = 'k52'")
    world.rows("INSERT INTO app.goods (k, v) VALUES ('of the clerk', 1)")
    world.rows('RESET ROLE')
    result = world.verify(world.first)
    details = world.value("SELECT details FROM portage.data_integrity_checks WHERE run_id = %s AND name = 'row_hash' "
                          'ORDER BY checked_at DESC LIMIT 1', world.first)
    check('what users change is told by item and key', details['changed_since'] == 2 and details['gone'] == 1 and
          [text.split(',')[0] for text in details['changed'] + details['gone_rows']] == ['item 42', 'item 11', 'item 52'], details)
    check('what users change is no failure', all(passed for _, passed, _ in result.values()) and world.verified(world.first),
          {name: r for name, r in result.items() if not r[1]})
    world.rows('ROLLBACK')


def no_alarm(world, run, what, *tolerated):
    result = world.verify(run)
    wrong = {name: r for name, r in result.items() if not r[1] and name not in tolerated}
    check(f'no false alarm: {what}', result and not wrong and world.verified(run), wrong)
    return result


def run_of(world, pipeline, items, options='{}', scope=''):
    run = world.value('SELECT portage.open_run(%s, %s, %s)', pipeline, scope, options)
    world.value('SELECT portage.submit(%s, %s)', run, ndjson(items))
    error = world.session.error('CALL portage.run(%s)', run)
    return run, error


def no_false_alarms(world, server):
    rows, value = world.rows, world.value
    no_alarm(world, world.first, 'a run that inserted, overwrote, adopted and rejected, whose items a later one changed')
    no_alarm(world, world.second, 'an incremental run')
    no_alarm(world, world.loose, 'migrate()')
    check('rows that a later run explains are counted', '"later_run": 10' in world.verify(world.first)['row_hash'][2])

    server.psql(GATES + """CREATE TABLE app.things (id int PRIMARY KEY, v int, note text);
      CREATE FUNCTION app.sometimes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.note = 'cancel' THEN UPDATE portage.migration_runs SET requested = 'cancel' WHERE status = 'running'; END IF;
        NEW.note := NEW.note || ', seen'; RETURN NEW; END $$;
      CREATE TRIGGER sometimes BEFORE INSERT OR UPDATE ON app.things FOR EACH ROW EXECUTE FUNCTION app.sometimes();
      CREATE TRIGGER gate BEFORE INSERT ON app.things FOR EACH ROW EXECUTE FUNCTION gates.keep('id');""")
    for form in ('ndjson', 'csv', 'json', 'rows'):
        value('SELECT portage.create_pipeline(%s, %s, %s)', form, 'app.things', '{"format": "%s", "legacy_id": "id", '
              '"columns": {"id": "id", "v": "v", "note": "note"}, "on_conflict": "overwrite"}' % form)

    def things(low, high, note='n', v=0):
        return [{'id': n, 'v': n + v, 'note': note} for n in range(low, high)]

    run, _ = run_of(world, 'ndjson', things(1, 30) + things(30, 31, 'cancel') + things(31, 80), '{"batch_size": 10}', 's1')
    check('the run was cancelled', value('SELECT status FROM portage.migration_runs WHERE id = %s', run) == 'cancelled')
    no_alarm(world, run, 'a cancelled run, behind a trigger that changes rows')

    run, error = run_of(world, 'ndjson', things(101, 130) + [{'id': 130, 'v': 'many'}] + things(131, 150),
                        '{"batch_size": 10, "max_rejects": 0}', 's2')
    check('the run has failed', error is not None and value('SELECT status FROM portage.migration_runs WHERE id = %s', run) == 'failed')
    no_alarm(world, run, 'a failed run')

    run, = world.rows("SELECT run_id FROM portage.migrate('ndjson', '{\"id\": 1}\n{\"id\": 2, \"v\": \"x\"}', 's2b', "
                      "'{\"max_rejects\": 0}')")[0]
    no_alarm(world, run, 'a migrate() that has failed')
    run, _ = run_of(world, 'ndjson', things(201, 240), '{"sample": "50%"}', 's3')
    no_alarm(world, run, 'a sample')
    run, _ = run_of(world, 'ndjson', things(251, 290), '{"limit": 25, "batch_size": 10}', 's4')
    no_alarm(world, run, 'a limit')
    run, _ = run_of(world, 'ndjson', things(301, 340), '{"keep_payload": false}', 's5')
    result = no_alarm(world, run, 'a run whose payload was dropped at its end', 'source')
    check('a payload that is gone is told', not result['source'][1] and result['source'][0] == 'warning' and
          'part 1' in result['source'][2], result['source'])

    run = value("SELECT portage.open_run('ndjson', 's6', '{\"max_part_bytes\": 500}')")
    for name, low, high in (('a', 401, 405), ('big', 411, 470), ('c', 471, 475)):
        value('SELECT portage.submit(%s, %s, %s)', run, ndjson(things(low, high)), name)
    rows('CALL portage.run(%s)', run)
    check('a part was skipped', value('SELECT count(*) FROM portage.migration_parts WHERE run_id = %s AND skipped IS NOT NULL', run) == 1)
    no_alarm(world, run, 'several parts of which one was skipped')

    # killed, and resumed
    run = value("SELECT portage.open_run('ndjson', 's7', '{\"batch_size\": 5}')")
    value('SELECT portage.submit(%s, %s)', run, ndjson(things(501, 540)))
    with Session(server) as other, Gate(server, 513) as gate:
        pending = other.begin('CALL portage.run(%s)', run)
        gate.wait_for(other)
        server.kill9()
        pending.wait()
    server.restart()
    world.session = Session(server)
    no_alarm(world, run, 'a run that was killed')
    world.rows('CALL portage.run(%s)', run)
    no_alarm(world, run, 'the same, resumed')

    # taken back, but for what had drifted
    for drifted, scope in (('keep', 's8'), ('force', 's9')):
        base = 600 if drifted == 'keep' else 700
        first, _ = run_of(world, 'ndjson', things(base, base + 30), '{"batch_size": 10}', scope)
        second, _ = run_of(world, 'ndjson', things(base, base + 20, v=5), '{"batch_size": 10}', scope)
        world.rows('UPDATE app.things SET v = 0 WHERE id IN (%s, %s, %s)', base + 1, base + 25, base + 15)
        world.rows('CALL portage.rollback(%s, %s)', first, drifted)
        no_alarm(world, first, f'a run that was taken back (drifted => {drifted})')
        no_alarm(world, second, f'the run above it ({drifted})')
        world.rows('CALL portage.rollback(%s, %s)', second, 'keep')
        no_alarm(world, first, f'a run that was taken back, and the one above it, too ({drifted})')
        no_alarm(world, second, f'the run above, taken back ({drifted})')
    third, _ = run_of(world, 'ndjson', things(600, 630), '{}', 's8')
    no_alarm(world, third, 'a redo')

    # other formats and sources
    text = 'id,v,note\n' + ''.join(f'{n},{n},"a\nb"\n' for n in range(801, 820)) + '820,many,x\n'
    run, = world.rows("SELECT run_id FROM portage.migrate('csv', %s)", text)[0]
    no_alarm(world, run, 'CSV')
    run, = world.rows("SELECT run_id FROM portage.migrate('json', '[{\"id\": 831, \"v\": 1, \"note\": \"x\"}, {\"id\": 832}, 7, {]')")[0]
    no_alarm(world, run, 'a JSON document with faults')
    server.psql("CREATE TABLE app.old AS SELECT n AS id, n AS v, 'old' AS note FROM generate_series(901, 960) n; "
                'ALTER TABLE app.old ADD PRIMARY KEY (id)')
    run = world.value("SELECT portage.open_run('rows')")
    world.value("SELECT portage.attach_table(%s, 'app.old')", run)
    world.rows('CALL portage.run(%s)', run)
    no_alarm(world, run, 'the rows of a table')
    world.rows('UPDATE app.old SET v = 1 WHERE id = 950')
    result = no_alarm(world, run, 'a table that has changed since')
    check('what has changed in a table since is told', 'item 50: ' in result['source'][2], result['source'])

    path = os.path.join(server.directory, 'things.ndjson')
    with open(path, 'w', encoding='utf-8') as out:
        out.write(ndjson(things(1001, 1020)))
    os.chmod(path, 0o644)
    run = world.value("SELECT portage.open_run('ndjson', 's10')")
    world.value('SELECT portage.attach_file(%s, %s)', run, path)
    world.rows('CALL portage.run(%s)', run)
    no_alarm(world, run, 'a file')
    os.unlink(path)
    result = no_alarm(world, run, 'a file that is gone', 'source')
    check('a file that is gone is told', result['source'][0] == 'warning' and 'changed since it was attached' in result['source'][2],
          result['source'])


def main():
    print(f'seed {SEED} (PORTAGE_SEED={SEED} repeats it)', flush=True)
    with Server(**PATIENT) as server:
        world = World(server)
        for run in (world.first, world.second):
            no_alarm(world, run, 'before any sabotage')
        packs(world)
        world.unpack()
        for run in (world.first, world.second):
            no_alarm(world, run, 'item by item')
        every_kind(world)
        at_random(world)
        users(world)
        no_false_alarms(world, server)
    finish()


if __name__ == '__main__':
    main()
