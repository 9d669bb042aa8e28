#!/usr/bin/python3
"""A seeded generator of learning progress, as NDJSON, CSV or one JSON document, with planted defects: one item in a
thousand, evenly of some twenty kinds. Beside the data it writes a fixture that tells, for each defect, where it stands
and what an import must say about it. It knows nothing of servers; the tests import it:

    from defects import Dataset, TARGET, difference, rejects_of
    data = Dataset('ndjson', items=20000, seed=7, directory=server.directory)
    data.path, data.fixture      # the file and its list of defects (NDJSON, one object per defect)
    data.planted                 # the same list in memory
    data.definition()            # of a pipeline that imports it into app.progress

Run by hand: tests/lib/defects.py ndjson|json|csv ITEMS SEED DIRECTORY
"""

import json
import os
import random
import sys

# The table that the items land in. Each way in which PostgreSQL can refuse a row is represented once.
TARGET = r"""
CREATE SCHEMA app;
CREATE TABLE app.courses (id integer PRIMARY KEY);
INSERT INTO app.courses SELECT generate_series(1, 50);
CREATE DOMAIN app.ease AS double precision CONSTRAINT ease_range CHECK (VALUE BETWEEN 1 AND 10);
CREATE TABLE app.progress (
  id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  user_id          text NOT NULL,
  word_id          text NOT NULL,
  lemma            varchar(40) NOT NULL,
  review_count     integer NOT NULL,
  correct_count    integer NOT NULL,
  streak           integer NOT NULL CONSTRAINT streak_check CHECK (streak >= 0),
  accuracy         double precision,
  last_reviewed_at timestamptz,
  due_on           date,
  ease_factor      app.ease,
  course_id        integer CONSTRAINT progress_course_fkey REFERENCES app.courses,
  ticket           integer CONSTRAINT ticket_key UNIQUE DEFERRABLE INITIALLY DEFERRED,
  note             text,
  UNIQUE (user_id, word_id)
);
CREATE FUNCTION app.no_taboo() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'lemma "%" is taboo', NEW.lemma USING ERRCODE = 'P0001', COLUMN = 'lemma';
END $$;
CREATE TRIGGER no_taboo AFTER INSERT ON app.progress FOR EACH ROW WHEN (NEW.lemma = 'taboo')
  EXECUTE FUNCTION app.no_taboo();
"""

# kind: (rule, SQLSTATE, column) that the reject must carry; None is null.
EXPECTED = {
    'malformed': ('malformed_json', '22P02', None),
    'not_closed': ('malformed_json', '22P02', None),
    'ragged': ('ragged_row', '22P04', None),
    'text_after_quote': ('malformed_row', '22P04', None),
    'invalid_utf8': ('invalid_encoding', '22021', None),
    'nul_character': ('conversion', '22P05', None),  # no jsonb, so no expression can be judged either
    'wrong_type': ('conversion', '22P02', 'streak'),
    'beyond_int': ('conversion', '22003', 'streak'),
    'impossible_date': ('conversion', '22008', 'due_on'),
    'too_long': ('conversion', '22001', 'lemma'),
    'domain': ('domain', '23514', 'ease_factor'),
    'missing_id': ('legacy_id', '22004', None),
    'division_by_zero': ('expression', '22012', 'accuracy'),
    'rule_broken': ('correct_within_reviews', '23514', None),
    'not_null': ('not_null', '23502', 'lemma'),
    'check': ('check', '23514', None),
    'duplicate_id': ('duplicate', '23505', None),
    'duplicate_match': ('duplicate', '23505', 'user_id'),
    'foreign_key': ('foreign_key', '23503', 'course_id'),
    'deferred_unique': ('unique', '23505', None),
    'trigger': ('trigger', 'P0001', 'lemma'),
}
SYNTAX = {'ndjson': {'malformed', 'not_closed'}, 'json': {'malformed'}, 'csv': {'ragged', 'text_after_quote'}}
ONLY_JSON = {'nul_character'}  # CSV cannot say it in UTF-8 without a NUL byte
PAIRED = ('duplicate_id', 'duplicate_match', 'deferred_unique')  # wrong only because of an earlier item
CSV_HEADER = 'id,word_id,lemma,review_count,correct_count,streak,last_reviewed_at,due_on,ease,course,ticket,note'


def kinds_of(form):
    syntax = set().union(*SYNTAX.values())
    return [k for k in EXPECTED if (k not in syntax or k in SYNTAX[form]) and not (form == 'csv' and k in ONLY_JSON)]


