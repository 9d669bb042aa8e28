"""A private server for a Python test: no TCP port, nothing installed, nothing left behind. The twin of server.sh.

    sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..', 'lib'))
    from portage_server import Server, check, finish

    with Server(fsync='on') as server:
        server.psql('CREATE EXTENSION pg_portage')
        with server.connect() as connection: ...
        server.kill9(); server.restart()
        check('one row landed', server.psql('SELECT count(*) FROM t') == '1')
    finish()          # prints "N passed, N failed" and exits accordingly
"""

import atexit
import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import psycopg2
import psycopg2.extensions

# Seconds. Nothing here takes so long, however slow and busy the machine: what has not come by then does not come.
PATIENCE = 180

_STAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'stage.sh')
_ROOT = os.geteuid() == 0

# What a test must not inherit: another server's address.
for _name in ('PGHOST', 'PGHOSTADDR', 'PGPORT', 'PGUSER', 'PGPASSWORD', 'PGDATABASE', 'PGSERVICE', 'PGOPTIONS'):
    os.environ.pop(_name, None)
# A test that is ended from outside must still run its cleanup.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def _stage_settings():
    """The settings that make a server find the staged extension; stages it first where `make check` did not."""
    if 'PORTAGE_STAGE' not in os.environ:
        stage = tempfile.mkdtemp(prefix='portage-stage.', dir='/tmp')
        atexit.register(shutil.rmtree, stage, ignore_errors=True)
        os.chmod(stage, 0o755)
        subprocess.run(['bash', _STAGE, 'make', stage], check=True)
        os.environ['PORTAGE_STAGE'] = stage
    lines = subprocess.run(['bash', _STAGE, 'settings'], check=True, capture_output=True, text=True).stdout
    return dict(line.split('=', 1) for line in lines.splitlines())


def _bindir():
    command = '. "$1"; "$PG_CONFIG" --bindir'
    return subprocess.run(['bash', '-c', command, '-', _STAGE], check=True, capture_output=True, text=True).stdout.strip()


