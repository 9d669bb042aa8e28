#!/usr/bin/python3
"""A million items with a thousand planted defects, as NDJSON, JSON document and CSV: every defect agrees with the
fixture, everything else landed, and the backend's own memory stays under 300 MB. Then what is large in other ways: a
document of 2 GB, one whose end is missing, a single line of 300 MB. Speed and memory are printed, only memory is
asserted, in absolute terms and as a curve: it must not grow with the number of batches.

Arguments choose parts: ndjson json csv incremental big cut line (default: all). PORTAGE_ITEMS sets another number."""

import json
import os
import statistics
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from defects import TARGET, Dataset, difference, rejects_of  # noqa: E402
from portage_server import Server, check, finish  # noqa: E402

ITEMS = int(os.environ.get('PORTAGE_ITEMS', '1000000'))
DEFECTS = ITEMS // 1000
SEED = int(os.environ.get('PORTAGE_SEED', '20240229'))
LIMIT = 300 << 20


class Memory(threading.Thread):
    """Samples a backend's private memory: RssAnon, which leaves shared buffers out."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.status, self.samples, self.running = f'/proc/{pid}/status', [], True
        self.start()

    def now(self):
        with open(self.status, encoding='utf-8') as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith('RssAnon'))

    def run(self):
        while self.running:
            try:
                self.samples.append(self.now())
            except (OSError, StopIteration):
                return
            time.sleep(0.005)

    def stop(self):
        self.running = False
        self.join()
        return max(self.samples)

    def quarter(self, n):
        part = len(self.samples) // 4
        return max(self.samples[n * part:(n + 1) * part] or [0])


def mb(number):
    return f'{number / (1 << 20):.1f} MB'


def row(connection, sql, *arguments):
    with connection.cursor() as cursor:
        cursor.execute(sql, arguments)
        return cursor.fetchone()


def measured_import(server, name, pipeline, path, scope, options='{}'):
    """In a backend of its own. Prints the figures, checks the memory; gives the run's id."""
    with server.connect() as connection:
        pid = connection.get_backend_pid()
        memory, start = Memory(pid), time.monotonic()
        run, = row(connection, 'CALL portage.import(%s, file => %s, scope => %s, options => %s)', pipeline, path, scope,
                   options)
        seconds, after, peak = time.monotonic() - start, memory.now(), memory.stop()
        connection.close()
    with server.connect() as connection:
        read, = row(connection, 'SELECT read FROM portage.migration_runs WHERE id = %s', run)
        with connection.cursor() as cursor:
            cursor.execute('SELECT read, extract(epoch FROM finished_at - lag(finished_at) OVER (ORDER BY id))::float8, '
                           'timings FROM portage.migration_batches WHERE run_id = %s ORDER BY id', (run,))
            batches = cursor.fetchall()
        per_item = [1e6 * took / items for items, took, _ in batches if took and items]
        figures = (f'{name}: {read} items, {os.path.getsize(path) / 1e6:.0f} MB in {seconds:.1f} s = {read / seconds:.0f} '
                   f'items/s, {os.path.getsize(path) / 1e6 / seconds:.1f} MB/s; {len(batches)} batches of '
                   f'{statistics.median([b[0] for b in batches]):.0f}; peak {mb(peak)}, by quarters '
                   f'{", ".join(mb(memory.quarter(n)) for n in range(4))}, at the end {mb(after)}')
        if len(per_item) >= 20:
            first, last = statistics.median(per_item[:10]), statistics.median(per_item[-10:])
            figures += f'; µs per item in the first ten batches {first:.1f}, in the last ten {last:.1f}'
        print('figures ' + figures)
        phases = {}
        for _, _, timings in batches:
            for phase, ms in (timings or {}).items():
                phases[phase] = phases.get(phase, 0) + ms
        print('figures ' + name + ': ' + ', '.join(f'{phase} {ms / 1000:.1f} s' for phase, ms in phases.items()))
        sys.stdout.flush()
    check(f'{name}: the backend stays under 300 MB', peak < LIMIT, mb(peak))
    if len(batches) >= 40:
        check(f'{name}: its memory does not grow with the number of batches',
              memory.quarter(3) < memory.quarter(1) * 1.25 + (8 << 20), figures)
    return run


