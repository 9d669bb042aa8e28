-- When roles change under the ledger: one leaves and another takes over, or all are those of another cluster; see
-- extension/run/transfer.cpp and extension/ledger/adoption.cpp.

-- What names a role is here and in adoption.cpp.
CREATE VIEW portage.recorded_roles AS
  SELECT 'pipeline' AS kind, p.owner AS role, p.owner_name AS name FROM portage.pipelines p
  UNION ALL SELECT 'author', v.author, v.author_name FROM portage.pipeline_versions v
  UNION ALL SELECT 'grant', g.role_oid, g.role_name FROM portage.pipeline_grants g WHERE g.role_oid <> 0
  UNION ALL SELECT 'grantor', g.grantor, g.grantor_name FROM portage.pipeline_grants g
  UNION ALL SELECT 'run', r.role_oid, r.role_name FROM portage.migration_runs r
  UNION ALL SELECT 'session', r.session_role_oid, r.session_role FROM portage.migration_runs r
  UNION ALL SELECT 'schedule', s.role_oid, s.role_name FROM portage.schedule_rows s
  UNION ALL SELECT 'session', s.session_role_oid, s.session_role FROM portage.schedule_rows s
  UNION ALL SELECT 'group', g.role_oid, g.role_name FROM portage.run_groups g;
COMMENT ON VIEW portage.recorded_roles IS 'every place in which the ledger names a role, with what it was called then';

CREATE FUNCTION portage.transfer_pipeline(name text, role name) RETURNS bigint
  LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'portage_transfer_pipeline';
COMMENT ON FUNCTION portage.transfer_pipeline(text, name) IS
  'makes another role the owner of a pipeline, and of the schedules that ran as the former one; returns the pipeline''s id';

CREATE FUNCTION portage.transfer_run(run bigint, role name) RETURNS void
  LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'portage_transfer_run';
COMMENT ON FUNCTION portage.transfer_run(bigint, name) IS
  'makes another role the one as which a run, and all of its group, is gone on with, replayed and rolled back';

CREATE FUNCTION portage.adopt_roles(confirm boolean DEFAULT false, OUT name name, OUT old_oid oid, OUT new_oid oid, OUT remark text,
                                    OUT pipelines bigint, OUT grants bigint, OUT runs bigint, OUT schedules bigint) RETURNS SETOF record
  LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'portage_adopt_roles';
COMMENT ON FUNCTION portage.adopt_roles(boolean) IS
  'in a ledger that was restored into another cluster: which of its roles are which here, by their names; with confirm they become these. Superusers only';
REVOKE EXECUTE ON FUNCTION portage.adopt_roles(boolean) FROM PUBLIC;
