#!/usr/bin/python3
"""A million items over a table with rows of its own, a third of them overwritten: verify raises no false alarm and
names what drifted, rollback brings the table back to its checksum, and does so too when the backend, and then the
whole server, is killed in the middle of it. Speed and memory are printed; memory is asserted.

PORTAGE_ITEMS sets another number of items."""

import json
import os
import statistics
import subprocess
import sys
import threading
import time

import psycopg2

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import Server, check, finish  # noqa: E402

ITEMS = int(os.environ.get('PORTAGE_ITEMS', '1000000'))
EXISTING = ITEMS // 10
OVERWRITTEN = EXISTING // 3
LIMIT = 300 << 20

TABLE = """
CREATE EXTENSION pg_portage;
CREATE SCHEMA app;
CREATE TABLE app.orders (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  code text NOT NULL UNIQUE,
  amount numeric,
  placed timestamptz,
  note text,
  clerk text DEFAULT 'nobody',
  double_amount numeric GENERATED ALWAYS AS (amount * 2) STORED
);
"""
DEFINITION = {'format': 'ndjson', 'legacy_id': 'n', 'match': ['code'], 'on_conflict': 'overwrite',
              'columns': {name: name for name in ('code', 'amount', 'placed', 'note')}}
# Every value as it is spelled, independent of the order of the rows.
CHECKSUM = "SELECT count(*), sum(hashtextextended(t::text, 0)) FROM app.orders t"


