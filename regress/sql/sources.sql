-- A definition may say where its data is: files, a query, a table. import() without data takes it from there.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 31000
\set ECHO none
\i :prelude
\set ECHO all
CREATE SCHEMA sources;
SET search_path = sources;
CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE TABLE old (id int PRIMARY KEY, v text);
INSERT INTO old SELECT i, 'v' || i FROM generate_series(1, 5) i;
CREATE TABLE keyless (id int, v text);
CREATE FUNCTION definition(source text, format text DEFAULT 'rows') RETURNS json LANGUAGE sql AS $$
  SELECT format('{"format": "%s", "legacy_id": "id", "columns": {"id": "id", "v": "v"}, "source": %s}', format, source)::json $$;
CREATE FUNCTION fault(source text, format text DEFAULT 'rows') RETURNS SETOF text LANGUAGE sql AS $$
  SELECT pg_temp.refused(format('SELECT portage.create_pipeline(%L, %L, %L)', 'faulty', 't', definition(source, format))) $$;
GRANT ALL ON SCHEMA sources TO PUBLIC;

-- 1. What cannot be a source is refused when the pipeline is created.
SELECT fault('"old"');
SELECT fault('{}');
SELECT fault('{"table": "old", "query": "TABLE old"}');
SELECT fault('{"tabel": "old"}');
SELECT fault('{"table": ""}');
SELECT fault('{"table": "missing"}');
SELECT fault('{"table": "a.b.c.d"}');
SELECT fault('{"table": "keyless"}');
SELECT fault('{"table": "old", "key": "id"}');
SELECT fault('{"table": "old"}', 'json');
SELECT fault('{"query": "SELECT * FROM missing"}');
SELECT fault('{"query": "SELEC 1"}');
SELECT fault('{"query": "TABLE old", "key": "ident"}');
SELECT fault('{"query": "TABLE old", "key": ["id", "idd"]}');
SELECT fault('{"query": "TABLE old", "key": []}');
SELECT fault('{"files": "words.json"}', 'json');
SELECT fault('{"files": "/srv/words.json"}');

-- 2. A table. Names are those that they were when the pipeline was created.
SELECT portage.create_pipeline('src_table', 't', definition('{"table": "old"}')) > 0 AS created;
SET search_path = pg_catalog;
CALL portage.import('src_table');
SET search_path = sources;
SELECT pg_temp.books(run_id) FROM portage.last_run('src_table');
INSERT INTO old VALUES (6, 'v6');
UPDATE old SET v = 'V1' WHERE id = 1;
CALL portage.import('src_table');
SELECT pg_temp.books(run_id) FROM portage.last_run('src_table');
SELECT * FROM t ORDER BY id;
-- What is given counts, not the source.
SELECT portage.open_run('src_table') AS run \gset
SELECT portage.attach_query(:run, 'SELECT 7 AS id, ''v7'' AS v', snapshot => true);
SELECT portage.attach_source(:run);
SELECT part, kind, name, key_columns FROM portage.migration_parts WHERE run_id = :run ORDER BY part;
CALL portage.run(:run);
SELECT pg_temp.books(:run);
SELECT pg_temp.refused(format('SELECT portage.attach_source(%s)', :run));
-- A table that is gone.
ALTER TABLE old RENAME TO older;
SELECT portage.open_run('src_table') AS run \gset
SELECT pg_temp.refused(format('SELECT portage.attach_source(%s)', :run));
ALTER TABLE older RENAME TO old;

-- 3. A query: by pages of its key or, without one, copied.
SELECT portage.create_pipeline('src_query', 't', definition('{"query": "SELECT id, upper(v) AS v FROM old -- all", "key": "id"}')) > 0 AS created;
CALL portage.import('src_query');
SELECT part, kind, name, key_columns, last_key FROM portage.migration_parts WHERE run_id = (portage.last_run('src_query')).run_id;
SELECT pg_temp.books(run_id) FROM portage.last_run('src_query');
SELECT portage.create_pipeline('src_copy', 't', definition('{"query": "SELECT id, v FROM old ORDER BY v"}')) > 0 AS created;
CALL portage.import('src_copy', options => '{"on_conflict": "overwrite"}');
SELECT part, kind, name FROM portage.migration_parts WHERE run_id = (portage.last_run('src_copy')).run_id;
SELECT pg_temp.books(run_id) FROM portage.last_run('src_copy');

