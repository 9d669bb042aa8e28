-- Rollback of a run: inserted rows go, overwritten values come back column by column, mappings too; what changed
-- since is refused, kept or forced.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS pg_portage CASCADE;  -- run ids begin at 1
CREATE EXTENSION pg_portage;
RESET client_min_messages;
CREATE SCHEMA app;
\set SHOW_CONTEXT never

CREATE TABLE app.books (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  isbn text UNIQUE,
  title text,
  pages int,
  price numeric,
  shelf text DEFAULT 'new',
  title_length int GENERATED ALWAYS AS (length(title)) STORED
);
INSERT INTO app.books (isbn, title, pages, price, shelf) VALUES ('x', 'Old', 10, 1.0, 'A1');
SELECT portage.create_pipeline('books', 'app.books', $$
  {"format": "json", "legacy_id": "n",
   "columns": {"isbn": "isbn", "title": "title", "pages": "pages", "price": "price"},
   "match": ["isbn"], "on_conflict": "overwrite"}$$) > 0 AS created;
CREATE TABLE app.before AS SELECT * FROM app.books;

-- Two inserts, one overwrite; then back.
SELECT run_id AS r1, status, inserted, updated FROM portage.migrate('books',
  '[{"n": 1, "isbn": "a", "title": "A", "pages": 1, "price": 1}, {"n": 2, "isbn": "b", "title": "B"},
    {"n": 3, "isbn": "x", "title": "New", "pages": 10, "price": 1.00}]') \gset
SELECT isbn, title, pages, price, shelf, title_length FROM app.books ORDER BY isbn;
-- the before-image holds the columns that changed, 1.0 -> 1.00 among them
SELECT columns, before FROM portage.migration_undo;
SELECT possible, reasons, rows, drifted, dependants, missing_privileges FROM portage.can_rollback(:r1);
CALL portage.rollback(:r1);
SELECT count(*) AS differences FROM ((TABLE app.books EXCEPT TABLE app.before) UNION ALL (TABLE app.before EXCEPT TABLE app.books)) d;
SELECT price::text FROM app.books;
SELECT count(*) AS mappings FROM portage.legacy_mappings;
SELECT status FROM portage.status(:r1);
SELECT ordinal, revision, status FROM portage.migration_items WHERE run_id = :r1 ORDER BY ordinal, revision;
SELECT kind, rolled_back FROM portage.migration_batches WHERE run_id = :r1 ORDER BY id;
SELECT event_type FROM portage.migration_events WHERE run_id = :r1 ORDER BY seq;
-- once is enough
CALL portage.rollback(:r1);

-- A run over a run: the later one goes first.
SELECT run_id AS r2 FROM portage.migrate('books', '[{"n": 1, "isbn": "a", "title": "A"}, {"n": 3, "isbn": "x", "title": "X2"}]') \gset
SELECT run_id AS r3 FROM portage.migrate('books', '[{"n": 1, "isbn": "a", "title": "A3"}, {"n": 4, "isbn": "d", "title": "D"}]') \gset
CREATE TABLE app.after_r2 AS SELECT isbn, title FROM app.books;
CALL portage.rollback(:r2);
SELECT drifted FROM portage.can_rollback(:r2);
CALL portage.rollback(:r3);
SELECT isbn, title FROM app.books ORDER BY isbn;
SELECT legacy_id, origin, run_id = :r2 AS of_r2 FROM portage.legacy_mappings ORDER BY legacy_id;
CALL portage.rollback('books', '');
SELECT isbn, title FROM app.books ORDER BY isbn;

-- Drift: an edit that differs only in bytes, one of a column that is not mapped, a row that is gone.
SELECT run_id AS r4 FROM portage.migrate('books',
  '[{"n": 1, "isbn": "a", "price": 1.0}, {"n": 2, "isbn": "b"}, {"n": 3, "isbn": "x", "title": "X4", "price": 2},
    {"n": 5, "isbn": "e"}, {"n": 6, "isbn": "f"}]') \gset
UPDATE app.books SET price = 1.00 WHERE isbn = 'a';
UPDATE app.books SET shelf = 'B2' WHERE isbn = 'b';
DELETE FROM app.books WHERE isbn = 'f';
CALL portage.rollback(:r4);
SELECT status FROM portage.status(:r4);
CALL portage.rollback(:r4, drifted => 'perhaps');
CALL portage.rollback(:r4, drifted => 'keep');
SELECT isbn, title, price, shelf FROM app.books ORDER BY isbn;
SELECT status FROM portage.status(:r4);

-- The same, forced.
DELETE FROM app.books WHERE isbn IN ('a', 'b');
SELECT run_id AS r5 FROM portage.migrate('books', '[{"n": 11, "isbn": "k", "title": "K"}, {"n": 12, "isbn": "x", "title": "X5"}]') \gset
UPDATE app.books SET title = title || '!', shelf = 'C3';
CALL portage.rollback(:r5, drifted => 'force');
SELECT isbn, title, shelf FROM app.books ORDER BY isbn;

