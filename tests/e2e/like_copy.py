#!/usr/bin/python3
"""What a text means is what COPY makes of it in the session that created the pipeline, whoever runs it: every type that
PostgreSQL ships, and generated CSV files, under odd settings; the run goes on in a session with other ones. Then the settings
that a definition says or inherits, queries, expressions, decisions, images, and dates that can be read in two ways."""

import csv
import io
import json
import os
import random
import sys

import psycopg2

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import Server, check, finish  # noqa: E402
from sessions import Session, ndjson  # noqa: E402

SEED = int(os.environ.get('PORTAGE_SEED') or random.randrange(1 << 32))
FILES = int(os.environ.get('PORTAGE_FILES', '200'))

# Sessions that somebody may have: each is a list of SETs.
SESSIONS = [
    {},
    {'datestyle': 'ISO, DMY', 'intervalstyle': 'sql_standard', 'timezone': 'Asia/Kolkata', 'xmloption': 'document'},
    {'datestyle': 'German', 'array_nulls': 'off', 'extra_float_digits': '0', 'bytea_output': 'escape', 'timezone': 'CET'},
    {'datestyle': 'SQL, YMD', 'intervalstyle': 'iso_8601', 'timezone_abbreviations': 'Australia', 'timezone': 'Australia/Sydney'},
    {'datestyle': 'Postgres, MDY', 'intervalstyle': 'postgres_verbose', 'timezone_abbreviations': 'India', 'timezone': '-03:30',
     'default_text_search_config': 'simple', 'quote_all_identifiers': 'on', 'xmlbinary': 'hex'},
]
if os.environ.get('PORTAGE_LOCALE'):  # one whose money is not that of C
    SESSIONS[1]['lc_monetary'] = os.environ['PORTAGE_LOCALE']
# By whom the runs are done.
RUNNER = {'datestyle': 'SQL, MDY', 'intervalstyle': 'postgres_verbose', 'timezone': 'America/Caracas', 'array_nulls': 'off',
          'xmloption': 'document', 'extra_float_digits': '-3', 'bytea_output': 'escape', 'timezone_abbreviations': 'Default'}

DATES = ['01/02/2014', '31/12/2012', '12/31/2012', '1.2.2014', '03-04-05', '2014-02-01', '20140201', 'Jan 2, 2014', '2 Jan 14', 'epoch',
         '-infinity', '0044-03-15 BC', '2014/13/01', '99/1/8', '', '2024-02-30']
TIMES = ['04:05:06', '040506', '04:05 PM', '24:00:00', '04:05:06.1234567', '25:00', '']
STAMPS = ['01/02/2014 10:11:12', '2014-02-01T10:11:12', '2014-02-01 10:11:12.5', '13.02.2014 10:11', '2014-02-01 10:11:12+05:30',
          '01/02/2014 10:11 EST', '01/02/2014 10:11 IST', '03-04-05 06:07', 'Feb 1 10:11:12 2014 PST', 'infinity', '2014-02-01 10:11:12 Europe/Helsinki',
          '2014-07-01 02:30', '2014-02-29 00:00', '']
NUMBERS = ['0', '-1', '42', '007', ' 7 ', '+5', '32768', '2147483648', '9223372036854775808', '1e3', '1.5', '-0', 'NaN', 'Infinity', '.5', '5.',
           '1_000', '0x1F', '', 'x', '12345678901234567.123456789', '1e400', '1e-400', '1,5']
