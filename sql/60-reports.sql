-- What became of a run, and of a pipeline's runs: for people, for programs, and for whoever decides what comes next.

CREATE VIEW portage.migration_steps WITH (security_barrier) AS
  WITH marks AS (
    -- A step begins with one event and ends with the next that begins or ends one.
    SELECT e.run_id, e.seq, e.event_type, e.created_at,
           CASE WHEN e.event_type IN ('migration_started', 'resumed', 'retried') THEN coalesce(e.details ->> 'step', 'importing')
                WHEN e.event_type = 'stage_changed' THEN e.details ->> 'step'
                WHEN e.event_type = 'rollback_started' THEN 'rolling_back' END AS step,
           lead(e.event_type) OVER w AS next_type, lead(e.details ->> 'step') OVER w AS next_step, lead(e.created_at) OVER w AS next_at
      FROM portage.migration_events e
     WHERE e.event_type IN ('migration_started', 'resumed', 'retried', 'stage_changed', 'paused', 'cancelled', 'migration_completed',
                            'migration_failed', 'rollback_started', 'rollback_completed', 'rollback_incomplete')
    WINDOW w AS (PARTITION BY e.run_id ORDER BY e.seq)
  ), steps AS (
    SELECT m.run_id, m.seq, m.step, m.created_at AS started_at, m.next_at AS completed_at, m.next_type
      FROM marks m
     WHERE m.step IS NOT NULL
       -- what is validated first has not begun to import
       AND NOT (m.event_type = 'migration_started' AND m.next_type = 'stage_changed' AND m.next_step = 'validating')
    UNION ALL
    -- migrate() that ends well writes a single event: that it did
    SELECT r.id, 0, 'importing', r.started_at, r.completed_at, 'migration_completed'
      FROM portage.migration_runs r
     WHERE r.started_at IS NOT NULL AND NOT EXISTS (SELECT FROM marks m WHERE m.run_id = r.id AND m.event_type = 'migration_started')
  )
  SELECT s.run_id, (row_number() OVER (PARTITION BY s.run_id ORDER BY s.seq))::integer AS step_number, s.step AS description,
         CASE s.next_type WHEN 'migration_failed' THEN 'failed' WHEN 'cancelled' THEN 'cancelled' WHEN 'paused' THEN 'paused'
           ELSE CASE WHEN s.completed_at IS NOT NULL THEN 'completed' WHEN p.is_running THEN 'running' ELSE 'interrupted' END END AS status,
         s.started_at, s.completed_at, b.items,
         CASE WHEN s.next_type = 'migration_failed' THEN p.errors -> 0 ->> 'message' END AS error, b.deleted
    FROM steps s JOIN portage.progress p USING (run_id)
   CROSS JOIN LATERAL (SELECT CASE s.step WHEN 'importing' THEN sum(m.read) WHEN 'rolling_back' THEN sum(m.rolled_back) END::bigint AS items,
                             nullif(sum(m.deleted) FILTER (WHERE m.kind = 'missing'), 0)::bigint AS deleted
                         FROM portage.migration_batches m
                        WHERE m.run_id = s.run_id AND m.finished_at BETWEEN s.started_at AND coalesce(s.completed_at, 'infinity')) b;
COMMENT ON VIEW portage.migration_steps IS 'the steps of a run in their order: what began when, how it ended, and how many items it took';
GRANT SELECT ON portage.migration_steps TO PUBLIC;

CREATE VIEW portage.history WITH (security_barrier) AS
  SELECT p.run_id, p.pipeline, p.scope, r.name, p.status, p.dry_run, p.read, p.inserted, p.updated, p.unchanged, p.skipped,
         p.invalid + p.failed AS rejected, r.verified, p.started_at, p.completed_at,
         date_trunc('milliseconds', p.completed_at - p.started_at) AS duration, p.items_per_second, r.requested_by,
         p.errors -> 0 ->> 'message' AS error
    FROM portage.progress p JOIN portage.migration_runs r ON r.id = p.run_id
   WHERE p.status IN ('completed', 'failed', 'cancelled', 'rolled_back', 'awaiting_resolution');
