-- on_conflict "ask": items in dispute wait, the rest lands; decisions, one or many, and what they leave in the ledger.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 18000
\set ECHO none
\i :prelude
\set ECHO all
CREATE SCHEMA resolving;
SET search_path = resolving;
\set SHOW_CONTEXT never
CREATE TABLE contact (email text PRIMARY KEY, phone text, city text, visits int CHECK (visits < 100), note text DEFAULT 'none');
SELECT portage.create_pipeline('res', 'contact', '{"format": "json", "legacy_id": "id", "match": "email", "on_conflict": "ask",
  "columns": {"email": "email", "phone": "phone", "city": "city", "visits": "visits"}, "merge": {"visits": "sum"},
  "rules": {"phone_has_digits": "phone ~ ''[0-9]''"}}') > 0 AS created;
CREATE FUNCTION conflicts(run bigint) RETURNS TABLE (item bigint, disputed text[], incoming jsonb, existing jsonb, base jsonb, suggested text) LANGUAGE sql AS $$
  SELECT ordinal, c.disputed, c.incoming, c.existing, c.base, c.suggested FROM portage.open_conflicts c WHERE run_id = $1 ORDER BY ordinal $$;
CREATE FUNCTION events(run bigint) RETURNS TABLE (event_type text, details jsonb) LANGUAGE sql AS $$
  SELECT event_type, details FROM portage.migration_events WHERE run_id = $1 ORDER BY seq $$;
CREATE FUNCTION item(id int, phone text, city text, visits int DEFAULT NULL) RETURNS jsonb LANGUAGE sql AS $$
  SELECT jsonb_build_object('id', id, 'email', id || '@x', 'phone', phone, 'city', city, 'visits', visits) $$;

-- 1. Rows of others: every column that differs is in dispute, unless it has a strategy. What is not, lands.
INSERT INTO contact VALUES ('1@x', '1', 'Rome', 1), ('2@x', NULL, 'Rome', 1), ('3@x', '3', 'Rome', 1), ('4@x', '4', 'Oslo', 1);
SELECT jsonb_agg(i) AS items FROM unnest(ARRAY[item(1, '10', 'Bonn', 1), item(2, '20', 'Rome', 1), item(3, '3', 'Rome', 5), item(4, '4', 'Oslo', 1), item(5, '5', 'Oslo', 1)]) i \gset
CALL portage.import('res', payload => :'items');
SELECT run_id AS run FROM portage.last_run('res') \gset
SELECT pg_temp.books(:run);
SELECT * FROM conflicts(:run);
SELECT ordinal, status, rule, sqlstate, column_name, message FROM portage.migration_items WHERE run_id = :run ORDER BY 1;
SELECT open_conflicts, open_rejects, verified FROM portage.migration_runs WHERE id = :run;
SELECT * FROM events(:run);
-- Waiting does not block: the next run goes its way, and meets the same items.
SELECT run_id AS next FROM portage.migrate('res', (:'items'::jsonb - 0)::text) \gset
SELECT pg_temp.books(:next);
SELECT portage.cancel(:next);

-- 2. Decisions. The last one lets the run go on to its verification and its end.
SELECT * FROM portage.resolve(:run, 1, 'incoming');
SELECT pg_temp.books(:run);
SELECT * FROM portage.resolve(:run, 2, 'value', '{"phone": "22", "visits": 7}');
SELECT pg_temp.books(:run);
SELECT * FROM contact ORDER BY email;
SELECT verified, open_conflicts FROM portage.migration_runs WHERE id = :run;
SELECT ordinal, disputed, resolution, value, resolved_by = session_user AS by_me FROM portage.resolved_conflicts WHERE run_id = :run ORDER BY 1;
SELECT ordinal, revision, status, rule FROM portage.migration_items WHERE run_id = :run AND ordinal < 3 ORDER BY 1, 2;
SELECT kind, read, updated, conflicted FROM portage.migration_batches WHERE run_id = :run AND kind = 'resolve' ORDER BY id;
SELECT event_type, details FROM events(:run) WHERE event_type ~ 'resolved|completed|stage';
-- The same input again: nothing is asked twice.
SELECT run_id AS again FROM portage.migrate('res', :'items') \gset
SELECT pg_temp.books(:again);
-- Decisions are undone with the run, to the byte.
CALL portage.rollback(:run);
SELECT * FROM contact ORDER BY email;
SELECT count(*) FROM portage.legacy_mappings WHERE run_id = :run;
SELECT count(*) FROM conflicts(:run);

