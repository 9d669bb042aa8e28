-- Retention: purge() for all runs, "retain" for those of a pipeline; what is erased, what stays, and who may.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 45000
\set ECHO none
\i :prelude
\set ECHO all
\set SHOW_CONTEXT never
RESET client_min_messages;
CREATE SCHEMA retention;
SET search_path = retention;
CREATE TABLE t (id int PRIMARY KEY, v text CHECK (v <> 'bad'));
SELECT portage.create_pipeline('old', 't', '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id", "v": "v"}, "on_conflict": "overwrite"}') > 0 AS created;
-- How much of a run is known.
CREATE FUNCTION known(run bigint) RETURNS text LANGUAGE sql AS $$
  SELECT format('items %s, payloads %s, undo %s, before-images %s, checks %s, batches %s, events %s, mappings %s',
    (SELECT count(*) FROM portage.all_items WHERE run_id = $1), (SELECT count(*) FROM portage.migration_payloads WHERE run_id = $1),
    (SELECT count(*) FROM portage.migration_undo WHERE run_id = $1), (SELECT count(*) FROM portage.migration_undo WHERE run_id = $1 AND columns IS NOT NULL),
    (SELECT count(*) FROM portage.data_integrity_checks WHERE run_id = $1) > 0, (SELECT count(*) FROM portage.migration_batches WHERE run_id = $1),
    (SELECT count(*) FROM portage.migration_events WHERE run_id = $1), (SELECT count(*) FROM portage.legacy_mappings WHERE run_id = $1)) $$;
-- A run as if it had ended so long ago.
CREATE PROCEDURE aged(run bigint, days int) LANGUAGE sql AS
  'UPDATE portage.migration_runs SET completed_at = now() - make_interval(days => days) WHERE id = run';

-- 1. What ended longer ago goes; what ended later, is kept, or has not ended stays.
SELECT run_id AS run FROM portage.migrate('old', E'{"id": 1, "v": "a"}\n{"id": 2, "v": "bad"}\n{"id": 3, "v": "c"}', options => '{"verify": true}') \gset
SELECT run_id AS kept FROM portage.migrate('old', '{"id": 1, "v": "kept"}') \gset
SELECT portage.keep(:kept);
SELECT run_id AS later FROM portage.migrate('old', '{"id": 1, "v": "later"}') \gset
SELECT portage.open_run('old', 'waiting') AS waiting \gset
SELECT portage.submit(:waiting, '{"id": 9, "v": "w"}');
CALL aged(:run, 91);
CALL aged(:kept, 91);
CALL aged(:later, 89);
SELECT known(:run);
CALL portage.purge('90 days');
SELECT known(:run);
SELECT known(:kept);
SELECT known(:later);
SELECT known(:waiting);
-- The run is still there, with its counts; its last event says what became of the rest.
SELECT status, read, inserted, invalid + failed AS rejected, open_rejects, cleaned_at IS NOT NULL AS cleaned, isfinite(purged_at) AS purged FROM portage.migration_runs WHERE id = :run;
SELECT seq > 1 AS numbered_on, event_type, details FROM portage.migration_events WHERE run_id = :run;
SELECT line FROM portage.summary(:run) AS line WHERE line NOT LIKE '%items/s';
SELECT count(*) FROM portage.rejects WHERE run_id = :run;
-- A second time there is nothing to do.
CALL portage.purge('90 days');

-- 2. What needs the items says so.
SELECT pg_temp.refused(format('SELECT portage.verify(%s)', :run));
SELECT pg_temp.refused(format('SELECT portage.replay(%s)', :run));
SELECT pg_temp.refused(format('SELECT portage.replay(%s, 2, ''{"id": 2, "v": "good"}'')', :run));
SELECT possible, reasons FROM portage.can_rollback(:run);
CALL portage.rollback(:run);
SELECT pg_temp.refused(format('SELECT portage.snapshot(%s)', :run));
-- Keeping it now brings nothing back, cleaning it up changes nothing.
SELECT portage.cleanup(:run);

-- 3. The mappings are still known: unchanged items are unchanged, and later runs can be verified and taken back, down to
-- the mapping of the run that was purged.
SELECT pg_temp.books(run_id) FROM portage.migrate('old', '{"id": 3, "v": "c"}');
SELECT bool_and(passed) AS verified FROM portage.verify(:kept);
SELECT bool_and(passed) AS verified FROM portage.verify(:later);
CALL portage.rollback(:later);
CALL portage.rollback(:kept);
SELECT * FROM t ORDER BY id;
SELECT legacy_id, run_id = :run AS of_the_purged_run FROM portage.legacy_mappings JOIN portage.pipelines p ON p.id = pipeline_id WHERE p.name = 'old' ORDER BY 1;

-- 4. A run between others, taken back by force before it is purged: who comes back later goes past it.
SELECT run_id AS a FROM portage.migrate('old', '{"id": 1, "v": "A"}') \gset
SELECT run_id AS b FROM portage.migrate('old', '{"id": 1, "v": "B"}') \gset
CALL portage.rollback(:a, drifted => 'force');
CALL aged(:a, 91);
CALL portage.purge('90 days');
SELECT status, known(id) FROM portage.migration_runs WHERE id = :a;
CALL portage.rollback(:b, drifted => 'force');
SELECT * FROM t WHERE id = 1;
SELECT legacy_id, run_id = :run AS of_the_purged_run FROM portage.legacy_mappings JOIN portage.pipelines p ON p.id = pipeline_id WHERE p.name = 'old' AND legacy_id = '1';

