"""The workloads, a function each: which data, who takes part, and which lines with which limits come of it. The limits are
ratios to a peer in the same run; `must` is what every release has to reach, `goal` what is worth working for."""

import os

from contest import Contestant, Line, Wrong, median_fact
from contestants import (by_rows, by_sets, call, copy, create_pipeline, hand_written, imported, indexed, landed, pgloader, portage,
                         portage_payload, run_import, snapshot_caller, snapshot_pipeline, snapshot_tables)
from data import Dataset, Progress, Wide

FOREIGN_KEY = 'ALTER TABLE app.progress ADD FOREIGN KEY (course_id) REFERENCES app.courses'
WIDE = 'CREATE TABLE app.wide (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {}, UNIQUE (code), CHECK (c05 >= 0))'


def dataset(bench, name, items=None, **more):
    """Also what every target must hold in the end."""
    data = Dataset(os.path.join(bench.server.directory, 'files'), name, items or bench.items, **more)
    bench.expected_rows(data)
    return data


def w1_sorted(bench):
    data = dataset(bench, 'sorted')
    title = f'W1 NDJSON, sorted, {bench.items:,} items'
    result = bench.contest(title, data.rows, [
        copy(data), portage(data), by_sets(data), portage(data, 'verify on', verify=True), portage_payload(data),
        portage(data, '2 workers', check=landed(data, workers=2, inserted=data.rows), workers=2),
        portage(data, 'initial_load', check=indexed(data, inserted=data.rows), initial_load=True),
        portage(data, 'an expression', pipeline={'columns': {**{name: name for name in data.shape.columns}, 'ease_factor': {
            'sql': "coalesce((item->>'ease_factor')::float8, 2.5)"}}}),
        by_rows(data)])
    bench.compare(title, result, 'pg_portage', 'COPY', 0.60, 0.80)
    bench.compare('  the same', result, 'pg_portage', 'hand-written SQL', 3.5, 4.5)
    bench.compare('  the same', result, 'pg_portage', 'PL/pgSQL row loop')
    bench.compare('  2 workers', result, '2 workers', 'COPY', 0.80, 1.0)
    bench.compare('  initial_load', result, 'initial_load', 'COPY', 0.90, 1.1)
    bench.compare('  with verification', result, 'verify on', 'COPY')
    bench.compare('  from a stored payload', result, 'payload stored', 'COPY')
    bench.compare('  a column by an SQL expression', result, 'an expression', 'COPY')
    if isinstance(result['pg_portage'], list):
        size = median_fact(result['pg_portage'], 'ledger_bytes_per_row')
        bench.tell('ledger bytes per landed row', '', size, f'{size:.0f}', 180, 150, ('<= 180', '<= 150'))
    data.remove()


def w1_shuffled(bench):
    data = dataset(bench, 'shuffled', shuffled=True)
    title = f'W1 NDJSON, shuffled, {bench.items:,} items'
    result = bench.contest(title, data.rows, [copy(data), portage(data)])
    bench.compare(title, result, 'pg_portage', 'COPY', 0.45, 0.70)
    data.remove()


def w1_csv(bench):
    data = dataset(bench, 'export', form='csv')
    title = f'W1 CSV, sorted, {bench.items:,} items'
    result = bench.contest(title, data.rows, [
        copy(data), portage(data), pgloader(data, 'pgloader, good rows only', data.valid),
        pgloader(data, 'pgloader, with bad rows', data.path)])
    bench.compare(title, result, 'pg_portage', 'COPY')
    bench.compare('  the same', result, 'pg_portage', 'pgloader, good rows only', 3.4, 5)
    bench.compare('  the same', result, 'pg_portage', 'pgloader, with bad rows', 7, 10)
    data.remove()


def w1_foreign_key(bench):
    data = dataset(bench, 'foreign_key')
    title = f'W1 with a foreign key, {bench.items:,} items'
    key = lambda bench: bench.run(FOREIGN_KEY)
    result = bench.contest(title, data.rows, [copy(data, prepare=key), portage(data, prepare=key)])
    bench.compare(title, result, 'pg_portage', 'COPY')
    data.remove()


