-- Replay: rejects are tried again, as they were or corrected, by the rules of the run's own pipeline version. Each
-- outcome is a new revision; the run's counters, verify() and rollback() go by the newest.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 11000
\set ECHO none
\i :prelude
\set ECHO all
RESET client_min_messages;
\set SHOW_CONTEXT never
CREATE SCHEMA replays;
SET search_path = replays;

-- Counters, batches and the newest revisions of the items tell the same story; the part of the batches of kind replay.
CREATE FUNCTION books(run bigint) RETURNS text LANGUAGE sql AS $$
  WITH newest AS (
    SELECT DISTINCT ON (ordinal) status FROM portage.migration_items WHERE run_id = $1 AND status <> 'rolled_back'
     ORDER BY ordinal, revision DESC),
  counted AS (
    SELECT k.position, k.name, k.count, (SELECT count(*) FROM newest n WHERE n.status = k.name) AS items,
           (SELECT coalesce(sum((to_jsonb(b) ->> k.name)::bigint), 0) FROM portage.migration_batches b WHERE b.run_id = $1) AS batched,
           (SELECT coalesce(sum((to_jsonb(b) ->> k.name)::bigint), 0) FROM portage.migration_batches b
             WHERE b.run_id = $1 AND b.kind = 'replay') AS moved
      FROM portage.status($1) s
     CROSS JOIN LATERAL (VALUES (1, 'inserted', s.inserted), (2, 'updated', s.updated), (3, 'unchanged', s.unchanged),
            (4, 'skipped', s.skipped), (5, 'invalid', s.invalid), (6, 'failed', s.failed)) AS k (position, name, count))
  SELECT format('%s: %s read = %s, %s open rejects; moved: %s', s.status, s.read,
                coalesce(string_agg(c.count || ' ' || c.name, ' + ' ORDER BY c.position) FILTER (WHERE c.count > 0), '0'),
                s.open_rejects,
                coalesce(string_agg(to_char(c.moved, 'SGFM9999990 ') || c.name, ', ' ORDER BY c.position) FILTER (WHERE c.moved <> 0), 'nothing'))
         || CASE WHEN sum(c.count) = s.read AND bool_and(c.count = c.batched AND c.count = c.items)
                 AND s.open_rejects = s.invalid + s.failed THEN '' ELSE ' DOES NOT BALANCE' END
    FROM counted c CROSS JOIN portage.status($1) s
   GROUP BY s.status, s.read, s.open_rejects, s.invalid, s.failed
$$;
-- What an item went through.
CREATE FUNCTION history(run bigint, item bigint) RETURNS text LANGUAGE sql AS $$
  SELECT string_agg(concat_ws(' ', revision, status, rule, legacy_id), ', ' ORDER BY revision)
    FROM portage.migration_items WHERE run_id = $1 AND ordinal = $2
$$;
CREATE FUNCTION unproven(run bigint) RETURNS bigint LANGUAGE sql AS $$
  SELECT count(*) FROM portage.verify($1) WHERE NOT passed
$$;

CREATE TABLE authors (id int PRIMARY KEY);
INSERT INTO authors VALUES (1);
CREATE TABLE books (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, isbn text UNIQUE, title text NOT NULL,
                    pages int, author int REFERENCES authors, place text);

-- 1. Every reason to be rejected, in a JSON document: items are cut out of it.
SELECT portage.create_pipeline('replay_json', 'books', $$
{"format": "json", "items": "books", "legacy_id": "n", "match": ["isbn"], "on_conflict": "skip",
 "columns": {"isbn": "isbn", "title": "title", "pages": "pages", "author": "author",
             "place": {"sql": "concat_ws('/', scope, ordinal, line)"}},
 "rules": {"pages_positive": "pages > 0"}}$$) > 0 AS created;
