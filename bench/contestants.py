"""Who takes part: pg_portage in its several ways, and its peers, from COPY to pgloader. Each is a function that gives a
Contestant for a dataset; what its result is compared with is the caller's (`check`)."""

import json
import os
import re
import shutil
import subprocess

import psycopg2

from contest import Contestant, NotThere, Wrong, sql_file
from data import Progress, snapshots

SCOPE = 'bench'
LEDGER_BYTES = ("SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c WHERE relnamespace = 'portage'::regnamespace "
                "AND relkind = 'r'")


# Peers

def copy(data, name='COPY', **more):
    """Server-side COPY of the good rows into the same table: what is physically possible."""
    statement = f"COPY {data.shape.table} ({', '.join(data.shape.columns)}) FROM '{data.valid}' WITH (FORMAT csv, HEADER)"
    return Contestant(name, lambda bench: bench.run(statement) and None, lambda bench: bench.same_as_expected(data), **more)


def hand_written(data, name, file, edit=lambda sql: sql, **more):
    """A script of sql/ with its own tracking."""
    def check(bench):
        bench.same_as_expected(data)
        bench.expect("SELECT (SELECT count(*) FROM hand.items WHERE status = 'landed'), (SELECT count(*) FROM hand.items), "
                     '(SELECT count(*) FROM hand.mappings JOIN app.progress ON id = target_id)', data.rows, data.items, data.rows)

    return Contestant(name, lambda bench: bench.run(edit(sql_file(file)).replace(":'file'", f"'{data.path}'")) and None,
                      check, **more)


def by_sets(data, **more):
    return hand_written(data, 'hand-written SQL', 'by_sets.sql', **more)


def by_rows(data, **more):
    return hand_written(data, 'PL/pgSQL row loop', 'by_rows.sql', **more)