-- 4. Files: what matches when the run is opened.
SELECT definition(format('{"files": "%s/data/words_*.json"}', :'abs_srcdir'), 'json') AS files, definition(format('{"files": "%s/data/words_9*.json"}', :'abs_srcdir'), 'json') AS none \gset
SELECT portage.create_pipeline('src_files', 't', :'files') > 0 AS created;
CALL portage.import('src_files', options => '{"on_conflict": "overwrite"}');
SELECT part, kind, name FROM portage.migration_parts WHERE run_id = (portage.last_run('src_files')).run_id ORDER BY part;
SELECT portage.create_pipeline('src_none', 't', :'none') > 0 AS created;
SELECT portage.open_run('src_none') AS run \gset
SELECT regexp_replace(refused, '"[^"]*/data', '".../data') FROM pg_temp.refused(format('SELECT portage.attach_source(%s)', :run)) AS refused;

-- 5. Without a source, data must be named; and not twice.
SELECT portage.create_pipeline('src_without', 't', '{"format": "rows", "legacy_id": "id", "columns": {"id": "id"}}') > 0 AS created;
CALL portage.import('src_without');
\echo :LAST_ERROR_SQLSTATE :LAST_ERROR_MESSAGE
CALL portage.import('src_without', file => '/x', query => 'TABLE old');
\echo :LAST_ERROR_SQLSTATE :LAST_ERROR_MESSAGE

-- 6. What the owner wrote is read as the run's role: only where the owner has that role's rights itself. Else the owner
-- of a pipeline would get at what others may read, or act as them, by the source that they run.
CREATE ROLE regress_portage_source_owner;
CREATE ROLE regress_portage_source_runner;
GRANT INSERT, SELECT, UPDATE ON t TO PUBLIC;
GRANT SELECT ON old TO regress_portage_source_owner;
CREATE TABLE secrets (id int PRIMARY KEY, v text);
INSERT INTO secrets VALUES (100, 'secret');
GRANT SELECT ON secrets TO regress_portage_source_runner;
SET ROLE regress_portage_source_owner;
SELECT pg_temp.refused($$SELECT portage.create_pipeline('src_secret', 't', definition('{"query": "TABLE secrets", "key": "id"}'))$$);
SELECT portage.create_pipeline('src_owned', 't', definition('{"table": "secrets"}')) > 0 AS created;
SELECT portage.open_run('src_owned') AS run \gset
SELECT pg_temp.refused(format('SELECT portage.attach_source(%s)', :run));
RESET ROLE;
SELECT portage.grant_pipeline('regress_portage_source_owner/src_owned', 'public', 'run') > 0 AS granted;
SET ROLE regress_portage_source_runner;
SELECT portage.open_run('src_owned') AS run \gset
SELECT pg_temp.refused(format('SELECT portage.attach_source(%s)', :run));
RESET ROLE;
SELECT portage.open_run('src_owned') AS run \gset
SELECT count(*) AS lines FROM pg_temp.refused(format('SELECT portage.attach_source(%s)', :run));
-- Who has the rights anyway may write what is to be read with them.
SELECT portage.grant_pipeline('src_table', 'public', 'run') > 0 AS granted;
SET ROLE regress_portage_source_runner;
SELECT portage.open_run('src_table') AS run \gset
SELECT pg_temp.refused(format('SELECT portage.attach_source(%s)', :run));
RESET ROLE;
GRANT SELECT ON old TO regress_portage_source_runner;
SET ROLE regress_portage_source_runner;
SELECT portage.attach_source(:run);
CALL portage.run(:run);
SELECT pg_temp.books(:run);
RESET ROLE;

