-- Groups of pipelines: their order, one after the other in this session, what becomes of members that fail, and who may.
-- In the background: tests/e2e/groups.py.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 27000
\set ECHO none
\i :prelude
\set ECHO all
\set SHOW_CONTEXT never
CREATE SCHEMA groups;
SET search_path = groups;
\pset format unaligned
\pset tuples_only on

-- 1. Four tables of old, one of which refers to two others, and pipelines for them.
CREATE TABLE old_authors (key text PRIMARY KEY, name text);
CREATE TABLE old_shelves (nr int PRIMARY KEY, room text);
CREATE TABLE old_books (isbn text PRIMARY KEY, title text, author text, shelf int);
CREATE TABLE old_loans (nr int PRIMARY KEY, isbn text);
INSERT INTO old_authors VALUES ('a1', 'Astrid'), ('a2', 'Berta');
INSERT INTO old_shelves VALUES (1, 'east'), (2, 'west');
INSERT INTO old_books VALUES ('b1', 'One', 'a1', 1), ('b2', 'Two', 'a2', 2), ('b3', 'Three', 'a9', 1);
INSERT INTO old_loans VALUES (1, 'b1'), (2, 'b2'), (3, 'b3');
CREATE TABLE author (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE shelf (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, room text NOT NULL UNIQUE);
CREATE TABLE book (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, title text NOT NULL UNIQUE, author_id int NOT NULL REFERENCES author, shelf_id int REFERENCES shelf);
CREATE TABLE loan (id int PRIMARY KEY, book_id int NOT NULL REFERENCES book);
SELECT portage.create_pipeline('authors', 'author', '{"format": "rows", "legacy_id": "key", "columns": {"name": "name"}, "source": {"table": "old_authors"}}') > 0 AS created;
SELECT portage.create_pipeline('shelves', 'shelf', '{"format": "rows", "legacy_id": "nr", "columns": {"room": "room"}, "source": {"table": "old_shelves"}, "after": "authors"}') > 0 AS created;
SELECT portage.create_pipeline('books', 'book', '{"format": "rows", "legacy_id": "isbn", "columns": {"title": "title", "author_id": {"from": "author", "references": "authors"}, "shelf_id": {"from": "shelf", "references": "shelves"}}, "source": {"table": "old_books"}}') > 0 AS created;
SELECT portage.create_pipeline('loans', 'loan', '{"format": "rows", "legacy_id": "nr", "columns": {"id": "nr", "book_id": {"from": "isbn", "references": "books"}}, "source": {"table": "old_loans"}}') > 0 AS created;
SELECT portage.create_pipeline('titles', 'shelf', '{"format": "rows", "legacy_id": "isbn", "columns": {"room": "title"}, "source": {"query": "SELECT * FROM old_books"}, "after": ["books", "elsewhere"]}') > 0 AS created;
SELECT portage.create_pipeline('titles', 'shelf', '{"format": "rows", "legacy_id": "isbn", "columns": {"room": "title"}, "source": {"query": "SELECT * FROM old_books"}, "after": "titles"}') > 0 AS created;
SELECT portage.create_pipeline('titles', 'shelf', '{"format": "rows", "legacy_id": "isbn", "columns": {"room": "title"}, "source": {"query": "SELECT * FROM old_books"}, "after": ["books"]}') > 0 AS created;
-- Where the members of a group stand; run ids as numbers within it.
CREATE FUNCTION stands("group" bigint) RETURNS SETOF text LANGUAGE sql AS $$
  SELECT format('%s %s (run %s): %s, read %s, inserted %s, unchanged %s, parked %s, invalid %s%s', s.level, s.pipeline, s.run_id - min(s.run_id) OVER () + 1, s.status,
    s.read, s.inserted, s.unchanged, s.parked, s.invalid, ' | ' || replace(s.reason, 'run ' || (SELECT min(run_id) FROM portage.group_status($1)), 'run 1'))
  FROM portage.group_status($1) s $$;

-- 2. What a plan says: the order, what each would read, what would be missing.
SELECT portage.plan_group(ARRAY['loans', 'books', 'titles', 'authors', 'shelves']) - 'pipelines' - 'estimated_duration' - 'recommendations';
SELECT p ->> 'pipeline', p ->> 'level', p -> 'waits_for', p ->> 'items', p ->> 'items_basis' FROM jsonb_array_elements(portage.plan_group(ARRAY['loans', 'books', 'titles', 'authors', 'shelves']) -> 'pipelines') p;
SELECT r ->> 'pipeline', r ->> 'code', r ->> 'text' FROM jsonb_array_elements(portage.plan_group(ARRAY['titles', 'books']) -> 'recommendations') r WHERE r ->> 'code' <> 'match_index';
SELECT count(*) AS runs FROM portage.migration_runs WHERE id >= :first_run;
SELECT pg_temp.refused($$SELECT portage.plan_group('{}')$$);
SELECT pg_temp.refused($$SELECT portage.plan_group(NULL)$$);
SELECT pg_temp.refused($$SELECT portage.plan_group(ARRAY['books', NULL])$$);
SELECT pg_temp.refused($$SELECT portage.plan_group(ARRAY['books', 'books'])$$);
SELECT pg_temp.refused($$SELECT portage.plan_group(ARRAY['books', 'autors'])$$);
SELECT pg_temp.refused($$SELECT portage.run_group(ARRAY['books'], '{"worker": 3}')$$);
SELECT pg_temp.refused($$SELECT portage.run_group(ARRAY['books'], '{"workers": 0}')$$);
SELECT pg_temp.refused($$SELECT portage.run_group(ARRAY['books'], '{"batch_size": 3}')$$);
SELECT pg_temp.refused($$SELECT portage.run_group(ARRAY['books'], '{"options": {"batch": 3}}')$$);
SELECT pg_temp.refused($$SELECT portage.run_group(ARRAY['books'], '[]')$$);

-- 3. In their order, in this session. What still misses something when all have ended is a reject that names it.
SELECT portage.run_group(ARRAY['loans', 'books', 'authors', 'shelves'], '{"background": false}') AS g \gset
SELECT stands(:g);
CALL portage.rollback_group(:g);
CALL portage.work_group(:g);
SELECT stands(:g);
SELECT status, members, completed, skipped_members, read, inserted, invalid, completed_at IS NOT NULL AS ended, error FROM portage.groups WHERE group_id = :g;
SELECT r.pipeline, j.rule, j.column_name, j.message FROM portage.rejects j JOIN portage.migration_runs r ON r.id = j.run_id WHERE r.group_id = :g ORDER BY j.run_id;
SELECT b.title, a.name, s.room FROM book b JOIN author a ON a.id = author_id JOIN shelf s ON s.id = shelf_id ORDER BY 1;
SELECT p ->> 'status', p ->> 'inserted', jsonb_path_query_array(p, '$.members[*].pipeline'), jsonb_path_query_array(p, '$.members[*].report.result.status') FROM portage.report_group(:g) p;
-- It has ended: there is nothing to go on with.
CALL portage.work_group(:g);
SELECT pg_temp.refused(format('SELECT portage.resume_group(%s)', :g));
SELECT pg_temp.refused(format('SELECT portage.cancel_group(%s)', :g));
-- Back again, the last ones first; it stops where somebody has changed a row.
UPDATE author SET name = 'Bertha' WHERE name = 'Berta';
CALL portage.rollback_group(:g);
SELECT stands(:g);
SELECT status FROM portage.groups WHERE group_id = :g;
CALL portage.rollback_group(:g, drifted => 'force');
SELECT stands(:g);
SELECT status FROM portage.groups WHERE group_id = :g;
SELECT (SELECT count(*) FROM author) + (SELECT count(*) FROM book) + (SELECT count(*) FROM loan) AS left;

-- 4. A member that fails: what waits for it is skipped, the rest is worked off; when it is mended, the group goes on.
ALTER TABLE book ADD CONSTRAINT no_two CHECK (title <> 'Two');
SELECT portage.run_group(ARRAY['titles', 'loans', 'books', 'authors', 'shelves'], '{"background": false, "options": {"max_rejects": 0}}') AS g \gset
CALL portage.work_group(:g);
SELECT stands(:g);
SELECT status FROM portage.groups WHERE group_id = :g;
-- as often as one likes
CALL portage.work_group(:g);
ALTER TABLE book DROP CONSTRAINT no_two;
SELECT run_id AS books FROM portage.group_status(:g) WHERE pipeline = 'books' \gset
DELETE FROM old_books WHERE isbn = 'b3';
DELETE FROM old_loans WHERE nr = 3;
UPDATE portage.migration_runs SET options = options - 'max_rejects' WHERE id = :books;
CALL portage.work_group(:g);
SELECT stands(:g);
CALL portage.rollback_group(:g);
SELECT status FROM portage.groups WHERE group_id = :g;

-- 5. Cancelled before it has begun, and a member that somebody cancels by itself.
SELECT portage.run_group(ARRAY['books', 'authors'], '{"background": false}') AS g \gset
SELECT portage.cancel_group(:g);
SELECT stands(:g);
CALL portage.work_group(:g);
SELECT pg_temp.refused(format('SELECT portage.resume_group(%s)', :g));
SELECT portage.run_group(ARRAY['books', 'authors', 'loans'], '{"background": false}') AS g \gset
SELECT portage.cancel(run_id) FROM portage.group_status(:g) WHERE pipeline = 'books';
CALL portage.work_group(:g);
SELECT stands(:g);
CALL portage.rollback_group(:g);
SELECT stands(:g);

-- 6. Who refers to each other: what is not there yet is parked, and settled by the other's end.
CREATE TABLE person (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE, home_id int);
CREATE TABLE house (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, street text NOT NULL UNIQUE, owner_id int);
CREATE TABLE old_people (nr int PRIMARY KEY, name text, home text);
CREATE TABLE old_houses (street text PRIMARY KEY, owner int);
INSERT INTO old_people VALUES (1, 'Ada', 'elm'), (2, 'Bob', 'oak'), (3, 'Cid', NULL), (4, 'Dan', 'moon');
INSERT INTO old_houses VALUES ('elm', 3), ('oak', 1), ('ash', NULL);
SELECT portage.create_pipeline('houses', 'house', '{"format": "rows", "legacy_id": "street", "columns": {"street": "street"}, "source": {"table": "old_houses"}}') > 0 AS created;
SELECT portage.create_pipeline('people', 'person', '{"format": "rows", "legacy_id": "nr", "columns": {"name": "name", "home_id": {"from": "home", "references": "houses"}}, "source": {"table": "old_people"}}') > 0 AS created;
SELECT portage.replace_pipeline('houses', '{"format": "rows", "legacy_id": "street", "columns": {"street": "street", "owner_id": {"from": "owner", "references": "people"}}, "source": {"table": "old_houses"}}') > 0 AS replaced;
SELECT portage.plan_group(ARRAY['people', 'houses']) - 'pipelines' - 'estimated_duration' - 'estimated_wal_bytes' - 'estimated_ledger_bytes';
SELECT portage.run_group(ARRAY['people', 'houses'], '{"background": false}') AS g \gset
CALL portage.work_group(:g);
SELECT stands(:g);
SELECT j.message FROM portage.rejects j JOIN portage.migration_runs r ON r.id = j.run_id WHERE r.group_id = :g;
SELECT p.name, h.street, o.name FROM person p LEFT JOIN house h ON h.id = p.home_id LEFT JOIN person o ON o.id = h.owner_id ORDER BY 1;
-- With an "after" among them there is no order.
SELECT portage.replace_pipeline('houses', '{"format": "rows", "legacy_id": "street", "columns": {"street": "street"}, "source": {"table": "old_houses"}, "after": "people"}') > 0 AS replaced;
SELECT portage.plan_group(ARRAY['people', 'houses', 'authors']) - ARRAY['pipelines', 'estimated_duration', 'estimated_wal_bytes', 'estimated_ledger_bytes'];
SELECT pg_temp.refused($$SELECT portage.run_group(ARRAY['people', 'houses', 'authors'])$$);
SELECT count(*) AS groups FROM portage.run_groups WHERE status = 'running';

-- 7. Everything runs as the caller, who is told what it lacks; who may not see the runs does not see the group.
CREATE ROLE regress_portage_groups;
CREATE ROLE regress_portage_strange;
GRANT USAGE ON SCHEMA groups TO regress_portage_groups;
GRANT SELECT ON old_authors TO regress_portage_groups;
SELECT portage.grant_pipeline('authors', 'regress_portage_groups', 'run') > 0 AS granted;
SELECT portage.grant_pipeline('shelves', 'regress_portage_groups', 'run') > 0 AS granted;
SET ROLE regress_portage_groups;
SELECT pg_temp.refused($$SELECT portage.plan_group(ARRAY['authors', 'books'])$$);
SELECT b ->> 'pipeline', b ->> 'sqlstate', b ->> 'message', b ->> 'remedy' FROM jsonb_array_elements(portage.plan_group(ARRAY['authors', 'shelves']) -> 'blockers') b;
SELECT pg_temp.refused($$SELECT portage.run_group(ARRAY['authors', 'shelves'], '{"background": false}')$$);
RESET ROLE;
GRANT CREATE ON SCHEMA groups TO regress_portage_groups;
SET ROLE regress_portage_groups;
CREATE TABLE mine (id text PRIMARY KEY);
SELECT portage.create_pipeline('mine', 'groups.mine', '{"format": "rows", "legacy_id": "key", "columns": {"id": "key"}, "source": {"table": "groups.old_authors"}}') > 0 AS created;
SELECT portage.run_group(ARRAY['mine'], '{"background": false, "scope": "x"}') AS g \gset
SET ROLE regress_portage_strange;
SELECT count(*) FROM portage.run_groups;
SELECT count(*) FROM portage.group_status(:g);
SELECT portage.report_group(:g) IS NULL AS unseen;
SELECT pg_temp.refused(format('SELECT portage.cancel_group(%s)', :g));
CALL portage.work_group(:g);
CALL portage.wait_group(:g);
RESET ROLE;
SELECT portage.grant_pipeline('regress_portage_groups/mine', 'regress_portage_strange', 'read') > 0 AS granted;
SET ROLE regress_portage_strange;
SELECT pipeline, status FROM portage.group_status(:g);
SELECT count(*) FROM portage.groups;
SELECT pg_temp.refused(format('SELECT portage.resume_group(%s)', :g));
SET portage.scope = 'y';
SELECT count(*) FROM portage.groups;
RESET portage.scope;
RESET ROLE;
-- Whoever may act as its role goes on with it, as that role.
CALL portage.work_group(:g);
SELECT stands(:g);
SELECT DISTINCT r.role_name FROM portage.migration_runs r WHERE r.group_id = :g;
SELECT pg_temp.refused('SELECT portage.cancel_group(999999999)');
SELECT pg_temp.refused('SELECT portage.cancel_group(NULL)');
-- A dry run of a group writes nothing.
SELECT portage.run_group(ARRAY['authors', 'shelves'], '{"background": false, "options": {"dry_run": true}}') AS g \gset
CALL portage.work_group(:g);
SELECT status, read, inserted FROM portage.groups WHERE group_id = :g;
SELECT count(*) FROM author;
-- With its pipelines a group goes.
SELECT count(portage.drop_pipeline(portage.pipeline_name(id), true)) > 0 AS dropped FROM portage.pipelines;
SELECT count(*) FROM portage.run_groups;
DROP SCHEMA groups CASCADE;
DROP ROLE regress_portage_groups, regress_portage_strange;
