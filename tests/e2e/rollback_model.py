#!/usr/bin/python3
"""Random steps against a simple model of a target table, its mappings and the undo stacks: runs with inserts and
overwrites, rows that were there before and are adopted, rows whose key is moved, items that wait for what they refer to, and
deletions of what is gone from the source ("missing": "delete"); changes by another role in between (also edits that differ only in bytes, and of columns that no run maps);
rollbacks in random order with every answer to drift, also of places that are taken meanwhile, called again until all is given back; verifications. After each step database and model agree byte for
byte: rows, mappings, before-images, outcomes, and what was refused or spared.

Not in the model: deleted rows that return by force into others with their key. Nobody takes the key of a row that a run has deleted, nor one that a stranger has left: that a row is gone, and the one in its place another, the ledger cannot know.

PORTAGE_SEED repeats a series, PORTAGE_STEPS sets its length (default 500)."""

import collections
import itertools
import json
import os
import random
import sys
import time

import psycopg2

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import Server, check, finish  # noqa: E402

SEED = int(os.environ.get('PORTAGE_SEED') or 4)  # others: tests/long/models.py
STEPS = int(os.environ.get('PORTAGE_STEPS') or 500)

LEGACY_IDS = range(1, 15)
# Spellings that are equal for the target's types or collation and yet differ: an overwrite, and a drift, all the same.
AMOUNTS = ['1.0', '1.00', '1.000', '2', '-0.5', None]
WORDS = ['Bob', 'BOB', 'bob', 'Eve', 'EVE', None]
NOTES = ['fresh', 'worn', 'Worn', None]
EXTRAS = ['1', '2', None]
OWNERS = range(1, 7)
MAPPED, UNMAPPED = ('num', 'code', 'amount', 'word', 'owner'), ('note', 'extra')
UNIQUE = ('num', 'code')
SHARED = ('c1', 'c2', 'c3', 'c4')
NUMBERS = 24  # of keys, of which legacy ids have favourites, which they share
TAKEN = '23505 duplicate key value violates unique constraint "things_%s_key"'
ORIGINS = {'i': 'inserted', 'a': 'adopted', 'o': 'overwritten'}


def code_of(legacy_id):
    """Four codes are those of two legacy ids each: two old records that mean the same row."""
    return f'c{(legacy_id - 1) % 10 + 1}'


Mapping = collections.namedtuple('Mapping', 'key at origin source row_hash run ordinal')  # key: the row; at: the key that it had


class Row:
    def __init__(self, num, code, amount, word, owner, note='fresh', extra=None):
        self.values = {'num': num, 'code': code, 'amount': amount, 'word': word, 'owner': owner, 'note': note, 'extra': extra}
        self.origin, self.touched = dict(self.values), set()  # what it began with; the columns that strangers changed since
        self.writes = []  # the items that have overwritten it, in order

    def content(self):
        return tuple(self.values[name] for name in MAPPED)

    def hash(self):
        """As row_hash: every column, as it is spelled."""
        return (self, *self.values.values())


class Item:
    """What a run did with an item, and how to take it back."""

    def __init__(self, ordinal, legacy_id, content):
        self.ordinal, self.legacy_id, self.content = ordinal, legacy_id, content
        self.owner = None  # the legacy id that it names; content has what that has become
        self.status = self.row = self.before = self.after = self.replaced = None
        self.has_undo = self.mapped = self.taken = False


class Deletion:
    """A row that a run has deleted, its item being gone; among the row's writes it is the last."""

    def __init__(self, run, legacy_id, mapping, mark):
        self.run, self.legacy_id, self.mapping, self.mark = run, legacy_id, mapping, mark
        self.row, self.before, self.taken = mapping.key, dict(mapping.key.values), False


class Run:
    def __init__(self, number, items):
        self.number, self.items, self.status = number, items, 'completed'
        self.deletions, self.marked, self.now = [], [], collections.Counter()