def pgloader(data, name, file, **more):
    def act(bench):
        if not shutil.which('pgloader'):
            raise NotThere('not installed (make deps)')
        command = os.path.join(bench.server.directory, 'files', 'pgloader.load')
        with open(command, 'w', encoding='utf-8') as out:
            out.write(f'LOAD CSV FROM \'{file}\' ({", ".join(c + " [null if blanks]" for c in data.shape.columns)})\n'
                      f'INTO postgresql://postgres@unix:{bench.server.directory}:5432/postgres TARGET TABLE {data.shape.table}\n'
                      f'TARGET COLUMNS ({", ".join(data.shape.columns)})\n'
                      "WITH skip header = 1, fields terminated by ',', batch rows = 25000, prefetch rows = 100000;\n")
        root = os.path.join(bench.server.directory, 'files', 'pgloader')
        done = subprocess.run(['pgloader', '--root-dir', root, command], env=bench.server.environment(), check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if 'FATAL' in done.stdout:
            raise Wrong(done.stdout)

    return Contestant(name, act, lambda bench: bench.same_as_expected(data), **more)


# pg_portage

def definition(data, **more):
    return json.dumps({'format': data.form, 'legacy_id': data.shape.identity,
                       'columns': {name: {'from': name, 'default': 2.5} if name == 'ease_factor' else name
                                   for name in data.shape.columns},
                       'rules': data.shape.rules, 'match': data.shape.identity, 'on_conflict': 'overwrite', **more})


def create_pipeline(bench, data, **more):
    bench.run("SELECT portage.create_pipeline('bench', %s, %s)", data.shape.table, definition(data, **more))


def run_import(bench, data, **options):
    call(bench, "CALL portage.import('bench', file => %s, scope => %s, options => %s)", data.path, SCOPE,
         json.dumps({'verify': False, **options}))


def call(bench, sql, *arguments):
    """What this version does not support yet takes no part."""
    try:
        bench.run(sql, *arguments)
    except psycopg2.errors.FeatureNotSupported as error:
        raise NotThere('not there yet') from error


def portage(data, name='pg_portage', pipeline=None, prepare=lambda bench: None, check=None, **options):
    """An import into an empty table with everything switched on, but for verification, which has lines of its own."""
    def ready(bench):
        prepare(bench)
        create_pipeline(bench, data, **(pipeline or {}))

    return Contestant(name, lambda bench: run_import(bench, data, **options), check or landed(data, inserted=data.rows), ready)


def portage_payload(data):
    """The same bytes as a payload: they are stored, compressed, before they are imported."""
    def act(bench):
        call(bench, "CALL portage.import('bench', payload => pg_read_file(%s), scope => %s, options => '{\"verify\": false}')",
             data.path, SCOPE)

    return Contestant('payload stored', act, landed(data, inserted=data.rows), lambda bench: create_pipeline(bench, data))


def imported(data):
    """A preparation: the dataset has been imported."""
    def prepare(bench):
        create_pipeline(bench, data)
        run_import(bench, data)
    return prepare


def landed(data, workers=1, **outcomes):
    """A check: the last run has these outcomes, the ledger is complete, the rows are those that were expected. Tells what
    the run took besides time."""
    def check(bench):
        bench.same_as_expected(data)
        counts = {'inserted': 0, 'updated': 0, 'unchanged': 0, 'invalid': data.bad, **outcomes}
        bench.expect(f"SELECT status, read, {', '.join(counts)} FROM portage.migration_runs ORDER BY id DESC LIMIT 1",
                     'completed', data.items, *counts.values())
        bench.expect('SELECT (SELECT count(*) FROM portage.migration_items WHERE run_id = last.id), '
                     '(SELECT count(*) FROM portage.rejects WHERE run_id = last.id), '
                     f'(SELECT count(*) FROM portage.legacy_mappings m JOIN {data.shape.table} t ON t.id = m.target_key::bigint) '
                     'FROM (SELECT max(id) AS id FROM portage.migration_runs) AS last', data.items, data.bad, data.rows)
        took_part, memory, batches = bench.run(
            'SELECT count(DISTINCT range_no), max(memory_bytes), count(*) FROM portage.migration_batches '
            'WHERE run_id = (SELECT max(id) FROM portage.migration_runs)')[0]
        if workers > 1 and took_part == 1:
            raise NotThere('too few items')  # for more than one piece of work
        return {'memory_bytes': memory, 'batches': batches, 'ledger_bytes_per_row': int(bench.value(LEDGER_BYTES)) / data.rows}
    return check


def indexed(data, **outcomes):
    """A check: landed, and the indexes that the load took away are there again."""
    def check(bench):
        facts = landed(data, **outcomes)(bench)
        bench.expect(f"SELECT bool_and(indisvalid), count(*) FROM pg_index WHERE indrelid = '{data.shape.table}'::regclass", True, 2)
        bench.expect('SELECT count(*) FROM portage.deferred_indexes WHERE restored_at IS NOT NULL', 2)
        return facts
    return check


# Snapshots: pgbench makes the calls

class _Snapshot:
    """What create_pipeline() wants to know of a dataset."""
    form, shape = 'json', Progress


def snapshot_tables(bench):
    bench.run(sql_file('snapshots.sql'))
    with bench.connect() as connection, connection.cursor() as cursor:
        cursor.executemany('INSERT INTO hand.snapshots (document) VALUES (%s)', [(text,) for text in snapshots()])
    bench.run('VACUUM ANALYZE hand.snapshots')


def snapshot_pipeline(bench):
    snapshot_tables(bench)
    columns = {**{name: name for name in Progress.columns}, 'user_id': '$scope',
               'ease_factor': {'from': 'ease_factor', 'default': 2.5}}
    create_pipeline(bench, _Snapshot, legacy_id='word_id', columns=columns)


def snapshot_caller(name, statement, clients, check, prepare=lambda bench: None):
    def act(bench):
        script = os.path.join(bench.server.directory, 'files', 'snapshot.sql')
        with open(script, 'w', encoding='utf-8') as out:
            out.write('\\set n :n + 1\n\\set k :n % 1000\n' + statement)
        done = subprocess.run([os.path.join(bench.server.bindir, 'pgbench'), '-n', '-M', 'prepared', '-j', '2', '-c', str(clients),
                               '-D', 'n=0', '-T', str(bench.seconds), '-f', script], env=bench.server.environment(),
                              check=False, capture_output=True, text=True)
        if done.returncode or 'number of failed transactions: 0 ' not in done.stdout:
            raise Wrong(done.stdout + done.stderr)
        bench.calls = int(re.search(r'transactions actually processed: (\d+)', done.stdout)[1])
        return bench.calls * 100, bench.calls / float(re.search(r'^tps = ([\d.]+)', done.stdout, re.M)[1])

    return Contestant(name, act, check, prepare)
