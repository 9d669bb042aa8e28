-- Taking a run back; see extension/undo/.

CREATE PROCEDURE portage.rollback(run bigint, drifted text DEFAULT 'refuse', cascade boolean DEFAULT false)
  AS 'MODULE_PATHNAME', 'portage_rollback' LANGUAGE C;
COMMENT ON PROCEDURE portage.rollback(bigint, text, boolean) IS
  'takes a run back in batches: inserted rows go, overwritten values and mappings return; called again it resumes';

CREATE PROCEDURE portage.rollback(pipeline text, scope text, drifted text DEFAULT 'refuse', cascade boolean DEFAULT false)
  AS 'MODULE_PATHNAME', 'portage_rollback_latest' LANGUAGE C;
COMMENT ON PROCEDURE portage.rollback(text, text, text, boolean) IS 'takes the newest run of a pipeline and scope back';

CREATE FUNCTION portage.rollback_findings(run bigint) RETURNS jsonb
  AS 'MODULE_PATHNAME', 'portage_can_rollback' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.rollback_findings(bigint) IS 'what can_rollback() shows, as jsonb';

CREATE FUNCTION portage.can_rollback(run bigint, OUT possible boolean, OUT reasons text[], OUT rows bigint,
                                     OUT drifted bigint, OUT dependants jsonb, OUT missing_privileges text[],
                                     OUT estimated_duration interval)
  LANGUAGE sql VOLATILE
  BEGIN ATOMIC
    SELECT (f ->> 'possible')::boolean, ARRAY(SELECT jsonb_array_elements_text(f -> 'reasons')), (f ->> 'rows')::bigint,
           (f ->> 'drifted')::bigint, f -> 'dependants', ARRAY(SELECT jsonb_array_elements_text(f -> 'missing_privileges')),
           make_interval(secs => (f ->> 'estimated_seconds')::float8)
      FROM portage.rollback_findings($1) AS f;
  END;
COMMENT ON FUNCTION portage.can_rollback(bigint) IS
  'whether a run can be taken back as it is, and if not, why: drifted rows, dependants, missing privileges';

-- What a run keeps for later, and for how long; see extension/run/keep.cpp.

CREATE FUNCTION portage.keep(run bigint) RETURNS void
  AS 'MODULE_PATHNAME', 'portage_keep' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.keep(bigint) IS 'exempts a run from retention: its expires_at becomes infinity';

CREATE FUNCTION portage.cleanup(run bigint) RETURNS jsonb
  AS 'MODULE_PATHNAME', 'portage_cleanup' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.cleanup(bigint) IS
  'drops what an ended run keeps for later: payload, raw input of rejects, before-images; it cannot be rolled back after that';

CREATE PROCEDURE portage.purge(older_than interval)
  AS 'MODULE_PATHNAME', 'portage_purge' LANGUAGE C;
COMMENT ON PROCEDURE portage.purge(interval) IS
  'erases what is known of the items of all runs that ended longer ago, but for those that keep() saved; runs, parts and mappings stay';
REVOKE EXECUTE ON PROCEDURE portage.purge(interval) FROM PUBLIC;

CREATE FUNCTION portage.snapshot(run bigint, part integer) RETURNS bytea
  AS 'MODULE_PATHNAME', 'portage_snapshot' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.snapshot(bigint, integer) IS 'what was submitted as a part of a run, byte by byte';

CREATE FUNCTION portage.snapshot_parts(run bigint) RETURNS bigint[]
  AS 'MODULE_PATHNAME', 'portage_snapshot_parts' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.snapshot_parts(bigint) IS 'the parts that snapshot() shows';

CREATE FUNCTION portage.snapshot(run bigint, OUT part integer, OUT name text, OUT content bytea) RETURNS SETOF record
  LANGUAGE sql VOLATILE
  BEGIN ATOMIC
    SELECT p.part, p.name, portage.snapshot($1, p.part)
      FROM unnest(portage.snapshot_parts($1)) AS n (part)
      LEFT JOIN portage.migration_parts p ON p.run_id = $1 AND p.part = n.part
     ORDER BY p.part;
  END;
COMMENT ON FUNCTION portage.snapshot(bigint) IS 'what was submitted to a run: its payload parts with their bytes';
