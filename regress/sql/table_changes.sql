-- The target's columns are changed between imports, as tables are. Nobody has changed a row by that: items that the source has changed
-- since go in, rows that are gone from it are deleted, and the runs can be taken back. What somebody has changed indeed stays so.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 19500
\set ECHO none
\i :prelude
\set ECHO all
CREATE SCHEMA changing;
SET search_path = changing;
\set SHOW_CONTEXT never
CREATE TABLE goods (id int);
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE ROLE changing_columns;
GRANT USAGE ON SCHEMA changing TO changing_columns;

-- Six rows are imported, somebody changes row 2, the table changes, and five come again with a change each, the sixth is gone.
CREATE PROCEDURE changed(ddl text, definition jsonb DEFAULT '{}', renamed jsonb DEFAULT '{}') LANGUAGE plpgsql AS $$
DECLARE
  plain jsonb := '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id", "name": "name", "amount": "amount", "price": "price", "feeling": "feeling"},
                   "rules": {"amount_known": "amount > 0"}, "missing": "delete"}';
  first bigint; second bigint;
BEGIN
  DROP TABLE goods;
  CREATE TABLE goods (id int PRIMARY KEY, note text DEFAULT 'note', name varchar(20), amount int, price numeric(10,2), feeling mood, extra int DEFAULT 7);
  GRANT ALL ON goods TO changing_columns;
  PERFORM portage.create_pipeline('goods', 'goods', (plain || definition)::json);
  first := (SELECT run_id FROM portage.migrate('goods', (SELECT string_agg(jsonb_build_object('id', n, 'name', 'n' || n, 'amount', n, 'price', n || '.50',
    'feeling', CASE WHEN n % 2 = 0 THEN 'sad' ELSE 'ok' END)::text, E'\n') FROM generate_series(1, 6) n)));
  UPDATE goods SET name = 'by hand' WHERE id = 2;
  EXECUTE ddl;
  IF renamed <> '{}' THEN
    PERFORM portage.replace_pipeline('goods', (plain || definition || renamed)::json);
  END IF;
  second := (SELECT run_id FROM portage.migrate('goods', (SELECT string_agg(jsonb_build_object('id', n, 'name', 'm' || n, 'amount', n + 10, 'price', n || '.75',
    'feeling', 'happy')::text, E'\n') FROM generate_series(1, 5) n)));
  RAISE NOTICE '%: %, deleted %; %', ddl, (SELECT format('%s updated, %s skipped, %s invalid, %s failed', updated, skipped, invalid, failed) FROM portage.status(second)),
    (SELECT coalesce(sum(deleted), 0) FROM portage.migration_batches WHERE run_id = second),
    (SELECT string_agg(DISTINCT message, '; ') FROM portage.rejects WHERE run_id = second);
END $$;
-- ... and both runs are taken back: row 2, which is somebody's, stays.
CREATE PROCEDURE taken_back() LANGUAGE plpgsql AS $$
DECLARE
  run bigint;
BEGIN
  FOR run IN SELECT id FROM portage.migration_runs WHERE pipeline = 'goods' ORDER BY id DESC LIMIT 2 LOOP
    CALL portage.rollback(run, 'keep');
  END LOOP;
  RAISE NOTICE 'rows left: %', (SELECT coalesce(string_agg(id::text, ', '), 'none') FROM goods);
END $$;
SET client_min_messages = notice;

CALL changed('ALTER TABLE goods ALTER extra SET DEFAULT 8');
CALL taken_back();
SELECT portage.drop_pipeline('goods', true) > 0 AS dropped;
CALL changed('ALTER TABLE goods DROP extra');
CALL taken_back();
SELECT portage.drop_pipeline('goods', true) > 0 AS dropped;
CALL changed('ALTER TABLE goods RENAME note TO remark');
CALL taken_back();
SELECT portage.drop_pipeline('goods', true) > 0 AS dropped;
CALL changed('ALTER TABLE goods RENAME amount TO quantity', '{}',
  '{"columns": {"id": "id", "name": "name", "quantity": "amount", "price": "price", "feeling": "feeling"}, "rules": {"amount_known": "quantity > 0"}}');
CALL taken_back();
SELECT portage.drop_pipeline('goods', true) > 0 AS dropped;
CALL changed('ALTER TABLE goods ALTER amount TYPE bigint, ALTER extra TYPE bigint');
CALL taken_back();
SELECT portage.drop_pipeline('goods', true) > 0 AS dropped;
CALL changed('ALTER TABLE goods ALTER price TYPE numeric(14,4), ALTER name TYPE text');
CALL taken_back();
SELECT portage.drop_pipeline('goods', true) > 0 AS dropped;
CALL changed('ALTER TYPE mood RENAME VALUE ''sad'' TO ''gloomy''');
CALL taken_back();
ALTER TYPE mood RENAME VALUE 'gloomy' TO 'sad';
SELECT portage.drop_pipeline('goods', true) > 0 AS dropped;
CALL changed('ALTER TABLE goods ADD more text DEFAULT ''more'', DROP note, ALTER amount TYPE bigint');
CALL taken_back();
SELECT portage.drop_pipeline('goods', true) > 0 AS dropped;

-- Column by column, what was last migrated is known as well.
CALL changed('ALTER TABLE goods RENAME amount TO quantity; ALTER TABLE goods ALTER price TYPE numeric(14,4)', '{"on_conflict": "merge", "missing": "keep"}',
  '{"columns": {"id": "id", "name": "name", "quantity": "amount", "price": "price", "feeling": "feeling"}, "rules": {"amount_known": "quantity > 0"}}');
SELECT * FROM goods ORDER BY id;
SELECT portage.drop_pipeline('goods', true) > 0 AS dropped;

-- The role loses its right to see a column.
DROP TABLE goods;
CREATE TABLE goods (id int PRIMARY KEY, name text, extra int DEFAULT 7);
GRANT ALL ON goods TO changing_columns;
SET ROLE changing_columns;
SELECT portage.create_pipeline('seen', 'goods', '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id", "name": "name"}}') > 0 AS created;
SELECT inserted FROM portage.migrate('seen', E'{"id": 1, "name": "a"}\n{"id": 2, "name": "b"}');
RESET ROLE;
REVOKE ALL ON goods FROM changing_columns;
GRANT SELECT (id, name), INSERT, UPDATE, DELETE ON goods TO changing_columns;
UPDATE goods SET name = 'by hand' WHERE id = 2;
SET ROLE changing_columns;
SELECT updated, skipped FROM portage.migrate('seen', E'{"id": 1, "name": "c"}\n{"id": 2, "name": "d"}');
SELECT message FROM portage.rejects WHERE run_id = (portage.last_run('seen')).run_id;
RESET ROLE;
SET client_min_messages = warning;
DROP SCHEMA changing CASCADE;
DROP OWNED BY changing_columns;
SELECT portage.drop_pipeline('changing_columns/seen', true) > 0 AS dropped;
DROP ROLE changing_columns;
