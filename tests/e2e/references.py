#!/usr/bin/python3
"""References between pipelines, and of one to itself: whatever comes first, and however often a session or the whole server
is killed while parked items are settled, every row refers to the row that its item named.

Authors and books are loaded in both orders, a tree of 10,000 nodes in random order, and a chain from its end."""

import json
import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import Server, check, finish  # noqa: E402
from sessions import GATES, PATIENT, Gate, Session, ndjson, told, until  # noqa: E402

SEED = int(os.environ.get('PORTAGE_SEED') or random.randrange(1 << 32))
AUTHORS, BOOKS, NODES, CHAIN = 3000, 9000, 10000, 1500

SETUP = """
CREATE EXTENSION pg_portage;
CREATE SCHEMA app;
""" + GATES
SHELF = """
CREATE TABLE app.author_{n} (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE app.book_{n} (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, title text NOT NULL UNIQUE,
                           author_id int NOT NULL REFERENCES app.author_{n}, editor_id int REFERENCES app.author_{n});
SELECT portage.create_pipeline('authors_{n}', 'app.author_{n}', '{{"format": "ndjson", "legacy_id": "key", "match": "name",
  "columns": {{"name": "name"}}}}');
SELECT portage.create_pipeline('books_{n}', 'app.book_{n}', '{{"format": "ndjson", "legacy_id": "isbn", "match": "title",
  "columns": {{"title": "title", "author_id": {{"from": "author", "references": "authors_{n}"}},
               "editor_id": {{"from": "editor", "references": "authors_{n}"}}}}}}');
"""
TREE = """
CREATE TABLE app.{name} (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE,
                         parent_id int REFERENCES app.{name});
SELECT portage.create_pipeline('{name}', 'app.{name}', '{{"format": "ndjson", "legacy_id": "n", "match": "name",
  "columns": {{"name": "name", "parent_id": {{"from": "parent", "references": "{name}"}}}}}}');
"""


def shelf(rng):
    authors = [{'key': f'a{n}', 'name': f'author {n}'} for n in range(AUTHORS)]
    books = [{'isbn': n, 'title': f'book {n}', 'author': f'a{rng.randrange(AUTHORS)}',
              'editor': rng.choice([None, f'a{rng.randrange(AUTHORS)}'])} for n in range(BOOKS)]
    rng.shuffle(authors)
    rng.shuffle(books)
    return authors, books


def submit(admin, pipeline, items, options=None):
    run = admin.value('SELECT portage.open_run(%s, options => %s)', pipeline, json.dumps(options or {}))
    admin.rows('SELECT portage.submit(%s, %s)', run, ndjson(items))
    return run


def books_of(admin, n):
    return admin.rows(f"SELECT b.title, a.name, e.name FROM app.book_{n} b JOIN app.author_{n} a ON a.id = b.author_id "
                      f"LEFT JOIN app.author_{n} e ON e.id = b.editor_id ORDER BY 1")


def counters(admin, run):
    return admin.rows('SELECT status, read, inserted, parked, invalid, open_parked FROM portage.migration_runs WHERE id = %s', run)[0]


def balanced(admin, run):
    """The books of the run: its counters are the sums of its batches, and count its items."""
    sums = admin.rows('SELECT sum(read), sum(inserted), sum(parked), sum(invalid) FROM portage.migration_batches WHERE run_id = %s',
                      run)[0]
    items = dict(admin.rows(
        'SELECT status, count(*) FROM (SELECT DISTINCT ON (ordinal) status FROM portage.migration_items WHERE run_id = %s '
        'ORDER BY ordinal, revision DESC) i GROUP BY 1', run))
    found = counters(admin, run)
    return (tuple(map(int, sums)) == tuple(found[1:5]) and items.get('inserted', 0) == found[2]
            and items.get('parked', 0) == found[3] and sum(items.values()) == found[1])


