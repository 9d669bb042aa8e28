-- "references": a column whose values come as legacy ids of another pipeline, or of this one. What is not there yet is
-- parked, and lands as soon as it is: whatever the order, the result is the same.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 22000
\set ECHO none
\i :prelude
\set ECHO all
CREATE SCHEMA refs;
SET search_path = refs;
\set SHOW_CONTEXT never
CREATE TABLE author (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text UNIQUE NOT NULL);
CREATE TABLE book (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, title text UNIQUE, author_id int NOT NULL REFERENCES author, editor_id bigint REFERENCES author, pages int CHECK (pages > 0));
SELECT portage.create_pipeline('authors', 'author', '{"format": "json", "legacy_id": "key", "match": "name", "columns": {"name": "name"}}') > 0 AS created;
\set books '{"format": "json", "legacy_id": "isbn", "match": "title", "columns": {"title": "title", "pages": "pages", "author_id": {"from": "author", "references": "authors"}, "editor_id": {"from": "editor", "references": "authors"}}, "rules": {"author_known": "author_id > 0", "short": {"sql": "length(title) < 20", "severity": "warning"}}}'
SELECT portage.create_pipeline('books', 'book', :'books') > 0 AS created;
\set author_items '[{"key": 7, "name": "Lem"}, {"key": "x-8", "name": "Le Guin"}]'
\set book_items '[{"isbn": 1, "title": "Solaris", "author": 7, "pages": 200}, {"isbn": 2, "title": "The Dispossessed", "author": "x-8", "editor": "7"}, {"isbn": 3, "title": "Nobody knows", "author": 99}, {"isbn": 4, "title": "No author"}, {"isbn": 5, "title": "Wrong", "author": 7, "pages": 0}, {"isbn": 6, "title": "Wrong and waiting", "author": 99, "pages": 0}, {"isbn": 7, "title": "Listed", "author": [7]}]'
CREATE FUNCTION shelf() RETURNS TABLE (title text, author text, editor text, pages int) LANGUAGE sql AS $$
  SELECT b.title, a.name, e.name, b.pages FROM refs.book b JOIN refs.author a ON a.id = b.author_id LEFT JOIN refs.author e ON e.id = b.editor_id ORDER BY 1 $$;
CREATE FUNCTION outcomes(run bigint) RETURNS TABLE (item bigint, revision int, status text, rule text, column_name text, message text) LANGUAGE sql AS $$
  SELECT ordinal, i.revision, i.status, i.rule, i.column_name, i.message FROM portage.migration_items i WHERE run_id = $1 ORDER BY 1, 2 $$;

-- 1. Authors first: books find them. What refers to nobody known waits; what is wrong besides is a reject.
SELECT run_id AS authors FROM portage.migrate('authors', :'author_items') \gset
SELECT run_id AS run FROM portage.migrate('books', :'book_items') \gset
SELECT pg_temp.books(:run);
SELECT * FROM outcomes(:run);
SELECT * FROM shelf();
SELECT open_parked, open_rejects FROM portage.migration_runs WHERE id = :run;
SELECT portage.lookup('authors', 'x-8') = (SELECT id::text FROM author WHERE name = 'Le Guin') AS looked_up, array(SELECT portage.lookup_legacy('authors', (SELECT id::text FROM author WHERE name = 'Lem'))) AS legacy;
-- Again: what has landed is unchanged, what waited waits anew.
SELECT run_id AS again FROM portage.migrate('books', :'book_items') \gset
SELECT pg_temp.books(:again);
CALL portage.rollback(:again);
-- The author comes: the run of the authors brings the book along, in the books of the run that it belongs to.
SELECT run_id AS late FROM portage.migrate('authors', '[{"key": 99, "name": "Anon"}]') \gset
SELECT pg_temp.books(:run);
SELECT * FROM outcomes(:run) WHERE item = 3;
SELECT kind, read, inserted, parked FROM portage.migration_batches WHERE run_id = :run ORDER BY id;
SELECT event_type, details FROM portage.migration_events WHERE run_id = :run ORDER BY seq;
SELECT title, author FROM shelf() WHERE title = 'Nobody knows';
SELECT bool_and(passed) AS verified FROM portage.verify(:run);
-- All is taken back, whenever it came.
CALL portage.rollback(:run);
SELECT * FROM shelf();

