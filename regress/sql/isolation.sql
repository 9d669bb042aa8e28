-- Fault isolation: whatever is wrong with an item, its good neighbours land, the item is in portage.rejects with the
-- reason, and the books balance. First what is found before anything is written, then what only writing shows.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 1000
\set ECHO none
\i :prelude
\set ECHO all
CREATE SCHEMA isolation;
SET search_path = isolation;

-- 1. The bytes and the types: nothing of these items reaches the table.
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE reading (
  id int PRIMARY KEY, n int, big bigint, small smallint, amount numeric(5,2), x float8, x4 real, code varchar(3),
  fixed char(2), ok boolean, day date, at timestamp, atz timestamptz, key uuid, mood mood, doc jsonb, span interval,
  bits bit(3), ip inet, list int[]);
SELECT portage.create_pipeline('iso_types', 'reading', $$
{ "format": "json", "legacy_id": "id",
  "columns": { "id": "id", "n": "n", "big": "big", "small": "small", "amount": "amount", "x": "x", "x4": "x4",
               "code": "code", "fixed": "fixed", "ok": "ok", "day": "day", "at": "at", "atz": "atz", "key": "key",
               "mood": "mood", "doc": "doc", "span": "span", "bits": "bits", "ip": "ip", "list": "list" } }
$$) > 0 AS created;

SELECT run_id AS run FROM portage.migrate('iso_types', $$[
{"id": 1, "n": 1, "big": 9223372036854775807, "small": -32768, "amount": 999.99, "x": 1e308, "x4": 1.5, "code": "abc",
 "fixed": "ab", "ok": true, "day": "2024-02-29", "at": "2024-02-29 23:59:59", "atz": "2024-02-29T23:59:59Z",
 "key": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "mood": "happy", "doc": {"a": [1, null]}, "span": "1 day",
 "bits": "101", "ip": "::1", "list": [1, null, 3]},
{"id": 2, "n": },
{"id": 3, "n": "abc"},
{"id": 4, "n": 2147483648},
{"id": 5, "n": 1.5},
{"id": 6, "n": true},
{"id": 7, "n": {}},
{"id": 8, "n": ""},
{"id": 9, "big": 9223372036854775808},
{"id": 10, "big": 123456789012345678901234567890},
{"id": 11, "big": 1e3},
{"id": 12, "small": 32768},
{"id": 13, "amount": 1000},
{"id": 14, "amount": "NaN"},
{"id": 15, "amount": "12,5"},
{"id": 16, "amount": 1.005},
{"id": 17, "x": 1e400},
{"id": 18, "x": "NaN"},
{"id": 19, "x": 1e-400},
{"id": 20, "x4": 1e39},
{"id": 21, "code": "abcd"},
{"id": 22, "code": "abc   "},
{"id": 23, "code": "äöü"},
{"id": 24, "fixed": "abc"},
{"id": 25, "ok": "maybe"},
{"id": 26, "ok": 2},
{"id": 27, "day": "2024-02-30"},
{"id": 28, "day": "2023-02-29"},
{"id": 29, "at": "2024-02-30 00:00:00"},
{"id": 30, "at": "2024-13-01"},
{"id": 31, "at": 1709164800},
{"id": 32, "atz": "2024-02-29T25:00:00Z"},
{"id": 33, "key": "a0eebc99"},
{"id": 34, "key": "{a0eebc999c0b4ef8bb6d6bb9bd380a11}"},
{"id": 35, "mood": "angry"},
{"id": 36, "mood": "Happy"},
{"id": 37, "doc": "text"},
{"id": 38, "span": "a while"},
{"id": 39, "bits": "1010"},
{"id": 40, "ip": "300.1.1.1"},
{"id": 41, "list": [1, "x"]},
{"id": 42, "list": "{1,2}"},
{"id": 43, "list": [[1], [2, 3]]},
{"id": 44, "list": 7},
{"id": 45, "n": null, "code": null, "list": null},
{"id": 46, "x": NaN},
{"id": 47, "n": 0x10},
{"id": 48, "n": 01},
{"id": 49, "n": 1, "code": "x", },
{"id": 50, "n": 99}
]$$) \gset
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
SELECT id, n, big, small, amount, x, code, fixed, ok, day, at, key, mood, doc, list FROM reading ORDER BY id;