INTERVALS = ['1 day 2 hours', '-1 2:03:04', '1-2', '-1-2 +3 -4:05:06', 'P1Y2M3DT4H5M6S', '@ 1 day ago', '24:00', '1:30', '-1 day 2:03', '90', '', 'x']
LITERALS = {
    'bool': ['t', 'f', 'true', 'FALSE', 'yes', 'off', '1', '0', ' t ', 'tr', 'maybe', ''], 'bytea': [r'\x00ff', r'\000a\\b', r'abc', r'\xzz', ''],
    'char': ['a', 'ab', '', 'é'], 'name': ['a', 'n' * 70, ''], 'text': ['', ' a ', 'é"\'', '\\N', 'NULL'], 'varchar': ['a', ''], 'bpchar': ['a', 'a  ', ''],
    'xml': ['<a/>', '<a/><b/>', 'text', '<a>', '<!DOCTYPE a><a/>', ''], 'json': ['{"a": 1}', '"x"', 'null', '{', ''],
    'jsonb': ['{"a": 1.50, "a": 2}', '"x"', 'null', '{', '1e5'], 'jsonpath': ['$.a', '$[*] ? (@ > 1)', 'x y'],
    'money': ['1', '-1.234', '$1,234.50', '(5)', '1.234,50', 'x', ''],
    'date': DATES, 'time': TIMES, 'timetz': [*TIMES, '04:05:06+2', '04:05 EST', '04:05:06 IST'], 'timestamp': STAMPS, 'timestamptz': STAMPS,
    'interval': INTERVALS, 'uuid': ['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{A0EEBC999C0B4EF8BB6D6BB9BD380A11}', 'x'],
    'point': ['1,2', '(1,2)', 'x'], 'line': ['{1,2,3}'], 'lseg': ['[(1,2),(3,4)]'], 'box': ['1,2,3,4'], 'path': ['[(1,2),(3,4)]', '((1,2))'],
    'polygon': ['((1,2),(3,4))'], 'circle': ['<(1,2),3>', '<(1,2),-3>'], 'cidr': ['10/8', '10.1.2.3/8', '::1'], 'inet': ['10.1.2.3/8', '::1', 'x'],
    'macaddr': ['08:00:2b:01:02:03', '08002b010203', 'x'], 'macaddr8': ['08:00:2b:01:02:03', '08002b:0102030405'],
    'bit': ['1', '0', 'x1f', '2', ''], 'varbit': ['1011', 'x1f', ''], 'tsvector': ["a:1A b", "'it''s'", ''], 'tsquery': ['a & !b', 'a b', ''],
    'oid': ['1', '-1', 'x'], 'tid': ['(1,2)', 'x'], 'xid': ['1'], 'cid': ['1'], 'xid8': ['1'], 'pg_lsn': ['16/B374D848', 'x'],
    'oidvector': ['1 2', ''], 'int2vector': ['1 2', ''], 'pg_snapshot': ['10:20:10,14', 'x'], 'txid_snapshot': ['10:20:10,14'],
    'refcursor': ['c'], 'aclitem': ['postgres=arw/postgres', 'x'],
    'regclass': ['pg_class', '1259', 'nothing'], 'regtype': ['int4', 'integer[]', 'x'], 'regproc': ['now', 'x'], 'regprocedure': ['abs(int4)'],
    'regoper': ['pg_catalog.||/'], 'regoperator': ['+(int4,int4)'], 'regrole': ['postgres', 'x'], 'regnamespace': ['pg_catalog'],
    'regconfig': ['english', 'x'], 'regdictionary': ['simple'], 'regcollation': ['"C"'],
    'int4range': ['[1,3)', '(1,3]', 'empty', '[3,1]'], 'int8range': ['[1,3)'], 'numrange': ['[1.0,3.5)'], 'daterange': ['[01/02/2014,03/04/2014]', '[2014-01-01,)'],
    'tsrange': ['[01/02/2014 10:00,03/04/2014 11:00]'], 'tstzrange': ['[01/02/2014 10:00 IST,03/04/2014 11:00]'],
    'int4multirange': ['{[1,3),[5,7)}'], 'datemultirange': ['{[01/02/2014,03/04/2014]}'], 'nummultirange': ['{}'],
}
for number in ('int2', 'int4', 'int8', 'float4', 'float8', 'numeric'):
    LITERALS[number] = NUMBERS


def settings(session, values):
    for name, value in values.items():
        session.rows('SELECT set_config(%s, %s, false)', name, value)


def csv_text(rows, **options):
    out = io.StringIO()
    csv.writer(out, lineterminator='\n', **options).writerows(rows)
    return out.getvalue()


def copied(session, table, text, options=''):
    """None, or the SQLSTATE that COPY raises."""
    with session.connection.cursor() as cursor:
        try:
            cursor.copy_expert(f'COPY {table} FROM STDIN (FORMAT csv, HEADER{options})', io.StringIO(text))
        except psycopg2.Error as error:
            return error.pgcode
    return None


