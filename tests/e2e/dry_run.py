#!/usr/bin/python3
"""What a dry run says is what the import does: 100,000 items with planted defects, duplicates within and between
batches, rows that are there already (identical, different, migrated before, changed since) and foreign keys, item by
item; target, mappings and before-images are untouched. Then a dry run that is killed and resumed, and validate(), which
predicts all that no trigger and no deferred constraint decides."""

import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
import disturbed  # noqa: E402
from defects import TARGET, Dataset  # noqa: E402
from portage_server import Server, check, finish  # noqa: E402
from sessions import GATES, PATIENT, Gate, Session, left  # noqa: E402

SEED = int(os.environ.get('PORTAGE_SEED', '20240229'))
OUTCOMES = ('SELECT ordinal, status, legacy_id, rule, sqlstate, column_name, message '
            'FROM portage.migration_items WHERE run_id = %s ORDER BY ordinal')


def rows(connection, sql, *arguments):
    with connection.cursor() as cursor:
        cursor.execute(sql, arguments)
        return cursor.fetchall()


def value(connection, sql, *arguments):
    return rows(connection, sql, *arguments)[0][0]


def checksum(connection):
    """Everything that a dry run must leave as it is: the rows in their versions, mappings, before-images."""
    return rows(connection, """
        SELECT (SELECT md5(string_agg(p::text || p.xmin::text || p.ctid::text, '|' ORDER BY p.id)) FROM app.progress p),
               (SELECT md5(string_agg(m::text, '|' ORDER BY m::text)) FROM portage.legacy_mappings m),
               (SELECT md5(string_agg(u::text, '|' ORDER BY u::text)) FROM portage.migration_undo u)""")


def imported(connection, data, **options):
    import json
    return value(connection, 'CALL portage.import(%s, file => %s, scope => %s, options => %s)', data.form, data.path,
                 'anna', json.dumps(options))


def differences(connection, predicted, real):
    """Messages name keys that a sequence gave: these are of no account."""
    one, other = rows(connection, OUTCOMES, predicted), rows(connection, OUTCOMES, real)
    wrong = [f'predicted {a}, became {b}' for a, b in zip(one, other) if a != b]
    if len(one) != len(other):
        wrong.append(f'{len(one)} items predicted, {len(other)} read')
    return wrong


def repeat_lines(path, generator):
    """Two hundred items once more, right behind themselves or a little later; half of them with another id."""
    with open(path, 'rb') as file:
        lines = file.read().split(b'\n')
    for place in sorted(generator.sample(range(len(lines) - 400), 200), reverse=True):
        again = lines[place]
        if generator.random() < 0.5:
            again = again.replace(b'"id":"v-', b'"id":"w-', 1)
        lines.insert(place + generator.choice((1, 1, 5, 300)), again)
    with open(path, 'wb') as file:
        file.write(b'\n'.join(lines))