-- 5. In batches: a run of more items than one of them.
CREATE TABLE large (id int PRIMARY KEY, v text);
SELECT portage.create_pipeline('large', 'large', '{"format": "rows", "legacy_id": "id", "columns": {"id": "id", "v": "v"}}') > 0 AS created;
SELECT portage.open_run('large', options => '{"batch_size": 5000}') AS large \gset
SELECT portage.attach_query(:large, 'SELECT g AS id, ''x'' AS v FROM generate_series(1, 25000) g', ARRAY['id']);
SET client_min_messages = warning;
CALL portage.run(:large);
RESET client_min_messages;
SELECT known(:large);
CALL aged(:large, 400);
CALL portage.purge('1 year');
SELECT known(:large);
SELECT count(*) FROM large;

-- 6. "retain": by the clock of the heartbeat, once an hour.
SELECT pg_temp.refused(format('SELECT portage.replace_pipeline(''old'', %L)', json_build_object('format', 'ndjson', 'legacy_id', 'id', 'columns', json_build_object('id', 'id'), 'retain', v)))
  FROM unnest(ARRAY['soon', '-1 day', '0', '']) v;
SELECT pg_temp.refused($$SELECT portage.replace_pipeline('old', '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id"}, "retain": 30}')$$);
SELECT portage.create_pipeline('short', 't', '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id", "v": "v"}, "on_conflict": "overwrite", "retain": "30 days"}') > 0 AS created;
SELECT run_id AS first FROM portage.migrate('short', '{"id": 21, "v": "a"}') \gset
SELECT run_id AS second FROM portage.migrate('short', '{"id": 22, "v": "b"}') \gset
CALL aged(:first, 20);
CALL aged(:second, 20);
CALL portage.tick();
SELECT known(:first);
SELECT now() + interval '9 days 23 hours' AS early, now() + interval '10 days 5 minutes' AS due, now() + interval '10 days 2 hours' AS later_on \gset
CALL portage.tick(now => :'early');
SELECT known(:first);
SELECT portage.keep(:second);
CALL portage.tick(now => :'due');
SELECT known(:first), known(:second);
-- Not again within the hour, but after it.
SELECT run_id AS third FROM portage.migrate('short', '{"id": 23, "v": "c"}') \gset
CALL aged(:third, 31);
CALL portage.tick(now => :'due');
SELECT known(:third);
CALL portage.tick(now => :'later_on');
SELECT known(:third);
-- Many runs: a portion with each heartbeat, until none is left.
SELECT count(portage.migrate('short', format('{"id": %s, "v": "m"}', 1000 + g))) FROM generate_series(1, 90) g;
UPDATE portage.migration_runs SET completed_at = now() - interval '31 days' WHERE pipeline = 'short' AND purged_at IS NULL AND expires_at IS NULL;
UPDATE portage.pipelines SET retained_at = NULL;
CALL portage.tick();
SELECT count(*) BETWEEN 1 AND 89 AS some_are_left FROM portage.migration_runs WHERE pipeline = 'short' AND purged_at IS NULL AND expires_at IS NULL;
CALL portage.tick();
CALL portage.tick();
SELECT count(*) AS left FROM portage.migration_runs WHERE pipeline = 'short' AND purged_at IS NULL AND expires_at IS NULL;
-- Other pipelines' runs are none of its business.
SELECT known(:later) AS of_another_pipeline;

-- 7. Who may: purge() administrators, and only who was granted it; a heartbeat what its caller's pipelines say.
SET client_min_messages = warning;
CREATE ROLE retention_admin;
CREATE ROLE retention_other;
RESET client_min_messages;
SELECT run_id AS fourth FROM portage.migrate('short', '{"id": 24, "v": "d"}') \gset
CALL aged(:fourth, 31);
UPDATE portage.pipelines SET retained_at = NULL;
SET ROLE retention_other;
CALL portage.purge('90 days');
CALL portage.tick();
RESET ROLE;
SELECT known(:fourth) AS of_another_role;
GRANT EXECUTE ON PROCEDURE portage.purge(interval) TO retention_other, retention_admin;
SET ROLE retention_other;
CALL portage.purge('90 days');
RESET ROLE;
SET portage.admin_role = 'retention_admin';
SET ROLE retention_admin;
CALL portage.purge('30 days');
CALL portage.purge(NULL);
CALL portage.purge('-1 day');
BEGIN;
CALL portage.purge('30 days');
ROLLBACK;
RESET ROLE;
RESET portage.admin_role;
SELECT known(:fourth);

-- Nothing is left for the next test.
SELECT count(portage.drop_pipeline(name, true)) > 0 AS dropped FROM portage.pipelines;
SET client_min_messages = warning;
DROP SCHEMA retention CASCADE;
REVOKE ALL ON PROCEDURE portage.purge(interval) FROM retention_other, retention_admin;
DROP ROLE retention_admin, retention_other;
