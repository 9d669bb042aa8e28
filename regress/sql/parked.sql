-- Items that wait for what they refer to keep their place: whatever the size of batches and whatever comes meanwhile, it
-- is the order of the input, and of the runs, that decides.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 38000
\set ECHO none
\i :prelude
\set ECHO all
\set SHOW_CONTEXT never
CREATE SCHEMA waiting;
SET search_path = waiting;
CREATE TABLE node (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text NOT NULL, up int, n int);
CREATE FUNCTION def(more jsonb DEFAULT '{}') RETURNS json LANGUAGE sql AS $$
  SELECT ('{"format": "json", "legacy_id": "id", "columns": {"v": "v", "n": "n", "up": {"from": "up", "references": "nodes"}},
            "rules": {"small": "n < 10", "up_is_known": {"sql": "up IS NULL OR n > 0", "message": "a child needs a number"}}}'::jsonb || more)::json $$;
SELECT portage.create_pipeline('nodes', 'node', def()) > 0 AS created;

-- What becomes of an input, by batches of any size.
CREATE FUNCTION of(payload text, options jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE r bigint; told text;
BEGIN
  SELECT run_id INTO r FROM portage.migrate('nodes', payload, options => options);
  SELECT string_agg(format('%s %s %s%s', i.legacy_id, i.status, (SELECT n.v FROM node n WHERE n.id::text = i.target_key),
                           (SELECT string_agg(' ' || (x ->> 'rule') || ' ' || (x ->> 'severity'), ',') FROM jsonb_array_elements(i.issues) x WHERE i.status = 'invalid')), '; ' ORDER BY i.ordinal)
    INTO told FROM (SELECT DISTINCT ON (ordinal) * FROM portage.all_items WHERE run_id = r ORDER BY ordinal, revision DESC) i;
  TRUNCATE node;
  PERFORM portage.drop_pipeline('nodes', true);
  PERFORM portage.create_pipeline('nodes', 'node', def());
  RETURN told;
END $$;
CREATE FUNCTION by_all(payload text) RETURNS TABLE (batch_size int, outcomes text) LANGUAGE sql AS
  $$ SELECT b, of(payload, jsonb_build_object('batch_size', b)) FROM unnest(ARRAY[1, 2, 3, 1000]) AS b $$;

-- 1. The first of two lands, though it has to wait and the second has not.
SELECT * FROM by_all('[{"id": 1, "v": "first", "up": 2, "n": 1}, {"id": 2, "v": "root"}, {"id": 1, "v": "second", "up": 2, "n": 1}]');
-- ... and whoever refers to it, refers to the first
SELECT * FROM by_all('[{"id": 1, "v": "first", "up": 2, "n": 1}, {"id": 2, "v": "root"}, {"id": 1, "v": "second"}, {"id": 3, "v": "child", "up": 1, "n": 1}]');
-- while the first waits for what never comes, the second waits behind it
SELECT * FROM by_all('[{"id": 1, "v": "first", "up": 9, "n": 1}, {"id": 2, "v": "root"}, {"id": 1, "v": "second", "up": 2, "n": 1}]');
-- one that cannot land keeps nobody out
SELECT * FROM by_all('[{"id": 1, "v": "first", "up": 9, "n": 99}, {"id": 2, "v": "root"}, {"id": 1, "v": "second", "up": 2, "n": 1}]');

-- 2. What is told of a reject does not hang on what had landed when its batch began.
SELECT * FROM by_all('[{"id": 1, "v": "root"}, {"id": 2, "v": "child", "up": 1, "n": 11}, {"id": 3, "v": "child", "up": 1}, {"id": 4, "v": "orphan", "up": 8, "n": 11}]');
SELECT * FROM by_all('[{"id": 2, "v": "child", "up": 1, "n": 11}, {"id": 3, "v": "child", "up": 1}, {"id": 1, "v": "root"}]');

-- A replay after which nothing more has landed leaves the verification as it was.
SELECT run_id AS run FROM portage.migrate('nodes', '[{"id": 1, "v": "root"}, {"id": 2, "v": "child", "up": 1, "n": 11}]', options => '{"verify": true, "batch_size": 10}') \gset
SELECT portage.replay(:run, 2);
SELECT verified, open_rejects FROM portage.migration_runs WHERE id = :run;
SELECT portage.replay(:run, 2, '{"id": 2, "v": "child", "up": 1, "n": 12}');
SELECT verified, open_rejects FROM portage.migration_runs WHERE id = :run;
SELECT portage.replay(:run, 2, '{"id": 2, "v": "child", "up": 1, "n": 1}');
SELECT verified, open_rejects FROM portage.migration_runs WHERE id = :run;
SELECT portage.drop_pipeline('nodes', true) > 0 AS dropped;
TRUNCATE node;

-- 3. A parked item of an older run is older: it does not overwrite what a later run has brought.
SELECT portage.create_pipeline('nodes', 'node', def('{"on_conflict": "overwrite"}')) > 0 AS created;
SELECT run_id AS r1, open_parked FROM portage.migrate('nodes', '{"id": 2, "v": "old", "up": 1, "n": 1}') \gset
SELECT run_id AS r2, inserted FROM portage.migrate('nodes', '[{"id": 1, "v": "root"}, {"id": 2, "v": "new", "up": 1, "n": 1}]') \gset
SELECT v FROM node ORDER BY 1;
SELECT pg_temp.books(:r1);
SELECT * FROM pg_temp.rejected(:r1);
-- By the match key, too, whoever it was that brought it; what an older run has left is overwritten as ever.
CREATE UNIQUE INDEX ON node (v);
SELECT portage.replace_pipeline('nodes', def('{"on_conflict": "overwrite", "match": ["v"]}')) > 0 AS replaced;
SELECT run_id AS r3 FROM portage.migrate('nodes', '{"id": 13, "v": "third", "n": 1}') \gset
SELECT run_id AS r4, open_parked FROM portage.migrate('nodes', '[{"id": 3, "v": "third", "up": 7, "n": 2}, {"id": 4, "v": "fourth", "up": 7, "n": 2}]') \gset
SELECT run_id AS r5, inserted FROM portage.migrate('nodes', '[{"id": 7, "v": "seventh"}, {"id": 14, "v": "fourth", "n": 5}]') \gset
SELECT v, n FROM node WHERE v IN ('third', 'fourth') ORDER BY 1;
SELECT pg_temp.books(:r4);
SELECT * FROM pg_temp.rejected(:r4);
-- A merge that closes a circle keeps the reference as what the source has said: when the source takes it away, it goes.
CREATE TABLE to_itself (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, code text UNIQUE, v text, up int REFERENCES to_itself);
SELECT portage.create_pipeline('to_itself', 'to_itself', '{"format": "json", "legacy_id": "id", "match": ["code"], "on_conflict": "merge",
  "columns": {"code": "code", "v": "v", "up": {"from": "up", "references": "to_itself"}}, "merge": {"v": "greatest"}}') > 0 AS created;
INSERT INTO to_itself VALUES (11, 'a', 'q');
SELECT updated, unchanged FROM portage.migrate('to_itself', '{"id": 5, "code": "a", "v": "z", "up": 5}');
SELECT updated, unchanged FROM portage.migrate('to_itself', '{"id": 5, "code": "a", "v": "z", "up": 5}');
TABLE to_itself;
SELECT updated, unchanged FROM portage.migrate('to_itself', '{"id": 5, "code": "a", "v": "z"}');
TABLE to_itself;
DROP SCHEMA waiting CASCADE;
