-- The life of a run: what it may become, what it tells about itself, and what is refused when.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 9000
\set ECHO none
\i :prelude
\set ECHO all
CREATE SCHEMA runs;
SET search_path = runs;
CREATE TABLE t (id int PRIMARY KEY, v text);
SELECT portage.create_pipeline('runs', 't', '{"format": "json", "legacy_id": "id", "columns": {"id": "id", "v": "v"}, "rules": {"short": "length(v) < 5"}}') > 0 AS created;
CREATE FUNCTION events(run bigint) RETURNS TABLE (seq bigint, event_type text, details jsonb) LANGUAGE sql AS $$
  SELECT seq, event_type, details FROM portage.migration_events WHERE run_id = $1 ORDER BY seq $$;
CREATE FUNCTION refused_call(call text) RETURNS SETOF text LANGUAGE sql AS $$ SELECT pg_temp.refused('SELECT ' || call) $$;
\pset tuples_only on
\pset format unaligned
\set SHOW_CONTEXT never

-- 1. From pending to completed, in pieces; the events tell it.
SELECT portage.open_run('runs', 'anna', '{"batch_size": 2}', 'a name', '{"ticket": 7}') AS run \gset
SELECT status, is_running, percentage, processed_items, total_parts, read FROM portage.status(:run);
SELECT portage.submit(:run, '[{"id": 1, "v": "a"}, {"id": 2, "v": "too long"}, {"id": "x"}]');
CALL portage.run(:run);
SELECT pg_temp.books(:run);
SELECT * FROM events(:run);
SELECT pipeline, pipeline_version, scope, name, metadata, status, current_step, options, total_items, read, open_rejects, verified, error, dry_run,
       started_at >= created_at AND completed_at >= started_at AS in_order, session_role = session_user AND role_name = current_user AS mine
  FROM portage.migration_runs WHERE id = :run;
SELECT run_id, pipeline, scope, status, is_running, percentage, processed_items, total_items, processed_parts, total_parts, success_rate, error_rate, workers, errors FROM portage.status('runs', 'anna');
SELECT run_id FROM portage.last_run('runs', 'anna');
SELECT portage.last_run('runs', 'nobody') IS NULL, portage.status(-1) IS NULL;
-- The summary for people: timings apart.
SELECT line FROM portage.summary(:run) line WHERE line !~ 'items/s';
SELECT count(*) FROM portage.summary(-1);
SELECT portage.lookup('runs', '1', 'anna'), portage.lookup('runs', '2', 'anna'), portage.lookup('runs', '1', 'otto');
SELECT pg_temp.refused($$SELECT portage.lookup('nowhere', '1')$$);
-- The whole raw input of a reject, byte for byte; of what is no reject, nothing.
SELECT convert_from(portage.reject_raw(:run, 2), 'UTF8'), portage.reject_raw(:run, 99), portage.reject_raw(:run, NULL);
SELECT refused_call('portage.reject_raw(-1, 1)');
-- A migrate() that ends well writes a single event.
SELECT run_id AS run FROM portage.migrate('runs', '[{"id": 5, "v": "e"}]') \gset
SELECT * FROM events(:run);

-- 2. A run is worked off once; every transition that does not exist names both states.
SELECT run_id AS run FROM portage.last_run('runs', 'anna') \gset
CALL portage.run(:run);
\echo :LAST_ERROR_SQLSTATE
SELECT refused_call(format('portage.cancel(%s)', :run));
SELECT refused_call(format('portage.submit(%s, ''[]'')', :run));
-- A cancelled run.
SELECT portage.open_run('runs', 'cancel') AS run \gset
SELECT portage.submit(:run, '[{"id": 1}]');
SELECT portage.cancel(:run);
SELECT pg_temp.books(:run);
SELECT * FROM events(:run);
SELECT refused_call(format('portage.cancel(%s)', :run));
CALL portage.run(:run);
\echo :LAST_ERROR_SQLSTATE
SELECT refused_call(format('portage.submit(%s, ''[]'')', :run));
-- Runs that are not there, or not said.
CALL portage.run(-1);
\echo :LAST_ERROR_SQLSTATE
SELECT refused_call('portage.cancel(-1)');
SELECT refused_call('portage.cancel(NULL)');
SELECT refused_call('portage.plan(-1)');
SELECT refused_call($$portage.open_run('nowhere')$$);
SELECT refused_call($$portage.open_run('run')$$);
SELECT refused_call($$portage.open_run(NULL)$$);
SELECT refused_call($$portage.migrate('nowhere', '[]')$$);
SELECT refused_call($$portage.migrate('runs', NULL::text)$$);
CALL portage.import('nowhere', payload => '[]');
\echo :LAST_ERROR_SQLSTATE

