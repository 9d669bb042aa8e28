-- Who works at this moment on what.

CREATE FUNCTION portage.owner_alive(pid integer, started_at timestamptz, statement_at timestamptz, lease timestamptz) RETURNS boolean
  LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  BEGIN ATOMIC
    -- A process id alone may have been given to somebody else since: when the process began decides. A ledger that was
    -- restored beside the one that it was dumped from must not believe in the other's workers. And the owner is a statement
    -- rather than a session: one that was cancelled may have left no word of it. Where track_activities is off, nobody knows
    -- of statements.
    SELECT coalesce($4 > pg_catalog.clock_timestamp(), true) AND EXISTS (
      SELECT FROM pg_catalog.pg_stat_get_activity($1) a
       WHERE $1 IS NOT NULL AND a.backend_start = $2
         AND a.datid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
         AND (a.query_start IS NULL OR $3 IS NULL
              OR (a.query_start = $3 AND a.state IN ('active', 'fastpath function call'))));
  END;
COMMENT ON FUNCTION portage.owner_alive(integer, timestamptz, timestamptz, timestamptz) IS
  'true if the process that began at that time is there, at the statement that began at that time (null: any), and its lease (null: none) has not run out';

CREATE FUNCTION portage.run_owner_alive(run portage.migration_runs) RETURNS boolean
  LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  BEGIN ATOMIC
    -- What takes longer than a lease is a transaction that holds the lock.
    SELECT portage.owner_alive((run).owner_pid, (run).owner_started_at, (run).owner_statement_at, NULL)
       AND CASE WHEN (run).owner_lease > pg_catalog.clock_timestamp() THEN true
                ELSE EXISTS (SELECT FROM pg_catalog.pg_locks l
                              WHERE l.pid = (run).owner_pid AND l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
                                AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d
                                                   WHERE d.datname = pg_catalog.current_database())
                                AND l.classid = ((run).owner_lock >> 32 & 4294967295)::oid
                                AND l.objid = ((run).owner_lock & 4294967295)::oid) END;
  END;
COMMENT ON FUNCTION portage.run_owner_alive(portage.migration_runs) IS
  'true while somebody works on the run: the statement that took it goes on, and either its lease has not run out or it holds the lock on pipeline and scope';

-- A range counts only while its run has an owner: a session that was interrupted lives on, and works on nothing.
CREATE VIEW portage.locks WITH (security_barrier) AS
  WITH owned AS (
    SELECT r.id AS run_id, r.pipeline_id, r.pipeline_version, r.pipeline, r.scope,
           portage.role_name(r.role_oid, r.role_name) AS role_name, r.owner_pid, r.owner_lease,
           (SELECT max(e.created_at) FROM portage.migration_events e WHERE e.run_id = r.id
               AND e.event_type IN ('migration_started', 'retried', 'resumed', 'rollback_started')) AS acquired_at
      FROM portage.migration_runs r
     WHERE r.status IN ('running', 'verifying', 'rolling_back')
       AND portage.run_visible(r.pipeline_id, r.scope, r.role_oid)
       AND portage.run_owner_alive(r)
  ), held AS (
    SELECT 'pipeline ' || o.pipeline || CASE WHEN o.scope <> '' THEN ', scope ' || o.scope ELSE '' END AS resource,
           o.run_id, o.role_name, o.owner_pid AS pid, NULL::bigint AS epoch, o.acquired_at, o.owner_lease AS expires_at
      FROM owned o
    UNION ALL
    SELECT 'target ' || v.target_schema || '.' || v.target_name, o.run_id, o.role_name, o.owner_pid, NULL, o.acquired_at,
           o.owner_lease
      FROM owned o JOIN portage.pipeline_versions v ON v.pipeline_id = o.pipeline_id AND v.version = o.pipeline_version
     WHERE (v.definition ->> 'exclusive')::boolean
    UNION ALL
    SELECT 'part ' || g.part || ', range ' || g.range_no, o.run_id, o.role_name, g.owner_pid, g.epoch,
           (SELECT min(b.started_at) FROM portage.migration_batches b
             WHERE b.run_id = g.run_id AND b.part = g.part AND b.range_no = g.range_no AND b.epoch = g.epoch),
           g.lease_expires
      FROM owned o JOIN portage.migration_ranges g ON g.run_id = o.run_id
     WHERE NOT g.done AND portage.owner_alive(g.owner_pid, g.owner_started_at, g.owner_statement_at, g.lease_expires)
  )
  SELECT h.resource, h.run_id,
         pg_catalog.jsonb_build_object(
           'worker', (SELECT a.backend_type FROM pg_catalog.pg_stat_get_activity(h.pid) a), 'pid', h.pid, 'role', h.role_name)
           AS holder,
         h.epoch, h.acquired_at, h.expires_at,
         ARRAY(SELECT DISTINCT w.pid FROM pg_catalog.pg_locks w
                WHERE NOT w.granted AND h.pid = ANY (pg_catalog.pg_blocking_pids(w.pid)) ORDER BY w.pid) AS waiting
    FROM held h;
COMMENT ON VIEW portage.locks IS
  'what the runs that the caller may see hold at this moment: who works on a run or range, since when, and which sessions wait for that process';
GRANT SELECT ON portage.locks TO PUBLIC;