def counters(server, run):
    with server.connect() as connection:
        return row(connection, 'SELECT status, read, inserted, updated, unchanged, skipped, invalid + failed '
                   'FROM portage.migration_runs WHERE id = %s', run)


def create_pipeline(server, name, target, definition):
    with server.connect() as connection:
        row(connection, 'SELECT portage.create_pipeline(%s, %s, %s)', name, target, definition)


def million(server, form, again):
    start = time.monotonic()
    data = Dataset(form, ITEMS, SEED, server.directory, DEFECTS)
    print(f'figures {form}: generated {data.bytes / 1e6:.0f} MB in {time.monotonic() - start:.0f} s')
    server.psql('TRUNCATE app.progress')
    create_pipeline(server, form, 'app.progress', data.definition())
    run = measured_import(server, form, form, data.path, form)
    counts = counters(server, run)
    check(f'{form}: {ITEMS - DEFECTS} of {ITEMS} items landed',
          counts == ('completed', ITEMS, ITEMS - DEFECTS, 0, 0, 0, DEFECTS), counts)
    compare(server, form, data, run)
    with server.connect() as connection:
        check(f'{form}: as many rows, items and mappings', row(
            connection, 'SELECT (SELECT count(*) FROM app.progress), (SELECT count(*) FROM portage.migration_items '
            'WHERE run_id = %s), (SELECT count(*) FROM portage.legacy_mappings WHERE run_id = %s)', run, run) ==
            (ITEMS - DEFECTS, ITEMS, ITEMS - DEFECTS))
    if again:
        run = measured_import(server, f'{form} again', form, data.path, form)
        counts = counters(server, run)
        check(f'{form} again: everything is unchanged',
              counts == ('completed', ITEMS, 0, 0, ITEMS - DEFECTS, 0, DEFECTS), counts)
        compare(server, f'{form} again', data, run)
    os.unlink(data.path)


def compare(server, name, data, run):
    with server.connect() as connection:
        found = difference(data.planted, rejects_of(connection, run))
    check(f'{name}: all {DEFECTS} defects agree with the fixture', not found, '\n'.join(found))


PAGES = """CREATE TABLE app.pages (id integer PRIMARY KEY, title text NOT NULL, words integer);"""


def pages_definition(form, **more):
    return json.dumps({'format': form, 'legacy_id': 'id', 'columns': {'id': 'id', 'title': 'title', 'words': 'words'},
                       **more})


def big(server, size=2 << 30):
    """Few distinct items: bodies of every length from nothing to 120 kB, full of brackets, quotes and escapes."""
    create_pipeline(server, 'big', 'app.pages', pages_definition('json', items='book.pages'))
    path = os.path.join(server.directory, 'big.json')
    bodies = [json.dumps(('[{"nested": "\\" } ] ' + chr(0x3b1 + n)) * (n * 97 % 4000)).encode() for n in range(50)]
    count = 0
    with open(path, 'wb') as out:
        out.write(b'{"book": {"title": "a long one", "pages": [')
        while out.tell() < size:
            count += 1
            out.write(b'%s{"id": %d, "title": "page %d", "body": %s, "tags": [[1, 2], {"a": {}}], "words": %d}\n'
                      % (b',' if count > 1 else b'', count, count, bodies[count % 50], count % 900))
        out.write(b']}, "end": true}')
    os.chmod(path, 0o644)
    run = measured_import(server, '2 GB document', 'big', path, '')
    counts = counters(server, run)
    check('2 GB document: every item landed', counts == ('completed', count, count, 0, 0, 0, 0), counts)
    os.unlink(path)


