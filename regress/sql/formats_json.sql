-- Format json: where the items are, what an item may be, and what becomes of bytes that are no JSON. Nothing that
-- a document contains is an error of the statement: the books balance, and the rest lands.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 2000
\set ECHO none
\i :prelude
\set ECHO all
CREATE SCHEMA formats_json;
SET search_path = formats_json;
CREATE TABLE t (id text PRIMARY KEY, v text);

-- 1. Where the items are.
SELECT portage.create_pipeline('json_root', 't', '{"format": "json", "legacy_id": "id", "columns": {"id": "id", "v": "v"}}') > 0 AS created;
SELECT portage.create_pipeline('json_path', 't', '{"format": "json", "items": "data.rows", "legacy_id": "id", "columns": {"id": "id", "v": "v"}}') > 0 AS created;
SELECT portage.create_pipeline('json_deep', 't', '{"format": "json", "items": "a[1].\"b.c\"", "legacy_id": ["id", "v"], "columns": {"id": "id", "v": "v"}}') > 0 AS created;
SELECT portage.create_pipeline('json_scalar', 't', '{"format": "json", "items": "words", "legacy_id": "$item", "columns": {"id": "$item", "v": {"sql": "item::text"}}}') > 0 AS created;
-- Migrates and tells the books and each reject: its place, the span that it covers, and why.
CREATE FUNCTION migrated(pipeline text, payload bytea, scope text DEFAULT '') RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE run bigint;
BEGIN
  SELECT run_id INTO run FROM portage.migrate(pipeline, payload, scope);
  RETURN NEXT pg_temp.books(run);
  RETURN QUERY SELECT format('  item %s, line %s, bytes %s+%s: %s %s: %s', ordinal, line, byte_offset, byte_length, rule, sqlstate,
                             message || coalesce(' | ' || nullif(issues -> 0 ->> 'detail', ''), ''))
    FROM portage.rejects WHERE run_id = run ORDER BY ordinal;
END $$;
CREATE FUNCTION migrated(pipeline text, payload text, scope text DEFAULT '') RETURNS SETOF text LANGUAGE sql AS $$
  SELECT migrated(pipeline, convert_to(payload, 'UTF8'), scope)
$$;
\pset tuples_only on
\pset format unaligned
SELECT migrated('json_root', '[{"id": "array"}, {"id": 2, "v": true}]');
SELECT migrated('json_root', ' {"id": "object", "v": {"a": [1, "x"]}} ');
SELECT migrated('json_root', '{"data": {"rows": []}}');
SELECT migrated('json_root', '[]');
SELECT migrated('json_root', '"a scalar"');
SELECT migrated('json_root', '[1, null, "x", [], {}]');
SELECT migrated('json_path', '{"data": {"x": [{"id": "no"}], "rows": [{"id": "path"}], "rows ": [{"id": "no"}]}, "rows": [{"id": "no"}]}');
SELECT migrated('json_path', '{"data": {"rows": {"id": "one object"}}}');
SELECT migrated('json_path', '{"data": {"rows": []}}');
SELECT migrated('json_path', '{"data": {}}');
SELECT migrated('json_path', '{"data": [{"rows": [{"id": "no"}]}]}');
SELECT migrated('json_path', '{"data": {"rows": null}}');
SELECT migrated('json_path', '{"data": {"rows": "text"}}');
SELECT migrated('json_path', '[{"id": "no"}]');
SELECT migrated('json_path', '{"data": {"rows": [{"id": "first"}], "rows": [{"id": "second"}]}}');
SELECT migrated('json_deep', '{"a": [0, {"b.c": [{"id": "deep", "v": 1}, {"id": "deep", "v": null}]}]}');
SELECT migrated('json_scalar', '{"words": ["eins", 2, true, 3.50, null, "eins", {"a": 1}]}');
SELECT id, v FROM t ORDER BY id COLLATE "C";
SELECT DISTINCT legacy_id FROM portage.legacy_mappings m JOIN t ON t.id = m.target_key WHERE t.id IN ('deep', '3.50') ORDER BY 1;

