-- Decisions about items that wait for one (on_conflict "ask"); see extension/run/resolve.hpp.

CREATE FUNCTION portage.resolve(run bigint, ordinal bigint, resolution text, value jsonb DEFAULT NULL,
                                remember boolean DEFAULT false, OUT resolved_count bigint, OUT remaining_conflicts bigint)
  AS 'MODULE_PATHNAME', 'portage_resolve' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.resolve(bigint, bigint, text, jsonb, boolean) IS
  'decides about a conflict: incoming, existing, merged, or value with a JSON object of columns; remember makes it a rule of the pipeline, for the others of this run, too';

CREATE FUNCTION portage.resolve(run bigint, resolutions jsonb, OUT resolved_count bigint, OUT remaining_conflicts bigint)
  AS 'MODULE_PATHNAME', 'portage_resolve_some' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.resolve(bigint, jsonb) IS
  'decides about many conflicts at once, all or nothing: [{"ordinal" or "legacy_id", "resolution", "value"}, ...]';

CREATE FUNCTION portage.resolve_all(run bigint, resolution text, filter jsonb DEFAULT '{}',
                                    OUT resolved_count bigint, OUT remaining_conflicts bigint)
  AS 'MODULE_PATHNAME', 'portage_resolve_all' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.resolve_all(bigint, text, jsonb) IS
  'one decision (or "suggested") for all open conflicts of a run, or those that the filter means: {"columns": [..], "legacy_ids": [..], "suggested": ".."}';

CREATE PROCEDURE portage.resolve_run(run bigint, resolution text, filter jsonb DEFAULT '{}',
                                     INOUT resolved_count bigint DEFAULT NULL, INOUT remaining_conflicts bigint DEFAULT NULL)
  AS 'MODULE_PATHNAME', 'portage_resolve_run' LANGUAGE C;
COMMENT ON PROCEDURE portage.resolve_run(bigint, text, jsonb, bigint, bigint) IS
  'the same in batches, committing each, and the end of the run with its verification';
