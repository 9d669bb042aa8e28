"""Sessions of several roles on a private server, for tests about rights and about two at once; and how a test waits: for
states and locks, never for a time, a number of batches or a size that is hoped to suffice.

    alice = Session(server, 'alice')
    alice.value('SELECT count(*) FROM t')             # the first column of the first row
    alice.rows('SELECT a, b FROM t')                  # a list of tuples
    alice.error('SELECT 1/0').pgcode == '22012'       # None if nothing was wrong
    pending = alice.begin('SELECT pg_sleep(1)')       # runs in a thread of its own
    pending.result()                                  # its rows, or raises what it raised
    until(lambda: alice.value('SELECT ...'))          # a state that must come: where it does not, that is a failed check

    server.psql(GATES)                                # ... and a trigger: EXECUTE FUNCTION gates.keep('n')
    with Gate(server, at=150) as gate:                # whoever writes the row whose n is 150 waits from now on
        gate.wait_for(alice)
"""

import json
import sys
import threading
import time

import psycopg2

from portage_server import PATIENCE, check


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

    def wait(self):
        self.thread.join(PATIENCE)
        if self.thread.is_alive():
            raise TimeoutError('the statement is still running')
        return self

    def result(self):
        self.wait()
        if self.error:
            raise self.error
        return self.rows


def until(condition):
    """Waits until condition() is true; its value. What does not come is a failed check, and None."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    caller = sys._getframe(1)
    check(f'what {caller.f_code.co_name}() waits for in line {caller.f_lineno} has come', False)
    return None


def left(session, pid):
    """Waits until a process has gone, with all that it had locked: who is terminated says so before."""
    return until(lambda: session.value('SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = %s', pid))


def ended(threads):
    """Waits for all of them; one that does not end is a failed check."""
    for thread in threads:
        thread.join(PATIENCE)
    check('all threads have ended', not any(thread.is_alive() for thread in threads))


# A run that stands at a gate is in its middle, on whatever machine. With the settings PATIENT its batch never steps back from
# there, nor is it tried in halves, if its size was asked for.
GATES = """
CREATE SCHEMA gates;
CREATE TABLE gates.closed (at text);
CREATE FUNCTION gates.pass(what text) RETURNS text LANGUAGE plpgsql AS $$BEGIN
  IF EXISTS (SELECT FROM gates.closed WHERE at = what) THEN PERFORM pg_advisory_xact_lock_shared(4711); END IF;
  RETURN what;
END$$;
CREATE FUNCTION gates.keep() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
  PERFORM gates.pass(to_jsonb(NEW) ->> TG_ARGV[0]);
  RETURN NEW;
END$$;
CREATE FUNCTION gates.keep_old() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
  PERFORM gates.pass(to_jsonb(OLD) ->> TG_ARGV[0]);
  RETURN OLD;
END$$;
GRANT USAGE ON SCHEMA gates TO PUBLIC;
GRANT SELECT ON gates.closed TO PUBLIC;
"""
PATIENT = {'portage.lock_timeout': '10min', 'portage.lease_duration': '1h'}


class Gate:
    """While it is closed, who writes the row `at` waits in the trigger, or in a call of gates.pass(). One per database."""

    def __init__(self, server, at, dbname='postgres'):
        self.keeper = Session(server, dbname=dbname)
        self.keeper.rows('DELETE FROM gates.closed')
        self.keeper.rows('INSERT INTO gates.closed VALUES (%s)', str(at))
        self.keeper.rows('SELECT pg_advisory_lock(4711)')

    def wait_for(self, session):
        """Until the session stands before the gate, or waits for any other lock."""
        return until(lambda: self.stands(session))

    def stands(self, session):
        return self.keeper.value("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s", session.pid)

    def somebody_waits(self):
        return until(lambda: self.keeper.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted"))

    def open(self):
        self.keeper.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.open()


def told(error):
    """An error as one line, for the message of a failed check."""
    if error is None:
        return 'no error'
    d = error.diag
    return f'{error.pgcode} {d.message_primary} / {d.message_detail} / {d.message_hint}'


def ndjson(items):
    return '\n'.join(json.dumps(item) for item in items)
