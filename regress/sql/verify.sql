-- verify(run): the ledger against itself, the target and the payload. What was damaged behind the extension's back is
-- found and named; what others changed since is told and is no failure.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS pg_portage CASCADE;  -- run ids begin at 1
CREATE EXTENSION pg_portage;
RESET client_min_messages;
CREATE SCHEMA app;
\set SHOW_CONTEXT never

CREATE TABLE app.shops (id int PRIMARY KEY);
INSERT INTO app.shops VALUES (1), (2);
CREATE TABLE app.goods (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, k text UNIQUE, v int,
                        shop int REFERENCES app.shops);
SELECT portage.create_pipeline('goods', 'app.goods', $$
  {"format": "json", "legacy_id": "id", "columns": {"k": "k", "v": "v", "shop": "shop"}, "match": ["k"]}$$) > 0 AS created;
SELECT inserted, invalid FROM portage.migrate('goods',
  '[{"id": 1, "k": "a", "v": 1, "shop": 1}, {"id": 2, "k": "b", "v": 2}, {"id": 3, "k": "c", "v": 7}, {"id": 3},
    {"id": 5, "k": "e", "v": 1}, {"id": 6, "k": "f", "v": 6}, {"id": 7, "k": "g", "v": 7, "shop": 2}]');
CREATE VIEW checked AS
  SELECT c.name, c.severity, c.expected, c.actual, c.passed, c.details FROM portage.data_integrity_checks c
   WHERE c.checked_at = (SELECT max(checked_at) FROM portage.data_integrity_checks);

SELECT name, severity, expected, actual, passed, details FROM portage.verify();
SELECT verified FROM portage.migration_runs WHERE id = 1;

-- A later run explains what it changed.
SELECT updated FROM portage.migrate('goods', '[{"id": 5, "k": "e", "v": 50}]');
SELECT count(*) AS failed FROM portage.verify(1) WHERE NOT passed;
SELECT details FROM checked WHERE name = 'row_hash';

-- Somebody else changes and deletes rows: told by key, no failure.
UPDATE app.goods SET v = 3 WHERE k = 'b';
DELETE FROM app.goods WHERE k = 'a';
SELECT passed, expected, actual, details FROM portage.verify(1) WHERE name = 'row_hash';

-- Sabotage: a bent mapping, one that is gone, an item removed, the payload damaged, a parent removed.
UPDATE portage.mapping_rows SET target_key = '2' WHERE legacy_id = '3';
DELETE FROM portage.mapping_rows WHERE legacy_id = '6';
DELETE FROM portage.item_rows WHERE ordinal = 4;
UPDATE portage.migration_payloads SET content = 'x' WHERE run_id = 1;
ALTER TABLE app.shops DISABLE TRIGGER ALL;
DELETE FROM app.shops WHERE id = 2;
ALTER TABLE app.shops ENABLE TRIGGER ALL;
SELECT name, expected, actual, details FROM portage.verify(1) WHERE NOT passed;
SELECT verified FROM portage.migration_runs WHERE id = 1;
SELECT details FROM portage.migration_events WHERE run_id = 1 AND event_type = 'check_failed' ORDER BY seq;

-- What cannot be verified.
SELECT portage.open_run('goods') AS pending \gset
SELECT portage.verify(:pending);
SELECT portage.verify(4711);
CREATE ROLE portage_stranger;
SET ROLE portage_stranger;
SELECT portage.verify(1);
SELECT portage.verify();
SELECT count(*) AS visible FROM portage.data_integrity_checks;
RESET ROLE;

DROP VIEW checked;
SET client_min_messages = warning;
DROP EXTENSION pg_portage;
DROP SCHEMA app CASCADE;
DROP ROLE portage_stranger;
