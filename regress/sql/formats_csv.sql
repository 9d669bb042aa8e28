-- Format csv: header or named columns, delimiter, quotes, nulls, encodings, and what a broken row costs: itself.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 3000
\set ECHO none
\i :prelude
\set ECHO all
CREATE SCHEMA formats_csv;
SET search_path = formats_csv;
CREATE TABLE t (id text PRIMARY KEY, v text);
-- A pipeline with these csv options; the columns are id and v.
CREATE FUNCTION csv_pipeline(name text, csv json DEFAULT '{}') RETURNS boolean LANGUAGE sql AS $$
  SELECT portage.create_pipeline(name, 't', json_build_object('format', 'csv', 'legacy_id', 'id', 'csv', csv,
         'columns', '{"id": "id", "v": "v"}'::json)) > 0
$$;
-- Migrates and tells the books, what landed (null as null), and each reject: its place, its span, and why.
CREATE FUNCTION migrated(pipeline text, payload bytea, options jsonb DEFAULT '{}') RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE run bigint;
BEGIN
  DELETE FROM t;
  SELECT run_id INTO run FROM portage.migrate(pipeline, payload, 'scope ' || md5(payload), options);
  RETURN NEXT pg_temp.books(run);
  RETURN QUERY SELECT format('  %s -> %s', to_json(id), coalesce(to_json(v)::text, 'null')) FROM t ORDER BY id COLLATE "C";
  RETURN QUERY SELECT format('  item %s, line %s, bytes %s+%s: %s %s %s: %s', ordinal, line, byte_offset, byte_length, rule, sqlstate,
                             coalesce(column_name, ''), message || coalesce(' | ' || nullif(issues -> 0 ->> 'detail', ''), ''))
    FROM portage.rejects WHERE run_id = run ORDER BY ordinal;
  RETURN QUERY SELECT '  ' || (e ->> 'code') || ': ' || (e ->> 'message') FROM portage.status(run) s, jsonb_array_elements(s.errors) e;
END $$;
CREATE FUNCTION migrated(pipeline text, payload text, options jsonb DEFAULT '{}') RETURNS SETOF text LANGUAGE sql AS $$
  SELECT migrated(pipeline, convert_to(payload, 'UTF8'), options)
$$;
\pset tuples_only on
\pset format unaligned
SELECT csv_pipeline('csv_plain');

-- 1. RFC 4180. The header has a line but no ordinal; blank lines are no items.
SELECT migrated('csv_plain', E'id,v\n1,a\n2,"b,c"\n3,"say ""hi"""\n4,"two\nlines"\n5,');
SELECT migrated('csv_plain', E'v,other,id\r\na,x,1\r\n\r\n"b\r\nc",y,2\r\n');
SELECT migrated('csv_plain', E'\ufeffid,v\n1,bom');
SELECT migrated('csv_plain', E'"id","v"\n\n1,a\n\n\n2,b\n\n');
SELECT migrated('csv_plain', E'id,v\n1, spaces \n2," quoted "\n3,\t\n');
-- The unquoted empty string is null, the quoted one is not.
SELECT migrated('csv_plain', E'id,v\n1,\n2,""\n3,NULL\n,no id\n"",empty id\n');
-- Nothing at all, only a header, only a header without its end.
SELECT migrated('csv_plain', '');
SELECT migrated('csv_plain', E'\n');
SELECT migrated('csv_plain', E'id,v\n');
SELECT migrated('csv_plain', 'id,v');

-- 2. Rows that do not fit are rejects; those around them land.
SELECT migrated('csv_plain', E'id,v\n1,a\n2\n3,c,extra\n4,d\n');
SELECT migrated('csv_plain', E'id,v\n1,a\n2,"b" c\n3,c\n4,d"e\n5,"f"\n');
SELECT migrated('csv_plain', E'id,v\n1,a\n2,"never closed\n3,c\n4,d\n5,e\n');
SELECT migrated('csv_plain', E'id,v\n1,a\n2,"never closed');
-- One quote that never closes costs at most a thousand lines or max_item_bytes, not the rest of the file.
SELECT migrated('csv_plain', E'id,v\n1,a\n2,"open\n' || string_agg(format('x%s', i), E'\n') || E'\n3,c\n4,d\n') FROM generate_series(1, 3000) i;
SELECT migrated('csv_plain', E'id,v\n1,a\n2,"open\n' || repeat('x', 300) || E'\n3,c\n4,d\n', '{"max_item_bytes": 200}');
SELECT migrated('csv_plain', E'id,v\n1,a\n2,' || repeat('x', 300) || E'\n3,c\n', '{"max_item_bytes": 200}');
-- Bytes that are no UTF-8, and NUL.
SELECT migrated('csv_plain', convert_to(E'id,v\n1,a\n2,b', 'UTF8') || '\xff' || convert_to(E'\n3,d', 'UTF8') || '\x00' || convert_to(E'\n4,f\n', 'UTF8'));