def cut(server):
    """A document whose end is missing: what came before is kept, the rest is one reject."""
    create_pipeline(server, 'cut', 'app.pages', pages_definition('json', items='pages'))
    path = os.path.join(server.directory, 'cut.json')
    whole = 300000
    with open(path, 'wb') as out:
        out.write(b'{"pages": [\n')
        for n in range(1, whole + 1):
            out.write(b'{"id": %d, "title": "page %d", "words": 7},\n' % (n + 10000000, n))
        begin = out.tell()
        out.write(b'{"id": 99999999, "title": "cut o')
        end = out.tell()
    os.chmod(path, 0o644)
    run = measured_import(server, 'cut document', 'cut', path, '')
    counts = counters(server, run)
    check('cut document: what came before landed', counts == ('completed', whole + 1, whole, 0, 0, 0, 1), counts)
    with server.connect() as connection:
        reject = {**rejects_of(connection, run)[0]}
        reject.pop('message')
    check('cut document: the rest is one reject', reject == {
        'ordinal': whole + 1, 'line': whole + 2, 'byte_offset': begin, 'byte_length': end - begin,
        'rule': 'document_incomplete', 'sqlstate': '22P02', 'column': None}, reject)
    os.unlink(path)


def line(server):
    """A single line of 300 MB between good ones; larger than max_item_bytes, so it is a reject that nobody buffers."""
    shapes = {'ndjson': (b'', b'{"id": %d, "title": "t", "words": 1}', b'{"id": 5, "title": "', b'"}', b'\n', b''),
              'json': (b'[\n', b'{"id": %d, "title": "t", "words": 1}', b'{"id": 5, "title": "', b'"}', b',\n', b'\n]'),
              'csv': (b'id,title,words\n', b'%d,t,1', b'5,"', b'",7', b'\n', b'')}
    for number, (form, (head, good, begin, end, between, tail)) in enumerate(shapes.items()):
        create_pipeline(server, 'line ' + form, 'app.pages', pages_definition(form))
        path = os.path.join(server.directory, 'line.' + form)
        first = 20000000 + 10 * number
        # A quote that does not close within max_item_bytes counts as never closed.
        rule, sqlstate = ('unterminated_quote', '22P04') if form == 'csv' else ('item_too_large', '54000')
        with open(path, 'wb') as out:
            out.write(head + good % first + between)
            start = out.tell()
            out.write(begin)
            for _ in range(300):
                out.write(b'0123456789abcdef' * 65536)
            out.write(end)
            length = out.tell() - start
            out.write(between + good % (first + 1) + tail)
        os.chmod(path, 0o644)
        run = measured_import(server, '300 MB line, ' + form, 'line ' + form, path, '')
        counts = counters(server, run)
        check(f'300 MB line, {form}: the items around it landed', counts == ('completed', 3, 2, 0, 0, 0, 1), counts)
        with server.connect() as connection:
            reject = {**rejects_of(connection, run)[0]}
            kept, = row(connection, 'SELECT octet_length(raw) FROM portage.rejects WHERE run_id = %s', run)
        reject.pop('message')
        check(f'300 MB line, {form}: it is one reject', reject == {
            'ordinal': 2, 'line': head.count(b'\n') + 2, 'byte_offset': start, 'byte_length': length,
            'rule': rule, 'sqlstate': sqlstate, 'column': None}, reject)
        check(f'300 MB line, {form}: of which the head is kept', kept == 65536, kept)
        os.unlink(path)


def main():
    parts = sys.argv[1:] or ['ndjson', 'json', 'csv', 'incremental', 'big', 'cut', 'line']
    print(f'seed {SEED}')
    with Server(max_wal_size='4GB') as server:
        server.psql('CREATE EXTENSION pg_portage;' + TARGET + PAGES)
        if 'cut' in parts:
            cut(server)
        if 'line' in parts:
            line(server)
        for form in ('ndjson', 'json', 'csv'):
            if form in parts:
                million(server, form, 'incremental' in parts and form == 'ndjson')
        if 'big' in parts:
            big(server)
    finish()


if __name__ == '__main__':
    main()
