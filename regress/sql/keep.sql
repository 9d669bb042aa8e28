-- What a run keeps for later: snapshot() gives back what was submitted, keep() saves it from retention, cleanup()
-- drops it, and what needed it says so.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 21000
\set ECHO none
\i :prelude
\set ECHO all
\set SHOW_CONTEXT never
CREATE SCHEMA keep;
SET search_path = keep;
CREATE TABLE t (id int PRIMARY KEY, v text CHECK (v <> 'bad'));
INSERT INTO t VALUES (1, 'old');
SELECT portage.create_pipeline('keep', 't', '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id", "v": "v"}, "on_conflict": "overwrite"}') > 0 AS created;

-- 1. What was submitted, byte by byte: part for part, chunks joined.
SELECT portage.open_run('keep') AS run \gset
SELECT portage.submit(:run, E'{"id": 1, "v": "ne', 'first', 1), portage.submit(:run, E'w"}\n', 'first', 2),
       portage.submit(:run, '\x7b226964223a20322c202276223a2022c3a422 7d0a'::bytea, 'second'),
       portage.submit(:run, '{"id": 3, "v": "bad"}', 'third');
SELECT part, name, convert_from(content, 'UTF8') AS content FROM portage.snapshot(:run);
CALL portage.run(:run);
SELECT pg_temp.books(:run);
SELECT convert_from(portage.snapshot(:run, 1), 'UTF8') AS first, octet_length(portage.snapshot(:run, 2)) AS bytes;
SELECT pg_temp.refused(format('SELECT portage.snapshot(%s, 9)', :run));
SELECT pg_temp.refused(format('SELECT portage.snapshot(%s, NULL)', :run));
SELECT pg_temp.refused('SELECT portage.snapshot(999999)');
-- a part that was not submitted has no bytes here
SELECT portage.create_pipeline('keep_rows', 't', '{"format": "rows", "legacy_id": "id", "columns": {"id": "id", "v": "v"}}') > 0 AS created;
SELECT portage.open_run('keep_rows') AS rows_run \gset
SELECT portage.attach_query(:rows_run, 'SELECT 9 AS id, ''x'' AS v', ARRAY['id']);
SELECT count(*) FROM portage.snapshot(:rows_run);
SELECT pg_temp.refused(format('SELECT portage.snapshot(%s, 1)', :rows_run));
-- nothing submitted is not the same as dropped
SELECT portage.attach_query(:rows_run, 'SELECT 1 AS id WHERE false', snapshot => true);
SELECT portage.snapshot(:rows_run, 2);

-- 2. keep(): for ever, and twice is once.
SELECT expires_at FROM portage.migration_runs WHERE id = :run;
SELECT portage.keep(:run);
SELECT portage.keep(:run);
SELECT expires_at FROM portage.migration_runs WHERE id = :run;
SELECT pg_temp.refused('SELECT portage.keep(NULL)');
SELECT pg_temp.refused('SELECT portage.keep(999999)');

-- 3. cleanup(): only what has ended.
SELECT pg_temp.refused(format('SELECT portage.cleanup(%s)', :rows_run));
SELECT pg_temp.refused('SELECT portage.cleanup(NULL)');
SELECT pg_temp.refused('SELECT portage.cleanup()');
SELECT possible FROM portage.can_rollback(:run);
SELECT ordinal, raw FROM portage.rejects WHERE run_id = :run;
SELECT portage.cleanup(:run);
-- the second time finds nothing, and is no second event
SELECT portage.cleanup(:run);
SELECT event_type, details FROM portage.migration_events WHERE run_id = :run AND event_type = 'cleaned_up';
-- items, mappings, batches stay; what was dropped is gone
SELECT pg_temp.books(:run);
SELECT legacy_id, origin FROM portage.legacy_mappings WHERE run_id = :run ORDER BY 1;
SELECT ordinal, rule, raw FROM portage.rejects WHERE run_id = :run;
SELECT portage.reject_raw(:run, 3) IS NULL AS gone;
SELECT pg_temp.refused(format('SELECT portage.snapshot(%s)', :run));
SELECT pg_temp.refused(format('SELECT portage.snapshot(%s, 1)', :run));
-- what was dropped on purpose is no fault
SELECT count(*) AS failed FROM portage.verify(:run) WHERE NOT passed;
-- and the run cannot be taken back any more
SELECT possible, reasons FROM portage.can_rollback(:run);
CALL portage.rollback(:run);
CALL portage.rollback(:run, drifted => 'force');
SELECT * FROM t ORDER BY id;
SELECT status FROM portage.status(:run);

-- 4. A later run that replaced the cleaned one's mappings comes back to them; one that was taken back before it was
-- cleaned up is still stepped over.
SELECT run_id AS next FROM portage.migrate('keep', '{"id": 1, "v": "newer"}') \gset
CALL portage.rollback(:next);
SELECT * FROM t ORDER BY id;
SELECT legacy_id, run_id = :run AS of_the_cleaned_run FROM portage.legacy_mappings ORDER BY 1;
SELECT run_id AS a FROM portage.migrate('keep', '{"id": 1, "v": "A"}') \gset
SELECT run_id AS b FROM portage.migrate('keep', '{"id": 1, "v": "B"}') \gset
CALL portage.rollback(:a, drifted => 'force');
SELECT portage.cleanup(:a);
CALL portage.rollback(:b, drifted => 'force');
SELECT * FROM t WHERE id = 1;
SELECT legacy_id, run_id = :run AS of_the_cleaned_run FROM portage.legacy_mappings WHERE legacy_id = '1';

-- 5. Dropped on completion, if the run says so.
SELECT run_id AS dropped FROM portage.migrate('keep', '{"id": 5, "v": "e"}', options => '{"keep_payload": false}') \gset
SELECT pg_temp.refused(format('SELECT portage.snapshot(%s)', :dropped));

-- 6. Who may: the run's role; sensitive input only the pipeline's owner.
SET client_min_messages = warning;
CREATE ROLE keep_other;
CREATE ROLE keep_runner;
GRANT USAGE ON SCHEMA keep TO keep_runner;
GRANT SELECT, INSERT ON t TO keep_runner;
RESET client_min_messages;
SELECT portage.create_pipeline('keep_secret', 't', '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id", "v": "v"}, "sensitive": ["v"]}') > 0 AS created;
SELECT portage.grant_pipeline('keep_secret', 'keep_runner', 'run') > 0 AS granted;
SET ROLE keep_runner;
SELECT run_id AS secret FROM portage.migrate('keep_secret', '{"id": 7, "v": "s"}') \gset
SELECT pg_temp.refused(format('SELECT portage.snapshot(%s)', :secret));
SELECT pg_temp.refused(format('SELECT portage.snapshot(%s, 1)', :secret));
SET ROLE keep_other;
SELECT pg_temp.refused(format('SELECT portage.snapshot(%s)', :secret));
SELECT pg_temp.refused(format('SELECT portage.keep(%s)', :secret));
SELECT pg_temp.refused(format('SELECT portage.cleanup(%s)', :secret));
RESET ROLE;
SELECT convert_from(content, 'UTF8') AS content FROM portage.snapshot(:secret);
SET ROLE keep_runner;
SELECT portage.keep(:secret);
SELECT portage.cleanup(:secret);
RESET ROLE;

-- Nothing is left for the next test.
SELECT count(portage.drop_pipeline(name, true)) > 0 AS dropped FROM portage.pipelines;
SET client_min_messages = warning;
DROP SCHEMA keep CASCADE;
DROP ROLE keep_other, keep_runner;
