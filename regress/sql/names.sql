-- What a pipeline's name means. Every role has names of its own, so that nobody's call runs a stranger's pipeline because the
-- stranger took the name first. At work, with other databases and concurrent roles: tests/e2e/names.py.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 61000
\set ECHO none
\i :prelude
\set ECHO all
\set SHOW_CONTEXT never
\pset format unaligned
\pset tuples_only on
CREATE SCHEMA names;
SET client_min_messages = warning;
CREATE ROLE regress_names_ann;
CREATE ROLE regress_names_bob;
CREATE ROLE regress_names_carl;
CREATE ROLE "regress names/team 1";
CREATE ROLE regress_names_team2;
RESET client_min_messages;
GRANT USAGE, CREATE ON SCHEMA names TO regress_names_ann, regress_names_bob, regress_names_carl, "regress names/team 1", regress_names_team2;
SET search_path = names;
\set word '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id"}}'

-- 1. A name is one's own: two roles have a pipeline of the same name, and each means its own by it.
SET ROLE regress_names_bob;
CREATE TABLE of_bob (id int PRIMARY KEY);
SELECT portage.create_pipeline('customers', 'of_bob', :'word') > 0 AS created;
SET ROLE regress_names_ann;
CREATE TABLE of_ann (id int PRIMARY KEY);
GRANT SELECT, INSERT ON of_ann TO PUBLIC;
SELECT portage.create_pipeline('customers', 'of_ann', :'word') > 0 AS created;
SELECT inserted FROM portage.migrate('customers', '{"id": 1}'::text);
SELECT count(*) FROM of_ann;
-- One role has a name once.
SELECT pg_temp.refused($$SELECT portage.create_pipeline('customers', 'of_ann', '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id"}}')$$);
-- Names are compared byte by byte; a slash has a meaning of its own.
SELECT portage.create_pipeline('Customers', 'of_ann', :'word') > 0 AS created;
SELECT pg_temp.refused($$SELECT portage.create_pipeline('a/b', 'of_ann', '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id"}}')$$);
SELECT pg_temp.refused($$SELECT portage.create_pipeline('', 'of_ann', '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id"}}')$$);

-- 2. owner/name means that role's pipeline, and nothing else. It gives no right, and to those without one it tells nothing.
SELECT portage.pipeline_id('regress_names_ann/customers') = portage.pipeline_id('customers') AS the_same;
SELECT pg_temp.refused($$SELECT portage.pipeline_id('regress_names_bob/customers')$$);
SELECT pg_temp.refused($$SELECT portage.pipeline_id('regress_names_nobody/customers')$$);
SELECT pg_temp.refused($$SELECT portage.pipeline_id('/customers')$$);
SELECT pg_temp.refused($$SELECT portage.pipeline_id('regress_names_ann/')$$);
SELECT pg_temp.refused($$SELECT portage.pipeline_id('regress_names_ann/customer')$$);
SET ROLE regress_names_carl;
SELECT pg_temp.refused($$SELECT portage.migrate('customers', '{"id": 2}'::text)$$);
SELECT pg_temp.refused($$SELECT portage.migrate('regress_names_ann/customers', '{"id": 2}'::text)$$);

-- 3. What another role grants does not come in between: it is addressed with its owner, and the error says how.
SET ROLE regress_names_ann;
SELECT portage.grant_pipeline('customers', 'regress_names_carl', 'run') > 0 AS granted;
SET ROLE regress_names_carl;
SELECT pg_temp.refused($$SELECT portage.migrate('customers', '{"id": 2}'::text)$$);
SELECT inserted FROM portage.migrate('regress_names_ann/customers', '{"id": 2}'::text);
SELECT status FROM portage.status('regress_names_ann/customers', '');
SELECT portage.lookup('regress_names_ann/customers', '2');
-- Superusers, too, say whose they mean.
RESET ROLE;
SELECT pg_temp.refused($$SELECT portage.status('customers', '')$$);
SELECT status FROM portage.status('regress_names_ann/customers', '');

