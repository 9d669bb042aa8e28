#!/usr/bin/python3
"""Writes a learner's snapshot as an application would have left it: one JSON document with 200,000 items of vocabulary
progress, one in a thousand of them defective, in eight kinds. Beside it a fixture tells each defect's line and cause.

    demo/snapshot.py SNAPSHOT FIXTURE [ITEMS [SEED]]
"""

import json
import random
import sys

# kind: (rule or check that must find it, column)
KINDS = {
    'review count below zero': ('reviews_not_negative', ''),
    'more correct than reviewed': ('correct_within_reviews', ''),
    'interval not positive': ('interval_positive', ''),
    'ease factor not positive': ('ease_positive', ''),
    'a day that is none': ('conversion', 'last_reviewed_at'),
    'a word for a number': ('conversion', 'review_count'),
    'no id': ('legacy_id', ''),
    'the same id twice': ('duplicate', ''),
}
LANGUAGES = ('deu', 'fin', 'fra', 'nob', 'epo', 'mri', 'swe', 'est', 'lav', 'isl')


def item(n):
    reviews = 1 + n * 7 % 90
    return {'id': f'w{n:06d}', 'lang': LANGUAGES[n % len(LANGUAGES)], 'reviewCount': reviews,
            'correctCount': n * 3 % (reviews + 1),
            'srs': {'interval': 1 + n % 365, 'ease': round(1.3 + n % 25 / 10, 2)},
            'lastReviewedAt': f'2025-{1 + n % 12:02d}-{1 + n % 28:02d}T{n % 24:02d}:{n % 60:02d}:00Z'}


def spoil(one, kind, n):
    if kind == 'review count below zero':
        one['reviewCount'], one['correctCount'] = -3, -3
    elif kind == 'more correct than reviewed':
        one['correctCount'] = one['reviewCount'] + 1
    elif kind == 'interval not positive':
        one['srs']['interval'] = 0
    elif kind == 'ease factor not positive':
        one['srs']['ease'] = -2.5
    elif kind == 'a day that is none':
        one['lastReviewedAt'] = '2025-02-30T10:00:00Z'
    elif kind == 'a word for a number':
        one['reviewCount'] = 'many'
    elif kind == 'no id':
        del one['id']
    elif kind == 'the same id twice':
        one['id'] = f'w{n // 2:06d}'


def main(snapshot, fixture, items=200000, seed=7):
    generator = random.Random(seed)
    places = generator.sample(range(items // 10, items + 1), items // 1000)
    # what repeats an item needs one that is whole
    kinds = {place: list(KINDS)[i % len(KINDS)] for i, place in enumerate(places)}
    for place, kind in list(kinds.items()):
        if kind == 'the same id twice' and place // 2 in kinds:
            kinds[place] = 'no id'
    with open(snapshot, 'w', encoding='utf-8') as out, open(fixture, 'w', encoding='utf-8') as told:
        out.write('{"dataVersion": "2.1", "createdAt": "2026-01-31T18:00:00Z", "progress": [\n')
        for n in range(1, items + 1):
            one = item(n)
            if n in kinds:
                spoil(one, kinds[n], n)
                rule, column = KINDS[kinds[n]]
                told.write(f'{n + 1} {rule} {column}'.rstrip() + '\n')
            out.write(json.dumps(one, separators=(',', ':')) + (',\n' if n < items else '\n'))
        out.write('], "userPreferences": {"theme": "dark", "dailyGoal": 20}}\n')


if __name__ == '__main__':
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
