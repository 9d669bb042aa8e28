-- "initial_load": the indexes of an empty target are taken away, and built again when all is imported.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 36000
\set ECHO none
\i :prelude
\set ECHO all
\set SHOW_CONTEXT never
CREATE SCHEMA initial;
SET search_path = initial, public;

-- An index of each kind, with all that can be said of one.
CREATE TABLE t (
  id       bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT t_key PRIMARY KEY,
  code     text NOT NULL,
  word     text NOT NULL,
  ticket   integer,
  level    integer,
  document jsonb,
  CONSTRAINT "Code" UNIQUE (code),
  CONSTRAINT ticket_once UNIQUE (ticket) INCLUDE (level) WITH (fillfactor = 71) DEFERRABLE INITIALLY DEFERRED
);
CREATE UNIQUE INDEX word_once ON t (word DESC NULLS LAST, level NULLS FIRST) WITH (fillfactor = 80);
CREATE INDEX by_level ON t (level) WHERE level > 2;
CREATE INDEX "by lower word" ON t (lower(word) COLLATE "C" text_pattern_ops, level DESC);
CREATE INDEX by_document ON t USING gin (document jsonb_path_ops) WITH (fastupdate = off);
CREATE INDEX by_brin ON t USING brin (id, level) WITH (pages_per_range = 32);
CREATE INDEX by_hash ON t USING hash (ticket);
CREATE INDEX counted ON t (lower(code));
ALTER INDEX counted ALTER COLUMN 1 SET STATISTICS 500;
CREATE INDEX clustered ON t (level, code);
ALTER TABLE t CLUSTER ON clustered;
COMMENT ON INDEX word_once IS 'it''s a word \ once';
COMMENT ON INDEX "Code" IS 'the index';
COMMENT ON CONSTRAINT "Code" ON t IS 'the constraint';

CREATE VIEW indexes AS
  SELECT c.relname AS index, pg_get_indexdef(i.indexrelid) AS definition, k.conname, pg_get_constraintdef(k.oid) AS constraint_definition,
         k.condeferrable, k.condeferred, s.spcname AS tablespace, obj_description(i.indexrelid, 'pg_class') AS comment,
         obj_description(k.oid, 'pg_constraint') AS constraint_comment, i.indisvalid, i.indimmediate, i.indisclustered,
         i.indisprimary, i.indoption::text, c.reloptions, c.relowner::regrole::text AS owner
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid LEFT JOIN pg_constraint k ON k.conindid = c.oid AND k.contype <> 'f'
    LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace
   WHERE i.indrelid = 'initial.t'::regclass;
CREATE TABLE before AS TABLE indexes;
CREATE VIEW differences AS (TABLE indexes EXCEPT TABLE before) UNION ALL (TABLE before EXCEPT TABLE indexes);

SELECT portage.create_pipeline('initial', 't', '{"format": "ndjson", "legacy_id": "id", "match": "code",
  "columns": {"code": "code", "word": "word", "ticket": "ticket", "level": "level", "document": "document"},
  "rules": {"level_is_low": "level < 100"}}') > 0 AS created;

-- What would be done.
SELECT portage.open_run('initial', options => '{"initial_load": true}') AS run \gset
SELECT portage.plan(:run) -> 'can_proceed' AS can_proceed;
SELECT x ->> 'name' AS index, x ->> 'stays' AS stays FROM jsonb_array_elements(portage.plan(:run) -> 'indexes') AS x;

-- Duplicates of every kind, in other batches than what they repeat: by legacy id (6), by match (4, 7), by another unique
-- index (5), by one that is judged at the end (8); 9 repeats what repeats itself, and lands.
\set items '{"id": 1, "code": "a", "word": "w1", "ticket": 1, "level": 1}\n{"id": 2, "code": "b", "word": "w2", "ticket": 2, "level": 1}\n{"id": 3, "code": "c", "word": "w3", "level": 900}\n{"id": 4, "code": "a", "word": "w4", "ticket": 4, "level": 3}\n{"id": 5, "code": "e", "word": "w2", "level": 1}\n{"id": 1, "code": "f", "word": "w6", "level": 1}\n{"id": 7, "code": "b", "word": "w2", "level": 1}\n{"id": 8, "code": "h", "word": "w8", "ticket": 1}\n{"id": 9, "code": "i", "word": "w4", "ticket": 4, "level": 3}'
SELECT portage.submit(:run, replace(:'items', '\n', E'\n')) > 0 AS submitted;
UPDATE portage.migration_runs SET options = options || '{"batch_size": 1}' WHERE id = :run;
CALL portage.run(:run);
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
SELECT code, word, ticket, level FROM t ORDER BY id;
SELECT index FROM differences;
SELECT index_name, is_unique, columns, stays, restored_at IS NOT NULL AS restored FROM portage.deferred_indexes WHERE run_id = :run ORDER BY position;
SELECT step_number, description, status FROM portage.migration_steps WHERE run_id = :run;
SELECT x ->> 'name' AS index, x ->> 'stays' AS stays, x ->> 'restored_at' IS NOT NULL AS restored
  FROM jsonb_array_elements(portage.report(:run) -> 'indexes') AS x;
SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND mode = 'ShareRowExclusiveLock' AND pid = pg_backend_pid();

-- The same without it: the same items and rows.
SELECT array_agg(j ORDER BY j.item) AS rejects FROM pg_temp.rejected(:run) AS j \gset
SELECT array_agg((code, word, ticket, level) ORDER BY id) AS rows FROM t \gset
CALL portage.rollback(:run);
SELECT count(*) FROM t;
SELECT portage.open_run('initial', options => '{"batch_size": 1}') AS plain \gset
SELECT portage.submit(:plain, replace(:'items', '\n', E'\n')) > 0 AS submitted;
CALL portage.run(:plain);
SELECT array_agg(j ORDER BY j.item)::text = :'rejects' AS same_rejects FROM pg_temp.rejected(:plain) AS j;
SELECT array_agg((code, word, ticket, level) ORDER BY id)::text = :'rows' AS same_rows FROM t;

-- Only for an empty target, and the first import.
SELECT portage.open_run('initial', options => '{"initial_load": true}') AS run \gset
CALL portage.run(:run);
SELECT status FROM portage.status(:run);
TRUNCATE t;
CALL portage.run(:run);
SELECT x ->> 'message' AS blocker, x ->> 'remedy' AS remedy FROM jsonb_array_elements(portage.plan(:run) -> 'blockers') AS x;
CALL portage.rollback(:plain);
CALL portage.run(:run);
SELECT pg_temp.books(:run);
SELECT index FROM differences;

-- Not with other ways to run.
SELECT pg_temp.refused($$SELECT portage.open_run('initial', options => '{"initial_load": true, "dry_run": true}')$$);
SELECT pg_temp.refused($$SELECT portage.open_run('initial', options => '{"initial_load": true, "workers": 2}')$$);
SELECT pg_temp.refused($$SELECT portage.open_run('initial', options => '{"initial_load": "yes"}')$$);
SELECT pg_temp.refused($$SELECT portage.migrate('initial', '{"id": 1}', options => '{"initial_load": true}')$$);

-- Why unique indexes stay. Others go all the same.
CREATE FUNCTION pg_temp.staying(definition text) RETURNS TABLE (index text, stays text) LANGUAGE plpgsql AS $$
DECLARE
  run bigint;
BEGIN
  PERFORM portage.replace_pipeline('initial', (definition::jsonb || '{"format": "ndjson", "legacy_id": "id"}')::json);
  run := portage.open_run('initial', options => '{"initial_load": true}');
  RETURN QUERY SELECT x ->> 'name', x ->> 'stays' FROM jsonb_array_elements(portage.plan(run) -> 'indexes') AS x;
  PERFORM portage.cancel(run);
END $$;
\set columns '"columns": {"code": "code", "word": "word", "ticket": "ticket", "level": "level"}'
SELECT * FROM pg_temp.staying('{' || :'columns' || ', "match": "code", "duplicates": "last"}');
SELECT * FROM pg_temp.staying('{' || :'columns' || ', "match": "level"}') WHERE index = 'Code';
SELECT * FROM pg_temp.staying('{"columns": {"code": "code", "word": "word"}, "match": "code"}') WHERE index IN ('Code', 'by_hash');
CREATE UNIQUE INDEX low_once ON t (code) WHERE level < 2;
SELECT * FROM pg_temp.staying('{' || :'columns' || ', "match": "code"}') WHERE index IN ('Code', 'low_once');
DROP INDEX low_once;
CREATE TABLE child (code text REFERENCES t (code));
SELECT * FROM pg_temp.staying('{' || :'columns' || ', "match": "code"}') WHERE index IN ('Code', 'word_once');
DROP TABLE child;
ALTER TABLE t REPLICA IDENTITY USING INDEX "Code";
CREATE VIEW grouped AS SELECT id, code FROM t GROUP BY id;
SELECT * FROM pg_temp.staying('{' || :'columns' || ', "match": "code"}') WHERE index IN ('Code', 't_key');
DROP VIEW grouped;
ALTER TABLE t REPLICA IDENTITY DEFAULT;
CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER looks AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION look();
SELECT * FROM pg_temp.staying('{' || :'columns' || ', "match": "code"}') WHERE index IN ('Code', 'by_hash');
DROP TRIGGER looks ON t;