-- 4. What an administrator granted is found by its bare name: also what the owner had granted before.
SELECT portage.grant_pipeline('regress_names_ann/customers', 'regress_names_carl', 'run') > 0 AS granted;
SELECT role_name, privilege, grantor_name = current_user AS by_me, by_admin FROM portage.pipeline_grants;
SET ROLE regress_names_carl;
SELECT inserted FROM portage.migrate('customers', '{"id": 3}'::text);
SELECT portage.pipeline_name(portage.pipeline_id('customers'));
-- The owner's granting it once more makes it nobody else's.
SET ROLE regress_names_ann;
SELECT portage.grant_pipeline('customers', 'regress_names_carl', 'run') > 0 AS granted;
SELECT role_name, privilege, by_admin FROM portage.pipeline_grants;
-- Two of them: it must be said which.
RESET ROLE;
SELECT portage.grant_pipeline('regress_names_bob/customers', 'regress_names_carl', 'read') > 0 AS granted;
SET ROLE regress_names_carl;
SELECT pg_temp.refused($$SELECT portage.migrate('customers', '{"id": 4}'::text)$$);
SELECT portage.pipeline_name(portage.pipeline_id('regress_names_ann/customers'));
-- One's own comes first.
CREATE TABLE of_carl (id int PRIMARY KEY);
SELECT portage.create_pipeline('customers', 'of_carl', :'word') > 0 AS created;
SELECT inserted FROM portage.migrate('customers', '{"id": 4}'::text);
SELECT count(*) FROM of_carl;
SELECT portage.drop_pipeline('customers', true) > 0 AS dropped;
RESET ROLE;
SELECT portage.revoke_pipeline('regress_names_bob/customers', 'regress_names_carl', 'read') > 0 AS revoked;
SET ROLE regress_names_carl;
SELECT inserted FROM portage.migrate('customers', '{"id": 5}'::text);

-- 5. What everybody is to find, an administrator says.
SET ROLE regress_names_bob;
SELECT pg_temp.refused($$SELECT portage.grant_pipeline('customers', 'public', 'run')$$);
RESET ROLE;
SELECT portage.grant_pipeline('regress_names_bob/customers', 'public', 'read') > 0 AS granted;
SET ROLE regress_names_team2;
SELECT portage.pipeline_name(portage.pipeline_id('customers'));
RESET ROLE;
SELECT portage.revoke_pipeline('regress_names_bob/customers', 'public', 'read') > 0 AS revoked;

-- 6. Members of a role mean its pipelines by their names, before those that were granted.
SET ROLE "regress names/team 1";
CREATE TABLE of_team1 (id int PRIMARY KEY);
SELECT portage.create_pipeline('customers', 'of_team1', :'word') > 0 AS created;
RESET ROLE;
GRANT "regress names/team 1" TO regress_names_carl;
SET ROLE regress_names_carl;
SELECT inserted FROM portage.migrate('customers', '{"id": 6}'::text);
SELECT count(*) FROM of_team1;
SELECT portage.pipeline_id('regress names/team 1/customers') = portage.pipeline_id('customers') AS the_same;
-- Of two such roles: it must be said which. Every entry that takes a name asks.
SET ROLE regress_names_team2;
CREATE TABLE of_team2 (id int PRIMARY KEY);
SELECT portage.create_pipeline('customers', 'of_team2', :'word') > 0 AS created;
RESET ROLE;
GRANT regress_names_team2 TO regress_names_carl;
SET ROLE regress_names_carl;
SELECT pg_temp.refused($$SELECT portage.migrate('customers', '{"id": 7}'::text)$$);
SELECT pg_temp.refused($$SELECT portage.lookup('customers', '7')$$);
SELECT pg_temp.refused($$SELECT portage.lookup_legacy('customers', '7')$$);
SELECT pg_temp.refused($$SELECT portage.last_run('customers')$$);
SELECT pg_temp.refused($$SELECT portage.detect('customers', '{}')$$);
SELECT pg_temp.refused($$SELECT portage.plan('customers', '{}')$$);
SELECT pg_temp.refused($$SELECT portage.plan_group(ARRAY['customers'])$$);
SELECT pg_temp.refused($$SELECT portage.schedule('customers', '@daily')$$);
SELECT pg_temp.refused($$SELECT portage.unschedule('customers')$$);
SELECT pg_temp.refused($$SELECT portage.replace_pipeline('customers', '{}')$$);
SELECT pg_temp.refused($$SELECT portage.drop_pipeline('customers')$$);
SELECT pg_temp.refused($$SELECT portage.grant_pipeline('customers', 'regress_names_ann', 'run')$$);
SELECT pg_temp.refused($$SELECT portage.revoke_pipeline('customers', 'regress_names_ann', 'run')$$);
CALL portage.import('customers', payload => '{"id": 7}');
CALL portage.rollback('customers', '');
SELECT pipeline, owner, items FROM portage.statistics ORDER BY owner;

