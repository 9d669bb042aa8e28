#!/usr/bin/python3
"""Twenty thousand items with planted defects of some twenty kinds, as NDJSON, JSON document and CSV: each defect is one
reject that names its line, its bytes, the rule or SQLSTATE and the column; everything else landed, with its own values.
Then the same file once more: nothing changes, and the same items are rejected."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from defects import TARGET, Dataset, difference, kinds_of, rejects_of  # noqa: E402
from portage_server import Server, check, finish  # noqa: E402

ITEMS, DEFECTS = 20000, 200
SEED = int(os.environ.get('PORTAGE_SEED', '20240229'))


def value(cursor, sql, *arguments):
    cursor.execute(sql, arguments)
    return cursor.fetchone()[0]


def imported(connection, data, scope, options='{}'):
    """Runs the import; gives the run's id."""
    with connection.cursor() as cursor:
        return value(cursor, 'CALL portage.import(%s, file => %s, scope => %s, options => %s)', data.form, data.path,
                     scope, options)


def counters(connection, run):
    with connection.cursor() as cursor:
        cursor.execute('SELECT status, read, inserted, updated, unchanged, skipped, invalid, failed '
                       'FROM portage.status(%s)', (run,))
        return cursor.fetchone()


def wrong_values(connection, data, scope):
    """Good items are computed from their number: compares every row with what it must be."""
    bad = {d['ordinal'] for d in data.planted}
    wrong = []
    with connection.cursor() as cursor:
        cursor.execute('SELECT m.ordinal, m.legacy_id, p.word_id, p.lemma, p.review_count, p.correct_count, p.streak, '
                       "to_char(p.last_reviewed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), "
                       'p.due_on::text, p.ease_factor, p.course_id, p.note, p.accuracy '
                       'FROM portage.legacy_mappings m JOIN app.progress p ON p.id = m.target_key::bigint '
                       'JOIN portage.pipelines l ON l.id = m.pipeline_id '
                       'WHERE l.name = %s AND m.scope = %s AND p.user_id = %s', (data.form, scope, scope))
        seen = 0
        for ordinal, *row in cursor:
            seen += 1
            item = data.item(ordinal)
            good = [item[k] for k in ('id', 'word_id', 'lemma', 'review_count', 'correct_count', 'streak',
                                      'last_reviewed_at', 'due_on', 'ease', 'course', 'note')]
            good.append(item['correct_count'] // item['review_count'])
            if ordinal in bad or row != good:
                wrong.append(f'{ordinal}: {row} instead of {good}')
    if seen != data.items - len(bad):
        wrong.append(f'{seen} rows')
    return wrong[:5]


def main():
    print(f'seed {SEED}')
    with Server() as server, server.connect() as connection:
        server.psql('CREATE EXTENSION pg_portage;' + TARGET)
        for form in ('ndjson', 'json', 'csv'):
            data = Dataset(form, ITEMS, SEED, server.directory, DEFECTS)
            check(f'{form}: at least ten kinds of defects are planted',
                  len({d['kind'] for d in data.planted}) == len(kinds_of(form)) >= 10 and len(data.planted) == DEFECTS)
            with connection.cursor() as cursor:
                cursor.execute("SELECT portage.create_pipeline(%s, 'app.progress', %s)", (form, data.definition()))
                cursor.execute('TRUNCATE app.progress')
            run = imported(connection, data, form)
            found = difference(data.planted, rejects_of(connection, run))
            check(f'{form}: each defect is one reject with its place, cause and column', not found, '\n'.join(found))
            counts = counters(connection, run)
            check(f'{form}: all others landed', counts[:3] == ('completed', ITEMS, ITEMS - DEFECTS), counts)
            check(f'{form}: no item was skipped or changed', sum(counts[6:8]) == DEFECTS and sum(counts[3:6]) == 0, counts)
            found = wrong_values(connection, data, form)
            check(f'{form}: every row has the values of its item', not found, '\n'.join(found))
            with connection.cursor() as cursor:
                check(f'{form}: every item is one row of migration_items',
                      value(cursor, 'SELECT count(*) = %s AND count(DISTINCT ordinal) = %s AND min(ordinal) = 1 AND '
                            'max(ordinal) = %s FROM portage.migration_items WHERE run_id = %s', ITEMS, ITEMS, ITEMS, run))
                check(f'{form}: the raw input of each defect is kept',
                      raw_is_kept(cursor, data, run))
            # Other boundaries of batches, the same rejects.
            run = imported(connection, data, form + ' again', '{"batch_size": 777}')
            planted = [d for d in data.planted if d['kind'] != 'deferred_unique']
            tickets = {d['ordinal'] for d in data.planted} - {d['ordinal'] for d in planted}
            tickets |= {d['twin'] for d in data.planted if d['kind'] == 'deferred_unique'}
            found = difference(planted, [r for r in rejects_of(connection, run) if r['ordinal'] not in tickets])
            check(f'{form}: for another scope in batches of 777 the same rejects', not found, '\n'.join(found))
            check(f'{form}: and, as tickets are unique over all scopes, these',
                  {r['ordinal'] for r in rejects_of(connection, run) if r['rule'] == 'unique'} == tickets)
            # What is migrated is known: incremental.
            run = imported(connection, data, form, '{"batch_size": 1500}')
            counts = counters(connection, run)
            check(f'{form}: the same file again changes nothing',
                  counts[:5] == ('completed', ITEMS, 0, 0, ITEMS - DEFECTS), counts)
            found = difference(data.planted, rejects_of(connection, run))
            check(f'{form}: and rejects the same items for the same reasons', not found, '\n'.join(found))
            os.unlink(data.path)
    finish()


def raw_is_kept(cursor, data, run):
    cursor.execute('SELECT ordinal, portage.reject_raw(%s, ordinal) FROM portage.rejects WHERE run_id = %s', (run, run))
    raw = {ordinal: bytes(content) for ordinal, content in cursor.fetchall()}
    with open(data.path, 'rb') as file:
        for defect in data.planted:
            file.seek(defect['byte_offset'])
            if raw.get(defect['ordinal']) != file.read(defect['byte_length']):
                return False
    return True


if __name__ == '__main__':
    main()