def prepare(connection, data, generator, definition):
    """Rows that are there already: migrated before (a fifth of the items, some of them changed since, in the source or
    in the target), foreign ones with the same match key, and foreign ones that are identical."""
    value(connection, "SELECT portage.create_pipeline(%s, 'app.progress', %s)", data.form, definition)
    imported(connection, data, limit=data.items // 5)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE app.progress SET note = 'edited' WHERE id % 50 = 0")
        cursor.execute('DELETE FROM app.progress WHERE id % 301 = 0')
        for n in generator.sample(range(data.items // 4, data.items), 300):
            item = data.item(n)
            note = item['note'] if n % 2 else 'somebody else'
            cursor.execute('INSERT INTO app.progress (user_id, word_id, lemma, review_count, correct_count, streak, accuracy, '
                           'last_reviewed_at, due_on, ease_factor, course_id, note) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, '
                           '%s, %s, %s, %s) ON CONFLICT (user_id, word_id) DO NOTHING',
                           ('anna', item['word_id'], item['lemma'], item['review_count'], item['correct_count'],
                            item['streak'], item['correct_count'] // item['review_count'], item['last_reviewed_at'],
                            item['due_on'], item['ease'], item['course'], note))
    # the source goes on as well: every 40th item has one more of a streak
    with open(data.path, 'rb') as file:
        text = file.read()
    if data.form == 'ndjson':
        text = b'\n'.join(line.replace(b'"streak":1,', b'"streak":2,') if n % 40 == 0 else line
                          for n, line in enumerate(text.split(b'\n')))
    with open(data.path, 'wb') as file:
        file.write(text)


def main():
    print(f'seed {SEED}')
    generator = random.Random(SEED)
    with Server(**PATIENT) as server, server.connect() as connection:
        server.psql('CREATE EXTENSION pg_portage;' + TARGET + GATES)
        for form, items, policy in (('ndjson', 100000, 'overwrite'), ('csv', 20000, 'skip')):
            data = Dataset(form, items, SEED, server.directory, items // 100)
            with connection.cursor() as cursor:
                cursor.execute('TRUNCATE app.progress')
            prepare(connection, data, generator, data.definition(on_conflict=policy))
            if form == 'ndjson':
                repeat_lines(data.path, generator)
            before = checksum(connection)
            counts = value(connection, 'SELECT n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables '
                           "WHERE relname = 'courses'")
            with connection.cursor() as cursor:
                cursor.execute("SELECT portage.open_run(%s, 'anna')", (form,))
                validated = cursor.fetchone()[0]
                cursor.execute('SELECT portage.attach_file(%s, %s)', (validated, data.path))
                cursor.execute('SELECT portage.validate(%s)', (validated,))
                validation = cursor.fetchone()[0]
                cursor.execute('SELECT portage.cancel(%s)', (validated,))
            check(f'{form}: validate() leaves no trace', checksum(connection) == before)
            dry = imported(connection, data, dry_run=True, batch_size=1999)
            check(f'{form}: a dry run leaves target, mappings and before-images as they were', checksum(connection) == before)
            check(f'{form}: it has completed, and its notes are gone',
                  rows(connection, 'SELECT status, dry_run FROM portage.migration_runs WHERE id = %s', dry) ==
                  [('completed', True)] and value(connection, 'SELECT count(*) FROM portage.predictions') == 0)
            real = imported(connection, data)
            wrong = differences(connection, dry, real)
            check(f'{form}: every item of {items} became what was predicted', not wrong,
                  f'{len(wrong)} differ\n' + '\n'.join(wrong[:20]))
            kinds = rows(connection, "SELECT DISTINCT coalesce(rule, status) FROM portage.migration_items WHERE run_id = %s", real)
            check(f'{form}: of every kind there is something to predict',
                  {('duplicate',), ('foreign_key',), ('unique',), ('trigger',), ('inserted',), ('unchanged',)} <= set(kinds),
                  kinds)
            status = rows(connection, 'SELECT read, inserted, updated, unchanged, skipped, invalid, failed FROM portage.status(%s)', real)[0]
            print(f'{form}: read, inserted, updated, unchanged, skipped, invalid, failed: {status}')
            outcomes = dict(zip(('read', 'inserted', 'updated', 'unchanged', 'skipped', 'invalid', 'failed'), status))
            check(f'{form}: something of each outcome that there can be', all(
                outcomes.values()) or {k for k, v in outcomes.items() if not v} == {
                    'skipped' if policy == 'overwrite' else 'updated'}, status)
            # validate() asks no trigger, and of unique constraints only the one that "match" names: what others reject,
            # it counts as inserted
            late, unique, told = value(connection, "SELECT count(*) FROM portage.rejects WHERE run_id = %s AND rule = 'trigger'", real), \
                value(connection, "SELECT count(*) FROM portage.rejects WHERE run_id = %s AND rule = 'unique'", real), validation['counts']
            unique -= sum(issue['count'] for issue in validation['issues'] if issue['rule'] == 'unique')
            check(f'{form}: validate() predicts all that neither a trigger nor another unique constraint decides',
                  validation['ready'] and unique >= 0 and
                  (told['read'], told['inserted'] - late - unique, told['updated'], told['unchanged'], told['skipped'],
                   told['invalid'] + unique, told['failed'] + late) == status, f'{validation} and {status}')
            check(f'{form}: nobody else was touched', counts == value(
                connection, "SELECT n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE relname = 'courses'"))
        interrupted(server, connection)
    finish()


def interrupted(server, connection):
    """A dry run that is killed goes on where it stood, and still knows what it predicted before."""
    data = Dataset('ndjson', 30000, SEED + 1, server.directory, 300)
    with connection.cursor() as cursor:
        cursor.execute('TRUNCATE app.progress')
        cursor.execute("SELECT portage.replace_pipeline('ndjson', %s)", (disturbed.definition(data),))
        cursor.execute("SELECT portage.open_run('ndjson', 'berta', '{\"dry_run\": true, \"batch_size\": 500}')")
        run = cursor.fetchone()[0]
        cursor.execute('SELECT portage.attach_file(%s, %s)', (run, data.path))
    good = next(n for n in range(10250, 10750) if n not in data.plan)
    with Session(server) as worker, Session(server) as other, Gate(server, f'word {good}') as gate:
        pending = worker.begin('CALL portage.run(%s)', run)
        gate.wait_for(worker)
        other.rows('SELECT pg_terminate_backend(%s)', worker.pid)
        left(other, worker.pid)
        pending.wait()
    check('a dry run that was killed is resumable',
          value(connection, 'SELECT status FROM portage.status(%s)', run) == 'running' and
          value(connection, 'SELECT count(*) > 0 FROM portage.predictions WHERE run_id = %s', run))
    with connection.cursor() as cursor:
        cursor.execute('CALL portage.run(%s)', (run,))
    real = value(connection, "CALL portage.import('ndjson', file => %s, scope => 'berta')", data.path)
    wrong = differences(connection, run, real)
    check('and ends with the predictions of an undisturbed one', not wrong, f'{len(wrong)}\n' + '\n'.join(wrong[:10]))


if __name__ == '__main__':
    main()
