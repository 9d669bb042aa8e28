-- What a person or a program asks of a run: its state, its progress, its summary.

CREATE TYPE portage.run_info AS (
  run_id bigint, pipeline text, scope text, status text, is_running boolean, current_step text, percentage numeric,
  processed_items bigint, total_items bigint, processed_parts integer, total_parts integer,
  read bigint, inserted bigint, updated bigint, unchanged bigint, skipped bigint, conflicted bigint, parked bigint,
  invalid bigint, failed bigint, open_rejects bigint, open_conflicts bigint, open_parked bigint,
  success_rate numeric, error_rate numeric, items_per_second numeric, parts_per_minute numeric,
  estimated_time_remaining interval, workers integer, batch_size bigint, hold_reason text, errors jsonb,
  started_at timestamptz, completed_at timestamptz, dry_run boolean);
COMMENT ON TYPE portage.run_info IS 'the state of a run; also the row of view progress';

CREATE VIEW portage.progress WITH (security_barrier) AS
  SELECT r.id AS run_id, r.pipeline, r.scope, r.status, o.alive AS is_running, r.current_step,
         CASE WHEN r.status IN ('completed', 'rolled_back') THEN 100.0
              WHEN p.bytes > 0 THEN round(least(100.0 * p.bytes_read / p.bytes, 100), 1) END AS percentage,
         c.read AS processed_items, r.total_items, p.done AS processed_parts, p.total AS total_parts,
         c.read, c.inserted, c.updated, c.unchanged, c.skipped, c.conflicted, c.parked, c.invalid, c.failed,
         coalesce(r.open_rejects, c.invalid + c.failed) AS open_rejects,
         coalesce(r.open_conflicts, c.conflicted) AS open_conflicts, coalesce(r.open_parked, c.parked) AS open_parked,
         round((c.inserted + c.updated + c.unchanged)::numeric / nullif(c.read, 0), 4) AS success_rate,
         round((c.invalid + c.failed)::numeric / nullif(c.read, 0), 4) AS error_rate,
         round((c.read / nullif(t.seconds, 0))::numeric, 0) AS items_per_second,
         round((60 * p.done / nullif(t.seconds, 0))::numeric, 1) AS parts_per_minute,
         CASE WHEN o.alive AND p.bytes_read > 0 AND p.bytes > p.bytes_read
              THEN make_interval(secs => round((t.seconds * (p.bytes - p.bytes_read) / p.bytes_read)::numeric, 0)::float8) END
           AS estimated_time_remaining,
         CASE WHEN o.alive THEN 1 + w.helpers ELSE 0 END AS workers,
         b.size AS batch_size,
         CASE WHEN r.status = 'paused' THEN 'paused' || coalesce(': ' || split_part(r.error, E'\n', 1), '')
                || '; SELECT portage.resume(' || r.id || ') goes on' || x.until_then
              WHEN r.status = 'awaiting_resolution' THEN 'waits for decisions: SELECT * FROM portage.open_conflicts WHERE run_id = ' || r.id || ';'
              WHEN r.status = 'queued' OR (r.background AND r.status IN ('running', 'verifying', 'rolling_back') AND NOT o.alive)
                THEN 'waits for a background worker; CALL portage.run(' || r.id || ') works it off here'
              WHEN r.status IN ('running', 'verifying', 'rolling_back') AND NOT o.alive
                THEN 'interrupted: CALL portage.run(' || r.id || ') resumes it' || x.until_then
              WHEN r.status IN ('failed', 'cancelled', 'rolled_back') AND x.until_then <> ''
                THEN 'indexes of the target are missing: CALL portage.restore_indexes(' || r.id || ') builds them'
              WHEN r.requested = 'pause' THEN 'is about to pause'
              WHEN r.requested = 'cancel' THEN 'is about to be cancelled'
              ELSE r.hold_reason END
           AS hold_reason,
         CASE WHEN r.error IS NULL THEN '[]'::jsonb
              ELSE jsonb_build_array(jsonb_build_object('time', r.completed_at, 'class', r.error_class, 'code', r.error_code,
                                                        'message', r.error)) END AS errors,
         r.started_at, r.completed_at, r.dry_run
    FROM portage.migration_runs r
    CROSS JOIN LATERAL (SELECT r.status IN ('running', 'verifying', 'rolling_back')
             AND portage.run_owner_alive(r)
             AS alive) o
    -- looked for only where it is shown
    CROSS JOIN LATERAL (SELECT CASE WHEN r.status IN ('paused', 'running', 'rolling_back', 'failed', 'cancelled', 'rolled_back')
               AND NOT o.alive AND EXISTS (SELECT FROM portage.deferred_indexes d
                                            WHERE d.run_id = r.id AND d.stays IS NULL AND d.restored_at IS NULL)
             THEN '; indexes of the target are missing until then' ELSE '' END AS until_then) x
    CROSS JOIN LATERAL (SELECT coalesce(sum(b.read), 0)::bigint AS read, coalesce(sum(b.inserted), 0)::bigint AS inserted,
             coalesce(sum(b.updated), 0)::bigint AS updated, coalesce(sum(b.unchanged), 0)::bigint AS unchanged,
             coalesce(sum(b.skipped), 0)::bigint AS skipped, coalesce(sum(b.conflicted), 0)::bigint AS conflicted,
             coalesce(sum(b.parked), 0)::bigint AS parked, coalesce(sum(b.invalid), 0)::bigint AS invalid,
             coalesce(sum(b.failed), 0)::bigint AS failed
        FROM portage.migration_batches b WHERE b.run_id = r.id AND r.read IS NULL
       UNION ALL SELECT r.read, r.inserted, r.updated, r.unchanged, r.skipped, r.conflicted, r.parked, r.invalid, r.failed
        WHERE r.read IS NOT NULL ORDER BY read DESC LIMIT 1) c
    CROSS JOIN LATERAL (SELECT count(DISTINCT g.owner_pid)::integer AS helpers FROM portage.migration_ranges g
       WHERE o.alive AND r.workers > 1 AND g.run_id = r.id AND NOT g.done AND g.owner_pid <> r.owner_pid
         AND portage.owner_alive(g.owner_pid, g.owner_started_at, g.owner_statement_at, g.lease_expires)) w
    CROSS JOIN LATERAL (SELECT count(*)::integer AS total, count(*) FILTER (WHERE g.done OR m.skipped IS NOT NULL)::integer AS done,
             sum(m.byte_length) AS bytes,
             sum(CASE WHEN g.done OR m.skipped IS NOT NULL THEN m.byte_length
                      WHEN r.workers > 1 THEN least(m.byte_length, (SELECT coalesce(sum(b.bytes), 0)::bigint FROM portage.migration_batches b
                                                                     WHERE b.run_id = m.run_id AND b.part = m.part))
                      ELSE least(coalesce(g.next_byte, 0), m.byte_length) END) AS bytes_read
        FROM portage.migration_parts m
        LEFT JOIN LATERAL (SELECT bool_and(q.done) AS done, max(q.next_byte) AS next_byte FROM portage.migration_ranges q
                            WHERE q.run_id = m.run_id AND q.part = m.part HAVING count(*) > 0) g ON true
       WHERE m.run_id = r.id) p
    CROSS JOIN LATERAL (SELECT extract(epoch FROM coalesce(r.completed_at, clock_timestamp()) - r.started_at)::float8 AS seconds) t
    LEFT JOIN LATERAL (SELECT b.read AS size FROM portage.migration_batches b WHERE b.run_id = r.id ORDER BY b.id DESC LIMIT 1) b
      ON o.alive
   WHERE portage.run_visible(r.pipeline_id, r.scope, r.role_oid);