INSERT INTO books (isbn, title) VALUES ('x', 'here before');
SELECT run_id AS run FROM portage.migrate('replay_json', $${"books": [
  {"n": 1, "isbn": "a", "title": "A", "pages": 1, "author": 1},
  {"n": 2, "isbn": "b", "title": "B", "pages": 2, "author": 2},
  {"n": 3, "isbn": "c", "title": "C", "pages": 0},
  {"n": 4, "isbn": "d", "pages": 4},
  {"n": 5, "isbn": "e", "title": "E", "pages": "many"},
  {"n": 1, "isbn": "f", "title": "F"},
  {"n": 7, "isbn": "a", "title": "A again"},
  {"n": 8, "isbn": "x", "title": "another X"},
  {"n": 9, "isbn": "g", "title": "G", "author": 3, },
  {"n": 10, "isbn": "h", "title": "H", "author": 2}]}$$, 'scope') \gset
SELECT * FROM pg_temp.rejected(:run);
-- Nothing has changed: all are tried, none lands, there is no new revision and nothing to be written.
SELECT * FROM portage.replay(:run);
SELECT books(:run);
SELECT max(revision) AS newest FROM portage.migration_items WHERE run_id = :run;
-- The parents arrive: what waited for them lands, with scope, ordinal and line as they would have been.
INSERT INTO authors VALUES (2), (3);
SELECT * FROM portage.replay(:run);
SELECT books(:run);
SELECT isbn, title, author, place FROM books ORDER BY id;
SELECT history(:run, 2) AS item_2, history(:run, 3) AS item_3;
SELECT kind, part, first_ordinal, last_ordinal, read, inserted, invalid, bytes FROM portage.migration_batches WHERE run_id = :run ORDER BY id;
SELECT event_type, actor = session_user AS ours, details FROM portage.migration_events WHERE run_id = :run ORDER BY seq;
SELECT unproven(:run);

-- One by one, corrected. It lands; breaks a rule again; is no JSON; two items are not one.
SELECT * FROM portage.replay(:run, 3, '{"n": 3, "isbn": "c", "title": "C", "pages": 3}');
SELECT * FROM portage.replay(:run, 4, '{"n": 4, "isbn": "d", "title": "D", "pages": -4}');
SELECT * FROM portage.replay(:run, 5, '{"n": 5, "isbn": "e", "title": "E", "pages": 5');
SELECT history(:run, 3) AS item_3, history(:run, 4) AS item_4, history(:run, 5) AS item_5;
SELECT ordinal, revision, raw, actor = session_user AS ours, corrected_at <= clock_timestamp() AS dated FROM portage.corrections WHERE run_id = :run;
-- rejects shows what was judged last, and who had it judged; byte_offset and byte_length stay those of the source
SELECT ordinal, rule, raw, byte_length, replayed_by = session_user AS by_us FROM portage.rejects WHERE run_id = :run ORDER BY ordinal;
SELECT convert_from(portage.reject_raw(:run, 4), 'UTF8') AS raw;
-- from now on "as it was" is the correction
SELECT * FROM portage.replay(:run, 4);
SELECT * FROM portage.replay(:run, 5, '{"n": 5, "isbn": "e", "title": "E", "pages": 5} {"n": 6}');
SELECT * FROM portage.replay(:run, 5, '');
SELECT * FROM portage.replay(:run, 5, E'\n {"n": 5, "isbn": "e",\n  "title": "E", "pages": 5}\n');
SELECT history(:run, 5) AS item_5;
-- A duplicate stays one, unless it is corrected into something else.
SELECT * FROM portage.replay(:run, 6);
SELECT * FROM portage.replay(:run, 6, '{"n": 1, "isbn": "f", "title": "F"}');
SELECT * FROM portage.replay(:run, 6, '{"n": 6, "isbn": "a", "title": "F"}');
SELECT * FROM portage.replay(:run, 6, '{"n": 6, "isbn": "f", "title": "F"}');
SELECT history(:run, 6) AS item_6;
-- A skipped item is replayed only by name: a conflict, until its row is out of the way.
SELECT * FROM portage.replay(:run, 8);
DELETE FROM books WHERE isbn = 'x';
SELECT * FROM portage.replay(:run);
SELECT * FROM portage.replay(:run, 8);
SELECT books(:run);
SELECT unproven(:run);
-- What has landed, is not there, or was never rejected, is refused.
SELECT pg_temp.refused(format('SELECT portage.replay(%s, 1)', :run));
SELECT pg_temp.refused(format('SELECT portage.replay(%s, 8, ''{}'')', :run));
SELECT pg_temp.refused(format('SELECT portage.replay(%s, 11)', :run));
SELECT pg_temp.refused('SELECT portage.replay(NULL)');
SELECT pg_temp.refused(format('SELECT portage.replay(%s, NULL)', :run));
SELECT pg_temp.refused('SELECT portage.replay(999999)');

