-- on_conflict "merge" and "newest": how the item and the row that it meets become one, column by column, and what the
-- mapping remembers of it for the next time.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 17000
\set ECHO none
\i :prelude
\set ECHO all
CREATE SCHEMA merging;
SET search_path = merging;
\set SHOW_CONTEXT never

-- 1. The strategies, over a row of somebody else's: a column without one takes what comes, unless that is null.
CREATE TABLE s (id int PRIMARY KEY, a int, b int, c int, d int, e text, f text[], g jsonb, h jsonb, i text, j text, k timestamptz, l int, CHECK (d < 100), CHECK (l <> 13));
SELECT portage.create_pipeline('mer_all', 's', '{"format": "json", "legacy_id": "id", "on_conflict": "merge", "newest_by": "k",
  "columns": {"id": "id", "a": "a", "b": "b", "c": "c", "d": "d", "e": "e", "f": "f", "g": "g", "h": "h", "i": "i", "j": "j", "k": "k", "l": "l"},
  "merge": {"a": "existing", "b": "greatest", "c": "least", "d": "sum", "e": "concat", "f": "union", "g": "union", "h": "union",
            "i": "newest", "k": "greatest", "l": {"sql": "incoming.l * 100 / existing.l"}},
  "rules": {"b_small": "b < 1000"}}') > 0 AS created;
INSERT INTO s VALUES (1, 1, 1, 1, 1, 'x', '{a,b}', '{"p": 1, "q": {"r": 1}}', '[1, {"x": 1}]', 'theirs', 'theirs', '2024-01-02', 2),
                     (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1),
                     (3, 3, 3, 3, 3, 'x', '{}', '1', '[]', 'theirs', 'theirs', '2024-01-02', 2);
\set items '[{"id": 1, "a": 2, "b": 2, "c": 2, "d": 2, "e": "y", "f": ["b", "c", "c"], "g": {"q": {"s": 2}, "t": 3}, "h": [{"x": 1}, 2], "i": "ours", "j": "ours", "k": "2024-01-03", "l": 4}, {"id": 2, "a": 2, "b": 2, "c": 2, "d": 2, "e": "y", "f": ["c"], "g": {"t": 3}, "h": [2], "i": "ours", "j": "ours", "k": "2024-01-03", "l": 4}, {"id": 3, "a": null, "b": null, "c": null, "d": null, "e": null, "f": null, "g": null, "h": null, "i": null, "j": null, "k": "2024-01-01", "l": null}]'
SELECT run_id AS run FROM portage.migrate('mer_all', :'items') \gset
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
SELECT * FROM s ORDER BY id;
-- Again, and again with every item looked at: nothing is merged twice.
SELECT run_id AS run FROM portage.migrate('mer_all', :'items') \gset
SELECT pg_temp.books(:run);
SELECT run_id AS run FROM portage.migrate('mer_all', :'items', '', '{"incremental": false}') \gset
SELECT pg_temp.books(:run);
-- An older item: "newest" leaves what is there.
SELECT run_id AS run FROM portage.migrate('mer_all', '[{"id": 1, "i": "older", "k": "2024-01-01"}]', 'another') \gset
SELECT pg_temp.books(:run);
SELECT i, k FROM s WHERE id = 1;

-- 2. Three ways. What only the source changed is taken, what only the target changed is left; a sum adds what both have added.
TRUNCATE s;
SELECT run_id AS run FROM portage.migrate('mer_all', '[{"id": 1, "a": 10, "b": 10, "c": 10, "d": 10, "e": "e", "j": "j", "l": 5, "i": "i"}]') \gset
SELECT image FROM portage.legacy_mappings WHERE run_id = :run;
UPDATE s SET d = 13, b = 99, j = 'theirs' WHERE id = 1;
SELECT run_id AS run FROM portage.migrate('mer_all', '[{"id": 1, "a": 11, "b": 10, "c": 10, "d": 12, "e": "E", "j": "j", "l": 5, "i": "i"}]') \gset
SELECT pg_temp.books(:run);
SELECT a, b, c, d, e, j FROM s WHERE id = 1;
SELECT image FROM portage.legacy_mappings WHERE run_id = :run;
-- What was left to the target stays the target's when the source changes something else.
SELECT run_id AS run FROM portage.migrate('mer_all', '[{"id": 1, "a": 12, "b": 10, "c": 10, "d": 12, "e": "E", "j": "j", "l": 5, "i": "i"}]') \gset
SELECT a, b, c, d, e, j FROM s WHERE id = 1;
-- Rollback, in order: rows and mappings with their images as they were.
CALL portage.rollback(:run);
SELECT a, b, c, d, e, j FROM s WHERE id = 1;
SELECT run_id = :run - 1 AS the_one_before, image FROM portage.legacy_mappings WHERE legacy_id = '1' AND scope = '';
CALL portage.rollback(:run - 1);
SELECT a, b, c, d, e, j FROM s WHERE id = 1;

