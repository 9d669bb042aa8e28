-- Who may read the ledger: row level security on the tables without raw data; everything else only through the
-- views below, which apply the same rule. Nobody writes a ledger table by hand.

CREATE FUNCTION portage.pipeline_readable(pipeline_id bigint) RETURNS boolean
  LANGUAGE sql STABLE
  RETURN EXISTS (SELECT FROM portage.pipelines p WHERE p.id = $1 AND portage.acts_as(p.owner))
      OR EXISTS (SELECT FROM portage.pipeline_grants g WHERE g.pipeline_id = $1 AND g.privilege = 'read'
                 AND portage.granted_to_caller(g.role_oid));
COMMENT ON FUNCTION portage.pipeline_readable(bigint) IS 'true if the caller owns the pipeline or was granted "read" on it';

CREATE FUNCTION portage.run_visible(pipeline_id bigint, scope text, role oid) RETURNS boolean
  LANGUAGE sql STABLE
  RETURN portage.in_scope(scope)
     AND (portage.acts_as(role) OR portage.is_admin() OR portage.pipeline_readable(pipeline_id));
COMMENT ON FUNCTION portage.run_visible(bigint, text, oid) IS
  'the rule of the ledger: runs of roles that the caller is a member of, and all runs of pipelines that it owns or may read';

ALTER TABLE portage.migration_runs ENABLE ROW LEVEL SECURITY;
ALTER TABLE portage.migration_parts ENABLE ROW LEVEL SECURITY;
ALTER TABLE portage.migration_ranges ENABLE ROW LEVEL SECURITY;
ALTER TABLE portage.migration_batches ENABLE ROW LEVEL SECURITY;
ALTER TABLE portage.migration_events ENABLE ROW LEVEL SECURITY;
ALTER TABLE portage.data_integrity_checks ENABLE ROW LEVEL SECURITY;
ALTER TABLE portage.mapping_rows ENABLE ROW LEVEL SECURITY;
ALTER TABLE portage.mapping_packs ENABLE ROW LEVEL SECURITY;
ALTER TABLE portage.source_cursors ENABLE ROW LEVEL SECURITY;
ALTER TABLE portage.migration_payloads ENABLE ROW LEVEL SECURITY;
ALTER TABLE portage.item_rows ENABLE ROW LEVEL SECURITY;
ALTER TABLE portage.item_packs ENABLE ROW LEVEL SECURITY;
ALTER TABLE portage.item_corrections ENABLE ROW LEVEL SECURITY;
ALTER TABLE portage.migration_undo ENABLE ROW LEVEL SECURITY;
ALTER TABLE portage.row_moves ENABLE ROW LEVEL SECURITY;
ALTER TABLE portage.missing_rows ENABLE ROW LEVEL SECURITY;
ALTER TABLE portage.migration_conflicts ENABLE ROW LEVEL SECURITY;
ALTER TABLE portage.predictions ENABLE ROW LEVEL SECURITY;

CREATE POLICY runs_of_ours ON portage.migration_runs FOR SELECT
  USING (portage.run_visible(pipeline_id, scope, role_oid));
CREATE POLICY batches_of_runs ON portage.migration_batches FOR SELECT
  USING (run_id IN (SELECT r.id FROM portage.migration_runs r));
CREATE POLICY events_of_runs ON portage.migration_events FOR SELECT
  USING (run_id IN (SELECT r.id FROM portage.migration_runs r)
         OR (run_id = 0 AND portage.in_scope(details ->> 'scope')
             AND (details ->> 'pipeline_id')::bigint IN (SELECT p.id FROM portage.pipelines p)));
CREATE POLICY checks_of_runs ON portage.data_integrity_checks FOR SELECT
  USING (run_id IN (SELECT r.id FROM portage.migration_runs r));

GRANT SELECT ON portage.migration_runs, portage.migration_parts, portage.migration_ranges, portage.migration_batches,
  portage.migration_events, portage.data_integrity_checks, portage.source_cursors TO PUBLIC;

CREATE VIEW portage.visible_runs WITH (security_barrier) AS
  SELECT r.id AS run_id, r.pipeline_id, r.pipeline, r.scope,
         CASE WHEN o.owns THEN NULL ELSE v.sensitive END AS sensitive,
         NOT o.owns AND v.sensitive_id AS hides_id, NOT o.owns AND v.sensitive_key AS hides_key
    FROM portage.migration_runs r
    LEFT JOIN portage.pipelines p ON p.id = r.pipeline_id
    LEFT JOIN portage.pipeline_versions v ON v.pipeline_id = r.pipeline_id AND v.version = r.pipeline_version
    CROSS JOIN LATERAL (SELECT coalesce(portage.acts_as(p.owner), false) AS owns) o
   WHERE portage.run_visible(r.pipeline_id, r.scope, r.role_oid);
COMMENT ON VIEW portage.visible_runs IS
  'the runs that the caller may see, with the paths that are masked from it (null: none, or the caller owns the pipeline), and whether legacy ids and keys are';
GRANT SELECT ON portage.visible_runs TO PUBLIC;

