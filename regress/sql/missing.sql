-- Items that are gone from a source which was read completely: kept, marked, or their rows deleted; what may not be
-- deleted stays and is told; a rollback brings back exactly what was there.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 26000
\set ECHO none
\i :prelude
\set ECHO all
CREATE SCHEMA missing;
SET search_path = missing;
RESET client_min_messages;
\set SHOW_CONTEXT never
CREATE FUNCTION fault(missing text, source text DEFAULT '') RETURNS SETOF text LANGUAGE sql AS $$
  SELECT pg_temp.refused(format('SELECT portage.create_pipeline(''faulty'', ''missing.t'', %L)',
    '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id"}, "missing": ' || missing || source || '}'));
$$;
CREATE TABLE t (id int PRIMARY KEY, v text, n numeric);

-- The definition.
SELECT fault('"remove"');
SELECT fault('true');
SELECT fault('{}');
SELECT fault('{"do": "mark", "at_most": "5%"}');
SELECT fault('{"do": "delete", "at_most": 5}');
SELECT fault('{"do": "delete", "at_most": "101%"}');
SELECT fault('{"do": "delete", "atmost": "5%"}');
SELECT pg_temp.refused($$SELECT portage.create_pipeline('faulty', 'missing.t', '{"format": "rows", "legacy_id": "id",
  "columns": {"id": "id"}, "source": {"table": "missing.t", "cursor": "id"}, "missing": "mark"}')$$);

CREATE FUNCTION items(VARIADIC ids int[]) RETURNS text LANGUAGE sql AS
  $$ SELECT string_agg(format('{"id": %s, "v": "v%s", "n": 1.0}', i, i), E'\n' ORDER BY i) FROM unnest(ids) AS i $$;
CREATE FUNCTION marked(pipeline text) RETURNS TABLE (legacy_id text, since text) LANGUAGE sql AS $$
  SELECT m.legacy_id, (SELECT 'run ' || r.id FROM portage.migration_runs r WHERE r.started_at = m.missing_since)
    FROM portage.legacy_mappings m JOIN portage.pipelines p ON p.id = m.pipeline_id
   WHERE p.name = pipeline AND m.missing_since IS NOT NULL ORDER BY 1 $$;
CREATE FUNCTION told(run bigint) RETURNS TABLE (event_type text, details jsonb) LANGUAGE sql AS
  $$ SELECT e.event_type, e.details FROM portage.migration_events e WHERE e.run_id = run AND e.event_type LIKE 'missing%' ORDER BY seq $$;

-- mark: the first time is what counts; who comes again is there, changed or not.
SELECT portage.create_pipeline('marks', 't', '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id", "v": "v", "n": "n"},
  "missing": "mark"}') > 0 AS created;
SELECT pg_temp.books(run_id) FROM portage.migrate('marks', items(1, 2, 3, 4));
SELECT run_id AS m2 FROM portage.migrate('marks', items(1, 2, 3)) \gset
SELECT * FROM told(:m2);
SELECT run_id AS m3 FROM portage.migrate('marks', items(2, 3)) \gset
SELECT * FROM told(:m3);
SELECT * FROM marked('marks');
SELECT count(*) FROM t;
SELECT pg_temp.books(run_id) FROM portage.migrate('marks', items(1, 2) || E'\n{"id": 4, "v": "other", "n": 2}');
SELECT * FROM marked('marks');
-- A rollback takes its own marks back.
SELECT run_id AS m5 FROM portage.migrate('marks', items(1)) \gset
SELECT * FROM marked('marks');
CALL portage.rollback(:m5);
SELECT * FROM marked('marks');
-- An item that did not land is no missing one.
SELECT pg_temp.books(run_id) FROM portage.migrate('marks', '{"id": 1, "v": "x", "n": "no number"}' || E'\n' || items(2, 3, 4));
SELECT * FROM marked('marks');

-- What is not known to be gone, is not taken for it.
SELECT run_id AS run FROM portage.migrate('marks', items(1) || E'\n{"v": "no id"}') \gset
SELECT * FROM told(:run);
SELECT run_id AS run FROM portage.migrate('marks', items(1) || E'\n{"id": broken') \gset
SELECT run_id AS run FROM portage.migrate('marks', items(1, 2, 3, 4), '', '{"limit": 2}') \gset
SELECT run_id AS run FROM portage.migrate('marks', items(1, 2), '', '{"dry_run": true}') \gset
SELECT * FROM told(:run);
SELECT * FROM marked('marks');
SELECT portage.replace_pipeline('marks', '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id", "v": "v", "n": "n"}}') > 0 AS replaced;
SELECT run_id AS run FROM portage.migrate('marks', items(1)) \gset
SELECT * FROM marked('marks');
-- Nor is what "where" has left out; a sample and a part that was not read say nothing.
\set chosen '{"format": "ndjson", "legacy_id": {"sql": "item->>''id''"}, "columns": {"id": "id", "v": "v", "n": "n"}, "missing": "mark"'
SELECT portage.create_pipeline('chosen', 't', (:'chosen' || '}')::json) > 0 AS created;
SELECT pg_temp.books(run_id) FROM portage.migrate('chosen', items(50, 51, 52));
SELECT portage.replace_pipeline('chosen', (:'chosen' || $$, "where": "item->>'v' <> 'v52'"}$$)::json) > 0 AS replaced;
SELECT pg_temp.books(run_id) FROM portage.migrate('chosen', items(50, 52));
SELECT * FROM marked('chosen');
SELECT run_id AS run FROM portage.migrate('chosen', items(50), '', '{"sample": "99%"}') \gset
SELECT portage.open_run('chosen', options => '{"max_part_bytes": 40}') AS run \gset
SELECT portage.submit(:run, items(50), 'a'), portage.submit(:run, items(51, 52, 53), 'b');
CALL portage.run(:run);
SELECT * FROM marked('chosen');
-- All parts together are the source.
SELECT portage.open_run('chosen') AS run \gset
SELECT portage.submit(:run, items(50), 'a'), portage.submit(:run, items(51), 'b');
CALL portage.run(:run);
SELECT * FROM marked('chosen');
-- A table or query that is read completely; what has an id only of another scope is not there.
CREATE TABLE old AS SELECT i AS id, 'v' || i AS v FROM generate_series(61, 66) AS i;
ALTER TABLE old ADD PRIMARY KEY (id);
SELECT portage.create_pipeline('rows', 't', '{"format": "rows", "legacy_id": "id", "columns": {"id": "id", "v": "v"}, "source": {"table": "missing.old"},
  "missing": "delete"}') > 0 AS created;
