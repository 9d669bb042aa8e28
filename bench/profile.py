"""See profile.sh: perf watches one backend while it imports, on the server of bench.py. What perf counts is shown twice: by
function with all that it calls, and by function alone; before it what the run itself says of its phases."""

import os
import re
import signal
import subprocess
import sys
import time

from bench import settings
from contest import Bench
from contestants import SCOPE, create_pipeline, imported, snapshot_pipeline
from data import Dataset
from portage_server import Server

# What every sample has above it, and what has no name.
SAYS_NOTHING = re.compile(r'\b(main|_start|__libc_start.*|PostmasterMain|ServerLoop|BackendStartup|PostgresMain|exec_simple_query|'
                          r'PortalRun\w*|ProcessUtility\w*|standard_ProcessUtility|ExecuteCallStmt)\b| (0x)?[0-9a-f]{16}\b')


def report(path, least, *options):
    """Without what has no name: the server's own static functions, unless its debug symbols are installed."""
    text = subprocess.run(['perf', 'report', '-i', path, '--stdio', '-g', 'none', '--percent-limit', str(least), *options],
                          check=True, capture_output=True, text=True).stdout
    found = [line for line in text.splitlines() if line.strip() and not line.startswith('#') and not SAYS_NOTHING.search(line)]
    if not found:
        raise SystemExit('perf has seen nothing')
    for line in found:
        line = re.sub(r'\[[.k]\] |\(anonymous namespace\)::|std::__cxx11::', '', ' '.join(line.split())).removesuffix(' - -')
        print('  ' + line[:110])


def phases(bench):
    """Milliseconds per phase of all batches."""
    rows = bench.run('SELECT key, sum(value::float8) FROM portage.migration_batches, jsonb_each_text(timings) '
                     'WHERE run_id = (SELECT max(id) FROM portage.migration_runs) GROUP BY key ORDER BY 2 DESC')
    print('\nphases, as the run counts them (s): ' + ', '.join(f'{key} {ms / 1000:.1f}' for key, ms in rows))


def main():
    work, items = (sys.argv[1:] + ['W1', '300000'][len(sys.argv) - 1:])[:2]
    if work not in ('W1', 'W2', 'W3'):
        raise SystemExit('W1 (import into an empty table), W2 (snapshots of 100 items) or W3 (W1 again, nothing changed)')
    with Server(**settings()) as server:
        files = os.path.join(server.directory, 'files')
        os.mkdir(files)
        bench, data = Bench(server, int(items)), Dataset(files, 'data', int(items))
        bench.fresh()
        if work == 'W2':
            snapshot_pipeline(bench)
        elif work == 'W3':
            imported(data)(bench)
        else:
            create_pipeline(bench, data)
        bench.run('CHECKPOINT')
        path = os.path.join(server.directory, 'perf.data')
        with bench.connect() as connection, connection.cursor() as cursor:
            cursor.execute("LOAD 'pg_portage'")  # or perf would not know where its functions are
            with subprocess.Popen(['perf', 'record', '-q', '-F', '999', '-e', 'cpu-clock', '--call-graph', 'fp', '-o', path,
                                   '-p', str(connection.get_backend_pid())]) as perf:
                while not any('perf_event' in os.readlink(entry.path) for entry in os.scandir(f'/proc/{perf.pid}/fd')):
                    time.sleep(0.05)
                if work == 'W2':
                    cursor.execute("PREPARE call (int) AS SELECT portage.migrate('bench', (SELECT document FROM hand.snapshots "
                                   "WHERE k = $1 % 1000), 'user ' || $1, '{\"verify\": false, \"keep_payload\": false}')")
                    for n in range(int(items) // 100):
                        cursor.execute('EXECUTE call (%s)', (n,))
                else:
                    cursor.execute("CALL portage.import('bench', file => %s, scope => %s, options => '{\"verify\": false}')",
                                   (data.path, SCOPE))
                perf.send_signal(signal.SIGINT)
        print(f'{work}, {int(items):,} items, one backend')
        if work != 'W2':
            phases(bench)
        print('\nper cent of the backend\'s time, a function with all that it calls (they overlap):')
        report(path, 3, '--children', '--sort', 'symbol')
        print('\nthe function alone:')
        report(path, 1, '--no-children', '--sort', 'dso,symbol')


if __name__ == '__main__':
    main()