COMMENT ON VIEW portage.history IS 'the runs that have ended: when, with what result, by whom';
GRANT SELECT ON portage.history TO PUBLIC;

CREATE VIEW portage.statistics WITH (security_barrier) AS
  SELECT p.name AS pipeline, portage.role_name(p.owner, p.owner_name) AS owner, p.current_version AS version, coalesce(r.runs, '{}') AS runs, r.items, r.success_rate, r.error_rate,
         t.items_per_second, t.p50_batch_ms, t.p95_batch_ms, m.mapped, coalesce(r.open_conflicts, 0) AS open_conflicts,
         coalesce(r.open_rejects, 0) AS open_rejects, r.last_run, r.last_run_at,
         (s.bytes * r.items / nullif(s.items, 0))::bigint AS ledger_bytes
    FROM portage.pipelines p
   CROSS JOIN LATERAL (
     SELECT jsonb_object_agg(k.status, k.count) AS runs, sum(k.read)::bigint AS items,
            round(sum(k.landed)::numeric / nullif(sum(k.read), 0), 4) AS success_rate,
            round(sum(k.rejected)::numeric / nullif(sum(k.read), 0), 4) AS error_rate,
            sum(k.open_conflicts)::bigint AS open_conflicts, sum(k.open_rejects)::bigint AS open_rejects,
            max(k.last_run) AS last_run, max(k.last_run_at) AS last_run_at
       FROM (SELECT g.status, count(*) AS count, sum(g.read) AS read, sum(g.inserted + g.updated + g.unchanged) AS landed,
                    sum(g.invalid + g.failed) AS rejected, sum(g.open_conflicts) AS open_conflicts, sum(g.open_rejects) FILTER (WHERE g.status <> 'rolled_back') AS open_rejects,
                    max(g.id) AS last_run, max(g.started_at) AS last_run_at
               FROM portage.migration_runs g WHERE g.pipeline_id = p.id AND NOT g.dry_run AND portage.in_scope(g.scope) GROUP BY g.status) k) r
   CROSS JOIN LATERAL (
     SELECT round((sum(b.read) / nullif(sum(extract(epoch FROM b.finished_at - b.started_at)), 0))::numeric, 0) AS items_per_second,
            round((percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM b.finished_at - b.started_at) * 1000))::numeric, 1) AS p50_batch_ms,
            round((percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM b.finished_at - b.started_at) * 1000))::numeric, 1) AS p95_batch_ms
       FROM portage.migration_batches b JOIN portage.migration_runs g ON g.id = b.run_id
      WHERE g.pipeline_id = p.id AND b.kind = 'import' AND NOT g.dry_run AND portage.in_scope(g.scope)) t
   CROSS JOIN LATERAL (SELECT (SELECT count(*) FROM portage.mapping_rows l WHERE l.pipeline_id = p.id AND portage.in_scope(l.scope)) +
                             (SELECT coalesce(sum(l.entries), 0)::bigint FROM portage.mapping_packs l WHERE l.pipeline_id = p.id AND portage.in_scope(l.scope)) AS mapped) m
   CROSS JOIN (SELECT pg_total_relation_size('portage.item_rows') + pg_total_relation_size('portage.item_packs') +
                      pg_total_relation_size('portage.mapping_rows') + pg_total_relation_size('portage.mapping_packs') +
                      pg_total_relation_size('portage.migration_undo') + pg_total_relation_size('portage.migration_payloads') +
                      pg_total_relation_size('portage.row_moves') + pg_total_relation_size('portage.missing_rows') + pg_total_relation_size('portage.predictions') AS bytes,
                      (SELECT sum(b.read) FROM portage.migration_batches b) AS items) s
   WHERE portage.pipeline_readable(p.id) OR portage.is_admin();