-- 3. Three ways: only what both sides have changed is asked; the other columns of both are brought together.
TRUNCATE contact;
SELECT jsonb_agg(item(i, i::text, 'Rome', 1)) AS items FROM generate_series(1, 8) i \gset
SELECT run_id AS run FROM portage.migrate('res', :'items', 's') \gset
UPDATE contact SET city = 'Oslo', note = 'touched';
UPDATE contact SET phone = phone || '-app' WHERE email > '2';
UPDATE contact SET visits = visits + 10 WHERE email = '8@x';
SELECT jsonb_agg(item(i, i || '-new', 'Rome', 3)) AS items FROM generate_series(1, 8) i \gset
SELECT run_id AS run FROM portage.migrate('res', :'items', 's') \gset
SELECT pg_temp.books(:run);
SELECT * FROM conflicts(:run) WHERE item IN (2, 8);
SELECT * FROM contact WHERE email = '1@x';
SELECT * FROM portage.resolve(:run, '[{"ordinal": 2, "resolution": "incoming"}, {"legacy_id": "3", "resolution": "existing"}, {"ordinal": 4, "resolution": "merged"}, {"ordinal": 5, "resolution": "value", "value": {"phone": "55", "city": "Bonn"}}]');
SELECT pg_temp.books(:run);
SELECT * FROM contact WHERE email BETWEEN '2' AND '6' ORDER BY email;
-- What was decided is the base of the next time: the source says nothing new about the phone.
SELECT jsonb_agg(item(i, i || '-new', 'Wien', 3)) AS items FROM generate_series(2, 5) i \gset
SELECT run_id AS next FROM portage.migrate('res', :'items', 's') \gset
SELECT pg_temp.books(:next);
SELECT * FROM conflicts(:next);
SELECT * FROM contact WHERE email BETWEEN '2' AND '6' ORDER BY email;

-- 4. What cannot be carried out. All or nothing; and a row that has changed since must be looked at again.
SELECT pg_temp.refused(format('SELECT portage.resolve(%s, 2, %L)', :run, 'incoming'));
SELECT pg_temp.refused(format('SELECT portage.resolve(%s, 99, %L)', :run, 'incoming'));
SELECT pg_temp.refused(format('SELECT portage.resolve(%s, 6, %L)', :run, 'incomin'));
SELECT pg_temp.refused(format('SELECT portage.resolve(%s, 6, %L)', :run, 'value'));
SELECT pg_temp.refused(format('SELECT portage.resolve(%s, 6, %L, %L)', :run, 'incoming', '{}'));
SELECT pg_temp.refused(format('SELECT portage.resolve(%s, 6, %L, %L)', :run, 'value', '{"fone": "1"}'));
SELECT pg_temp.refused(format('SELECT portage.resolve(%s, 6, %L, %L)', :run, 'value', '{"note": "1"}'));
SELECT pg_temp.refused(format('SELECT portage.resolve(%s, 6, %L, %L)', :run, 'value', '{"city": "Bonn"}'));
SELECT pg_temp.refused(format('SELECT portage.resolve(%s, 6, %L, %L)', :run, 'value', '{"phone": "none"}'));
SELECT pg_temp.refused(format('SELECT portage.resolve(%s, 6, %L, %L)', :run, 'value', '{"phone": "6", "visits": 100}'));
SELECT pg_temp.refused(format('SELECT portage.resolve(%s, 6, %L, %L)', :run, 'value', '{"phone": "6", "visits": "x"}'));
SELECT pg_temp.refused(format('SELECT portage.resolve(%s, %L)', :run, '[{"ordinal": 6, "resolution": "incoming"}, {"ordinal": 7, "resolution": "value", "value": {"phone": "none"}}]'));
SELECT pg_temp.refused(format('SELECT portage.resolve(%s, %L)', :run, '[{"resolution": "incoming"}]'));
SELECT pg_temp.refused(format('SELECT portage.resolve(%s, %L)', :run, '[{"legacy_id": "77", "resolution": "incoming"}]'));
SELECT pg_temp.refused(format('SELECT portage.resolve_all(%s, %L, %L)', :run, 'incoming', '{"column": ["phone"]}'));
SELECT pg_temp.refused(format('SELECT portage.resolve(%s, 6, %L, remember => true)', :run, 'merged'));
SELECT count(*) FROM conflicts(:run);
UPDATE contact SET phone = '6-app again' WHERE email = '6@x';
DELETE FROM contact WHERE email = '7@x';
SELECT pg_temp.refused(format('SELECT portage.resolve(%s, 6, %L)', :run, 'incoming'));
SELECT pg_temp.refused(format('SELECT portage.resolve(%s, 7, %L)', :run, 'incoming'));
SELECT * FROM portage.replay(:run, 6);
SELECT * FROM portage.replay(:run, 7);
SELECT * FROM conflicts(:run) WHERE item IN (6, 7);
SELECT pg_temp.books(:run);
-- All that are left, and those that a filter means.
SELECT * FROM portage.resolve_all(:run, 'incoming', '{"columns": ["city"]}');
SELECT * FROM portage.resolve_all(:run, 'suggested', '{"columns": ["phone"], "legacy_ids": ["6"], "suggested": "existing"}');
CALL portage.resolve_run(:run, 'incoming');
SELECT pg_temp.books(:run);
SELECT * FROM contact WHERE email >= '6' ORDER BY email;
SELECT pg_temp.refused(format('SELECT portage.resolve(%s, 8, %L)', :run, 'incoming'));

