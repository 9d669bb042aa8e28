#!/usr/bin/python3
"""Whose pipeline a name means: strangers who were first, members, grants of owners and of administrators, roles with odd
names, roles at the same time, what stays meant when others take a name up later, and sessions that must have a scope."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import Server, check, finish  # noqa: E402
from sessions import Session, ndjson, told  # noqa: E402

COLUMNS = '"format": "ndjson", "legacy_id": "id", "columns": {"id": "id"%s}%s'


def definition(columns='', rest=''):
    return '{' + COLUMNS % (columns, rest) + '}'


def refused(name, error, code, *texts):
    everything = told(error)
    check(name, error is not None and error.pgcode == code and all(text in everything for text in texts), everything)


def role(admin, name, *member_of):
    quoted = admin.value('SELECT quote_ident(%s)', name)
    admin.rows(f'CREATE ROLE {quoted} LOGIN; GRANT ALL ON SCHEMA app TO {quoted}')
    for other in member_of:
        admin.rows(f'GRANT {admin.value("SELECT quote_ident(%s)", other)} TO {quoted}')
    return quoted


def claim(server, owner, pipeline='customers', text=None):
    """A pipeline of the owner's into a table of its own, into which everybody may import; returns the table."""
    with Session(server, owner) as session:
        table = 'app.t%d' % session.value("SELECT nextval('app.tables')")
        session.rows(f'CREATE TABLE {table} (id int PRIMARY KEY, v text, parent int); GRANT ALL ON {table} TO PUBLIC')
        session.rows('SELECT portage.create_pipeline(%s, %s::regclass, %s)', pipeline, table, text or definition())
    return table


def migrate(session, name, number, scope=''):
    return session.error('SELECT portage.migrate(%s, %s, %s)', name, ndjson([{'id': number}]), scope)


def has(admin, table, number):
    return admin.value(f'SELECT count(*) FROM {table} WHERE id = %s', number) == 1