COMMENT ON VIEW portage.statistics IS
  'a pipeline''s runs taken together (dry runs apart): results, speed, what is mapped, what is open; ledger_bytes is its share by items';
GRANT SELECT ON portage.statistics TO PUBLIC;

CREATE FUNCTION portage.recommendations(run bigint, OUT code text, OUT text text, OUT sql text) RETURNS SETOF record
  LANGUAGE sql VOLATILE
  BEGIN ATOMIC
    SELECT n.code, n.text, n.sql
      FROM portage.progress p JOIN portage.migration_runs r ON r.id = p.run_id
     CROSS JOIN LATERAL (SELECT count(*) FILTER (WHERE j.status <> 'skipped') AS rejects,
                                count(*) FILTER (WHERE j.rule = 'conflict') AS conflicts,
                                count(*) FILTER (WHERE j.rule = 'privilege') AS privileges
                           FROM portage.rejects j WHERE j.run_id = p.run_id) j
     CROSS JOIN LATERAL (SELECT sum(m.deleted)::bigint FROM portage.migration_batches m WHERE m.run_id = p.run_id AND m.kind = 'missing') AS d (deleted)
     CROSS JOIN LATERAL (SELECT sum(m.ambiguous_dates)::bigint FROM portage.migration_batches m WHERE m.run_id = p.run_id AND p.status <> 'rolled_back') AS a (count)
      LEFT JOIN LATERAL (SELECT pg_catalog.substr(v.settings ->> 'datestyle', 6) FROM portage.pipeline_versions v
                          WHERE v.pipeline_id = r.pipeline_id AND v.version = r.pipeline_version) AS v (datestyle) ON true
     CROSS JOIN LATERAL (VALUES
       (1, p.status IN ('running', 'verifying') AND NOT p.is_running, 'interrupted', 'nobody works on the run: it can go on where it stopped',
        format('SELECT portage.resume(%s);', p.run_id)),
       (2, p.status = 'rolling_back' AND NOT p.is_running, 'rollback_interrupted', 'nobody works on the rollback: it can go on where it stopped',
        format('SELECT portage.resume(%s);', p.run_id)),
       (3, p.status = 'failed', 'failed', 'the run failed: mend the cause, then let it go on', format('SELECT portage.retry(%s);', p.run_id)),
       (4, p.status = 'paused', 'paused', CASE WHEN r.error IS NULL THEN 'the run is paused: let it go on when it suits'
                                               ELSE 'the target has changed: if the pipeline still fits, let the run go on' END,
        format('SELECT portage.resume(%s);', p.run_id)),
       (5, p.hold_reason LIKE 'indexes of the target are missing%', 'indexes', 'indexes of the target are missing since an initial load',
        format('CALL portage.restore_indexes(%s);', p.run_id)),
       (5, p.dry_run AND p.status = 'completed', 'dry_run', 'nothing was written: import for real',
        format('CALL portage.import(%L, ..., scope => %L);', portage.pipeline_name(r.pipeline_id), p.scope)),
       (6, j.rejects > 0 AND NOT p.dry_run AND p.status IN ('completed', 'failed', 'cancelled'), 'rejects',
        format('items that did not land: %s; mend what is wrong, then replay them', j.rejects), format('CALL portage.replay_run(%s);', p.run_id)),
       (7, j.conflicts > 0, 'conflicts', format('rows that were left as they are, because they differ: %s', j.conflicts),
        format('SELECT * FROM portage.rejects WHERE run_id = %s AND rule = ''conflict'';', p.run_id)),
       (8, j.privileges > 0, 'privileges', format('changed items that the role may not update: %s', j.privileges),
        format('SELECT portage.plan(%s) -> ''recommendations'';', p.run_id)),
       (9, r.verified IS FALSE, 'checks', 'a check did not pass',
        format('SELECT name, expected, actual, details FROM portage.data_integrity_checks WHERE run_id = %s AND NOT passed;', p.run_id)),
       (9, EXISTS (SELECT FROM portage.data_integrity_checks c WHERE c.run_id = p.run_id AND c.name = 'unchanged_rows' AND NOT c.passed),
        'rows_gone', 'unchanged items have no row any more: an import that compares each item with its row brings them back',
        format('CALL portage.import(%L, ..., scope => %L, options => ''{"incremental": false}'');', portage.pipeline_name(r.pipeline_id), p.scope)),
       (9, a.count > 0, 'ambiguous_dates',
        format('dates that can be read in two ways: %s; they were read as %s, since the definition does not say "datestyle"', a.count, v.datestyle),
        format('SELECT settings ->> ''datestyle'' FROM portage.pipeline_versions WHERE pipeline_id = %s AND version = %s;', r.pipeline_id, r.pipeline_version)),
       (10, r.verified IS NULL AND p.status = 'completed' AND NOT p.dry_run, 'verify', 'the run has not been verified',
        format('SELECT * FROM portage.verify(%s);', p.run_id)),
       (11, p.status = 'completed' AND p.inserted >= 10000, 'analyze', 'the planner does not know the new rows yet',
        (SELECT format('ANALYZE %I.%I;', v.target_schema, v.target_name) FROM portage.pipeline_versions v
          WHERE v.pipeline_id = r.pipeline_id AND v.version = r.pipeline_version)),
       (12, p.status IN ('completed', 'failed', 'cancelled') AND NOT p.dry_run AND p.inserted + p.updated + coalesce(d.deleted, 0) > 0, 'rollback', 'the run can be taken back',
        format('CALL portage.rollback(%s);', p.run_id))
       UNION ALL
       -- the last word about each sequence that a batch found behind
       SELECT 9, true, 'sequence', format('sequence %s is behind the values of column %s, since %s: the next number that is drawn may be taken',
                s.details ->> 'sequence', s.details ->> 'column', s.details ->> 'reason'),
              format('SELECT setval(%L, %s(%s, last_value)) FROM %s;', s.details ->> 'sequence',
                     CASE s.details ->> 'reason' WHEN 'it descends' THEN 'least' ELSE 'greatest' END, s.details ->> 'value', s.details ->> 'sequence')
         FROM (SELECT DISTINCT ON (e.details ->> 'sequence') e.event_type, e.details FROM portage.migration_events e
                WHERE e.run_id = p.run_id AND e.event_type IN ('sequence_advanced', 'sequence_behind')
                ORDER BY e.details ->> 'sequence', e.seq DESC) s
        WHERE s.event_type = 'sequence_behind') AS n (position, holds, code, text, sql)
     WHERE p.run_id = $1 AND n.holds AND n.sql IS NOT NULL
     ORDER BY n.position;
  END;
