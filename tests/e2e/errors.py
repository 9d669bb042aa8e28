#!/usr/bin/python3
"""What an error carries out of the extension, and what it leaves behind. Its fields are copies, the place in the source
included: no server is lost where the memory in which it was raised is gone by the time it is reported, and no client is
shown what has come to lie there. Ten thousand failing calls and a hundred thousand failing items leave no memory behind."""

import json
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import Server, check, finish  # noqa: E402
from sessions import Session, told, until  # noqa: E402

FAILING_CALLS = 10000
FAILING_ITEMS = 100000
GROWTH = 4 << 20

TABLES = """
CREATE EXTENSION pg_portage;
CREATE ROLE clerk LOGIN;
CREATE SCHEMA app AUTHORIZATION clerk;
SET ROLE clerk;
CREATE TABLE app.words (id int PRIMARY KEY, n int);
CREATE FUNCTION app.refuse(n int, fatal int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
  IF n = fatal THEN RAISE EXCEPTION 'you may not' USING ERRCODE = '42501'; END IF;
  RAISE EXCEPTION 'item % is refused', n;
END $$;
CREATE TABLE app.guarded (id int PRIMARY KEY, owner text);
ALTER TABLE app.guarded ENABLE ROW LEVEL SECURITY;
ALTER TABLE app.guarded FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON app.guarded USING (true) WITH CHECK (owner = 'clerk');
SELECT portage.create_pipeline('guarded', 'app.guarded',
  '{"format": "json", "legacy_id": "id", "columns": {"id": "id", "owner": "owner"}}');
"""


def pipeline(session, name, expression):
    session.rows("SELECT portage.create_pipeline(%s, 'app.words', %s)", name, json.dumps(
        {'format': 'json', 'legacy_id': 'id', 'columns': {'id': 'id', 'n': {'sql': expression}}}))


def items(count):
    return json.dumps([{'id': i} for i in range(1, count + 1)])


def place(error):
    """Where it says that it was raised; any byte of freed memory would show."""
    return error and (error.diag.source_file, error.diag.source_function)


def plausible(error):
    return bool(error) and bool(re.fullmatch(r'\w+\.(c|cpp|y|l)', error.diag.source_file or '')) \
        and bool(re.fullmatch(r'\w+', error.diag.source_function or ''))


def survived(server, name, work):
    """What work(session) gives, in a fresh session, whose memory is in the order in which the fault showed."""
    with Session(server, 'clerk') as clerk:
        found = work(clerk)
        if not check(f'{name}: the session lives', not clerk.connection.closed):
            until(lambda: 'recovery' not in server.psql('SELECT 1', check=False))
        return found


def thousands_and_one(server):
    """The reports of 1,999 items have come and gone where the last one raises an error that may end the batch."""
    name = 'an error behind 1,999 others'
    survived(server, name, lambda clerk: pipeline(clerk, 'refused', "app.refuse((item->>'id')::int, 2000)"))
    for _ in range(6):
        error = survived(server, name, lambda clerk: clerk.error(
            "SELECT portage.migrate('refused', %s, '', '{\"batch_size\": 5000}')", items(2000)))
        # Whether it ends the batch or is its item's: it is told as PL/pgSQL raised it.
        check(f'{name} says where it was raised', error is None or place(error) == ('pl_exec.c', 'exec_stmt_raise'), told(error))


def wide(server):
    """The pipeline's memory is large enough to have gone back to the system when the error is reported."""
    with Session(server, 'clerk') as clerk:
        definition = wide_pipeline(clerk)
    for _ in range(3):
        error = survived(server, 'a definition of 500 columns', lambda clerk: clerk.error(
            "SELECT portage.create_pipeline('wide', 'app.wide', %s)", definition))
        check('the fault of the last of 500 columns is told',
              error is not None and error.pgcode == '42702' and plausible(error), (told(error), place(error)))


def wide_pipeline(clerk):
    columns = [f'c{i}' for i in range(500)]
    clerk.rows(f"CREATE TABLE app.wide (id int PRIMARY KEY, {', '.join(c + ' int' for c in columns)})")
    definition = {'format': 'json', 'legacy_id': 'id', 'on_conflict': 'merge', 'columns': {'id': 'id', **{c: c for c in columns}},
                  'merge': {c: {'sql': f'coalesce(existing.{c}, incoming.{c}) + 0'} for c in columns}}
    definition['merge'][columns[-1]] = {'sql': columns[-1] + ' + 0'}
    return json.dumps(definition)