class _Connection(psycopg2.extensions.connection):
    """`with` closes it; psycopg2's own `with` would open a transaction even in autocommit mode, where CALL fails."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Server:
    """Initialised and started at construction. Any number of them may live at once; one may be another's standby."""

    def __init__(self, standby_of=None, **settings):
        settings = {'listen_addresses': '', 'port': 5432, 'fsync': 'off', 'max_connections': 50,
                    'log_min_messages': 'warning', **_stage_settings(), **settings}
        self.bindir = _bindir()
        self.directory = tempfile.mkdtemp(prefix='server.')
        atexit.register(self.remove)
        os.chmod(self.directory, 0o755)
        if _ROOT:
            user = pwd.getpwnam('postgres')
            os.chown(self.directory, user.pw_uid, user.pw_gid)
        self.data = os.path.join(self.directory, 'data')
        self.log = os.path.join(self.directory, 'log')
        if standby_of:
            self._as_server('pg_basebackup', '-h', standby_of.directory, '-p', '5432', '-U', 'postgres', '-D', self.data,
                            '-R', '-c', 'fast', '--no-sync')
        else:
            self._as_server('initdb', '-D', self.data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8',
                            '--locale=C.UTF-8', '--no-sync')
        for name, value in {'unix_socket_directories': self.directory, **settings}.items():
            self.set(name, value)
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()

    def _as_server(self, program, *arguments, check=True):
        """Runs a program of the server's as the user that the server runs as: initdb and postgres refuse root."""
        command = [os.path.join(self.bindir, program), *arguments]
        if _ROOT:
            command = ['setpriv', '--reuid', 'postgres', '--regid', 'postgres', '--init-groups', *command]
        # The output goes to a file, not to a pipe: pg_ctl's child would keep the pipe open for ever.
        with tempfile.TemporaryFile('w+') as output:
            done = subprocess.run(command, cwd='/', stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False)
            if check and done.returncode:
                output.seek(0)
                raise RuntimeError('%s failed: %s%s' % (program, output.read(), self.log_tail()))
        return done.returncode

    def set(self, name, value):
        """A line of postgresql.conf; the last one counts. From the next start or reload on."""
        with open(os.path.join(self.data, 'postgresql.conf'), 'a', encoding='utf-8') as conf:
            conf.write("%s = '%s'\n" % (name, str(value).replace("'", "''")))

    def start(self):
        self._as_server('pg_ctl', '-D', self.data, '-l', self.log, '-w', '-t', str(PATIENCE), '-s', 'start')

    def stop(self, mode='fast'):
        self._as_server('pg_ctl', '-D', self.data, '-m', mode, '-w', '-t', str(PATIENCE), '-s', 'stop')

    def running(self):
        return self._as_server('pg_ctl', '-D', self.data, 'status', check=False) == 0

    def restart(self):
        """After a stop, a kill9, or neither."""
        if self.running():
            self.stop()
        self.start()

    def postmaster(self):
        with open(os.path.join(self.data, 'postmaster.pid'), encoding='utf-8') as file:
            return int(file.readline())

    def kill9(self):
        """As if the power went: postmaster and every process of it at once, none of them can say goodbye."""
        postmaster = self.postmaster()
        os.kill(postmaster, signal.SIGSTOP)  # or it would start new children meanwhile
        children = subprocess.run(['ps', '-o', 'pid=', '--ppid', str(postmaster)], check=False,
                                  capture_output=True, text=True).stdout.split()
        pids = [postmaster, *map(int, children)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while any(map(_alive, pids)):
            time.sleep(0.05)
        # Where init reaps nothing (containers), the dead postmaster's number looks alive to the next one.
        for name in ('data/postmaster.pid', '.s.PGSQL.5432', '.s.PGSQL.5432.lock'):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.directory, name))

    def kill9_backend(self, pid):
        """One process of it, if it is still there: the server ends every session and recovers. Back when it has."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        # Who connects before the postmaster has noticed would be thrown out again.
        while os.path.exists('/proc/%d' % pid):
            time.sleep(0.01)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return self.connect().close()
            except psycopg2.DatabaseError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def remove(self):
        if os.path.isdir(self.directory):
            if os.path.exists(os.path.join(self.data, 'postmaster.pid')):
                self._as_server('pg_ctl', '-D', self.data, '-m', 'immediate', '-w', '-s', 'stop', check=False)
            shutil.rmtree(self.directory, ignore_errors=True)
        atexit.unregister(self.remove)

    def log_tail(self, lines=50):
        if not os.path.exists(self.log):
            return ''
        with open(self.log, encoding='utf-8', errors='replace') as file:
            return ''.join(file.readlines()[-lines:])

    def connect(self, dbname='postgres', user='postgres', **options):
        """A psycopg2 connection in autocommit mode, as CALL needs it."""
        connection = psycopg2.connect(host=self.directory, port=5432, dbname=dbname, user=user,
                                      connection_factory=_Connection, **options)
        connection.autocommit = True
        return connection

    def environment(self):
        """For programs that the test starts."""
        return {**os.environ, 'PGHOST': self.directory, 'PGPORT': '5432', 'PGUSER': 'postgres', 'PGDATABASE': 'postgres'}

    def psql(self, sql, *options, check=True):
        """Runs the statements; returns the values, one row per line. An error raises unless check=False."""
        command = [os.path.join(self.bindir, 'psql'), '-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1', *options]
        done = subprocess.run(command, input=sql, env=self.environment(), check=False, capture_output=True, text=True)
        if check and done.returncode:
            raise RuntimeError('psql: ' + done.stderr)
        return (done.stdout if check else done.stdout + done.stderr).strip()


def _alive(pid):
    """Zombies are dead: whoever inherited them has only not looked yet."""
    try:
        with open('/proc/%d/stat' % pid, encoding='utf-8') as file:
            return file.read().rpartition(')')[2].split()[0] != 'Z'
    except (FileNotFoundError, ProcessLookupError):
        return False


_counts = {True: 0, False: 0}


def check(name, ok, found=''):
    """Counts one check; tells what was found where it failed."""
    _counts[bool(ok)] += 1
    print(f'ok      {name}' if ok else f'FAILED  {name}' + (f': {found}' if found != '' else ''), flush=True)
    return bool(ok)


def finish():
    """The last line that every test prints, and the exit code."""
    print(f'{_counts[True]} passed, {_counts[False]} failed')
    sys.exit(1 if _counts[False] else 0)