COMMENT ON FUNCTION portage.recommendations(bigint) IS 'what to do next with a run: a code, why, and the statement';

CREATE FUNCTION portage.report(run bigint DEFAULT NULL) RETURNS jsonb
  LANGUAGE sql VOLATILE
  BEGIN ATOMIC
    SELECT jsonb_build_object(
      'run', p.run_id, 'pipeline', p.pipeline, 'pipeline_version', r.pipeline_version, 'scope', p.scope, 'name', r.name,
      'metadata', r.metadata, 'options', r.options, 'requested_by', r.requested_by, 'role', portage.role_name(r.role_oid, r.role_name),
      'writer', CASE WHEN r.writer IS NOT NULL THEN jsonb_build_object('name', r.writer, 'reason', r.writer_reason) END,
      'indexes', (SELECT jsonb_agg(jsonb_build_object('name', x.index_name, 'stays', x.stays, 'restored_at', x.restored_at) ORDER BY x.position)
                    FROM portage.deferred_indexes x WHERE x.run_id = p.run_id),
      'result', jsonb_build_object('status', p.status, 'dry_run', p.dry_run, 'verified', r.verified, 'error', r.error, 'error_code', r.error_code,
        'started_at', p.started_at, 'completed_at', p.completed_at,
        'seconds', round(extract(epoch FROM coalesce(p.completed_at, clock_timestamp()) - p.started_at), 3),
        'items_per_second', p.items_per_second, 'success_rate', p.success_rate,
        'counts', jsonb_build_object('read', p.read, 'inserted', p.inserted, 'updated', p.updated, 'unchanged', p.unchanged,
          'skipped', p.skipped, 'conflicted', p.conflicted, 'parked', p.parked, 'invalid', p.invalid, 'failed', p.failed)
          || CASE WHEN d.deleted > 0 THEN jsonb_build_object('deleted', d.deleted) ELSE '{}' END,
        'open', jsonb_build_object('rejects', p.open_rejects, 'conflicts', p.open_conflicts, 'parked', p.open_parked)),
      'parts', (SELECT coalesce(jsonb_agg(jsonb_build_object('part', m.part, 'kind', m.kind, 'name', m.name, 'bytes', m.byte_length,
                         'sha256', encode(m.sha256, 'hex'), 'skipped', m.skipped) ORDER BY m.part), '[]')
                  FROM portage.migration_parts m WHERE m.run_id = p.run_id AND m.part <= 1000),
      'steps', (SELECT coalesce(jsonb_agg(to_jsonb(s) - 'run_id' - CASE WHEN s.deleted IS NULL THEN 'deleted' ELSE '' END ORDER BY s.step_number), '[]')
                  FROM portage.migration_steps s WHERE s.run_id = p.run_id),
      'rejects', (SELECT coalesce(jsonb_agg(jsonb_build_object('class', k.error_class, 'rule', k.rule, 'sqlstate', k.sqlstate,
                           'column', k.column_name, 'count', k.count, 'example', jsonb_build_object('ordinal', j.ordinal, 'part', j.part,
                           'line', j.line, 'message', j.message, 'raw', left(j.raw, 200))) ORDER BY k.count DESC, k.ordinal), '[]')
                    FROM (SELECT j.error_class, j.rule, j.sqlstate, j.column_name, count(*) AS count, min(j.ordinal) AS ordinal
                            FROM portage.rejects j WHERE j.run_id = p.run_id GROUP BY 1, 2, 3, 4) k
                    JOIN portage.rejects j ON j.run_id = p.run_id AND j.ordinal = k.ordinal),
      'checks', (SELECT coalesce(jsonb_agg(jsonb_build_object('name', c.name, 'severity', c.severity, 'expected', c.expected,
                          'actual', c.actual, 'passed', c.passed, 'details', c.details) ORDER BY c.name), '[]')
                   FROM portage.data_integrity_checks c WHERE c.run_id = p.run_id AND c.checked_at =
                        (SELECT max(d.checked_at) FROM portage.data_integrity_checks d WHERE d.run_id = p.run_id)),
      'undo', jsonb_build_object('rows', CASE WHEN p.dry_run THEN 0 ELSE p.inserted + p.updated + coalesce(d.deleted, 0) END,
        'rolled_back', (SELECT coalesce(sum(b.rolled_back), 0) FROM portage.migration_batches b WHERE b.run_id = p.run_id)),
      'resources', (SELECT jsonb_build_object('batches', count(*), 'wal_bytes', sum(b.wal_bytes), 'peak_memory_bytes', max(b.memory_bytes),
                             'source_bytes', sum(b.bytes), 'milliseconds', (
                               SELECT jsonb_object_agg(t.phase, t.ms) FROM (
                                 SELECT t.key AS phase, round(sum(t.value::numeric), 1) AS ms FROM portage.migration_batches c
                                  CROSS JOIN LATERAL jsonb_each_text(c.timings) AS t WHERE c.run_id = p.run_id GROUP BY t.key) t))
                      FROM portage.migration_batches b WHERE b.run_id = p.run_id AND b.kind = 'import'),
      'recommendations', (SELECT coalesce(jsonb_agg(to_jsonb(n)), '[]') FROM portage.recommendations(p.run_id) AS n))
      FROM portage.progress p JOIN portage.migration_runs r ON r.id = p.run_id
     CROSS JOIN LATERAL (SELECT sum(m.deleted)::bigint FROM portage.migration_batches m WHERE m.run_id = p.run_id AND m.kind = 'missing') AS d (deleted)
     WHERE p.run_id = coalesce($1, (SELECT max(l.id) FROM portage.migration_runs l
                                    WHERE l.role_oid = (SELECT u.oid FROM pg_catalog.pg_roles u WHERE u.rolname = current_user)));
  END;