-- 7. The pipelines that a definition names are those that its owner means, whoever runs it, and for ever.
SET ROLE regress_names_ann;
CREATE TABLE orders (id int PRIMARY KEY, customer int);
GRANT SELECT, INSERT ON orders TO PUBLIC;
SELECT portage.create_pipeline('orders', 'orders', '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id", "customer": {"from": "c", "references": "customers"}}, "after": "customers"}') > 0 AS created;
SELECT v.refers_to = jsonb_build_object('customers', portage.pipeline_id('customers')) AS as_stored
  FROM portage.pipeline_versions v WHERE v.pipeline_id = portage.pipeline_id('orders');
RESET ROLE;
SELECT portage.grant_pipeline('regress_names_ann/orders', 'regress_names_bob', 'run') > 0 AS granted;
SET ROLE regress_names_bob;
SELECT inserted FROM portage.migrate('customers', '{"id": 77}'::text);
-- Customer 77 is one of bob's, customer 1 one of ann's.
SELECT inserted, parked FROM portage.migrate('orders', E'{"id": 1, "c": 1}\n{"id": 2, "c": 77}'::text);
-- Dropped is dropped: another one of that name does not take its place by itself.
SET ROLE regress_names_ann;
SELECT portage.drop_pipeline('customers', true) > 0 AS dropped;
SELECT portage.create_pipeline('customers', 'of_ann', :'word') > 0 AS created;
SELECT m.status, e ->> 'code' AS code, e ->> 'message' AS message FROM portage.migrate('orders', '{"id": 3, "c": 1}'::text) m, jsonb_array_elements(m.errors) e;
SELECT portage.replace_pipeline('orders', v.definition) > 0 AS replaced FROM portage.pipeline_versions v WHERE v.pipeline_id = portage.pipeline_id('orders');
SELECT inserted, parked FROM portage.migrate('orders', '{"id": 3, "c": 1}'::text);
-- What the owner may not see cannot be named, and a name that means several has to be made clear.
SELECT pg_temp.refused($$SELECT portage.replace_pipeline('orders', '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id"}, "after": "regress_names_bob/customers"}')$$);

-- 8. portage.scope_required: a session that has no scope sees nothing, and does nothing. For the roles of connection pools.
SELECT inserted FROM portage.migrate('customers', '{"id": 8}'::text, 's');
SELECT pg_temp.refused('SET portage.scope_required = on');
RESET ROLE;
SET portage.scope_required = on;
SET ROLE regress_names_ann;
SELECT pg_temp.refused($$SELECT portage.migrate('customers', '{"id": 9}'::text)$$);
SELECT pg_temp.refused($$SELECT portage.open_run('customers')$$);
SELECT pg_temp.refused($$SELECT portage.drop_pipeline('customers', true)$$);
CALL portage.tick();
SELECT (SELECT count(*) FROM portage.migration_runs), (SELECT count(*) FROM portage.progress), (SELECT count(*) FROM portage.legacy_mappings),
       (SELECT count(*) FROM portage.migration_items), (SELECT count(*) FROM portage.rejects), (SELECT coalesce(sum(items), 0) FROM portage.statistics),
       (SELECT count(*) FROM portage.migration_events), (SELECT count(*) FROM portage.schedules);
SELECT portage.lookup('customers', '8', 's') IS NULL AS unseen;
SET portage.scope = 's';
SELECT scope, status FROM portage.progress;
SELECT portage.lookup('customers', '8', 's');
SELECT inserted FROM portage.migrate('customers', '{"id": 9}'::text, 's');
SELECT pg_temp.refused($$SELECT portage.migrate('customers', '{"id": 10}'::text, 't')$$);
RESET portage.scope;
RESET ROLE;
RESET portage.scope_required;

-- Nothing is left for the next test.
SELECT count(portage.drop_pipeline(portage.pipeline_name(id), true)) > 0 AS dropped FROM portage.pipelines;
SET client_min_messages = warning;
DROP SCHEMA names CASCADE;
DROP ROLE regress_names_ann, regress_names_bob, regress_names_carl, "regress names/team 1", regress_names_team2;
