-- portage.row_hash: the same bytes give the same hash, whatever the settings; other bytes another.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_portage;
CREATE SCHEMA hashes;
SET search_path = hashes, public;
CREATE TYPE color AS ENUM ('red', 'green');
CREATE TYPE pair AS (x integer, y text);
CREATE DOMAIN positive AS integer CHECK (value > 0);
CREATE TABLE item (
  id integer PRIMARY KEY, b boolean, i2 smallint, i8 bigint, f4 real, f8 double precision, n numeric, t text, v varchar(9),
  c char(4), d date, ts timestamp, tz timestamptz, iv interval, u uuid, j json, jb jsonb, by bytea, x xml,
  a integer[], a2 text[], p pair, e color, ea color[], po positive, r int4range, mr int4multirange, rg regclass, na name,
  g integer GENERATED ALWAYS AS (id * 2) STORED
);
INSERT INTO item VALUES (1, true, 2, 3, 1.5, -0.1, 1.50, 'text', 'ü', 'ab', '2024-02-29', '2024-02-29 12:00', '2024-02-29 12:00Z',
  '1 month 2 days', '0bcf1b2e-1111-2222-3333-444455556666', '{"a":  1}', '{"a": 1}', '\x00ff', '<a>ü</a>', '{1,NULL,3}',
  '[0:1]={a,b}', '(1,z)', 'green', '{red,green}', 7, '[1,5)', '{[1,2),[5,)}', 'hashes.item', 'name');
INSERT INTO item (id) VALUES (2);

-- The value itself, which must never change: it is stored with every mapping.
SELECT id, portage.row_hash(item) FROM item ORDER BY id;

-- No setting has a say in it.
CREATE TABLE reference AS SELECT id, portage.row_hash(item) AS hash FROM item;
SET datestyle = 'German, DMY';
SET timezone = 'Asia/Tokyo';
SET intervalstyle = 'iso_8601';
SET extra_float_digits = -5;
SET bytea_output = 'escape';
SET search_path = pg_catalog;
SELECT bool_and(portage.row_hash(item) = hash) AS same FROM hashes.item JOIN hashes.reference USING (id);
SET client_encoding = 'LATIN1';
SELECT bool_and(portage.row_hash(item) = hash) AS same FROM hashes.item JOIN hashes.reference USING (id);
RESET ALL;
SET client_min_messages = warning;
SET search_path = hashes, public;

-- Nor has storage: toasted, compressed and short values hash as what they are.
CREATE TABLE big (t text, a text[]);
INSERT INTO big VALUES (repeat('abc', 100000), ARRAY[repeat('x', 100000)]);
SELECT portage.row_hash(big) = portage.row_hash(ROW(repeat('abc', 100000), ARRAY[repeat('x', 100000)])) AS same FROM big;

-- Equal is not the same: bytes count.
SELECT a = b AS equal, portage.row_hash(ROW(a)) = portage.row_hash(ROW(b)) AS same
FROM (VALUES (1.0, 1.00), (1.5, 1.5)) AS v(a, b);
SELECT portage.row_hash(ROW('0'::float8)) = portage.row_hash(ROW('-0'::float8)) AS same;
SELECT portage.row_hash(ROW('{1,2}'::int[])) = portage.row_hash(ROW('[0:1]={1,2}'::int[])) AS same;
SELECT portage.row_hash(ROW(NULL::text, 'a'::text)) = portage.row_hash(ROW('a'::text, NULL::text)) AS same;
SELECT portage.row_hash(ROW(NULL::text)) = portage.row_hash(ROW(''::text)) AS same;
SELECT portage.row_hash(ROW('ab'::text, 'c'::text)) = portage.row_hash(ROW('a'::text, 'bc'::text)) AS same;
SELECT portage.row_hash(ROW(ARRAY['a', 'b'])) = portage.row_hash(ROW(ARRAY['ab'])) AS same;
SELECT portage.row_hash(ROW('empty'::int4range)) = portage.row_hash(ROW('(,)'::int4range)) AS same;

-- OIDs do not count: an enum, a composite or an array of another database hashes the same.
CREATE TYPE colour AS ENUM ('green', 'red');
SELECT portage.row_hash(ROW('red'::color, '{red}'::color[])) = portage.row_hash(ROW('red'::colour, '{red}'::colour[])) AS same;
CREATE TYPE couple AS (a integer, b text);
SELECT portage.row_hash(ROW('(1,z)'::pair)) = portage.row_hash(ROW('(1,z)'::couple)) AS same;
SELECT portage.row_hash(ROW(7::positive)) = portage.row_hash(ROW(7)) AS same;

-- Generated columns and dropped ones are left out; chosen columns are taken in the table's order.
ALTER TABLE item ADD COLUMN later integer DEFAULT 5;
SELECT portage.row_hash(item) = hash AS same FROM item JOIN reference USING (id) WHERE id = 1;
ALTER TABLE item DROP COLUMN later;
SELECT portage.row_hash(item) = hash AS same FROM item JOIN reference USING (id) WHERE id = 1;
SELECT portage.row_hash(item, '{id,t,b}') = portage.row_hash(item, '{b,id,t}') AS same,
       portage.row_hash(item, '{id}') = portage.row_hash(ROW(1)) AS one FROM item WHERE id = 1;
SELECT portage.row_hash(item, '{id,no_such}') FROM item;
SELECT portage.row_hash(item, ARRAY[NULL]) FROM item;
SELECT portage.row_hash(NULL) IS NULL AS null;

-- Rows of a batch are hashed several at a time: with the same result, whatever stands side by side.
CREATE TABLE side_by_side (id integer PRIMARY KEY, t text, b boolean, i2 smallint, i8 bigint, n numeric, u uuid, by bytea, a text[]);
SELECT portage.create_pipeline('side_by_side', 'hashes.side_by_side', '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id",
  "t": "t", "b": "b", "i2": "i2", "i8": "i8", "n": "n", "u": "u", "by": "by", "a": "a"}}') > 0 AS created;
DO $$ BEGIN PERFORM portage.migrate('side_by_side', string_agg(json_build_object('id', i,
    't', CASE WHEN i % 7 > 0 THEN left(repeat('abcdefghijklmnü', 5), i % 61) END, 'b', CASE WHEN i % 3 > 0 THEN i % 2 = 0 END,
    'i2', nullif(i % 5, 0), 'i8', CASE WHEN i % 4 > 0 THEN i * -1234567890123 END, 'n', nullif(i % 6, 0) / 10.0,
    'u', CASE WHEN i % 8 > 0 THEN md5(i::text)::uuid END, 'by', CASE WHEN i % 9 > 0 THEN '\x' || left(md5(i::text), i % 17 * 2) END,
    'a', CASE WHEN i % 10 > 0 THEN ARRAY[i::text, NULL] END)::text, E'\n')) FROM generate_series(1, 1001) AS i; END $$;
SELECT count(*), count(DISTINCT row_hash) AS hashes, bool_and(m.row_hash = portage.row_hash(r)) AS same
FROM portage.legacy_mappings m JOIN side_by_side r ON r.id = m.legacy_id::integer;

DROP SCHEMA hashes CASCADE;
