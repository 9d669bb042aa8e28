-- A second run of the same data changes nothing; of changed data only what changed. Legacy ids decide what is the same.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 6000
\set ECHO none
\i :prelude
\set ECHO all
CREATE SCHEMA incremental;
SET search_path = incremental;
CREATE TABLE t (id int PRIMARY KEY, v text, n numeric, at timestamptz, doc jsonb, seen int DEFAULT 0);
CREATE FUNCTION touched() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.seen := old.seen + 1; RETURN new; END $$;
CREATE TRIGGER touched BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touched();
SELECT portage.create_pipeline('inc', 't', '{"format": "json", "legacy_id": "id", "columns": {"id": "id", "v": "v", "n": "n", "at": "at", "doc": "doc"}}') > 0 AS created;
\set data '[{"id": 1, "v": "a", "n": 1.0, "at": "2024-01-01T00:00:00Z", "doc": {"b": 1, "a": 2}}, {"id": 2, "v": "b", "n": null}, {"id": 3, "v": "c"}]'

-- 1. The same again: unchanged, whatever the spelling and the session's settings; no row is touched.
SELECT pg_temp.books(run_id) FROM portage.migrate('inc', :'data');
SELECT run_id AS run FROM portage.migrate('inc', :'data') \gset
SELECT pg_temp.books(:run);
SELECT count(*) AS undo FROM portage.migration_undo WHERE run_id = :run;
SET timezone = 'Asia/Tokyo'; SET datestyle = 'SQL, DMY';
SELECT pg_temp.books(run_id) FROM portage.migrate('inc', '[{"v": "\u0063", "id": 3}, {"id": "1", "doc": {"a": 2, "b": 1}, "at": "2024-01-01 01:00:00+01", "n": "1.0", "v": "a"}, {"id": 2, "v": "b"}]');
RESET timezone; RESET datestyle;
SELECT pg_temp.books(run_id) FROM portage.migrate('inc', :'data', '', '{"batch_size": 1}');
SELECT id, seen FROM t ORDER BY id;
-- 2. One changed, one new, one left out: the one that is left out stays.
SELECT run_id AS run FROM portage.migrate('inc', '[{"id": 1, "v": "A", "n": 1.0, "at": "2024-01-01T00:00:00Z", "doc": {"b": 1, "a": 2}}, {"id": 2, "v": "b"}, {"id": 4, "v": "d"}]') \gset
SELECT pg_temp.books(:run);
SELECT ordinal, status, legacy_id, target_key FROM portage.migration_items WHERE run_id = :run ORDER BY ordinal;
SELECT id, v, seen FROM t ORDER BY id;
-- 1.0 and 1.00 are not the same bytes, so they are a change.
SELECT pg_temp.books(run_id) FROM portage.migrate('inc', '[{"id": 1, "v": "A", "n": 1.00, "at": "2024-01-01T00:00:00Z", "doc": {"b": 1, "a": 2}}]');
SELECT id, n, seen FROM t WHERE id = 1;
-- 3. Not incremental: every row is looked at, but one that is as it should be is still not written.
UPDATE t SET v = 'drifted' WHERE id = 2;
SELECT pg_temp.books(run_id) FROM portage.migrate('inc', '[{"id": 2, "v": "b"}, {"id": 3, "v": "c"}]');
SELECT run_id AS run FROM portage.migrate('inc', '[{"id": 2, "v": "b"}, {"id": 3, "v": "c"}]', '', '{"incremental": false}') \gset
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
SELECT pg_temp.books(run_id) FROM portage.migrate('inc', '[{"id": 2, "v": "b"}, {"id": 3, "v": "c"}]', '', '{"incremental": false, "on_conflict": "overwrite"}');
SELECT id, v, seen FROM t ORDER BY id;
-- Twice in one input is a duplicate also where the first is unchanged, in one batch and over several.
SELECT run_id AS run FROM portage.migrate('inc', '[{"id": 2, "v": "b"}, {"id": 3, "v": "c"}, {"id": 2, "v": "b"}]') \gset
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
SELECT run_id AS run FROM portage.migrate('inc', '[{"id": 2, "v": "b"}, {"id": 3, "v": "c"}, {"id": 2, "v": "changed"}]', '', '{"batch_size": 1}') \gset
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
-- 4. With another definition every item is looked at anew; its row is found by its mapping, and written if it differs.
SELECT portage.replace_pipeline('inc', '{"format": "json", "legacy_id": "id", "columns": {"id": "id", "v": "v"}}') > 0 AS replaced;
SELECT pg_temp.books(run_id) FROM portage.migrate('inc', '[{"id": 2, "v": "b"}, {"id": 3, "v": "c!"}]');
-- A rule that is new keeps an item out, and the row as it is.
SELECT portage.replace_pipeline('inc', '{"format": "json", "legacy_id": "id", "columns": {"id": "id", "v": "v"}, "rules": {"short": "length(v) < 5"}}') > 0 AS replaced;
SELECT run_id AS run FROM portage.migrate('inc', '[{"id": 2, "v": "too long"}, {"id": 3, "v": "c!"}]') \gset
SELECT pg_temp.books(:run);
SELECT id, v FROM t ORDER BY id;

