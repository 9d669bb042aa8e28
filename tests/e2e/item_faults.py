#!/usr/bin/python3
"""What one item raises is that item's reject, whatever the SQLSTATE: hstore's plain elog, dynamic SQL over what is not there, a
connection that an item names, memory, a write in a transaction that may not write. All others land, in every kind of run, and the
batches may be of any size. What fails for all fails the run, and names the item; cancels and serialization failures are nobody's."""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import Server, check, finish  # noqa: E402
from sessions import Session, ndjson  # noqa: E402

SCHEMA = """
CREATE EXTENSION hstore;
CREATE TABLE log (n int);
CREATE FUNCTION odd(code text, n int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE found int;
BEGIN
  IF code = 'function' THEN EXECUTE format('SELECT no_such_%s()', n);
  ELSIF code = 'table' THEN EXECUTE format('SELECT 1 FROM no_such_%s', n);
  ELSIF code = 'column' THEN EXECUTE format('SELECT no_such_%s FROM log', n);
  ELSIF code = 'huge' THEN PERFORM repeat('x', 1100000000);
  ELSIF code = 'right' THEN SET LOCAL ROLE nobody_at_all; EXECUTE 'TABLE log';
  ELSIF code = 'read only' THEN EXECUTE 'SET TRANSACTION READ ONLY'; INSERT INTO log VALUES (n);
  ELSIF code IS NOT NULL THEN RAISE EXCEPTION 'raised for %', n USING ERRCODE = code;
  END IF;
  RETURN n;
END $$;
"""
CODES = ['function', 'table', 'column', 'huge', '08006', '08001', '25006', '42501', '42P01', '42883', '42703', '53000', '53200', '53300', '54001', '55P03',
         '58P01', 'XX000', 'P0001', '22012', 'PZ001', '0A000', '2F003']
STATES = {'function': '42883', 'table': '42P01', 'column': '42703', 'huge': '54000'}


def landed(session, run):
    counts = session.rows('SELECT status, inserted, invalid + failed FROM portage.status(%s)', run)[0]
    rejects = {int(i): (rule, code, column) for i, rule, code, column in session.rows(
        'SELECT legacy_id, rule, sqlstate, column_name FROM portage.rejects WHERE run_id = %s', run)}
    return counts, rejects


def hstore(server):
    """The reported one: row 5,001 of 10,000."""
    with Session(server) as session:
        session.rows('CREATE TABLE tags (id int PRIMARY KEY, tags hstore)')
        session.rows('SELECT portage.create_pipeline(%s, %s, %s)', 'tags', 'tags', json.dumps(
            {'format': 'csv', 'legacy_id': 'id', 'columns': {'id': 'id', 'tags': 'tags'}}))
        lines = ['id,tags', *('5001,baddata' if n == 5001 else f'{n},"a=>{n}"' for n in range(1, 10001))]
        validated = session.rows("SELECT portage.open_run('tags') AS run")
        session.rows('SELECT portage.submit(%s, %s)', validated[0][0], '\n'.join(lines) + '\n')
        found = session.rows('SELECT * FROM portage.validate(%s)', validated[0][0])
        check('validate finds it', '5001' in str(found), str(found)[:300])
        for dry in (True, False):
            session.rows('CALL portage.import(%s, payload => %s, scope => %s, options => %s)', 'tags', '\n'.join(lines) + '\n', f'{dry}',
                         json.dumps({'dry_run': dry}))
            run = session.value('SELECT max(id) FROM portage.migration_runs')
            counts, rejects = landed(session, run)
            check(f'one bad value of 10,000 is one reject, dry_run {dry}', counts == ('completed', 9999, 1)
                  and rejects == {5001: ('conversion', 'XX000', 'tags')}, f'{counts} {rejects}')
            place = session.rows('SELECT line, raw::text FROM portage.rejects WHERE run_id = %s', run)
            check('with its line and what it was', place[0][0] == 5002 and 'baddata' in place[0][1], str(place))
        run = session.value("SELECT run_id FROM portage.migrate('tags', %s, 'single')", 'id,tags\n1,baddata\n')
        check('also where there is no other item', landed(session, run)[1] == {1: ('conversion', 'XX000', 'tags')}, str(landed(session, run)))


