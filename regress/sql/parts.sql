-- The parts of a run: payloads in chunks, files, large objects; in the order in which they were given, numbered as one.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 8000
\set ECHO none
\i :prelude
\set ECHO all
CREATE SCHEMA parts;
SET search_path = parts;
CREATE TABLE t (id int PRIMARY KEY, v text, source text, line int);
SELECT portage.create_pipeline('parts', 't', '{"format": "json", "legacy_id": "id", "columns": {"id": "id", "v": "v", "source": "$name", "line": "$line"}}') > 0 AS created;
CREATE FUNCTION parts(run bigint) RETURNS TABLE (part int, kind text, name text, byte_length bigint, sha256 text, data_version text) LANGUAGE sql AS $$
  SELECT part, kind, name, byte_length, left(encode(sha256, 'hex'), 8), data_version FROM portage.migration_parts WHERE run_id = $1 ORDER BY part $$;
CREATE FUNCTION refused_call(call text) RETURNS SETOF text LANGUAGE sql AS $$ SELECT pg_temp.refused('SELECT ' || call) $$;
\pset tuples_only on
\pset format unaligned

-- 1. A payload in chunks: they may cut items, words and characters; the same chunk again changes nothing.
SELECT portage.open_run('parts') AS run \gset
SELECT portage.submit(:run, '[{"id": 1, "v": "ä'::text, 'document', 1);
SELECT portage.submit(:run, 'öü"}, {"id"', 'document', 2, encode(sha256(convert_to('öü"}, {"id"', 'UTF8')), 'hex'));
SELECT portage.submit(:run, 'öü"}, {"id"', 'document', 2);
SELECT portage.submit(:run, convert_to(E': 2, "v": "two"},\n {"id": 3, "v": "', 'UTF8') || '\xe2', 'document', 3);
SELECT portage.submit(:run, '\x82ac'::bytea, 'document', 4, upper(encode(sha256('\x82ac'), 'hex')));
SELECT portage.submit(:run, '"}]', 'document', 5);
SELECT part, chunk_no, octet_length(content), sha256 = sha256(content) AS is_digest FROM portage.migration_payloads WHERE run_id = :run ORDER BY 1, 2;
-- Refused: other content under a number, a wrong digest, no digest at all.
SELECT refused_call(format($$portage.submit(%s, 'other', 'document', 2)$$, :run));
SELECT refused_call(format($$portage.submit(%s, 'x', 'document', 6, '%s')$$, :run, repeat('0', 64)));
SELECT refused_call(format($$portage.submit(%s, 'x', 'document', 6, 'abc')$$, :run));
SELECT refused_call(format($$portage.submit(%s, 'x', 'document', 6, '%s')$$, :run, repeat('z', 64)));
SELECT refused_call(format($$portage.submit(%s, 'x', 'document', 0)$$, :run));
SELECT refused_call(format($$portage.submit(%s, NULL::text)$$, :run));
SELECT refused_call($$portage.submit(NULL, 'x')$$);
SELECT refused_call($$portage.submit(-1, 'x')$$);
SELECT count(*) FROM portage.migration_payloads WHERE run_id = :run;
CALL portage.run(:run);
SELECT pg_temp.books(:run);
SELECT * FROM t ORDER BY id;
SELECT * FROM parts(:run);
-- A chunk that is missing in the middle would change the meaning of the rest.
TRUNCATE t;
SELECT portage.open_run('parts', 'gap') AS run \gset
SELECT portage.submit(:run, '[{"id": 1}, ', 'document', 1), portage.submit(:run, ' {"id": 3}]', 'document', 3);
CALL portage.run(:run);
\echo :LAST_ERROR_SQLSTATE
SELECT status FROM portage.status(:run);
SELECT portage.submit(:run, '{"id": 2},', 'document', 2);
CALL portage.run(:run);
SELECT pg_temp.books(:run);

