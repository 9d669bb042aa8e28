-- Faults in a definition: each is refused with the place in the definition, and a hint where one helps.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_portage;
RESET client_min_messages;
CREATE SCHEMA faulty;
CREATE TABLE faulty.t (
  id integer PRIMARY KEY,
  count integer DEFAULT 0,
  note varchar(10),
  seen timestamptz,
  twice integer GENERATED ALWAYS AS (count * 2) STORED,
  u1 integer NOT NULL, u2 integer, u3 integer NOT NULL DEFAULT 1,
  UNIQUE (u1) DEFERRABLE, UNIQUE (u2), UNIQUE (u3)
);
SET search_path = public;

-- Says what is wrong with a definition: SQLSTATE and message, detail, hint. %h stands for a format and a legacy id,
-- %s for columns that are right, so that each line shows only its own fault.
CREATE FUNCTION faulty.refuse(definition text, target regclass DEFAULT 'faulty.t') RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
  state text; message text; detail text; hint text;
BEGIN
  PERFORM portage.create_pipeline('faulty', target,
    replace(replace(definition, '%s', '"id": "id", "u1": "id"'), '%h', '"format": "json", "legacy_id": "id"')::json);
  PERFORM portage.drop_pipeline('faulty');
  RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
                          hint = PG_EXCEPTION_HINT;
  RETURN concat_ws(E'\n  ', state || ' ' || message, nullif(detail, ''), nullif(hint, ''));
END $$;
\pset format unaligned
\pset tuples_only on

-- Form
SELECT faulty.refuse('{%h, "columns": {%s}}');
SELECT faulty.refuse('[1]');
SELECT faulty.refuse('"x"');
SELECT faulty.refuse('{not json');
SELECT faulty.refuse('{%h, "columns": {%s}, "format": "csv"}');
SELECT faulty.refuse('{%h, "columns": {%s, "note": {"from": "a", "from": "b"}}}');
SELECT faulty.refuse('{%h, "columns": {%s}, "maches": ["id"]}');
SELECT faulty.refuse('{%h, "columns": {%s}, "zzz": ["id"]}');
SELECT faulty.refuse('{%h, "columns": {%s}, "a\u0000b": 1}');
SELECT faulty.refuse('{%h, "columns": {%s}, "sensitive": ' || repeat('[', 100) || repeat(']', 100) || '}');
SELECT faulty.refuse('{"legacy_id": "id", "columns": {%s}}');
SELECT faulty.refuse('{"format": "json", "columns": {%s}}');
SELECT faulty.refuse('{"format": "json", "legacy_id": "id"}');

-- format, items
SELECT faulty.refuse('{"format": "xml", "legacy_id": "id", "columns": {%s}}');
SELECT faulty.refuse('{"format": "markdown", "legacy_id": "id", "columns": {%s}}');
SELECT faulty.refuse('{"format": 1, "legacy_id": "id", "columns": {%s}}');
SELECT faulty.refuse('{%h, "items": "a..b", "columns": {%s}}');
SELECT faulty.refuse('{"format": "ndjson", "legacy_id": "id", "items": "a", "columns": {%s}}');

-- legacy_id
SELECT faulty.refuse('{"format": "json", "legacy_id": [], "columns": {%s}}');
SELECT faulty.refuse('{"format": "json", "legacy_id": 5, "columns": {%s}}');
SELECT faulty.refuse('{"format": "json", "legacy_id": {"from": "id"}, "columns": {%s}}');
SELECT faulty.refuse('{"format": "json", "legacy_id": "$ordinl", "columns": {%s}}');
SELECT faulty.refuse('{"format": "json", "legacy_id": {"sql": "itm->>''id''"}, "columns": {%s}}');

-- columns
SELECT faulty.refuse('{%h, "columns": {}}');
SELECT faulty.refuse('{%h, "columns": []}');
SELECT faulty.refuse('{%h, "columns": {%s, "nota": "x"}}');
SELECT faulty.refuse('{%h, "columns": {%s, "ctid": "x"}}');
SELECT faulty.refuse('{%h, "columns": {%s, "twice": "x"}}');
SELECT faulty.refuse('{%h, "columns": {"id": "id"}}');
SELECT faulty.refuse('{%h, "columns": {%s, "note": 1}}');
SELECT faulty.refuse('{%h, "columns": {%s, "note": []}}');
SELECT faulty.refuse('{%h, "columns": {%s, "note": ["a", 1]}}');
SELECT faulty.refuse('{%h, "columns": {%s, "note": "a[x]"}}');
SELECT faulty.refuse('{%h, "columns": {%s, "note": {"frm": "a"}}}');
SELECT faulty.refuse('{%h, "columns": {%s, "note": {"from": "a", "sql": "scope"}}}');
SELECT faulty.refuse('{%h, "columns": {%s, "note": {"default": 1}}}');
SELECT faulty.refuse('{%h, "columns": {%s, "note": {"sql": "scope", "default": 1}}}');
SELECT faulty.refuse('{%h, "columns": {%s, "count": {"from": "a", "default": "many"}}}');
SELECT faulty.refuse('{%h, "columns": {%s, "note": {"value": "longer than ten"}}}');
SELECT faulty.refuse('{%h, "columns": {%s, "note": {"from": "a", "references": "courses"}}}');