def of_items(server):
    """Every code at every place of a definition, in batches of some sizes; the odd items stand first, in between and last."""
    with Session(server) as session:
        session.rows('CREATE TABLE t (id int PRIMARY KEY, v int, w int)')
        places = {
            'expression': {'columns': {'id': 'id', 'v': {'sql': "odd(item->>'odd', (item->>'id')::int)"}}},
            'where': {'columns': {'id': 'id', 'v': 'id'}, 'where': "odd(item->>'odd', (item->>'id')::int) > 0"},
        }
        for place, definition in places.items():
            session.rows('SELECT portage.create_pipeline(%s, %s, %s)', place, 't', json.dumps({'format': 'ndjson', 'legacy_id': 'id', **definition}))
            items = [{'id': n, 'odd': None} for n in range(1, 3 * len(CODES) + 20)]
            wanted = {}
            for n, code in enumerate(CODES):
                items[3 * n + 1]['odd'] = code
                wanted[3 * n + 2] = STATES.get(code, code)
            for size in (7, 1000):
                session.rows('TRUNCATE t')
                error = session.error('SELECT portage.migrate(%s, %s, %s, %s)', place, ndjson(items), f'{size}', json.dumps({'batch_size': size}))
                run = session.value('SELECT max(id) FROM portage.migration_runs')
                counts, rejects = landed(session, run)
                codes = {i: code for i, (_, code, _) in rejects.items()}
                check(f'{place}, batches of {size}: what an item raises is its own', error is None and counts[0] == 'completed' and codes == wanted,
                      f'{error} {counts} {codes} instead of {wanted}')
                check(f'{place}, batches of {size}: the others land', session.value('SELECT count(*) FROM t') == len(items) - len(wanted))
        # The first of all are bad, more than are looked at one by one.
        items = [{'id': n, 'odd': '42883' if n <= 100 else None} for n in range(1, 201)]
        session.rows('TRUNCATE t')
        run = session.value("SELECT run_id FROM portage.migrate('expression', %s, 'first', '{\"batch_size\": 1000}')", ndjson(items))
        check('a hundred bad items come first', landed(session, run)[0] == ('completed', 100, 100), str(landed(session, run)[0]))


def of_all(server):
    """A function that is gone, or not allowed, fails for every item: the run fails, and says for which first."""
    with Session(server) as session:
        session.rows("""CREATE FUNCTION helps(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN gone(n); END $$;
                        CREATE FUNCTION gone(n int) RETURNS int LANGUAGE sql AS 'SELECT n'""")
        session.rows("""SELECT portage.create_pipeline('all', 't', '{"format": "ndjson", "legacy_id": "id",
                          "columns": {"id": "id", "v": {"sql": "helps((item->>''id'')::int)"}}}')""")
        session.rows('TRUNCATE t; DROP FUNCTION gone')
        error = session.error("CALL portage.import('all', payload => %s)", ndjson([{'id': n} for n in range(1, 301)]))
        check('what fails for all items fails the run, and names one', error is not None and error.pgcode == '42883'
              and 'item 1 (line 1)' in (error.diag.message_detail or ''), f'{error} {error and error.diag.message_detail}')
        run = session.value('SELECT max(id) FROM portage.migration_runs')
        check('nothing is a reject then', landed(session, run) == (('failed', 0, 0), {}), str(landed(session, run)))
        session.rows("CREATE FUNCTION gone(n int) RETURNS int LANGUAGE sql AS 'SELECT n'")
        session.rows('SELECT portage.retry(%s)', run)
        session.rows('CALL portage.run(%s)', run)
        check('and when it is mended, all land', landed(session, run)[0] == ('completed', 300, 0), str(landed(session, run)))
        # It breaks in the middle: an item that has passed does not pass any more.
        session.rows("""CREATE SEQUENCE calls;
                        CREATE OR REPLACE FUNCTION gone(n int) RETURNS int LANGUAGE plpgsql AS $$
                        BEGIN IF nextval('calls') > 150 THEN RAISE 'gone' USING ERRCODE = '25006'; END IF; RETURN n; END $$""")
        session.rows('TRUNCATE t')
        error = session.error("CALL portage.import('all', payload => %s, scope => 'middle', options => '{\"batch_size\": 1000}')",
                              ndjson([{'id': n} for n in range(1, 301)]))
        check('what breaks in the middle is no item\'s fault', error is not None and error.pgcode == '25006'
              and 'item 151 (line 151), and for one that had passed' in (error.diag.message_detail or ''), f'{error and error.diag.message_detail}')
        # Never taken for an item's fault.
        for code in ('40001', '40P01', '57014', '53100', '58030'):
            session.rows("CREATE OR REPLACE FUNCTION gone(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN IF n = 7 THEN "
                         f"RAISE 'x' USING ERRCODE = '{code}'; END IF; RETURN n; END $$")
            error = session.error("SELECT portage.migrate('all', %s, %s)", ndjson([{'id': n} for n in range(1, 21)]), code)
            check(f'{code} ends the run', error is not None and error.pgcode == code, str(error))