COMMENT ON VIEW portage.progress IS 'the runs that the caller may see: state, counters, rate, and what is left';
GRANT SELECT ON portage.progress TO PUBLIC;

-- In C: its plan is kept, which is larger than what migrate() has to do for a small payload.
CREATE FUNCTION portage.status(run bigint) RETURNS portage.run_info
  AS 'MODULE_PATHNAME', 'portage_status' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.status(bigint) IS 'the state of a run; null if there is none that the caller may see';

CREATE FUNCTION portage.last_run(pipeline text, scope text DEFAULT '') RETURNS portage.run_info
  LANGUAGE sql VOLATILE
  BEGIN ATOMIC SELECT ROW(p.*)::portage.run_info FROM portage.progress p
         WHERE p.run_id = (SELECT max(r.id) FROM portage.migration_runs r
                            WHERE r.pipeline_id = portage.pipeline_id($1) AND r.scope = $2); END;
COMMENT ON FUNCTION portage.last_run(text, text) IS 'the state of the newest run of a pipeline and scope';

CREATE FUNCTION portage.status(pipeline text, scope text) RETURNS portage.run_info
  LANGUAGE sql VOLATILE
  BEGIN ATOMIC SELECT portage.last_run($1, $2); END;
COMMENT ON FUNCTION portage.status(text, text) IS 'the state of the newest run of a pipeline and scope';