-- The input of an item that did not land is kept as it came.
SELECT ordinal, line, byte_offset, byte_length, legacy_id, raw FROM portage.rejects WHERE run_id = :run AND ordinal IN (2, 35);

-- 2. All that is wrong with an item is told, not only the first of it.
SELECT run_id AS run FROM portage.migrate('iso_types', '[{"id": 60, "n": "a", "day": "b", "mood": "c"}, {"n": 1}]') \gset
SELECT pg_temp.books(:run);
SELECT ordinal, i ->> 'rule' AS rule, i ->> 'sqlstate' AS sqlstate, i ->> 'column' AS "column", i ->> 'message' AS message
  FROM portage.rejects, jsonb_array_elements(issues) AS i WHERE run_id = :run;

-- 3. Rules: an error keeps the item out, a warning lands with it; null passes unless the rule says otherwise.
CREATE TABLE progress (id int PRIMARY KEY, reviewed int, correct int, ease float8);
SELECT portage.create_pipeline('iso_rules', 'progress', $$
{ "format": "json", "legacy_id": "id",
  "columns": { "id": "id", "reviewed": "reviewed", "correct": "correct", "ease": "ease" },
  "rules": {
    "not_negative":   "reviewed >= 0",
    "within_reviews": {"sql": "correct <= reviewed", "message": "more correct than reviewed"},
    "has_ease":       {"sql": "ease > 0", "nulls": "fail"},
    "usual_ease":     {"sql": "ease BETWEEN 1 AND 5", "severity": "warning"},
    "share":          "correct / reviewed <= 1"
  } }
$$) > 0 AS created;
SELECT run_id AS run FROM portage.migrate('iso_rules', '[
  {"id": 1, "reviewed": 4, "correct": 2, "ease": 2.5},
  {"id": 2, "reviewed": -1, "correct": -2, "ease": 2.5},
  {"id": 3, "reviewed": 2, "correct": 3, "ease": 2.5},
  {"id": 4, "reviewed": null, "correct": null, "ease": 2.5},
  {"id": 5, "reviewed": 1, "correct": 1},
  {"id": 6, "reviewed": 1, "correct": 1, "ease": 9},
  {"id": 7, "reviewed": 0, "correct": 0, "ease": 2.5},
  {"id": 8, "reviewed": "x", "correct": 1, "ease": null},
  {"id": 9, "reviewed": 4, "correct": 4, "ease": 2.5}]') \gset
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
SELECT * FROM progress ORDER BY id;
-- An item that landed with a warning keeps it; one that breaks several rules tells all, but nothing about a value that could not be read.
SELECT ordinal, status, rule, message FROM portage.migration_items WHERE run_id = :run AND ordinal = 6;
SELECT ordinal, jsonb_path_query_array(issues, '$[*].rule') AS rules FROM portage.rejects WHERE run_id = :run ORDER BY ordinal;

-- 4. Expressions of the definition: what they raise is the item's fault, and names the column.
CREATE TABLE share (id int PRIMARY KEY, value int);
SELECT portage.create_pipeline('iso_expression', 'share', $$
{ "format": "json", "legacy_id": {"sql": "coalesce(item ->> 'id', (1 / (item ->> 'zero')::int)::text)"},
  "where": "(item ->> 'skip')::bool IS NOT TRUE",
  "columns": { "id": "id", "value": {"sql": "100 / (item ->> 'by')::int"} } }
$$) > 0 AS created;
SELECT run_id AS run FROM portage.migrate('iso_expression', '[
  {"id": 1, "by": 4}, {"id": 2, "by": 0}, {"id": 3, "by": "x"}, {"zero": 0, "by": 1}, {"id": 5, "by": 1, "skip": "who knows"},
  {"id": 6, "by": 1, "skip": true}, {"id": 7}, {"by": 1}, {"id": 9, "by": 9}]') \gset
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
SELECT * FROM share ORDER BY id;