-- 2. Duplicate keys in an item: the last wins, as in jsonb, also for the legacy id.
SELECT migrated('json_root', '[{"id": "a", "v": 1, "v": {"x": 1, "x": 2}, "id": "twice"}]', 'dup');
SELECT id, v, portage.lookup('json_root', 'twice', 'dup') FROM t WHERE id = 'twice';

-- 3. Characters: a byte order mark, escapes, NUL, surrogates, and bytes that are no UTF-8.
SELECT migrated('json_root', E'\ufeff[{"id": "bom"}]');
SELECT migrated('json_root', '[{"id": "esc\u00e4\n\t\"\\\/", "v": "\ud83d\ude00 \u00df"}]');
SELECT migrated('json_root', '[{"id": "nul 1", "v": "a\u0000b"}, {"id": "nul\u0000key"}, {"id": "good 1"}]');
SELECT migrated('json_root', '[{"id": "nul 2", "other": "a\u0000b"}]');
SELECT migrated('json_root', '[{"id": "lone high", "v": "\ud83d"}, {"id": "lone low", "v": "\ude00 x"}, {"id": "pair turned", "v": "\ude00\ud83d"}, {"id": "good 2"}]');
SELECT migrated('json_root', '[{"id": "bad escape", "v": "\x41"}, {"id": "bad hex", "v": "\u00g0"}, {"id": "cut hex", "v": "\u00"}, {"id": "good 3"}]');
SELECT migrated('json_root', E'[{"id": "raw tab", "v": "a\tb"}, {"id": "raw newline", "v": "a\nb"}, {"id": "good 4"}]');
SELECT migrated('json_root', '[{"id": "bytes 1", "v": "'::bytea || '\xff' || '"}, {"id": "good 5"}]'::bytea);
SELECT migrated('json_root', '[{"id": "bytes 2", "v": "'::bytea || '\xc3' || '"}, {"id": "good 6"}]'::bytea);
SELECT migrated('json_root', '[{"id": "overlong", "v": "'::bytea || '\xc0af' || '"}, {"id": "surrogate", "v": "'::bytea || '\xeda080' || '"}, {"id": "good 7"}]'::bytea);
SELECT migrated('json_root', '[{"id": "nul byte", "v": "'::bytea || '\x00' || '"}, {"id": "good 8"}]'::bytea);
SELECT migrated('json_root', '\xfeff005b005d'::bytea);
SELECT migrated('json_root', '\x0000000000'::bytea);
SELECT id, v FROM t WHERE id ~ '^(bom|esc|good|nul|lone|pair|bytes)' ORDER BY id COLLATE "C";
-- What is no text is still shown, and kept.
SELECT raw, portage.reject_raw(run_id, ordinal) FROM portage.rejects WHERE raw LIKE '%bytes 1%';

-- 4. Faults of the document: what stands before is kept, the rest is one reject.
SELECT migrated('json_root', '');
SELECT migrated('json_root', E' \n\t ');
SELECT migrated('json_root', '[');
SELECT migrated('json_root', '[{"id": "kept 1"}, {"id": "kept 2"');
SELECT migrated('json_root', '[{"id": "kept 3"}, {"id": "kept 4"}');
SELECT migrated('json_root', '[{"id": "kept 5"}, ');
SELECT migrated('json_root', '[{"id": "kept 6"}] ]');
SELECT migrated('json_root', '[{"id": "kept 7"}] {"id": "more"}');
SELECT migrated('json_root', '[{"id": "kept 8"} {"id": "no comma"}, {"id": "kept 9"}]');
SELECT migrated('json_root', '[{"id": "kept 10"},, {"id": "kept 11"}]');
SELECT migrated('json_root', '[{"id": "kept 12"}, ]');
SELECT migrated('json_root', '[{"id": "kept 13"}}');
SELECT migrated('json_root', '[{"id": "mixed brackets", "v": [1}, {"id": "after"}]');
SELECT migrated('json_root', '[{"id": "open string}, {"id": "after"}]');
SELECT migrated('json_root', 'not json at all');
SELECT migrated('json_root', '<xml/>');
SELECT migrated('json_path', '{"data": {"rows": [{"id": "kept 14"}], "then": 1}');
SELECT migrated('json_path', '{"data": {"rows": [{"id": "kept 15"}], "then": [1}}');
-- Outside of the items brackets and strings are judged, single words are not.
SELECT migrated('json_path', '{"data": {"before": nonsense, "rows": [{"id": "kept 16"}]}}');
SELECT string_agg(id, ', ' ORDER BY length(id), id) FROM t WHERE id ~ '^(kept|after)';