def strangers(server, admin):
    """Who was first has no part in what a name means to others."""
    for name in ('stranger', 'ann', 'carl', 'nobody'):
        role(admin, name)
    stranger_table = claim(server, 'stranger')
    ann_table = claim(server, 'ann')
    ann, carl, stranger = (Session(server, user) for user in ('ann', 'carl', 'stranger'))
    check('a name that a stranger took first is free', migrate(ann, 'customers', 1) is None and has(admin, ann_table, 1))
    untold = told(carl.error("SELECT portage.migrate('nobody/customers', '{}'::text)")).replace('nobody', 'stranger')
    check('what one may not see is told of as what does not exist',
          told(carl.error("SELECT portage.migrate('stranger/customers', '{}'::text)")) == untold, untold)
    refused('a bare name that only strangers have', migrate(carl, 'customers', 2), 'PZ004')
    check('... without a hint at them', 'stranger' not in told(migrate(carl, 'customers', 2)))
    refused('a superuser who names nobody', migrate(admin, 'customers', 2), 'PZ004', '"stranger/customers" or "ann/customers"')
    check('a superuser who names the owner', migrate(admin, 'ann/customers', 2) is None and has(admin, ann_table, 2))

    # the stranger offers what it has
    stranger.rows("SELECT portage.grant_pipeline('customers', 'carl', 'run')")
    refused('what a stranger granted is not meant', migrate(carl, 'customers', 3), 'PZ004', '"stranger/customers"')
    refused('... to everybody it cannot be granted', stranger.error("SELECT portage.grant_pipeline('customers', 'public', 'run')"),
            '42501', 'portage.admin_role')
    ann.rows("SELECT portage.grant_pipeline('customers', 'carl', 'run')")
    refused('of several that were granted none is meant', migrate(carl, 'customers', 3), 'PZ004',
            '"stranger/customers" or "ann/customers"')
    check('... each can be addressed', migrate(carl, 'ann/customers', 3) is None and has(admin, ann_table, 3) and
          migrate(carl, 'stranger/customers', 3) is None and has(admin, stranger_table, 3))
    admin.rows("SELECT portage.grant_pipeline('ann/customers', 'carl', 'read')")
    check('what an administrator granted is meant', migrate(carl, 'customers', 4) is None and has(admin, ann_table, 4))
    check('... whatever the stranger does', stranger.error("SELECT portage.grant_pipeline('customers', 'carl', 'read')") is None and
          migrate(carl, 'customers', 5) is None and has(admin, ann_table, 5))
    check('the grants say by whom', admin.rows(
        'SELECT p.owner_name, g.privilege, g.grantor_name, g.by_admin FROM portage.pipeline_grants g JOIN portage.pipelines p '
        'ON p.id = g.pipeline_id ORDER BY 1, 2') == [('ann', 'read', 'postgres', True), ('ann', 'run', 'ann', False),
                                                     ('stranger', 'read', 'stranger', False), ('stranger', 'run', 'stranger', False)])
    ann.rows("SELECT portage.revoke_pipeline('customers', 'carl', 'read')")
    refused('the owner takes back what an administrator granted', migrate(carl, 'customers', 6), 'PZ004')

    # members of admin_role are administrators, at the time of the grant
    role(admin, 'chief')
    admin.rows('CREATE ROLE chiefs; GRANT chiefs TO chief')
    admin.rows("ALTER SYSTEM SET portage.admin_role = 'chiefs'")
    admin.rows('SELECT pg_reload_conf()')
    with Session(server, 'chief') as chief:
        chief.value('SELECT portage.is_admin()')
        chief.rows("SELECT portage.grant_pipeline('ann/customers', 'carl', 'run')")
    admin.rows('REVOKE chiefs FROM chief')
    with Session(server, 'chief') as chief:
        refused('... who is none any more grants nothing', chief.error("SELECT portage.grant_pipeline('ann/customers', 'carl', 'read')"), 'PZ004')
    check('a member of admin_role vouches for what it granted', migrate(carl, 'customers', 7) is None and has(admin, ann_table, 7))
    # everybody's, by an administrator
    admin.rows("SELECT portage.grant_pipeline('stranger/customers', 'public', 'run')")
    refused('two that administrators granted', migrate(carl, 'customers', 8), '42P09', '"stranger/customers" or "ann/customers"')
    check('... are no matter for owners', migrate(ann, 'customers', 8) is None and has(admin, ann_table, 8))
    with Session(server, 'nobody') as nobody:
        check('... nor for those who see one of them', migrate(nobody, 'customers', 9) is None and has(admin, stranger_table, 9))
    admin.rows("SELECT portage.revoke_pipeline('stranger/customers', 'public', 'run')")
    # a role that owns one of the name is not led elsewhere by a new grant
    own = claim(server, 'carl')
    check("one's own comes first", migrate(carl, 'customers', 10) is None and has(admin, own, 10))
    for session in (ann, carl, stranger):
        session.close()


