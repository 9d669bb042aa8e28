"""Sessions of several roles on a private server, for tests about rights and about two at once.

    alice = Session(server, 'alice')
    alice.value('SELECT count(*) FROM t')             # the first column of the first row
    alice.rows('SELECT a, b FROM t')                  # a list of tuples
    alice.error('SELECT 1/0').pgcode == '22012'       # None if nothing was wrong
    pending = alice.begin('SELECT pg_sleep(1)')       # runs in a thread of its own
    pending.result()                                  # its rows, or raises what it raised
"""

import json
import threading
import time

import psycopg2


class Session:
    """One connection in autocommit mode."""

    def __init__(self, server, user='postgres', dbname='postgres', **options):
        self.connection = server.connect(user=user, dbname=dbname, **options)
        self.pid = self.connection.get_backend_pid()

    def rows(self, sql, *arguments):
        with self.connection.cursor() as cursor:
            cursor.execute(sql, arguments or None)
            return cursor.fetchall() if cursor.description else []

    def value(self, sql, *arguments):
        found = self.rows(sql, *arguments)
        return found[0][0] if found else None

    def error(self, sql, *arguments):
        try:
            self.rows(sql, *arguments)
        except psycopg2.Error as error:
            return error
        return None

    def begin(self, sql, *arguments):
        return Pending(self, sql, arguments)

    def close(self):
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Pending:
    """A statement under way in another thread."""

    def __init__(self, session, sql, arguments):
        self.session, self.error, self.rows = session, None, None

        def work():
            try:
                self.rows = session.rows(sql, *arguments)
            except psycopg2.Error as error:
                self.error = error

        self.thread = threading.Thread(target=work, daemon=True)
        self.thread.start()

    def done(self):
        return not self.thread.is_alive()

    def wait(self, seconds=30):
        self.thread.join(seconds)
        if self.thread.is_alive():
            raise TimeoutError('the statement is still running')
        return self

    def result(self, seconds=30):
        self.wait(seconds)
        if self.error:
            raise self.error
        return self.rows


def until(condition, seconds=20):
    """Waits until condition() is true; its value, or None when the time is up."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    return None


def told(error):
    """An error as one line, for the message of a failed check."""
    if error is None:
        return 'no error'
    d = error.diag
    return f'{error.pgcode} {d.message_primary} / {d.message_detail} / {d.message_hint}'


def ndjson(items):
    return '\n'.join(json.dumps(item) for item in items)
