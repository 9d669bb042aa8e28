-- What an input holds, beside what is migrated already; see extension/run/detection.cpp.

CREATE TYPE portage.detection AS (
  needed boolean, has_local_data boolean, item_count bigint, storage_size bigint, data_version text, can_migrate boolean,
  blockers text[], new bigint, changed bigint, unchanged bigint, gone bigint, complexity text, estimated_duration interval,
  recommendation text);
COMMENT ON TYPE portage.detection IS 'what an input holds, beside what is migrated already: the answer of detect()';

CREATE FUNCTION portage.detected(pipeline text, payload text, scope text, record boolean) RETURNS jsonb
  AS 'MODULE_PATHNAME', 'portage_detect' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.detected(text, text, text, boolean) IS 'what detect() shows, as jsonb';

CREATE FUNCTION portage.detected(run bigint) RETURNS jsonb
  AS 'MODULE_PATHNAME', 'portage_detect_run' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.detected(bigint) IS 'what detect() shows, as jsonb';

CREATE FUNCTION portage.detect(pipeline text, payload text DEFAULT NULL, scope text DEFAULT '', record boolean DEFAULT false)
  RETURNS portage.detection LANGUAGE sql VOLATILE
  BEGIN ATOMIC SELECT jsonb_populate_record(NULL::portage.detection, portage.detected($1, $2, $3, $4)); END;
COMMENT ON FUNCTION portage.detect(text, text, text, boolean) IS
  'compares a payload, or what the pipeline''s source has now, with what is migrated; writes nothing but, with record, an event';

CREATE FUNCTION portage.detect(run bigint) RETURNS portage.detection LANGUAGE sql VOLATILE
  BEGIN ATOMIC SELECT jsonb_populate_record(NULL::portage.detection, portage.detected($1)); END;
COMMENT ON FUNCTION portage.detect(bigint) IS 'the same of the parts of a run, as they are now or were when it began';