def both_orders(server, admin, rng):
    authors, books = shelf(rng)
    results = []
    for n, (first, workers) in enumerate((('authors', 1), ('books', 1), ('books', 2), ('authors', 2))):
        admin.rows(SHELF.format(n=n))
        options = {'workers': workers, 'batch_size': 500}
        runs = {}
        for what in (['authors', 'books'] if first == 'authors' else ['books', 'authors']):
            runs[what] = submit(admin, f'{what}_{n}', authors if what == 'authors' else books, options)
            admin.rows('CALL portage.run(%s)', runs[what])
        name = f'{first} first, {workers} workers'
        check(f'{name}: all books have landed', counters(admin, runs['books']) == ('completed', BOOKS, BOOKS, 0, 0, 0),
              str(counters(admin, runs['books'])))
        check(f'{name}: the books balance', balanced(admin, runs['books']))
        results.append(books_of(admin, n))
        check(f'{name}: verified', admin.value('SELECT bool_and(passed) FROM portage.verify(%s) WHERE severity <> %s',
                                               runs['books'], 'warning'))
        for what in ('books', 'authors'):
            admin.rows('CALL portage.rollback(%s)', runs[what])
        check(f'{name}: rolled back', admin.value(
            f'SELECT (SELECT count(*) FROM app.book_{n}) + (SELECT count(*) FROM app.author_{n}) + (SELECT count(*) FROM '
            "portage.legacy_mappings WHERE run_id IN (%s, %s))", runs['books'], runs['authors']) == 0)
    wanted = sorted((b['title'], 'author ' + b['author'][1:], b['editor'] and 'author ' + b['editor'][1:]) for b in books)
    check('every book has the author and the editor that it named', all(result == wanted for result in results))


def tree(admin, name, items, options):
    admin.rows(TREE.format(name=name))
    run = submit(admin, name, items, options)
    admin.rows('CALL portage.run(%s)', run)
    return run


def parents_of(admin, name):
    return dict(admin.rows(f'SELECT n.name, p.name FROM app.{name} n LEFT JOIN app.{name} p ON p.id = n.parent_id'))


def trees(admin, rng):
    nodes = [{'n': n, 'name': f'n{n}', 'parent': rng.randrange(n) if n else None} for n in range(NODES)]
    wanted = {f'n{one["n"]}': None if one['parent'] is None else f'n{one["parent"]}' for one in nodes}
    for number, options in enumerate(({}, {'batch_size': 300})):
        rng.shuffle(nodes)
        run = tree(admin, f'tree_{number}', nodes, options)
        check(f'a tree of {NODES} nodes in random order, {options}: all have landed',
              counters(admin, run) == ('completed', NODES, NODES, 0, 0, 0), str(counters(admin, run)))
        check(f'a tree of {NODES} nodes in random order, {options}: every node has its parent',
              parents_of(admin, f'tree_{number}') == wanted)
        check(f'a tree of {NODES} nodes in random order, {options}: the books balance', balanced(admin, run))
    admin.rows('CALL portage.rollback(%s)', run)
    check('the tree is rolled back, children before parents', admin.value('SELECT count(*) FROM app.tree_1') == 0)
    chain = [{'n': n, 'name': f'n{n}', 'parent': n + 1 if n + 1 < CHAIN else None} for n in range(CHAIN)]
    run = tree(admin, 'chain', chain, {})
    check(f'a chain of {CHAIN} nodes from its end: all have landed',
          counters(admin, run) == ('completed', CHAIN, CHAIN, 0, 0, 0), str(counters(admin, run)))
    check(f'a chain of {CHAIN} nodes from its end: every node has its parent',
          parents_of(admin, 'chain') == {f'n{n}': f'n{n + 1}' if n + 1 < CHAIN else None for n in range(CHAIN)})


def killed(server, rng):
    """Whoever settles is killed, again and again; then the server. The end is that of an undisturbed run."""
    admin = Session(server)
    nodes = [{'n': n, 'name': f'n{n}', 'parent': rng.randrange(n) if n else None} for n in range(4000)]
    wanted = {f'n{one["n"]}': None if one['parent'] is None else f'n{one["parent"]}' for one in nodes}
    rng.shuffle(nodes)
    admin.rows(TREE.format(name='killed'))
    admin.rows("CREATE TRIGGER gate BEFORE INSERT ON app.killed FOR EACH ROW EXECUTE FUNCTION gates.keep('name')")
    run = submit(admin, 'killed', nodes, {'batch_size': 100})
    position = {one['n']: place for place, one in enumerate(nodes)}
    early = {f'n{one["n"]}' for one in nodes if one['n'] and position[one['parent']] > position[one['n']] + 100}
    stages, kills = set(), 0
    while kills < 12:
        left = set(wanted) - {name for name, in admin.rows('SELECT name FROM app.killed')}
        # The run cannot get past the gate of a node that it lacks, wherever it comes to by the kill. To the root it comes
        # when it reads it, to a node that stands before its parent when it settles what was parked.
        at_the_end = kills >= 8
        with Gate(server, 'n0' if kills == 0 else rng.choice(sorted(left & early if at_the_end else left))) as gate:
            session = Session(server)
            pending = session.begin('CALL portage.run(%s)', run)
            moment = time.monotonic() + rng.uniform(0.05, 0.4)
            until(lambda: gate.stands(session) or kills % 2 and not at_the_end and time.monotonic() > moment)
            stages.add(admin.value('SELECT current_step FROM portage.migration_runs WHERE id = %s', run))
            kills += 1
            if kills % 3 == 0:
                server.kill9()
                server.restart()
            else:
                server.kill9_backend(session.pid)
            check(f'kill {kills} met it at work', pending.wait().error is not None)
        admin = Session(server)
    error = admin.error('CALL portage.run(%s)', run)
    check(f'killed {kills} times, in {sorted(map(str, stages))}', kills == 12 and {'importing', 'resolving'} <= stages)
    check('killed: the run completes', counters(admin, run) == ('completed', 4000, 4000, 0, 0, 0),
          str(counters(admin, run)) + ' ' + told(error))
    check('killed: every node has its parent', parents_of(admin, 'killed') == wanted)
    check('killed: the books balance', balanced(admin, run))