-- 2. Taken back: exactly what the run and its replays brought.
SELECT possible, rows FROM portage.can_rollback(:run);
CALL portage.rollback(:run);
SELECT count(*) AS books FROM books;
SELECT count(*) AS mappings FROM portage.legacy_mappings m JOIN portage.pipelines p ON p.id = m.pipeline_id WHERE p.name = 'replay_json';
SELECT history(:run, 1) AS item_1, history(:run, 4) AS item_4, history(:run, 5) AS item_5;
SELECT unproven(:run);
SELECT pg_temp.refused(format('SELECT portage.replay(%s)', :run));
SELECT pg_temp.refused(format('SELECT portage.replay(%s, 4, ''{}'')', :run));

-- 3. Conflict policies: a replay that overwrites keeps before-images of row and mapping, and gives them back.
SELECT portage.create_pipeline('replay_over', 'books', $$
{"format": "ndjson", "legacy_id": "n", "match": ["isbn"], "on_conflict": "overwrite",
 "columns": {"isbn": "isbn", "title": "title", "pages": "pages", "author": "author"}, "rules": {"pages_positive": "pages > 0"}}$$) > 0 AS created;
INSERT INTO books (isbn, title, pages) VALUES ('p', 'was there', 10);
SELECT run_id AS first FROM portage.migrate('replay_over', '{"n": 2, "isbn": "q", "title": "Q", "pages": 20}') \gset
CREATE TABLE before AS SELECT isbn, title, pages, author FROM books;
CREATE TABLE mapped AS SELECT * FROM portage.legacy_mappings m WHERE m.run_id = :first;
SELECT run_id AS run FROM portage.migrate('replay_over', E'{"n": 1, "isbn": "p", "title": "P", "pages": 0}\n{"n": 2, "isbn": "q", "title": "Q2", "author": 7}\n{"n": 3, "isbn": "r", "title": "R"}') \gset
INSERT INTO authors VALUES (7);
SELECT * FROM portage.replay(:run);
SELECT * FROM portage.replay(:run, 1, '{"n": 1, "isbn": "p", "title": "P", "pages": 1}');
SELECT isbn, title, pages, author FROM books ORDER BY isbn;
SELECT ordinal, revision, columns, before, mapping_run_id = :first AS of_first FROM portage.migration_undo WHERE run_id = :run ORDER BY 1;
SELECT books(:run);
SELECT unproven(:run), unproven(:first) AS first;
CALL portage.rollback(:run);
SELECT count(*) AS differences FROM ((SELECT isbn, title, pages, author FROM books EXCEPT TABLE before) UNION ALL (TABLE before EXCEPT SELECT isbn, title, pages, author FROM books)) d;
SELECT count(*) AS differences FROM (SELECT * FROM portage.legacy_mappings m WHERE m.run_id IN (:run, :first) EXCEPT TABLE mapped) d;
SELECT unproven(:first);
-- on_conflict "fail" fails the call, which changes nothing
SELECT run_id AS run FROM portage.migrate('replay_over', E'{"n": 8, "isbn": "o", "title": "O", "author": 8}\n{"n": 9, "isbn": "z", "title": "Z", "author": 8}', '', '{"on_conflict": "fail"}') \gset
INSERT INTO authors VALUES (8);
INSERT INTO books (isbn, title) VALUES ('z', 'came meanwhile');
SELECT pg_temp.refused(format('SELECT portage.replay(%s)', :run));
SELECT books(:run);