-- 2. Books first, in another scope: the same references.
SELECT run_id AS run FROM portage.migrate('books', :'book_items', 'second') \gset
SELECT pg_temp.books(:run);
SELECT run_id AS authors FROM portage.migrate('authors', :'author_items') \gset
SELECT count(*) AS other_scope FROM shelf();
SELECT run_id AS authors FROM portage.migrate('authors', :'author_items', 'second') \gset
SELECT pg_temp.books(:run);
SELECT * FROM shelf();
-- On demand: what is still missing becomes a reject that names it.
SELECT * FROM portage.settle(:run);
SELECT * FROM portage.settle(:run, give_up => true);
SELECT pg_temp.books(:run);
SELECT item, rule, sqlstate, column_name, message FROM pg_temp.rejected(:run);
-- A reject like that can be replayed once the author is there.
SELECT run_id AS late FROM portage.migrate('authors', '[{"key": 99, "name": "Anon"}]', 'second') \gset
SELECT * FROM portage.replay(:run, 3);
SELECT title, author FROM shelf() WHERE title = 'Nobody knows';
-- An author that is renamed keeps its books; a book whose author changes is updated.
SELECT run_id AS run FROM portage.migrate('books', '[{"isbn": 1, "title": "Solaris", "author": "x-8", "pages": 200}]', 'second') \gset
SELECT pg_temp.books(:run);
SELECT title, author FROM shelf() WHERE title = 'Solaris';

-- 3. A tree of one table, in any order; the root refers to nobody.
CREATE TABLE node (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text UNIQUE NOT NULL, parent_id int REFERENCES node);
SELECT portage.create_pipeline('nodes', 'node', '{"format": "json", "legacy_id": "n", "match": "name", "columns": {"name": "name", "parent_id": {"from": "p", "references": "nodes"}}}') > 0 AS created;
CREATE FUNCTION tree() RETURNS TABLE (nodes bigint, roots bigint, wrong bigint) LANGUAGE sql AS $$
  SELECT count(*), count(*) FILTER (WHERE n.parent_id IS NULL), count(*) FILTER (WHERE p.name IS DISTINCT FROM (substr(n.name, 2)::int / 3)::text AND p.name IS DISTINCT FROM 'n' || (substr(n.name, 2)::int / 3)::text) - count(*) FILTER (WHERE n.parent_id IS NULL)
    FROM refs.node n LEFT JOIN refs.node p ON p.id = n.parent_id $$;
SELECT jsonb_agg(jsonb_build_object('n', n, 'name', 'n' || n, 'p', nullif(n / 3, 0)) ORDER BY hashint4(n)) AS items FROM generate_series(1, 300) n \gset
CALL portage.import('nodes', payload => :'items', options => '{"batch_size": 50}');
SELECT run_id AS run FROM portage.last_run('nodes') \gset
SELECT pg_temp.books(:run);
SELECT * FROM tree();
SELECT verified FROM portage.migration_runs WHERE id = :run;
CALL portage.rollback(:run);
SELECT * FROM tree();
SELECT run_id AS run FROM portage.migrate('nodes', :'items') \gset
SELECT pg_temp.books(:run);
SELECT * FROM tree();

-- Circles land together: two that refer to each other, one that refers to itself, and what hangs on them; but not what refers
-- to somebody who is not there.
SELECT run_id AS run FROM portage.migrate('nodes', '[{"n": "a", "name": "a", "p": "b"}, {"n": "b", "name": "b", "p": "a"}, {"n": "c", "name": "c", "p": "a"}, {"n": "d", "name": "d", "p": "c"}, {"n": "e", "name": "e", "p": "e"}, {"n": "f", "name": "f", "p": "g"}, {"n": "g", "name": "g", "p": "nobody"}, {"n": "h", "name": "a", "p": "e"}]', 'circles') \gset
SELECT pg_temp.books(:run);
SELECT * FROM outcomes(:run) WHERE revision > 0 OR status <> 'parked';
SELECT n.name, p.name AS parent FROM node n LEFT JOIN node p ON p.id = n.parent_id WHERE n.name ~ '^[a-z]$' ORDER BY 1;
SELECT count(*) AS mappings, bool_and(row_hash = (SELECT portage.row_hash(n) FROM node n WHERE n.id::text = target_key)) AS as_stored FROM portage.legacy_mappings WHERE run_id = :run;
SELECT run_id AS again FROM portage.migrate('nodes', '[{"n": "a", "name": "a", "p": "b"}, {"n": "b", "name": "b", "p": "a"}, {"n": "e", "name": "e", "p": "e"}]', 'circles') \gset
SELECT pg_temp.books(:again);
SELECT bool_and(passed) AS verified FROM portage.verify(:run) WHERE severity <> 'warning';
CALL portage.rollback(:again);
CALL portage.rollback(:run);
SELECT count(*) FROM node WHERE name ~ '^[a-z]$';