def of_type(maker, runner, number, type_name, literals):
    """All literals at once by the pipeline, each by COPY for itself; both as text."""
    maker.rows(f'DROP TABLE IF EXISTS v, c; CREATE TABLE v (id int PRIMARY KEY, v {type_name}); CREATE TABLE c (LIKE v)')
    refused = {}
    for n, literal in enumerate(literals):
        error = copied(maker, 'c', f'id,v\n{n},"' + literal.replace('"', '""') + '"\n')
        if error:
            refused[n] = error
    maker.rows('SELECT portage.create_pipeline(%s, %s, %s)', f'{number} {type_name}', 'v', json.dumps(
        {'format': 'csv', 'legacy_id': 'id', 'columns': {'id': 'id', 'v': 'v'}}))
    payload = csv_text([('id', 'v'), *enumerate(literals)], quoting=csv.QUOTE_ALL)
    run = runner.value('SELECT run_id FROM portage.migrate(%s, %s)', f'{number} {type_name}', payload)
    rejects = {int(i): code for i, code in runner.rows('SELECT legacy_id, sqlstate FROM portage.rejects WHERE run_id = %s', run)}
    look = 'SELECT id, v::text, pg_typeof(v)::text FROM {} ORDER BY id'
    found, wanted = maker.rows(look.format('v')), maker.rows(look.format('c'))
    return [] if (found, rejects) == (wanted, refused) else \
        [f'{type_name}: {[r for r in found if r not in wanted]} instead of {[r for r in wanted if r not in found]}, '
         f'refused {set(rejects.items()) ^ set(refused.items())}']


def every_type(server, number, session):
    with Session(server) as maker, Session(server) as runner:
        settings(runner, RUNNER)
        settings(maker, session)
        wrong, types = [], 0
        for name, array in maker.rows("""SELECT typname, (SELECT a.typname FROM pg_type a WHERE a.oid = t.typarray) FROM pg_type t
                 WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm') AND typcategory <> 'A'
                   AND typname NOT IN ('gtsvector', 'pg_node_tree', 'pg_ndistinct', 'pg_dependencies', 'pg_mcv_list',
                                       'pg_brin_bloom_summary', 'pg_brin_minmax_multi_summary') ORDER BY 1"""):
            literals = LITERALS.get(name, ['1', '', 'x'])
            types += 1
            quoted = f'"{name}"'
            wrong += of_type(maker, runner, number, quoted, literals)
            if array:
                elements = ['"' + l.replace('\\', '\\\\').replace('"', '\\"') + '"' for l in literals]
                wrong += of_type(maker, runner, number, f'{quoted}[]', [
                    '{}', '{NULL}', '{null,' + elements[0] + '}', *('{' + e + '}' for e in elements), '{' + elements[0], ''])
        check(f'session {number}: {types} types and their arrays are as COPY has them', not wrong and types > 70,
              '; '.join(wrong[:6]))