-- The index of the key goes where items do not bring it, and its values are another for each row by themselves.
CREATE SEQUENCE round MAXVALUE 10 CYCLE;
CREATE FUNCTION pg_temp.key_stays(definition text, key text DEFAULT '') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  stays text;
BEGIN
  EXECUTE 'CREATE TABLE k (' || definition || ')';
  PERFORM portage.create_pipeline('keyed', 'k', json_strip_nulls(json_build_object('format', 'ndjson', 'legacy_id', 'id',
    'columns', '{"code": "code"}'::json, 'key', to_json(string_to_array(nullif(key, ''), ', ')))));
  stays := (SELECT coalesce(x ->> 'stays', 'goes') FROM jsonb_array_elements(portage.plan(portage.open_run('keyed',
    options => '{"initial_load": true}')) -> 'indexes') AS x);
  PERFORM portage.drop_pipeline('keyed', true);
  DROP TABLE k;
  RETURN stays;
END $$;
SELECT d AS definition, pg_temp.key_stays(d) AS key FROM unnest(ARRAY[
  'id bigserial PRIMARY KEY, code text',
  'id uuid DEFAULT gen_random_uuid() PRIMARY KEY, code text',
  'part text DEFAULT ''x'', id smallint GENERATED ALWAYS AS IDENTITY, code text, PRIMARY KEY (id, part)',
  'id integer GENERATED BY DEFAULT AS IDENTITY (MAXVALUE 10 CYCLE) PRIMARY KEY, code text',
  'id integer DEFAULT nextval(''round'') PRIMARY KEY, code text',
  'id bigint DEFAULT nextval(''initial.t_id_seq'') % 7 PRIMARY KEY, code text',
  'id text DEFAULT gen_random_uuid() PRIMARY KEY, code text',
  'id integer DEFAULT 1 PRIMARY KEY, code text',
  'code text PRIMARY KEY']) AS d;
SELECT pg_temp.key_stays('part text NOT NULL DEFAULT ''x'', id bigint GENERATED ALWAYS AS IDENTITY, code text, UNIQUE (part, id)', 'id, part') AS key;

-- A key of several columns, in the order of its index; rows have it again when they are taken back.
CREATE TABLE k (part text DEFAULT 'x', id bigint GENERATED ALWAYS AS IDENTITY, code text, PRIMARY KEY (id, part));
SELECT portage.create_pipeline('keyed', 'k', '{"format": "ndjson", "legacy_id": "id", "columns": {"code": "code"}}') > 0 AS created;
SELECT portage.open_run('keyed', options => '{"initial_load": true, "batch_size": 1}') AS run \gset
SELECT portage.submit(:run, E'{"id": 1, "code": "a"}\n{"id": 2, "code": "b"}\n{"id": 1, "code": "c"}') > 0 AS submitted;
CALL portage.run(:run);
SELECT * FROM pg_temp.rejected(:run);
SELECT m.legacy_id, m.target_key, k.part, k.id, k.code FROM portage.legacy_mappings m JOIN k ON m.target_key = json_build_array(k.id::text, k.part)::text
 WHERE m.run_id = :run ORDER BY 1;
SELECT index_name, is_key, restored_at IS NOT NULL AS restored FROM portage.deferred_indexes WHERE run_id = :run;
CALL portage.rollback(:run);
SELECT count(*) FROM k;
DROP TABLE k;

-- What the fast writer does not take is refused.
CREATE TRIGGER looks BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION look();
SELECT portage.open_run('initial', options => '{"initial_load": true}') AS run \gset
CALL portage.run(:run);
DROP TRIGGER looks ON t;

-- Nothing is missing: nothing is done.
CALL portage.restore_indexes(:run);
SELECT index FROM differences;
SELECT signal, value, threshold, state, explanation FROM portage.health() WHERE signal = 'missing_indexes';

-- Nothing is left for the next test.
SELECT count(portage.drop_pipeline(name, true)) > 0 AS dropped FROM portage.pipelines;
SELECT count(*) FROM portage.deferred_indexes;
DROP SCHEMA initial CASCADE;