def of_writing(server):
    """A trigger raises what looks like anybody's fault: for one row it is that row's, for all it is not."""
    with Session(server) as session:
        session.rows("""CREATE TABLE w (id int PRIMARY KEY, v text);
            CREATE FUNCTION picky() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN IF NEW.v IS NOT NULL THEN RAISE 'picky' USING ERRCODE = NEW.v; END IF; RETURN NEW; END $$;
            CREATE TRIGGER picky BEFORE INSERT ON w FOR EACH ROW EXECUTE FUNCTION picky();
            SELECT portage.create_pipeline('w', 'w', '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id", "v": "v"}}')""")
        for code in ('XX000', '42501', '42P01', '25006', '42883'):
            run = session.value("SELECT run_id FROM portage.migrate('w', %s, %s)", ndjson(
                [{'id': n, 'v': code if n in (1, 40, 80) else None} for n in range(1, 81)]), code)
            check(f'{code} of a trigger is the row\'s', landed(session, run)[0] == ('completed', 77, 3), str(landed(session, run)))
            session.rows('TRUNCATE w')
            error = session.error("SELECT portage.migrate('w', %s, %s)", ndjson([{'id': n, 'v': code} for n in range(1, 81)]), f'all {code}')
            if code != '42883':
                check(f'{code} for all rows is not', error is not None and error.pgcode == code and 'item 1 (line 1)' in error.diag.message_detail, str(error))
            session.rows('TRUNCATE w')


def put_off(server):
    """A constraint of another table, which the target's trigger fills, is judged with the rows that it is about."""
    with Session(server) as session:
        session.rows("""CREATE TABLE goods (id int PRIMARY KEY);
            INSERT INTO goods SELECT n FROM generate_series(1, 20) AS n WHERE n <> 7;
            CREATE TABLE orders (id int PRIMARY KEY, next int REFERENCES orders DEFERRABLE INITIALLY DEFERRED);
            CREATE TABLE bookings (item int REFERENCES goods DEFERRABLE INITIALLY DEFERRED);
            CREATE FUNCTION book() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO bookings VALUES (NEW.id); RETURN NULL; END$$;
            CREATE TRIGGER book AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION book();
            CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN IF NEW.item = 5 THEN RAISE EXCEPTION 'not %', NEW.item; END IF; RETURN NULL; END$$;
            CREATE CONSTRAINT TRIGGER look AFTER INSERT ON bookings DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION look();
            SELECT portage.create_pipeline('orders', 'orders',
              '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id", "next": "next"}}')""")
        # each refers to the one after it, which comes later: the table's own constraint has to wait until all are there
        data = [{'id': n, 'next': n + 1 if n in (11, 12) else None} for n in range(1, 21)]
        for size in (1, 4, 1000):
            run = session.value("SELECT portage.open_run('orders', %s, options => %s)", f'by {size}', json.dumps({'batch_size': size}))
            session.rows('SELECT portage.submit(%s, %s)', run, ndjson(data if size == 1000 else [{**item, 'next': None} for item in data]))
            error = session.error('CALL portage.run(%s)', run)
            counts, rejects = landed(session, run)
            check(f'deferred constraints of another table, batches of {size}: the rest lands', error is None and counts == ('completed', 18, 2), (str(error), counts))
            check(f'... and the items are rejects', rejects.get(7, ())[:2] == ('foreign_key', '23503') and rejects.get(5, ())[:2] == ('trigger', 'P0001'), rejects)
            check('... nothing is left of them', session.value('SELECT count(*) FROM bookings WHERE item IN (5, 7)') == 0)
            session.rows('TRUNCATE orders, bookings')
        # what a caller has put off in its own transaction is the caller's to be judged at its end
        session.rows('BEGIN')
        session.rows('INSERT INTO bookings VALUES (99)')
        error = session.error("SELECT portage.migrate('orders', %s, 'atomic')", ndjson([{'id': 1}]))
        check("a caller's own pending constraint is not judged early", error is None, str(error))
        session.rows('INSERT INTO goods VALUES (99)')
        check('... and holds at its end', session.error('COMMIT') is None)


with Server() as server:
    server.psql('CREATE EXTENSION pg_portage;' + SCHEMA)
    hstore(server)
    of_items(server)
    of_all(server)
    of_writing(server)
    put_off(server)
finish()
