#!/usr/bin/python3
"""The reference is complete and names nothing that does not exist: objects, columns, settings, options, definition
keys, SQLSTATEs and rules are compared with the catalog and the sources, in both directions.

    tests/docs/reference.py --print      # the lines that docs/reference.md should have for the objects of the catalog
"""

import glob
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..', 'lib'))
from documents import ROOT, documents, read
from portage_server import Server, check, finish

FUNCTIONS = r"""
    SELECT format('**%s** `(%s)%s`', proname,
                  regexp_replace(pg_get_function_arguments(p.oid), '\mIN |::[a-z]+(\[\])?', '', 'g'),
                  CASE WHEN prokind = 'p' THEN '' ELSE ' → ' || pg_get_function_result(p.oid) END),
           proname, obj_description(p.oid, 'pg_proc')
      FROM pg_proc p WHERE pronamespace = 'portage'::regnamespace ORDER BY proname, 1"""
RELATIONS = """
    SELECT format('**%s** (%s)', relname, CASE relkind WHEN 'v' THEN 'view' WHEN 'c' THEN 'type' ELSE 'table' END),
           (SELECT string_agg(format('`%s`', attname), ', ' ORDER BY attnum) FROM pg_attribute a
             WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped),
           coalesce(obj_description(c.oid, 'pg_class'), obj_description(c.reltype, 'pg_type')), relname
      FROM pg_class c WHERE relnamespace = 'portage'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'c') ORDER BY relname"""
TYPES = """
    SELECT typname, obj_description(t.oid, 'pg_type') FROM pg_type t
     WHERE typnamespace = 'portage'::regnamespace AND typrelid = 0 AND typelem = 0"""
SETTINGS = """
    SELECT format('`%s` | %s%s', name, coalesce(nullif(boot_val, ''), 'empty'), coalesce(' ' || unit, '')), name, short_desc
      FROM pg_settings WHERE name LIKE 'portage.%' ORDER BY name"""


def source(pattern):
    return '\n'.join(read(os.path.relpath(path, ROOT)) for path in sorted(glob.glob(os.path.join(ROOT, pattern))))


def one(pattern, text):
    """The only match; a source that no longer looks as expected must not make a test pass."""
    found = re.search(pattern, text, re.S)
    if not found:
        raise SystemExit('not found any more: ' + pattern)
    return found[1]


def same(what, documented, existing):
    documented, existing = set(documented), set(existing)
    check(what + ': everything is documented', existing <= documented, 'missing: ' + '; '.join(sorted(existing - documented)))
    check(what + ': nothing is made up', documented <= existing, 'does not exist: ' + '; '.join(sorted(documented - existing)))


def section(text, heading):
    """What stands under a heading, up to the next of the same or a higher level."""
    level = heading.split()[0]
    return one(r'(?:\A|\n)%s\n(.*?)(?=\n#{1,%d} |\Z)' % (re.escape(heading), len(level)), text)


def first_cells(text):
    """The names in the first column of the tables of a section."""
    return [name for row in re.findall(r'^\| (`[^|]*) \|', text, re.M) for name in re.findall(r'`([^`]+)`', row)]


def print_catalog(connection):
    with connection.cursor() as cursor:
        cursor.execute("LOAD 'pg_portage'")
        cursor.execute(FUNCTIONS)
        for line, _, comment in cursor.fetchall():
            print('%s\n: %s\n' % (line, comment))
        cursor.execute(RELATIONS)
        for line, columns, comment, _ in cursor.fetchall():
            print('%s: %s\n: %s\n' % (line, columns, comment))
        cursor.execute(SETTINGS)
        for line, _, comment in cursor.fetchall():
            print('| %s | %s |' % (line, comment))


