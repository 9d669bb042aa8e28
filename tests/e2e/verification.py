#!/usr/bin/python3
"""Who evaluates a definition's checks, and with what rights; and what happens beside a verification: other runs, a
rollback, an erased pipeline, a cancel. CALL portage.verify_run() keeps neither transaction nor locks between its pages."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import Server, check, finish  # noqa: E402
from sessions import GATES, PATIENT, Gate, Session, ndjson, told  # noqa: E402

SETUP = """
CREATE EXTENSION pg_portage;
CREATE SCHEMA app;
GRANT USAGE ON SCHEMA app TO PUBLIC;
CREATE TABLE app.goods (id int PRIMARY KEY, v int);
CREATE TABLE app.secret (n int);
CREATE TABLE app.written (who text);
INSERT INTO app.secret VALUES (42);
CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE mallory LOGIN;
GRANT SELECT, INSERT, UPDATE, DELETE ON app.goods TO alice, bob, mallory;
GRANT SELECT ON app.secret TO alice;
GRANT INSERT ON app.written TO PUBLIC;
CREATE FUNCTION app.tries_to_write() RETURNS boolean LANGUAGE plpgsql AS $$
  BEGIN INSERT INTO app.written VALUES (current_user); RETURN true; END $$;
CREATE FUNCTION app.swallows() RETURNS boolean LANGUAGE plpgsql AS $$
  BEGIN
    BEGIN INSERT INTO app.written VALUES (current_user); EXCEPTION WHEN others THEN NULL; END;
    RETURN true;
  END $$;
CREATE FUNCTION app.becomes(role text) RETURNS boolean LANGUAGE plpgsql AS $$
  BEGIN EXECUTE format('SET ROLE %I', role); RETURN true; END $$;
