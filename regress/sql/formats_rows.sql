-- Format rows: tables and queries as sources, read by pages of a key, or copied when they are attached.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 4000
\set ECHO none
\i :prelude
\set ECHO all
CREATE SCHEMA formats_rows;
SET search_path = formats_rows;
CREATE TABLE old (id int PRIMARY KEY, name text, born date, price numeric, tags text[], doc jsonb, seen timestamptz, raw bytea, span interval, x float8);
INSERT INTO old VALUES
  (1, 'Anna', '2001-02-03', 1.50, '{a,"b c",NULL}', '{"k": [1, null]}', '2024-01-01 12:00+00', '\x00ff', '1 day 02:00', 0.1),
  (2, 'Äneas', NULL, 'NaN', '{}', 'null', NULL, '', '-1 mon', 'Infinity'),
  (30, E'line\nbreak "q" \\', '0044-03-15 BC', 12345678901234567890.123, NULL, NULL, 'infinity', NULL, NULL, 1e-300);
CREATE TABLE new (LIKE old INCLUDING ALL);
SELECT portage.create_pipeline('rows_new', 'new', $$
{ "format": "rows", "legacy_id": "id",
  "columns": {"id": "id", "name": "name", "born": "born", "price": "price", "tags": "tags", "doc": "doc", "seen": "seen", "raw": "raw", "span": "span", "x": "x"} }
$$) > 0 AS created;

-- 1. A table, by its primary key: every value arrives as it was, whatever the session's settings; but a jsonb null,
-- which a row as JSON cannot tell from no value, becomes null.
SET datestyle = 'German'; SET intervalstyle = 'sql_standard'; SET extra_float_digits = 0; SET bytea_output = 'escape';
SELECT portage.open_run('rows_new') AS run \gset
SELECT portage.attach_table(:run, 'old') AS part;
SELECT kind, name, query, key_columns, byte_length FROM portage.migration_parts WHERE run_id = :run;
CALL portage.run(:run);
RESET datestyle; RESET intervalstyle; RESET extra_float_digits; RESET bytea_output;
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
SELECT id, portage.row_hash(old) = portage.row_hash(new) AS same, old.doc AS old_doc, new.doc AS new_doc FROM old JOIN new USING (id) ORDER BY id;
SELECT last_key FROM portage.migration_parts WHERE run_id = :run;

-- A run of the same table again finds all unchanged; a new and a changed row are told apart.
INSERT INTO old (id, name) VALUES (4, 'late');
UPDATE old SET name = 'Anne' WHERE id = 1;
SELECT portage.open_run('rows_new') AS run \gset
SELECT portage.attach_table(:run, 'old') AS part;
CALL portage.run(:run);
SELECT pg_temp.books(:run);
SELECT id, name FROM new ORDER BY id;

-- 2. A query with a key; a key of several columns; more rows than a page holds, in batches that end inside of pages.
CREATE TABLE measured (station text, at int, value int, PRIMARY KEY (station, at));
INSERT INTO measured SELECT 's' || i % 7, i / 7, i FROM generate_series(0, 4999) i;
CREATE TABLE measurement (LIKE measured INCLUDING ALL);
SELECT portage.create_pipeline('rows_measured', 'measurement', $$
{ "format": "rows", "legacy_id": ["station", "at"], "columns": {"station": "station", "at": "at", "value": "v"} }
$$) > 0 AS created;
SELECT portage.open_run('rows_measured', '', '{"batch_size": 999}') AS run \gset
SELECT portage.attach_query(:run, 'SELECT station, at, value AS v FROM measured WHERE value % 2 = 0', '{station,at}') AS part;
CALL portage.run(:run);
SELECT pg_temp.books(:run);
SELECT count(*), sum(value) FROM measurement;
SELECT count(*), sum(value) FROM measured WHERE value % 2 = 0;
SELECT count(*) AS batches FROM portage.migration_batches WHERE run_id = :run;
-- Ordinals follow the key.
SELECT bool_and(ordinal = expected) AS in_order
  FROM (SELECT i.ordinal, row_number() OVER (ORDER BY m.station, m.at) AS expected FROM portage.migration_items i
          JOIN measurement m ON json_build_array(m.station, m.at::text)::jsonb = i.target_key::jsonb WHERE i.run_id = :run) o;

-- What comes after the run was opened is read, what comes after it began is the next run's.
SELECT portage.open_run('rows_new', 'later') AS run \gset
SELECT portage.attach_query(:run, 'SELECT id + 1000 AS id, name FROM old WHERE id < 500', '{id}') AS part;
INSERT INTO old (id, name) VALUES (5, 'before the run');
CREATE FUNCTION add_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO old (id, name) VALUES (400, 'during the run') ON CONFLICT DO NOTHING; RETURN new; END $$;
CREATE TRIGGER add_row BEFORE INSERT ON new FOR EACH ROW EXECUTE FUNCTION add_row();
CALL portage.run(:run);
DROP TRIGGER add_row ON new;
SELECT pg_temp.books(:run);
SELECT id, name FROM new WHERE id > 1000 ORDER BY id;

