"""How is measured: contestants do the same work in turns, each on fresh tables behind a checkpoint, and what each has done
is checked before its time counts. Knows nothing of what the work is (workloads.py) nor of who does it (contestants.py)."""

import contextlib
import dataclasses
import os
import statistics
import sys
import time
import typing

HERE = os.path.dirname(os.path.abspath(__file__))


class NotThere(Exception):
    """A contestant that cannot take part, and why."""


class Wrong(Exception):
    """A result that is not what it must be."""


def sql_file(name):
    with open(os.path.join(HERE, 'sql', name), encoding='utf-8') as file:
        return file.read()


@dataclasses.dataclass
class Contestant:
    """`act` is what is timed; it gives None, or the rows and seconds that it measured itself. `prepare` comes before it,
    and `check` after it, which raises Wrong or gives facts: what else is to be told about this time."""

    name: str
    act: typing.Callable
    check: typing.Callable
    prepare: typing.Callable = lambda bench: None


@dataclasses.dataclass
class Sample:
    rate: float  # rows per second
    seconds: float
    facts: dict


@dataclasses.dataclass
class Line:
    """One line of the report."""

    workload: str
    peer: str
    ours: str = ''
    theirs: str = ''
    ratio: str = ''
    must: str = ''
    goal: str = ''
    verdict: str = ''
    value: float | None = None


class Bench:
    """The server, and all that was measured on it."""

    def __init__(self, server, items, rounds=1, seconds=1, quick=False, full=False):
        self.server, self.items, self.rounds, self.seconds, self.quick, self.full = server, items, rounds, seconds, quick, full
        self.lines, self.samples, self.notes, self.wrong = [], {}, [], []

    # SQL

    def connect(self):
        return self.server.connect()

    def run(self, sql, *arguments):
        """In a backend of its own; the rows, if there are any."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(sql, arguments or None)
            return cursor.fetchall() if cursor.description else []

    def value(self, sql, *arguments):
        return self.run(sql, *arguments)[0][0]

    def expect(self, sql, *wanted):
        found = self.run(sql)[0]
        if found != wanted:
            raise Wrong(f'{wanted} expected, {found} found by {sql}')

    # The tables

    def fresh(self):
        """As on the first day: nothing of an earlier measurement is left, but for the expected rows."""
        self.run('DROP SCHEMA IF EXISTS app CASCADE; DROP SCHEMA IF EXISTS hand CASCADE; '
                 'DROP EXTENSION IF EXISTS pg_portage CASCADE')
        for name in ('target.sql', 'tracking.sql'):
            self.run(sql_file(name))
        self.run('CREATE EXTENSION pg_portage')

    def expected_rows(self, data):
        """What every target must hold in the end: read from the file of good rows, past all constraints."""
        columns = ', '.join(f'{name} {kind}' for name, kind in data.shape.columns.items())
        self.run(f'DROP SCHEMA IF EXISTS expected CASCADE; CREATE SCHEMA expected; CREATE TABLE expected.rows ({columns}); '
                 f"COPY expected.rows FROM '{data.valid}' WITH (FORMAT csv, HEADER)")

    def same_as_expected(self, data):
        """Counts first; then every row in both directions."""
        target, columns = data.shape.table, ', '.join(data.shape.columns)
        self.expect(f'SELECT (SELECT count(*) FROM {target}), (SELECT count(*) FROM expected.rows)', data.rows, data.rows)
        for one, other in ((target, 'expected.rows'), ('expected.rows', target)):
            found = self.run(f"SET work_mem = '1GB'; SELECT {columns} FROM {one} EXCEPT SELECT {columns} FROM {other} LIMIT 3")
            if found:
                raise Wrong(f'rows of {one} that are not in {other}: {found}')

    # Measuring

    def contest(self, title, rows, contestants, rounds=None):
        """The samples of each contestant by name; of one that cannot take part, or was wrong, the reason."""
        samples = {contestant.name: [] for contestant in contestants}
        with contextlib.suppress(Exception):  # what is wrong shows again
            self.measure(contestants[0], rows)  # so that nobody has to be the first: caches, new WAL files
        for number in range(rounds or self.rounds):
            for contestant in contestants:
                if not isinstance(samples[contestant.name], list):
                    continue
                try:
                    sample = self.measure(contestant, rows)
                    samples[contestant.name].append(sample)
                    told = f'{sample.seconds:.2f} s, {sample.rate:,.0f} rows/s'
                except NotThere as reason:
                    samples[contestant.name] = told = str(reason)
                except Exception as error:  # wrong, or failed: the others go on, the report ends with it
                    samples[contestant.name] = 'WRONG'
                    told = f'WRONG: {error}'
                    self.wrong.append(f'{title}, {contestant.name}: {error}')
                print(f'{title}, round {number + 1}, {contestant.name}: {told}', file=sys.stderr, flush=True)
        self.samples[title] = samples
        return samples

    def measure(self, contestant, rows):
        self.fresh()
        contestant.prepare(self)
        self.run('CHECKPOINT')
        before, start = self.value('SELECT pg_current_wal_lsn()'), time.monotonic()
        measured = contestant.act(self)
        rows, seconds = measured or (rows, time.monotonic() - start)
        wal = int(self.value('SELECT pg_current_wal_lsn() - %s', before))
        return Sample(rows / seconds, seconds, {'wal_bytes_per_row': wal / rows, **(contestant.check(self) or {})})

    # Reporting

    def compare(self, workload, samples, ours, peer, must=None, goal=None):
        """A line: the medians of two contestants, their ratio, and how far it varies from round to round."""
        line = Line(workload, peer, must=_number(must), goal=_number(goal))
        self.lines.append(line)
        a, b = samples[ours], samples[peer]
        if isinstance(a, str) or isinstance(b, str):
            line.verdict = a if isinstance(a, str) else f'{peer}: {b}' if b != 'WRONG' else b
            line.ours, line.theirs = (f'{_median(s):,.0f}' if isinstance(s, list) else '' for s in (a, b))
            return
        line.value = _median(a) / _median(b)
        ratios = [x.rate / y.rate for x, y in zip(a, b)]
        line.ours, line.theirs = f'{_median(a):,.0f}', f'{_median(b):,.0f}'
        line.ratio = f'{line.value:.2f}' + (f' ({min(ratios):.2f}-{max(ratios):.2f})' if len(ratios) > 1 else '')
        line.verdict = verdict(line.value, must, goal, at_least=True)

    def tell(self, workload, peer, value, shown, must=None, goal=None, limits=('', ''), ours='', theirs=''):
        """A line about something else than speed, of which less is better."""
        self.lines.append(Line(workload, peer, ours, theirs, shown, *limits, verdict(value, must, goal, at_least=False), value))


def verdict(value, must, goal, at_least):
    if must is None:
        return ''
    reached = (lambda limit: value >= limit) if at_least else (lambda limit: value <= limit)
    return 'goal met' if reached(goal) else 'must met' if reached(must) else 'missed'


def _number(limit):
    return '' if limit is None else f'{limit:.2f}'


def _median(samples):
    return statistics.median(sample.rate for sample in samples)


def median_fact(samples, name):
    return statistics.median(sample.facts[name] for sample in samples)