class Memory(threading.Thread):
    """Samples a backend's private memory: RssAnon, which leaves shared buffers out."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.status, self.peak, self.running = f'/proc/{pid}/status', 0, True
        self.start()

    def run(self):
        while self.running:
            try:
                with open(self.status, encoding='utf-8') as file:
                    now = next(int(line.split()[1]) << 10 for line in file if line.startswith('RssAnon'))
            except (OSError, StopIteration):
                return
            self.peak = max(self.peak, now)
            time.sleep(0.01)

    def stop(self):
        self.running = False
        self.join()
        return self.peak


def rows(server, sql, *arguments):
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(sql, arguments or None)
        return cursor.fetchall()


def measured(server, name, sql, *arguments):
    """In a backend of its own; prints items per second and the memory, and checks the latter."""
    with server.connect() as connection, connection.cursor() as cursor:
        memory, start = Memory(connection.get_backend_pid()), time.monotonic()
        cursor.execute(sql, arguments)
        answer = cursor.fetchall() if cursor.description else []
        seconds, peak = time.monotonic() - start, memory.stop()
    print(f'figures {name}: {ITEMS} items in {seconds:.1f} s = {ITEMS / seconds:.0f} items/s; '
          f'peak RssAnon {peak / (1 << 20):.1f} MB', flush=True)
    check(f'{name}: the backend stays under 300 MB', peak < LIMIT, f'{peak / (1 << 20):.1f} MB')
    return answer


def write_items(path):
    """Item n concerns row c<n>; the first EXISTING of these are there before, of which a third gets other content."""
    with open(path, 'w', encoding='utf-8') as out:
        for n in range(1, ITEMS + 1):
            code = n * 3 if n <= OVERWRITTEN else EXISTING + n
            out.write(f'{{"n": {n}, "code": "c{code}", "amount": {n % 1000}.{n % 10}0, '
                      f'"placed": "2024-02-{n % 28 + 1:02}T10:00:00Z", "note": "note {n % 5000}"}}\n')
    os.chmod(path, 0o644)


def imported(server, path, name):
    (run,), = measured(server, name, "CALL portage.import('orders', file => %s)", path)
    counts = rows(server, 'SELECT status, read, inserted, updated, invalid + failed + skipped + unchanged '
                  'FROM portage.migration_runs WHERE id = %s', run)[0]
    check(f'{name}: a third of what was there is overwritten, the rest inserted',
          counts == ('completed', ITEMS, ITEMS - OVERWRITTEN, OVERWRITTEN, 0), counts)
    return run


def verified(server, run, name):
    answer = measured(server, name, 'SELECT name, severity, passed, actual, details FROM portage.verify(%s)', run)
    return {check_name: (severity, passed, actual, details) for check_name, severity, passed, actual, details in answer}


def no_false_alarm(server, run):
    found = verified(server, run, 'verify')
    wrong = {name: f for name, f in found.items() if not f[1]}
    check('verify: every check passes', found and not wrong, wrong)
    told = found['row_hash'][3]
    check('verify: every row is as the run left it', found['row_hash'][2] == str(ITEMS) and told['changed_since'] == 0
          and told['gone'] == 0 and told['later_run'] == 0, found['row_hash'])


def drift_is_named(server, run):
    """A value, a spelling, an unmapped column and a row: told by key. What is put back is no drift any more."""
    keys = [str(key) for key, in rows(server, 'SELECT id FROM app.orders WHERE code = ANY (%s) ORDER BY id', [
        f'c{EXISTING + ITEMS - n}' for n in range(4)])]
    server.psql('CREATE TABLE app.kept AS SELECT id, amount, note, clerk FROM app.orders WHERE id IN (%s)' % ', '.join(keys))
    server.psql(f"UPDATE app.orders SET note = 'other' WHERE id = {keys[0]};"
                f"UPDATE app.orders SET amount = amount * 1.00 WHERE id = {keys[1]};"
                f"UPDATE app.orders SET clerk = 'somebody' WHERE id = {keys[2]};"
                f"DELETE FROM app.orders WHERE id = {keys[3]}")
    found = verified(server, run, 'verify after drift')
    told = found['row_hash'][3]
    key_of = lambda texts: sorted(text.rpartition(' ')[2] for text in texts)  # noqa: E731
    check('verify after drift: changed rows are counted and named, and are no failure', found['row_hash'][1]
          and told['changed_since'] == 3 and key_of(told['changed']) == sorted(keys[:3]), told)
    check('verify after drift: so is the one that is gone', told['gone'] == 1 and key_of(told['gone_rows']) == keys[3:], told)
    try:
        rows(server, 'CALL portage.rollback(%s)', run)
        refused = 'not at all'
    except psycopg2.Error as error:
        refused = str(error)
    check('rollback is refused while rows have drifted, and nothing changes', 'rows have changed since' in refused and
          'changed: 3,' in refused and rows(server, 'SELECT count(*) FROM app.orders')[0][0] == EXISTING + ITEMS - OVERWRITTEN - 1,
          refused)
    server.psql('UPDATE app.orders o SET amount = k.amount, note = k.note, clerk = k.clerk FROM app.kept k WHERE k.id = o.id')


def no_quadratic_behaviour(server, run, name):
    """A page of the ledger is found by an index, so that the last batch costs what the first one did."""
    took = [ms for ms, in rows(server, "SELECT 1000 * extract(epoch FROM finished_at - lag(finished_at) OVER (ORDER BY id))"
                               "::float8 FROM portage.migration_batches WHERE run_id = %s AND kind = 'rollback'", run) if ms]
    if len(took) >= 40:
        first, last = statistics.median(took[:20]), statistics.median(took[-20:])
        print(f'figures {name}: {len(took)} batches; ms per batch in the first twenty {first:.0f}, in the last twenty {last:.0f}')
        check(f'{name}: the batches at the end cost what those at the begin did, roughly', last < 5 * first + 50, (first, last))


def taken_back(server, run, before, name):
    now = rows(server, CHECKSUM)[0]
    check(f'{name}: the table has its checksum again', now == before, f'{before} was, {now} is')
    status = rows(server, "SELECT r.status, (SELECT sum(rolled_back)::bigint FROM portage.migration_batches b WHERE b.run_id = r.id"
                  " AND kind = 'rollback'), (SELECT count(*) FROM portage.legacy_mappings), (SELECT count(*) FROM "
                  "portage.migration_items i WHERE i.run_id = r.id AND i.status = 'rolled_back') "
                  'FROM portage.migration_runs r WHERE id = %s', run)[0]
    check(f'{name}: every item is taken back once, no mapping is left', status == ('rolled_back', ITEMS, 0, ITEMS), status)
    no_quadratic_behaviour(server, run, name)


def rolled_back_items(server, run):
    return rows(server, "SELECT coalesce(sum(rolled_back), 0)::bigint FROM portage.migration_batches "
                "WHERE run_id = %s AND kind = 'rollback'", run)[0][0]


def interrupted(server, run, share, disturb, name):
    """CALL rollback() in another process; `disturb(pid)` once a share of the items is committed."""
    connection = server.connect()
    pid = connection.get_backend_pid()
    ended = []

    def call():
        try:
            with connection.cursor() as cursor:
                cursor.execute('CALL portage.rollback(%s)', (run,))
            ended.append('done')
        except psycopg2.Error as error:
            ended.append(str(error))

    thread = threading.Thread(target=call)
    thread.start()
    while thread.is_alive() and rolled_back_items(server, run) < share * ITEMS:
        time.sleep(0.05)
    alive = thread.is_alive()
    disturb(pid)
    thread.join()
    connection.close()
    for _ in range(600):
        try:
            done = rolled_back_items(server, run)
            break
        except psycopg2.DatabaseError:  # it recovers
            time.sleep(0.1)
    check(f'{name}: it came in the middle of the rollback', alive and ended != ['done'] and share * ITEMS <= done < ITEMS,
          (ended, done))
    check(f'{name}: the run is still being rolled back', rows(
        server, 'SELECT status FROM portage.migration_runs WHERE id = %s', run)[0][0] == 'rolling_back')


def main():
    with Server(shared_buffers='512MB', max_wal_size='4GB') as server:
        server.psql(TABLE)
        rows(server, 'SELECT portage.create_pipeline(%s, %s, %s)', 'orders', 'app.orders', json.dumps(DEFINITION))
        server.psql("INSERT INTO app.orders (code, amount, placed, note, clerk) SELECT 'c' || n, n * 1.0, "
                    "'2020-01-01 00:00Z'::timestamptz + n * interval '1 s', CASE WHEN n % 7 > 0 THEN 'old ' || n END, "
                    f"'clerk ' || n % 9 FROM generate_series(1, {EXISTING}) AS n")
        before = rows(server, CHECKSUM)[0]
        path = os.path.join(server.directory, 'orders.ndjson')
        write_items(path)

        run = imported(server, path, 'import')
        no_false_alarm(server, run)
        drift_is_named(server, run)
        measured(server, 'rollback', 'CALL portage.rollback(%s)', run)
        taken_back(server, run, before, 'rollback')

        run = imported(server, path, 'import again')

        def kill_backend(pid):
            subprocess.run(['kill', '-9', str(pid)], check=True)

        interrupted(server, run, 0.2, kill_backend, 'kill -9 of the backend')

        def kill_server(_):
            server.kill9()
            server.restart()

        interrupted(server, run, 0.6, kill_server, 'kill -9 of the server')
        measured(server, 'the rest of the rollback', 'CALL portage.rollback(%s)', run)
        taken_back(server, run, before, 'rollback with two kills')
    finish()


if __name__ == '__main__':
    main()
