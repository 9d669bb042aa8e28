#!/usr/bin/python3
"""The boundary between C++ and PostgreSQL (extension/bridge/), by a module of its own, tests/bridge/: errors of every
origin come out with all that they say, destructors run, what attempt() swallows leaves the transaction usable, cancel and
statement_timeout reach C++ loops, and a hundred thousand failures leave nothing behind."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
import psycopg2  # noqa: E402
import psycopg2.extensions  # noqa: E402
from portage_server import Server, check, finish  # noqa: E402
from sessions import until  # noqa: E402

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..')
FAILURES = 100000

FUNCTIONS = """
CREATE FUNCTION raise(levels integer) RETURNS void LANGUAGE c AS '{0}', 'portage_test_raise';
CREATE FUNCTION portage_test_raise(levels integer) RETURNS void LANGUAGE c AS '{0}', 'portage_test_raise';
CREATE FUNCTION throw(kind text) RETURNS void LANGUAGE c AS '{0}', 'portage_test_throw';
CREATE FUNCTION undestroyed() RETURNS bigint LANGUAGE c AS '{0}', 'portage_test_undestroyed';
CREATE FUNCTION destroyed() RETURNS bigint LANGUAGE c AS '{0}', 'portage_test_destroyed';
CREATE FUNCTION through(sql text) RETURNS void LANGUAGE c AS '{0}', 'portage_test_sql';
CREATE FUNCTION attempt(sql text) RETURNS text LANGUAGE c AS '{0}', 'portage_test_attempt';
CREATE FUNCTION nested(first text, second text, third text) RETURNS text LANGUAGE c AS '{0}', 'portage_test_nested';
CREATE FUNCTION attempt_throw(sql text) RETURNS text LANGUAGE c AS '{0}', 'portage_test_attempt_throw';
CREATE FUNCTION attempt_many(n integer) RETURNS bigint LANGUAGE c AS '{0}', 'portage_test_attempt_many';
CREATE FUNCTION disguised(role regrole, sql text, style text, swallow boolean) RETURNS text
  LANGUAGE c AS '{0}', 'portage_test_disguised';