def members(server, admin):
    """Memberships: of one owner, of several, of a superuser; and the ones that give no right to act."""
    for name in ('team', 'crew'):
        role(admin, name)
    role(admin, 'max', 'team', 'crew')
    role(admin, 'moritz', 'team')
    tables = {name: claim(server, name, 'invoices') for name in ('team', 'crew')}
    with Session(server, 'moritz') as moritz, Session(server, 'max') as both:
        check('a member means the pipeline of its role', migrate(moritz, 'invoices', 1) is None and has(admin, tables['team'], 1))
        refused('a member of two owners has to say which', migrate(both, 'invoices', 2), '42P09', '"team/invoices" or "crew/invoices"')
        check('... says it', migrate(both, 'crew/invoices', 2) is None and has(admin, tables['crew'], 2))
        both.rows('SET ROLE team')
        check('... or becomes it', migrate(both, 'invoices', 3) is None and has(admin, tables['team'], 3))
        both.rows('RESET ROLE')
        check('names that work are shown', both.rows('SELECT portage.pipeline_name(id) FROM portage.pipelines WHERE name = $$invoices$$ '
                                                     'ORDER BY id') == [('team/invoices',), ('crew/invoices',)])
        check('... to each its own', moritz.rows('SELECT portage.pipeline_name(id) FROM portage.pipelines WHERE name = $$invoices$$')
              == [('invoices',)])
        # a decision that is remembered changes the pipeline of its run, whatever its name means to the caller
        for owner in ('team', 'crew'):
            claim(server, owner, 'asked', definition(', "v": "v"', ', "on_conflict": "ask"'))
        for value in ('a', 'b'):
            run = both.value('SELECT run_id FROM portage.migrate(%s, %s, %s)', 'crew/asked', ndjson([{'id': 1, 'v': value}]), '')
            admin.rows("UPDATE app.t%d SET v = 'changed'" % admin.value('SELECT last_value FROM app.tables'))
        check('a conflict of an ambiguous name is resolved, and remembered',
              both.error("SELECT portage.resolve(%s, 1, 'incoming', remember => true)", run) is None,
              told(both.error("SELECT portage.resolve(%s, 1, 'incoming', remember => true)", run)))
        check('... in the pipeline of the run', both.rows("SELECT owner_name, current_version FROM portage.pipelines WHERE name = 'asked' "
                                                          'ORDER BY 1') == [('crew', 2), ('team', 1)])
        recommended = both.rows("SELECT sql FROM portage.recommendations(%s) WHERE sql LIKE '%%import%%'",
                                both.value("SELECT run_id FROM portage.migrate('crew/invoices', %s, '', '{\"dry_run\": true}')", '{"id": 9}'))
        check('what is recommended can be typed', recommended and "'crew/invoices'" in recommended[0][0], recommended)
    admin.rows('CREATE ROLE boss SUPERUSER LOGIN; GRANT team TO boss')
    with Session(server, 'boss') as boss:
        check('a superuser means by a bare name what it is a member of', migrate(boss, 'invoices', 4) is None and has(admin, tables['team'], 4))


def odd_names(server, admin):
    """owner/name is split at the last slash, and taken as it is: nothing is folded, nothing quoted."""
    owners = ['a', 'a/b', 'a/b/c', '/', 'Upper Case', 'upper case', 'with "quotes"', "it's", 'ünïcödé', '$x; --', '%s', 'x' * 63]
    names = ['customers', 'a', 'Upper Case', 'with "quotes"', "it's", ' ', 'ünïcödé', '%s', '"a"', 'x' * 100]
    for owner in owners:
        if owner != 'a':
            role(admin, owner)
    role(admin, 'a')
    tables = {owner: claim(server, owner) for owner in owners}
    for number, owner in enumerate(owners, 100):
        error = migrate(admin, f'{owner}/customers', number)
        check(f'a superuser addresses {owner}/customers', error is None and has(admin, tables[owner], number), told(error))
    with Session(server, 'a/b') as owner:
        for number, name in enumerate(names[1:], 200):
            table = claim(server, 'a/b', name)
            check(f'the name {name} is taken as it is', migrate(owner, name, number) is None and has(admin, table, number))
            error = migrate(admin, f'a/b/{name}', number + 50)
            check('... also behind its owner', error is None and has(admin, table, number + 50), told(error))
        for name in ('a/b', '/a', 'a/', '/'):
            refused(f'no pipeline is named {name}', owner.error('SELECT portage.create_pipeline(%s, %s::regclass, %s)', name, table, definition()),
                    '22023', 'slash')
        for name in ('b/customers', 'a/b/c/customers', '//customers', 'a/B/customers', 'a/b/', '/customers', 'a /customers', 'a/b/customers/',
                     '"a/b"/customers', '', '/', 'x' * 64 + '/customers', 'x' * 100000):
            refused(f'{name[:40]} is nothing to a/b', owner.error('SELECT portage.pipeline_id(%s)', name), 'PZ004')
        check('what is null has no name', owner.value('SELECT portage.pipeline_id(NULL)') is None and
              owner.value('SELECT portage.pipeline_name(-1)') is None)
    found = admin.rows('SELECT portage.pipeline_id(portage.pipeline_name(id)) = id FROM portage.pipelines')
    check('every name that is shown leads back', len(found) > 20 and all(same for (same,) in found), found)