-- 3. The header: a mapped column that is not there fails the run before the first row; columns that nobody maps do not matter.
SELECT migrated('csv_plain', E'id,value\n1,a\n');
SELECT migrated('csv_plain', E'Id,v\n1,a\n');
SELECT migrated('csv_plain', E'id;v\n1;a\n');
SELECT migrated('csv_plain', E'id,v,id\n1,a,2\n');
SELECT migrated('csv_plain', E'id,v,,\n1,a,x,y\n');
SELECT migrated('csv_plain', E'id,v\n1,"open header? no\n');
SELECT migrated('csv_plain', E'"id,v\n1,a\n');
SELECT pg_temp.refused($$SELECT portage.migrate('csv_plain', E'id,w\n1,a\n', 'header', '{"raise": true}')$$);
-- plan() tells it before; a header of one column hints at the delimiter, be it that of a path given for the bytes.
SELECT p->>'can_proceed', b->>'sqlstate', b->>'message', b->>'detail', b->>'remedy'
  FROM (VALUES (E'id;v\n1;a\n'), ('/srv/file.csv')) AS t (payload), LATERAL portage.plan('csv_plain', payload) AS p,
       LATERAL jsonb_array_elements(p->'blockers') AS b;
-- A column with a default may be missing.
SELECT portage.create_pipeline('csv_default', 't', '{"format": "csv", "legacy_id": "id", "columns": {"id": "id", "v": {"from": "v", "default": "none"}}}') > 0;
SELECT migrated('csv_default', E'id\n1\n');
-- Names with special characters are quoted; a path into a row names nothing.
SELECT portage.create_pipeline('csv_names', 't', '{"format": "csv", "legacy_id": "\"Order No.\"", "columns": {"id": "\"Order No.\"", "v": ["a.b [c]"]}}') > 0;
SELECT migrated('csv_names', E'Order No.,a.b [c]\n7,x\n');
SELECT pg_temp.refused($$SELECT portage.create_pipeline('csv_path', 't', '{"format": "csv", "legacy_id": "id", "columns": {"id": "id", "v": "a.b"}}')$$);

-- 4. Options.
SELECT csv_pipeline('csv_semicolon', '{"delimiter": ";", "quote": "''"}');
SELECT migrated('csv_semicolon', E'id;v\n1;''a;b''\n2;say "hi"\n3;''it''''s''\n');
SELECT csv_pipeline('csv_tab', '{"delimiter": "\t", "quote": null}');
SELECT migrated('csv_tab', E'id\tv\n1\t"a"\n2\t"never opened\n3\t\n');
SELECT csv_pipeline('csv_escape', '{"escape": "\\"}');
SELECT migrated('csv_escape', E'id,v\n1,"say \\"hi\\""\n2,"back\\\\slash"\n3,plain\\n\n');
SELECT csv_pipeline('csv_null', '{"null": "NA"}');
SELECT migrated('csv_null', E'id,v\n1,NA\n2,"NA"\n3,\n4,na\n');
SELECT csv_pipeline('csv_columns', '{"header": false, "columns": ["id", "x", "v"]}');
SELECT migrated('csv_columns', E'1,x,a\n2,y,b\n3,c\n');
SELECT csv_pipeline('csv_renamed', '{"columns": ["id", "v"]}');
SELECT migrated('csv_renamed', E'Nummer,Wert\n1,a\n');
SELECT csv_pipeline('csv_latin1', '{"encoding": "LATIN1"}');
SELECT migrated('csv_latin1', convert_to(E'id,v\n1,äöü\n2,ß€\n', 'LATIN9'));
SELECT csv_pipeline('csv_win', '{"encoding": "WIN1252"}');
SELECT migrated('csv_win', convert_to(E'id,v\n1,„ä€“\n', 'WIN1252'));
SELECT migrated('csv_win', convert_to(E'id,v\n1,', 'UTF8') || '\x81' || convert_to(E'\n2,ok\n', 'UTF8'));
SELECT csv_pipeline('csv_sjis', '{"encoding": "SJIS"}');
SELECT csv_pipeline('csv_unknown', '{"encoding": "KLINGON"}');

-- 5. Cut at every byte, a file is never an error.
CREATE FUNCTION cut(pipeline text, document text) RETURNS TABLE (bytes int, result text) LANGUAGE plpgsql AS $$
DECLARE run bigint; i int;
BEGIN
  FOR i IN 0 .. octet_length(document) LOOP
    DELETE FROM t;
    SELECT m.run_id INTO run FROM portage.migrate(pipeline, substr(convert_to(document, 'UTF8'), 1, i), 'cut at ' || i) m;
    bytes := i;
    SELECT pg_temp.books(run) || coalesce((SELECT string_agg(format(', %s: %s', r.ordinal, r.rule), '' ORDER BY r.ordinal) FROM portage.rejects r WHERE r.run_id = run), '')
           || coalesce((SELECT ', ' || (s.errors -> 0 ->> 'code') FROM portage.status(run) s WHERE s.status = 'failed'), '') INTO result;
    IF (SELECT count(*) FROM t) <> (SELECT inserted FROM portage.status(run)) THEN result := result || ' BUT OTHERS ARE THERE'; END IF;
    RETURN NEXT;
  END LOOP;
END $$;
SELECT min(bytes) AS "from", max(bytes) AS "to", result
  FROM (SELECT c.*, bytes - row_number() OVER (PARTITION BY result ORDER BY bytes) AS island FROM cut('csv_plain', E'id,v\n1,"ä ""x"""\n2,"b\nc"\r\n3,d') c) c
 GROUP BY result, island ORDER BY 1;

-- Nothing is left for the next test.
SELECT count(portage.drop_pipeline(name, true)) > 0 AS dropped FROM portage.pipelines;
DROP SCHEMA formats_csv CASCADE;