-- 5. The table's own rules: NOT NULL, CHECK, a domain, a CHECK that itself fails, a default that fails.
CREATE DOMAIN grade AS int CONSTRAINT one_to_six CHECK (VALUE BETWEEN 1 AND 6);
CREATE DOMAIN given AS text NOT NULL;
CREATE FUNCTION picky(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN IF $1 = 13 THEN RAISE 'not thirteen' USING ERRCODE = 'check_violation', HINT = 'take another'; END IF; RETURN $1; END $$;
CREATE TABLE exam (
  id int PRIMARY KEY, name text NOT NULL, points int CONSTRAINT points_positive CHECK (points > 0),
  of int, CONSTRAINT not_more CHECK (points <= of), ratio int CONSTRAINT ratio_ok CHECK (100 / ratio > 1),
  grade grade, remark given, lucky int CHECK (picky(lucky) > 0));
SELECT portage.create_pipeline('iso_table', 'exam', $$
{ "format": "json", "legacy_id": "id",
  "columns": { "id": "id", "name": "name", "points": "points", "of": "of", "ratio": "ratio", "grade": "grade",
               "remark": "remark", "lucky": "lucky" } }
$$) > 0 AS created;
SELECT run_id AS run FROM portage.migrate('iso_table', '[
  {"id": 1, "name": "a", "points": 1, "of": 2, "ratio": 1, "grade": 1, "remark": ""},
  {"id": 2, "points": 1, "of": 2, "remark": ""},
  {"id": 3, "name": "c", "points": 0, "of": 2, "remark": ""},
  {"id": 4, "name": "d", "points": 3, "of": 2, "remark": ""},
  {"id": 5, "name": "e", "ratio": 0, "remark": ""},
  {"id": 6, "name": "f", "grade": 7, "remark": ""},
  {"id": 7, "name": "g", "grade": "x", "remark": ""},
  {"id": 8, "name": "h"},
  {"id": 9, "name": "i", "lucky": 13, "remark": ""},
  {"id": null, "name": "j", "remark": ""},
  {"id": 11, "name": null, "points": -1, "of": -2, "grade": 0, "remark": null},
  {"id": 12, "name": "l", "points": null, "of": null, "grade": null, "remark": "fine"}]') \gset
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
SELECT ordinal, jsonb_path_query_array(issues, '$[*].rule') AS rules FROM portage.rejects WHERE run_id = :run AND ordinal = 11;
SELECT * FROM exam ORDER BY id;

-- 6. Twice in one input: the first item lands, later ones name it. With batches of two, it is the same.
CREATE TABLE stock (id int PRIMARY KEY, sku text UNIQUE, qty int);
SELECT portage.create_pipeline('iso_twice', 'stock', $$
{ "format": "json", "legacy_id": "old",
  "columns": { "id": "id", "sku": "sku", "qty": "qty" } }
$$) > 0 AS created;
\set twice '[{"old": "a", "id": 1, "sku": "x"}, {"old": "b", "id": 2, "sku": "y"}, {"old": "a", "id": 3, "sku": "z"}, {"old": "c", "id": 2, "sku": "v"}, {"old": "d", "id": 4, "sku": "x"}, {"old": "e", "id": 5}, {"old": "f", "id": 6}]'
SELECT run_id AS run FROM portage.migrate('iso_twice', :'twice') \gset
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
SELECT * FROM stock ORDER BY id;
TRUNCATE stock;
SELECT run_id AS run FROM portage.migrate('iso_twice', :'twice', 'batches of two', '{"batch_size": 2}') \gset
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
SELECT * FROM stock ORDER BY id;
SELECT count(*) AS batches FROM portage.migration_batches WHERE run_id = :run;

-- Equal by the index's rules, though not the same bytes: 1.0 and 1.00, and words under a collation without case.
CREATE COLLATION no_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE price (tag numeric PRIMARY KEY, note text);
CREATE TABLE word (word text COLLATE no_case PRIMARY KEY, note text);
SELECT portage.create_pipeline('iso_price', 'price',
  '{"format": "json", "legacy_id": "note", "columns": {"tag": "tag", "note": "note"}}') > 0 AS created;
SELECT portage.create_pipeline('iso_word', 'word',
  '{"format": "json", "legacy_id": "note", "columns": {"word": "word", "note": "note"}}') > 0 AS created;
SELECT run_id AS run FROM portage.migrate('iso_price', '[{"tag": 1.0, "note": "a"}, {"tag": 2, "note": "b"}, {"tag": 1.00, "note": "c"}]') \gset
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
SELECT run_id AS run FROM portage.migrate('iso_price', '[{"tag": 3.0, "note": "d"}, {"tag": 4, "note": "e"}, {"tag": 3.00, "note": "f"}]', 'two', '{"batch_size": 2}') \gset
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
SELECT run_id AS run FROM portage.migrate('iso_word', '[{"word": "Haus", "note": "a"}, {"word": "haus", "note": "b"}, {"word": "Baum", "note": "c"}]') \gset
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
SELECT * FROM price ORDER BY tag;
SELECT * FROM word ORDER BY word;

-- 7. Against the table: a row with the match key is a conflict (conflicts.sql), one with another unique value a reject.
TRUNCATE stock;
INSERT INTO stock VALUES (1, 'x', 10), (2, 'y', 20);
SELECT run_id AS run FROM portage.migrate('iso_twice', '[
  {"old": "g", "id": 1, "sku": "x", "qty": 11}, {"old": "h", "id": 3, "sku": "y"}, {"old": "i", "id": 4, "sku": "z"},
  {"old": "j", "id": 2, "sku": "y", "qty": 20}]', 'against the table') \gset
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
SELECT * FROM stock ORDER BY id;

-- 8. Foreign keys: a parent that is not there, parts of a composite key, a parent in the same input.
CREATE TABLE course (id int PRIMARY KEY);
CREATE TABLE room (house int, no int, PRIMARY KEY (house, no));
CREATE TABLE lesson (
  id int PRIMARY KEY, course int REFERENCES course, house int, no int, follows int REFERENCES lesson,
  CONSTRAINT in_room FOREIGN KEY (house, no) REFERENCES room);
INSERT INTO course VALUES (1);
INSERT INTO room VALUES (1, 1);
SELECT portage.create_pipeline('iso_parent', 'lesson', $$
{ "format": "json", "legacy_id": "id",
  "columns": { "id": "id", "course": "course", "house": "house", "no": "no", "follows": "follows" } }
$$) > 0 AS created;
\set lessons '[{"id": 1, "course": 1}, {"id": 2, "course": 2}, {"id": 3}, {"id": 4, "house": 1, "no": 1}, {"id": 5, "house": 1, "no": 2}, {"id": 6, "house": 9}, {"id": 7, "follows": 1}, {"id": 8, "follows": 9}, {"id": 9, "follows": 77}, {"id": 10, "follows": 10}]'
SELECT run_id AS run FROM portage.migrate('iso_parent', :'lessons') \gset
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
SELECT * FROM lesson ORDER BY id;

-- MATCH FULL: half a key is no key.
ALTER TABLE lesson DROP CONSTRAINT in_room;
ALTER TABLE lesson ADD CONSTRAINT in_room FOREIGN KEY (house, no) REFERENCES room MATCH FULL NOT VALID;
SELECT run_id AS run FROM portage.migrate('iso_parent', '[{"id": 20, "house": 1}, {"id": 21, "house": 1, "no": 1}, {"id": 22}]', 'full') \gset
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);