def renamed(server, admin):
    """The address of a pipeline is its owner's present name."""
    role(admin, 'former')
    table = claim(server, 'former', 'ledger')
    admin.rows('ALTER ROLE former RENAME TO latter')
    check('after a rename of its owner a pipeline has the new address', migrate(admin, 'latter/ledger', 1) is None and has(admin, table, 1))
    refused('... and not the old one', migrate(admin, 'former/ledger', 2), 'PZ004', '"latter/ledger"')
    with Session(server, 'latter') as latter:
        check('... and its owner finds it as before', migrate(latter, 'ledger', 3) is None and has(admin, table, 3))
    role(admin, 'former')
    other = claim(server, 'former', 'ledger')
    check('who is named like the former owner has names of its own', migrate(admin, 'former/ledger', 4) is None and has(admin, other, 4))


def at_the_same_time(server, admin):
    """Two roles take a name at the same time; one role cannot, twice."""
    first, second, again = Session(server, 'ann'), Session(server, 'moritz'), Session(server, 'ann')
    tables = {user: admin.value("SELECT 'app.t' || nextval('app.tables')") for user in ('ann', 'moritz')}
    for user, table in tables.items():
        admin.rows(f'CREATE TABLE {table} (id int PRIMARY KEY); GRANT ALL ON {table} TO {user}')
    for session, user in ((first, 'ann'), (second, 'moritz')):
        session.rows('BEGIN')
        session.rows("SELECT portage.create_pipeline('at once', %s::regclass, %s)", tables[user], definition())
    pending = again.begin("SELECT portage.create_pipeline('at once', %s::regclass, %s)", tables['ann'], definition())
    for session in (second, first):
        session.rows('COMMIT')
    pending.wait()
    check('two roles take a name at the same time', admin.value("SELECT count(*) FROM portage.pipelines WHERE name = 'at once'") == 2)
    refused('... one role twice does not', pending.error, '42710', 'at once')
    for session in (first, second, again):
        session.close()