-- 3. What comes out is judged as any other row: rules, constraints, errors of the expressions.
TRUNCATE s;
INSERT INTO s (id, b, d, l) VALUES (1, 2000, 1, 1), (2, 1, 60, 1), (3, 1, 1, 0), (4, 1, 1, 1), (5, 1, 1, 100);
SELECT run_id AS run FROM portage.migrate('mer_all', '[{"id": 1, "b": 5, "d": 1, "l": 1}, {"id": 2, "b": 5, "d": 60, "l": 1}, {"id": 3, "b": 1, "d": 1, "l": 1}, {"id": 4, "b": 3, "d": 1, "l": 1}, {"id": 5, "b": 3, "d": 1, "l": 13}]', 'judged') \gset
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
SELECT id, b, d, l FROM s ORDER BY id;

-- 4. The policy as an option of the run; what a run under another policy leaves, the next merge knows as a row without image.
SELECT portage.create_pipeline('mer_plain', 's', '{"format": "json", "legacy_id": "id", "columns": {"id": "id", "a": "a", "b": "b"}}') > 0 AS created;
TRUNCATE s;
SELECT run_id AS run FROM portage.migrate('mer_plain', '[{"id": 1, "a": 1, "b": 1}]') \gset
UPDATE s SET b = 2;
SELECT run_id AS run FROM portage.migrate('mer_plain', '[{"id": 1, "a": 2, "b": null}]', '', '{"on_conflict": "merge"}') \gset
SELECT pg_temp.books(:run);
SELECT a, b FROM s;
SELECT image FROM portage.legacy_mappings WHERE run_id = :run;
SELECT run_id AS run FROM portage.migrate('mer_plain', '[{"id": 1, "a": 3, "b": 3}]', '', '{"on_conflict": "overwrite"}') \gset
SELECT image FROM portage.legacy_mappings WHERE run_id = :run;
SELECT pg_temp.refused($$SELECT portage.migrate('mer_plain', '[]', '', '{"on_conflict": "newest"}')$$);

-- 5. A key that is equal by its own type's rules, but not the same, is no dispute; nor is what a trigger writes otherwise.
CREATE COLLATION IF NOT EXISTS nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE person (name text COLLATE nocase PRIMARY KEY, mail text, age int);
CREATE FUNCTION lower_mail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.mail := lower(NEW.mail); RETURN NEW; END $$;
CREATE TRIGGER lower_mail BEFORE INSERT OR UPDATE ON person FOR EACH ROW EXECUTE FUNCTION lower_mail();
SELECT portage.create_pipeline('mer_person', 'person', '{"format": "json", "legacy_id": "id", "on_conflict": "ask", "columns": {"name": "name", "mail": "mail", "age": "age"}}') > 0 AS created;
INSERT INTO person VALUES ('ANNA', 'anna@b.c', 7);
SELECT run_id AS run FROM portage.migrate('mer_person', '[{"id": 1, "name": "Anna", "mail": "anna@b.c", "age": 7}, {"id": 2, "name": "Bob", "mail": "Bob@B.C", "age": 8}]') \gset
SELECT pg_temp.books(:run);
SELECT image FROM portage.legacy_mappings WHERE run_id = :run ORDER BY ordinal;
UPDATE person SET age = 9 WHERE name = 'bob';
SELECT run_id AS run FROM portage.migrate('mer_person', '[{"id": 2, "name": "Bob", "mail": "Bob@New.C", "age": 8}]') \gset
SELECT pg_temp.books(:run);
SELECT * FROM person ORDER BY name;

-- 6. Rights: what a merge reads of the row needs SELECT, as SQL would ask.
CREATE ROLE regress_portage_merge;
GRANT USAGE ON SCHEMA merging TO regress_portage_merge;
GRANT INSERT, UPDATE, SELECT (id, a) ON s TO regress_portage_merge;
SET ROLE regress_portage_merge;
SELECT portage.create_pipeline('mer_rights', 's', '{"format": "json", "legacy_id": "id", "on_conflict": "merge", "columns": {"id": "id", "a": "a"}, "merge": {"a": {"sql": "existing.a + existing.b"}}}') > 0 AS created;
SELECT pg_temp.refused($$SELECT portage.migrate('mer_rights', '[{"id": 1, "a": 1}]')$$);
RESET ROLE;
GRANT SELECT (b) ON s TO regress_portage_merge;
SET ROLE regress_portage_merge;
SELECT run_id AS run FROM portage.migrate('mer_rights', '[{"id": 1, "a": 1}]') \gset
SELECT pg_temp.books(:run);
RESET ROLE;
SELECT a, b FROM s;
SELECT count(portage.drop_pipeline(portage.pipeline_name(id), true)) > 0 AS dropped FROM portage.pipelines;
DROP SCHEMA merging CASCADE;
DROP ROLE regress_portage_merge;
