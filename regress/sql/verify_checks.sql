-- "checks": what must hold of the imported data, said by the pipeline itself and evaluated by verify().
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS pg_portage CASCADE;  -- run ids begin at 1
CREATE EXTENSION pg_portage;
RESET client_min_messages;
CREATE SCHEMA app;
\set SHOW_CONTEXT never

CREATE TABLE app.accounts (id int PRIMARY KEY, owner text NOT NULL, balance numeric NOT NULL);
CREATE TABLE app.written (note text);

-- A plain query must be true; with "expected" its value is compared. $1 is the run, $2 its scope.
SELECT portage.create_pipeline('accounts', 'app.accounts', $$
  {"format": "json", "legacy_id": "id", "columns": {"id": "id", "owner": "owner", "balance": "balance"},
   "checks": {
     "nobody_in_debt":  "SELECT bool_and(balance >= 0) FROM app.accounts",
     "total":           {"sql": "SELECT sum(balance) FROM app.accounts", "expected": 30},
     "as_text":         {"sql": "SELECT sum(balance) FROM app.accounts", "expected": "30.00"},
     "all_landed":      {"sql": "SELECT count(*) = (SELECT sum(inserted) FROM portage.migration_batches WHERE run_id = $1) FROM app.accounts"},
     "scope":           {"sql": "SELECT $2", "expected": "bank"},
     "no_debtor":       {"sql": "SELECT owner FROM app.accounts WHERE balance < 0", "expected": null},
     "few_owners":      {"sql": "SELECT count(DISTINCT owner) FROM app.accounts", "expected": 1, "severity": "warning",
                         "message": "more owners than expected"}}}$$) AS id;
SELECT inserted FROM portage.migrate('accounts', '[{"id": 1, "owner": "anna", "balance": "10.00"}, {"id": 2, "owner": "bert", "balance": "20.00"}]', 'bank');
CREATE VIEW own AS
  SELECT c.name, c.severity, c.expected, c.actual, c.passed, c.details
    FROM portage.data_integrity_checks c
   WHERE c.checked_at = (SELECT max(checked_at) FROM portage.data_integrity_checks)
     AND c.name NOT IN ('balance', 'item_count', 'mapping', 'undo', 'row_hash', 'duplicate_key', 'duplicate_content',
                        'duplicate_match', 'relationships', 'unchanged_rows', 'payload', 'source');
SELECT count(*) AS failed FROM portage.verify() WHERE NOT passed;
SELECT * FROM own;
-- A failed check of severity warning leaves the run verified.
SELECT verified FROM portage.migration_runs WHERE id = 1;

-- Any other does not. The checks of the run's own version count, whatever became of the pipeline.
UPDATE app.accounts SET balance = -5 WHERE id = 2;
SELECT name, severity, expected, actual FROM portage.verify() WHERE NOT passed;
SELECT verified FROM portage.migration_runs WHERE id = 1;

-- What a check raises is its result, and never ends the verification. It cannot write, whatever it calls.
CREATE FUNCTION app.write() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN INSERT INTO app.written VALUES ('written'); RETURN true; END $$;
CREATE FUNCTION app.unlock() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN PERFORM set_config('transaction_read_only', 'off', true); INSERT INTO app.written VALUES ('written'); RETURN true; END $$;
CREATE SEQUENCE app.numbers;
SELECT portage.replace_pipeline('accounts', $$
  {"format": "json", "legacy_id": "id", "columns": {"id": "id", "owner": "owner", "balance": "balance"},
   "checks": {
     "divided":   {"sql": "SELECT 1 / (count(*) - count(*)) FROM app.accounts", "expected": 1, "severity": "critical",
                   "message": "never"},
     "writes":    "SELECT app.write()",
     "unlocks":   "SELECT app.unlock()",
     "counts_up": {"sql": "SELECT nextval('app.numbers')", "expected": 1},
     "many":      {"sql": "SELECT owner FROM app.accounts", "expected": "anna"},
     "none":      "SELECT true FROM app.accounts WHERE id = 4711",
     "gone":      {"sql": "SELECT count(*) FROM app.accounts a WHERE a.owner = 'anna'", "expected": 1},
     "last":      "SELECT true"}}$$) AS id;