-- 4. Later runs: what they brought is newer, and no second row comes of it.
SELECT portage.create_pipeline('replay_later', 'books', $$
{"format": "ndjson", "legacy_id": "n", "columns": {"isbn": "isbn", "title": "title", "author": "author"}, "on_conflict": "skip"}$$) > 0 AS created;
SELECT run_id AS run FROM portage.migrate('replay_later', E'{"n": 1, "isbn": "l1", "title": "old", "author": 11}\n{"n": 2, "isbn": "l2", "title": "same", "author": 11}\n{"n": 3, "isbn": "l3", "title": "L3", "author": 11}\n{"n": 4, "isbn": "l4", "title": "L4"}\n{"n": 4, "isbn": "l5", "title": "L5"}') \gset
INSERT INTO authors VALUES (11);
SELECT run_id AS later, inserted, updated FROM portage.migrate('replay_later', E'{"n": 1, "isbn": "l1", "title": "new", "author": 11}\n{"n": 2, "isbn": "l2", "title": "same", "author": 11}\n{"n": 4, "isbn": "l4", "title": "newer L4"}') \gset
SELECT * FROM portage.replay(:run);
SELECT item, status, rule, sqlstate, regexp_replace(message, '\d+', 'N') AS message FROM pg_temp.rejected(:run);
SELECT isbn, title FROM books WHERE isbn LIKE 'l%' ORDER BY isbn;
SELECT legacy_id, run_id = :later AS later FROM portage.legacy_mappings m WHERE m.run_id IN (:run, :later) ORDER BY 1;
SELECT unproven(:run), unproven(:later) AS later;
-- taking the first run back leaves the later one's rows alone
SELECT drifted FROM portage.can_rollback(:run);
CALL portage.rollback(:run, drifted => 'keep');
SELECT isbn, title FROM books WHERE isbn LIKE 'l%' ORDER BY isbn;

-- Items that the run found unchanged have their ids, too, whichever stands first.
SELECT run_id AS base FROM portage.migrate('replay_later', E'{"n": 20, "isbn": "m1", "title": "M1"}') \gset
SELECT run_id AS run, unchanged, invalid FROM portage.migrate('replay_later', E'{"n": 20, "isbn": "m1"}\n{"n": 20, "isbn": "m1", "title": "M1"}\n{"n": 20, "isbn": "m1", "title": "M1"}') \gset
SELECT * FROM portage.replay(:run, 1, '{"n": 20, "isbn": "m1", "title": "M one"}');
SELECT item, rule, message FROM pg_temp.rejected(:run);

-- 5. NDJSON: a broken line and an empty one; an item of more than 64 kB comes whole from the payload; beyond it an error.
SELECT portage.create_pipeline('replay_lines', 'books', $$
{"format": "ndjson", "legacy_id": "n", "columns": {"isbn": "isbn", "title": "title", "pages": "pages", "author": "author"},
 "where": "item ->> 'isbn' <> 'no'"}$$) > 0 AS created;
SELECT run_id AS run FROM portage.migrate('replay_lines', E'\n{"n": 1, "isbn": "n1" "title": "N1"}\r\n\n{"n": 2, "isbn": "n2", "title": "'
  || repeat('long ', 20000) || E'", "author": 21}\n{"n": 3, "isbn": "no", "title": "left out"}\n{"n": 4, "isbn": "n4", "pages": 1}') \gset
SELECT ordinal, line, status, rule, byte_length, length(raw) FROM portage.rejects WHERE run_id = :run ORDER BY 1;
INSERT INTO authors VALUES (21);
SELECT * FROM portage.replay(:run);
SELECT * FROM portage.replay(:run, 1, '{"n": 1, "isbn": "n1", "title": "N1"}');
SELECT isbn, length(title), title LIKE '%long ' AS whole FROM books WHERE isbn LIKE 'n%' ORDER BY isbn;
-- what "where" leaves out is neither landed nor a reject
SELECT pg_temp.refused(format('SELECT portage.replay(%s, 3)', :run));
SELECT * FROM portage.replay(:run, 4, '{"n": 4, "isbn": "no", "title": "N4"}');
SELECT books(:run);
-- the payload dropped
SELECT portage.open_run('replay_lines', 'dropped', '{"keep_payload": false}') AS run \gset
SELECT portage.submit(:run, '{"n": 5, "isbn": "n5", "title": "' || repeat('long ', 20000) || E'", "author": 22}\n{"n": 6, "isbn": "n6", "title": "N6", "author": 22}');
SET client_min_messages = warning;
CALL portage.run(:run);
RESET client_min_messages;
INSERT INTO authors VALUES (22);
\set VERBOSITY terse
SELECT * FROM portage.replay(:run);
\set VERBOSITY default
SELECT pg_temp.refused(format('SELECT portage.replay(%s, 1)', :run));
SELECT * FROM portage.replay(:run, 1, '{"n": 5, "isbn": "n5", "title": "short", "author": 22}');
SELECT books(:run);

