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
