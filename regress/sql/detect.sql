-- What an input holds, beside what is migrated already, before anything is done.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 32000
\set ECHO none
\i :prelude
\set ECHO all
CREATE SCHEMA detect;
SET search_path = detect;
CREATE TABLE t (id int PRIMARY KEY, v text NOT NULL);
CREATE FUNCTION seen(pipeline text, payload text DEFAULT NULL, scope text DEFAULT '') RETURNS text LANGUAGE sql AS $$
  SELECT format('%s items: %s new, %s changed, %s unchanged, %s gone%s; %s; %s', item_count, new, changed, unchanged,
                coalesce(gone::text, 'unknown'), CASE WHEN needed THEN '; needed' ELSE '' END, complexity, recommendation)
    FROM portage.detect(pipeline, payload, scope) $$;
SELECT portage.create_pipeline('detect', 't', '{"format": "json", "legacy_id": "id", "columns": {"id": "id", "v": "v"}, "data_version": {"from": "version", "accept": ["1", "2"]}, "items": "words", "where": "(item ->> ''v'' <> ''leave'') IS NOT FALSE"}') > 0 AS created;

-- 1. Nothing is migrated yet; nothing is written.
\set data '{"version": 2, "words": [{"id": 1, "v": "a"}, {"id": 2, "v": "b"}, {"id": 3, "v": "c"}]}'
\x on
SELECT * FROM portage.detect('detect', :'data');
\x off
SELECT (SELECT count(*) FROM portage.migration_runs WHERE pipeline = 'detect') AS runs,
       (SELECT count(*) FROM portage.migration_events WHERE event_type = 'data_detected') AS events, (SELECT count(*) FROM portage.predictions) AS predictions, (SELECT count(*) FROM t) AS rows;
SELECT seen('detect', '{"version": 1, "words": []}');
-- 2. New, changed, unchanged and gone.
SELECT pg_temp.books(run_id) FROM portage.migrate('detect', :'data');
SELECT seen('detect', :'data');
SELECT seen('detect', '{"version": 1, "words": [{"id": 4, "v": "d"}, {"id": 1, "v": "A"}, {"id": "2", "v": "b"}]}');
-- What is there in any way is not gone: invalid, or a duplicate.
SELECT seen('detect', '{"version": 1, "words": [{"id": 1, "v": null}, {"id": 3, "v": "c"}, {"id": 3, "v": "d"}]}');
-- What "where" leaves out is there. Where one is not known by its id, nothing is taken for gone: it has none, or is broken.
SELECT seen('detect', '{"version": 1, "words": [{"id": 1, "v": "a"}, {"id": 2, "v": "leave"}]}');
SELECT seen('detect', '{"version": 1, "words": [{"id": 1, "v": "a"}, {"v": "b"}]}');
SELECT seen('detect', '{"version": 1, "words": [{"id": 1, "v": "a"}, {"id": 2');
-- Duplicates over batches; the thresholds of complexity.
SELECT item_count, new, complexity FROM portage.detect('detect', (SELECT json_build_object('version', 1, 'words', json_agg(json_build_object('id', i % 12000 + 10, 'v', 'x'))) FROM generate_series(0, 17999) i)::text);
-- Another scope.
SELECT seen('detect', :'data', 'anna');

-- 3. Blockers: versions of the data, rights.
SELECT can_migrate, data_version, blockers, recommendation FROM portage.detect('detect', '{"version": 3, "words": [{"id": 1, "v": "a"}]}');
CREATE ROLE regress_portage_detect;
GRANT USAGE ON SCHEMA detect TO regress_portage_detect;
GRANT SELECT ON t TO regress_portage_detect;
SELECT portage.grant_pipeline('detect', 'regress_portage_detect', 'run') > 0 AS granted;
SET ROLE regress_portage_detect;
SELECT can_migrate, blockers, new, changed FROM portage.detect('detect', :'data');
RESET ROLE;
SELECT * FROM pg_temp.refused($$SELECT portage.detect('detect')$$);
SELECT * FROM pg_temp.refused($$SELECT portage.detect('none', '{}')$$);

-- 4. The pipeline's own source: a table; with a cursor it is only looked at from there on.
CREATE TABLE old (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text);
INSERT INTO old (v) SELECT 'v' || i FROM generate_series(101, 105) i;
CREATE TABLE copy (id int PRIMARY KEY, v text);
SELECT portage.create_pipeline('detect_table', 'copy', '{"format": "rows", "legacy_id": "id", "columns": {"id": "id", "v": "v"}, "source": {"table": "old"}}') > 0 AS created;
SELECT seen('detect_table');
CALL portage.import('detect_table');
DELETE FROM old WHERE id = 2;
UPDATE old SET v = 'changed' WHERE id = 3;
SELECT seen('detect_table');
SELECT portage.create_pipeline('detect_cursor', 'copy', '{"format": "rows", "legacy_id": "id", "columns": {"id": "id", "v": "v"}, "source": {"table": "old", "cursor": "id"}}') > 0 AS created;
CALL portage.import('detect_cursor', options => '{"on_conflict": "overwrite"}');
INSERT INTO old (v) VALUES ('next');
SELECT seen('detect_cursor');
-- The parts of a run.
SELECT portage.open_run('detect_table') AS run \gset
SELECT portage.attach_source(:run);
SELECT new, changed, unchanged, gone FROM portage.detect(:run);
SELECT status FROM portage.migration_runs WHERE id = :run;

-- 5. With record, an event: of the pipeline, since there is no run; for those who may see it, in their scope.
SELECT needed FROM portage.detect('detect', :'data', 'anna', record => true);
SELECT run_id, seq = id AS seq_is_id, event_type, details - 'pipeline_id' AS details FROM portage.migration_events WHERE event_type = 'data_detected';
SET ROLE regress_portage_detect;
SELECT count(*) AS seen FROM portage.migration_events WHERE event_type = 'data_detected';
SET portage.scope = 'berta';
SELECT count(*) AS seen FROM portage.migration_events WHERE event_type = 'data_detected';
RESET portage.scope;
RESET ROLE;
SELECT portage.revoke_pipeline('detect', 'regress_portage_detect', 'run') > 0 AS revoked;
SET ROLE regress_portage_detect;
SELECT count(*) AS seen FROM portage.migration_events WHERE event_type = 'data_detected';
RESET ROLE;

SELECT count(portage.drop_pipeline(name, true)) > 0 AS dropped FROM portage.pipelines;
SELECT count(*) AS left_over FROM portage.migration_events WHERE event_type = 'data_detected';
DROP SCHEMA detect CASCADE;
DROP OWNED BY regress_portage_detect;
DROP ROLE regress_portage_detect;