SET client_min_messages = warning;
CALL portage.import('rows');
CALL portage.import('rows', scope => 'other');
DELETE FROM old WHERE id IN (61, 64);
CALL portage.import('rows');
RESET client_min_messages;
SELECT r.scope, m.legacy_id, m.status, m.reason FROM portage.missing_items m JOIN portage.migration_runs r ON r.id = m.run_id
 WHERE r.pipeline = 'rows' ORDER BY 1, 2;
SELECT scope, count(*) FROM portage.legacy_mappings WHERE pipeline_id = (SELECT id FROM portage.pipelines WHERE name = 'rows') GROUP BY 1 ORDER BY 1;

-- delete: rows that are as the pipeline left them go, and their mappings; the whole row is kept.
CREATE TABLE people (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code text UNIQUE, name text, boss bigint REFERENCES people,
  price numeric, doc jsonb, note text DEFAULT 'fresh', long_name text GENERATED ALWAYS AS (name || '!') STORED);
CREATE TABLE badges (person bigint REFERENCES people ON DELETE CASCADE, badge text);
CREATE FUNCTION person(n int, boss int DEFAULT NULL, name text DEFAULT 'P') RETURNS text LANGUAGE sql AS
  $$ SELECT format('{"n": %s, "code": "c%s", "name": "%s", "price": 1.50, "boss": %s}', n, n, name, coalesce(boss::text, 'null')) $$;
CREATE FUNCTION people(VARIADIC persons text[]) RETURNS text LANGUAGE sql AS $$ SELECT array_to_string(persons, E'\n') $$;
SELECT portage.create_pipeline('people', 'people', '{"format": "ndjson", "legacy_id": "n", "match": ["code"],
  "columns": {"code": "code", "name": "name", "price": "price", "boss": {"from": "boss", "references": "people"}},
  "on_conflict": "overwrite", "missing": {"do": "delete", "at_most": "80%"}}') > 0 AS created;
