-- Rollback of tables with a mind of their own: triggers that raise, edit and cancel, before and after; keys and columns
-- that the table makes itself; composite, domain and range types; partitions between which rows move. And runs that have
-- overwritten each other's work.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 23000
\set ECHO none
\i :prelude
\set ECHO all
\set SHOW_CONTEXT never
CREATE SCHEMA mind;
SET search_path = mind;
CREATE TABLE t (id int PRIMARY KEY, v text, n int, log text);
SELECT portage.create_pipeline('mind', 't', '{"format": "json", "legacy_id": "id", "columns": {"id": "id", "v": "v", "n": "n"}, "on_conflict": "overwrite"}') > 0 AS created;

-- One function for all triggers: it does what the row's v says, if the trigger's argument is its turn.
CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  wish text := old.v;
BEGIN
  IF wish = tg_argv[0] || ' raises' THEN RAISE EXCEPTION 'the trigger says no'; END IF;
  IF tg_when = 'BEFORE' AND wish = tg_argv[0] || ' cancels' THEN RETURN NULL; END IF;
  IF tg_when = 'BEFORE' AND wish = tg_argv[0] || ' edits' AND tg_op = 'UPDATE' THEN new.log := 'edited'; END IF;
  IF tg_when = 'AFTER' AND wish = tg_argv[0] || ' edits' AND tg_op = 'UPDATE' THEN
    UPDATE t SET log = 'edited afterwards' WHERE id = new.id;
  END IF;
  IF tg_when = 'AFTER' AND wish = tg_argv[0] || ' edits' AND tg_op = 'DELETE' THEN
    INSERT INTO t VALUES (old.id + 1000, 'a tombstone');
  END IF;
  RETURN CASE WHEN tg_op = 'DELETE' THEN old ELSE new END;
END $$;

-- 1. BEFORE and AFTER triggers, on rows that were inserted and rows that were overwritten.
INSERT INTO t SELECT n, 'was ' || n, n FROM generate_series(11, 15) AS n;
SELECT run_id AS run FROM portage.migrate('mind', '[
  {"id": 1, "v": "before raises"}, {"id": 2, "v": "before cancels"}, {"id": 3, "v": "before edits"}, {"id": 4, "v": "after raises"}, {"id": 5, "v": "after edits"}, {"id": 6, "v": "plain"},
  {"id": 11, "v": "before raises", "n": 1}, {"id": 12, "v": "before cancels", "n": 1}, {"id": 13, "v": "before edits", "n": 1}, {"id": 14, "v": "after raises", "n": 1}, {"id": 15, "v": "after edits", "n": 1}]') \gset
CREATE TRIGGER before BEFORE UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION act('before');
CREATE TRIGGER after AFTER UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION act('after');
CALL portage.rollback(:run);
SELECT id, v, n, log FROM t ORDER BY id;
SELECT jsonb_pretty(details) FROM portage.migration_events WHERE run_id = :run AND event_type IN ('rollback_completed', 'rollback_incomplete');
SELECT ordinal, status FROM portage.migration_items WHERE run_id = :run AND revision = 1 ORDER BY ordinal;
-- what was spared keeps its mapping
SELECT legacy_id FROM portage.legacy_mappings ORDER BY 1;
DROP TRIGGER before ON t;
DROP TRIGGER after ON t;

-- 2. A deferred constraint trigger is judged where it can still be told whose fault it is.
TRUNCATE t;
SELECT run_id AS run FROM portage.migrate('mind', '[{"id": 21, "v": "after raises"}, {"id": 22, "v": "plain"}]', options => '{"incremental": false}') \gset
CREATE CONSTRAINT TRIGGER later AFTER DELETE ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION act('after');
CALL portage.rollback(:run);
SELECT id FROM t;
DROP TRIGGER later ON t;
DELETE FROM t;