def rivals(server):
    """Authors come while somebody else works on the books: these wait, and tick() brings them along."""
    admin = Session(server)
    admin.rows(SHELF.format(n='rivals'))
    books = submit(admin, 'books_rivals', [{'isbn': 1, 'title': 'one', 'author': 'a1'}])
    admin.rows('CALL portage.run(%s)', books)
    keeper = Session(server)
    keeper.rows('BEGIN')
    keeper.rows("SELECT portage.migrate('books_rivals', '{\"isbn\": 2, \"title\": \"two\", \"author\": \"a2\"}')")
    authors = submit(admin, 'authors_rivals', [{'key': 'a1', 'name': 'author one'}])
    check('rivals: the run of the authors does not fail', admin.error('CALL portage.run(%s)', authors) is None)
    check('rivals: the book waits on', counters(admin, books)[5] == 1)
    keeper.rows('COMMIT')
    admin.rows('CALL portage.tick()')
    check('rivals: tick() settles it', counters(admin, books)[:4] == ('completed', 1, 1, 0), str(counters(admin, books)))
    tried = admin.value('SELECT references_tried_at FROM portage.migration_runs WHERE id > %s AND pipeline = %s', books, 'books_rivals')
    admin.rows('CALL portage.tick()')
    check('rivals: what has no news is not tried again', tried == admin.value(
        'SELECT references_tried_at FROM portage.migration_runs WHERE id > %s AND pipeline = %s', books, 'books_rivals'))


def broken_off(server):
    """A timeout right after the commit of "completed", while parked items of other runs are being settled: this is taken up
    again, by the same call, by tick(), and by the next run."""
    admin = Session(server)
    admin.rows(SHELF.format(n='broken'))
    for number, (how, again) in enumerate((
            ('the same call again', lambda run: ('CALL portage.run(%s)', run)),
            ('tick()', lambda run: ('CALL portage.tick()',)),
            ('the next run', lambda run: ('CALL portage.run(%s)', submit(admin, 'authors_broken', []))))):
        books = [submit(admin, 'books_broken', [{'isbn': f'{number}.{n}', 'title': f'book {number}.{n}', 'author': f'a{number}'}])
                 for n in range(2)]
        for run in books:
            admin.rows('CALL portage.run(%s)', run)
        authors = submit(admin, 'authors_broken', [{'key': f'a{number}', 'name': f'author {number}'}])
        keeper, session = Session(server), Session(server)
        keeper.rows('BEGIN')
        keeper.rows('LOCK TABLE app.book_broken IN SHARE MODE')
        pending = session.begin('CALL portage.run(%s)', authors)
        until(lambda: admin.value("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s", session.pid))
        admin.rows('SELECT pg_cancel_backend(%s)', session.pid)
        check(f'broken off, then {how}: the call is cancelled', pending.wait().error is not None)
        keeper.rows('COMMIT')
        check(f'broken off, then {how}: its run is completed, and the books wait', (
            counters(admin, authors)[0], [counters(admin, run)[5] for run in books]) == ('completed', [1, 1]))
        error = admin.error(*again(authors))
        check(f'broken off, then {how}: they have landed', [counters(admin, run)[:4] for run in books] ==
              [('completed', 1, 1, 0)] * 2, told(error) + str([counters(admin, run) for run in books]))
    check('when nothing is left to be done, a completed run cannot be called again',
          getattr(admin.error('CALL portage.run(%s)', authors), 'pgcode', None) == 'PZ006')


print(f'seed {SEED}')
with Server(max_worker_processes=16, **PATIENT) as server:
    random_numbers = random.Random(SEED)
    admin = Session(server)
    admin.rows(SETUP)
    both_orders(server, admin, random_numbers)
    trees(admin, random_numbers)
    rivals(server)
    broken_off(server)
    killed(server, random_numbers)
finish()