INSERT INTO people (code, name, price) VALUES ('c8', 'P', 1.50), ('c9', 'Q', 1);
SELECT pg_temp.books(run_id) FROM portage.migrate('people', people(person(1), person(2, 1), person(3, 2), person(4), person(5), person(6),
  person(7), person(8), person(9), person(10)));
UPDATE people SET note = 'changed since' WHERE code = 'c5';
INSERT INTO badges SELECT id, 'x' FROM people WHERE code = 'c6';
DELETE FROM people WHERE code = 'c7';
CREATE TABLE before AS SELECT * FROM people;
CREATE TABLE mapped AS SELECT * FROM portage.legacy_mappings WHERE pipeline_id = (SELECT id FROM portage.pipelines WHERE name = 'people');
SELECT run_id AS d2, status FROM portage.migrate('people', person(10)) \gset
SELECT pg_temp.books(:d2);
SELECT code, name FROM people ORDER BY id;
SELECT legacy_id, origin, missing_since IS NOT NULL AS missing FROM portage.legacy_mappings
 WHERE pipeline_id = (SELECT id FROM portage.pipelines WHERE name = 'people') ORDER BY legacy_id COLLATE "C";
SELECT legacy_id, status, reason FROM portage.missing_items WHERE run_id = :d2 ORDER BY legacy_id COLLATE "C";
SELECT * FROM told(:d2);
SELECT kind, read, deleted FROM portage.migration_batches WHERE run_id = :d2 ORDER BY id;
SELECT regexp_replace(line, '[0-9.]+ s, .*', '...') AS line FROM portage.summary(:d2) AS line;
SELECT portage.report(:d2) -> 'result' -> 'counts' ->> 'deleted' AS deleted, portage.report(:d2) -> 'undo' ->> 'rows' AS rows;
SELECT description, deleted FROM portage.migration_steps WHERE run_id = :d2 ORDER BY step_number;
SELECT columns, before FROM portage.missing_rows WHERE run_id = :d2 AND legacy_id = '2';
-- Nobody calls them lost, neither in this run nor in the one that had inserted them.
SELECT name, details FROM portage.verify(:d2) WHERE NOT passed;
SELECT name, details FROM portage.verify(:d2 - 1) WHERE NOT passed;
-- Exactly back: rows with their keys, and mappings.
SELECT possible, reasons, rows, drifted FROM portage.can_rollback(:d2);
CALL portage.rollback(:d2);
SELECT count(*) AS differences FROM ((TABLE people EXCEPT TABLE before) UNION ALL (TABLE before EXCEPT TABLE people)) d;
SELECT count(*) AS differences FROM ((TABLE mapped EXCEPT SELECT m.* FROM portage.legacy_mappings m)
  UNION ALL (SELECT m.* FROM portage.legacy_mappings m WHERE pipeline_id = (SELECT min(pipeline_id) FROM mapped) EXCEPT TABLE mapped)) d;
SELECT kind, rolled_back, deleted FROM portage.migration_batches WHERE run_id = :d2 ORDER BY id;
SELECT details FROM portage.migration_events WHERE run_id = :d2 AND event_type IN ('rollback_completed', 'rollback_incomplete');
SELECT status, count(*) FROM portage.missing_items WHERE run_id = :d2 GROUP BY 1 ORDER BY 1;
SELECT name, details FROM portage.verify(:d2 - 1) WHERE NOT passed;

-- An item that comes again is inserted anew; then the rollback of the run that deleted it finds it there.
SELECT run_id AS d3 FROM portage.migrate('people', people(person(1), person(2, 1), person(3, 2), person(5), person(6), person(8), person(9), person(10))) \gset
SELECT legacy_id, status FROM portage.missing_items WHERE run_id = :d3 AND status = 'deleted' ORDER BY 1;
SELECT run_id AS d4, inserted, unchanged FROM portage.migrate('people', people(person(1), person(2, 1), person(3, 2), person(4), person(5),
  person(6), person(8), person(9), person(10))) \gset
SELECT :inserted AS inserted, :unchanged AS unchanged;
CALL portage.rollback(:d3);
SELECT possible, reasons[1], drifted FROM portage.can_rollback(:d3);
CALL portage.rollback(:d4);
CALL portage.rollback(:d3);
SELECT count(*) AS differences FROM ((TABLE people EXCEPT TABLE before) UNION ALL (TABLE before EXCEPT TABLE people)) d;