-- 3. What commits cannot be called inside a transaction; nothing is left behind.
SELECT portage.open_run('runs', 'block') AS run \gset
BEGIN;
CALL portage.run(:run);
ROLLBACK;
\echo :LAST_ERROR_SQLSTATE
BEGIN;
CALL portage.import('runs', payload => '[]', scope => 'block');
ROLLBACK;
CREATE FUNCTION import_in_function() RETURNS void LANGUAGE plpgsql AS $$ DECLARE run bigint; BEGIN CALL portage.import('runs', payload => '[]', scope => 'function', run => run); END $$;
SELECT import_in_function();
\echo :LAST_ERROR_SQLSTATE
DO $$ DECLARE run bigint; BEGIN CALL portage.import('runs', payload => '[{"id": 8}]', scope => 'in a block', run => run); PERFORM set_config('runs.id', run::text, false); END $$;
SELECT pg_temp.books(current_setting('runs.id')::bigint);
SELECT status FROM portage.status(:run);
SELECT count(*) FROM portage.migration_runs WHERE pipeline = 'runs' AND scope = 'function';

-- 4. migrate() is part of the caller's transaction: with it go rows, ledger and run.
BEGIN;
SELECT run_id AS run FROM portage.migrate('runs', '[{"id": 20}]', 'gone') \gset
SELECT pg_temp.books(:run);
ROLLBACK;
SELECT count(*) FROM portage.migration_runs WHERE id = :run;
SELECT count(*) FROM t WHERE id = 20;
BEGIN;
SAVEPOINT s;
SELECT run_id FROM portage.migrate('runs', '[{"id": 21}]', 'savepoint');
ROLLBACK TO s;
SELECT run_id AS run FROM portage.migrate('runs', '[{"id": 22}]', 'savepoint') \gset
COMMIT;
SELECT pg_temp.books(:run);
SELECT id FROM t WHERE id IN (21, 22);
-- Items that fail never raise; a run that fails is an answer, or an error if that is asked for.
SELECT pg_temp.books(run_id) FROM portage.migrate('runs', '[{"id": "x"}]', 'x', '{"raise": true}');
CREATE TABLE keep (id int PRIMARY KEY, v text);
INSERT INTO keep VALUES (1, 'mine');
SELECT portage.create_pipeline('runs_fail', 'keep', '{"format": "json", "legacy_id": "id", "columns": {"id": "id", "v": "v"}, "on_conflict": "fail"}') > 0;
SELECT run_id AS run FROM portage.migrate('runs_fail', '[{"id": 2}, {"id": 1, "v": "theirs"}]') \gset
SELECT status, error_code, error_class FROM portage.migration_runs WHERE id = :run;
SELECT * FROM events(:run);
SELECT line FROM portage.summary(:run) line;
SELECT refused_call($$portage.migrate('runs_fail', '[{"id": 2}, {"id": 1, "v": "theirs"}]', '', '{"raise": true}')$$);
SELECT * FROM keep;
-- The failed run can be resumed after the row is settled.
UPDATE keep SET v = 'theirs' WHERE id = 1;
CALL portage.run(:run);
SELECT pg_temp.books(:run);
SELECT * FROM events(:run);

-- 5. plan(): what a run would meet, without writing a row.
CREATE FUNCTION plan_without_guesses(plan jsonb) RETURNS text LANGUAGE sql AS $$
  SELECT jsonb_pretty(plan - '{estimated_duration,estimated_duration_basis,estimated_wal_bytes,estimated_ledger_bytes}'::text[]) $$;
