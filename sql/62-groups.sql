-- Groups: runs of several pipelines, in the order that their references and "after" ask for; see extension/group/.

CREATE TABLE portage.run_groups (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  status       text NOT NULL DEFAULT 'running' CONSTRAINT group_status CHECK (status IN
                 ('running', 'completed', 'failed', 'cancelled', 'rolling_back', 'rolled_back')),
  scope        text NOT NULL COLLATE "C",
  workers      integer NOT NULL,
  background   boolean NOT NULL,
  options      jsonb NOT NULL,
  role_oid     oid NOT NULL,
  role_name    name NOT NULL,
  requested_by text NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  completed_at timestamptz,
  error        text
);
COMMENT ON TABLE portage.run_groups IS 'runs of several pipelines that were opened together';
COMMENT ON COLUMN portage.run_groups.status IS 'running until nothing is left to do for any member; failed: not all have completed';
COMMENT ON COLUMN portage.run_groups.workers IS 'how many members are worked on at a time';
COMMENT ON COLUMN portage.run_groups.background IS 'background workers do it; else work_group()';
COMMENT ON COLUMN portage.run_groups.options IS 'of each of its runs';
COMMENT ON COLUMN portage.run_groups.role_oid IS 'the role of its runs';
COMMENT ON COLUMN portage.run_groups.role_name IS 'what the role was called when it opened them';
COMMENT ON COLUMN portage.run_groups.error IS 'why parked items could not be settled at its end; what a member failed with is in its run';

CREATE TABLE portage.group_members (
  group_id  bigint NOT NULL,
  run_id    bigint NOT NULL,
  level     integer NOT NULL,
  waits_for bigint[] NOT NULL,
  again     boolean NOT NULL DEFAULT false,
  reason    text,
  PRIMARY KEY (group_id, run_id)
);
COMMENT ON TABLE portage.group_members IS 'a run of a group, and its place in it; read it through group_status()';
COMMENT ON COLUMN portage.group_members.level IS 'from 0; members of a level do not wait for each other';
COMMENT ON COLUMN portage.group_members.waits_for IS 'the runs that must have completed first';
COMMENT ON COLUMN portage.group_members.again IS 'the run has failed, and is to be tried again in its turn';
COMMENT ON COLUMN portage.group_members.reason IS 'why the run is skipped: what it waits for will not come';