def check_objects(connection, reference):
    def rows(query):
        with connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()

    functions, relations, types, settings = rows(FUNCTIONS), rows(RELATIONS), rows(TYPES), rows(SETTINGS)
    same('functions and procedures', re.findall(r'^(\*\*\w+\*\* `\(.*`) *$', reference, re.M), [row[0] for row in functions])
    same('tables, views and types', re.findall(r'^(\*\*\w+\*\* \(\w+\): .*?) *$', reference, re.M),
         ['%s: %s' % (row[0], row[1]) for row in relations] + ['**%s** (type)' % row[0] for row in types])
    for line, name, comment in functions:
        check('%s has a comment' % line, bool(comment))
    for line, _, comment, name in relations:
        check('%s has a comment' % line, bool(comment))
    for line, name, comment in settings:
        check('setting %s has a description' % name, bool(comment))
    same('settings', re.findall(r'^\| (`portage\.\w+` \| [^|]*) \|', section(reference, '## Settings'), re.M), [row[0] for row in settings])

    # Whatever is written as portage.something, in any document, exists. (The control file is no object.)
    known = {row[1] for row in functions} | {row[3] for row in relations} | {row[0] for row in types}
    known |= {row[1].split('.')[1] for row in settings}
    for document in documents():
        named = set(re.findall(r'(?<![\w/])portage\.(\w+)', read(document)))
        check('%s names only what exists' % document, named <= known, ', '.join(sorted(named - known)))


def check_options(reference):
    table = one(r'constexpr Known known\[\] = \{\n(.*?)\n\};', read('extension/run/options.cpp'))
    known = re.findall(r'^    \{"(\w+)",', table, re.M)
    later = re.findall(r'^    \{"(\w+)",[^\n]* only\(', table, re.M)
    check('options are found in the source', len(known) > 15 and 0 < len(later) < len(known))
    text = section(reference, '## Options of a run')
    same('options', first_cells(text), known)
    same('options of later versions', first_cells(section(text, '### Not yet')), later)
    table = one(r'constexpr Known known\[\] = \{\n(.*?)\n\};', read('extension/schedule/options.cpp'))
    group = one(r'constexpr Known known\[\] = \{\n(.*?)\n\};', read('extension/group/options.cpp'))
    same('options of a group', first_cells(section(reference, '### Options of a group')), re.findall(r'^    \{"(\w+)",', group, re.M))
    same('options of a schedule', first_cells(section(reference, '### Options of a schedule')), re.findall(r'^    \{"(\w+)",', table, re.M))


def check_definition_keys():
    code, text = read('extension/pipeline/definition.cpp'), read('docs/pipelines.md')
    names = lambda part: re.findall(r'"(\w+)"', part)
    root = names(one(r'known_keys\(root,\s*\{(.*?)\}\)', code))
    # Each key has a section of its own, those of one kind may share it: ## `rules`, ## `match` and `key`
    headings = [name for line in re.findall(r'^## (`.*)$', text, re.M) for name in re.findall(r'`(\w+)`', line)]
    same('definition keys', headings, root)
    for keys in re.findall(r'known_keys\((?!root)\w+, \{(.*?)\}\)', code):
        for name in names(keys):
            check('the inner key "%s" is documented' % name, re.search(r'`%s`|"%s"' % (name, name), text))
    for variable in names(one(r'Names variables\{(.*?)\}', code).replace('$', '')):
        check('the variable $%s is documented' % variable, '`$%s`' % variable in text)


