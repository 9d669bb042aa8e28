-- What hangs on the rows of a run over foreign keys: named before anything is deleted, over all levels and whatever the
-- constraint's action; it goes along only if asked, and only as far as the run's role may delete.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 22000
\set ECHO none
\i :prelude
\set ECHO all
\set SHOW_CONTEXT never
CREATE SCHEMA dep;
SET search_path = dep;
CREATE TABLE authors (id int PRIMARY KEY, name text, code text UNIQUE, boss int REFERENCES authors);
SELECT portage.create_pipeline('dep', 'authors', '{"format": "json", "legacy_id": "id", "columns": {"id": "id", "name": "name", "code": "code", "boss": "boss"}}') > 0 AS created;

-- 1. Three levels, each with another action; what stands at the end of each way is counted once.
CREATE TABLE books (id int PRIMARY KEY, author int NOT NULL REFERENCES authors, editor text REFERENCES authors (code));
CREATE TABLE pages (book int REFERENCES books ON DELETE RESTRICT, no int, PRIMARY KEY (book, no));
CREATE TABLE marks (book int, page int, FOREIGN KEY (book, page) REFERENCES pages);
CREATE TABLE prizes (id int PRIMARY KEY, author int REFERENCES authors ON DELETE CASCADE);
CREATE TABLE speeches (prize int REFERENCES prizes, words text);
CREATE TABLE visits (author int REFERENCES authors ON DELETE SET NULL);
CREATE TABLE votes (author int DEFAULT 100 REFERENCES authors ON DELETE SET DEFAULT);
INSERT INTO authors VALUES (100, 'nobody');
SELECT run_id AS run FROM portage.migrate('dep', '[{"id": 1, "name": "a", "code": "A"}, {"id": 2, "name": "b", "code": "B", "boss": 1}, {"id": 3, "name": "c"}]') \gset
INSERT INTO books VALUES (10, 1, 'B'), (11, 1, NULL), (12, 100, NULL);
INSERT INTO pages VALUES (10, 1), (10, 2), (12, 1);
INSERT INTO marks VALUES (10, 1), (10, 1), (12, 1);
INSERT INTO prizes VALUES (20, 2), (21, 100);
INSERT INTO speeches VALUES (20, 'thanks'), (21, 'thanks');
INSERT INTO visits VALUES (3), (3), (100);
INSERT INTO votes VALUES (3), (100);
SELECT d ->> 'table' AS "table", d ->> 'constraint' AS "constraint", d ->> 'action' AS action, d ->> 'rows' AS rows
  FROM portage.can_rollback(:run) c CROSS JOIN jsonb_array_elements(c.dependants) AS d;
SELECT possible, reasons[1], missing_privileges FROM portage.can_rollback(:run);
CALL portage.rollback(:run);
SELECT count(*) FROM authors;
CALL portage.rollback(:run, cascade => true);
SELECT id FROM authors ORDER BY 1;
SELECT (SELECT array_agg(id ORDER BY id) FROM books) AS books, (SELECT array_agg(book) FROM pages) AS pages,
       (SELECT array_agg(book) FROM marks) AS marks, (SELECT array_agg(id) FROM prizes) AS prizes,
       (SELECT array_agg(prize) FROM speeches) AS speeches, (SELECT array_agg(author) FROM visits) AS visits,
       (SELECT array_agg(author) FROM votes) AS votes;
SELECT details FROM portage.migration_events WHERE run_id = :run AND event_type IN ('rollback_completed', 'rollback_incomplete');
TRUNCATE books, pages, marks, prizes, speeches, visits, votes;

