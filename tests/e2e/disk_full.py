#!/usr/bin/python3
"""The disk of the target is full in mid-run: its tablespace lies on a small tmpfs with a ballast on it. The run fails, or
holds, and says why; nothing is blamed on an item, nothing is lost. When the ballast is gone it goes on to the end, and a
rollback brings back every row that was there before.

The tmpfs is mounted in a namespace of the test's own and goes with it: as root by `unshare -m`, else by `unshare -rm`, and
where neither is allowed the test is skipped, and says so."""

import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import Server, check, finish  # noqa: E402
from sessions import Session, told, until  # noqa: E402

MEGABYTE = 1 << 20
ITEMS, EXISTING = 20000, 2000


def in_a_namespace():
    """Starts this test again where the tmpfs is mounted; its exit code, or None if that is not possible."""
    directory = tempfile.mkdtemp(prefix='disk.')
    # A user's second namespace makes a user of the first one's root again: root could not start a server.
    inner = '"$0" "$@"' if os.geteuid() == 0 else \
        f'unshare -U --map-user={os.geteuid()} --map-group={os.getegid()} "$0" "$@"'
    outer = ['unshare', '-m' if os.geteuid() == 0 else '-rm', 'sh', '-c']
    mount = f'mount -t tmpfs -o size=24m,mode=777 tmpfs {directory}'
    try:
        tried = subprocess.run([*outer, f'{mount} && {inner}', 'true'], check=False, capture_output=True, text=True)
        if tried.returncode:
            print('SKIPPED: no tmpfs can be mounted here: ' + tried.stderr.strip().replace('\n', '; '))
            return None
        return subprocess.run([*outer, f'{mount} && exec {inner}', sys.executable, os.path.abspath(__file__), directory],
                              check=False).returncode
    finally:
        os.rmdir(directory)


def rows_of(admin):
    return admin.value("SELECT md5(string_agg(t::text, E'\\n' ORDER BY id)) FROM target t")


def books(admin, run):
    """What does not agree in what the ledger says of a run; nothing if all is well."""
    return admin.rows(f"""
        SELECT r.read, c.*, i.* FROM portage.progress r,
               (SELECT coalesce(sum(read), 0) AS read, coalesce(sum(inserted), 0) AS inserted, coalesce(sum(updated), 0) AS updated
                  FROM portage.migration_batches WHERE run_id = {run}) c,
               (SELECT count(*) AS items, count(DISTINCT ordinal) AS ordinals, coalesce(max(ordinal), 0) AS last,
                       count(*) FILTER (WHERE status = 'inserted') AS inserted, count(*) FILTER (WHERE status = 'updated') AS updated
                  FROM portage.migration_items WHERE run_id = {run}) i
         WHERE r.run_id = {run} AND NOT (
               r.read = c.read AND c.read = i.items AND i.items = i.ordinals AND i.items = i.last
               AND r.inserted = c.inserted AND c.inserted = i.inserted AND r.updated = c.updated AND c.updated = i.updated
               AND c.read = c.inserted + c.updated
               AND (SELECT count(*) FROM target) = {EXISTING} + c.inserted
               AND (SELECT count(*) FROM target WHERE v LIKE 'new %') = c.read
               AND (SELECT count(*) FROM portage.legacy_mappings WHERE run_id = {run}) = c.read)""")