CREATE FUNCTION portage.migrate_run(pipeline text, payload bytea, scope text, options jsonb) RETURNS bigint
  AS 'MODULE_PATHNAME', 'portage_migrate_run' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.migrate_run(text, bytea, text, jsonb) IS 'what migrate() does; returns the run''s id';

CREATE FUNCTION portage.migrate_run(pipeline text, payload text, scope text, options jsonb) RETURNS bigint
  AS 'MODULE_PATHNAME', 'portage_migrate_run' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.migrate_run(text, text, text, jsonb) IS 'what migrate() does; returns the run''s id';

CREATE FUNCTION portage.migrate(pipeline text, payload text, scope text DEFAULT '', options jsonb DEFAULT '{}')
  RETURNS portage.run_info AS 'MODULE_PATHNAME', 'portage_migrate' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.migrate(text, text, text, jsonb) IS
  'migrates a small payload in the caller''s transaction; failing items are rejects, a failing run is an answer';

CREATE FUNCTION portage.migrate(pipeline text, payload bytea, scope text DEFAULT '', options jsonb DEFAULT '{}')
  RETURNS portage.run_info AS 'MODULE_PATHNAME', 'portage_migrate' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.migrate(text, bytea, text, jsonb) IS
  'migrates a small payload in the caller''s transaction; failing items are rejects, a failing run is an answer';

CREATE FUNCTION portage.migrate(pipeline text, payload jsonb, scope text DEFAULT '', options jsonb DEFAULT '{}')
  RETURNS portage.run_info LANGUAGE sql VOLATILE
  BEGIN ATOMIC SELECT portage.migrate($1, $2::text, $3, $4); END;
COMMENT ON FUNCTION portage.migrate(text, jsonb, text, jsonb) IS
  'migrates a small payload in the caller''s transaction; failing items are rejects, a failing run is an answer';

CREATE FUNCTION portage.mapping_scope(pipeline text, scope text) RETURNS text
  LANGUAGE sql STABLE
  BEGIN ATOMIC SELECT CASE WHEN v.definition ->> 'scoped' = 'false' THEN '' ELSE $2 END
          FROM portage.pipelines p JOIN portage.pipeline_versions v ON v.pipeline_id = p.id AND v.version = p.current_version
         WHERE p.id = portage.pipeline_id($1) AND portage.in_scope($2); END;
COMMENT ON FUNCTION portage.mapping_scope(text, text) IS 'the scope of the mappings of a pipeline, whose scopes may share them; null if the caller is kept out of the scope';

CREATE FUNCTION portage.lookup(pipeline text, legacy_id text, scope text DEFAULT '') RETURNS text
  LANGUAGE sql STABLE
  BEGIN ATOMIC SELECT m.target_key FROM portage.legacy_mappings m
         WHERE m.pipeline_id = (SELECT portage.pipeline_id($1))
           AND m.scope = portage.mapping_scope($1, $3) AND m.legacy_id = $2; END;
COMMENT ON FUNCTION portage.lookup(text, text, text) IS 'the key of the target row that a legacy id became; null if none';

