-- Items of one input with the same legacy id, or the same match key: reject, first or last. Which of them lands must not
-- hang on where batches end.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 19000
\set ECHO none
\i :prelude
\set ECHO all
CREATE SCHEMA dup;
SET search_path = dup;
\set SHOW_CONTEXT never
CREATE TABLE t (name text PRIMARY KEY, v int CHECK (v < 100));
CREATE FUNCTION def(duplicates text, on_conflict text DEFAULT 'skip') RETURNS json LANGUAGE sql AS $$
  SELECT json_build_object('format', 'json', 'legacy_id', 'id', 'match', 'name', 'duplicates', duplicates, 'on_conflict', on_conflict,
    'columns', '{"name": "name", "v": "v"}'::json) $$;
SELECT portage.create_pipeline('dup_reject', 't', def('reject')) > 0 AS created, portage.create_pipeline('dup_first', 't', def('first')) > 0 AS created,
       portage.create_pipeline('dup_last', 't', def('last')) > 0 AS created, portage.create_pipeline('dup_merge', 't', def('last', 'merge')) > 0 AS created;
-- a: the same id three times, the second one not valid; b: two ids with one name; c: an item repeated to the byte.
\set items '[{"id": 1, "name": "a", "v": 1}, {"id": 2, "name": "b", "v": 2}, {"id": 1, "name": "a", "v": 999}, {"id": 3, "name": "b", "v": 3}, {"id": 4, "name": "c", "v": 4}, {"id": 4, "name": "c", "v": 4}, {"id": 1, "name": "a", "v": 11}, {"id": 5, "name": "d", "v": 5}]'
CREATE FUNCTION run(pipeline text, items jsonb, size int) RETURNS TABLE (books text, rows text, outcomes text) LANGUAGE plpgsql AS $$
DECLARE
  run bigint;
BEGIN
  TRUNCATE dup.t;
  SELECT m.run_id INTO run FROM portage.migrate(pipeline, items, 'of ' || size, jsonb_build_object('batch_size', size)) m;
  RETURN QUERY SELECT pg_temp.books(run), (SELECT string_agg(name || '=' || v, ' ' ORDER BY name) FROM dup.t),
    (SELECT string_agg(concat_ws(':', status, rule), ' ' ORDER BY ordinal) FROM portage.migration_items WHERE run_id = run);
END $$;
SELECT p.name, r.* FROM unnest(ARRAY['dup_reject', 'dup_first', 'dup_last', 'dup_merge']) WITH ORDINALITY AS p (name, n), LATERAL run(p.name, :'items', 100) r ORDER BY n;
-- The same by batches of any size.
SELECT p.name, count(DISTINCT r.*) AS results FROM unnest(ARRAY['dup_reject', 'dup_first', 'dup_last', 'dup_merge']) AS p (name), generate_series(1, 8) AS size, LATERAL run(p.name, :'items', size) r GROUP BY 1 ORDER BY 1;
SELECT ordinal, status, rule, message FROM portage.rejects WHERE run_id = (portage.last_run('dup_first', 'of 8')).run_id ORDER BY 1;

-- With "last", every write can be taken back, and is verified.
TRUNCATE t;
INSERT INTO t VALUES ('a', 50), ('b', 60);
CALL portage.import('dup_last', payload => :'items', scope => 'undo', options => '{"on_conflict": "overwrite"}');
SELECT run_id AS run FROM portage.last_run('dup_last', 'undo') \gset
SELECT pg_temp.books(:run);
SELECT verified FROM portage.migration_runs WHERE id = :run;
SELECT name, expected, actual, passed FROM portage.verify(:run) ORDER BY name;
SELECT * FROM t ORDER BY name;
SELECT possible, rows, drifted FROM portage.can_rollback(:run);
CALL portage.rollback(:run);
SELECT * FROM t ORDER BY name;
SELECT count(*) FROM portage.legacy_mappings WHERE run_id = :run;
SELECT status, rolled_back FROM portage.migration_runs r, LATERAL (SELECT sum(rolled_back) AS rolled_back FROM portage.migration_batches WHERE run_id = r.id) b WHERE id = :run;

-- Between runs there are no duplicates: the next input updates. A replayed item that came before stays behind.
TRUNCATE t;
SELECT run_id AS run FROM portage.migrate('dup_last', '[{"id": 1, "name": "a", "v": "x"}, {"id": 1, "name": "a", "v": 2}]', 'replay') \gset
SELECT pg_temp.books(:run);
SELECT * FROM portage.replay(:run, 1, '{"id": 1, "name": "a", "v": 1}');
SELECT * FROM t;
SELECT ordinal, revision, status, rule, message FROM portage.migration_items WHERE run_id = :run ORDER BY 1, 2;
SELECT run_id AS run FROM portage.migrate('dup_last', '[{"id": 1, "name": "a", "v": 3}]', 'replay') \gset
SELECT pg_temp.books(:run);

-- An unchanged item whose row is gone, or has another match key by now, has no row that another could meet: whatever the
-- batch, the other one is inserted.
TRUNCATE t;
SELECT run_id AS run FROM portage.migrate('dup_reject', '[{"id": 1, "name": "gone", "v": 1}, {"id": 2, "name": "renamed", "v": 2}]', 'row gone') \gset
DELETE FROM t WHERE name = 'gone';
UPDATE t SET name = 'another' WHERE name = 'renamed';
SELECT run_id AS run FROM portage.migrate('dup_reject', '[{"id": 1, "name": "gone", "v": 1}, {"id": 2, "name": "renamed", "v": 2}, {"id": 8, "name": "gone", "v": 8}, {"id": 9, "name": "renamed", "v": 9}]', 'row gone') \gset
SELECT pg_temp.books(:run);
SELECT * FROM t ORDER BY name;

-- A run that begins without mappings does not look for those that it cannot have made; the ones of its batches before it finds.
TRUNCATE t;
CREATE FUNCTION many(repeated int[]) RETURNS text LANGUAGE sql AS $$
  SELECT string_agg(json_build_object('id', n, 'name', 'name ' || k, 'v', k % 100, 'ballast', repeat('x', 100))::text, E'\n' ORDER BY k)
    FROM (SELECT n, n AS k FROM generate_series(1, 10000) AS n UNION ALL SELECT n, 10000 + row_number() OVER () FROM unnest($1) AS n) AS items $$;
SELECT portage.create_pipeline('many', 't', jsonb_set(def('reject')::jsonb, '{format}', '"ndjson"')::json) > 0 AS created;
CALL portage.import('many', payload => many('{1, 5000, 9999}'), scope => 'own', options => '{"batch_size": 1000}');
SELECT pg_temp.books(run_id) FROM portage.last_run('many', 'own');
SELECT ordinal, status, rule, message FROM portage.rejects WHERE run_id = (portage.last_run('many', 'own')).run_id ORDER BY 1;

-- A dry run tells the same.
TRUNCATE t;
CALL portage.import('dup_last', payload => :'items', scope => 'dry', options => '{"dry_run": true}');
SELECT pg_temp.books(run_id) FROM portage.last_run('dup_last', 'dry');
CALL portage.import('dup_first', payload => :'items', scope => 'dry', options => '{"dry_run": true, "batch_size": 2}');
SELECT pg_temp.books(run_id) FROM portage.last_run('dup_first', 'dry');
SELECT count(*) FROM t;
SELECT count(portage.drop_pipeline(name, true)) > 0 AS dropped FROM portage.pipelines;
DROP SCHEMA dup CASCADE;