CREATE FUNCTION portage.paths_touch(paths text[], columns text[]) RETURNS boolean
  AS 'MODULE_PATHNAME', 'portage_paths_touch' LANGUAGE C STRICT IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION portage.paths_touch(text[], text[]) IS 'true if one of the paths begins with one of the columns';

-- Where a source was read up to is a value of its key. A header that was none is an item.
CREATE POLICY parts_of_runs ON portage.migration_parts FOR SELECT
  USING (run_id IN (SELECT r.id FROM portage.migration_runs r)
         AND ((last_key IS NULL AND cursor_from IS NULL)
              OR NOT EXISTS (SELECT FROM portage.visible_runs v
                              WHERE v.run_id = migration_parts.run_id AND portage.paths_touch(v.sensitive, key_columns))));
CREATE POLICY ranges_of_runs ON portage.migration_ranges FOR SELECT
  USING (run_id IN (SELECT r.id FROM portage.migration_runs r)
         AND ((last_key IS NULL AND reader_state = '')
              OR NOT EXISTS (SELECT FROM portage.visible_runs v
                              WHERE v.run_id = migration_ranges.run_id AND v.sensitive IS NOT NULL)));
CREATE POLICY cursors_of_runs ON portage.source_cursors FOR SELECT
  USING (portage.in_scope(scope) AND run_id IN (SELECT r.id FROM portage.migration_runs r)
         AND NOT EXISTS (SELECT FROM portage.visible_runs v
                          WHERE v.run_id = source_cursors.run_id
                            AND portage.paths_touch(v.sensitive, ARRAY[cursor_column])));

-- Three parts of the same types, so that an id is looked for by the index wherever it may be known; within another SELECT,
-- since PostgreSQL dissolves a view that is a UNION ALL, also one with security_barrier. Hashes and images are made of
-- values: who knows what most of a row holds could try the rest.
CREATE VIEW portage.legacy_mappings WITH (security_barrier) AS
  SELECT u.* FROM (
  SELECT m.pipeline_id, m.scope, m.legacy_id, m.target_key, m.origin, m.source_hash, m.row_hash, m.run_id, m.ordinal,
         m.image, m.missing_since
    FROM portage.all_mappings m
   WHERE portage.in_scope(m.scope)
     AND m.run_id IN (SELECT r.run_id FROM portage.visible_runs r WHERE r.sensitive IS NULL)
  UNION ALL
  SELECT m.pipeline_id, m.scope, m.legacy_id, CASE WHEN v.hides_key THEN '***' ELSE m.target_key END, m.origin, NULL, NULL,
         m.run_id, m.ordinal, NULL, m.missing_since
    FROM portage.all_mappings m JOIN portage.visible_runs v USING (run_id)
   WHERE portage.in_scope(m.scope) AND v.sensitive IS NOT NULL AND NOT v.hides_id
  UNION ALL
  SELECT m.pipeline_id, m.scope, '***'::text COLLATE "C", CASE WHEN v.hides_key THEN '***' ELSE m.target_key END, m.origin, NULL,
         NULL, m.run_id, m.ordinal, NULL, m.missing_since
    FROM portage.all_mappings m JOIN portage.visible_runs v USING (run_id)
   WHERE portage.in_scope(m.scope) AND v.hides_id
  ) u;
COMMENT ON VIEW portage.legacy_mappings IS
  'which target row a legacy id became: of the runs that the caller may see; masked where they come from sensitive paths, and then without hashes and images';
GRANT SELECT ON portage.legacy_mappings TO PUBLIC;

CREATE FUNCTION portage.masked(value text, hidden boolean) RETURNS text
  LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN CASE WHEN hidden AND value IS NOT NULL THEN '***' ELSE value END;
COMMENT ON FUNCTION portage.masked(text, boolean) IS 'the value, or *** where it is hidden';

CREATE FUNCTION portage.raw_text(raw bytea) RETURNS text
  AS 'MODULE_PATHNAME', 'portage_raw_text' LANGUAGE C STRICT IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION portage.raw_text(bytea) IS 'raw input as text: what is no valid text shows as \xNN';

CREATE FUNCTION portage.masked_raw(raw bytea, sensitive text[]) RETURNS text
  AS 'MODULE_PATHNAME', 'portage_masked_raw' LANGUAGE C STRICT IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION portage.masked_raw(bytea, text[]) IS
  'raw JSON input with *** in place of the sensitive paths, or of what is not as these expect it; wholly *** where it is no JSON object';

CREATE VIEW portage.migration_items WITH (security_barrier) AS
  SELECT i.run_id, i.ordinal, i.revision, i.part, i.line, i.status, portage.masked(i.legacy_id, v.hides_id) AS legacy_id,
         portage.masked(i.target_key, v.hides_key) AS target_key, i.error_class, i.rule, i.sqlstate, i.column_name,
         portage.masked(i.message, v.sensitive IS NOT NULL) AS message
    FROM portage.all_items i JOIN portage.visible_runs v USING (run_id);