def generated(server, source):
    """Records are generated one by one, so that COPY can be asked about each."""
    kinds = [k for k in LITERALS if not k.startswith('reg') and k not in ('aclitem', 'xml', 'refcursor', 'tid', 'xid', 'cid')]
    wrong = []
    for number in range(FILES):
        session = source.choice(SESSIONS)
        with Session(server) as maker, Session(server) as runner:
            settings(runner, RUNNER)
            settings(maker, session)
            columns = [(f'c {n}' if source.random() < 0.2 else f'c{n}', source.choice(kinds)) for n in range(source.randrange(1, 8))]
            ddl = ', '.join(f'"{name}" "{kind}"' for name, kind in columns)
            maker.rows(f'DROP TABLE IF EXISTS v, c; CREATE TABLE v (id int PRIMARY KEY, {ddl}); CREATE TABLE c (LIKE v)')
            delimiter, quote = source.choice(',;|\t'), source.choice('"\'')
            null = source.choice([None, 'NULL', '-', '\\N'])
            options = f", DELIMITER '{delimiter}', QUOTE '{quote * 2 if quote == chr(39) else quote}'" + (f", NULL '{null}'" if null else '')
            end = source.choice(['\n', '\r\n'])

            def field(text):
                if text is None:
                    return null or ''
                plain = not any(c in text for c in delimiter + quote + '\r\n') and text not in ('', null, '\\.')
                return text if plain and source.random() < 0.7 else quote + text.replace(quote, quote * 2) + quote

            header = delimiter.join(field(name) for name in ['id', *(name for name, _ in columns)]) + end
            records, refused = [], {}
            for n in range(20):
                values = [None if source.random() < 0.15 else source.choice(LITERALS[kind]) for _, kind in columns]
                if source.random() < 0.05:
                    values.append('one too many')
                elif source.random() < 0.05:
                    values.pop()
                records.append(delimiter.join(field(v) for v in [str(n), *values]) + end)
                error = copied(maker, 'c', header + records[-1], options)
                if error:  # a row with other fields than the header is that, whatever else is wrong
                    refused[n] = '22P04' if len(values) != len(columns) else error
            name = f'file {number}'
            maker.rows('SELECT portage.create_pipeline(%s, %s, %s)', name, 'v', json.dumps({
                'format': 'csv', 'legacy_id': 'id', 'columns': {c: c for c in ['id', *(c for c, _ in columns)]},
                'csv': {'delimiter': delimiter, 'quote': quote, **({'null': null} if null else {})}}))
            run = runner.value('SELECT run_id FROM portage.migrate(%s, %s)', name, header + ''.join(records))
            rejects = {o - 1: code for o, code in runner.rows('SELECT ordinal, sqlstate FROM portage.rejects WHERE run_id = %s', run)}
            look = 'SELECT {0}::text FROM {0} ORDER BY id'
            found, wanted = maker.rows(look.format('v')), maker.rows(look.format('c'))
            if (found, rejects) != (wanted, refused):
                wrong.append(f'{name} {session} {columns}: {[r for r in found if r not in wanted]} instead of '
                             f'{[r for r in wanted if r not in found]}, refused {set(rejects.items()) ^ set(refused.items())}')
    check(f'{FILES} generated files are as COPY has them', not wrong, f'{len(wrong)}: ' + '; '.join(wrong[:3]))