-- 2. Each right is asked for before anything goes, of the tables whose rows no constraint deletes by itself.
SET client_min_messages = warning;
CREATE ROLE dep_runner;
RESET client_min_messages;
GRANT USAGE ON SCHEMA dep TO dep_runner;
GRANT SELECT, INSERT, UPDATE, DELETE ON authors TO dep_runner;
SELECT portage.grant_pipeline('dep', 'dep_runner', 'run') > 0 AS granted;
SET ROLE dep_runner;
SELECT run_id AS run FROM portage.migrate('dep', '[{"id": 1, "name": "a"}]') \gset
RESET ROLE;
INSERT INTO books VALUES (10, 1);
INSERT INTO pages VALUES (10, 1);
INSERT INTO prizes VALUES (20, 1);
INSERT INTO speeches VALUES (20, 'thanks');
SELECT unnest(missing_privileges) FROM portage.can_rollback(:run);
SET ROLE dep_runner;
SELECT possible, missing_privileges FROM portage.can_rollback(:run);
CALL portage.rollback(:run, cascade => true);
RESET ROLE;
GRANT DELETE ON books, pages, speeches TO dep_runner;
GRANT SELECT (author, editor) ON books TO dep_runner;
GRANT SELECT (book) ON pages TO dep_runner;
SET ROLE dep_runner;
CALL portage.rollback(:run, cascade => true);
RESET ROLE;
GRANT SELECT (prize) ON speeches TO dep_runner;
SET ROLE dep_runner;
CALL portage.rollback(:run, cascade => true);
RESET ROLE;
SELECT (SELECT count(*) FROM authors) AS authors, (SELECT count(*) FROM books) AS books, (SELECT count(*) FROM pages) AS pages,
       (SELECT count(*) FROM prizes) AS prizes, (SELECT count(*) FROM speeches) AS speeches;

-- 3. Circles end: a table that refers to itself, two that refer to each other, a way back to the target.
CREATE TABLE threads (id int PRIMARY KEY, author int REFERENCES authors, answers int REFERENCES threads);
CREATE TABLE heads (id int PRIMARY KEY, thread int REFERENCES threads);
ALTER TABLE threads ADD head int REFERENCES heads;
ALTER TABLE authors ADD favourite int REFERENCES threads;
SELECT run_id AS run FROM portage.migrate('dep', '[{"id": 1, "name": "a"}, {"id": 2, "name": "b", "boss": 1}]') \gset
INSERT INTO threads VALUES (30, 1, NULL), (31, 100, 30), (32, 100, 31), (33, 100, NULL);
INSERT INTO heads VALUES (40, 30), (41, 33);
UPDATE threads SET head = 40, answers = 32 WHERE id = 30;
INSERT INTO authors VALUES (101, 'a stranger that refers to a row of the run', NULL, 2, NULL),
                           (102, 'and one that refers to that one', NULL, 101, NULL),
                           (103, 'and one that likes a thread that goes', NULL, NULL, 32);
SELECT d ->> 'table' AS "table", d ->> 'constraint' AS "constraint", d ->> 'rows' AS rows
  FROM portage.can_rollback(:run) c CROSS JOIN jsonb_array_elements(c.dependants) AS d;
CALL portage.rollback(:run);
CALL portage.rollback(:run, cascade => true);
SELECT id FROM authors ORDER BY 1;
SELECT (SELECT array_agg(id) FROM threads) AS threads, (SELECT array_agg(id) FROM heads) AS heads;

-- 4. Rows of the run that refer to one another hinder nobody, in whatever order, also with actions that would change them.
ALTER TABLE authors DROP COLUMN favourite, ADD friend int REFERENCES authors ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED;
SELECT portage.replace_pipeline('dep', '{"format": "json", "legacy_id": "id", "columns": {"id": "id", "name": "name", "boss": "boss", "friend": "friend"}, "on_conflict": "overwrite"}') > 0 AS replaced;
SELECT run_id AS run FROM portage.migrate('dep', '[{"id": 1, "name": "a", "friend": 3}, {"id": 2, "name": "b", "boss": 1}, {"id": 3, "name": "c", "boss": 2, "friend": 2}, {"id": 100, "name": "N", "boss": 3}]') \gset
SELECT possible FROM portage.can_rollback(:run);
CALL portage.rollback(:run);
SELECT * FROM authors;

