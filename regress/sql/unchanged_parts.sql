-- A part that brings the same bytes again is passed over whole, as long as its items are known to be as the run left them
-- that read it; else it is read, and its unchanged items are found one by one.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 47000
\set ECHO none
\i :prelude
\set ECHO all
CREATE SCHEMA unchanged;
SET search_path = unchanged;
CREATE TABLE t (id int PRIMARY KEY, v text, part text, parent int);
CREATE FUNCTION items(low int, high int, v text DEFAULT 'value') RETURNS text LANGUAGE sql AS
  $$ SELECT string_agg(format('{"id": %s, "v": "%s %s"}', i, rpad(v, 60, '.'), i), E'\n' ORDER BY i) FROM generate_series(low, high) AS i $$;
-- What a run read, and what it passed over.
CREATE FUNCTION again(pipeline text, payload text, scope text DEFAULT '', options jsonb DEFAULT '{}') RETURNS TABLE (books text, part text)
  LANGUAGE plpgsql AS $$
DECLARE
  run bigint := (portage.migrate(pipeline, payload, scope, options)).run_id;
BEGIN
  RETURN QUERY SELECT pg_temp.books(run), coalesce(p.skipped, 'read')
    FROM portage.migration_parts p WHERE p.run_id = run;
END $$;
\set columns '"format": "ndjson", "legacy_id": "id", "columns": {"id": "id", "v": "v"'
SELECT portage.create_pipeline('same', 't', ('{' || :'columns' || '}}')::json) > 0 AS created;

-- The same bytes again.
SELECT * FROM again('same', items(1, 1000));
SET client_min_messages = notice;
SELECT run_id AS run FROM portage.migrate('same', items(1, 1000)) \gset
SET client_min_messages = warning;
SELECT pg_temp.books(:run);
SELECT part, skipped, sha256 IS NOT NULL AS digest FROM portage.migration_parts WHERE run_id = :run;
SELECT details FROM portage.migration_events WHERE run_id = :run AND event_type = 'parts_passed_over';
SELECT line FROM portage.summary(:run) AS line;
SELECT portage.report(:run) -> 'parts' -> 0 ->> 'skipped' AS reported;
SELECT name, details FROM portage.verify(:run, 'source') WHERE NOT passed;
SELECT percentage, processed_parts, total_parts FROM portage.status(:run);
-- Unless everything is to be looked at; and small parts are not worth the question.
SELECT * FROM again('same', items(1, 1000), options => '{"incremental": false}');
SELECT * FROM again('same', items(1, 10));
SELECT * FROM again('same', items(1, 10));
SELECT * FROM again('same', items(1, 1000), options => '{"dry_run": true}');
SELECT * FROM again('same', items(1, 1000), options => '{"limit": 5}');
SELECT * FROM again('same', items(1, 1000), options => '{"sample": "50%"}') AS s WHERE s.part <> 'read';
-- Bytes of the same length are not the same bytes.
SELECT * FROM again('same', items(1, 999) || E'\n' || items(1000, 1000, 'Value'));
SELECT * FROM again('same', items(1, 1000));
SELECT * FROM again('same', items(1, 1000));

-- Another run that only brings new items leaves it alone; one that changes an item does not.
SELECT * FROM again('same', items(2001, 2003));
SELECT * FROM again('same', items(1, 1000));
SELECT * FROM again('same', items(7, 7, 'changed'));
SELECT * FROM again('same', items(1, 1000));
SELECT * FROM again('same', items(1, 1000));
-- Nor does a rollback, whatever was taken back; a run that was taken back has read nothing.
SELECT run_id AS run FROM portage.migrate('same', items(3001, 3002)) \gset
SELECT * FROM again('same', items(1, 1000));
CALL portage.rollback(:run);
SELECT * FROM again('same', items(1, 1000));
SELECT * FROM again('same', items(1, 1000));
SELECT run_id AS run FROM portage.migrate('same', items(4001, 5000)) \gset
CALL portage.rollback(:run);
SELECT * FROM again('same', items(4001, 5000));
SELECT * FROM again('same', items(4001, 5000));
-- A row that is inserted anew counts as changed; one that somebody else has changed or deleted is none of the run's business.
UPDATE t SET v = 'drifted' WHERE id = 4001;
DELETE FROM t WHERE id = 4002;
SELECT * FROM again('same', items(4001, 5000));
SELECT * FROM again('same', items(4002, 4002), options => '{"incremental": false}');
SELECT * FROM again('same', items(4001, 5000));

-- Another scope, another version: it was not this part that was read.
SELECT * FROM again('same', items(1, 1000), 'other');
SELECT * FROM again('same', items(1, 1000), 'other');
SELECT portage.replace_pipeline('same', ('{' || :'columns' || '}, "on_conflict": "overwrite"}')::json) > 0 AS replaced;
SELECT * FROM again('same', items(1, 1000), 'other');
SELECT * FROM again('same', items(1, 1000), 'other');

