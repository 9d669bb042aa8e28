-- The options of a run: what each does, and how each is refused when it is wrong.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 7000
\set ECHO none
\i :prelude
\set ECHO all
CREATE SCHEMA options;
SET search_path = options;
CREATE TABLE t (id int PRIMARY KEY, v text);
SELECT portage.create_pipeline('opt', 't', '{"format": "json", "legacy_id": "id", "columns": {"id": "id", "v": "v"}}') > 0 AS created;
SELECT json_agg(json_build_object('id', i, 'v', CASE WHEN i % 5 = 0 THEN repeat('long', 50) ELSE 'x' END)) AS hundred FROM generate_series(1, 100) i \gset
SELECT json_agg(json_build_object('id', CASE WHEN i % 10 = 0 THEN 'x' ELSE i::text END)) AS tenth FROM generate_series(1, 100) i \gset
CREATE FUNCTION refused_option(options jsonb) RETURNS SETOF text LANGUAGE sql AS $$
  SELECT pg_temp.refused(format('SELECT portage.open_run(''opt'', '''', %L)', options))
$$;
\pset tuples_only on
\pset format unaligned

-- 1. Faults: unknown names with the nearest known ones, wrong types, values out of range, what is not supported yet.
SELECT refused_option('{"batchsize": 10}');
SELECT refused_option('{"dryrun": true}');
SELECT refused_option('{"Limit": 10}');
SELECT refused_option('{"colour": "blue"}');
SELECT refused_option('{"": 1}');
SELECT refused_option('[]');
SELECT refused_option('"batch_size"');
SELECT refused_option('{"batch_size": 0}');
SELECT refused_option('{"batch_size": -1}');
SELECT refused_option('{"batch_size": 1.5}');
SELECT refused_option('{"batch_size": "10"}');
SELECT refused_option('{"batch_size": 1000001}');
SELECT refused_option('{"batch_size": 99999999999999999999}');
SELECT refused_option('{"batch_size": null}');
SELECT refused_option('{"incremental": "yes"}');
SELECT refused_option('{"incremental": null}');
SELECT refused_option('{"on_conflict": "replace"}');
SELECT refused_option('{"on_conflict": "newest"}');
SELECT refused_option('{"on_conflict": true}');
SELECT refused_option('{"max_rejects": -1}');
SELECT refused_option('{"max_rejects": "5"}');
SELECT refused_option('{"max_rejects": "101%"}');
SELECT refused_option('{"max_rejects": "x%"}');
SELECT refused_option('{"max_rejects": "%"}');
SELECT refused_option('{"max_rejects": ""}');
SELECT refused_option('{"max_rejects": "nan%"}');
SELECT refused_option('{"keep_payload": 0}');
SELECT refused_option('{"max_item_bytes": 0}');
SELECT refused_option('{"max_item_bytes": 536870913}');
SELECT refused_option('{"max_item_bytes": "64 MB"}');
SELECT refused_option('{"max_part_bytes": 0}');
SELECT refused_option('{"skip_large_parts": "true"}');
SELECT refused_option('{"limit": -1}');
SELECT refused_option('{"limit": "10"}');
SELECT refused_option('{"limit": 9223372036854775808}');
SELECT refused_option('{"sample": 1}');
SELECT refused_option('{"sample": "1"}');
SELECT refused_option('{"sample": "-1%"}');
SELECT refused_option('{"raise": 1}');
SELECT refused_option('{"workers": 65}');
SELECT refused_option('{"dry_run": "yes"}');
SELECT refused_option('{"on_failure": "stop"}');
SELECT refused_option('{"on_failure": true}');
SELECT refused_option('{"validate_first": 1}');
SELECT refused_option('{"verify": "hashes"}');
SELECT refused_option('{"backup": true}');
SELECT refused_option('{"initial_load": 1}');
SELECT refused_option('{"notify": true}');
SELECT refused_option('{"retry_attempts": 101}');
-- migrate() and import() refuse the same, and leave no run behind.
SELECT pg_temp.refused($$SELECT portage.migrate('opt', '[]', '', '{"batch": 1}')$$);
CALL portage.import('opt', payload => '[]', options => '{"batch": 1}');
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) FROM portage.migration_runs WHERE pipeline = 'opt';
-- Options that say what happens anyway are welcome.
SELECT pg_temp.books(run_id) FROM portage.migrate('opt', '[]', '', '{"batch_size": "auto", "workers": 1, "dry_run": false, "on_failure": "keep", "verify": false, "notify": false}');

-- 2. batch_size: items per batch; the last one is smaller.
SELECT run_id AS run FROM portage.migrate('opt', :'hundred', 'batch_size', '{"batch_size": 40}') \gset
SELECT pg_temp.books(:run);
SELECT first_ordinal, last_ordinal, read FROM portage.migration_batches WHERE run_id = :run ORDER BY first_ordinal;

-- 3. max_rejects: as a number or a share. What is beyond fails the run; what was committed stays.
TRUNCATE t;
CALL portage.import('opt', payload => :'tenth', scope => 'number', options => '{"batch_size": 20, "max_rejects": 4}');
\echo :LAST_ERROR_SQLSTATE
SELECT run_id AS run FROM portage.last_run('opt', 'number') \gset
SELECT pg_temp.books(:run);
SELECT error_class, error_code, error FROM portage.migration_runs WHERE id = :run;
SELECT s.status, s.errors -> 0 ->> 'code', s.errors -> 0 ->> 'class', s.errors -> 0 ->> 'message' FROM portage.status(:run) s;
SELECT count(*) FROM t;
-- As many as allowed is not beyond.
CALL portage.import('opt', payload => :'tenth', scope => 'enough', options => '{"batch_size": 20, "max_rejects": 10}');
SELECT pg_temp.books(run_id) FROM portage.last_run('opt', 'enough');
-- A failed run can be taken up again: it goes on where it stopped, and is judged as before.
CALL portage.run(:run);
SELECT pg_temp.books(:run);
TRUNCATE t;
SELECT run_id AS run FROM portage.migrate('opt', :'tenth', 'share', '{"max_rejects": "9.9%"}') \gset
SELECT pg_temp.books(:run);
SELECT errors -> 0 ->> 'message' FROM portage.status(:run);
SELECT pg_temp.books(run_id) FROM portage.migrate('opt', :'tenth', 'share enough', '{"max_rejects": "10%"}');
SELECT pg_temp.books(run_id) FROM portage.migrate('opt', '[{"id": "x"}]', 'none allowed', '{"max_rejects": 0}');
SELECT pg_temp.refused($$SELECT portage.migrate('opt', '[{"id": "x"}]', 'raise', '{"max_rejects": "0%", "raise": true}')$$);
-- migrate() is one transaction: of a run that failed nothing landed.
SELECT count(*) FROM t WHERE id <= 9;
SELECT count(*) FROM portage.legacy_mappings m WHERE m.run_id = :run;

-- 4. limit: so many items, in the order of the input; the next run does the rest.
TRUNCATE t;
SELECT pg_temp.books(run_id) FROM portage.migrate('opt', :'hundred', 'limit', '{"limit": 7}');
SELECT pg_temp.books(run_id) FROM portage.migrate('opt', :'hundred', 'limit', '{"limit": 25, "batch_size": 10}');
SELECT max(id), count(*) FROM t;
SELECT pg_temp.books(run_id) FROM portage.migrate('opt', :'hundred', 'limit', '{"limit": 0}');
SELECT pg_temp.books(run_id) FROM portage.migrate('opt', :'hundred', 'limit');

-- 5. sample: by the legacy id, so that the same items are in it each time, and more percent is a superset.
TRUNCATE t;
SELECT run_id AS run FROM portage.migrate('opt', :'hundred', 'sample', '{"sample": "20%"}') \gset
SELECT inserted BETWEEN 5 AND 40 AS about_a_fifth, inserted + skipped = 100 AS rest_is_skipped, open_rejects FROM portage.status(:run);
SELECT count(*) AS no_rejects FROM pg_temp.rejected(:run);
SELECT array_agg(id ORDER BY id) AS first FROM t \gset
SELECT unchanged = cardinality(:'first'::int[]) AS same_again FROM portage.migrate('opt', :'hundred', 'sample', '{"sample": "20%", "batch_size": 7}');
SELECT s.unchanged = cardinality(:'first'::int[]) AND s.inserted > 0 AS superset FROM portage.migrate('opt', :'hundred', 'sample', '{"sample": "50%"}') s;
SELECT s.unchanged + s.inserted AS all FROM portage.migrate('opt', :'hundred', 'sample', '{"sample": "100%"}') s;
SELECT pg_temp.books(run_id) FROM portage.migrate('opt', :'hundred', 'no sample', '{"sample": "0%"}');

-- 6. max_item_bytes: larger items are rejects, with their place, and the rest of the input is read on.
TRUNCATE t;
SELECT run_id AS run FROM portage.migrate('opt', :'hundred', 'item bytes', '{"max_item_bytes": 100}') \gset
SELECT pg_temp.books(:run);
SELECT DISTINCT rule, sqlstate, message, issues -> 0 ->> 'detail' AS detail, legacy_id FROM portage.rejects WHERE run_id = :run;
SELECT ordinal, byte_length, length(raw) FROM portage.rejects WHERE run_id = :run ORDER BY ordinal LIMIT 2;

-- 7. max_part_bytes: larger parts are passed over, or refuse the run.
TRUNCATE t;
SELECT portage.open_run('opt', 'part bytes', '{"max_part_bytes": 100}') AS run \gset
SELECT portage.submit(:run, '[{"id": 1}]', 'small'), portage.submit(:run, :'hundred', 'large'), portage.submit(:run, '[{"id": 2}]', 'small too');
CALL portage.run(:run);
SELECT pg_temp.books(:run);
SELECT part, name, byte_length, skipped FROM portage.migration_parts WHERE run_id = :run ORDER BY part;
SELECT processed_parts, total_parts, percentage FROM portage.status(:run);
SELECT string_agg(i.ordinal || ' of part ' || i.part, ', ' ORDER BY ordinal) FROM portage.migration_items i WHERE run_id = :run;
SELECT run_id AS run FROM portage.migrate('opt', :'hundred', 'part refused', '{"max_part_bytes": 100, "skip_large_parts": false}') \gset
SELECT pg_temp.books(:run);
SELECT errors -> 0 ->> 'code', errors -> 0 ->> 'message' FROM portage.status(:run);
SELECT regexp_replace(pg_temp.refused(format($$SELECT portage.migrate('opt', %L, 'part raised', '{"max_part_bytes": 100, "skip_large_parts": false, "raise": true}')$$, :'hundred')), '[0-9]+ bytes', 'N bytes');

-- 8. keep_payload: without it the bytes go when the run is complete; rejects keep theirs.
SELECT run_id AS run FROM portage.migrate('opt', '[{"id": 1}, {"id": "x"}]', 'payload') \gset
SELECT count(*) FROM portage.migration_payloads WHERE run_id = :run;
SELECT run_id AS run FROM portage.migrate('opt', '[{"id": 1}, {"id": "x"}]', 'payload', '{"keep_payload": false}') \gset
SELECT count(*) FROM portage.migration_payloads WHERE run_id = :run;
SELECT raw FROM portage.rejects WHERE run_id = :run;
SELECT convert_from(portage.reject_raw(:run, 2), 'UTF8');

-- 9. portage.migrate_limit: what is too large for one transaction is refused with the way to do it.
SET portage.migrate_limit = '1MB';
SELECT pg_temp.refused($$SELECT portage.migrate('opt', '[' || repeat(' ', 1048576) || ']')$$);
RESET portage.migrate_limit;

-- Nothing is left for the next test.
SELECT count(portage.drop_pipeline(name, true)) > 0 AS dropped FROM portage.pipelines;
DROP SCHEMA options CASCADE;