-- 5. A row that is spared keeps what it refers to: nobody loses by force what he was promised to keep.
SELECT run_id AS run FROM portage.migrate('dep', '[{"id": 1, "name": "a"}, {"id": 2, "name": "b", "boss": 1}]') \gset
UPDATE authors SET name = 'mine now' WHERE id = 2;
CALL portage.rollback(:run, drifted => 'keep', cascade => true);
SELECT id, name, boss FROM authors ORDER BY 1;
DELETE FROM authors WHERE id < 100;

-- 6. Partitions on either side, and a constraint on one partition only.
CREATE TABLE sales (id int, region text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE sales_n PARTITION OF sales FOR VALUES IN ('n');
CREATE TABLE sales_s PARTITION OF sales FOR VALUES IN ('s');
CREATE TABLE lines (sale int, region text, no int, FOREIGN KEY (sale, region) REFERENCES sales) PARTITION BY LIST (no);
CREATE TABLE lines_1 PARTITION OF lines FOR VALUES IN (1);
CREATE TABLE lines_2 PARTITION OF lines FOR VALUES IN (2);
CREATE TABLE returns (sale int, region text, FOREIGN KEY (sale, region) REFERENCES sales_s);
SELECT portage.create_pipeline('dep_sales', 'sales', '{"format": "json", "legacy_id": ["id", "region"], "columns": {"id": "id", "region": "region"}}') > 0 AS created;
SELECT run_id AS run FROM portage.migrate('dep_sales', '[{"id": 1, "region": "n"}, {"id": 2, "region": "s"}]') \gset
INSERT INTO lines VALUES (1, 'n', 1), (1, 'n', 2), (2, 's', 1);
INSERT INTO returns VALUES (2, 's');
SELECT d ->> 'table' AS "table", d ->> 'constraint' AS "constraint", d ->> 'rows' AS rows
  FROM portage.can_rollback(:run) c CROSS JOIN jsonb_array_elements(c.dependants) AS d;
CALL portage.rollback(:run, cascade => true);
SELECT (SELECT count(*) FROM sales) AS sales, (SELECT count(*) FROM lines) AS lines, (SELECT count(*) FROM returns) AS returns;
-- a partition as the target: what refers to the whole table refers to its rows
SELECT portage.create_pipeline('dep_south', 'sales_s', '{"format": "json", "legacy_id": ["id", "region"], "columns": {"id": "id", "region": "region"}}') > 0 AS created;
SELECT run_id AS run FROM portage.migrate('dep_south', '[{"id": 5, "region": "s"}]') \gset
INSERT INTO lines VALUES (5, 's', 2);
CALL portage.rollback(:run);
CALL portage.rollback(:run, cascade => true);
SELECT (SELECT count(*) FROM sales) AS sales, (SELECT count(*) FROM lines) AS lines;

-- 7. A trigger that keeps a dependant keeps the row that it refers to.
CREATE FUNCTION keep_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN CASE WHEN old.id = 10 THEN NULL ELSE old END; END $$;
CREATE TRIGGER keep_it BEFORE DELETE ON books FOR EACH ROW EXECUTE FUNCTION keep_it();
SELECT run_id AS run FROM portage.migrate('dep', '[{"id": 51, "name": "a"}, {"id": 52, "name": "b"}]') \gset
INSERT INTO books VALUES (10, 51), (11, 52);
CALL portage.rollback(:run, cascade => true);
SELECT a.id AS author, b.id AS book FROM authors a LEFT JOIN books b ON b.author = a.id ORDER BY 1;

-- Nothing is left for the next test.
SELECT count(portage.drop_pipeline(name, true)) > 0 AS dropped FROM portage.pipelines;
SET client_min_messages = warning;
DROP SCHEMA dep CASCADE;
DROP ROLE dep_runner;