class Model:
    def __init__(self):
        self.rows, self.mappings, self.runs = [], {}, {}
        self.marks = {}  # legacy id: the run that missed it first
        self.owners = {}  # legacy id: key
        self.burnt = set()  # places that strangers have left

    def present(self, row):
        return any(row is other for other in self.rows)

    def by(self, name, value, apart=None):
        return next((row for row in self.rows if row is not apart and row.values[name] == value), None)

    def by_code(self, code):
        return self.by('code', code)

    def taker(self, values, apart=None):
        """Who stands where a row with these values would."""
        return next(filter(None, (self.by(name, values[name], apart) for name in UNIQUE if name in values)), None)

    def migrate(self, run, on_conflict):
        run.on_conflict = on_conflict
        self.runs[run.number] = run
        self.load(run, run.items, False)
        for item in run.items:
            self.marks.pop(item.legacy_id, None)

    def load(self, run, items, late):
        """Items one after the other; `late`: later runs are newer. What has to wait stays parked, and what comes behind it."""
        waiting = []
        for item in items:
            item.run = run.number
            behind = any(other.legacy_id == item.legacy_id or other.content[1] == item.content[1] for other in waiting)
            if item.owner is not None and item.owner not in self.owners or behind:
                item.status = 'parked'
                waiting.append(item)
                continue
            item.content = item.content[:-1] + (None if item.owner is None else str(self.owners[item.owner]),)
            self.load_one(run, item, late)

    def settle(self):
        for run in self.runs.values():
            if run.status == 'completed':
                self.load(run, [item for item in run.items if item.status == 'parked'], True)

    def load_one(self, run, item, late):
        known = self.mappings.get(item.legacy_id)
        if known and known.source == item.content:
            item.status, item.row = 'unchanged', known.key
            return
        row = self.by('num', known.at) if known else None
        by_match = row is None
        row = row or self.by_code(item.content[1])
        if by_match and row is not None and any(m.run == run.number and m.at == row.values['num'] for m in self.mappings.values()):
            item.status = 'invalid'  # the duplicate of another one of the run
            return
        same_row = known is not None and row is not None and known.at == row.values['num']
        newer = late and row is not None and (known is not None and known.run > run.number or any(
            m.run > run.number and m.at == row.values['num'] for m in self.mappings.values()))
        item.replaced = known
        new = dict(zip(MAPPED, item.content))
        if row is None:
            if self.taker(new):
                item.status = 'invalid'
                return
            row = Row(*item.content)
            self.rows.append(row)
            item.status, origin, item.has_undo = 'inserted', 'i', known is not None
        elif row.content() == item.content:
            item.status, item.has_undo = 'unchanged', known is not None
            origin = known.origin if same_row else 'a'
        elif on_top(run.on_conflict, newer) or known and not newer and known.row_hash == row.hash():
            if self.taker(new, row):
                item.status = 'invalid'
                return
            item.before = {name: row.values[name] for name in MAPPED if row.values[name] != new[name]}
            row.values.update(new)
            item.after, item.before_at_first = {name: row.values[name] for name in item.before}, dict(item.before)
            row.writes.append(item)
            item.status, item.has_undo = 'updated', True
            origin = 'i' if same_row and known.origin == 'i' else 'o'
        else:
            item.status, item.row = 'skipped', row
            return
        item.row, item.mapped, item.at = row, True, row.values['num']
        self.marks.pop(item.legacy_id, None)
        self.mappings[item.legacy_id] = Mapping(row, row.values['num'], origin, item.content, row.hash(), run.number, item.ordinal)

    def delete_missing(self, run):
        """What became of what is gone: legacy id: (status, reason)."""
        present, fates = {item.legacy_id for item in run.items}, {}
        gone = [(legacy_id, m) for legacy_id, m in self.mappings.items() if legacy_id not in present]
        shared = [legacy_id for legacy_id, m in gone if sum(other.at == m.at for other in self.mappings.values()) > 1]
        for legacy_id, m in gone:
            reason = (ORIGINS[m.origin] if m.origin != 'i' else 'shared' if legacy_id in shared else
                      'gone' if not self.by('num', m.at) else
                      'changed' if self.by('num', m.at) is not m.key or m.row_hash != m.key.hash() else None)
            fates[legacy_id] = ('marked' if reason else 'deleted', reason)
            if reason:
                self.marks.setdefault(legacy_id, run.number)
                run.marked.append(legacy_id)
                continue
            deletion = Deletion(run.number, legacy_id, m, self.marks.pop(legacy_id, None))
            run.deletions.append(deletion)
            m.key.writes.append(deletion)
            self.rows.remove(m.key)
            self.burnt.add(m.at)
            del self.mappings[legacy_id]
        return fates

    def held(self, run, item):
        """The deleted row of an item whose mapping is not its own any more, as later runs hold it."""
        if self.is_ours(run, item):
            return []
        return [d for d in item.row.writes if isinstance(d, Deletion) and not d.taken and d.run > run.number and
                d.legacy_id == item.legacy_id and (d.mapping.run, d.mapping.ordinal) >= (run.number, item.ordinal)]

    def as_left(self, run, item, held):
        return any((d.mapping.run, d.mapping.ordinal) == (run.number, item.ordinal) for d in held)

    def concerns(self, run, item):
        return item.mapped and item.status in ('inserted', 'updated', 'unchanged')

    def is_ours(self, run, item):
        known = self.mappings.get(item.legacy_id)
        return known is not None and (known.run, known.ordinal) == (run.number, item.ordinal)

    def drift(self, run, item):
        known = self.mappings.get(item.legacy_id)
        if item.status == 'unchanged':
            return None  # the row was never the run's
        if not self.present(item.row):
            held = self.held(run, item)
            return 'later_run' if held and not self.as_left(run, item, held) else 'gone'
        if known is None:
            return 'mapping_missing'
        if not self.is_ours(run, item):
            return 'later_run'
        return None if known.row_hash == item.row.hash() else 'changed'

    def judge_deletions(self, run):
        judged = []
        for d in run.deletions:
            if d.taken:
                continue
            known, taker = self.mappings.get(d.legacy_id), self.taker({name: d.before[name] for name in UNIQUE})
            judged.append((d, 'waits' if known and known.run == run.number or taker and self.is_of(run, taker) else
                           'later_run' if known else 'taken' if taker else None))
        return judged

    def is_of(self, run, row):
        """The run's own row."""
        return any(item.status in ('inserted', 'updated') and item.row is row for item in run.items)

    def judge(self, run):
        """Items, their drift, whether their place is taken, and by whom their deleted rows are held."""
        judged = []
        for item in run.items:
            if not self.concerns(run, item):
                continue
            drift, taken = self.drift(run, item), None
            if item.status == 'updated' and self.present(item.row):
                before = {name: value for name, value in item.before.items() if name in UNIQUE}
                taken = self.taker(before, item.row)
                if taken:
                    drift = 'waits' if self.is_of(run, taken) else drift or 'taken'
            judged.append((item, drift, taken, self.held(run, item)))
        return judged

    def rollback(self, run, drifted):
        """What is spared, by its kind of drift; None if the rollback is refused and changes nothing."""
        run.now = collections.Counter()
        clean = (None, 'gone', 'waits')
        if drifted == 'refuse' and any(drift not in clean for _, drift, *_ in self.judge(run) + self.judge_deletions(run)):
            return None
        again = True
        while again:
            spared, progress = collections.Counter(), False
            for d, drift in self.judge_deletions(run):
                why = drift if drift and (drifted != 'force' or drift == 'waits') else self.put_back(d)
                spared[why] += why is not None
                run.now['restored'] += why is None
                progress = progress or why is None
            for item, drift, taken, held in reversed(self.judge(run)):
                if drift == 'waits' or drifted != 'force' and drift not in (None, 'gone'):
                    spared[drift] += 1
                elif taken:
                    spared['taken'] += 1
                else:
                    self.take_back(run, item, held)
                    run.now['gone'] += drift == 'gone'
                    progress = True
            again = progress and spared['waits'] > 0
        for legacy_id in run.marked:
            if self.marks.get(legacy_id) == run.number:
                del self.marks[legacy_id]
        spared = +spared
        if all(drifted != 'force' and why in ('changed', 'later_run', 'mapping_missing', 'taken') for why in spared):
            run.status = 'rolled_back'
        return spared

    def put_back(self, d):
        """A deleted row returns; by force even into another one that has its key. Why not, if it does not."""
        known, row = self.mappings.get(d.legacy_id), self.by('num', d.mapping.at)
        if known and known.at != d.mapping.at:
            return 'later_run'
        if row is None:
            for name in UNIQUE:
                if self.by(name, d.before[name]):
                    return TAKEN % name
            d.row.values = dict(d.before)
            self.rows.append(d.row)
        else:
            changed = {name: value for name, value in d.before.items() if name != 'num'}
            if self.by('code', changed['code'], row):
                return TAKEN % 'code'
            self.rows.remove(row)
            d.row.values = {**d.before, 'num': row.values['num']}
            self.rows.append(d.row)
        d.taken = True
        self.mappings[d.legacy_id] = d.mapping
        self.marks.pop(d.legacy_id, None)
        if d.mark is not None:
            self.marks[d.legacy_id] = d.mark
        return None

    def take_back(self, run, item, held):
        # The mapping goes back if it is this item's, or speaks of the row that is taken back by force. One that a
        # later run has written for another row is that run's.
        known, found = self.mappings.get(item.legacy_id), self.present(item.row) and item.status != 'unchanged'
        gives_back = known is not None and (self.is_ours(run, item) or found and known.key is item.row)
        item.taken = True
        run.now['taken'] += 1
        if item.status == 'inserted' and found:
            self.rows.remove(item.row)
        elif item.status == 'updated':
            if found:
                item.row.values.update(item.before)
            if found or held:
                self.pass_on(item)
        self.hand_on(run, item, held)
        item.status = 'rolled_back'
        if gives_back:
            self.restore_mapping(item)

    def hand_on(self, run, item, held):
        """A row that a later run holds does not return where its insert was taken back, else with the mapping below."""
        below = self.below(item)
        if item.status == 'inserted' or below is None:
            for d in held:
                d.taken = True
        elif self.as_left(run, item, held):
            for d in held:
                if (d.mapping.run, d.mapping.ordinal) == (run.number, item.ordinal):
                    d.mapping = below

    def pass_on(self, item):
        """Who has found what the item wrote, gets for its before-image what the item had found: the next one that still
        stands, column by column, unless a stranger has written the column in between."""
        for name in item.before:
            for later in item.row.writes[item.row.writes.index(item) + 1:]:
                if isinstance(later, Deletion) and later.legacy_id != item.legacy_id:
                    continue
                if not later.taken and name in later.before:
                    if later.before[name] == item.after[name]:
                        later.before[name] = item.before[name]
                    break

    def below(self, item):
        """The newest mapping below it that has not been taken back itself."""
        before = item.replaced
        while before is not None:
            writer = self.item_of(before)
            if not writer.taken:
                break
            before = writer.replaced
        return before

    def restore_mapping(self, item):
        before = self.below(item)
        if before is None:
            del self.mappings[item.legacy_id]
            self.marks.pop(item.legacy_id, None)
        else:
            self.mappings[item.legacy_id] = before

    def item_of(self, mapping):
        return self.runs[mapping.run].items[mapping.ordinal - 1]

    def verify(self, run):
        """name → passed, and what the check of the rows tells."""
        landed = [item for item in run.items if self.concerns(run, item)]
        later = changed = gone = 0
        for item in landed:
            known = self.mappings.get(item.legacy_id)
            if known is None or known.run != run.number:
                later += 1
            elif not self.by('num', known.at):
                gone += 1
            elif self.by('num', known.at) is not item.row or known.row_hash != item.row.hash():
                changed += 1
        passed = dict.fromkeys(('balance', 'item_count', 'mapping', 'undo', 'row_hash', 'relationships', 'payload',
                                'source'), True)
        known = [self.mappings.get(item.legacy_id) for item in run.items
                 if item.status == 'unchanged' and not self.concerns(run, item)]
        passed['unchanged_rows'] = all(m is None or self.by('num', m.at) for m in known)
        mappings = self.mappings.values()
        for name, part in (('duplicate_key', 'at'), ('duplicate_content', 'source')):
            mine = [getattr(m, part) for m in mappings if m.run == run.number]
            passed[name] = all(sum(getattr(m, part) == one for m in mappings) == 1 for one in mine)
        return passed, {'changed_since': changed, 'gone': gone, 'later_run': later}, len(landed) - later - changed - gone