-- 2. Several parts: ordinals run through them, lines count anew; a broken one does not hurt the next.
TRUNCATE t;
SELECT portage.open_run('parts', 'several') AS run \gset
SELECT portage.submit(:run, E'[\n{"id": 1}]', 'one'), portage.submit(:run, E'[{"id": 2},\n{"id"', 'two'), portage.submit(:run, '', 'empty'), portage.submit(:run, E'\n\n[{"id": 1}, {"id": 4}]', 'three');
CALL portage.run(:run);
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
SELECT ordinal, part, line, byte_offset, byte_length FROM portage.rejects WHERE run_id = :run ORDER BY ordinal;
SELECT * FROM t ORDER BY id;
SELECT part, range_no, first_ordinal, next_ordinal, done FROM portage.migration_ranges WHERE run_id = :run ORDER BY part;
-- A run without parts is complete at once.
SELECT portage.open_run('parts', 'none') AS empty \gset
CALL portage.run(:empty);
SELECT pg_temp.books(:empty);
-- After the start nothing is added.
SELECT refused_call(format($$portage.submit(%s, '[]', 'late')$$, :run));
SELECT refused_call(format($$portage.attach_file(%s, '/etc/hostname')$$, :run));
SELECT refused_call(format($$portage.attach_large_object(%s, 1)$$, :run));

-- 3. Files of the server: one, or all that match a glob, in the order of their names.
TRUNCATE t;
\set one :abs_srcdir '/data/words_1.json'
\set glob :abs_srcdir '/data/words_*.json'
\set none :abs_srcdir '/data/words_9*.json'
\set missing :abs_srcdir '/data/missing.json'
\set directory :abs_srcdir '/data'
\set dots :abs_srcdir '/data/../data/./words_1.json'
SELECT portage.open_run('parts', 'files') AS run \gset
SELECT portage.attach_file(:run, :'glob');
SELECT processed_parts, total_parts, percentage FROM portage.status(:run);
SELECT * FROM parts(:run);
CALL portage.run(:run);
SELECT pg_temp.books(:run);
SELECT * FROM pg_temp.rejected(:run);
SELECT * FROM parts(:run);
SELECT * FROM t ORDER BY id;
-- The raw input of a reject comes from the ledger, or from the file itself.
SELECT convert_from(portage.reject_raw(:run, 4), 'UTF8');
-- The same file by another way is the same file; what is unchanged is not done twice.
SELECT portage.open_run('parts', 'files') AS run \gset
SELECT portage.attach_file(:run, :'one'), portage.attach_file(:run, :'dots');
SELECT count(DISTINCT path), count(*) FROM portage.migration_parts WHERE run_id = :run;
CALL portage.run(:run);
SELECT pg_temp.books(:run);
CALL portage.import('parts', file => :'one', scope => 'import');
SELECT pg_temp.books(run_id) FROM portage.last_run('parts', 'import');
-- Refused.
SELECT portage.open_run('parts', 'no files') AS run \gset
SELECT refused_call(format($$portage.attach_file(%s, 'words_1.json')$$, :run));
SELECT refused_call(format($$portage.attach_file(%s, '')$$, :run));
SELECT regexp_replace(refused_call(format($$portage.attach_file(%s, %L)$$, :run, :'missing')), '"[^"]*/data', '".../data', 'g');
SELECT regexp_replace(refused_call(format($$portage.attach_file(%s, %L)$$, :run, :'none')), '"[^"]*/data', '".../data', 'g');
SELECT regexp_replace(refused_call(format($$portage.attach_file(%s, %L)$$, :run, :'directory')), '"[^"]*/data', '".../data', 'g');
SELECT refused_call(format($$portage.attach_file(%s, '/dev/null')$$, :run));
SELECT count(*) FROM portage.migration_parts WHERE run_id = :run;
-- Only who may read files of the server; the role of the run, not of the session.
CREATE ROLE regress_portage_files;
GRANT USAGE ON SCHEMA parts TO regress_portage_files;
GRANT INSERT, SELECT, UPDATE ON t TO regress_portage_files;
SELECT portage.grant_pipeline('parts', 'regress_portage_files', 'run') > 0;
SET ROLE regress_portage_files;
SELECT portage.open_run('parts', 'rights') AS run \gset
SELECT refused_call(format($$portage.attach_file(%s, %L)$$, :run, :'one'));
RESET ROLE;
SELECT refused_call(format($$portage.attach_file(%s, %L)$$, :run, :'one'));
GRANT pg_read_server_files TO regress_portage_files;
SELECT portage.attach_file(:run, :'one');
REVOKE pg_read_server_files FROM regress_portage_files;
CALL portage.run(:run);
\echo :LAST_ERROR_SQLSTATE
SELECT status FROM portage.migration_runs WHERE id = :run;
GRANT pg_read_server_files TO regress_portage_files;
CALL portage.run(:run);
SELECT pg_temp.books(:run);