-- 7. A cursor: each run reads on where the last one ended. A unique number is read once.
CREATE TABLE log (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, batch int NOT NULL, at timestamptz NOT NULL DEFAULT now(), day date, v text);
CREATE TABLE copy (id bigint PRIMARY KEY, v text);
SELECT fault('{"table": "log", "cursor": "idd"}');
SELECT fault('{"table": "log", "cursor": "day"}');
SELECT fault('{"table": "log", "cursor": "v"}');
SELECT fault('{"table": "log", "cursor": "at", "overlap": 5}');
SELECT fault('{"table": "log", "cursor": "at", "overlap": "soon"}');
SELECT fault('{"table": "log", "cursor": "at", "overlap": "-1 s"}');
SELECT fault('{"table": "log", "cursor": "id", "overlap": "5 minutes"}');
SELECT fault('{"table": "log", "cursor": "id", "overlap": -1}');
SELECT fault('{"table": "log", "overlap": "5 minutes"}');
SELECT fault('{"query": "TABLE log", "cursor": "id"}');
SELECT fault('{"query": "TABLE log", "key": "id", "cursor": "id"}');
SELECT fault('{"files": "/srv/*.json", "cursor": "id"}', 'json');
CREATE TABLE cached (id bigint GENERATED ALWAYS AS IDENTITY (CACHE 10) PRIMARY KEY, v text);
SELECT fault('{"table": "cached", "cursor": "id"}');

SELECT portage.create_pipeline('src_id', 'copy', definition('{"table": "log", "cursor": "id"}')) > 0 AS created;
INSERT INTO log (batch, v) SELECT 1, 'v' || i FROM generate_series(1, 5) i;
CALL portage.import('src_id', options => '{"batch_size": 2}');
SELECT pg_temp.books(run_id) FROM portage.last_run('src_id');
SELECT position FROM portage.source_cursors;
CALL portage.import('src_id');
SELECT pg_temp.books(run_id) FROM portage.last_run('src_id');
INSERT INTO log (batch, v) VALUES (1, 'v6'), (2, 'v7'), (2, 'v8');
SELECT portage.open_run('src_id') AS run \gset
SELECT portage.attach_source(:run);
SELECT portage.plan(:run) -> 'estimated_items' AS estimated;
SELECT portage.validate(:run) -> 'counts' ->> 'read' AS validated;
CALL portage.run(:run);
SELECT pg_temp.books(:run);
SELECT key_columns, cursor_column, cursor_type, source_table, cursor_from, last_key FROM portage.migration_parts WHERE run_id = :run;
SELECT run_id, cursor_column, position FROM portage.source_cursors ORDER BY run_id;
-- What leaves out what it reads, does not move it: dry runs and samples. A limit moves it as far as was read.
INSERT INTO log (batch, v) VALUES (3, 'v9'), (3, 'v10');
CALL portage.import('src_id', options => '{"dry_run": true}');
SELECT pg_temp.books(run_id) FROM portage.last_run('src_id');
CALL portage.import('src_id', options => '{"sample": "0%"}');
SELECT pg_temp.books(run_id) FROM portage.last_run('src_id');
CALL portage.import('src_id', options => '{"limit": 1}');
SELECT pg_temp.books(run_id) FROM portage.last_run('src_id');
CALL portage.import('src_id');
SELECT pg_temp.books(run_id) FROM portage.last_run('src_id');
-- All of it again.
CALL portage.import('src_id', options => '{"incremental": false}');
SELECT pg_temp.books(run_id) FROM portage.last_run('src_id');
SELECT count(*) AS copied, (SELECT count(*) FROM log) AS there FROM copy;
-- Another scope has a position of its own.
CALL portage.import('src_id', scope => 'other', options => '{"dry_run": true}');
SELECT pg_temp.books(run_id) FROM portage.last_run('src_id', 'other');
-- A run that is taken back is read again, and what ran since, too: it may have found what is gone now.
CALL portage.rollback(:run);
SELECT run_id = :run - 2 AS first_run, position FROM portage.source_cursors;
CALL portage.import('src_id');
SELECT pg_temp.books(run_id) FROM portage.last_run('src_id');
SELECT count(*) AS copied FROM copy;

