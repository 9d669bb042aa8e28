"""What the tests of the documentation share: the documents, their blocks, and where the facts are written down.

A document is read as PostgreSQL users would work through it: its ```sql blocks run in their order, in a database of
their own. What is said about a block stands in comments before it, which nobody sees in the rendered page:

    <!-- error: PZ001 -->         the block must end with an error of that SQLSTATE
    <!-- file: /srv/a.json -->    the block that follows is the content of that file on the server

A ```text block right after a ```sql block is its output, as psql prints it. A line of three dots stands for any
number of lines; times, rates and reports of progress are not compared.
"""

import glob
import os
import re

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), '..', '..'))


def read(*path):
    with open(os.path.join(ROOT, *path), encoding='utf-8') as file:
        return file.read()


def documents():
    """README.md, everything in docs/ and the examples, as paths below the root."""
    return ['README.md', *(name for pattern in ('docs/*.md', 'examples/*/README.md')
                           for name in sorted(glob.glob(pattern, root_dir=ROOT)))]


class Block:
    def __init__(self, language, line, text, markers):
        self.language, self.line, self.text, self.markers = language, line, text, markers


def blocks(text):
    """The fenced blocks of a document in their order; a marker belongs to the next block."""
    found, markers, inside = [], {}, None
    for number, line in enumerate(text.splitlines(), 1):
        if inside is not None:
            if line.strip() == '```':
                inside.text = '\n'.join(inside.text) + '\n'
                found.append(inside)
                inside = None
            else:
                inside.text.append(line)
        elif fence := re.fullmatch(r'```(\w*)', line):
            inside, markers = Block(fence[1], number, [], markers), {}
        elif marker := re.fullmatch(r'<!-- (\w+): (.*?) -->', line):
            markers[marker[1]] = marker[2]
    return found