def check_codes(errors):
    code = read('extension/bridge/codes.hpp')
    codes = ['PZ' + ''.join(found) for found in re.findall(r"= PORTAGE_SQLSTATE\('(.)', '(.)', '(.)'\);", code)]
    check('codes are found in the source', len(codes) > 15 and len(codes) == code.count('PORTAGE_SQLSTATE(') - 1)
    same('SQLSTATEs of class PZ', re.findall(r'^### (PZ\w+)', errors, re.M), codes)
    # None is made elsewhere, in C++ or by a RAISE.
    everything = source('extension/*.[ch]pp') + source('extension/*/*.[ch]pp') + source('sql/*.sql')
    spelt = set(re.findall(r'\bPZ[0-9A-Z]{3}\b', everything))
    check('no other SQLSTATE of class PZ is spelt out', len(spelt) > 5 and spelt <= set(codes), ', '.join(sorted(spelt - set(codes))))
    made = re.findall(r"SQLSTATE\('P', *'Z'[^)]*\)", everything)
    check('SQLSTATEs of class PZ are made in codes.hpp alone', len(made) == 1, made)
    # Standard codes that we raise ourselves.
    include = subprocess.run(['bash', '-c', '. "$1" && "$PG_CONFIG" --includedir-server', '-',
                              os.path.join(ROOT, 'tests', 'lib', 'stage.sh')],
                             check=True, capture_output=True, text=True).stdout.strip()
    with open(os.path.join(include, 'utils/errcodes.h'), encoding='utf-8') as file:
        values = {name: ''.join(re.findall("'(.)'", value)) for name, value in
                  re.findall(r"#define (ERRCODE_\w+) MAKE_SQLSTATE\((.*?)\)", file.read())}
    # Internal errors cannot happen, by definition; with the others, errors of the server's are only compared.
    raised = set(re.findall(r'ERRCODE_[A-Z_]+', source('extension/*/*.cpp'))) & set(values)
    raised -= {'ERRCODE_' + name for name in (
        'INTERNAL_ERROR', 'CHECK_VIOLATION', 'EXCLUSION_VIOLATION', 'FOREIGN_KEY_VIOLATION', 'NOT_NULL_VIOLATION',
        'UNIQUE_VIOLATION', 'QUERY_CANCELED', 'RAISE_EXCEPTION', 'UNDEFINED_PARAMETER')}
    check('standard codes are found in the source', len(raised) > 10)
    table = section(errors, '## Standard codes')
    same('standard codes', first_cells(table), [values[name] for name in raised])


def check_rules(errors):
    """The names of rejects that are ours, wherever they are given."""
    code = source('extension/*/*.cpp')
    rules = set(re.findall(r'^    \{"[0-9A-Z]{5}", "(\w+)",', read('extension/formats/record.cpp'), re.M))
    rules |= set(re.findall(r'add_issue\([^;"]*?, "([a-z_]+)"', code)) | set(re.findall(r'reject\([^;"]*?, "([a-z_]+)"', code))
    rules |= set(re.findall(r'domain \? "(\w+)" : "\w+"', code))
    written = one(r'string_view rule_of\(int code\) \{\n(.*?)\n\}', read('extension/load/phase_b.cpp'))
    rules |= set(re.findall(r'"(\w+)"', written))
    check('rules are found in the source', len(rules) > 20)
    documented = first_cells(section(errors, '## Rejects'))
    same('rules of rejects', documented, rules)
    # A rule of a definition must not pass for one of ours.
    reserved = re.findall(r'"(\w+)"', one(r'Names reserved\{(.*?)\};', read('extension/pipeline/definition.cpp')))
    check('a rule of a definition cannot have one of these names', rules <= set(reserved), rules - set(reserved))


def check_states():
    text = re.sub(r'"\s*\n\s*"', '', read('extension/run/states.hpp'))
    known = re.findall(r'\{"(\w+)", "(\w+)",\s*"(.*?)"\}', text)
    check('changes of state are found in the source', len(known) > 20)
    documented = re.findall(r'^\| `(\w+)` \| `(\w+)` \| (.*?) \|$', section(read('docs/operations.md'), '### States'), re.M)
    same('changes of state', [' -> '.join(row) for row in documented], [' -> '.join(row) for row in known])


if len(sys.argv) > 1:
    with Server() as server:
        server.psql('CREATE EXTENSION pg_portage')
        print_catalog(server.connect())
    sys.exit()

reference, errors = read('docs', 'reference.md'), read('docs', 'errors.md')
with Server(cluster_name='docs', shared_preload_libraries='pg_portage') as server:  # some settings are known then only
    server.psql('CREATE EXTENSION pg_portage')
    with server.connect() as connection:
        # the settings are known once the module is loaded
        connection.cursor().execute("LOAD 'pg_portage'")
        check_objects(connection, reference)
check_options(reference)
check_definition_keys()
check_codes(errors)
check_rules(errors)
check_states()
# Every conflict policy against every situation: the table of the documentation is the output of the regression test.
policies = [line for line in read('expected/policies.out').splitlines() if line.startswith('| ')]
check('the conflict policies are what the regression test found, line by line',
      policies and [line for title in ('## Every policy, every situation', '## Nulls')
                    for line in [line for line in section(read('docs/conflicts.md'), title).splitlines() if line.startswith('| ')][1:]]
      == policies, '\n'.join(policies))
finish()