-- Dependants over foreign keys, whatever their action, refuse the rollback unless cascade.
CREATE TABLE app.loans (id int PRIMARY KEY, book bigint REFERENCES app.books);
CREATE TABLE app.tags (book bigint REFERENCES app.books ON DELETE CASCADE, tag text);
CREATE TABLE app.notes (book bigint REFERENCES app.books ON DELETE SET NULL, note text);
SELECT run_id AS r6 FROM portage.migrate('books', '[{"n": 21, "isbn": "l"}, {"n": 22, "isbn": "m"}, {"n": 23, "isbn": "o"}]') \gset
INSERT INTO app.loans SELECT 1, id FROM app.books WHERE isbn = 'l';
INSERT INTO app.tags SELECT id, 't' FROM app.books WHERE isbn = 'm';
INSERT INTO app.notes SELECT id, 'n' FROM app.books WHERE isbn = 'o';
CALL portage.rollback(:r6);
SELECT possible, reasons, dependants FROM portage.can_rollback(:r6);
CALL portage.rollback(:r6, cascade => true);
SELECT (SELECT count(*) FROM app.loans) AS loans, (SELECT count(*) FROM app.tags) AS tags,
       (SELECT count(*) FROM app.notes WHERE book IS NULL) AS notes;
DROP TABLE app.loans, app.tags, app.notes;

-- Triggers of the target: one that edits on the way back is told, one that cancels or raises spares the row.
CREATE FUNCTION app.meddle() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    IF tg_op = 'DELETE' THEN
      IF old.isbn = 'keep' THEN RETURN NULL; END IF;
      IF old.isbn = 'raise' THEN RAISE EXCEPTION 'not this one'; END IF;
      RETURN old;
    END IF;
    IF new.title = 'Old' THEN new.shelf := 'touched'; END IF;
    RETURN new;
  END $$;
UPDATE app.books SET title = 'Old' WHERE isbn = 'x';
SELECT run_id AS r7 FROM portage.migrate('books',
  '[{"n": 31, "isbn": "keep"}, {"n": 32, "isbn": "raise"}, {"n": 33, "isbn": "p"}, {"n": 34, "isbn": "x", "title": "X7"}]') \gset
CREATE TRIGGER meddle BEFORE UPDATE OR DELETE ON app.books FOR EACH ROW EXECUTE FUNCTION app.meddle();
CALL portage.rollback(:r7);
SELECT details FROM portage.migration_events WHERE run_id = :r7 AND event_type IN ('rollback_completed', 'rollback_incomplete');
SELECT isbn, title, shelf FROM app.books ORDER BY isbn;
DROP TRIGGER meddle ON app.books;

-- Composite key, domain, composite and array columns, partitions, a self reference.
CREATE DOMAIN app.grade AS int CHECK (VALUE BETWEEN 1 AND 6);
CREATE TYPE app.pair AS (a int, b text);
CREATE TABLE app.marks (
  pupil text, term int, grade app.grade, detail app.pair, tags text[], boss text, boss_term int,
  PRIMARY KEY (pupil, term), FOREIGN KEY (boss, boss_term) REFERENCES app.marks
) PARTITION BY LIST (term);
CREATE TABLE app.marks_1 PARTITION OF app.marks FOR VALUES IN (1);
CREATE TABLE app.marks_2 PARTITION OF app.marks FOR VALUES IN (2);
INSERT INTO app.marks VALUES ('z', 1, 3, (7, 'q "x"'), '{a,NULL,"b c"}');
CREATE TABLE app.marks_before AS SELECT * FROM app.marks;
SELECT portage.create_pipeline('marks', 'app.marks', $$
  {"format": "json", "legacy_id": ["pupil", "term"], "on_conflict": "overwrite",
   "columns": {"pupil": "pupil", "term": "term", "grade": "grade", "detail": "detail", "tags": "tags", "boss": "boss",
               "boss_term": "boss_term"}}$$) > 0 AS created;
SELECT run_id AS r8, inserted, updated, invalid FROM portage.migrate('marks',
  '[{"pupil": "y", "term": 2, "grade": 2, "detail": {"a": 1, "b": "c"}, "tags": ["t", "u"], "boss": "z", "boss_term": 1},
    {"pupil": "w", "term": 1, "grade": 1, "boss": "y", "boss_term": 2},
    {"pupil": "z", "term": 1, "grade": 6, "detail": null, "tags": []}]') \gset
SELECT :inserted AS inserted, :updated AS updated, :invalid AS invalid;
CALL portage.rollback(:r8);
SELECT count(*) AS differences FROM ((TABLE app.marks EXCEPT TABLE app.marks_before) UNION ALL (TABLE app.marks_before EXCEPT TABLE app.marks)) d;

-- What cannot be rolled back, and who may not.
SELECT portage.open_run('books') AS pending \gset
CALL portage.rollback(:pending);
SELECT possible, reasons FROM portage.can_rollback(:pending);
CALL portage.rollback(999999);
BEGIN;
CALL portage.rollback(1);
ROLLBACK;
CREATE ROLE portage_reader;
CREATE ROLE portage_writer;
GRANT USAGE ON SCHEMA app TO portage_writer;
GRANT SELECT, INSERT ON app.books TO portage_writer;
SELECT portage.grant_pipeline('books', 'portage_writer', 'run') > 0 AS granted;
SET ROLE portage_reader;
CALL portage.rollback(1);
SET ROLE portage_writer;
SELECT run_id AS r9 FROM portage.migrate('books', '[{"n": 41, "isbn": "s"}]', options => '{"on_conflict": "skip"}') \gset
CALL portage.rollback(:r9);
SELECT possible, missing_privileges FROM portage.can_rollback(:r9);
RESET ROLE;
GRANT DELETE, UPDATE (title) ON app.books TO portage_writer;
SET ROLE portage_writer;
CALL portage.rollback(:r9);
RESET ROLE;
SELECT count(*) AS left_over FROM app.books WHERE isbn = 's';

SET client_min_messages = warning;
DROP EXTENSION pg_portage;
DROP SCHEMA app CASCADE;
DROP OWNED BY portage_writer;
DROP ROLE portage_reader, portage_writer;
