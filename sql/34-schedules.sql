-- Schedules: when a pipeline's source is to be imported; see extension/schedule/. The heartbeat is tick() (32-background.sql).

CREATE TABLE portage.schedule_rows (
  id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  pipeline_id     bigint NOT NULL,
  scope           text NOT NULL COLLATE "C",
  cron            text NOT NULL,
  timezone        text NOT NULL,
  options         jsonb NOT NULL,
  role_oid        oid NOT NULL,
  role_name       name NOT NULL,
  session_role_oid oid NOT NULL,
  session_role    name NOT NULL,
  created_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  next_due_at     timestamptz,
  next_run_at     timestamptz,
  last_due_at     timestamptz,
  begun_at        timestamptz,
  cancel_at       timestamptz,
  last_run        bigint,
  settled         boolean NOT NULL DEFAULT true,
  attempts        integer NOT NULL DEFAULT 0,
  retry_at        timestamptz,
  skipped_running bigint NOT NULL DEFAULT 0,
  skipped_missed  bigint NOT NULL DEFAULT 0,
  skipped_late    bigint NOT NULL DEFAULT 0,
  last_error      text,
  CONSTRAINT schedule_rows_key UNIQUE (pipeline_id, scope)
);
COMMENT ON TABLE portage.schedule_rows IS 'when a pipeline''s source is imported for a scope; read it through schedules';
COMMENT ON COLUMN portage.schedule_rows.timezone IS 'in which the cron expression and the blackout windows are meant';
COMMENT ON COLUMN portage.schedule_rows.options IS 'as given to schedule()';
COMMENT ON COLUMN portage.schedule_rows.role_oid IS 'the role of its runs';
COMMENT ON COLUMN portage.schedule_rows.role_name IS 'what the role was called when it scheduled them';
COMMENT ON COLUMN portage.schedule_rows.session_role_oid IS 'as whom background workers connect for them';
COMMENT ON COLUMN portage.schedule_rows.next_due_at IS 'the next time that the expression means';
COMMENT ON COLUMN portage.schedule_rows.next_run_at IS 'when that is begun: later than next_due_at by a blackout window';
COMMENT ON COLUMN portage.schedule_rows.begun_at IS 'when, by the clock of tick(), the last due time was begun';
COMMENT ON COLUMN portage.schedule_rows.cancel_at IS 'when the deadline of the last due time has passed';
COMMENT ON COLUMN portage.schedule_rows.last_run IS 'the run of the last due time; null: it could not be started';
COMMENT ON COLUMN portage.schedule_rows.settled IS 'nothing is to be done any more about the last due time';
COMMENT ON COLUMN portage.schedule_rows.attempts IS 'how often the last due time was tried again';
SELECT pg_catalog.pg_extension_config_dump('portage.schedule_rows', '');
SELECT pg_catalog.pg_extension_config_dump('portage.schedule_rows_id_seq', '');
ALTER TABLE portage.schedule_rows ENABLE ROW LEVEL SECURITY;

CREATE VIEW portage.schedules WITH (security_barrier) AS
  SELECT p.name AS pipeline, portage.role_name(p.owner, p.owner_name) AS pipeline_owner, s.scope, s.cron, s.timezone, s.options,
         portage.role_name(s.role_oid, s.role_name) AS owner, s.next_run_at, s.next_due_at,
         s.last_due_at, s.last_run, r.status AS last_status, s.attempts, s.retry_at,
         coalesce(s.last_error, r.error) AS last_error, s.skipped_running,
         s.skipped_missed, s.skipped_late, s.created_at
    FROM portage.schedule_rows s JOIN portage.pipelines p ON p.id = s.pipeline_id
    LEFT JOIN portage.migration_runs r ON r.id = s.last_run
   WHERE portage.run_visible(s.pipeline_id, s.scope, s.role_oid);
COMMENT ON VIEW portage.schedules IS
  'the schedules that the caller may see: when each runs next, what became of its last due time, and how many were passed over';
GRANT SELECT ON portage.schedules TO PUBLIC;

CREATE FUNCTION portage.schedule(pipeline text, cron text, options jsonb DEFAULT '{}') RETURNS bigint
  AS 'MODULE_PATHNAME', 'portage_schedule' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.schedule(text, text, jsonb) IS
  'has the pipeline''s source imported whenever a cron expression says so, as the current role; replaces the schedule that it has for the scope; returns its id';

CREATE FUNCTION portage.unschedule(pipeline text, scope text DEFAULT '') RETURNS bigint
  AS 'MODULE_PATHNAME', 'portage_unschedule' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.unschedule(text, text) IS
  'ends the schedule of a pipeline and scope; a run that is under way goes on; returns the id that it had';

CREATE FUNCTION portage.next_due(cron text, after timestamptz DEFAULT now(), timezone text DEFAULT current_setting('timezone'))
  RETURNS timestamptz
  AS 'MODULE_PATHNAME', 'portage_next_due' LANGUAGE C STRICT STABLE PARALLEL SAFE;
COMMENT ON FUNCTION portage.next_due(text, timestamptz, text) IS
  'the first time after a moment that a cron expression means in a time zone';

CREATE PROCEDURE portage.tick(now timestamptz)
  AS 'MODULE_PATHNAME', 'portage_tick' LANGUAGE C;
COMMENT ON PROCEDURE portage.tick(timestamptz) IS 'what tick() does when its clock shows that time: for tests';
REVOKE EXECUTE ON PROCEDURE portage.tick(timestamptz) FROM PUBLIC;