-- 5. Legacy ids: of several parts, of any scalar, very long, from an expression, from a variable.
CREATE TABLE k (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text);
SELECT portage.create_pipeline('inc_parts', 'k', '{"format": "json", "legacy_id": ["a", "b.c", "$scope"], "columns": {"v": "v"}}') > 0 AS created;
\set parts '[{"a": "x", "b": {"c": 1}, "v": 1}, {"a": "x", "b": {"c": 1.0}, "v": 2}, {"a": "x", "b": {"c": "1"}, "v": 3}, {"a": "x\\"]", "b": {"c": true}, "v": 4}, {"a": "x", "b": {}, "v": 5}, {"a": "x", "b": {"c": null}, "v": 6}, {"a": [1], "b": {"c": 2}, "v": 7}, {"a": "", "b": {"c": ""}, "v": 8}]'
SELECT run_id AS run FROM portage.migrate('inc_parts', :'parts', 'anna') \gset
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
SELECT legacy_id, v FROM portage.legacy_mappings m JOIN k ON k.id::text = target_key WHERE run_id = :run ORDER BY ordinal;
SELECT pg_temp.books(run_id) FROM portage.migrate('inc_parts', :'parts', 'anna');
SELECT portage.create_pipeline('inc_long', 'k', '{"format": "json", "legacy_id": "id", "columns": {"v": "v"}}') > 0 AS created;
SELECT format('[{"id": "%s", "v": 1024}, {"id": "%s", "v": 1025}, {"id": "%s", "v": "1025 again"}, {"id": "%s", "v": "other end"}]', repeat('x', 1024), repeat('x', 1025), repeat('x', 1025), repeat('x', 1024) || 'y') AS long \gset
SELECT run_id AS run FROM portage.migrate('inc_long', :'long') \gset
SELECT pg_temp.books(:run);
SELECT ordinal, left(legacy_id, 20) AS legacy_id, length(legacy_id) FROM portage.migration_items WHERE run_id = :run ORDER BY ordinal;
SELECT legacy_id = 'sha256:' || encode(sha256(repeat('x', 1025)::bytea), 'hex') AS is_digest FROM portage.migration_items WHERE run_id = :run AND ordinal = 2;
SELECT pg_temp.books(run_id) FROM portage.migrate('inc_long', :'long');
SELECT portage.create_pipeline('inc_sql', 'k', '{"format": "json", "legacy_id": {"sql": "lower(item ->> ''id'')"}, "columns": {"v": "v"}}') > 0 AS created;
SELECT run_id AS run FROM portage.migrate('inc_sql', '[{"id": "A", "v": 1}, {"id": "a", "v": 2}, {"v": 3}]') \gset
SELECT * FROM pg_temp.rejected(:run);

-- 6. Scopes keep ids apart; with "scoped": false they share them.
SELECT portage.create_pipeline('inc_shared', 'k', '{"format": "json", "legacy_id": "id", "scoped": false, "columns": {"v": "v"}}') > 0 AS created;
SELECT pg_temp.books(run_id) FROM portage.migrate('inc_long', '[{"id": "one", "v": 1}]', 'anna');
SELECT pg_temp.books(run_id) FROM portage.migrate('inc_long', '[{"id": "one", "v": 1}]', 'otto');
SELECT pg_temp.books(run_id) FROM portage.migrate('inc_shared', '[{"id": "one", "v": 1}]', 'anna');
SELECT pg_temp.books(run_id) FROM portage.migrate('inc_shared', '[{"id": "one", "v": 1}]', 'otto');
SELECT p.name, m.scope, m.legacy_id FROM portage.legacy_mappings m JOIN portage.pipelines p ON p.id = m.pipeline_id WHERE p.name IN ('inc_long', 'inc_shared') AND legacy_id = 'one' ORDER BY 1, 2;
SELECT portage.lookup('inc_long', 'one', 'anna') IS NOT NULL AS of_anna, portage.lookup('inc_long', 'one') IS NULL AS of_nobody, portage.lookup('inc_shared', 'one', 'anna') = portage.lookup('inc_shared', 'one', 'otto') AS shared;