-- Somebody takes the place: refused, spared.
SELECT run_id AS d5 FROM portage.migrate('people', people(person(1), person(2, 1), person(3, 2), person(5), person(6), person(8), person(9), person(10))) \gset
INSERT INTO people (code, name) VALUES ('c4', 'somebody');
CALL portage.rollback(:d5);
CALL portage.rollback(:d5, drifted => 'keep');
SELECT code, name FROM people WHERE code = 'c4';
SELECT legacy_id, status FROM portage.missing_items WHERE run_id = :d5 AND status <> 'restored' ORDER BY 1;

-- By force, a row with the same key becomes what the deleted one was.
SELECT portage.create_pipeline('forced', 't', '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id", "v": "v", "n": "n"},
  "missing": "delete"}') > 0 AS created;
SELECT pg_temp.books(run_id) FROM portage.migrate('forced', items(101, 102, 103));
SELECT run_id AS f2 FROM portage.migrate('forced', items(101, 102)) \gset
INSERT INTO t VALUES (103, 'taken', 3);
CALL portage.rollback(:f2, drifted => 'force');
SELECT * FROM t WHERE id = 103;
SELECT legacy_id FROM portage.legacy_mappings WHERE legacy_id = '103';

-- The earlier run is taken back first: its row does not return with the later one.
SELECT run_id AS f3 FROM portage.migrate('forced', items(101, 102, 103, 104)) \gset
SELECT run_id AS f4 FROM portage.migrate('forced', items(101, 102, 103)) \gset
SELECT id FROM t WHERE id > 100 ORDER BY 1;
CALL portage.rollback(:f3);
SELECT legacy_id, status FROM portage.missing_items WHERE run_id = :f4;
CALL portage.rollback(:f4);
SELECT id FROM t WHERE id > 100 ORDER BY 1;
-- An earlier update that is taken back first: the row returns as it was before that.
SELECT run_id AS f5 FROM portage.migrate('forced', items(101, 102) || E'\n{"id": 103, "v": "new", "n": 1.0}') \gset
SELECT run_id AS f6 FROM portage.migrate('forced', items(101, 102)) \gset
CALL portage.rollback(:f5);
SELECT v FROM t WHERE id = 103;
CALL portage.rollback(:f6);
SELECT v FROM t WHERE id = 103;
SELECT run_id < :f5 AS as_before, row_hash = portage.row_hash(t) AS fits FROM portage.legacy_mappings m JOIN t ON t.id::text = m.target_key WHERE legacy_id = '103';

-- The safety net: half of what is mapped.
SELECT run_id AS run FROM portage.migrate('forced', items(101)) \gset
SELECT * FROM told(:run);
SELECT run_id AS run FROM portage.migrate('forced', '') \gset
SELECT count(*) FROM t WHERE id > 100;

-- A row for which another legacy id stands, too, is nobody's to delete.
SELECT portage.create_pipeline('shared', 't', '{"format": "ndjson", "legacy_id": "old", "match": ["id"],
  "columns": {"id": "id", "v": "v"}, "missing": "delete"}') > 0 AS created;