-- 9. Deferred constraints are judged with their batch, not at the end of the transaction.
CREATE TABLE deferred (
  id int PRIMARY KEY, course int REFERENCES course DEFERRABLE INITIALLY DEFERRED,
  place int CONSTRAINT one_place UNIQUE DEFERRABLE INITIALLY DEFERRED,
  before int REFERENCES deferred DEFERRABLE INITIALLY DEFERRED);
SELECT portage.create_pipeline('iso_deferred', 'deferred', $$
{ "format": "json", "legacy_id": "id", "columns": { "id": "id", "course": "course", "place": "place", "before": "before" } }
$$) > 0 AS created;
SELECT run_id AS run FROM portage.migrate('iso_deferred', '[
  {"id": 1, "course": 1, "place": 1}, {"id": 2, "course": 3, "place": 2}, {"id": 3, "place": 1}, {"id": 4, "before": 1},
  {"id": 5, "before": 99}]') \gset
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
SELECT * FROM deferred ORDER BY id;
-- What the caller has left to be judged later is told as the caller's fault; no item is blamed for it.
BEGIN;
INSERT INTO deferred VALUES (100, NULL, NULL, 101);
SELECT pg_temp.refused($$SELECT portage.migrate('iso_deferred', '[{"id": 52}]', 'caller')$$);
INSERT INTO deferred VALUES (101);
SELECT run_id AS run FROM portage.migrate('iso_deferred', '[{"id": 50, "before": 51}, {"id": 52}]', 'caller') \gset
-- The constraints of the target are deferred again afterwards.
INSERT INTO deferred VALUES (102, NULL, NULL, 103);
INSERT INTO deferred VALUES (103);
COMMIT;
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
-- Rows of one batch may refer to one another in any order.
SELECT run_id AS run FROM portage.migrate('iso_deferred', '[{"id": 60, "before": 61}, {"id": 61, "before": 60}]', 'circle') \gset
SELECT pg_temp.books(:run);

