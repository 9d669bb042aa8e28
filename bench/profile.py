"""See profile.sh: perf watches one backend while it imports, on the server of bench.py. What perf counts is shown twice: by
function with all that it calls, and by function alone; before it what the run itself says of its phases."""

import os
import re
import signal
import subprocess
import sys

from bench import settings
from contest import Bench
from contestants import SCOPE, create_pipeline, imported
from data import Dataset
from portage_server import Server

# Names that every sample has above it, and that say nothing.
FRAME = re.compile(r'\b(main|_start|__libc_start.*|PostmasterMain|ServerLoop|BackendStartup|PostgresMain|exec_simple_query|'
                   r'PortalRun\w*|ProcessUtility\w*|standard_ProcessUtility|ExecuteCallStmt)\b')


def report(path, least, *options):
    """Without what has no name: the server's own static functions, unless its debug symbols are installed."""
    text = subprocess.run(['perf', 'report', '-i', path, '--stdio', '-g', 'none', '--percent-limit', str(least), *options],
                          check=True, capture_output=True, text=True).stdout
    for line in text.splitlines():
        if line.strip() and not re.match('#|.* 0x[0-9a-f]{8,}|.*000000000000 ', line) and not FRAME.search(line):
            print('  ' + re.sub(r'\s+', ' ', re.sub(r'\[[.k]\] |- -\s*$|\(anonymous namespace\)::', '', line.strip()))[:118])


def phases(bench):
    """Milliseconds per phase of all batches."""
    rows = bench.run('SELECT key, sum(value::float8) FROM portage.migration_batches, jsonb_each_text(timings) '
                     'WHERE run_id = (SELECT max(id) FROM portage.migration_runs) GROUP BY key ORDER BY 2 DESC')
    print('\nphases, as the run counts them (s): ' + ', '.join(f'{key} {ms / 1000:.1f}' for key, ms in rows))


def main():
    work, items = (sys.argv[1:] + ['W1', '300000'][len(sys.argv) - 1:])[:2]
    if work not in ('W1', 'W3'):
        raise SystemExit('W1 (import into an empty table) or W3 (the same again, nothing changed)')
    with Server(**settings()) as server:
        files = os.path.join(server.directory, 'files')
        os.mkdir(files)
        bench, data = Bench(server, int(items)), Dataset(files, 'data', int(items))
        bench.fresh()
        if work == 'W1':
            create_pipeline(bench, data)
        else:
            imported(data)(bench)
        bench.run('CHECKPOINT')
        path = os.path.join(server.directory, 'perf.data')
        with bench.connect() as connection, connection.cursor() as cursor:
            cursor.execute("LOAD 'pg_portage'")
            with subprocess.Popen(['perf', 'record', '-q', '-F', '999', '-e', 'cpu-clock', '--call-graph', 'fp', '-o', path,
                                   '-p', str(connection.get_backend_pid())]) as perf:
                cursor.execute("CALL portage.import('bench', file => %s, scope => %s, options => '{\"verify\": false}')",
                               (data.path, SCOPE))
                perf.send_signal(signal.SIGINT)
        print(f'{work}, {int(items):,} NDJSON items, one worker')
        phases(bench)
        print('\nper cent of the backend\'s time, a function with all that it calls (they overlap):')
        report(path, 3, '--children', '--sort', 'symbol')
        print('\nthe function alone:')
        report(path, 1, '--no-children', '--sort', 'dso,symbol')


if __name__ == '__main__':
    main()