"""

# Holds the verification up while the gate is closed; the page before it has ended, as each check is one of its own.
GATED = '{"gated": "SELECT gates.pass(\'check\') = \'check\'", "after": "SELECT true"}'


def pipeline(session, name, checks, **more):
    return session.error('SELECT portage.create_pipeline(%s, %s, %s)', name, 'app.goods',
                         '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id", "v": "v"}, "checks": %s}' % checks)


def results(session, run, depth='hashes'):
    return {name: (passed, actual, details) for name, passed, actual, details in session.rows(
        'SELECT name, passed, actual, details FROM portage.verify(%s, %s)', run, depth)}


def goods(low, high):
    return ndjson([{'id': n, 'v': n} for n in range(low, high)])


def roles(server):
    admin, alice, bob, mallory = (Session(server, user) for user in ('postgres', 'alice', 'bob', 'mallory'))
    checks = """{"who": {"sql": "SELECT current_user::text", "expected": "alice"},
      "secret": {"sql": "SELECT n FROM app.secret", "expected": 42.0},
      "writes": "SELECT app.tries_to_write()", "swallows": "SELECT app.swallows()",
      "becomes": "SELECT app.becomes('bob')", "path": {"sql": "SELECT current_setting('search_path')", "expected": "app, public, pg_temp"},
      "setting": {"sql": "SELECT set_config('work_mem', '1MB', false)", "expected": "1MB"}}"""
    alice.rows('SET search_path = app, public')
    check('alice defines checks over what she may read', pipeline(alice, 'alice', checks) is None)
    alice.rows("SELECT portage.grant_pipeline('alice', 'bob', 'run')")
    bob.rows('SET search_path = public')
    run, = bob.rows("SELECT run_id FROM portage.migrate('alice/alice', %s)", goods(1, 4))[0]
    found = results(bob, run)
    check("bob's verification evaluates them as alice", found['who'] == (True, 'alice', {}), found['who'])
    check('... with her rights', found['secret'][0], found['secret'])
    check('... under the search_path of the creation', found['path'][0], found['path'])
    check('... unable to write', not found['writes'][0] and found['writes'][2]['sqlstate'] == '25006', found['writes'])
    check('... even where the error is swallowed', found['swallows'][0] and admin.value('SELECT count(*) FROM app.written') == 0, found)
    check('... or to become somebody else', not found['becomes'][0], found['becomes'])
    check('bob is still himself', bob.value('SELECT current_user') == 'bob' and bob.value('SHOW work_mem') == '4MB'
          and bob.value('SHOW search_path') == 'public' and bob.value('SHOW transaction_read_only') == 'off')
    check('bob himself may not read it', told(bob.error('SELECT n FROM app.secret')).startswith('42501'))
    found = results(admin, run)
    check("a superuser's verification of bob's run evaluates them as alice, too", found['who'][0], found['who'])
    own, = alice.rows("SELECT run_id FROM portage.migrate('alice', %s)", goods(11, 14))[0]
    found = results(alice, own)
    check("alice's own run: as herself, unable to write", found['who'][0] and not found['writes'][0] and found['secret'][0], found)
    found = results(admin, own)
    check("a superuser's verification of alice's run: as alice, and nobody becomes a superuser", found['who'][0] and
          not found['becomes'][0] and admin.value('SELECT count(*) FROM app.written') == 0, found)
    check('a check without rights is a result', pipeline(mallory, 'mallory', '{"secret": {"sql": "SELECT n FROM app.secret", "expected": 42}}')
          is None)
    run, = mallory.rows("SELECT run_id FROM portage.migrate('mallory', %s)", goods(21, 23))[0]
    found = results(mallory, run)
    check('... that has failed', not found['secret'][0] and found['secret'][2]['sqlstate'] == '42501', found['secret'])
    check('others see no run to verify', told(mallory.error('CALL portage.verify_run(%s)', own)).startswith('PZ005'))
    alice.rows("SELECT portage.grant_pipeline('alice', 'mallory', 'read')")
    check('who may only read about it may not verify it', told(mallory.error('CALL portage.verify_run(%s)', own)).startswith('42501'))


def beside(server):
    admin = Session(server)
    admin.rows('TRUNCATE app.goods')
    pipeline(admin, 'slow', GATED)
    run, = admin.rows("SELECT run_id FROM portage.migrate('slow', %s)", goods(1, 500))[0]

    def verifying(session, sql, run):
        """Stands at the gate."""
        gate = Gate(server, 'check')
        pending = session.begin(sql, run)
        gate.wait_for(session)
        return gate, pending

    def checks_of(number):
        return admin.value('SELECT count(*) FROM portage.data_integrity_checks WHERE run_id = %s', number)

    with Session(server) as other:
        gate, pending = verifying(other, 'CALL portage.verify_run(%s)', run)
        age, = admin.rows('SELECT xact_start > query_start FROM pg_stat_activity WHERE pid = %s', other.pid)[0]
        check('pages are transactions of their own', age)
        locks = admin.value("SELECT count(*) FROM pg_locks WHERE pid = %s AND relation IN ('app.goods'::regclass, "
                            "'portage.item_rows'::regclass, 'portage.item_packs'::regclass, 'portage.mapping_rows'::regclass, 'portage.mapping_packs'::regclass)",
                            other.pid)
        check('... that keep no locks', locks == 0, locks)
        # an incremental run of the same pipeline takes some of the rows over meanwhile
        later, = admin.rows("SELECT run_id FROM portage.migrate('slow', %s)", ndjson([{'id': n, 'v': -n} for n in range(1, 200)]))[0]
        gate.open()
        pending.result()
        check('a later run beside it raises no alarm', admin.value('SELECT verified FROM portage.migration_runs WHERE id = %s', run))
        notices = ''.join(other.connection.notices)
        check('NOTICEs tell each check, and the verdict', 'check balance: passed' in notices and 'check gated: passed' in notices and
              f'run {run} is verified' in notices, notices)
        before = checks_of(later)
        gate, pending = verifying(other, 'CALL portage.verify_run(%s)', later)
        check('a rollback beside it is not held up', admin.error('CALL portage.rollback(%s)', later) is None)
        gate.open()
        pending.wait()
        check('... and ends the verification, without a verdict', told(pending.error).startswith('PZ006') and
              'changed while it was verified' in told(pending.error) and checks_of(later) == before and
              admin.value('SELECT verified FROM portage.migration_runs WHERE id = %s', later) is None, told(pending.error))
        admin.rows('CALL portage.verify_run(%s)', later)
        check('what was taken back is verified as such', admin.value('SELECT verified FROM portage.migration_runs WHERE id = %s', later))

        gate, pending = verifying(other, 'SELECT portage.verify(%s)', run)  # the function: one transaction, the same care
        admin.rows('CALL portage.rollback(%s)', run)
        gate.open()
        pending.wait()
        check('the function notices it, too', told(pending.error).startswith('PZ006'), told(pending.error))

        run, = admin.rows("SELECT run_id FROM portage.migrate('slow', %s)", goods(1, 50))[0]
        gate, pending = verifying(other, 'CALL portage.verify_run(%s)', run)
        admin.rows('SELECT pg_cancel_backend(%s)', other.pid)
        gate.open()
        pending.wait()
        check('a cancel ends it, and is no result of a check', told(pending.error).startswith('57014') and checks_of(run) == 0,
              told(pending.error))
        gate, pending = verifying(other, 'CALL portage.verify_run(%s)', run)
        admin.rows("SELECT portage.drop_pipeline('slow', true)")
        gate.open()
        pending.wait()
        check('a run that was erased meanwhile has no verdict', told(pending.error).startswith('PZ006') and
              'was erased' in told(pending.error) and checks_of(run) == 0, told(pending.error))


def refusals(server):
    admin = Session(server)
    admin.rows("SELECT portage.create_pipeline('plain', 'app.goods', '{\"format\": \"ndjson\", \"legacy_id\": \"id\", \"columns\": "
               "{\"id\": \"id\", \"v\": \"v\"}}')")
    run, = admin.rows("SELECT run_id FROM portage.migrate('plain', %s)", goods(2001, 2004))[0]
    admin.rows('BEGIN')
    check('verify_run() needs its own transactions', told(admin.error('CALL portage.verify_run(%s)', run)).startswith('2D000'))
    admin.rows('ROLLBACK')
    check('an unknown depth is refused', told(admin.error("SELECT portage.verify(%s, 'deep')", run)).startswith('22023'))
    admin.rows('UPDATE portage.migration_runs SET dry_run = true WHERE id = %s', run)
    check('a dry run wrote nothing to be verified', told(admin.error('SELECT portage.verify(%s)', run)).startswith('PZ006'))
    admin.rows('UPDATE portage.migration_runs SET dry_run = false WHERE id = %s', run)
    # a run that somebody works on
    admin.rows("CREATE TRIGGER gate BEFORE INSERT ON app.goods FOR EACH ROW EXECUTE FUNCTION gates.keep('id')")
    run = admin.value("SELECT portage.open_run('plain', '', '{\"batch_size\": 2}')")
    admin.rows('SELECT portage.submit(%s, %s)', run, goods(3001, 3011))
    with Session(server) as other, Gate(server, 3005) as gate:
        pending = other.begin('CALL portage.run(%s)', run)
        gate.wait_for(other)
        check('a run that is being worked on is refused', told(admin.error('SELECT portage.verify(%s)', run)).startswith('PZ007'))
        gate.open()
        pending.result()
    admin.rows("SELECT portage.verify(%s, 'source')", run)
    check('... until it has ended', admin.value('SELECT verified FROM portage.migration_runs WHERE id = %s', run))


def broken_off(server):
    """Verification inside a run that is cancelled: the session lives on, and so does the run."""
    admin = Session(server)
    admin.rows('TRUNCATE app.goods')
    pipeline(admin, 'broken_off', GATED)
    with Session(server) as other, Gate(server, 'check') as gate:
        pending = other.begin('CALL portage.import(%s, payload => %s)', 'broken_off', goods(1, 50))
        gate.wait_for(other)
        admin.rows('SELECT pg_cancel_backend(%s)', other.pid)
        error = None
        try:
            pending.result()
        except Exception as raised:  # noqa: BLE001
            error = raised
        check('a verification that is cancelled says so', getattr(error, 'pgcode', None) == '57014', error)
        check('... and its session goes on', other.error('SELECT 1') is None)
        run, status = admin.rows("SELECT run_id, status FROM portage.last_run('broken_off')")[0]
        check('... and its run waits for who goes on with it', status == 'verifying', status)
        gate.open()
        other.rows('CALL portage.run(%s)', run)
        check('... and is verified then', admin.value('SELECT verified FROM portage.migration_runs WHERE id = %s', run))


def main():
    with Server(**PATIENT) as server:
        server.psql(SETUP + GATES)
        roles(server)
        beside(server)
        broken_off(server)
        refusals(server)
    finish()


if __name__ == '__main__':
    main()