class Dataset:
    """Writes DIRECTORY/progress-FORM-ITEMS.EXT and its fixture at construction."""

    def __init__(self, form, items, seed, directory, defects=None):
        self.form, self.items, self.seed = form, items, seed
        self.random = random.Random(f'{seed}-{form}-{items}')
        self.path = os.path.join(directory, f'progress-{items}.{form}')
        self.fixture = os.path.join(directory, f'progress-{items}.{form}.defects')
        self.plan = self._plan(items // 1000 if defects is None else defects)
        self.planted = []
        self._write()

    def _plan(self, defects):
        """ordinal -> (kind, ordinal of the item that it repeats or None). An item is repeated at most once."""
        kinds = kinds_of(self.form)
        places = sorted(self.random.sample(range(self.items // 2, self.items), defects // 4) +
                        self.random.sample(range(1, self.items // 2), defects - defects // 4))
        wanted = [kinds[i % len(kinds)] for i in range(defects)]
        self.random.shuffle(wanted)
        # What repeats an earlier item goes far behind it.
        wanted.sort(key=lambda kind: kind in PAIRED)
        late = [k for k in wanted if k in PAIRED]
        others = [k for k in wanted if k not in PAIRED]
        behind = self.random.sample([p for p in places if p > self.items // 3], len(late))
        self.random.shuffle(others)
        plan, taken = {}, set(places)
        for place, kind in zip(behind, late):
            twin = self.random.randrange(1, self.items // 4)
            while twin in taken:
                twin = self.random.randrange(1, self.items // 4)
            taken.add(twin)
            plan[place] = (kind, twin)
        for place, kind in zip([p for p in places if p not in plan], others):
            plan[place] = (kind, None)
        return plan

    def item(self, n):
        """The good item number n. Everything in it follows from n: a test can compute what must have landed."""
        reviews = 1 + n * 7 % 90
        return {'id': f'v-{n:07d}', 'word_id': f'word {n}', 'lemma': f'lemma-{n % 5003}', 'review_count': reviews,
                'correct_count': n * 3 % (reviews + 1), 'streak': n % 11,
                'last_reviewed_at': f'2024-{1 + n % 12:02d}-{1 + n % 28:02d}T{n % 24:02d}:{n % 60:02d}:00Z',
                'due_on': f'2025-{1 + n % 12:02d}-{1 + n % 28:02d}', 'ease': (13 + n % 30) / 10,
                'course': 1 + n % 50, 'ticket': None,
                'note': ('früh "übt" sich, 日本語' if n % 97 == 0 else 'a\nb' if n % 101 == 0 else None)}

    def _spoil(self, item, kind, twin):
        if kind == 'wrong_type':
            item['streak'] = 'seven'
        elif kind == 'beyond_int':
            item['streak'] = 3000000000
        elif kind == 'impossible_date':
            item['due_on'] = '2024-02-30'
        elif kind == 'too_long':
            item['lemma'] = 'x' * 41
        elif kind == 'domain':
            item['ease'] = 99
        elif kind == 'missing_id':
            item['id'] = None
            if self.form != 'csv':
                del item['id']
        elif kind == 'division_by_zero':
            item['review_count'] = item['correct_count'] = 0
        elif kind == 'rule_broken':
            item['correct_count'] = item['review_count'] + 1
        elif kind == 'not_null':
            item['lemma'] = None
        elif kind == 'check':
            item['streak'] = -1
        elif kind == 'duplicate_id':
            item['id'] = f'v-{twin:07d}'
        elif kind == 'duplicate_match':
            item['word_id'] = f'word {twin}'
        elif kind == 'foreign_key':
            item['course'] = 999
        elif kind == 'deferred_unique':
            item['ticket'] = twin
        elif kind == 'trigger':
            item['lemma'] = 'taboo'
        elif kind == 'text_after_quote':
            item['note'] = None  # reading goes on at the next line, whatever the row meant
        elif kind == 'nul_character':
            item['note'] = 'a\0b'

    def _json(self, item, kind):
        nested = dict(item)
        nested['srs'] = {'ease': nested.pop('ease'), 'due_on': nested.pop('due_on')}
        text = json.dumps(nested, ensure_ascii=False, separators=(',', ':')).replace('\0', '\\u0000')
        if kind == 'malformed':
            text = text.replace(':', ' ', 1)  # brackets and quotes still balance
        elif kind == 'not_closed':
            text = text[:-1]
        return text

    def _csv(self, item, kind):
        fields = []
        for value in item.values():
            text = '' if value is None else str(value)
            if any(c in text for c in ',"\n'):
                text = '"' + text.replace('"', '""') + '"'
            fields.append(text)
        if kind == 'ragged':
            fields.pop()
        elif kind == 'text_after_quote':
            fields[2] = '"lemma" x'
        return ','.join(fields)

    def _write(self):
        tickets = {twin for kind, twin in self.plan.values() if kind == 'deferred_unique'}
        with open(self.path, 'wb') as out, open(self.fixture, 'w', encoding='utf-8') as fixture:
            line, offset = 1, 0

            def put(data):
                nonlocal line, offset
                out.write(data)
                line += data.count(b'\n')
                offset += len(data)

            if self.form == 'csv':
                put(CSV_HEADER.encode() + b'\r\n')
            elif self.form == 'json':
                put(b'{"version": 3, "progress": [\n')
            for n in range(1, self.items + 1):
                kind, twin = self.plan.get(n, (None, None))
                item = self.item(n)
                if n in tickets:
                    item['ticket'] = n
                self._spoil(item, kind, twin)
                text = self._csv(item, kind) if self.form == 'csv' else self._json(item, kind)
                data = text.encode()
                if kind == 'invalid_utf8':
                    data = data.replace(b'lemma-', b'lemma\xff')
                if kind:
                    rule, sqlstate, column = EXPECTED[kind]
                    defect = {'ordinal': n, 'line': line, 'byte_offset': offset, 'byte_length': len(data), 'kind': kind,
                              'rule': rule, 'sqlstate': sqlstate, 'column': column, 'twin': twin}
                    self.planted.append(defect)
                    fixture.write(json.dumps(defect) + '\n')
                put(data)
                if self.form == 'json':
                    put(b',\n' if n < self.items else b'\n')
                else:
                    put(b'\r\n' if self.form == 'csv' and n % 3 == 0 else b'\n')
                    if n % 1009 == 0:
                        put(b'\n')  # a blank line is no item
            if self.form == 'json':
                put(b'], "exported": true}\n')
        os.chmod(self.path, 0o644)
        self.lines, self.bytes = line - 1, offset

    def definition(self, **more):
        """A pipeline for this file; it needs the table TARGET and scope = the user's name."""
        ease, due_on = ('ease', 'due_on') if self.form == 'csv' else ('srs.ease', 'srs.due_on')
        definition = {
            'format': self.form, 'legacy_id': 'id',
            'columns': {
                'user_id': '$scope', 'word_id': 'word_id', 'lemma': 'lemma', 'review_count': 'review_count',
                'correct_count': 'correct_count', 'streak': 'streak', 'last_reviewed_at': 'last_reviewed_at',
                'due_on': due_on, 'ease_factor': ease, 'course_id': 'course', 'ticket': 'ticket', 'note': 'note',
                'accuracy': {'sql': "(item->>'correct_count')::integer / (item->>'review_count')::integer"}},
            'rules': {'correct_within_reviews': {'sql': 'correct_count <= review_count',
                                                 'message': 'more correct than reviewed'}},
            'match': ['user_id', 'word_id'], 'on_conflict': 'skip', **more}
        if self.form == 'json':
            definition['items'] = 'progress'
        return json.dumps(definition)


def difference(planted, rejects):
    """What a list of rejects (dicts with the fixture's keys) says otherwise than planted: texts, the first twenty."""
    found = {r['ordinal']: r for r in rejects}
    wrong = []
    for defect in planted:
        reject = found.pop(defect['ordinal'], None)
        if reject is None:
            wrong.append(f'{defect}: landed')
            continue
        for key in ('line', 'byte_offset', 'byte_length', 'rule', 'sqlstate', 'column'):
            if reject[key] != defect[key]:
                wrong.append(f"{defect['kind']} at ordinal {defect['ordinal']}: {key} is {reject[key]!r}, "
                             f"expected {defect[key]!r} ({reject['message']})")
        if defect['kind'].startswith('duplicate') and not (
                f"item {defect['ordinal']} " in reject['message'] and f"item {defect['twin']}" in reject['message']):
            wrong.append(f"{defect['kind']} at ordinal {defect['ordinal']} does not name both: {reject['message']}")
    wrong += [f'ordinal {r["ordinal"]} was rejected without a defect: {r}' for r in found.values()]
    return wrong[:20]


def rejects_of(connection, run):
    """The rejects of a run as difference() wants them."""
    with connection.cursor() as cursor:
        cursor.execute('SELECT ordinal, line, byte_offset, byte_length, rule, sqlstate, column_name, message '
                       'FROM portage.rejects WHERE run_id = %s ORDER BY ordinal', (run,))
        names = ('ordinal', 'line', 'byte_offset', 'byte_length', 'rule', 'sqlstate', 'column', 'message')
        return [dict(zip(names, row)) for row in cursor.fetchall()]


if __name__ == '__main__':
    if len(sys.argv) != 5 or sys.argv[1] not in SYNTAX:
        sys.exit(__doc__)
    made = Dataset(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    print(f'{made.path}: {made.items} items, {made.bytes} bytes, {made.lines} lines, {len(made.planted)} defects')