CREATE FUNCTION loop() RETURNS void LANGUAGE c AS '{0}', 'portage_test_loop';
CREATE FUNCTION holdoff() RETURNS boolean LANGUAGE c AS '{0}', 'portage_test_holdoff';
CREATE PROCEDURE transactions(what text) LANGUAGE c AS '{0}', 'portage_test_transactions';
CREATE FUNCTION notice(message text, detail text) RETURNS void LANGUAGE c AS '{0}', 'portage_test_notice';
CREATE TABLE t (n integer PRIMARY KEY CHECK (n < 1000));
CREATE ROLE someone;
GRANT SELECT ON t TO someone;
"""


def build():
    """In a directory that the server can read and that goes with the process."""
    directory = tempfile.mkdtemp(prefix='portage-bridge.')
    os.chmod(directory, 0o755)
    config = subprocess.run(['bash', '-c', '. "$1"; echo "$PG_CONFIG"', '-', os.path.join(ROOT, 'tests/lib/stage.sh')],
                            check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run(['make', '-s', '-j', str(os.cpu_count()), '-C', directory,
                    '-f', os.path.join(ROOT, 'tests/bridge/Makefile'), 'SRC=' + os.path.abspath(ROOT),
                    'PG_CONFIG=' + config], check=True)
    return directory


class Session:
    """A connection; undestroyed C++ objects are looked for after every statement."""

    def __init__(self, server, **options):
        self.connection = server.connect(**options)
        self.cursor = self.connection.cursor()

    def value(self, sql, *arguments):
        self.cursor.execute(sql, arguments or None)
        return self.cursor.fetchone()[0] if self.cursor.description else None

    def error(self, sql, *arguments):
        """The error that the statement must raise; None if it does not."""
        try:
            self.cursor.execute(sql, arguments or None)
        except psycopg2.Error as error:
            return error
        return None

    def all_destroyed(self):
        return self.value('SELECT undestroyed()') == 0

    def anonymous(self):
        with open(f'/proc/{self.connection.get_backend_pid()}/status', encoding='utf-8') as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith('RssAnon'))


def postgres_errors(s):
    for levels in (0, 1, 2, 5):
        error = s.error('SELECT raise(%s)', levels)
        diag, name = error.diag, f'a Postgres error {levels} levels of SQL deep'
        check(f'{name}: SQLSTATE, message, detail, hint',
              (diag.sqlstate, diag.message_primary, diag.message_detail, diag.message_hint) ==
              ('23514', 'the message', 'The detail.', 'The hint.'), diag.message_primary)
        check(f'{name}: schema, table, column, datatype, constraint',
              (diag.schema_name, diag.table_name, diag.column_name, diag.datatype_name, diag.constraint_name) ==
              ('a schema', 'a table', 'a column', 'a datatype', 'a constraint'), diag.constraint_name)
        context = ['the innermost context'] + [f'SQL statement "SELECT portage_test_raise({n})"' for n in range(levels)]
        check(f'{name}: every line of the context, once', diag.context == '\n'.join(context), diag.context)
        check(f'{name}: severity and source', diag.severity == 'ERROR' and diag.source_function == 'raise_raw' and
              diag.source_file.endswith('functions.cpp'), diag.source_function)
        check(f'{name}: the destructors ran', s.all_destroyed())
    s.cursor.execute("DO $$BEGIN PERFORM raise(1); EXCEPTION WHEN check_violation THEN NULL; END$$")
    check('PL/pgSQL can catch it', s.all_destroyed())
    error = s.error("DO $$BEGIN PERFORM raise(1); END$$")
    check('a PL/pgSQL caller adds its own lines once', error.diag.context == '\n'.join((
        'the innermost context', 'SQL statement "SELECT portage_test_raise(0)"', 'SQL statement "SELECT raise(1)"',
        'PL/pgSQL function inline_code_block line 1 at PERFORM')), error.diag.context)
    error = s.error("SELECT through('SELECT * FROM missing')")
    check('an error of the parser keeps query and position',
          (error.diag.sqlstate, error.diag.internal_query, error.diag.internal_position) ==
          ('42P01', 'SELECT * FROM missing', '15'), (error.diag.internal_query, error.diag.internal_position))
    check('and points nowhere in the statement of the client', error.diag.statement_position is None)
    error = s.error("SELECT through('INSERT INTO t VALUES (1000)')")
    check('an error of the executor names table and constraint',
          (error.diag.sqlstate, error.diag.table_name, error.diag.constraint_name) == ('23514', 't', 't_n_check'))


def exceptions(s):
    for kind, sqlstate, message in (
            ('runtime_error', 'XX000', "unexpected C++ exception: something of the library's"),
            ('percent', 'XX000', 'unexpected C++ exception: 100 %s of %n'),
            ('length_error', 'XX000', None), ('bad_alloc', '53200', 'out of memory'),
            ('out of memory', '53200', 'out of memory'), ('unknown', 'XX000', 'unexpected exception of an unknown type'),
            ('own', 'PZ001', 'our own message'), ('own in percent', '22000', '100 %s'),
            ('postgres', '23514', 'the message'), ('nonsense', '22023', 'no such kind: nonsense')):
        error = s.error('SELECT throw(%s)', kind)
        check(f'a C++ exception ({kind}) becomes an error',
              error.diag.sqlstate == sqlstate and error.diag.message_primary == (message or error.diag.message_primary),
              (error.diag.sqlstate, error.diag.message_primary))
        check(f'after {kind} the destructors ran and the session works', s.all_destroyed())
    check('the text of a long exception is cut, not overrun',
          100 < len(s.error("SELECT throw('long')").diag.message_primary) < 1000)
    check('bad_alloc comes with a hint', s.error("SELECT throw('bad_alloc')").diag.message_hint)
    diag = s.error("SELECT throw('own')").diag
    check('our own error: detail, hint, column, constraint',
          (diag.message_detail, diag.message_hint, diag.column_name, diag.constraint_name) ==
          ('Our detail.', 'Our hint.', 'our column', 'our constraint'))
    diag = s.error("SELECT throw('own in percent')").diag
    check('percent signs are texts, not formats', (diag.message_detail, diag.message_hint) == ('%d', '%n'))
    check('an exception in a transaction aborts it like any error', s.error('BEGIN; SELECT throw(\'unknown\')') and
          s.error('SELECT 1').diag.sqlstate == '25P02')
    s.cursor.execute('ROLLBACK')
    s.connection.notices.clear()
    s.value("SELECT notice('100 %s', 'A detail of %d.')")
    check('a notice carries message and detail', 'NOTICE:  100 %s' in s.connection.notices[0] and
          'DETAIL:  A detail of %d.' in s.connection.notices[0], s.connection.notices)


def attempts(s):
    rows = "SELECT coalesce(string_agg(n::text, ' ' ORDER BY n), '') FROM t"
    check('attempt() of what succeeds', s.value("SELECT attempt('INSERT INTO t VALUES (1)')") == 'ok')
    found = s.value("SELECT attempt('INSERT INTO t VALUES (1)')")
    check('attempt() swallows an error', found.startswith('23505 duplicate key'), found)
    s.cursor.execute('BEGIN')
    for sql, sqlstate in (('INSERT INTO t VALUES (2), (1)', '23505'), ('SELECT 1/0', '22012'), ('nonsense', '42601'),
                          ('SELECT raise(3)', '23514'), ("SELECT throw(''unknown'')", 'XX000'),
                          ('SELECT pg_sleep(0) FROM missing', '42P01'), ('COMMIT', 'XX000')):
        found = s.value(f"SELECT attempt('{sql}')")
        check(f'attempt() of {sql}: the error, memory context and owner restored', found.startswith(sqlstate), found)
        check('and the transaction is usable', s.value(rows) == '1', s.value(rows))
    s.cursor.execute('INSERT INTO t VALUES (3)')
    s.cursor.execute('COMMIT')
    check('what comes after commits', s.value(rows) == '1 3')
    insert = 'INSERT INTO t VALUES (%d)'
    for first, second, third, result, left in (
            (insert % 10, insert % 11, insert % 12, 'ok; ok', '1 3 10 11 12'),
            (insert % 20, insert % 1, insert % 22, '23505', '1 3 10 11 12 20 22'),
            (insert % 30, insert % 31, insert % 1, 'ok; 23505', '1 3 10 11 12 20 22'),
            (insert % 40, 'nonsense', 'nonsense', '42601', '1 3 10 11 12 20 22'),
            (insert % 1, insert % 50, insert % 51, '; 23505', '1 3 10 11 12 20 22')):
        found = s.value('SELECT nested(%s, %s, %s)', first, second, third)
        check(f'nested attempts: {first}, {second}, {third}', found.startswith(result) and s.value(rows) == left,
              (found, s.value(rows)))
    check('nested attempts over functions of our own', s.value(
        "SELECT attempt($$SELECT attempt('SELECT attempt(''SELECT raise(2)'')')$$)") == 'ok')
    found = s.value("SELECT attempt_throw('INSERT INTO t VALUES (60)')")
    check('another exception passes an attempt, which rolls back',
          found == 'through the attempt' and s.value(rows).endswith('22'), found)
    check('the destructors ran', s.all_destroyed())
    check('interrupts are held off as before an error', s.value('SELECT holdoff()'))


def transactions(s):
    """Of a procedure that commits, with something open when the error comes: it is unwound in one place."""
    rows = "SELECT coalesce(string_agg(n::text, ' ' ORDER BY n), '') FROM t WHERE n BETWEEN 100 AND 999"
    for what in ('nothing', 'snapshot', 'scan', 'portal', 'connection', 'rows', 'error in SQL', 'nested'):
        for call in (f"CALL transactions('{what}')", f"DO $$BEGIN CALL transactions('{what}'); END$$"):
            s.connection.notices.clear()
            error = s.error(call)
            check(f'{call}: what an error left open is gone, and the procedure goes on', error is None and not s.connection.notices,
                  (error, s.connection.notices))
            check('what was committed before and after is there, and nothing else', s.value(rows) == '100 101 102', s.value(rows))
            check('the destructors ran', s.all_destroyed())
            s.cursor.execute('DELETE FROM t WHERE n BETWEEN 100 AND 999')
    for _ in range(3):
        s.connection.notices.clear()
        error = s.error("CALL transactions('at the end')")
        check('an error that ends the procedure leaves no transaction behind',
              error is not None and error.pgcode == '23514' and not s.connection.notices and
              s.connection.get_transaction_status() == psycopg2.extensions.TRANSACTION_STATUS_IDLE and s.value(rows) == '100 101 102',
              (error, s.connection.notices, s.value(rows)))
        s.cursor.execute('DELETE FROM t WHERE n BETWEEN 100 AND 999')
    error = s.error("BEGIN; CALL transactions('nothing')")
    check('in a transaction of others it cannot commit', error is not None and error.pgcode == '2D000', error)
    s.cursor.execute('ROLLBACK')
    check('the destructors ran', s.all_destroyed())


def scopes(s):
    state = "SELECT concat_ws(' ', current_user, current_setting('datestyle'), current_setting('extra_float_digits'))"
    before = s.value(state)
    check('a role and settings hold for a block', s.value("SELECT disguised('someone', %s, 'German', false)", state) ==
          'someone German, DMY 0')
    check('and end with it', s.value(state) == before)
    for name, sql, style, sqlstate in (('the right is missing', 'INSERT INTO t VALUES (99)', 'German', '42501'),
                                       ('the SQL fails', 'SELECT 1/0', 'German', '22012'),
                                       ('the setting is wrong', 'SELECT 1', 'nonsense', '22023'),
                                       ('an exception passes', "SELECT throw('unknown')", 'German', 'XX000')):
        error = s.error("SELECT disguised('someone', %s, %s, false)", sql, style)
        check(f'role and settings are restored where {name}',
              error.diag.sqlstate == sqlstate and s.value(state) == before, (error.diag.sqlstate, s.value(state)))
        s.cursor.execute('BEGIN')
        found = s.value("SELECT disguised('someone', %s, %s, true)", sql, style)
        check(f'also within a transaction that goes on: {name}', found == sqlstate and s.value(state) == before,
              (found, s.value(state)))
        s.cursor.execute("SET LOCAL datestyle = 'SQL'")
        s.value("SELECT disguised('someone', %s, %s, true)", sql, style)
        check('where SET LOCAL stays in force', 'SQL' in s.value(state), s.value(state))
        s.cursor.execute('ROLLBACK')
        check('until its end', s.value(state) == before)
    s.cursor.execute("DO $$BEGIN PERFORM disguised('someone', 'SELECT 1/0', 'German', false); "
                     "EXCEPTION WHEN division_by_zero THEN NULL; END$$")
    check('an error that PL/pgSQL catches restores them, too', s.value(state) == before, s.value(state))


def once_in_the_loop(cursor, function, session):
    """Does something to the session when it has begun its loop."""
    pid = session.connection.get_backend_pid()

    def looping():
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active' AND query ~ 'loop'", (pid,))
        return cursor.fetchone()[0]

    until(looping)
    cursor.execute(f'SELECT {function}(%s)', (pid,))


def interrupts(server, s):
    for inside in ('SELECT loop()', "SELECT through('SELECT loop()')"):
        s.cursor.execute("SET statement_timeout = '200ms'")
        error = s.error(inside)
        check(f'statement_timeout ends {inside}', error.diag.sqlstate == '57014' and 'timeout' in error.diag.message_primary)
        s.cursor.execute('RESET statement_timeout')
        check('the destructors ran', s.all_destroyed())
        with server.connect() as other, other.cursor() as cursor:
            stop = threading.Thread(target=once_in_the_loop, args=(cursor, 'pg_cancel_backend', s))
            stop.start()
            error = s.error(inside)
            stop.join()
        check(f'pg_cancel_backend ends {inside}',
              error.diag.sqlstate == '57014' and 'user request' in error.diag.message_primary)
        check('the destructors ran', s.all_destroyed())
    victim = Session(server)
    with server.connect() as other, other.cursor() as cursor:
        stop = threading.Thread(target=once_in_the_loop, args=(cursor, 'pg_terminate_backend', victim))
        stop.start()
        error = victim.error('SELECT loop()')
        stop.join()
    check('pg_terminate_backend ends the session in a C++ loop', error.pgcode == '57P01' or victim.connection.closed, error)
    check('and nobody else', s.value('SELECT 1') == 1)


def leaks(server):
    """The growth of the backend's private memory over so many failures, after a few to warm up."""
    kinds = "('[0:5]={postgres,own,runtime_error,bad_alloc,unknown,long}'::text[])"
    throw = f'throw({kinds}[i % 6])'
    loop = ('DO $$DECLARE failed integer := 0; BEGIN FOR i IN 1..%d LOOP BEGIN PERFORM {0}; EXCEPTION WHEN OTHERS OR '
            'query_canceled THEN failed := failed + 1; END; END LOOP; ASSERT failed = %d; END$$')
    for name, sql in (('exceptions of all kinds, in one PL/pgSQL loop', loop.format(throw)),
                      ('Postgres errors two levels deep, in one PL/pgSQL loop', loop.format('raise(1)')),
                      ('role and settings, in one PL/pgSQL loop',
                       loop.format("disguised('someone', 'SELECT 1/0', 'German', false)")),
                      ('attempts in one statement', 'SELECT attempt_many(%d)')):
        s = Session(server)
        s.cursor.execute('SET log_min_messages = fatal')
        run = lambda n: s.cursor.execute(sql.replace('%d', str(n)))  # noqa: E731
        run(2000)
        before, destroyed = s.anonymous(), s.value('SELECT destroyed()')
        run(FAILURES)
        growth = s.anonymous() - before
        check(f'{FAILURES} failures leave nothing behind: {name}', growth < 5 << 20, f'{growth >> 10} kB')
        check(f'{name}: they did happen, and every destructor ran',
              s.value('SELECT destroyed()') - destroyed >= FAILURES and s.all_destroyed())
        s.connection.close()
    s = Session(server)
    s.cursor.execute('SET log_min_messages = fatal')

    def fail(n):
        return sum(s.error("SELECT throw(%s)", ('postgres', 'own', 'runtime_error', 'bad_alloc', 'unknown')[i % 5])
                   is not None for i in range(n))

    fail(2000)
    before = s.anonymous()
    failed = fail(FAILURES)
    growth = s.anonymous() - before
    check(f'{FAILURES} failing statements leave nothing behind', failed == FAILURES and growth < 5 << 20,
          f'{growth >> 10} kB')
    check('and every destructor ran', s.all_destroyed())