def what_definitions_name(server, admin):
    """References, "after", groups and schedules go on meaning what they meant."""
    for name in ('owner', 'runner', 'guild'):
        role(admin, name)
    parents = {name: claim(server, name, 'parents') for name in ('owner', 'runner')}
    child = claim(server, 'owner', 'children', definition(', "parent": {"from": "p", "references": "parents"}', ', "after": "parents"'))
    admin.rows("SELECT portage.grant_pipeline('owner/children', 'runner', 'run'), portage.grant_pipeline('owner/parents', 'runner', 'run')")
    with Session(server, 'runner') as runner, Session(server, 'owner') as owner:
        migrate(runner, 'parents', 1)
        migrate(owner, 'parents', 2)
        counted = 'SELECT inserted, parked FROM portage.migrate(%s, %s, %s)'
        found = runner.rows(counted, 'children', ndjson([{'id': 1, 'p': 1}, {'id': 2, 'p': 2}]), '')
        check("a reference means the owner's pipeline, whoever runs it", found == [(1, 1)] and has(admin, child, 2), found)
        migrate(owner, 'parents', 1)
        runner.rows('CALL portage.tick()')
        check("... and what is parked waits for that", has(admin, child, 1))
        # in a group of the runner's own "parents" the owner's are not
        plan = runner.value("SELECT portage.plan_group(ARRAY['parents', 'children'])")
        texts = str(plan['recommendations'])
        check('a group orders by what is meant', plan['order'] == [['parents', 'children']] and '"owner/parents"' in texts, plan)
        plan = runner.value("SELECT portage.plan_group(ARRAY['children', 'parents', 'owner/parents'])")
        check('... whatever it is called', plan['order'] == [['parents', 'owner/parents'], ['children']], plan['order'])
        refused('... a pipeline once', runner.error("SELECT portage.run_group(ARRAY['parents', 'runner/parents'])"), '22023', 'twice')
        # the owner becomes a member of others who have the name
        claim(server, 'guild', 'parents')
        claim(server, 'guild', 'fathers')
        admin.rows('GRANT guild TO owner')
        owner.rows("SELECT portage.replace_pipeline('children', %s)", definition(', "parent": {"from": "p", "references": "fathers"}'))
        role(admin, 'guild2')
        claim(server, 'guild2', 'fathers')
        admin.rows('GRANT guild2 TO owner')
        check('a name that has become ambiguous goes on meaning what it meant',
              owner.error(counted, 'children', ndjson([{'id': 3, 'p': 3}]), '') is None)
        refused('... but is not taken anew', owner.error("SELECT portage.replace_pipeline('children', %s)",
                                                         definition(', "parent": {"from": "p", "references": "fathers"}')),
                'PZ001', 'ambiguous', 'columns.parent.references')
        check('... unless it is made clear', owner.error("SELECT portage.replace_pipeline('children', %s)",
                                                         definition(', "parent": {"from": "p", "references": "guild/fathers"}')) is None)
        check('a pipeline refers to itself by either name',
              all(owner.error("SELECT portage.replace_pipeline('children', %s)",
                              definition(', "parent": {"from": "p", "references": "%s"}' % itself)) is None and
                  owner.rows(counted, 'children', ndjson([{'id': n, 'p': n + 1}, {'id': n + 1, 'p': None}]), 's%d' % n) == [(2, 0)]
                  for n, itself in ((10, 'children'), (20, 'owner/children'))))
        refused('what the owner may not see cannot be named',
                owner.error("SELECT portage.replace_pipeline('children', %s)", definition('', ', "after": "stranger/customers"')), 'PZ001')
    # a schedule
    admin.rows('CREATE TABLE app.source (id int PRIMARY KEY); INSERT INTO app.source VALUES (1); GRANT ALL ON app.source TO PUBLIC')
    text = definition('', ', "source": {"table": "app.source"}').replace('ndjson', 'rows')
    nightly = claim(server, 'owner', 'nightly', text)
    admin.rows("SELECT portage.grant_pipeline('owner/nightly', 'runner', 'run'); GRANT runner TO owner")
    with Session(server, 'runner') as runner:
        runner.rows("SELECT portage.schedule('nightly', '@daily')")
        own = claim(server, 'runner', 'nightly', text)
        check('what is scheduled shows whose it is', runner.rows('SELECT pipeline, pipeline_owner, owner FROM portage.schedules')
              == [('nightly', 'owner', 'runner')])
    admin.rows("CALL portage.tick(now => now() + interval '2 days')")
    run = admin.value("SELECT max(r.id) FROM portage.migration_runs r WHERE r.pipeline = 'nightly'")
    check('... and goes on meaning it', run and admin.value('CALL portage.wait(%s, $$60 s$$)', run) == 'completed' and
          admin.value(f'SELECT count(*) FROM {nightly}') == 1 and admin.value(f'SELECT count(*) FROM {own}') == 0)


