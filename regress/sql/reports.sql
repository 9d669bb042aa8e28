-- What is told of a run: progress, steps, history, statistics, report, what to do next. Times and rates are not shown.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 19000
\set ECHO none
\i :prelude
\set ECHO all
CREATE SCHEMA reports;
SET search_path = reports;
CREATE TABLE words (id int PRIMARY KEY, word text NOT NULL, hits int CHECK (hits >= 0));
SELECT portage.create_pipeline('report_words', 'words', '{"format": "ndjson", "legacy_id": "id",
  "columns": {"id": "id", "word": "word", "hits": "hits"}, "rules": {"short": "length(word) < 20"}}') > 0 AS created;
SELECT string_agg(format('{"id": %s, "word": %s, "hits": %s}', i, CASE WHEN i % 50 = 0 THEN 'null' ELSE '"w"' END,
         CASE WHEN i % 40 = 0 THEN -1 ELSE i END), E'\n') AS hundred FROM generate_series(1, 100) i \gset
\pset tuples_only on
\pset format unaligned

-- 1. A run that has ended: its report.
CALL portage.import('report_words', payload => :'hundred', options => '{"batch_size": 30}');
SELECT run_id AS run FROM portage.last_run('report_words') \gset
SELECT string_agg(key, ' ' ORDER BY key) FROM jsonb_object_keys(portage.report(:run)) AS key;
SELECT j -> 'result' -> 'counts', j -> 'result' ->> 'status', j -> 'result' -> 'open' FROM portage.report(:run) j;
SELECT jsonb_array_elements(j -> 'rejects') FROM portage.report(:run) j;
SELECT s ->> 'step_number', s ->> 'description', s ->> 'status', s ->> 'items' FROM portage.report(:run) j, jsonb_array_elements(j -> 'steps') s;
SELECT (j -> 'resources' ->> 'batches')::int AS batches, (j -> 'resources' ->> 'wal_bytes')::bigint > 0 AS wal,
       (j -> 'resources' ->> 'peak_memory_bytes')::bigint > 0 AS memory, (SELECT string_agg(k, ' ' ORDER BY k) FROM jsonb_object_keys(j -> 'resources' -> 'milliseconds') k) AS phases
  FROM portage.report(:run) j;
SELECT * FROM portage.recommendations(:run);
-- The report of the caller's latest run; of a run that there is not, nothing.
SELECT portage.report() ->> 'run' = :'run' AS latest;
SELECT portage.report(1) IS NULL AS none, portage.report_markdown(1) IS NULL AS no_text, portage.progress_data(1) IS NULL AS no_data;
SELECT regexp_replace(regexp_replace(replace(portage.report_markdown(:run), session_user, 'me'), '(?n)^\d+ batches.*$', '# batches, ...'), 'completed \| [0-9.]+ \|', 'completed | # |', 'g');
SELECT d ->> 'status', d ->> 'read', (d ->> 'seq')::int > 0 AS seq, d -> 'steps' FROM portage.progress_data(:run) d;

-- 2. Steps: validated first, failed, tried again, taken back.
CALL portage.import('report_words', payload => :'hundred', scope => 'b', options => '{"validate_first": true, "batch_size": 30}');
SELECT run_id AS b FROM portage.last_run('report_words', 'b') \gset
SELECT step_number, description, status, items FROM portage.migration_steps WHERE run_id = :b ORDER BY 1;
TRUNCATE words;
CALL portage.import('report_words', payload => :'hundred', scope => 'c', options => '{"max_rejects": 0, "batch_size": 45}');
SELECT run_id AS c FROM portage.last_run('report_words', 'c') \gset
SELECT step_number, description, status, items, error FROM portage.migration_steps WHERE run_id = :c ORDER BY 1;
SELECT code, sql FROM portage.recommendations(:c);
CALL portage.run(:c);
CALL portage.rollback(:c);
SELECT step_number, description, status, items FROM portage.migration_steps WHERE run_id = :c ORDER BY 1;
SELECT code, sql FROM portage.recommendations(:c);
-- One that migrate() did, and a dry run.
SELECT run_id AS d FROM portage.migrate('report_words', :'hundred', 'd', '{"dry_run": true}') \gset
SELECT step_number, description, status FROM portage.migration_steps WHERE run_id = :d;
SELECT code, sql FROM portage.recommendations(:d);

-- 3. History and statistics.
SELECT run_id, scope, status, dry_run, read, inserted, unchanged, rejected, duration >= interval '0' AS took, error FROM portage.history WHERE pipeline = 'report_words' ORDER BY 1;
SELECT version, runs, items, success_rate, error_rate, items_per_second > 0 AS speed, p50_batch_ms <= p95_batch_ms AS percentiles,
       mapped, open_conflicts, open_rejects, last_run, ledger_bytes > 0 AS bytes FROM portage.statistics WHERE pipeline = 'report_words';

-- 4. Others see nothing of it; who was granted "read" sees it.
CREATE ROLE regress_reader;
SET ROLE regress_reader;
SELECT count(*) FROM portage.history;
SELECT count(*) FROM portage.statistics;
SELECT count(*) FROM portage.migration_steps;
SELECT portage.report(:run) IS NULL, (SELECT count(*) FROM portage.recommendations(:run));
RESET ROLE;
SELECT portage.grant_pipeline('report_words', 'regress_reader', 'read') > 0 AS granted;
SET ROLE regress_reader;
SELECT count(*) FROM portage.history;
SELECT count(*) FROM portage.statistics;
SELECT portage.report(:run) -> 'result' ->> 'status';
RESET ROLE;
SET client_min_messages = warning;
SELECT portage.drop_pipeline('report_words', true) > 0 AS dropped;
DROP ROLE regress_reader;
DROP SCHEMA reports CASCADE;
