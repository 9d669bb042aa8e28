-- "sensitive": what stands at these paths is shown to the pipeline's owner alone; and of a run as a whole nobody is told it.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 49000
\set ECHO none
\i :prelude
\set ECHO all
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE ROLE portage_sensitive_owner;
CREATE ROLE portage_sensitive_reader;
CREATE SCHEMA sensitive AUTHORIZATION portage_sensitive_owner;
GRANT USAGE ON SCHEMA sensitive TO portage_sensitive_reader;
SET search_path = sensitive;

SET ROLE portage_sensitive_owner;
CREATE TABLE patients (id integer PRIMARY KEY, email text NOT NULL CONSTRAINT looks_right CHECK (email LIKE '%@%'));
CREATE FUNCTION judge() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.email LIKE 'no %' THEN RAISE EXCEPTION 'we know % already', NEW.email USING ERRCODE = split_part(NEW.email, ' ', 2); END IF;
  RAISE NOTICE 'a new patient: %', NEW.email;
  RETURN NEW;
END $$;
CREATE TRIGGER judge BEFORE INSERT ON patients FOR EACH ROW EXECUTE FUNCTION judge();

-- 1. Raw input: the item as the path expects it, and items of other shapes.
SELECT raw, portage.masked_raw(convert_to(raw, 'UTF8'), '{p.email}') AS masked
  FROM (VALUES ('{"id": 1, "p": {"email": "S", "n": 1}}'), ('{"id": 1, "p": "S"}'), ('{"id": 1, "p": [{"email": "S"}]}'),
               ('{"id": 1, "p": {"Email": "S"}}'), ('{"id": 1, "p": {"email": "S", "EMAIL": "S"}}'), ('{"id": 1, "P": {"email": "S"}}'),
               ('{"id": 1, "p": "S", "p": {"email": "S", "email": "S"}}'), ('{"id": 1, "p": {"email": {"at": "S"}}}'),
               ('{"id": 1}'), ('[{"p": {"email": "S"}}]'), ('{"id": 1, "p": {"email": "S"'), ('1,S')) AS items (raw);
SELECT portage.masked_raw('{"p": ["S", 2], "q": 3}', '{p[0]}') AS element, portage.masked_raw('{"p": ["S", 2], "q": 3}', '{p[2]}') AS too_short,
       portage.masked_raw('{"p": 1}', '{$item}') AS item, portage.masked_raw('{"p": 1}', '{p,q}') AS one_of_two;