-- 7. The mappings of an input that comes again stand one behind the other; in another order, with gaps, with new items and
-- with repeated ones the answers are the same, whatever the size of batches.
CREATE TABLE again (id int PRIMARY KEY, v text);
SELECT portage.create_pipeline('inc_again', 'again', '{"format": "json", "legacy_id": "id", "columns": {"id": "id", "v": "v"}}') > 0 AS created;
CREATE FUNCTION again(numbers int[], size int) RETURNS text LANGUAGE sql AS $$
  SELECT pg_temp.books(m.run_id) FROM portage.migrate('inc_again', (SELECT json_agg(json_build_object('id', n, 'v', 'v ' || n) ORDER BY o)::text
    FROM unnest(numbers) WITH ORDINALITY AS u (n, o)), '', jsonb_build_object('batch_size', size)) m $$;
SELECT again(ARRAY(SELECT generate_series(1, 200)), 1000);
SELECT input, again(numbers, size) FROM unnest(ARRAY[3, 64, 1000]) AS size, (VALUES
  (1, 'the same', ARRAY(SELECT generate_series(1, 200))),
  (2, 'backward', ARRAY(SELECT generate_series(200, 1, -1))),
  (3, 'shuffled', ARRAY(SELECT n FROM generate_series(1, 200) AS n ORDER BY md5(n::text))),
  (4, 'with gaps', ARRAY(SELECT n FROM generate_series(1, 200) AS n WHERE n % 3 > 0 AND n NOT BETWEEN 50 AND 150)),
  (5, 'repeated at once', ARRAY(SELECT n / 2 FROM generate_series(2, 401) AS n)),
  (6, 'repeated as a whole', ARRAY(SELECT 1 + n % 200 FROM generate_series(0, 399) AS n)),
  (7, 'repeated at the end', ARRAY(SELECT generate_series(1, 200)) || 7 || 8 || 199)) AS i (i, input, numbers) ORDER BY i, size;
-- New ones stand behind all others.
SELECT again(ARRAY(SELECT CASE WHEN n % 10 = 5 THEN 1000 + n ELSE n END FROM generate_series(1, 200) AS n), 30);
SELECT again(ARRAY(SELECT CASE WHEN n % 10 = 5 THEN 1000 + n ELSE n END FROM generate_series(1, 200) AS n), 30);
-- Packed items are found by their ordinals, alone and in order.
SELECT count(*), count(DISTINCT legacy_id), min(status), max(status) FROM portage.migration_items WHERE run_id = (portage.last_run('inc_again')).run_id;
SELECT ordinal, status, legacy_id FROM portage.migration_items WHERE run_id = (portage.last_run('inc_again')).run_id AND ordinal IN (1, 5, 200) ORDER BY 1;
SELECT ordinal FROM portage.migration_items WHERE run_id = (portage.last_run('inc_again')).run_id AND ordinal > 28 ORDER BY ordinal DESC, revision LIMIT 3;
SELECT count(*) FROM portage.migration_items WHERE run_id = (portage.last_run('inc_again')).run_id AND ordinal BETWEEN 29 AND 31;

-- 8. Numbers take a short way, to the same value.
CREATE TABLE number (id int PRIMARY KEY, given text, n numeric);
SELECT portage.create_pipeline('inc_number', 'number', '{"format": "json", "legacy_id": "id", "columns": {"id": "id", "given": "n", "n": "n"}}') > 0 AS created;
SELECT pg_temp.books(run_id) FROM portage.migrate('inc_number', (SELECT json_agg(json_build_object('id', i, 'n', n)) FROM unnest(ARRAY['0', '-0', '0.0', '-0.00',
  '1.50', '000.10', '-7', '10000', '12345.6789', '0.0001', '100000000000000', '123456789012345', '1234567890123456', '99999999.9999999', '-1.23456789012345',
  '.5', '5.', '1e5', ' 1', '1 ', '+1', '--1', '1.2.3', '-', '', 'NaN', 'Infinity', '١', '0.000000000000001', '0.0000000000000001']) WITH ORDINALITY AS u (n, i))::text);
SELECT count(*) AS differ FROM number WHERE n::text <> given::numeric::text OR numeric_send(n) <> numeric_send(given::numeric);

-- Nothing is left for the next test.
SELECT count(portage.drop_pipeline(name, true)) > 0 AS dropped FROM portage.pipelines;
DROP SCHEMA incremental CASCADE;