-- 6. A document that breaks beyond its items, or has none: a stretch is no item, and only a correction makes one of it.
SELECT run_id AS run FROM portage.migrate('replay_json', '{"books": [{"n": 30, "isbn": "s1", "title": "S1"}, {"n": 31, "isbn": "s2", "title": ', 'broken') \gset
SELECT item, rule FROM pg_temp.rejected(:run);
SELECT * FROM portage.replay(:run);
SELECT pg_temp.refused(format('SELECT portage.replay(%s, 2)', :run));
SELECT * FROM portage.replay(:run, 2, '{"n": 31, "isbn": "s2", "title": "S2"}');
SELECT books(:run);
SELECT history(:run, 2);

-- 7. CSV: the record alone, the names of the columns from the header of its part, in the encoding of the source.
SELECT portage.create_pipeline('replay_csv', 'books', $$
{"format": "csv", "csv": {"delimiter": ";", "encoding": "LATIN1"}, "legacy_id": "n", "match": ["isbn"],
 "columns": {"isbn": "isbn", "title": "title", "pages": "pages", "author": "author"}}$$) > 0 AS created;
SELECT portage.open_run('replay_csv', '', '{"keep_payload": false}') AS run \gset
SELECT portage.submit(:run, convert_to(E'n;isbn;title;pages;author\n1;c1;"Fähre; zwei\nZeilen";1;31\n2;c2;C2;viele;\n3;c3;zu;viele;;Felder\n4;c4;C4;4;1\n', 'LATIN1'), name => 'one'),
       portage.submit(:run, convert_to(E'author;title;isbn;n;pages\n31;Größe;c5;5;\n;"offen;c6;6;7\n', 'LATIN1'), name => 'two');