COMMENT ON FUNCTION portage.report(bigint) IS
  'the whole story of a run: result, parts, steps, rejects by kind with an example, checks, undo, resources, recommendations';

CREATE FUNCTION portage.report_markdown(run bigint DEFAULT NULL) RETURNS text
  LANGUAGE sql VOLATILE
  BEGIN ATOMIC
    WITH report AS (SELECT portage.report($1) AS j), sections AS (
      SELECT 1 AS section, 0::bigint AS position, format(E'# Run %s of pipeline %s%s\n', j ->> 'run', j ->> 'pipeline',
               CASE WHEN j ->> 'scope' <> '' THEN ' for ' || (j ->> 'scope') ELSE '' END) AS line FROM report
      UNION ALL
      SELECT 2, 0, format(E'%s: %s; asked for by %s, as role %s%s.\n', CASE WHEN (j -> 'result' ->> 'dry_run')::boolean THEN 'A dry run' ELSE 'Result' END,
               replace(j -> 'result' ->> 'status', '_', ' '), j ->> 'requested_by', j ->> 'role',
               CASE j -> 'result' ->> 'verified' WHEN 'true' THEN ', verified' WHEN 'false' THEN ', verification failed' ELSE '' END) FROM report
      UNION ALL
      SELECT 3, 0, '**Error** ' || (j -> 'result' ->> 'error') || E'\n' FROM report WHERE j -> 'result' ->> 'error' IS NOT NULL
      UNION ALL
      SELECT 4, 0, E'| outcome | items |\n|---|---:|' FROM report
      UNION ALL
      SELECT 4, c.position, format('| %s | %s |', c.name, to_char((j -> 'result' -> 'counts' ->> c.name)::bigint, 'FM999,999,999,990'))
        FROM report CROSS JOIN LATERAL unnest(ARRAY['read', 'inserted', 'updated', 'unchanged', 'skipped', 'conflicted', 'parked',
               'invalid', 'failed', 'deleted']) WITH ORDINALITY AS c (name, position)
       WHERE (j -> 'result' -> 'counts' ->> c.name)::bigint > 0 OR c.name = 'read'
      UNION ALL
      SELECT 5, 0, E'\n## Steps\n\n| | step | status | seconds | items |\n|---:|---|---|---:|---:|' FROM report
       WHERE j -> 'steps' <> '[]'
      UNION ALL
      SELECT 5, (s ->> 'step_number')::bigint, format('| %s | %s | %s | %s | %s |', s ->> 'step_number', s ->> 'description', s ->> 'status',
               round(extract(epoch FROM (s ->> 'completed_at')::timestamptz - (s ->> 'started_at')::timestamptz), 1), s ->> 'items')
        FROM report CROSS JOIN LATERAL jsonb_array_elements(j -> 'steps') AS s
      UNION ALL
      SELECT 6, 0, E'\n## Rejects\n\n| items | class | rule | SQLSTATE | column | first | message |\n|---:|---|---|---|---|---|---|' FROM report
       WHERE j -> 'rejects' <> '[]'
      UNION ALL
      SELECT 6, r.position, format('| %s | %s | %s | %s | %s | part %s, line %s | %s |', r.kind ->> 'count', r.kind ->> 'class', r.kind ->> 'rule',
               r.kind ->> 'sqlstate', r.kind ->> 'column', r.kind -> 'example' ->> 'part', r.kind -> 'example' ->> 'line',
               regexp_replace(replace(r.kind -> 'example' ->> 'message', '|', '\|'), '\s+', ' ', 'g'))
        FROM report CROSS JOIN LATERAL jsonb_array_elements(j -> 'rejects') WITH ORDINALITY AS r (kind, position)
      UNION ALL
      SELECT 7, 0, E'\n## Checks\n\n| check | severity | expected | actual | |\n|---|---|---|---|---|' FROM report WHERE j -> 'checks' <> '[]'
      UNION ALL
      SELECT 7, c.position, format('| %s | %s | %s | %s | %s |', c.made ->> 'name', c.made ->> 'severity', c.made ->> 'expected',
               c.made ->> 'actual', CASE c.made ->> 'passed' WHEN 'true' THEN 'passed' ELSE '**not passed**' END)
        FROM report CROSS JOIN LATERAL jsonb_array_elements(j -> 'checks') WITH ORDINALITY AS c (made, position)
      UNION ALL
      SELECT 8, 0, format(E'\n## Resources\n\n%s batches, %s items/s, %s WAL, peak memory %s; writer %s, since %s. Milliseconds: %s.', j -> 'resources' ->> 'batches',
               to_char((j -> 'result' ->> 'items_per_second')::numeric, 'FM999,999,990'),
               pg_size_pretty((j -> 'resources' ->> 'wal_bytes')::bigint), pg_size_pretty((j -> 'resources' ->> 'peak_memory_bytes')::bigint),
               j -> 'writer' ->> 'name', j -> 'writer' ->> 'reason',
               (SELECT string_agg(m.key || ' ' || round(m.value::numeric), ', ' ORDER BY m.value::numeric DESC)
                  FROM jsonb_each_text(j -> 'resources' -> 'milliseconds') AS m))
        FROM report WHERE (j -> 'resources' ->> 'batches')::bigint > 0
      UNION ALL
      SELECT 9, 0, E'\n## Next\n' FROM report WHERE j -> 'recommendations' <> '[]'
      UNION ALL
      SELECT 9, n.position, format('- %s: `%s`', n.next ->> 'text', n.next ->> 'sql')
        FROM report CROSS JOIN LATERAL jsonb_array_elements(j -> 'recommendations') WITH ORDINALITY AS n (next, position)
    )
    SELECT string_agg(s.line, E'\n' ORDER BY s.section, s.position) || E'\n' FROM sections s WHERE EXISTS (SELECT FROM report WHERE j IS NOT NULL);
  END;
COMMENT ON FUNCTION portage.report_markdown(bigint) IS 'the report as Markdown, to be filed or mailed';

CREATE FUNCTION portage.progress_data(run bigint) RETURNS jsonb
  LANGUAGE sql VOLATILE
  BEGIN ATOMIC
    SELECT to_jsonb(p) || jsonb_build_object('seq', (SELECT coalesce(max(e.seq), 0) FROM portage.migration_events e WHERE e.run_id = p.run_id),
             'seconds_remaining', extract(epoch FROM p.estimated_time_remaining),
             'steps', (SELECT coalesce(jsonb_agg(jsonb_build_object('description', s.description, 'status', s.status) ORDER BY s.step_number), '[]')
                         FROM portage.migration_steps s WHERE s.run_id = p.run_id))
      FROM portage.progress p WHERE p.run_id = $1;
  END;
COMMENT ON FUNCTION portage.progress_data(bigint) IS
  'the row of view progress as JSON, with the number of the latest event, the seconds that remain, and the steps';