-- Cut at every byte, a document is never an error; whole items before the cut are there.
CREATE FUNCTION cut(pipeline text, document text) RETURNS TABLE (bytes int, result text) LANGUAGE plpgsql AS $$
DECLARE run bigint; i int;
BEGIN
  FOR i IN 0 .. octet_length(document) LOOP
    DELETE FROM t;
    SELECT m.run_id INTO run FROM portage.migrate(pipeline, substr(convert_to(document, 'UTF8'), 1, i), 'cut at ' || i) m;
    bytes := i;
    SELECT pg_temp.books(run) || coalesce((SELECT string_agg(format(', %s: %s', r.ordinal, r.rule), '' ORDER BY r.ordinal) FROM portage.rejects r WHERE r.run_id = run), '') INTO result;
    IF (SELECT count(*) FROM t) <> (SELECT inserted FROM portage.status(run)) THEN result := result || ' BUT OTHERS ARE THERE'; END IF;
    RETURN NEXT;
  END LOOP;
END $$;
SELECT min(bytes) AS "from", max(bytes) AS "to", result
  FROM (SELECT c.*, bytes - row_number() OVER (PARTITION BY result ORDER BY bytes) AS island FROM cut('json_root', '[{"id": 1, "v": "ä\"]"}, {"id": "zwei", "v": [1.5e3, {"x": null}]}, {"id": true}]') c) c
 GROUP BY result, island ORDER BY 1;
SELECT min(bytes) AS "from", max(bytes) AS "to", result
  FROM (SELECT c.*, bytes - row_number() OVER (PARTITION BY result ORDER BY bytes) AS island FROM cut('json_path', '{"x": "]", "data": {"y": [{}], "rows": [{"id": "\u00e4"}, {"id": 2}], "z": 1}, "end": [0]}') c) c
 GROUP BY result, island ORDER BY 1;

-- 5. Depth: a limit, not a crash.
SELECT migrated('json_root', '[{"id": "deep 1", "v": ' || repeat('[', 100000) || repeat(']', 100000) || '}, {"id": "good 9"}]');
SELECT migrated('json_root', '[{"id": "deep 2", "v": ' || repeat('{"a":', 100000) || '1' || repeat('}', 100000) || '}, {"id": "good 10"}]');
SELECT migrated('json_root', repeat('[', 100000));
SELECT migrated('json_root', '[{"id": "deep 3", "v": ' || repeat('[', 100000));
SELECT migrated('json_path', repeat('{"data":', 100000));
SELECT migrated('json_root', '[{"id": "deep enough", "v": ' || repeat('[', 500) || repeat(']', 500) || '}]');
SELECT id, length(v) FROM t WHERE id ~ '^(deep|good)';

-- 6. jsonb as payload, and ndjson with the same faults.
SELECT pg_temp.books(run_id) FROM portage.migrate('json_root', '[{"id": "jsonb", "v": 1.50}]'::jsonb);
SELECT id, v FROM t WHERE id = 'jsonb';
SELECT portage.create_pipeline('ndjson', 't', '{"format": "ndjson", "legacy_id": "id", "columns": {"id": "id", "v": "$line"}}') > 0 AS created;
SELECT migrated('ndjson', E'\ufeff{"id": "n1"}\r\n\n  \n{"id": "n4"}\nnot json\n{"id": "n6"} {"id": "two"}\n{"id": "n7"\n[1]\n{"id": "n9"}');
SELECT migrated('ndjson', '');
SELECT migrated('ndjson', E'\n\n');
SELECT migrated('ndjson', '{"id": "m1"}' || E'\n{"id": "' || repeat('x', 100) || E'\n' || repeat('[', 100000) || E'\n{"id": "m4"}\n');
SELECT id, v FROM t WHERE id ~ '^[nm][0-9]' ORDER BY id;

-- Nothing is left for the next test.
SELECT count(portage.drop_pipeline(name, true)) > 0 AS dropped FROM portage.pipelines;
DROP SCHEMA formats_json CASCADE;