-- 3. A snapshot is read when it is attached, and needs no key.
TRUNCATE measurement;
SELECT portage.open_run('rows_measured', 'snapshot') AS run \gset
SELECT portage.attach_query(:run, 'SELECT station, max(at) AS at, sum(value) AS v FROM measured GROUP BY station', snapshot => true) AS part;
UPDATE measured SET value = 0;
CALL portage.run(:run);
SELECT pg_temp.books(:run);
SELECT * FROM measurement ORDER BY station;
SELECT kind, name, byte_length > 0 AS has_bytes FROM portage.migration_parts WHERE run_id = :run;
-- import() with a query copies it; with a key it is read by pages.
TRUNCATE measurement;
CALL portage.import('rows_measured', query => 'SELECT ''s'' || i AS station, i AS at, 1 AS v FROM generate_series(1, 3) i', scope => 'import');
SELECT count(*) FROM measurement;
CALL portage.import('rows_new', query => 'SELECT 5000 + i AS id FROM generate_series(1, 3) i', key => 'id', scope => 'import');
SELECT count(*) FROM new WHERE id > 5000;
-- An empty table, an empty query, an empty snapshot.
CREATE TABLE empty (id int PRIMARY KEY);
SELECT portage.open_run('rows_new', 'empty') AS run \gset
SELECT portage.attach_table(:run, 'empty'), portage.attach_query(:run, 'SELECT 1 AS id WHERE false', '{id}'), portage.attach_query(:run, 'TABLE empty', snapshot => true);
CALL portage.run(:run);
SELECT pg_temp.books(:run);

-- 4. Values that do not fit the target are rejects as in any format; a column that the query lacks is null.
SELECT portage.open_run('rows_new', 'rejects') AS run \gset
SELECT portage.attach_query(:run, $$SELECT * FROM (VALUES (7001, '2024-02-30', 'x'), (7002, '2024-02-29', '1.5'), (7003, NULL, NULL)) v (id, born, price)$$, '{id}') AS part;
CALL portage.run(:run);
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
SELECT line, byte_offset, raw FROM portage.rejects WHERE run_id = :run;
SELECT id, born, price FROM new WHERE id > 7000;

-- 5. Refused.
\pset tuples_only on
\pset format unaligned
SELECT portage.open_run('rows_new', 'refused') AS run \gset
CREATE TABLE keyless (id int, name text);
SELECT pg_temp.refused(format($$SELECT portage.attach_table(%s, 'keyless')$$, :run));
SELECT pg_temp.refused(format($$SELECT portage.attach_query(%s, 'SELECT id FROM old')$$, :run));
SELECT pg_temp.refused(format($$SELECT portage.attach_query(%s, 'SELECT id FROM old', '{}')$$, :run));
SELECT pg_temp.refused(format($$SELECT portage.attach_query(%s, 'SELECT id, name FROM old', '{nr}')$$, :run));
SELECT pg_temp.refused(format($$SELECT portage.attach_query(%s, 'SELECT id FROM nowhere', '{id}')$$, :run));
SELECT pg_temp.refused(format($$SELECT portage.attach_query(%s, 'SELEKT 1', '{id}')$$, :run));
SELECT pg_temp.refused(format($$SELECT portage.attach_query(%s, 'SELECT 1 AS id; DROP TABLE old', '{id}')$$, :run));
SELECT pg_temp.refused(format($$SELECT portage.attach_query(%s, 'SELECT 1 AS id) q; DROP TABLE old; SELECT * FROM (SELECT 1 AS id', '{id}')$$, :run));
SELECT pg_temp.refused(format($$SELECT portage.attach_query(%s, 'DELETE FROM old RETURNING id', '{id}')$$, :run));
SELECT pg_temp.refused(format($$SELECT portage.attach_query(%s, 'SELECT 1/0 AS id', snapshot => true)$$, :run));
SELECT pg_temp.refused(format($$SELECT portage.attach_query(%s, 'SELECT 1 AS id -- a comment is no fault', '{id}')$$, :run));
SELECT portage.create_pipeline('rows_not', 'new', '{"format": "json", "legacy_id": "id", "columns": {"id": "id"}}') > 0;
SELECT portage.open_run('rows_not') AS other \gset
SELECT pg_temp.refused(format($$SELECT portage.attach_table(%s, 'old')$$, :other));
SELECT pg_temp.refused(format($$SELECT portage.attach_query(%s, 'SELECT 1 AS id', '{id}')$$, :other));
-- A key that is null somewhere is found when the run begins; nothing is read.
INSERT INTO keyless VALUES (8001, 'a'), (NULL, 'b');
SELECT portage.open_run('rows_new', 'null key') AS run \gset
SELECT portage.attach_query(:run, 'SELECT * FROM keyless', '{id}');
\set VERBOSITY default
CALL portage.run(:run);
\echo :LAST_ERROR_SQLSTATE
SELECT status FROM portage.migration_runs WHERE id = :run;
-- A key that is not unique could lose rows between two pages: the run fails where it meets the second row.
TRUNCATE keyless;
INSERT INTO keyless SELECT least(10000 + i, 11999), i FROM generate_series(0, 2000) i;
SELECT portage.open_run('rows_new', 'twice') AS run \gset
SELECT portage.attach_query(:run, 'SELECT * FROM keyless', '{id}');
CALL portage.run(:run);
\echo :LAST_ERROR_SQLSTATE
SELECT pg_temp.books(:run);
-- A page that ends exactly at the last row.
DELETE FROM keyless WHERE name = '2000';
CALL portage.import('rows_new', query => 'SELECT id FROM formats_rows.keyless', key => 'id', scope => 'page');
SELECT run_id AS run FROM portage.last_run('rows_new', 'page') \gset
SELECT pg_temp.books(:run);
-- A source that is gone when the run begins.
SELECT portage.open_run('rows_new', 'gone') AS run \gset
SELECT portage.attach_query(:run, 'SELECT * FROM keyless', '{id}');
DROP TABLE keyless;
CALL portage.run(:run);
\echo :LAST_ERROR_SQLSTATE
SELECT status FROM portage.migration_runs WHERE id = :run;

-- Nothing is left for the next test.
SELECT count(portage.drop_pipeline(name, true)) > 0 AS dropped FROM portage.pipelines;
DROP SCHEMA formats_rows CASCADE;