SELECT pg_catalog.pg_extension_config_dump('portage.run_groups', '');
SELECT pg_catalog.pg_extension_config_dump('portage.run_groups_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('portage.group_members', '');

ALTER TABLE portage.run_groups ENABLE ROW LEVEL SECURITY;
ALTER TABLE portage.group_members ENABLE ROW LEVEL SECURITY;
CREATE POLICY groups_of_runs ON portage.run_groups FOR SELECT
  USING (EXISTS (SELECT FROM portage.migration_runs r WHERE r.group_id = run_groups.id));
CREATE POLICY members_of_runs ON portage.group_members FOR SELECT
  USING (EXISTS (SELECT FROM portage.migration_runs r WHERE r.id = group_members.run_id));
GRANT SELECT ON portage.run_groups, portage.group_members TO PUBLIC;

CREATE FUNCTION portage.plan_group(pipelines text[], scope text DEFAULT '') RETURNS jsonb
  AS 'MODULE_PATHNAME', 'portage_plan_group' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.plan_group(text[], text) IS
  'what a group of pipelines would meet: their order, blockers with the GRANT or DDL that removes them, what each would read, an estimate';

CREATE FUNCTION portage.run_group(pipelines text[], options jsonb DEFAULT '{}') RETURNS bigint
  AS 'MODULE_PATHNAME', 'portage_run_group' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.run_group(text[], jsonb) IS
  'opens a run of each pipeline on its own source, and has background workers work them off in their order; returns the group';

CREATE PROCEDURE portage.work_group("group" bigint, INOUT status text DEFAULT NULL)
  AS 'MODULE_PATHNAME', 'portage_work_group' LANGUAGE C;
COMMENT ON PROCEDURE portage.work_group(bigint, text) IS
  'works a group off in this session, one member after the other; called again it goes on, and tries again what has failed';

CREATE PROCEDURE portage.wait_group("group" bigint, timeout interval DEFAULT NULL, INOUT status text DEFAULT NULL)
  AS 'MODULE_PATHNAME', 'portage_wait_group' LANGUAGE C;
COMMENT ON PROCEDURE portage.wait_group(bigint, interval, text) IS
  'waits until nothing of the group goes on by itself any more, or for so long; moves it on meanwhile, and gives its status';

CREATE PROCEDURE portage.move_groups_on()
  AS 'MODULE_PATHNAME', 'portage_move_groups_on' LANGUAGE C;
COMMENT ON PROCEDURE portage.move_groups_on() IS
  'what a background worker does when a run has ended: begins the members of the caller''s groups whose turn it is';

CREATE FUNCTION portage.cancel_group("group" bigint) RETURNS void
  AS 'MODULE_PATHNAME', 'portage_cancel_group' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.cancel_group(bigint) IS
  'ends a group, and each of its runs as cancel() does; what was committed stays';

CREATE FUNCTION portage.resume_group("group" bigint) RETURNS void
  AS 'MODULE_PATHNAME', 'portage_resume_group' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.resume_group(bigint) IS
  'has background workers go on with a group: failed members are tried again, skipped ones get their turn, paused ones go on';

CREATE PROCEDURE portage.rollback_group("group" bigint, drifted text DEFAULT 'refuse', cascade boolean DEFAULT false)
  AS 'MODULE_PATHNAME', 'portage_rollback_group' LANGUAGE C;
COMMENT ON PROCEDURE portage.rollback_group(bigint, text, boolean) IS
  'takes the runs of a group back, the last ones first, each as rollback() does; stops at the first that refuses, and goes on from there when called again';

CREATE FUNCTION portage.group_status("group" bigint, OUT group_id bigint, OUT level integer, OUT pipeline text, OUT run_id bigint,
                                     OUT status text, OUT read bigint, OUT inserted bigint, OUT updated bigint, OUT unchanged bigint,
                                     OUT skipped bigint, OUT conflicted bigint, OUT parked bigint, OUT invalid bigint, OUT failed bigint,
                                     OUT reason text) RETURNS SETOF record
  LANGUAGE sql STABLE
  BEGIN ATOMIC
    SELECT m.group_id, m.level, p.pipeline, m.run_id,
           CASE WHEN p.status = 'pending' AND m.reason IS NOT NULL THEN 'skipped' ELSE p.status END,
           p.read, p.inserted, p.updated, p.unchanged, p.skipped, p.conflicted, p.parked, p.invalid, p.failed,
           coalesce(m.reason, r.error)
      FROM portage.group_members m JOIN portage.progress p USING (run_id) JOIN portage.migration_runs r ON r.id = m.run_id
     WHERE m.group_id = $1
     ORDER BY m.level, m.run_id;
  END;
COMMENT ON FUNCTION portage.group_status(bigint) IS
  'the members of a group in their order: where each stands, its counts, and why it was skipped or failed';

CREATE VIEW portage.groups WITH (security_barrier) AS
  SELECT g.id AS group_id, g.status, g.scope, g.workers, portage.role_name(g.role_oid, g.role_name) AS owner, count(s.run_id) AS members,
         count(*) FILTER (WHERE s.status = 'completed') AS completed, count(*) FILTER (WHERE s.status = 'skipped') AS skipped_members,
         sum(s.read)::bigint AS read, sum(s.inserted)::bigint AS inserted, sum(s.updated)::bigint AS updated,
         sum(s.unchanged)::bigint AS unchanged, sum(s.skipped)::bigint AS skipped, sum(s.conflicted)::bigint AS conflicted,
         sum(s.parked)::bigint AS parked, sum(s.invalid)::bigint AS invalid, sum(s.failed)::bigint AS failed,
         g.created_at, g.completed_at, g.error
    FROM portage.run_groups g CROSS JOIN LATERAL portage.group_status(g.id) s
   WHERE EXISTS (SELECT FROM portage.group_members m JOIN portage.visible_runs v USING (run_id) WHERE m.group_id = g.id)
   GROUP BY g.id;
COMMENT ON VIEW portage.groups IS 'the groups that the caller may see, with the counts of their members taken together';
GRANT SELECT ON portage.groups TO PUBLIC;

CREATE FUNCTION portage.report_group("group" bigint) RETURNS jsonb
  LANGUAGE sql VOLATILE
  BEGIN ATOMIC
    SELECT to_jsonb(g) || jsonb_build_object('members', (
             SELECT jsonb_agg(jsonb_build_object('level', s.level, 'pipeline', s.pipeline, 'run', s.run_id, 'status', s.status,
                                                 'reason', s.reason, 'report', portage.report(s.run_id)) ORDER BY s.level, s.run_id)
               FROM portage.group_status($1) s))
      FROM portage.groups g WHERE g.group_id = $1;
  END;
COMMENT ON FUNCTION portage.report_group(bigint) IS 'a group with its sums, and the report of each of its members; null if there is none that the caller may see';