-- 3. More rows refuse than one transaction has subtransactions for: each is spared by itself, all others go.
SELECT run_id AS run FROM portage.migrate('mind', (SELECT json_agg(json_build_object('id', n, 'v', CASE WHEN n % 3 = 0 THEN 'before raises' ELSE 'x' END))::text FROM generate_series(1001, 1300) AS n)) \gset
CREATE TRIGGER before BEFORE UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION act('before');
CALL portage.rollback(:run);
SELECT count(*), min(id % 3), max(id % 3) FROM t;
SELECT count(*) > 3 AS several_transactions, sum(rolled_back) AS rolled_back FROM portage.migration_batches WHERE run_id = :run AND kind = 'rollback';
DROP TRIGGER before ON t;
DELETE FROM t;

-- 4. Identity and generated columns, composite, domain, enum, range and array types: byte for byte as before.
CREATE TYPE pair AS (a numeric, b text);
CREATE DOMAIN grade AS int CHECK (VALUE BETWEEN 1 AND 6);
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE TABLE rich (
  key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code text UNIQUE, amount numeric, twice numeric GENERATED ALWAYS AS (amount * 2) STORED,
  detail pair, details pair[], grade grade, mood mood, span int4range, at timestamptz, wait interval, doc json, raw bytea);
INSERT INTO rich (code, amount, detail, details, grade, mood, span, at, wait, doc, raw) VALUES
  ('x', 1.50, (1.0, 'q "x", (y)'), ARRAY[(1, NULL)::pair, NULL], 3, 'sad', '[1,5)', '2024-03-31 01:30:00.123456+00', '1 mon -2 days', '{"b":1,  "a": 2}', '\x00ff');
CREATE TABLE rich_before AS SELECT *, portage.row_hash(r) AS hash FROM rich r;
SELECT portage.create_pipeline('mind_rich', 'rich', '{"format": "json", "legacy_id": "code", "match": ["code"], "on_conflict": "overwrite",
  "columns": {"code": "code", "amount": "amount", "detail": "detail", "grade": "grade", "mood": "mood", "span": "span", "at": "at", "wait": "wait", "doc": "doc", "raw": "raw"}}') > 0 AS created;
SET datestyle = 'SQL, DMY'; SET intervalstyle = 'sql_standard'; SET bytea_output = 'escape'; SET timezone = 'Asia/Tokyo'; SET extra_float_digits = 0;
SELECT run_id AS run, inserted, updated FROM portage.migrate('mind_rich', '[{"code": "x", "amount": 1.5, "grade": 1, "mood": "glad", "at": null, "span": "empty"}, {"code": "y", "amount": 2}]') \gset
SELECT :inserted AS inserted, :updated AS updated;
SET datestyle = 'German'; SET intervalstyle = 'iso_8601'; SET timezone = 'America/New_York';
CALL portage.rollback(:run);
RESET datestyle; RESET intervalstyle; RESET bytea_output; RESET timezone; RESET extra_float_digits;
SELECT count(*) AS rows, bool_and(portage.row_hash(r) = b.hash AND r::text = (b.key, b.code, b.amount, b.twice, b.detail, b.details, b.grade, b.mood, b.span, b.at, b.wait, b.doc, b.raw)::text) AS as_before
  FROM rich r LEFT JOIN rich_before b USING (key);

-- 5. A row that moved from one partition to another moves back.
CREATE TABLE split (id int, half text, v text, PRIMARY KEY (id, half)) PARTITION BY LIST (half);
CREATE TABLE split_a PARTITION OF split FOR VALUES IN ('a');
CREATE TABLE split_b PARTITION OF split FOR VALUES IN ('b');
INSERT INTO split VALUES (1, 'a', 'old');
SELECT portage.create_pipeline('mind_split', 'split', '{"format": "json", "legacy_id": "id", "match": ["id"], "on_conflict": "overwrite", "columns": {"id": "id", "half": "half", "v": "v"}}') > 0 AS created;
SELECT run_id AS run FROM portage.migrate('mind_split', '[{"id": 1, "half": "b", "v": "new"}, {"id": 2, "half": "b", "v": "new"}]') \gset
SELECT tableoid::regclass, * FROM split ORDER BY id;
CALL portage.rollback(:run);
SELECT tableoid::regclass, * FROM split ORDER BY id;