def on_top(on_conflict, newer):
    return on_conflict == 'overwrite' and not newer


def texts(values):
    """As the ledger has them."""
    return {name: None if value is None else str(value) for name, value in (values or {}).items()}


class Disagreement(Exception):
    pass


def agree(what, model, database):
    if model != database:
        raise Disagreement(f'{what}\n  model:    {model}\n  database: {database}')


class Series:
    def __init__(self, server, seed):
        self.random, self.model, self.counts = random.Random(seed), Model(), collections.Counter()
        self.server = server
        self.log = collections.deque(maxlen=40)
        self.owner, self.stranger = server.connect(), server.connect()
        self.pipeline, self.has_icu = 'things', True
        self.set_up()

    def set_up(self):
        self.sql('CREATE EXTENSION pg_portage; CREATE SCHEMA app')
        if not self.rows("SELECT 1 FROM pg_collation WHERE collprovider = 'i' LIMIT 1"):
            self.has_icu = False
            print('skipped: no ICU here, so the column with a nondeterministic collation has the default one')
        else:
            self.sql("CREATE COLLATION app.any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
        collation = ' COLLATE app.any_case' if self.has_icu else ''
        self.sql(f"""CREATE TABLE app.things (
            num integer CONSTRAINT things_num_key PRIMARY KEY, code text NOT NULL UNIQUE,
            amount numeric, word text{collation}, owner integer, note text DEFAULT 'fresh', extra integer);
          CREATE TABLE app.owners (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text);
          CREATE ROLE stranger; GRANT USAGE ON SCHEMA app TO stranger;
          GRANT SELECT, INSERT, UPDATE, DELETE ON app.things TO stranger""")
        self.definition = {'format': 'json', 'legacy_id': 'n', 'match': ['code'],
                           'columns': {**{name: name for name in MAPPED}, 'owner': {'from': 'owner', 'references': 'owners'}}}
        self.deletes = False  # what the pipeline's newest version says of missing items
        self.sql('SELECT portage.create_pipeline(%s, %s, %s)', 'owners', 'app.owners', json.dumps(
            {'format': 'json', 'legacy_id': 'o', 'columns': {'name': 'name'}}))
        self.sql('SELECT portage.create_pipeline(%s, %s, %s)', self.pipeline, 'app.things', json.dumps(self.definition))
        self.sql('SET ROLE stranger', on=self.stranger)

    def sql(self, text, *arguments, on=None):
        with (on or self.owner).cursor() as cursor:
            cursor.execute(text, arguments or None)

    def rows(self, text, *arguments):
        with self.owner.cursor() as cursor:
            cursor.execute(text, arguments or None)
            return cursor.fetchall()

    def number(self, legacy_id=None):
        code = legacy_id and code_of(legacy_id)
        if code in SHARED:  # its row keeps its key: which of two would know another one, is no matter of rollbacks
            row = self.model.by_code(code)
            return row.values['num'] if row else next(n for n in itertools.count(10000 + int(code[1:]), 100) if n not in self.model.burnt)
        free = list(itertools.islice((n for n in itertools.count(1) if n not in self.model.burnt), NUMBERS))
        favourites = [n for i, n in enumerate(free) if legacy_id is not None and i % 8 == legacy_id % 8]
        return self.random.choice(favourites or free)

    def content(self, legacy_id):
        return self.number(legacy_id), code_of(legacy_id), self.random.choice(AMOUNTS), self.random.choice(WORDS), None

    # the steps

    def a_run(self):
        chosen, codes = [], set()
        deletes = self.random.random() < 0.35
        if deletes != self.deletes:
            self.deletes = deletes
            missing = {'missing': {'do': 'delete', 'at_most': '100%'}} if deletes else {}
            self.sql('SELECT portage.replace_pipeline(%s, %s)', self.pipeline, json.dumps({**self.definition, **missing}))
        several = self.random.sample(LEGACY_IDS, self.random.randint(1, 6))
        if deletes:  # most of what there is, and something new
            several = [n for n in self.model.mappings if self.random.random() < 0.8] + several[:2]
            self.random.shuffle(several)
        for legacy_id in dict.fromkeys(several):
            if code_of(legacy_id) not in codes:
                codes.add(code_of(legacy_id))
                chosen.append(legacy_id)
        items = []
        for ordinal, legacy_id in enumerate(chosen, 1):
            known, row, dice = self.model.mappings.get(legacy_id), self.model.by_code(code_of(legacy_id)), self.random.random()
            content = self.content(legacy_id)
            if known and dice < (0.7 if deletes else 0.25):
                content = known.source  # the same again
            elif row and dice < 0.4:
                content = row.content()  # what the table has already
            if content[0] in self.model.burnt:
                content = (self.number(legacy_id),) + content[1:]
            items.append(Item(ordinal, legacy_id, content))
            keys = {str(key): owner for owner, key in self.model.owners.items()}
            items[-1].owner = keys.get(content[-1]) if content[-1] else self.random.choice([None, None, self.random.choice(OWNERS)])
            items[-1].content = content[:-1] + (str(self.model.owners[items[-1].owner]) if items[-1].owner in self.model.owners else None,)
        on_conflict = self.random.choice(['overwrite', 'overwrite', 'skip'])
        # numbers as they are spelled: 1.0 is not 1.00
        payload = '[' + ', '.join(
            '{"n": %d, "num": %d, "code": "%s", "amount": %s, "word": %s, "owner": %s}'
            % (item.legacy_id, *item.content[:2], item.content[2] or 'null', json.dumps(item.content[3]), json.dumps(item.owner))
            for item in items) + ']'
        self.log.append(f'migrate {on_conflict}{" delete" if deletes else ""} {payload}')
        (number, status, *counts), = self.rows(
            'SELECT run_id, status, inserted, updated, unchanged, skipped, parked, invalid, failed '
            'FROM portage.migrate(%s, %s::text, options => %s)', self.pipeline, payload,
            json.dumps({'on_conflict': on_conflict, 'batch_size': self.random.choice([1, 2, 1000])}))
        run = Run(number, items)
        self.model.migrate(run, on_conflict)
        outcomes = collections.Counter(item.status for item in items)
        agree('counters of the run', ['completed'] + [outcomes[name] for name in (
            'inserted', 'updated', 'unchanged', 'skipped', 'parked', 'invalid', 'failed')], [status, *counts])
        for name in outcomes:
            self.counts[name] += outcomes[name]
        fates = self.model.delete_missing(run) if deletes else {}
        agree('what became of missing items', {str(legacy_id): fate for legacy_id, fate in fates.items()}, {
            legacy_id: (fate, reason) for legacy_id, fate, reason in
            self.rows('SELECT legacy_id, status, reason FROM portage.missing_items WHERE run_id = %s', number)})
        for fate, reason in fates.values():
            self.counts['missing: ' + (reason or fate)] += 1
        agree('before-images', sorted((item.ordinal, texts(item.before)) for item in items if item.has_undo), sorted(
            (ordinal, dict(zip(columns or [], before or []))) for ordinal, columns, before in
            self.rows('SELECT ordinal, columns, before FROM portage.migration_undo WHERE run_id = %s', number)))
        self.check_items(run)

    def a_change(self):
        row = self.random.choice(self.model.rows) if self.model.rows else None
        kind = self.random.choice(['mapped', 'unmapped', 'bytes', 'delete', 'insert', 'key'])
        if row is None or kind == 'insert':
            code, number = self.random.choice(['c%d' % n for n in range(1, 13)]), self.number()
            if self.model.taker({'code': code, 'num': number}):
                return
            row = Row(number, code, self.random.choice(AMOUNTS), self.random.choice(WORDS), None, self.random.choice(NOTES),
                      self.random.choice(EXTRAS))
            self.model.rows.append(row)
            self.log.append(f'insert {row.values}')
            self.sql('INSERT INTO app.things (num, code, amount, word, owner, note, extra) VALUES (%s, %s, %s, %s, %s, %s, %s)',
                     *row.values.values(), on=self.stranger)
        elif kind == 'delete':
            self.log.append(f'delete {row.values["code"]}')
            self.model.rows.remove(row)
            self.model.burnt.add(row.values['num'])
            self.sql('DELETE FROM app.things WHERE num = %s', row.values['num'], on=self.stranger)
        elif kind == 'key':  # to the ledger the row is gone, and there is another one
            number = 100000 + len(self.model.burnt)
            self.log.append(f'update {row.values["code"]}: num = {number}')
            self.sql('UPDATE app.things SET num = %s WHERE num = %s', number, row.values['num'], on=self.stranger)
            self.model.burnt.add(row.values['num'])
            self.model.rows.remove(row)
            self.model.rows.append(Row(*{**row.values, 'num': number}.values()))
        else:
            if kind == 'bytes':
                name = self.random.choice(['amount', 'word'])
                old = row.values[name]
                twins = {'1.0': '1.00', '1.00': '1.000', '1.000': '1.0', 'Bob': 'BOB', 'BOB': 'bob', 'bob': 'Bob',
                         'Eve': 'EVE', 'EVE': 'Eve'}
                if old not in twins:
                    return
                value = twins[old]
            else:
                name = self.random.choice(['amount', 'word'] if kind == 'mapped' else UNMAPPED)
                value = self.random.choice({'amount': AMOUNTS, 'word': WORDS, 'note': NOTES, 'extra': EXTRAS}[name])
            self.log.append(f'update {row.values["code"]}: {name} = {value!r}')
            row.values[name] = value
            row.touched.add(name)
            self.sql(f'UPDATE app.things SET {name} = %s WHERE num = %s', value, row.values['num'], on=self.stranger)
        self.counts['change: ' + kind] += 1

    def an_owner(self):
        """Something to which items refer: those that wait for it have their turn."""
        owner = self.random.choice(OWNERS)
        if owner in self.model.owners:
            return
        self.log.append(f'owner {owner}')
        parked = [item for run in self.model.runs.values() for item in run.items if item.status == 'parked']
        self.sql("SELECT portage.migrate('owners', %s::text)", json.dumps({'o': owner, 'name': f'owner {owner}'}))
        (key,), = self.rows("SELECT target_key::int FROM portage.legacy_mappings WHERE pipeline_id = portage.pipeline_id('owners') AND legacy_id = %s", str(owner))
        self.model.owners[owner] = key
        self.model.settle()
        for run in {item.run for item in parked}:
            self.check_items(self.model.runs[run])
        for item in parked:
            self.counts['settled: ' + item.status] += item.status != 'parked'

    def chosen_run(self):
        """A recent one as a rule, any one now and then."""
        numbers = list(self.model.runs)
        if self.random.random() < 0.9:
            numbers = [n for n in numbers if self.model.runs[n].status == 'completed'][-8:]
        return self.model.runs[self.random.choice(numbers)] if numbers else None

    def a_rollback(self):
        run = self.chosen_run()
        if run is None:
            return
        drifted = self.random.choice(['refuse', 'refuse', 'keep', 'force'])
        if drifted == 'force' and any(not d.taken and self.model.by('num', d.mapping.at) for d in run.deletions):
            drifted = 'keep'  # what becomes of two rows that are made one, is not in the model
        self.log.append(f'rollback {run.number} {drifted}')
        was = run.status
        spared = self.model.rollback(run, drifted) if was == 'completed' else None
        try:
            self.sql('CALL portage.rollback(%s, %s)', run.number, drifted, on=self.owner)
            refused = None
        except psycopg2.Error as error:
            refused = (error.pgcode or '')[:2], str(error)
        self.owner.notices.clear()
        word = 'refused' if spared is None else 'done'
        if (spared is None) != (refused is not None) or refused and refused[0] != 'PZ':
            raise Disagreement(f'rollback of run {run.number} should be {word}, and the server said {refused}')
        if refused:
            if ('rows have changed since' in refused[1]) != (was == 'completed'):
                raise Disagreement(f'rollback of a run that is {was} was refused with {refused[1]}')
        else:
            (details, event), = self.rows("SELECT details, event_type FROM portage.migration_events WHERE run_id = %s "
                                          "ORDER BY seq DESC LIMIT 1", run.number)
            agree('what the rollback told', ('rollback_completed' if run.status == 'rolled_back' else 'rollback_incomplete', {
                'rolled_back': run.now['taken'], 'spared': dict(spared),
                'restored_with_differences': 0, 'dependants_deleted': 0, 'dependants_changed': 0,
                **{name: run.now[name] for name in ('restored', 'gone') if run.now[name]}}), (event, details))
            self.counts['deleted rows restored'] += run.now['restored']
            self.counts['rolled back in part'] += run.status != 'rolled_back'
            for kind, number in spared.items():
                self.counts['spared: ' + kind.split()[0]] += number
        self.counts['rollback ' + drifted + (' refused' if refused else '')] += 1
        if not refused:
            self.check_chains(run)
        self.check_items(run)

    def a_verification(self):
        run = self.chosen_run()
        if run is None:
            return
        self.log.append(f'verify {run.number}')
        passed, told, as_recorded = self.model.verify(run)
        found = self.rows("SELECT name, passed, details, actual FROM portage.verify(%s, 'source')", run.number)
        details = next(d for name, _, d, _ in found if name == 'row_hash')
        wrong = [f'{name}: {told}' for name, ok, told, _ in found if not ok and passed.get(name)]
        agree(f'checks of run {run.number} {wrong}', passed, {name: ok for name, ok, _, _ in found})
        agree(f'rows of run {run.number}', {**told, 'as_recorded': str(as_recorded)},
              {**{name: details[name] for name in told}, 'as_recorded': next(a for n, _, _, a in found if n == 'row_hash')})
        self.counts['verification'] += 1

    # after each step

    def check_chains(self, run):
        """Before-images of whoever wrote the same rows; and a row of which nobody's write stands is what it was."""
        images = {}
        for row in {id(item.row): item.row for item in run.items if item.row}.values():
            writes = [writer for writer in row.writes if isinstance(writer, Item)]
            for writer in writes:
                images[writer.run, writer.ordinal] = texts(writer.before)
            if self.model.present(row) and writes and all(w.taken for w in writes):
                agree(f'what row {row.values["code"]} was before all runs', *(
                    {name: value for name, value in values.items() if name not in row.touched}
                    for values in (row.origin, row.values)))
                self.counts['back at the origin'] += 1
                if any(w.before != w.before_at_first for w in writes):
                    self.counts['back by a chain'] += 1
        found = {(number, ordinal): dict(zip(columns, before)) for number, ordinal, columns, before in self.rows(
            'SELECT run_id, ordinal, columns, before FROM portage.migration_undo JOIN unnest(%s::bigint[], %s::bigint[]) '
            'AS w (r, o) ON (run_id, ordinal) = (r, o)', [n for n, _ in images], [o for _, o in images])}
        agree('before-images of the chain', images, found)

    def check_items(self, run):
        agree(f'outcomes of run {run.number}', {item.ordinal: item.status for item in run.items}, dict(self.rows(
            'SELECT DISTINCT ON (ordinal) ordinal, status FROM portage.migration_items WHERE run_id = %s '
            'ORDER BY ordinal, revision DESC', run.number)))
        (status,), = self.rows('SELECT status FROM portage.migration_runs WHERE id = %s', run.number)
        agree(f'state of run {run.number}', run.status, status)

    def check_everything(self):
        found = self.rows('SELECT num, code, amount::text, word::text, owner::text, note, extra::text FROM app.things')
        agree('rows', sorted(tuple(map(str, r.values.values())) for r in self.model.rows), sorted(tuple(map(str, r)) for r in found))
        agree('mappings', sorted((str(legacy_id), str(m.at), ORIGINS[m.origin], m.run, m.ordinal)
                                 for legacy_id, m in self.model.mappings.items()),
              sorted(self.rows("SELECT legacy_id, target_key, origin, run_id, ordinal FROM portage.legacy_mappings WHERE pipeline_id = portage.pipeline_id('things')")))
        agree('marks', sorted((str(legacy_id), run) for legacy_id, run in self.model.marks.items()), sorted(self.rows(
            'SELECT m.legacy_id, r.id FROM portage.legacy_mappings m LEFT JOIN portage.migration_runs r ON r.started_at = '
            'm.missing_since WHERE m.missing_since IS NOT NULL')))
        # The hash that a mapping holds is that of the row where the model says so, and of no other.
        agree('rows that are as their mapping says', sorted(
            str(legacy_id) for legacy_id, m in self.model.mappings.items()
            if self.model.by('num', m.at) is m.key and m.row_hash == m.key.hash()), sorted(row[0] for row in self.rows(
                "SELECT m.legacy_id FROM portage.legacy_mappings m JOIN app.things t ON t.num::text = m.target_key "
                "WHERE m.pipeline_id = portage.pipeline_id('things') AND portage.row_hash(t) = m.row_hash")))

    def play(self, steps):
        kinds = [self.a_run] * 6 + [self.a_change] * 5 + [self.a_rollback] * 5 + [self.a_verification] * 2 + [self.an_owner]
        for step in range(1, steps + 1):
            try:
                self.random.choice(kinds)()
                self.check_everything()
            except (Disagreement, psycopg2.Error) as problem:
                return f'step {step}: {problem}\n  the last steps:\n    ' + '\n    '.join(self.log)
        return ''


def main():
    print(f'seed {SEED}, {STEPS} steps (PORTAGE_SEED={SEED} PORTAGE_STEPS={STEPS} repeats them)', flush=True)
    start = time.monotonic()
    with Server() as server:
        series = Series(server, SEED)
        problem = series.play(STEPS)
        check(f'after each of {STEPS} steps database and model agree', not problem, problem)
        print('figures ' + ', '.join(f'{name} {n}' for name, n in sorted(series.counts.items())))
        print(f'figures {STEPS} steps in {time.monotonic() - start:.0f} s')
        if STEPS >= 500:
            for name in ('inserted', 'updated', 'unchanged', 'skipped', 'change: bytes', 'change: unmapped',
                         'rollback refuse', 'rollback refuse refused', 'rollback keep', 'rollback force',
                         'spared: changed', 'spared: later_run', 'verification', 'back at the origin', 'missing: deleted',
                         'missing: changed', 'missing: shared', 'deleted rows restored', 'change: key', 'parked', 'invalid',
                         'settled: inserted', 'rolled back in part'):
                check(f'the series had: {name}', series.counts[name] > 0)
    finish()


if __name__ == '__main__':
    main()