def test(disk):
    space = os.path.join(disk, 'tablespace')
    ballast = os.path.join(disk, 'ballast')
    with Server() as server, Session(server) as admin:
        os.mkdir(space)
        if os.geteuid() == 0:
            stat = os.stat(server.data)
            os.chown(space, stat.st_uid, stat.st_gid)
        admin.rows('CREATE EXTENSION pg_portage')
        admin.rows(f"CREATE TABLESPACE small LOCATION '{space}'")
        admin.rows('CREATE TABLE target (id integer PRIMARY KEY USING INDEX TABLESPACE small, v text) '
                   'WITH (autovacuum_enabled = off) TABLESPACE small')
        # Every tenth item finds a row and overwrites it.
        admin.rows(f"INSERT INTO target SELECT n * 10, 'old ' || n FROM generate_series(1, {EXISTING}) AS n")
        admin.rows('CREATE TABLE source (id integer PRIMARY KEY, v text)')
        admin.rows(f"INSERT INTO source SELECT n, 'new ' || n || repeat('x', 400) FROM generate_series(1, {ITEMS}) AS n")
        admin.rows('ANALYZE source')
        admin.rows('CREATE ROLE loader LOGIN')
        admin.rows('GRANT CREATE ON DATABASE postgres TO loader')
        admin.rows('GRANT SELECT ON source TO loader')
        admin.rows('GRANT SELECT, INSERT, UPDATE, DELETE ON target TO loader')
        before = rows_of(admin)
        loader = Session(server, 'loader')
        loader.rows("""SELECT portage.create_pipeline('p', 'target', '{"format": "rows", "legacy_id": "id",
            "columns": {"id": "id", "v": "v"}, "on_conflict": "overwrite"}')""")
        # What is free suffices for a third of the rows.
        free = os.statvfs(disk)
        with open(ballast, 'wb') as file:
            file.write(bytes(free.f_bavail * free.f_frsize - 3 * MEGABYTE))

        run = loader.value("""SELECT portage.open_run('p', options => '{"batch_size": 500}')""")
        loader.rows("SELECT portage.attach_table(%s, 'source')", run)

        def held():
            return admin.value("SELECT hold_reason FROM portage.progress WHERE run_id = %s AND status = 'running' AND is_running", run)

        def call():
            """Works until the run ends or says that it holds; what the CALL raised."""
            pending = loader.begin('CALL portage.run(%s)', run)
            until(lambda: pending.done() or held())
            return pending

        def state():
            return admin.rows('SELECT status, error_code, error FROM portage.migration_runs WHERE id = %s', run)[0]

        pending = call()
        error, (status, code, message) = pending.error, state()
        if pending.done():
            check('the run fails because the disk is full', error is not None and error.pgcode == '53100' and
                  'No space left on device' in error.diag.message_primary, told(error))
            check('and says so afterwards', status == 'failed' and code == '53100' and 'No space left on device' in message,
                  (status, code, message))
        else:
            check('the run holds because the disk is full', held() and 'space' in held(), held())
        read = admin.value('SELECT read FROM portage.progress WHERE run_id = %s', run)
        check('part of it had been read by then', 0 < read < ITEMS, read)
        check('no item is blamed', admin.value('SELECT count(*) FROM portage.rejects WHERE run_id = %s', run) == 0)
        check('the books balance', not books(admin, run), books(admin, run))

        if pending.done():
            pending = call()
            if pending.done():
                check('while it is full, another attempt fails like the first', pending.error is not None and
                      pending.error.pgcode == '53100' and state()[0] == 'failed', told(pending.error))
            check('and still the books balance', not books(admin, run), books(admin, run))

        os.unlink(ballast)
        if pending.done():
            pending = call()
        check('with space the run goes on', pending.wait().error is None, told(pending.error))
        found = admin.rows("SELECT status, read, inserted, updated, open_rejects FROM portage.progress WHERE run_id = %s", run)[0]
        check('and everything lands', found == ('completed', ITEMS, ITEMS - EXISTING, EXISTING, 0), found)
        check('the books balance at the end', not books(admin, run), books(admin, run))
        check('the target is the source', admin.value(
            'SELECT count(*) FROM source s FULL JOIN target t USING (id) WHERE s.v IS DISTINCT FROM t.v') == 0)
        check('the run is verified', admin.value('SELECT verified FROM portage.migration_runs WHERE id = %s', run))

        loader.rows('CALL portage.rollback(%s)', run)
        check('the rollback brings back what was there', rows_of(admin) == before and
              admin.value('SELECT status FROM portage.migration_runs WHERE id = %s', run) == 'rolled_back')
        check('nothing but that', admin.value('SELECT count(*) FROM target') == EXISTING and
              admin.value('SELECT count(*) FROM portage.legacy_mappings') == 0)
        loader.close()


if len(sys.argv) > 1:
    test(sys.argv[1])
else:
    code = in_a_namespace()
    if code is not None:
        sys.exit(code)
finish()
