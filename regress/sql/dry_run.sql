-- Before the first row: dry_run, validate(), validate_first; and when it fails all the same: on_failure.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 18000
\set ECHO none
\i :prelude
\set ECHO all
CREATE SCHEMA dry;
SET search_path = dry;
CREATE TABLE towns (code text PRIMARY KEY);
INSERT INTO towns VALUES ('fi'), ('de');
CREATE TABLE people (
  id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name  text NOT NULL UNIQUE,
  badge integer UNIQUE,
  town  text REFERENCES towns,
  age   integer CHECK (age >= 0)
);
INSERT INTO people (name, town, age) VALUES ('Aino', 'fi', 30), ('Bert', 'de', 40);
CREATE FUNCTION no_zed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.name = 'Zed' THEN RAISE EXCEPTION 'not Zed'; END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER no_zed AFTER INSERT ON people FOR EACH ROW EXECUTE FUNCTION no_zed();
SELECT portage.create_pipeline('people', 'people', '{
  "format": "ndjson", "legacy_id": "id", "match": ["name"], "on_conflict": "overwrite",
  "columns": {"name": "name", "badge": "badge", "town": "town", "age": "age"},
  "rules": {"grown_up": "age >= 18", "old": {"sql": "age < 99", "severity": "warning"}}}') > 0 AS created;
\set payload '{"id": 1, "name": "Aino", "town": "fi", "age": 30}\n{"id": 2, "name": "Bert", "town": "de", "age": 41}\n{"id": 3, "name": "Cleo", "badge": 7, "town": "de", "age": 100}\n{"id": 4, "name": "Dora", "town": "se", "age": 20}\n{"id": 3, "name": "Carl", "town": "de", "age": 20}\n{"id": 6, "name": "Cleo", "town": "de", "age": 21}\n{"id": 7, "name": "Emil", "badge": 7, "town": "fi", "age": 22}\n{"id": 8, "name": "Zed", "town": "fi", "age": 50}\n{"id": 9, "name": "Finn", "town": "fi", "age": 8}\n{"id": 10, "name": "Gaia", "town": "fi", "age": "ten"}'
SELECT replace(:'payload', '\n', E'\n') AS payload \gset
\pset tuples_only on
\pset format unaligned

-- 1. A dry run: one item per batch, so that whatever repeats an item meets it in an earlier batch.
CALL portage.import('people', payload => :'payload', options => '{"dry_run": true, "batch_size": 1}');
SELECT run_id AS dry FROM portage.last_run('people') \gset
SELECT pg_temp.books(:dry);
SELECT ordinal, status, legacy_id, target_key, rule, sqlstate, message FROM portage.migration_items WHERE run_id = :dry ORDER BY ordinal;
SELECT line FROM portage.summary(:dry) AS line WHERE line !~ 'items/s';
SELECT dry_run, status, (SELECT dry_run FROM portage.status(:dry)) AS in_status FROM portage.migration_runs WHERE id = :dry;
-- Nothing of it is there.
SELECT name, badge, town, age FROM people ORDER BY id;
SELECT count(*) FROM portage.legacy_mappings m JOIN portage.pipelines p ON p.id = m.pipeline_id WHERE p.name = 'people';
SELECT count(*) FROM portage.migration_undo WHERE run_id = :dry;
SELECT count(*) FROM portage.predictions;
-- In one batch it says the same.
SELECT run_id AS whole FROM portage.migrate('people', :'payload', '', '{"dry_run": true}') \gset
SELECT count(*) FROM (SELECT ordinal, status, legacy_id, rule, sqlstate, column_name FROM portage.migration_items WHERE run_id = :dry
  EXCEPT SELECT ordinal, status, legacy_id, rule, sqlstate, column_name FROM portage.migration_items WHERE run_id = :whole) AS differences;

-- 2. validate(): the same by looking only. It asks no trigger, and leaves the run as it was.
SELECT portage.open_run('people') AS run \gset
SELECT portage.submit(:run, :'payload') AS part;
SELECT jsonb_pretty(portage.validate(:run));
SELECT status, started_at IS NULL AS not_started FROM portage.migration_runs WHERE id = :run;
SELECT count(*) FROM portage.predictions;
SELECT count(*) FROM people;
-- Twice is the same; the run takes parts still, and then works.
SELECT portage.validate(:run) = portage.validate(:run) AS same;
SELECT portage.submit(:run, '{"id": 11, "name": "Hugo", "age": 19}', 'more') AS part;
SELECT portage.validate(:run) -> 'counts' ->> 'read';
CALL portage.run(:run);
SELECT pg_temp.books(:run);
SELECT count(*) FROM (SELECT ordinal, status, legacy_id, rule, sqlstate, column_name FROM portage.migration_items WHERE run_id = :dry
  EXCEPT SELECT ordinal, status, legacy_id, rule, sqlstate, column_name FROM portage.migration_items WHERE run_id = :run) AS differences;
SELECT name, badge, town, age FROM people ORDER BY name;
-- Of a run that is done, all is known; a payload that is gone cannot be read.
SELECT portage.validate(:run) -> 'counts' ->> 'unchanged';