COMMENT ON VIEW portage.migration_items IS 'every item of the runs that the caller may see, one row per outcome';
GRANT SELECT ON portage.migration_items TO PUBLIC;

CREATE VIEW portage.rejects WITH (security_barrier) AS
  SELECT i.run_id, i.ordinal, i.part, i.line, i.byte_offset, i.byte_length,
         portage.masked(i.legacy_id, v.hides_id) AS legacy_id, i.status, i.error_class, i.rule, i.sqlstate, i.column_name,
         portage.masked(i.message, v.sensitive IS NOT NULL) AS message,
         CASE WHEN v.sensitive IS NULL THEN i.issues END AS issues,
         CASE WHEN v.sensitive IS NULL THEN portage.raw_text(i.raw) ELSE portage.masked_raw(i.raw, v.sensitive) END AS raw,
         i.actor AS replayed_by
    FROM portage.item_rows i JOIN portage.visible_runs v USING (run_id)
   WHERE i.status IN ('invalid', 'failed', 'skipped')
     AND i.rule IS DISTINCT FROM 'sample' AND (i.rule IS DISTINCT FROM 'where' OR i.status <> 'skipped')
     AND NOT EXISTS (SELECT FROM portage.item_rows later
                      WHERE later.run_id = i.run_id AND later.ordinal = i.ordinal AND later.revision > i.revision
                     OFFSET 0); -- by the index, one by one: a join would be planned by statistics that a new run has not got
COMMENT ON VIEW portage.rejects IS 'the items that did not land: where they stand, what was wrong, and their raw input';
GRANT SELECT ON portage.rejects TO PUBLIC;

CREATE VIEW portage.corrections WITH (security_barrier) AS
  SELECT c.run_id, c.ordinal, c.revision,
         CASE WHEN v.sensitive IS NULL THEN portage.raw_text(c.raw) ELSE portage.masked_raw(c.raw, v.sensitive) END AS raw,
         c.actor, c.corrected_at
    FROM portage.item_corrections c JOIN portage.visible_runs v USING (run_id);
COMMENT ON VIEW portage.corrections IS 'the corrected raw input that was replayed, by whom and when; masked as in rejects';
GRANT SELECT ON portage.corrections TO PUBLIC;

CREATE VIEW portage.missing_items WITH (security_barrier) AS
  SELECT m.run_id, portage.masked(m.legacy_id, v.hides_id) AS legacy_id,
         portage.masked(m.target_key, v.hides_key) AS target_key, m.status, m.reason
    FROM portage.missing_rows m JOIN portage.visible_runs v USING (run_id);
COMMENT ON VIEW portage.missing_items IS
  'the items that a run found gone from its source, what became of their rows, and why where these were not deleted';
GRANT SELECT ON portage.missing_items TO PUBLIC;

CREATE VIEW portage.open_conflicts WITH (security_barrier) AS
  SELECT c.run_id, c.ordinal, portage.masked(c.legacy_id, v.hides_id) AS legacy_id,
         portage.masked(c.target_key, v.hides_key) AS target_key, c.disputed,
         CASE WHEN v.sensitive IS NULL THEN c.incoming END AS incoming,
         CASE WHEN v.sensitive IS NULL THEN c.existing END AS existing,
         CASE WHEN v.sensitive IS NULL THEN c.base END AS base,
         c.suggested, i.part, i.line
    FROM portage.migration_conflicts c JOIN portage.visible_runs v USING (run_id)
    JOIN portage.migration_runs r ON r.id = c.run_id
    JOIN portage.item_rows i USING (run_id, ordinal, revision)
   WHERE c.resolution IS NULL AND r.status NOT IN ('rolling_back', 'rolled_back')
     AND NOT EXISTS (SELECT FROM portage.item_rows later
                      WHERE later.run_id = c.run_id AND later.ordinal = c.ordinal AND later.revision > c.revision);
COMMENT ON VIEW portage.open_conflicts IS
  'the items that wait for a decision: what comes, what stands there, what the source said before, the columns in dispute, and a suggestion; values are null where paths are sensitive';
GRANT SELECT ON portage.open_conflicts TO PUBLIC;

CREATE VIEW portage.resolved_conflicts WITH (security_barrier) AS
  SELECT c.run_id, c.ordinal, portage.masked(c.legacy_id, v.hides_id) AS legacy_id,
         portage.masked(c.target_key, v.hides_key) AS target_key, c.disputed,
         CASE WHEN v.sensitive IS NULL THEN c.incoming END AS incoming,
         CASE WHEN v.sensitive IS NULL THEN c.existing END AS existing,
         CASE WHEN v.sensitive IS NULL THEN c.base END AS base,
         c.resolution, CASE WHEN v.sensitive IS NULL THEN c.value END AS value, c.resolved_by, c.resolved_at
    FROM portage.migration_conflicts c JOIN portage.visible_runs v USING (run_id)
   WHERE c.resolution IS NOT NULL;
COMMENT ON VIEW portage.resolved_conflicts IS 'the decisions that were made about conflicts: which, by whom and when';
GRANT SELECT ON portage.resolved_conflicts TO PUBLIC;