def pinned(server):
    """What a definition says, what the session said, and what a new version inherits."""
    german, english = Session(server), Session(server)
    settings(german, {'datestyle': 'ISO, DMY', 'timezone': 'Europe/Berlin', 'intervalstyle': 'sql_standard'})
    settings(english, {'datestyle': 'ISO, MDY', 'timezone': 'UTC'})
    german.rows('CREATE TABLE days (id int PRIMARY KEY, d date, e date, at timestamptz, i interval)')
    plain = {'format': 'csv', 'legacy_id': 'id', 'columns': {
        'id': 'id', 'd': 'd', 'e': {'sql': "(item->>'d')::date"}, 'at': 'at', 'i': 'i'}, 'on_conflict': 'overwrite'}
    payload = 'id,d,at,i\n1,01/02/2014,01/02/2014 10:00,-1 2:03:04\n2,31/12/2012,31/12/2012 10:00,1-2\n'
    german.rows('SELECT portage.create_pipeline(%s, %s, %s)', 'days', 'days', json.dumps(plain))
    look = 'SELECT id, d::text, e::text, at AT TIME ZONE \'UTC\', i::text FROM days ORDER BY id'

    def imported(session, text=payload, name='days'):
        session.rows('TRUNCATE days')
        run = session.value('SELECT run_id FROM portage.migrate(%s, %s, options => %s)', name, text, '{"incremental": false}')
        with Session(server) as plain_session:
            return run, [tuple(str(v) for v in row) for row in plain_session.rows(look)]

    expected = [('1', '2014-02-01', '2014-02-01', '2014-02-01 09:00:00', '-1 days -02:03:04'),
                ('2', '2012-12-31', '2012-12-31', '2012-12-31 09:00:00', '1 year 2 mons')]
    run, found = imported(english)
    check('a text means what it meant where the pipeline was created', found == expected, str(found))
    said = [line for line, in english.rows('SELECT * FROM portage.summary(%s)', run)]
    check('a date that can be read in two ways is told', any('read in two ways: 2; they were read as DMY' in line for line in said), str(said))
    told = english.rows("SELECT text FROM portage.recommendations(%s) WHERE code = 'ambiguous_dates'", run)
    check('and recommended to be settled', len(told) == 1 and 'DMY' in told[0][0], str(told))
    check('the source says the same', english.value("SELECT bool_and(passed) FROM portage.verify(%s, 'source')", run) in (True, None))
    english.rows('SELECT portage.replace_pipeline(%s, %s)', 'days', json.dumps(plain))
    check('a new version inherits the settings', imported(english)[1] == expected)
    english.rows('SELECT portage.replace_pipeline(%s, %s)', 'days', json.dumps({**plain, 'datestyle': 'MDY'}))
    run, found = imported(german, 'id,d,at,i\n1,01/02/2014,2014-01-02 10:00,1 day\n')
    check('unless it says otherwise', found[0][1:3] == ('2014-01-02', '2014-01-02'), str(found))
    check('what the definition says is not told', not german.rows("SELECT 1 FROM portage.recommendations(%s) WHERE code = 'ambiguous_dates'", run))
    english.rows('SELECT portage.replace_pipeline(%s, %s)', 'days', json.dumps({**plain, 'datestyle': 'YMD', 'settings': {'intervalstyle': 'postgres'}}))
    run, found = imported(german, 'id,d,at,i\n1,14-02-01,2014-01-02 10:00,-1 2:03:04\n')
    check('the settings of a definition', found[0][1] == '2014-02-01' and found[0][4] == '-1 days +02:03:04', str(found))
    for definition, path in (({'datestyle': 'DMX'}, 'datestyle'), ({'settings': {'intervalstyle': 'odd'}}, 'settings.intervalstyle'),
                             ({'settings': {'work_mem': '1MB'}}, 'settings.work_mem'), ({'settings': {'datestyle': 'DMY'}}, 'settings.datestyle'),
                             ({'settings': {'lc_monetary': 'no_where'}}, 'settings.lc_monetary')):
        error = english.error('SELECT portage.replace_pipeline(%s, %s)', 'days', json.dumps({**plain, **definition}))
        check(f'{path} is refused', error is not None and error.pgcode == 'PZ001' and f'at {path}' in error.diag.message_detail, str(error))
    # A background worker has no session's settings at all.
    german.rows('SELECT portage.create_pipeline(%s, %s, %s)', 'days 2', 'days', json.dumps(plain))
    german.rows('TRUNCATE days')
    run = german.value("SELECT portage.open_run('days 2')")
    german.rows('SELECT portage.submit(%s, %s)', run, payload)
    german.rows('SELECT portage.start(%s)', run)
    german.rows('CALL portage.wait(%s)', run)
    with Session(server) as plain_session:
        found = [tuple(str(v) for v in row) for row in plain_session.rows(look)]
    check('in a background worker as well', found == expected, str(found))
    german.close()
    english.close()


def queries(server):
    """A query is read as in the session whose pipeline it feeds: its texts, and what becomes of its values."""
    german, english = Session(server), Session(server)
    settings(german, {'datestyle': 'ISO, DMY', 'timezone': 'Europe/Berlin', 'intervalstyle': 'sql_standard', 'extra_float_digits': '0'})
    german.rows("""CREATE TABLE old (id int PRIMARY KEY, t text, i interval, f float8, at timestamptz, m money, a text[]);
                   INSERT INTO old VALUES (1, '01/02/2014', '-1 day -2:03:04', 0.1::float8 + 0.2, '2014-02-01 10:00', 1234.5, ARRAY['NULL', NULL])""")
    german.rows('CREATE TABLE new (id int PRIMARY KEY, d date, i interval, f float8, at timestamptz, m money, a text[])')
    german.rows('SELECT portage.create_pipeline(%s, %s, %s)', 'old', 'new', json.dumps(
        {'format': 'rows', 'legacy_id': 'id', 'columns': {c: c for c in ('id', 'd', 'i', 'f', 'at', 'm', 'a')}}))
    settings(english, {'array_nulls': 'off', 'intervalstyle': 'iso_8601', 'extra_float_digits': '-5'})
    for snapshot in (False, True):
        for session in (german, english):
            session.rows('TRUNCATE new')
            run = session.value("SELECT portage.open_run('old', %s)", f'{snapshot} {session is german}')
            session.rows('SELECT portage.attach_query(%s, %s, key => %s, snapshot => %s)', run,
                         'SELECT id, t::date AS d, i, f, at, m, a FROM old', None if snapshot else ['id'], snapshot)
            session.rows('CALL portage.run(%s)', run)
            same = session.value("""SELECT n.d = '2014-02-01' AND (n.i, n.f, n.at, n.m, n.a) IS NOT DISTINCT FROM (o.i, o.f, o.at, o.m, o.a)
                                           AND n.i::text = o.i::text FROM new n JOIN old o USING (id)""")
            check(f'a query, snapshot {snapshot}, read by {"its own" if session is german else "another"} session', same is True,
                  str(session.rows('SELECT new::text FROM new')))
    german.close()
    english.close()