-- A number that is not unique is read again from the last one on, since it may have come again; in pages by the key.
SELECT portage.create_pipeline('src_batch', 'copy', definition('{"table": "log", "cursor": "batch"}')) > 0 AS created;
CALL portage.import('src_batch', options => '{"batch_size": 3}');
SELECT pg_temp.books(run_id) FROM portage.last_run('src_batch');
INSERT INTO log (batch, v) VALUES (3, 'v11');
CALL portage.import('src_batch');
SELECT pg_temp.books(run_id) FROM portage.last_run('src_batch');
SELECT key_columns, cursor_from, last_key FROM portage.migration_parts WHERE run_id = (portage.last_run('src_batch')).run_id;

-- Times: the overlap is read again. Changes come along, if they move the time.
CREATE TABLE notes (id int PRIMARY KEY, at timestamptz NOT NULL, v text);
INSERT INTO notes SELECT i, timestamptz '2024-01-01 12:00+00' + i * interval '1 minute', 'n' || i FROM generate_series(1, 20) i;
SELECT portage.create_pipeline('src_time', 'copy', '{"format": "rows", "legacy_id": "id", "columns": {"id": {"sql": "(item->>''id'')::int + 1000"}, "v": "v"}, "source": {"table": "notes", "cursor": "at"}}') > 0 AS created;
CALL portage.import('src_time');
SELECT pg_temp.books(run_id) FROM portage.last_run('src_time');
UPDATE notes SET v = 'changed', at = '2024-01-01 13:00+00' WHERE id = 2;
SET timezone = 'Asia/Tokyo'; SET datestyle = 'German';
CALL portage.import('src_time');
RESET timezone; RESET datestyle;
SELECT pg_temp.books(run_id) FROM portage.last_run('src_time');
SELECT v FROM copy WHERE id = 1002;
-- What is read again does not move the position back.
SELECT position::timestamptz AT TIME ZONE 'UTC' AS position FROM portage.source_cursors WHERE cursor_column = 'at' ORDER BY batch_id DESC LIMIT 1;
UPDATE notes SET at = '2024-01-01 12:57+00' WHERE id = 2;
CALL portage.import('src_time');
SELECT pg_temp.books(run_id) FROM portage.last_run('src_time');
SELECT position::timestamptz AT TIME ZONE 'UTC' AS position FROM portage.source_cursors WHERE cursor_column = 'at' ORDER BY batch_id DESC LIMIT 1;
UPDATE notes SET at = 'infinity' WHERE id = 3;
SELECT portage.open_run('src_time') AS run \gset
SELECT portage.attach_source(:run);
CALL portage.run(:run);
\echo :LAST_ERROR_SQLSTATE
SELECT portage.cancel(:run);
-- A query with a number: the overlap must be said.
SELECT portage.create_pipeline('src_view', 'copy', definition('{"query": "SELECT id, upper(v) AS v FROM log", "key": "id", "cursor": "id", "overlap": 2}')) > 0 AS created;
CALL portage.import('src_view', options => '{"on_conflict": "overwrite"}');
SELECT pg_temp.books(run_id) FROM portage.last_run('src_view');
CALL portage.import('src_view');
SELECT pg_temp.books(run_id) FROM portage.last_run('src_view');
-- Another source begins anew.
SELECT portage.replace_pipeline('src_view', definition('{"query": "SELECT id, lower(v) AS v FROM log", "key": "id", "cursor": "id", "overlap": 2}')) > 0 AS replaced;
CALL portage.import('src_view');
SELECT pg_temp.books(run_id) FROM portage.last_run('src_view');

SELECT count(portage.drop_pipeline(name, true)) > 0 AS dropped FROM portage.pipelines;
DROP SCHEMA sources CASCADE;
DROP OWNED BY regress_portage_source_owner, regress_portage_source_runner;
DROP ROLE regress_portage_source_owner, regress_portage_source_runner;