-- 2. Items: whose they are, and that they did not land, is seen by all; what they are, by the owner.
SELECT portage.create_pipeline('patients', 'patients', $$
{ "format": "ndjson", "legacy_id": "id", "columns": {"id": "id", "email": "p.email"}, "sensitive": ["p.email"] }$$) > 0 AS created;
SELECT portage.grant_pipeline('patients', 'portage_sensitive_reader', 'read') > 0 AS granted;
SELECT run_id AS run, inserted, invalid, failed FROM portage.migrate('patients', '
{"id": 1, "p": {"email": "ann@S"}}
{"id": 2, "p": {"email": "S"}}
{"id": 3, "p": {"email": "no P0001 S"}}
{"id": 4, "p": "S"}
{"id": "S", "p": {"email": "eve@S"}}') \gset r_
SELECT :r_inserted AS inserted, :r_invalid AS invalid, :r_failed AS failed;
SELECT line, legacy_id, rule, sqlstate, column_name, message, raw FROM portage.rejects WHERE run_id = :r_run ORDER BY line;
SET ROLE portage_sensitive_reader;
SELECT line, legacy_id, rule, sqlstate, column_name, message, raw FROM portage.rejects WHERE run_id = :r_run ORDER BY line;
SELECT ordinal, status, legacy_id, target_key, message FROM portage.migration_items WHERE run_id = :r_run ORDER BY 1;
SELECT legacy_id, target_key, source_hash, row_hash, image FROM portage.legacy_mappings WHERE run_id = :r_run;
SELECT portage.lookup('portage_sensitive_owner/patients', '1');

-- 3. Of an error of the run its SQLSTATE is told, and PostgreSQL's own message where that can only name objects.
SET ROLE portage_sensitive_owner;
SELECT pg_temp.refused($$SELECT portage.migrate('patients', '{"id": 5, "p": {"email": "no 42501 S"}}', options => '{"raise": true}')$$);
SELECT portage.open_run('patients') AS failing \gset
SELECT portage.submit(:failing, '{"id": 5, "p": {"email": "no XX000 S"}}');
CALL portage.run(:failing);
SET ROLE portage_sensitive_reader;
SELECT status, errors -> 0 ->> 'code' AS code, errors -> 0 ->> 'message' AS message FROM portage.status(:failing);
SELECT line FROM portage.summary(:failing) AS line WHERE line LIKE '%error%';
SET ROLE portage_sensitive_owner;
REVOKE SELECT ON patients FROM portage_sensitive_owner;
SELECT pg_temp.refused($$SELECT portage.migrate('patients', '{"id": 5, "p": {"email": "five@S"}}')$$);
GRANT SELECT ON patients TO portage_sensitive_owner;

-- 4. Where the id and the key come from a sensitive path, they are masked as well. An expression may read all of an item.
CREATE TABLE letters (email text PRIMARY KEY, day date);
SELECT portage.create_pipeline('letters', 'letters', $$
{ "format": "ndjson", "legacy_id": "email", "columns": {"email": "email", "day": "day"}, "sensitive": ["email"], "on_conflict": "fail",
  "checks": {"last": {"sql": "SELECT max(email) FROM sensitive.letters", "expected": "nobody"}, "some": "SELECT count(*) > 5 FROM sensitive.letters",
             "numbers": "SELECT max(email::integer) > 0 FROM sensitive.letters"} }$$) > 0 AS created;
SELECT portage.grant_pipeline('letters', 'portage_sensitive_reader', 'read') > 0 AS granted;
SELECT run_id AS run FROM portage.migrate('letters', '{"email": "a@S", "day": "2020-01-01"}') \gset
SELECT portage.lookup('portage_sensitive_owner/letters', 'a@S');
SET ROLE portage_sensitive_reader;
SELECT ordinal, status, legacy_id, target_key FROM portage.migration_items WHERE run_id = :run;
SELECT legacy_id, target_key FROM portage.legacy_mappings WHERE run_id = :run;
SELECT portage.lookup('portage_sensitive_owner/letters', 'a@S');
SELECT hides_id, hides_key FROM portage.visible_runs WHERE run_id = :run;
SET ROLE portage_sensitive_owner;
UPDATE letters SET day = '2021-01-01';
SELECT status, errors -> 0 ->> 'message' AS message FROM portage.migrate('letters', '{"email": "a@S", "day": "2022-01-01"}');
SELECT name, expected, actual, passed, details FROM portage.verify(:run) WHERE NOT passed OR name = 'row_hash' ORDER BY name COLLATE "C";
SELECT portage.replace_pipeline('letters', $$
{ "format": "ndjson", "legacy_id": {"sql": "item ->> 'n'"}, "columns": {"email": "email", "day": "day"},
  "sensitive": [["a.b", "c"], "day"] }$$) > 0 AS replaced;
SELECT version, sensitive, sensitive_id, sensitive_key FROM portage.pipeline_versions v JOIN portage.pipelines p ON p.id = v.pipeline_id
 WHERE p.name = 'letters' ORDER BY 1;

-- 5. Messages of triggers are heard again when such a run is over.
RESET client_min_messages;
SELECT inserted FROM portage.migrate('patients', '{"id": 6, "p": {"email": "six@S"}}');
INSERT INTO patients VALUES (7, 'seven@S');

-- Nothing is left for the next test.
RESET ROLE;
SET client_min_messages = warning;
SELECT count(portage.drop_pipeline(portage.pipeline_name(id), true)) > 0 AS dropped FROM portage.pipelines;
DROP SCHEMA sensitive CASCADE;
DROP ROLE portage_sensitive_owner, portage_sensitive_reader;
