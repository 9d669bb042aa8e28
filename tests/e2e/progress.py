#!/usr/bin/python3
"""How a run tells how it gets on: notifications after its commits, the last one with its end; application_name, which
is as before when the run is over; the view. A run in somebody's transaction is silent, and a failing one says so."""

import json
import os
import select
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import Server, check, finish  # noqa: E402
from sessions import GATES, PATIENT, Gate, Session, until  # noqa: E402

ITEMS = 60000


def heard(listener, teller):
    """The payloads that have been sent so far: all that come before one of our own."""
    def ours():
        if select.select([listener], [], [], 1)[0]:
            listener.poll()
        return any(n.payload == '{}' for n in listener.notifies)

    teller.rows("NOTIFY portage, '{}'")
    until(ours)
    payloads = [json.loads(n.payload) for n in listener.notifies if n.channel == 'portage' and n.payload != '{}']
    listener.notifies.clear()
    return payloads


def main():
    with Server(**PATIENT) as server, server.connect() as listener, Session(server) as runner:
        server.psql('CREATE EXTENSION pg_portage; CREATE TABLE t (id int PRIMARY KEY, v text);' + GATES +
                    "CREATE TRIGGER gate BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION gates.keep('id')")
        server.psql("SELECT portage.create_pipeline('t', 't', "
                    "'{\"format\": \"ndjson\", \"legacy_id\": \"id\", \"columns\": {\"id\": \"id\", \"v\": \"v\"}}')")
        path = os.path.join(server.directory, 'items.ndjson')
        with open(path, 'w', encoding='utf-8') as file:
            file.writelines('{"id": %d, "v": "x"}\n' % n for n in range(ITEMS))
        os.chmod(path, 0o644)
        cursor = listener.cursor()
        cursor.execute('LISTEN portage')
        teller = Session(server)
        runner.rows("SET application_name = 'mine'; SET portage.progress_interval = 0")
        with Gate(server, ITEMS // 2) as gate:
            pending = runner.begin("CALL portage.import('t', file => %s, options => '{\"batch_size\": 2000}')", path)
            gate.wait_for(runner)
            name = teller.value('SELECT application_name FROM pg_stat_activity WHERE pid = %s', runner.pid)
        number = pending.result()[0][0]
        check('application_name shows the run', name.startswith(f'portage run {number}: '), name)
        with runner.connection.cursor() as run:
            told = heard(listener, teller)
            check('each tells the run, its state and what is done',
                  all(set(t) == {'run', 'seq', 'status', 'done', 'total'} and t['run'] == number for t in told), told)
            running = [t for t in told if t['status'] == 'running']
            # the last batch may be one that finds nothing more to read
            check('while it works, one after each batch',
                  sorted({t['done'] for t in running}) == list(range(2000, ITEMS + 1, 2000)), running)
            check('what there is in all is told at the end',
                  all(t['total'] is None for t in running) and told[-1]['status'] == 'completed' and
                  told[-1]['done'] == told[-1]['total'] == ITEMS, told[-1:])
            run.execute('SELECT max(seq) FROM portage.migration_events WHERE run_id = %s', (number,))
            check('with the number of the latest event', told[-1]['seq'] == run.fetchone()[0], told[-1])
            check('numbers of events never go back', [t['seq'] for t in told] == sorted(t['seq'] for t in told))
            run.execute('SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()')
            check('and is as before when it is over', run.fetchone()[0] == 'mine')
            run.execute("SELECT portage.migrate('t', '{\"id\": -1}')")
            check('migrate() is silent', not heard(listener, teller))
            try:
                run.execute("CALL portage.import('t', payload => '{\"id\": \"x\"}', options => '{\"max_rejects\": 0}')")
            except Exception:  # noqa: BLE001 - it is to fail
                pass
            told = heard(listener, teller)
            check('a run that fails says so', told and told[-1]['status'] == 'failed', told)
            run.execute('SET portage.progress_interval = 3600000')
            run.execute("CALL portage.import('t', file => %s, options => '{\"batch_size\": 2000}')", (path,))
            told = heard(listener, teller)
            check('the interval throttles all but the end', [t['status'] for t in told] == ['completed'], told)
    finish()


if __name__ == '__main__':
    main()