-- expressions
SELECT faulty.refuse('{%h, "columns": {%s, "count": {"sql": ""}}}');
SELECT faulty.refuse('{%h, "columns": {%s, "count": {"sql": "1 +"}}}');
SELECT faulty.refuse('{%h, "columns": {%s, "count": {"sql": "1, 2"}}}');
SELECT faulty.refuse('{%h, "columns": {%s, "count": {"sql": "1; drop table faulty.t"}}}');
SELECT faulty.refuse('{%h, "columns": {%s, "count": {"sql": "1 from pg_class"}}}');
SELECT faulty.refuse('{%h, "columns": {%s, "count": {"sql": "(select 1)"}}}');
SELECT faulty.refuse('{%h, "columns": {%s, "count": {"sql": "count(*)"}}}');
SELECT faulty.refuse('{%h, "columns": {%s, "count": {"sql": "row_number() over ()"}}}');
SELECT faulty.refuse('{%h, "columns": {%s, "count": {"sql": "generate_series(1, 2)"}}}');
SELECT faulty.refuse('{%h, "columns": {%s, "count": {"sql": "ordinale"}}}');
SELECT faulty.refuse('{%h, "columns": {%s, "count": {"sql": "t.count"}}}');
SELECT faulty.refuse('{%h, "columns": {%s, "count": {"sql": "$1"}}}');
SELECT faulty.refuse('{%h, "columns": {%s, "count": {"sql": "no_such_function(scope)"}}}');
SELECT faulty.refuse('{%h, "columns": {%s, "count": {"sql": "item->>''n''"}}}');
SELECT faulty.refuse('{%h, "columns": {%s, "count": {"sql": "1/0"}}}');
SELECT faulty.refuse('{%h, "columns": {%s}, "where": "item"}');

-- rules
SELECT faulty.refuse('{%h, "columns": {%s}, "rules": ["count > 0"]}');
SELECT faulty.refuse('{%h, "columns": {%s}, "rules": {"positive": "count"}}');
SELECT faulty.refuse('{%h, "columns": {%s}, "rules": {"positive": "cuont > 0"}}');
SELECT faulty.refuse('{%h, "columns": {%s}, "rules": {"positive": "t.cuont > 0"}}');
SELECT faulty.refuse('{%h, "columns": {%s}, "rules": {"positive": "other.count > 0"}}');
SELECT faulty.refuse('{%h, "columns": {%s}, "rules": {"positive": "twice > 0"}}');
SELECT faulty.refuse('{%h, "columns": {%s}, "rules": {"positive": {"message": "m"}}}');
SELECT faulty.refuse('{%h, "columns": {%s}, "rules": {"positive": {"sql": "count > 0", "severity": "errr"}}}');
SELECT faulty.refuse('{%h, "columns": {%s}, "rules": {"positive": {"sql": "count > 0", "nulls": "x"}}}');
SELECT faulty.refuse('{%h, "columns": {%s}, "rules": {"not_null": "count > 0"}}');
SELECT faulty.refuse('{%h, "columns": {%s}, "rules": {"": "count > 0"}}');

-- match and key
SELECT faulty.refuse('{%h, "columns": {%s}, "match": []}');
SELECT faulty.refuse('{%h, "columns": {%s}, "match": ["id", "id"]}');
SELECT faulty.refuse('{%h, "columns": {%s}, "match": ["note"]}');
SELECT faulty.refuse('{%h, "columns": {%s}, "match": "ids"}');
SELECT faulty.refuse('{%h, "columns": {%s}, "key": ["ids"]}');
SELECT faulty.refuse('{%h, "columns": {%s}, "key": ["note"]}');
SELECT faulty.refuse('{%h, "columns": {%s}, "key": ["u1"]}');
SELECT faulty.refuse('{%h, "columns": {%s}, "key": ["u2"]}');
SELECT faulty.refuse('{%h, "columns": {%s}, "key": ["u3"]}');