def remembered(server):
    """What the ledger keeps as text returns as it was, whatever the session."""
    one, other = Session(server), Session(server)
    settings(one, SESSIONS[2])
    settings(other, {**SESSIONS[1], 'array_nulls': 'off', **({'lc_monetary': os.environ['PORTAGE_LOCALE']} if os.environ.get('PORTAGE_LOCALE') else {})})
    one.rows("""CREATE TABLE kept (id int PRIMARY KEY, m money, a text[], x xml, d date, n text);
                INSERT INTO kept VALUES (1, 1234.5, ARRAY[NULL, 'NULL'], '<a/><b/>', '2014-02-01', NULL)""" if SESSIONS[2].get('xmloption') != 'document' else '')
    before = one.rows('SELECT kept::text FROM kept')
    one.rows('SELECT portage.create_pipeline(%s, %s, %s)', 'kept', 'kept', json.dumps(
        {'format': 'ndjson', 'legacy_id': 'id', 'on_conflict': 'merge', 'match': 'id', 'columns': {c: c for c in ('id', 'm', 'a', 'd', 'n')}}))
    run = one.value('SELECT run_id FROM portage.migrate(%s, %s)', 'kept', ndjson([{'id': 1, 'm': '2', 'a': ['x'], 'd': '03.04.2015', 'n': None}]))
    other.rows('UPDATE kept SET d = \'2020-01-01\'')
    other.rows('SELECT portage.migrate(%s, %s, options => %s)', 'kept', ndjson([{'id': 1, 'm': '2', 'a': ['x'], 'd': '03.04.2015', 'n': 'note'}]), '{}')
    found = one.rows("SELECT m = 2::money, a, d::text, n FROM kept")
    check('a null stays one in what is remembered of an item', found == [(True, ['x'], '01.01.2020', 'note')], str(found))
    other.rows("UPDATE kept SET d = '2015-04-03', n = NULL")
    last = other.value('SELECT max(id) FROM portage.migration_runs')
    for number in (last, run):
        other.rows("CALL portage.rollback(%s, drifted => 'force')", number)
    check('a rollback brings back what was there', one.rows('SELECT kept::text FROM kept') == before,
          f"{one.rows('SELECT kept::text FROM kept')} instead of {before}")
    # A decision's values are read like an item's.
    one.rows('CREATE TABLE asked (id int PRIMARY KEY, d date, n int); INSERT INTO asked VALUES (1, NULL, 1)')
    one.rows('SELECT portage.create_pipeline(%s, %s, %s)', 'asked', 'asked', json.dumps(
        {'format': 'ndjson', 'legacy_id': 'id', 'on_conflict': 'ask', 'match': 'id', 'columns': {'id': 'id', 'd': 'd', 'n': 'n'}}))
    run = one.value('SELECT run_id FROM portage.migrate(%s, %s)', 'asked', ndjson([{'id': 1, 'd': '01/02/2014', 'n': 2}]))
    with Session(server) as plain:
        plain.rows('SELECT portage.resolve(%s, 1, %s, %s)', run, 'value', '{"d": "03/04/2014", "n": 3}')
        check("a decision's values, too", plain.rows('SELECT d::text, n FROM asked') == [('2014-04-03', 3)], str(plain.rows('SELECT * FROM asked')))
    one.close()
    other.close()


print(f'seed {SEED}')
with Server() as server:
    server.psql('CREATE EXTENSION pg_portage')
    for number, session in enumerate(SESSIONS):
        every_type(server, number, session)
    generated(server, random.Random(SEED))
    pinned(server)
    queries(server)
    remembered(server)
finish()