-- 6. Runs over runs. Whoever is taken back by force hands what it had found to the one that came after it: the row
-- becomes what it was before both, in whatever order they go.
INSERT INTO t VALUES (61, 'X', 0, 'mine');
SELECT run_id AS a FROM portage.migrate('mind', '[{"id": 61, "v": "A", "n": 1}]', options => '{"incremental": false}') \gset
SELECT run_id AS b FROM portage.migrate('mind', '[{"id": 61, "v": "B", "n": 1}]') \gset
SELECT run_id AS c FROM portage.migrate('mind', '[{"id": 61, "v": "C", "n": 3}]') \gset
SELECT columns, before FROM portage.migration_undo WHERE run_id IN (:a, :b, :c) ORDER BY run_id;
CALL portage.rollback(:a, drifted => 'force');
SELECT * FROM t;
SELECT columns, before FROM portage.migration_undo WHERE run_id IN (:a, :b, :c) ORDER BY run_id;
CALL portage.rollback(:c, drifted => 'force');
SELECT * FROM t;
CALL portage.rollback(:b, drifted => 'force');
SELECT * FROM t;
SELECT count(*) AS mappings FROM portage.legacy_mappings m JOIN portage.pipelines p ON p.id = m.pipeline_id AND p.name = 'mind' WHERE legacy_id = '61';
-- What a stranger wrote in between is the stranger's, column by column.
SELECT run_id AS a FROM portage.migrate('mind', '[{"id": 61, "v": "A", "n": 1}]', options => '{"incremental": false}') \gset
UPDATE t SET v = 'stranger';
SELECT run_id AS b FROM portage.migrate('mind', '[{"id": 61, "v": "B", "n": 2}]', options => '{"incremental": false}') \gset
CALL portage.rollback(:a, drifted => 'force');
CALL portage.rollback(:b, drifted => 'force');
SELECT * FROM t;
-- Another legacy id, another pipeline: it is the row that counts.
SELECT portage.create_pipeline('mind_2', 't', '{"format": "json", "legacy_id": "n2", "columns": {"id": "id", "v": "v"}, "on_conflict": "overwrite"}') > 0 AS created;
SELECT run_id AS a FROM portage.migrate('mind', '[{"id": 61, "v": "A", "n": 7}]', options => '{"incremental": false}') \gset
SELECT run_id AS b FROM portage.migrate('mind_2', '[{"n2": "other", "id": 61, "v": "B"}]') \gset
CALL portage.rollback(:a, drifted => 'force');
CALL portage.rollback(:b, drifted => 'force');
SELECT * FROM t;

-- 7. A dry run wrote nothing: there is nothing to take back.
SELECT run_id AS dry FROM portage.migrate('mind', '[]') \gset
UPDATE portage.migration_runs SET dry_run = true WHERE id = :dry;
SELECT possible, reasons FROM portage.can_rollback(:dry);
CALL portage.rollback(:dry);
CALL portage.rollback(:dry, drifted => 'force');

-- 8. A run that had failed still tells why when it is taken back.
SELECT portage.open_run('mind', '', '{"max_rejects": 0, "batch_size": 1}') AS failed \gset
SELECT portage.submit(:failed, '[{"id": 31, "v": "x"}, {"id": "no number"}]');
CALL portage.run(:failed);
SELECT status, error, error_code FROM portage.migration_runs WHERE id = :failed;
CALL portage.rollback(:failed);
SELECT status, error, error_code FROM portage.migration_runs WHERE id = :failed;
SELECT id FROM t;

-- Nothing is left for the next test.
SELECT count(portage.drop_pipeline(name, true)) > 0 AS dropped FROM portage.pipelines;
DROP SCHEMA mind CASCADE;