SELECT inserted FROM portage.migrate('accounts', '[{"id": 3, "owner": "carl", "balance": "1"}]');
ALTER TABLE app.accounts RENAME COLUMN owner TO holder;
SELECT name, details ->> 'error' AS error FROM portage.verify() WHERE name IN ('row_hash', 'many', 'gone') ORDER BY 1;  -- the run knows the column by its number, a check by its name
ALTER TABLE app.accounts RENAME COLUMN holder TO owner;
SELECT count(*) AS failed FROM portage.verify() WHERE NOT passed;
SELECT name, severity, expected, actual, passed, details FROM own;
SELECT count(*) AS written FROM app.written;
SELECT last_value, is_called FROM app.numbers;
SELECT details ->> 'check' AS failed FROM portage.migration_events WHERE run_id = 2 AND event_type = 'check_failed' ORDER BY seq;

-- How deep a verification looks.
SELECT name FROM portage.verify(2, 'counts');
SELECT name, severity, passed, details FROM portage.verify(2, 'source') WHERE name IN ('payload', 'source');
SELECT portage.verify(2, 'all');

-- In pages, each a transaction: for runs that are large.
CALL portage.verify_run(1);
BEGIN;
CALL portage.verify_run(1);
ROLLBACK;

-- Faults are found when the pipeline is created.
CREATE FUNCTION app.fault(checks json) RETURNS text LANGUAGE plpgsql AS $$
DECLARE detail text; hint text;
BEGIN
  PERFORM portage.create_pipeline('faulty', 'app.accounts', json_build_object('format', 'json', 'legacy_id', 'id',
            'columns', '{"id": "id", "owner": "owner", "balance": "balance"}'::json, 'checks', checks));
  RETURN 'no fault';
EXCEPTION WHEN others THEN
  GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
  RETURN concat_ws(' / ', SQLSTATE, SQLERRM, detail, nullif(hint, ''));
END $$;
SELECT app.fault('[]');
SELECT app.fault('{"": "SELECT true"}');
SELECT app.fault('{"mapping": "SELECT true"}');
SELECT app.fault('{"a": 1}');
SELECT app.fault('{"a": ""}');
SELECT app.fault('{"a": {"query": "SELECT true"}}');
SELECT app.fault('{"a": {"expected": true}}');
SELECT app.fault('{"a": {"sql": "SELECT 1", "expected": [1]}}');
SELECT app.fault('{"a": {"sql": "SELECT true", "severity": "fatal"}}');
SELECT app.fault('{"a": {"sql": "SELECT true", "severity": "critcal"}}');
SELECT app.fault('{"a": {"sql": "SELECT true", "message": ""}}');
SELECT app.fault('{"a": "SELEC true"}');
SELECT app.fault('{"a": "SELECT true; SELECT false"}');
SELECT app.fault('{"a": "DELETE FROM app.accounts RETURNING true"}');
SELECT app.fault('{"a": "WITH gone AS (DELETE FROM app.accounts RETURNING id) SELECT count(*) = 0 FROM gone"}');
SELECT app.fault('{"a": "SELECT true INTO app.made"}');
SELECT app.fault('{"a": "SELECT balance > 0 FROM app.accounts FOR UPDATE"}');
SELECT app.fault('{"a": "SHOW search_path"}');
SELECT app.fault('{"a": "SELECT true, false"}');
SELECT app.fault('{"a": "SELECT"}');
SELECT app.fault('{"a": "SELECT missing FROM app.accounts"}');
SELECT app.fault('{"a": "SELECT true FROM app.missing"}');
SELECT app.fault('{"a": "SELECT $3 IS NULL"}');
SELECT app.fault('{"a": "SELECT count(*) FROM app.accounts"}');
SELECT app.fault('{"a": {"sql": "SELECT count(*) FROM app.accounts", "expected": true}}');
SELECT app.fault('{"a": {"sql": "SELECT owner FROM app.accounts", "expected": 1}}');
SELECT app.fault('{"a": {"sql": "SELECT true", "expected": 1}}');
SELECT app.fault('{"a": "SELECT true -- and nothing else"}');

DROP VIEW own;
SET client_min_messages = warning;
DROP EXTENSION pg_portage;
DROP SCHEMA app CASCADE;
