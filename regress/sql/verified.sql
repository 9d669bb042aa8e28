-- A run is verified before it completes: option verify, state verifying, what a failed check does to the run.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 21000
\set ECHO none
\i :prelude
\set ECHO all
CREATE SCHEMA verified;
SET search_path = verified;
CREATE TABLE sums (id int PRIMARY KEY, amount int NOT NULL);
SELECT portage.create_pipeline('sums', 'sums', '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id", "amount": "amount"},
  "checks": {"no_debt": "SELECT bool_and(amount >= 0) FROM sums",
             "not_too_many": {"sql": "SELECT count(*) < 4 FROM sums", "severity": "warning"},
             "total": {"sql": "SELECT sum(amount) < 1000 FROM sums", "severity": "critical", "message": "that is more than there can be"}}}') > 0 AS created;
\pset tuples_only on
\pset format unaligned

-- 1. By default, between the last batch and the end.
CALL portage.import('sums', payload => '{"id": 1, "amount": 10}');
SELECT run_id AS run FROM portage.last_run('sums') \gset
SELECT status, verified FROM portage.migration_runs WHERE id = :run;
SELECT event_type, details FROM portage.migration_events WHERE run_id = :run ORDER BY seq;
SELECT name, severity, passed FROM portage.data_integrity_checks WHERE run_id = :run AND name IN ('no_debt', 'not_too_many', 'total', 'balance') ORDER BY name;
SELECT line FROM portage.summary(:run) AS line WHERE line ~* 'verified';
-- Not where it is not wanted, and for migrate() only where it is.
CALL portage.import('sums', payload => '{"id": 1, "amount": 10}', options => '{"verify": false}');
SELECT verified IS NULL FROM portage.migration_runs WHERE id = (SELECT run_id FROM portage.last_run('sums'));
SELECT run_id AS run FROM portage.migrate('sums', '{"id": 1, "amount": 10}') \gset
SELECT verified IS NULL FROM portage.migration_runs WHERE id = :run;
SELECT run_id AS run FROM portage.migrate('sums', '{"id": 1, "amount": 10}', '', '{"verify": true}') \gset
SELECT status, verified FROM portage.migration_runs WHERE id = :run;

-- 2. A check of severity error is told, and the run completes; a warning is only told.
CALL portage.import('sums', payload => E'{"id": 2, "amount": -10}\n{"id": 3, "amount": 1}\n{"id": 4, "amount": 1}');
SELECT run_id AS run FROM portage.last_run('sums') \gset
SELECT status, verified FROM portage.migration_runs WHERE id = :run;
SELECT name, severity, expected, actual FROM portage.data_integrity_checks WHERE run_id = :run AND NOT passed ORDER BY name;
SELECT line FROM portage.summary(:run) AS line WHERE line ~* 'verified';
SELECT code, sql FROM portage.recommendations(:run);

-- 3. A critical one fails the run; what it imported stays, and the run can be tried again.
CALL portage.import('sums', payload => '{"id": 5, "amount": 5000}');
SELECT run_id AS run FROM portage.last_run('sums') \gset
SELECT status, errors -> 0 ->> 'code' FROM portage.status(:run);
SELECT step_number, description, status FROM portage.migration_steps WHERE run_id = :run;
SELECT count(*) FROM sums;
DELETE FROM sums WHERE id IN (2, 5);
CALL portage.run(:run);
SELECT status, verified, error IS NULL AS no_error FROM portage.migration_runs WHERE id = :run;
-- Or is taken back.
CALL portage.import('sums', payload => '{"id": 6, "amount": 6000}', options => '{"on_failure": "rollback"}');
SELECT status, errors -> 0 ->> 'code' FROM portage.last_run('sums');
SELECT count(*) FROM sums WHERE id = 6;
-- In migrate() the failing run is an answer, and nothing of it stays.
SELECT status, errors -> 0 ->> 'code', errors -> 0 ->> 'message' <> '' FROM portage.migrate('sums', '{"id": 7, "amount": 7000}', '', '{"verify": true}');
SELECT count(*) FROM sums WHERE id = 7;

-- Items that have not changed, and whose rows are gone: told, since it may have been meant.
SELECT portage.create_pipeline('emptied', 'sums', '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id", "amount": "amount"}}') > 0 AS created;
TRUNCATE sums;
CALL portage.import('emptied', payload => E'{"id": 1, "amount": 1}\n{"id": 2, "amount": 2}');
TRUNCATE sums;
CALL portage.import('emptied', payload => E'{"id": 1, "amount": 1}\n{"id": 2, "amount": 2}');
SELECT line FROM portage.summary((portage.last_run('emptied')).run_id) AS line WHERE line ~ 'gone|incremental';
SELECT code, text FROM portage.recommendations((portage.last_run('emptied')).run_id) WHERE code = 'rows_gone';
CALL portage.import('emptied', payload => E'{"id": 1, "amount": 1}\n{"id": 2, "amount": 2}', options => '{"incremental": false}');
SELECT count(*) FROM sums;

-- 4. Interrupted while it is verified, it goes on there.
SELECT portage.create_pipeline('slow', 'sums', '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id", "amount": "amount"},
  "checks": {"slow": "SELECT NOT current_setting(''verified.cancel'')::boolean OR pg_cancel_backend(pg_backend_pid()) AND pg_sleep(60) IS NULL"}}') > 0 AS created;
SET verified.cancel = on;
CALL portage.import('slow', payload => '{"id": 8, "amount": 8}');
SELECT run_id AS run FROM portage.last_run('slow') \gset
SELECT status, is_running, current_step, replace(hold_reason, run_id::text, 'N') FROM portage.status(:run);
SELECT step_number, description, status FROM portage.migration_steps WHERE run_id = :run;
SET verified.cancel = off;
CALL portage.run(:run);
SELECT status, verified FROM portage.migration_runs WHERE id = :run;
SELECT step_number, description, status FROM portage.migration_steps WHERE run_id = :run;
SELECT pg_temp.books(:run);
-- Or is cancelled there.
SET verified.cancel = on;
CALL portage.import('slow', payload => '{"id": 9, "amount": 9}');
SELECT portage.cancel(run_id) FROM portage.last_run('slow');
SELECT status, inserted FROM portage.last_run('slow');
-- What is gone with its pipeline is gone with its checks.
SET client_min_messages = warning;
SELECT portage.drop_pipeline('emptied', true) > 0, portage.drop_pipeline('sums', true) > 0, portage.drop_pipeline('slow', true) > 0;
SELECT count(*) FROM portage.data_integrity_checks WHERE run_id BETWEEN 21000 AND 21999;
DROP SCHEMA verified CASCADE;