SELECT portage.open_run('runs', 'plan') AS run \gset
SELECT portage.submit(:run, '[{"id": 1}, {"id": 2}]', 'one'), portage.submit(:run, '[{"id": 3}', 'broken');
SELECT plan_without_guesses(portage.plan(:run));
SELECT status FROM portage.status(:run);
SELECT plan_without_guesses(portage.plan('runs', '[{"id": 1}, {"id": 2}, {"id": 3}]'));
SELECT plan_without_guesses(portage.plan('runs', ''));
SELECT array_agg(k ORDER BY k) FROM jsonb_object_keys(portage.plan('runs', '[]')) k;
SELECT count(*) FROM portage.migration_runs WHERE status = 'pending' AND scope = '' AND pipeline = 'runs';
-- Blockers: the run of somebody who may not write the table, and one whose table is gone.
CREATE ROLE regress_portage_plan;
GRANT USAGE ON SCHEMA runs TO regress_portage_plan;
SELECT portage.grant_pipeline('runs', 'regress_portage_plan', 'run') > 0;
SET ROLE regress_portage_plan;
SELECT portage.open_run('runs', 'poor') AS run \gset
SELECT portage.plan(:run) ->> 'can_proceed', jsonb_pretty(portage.plan(:run) -> 'blockers');
CALL portage.run(:run);
\echo :LAST_ERROR_SQLSTATE
SELECT refused_call($$portage.migrate('runs', '[]')$$);
RESET ROLE;
-- With exactly what is asked for it works; without UPDATE it says what will be skipped.
GRANT INSERT (id, v), SELECT (id, v) ON t TO regress_portage_plan;
SELECT portage.plan(:run) ->> 'can_proceed', portage.plan(:run) -> 'blockers', portage.plan(:run) #>> '{recommendations,0,code}', portage.plan(:run) #>> '{recommendations,0,sql}';
-- Whoever continues it, the run acts as its role.
CALL portage.run(:run);
SELECT pg_temp.books(:run);
SET ROLE regress_portage_plan;
SELECT pg_temp.books(:run);
SELECT refused_call(format('portage.cancel(%s)', (SELECT max(id) FROM portage.migration_runs)));
RESET ROLE;
SELECT max(id) AS theirs FROM portage.migration_runs WHERE pipeline = 'runs_fail' \gset
SET ROLE regress_portage_plan;
SELECT refused_call(format('portage.cancel(%s)', :theirs));
SELECT refused_call(format('portage.submit(%s, ''[]'')', :theirs));
SELECT count(*) FROM portage.migration_runs WHERE id = :theirs;
RESET ROLE;
CREATE TABLE doomed (id int PRIMARY KEY);
SELECT portage.create_pipeline('runs_doomed', 'doomed', '{"format": "json", "legacy_id": "id", "columns": {"id": "id"}}') > 0;
SELECT portage.open_run('runs_doomed') AS run \gset
DROP TABLE doomed;
SELECT portage.plan(:run) ->> 'can_proceed', jsonb_pretty(portage.plan(:run) -> 'blockers');

-- 6. One run of a pipeline and scope at a time; another scope does not mind.
SELECT portage.open_run('runs', 'busy') AS run \gset
SELECT portage.submit(:run, '[{"id": 30}]');
CREATE FUNCTION run_another() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF new.id = 30 THEN
    PERFORM set_config('runs.busy', (SELECT string_agg(r, E'\n') FROM pg_temp.refused($s$SELECT portage.migrate('runs', '[]', 'busy')$s$) r), false);
    PERFORM set_config('runs.free', (SELECT string_agg(r, E'\n') FROM pg_temp.refused($s$SELECT portage.migrate('runs', '[]', 'free')$s$) r), false);
  END IF; RETURN new; END $$;
CREATE TRIGGER run_another BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION run_another();
CALL portage.run(:run);
SELECT regexp_replace(current_setting('runs.busy'), 'process [0-9]+', 'process N');
SELECT current_setting('runs.free');
DROP TRIGGER run_another ON t;
SELECT pg_temp.books(:run);

-- 7. A read-only transaction, and one that may not write any more.
BEGIN READ ONLY;
SELECT refused_call($$portage.migrate('runs', '[{"id": 1}]')$$);
ROLLBACK;
SET default_transaction_read_only = on;
CALL portage.import('runs', payload => '[{"id": 1}]');
\echo :LAST_ERROR_SQLSTATE
RESET default_transaction_read_only;

-- 8. portage.scope limits a session to the runs and mappings of one scope.
SET portage.scope = 'anna';
SELECT count(*) > 0, bool_and(scope = 'anna') FROM portage.progress WHERE pipeline = 'runs';
SELECT refused_call($$portage.open_run('runs', 'otto')$$);
SELECT refused_call($$portage.migrate('runs', '[]')$$);
SELECT pg_temp.books(run_id) FROM portage.migrate('runs', '[{"id": 1, "v": "a"}]', 'anna');
RESET portage.scope;
SELECT portage.drop_pipeline('runs', true) > 0;
DROP OWNED BY regress_portage_plan;
DROP ROLE regress_portage_plan;

-- Nothing is left for the next test.
SELECT count(portage.drop_pipeline(name, true)) > 0 AS dropped FROM portage.pipelines;
DROP SCHEMA runs CASCADE;