CREATE FUNCTION portage.lookup_legacy(pipeline text, target_key text, scope text DEFAULT '') RETURNS SETOF text
  LANGUAGE sql STABLE
  BEGIN ATOMIC SELECT m.legacy_id FROM portage.legacy_mappings m
         WHERE m.pipeline_id = (SELECT portage.pipeline_id($1))
           AND m.scope = portage.mapping_scope($1, $3) AND m.target_key = $2 ORDER BY m.ordinal; END;
COMMENT ON FUNCTION portage.lookup_legacy(text, text, text) IS
  'the legacy ids that became the row with that key; looks through all mappings of pipeline and scope';

CREATE FUNCTION portage.summary(run bigint) RETURNS SETOF text
  LANGUAGE sql VOLATILE
  BEGIN ATOMIC
    WITH info AS (
      SELECT p.*, round(extract(epoch FROM p.completed_at - p.started_at), 1) AS seconds,
             (SELECT sum(m.deleted)::bigint FROM portage.migration_batches m WHERE m.run_id = p.run_id AND m.kind = 'missing') AS deleted
        FROM portage.progress p WHERE p.run_id = $1
    ), rejects AS MATERIALIZED ( -- looked through once: who may see what is asked for each of them
      SELECT j.ordinal, j.part, j.line, j.rule, j.sqlstate, j.column_name, j.message FROM portage.rejects j WHERE j.run_id = $1
    ), kinds AS (
      SELECT row_number() OVER (ORDER BY count(*) DESC, min(j.ordinal)) AS position, count(*) AS count, j.sqlstate,
             concat_ws(' ', j.rule, j.column_name) AS name, min(j.ordinal) AS ordinal
        FROM rejects j GROUP BY j.rule, j.sqlstate, j.column_name
    ), shown AS (
      SELECT k.*, j.part, j.line, pg_catalog.regexp_replace(j.message, '\s+', ' ', 'g') AS message
        FROM kinds k JOIN rejects j USING (ordinal)
       WHERE k.position <= 10
    ), wrapped AS ( -- at words, where there are some; psql's NOTICE and 58 characters fill a terminal
      SELECT k.*, pg_catalog.regexp_replace(pg_catalog.regexp_replace(
               CASE WHEN length(message) > 174 THEN left(message, 171) || '...' ELSE message END,
               '(\S{58})(?=\S)', '\1 ', 'g'), '(.{1,58})( |$)', E'\\1\n', 'g') AS lines
        FROM shown k
    )
    SELECT line FROM (
      SELECT 1 AS section, 0::bigint AS position, 0 AS part, format('%s %s of pipeline %s%s: %s', CASE WHEN dry_run THEN 'dry run' ELSE 'run' END,
               run_id, pipeline, CASE WHEN scope <> '' THEN ' for ' || scope ELSE '' END, status) AS line FROM info
      UNION ALL
      SELECT 1, 1, 0, '  nothing was written to the target; what an import would do:' FROM info WHERE dry_run
      UNION ALL
      SELECT 2, k.position, 0, format('  %s %s', rpad(k.name, 10), lpad(to_char(k.count, 'FM999,999,999,990'), 15))
        FROM info CROSS JOIN LATERAL (VALUES (1, 'read', read), (2, 'inserted', inserted), (3, 'updated', updated),
               (4, 'unchanged', unchanged), (5, 'skipped', skipped), (6, 'conflicted', conflicted), (7, 'parked', parked),
               (8, 'invalid', invalid), (9, 'failed', failed), (10, 'deleted', deleted)) AS k (position, name, count)
       WHERE k.count > 0 OR k.name IN ('read', 'inserted')
      UNION ALL
      SELECT 2, 11, m.position::integer, CASE WHEN m.position <= 5 THEN format('  part %s, %s, was not read: %s', m.part, m.name, m.skipped)
               ELSE format('  and %s more parts were not read', m.total - 5) END
        FROM (SELECT p.*, row_number() OVER (ORDER BY p.part) AS position, count(*) OVER () AS total
                FROM portage.migration_parts p WHERE p.run_id = $1 AND p.skipped IS NOT NULL) m
       WHERE m.position <= 6 AND EXISTS (SELECT FROM info)
      UNION ALL
      SELECT 3, 0, 0, format('  %s s, %s items/s', seconds, to_char(items_per_second, 'FM999,999,999,990'))
        FROM info WHERE read > 0 AND seconds IS NOT NULL AND status <> 'rolled_back' -- then it is the rollback that ended
      UNION ALL
      SELECT 3, 0, 1, format('  dates that can be read in two ways: %s; they were read as %s, as "datestyle" would say',
                             to_char(d.count, 'FM999,999,999,990'), pg_catalog.substr(v.settings ->> 'datestyle', 6))
        FROM portage.migration_runs r
        JOIN portage.pipeline_versions v ON v.pipeline_id = r.pipeline_id AND v.version = r.pipeline_version
       CROSS JOIN (SELECT sum(m.ambiguous_dates)::bigint AS count FROM portage.migration_batches m WHERE m.run_id = $1) d
       WHERE r.id = $1 AND d.count > 0 AND EXISTS (SELECT FROM info WHERE status <> 'rolled_back')
      UNION ALL
      SELECT 3, 1, 0, CASE WHEN r.verified THEN '  verified' ELSE '  NOT VERIFIED: SELECT * FROM portage.data_integrity_checks WHERE run_id = ' || $1 || ' AND NOT passed;' END
        FROM portage.migration_runs r WHERE r.id = $1 AND r.verified IS NOT NULL AND EXISTS (SELECT FROM info)
      UNION ALL
      SELECT 3, t.position, 0, t.line
        FROM (SELECT (c.expected::bigint - c.actual::bigint) AS gone FROM portage.data_integrity_checks c
               WHERE c.run_id = $1 AND c.name = 'unchanged_rows' AND NOT c.passed ORDER BY c.checked_at DESC LIMIT 1) c
       CROSS JOIN LATERAL (VALUES
               (2, format('  unchanged items whose row is gone from the target: %s;', to_char(c.gone, 'FM999,999,999,990'))),
               (3, '  an import with {"incremental": false} brings these rows back')) AS t (position, line)
       WHERE EXISTS (SELECT FROM info)
      UNION ALL
      SELECT 4, 0, 0, '  rejects, by kind, with the first of each:' FROM info WHERE EXISTS (SELECT FROM kinds)
      UNION ALL
      SELECT 5, k.position, t.part, t.line
        FROM wrapped k CROSS JOIN LATERAL (
          SELECT 1, format('  %s  %s  %s  %s', lpad(to_char(k.count, 'FM999,999,990'), 9), k.sqlstate, rpad(k.name, 34),
                           CASE WHEN k.part > 1 THEN 'part ' || k.part || ', ' ELSE '' END || 'line ' || k.line)
          UNION ALL
          SELECT 1 + m.number, repeat(' ', 13) || m.line
            FROM pg_catalog.string_to_table(rtrim(k.lines, E'\n'), E'\n') WITH ORDINALITY AS m (line, number)
        ) AS t (part, line)
      UNION ALL
      SELECT 6, 0, 0, format('  and %s more kinds', count(*) - 10) FROM kinds HAVING count(*) > 10
      UNION ALL
      SELECT 7, e.position, 0, CASE WHEN e.position = 1 THEN '  error: ' ELSE '         ' END || e.line
        FROM info CROSS JOIN LATERAL pg_catalog.string_to_table(errors -> 0 ->> 'message', E'\n')
             WITH ORDINALITY AS e (line, position)
      UNION ALL
      SELECT 8, 0, 0, '  ' || hold_reason FROM info WHERE hold_reason IS NOT NULL
      UNION ALL
      SELECT 9, 0, 0, format('  SELECT * FROM portage.rejects WHERE run_id = %s;', $1) FROM info WHERE EXISTS (SELECT FROM kinds)
    ) lines ORDER BY section, position, part;
  END;
COMMENT ON FUNCTION portage.summary(bigint) IS 'the result of a run for people, a line per row';
