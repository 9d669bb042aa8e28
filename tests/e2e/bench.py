#!/usr/bin/python3
"""`make bench` works, on few items: a line with a verdict for each limit, the same in its JSON, and a wrong result is found.
Says nothing about speed."""

import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, '..', '..', 'bench'), os.path.join(HERE, '..', 'lib')]
from contest import Bench  # noqa: E402
from contestants import by_sets, copy, portage  # noqa: E402
from data import Dataset  # noqa: E402
from portage_server import Server, check, finish  # noqa: E402

VERDICTS = {'goal met', 'must met', 'missed', 'not there yet', 'too few items'}


def whole(directory):
    path = os.path.join(directory, 'bench.json')
    done = subprocess.run([os.path.join(HERE, '..', '..', 'bench', 'run.sh')], check=False, capture_output=True, text=True, env={
        **os.environ, 'QUICK': '1', 'ITEMS': '2000', 'WORKLOADS': 'W1-sorted', 'BENCH_JSON': path})
    check('bench ends well', done.returncode == 0, done.stdout + done.stderr[-3000:])
    with open(path, encoding='utf-8') as file:
        found = json.load(file)
    lines = found['lines']
    limited = [line for line in lines if line['must']]
    check('it has lines with limits, and lines without', len(limited) >= 5 and len(lines) > len(limited), lines)
    check('each limit has its verdict', all(line['verdict'] in VERDICTS for line in limited), limited)
    check('each line stands in the table', all(f'{line["workload"]}  ' in done.stdout for line in lines), done.stdout)
    check('each contestant was measured, or says why not', all(
        isinstance(samples, str) or [*samples[0]] == ['rate', 'seconds', 'facts']
        for contest in found['samples'].values() for samples in contest.values()), found['samples'])
    check('nothing was wrong', found['wrong'] == [], found['wrong'])
    check('machine, versions and settings are told', all(found[name] for name in ('machine', 'versions', 'settings')))


def sabotaged(server):
    """Each contestant's work is spoiled after it was done: the check must see it, or the figures mean nothing."""
    files = os.path.join(server.directory, 'files')
    os.mkdir(files)
    bench, data = Bench(server, 2000), Dataset(files, 'data', 2000)
    bench.expected_rows(data)
    for contestant in (copy(data), by_sets(data), portage(data)):
        honest = contestant.act
        samples = bench.contest('honest', data.rows, [contestant])
        check(f'{contestant.name}: what is right is measured', isinstance(samples[contestant.name], list), bench.wrong)
        for name, spoil in (('a row is gone', 'DELETE FROM app.progress WHERE id = 7'),
                            ('a value is another', 'UPDATE app.progress SET known = NOT known WHERE id = 7')):
            contestant.act = lambda bench, spoil=spoil: honest(bench) or bench.run(spoil) and None
            samples = bench.contest(name, data.rows, [contestant])
            check(f'{contestant.name}: {name}', samples[contestant.name] == 'WRONG', samples)
    spoiled = portage(data)
    honest = spoiled.act
    spoiled.act = lambda bench: honest(bench) or bench.run("DELETE FROM portage.mapping_packs WHERE ctid = '(0,1)'") and None
    check('pg_portage: a mapping is gone', bench.contest('mapping', data.rows, [spoiled])['pg_portage'] == 'WRONG')
    line = len(bench.lines)
    bench.compare('spoiled', bench.samples['mapping'], 'pg_portage', 'pg_portage', 0.5, 1)
    check('the report says so', bench.lines[line].verdict == 'WRONG' and bench.wrong, bench.lines[line])


with Server() as server:
    whole(server.directory)
    sabotaged(server)
finish()