SET client_min_messages = warning;
CALL portage.run(:run);
RESET client_min_messages;
SELECT ordinal, part, line, rule, sqlstate FROM portage.rejects WHERE run_id = :run ORDER BY 1;
INSERT INTO authors VALUES (31);
CALL portage.replay_run(:run);
SELECT * FROM portage.replay(:run, 2, '2;c2;Ärger;2;');
SELECT * FROM portage.replay(:run, 3, E'3;c3;"drei\nZeilen";3;1\n');
SELECT pg_temp.refused(format('SELECT portage.replay(%s, 6)', :run));
SELECT pg_temp.refused(format('SELECT portage.replay(%s, 6, E''1;a;b;2;\n1;c;d;2;'')', :run));
SELECT pg_temp.refused(format('SELECT portage.replay(%s, 6, '''')', :run));
SELECT pg_temp.refused(format('SELECT portage.replay(%s, 6, ''1;Łódź;c6;6;'')', :run));
SELECT * FROM portage.replay(:run, 6, ';"offen;c6;6;7');
SELECT * FROM portage.replay(:run, 6);
SELECT * FROM portage.replay(:run, 6, ';Übrig;c6;6;7');
SELECT isbn, title, pages, author FROM books WHERE isbn LIKE 'c_' ORDER BY isbn;
SELECT history(:run, 6);
SELECT books(:run);
SELECT unproven(:run);
-- a header that could not be read leaves nothing to go by
SELECT run_id AS run FROM portage.migrate('replay_csv', E'n;isbn;isbn\n1;a;b', 'no header') \gset
SELECT * FROM portage.replay(:run);
SELECT pg_temp.refused(format('SELECT portage.replay(%s, 1, ''1;z1;Z'')', :run));

-- 8. Rows of a query: the text of the row is all there is.
CREATE TABLE old_books (n int PRIMARY KEY, isbn text, title text, pages text, author int);
INSERT INTO old_books VALUES (1, 'r1', 'R1', '1', 41), (2, 'r2', 'R2', 'two', 1), (3, 'r3', repeat('long ', 20000), '3', 41);
SELECT portage.create_pipeline('replay_rows', 'books', $$
{"format": "rows", "legacy_id": "n", "columns": {"isbn": "isbn", "title": "title", "pages": "pages", "author": "author"}}$$) > 0 AS created;
SELECT portage.open_run('replay_rows') AS run \gset
SELECT portage.attach_table(:run, 'old_books');
SET client_min_messages = warning;
CALL portage.run(:run);
RESET client_min_messages;
INSERT INTO authors VALUES (41);
\set VERBOSITY terse
SELECT * FROM portage.replay(:run);
\set VERBOSITY default
SELECT * FROM portage.replay(:run, 2, '{"n": 2, "isbn": "r2", "title": "R2", "pages": 2}');
SELECT isbn, title, pages, author FROM books WHERE isbn LIKE 'r_' ORDER BY isbn;

-- 9. The same rules: the run's own version of the pipeline, whatever it is by now.
SELECT run_id AS run FROM portage.migrate('replay_lines', '{"n": 50, "isbn": "v1", "title": "V", "author": 51}', 'version') \gset
SELECT portage.replace_pipeline('replay_lines', '{"format": "csv", "legacy_id": "other", "columns": {"isbn": "x", "title": "y"}}') > 0 AS replaced;
INSERT INTO authors VALUES (51);
SELECT * FROM portage.replay(:run);
-- A trigger that refuses while writing, then no more.
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'closed'; END$$;
CREATE TRIGGER refuse AFTER INSERT ON books FOR EACH ROW WHEN (NEW.isbn LIKE 't%') EXECUTE FUNCTION refuse();
SELECT run_id AS run, failed FROM portage.migrate('replay_over', E'{"n": 61, "isbn": "t1", "title": "T1"}\n{"n": 62, "isbn": "t2", "title": "T2"}', 'trigger') \gset
SELECT * FROM portage.replay(:run);
DROP TRIGGER refuse ON books;
SELECT * FROM portage.replay(:run);
SELECT books(:run);
-- The target has changed its shape meanwhile, and still fits.
SELECT run_id AS run FROM portage.migrate('replay_over', '{"n": 71, "isbn": "u1", "title": "U1", "author": 71}', 'shape') \gset
INSERT INTO authors VALUES (71);
ALTER TABLE books ADD COLUMN shelf text DEFAULT 'new', DROP COLUMN place CASCADE;
SELECT * FROM portage.replay(:run);
SELECT title, shelf FROM books WHERE isbn = 'u1';

-- 10. Long replays commit by batch. Inside a transaction they cannot; a replay() that is rolled back never was.
SELECT run_id AS run FROM portage.migrate('replay_over', (SELECT string_agg(format('{"n": %s, "isbn": "w%s", "title": "W", "author": 81}', 1000 + i, i), E'\n') FROM generate_series(1, 2500) i), 'long') \gset
INSERT INTO authors VALUES (81);
BEGIN;
CALL portage.replay_run(:run);
ROLLBACK;
BEGIN;
SELECT * FROM portage.replay(:run);
ROLLBACK;
SELECT books(:run);
CALL portage.replay_run(:run);
SELECT books(:run);
SELECT kind, first_ordinal, last_ordinal, inserted, invalid FROM portage.migration_batches WHERE run_id = :run AND kind = 'replay' ORDER BY id;
SELECT details FROM portage.migration_events WHERE run_id = :run AND event_type = 'replayed' ORDER BY seq;
CALL portage.replay_run(:run);
SELECT replay_cursor FROM portage.migration_runs WHERE id = :run;
SELECT unproven(:run);
CALL portage.rollback(:run);
SELECT count(*) AS left FROM books WHERE isbn LIKE 'w%';

-- 11. States: a run that has not ended has no replay; one that failed or was cancelled does.
SELECT portage.open_run('replay_over', 'states') AS run \gset
SELECT pg_temp.refused(format('SELECT portage.replay(%s)', :run));
SELECT portage.submit(:run, E'{"n": 91, "isbn": "y1", "title": "Y1", "author": 91}\n{"n": 92, "isbn": "y2", "title": "Y2"}');
UPDATE portage.migration_runs SET options = '{"max_rejects": 0}' WHERE id = :run;
CALL portage.run(:run);
SELECT status FROM portage.status(:run);
INSERT INTO authors VALUES (91);
SELECT * FROM portage.replay(:run);
SELECT books(:run);
-- the failed run can be tried again: it has no rejects any more
CALL portage.run(:run);
SELECT books(:run);
SELECT portage.open_run('replay_over', 'cancelled') AS cancelled \gset
SELECT portage.cancel(:cancelled);
SELECT * FROM portage.replay(:cancelled);
-- while another run of pipeline and scope is active
SELECT portage.open_run('replay_over', 'states') AS active \gset
UPDATE portage.migration_runs SET status = 'running' WHERE id = :active;
SELECT pg_temp.refused(format('SELECT portage.replay(%s)', :run));
SELECT pg_temp.refused(format('SELECT portage.replay(%s)', :active));
UPDATE portage.migration_runs SET status = 'completed', dry_run = true WHERE id = :active;
SELECT pg_temp.refused(format('SELECT portage.replay(%s)', :active));

-- 12. Who sees what: sensitive paths are masked in corrections as in rejects, for all but the pipeline's owner.
SET client_min_messages = warning;
DROP ROLE IF EXISTS portage_replay_owner, portage_replay_runner, portage_replay_stranger;
RESET client_min_messages;
CREATE ROLE portage_replay_owner;
CREATE ROLE portage_replay_runner;
CREATE ROLE portage_replay_stranger;
CREATE TABLE people (id int PRIMARY KEY, name text NOT NULL, pin int);
GRANT USAGE ON SCHEMA replays TO portage_replay_owner, portage_replay_runner, portage_replay_stranger;
GRANT SELECT, INSERT ON people TO portage_replay_owner, portage_replay_runner;
SET ROLE portage_replay_owner;
SELECT portage.create_pipeline('replay_people', 'people', $$
{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id", "name": "name", "pin": "pin"}, "sensitive": ["pin"]}$$) > 0 AS created;
SELECT portage.grant_pipeline('replay_people', 'portage_replay_runner', 'run') > 0 AS granted;
SET ROLE portage_replay_runner;
SELECT run_id AS run FROM portage.migrate('portage_replay_owner/replay_people', '{"id": 1, "pin": 1234}') \gset
SELECT * FROM portage.replay(:run, 1, '{"id": 1, "name": "Ada", "pin": "secret"}');
SELECT raw, issues, message, replayed_by = session_user AS by_session FROM portage.rejects WHERE run_id = :run;
SELECT revision, raw, actor = session_user AS by_session FROM portage.corrections WHERE run_id = :run;
SELECT pg_temp.refused(format('SELECT portage.reject_raw(%s, 1)', :run));
SELECT * FROM portage.item_corrections;
SELECT details FROM portage.migration_events WHERE run_id = :run AND event_type = 'replayed';
SET ROLE portage_replay_owner;
SELECT raw FROM portage.corrections WHERE run_id = :run;
SELECT convert_from(portage.reject_raw(:run, 1), 'UTF8') AS raw;
SET ROLE portage_replay_stranger;
SELECT count(*) FROM portage.corrections WHERE run_id = :run;
SELECT pg_temp.refused(format('SELECT portage.replay(%s)', :run));
RESET ROLE;

-- Erased with everything else that is known of a pipeline.
SELECT portage.drop_pipeline('portage_replay_owner/replay_people', with_history => true) > 0 AS dropped;
SELECT count(*) FROM portage.item_corrections WHERE run_id = :run;
DROP TABLE people;
REVOKE ALL ON SCHEMA replays FROM portage_replay_owner, portage_replay_runner, portage_replay_stranger;
DROP ROLE portage_replay_owner, portage_replay_runner, portage_replay_stranger;
