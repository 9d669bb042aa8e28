-- Taking back rows that have another key since, whose place somebody has taken, or that were there before: in every order
-- of rollbacks the table and the mappings end as they began.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 37000
\set ECHO none
\i :prelude
\set ECHO all
\set SHOW_CONTEXT never
CREATE SCHEMA moved;
SET search_path = moved;
CREATE TABLE t (id int PRIMARY KEY, code text NOT NULL UNIQUE, v text);
SELECT portage.create_pipeline('moved', 't', '{"format": "json", "legacy_id": "lid", "match": ["code"], "on_conflict": "overwrite",
  "columns": {"id": "id", "code": "code", "v": "v"}}') > 0 AS created;
CREATE VIEW mappings AS SELECT legacy_id, target_key, run_id FROM portage.legacy_mappings m JOIN portage.pipelines p ON p.id = m.pipeline_id WHERE p.name = 'moved' ORDER BY 1;

-- 1. Run 1 inserts a row, run 2 gives it another key. It is run 2's now: what run 1 inserted is not gone.
SELECT run_id AS r1 FROM portage.migrate('moved', '{"lid": 1, "id": 2, "code": "k"}') \gset
SELECT run_id AS r2 FROM portage.migrate('moved', '{"lid": 1, "id": 4, "code": "k"}') \gset
SELECT possible, reasons, drifted FROM portage.can_rollback(:r1);
CALL portage.rollback(:r1);
-- by force it goes, with the key that it has; nothing is left for run 2
CALL portage.rollback(:r1, 'force');
TABLE t;
CALL portage.rollback(:r2);
TABLE t;
TABLE mappings;

-- The newest first, the key comes back step by step. Another legacy id may have moved it.
INSERT INTO t VALUES (1, 'k', 'old');
SELECT run_id AS r1 FROM portage.migrate('moved', '{"lid": 1, "id": 2, "code": "k", "v": "a"}') \gset
SELECT run_id AS r2 FROM portage.migrate('moved', '{"lid": 2, "id": 3, "code": "k", "v": "b"}') \gset
SELECT run_id AS r3 FROM portage.migrate('moved', '{"lid": 1, "id": 4, "code": "k", "v": "c"}') \gset
CALL portage.rollback(:r3);
TABLE t;
CALL portage.rollback(:r2);
TABLE t;
CALL portage.rollback(:r1);
TABLE t;
TABLE mappings;
-- The oldest first, by force: each gives back what was there before all of them.
SELECT run_id AS r1 FROM portage.migrate('moved', '{"lid": 1, "id": 2, "code": "k", "v": "a"}') \gset
SELECT run_id AS r2 FROM portage.migrate('moved', '{"lid": 2, "id": 3, "code": "k", "v": "b"}') \gset
SELECT run_id AS r3 FROM portage.migrate('moved', '{"lid": 1, "id": 4, "code": "k", "v": "c"}') \gset
CALL portage.rollback(:r2, 'force');
TABLE t;
CALL portage.rollback(:r1, 'force');
TABLE t;
CALL portage.rollback(:r3, 'force');
TABLE t;
TABLE mappings;

-- Where another row has the key since, that is another row.
DELETE FROM t;
SELECT run_id AS r1 FROM portage.migrate('moved', '{"lid": 1, "id": 2, "code": "k"}') \gset
SELECT run_id AS r2 FROM portage.migrate('moved', '{"lid": 1, "id": 4, "code": "k"}') \gset
INSERT INTO t VALUES (2, 'theirs', 'theirs');
CALL portage.rollback(:r1, 'force');
TABLE t;
CALL portage.rollback(:r2, 'force');
TABLE t;

-- So is one that another legacy id's item has given the key, be it still there or not. By force it does not go either.
DELETE FROM t;
SELECT run_id AS r1 FROM portage.migrate('moved', '{"lid": 31, "id": 2, "code": "gone"}') \gset
DELETE FROM t;
SELECT run_id AS r2 FROM portage.migrate('moved', '{"lid": 32, "id": 5, "code": "m"}') \gset
SELECT run_id AS r3 FROM portage.migrate('moved', '{"lid": 32, "id": 2, "code": "m"}') \gset
SELECT possible, drifted FROM portage.can_rollback(:r1);
SELECT run_id AS r4 FROM portage.migrate('moved', '{"lid": 32, "id": 6, "code": "m"}') \gset
SELECT possible, drifted FROM portage.can_rollback(:r1);
CALL portage.rollback(:r1, 'force');
TABLE t;
CALL portage.rollback(:r4);
CALL portage.rollback(:r3);
CALL portage.rollback(:r2);
TABLE t;