-- 5. What would not be valid stays open, when all are decided at once.
TRUNCATE contact;
INSERT INTO contact VALUES ('1@x', '1', 'Rome', 60), ('2@x', '2', 'Rome', 1);
SELECT jsonb_agg(item(i, i || '-new', 'Rome', 50)) AS items FROM generate_series(1, 2) i \gset
SELECT run_id AS run FROM portage.migrate('res', :'items', 'invalid') \gset
SELECT * FROM portage.resolve_all(:run, 'incoming');
SELECT pg_temp.books(:run);
SELECT portage.cancel(:run);
SELECT status FROM portage.status(:run);

-- 6. A decision as a rule: for the others of the run, and for the runs to come.
TRUNCATE contact;
INSERT INTO contact SELECT i || '@x', i, CASE WHEN i < 3 THEN 'Rome' ELSE 'Oslo' END, 1 FROM generate_series(1, 4) i;
SELECT jsonb_agg(item(i, i || '-new', 'Rome', 1)) AS items FROM generate_series(1, 4) i \gset
SELECT run_id AS run FROM portage.migrate('res', :'items', 'rule') \gset
SELECT pg_temp.books(:run);
SELECT * FROM portage.resolve(:run, 1, 'existing', remember => true);
SELECT pg_temp.books(:run);
SELECT definition -> 'merge' FROM portage.pipeline_versions v JOIN portage.pipelines p ON p.id = v.pipeline_id WHERE name = 'res' ORDER BY version;
SELECT run_id AS next FROM portage.migrate('res', :'items', 'rule 2') \gset
SELECT pg_temp.books(:next);

-- A conflict that is none any more when it is looked at again: the last one lets the run complete as well.
UPDATE contact SET phone = incoming ->> 'phone', city = incoming ->> 'city' FROM portage.open_conflicts c WHERE run_id = :next AND email = target_key;
SELECT portage.replay(:next, ordinal) FROM portage.open_conflicts WHERE run_id = :next ORDER BY ordinal;
SELECT pg_temp.books(:next);

-- 7. A dry run predicts conflicts and leaves nothing to be decided.
CALL portage.import('res', payload => :'items', scope => 'dry', options => '{"dry_run": true}');
SELECT run_id AS run FROM portage.last_run('res', 'dry') \gset
SELECT pg_temp.books(:run);
SELECT count(*) FROM conflicts(:run);
SELECT portage.validate(portage.open_run('res', 'validate')) -> 'counts' IS NOT NULL AS validated;

-- 8. Who may: the run's role; others see nothing, and "sensitive" hides the values from who may only read.
CREATE ROLE regress_portage_decides;
CREATE ROLE regress_portage_reads;
GRANT USAGE ON SCHEMA resolving TO regress_portage_decides;
GRANT SELECT, INSERT, UPDATE ON contact TO regress_portage_decides;
SET ROLE regress_portage_decides;
SELECT portage.create_pipeline('res_role', 'contact', '{"format": "json", "legacy_id": "id", "match": "email", "on_conflict": "ask", "sensitive": ["phone"],
  "columns": {"email": "email", "phone": "phone"}}') > 0 AS created;
SELECT portage.grant_pipeline('res_role', 'regress_portage_reads', 'read') > 0 AS granted;
SELECT run_id AS run FROM portage.migrate('res_role', '[{"id": 1, "email": "1@x", "phone": "secret"}]') \gset
SET ROLE regress_portage_reads;
SELECT ordinal, disputed, incoming, existing FROM portage.open_conflicts WHERE run_id = :run;
SELECT pg_temp.refused(format('SELECT portage.resolve(%s, 1, %L)', :run, 'incoming'));
RESET ROLE;
REVOKE UPDATE ON contact FROM regress_portage_decides;
SET ROLE regress_portage_decides;
SELECT pg_temp.refused(format('SELECT portage.resolve(%s, 1, %L)', :run, 'incoming'));
RESET ROLE;
GRANT UPDATE ON contact TO regress_portage_decides;
SET ROLE regress_portage_decides;
SELECT * FROM portage.resolve(:run, 1, 'incoming');
RESET ROLE;
SELECT phone FROM contact WHERE email = '1@x';

SELECT count(portage.drop_pipeline(portage.pipeline_name(id), true)) > 0 AS dropped FROM portage.pipelines;
SELECT count(*) FROM portage.migration_conflicts;
DROP SCHEMA resolving CASCADE;
DROP ROLE regress_portage_decides;
DROP ROLE regress_portage_reads;
