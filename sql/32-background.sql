-- Background workers and the operator's control over runs; see extension/run/background.cpp and control.cpp.

CREATE FUNCTION portage.start(run bigint DEFAULT NULL) RETURNS void
  AS 'MODULE_PATHNAME', 'portage_start' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.start(bigint) IS
  'has a background worker work the run off, as the run''s role; the session may go. It begins when the transaction commits';

CREATE PROCEDURE portage.wait(run bigint DEFAULT NULL, timeout interval DEFAULT NULL, INOUT status text DEFAULT NULL)
  AS 'MODULE_PATHNAME', 'portage_wait' LANGUAGE C;
COMMENT ON PROCEDURE portage.wait(bigint, interval, text) IS
  'waits until nobody works on the run any more, or for so long; gives its status. Holds no transaction open meanwhile';

CREATE FUNCTION portage.pause(run bigint) RETURNS void
  AS 'MODULE_PATHNAME', 'portage_pause' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.pause(bigint) IS
  'stops a run after the batch in hand until resume(); what was committed stays, what the run holds is let go';

CREATE FUNCTION portage.resume(run bigint) RETURNS void
  AS 'MODULE_PATHNAME', 'portage_resume' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.resume(bigint) IS 'has a background worker go on with a paused or interrupted run';

CREATE FUNCTION portage.retry(run bigint) RETURNS void
  AS 'MODULE_PATHNAME', 'portage_retry' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.retry(bigint) IS 'has a background worker go on with a failed run from where it stopped';

CREATE FUNCTION portage.cancel(run bigint) RETURNS void
  AS 'MODULE_PATHNAME', 'portage_cancel' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.cancel(bigint) IS
  'ends a run: at once if nobody works on it, else after the batch in hand; what was committed stays';

CREATE PROCEDURE portage.tick()
  AS 'MODULE_PATHNAME', 'portage_tick' LANGUAGE C;
COMMENT ON PROCEDURE portage.tick() IS
  'the heartbeat: begins what is due on the caller''s schedules, moves its groups on, asks for background workers for its runs that wait for one, or whose worker or server went away, and drops what "retain" lets go';

CREATE PROCEDURE portage.work(run bigint)
  AS 'MODULE_PATHNAME', 'portage_work' LANGUAGE C;
COMMENT ON PROCEDURE portage.work(bigint) IS
  'joins the workers of a run that is being imported by several; returns when nothing is left for it to do';

CREATE PROCEDURE portage.run_in_background(run bigint)
  AS 'MODULE_PATHNAME', 'portage_run_in_background' LANGUAGE C;
COMMENT ON PROCEDURE portage.run_in_background(bigint) IS
  'what a background worker does: works the run off if it still waits for that, and puts down why if it cannot';

CREATE FUNCTION portage.next_waiting_run() RETURNS bigint
  AS 'MODULE_PATHNAME', 'portage_next_waiting_run' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.next_waiting_run() IS
  'takes the next run of the current role that waits for a background worker of this session user; null: there is none';
