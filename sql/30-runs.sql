-- The functions and procedures of a run. Each checks for itself who calls; see extension/run/api.cpp.

CREATE FUNCTION portage.open_run(pipeline text, scope text DEFAULT '', options jsonb DEFAULT '{}', name text DEFAULT NULL,
                                 metadata jsonb DEFAULT NULL) RETURNS bigint
  AS 'MODULE_PATHNAME', 'portage_open_run' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.open_run(text, text, jsonb, text, jsonb) IS 'opens a run of a pipeline; returns its id';

CREATE FUNCTION portage.submit(run bigint, payload text, name text DEFAULT NULL, chunk_no integer DEFAULT NULL,
                               sha256 text DEFAULT NULL, data_version text DEFAULT NULL) RETURNS integer
  AS 'MODULE_PATHNAME', 'portage_submit' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.submit(bigint, text, text, integer, text, text) IS
  'adds bytes to a part of a run (chunk by chunk, numbered from 1); the same chunk again changes nothing; returns the part';

CREATE FUNCTION portage.submit(run bigint, payload bytea, name text DEFAULT NULL, chunk_no integer DEFAULT NULL,
                               sha256 text DEFAULT NULL, data_version text DEFAULT NULL) RETURNS integer
  AS 'MODULE_PATHNAME', 'portage_submit' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.submit(bigint, bytea, text, integer, text, text) IS
  'adds bytes to a part of a run (chunk by chunk, numbered from 1); the same chunk again changes nothing; returns the part';

CREATE FUNCTION portage.attach_file(run bigint, path text) RETURNS integer
  AS 'MODULE_PATHNAME', 'portage_attach_file' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.attach_file(bigint, text) IS
  'adds a file of the server, or all that match a glob, as parts; returns how many';

CREATE FUNCTION portage.attach_query(run bigint, query text, key text[] DEFAULT NULL, snapshot boolean DEFAULT false,
                                     name text DEFAULT NULL) RETURNS integer
  AS 'MODULE_PATHNAME', 'portage_attach_query' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.attach_query(bigint, text, text[], boolean, text) IS
  'adds the rows of a query as a part: read by pages of a unique key, or copied now (snapshot); returns the part';

CREATE FUNCTION portage.attach_table(run bigint, source regclass) RETURNS integer
  AS 'MODULE_PATHNAME', 'portage_attach_table' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.attach_table(bigint, regclass) IS
  'adds the rows of a table as a part, read by pages of its primary key; returns the part';

CREATE FUNCTION portage.attach_source(run bigint) RETURNS integer
  AS 'MODULE_PATHNAME', 'portage_attach_source' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.attach_source(bigint) IS
  'adds what the source of the pipeline''s definition has now; returns how many parts that are';

CREATE FUNCTION portage.attach_large_object(run bigint, large_object oid) RETURNS integer
  AS 'MODULE_PATHNAME', 'portage_attach_large_object' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.attach_large_object(bigint, oid) IS 'adds a large object as a part; returns the part';

CREATE PROCEDURE portage.run(run bigint DEFAULT NULL)
  AS 'MODULE_PATHNAME', 'portage_run' LANGUAGE C;
COMMENT ON PROCEDURE portage.run(bigint) IS
  'works a run off in this session, committing each batch; called again it resumes what was interrupted';

CREATE PROCEDURE portage.restore_indexes(run bigint)
  AS 'MODULE_PATHNAME', 'portage_restore_indexes' LANGUAGE C;
COMMENT ON PROCEDURE portage.restore_indexes(bigint) IS
  'builds what an initial load took away from its target and has not put back: of a run that was paused, cancelled or broken off';

CREATE PROCEDURE portage.import(pipeline text, file text DEFAULT NULL, query text DEFAULT NULL, payload text DEFAULT NULL,
                                scope text DEFAULT '', options jsonb DEFAULT '{}', key text DEFAULT NULL,
                                INOUT run bigint DEFAULT NULL)
  AS 'MODULE_PATHNAME', 'portage_import' LANGUAGE C;
COMMENT ON PROCEDURE portage.import(text, text, text, text, text, jsonb, text, bigint) IS
  'the everyday command: opens a run, attaches file, query or payload (else the pipeline''s source), works it off and prints the summary';

CREATE FUNCTION portage.plan(run bigint DEFAULT NULL) RETURNS jsonb
  AS 'MODULE_PATHNAME', 'portage_plan_run' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.plan(bigint) IS
  'what a run would meet: blockers with the GRANT or DDL that removes them, the writer and why, an estimate';

CREATE FUNCTION portage.plan(pipeline text, payload text, scope text DEFAULT '') RETURNS jsonb
  AS 'MODULE_PATHNAME', 'portage_plan_payload' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.plan(text, text, text) IS 'the same for a payload that is not submitted yet';

CREATE FUNCTION portage.validate(run bigint DEFAULT NULL) RETURNS jsonb
  AS 'MODULE_PATHNAME', 'portage_validate' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.validate(bigint) IS
  'reads all that a run would read and says what would become of it, by conversion, rules and look-ups; leaves run and target as they are';

CREATE FUNCTION portage.reject_raw(run bigint, ordinal bigint) RETURNS bytea
  AS 'MODULE_PATHNAME', 'portage_reject_raw' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.reject_raw(bigint, bigint) IS
  'the whole raw input of a reject, from the ledger or, where only its head is there, from the source';