-- 4. Large objects.
TRUNCATE t;
SELECT lo_from_bytea(0, convert_to('[{"id": 1, "v": "' || repeat('x', 3000000) || '"}, {"id": 2}]', 'UTF8')) AS lo \gset
SELECT portage.open_run('parts', 'large object') AS run \gset
SELECT portage.attach_large_object(:run, :lo);
CALL portage.run(:run);
SELECT pg_temp.books(:run);
SELECT id, length(v) FROM t ORDER BY id;
SELECT portage.open_run('parts', 'no large object') AS run \gset
SELECT refused_call(format($$portage.attach_large_object(%s, 1)$$, :run));
SET ROLE regress_portage_files;
SELECT portage.open_run('parts', 'their large object') AS run \gset
SELECT regexp_replace(refused_call(format($$portage.attach_large_object(%s, %s)$$, :run, :lo)), '[0-9]{4,}', 'N', 'g');
RESET ROLE;
SELECT lo_unlink(:lo);

-- 5. Data versions: told by the document or by whoever submits it; unknown ones are refused before the first write.
SELECT portage.create_pipeline('parts_version', 't', '{"format": "json", "items": "rows", "legacy_id": "id", "columns": {"id": "id", "v": "v"}, "data_version": {"from": "meta.version", "accept": ["2.0", 3]}}') > 0;
TRUNCATE t;
SELECT pg_temp.books(run_id) FROM portage.migrate('parts_version', '{"meta": {"version": "2.0"}, "rows": [{"id": 1}]}');
SELECT pg_temp.books(run_id) FROM portage.migrate('parts_version', '{"rows": [{"id": 2}], "meta": {"version": 3}}');
SELECT refused_call($$portage.migrate('parts_version', '{"meta": {"version": 2.1}, "rows": [{"id": 3}]}')$$);
SELECT refused_call($$portage.migrate('parts_version', '{"meta": {"version": 2}, "rows": [{"id": 3}]}')$$);
SELECT refused_call($$portage.migrate('parts_version', '{"rows": [{"id": 3}]}')$$);
SELECT refused_call($$portage.migrate('parts_version', '{"meta": {"version": null}, "rows": [{"id": 3}]}')$$);
SELECT refused_call($$portage.migrate('parts_version', '{"meta": {"version": {"a": 1}}, "rows": [{"id": 3}]}')$$);
SELECT refused_call($$portage.migrate('parts_version', 'no json')$$);
SELECT refused_call($$portage.migrate('parts_version', '')$$);
SELECT portage.open_run('parts_version', 'told') AS run \gset
SELECT portage.submit(:run, '{"rows": [{"id": 4}]}', 'told', data_version => '3'), portage.submit(:run, '{"meta": {"version": "9"}, "rows": [{"id": 5}]}', 'overruled', data_version => '2.0');
CALL portage.run(:run);
SELECT pg_temp.books(:run);
SELECT * FROM parts(:run);
-- One part of an unknown version, and none of the others is begun.
SELECT portage.open_run('parts_version', 'mixed') AS run \gset
SELECT portage.submit(:run, '{"meta": {"version": 3}, "rows": [{"id": 6}]}', 'good'), portage.submit(:run, '{"meta": {"version": 4}, "rows": [{"id": 7}]}', 'bad');
CALL portage.run(:run);
\echo :LAST_ERROR_SQLSTATE
SELECT status FROM portage.migration_runs WHERE id = :run;
SELECT array_agg(id ORDER BY id) FROM t;

-- 6. import() takes exactly one source.
CALL portage.import('parts');
\echo :LAST_ERROR_SQLSTATE
CALL portage.import('parts', payload => '[]', file => '/x');
SELECT portage.drop_pipeline('parts', true) > 0;
REVOKE pg_read_server_files FROM regress_portage_files;
DROP OWNED BY regress_portage_files;
DROP ROLE regress_portage_files;

-- Nothing is left for the next test.
SELECT count(portage.drop_pipeline(name, true)) > 0 AS dropped FROM portage.pipelines;
DROP SCHEMA parts CASCADE;