def places(server, clerk):
    """Through expressions, the writer, triggers, PL/pgSQL that catches and raises again, statements that are cancelled."""
    clerk.rows("""CREATE FUNCTION app.again(sql text) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN EXECUTE sql; EXCEPTION WHEN OTHERS OR query_canceled THEN PERFORM repeat('x', 100000); RAISE; END $$""")
    pipeline(clerk, 'slow', "(item->>'id')::int + pg_sleep(0.001)::text::int")
    refusals = ["SELECT portage.migrate('nowhere', '[]')", "SELECT portage.create_pipeline('x', 'app.words', '{}')",
                "SELECT portage.cancel(4711)", "SELECT portage.migrate('refused', '[{\"id\": 2000}]', '', '{\"raise\": 1}')",
                "SELECT portage.create_pipeline('x', 'app.words', '{\"format\": \"json\", \"legacy_id\": \"id\", "
                "\"columns\": {\"id\": {\"sql\": \"no_such_function(1)\"}}}')"]
    for sql in refusals:
        direct = clerk.error(sql)
        through = clerk.error('SELECT app.again(%s)', sql)
        check(f'the place is that of the source, and survives being caught: {sql[:60]}',
              plausible(direct) and place(through) == place(direct), (place(direct), place(through)))
    clerk.rows("SET statement_timeout = '50ms'")
    for _ in range(10):
        error = clerk.error("SELECT portage.migrate('slow', %s)", items(2000))
        check('a statement_timeout says where it was noticed',
              error is not None and error.pgcode == '57014' and place(error) == ('postgres.c', 'ProcessInterrupts'),
              (told(error), place(error)))
    clerk.rows('RESET statement_timeout')
    with open(server.log, encoding='utf-8', errors='replace') as log:
        text = log.read()
    check('no server process was lost', 'was terminated by signal' not in text and 'PANIC' not in text)


def policies(clerk):
    """Of what raises 42501, a policy that is broken is the row's fault, whatever errors came before it."""
    mixed = json.dumps([{'id': i, 'owner': 'clerk' if i % 3 else 'thief'} for i in range(1, 301)])
    run = clerk.value("SELECT run_id FROM portage.migrate('guarded', %s)", mixed)
    found = clerk.rows("SELECT status, inserted, failed FROM portage.progress WHERE run_id = %s", run)
    check('a row that a policy forbids is rejected by itself', found == [('completed', 200, 100)], found)


def anonymous(session):
    with open(f'/proc/{session.pid}/status', encoding='utf-8') as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith('RssAnon'))


def leaks(server):
    with Session(server, 'clerk') as clerk:
        pipeline(clerk, 'refused_all', "app.refuse((item->>'id')::int, -1)")
        calls = ["SELECT portage.migrate('nowhere', '[]')", 'SELECT portage.cancel(4711)',
                 "SELECT portage.create_pipeline('x', 'app.words', '{\"format\": \"json\", \"columns\": {\"id\": 1}}')",
                 "SELECT portage.migrate('refused_all', '[{\"id\": 1}]', '', '{\"raise\": true, \"nonsense\": 1}')"]
        clerk.rows("CREATE FUNCTION app.fail(sql text[], times int) RETURNS int LANGUAGE plpgsql AS $$ DECLARE failed int := 0; "
                   "BEGIN FOR i IN 1 .. times LOOP BEGIN EXECUTE sql[1 + i % cardinality(sql)]; EXCEPTION WHEN OTHERS THEN "
                   "failed := failed + 1; END; END LOOP; RETURN failed; END $$")
        for _ in range(400):
            clerk.error(calls[_ % 4])
        before = anonymous(clerk)
        failed = sum(clerk.error(calls[i % 4]) is not None for i in range(FAILING_CALLS))
        growth = anonymous(clerk) - before
        check(f'{FAILING_CALLS} failing calls leave nothing behind', failed == FAILING_CALLS and growth < GROWTH,
              (failed, f'{growth >> 10} kB'))
        clerk.value('SELECT app.fail(%s, 400)', calls)
        before = anonymous(clerk)
        failed = clerk.value('SELECT app.fail(%s, %s)', calls, FAILING_CALLS)
        growth = anonymous(clerk) - before
        check('and as many in one statement', failed == FAILING_CALLS and growth < GROWTH, (failed, f'{growth >> 10} kB'))
    with Session(server, 'clerk') as clerk:
        def refuse(count, scope):
            run = clerk.value("SELECT portage.open_run('refused_all', %s, '{\"batch_size\": 1000}')", scope)
            clerk.rows('SELECT portage.submit(%s, %s)', run, items(count))
            clerk.rows('CALL portage.run(%s)', run)
            return clerk.value('SELECT failed + invalid FROM portage.progress WHERE run_id = %s', run)
        refuse(FAILING_ITEMS // 10, '')
        before = anonymous(clerk)
        failed = refuse(FAILING_ITEMS, '')
        growth = anonymous(clerk) - before
        check(f'{FAILING_ITEMS} failing items leave nothing behind', failed == FAILING_ITEMS and growth < GROWTH,
              (failed, f'{growth >> 10} kB'))


def main():
    with Server(log_min_messages='fatal') as server:
        server.psql(TABLES)
        thousands_and_one(server)
        wide(server)
        with Session(server, 'clerk') as clerk:
            policies(clerk)
            places(server, clerk)
        leaks(server)
    finish()


if __name__ == '__main__':
    main()
