#!/usr/bin/python3
"""make bench: starts a tuned throw-away server, runs the workloads, prints one table, writes build/bench.json.
Environment: WORKLOADS="W1-sorted W3", ROUNDS=3, ITEMS=1000000, SECONDS_OF_PGBENCH=10, QUICK=1, FULL=1 (growth to ten times)."""

import dataclasses
import json
import os
import platform
import re
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'tests', 'lib'))
from contest import Bench  # noqa: E402
from portage_server import Server  # noqa: E402
from workloads import ALL, QUICK, chosen  # noqa: E402

COLUMNS = ('workload', 'peer', 'ours', 'theirs', 'ratio', 'must', 'goal', 'verdict')
TITLES = ('workload', 'peer', 'ours, rows/s', 'peer, rows/s', 'ratio (range)', 'must', 'goal', 'verdict')


def memory_of_machine():
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


def settings():
    """A server as it would be tuned for a migration; everything that keeps data safe is on."""
    return {'shared_buffers': f'{min(2048, (memory_of_machine() >> 20) // 4)}MB', 'maintenance_work_mem': '1GB',
            'max_wal_size': '8GB', 'fsync': 'on',
            'synchronous_commit': 'on', 'wal_level': 'replica', 'autovacuum': 'off', 'checkpoint_timeout': '30min',
            'max_connections': '60'}


def output_of(*command):
    try:
        return subprocess.run(command, cwd=HERE, check=False, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return ''


def machine():
    with open('/proc/cpuinfo', encoding='utf-8') as file:
        model = re.search(r'model name\s*: (.*)', file.read())
    load = os.getloadavg()
    return {'cpu': model[1] if model else platform.machine(), 'cores': os.cpu_count(), 'memory_gib': memory_of_machine() >> 30,
            'system': f'{platform.system()} {platform.release()}', 'load': [round(one, 2) for one in load]}


def versions(bench):
    changes = output_of('git', 'status', '--porcelain', '--untracked-files=no')
    return {'postgresql': bench.value('SHOW server_version'),
            'pg_portage': bench.value("SELECT extversion FROM pg_extension WHERE extname = 'pg_portage'"),
            'commit': output_of('git', 'rev-parse', '--short', 'HEAD') + (' with changes' if changes else ''),
            'pgloader': (re.search(r'"(.*?)"', output_of('pgloader', '--version')) or ['', 'not installed'])[1]}


def table(lines):
    rows = [TITLES] + [tuple(getattr(line, column) for column in COLUMNS) for line in lines]
    widths = [max(len(row[i]) for row in rows) for i in range(len(TITLES))]
    left = (0, 1, 7)
    show = lambda row: '  '.join(cell.ljust(width) if i in left else cell.rjust(width)
                                 for i, (cell, width) in enumerate(zip(row, widths))).rstrip()
    return '\n'.join([show(rows[0]), '  '.join('-' * width for width in widths), *map(show, rows[1:])])


def report(bench, facts):
    if facts['quick']:
        print('QUICK: few items, one short round: a first look, no measurement')
    print('\n' + table(bench.lines) + '\n')
    for note in bench.notes:
        print(note)
    print('\nrows/s: rows that landed, by the time from the call to its end; medians of {rounds} round(s) in turns; {items:,} '
          'items'.format(**facts))
    print('{cpu}, {cores} cores, {memory_gib} GiB, {system}, load at the beginning {load[0]}'.format(**facts['machine']))
    print('PostgreSQL {postgresql}, pg_portage {pg_portage} ({commit}), pgloader {pgloader}'.format(**facts['versions']))
    print(', '.join(f'{name} {value}' for name, value in facts['settings'].items()))
    for text in bench.wrong:
        print('WRONG RESULT: ' + text)


def write_json(path, bench, facts):
    samples = {title: {name: found if isinstance(found, str) else [dataclasses.asdict(sample) for sample in found]
                       for name, found in contest.items()} for title, contest in bench.samples.items()}
    with open(path, 'w', encoding='utf-8') as file:
        json.dump({**facts, 'lines': [dataclasses.asdict(line) for line in bench.lines], 'samples': samples,
                   'notes': bench.notes, 'wrong': bench.wrong}, file, indent=1)
        file.write('\n')


def main():
    quick, full = (os.environ.get(name, '') not in ('', '0') for name in ('QUICK', 'FULL'))
    items = int(os.environ.get('ITEMS') or (20000 if quick else 1000000))
    rounds = int(os.environ.get('ROUNDS') or (1 if quick else 3))
    seconds = int(os.environ.get('SECONDS_OF_PGBENCH') or (1 if quick else 10))
    names = list(chosen(os.environ.get('WORKLOADS', '').split() or (QUICK if quick else ALL)))
    path = os.environ.get('BENCH_JSON') or os.path.join(HERE, '..', 'build', 'bench.json')
    start, here = time.time(), machine()
    with Server(**settings()) as server:
        os.mkdir(os.path.join(server.directory, 'files'))
        bench = Bench(server, items, rounds, seconds, quick, full)
        bench.fresh()
        known = versions(bench)  # now, as the sources may change in an hour
        for name in names:
            ALL[name](bench)
        facts = {'started_at': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(start)), 'took_seconds': round(time.time() - start),
                 'quick': quick, 'items': items, 'rounds': rounds, 'machine': here, 'versions': known,
                 'settings': settings()}
    report(bench, facts)
    write_json(path, bench, facts)
    # A missed goal is a result like any other; a wrong result is none.
    return 1 if bench.wrong else 0


if __name__ == '__main__':
    sys.exit(main())