def w1_wide(bench):
    data = dataset(bench, 'wide', bench.items // 5, shape=Wide)
    title = f'W1 with 60 columns, {data.items:,} items'
    columns = ', '.join(f'{name} {kind}{" NOT NULL" if name == "code" else ""}' for name, kind in Wide.columns.items())
    table = lambda bench: bench.run(WIDE.format(columns))
    result = bench.contest(title, data.rows, [copy(data, prepare=table), portage(data, prepare=table)])
    bench.compare(title, result, 'pg_portage', 'COPY')
    data.remove()


def w2(bench):
    user = "'user-' || :client_id::int || '-' || :n::int"
    document = '(SELECT document FROM hand.snapshots WHERE k = :k::int)'

    def rows(bench):
        """Each user has the rows of one snapshot."""
        columns = ', '.join(name for name in Progress.columns if name != 'user_id')
        typed = ', '.join(f'{name} {kind}' for name, kind in Progress.columns.items() if name != 'user_id')
        bench.expect('SELECT count(*), count(DISTINCT user_id) FROM app.progress', bench.calls * 100, bench.calls)
        bench.expect(f"""SET work_mem = '1GB'; WITH wanted AS (
            SELECT user_id, {columns} FROM (SELECT DISTINCT user_id FROM app.progress) AS users
              JOIN hand.snapshots ON k = split_part(user_id, '-', 3)::int % 1000,
                   jsonb_to_recordset(document::jsonb) AS item ({typed})), found AS (
            SELECT user_id, {columns} FROM app.progress)
            SELECT count(*) FROM ((TABLE wanted EXCEPT TABLE found) UNION ALL (TABLE found EXCEPT TABLE wanted)) AS x""", 0)

    def tracked_by_hand(bench):
        rows(bench)
        bench.expect("SELECT (SELECT sum(landed) FROM hand.runs), (SELECT count(*) FROM hand.items WHERE status = 'landed'), "
                     '(SELECT count(*) FROM hand.mappings)', *[bench.calls * 100] * 3)

    def tracked(bench):
        rows(bench)
        bench.expect("SELECT count(*), sum(inserted) FROM portage.migration_runs WHERE status = 'completed'",
                     bench.calls, bench.calls * 100)
        bench.expect("SELECT (SELECT count(*) FROM portage.migration_items WHERE status = 'inserted'), "
                     '(SELECT count(*) FROM portage.legacy_mappings)', bench.calls * 100, bench.calls * 100)

    for clients in (8,) if bench.quick else (8, 32):
        def caller(name, statement, check, prepare=snapshot_tables):
            return snapshot_caller(name, statement, clients, check, prepare)

        def migrate(name, options):
            return caller(name, f"SELECT status FROM portage.migrate('bench', {document}, {user}, '{options}');", tracked,
                          snapshot_pipeline)

        title = f'W2 snapshots of 100 items, -c {clients}'
        result = bench.contest(title, None, [
            caller('untracked INSERT', f'SELECT hand.insert_snapshot({user}, {document});', rows),
            migrate('pg_portage', '{"verify": false, "keep_payload": false}'),
            caller('the same with tracking in SQL', f'SELECT hand.track_snapshot({user}, {document});', tracked_by_hand),
            migrate('verified', '{"verify": true}')])
        limits = ((0.9, 1.1), (2.0, 2.3)) if clients == 8 else ((), ())
        bench.compare(title, result, 'pg_portage', 'untracked INSERT', *limits[0])
        bench.compare('  the same', result, 'pg_portage', 'the same with tracking in SQL', *limits[1])
        bench.compare('  verified, payload kept', result, 'verified', 'untracked INSERT')


def w3(bench):
    for name, changed, every in (('unchanged', 0, None), ('1 % changed', bench.items // 100, 100)):
        old = Dataset(os.path.join(bench.server.directory, 'files'), 'old', bench.items)
        # Item 7 of 100 is never a bad one.
        new = dataset(bench, 'new', changed=lambda n: every and n % every == 7)
        with open(new.path, 'a', encoding='utf-8') as file:
            file.write('\n')  # not the same bytes as before: it is the items that are to be compared

        def check(bench):
            facts = landed(new, updated=changed, unchanged=new.rows - changed)(bench)
            facts['touched'] = bench.run("SELECT n_tup_upd, n_dead_tup FROM pg_stat_user_tables "
                                         "WHERE relid = 'app.progress'::regclass")[0]
            if facts['touched'][0] != changed:
                raise Wrong(f'{changed} rows changed, but {facts["touched"][0]} were updated')
            return facts

        title = f'W3 re-run of {bench.items:,} items, {name}'
        result = bench.contest(title, new.rows, [
            copy(new), Contestant('pg_portage', lambda bench: run_import(bench, new), check, imported(old))])
        bench.compare(title, result, 'pg_portage', 'COPY', *((1.2, 2.0) if not changed else ()))
        if isinstance(result['pg_portage'], list):
            updated, dead = result['pg_portage'][-1].facts['touched']
            bench.notes.append(f'{title}: target n_tup_upd {updated}, n_dead_tup {dead}')
        old.remove()
        new.remove()


def w4(bench):
    items = bench.items // 4
    old = Dataset(os.path.join(bench.server.directory, 'files'), 'old', items)
    new = dataset(bench, 'new', items, changed=lambda n: True)
    present = lambda bench: copy(old).act(bench)
    merge = {'on_conflict': 'merge', 'merge': {'review_count': 'greatest'}}
    greatest = lambda sql: sql.replace('= EXCLUDED.review_count', '= greatest(p.review_count, EXCLUDED.review_count)')
    for name, pipeline, edit in (('overwrite', {}, lambda sql: sql), ('merge', merge, greatest)):
        title = f'W4 {name} {items:,} existing rows'
        result = bench.contest(title, new.rows, [
            hand_written(new, 'hand-written SQL', 'by_sets.sql', edit, prepare=present),
            portage(new, prepare=present, pipeline=pipeline, check=landed(new, updated=new.rows))])
        bench.compare(title, result, 'pg_portage', 'hand-written SQL')
    old.remove()
    new.remove()


def w5_w6(bench):
    data = dataset(bench, 'sorted')

    def verified(bench):
        landed(data, inserted=data.rows)(bench)
        bench.expect('SELECT verified FROM portage.migration_runs', True)
        bench.expect("SELECT bool_and(passed), count(*) FILTER (WHERE name = 'row_hash') FROM portage.data_integrity_checks",
                     True, 1)

    def gone(bench):
        bench.expect('SELECT (SELECT count(*) FROM app.progress), (SELECT count(*) FROM portage.legacy_mappings), '
                     '(SELECT status FROM portage.migration_runs), '
                     '(SELECT sum(rolled_back)::bigint FROM portage.migration_batches), '
                     "(SELECT count(*) FROM portage.migration_items WHERE status = 'rolled_back')",
                     0, 0, 'rolled_back', data.rows, data.rows)

    def work(name, sql, check):
        return Contestant(name, lambda bench: call(bench, sql.format(run=1)), check, imported(data))

    result = bench.contest(f'W5, W6 of {bench.items:,} items', data.rows, [
        portage(data, 'the import'), work('rollback', 'CALL portage.rollback(run => {run})', gone),
        work('verify hashes', "CALL portage.verify_run({run}, 'hashes')", verified),
        work('verify source', "CALL portage.verify_run({run}, 'source')", verified)])
    bench.compare(f'W5 rollback of {bench.items:,} items', result, 'rollback', 'the import', 0.5, 1.0)
    bench.compare('W6 verify, hashes', result, 'verify hashes', 'the import')
    bench.compare('W6 verify, down to the source', result, 'verify source', 'the import')
    data.remove()


def growth(bench):
    """A tenth, the whole, and with FULL=1 ten times as much: what a row costs must not grow with their number."""
    sizes = [bench.items // 10, bench.items] + ([bench.items * 10] if bench.full else [])
    smaller = None
    for items in sizes:
        data = dataset(bench, 'growth', items)
        title = f'growth, {items:,} items'
        samples = bench.contest(title, data.rows, [portage(data)], rounds=1 if items > bench.items else None)['pg_portage']
        data.remove()
        if isinstance(samples, str):
            bench.lines.append(Line(title, '', verdict=samples))
            continue
        each = 1e6 / sorted(sample.rate for sample in samples)[len(samples) // 2]
        memory = max(sample.facts['memory_bytes'] for sample in samples) / (1 << 20)
        if smaller:
            judged = (1.25, 1.10) if items >= 10_000_000 else ()
            bench.tell(f'{title}: time per row', f'{smaller[0]:,} items', each / smaller[1], f'{each / smaller[1]:.2f}', *judged,
                       limits=('<= 1.25', '<= 1.10') if judged else ('', ''), ours=f'{each:.2f} us', theirs=f'{smaller[1]:.2f} us')
        bench.tell(f'{title}: memory of the backend', '', memory, f'{memory:.0f} MB', 200, 100, ('<= 200 MB', '<= 100 MB'))
        bench.tell(f'{title}: ledger, WAL per row', '', None, '{:.0f} B, {:.0f} B'.format(
            *(median_fact(samples, name) for name in ('ledger_bytes_per_row', 'wal_bytes_per_row'))))
        smaller = items, each


W1 = {'sorted': w1_sorted, 'shuffled': w1_shuffled, 'csv': w1_csv, 'foreign_key': w1_foreign_key, 'wide': w1_wide}
ALL = {**{f'W1-{name}': work for name, work in W1.items()}, 'W2': w2, 'W3': w3, 'W4': w4, 'W5': w5_w6, 'growth': growth}
QUICK = ['W1-sorted', 'W1-shuffled', 'W1-csv', 'W2', 'W3', 'W5', 'growth']


def chosen(names):
    """By name; W1 is all that begins with W1, and W6 is measured with W5."""
    for name in names:
        found = [key for key in ALL if key == ('W5' if name == 'W6' else name) or key.startswith(name + '-')]
        if not found:
            raise SystemExit(f'there is no workload {name}; there are {" ".join(ALL)}')
        yield from found