-- 4. A dry run predicts what will wait.
CALL portage.import('books', payload => :'book_items', scope => 'dry', options => '{"dry_run": true}');
SELECT pg_temp.books(run_id) FROM portage.last_run('books', 'dry');

-- 5. Faults, and who may see what.
SELECT pg_temp.refused($$SELECT portage.create_pipeline('x', 'book', '{"format": "json", "legacy_id": "i", "columns": {"title": "t", "author_id": {"from": "a", "references": "autors"}}}')$$);
SELECT pg_temp.refused($$SELECT portage.create_pipeline('x', 'book', '{"format": "json", "legacy_id": "i", "columns": {"title": "t", "author_id": {"sql": "1", "references": "authors"}}}')$$);
CREATE TABLE pair (a int, b text, PRIMARY KEY (a, b));
CREATE TABLE word (w text PRIMARY KEY);
SELECT portage.create_pipeline('pairs', 'pair', '{"format": "json", "legacy_id": "i", "columns": {"a": "a", "b": "b"}}') > 0 AS created, portage.create_pipeline('words', 'word', '{"format": "json", "legacy_id": "i", "columns": {"w": "w"}}') > 0 AS created;
SELECT pg_temp.refused($$SELECT portage.create_pipeline('x', 'book', '{"format": "json", "legacy_id": "i", "columns": {"title": "t", "author_id": {"from": "a", "references": "pairs"}}}')$$);
SELECT pg_temp.refused($$SELECT portage.create_pipeline('x', 'book', '{"format": "json", "legacy_id": "i", "columns": {"title": "t", "author_id": {"from": "a", "references": "words"}}}')$$);
CREATE ROLE regress_portage_refers;
GRANT USAGE ON SCHEMA refs TO regress_portage_refers;
GRANT ALL ON book, author TO regress_portage_refers;
SET ROLE regress_portage_refers;
SELECT pg_temp.refused($$SELECT portage.create_pipeline('x', 'refs.book', '{"format": "json", "legacy_id": "i", "columns": {"title": "t", "author_id": {"from": "a", "references": "authors"}}}')$$);
RESET ROLE;
SELECT portage.grant_pipeline('authors', 'regress_portage_refers', 'read') > 0 AS granted;
SET ROLE regress_portage_refers;
SELECT portage.create_pipeline('theirs', 'refs.book', '{"format": "json", "legacy_id": "i", "match": "title", "columns": {"title": "t", "author_id": {"from": "a", "references": "authors"}}}') > 0 AS created;
SELECT run_id AS run FROM portage.migrate('theirs', '[{"i": 1, "t": "Theirs", "a": "x-8"}, {"i": 2, "t": "Waits", "a": "new"}]') \gset
SELECT pg_temp.books(:run);
RESET ROLE;
-- Who migrates the author may act as their role: their item is settled as that role. Its rights are gone by now: it waits.
REVOKE INSERT ON book FROM regress_portage_refers;
SELECT run_id AS late FROM portage.migrate('authors', '[{"key": "new", "name": "New"}]') \gset
SELECT pg_temp.books(:run);
GRANT INSERT ON book TO regress_portage_refers;
SELECT portage.revoke_pipeline('authors', 'regress_portage_refers', 'read') > 0 AS revoked;
SELECT pg_temp.refused(format('SELECT portage.settle(%s)', :run));
SELECT portage.grant_pipeline('authors', 'regress_portage_refers', 'read') > 0 AS granted;
SET ROLE regress_portage_refers;
CALL portage.tick();
SELECT pg_temp.books(:run);
SELECT * FROM outcomes(:run) WHERE item = 2;
RESET ROLE;
SELECT count(portage.drop_pipeline(portage.pipeline_name(id), true)) > 0 AS dropped FROM portage.pipelines;
DROP SCHEMA refs CASCADE;
DROP ROLE regress_portage_refers;