-- A part with rejects is read until they are replayed.
SELECT run_id AS run FROM portage.migrate('same', items(5001, 6000) || E'\n{"id": "five"}') \gset
SELECT * FROM again('same', items(5001, 6000) || E'\n{"id": "five"}');
SELECT max(run_id) AS run FROM portage.rejects \gset
SELECT * FROM portage.replay(:run, 1001, '{"id": 6001}') \gset replayed_
SELECT * FROM again('same', items(5001, 6000) || E'\n{"id": "five"}');

-- What hangs on more than the bytes: the name is compared, the rest is read.
SELECT portage.create_pipeline('named', 't', ('{' || :'columns' || ', "part": "$name"}}')::json) > 0 AS created;
CREATE FUNCTION submitted(pipeline text, name text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  run bigint := portage.open_run(pipeline);
BEGIN
  PERFORM portage.submit(run, unchanged.items(10001, 11000), name);
  RETURN run;
END $$;
SELECT submitted('named', 'monday') AS run \gset
CALL portage.run(:run);
SELECT submitted('named', 'tuesday') AS run \gset
CALL portage.run(:run);
SELECT pg_temp.books(:run);
SELECT submitted('named', 'tuesday') AS run \gset
CALL portage.run(:run);
SELECT pg_temp.books(:run);
SELECT portage.create_pipeline('timed', 't', ('{' || :'columns' || ', "part": {"sql": "left(now()::text, 4)"}}}')::json) > 0 AS created;
SELECT * FROM again('timed', items(20001, 21000));
SELECT * FROM again('timed', items(20001, 21000));
SELECT portage.create_pipeline('shaped', 't', ('{' || :'columns' || ', "part": {"sql": "upper(item->>''v'')"}}}')::json) > 0 AS created;
SELECT * FROM again('shaped', items(30001, 31000));
SELECT * FROM again('shaped', items(30001, 31000));
SELECT portage.create_pipeline('gone', 't', ('{' || :'columns' || '}, "missing": "mark"}')::json) > 0 AS created;
SELECT * FROM again('gone', items(40001, 41000));
SELECT * FROM again('gone', items(40001, 41000));

-- A pipeline that refers to others: their items may have become other rows.
CREATE TABLE parents (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, name text);
SELECT portage.create_pipeline('parents', 'parents', '{"format": "ndjson", "legacy_id": "name", "columns": {"name": "name"}}') > 0 AS created;
SELECT * FROM again('parents', '{"name": "value"}');
SELECT portage.create_pipeline('children', 't', '{"format": "ndjson", "legacy_id": "id",
  "columns": {"id": "id", "v": "v", "parent": {"from": "parent", "references": "parents"}}}') > 0 AS created;
CREATE FUNCTION children() RETURNS text LANGUAGE sql AS
  $$ SELECT string_agg(format('{"id": %s, "v": "%s", "parent": "value"}', i, repeat('v', 60)), E'\n') FROM generate_series(50001, 51000) AS i $$;
SELECT * FROM again('children', children());
SELECT * FROM again('children', children());
SELECT * FROM again('parents', '{"name": "another"}');
SELECT * FROM again('children', children());
SELECT (portage.last_run('parents')).run_id AS run \gset
CALL portage.rollback(:run);
SELECT * FROM again('children', children());

-- Files: written again with the same bytes, and beside one that is new; also with several workers.
SELECT current_setting('data_directory') || '/unchanged_a.ndjson' AS a, current_setting('data_directory') || '/unchanged_b.ndjson' AS b,
       current_setting('data_directory') || '/unchanged_?.ndjson' AS both \gset
CREATE PROCEDURE write(file text, low int, high int) LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('COPY (SELECT unnest(string_to_array(unchanged.items(%s, %s), E''\n''))) TO %L', low, high, file);
END $$;
CALL write(:'a', 60001, 61000);
SELECT portage.open_run('same') AS run \gset
SELECT portage.attach_file(:run, :'a');
CALL portage.run(:run);
SELECT pg_temp.books(:run);
CALL write(:'a', 60001, 61000);
CALL write(:'b', 61001, 62000);
SELECT portage.open_run('same', options => '{"workers": 2}') AS run \gset
SELECT portage.attach_file(:run, :'both');
CALL portage.run(:run);
SELECT pg_temp.books(:run);
SELECT part, name, skipped IS NOT NULL AS passed_over FROM portage.migration_parts WHERE run_id = :run ORDER BY part;
SELECT name, details FROM portage.verify(:run, 'source') WHERE NOT passed;
SELECT portage.open_run('same') AS run \gset
SELECT portage.attach_file(:run, :'both');
CALL portage.run(:run);
SELECT pg_temp.books(:run);
SELECT name, skipped IS NOT NULL AS passed_over FROM portage.migration_parts WHERE run_id = :run ORDER BY part;

\set ECHO none
SELECT format('COPY (SELECT) TO PROGRAM %L', format('rm -f %s %s', :'a', :'b')) \gexec
DROP SCHEMA unchanged CASCADE;