-- 10. Exclusion constraints.
CREATE TABLE booking (id int PRIMARY KEY, during int4range, CONSTRAINT no_overlap EXCLUDE USING gist (during WITH &&));
INSERT INTO booking VALUES (1, '[1,5)');
SELECT portage.create_pipeline('iso_exclusion', 'booking',
  '{"format": "json", "legacy_id": "id", "columns": {"id": "id", "during": "during"}}') > 0 AS created;
SELECT run_id AS run FROM portage.migrate('iso_exclusion', '[
  {"id": 2, "during": "[5,9)"}, {"id": 3, "during": "[8,10)"}, {"id": 4, "during": "[3,4)"}, {"id": 5, "during": "[9,5)"},
  {"id": 6, "during": null}, {"id": 7, "during": "[20,30)"}]') \gset
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
SELECT * FROM booking ORDER BY id;

-- 11. Triggers: one that raises, one that cancels, one that edits; the row as it is stored is what row_hash covers.
CREATE TABLE visit (id int PRIMARY KEY, who text, seen int, stamp text DEFAULT 'now and then');
CREATE FUNCTION before_visit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF new.who = 'nobody' THEN RAISE 'nobody visited' USING DETAIL = 'as always', HINT = 'stay at home'; END IF;
  IF new.who = 'overflow' THEN RAISE numeric_value_out_of_range; END IF;
  IF new.who = 'ghost' THEN RETURN NULL; END IF;
  new.who := upper(new.who);
  RETURN new;
END $$;
CREATE TRIGGER before_visit BEFORE INSERT OR UPDATE ON visit FOR EACH ROW EXECUTE FUNCTION before_visit();
SELECT portage.create_pipeline('iso_before', 'visit',
  '{"format": "json", "legacy_id": "id", "columns": {"id": "id", "who": "who", "seen": "seen"}}') > 0 AS created;
SELECT run_id AS run FROM portage.migrate('iso_before', '[
  {"id": 1, "who": "anna"}, {"id": 2, "who": "nobody"}, {"id": 3, "who": "ghost"}, {"id": 4, "who": "otto"},
  {"id": 5, "who": "overflow"}]') \gset
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
SELECT v.*, m.target_key, portage.row_hash(v) = m.row_hash AS as_stored
  FROM visit v JOIN portage.legacy_mappings m ON m.target_key = v.id::text
  JOIN portage.pipelines p ON p.id = m.pipeline_id AND p.name = 'iso_before' ORDER BY id;

-- AFTER triggers: also what they change is in the hash.
DROP TRIGGER before_visit ON visit;
CREATE FUNCTION after_visit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF new.who = 'late' THEN RAISE 'too late'; END IF;
  UPDATE visit SET stamp = 'seen by a trigger' WHERE id = new.id AND stamp <> 'seen by a trigger';
  RETURN NULL;
END $$;
CREATE TRIGGER after_visit AFTER INSERT ON visit FOR EACH ROW EXECUTE FUNCTION after_visit();
SELECT run_id AS run FROM portage.migrate('iso_before', '[{"id": 11, "who": "ida"}, {"id": 12, "who": "late"}, {"id": 13, "who": "uwe"}]', 'after') \gset
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
SELECT v.*, portage.row_hash(v) = m.row_hash AS as_stored
  FROM visit v JOIN portage.legacy_mappings m ON m.target_key = v.id::text AND m.run_id = :run ORDER BY id;

-- A row that an AFTER trigger takes away again did not land.
CREATE FUNCTION take_away() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM visit WHERE id = new.id AND who = 'gone'; RETURN NULL; END $$;
CREATE TRIGGER take_away AFTER INSERT ON visit FOR EACH ROW EXECUTE FUNCTION take_away();
SELECT run_id AS run FROM portage.migrate('iso_before', '[{"id": 21, "who": "eva"}, {"id": 22, "who": "gone"}]', 'away') \gset
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);

