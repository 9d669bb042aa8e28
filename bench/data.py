"""The rows of all measurements: deterministic, a function of their number alone. Each dataset is written as the old
system would export it, NDJSON or CSV with one item in a thousand bad, and as CSV of the good rows only, for those who
cannot cope with bad ones. Knows nothing of servers."""

import csv
import json
import os
import random

BAD_EVERY = 1000


class Progress:
    """Learning progress, ten columns of common types; (user_id, word_id) is the identity in the old system."""

    table = 'app.progress'
    identity = ['user_id', 'word_id']
    columns = {'user_id': 'text', 'word_id': 'text', 'review_count': 'integer', 'correct_count': 'integer',
               'last_reviewed_at': 'timestamptz', 'due_on': 'date', 'srs_interval': 'integer',
               'ease_factor': 'double precision', 'known': 'boolean', 'course_id': 'integer'}
    rules = {'reviews_not_negative': 'review_count >= 0', 'correct_within_reviews': 'correct_count BETWEEN 0 AND review_count'}

    @staticmethod
    def item(n):
        reviews = n * 7 % 90
        return {'user_id': f'user-{n // 100:06d}', 'word_id': f'word-{n % 100 * 97:05d}', 'review_count': reviews,
                'correct_count': n * 13 % (reviews + 1), 'last_reviewed_at':
                f'2024-{1 + n % 12:02d}-{1 + n % 28:02d}T{n % 24:02d}:{n * 11 % 60:02d}:{n * 17 % 60:02d}Z',
                'due_on': f'2025-{1 + n * 5 % 12:02d}-{1 + n * 3 % 28:02d}', 'srs_interval': 1 + n * 19 % 365,
                'ease_factor': (130 + n * 23 % 171) / 100, 'known': n % 3 == 0, 'course_id': 1 + n % 1000}

    @staticmethod
    def spoil(item, kind):
        """Wrong types, something missing, rules broken; the table's constraints would refuse each of them, too."""
        wrong = [('review_count', 'many'), ('last_reviewed_at', '2024-13-45T10:00:00Z'), ('word_id', None),
                 ('review_count', -3), ('correct_count', 91)]
        column, value = wrong[kind % len(wrong)]
        item[column] = value


class Wide:
    """Sixty columns; what a legacy table looks like after twenty years."""

    table = 'app.wide'
    identity = ['code']
    columns = {'code': 'text', **{f'c{i:02d}': ('integer', 'text', 'double precision', 'date', 'boolean')[i % 5]
                                  for i in range(1, 60)}}
    rules = {'c05_not_negative': 'c05 >= 0'}

    @staticmethod
    def item(n):
        make = (lambda i: n * i % 1000003, lambda i: f'text {n * i % 9973}', lambda i: n * i % 10007 / 8,
                lambda i: f'20{10 + i % 14}-{1 + n % 12:02d}-{1 + n % 28:02d}', lambda i: (n + i) % 2 == 0)
        return {'code': f'code-{n:08d}', **{f'c{i:02d}': make[i % 5](i) for i in range(1, 60)}}

    @staticmethod
    def spoil(item, kind):
        column, value = [('c10', 'many'), ('code', None), ('c05', -1)][kind % 3]
        item[column] = value


class Dataset:
    """Writes DIRECTORY/NAME.ndjson or .csv, and .valid.csv. `changed(n)` says which items have more reviews than before."""

    def __init__(self, directory, name, items, form='ndjson', shape=Progress, shuffled=False, changed=None):
        self.shape, self.items, self.form, self.bad = shape, items, form, (items + BAD_EVERY // 2 - 1) // BAD_EVERY
        self.rows = items - self.bad
        self.path, self.valid = (os.path.join(directory, name + end) for end in ('.' + form, '.valid.csv'))
        order = list(range(items))
        if shuffled:
            random.Random(1).shuffle(order)
        encode = json.JSONEncoder(separators=(',', ':')).encode
        with open(self.path, 'w', encoding='utf-8') as export, open(self.valid, 'w', encoding='utf-8') as valid:
            if form == 'csv':
                write = csv.writer(export, lineterminator='\n').writerow
                write(shape.columns)
            write_valid = csv.writer(valid, lineterminator='\n').writerow
            write_valid(shape.columns)
            for n in order:
                item = shape.item(n)
                if changed and changed(n):
                    item['review_count'] += 1
                bad = n % BAD_EVERY == BAD_EVERY // 2
                if bad:
                    shape.spoil(item, n // BAD_EVERY)
                else:
                    write_valid(item.values())
                if form == 'csv':
                    write(item.values())
                else:
                    if bad:
                        item = {name: value for name, value in item.items() if value is not None}
                    export.write(encode(item) + '\n')
        for path in (self.path, self.valid):
            os.chmod(path, 0o644)  # the server reads them as another user

    def remove(self):
        for path in (self.path, self.valid):
            os.unlink(path)


def snapshots():
    """A thousand snapshots of a device: documents of 100 items each, without the user, who is the scope."""
    for k in range(1000):
        items = [Progress.item(k * 100 + i) for i in range(100)]
        yield json.dumps([{name: value for name, value in item.items() if name != 'user_id'} for item in items])