def scopes(server, admin):
    """portage.scope_required: who forgets the scope sees nothing, where a session without one saw all."""
    pool = role(admin, 'pool')
    table = claim(server, 'pool', 'devices')
    with Session(server, 'pool') as session:
        for scope in ('s1', 's2'):
            session.rows("SELECT portage.migrate('devices', %s, %s)", ndjson([{'id': int(scope[1])}]), scope)
        refused('portage.scope_required is for superusers to set', session.error('SET portage.scope_required = off'), '42501')
        waiting = session.value("SELECT portage.open_run('devices', 's1')")
    admin.rows(f'ALTER ROLE {pool} SET portage.scope_required = on')
    relations = ('migration_runs', 'migration_parts', 'migration_batches', 'migration_events', 'legacy_mappings', 'migration_items', 'rejects',
                 'progress', 'visible_runs', 'history', 'migration_steps', 'schedules', 'groups', 'run_groups', 'source_cursors')

    def sees(session):
        return sum(session.value(f'SELECT count(*) FROM portage.{relation}') for relation in relations)

    with Session(server, 'pool') as fresh:
        fresh.error('SET portage.scope_required = off')
        check('nothing is seen, whatever was set before the library was loaded', sees(fresh) == 0)
    with Session(server, 'pool') as session:
        check('without a scope nothing is seen', sees(session) == 0 and session.value("SELECT portage.lookup('devices', '1', 's1')") is None and
              session.value("SELECT run_id FROM portage.last_run('devices', 's1')") is None and
              session.value("SELECT items FROM portage.statistics WHERE pipeline = 'devices'") is None)
        for what, sql in (('migrate', "SELECT portage.migrate('devices', '{\"id\": 3}'::text)"),
                          ('migrate, for a scope', "SELECT portage.migrate('devices', '{\"id\": 3}'::text, 's1')"),
                          ('open_run', "SELECT portage.open_run('devices', 's1')"),
                          ('import', "CALL portage.import('devices', payload => '{}', scope => 's1')"),
                          ('plan', "SELECT portage.plan('devices', '{}', 's1')"), ('detect', "SELECT portage.detect('devices', '{}', 's1')"),
                          ('run_group', "SELECT portage.run_group(ARRAY['devices'])"),
                          ('schedule', "SELECT portage.schedule('devices', '@daily')"), ('unschedule', "SELECT portage.unschedule('devices', 's1')"),
                          ('submit', f"SELECT portage.submit({waiting}, '')"), ('start', f'SELECT portage.start({waiting})'),
                          ('run', f'CALL portage.run({waiting})'), ('cancel', f'SELECT portage.cancel({waiting})'),
                          ('wait', f'CALL portage.wait({waiting})'), ('rollback', f'CALL portage.rollback({waiting})'),
                          ('tick', 'CALL portage.tick()'), ('drop_pipeline', "SELECT portage.drop_pipeline('devices', true)")):
            refused(f'without a scope: {what}', session.error(sql), '42501', 'portage.scope')
        session.rows("SET portage.scope = 's1'")
        check('with one, that is seen', session.rows('SELECT DISTINCT scope FROM portage.progress') == [('s1',)] and
              session.value("SELECT portage.lookup('devices', '1', 's1')") == '1' and
              session.value("SELECT portage.lookup('devices', '2', 's2')") is None and
              session.value("SELECT items FROM portage.statistics WHERE pipeline = 'devices'") == 1)
        session.rows('SELECT portage.submit(%s, %s)', waiting, ndjson([{'id': 4}]))
        session.rows('SELECT portage.start(%s)', waiting)
        check('a background worker needs none', session.value('CALL portage.wait(%s, $$60 s$$)', waiting) == 'completed' and
              has(admin, table, 4), session.value('SELECT errors FROM portage.progress WHERE run_id = %s', waiting))
        refused('the history of all scopes stays', session.error("SELECT portage.drop_pipeline('devices', true)"), '42501', 'all scopes')
        session.rows("SET portage.scope = ''")
        check('an empty scope is none', sees(session) == 0)


with Server() as the_server:
    with Session(the_server) as superuser:
        superuser.rows('CREATE EXTENSION pg_portage; CREATE SCHEMA app; CREATE SEQUENCE app.tables; GRANT ALL ON SEQUENCE app.tables TO PUBLIC; '
                       'GRANT USAGE ON SCHEMA app TO PUBLIC')
        for section in (strangers, members, odd_names, renamed, at_the_same_time, what_definitions_name, scopes):
            section(the_server, superuser)
finish()
