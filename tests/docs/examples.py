#!/usr/bin/python3
"""Every example of the documentation runs, and prints what the documentation says; tests/lib/documents.py explains how."""

import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..', 'lib'))
from documents import blocks, documents, read
from portage_server import Server, check, finish


def normal(text):
    """Without what varies: times, rates, reports of progress, the place in psql's input, spaces at the end of a line."""
    text = re.sub(r'^psql:<stdin>:\d+: ', '', text, flags=re.M)
    text = re.sub(r'^NOTICE:  run \d+: [\d,]+ items, .*\n', '', text, flags=re.M)
    text = re.sub(r'[\d.]+ s, [\d,]+ items/s', '# s, # items/s', text)
    return [line.rstrip() for line in text.strip('\n').splitlines()]


def agrees(expected, found):
    """Line by line; a line of three dots stands for any number of lines."""
    if not expected:
        return not found
    if expected[0].strip() == '...':
        return any(agrees(expected[1:], found[i:]) for i in range(len(found) + 1))
    return bool(found) and expected[0] == found[0] and agrees(expected[1:], found[1:])


def psql(server, database, sql, stop):
    options = ['-v', 'ON_ERROR_STOP=1'] if stop else []
    done = subprocess.run([os.path.join(server.bindir, 'psql'), '-X', '-q', '-d', database, '-P', 'pager=off', *options],
                          input=sql, env=server.environment(), check=False, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


def run(server, document, number):
    database, files = 'docs_%d' % number, os.path.join(server.directory, 'files%d' % number)
    os.mkdir(files)
    os.chmod(files, 0o777)  # examples write files there, as the server's user
    server.psql('CREATE DATABASE %s' % database)
    here = lambda text: text.replace('/srv/', files + '/')
    there = lambda text: text.replace(files + '/', '/srv/')
    found = blocks(read(document))
    for block, after in zip(found, [*found[1:], None]):
        name = '%s:%d' % (document, block.line)
        if 'file' in block.markers:
            path = here(block.markers['file'])
            with open(path, 'w', encoding='utf-8') as file:
                file.write(block.text)
            os.chmod(path, 0o644)
        if block.language != 'sql':
            continue
        wanted = block.markers.get('error')
        if wanted:
            _, output = psql(server, database, here(block.text) + '\n\\echo SQLSTATE :LAST_ERROR_SQLSTATE\n', False)
            output, _, state = output.rpartition('SQLSTATE ')
            check(name + ' fails with ' + wanted, state.strip() == wanted, state.strip() + ': ' + there(output))
        else:
            code, output = psql(server, database, here(block.text), True)
            check(name + ' runs', code == 0, there(output))
        if after and after.language == 'text':
            check('%s:%d is what it prints' % (document, after.line), agrees(normal(after.text), normal(there(output))),
                  '\n' + there(output))
    server.psql('DROP DATABASE %s WITH (FORCE)' % database)


check('three dots stand for any lines', agrees(['a', '...', 'c'], ['a', 'b', 'b', 'c']) and not agrees(['a', 'c'], ['a']))
with Server(cluster_name='docs') as server:
    for number, document in enumerate(documents()):
        run(server, document, number)
finish()