-- What somebody moves by hand cannot be followed. It is not said to have been taken back.
DELETE FROM t;
SELECT run_id AS r1 FROM portage.migrate('moved', '[{"lid": 1, "id": 2, "code": "k"}, {"lid": 2, "id": 3, "code": "l"}]') \gset
UPDATE t SET id = 99 WHERE id = 2;
SELECT possible, rows FROM portage.can_rollback(:r1);
CALL portage.rollback(:r1);
TABLE t;
SELECT details FROM portage.migration_events WHERE run_id = :r1 AND event_type IN ('rollback_completed', 'rollback_incomplete');

-- 2. Run 1 gives a row another key, run 2 inserts one with the key that it had. Run 1 cannot give it back, and says so.
DELETE FROM t;
INSERT INTO t VALUES (4, 'k1', 'old');
SELECT run_id AS r1 FROM portage.migrate('moved', '{"lid": 1, "id": 1, "code": "k1", "v": "new"}') \gset
SELECT run_id AS r2 FROM portage.migrate('moved', '{"lid": 2, "id": 4, "code": "k2", "v": "other"}') \gset
SELECT possible, reasons, drifted FROM portage.can_rollback(:r1);
CALL portage.rollback(:r1);
CALL portage.rollback(:r1, 'force');
SELECT status FROM portage.status(:r1);
SELECT details FROM portage.migration_events WHERE run_id = :r1 ORDER BY seq DESC LIMIT 1;
TABLE t ORDER BY id;
-- it stays to be given back: when the place is free, the run is called again
CALL portage.rollback(:r2);
SELECT possible FROM portage.can_rollback(:r1);
CALL portage.rollback(:r1);
SELECT status FROM portage.status(:r1);
TABLE t;
TABLE mappings;
-- what is kept is not given back: that was the decision
SELECT run_id AS r1 FROM portage.migrate('moved', '{"lid": 1, "id": 1, "code": "k1", "v": "new"}') \gset
SELECT run_id AS r2 FROM portage.migrate('moved', '{"lid": 2, "id": 4, "code": "k2", "v": "other"}') \gset
CALL portage.rollback(:r1, 'keep');
SELECT status FROM portage.status(:r1);
CALL portage.rollback(:r2);
-- within a run, the one that took the place goes first
DELETE FROM t;
INSERT INTO t VALUES (4, 'k1', 'old');
SELECT run_id AS r1 FROM portage.migrate('moved', '[{"lid": 11, "id": 1, "code": "k1", "v": "new"}, {"lid": 12, "id": 4, "code": "k2", "v": "other"}]', options => '{"batch_size": 1}') \gset
SELECT possible FROM portage.can_rollback(:r1);
CALL portage.rollback(:r1);
TABLE t;

DELETE FROM t;
INSERT INTO t VALUES (4, 'k1', 'old');
SELECT portage.drop_pipeline('moved', true) > 0 AS dropped;
-- 3. A row that was there, and an item that brings nothing new: run 1 adopts it, run 2 refreshes what is known of it. In
-- every order no mapping is left.
SELECT portage.create_pipeline('moved', 't', '{"format": "json", "legacy_id": "lid", "match": ["code"], "on_conflict": "merge",
  "columns": {"id": "id", "code": "code", "v": "v"}, "merge": {"v": "greatest"}}') > 0 AS created;
SELECT run_id AS r1 FROM portage.migrate('moved', '{"lid": 21, "id": 4, "code": "k1", "v": "a"}') \gset
SELECT run_id AS r2 FROM portage.migrate('moved', '{"lid": 21, "id": 4, "code": "k1", "v": "old"}') \gset
SELECT pg_temp.books(:r1), pg_temp.books(:r2);
CALL portage.rollback(:r1);
CALL portage.rollback(:r2);
SELECT ordinal, revision, status FROM portage.migration_items WHERE run_id IN (:r1, :r2) ORDER BY run_id, revision;
TABLE mappings;
SELECT run_id AS r1 FROM portage.migrate('moved', '{"lid": 21, "id": 4, "code": "k1", "v": "a"}') \gset
SELECT run_id AS r2 FROM portage.migrate('moved', '{"lid": 21, "id": 4, "code": "k1", "v": "old"}') \gset
CALL portage.rollback(:r2);
SELECT legacy_id, target_key, run_id = :r1 AS of_the_first FROM mappings;
CALL portage.rollback(:r1);
TABLE mappings;
TABLE t;
DROP SCHEMA moved CASCADE;