SELECT pg_temp.books(run_id) FROM portage.migrate('shared', '{"old": "a", "id": 201, "v": "s"}
{"old": "c", "id": 202, "v": "s"}
{"old": "d", "id": 203, "v": "s"}');
SELECT pg_temp.books(run_id) FROM portage.migrate('shared', '{"old": "b", "id": 201, "v": "s"}
{"old": "c", "id": 202, "v": "s"}
{"old": "d", "id": 203, "v": "s"}');
SELECT legacy_id, status, reason FROM portage.missing_items WHERE run_id = (portage.last_run('shared')).run_id;

-- A trigger keeps a row, or forbids it: that row stays, the others go.
CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF old.v = 'v404' THEN RAISE EXCEPTION 'the auditors want it'; END IF;
  RETURN CASE WHEN old.v <> 'v403' THEN old END;
END $$;
CREATE TABLE guarded (id int PRIMARY KEY, v text, n numeric);
CREATE TRIGGER guard BEFORE DELETE ON guarded FOR EACH ROW EXECUTE FUNCTION guard();
SELECT portage.create_pipeline('guarded', 'guarded', '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id", "v": "v", "n": "n"},
  "missing": {"do": "delete", "at_most": "100%"}}') > 0 AS created;
SELECT pg_temp.books(run_id) FROM portage.migrate('guarded', items(401, 402, 403, 404, 405));
SELECT pg_temp.books(run_id) FROM portage.migrate('guarded', items(401));
SELECT legacy_id, status, reason FROM portage.missing_items WHERE run_id = (portage.last_run('guarded')).run_id ORDER BY 1;
-- A row that refers to a missing one goes first, also in the same page.
CREATE TABLE tree (id int PRIMARY KEY, parent int REFERENCES tree);
SELECT portage.create_pipeline('tree', 'tree', '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id", "parent": "parent"},
  "missing": {"do": "delete", "at_most": "100%"}}') > 0 AS created;
SELECT pg_temp.books(run_id) FROM portage.migrate('tree', E'{"id": 1}\n{"id": 2, "parent": 1}\n{"id": 3, "parent": 2}\n{"id": 4}\n{"id": 5, "parent": 4}');
UPDATE tree SET parent = 3 WHERE id = 1;
SELECT pg_temp.books(run_id) FROM portage.migrate('tree', '{"id": 5, "parent": 4}');
SELECT legacy_id, status, reason FROM portage.missing_items WHERE run_id = (portage.last_run('tree')).run_id ORDER BY 1;

-- A row whose key had moved is deleted; then the run that had moved it is taken back, then the one that had inserted it: it does
-- not return when the deletion is taken back.
CREATE TABLE rekeyed (id int PRIMARY KEY, code text UNIQUE, v text);
SELECT portage.create_pipeline('rekeyed', 'rekeyed', '{"format": "ndjson", "legacy_id": "n", "match": ["code"],
  "columns": {"id": "id", "code": "code", "v": "v"}, "on_conflict": "overwrite",
  "missing": {"do": "delete", "at_most": "100%"}}') > 0 AS created;
SELECT run_id AS first FROM portage.migrate('rekeyed', '{"n": 1, "id": 7, "code": "a", "v": "x"}') \gset
SELECT run_id AS second FROM portage.migrate('rekeyed', '{"n": 1, "id": 8, "code": "a", "v": "y"}') \gset
SELECT run_id AS third FROM portage.migrate('rekeyed', '{"n": 2, "id": 9, "code": "b", "v": "z"}') \gset
SELECT id, code, v FROM rekeyed;
\set VERBOSITY terse
SET client_min_messages = warning;
CALL portage.rollback(:second);
SELECT target_key, before, status FROM portage.missing_rows WHERE run_id = :third;
CALL portage.rollback(:first);
SELECT target_key, before, status FROM portage.missing_rows WHERE run_id = :third;
CALL portage.rollback(:third);
RESET client_min_messages;
SELECT id, code, v FROM rekeyed;
SELECT count(*) FROM portage.legacy_mappings WHERE pipeline_id = portage.pipeline_id('rekeyed');

-- Rights: those of the deletion are asked for in advance.
CREATE ROLE missing_clerk;
GRANT USAGE ON SCHEMA missing TO missing_clerk;
GRANT SELECT (id, v), INSERT ON t TO missing_clerk;
SET ROLE missing_clerk;
SELECT portage.create_pipeline('clerk', 't', '{"format": "ndjson", "legacy_id": "old",
  "columns": {"id": "id", "v": "v"}, "missing": "delete"}') > 0 AS created;
SELECT pg_temp.refused($$SELECT portage.migrate('clerk', '{"old": 1, "id": 301}', '', '{"raise": true}')$$);
RESET ROLE;

-- What is kept for later goes with cleanup(), and with the pipeline.
SELECT run_id AS run FROM portage.migrate('people', people(person(1), person(2, 1), person(5), person(6), person(8), person(9), person(10))) \gset
SELECT legacy_id, columns IS NOT NULL AS image FROM portage.missing_rows WHERE run_id = :run AND status = 'deleted';
SELECT portage.cleanup(:run) IS NOT NULL AS cleaned;
SELECT legacy_id, columns IS NOT NULL AS image FROM portage.missing_rows WHERE run_id = :run AND status = 'deleted';
SELECT portage.drop_pipeline('people', true) IS NOT NULL AS dropped;
SELECT count(*) FROM portage.missing_rows WHERE run_id = :run;

SET client_min_messages = warning;
DROP SCHEMA missing CASCADE;
SELECT portage.drop_pipeline('missing_clerk/clerk', true) IS NOT NULL AS dropped;
DROP ROLE missing_clerk;