-- policies and the rest
SELECT faulty.refuse('{%h, "columns": {%s}, "on_conflict": "skp"}');
SELECT faulty.refuse('{%h, "columns": {%s}, "on_conflict": "newest"}');
SELECT faulty.refuse('{%h, "columns": {%s}, "newest_by": "sen"}');
SELECT faulty.refuse('{%h, "columns": {%s}, "newest_by": "seen"}');
SELECT faulty.refuse('{%h, "columns": {%s, "count": "c"}, "merge": ["count"]}');
SELECT faulty.refuse('{%h, "columns": {%s, "count": "c"}, "merge": {"count": "greates"}}');
SELECT faulty.refuse('{%h, "columns": {%s, "count": "c"}, "merge": {"cont": "greatest"}}');
SELECT faulty.refuse('{%h, "columns": {%s, "count": "c"}, "merge": {"count": "newest"}}');
SELECT faulty.refuse('{%h, "columns": {%s, "count": "c"}, "merge": {"count": "union"}}');
SELECT faulty.refuse('{%h, "columns": {%s, "note": "n"}, "merge": {"note": "sum"}}');
SELECT faulty.refuse('{%h, "columns": {%s, "count": "c"}, "merge": {"count": {"sql": "count + 1"}}}');
SELECT faulty.refuse('{%h, "columns": {%s, "count": "c"}, "merge": {"count": {"sql": "incoming.cont"}}}');
SELECT faulty.refuse('{%h, "columns": {%s, "count": "c"}, "merge": {"count": {"sql": "length(incoming.note)"}}}');
SELECT faulty.refuse('{%h, "columns": {%s, "count": "c"}, "merge": {"count": {"sql": "existing.twice"}}}');
SELECT faulty.refuse('{%h, "columns": {%s, "count": "c"}, "merge": {"count": {"sql": "theirs.count"}}}');
SELECT faulty.refuse('{%h, "columns": {%s, "count": "c"}, "merge": {"count": {"sql": "existing.seen"}}}');
SELECT faulty.refuse('{%h, "columns": {%s, "count": "c"}, "merge": {"count": {"sq": "1"}}}');
SELECT faulty.refuse('{%h, "columns": {%s}, "merge": {}}');
SELECT faulty.refuse('{%h, "columns": {%s}, "duplicates": "last"}');
SELECT faulty.refuse('{%h, "columns": {%s}, "duplicates": "x"}');
SELECT faulty.refuse('{%h, "columns": {%s}, "timezone": "Mars/Olympus"}');
SELECT faulty.refuse('{%h, "columns": {%s}, "scoped": "yes"}');
SELECT faulty.refuse('{%h, "columns": {%s}, "sensitive": "note"}');
SELECT faulty.refuse('{%h, "columns": {%s}, "sensitive": ["a]"]}');
SELECT faulty.refuse('{%h, "columns": {%s}, "data_version": {"from": "v"}}');
SELECT faulty.refuse('{%h, "columns": {%s}, "data_version": {"from": "v", "accept": [true]}}');
SELECT faulty.refuse('{%h, "columns": {%s}, "after": []}');
SELECT faulty.refuse('{%h, "columns": {%s}, "after": {"a": "b"}}');
SELECT faulty.refuse('{%h, "columns": {%s}, "after": ["other", "other"]}');
SELECT faulty.refuse('{%h, "columns": {%s}, "after": "other"}');
SELECT faulty.refuse('{%h, "columns": {%s}, "after": "faulty"}');

-- csv
SELECT faulty.refuse('{%h, "columns": {%s}, "csv": {}}');
SELECT faulty.refuse('{"format": "csv", "legacy_id": "id", "columns": {%s}, "csv": {"delimiter": "||"}}');
SELECT faulty.refuse('{"format": "csv", "legacy_id": "id", "columns": {%s}, "csv": {"quote": ","}}');
SELECT faulty.refuse('{"format": "csv", "legacy_id": "id", "columns": {%s}, "csv": {"quote": null, "escape": "x"}}');
SELECT faulty.refuse('{"format": "csv", "legacy_id": "id", "columns": {%s}, "csv": {"header": false}}');
SELECT faulty.refuse('{"format": "csv", "legacy_id": "id", "columns": {%s}, "csv": {"encoding": "EBCDIC"}}');
SELECT faulty.refuse('{"format": "csv", "legacy_id": "id", "columns": {%s}, "csv": {"encoding": "SJIS"}}');
SELECT faulty.refuse('{"format": "csv", "legacy_id": "id", "columns": {%s, "note": "a.b"}}');

-- The target
CREATE TABLE faulty."no key" (id integer, n integer NOT NULL, CONSTRAINT n UNIQUE (n));
SELECT faulty.refuse('{%h, "columns": {"id": "id", "n": "n"}}', 'faulty."no key"');
SELECT faulty.refuse('{%h, "columns": {"id": "id", "n": "n"}, "key": "n"}', 'faulty."no key"');
CREATE VIEW faulty.v AS SELECT * FROM faulty.t;
SELECT faulty.refuse('{%h, "columns": {%s}}', 'faulty.v');
CREATE MATERIALIZED VIEW faulty.m AS SELECT 1 AS id;
SELECT faulty.refuse('{%h, "columns": {%s}}', 'faulty.m');
SELECT faulty.refuse('{%h, "columns": {%s}}', 'pg_class_oid_index');

SET client_min_messages = warning;
DROP SCHEMA faulty CASCADE;