-- What would end the run is an issue, too: too many rejects, a conflict with "fail", a header without a mapped column.
SELECT portage.open_run('people', '', '{"max_rejects": 2}') AS limited \gset
SELECT portage.submit(:limited, :'payload') AS part;
SELECT j ->> 'ready', j -> 'issues' -> 0 FROM portage.validate(:limited) j;
SELECT portage.open_run('people', '', '{"on_conflict": "fail"}') AS failing \gset
SELECT portage.submit(:failing, '{"id": 90, "name": "Bert", "town": "de", "age": 77}') AS part;
SELECT j ->> 'ready', j -> 'issues' -> 0 FROM portage.validate(:failing) j;
-- Rights that are missing are blockers; then nothing is read.
CREATE ROLE regress_dry;
GRANT USAGE ON SCHEMA dry TO regress_dry;
GRANT SELECT, UPDATE ON people TO regress_dry;
SELECT portage.grant_pipeline('people', 'regress_dry', 'run') > 0 AS granted;
SET ROLE regress_dry;
SELECT portage.open_run('people') AS lacking \gset
SELECT portage.submit(:lacking, :'payload') AS part;
SELECT jsonb_pretty(portage.validate(:lacking));
RESET ROLE;
SELECT pg_temp.refused('SELECT portage.validate(1)');
SELECT portage.cancel(:limited), portage.cancel(:failing), portage.cancel(:lacking);

-- 3. validate_first: everything is read before the first write.
CREATE TABLE notes (id int PRIMARY KEY, note text NOT NULL);
SELECT portage.create_pipeline('notes', 'notes', '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id", "note": "note"}}') > 0 AS created;
SELECT string_agg(CASE WHEN i % 10 = 0 THEN format('{"id": %s}', i) ELSE format('{"id": %s, "note": "n"}', i) END, E'\n') AS notes FROM generate_series(1, 100) i \gset
CALL portage.import('notes', payload => :'notes', options => '{"validate_first": true, "max_rejects": 5, "batch_size": 10}');
\echo :LAST_ERROR_SQLSTATE
SELECT run_id AS first FROM portage.last_run('notes') \gset
SELECT pg_temp.books(:first);
SELECT errors -> 0 ->> 'message' FROM portage.status(:first);
SELECT count(*) FROM notes;
SELECT event_type, details FROM portage.migration_events WHERE run_id = :first ORDER BY seq;
-- Within the limit it goes on; without a limit it only reads twice.
CALL portage.import('notes', payload => :'notes', options => '{"validate_first": true, "max_rejects": 10}', scope => 'b');
SELECT event_type, details ->> 'step' FROM portage.migration_events JOIN portage.last_run('notes', 'b') USING (run_id) WHERE event_type <> 'error_added' ORDER BY seq;
SELECT count(*) FROM notes;
-- In migrate() the failing run is an answer.
SELECT status, errors -> 0 ->> 'code' FROM portage.migrate('notes', :'notes', 'c', '{"validate_first": true, "max_rejects": "1%"}');
-- A dry run can be validated first as well.
SELECT status, read, unchanged FROM portage.migrate('notes', :'notes', 'b', '{"validate_first": true, "dry_run": true}');

-- 4. on_failure: what a failed run has committed is taken back; the run shows both.
TRUNCATE notes;
CALL portage.import('notes', payload => :'notes', scope => 'kept', options => '{"max_rejects": 4, "batch_size": 10}');
SELECT status, errors -> 0 ->> 'code' AS code, inserted, (SELECT count(*) FROM notes) AS rows FROM portage.last_run('notes', 'kept');
TRUNCATE notes;
CALL portage.import('notes', payload => :'notes', scope => 'taken', options => '{"max_rejects": 4, "batch_size": 10, "on_failure": "rollback"}');
SELECT run_id AS taken, status, errors -> 0 ->> 'code' AS code, inserted, (SELECT count(*) FROM notes) AS rows FROM portage.last_run('notes', 'taken');
SELECT run_id AS taken FROM portage.last_run('notes', 'taken') \gset
SELECT event_type FROM portage.migration_events WHERE run_id = :taken AND event_type <> 'error_added' ORDER BY seq;
SELECT count(*) FROM portage.migration_items WHERE run_id = :taken AND status = 'rolled_back';
-- What others refer to meanwhile is spared, and told.
CREATE TABLE remarks (note int REFERENCES notes);
CREATE FUNCTION refer() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO dry.remarks VALUES (NEW.id); RETURN NULL; END $$;
CREATE TRIGGER refer AFTER INSERT ON notes FOR EACH ROW WHEN (NEW.id = 3) EXECUTE FUNCTION refer();
CALL portage.import('notes', payload => :'notes', scope => 'referred', options => '{"max_rejects": 4, "batch_size": 10, "on_failure": "rollback"}');
SELECT run_id AS referred FROM portage.last_run('notes', 'referred') \gset
SELECT status, (SELECT array_agg(id) FROM notes) AS rows FROM portage.status(:referred);
SELECT details FROM portage.migration_events WHERE run_id = :referred AND event_type IN ('rollback_completed', 'rollback_incomplete');
-- A dry run has nothing to take back.
CALL portage.import('notes', payload => :'notes', scope => 'dry', options => '{"dry_run": true, "max_rejects": 4, "batch_size": 10, "on_failure": "rollback"}');
SELECT status FROM portage.last_run('notes', 'dry');
SELECT count(*) FROM portage.predictions;
SET client_min_messages = warning;
DROP OWNED BY regress_dry;
DROP ROLE regress_dry;
DROP SCHEMA dry CASCADE;