def symbols():
    """Of the module itself: no C++ name of ours can clash with another module's."""
    for directory, _, files in os.walk(os.environ['PORTAGE_STAGE']):
        if 'pg_portage.so' in files:
            module = os.path.join(directory, 'pg_portage.so')
            names = subprocess.run(['nm', '-D', '--defined-only', '--format=posix', module], check=True,
                                   capture_output=True, text=True).stdout
            names = [line.split()[0] for line in names.splitlines()]
            wrong = [n for n in names if not re.fullmatch(r'Pg_magic_func|_PG_init|(pg_finfo_)?portage_\w+', n)]
            check('pg_portage.so exports its entry points and nothing else', not wrong and 'Pg_magic_func' in names,
                  wrong[:10])
            return
    check('pg_portage.so is staged', False)


def main():
    directory = build()
    try:
        with Server() as server:
            server.psql(FUNCTIONS.format(os.path.join(directory, 'portage_bridge_test.so')))
            session = Session(server)
            session.value("SELECT undestroyed()")
            postgres_errors(session)
            exceptions(session)
            attempts(session)
            transactions(session)
            scopes(session)
            interrupts(server, session)
            with open(server.log, encoding='utf-8') as log:
                text = log.read()
            check('the server\'s log has the detail that is meant for it', 'DETAIL:  The detail for the log.' in text)
            check('and no warning', 'WARNING' not in text, re.findall('WARNING.*', text)[:5])
            leaks(server)
            symbols()
    finally:
        shutil.rmtree(directory)
    finish()


if __name__ == '__main__':
    main()