-- A deferred constraint trigger is judged with its batch.
DROP TRIGGER after_visit ON visit;
DROP TRIGGER take_away ON visit;
CREATE CONSTRAINT TRIGGER late_visit AFTER INSERT ON visit DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION after_visit();
SELECT run_id AS run FROM portage.migrate('iso_before', '[{"id": 31, "who": "ada"}, {"id": 32, "who": "late"}, {"id": 33, "who": "bea"}]', 'deferred') \gset
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
SELECT v.*, portage.row_hash(v) = m.row_hash AS as_stored
  FROM visit v JOIN portage.legacy_mappings m ON m.target_key = v.id::text AND m.run_id = :run ORDER BY id;
DROP TRIGGER late_visit ON visit;

-- Where the table makes the key itself, a trigger that cancels rows is still told apart from those that land.
CREATE TABLE made (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, who text);
CREATE FUNCTION no_ghosts() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF new.who LIKE 'ghost%' THEN RETURN NULL; END IF; RETURN new; END $$;
CREATE TRIGGER no_ghosts BEFORE INSERT ON made FOR EACH ROW EXECUTE FUNCTION no_ghosts();
SELECT portage.create_pipeline('iso_made', 'made', '{"format": "json", "legacy_id": "who", "columns": {"who": "who"}}') > 0 AS created;
SELECT run_id AS run FROM portage.migrate('iso_made', '["a", "b"]') \gset
SELECT pg_temp.books(:run);
SELECT run_id AS run FROM portage.migrate('iso_made', '[{"who": "a"}, {"who": "ghost 1"}, {"who": "b"}, {"who": "ghost 2"}, {"who": "c"}]', 'again') \gset
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
SELECT m.legacy_id, t.who FROM portage.legacy_mappings m LEFT JOIN made t ON t.id::text = m.target_key WHERE m.run_id = :run ORDER BY 1;

-- 12. More failures in a batch than one transaction has subtransactions for: what is settled commits, the rest follows.
CREATE TABLE many (id int PRIMARY KEY, bad bool);
CREATE FUNCTION no_bad() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF new.bad THEN RAISE 'item % is bad', new.id; END IF; RETURN new; END $$;
CREATE TRIGGER no_bad BEFORE INSERT ON many FOR EACH ROW EXECUTE FUNCTION no_bad();
SELECT portage.create_pipeline('iso_many', 'many', '{"format": "json", "legacy_id": "id", "columns": {"id": "id", "bad": "bad"}}') > 0 AS created;
SELECT json_agg(json_build_object('id', i, 'bad', i % 10 = 7)) AS many FROM generate_series(1, 1000) i \gset
SELECT run_id AS run FROM portage.migrate('iso_many', :'many', 'in a function', '{"batch_size": 1000}') \gset
SELECT pg_temp.books(:run);
SELECT count(*), count(*) FILTER (WHERE bad) AS bad FROM many;
SELECT status, error_class, rule, sqlstate, column_name, min(message), count(*), count(*) FILTER (WHERE ordinal % 10 = 7) AS right
  FROM portage.rejects WHERE run_id = :run GROUP BY 1, 2, 3, 4, 5;
TRUNCATE many;
CALL portage.import('iso_many', payload => :'many', scope => 'in a procedure', options => '{"batch_size": 1000}');
SELECT run_id AS run FROM portage.last_run('iso_many', 'in a procedure') \gset
SELECT pg_temp.books(:run);
SELECT count(*), count(*) FILTER (WHERE bad) AS bad FROM many;
-- Batches follow one another without a gap, and each is a transaction of its own.
SELECT bool_and(first_ordinal = coalesce(before, 0) + 1) AS dense, max(last_ordinal), count(*) > 1 AS several, count(DISTINCT xid) = count(*) AS own
  FROM (SELECT first_ordinal, last_ordinal, xid, lag(last_ordinal) OVER (ORDER BY first_ordinal) AS before
          FROM portage.migration_batches WHERE run_id = :run) b;

-- Nothing is left for the next test.
SELECT count(portage.drop_pipeline(name, true)) > 0 AS dropped FROM portage.pipelines;
DROP SCHEMA isolation CASCADE;
