-- Pipelines: how items of one kind become rows of one target table. Written only by the functions below; read
-- under row level security: a role sees what it, or a role that it is a member of, owns or was granted.

-- An expression: policies and views ask it for each row, and a query in it would be planned by every statement that does.
CREATE FUNCTION portage.acts_as(role_name name) RETURNS boolean
  LANGUAGE sql STABLE
  RETURN coalesce(pg_catalog.pg_has_role(pg_catalog.to_regrole(pg_catalog.quote_ident(role_name))::pg_catalog.oid, 'MEMBER'), false);
COMMENT ON FUNCTION portage.acts_as(name) IS
  'true if a role of that name exists and the current user is a member of it (or is the role)';

CREATE TABLE portage.pipelines (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text COLLATE "C" NOT NULL CONSTRAINT pipelines_name_key UNIQUE
    CONSTRAINT pipelines_name_check CHECK (name <> ''),
  owner oid NOT NULL,
  owner_name name NOT NULL,
  current_version integer NOT NULL,
  created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
  retained_at timestamptz
);
COMMENT ON TABLE portage.pipelines IS 'a pipeline; its definitions are in pipeline_versions';
COMMENT ON COLUMN portage.pipelines.owner IS 'the owner''s oid when the pipeline was created; the name is what counts, as an oid may mean somebody else after a restore';
COMMENT ON COLUMN portage.pipelines.owner_name IS 'role that owns the pipeline: its expressions are evaluated as this role';
COMMENT ON COLUMN portage.pipelines.current_version IS 'the version that new runs use';
COMMENT ON COLUMN portage.pipelines.retained_at IS 'when tick() last looked for runs that "retain" lets go';

CREATE TABLE portage.pipeline_versions (
  pipeline_id bigint NOT NULL,
  version integer NOT NULL,
  definition json NOT NULL,
  target_oid oid NOT NULL,
  target_schema name NOT NULL,
  target_name name NOT NULL,
  search_path text NOT NULL,
  timezone text NOT NULL,
  author oid NOT NULL,
  author_name name NOT NULL,
  created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
  PRIMARY KEY (pipeline_id, version)
);
COMMENT ON TABLE portage.pipeline_versions IS 'each definition that a pipeline ever had; append-only, runs refer to a version';
COMMENT ON COLUMN portage.pipeline_versions.definition IS 'as written by the author, to the byte';
COMMENT ON COLUMN portage.pipeline_versions.target_oid IS 'the target table; resolved anew by schema and name when this oid is gone or has another name';
COMMENT ON COLUMN portage.pipeline_versions.search_path IS 'the author''s search_path, under which the expressions are resolved for ever';
COMMENT ON COLUMN portage.pipeline_versions.timezone IS 'for time stamps without zone: the definition''s, else the author''s session''s';

CREATE TABLE portage.pipeline_grants (
  pipeline_id bigint NOT NULL,
  owner_name name NOT NULL,
  role_oid oid NOT NULL,
  role_name name NOT NULL,
  privilege text NOT NULL CONSTRAINT pipeline_grants_privilege_check CHECK (privilege IN ('run', 'read')),
  granted_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
  PRIMARY KEY (pipeline_id, role_name, privilege)
);
COMMENT ON TABLE portage.pipeline_grants IS 'who else may use a pipeline: run opens runs and sees these, read sees the runs of all';
COMMENT ON COLUMN portage.pipeline_grants.owner_name IS 'the pipeline''s owner, repeated here so that row level security needs no look at pipelines';
COMMENT ON COLUMN portage.pipeline_grants.role_name IS 'the role; "public" with oid 0 is everybody';

SELECT pg_catalog.pg_extension_config_dump('portage.pipelines', '');
SELECT pg_catalog.pg_extension_config_dump('portage.pipelines_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('portage.pipeline_versions', '');
SELECT pg_catalog.pg_extension_config_dump('portage.pipeline_grants', '');

-- Each policy looks at its own table, or at one whose policy looks no further back: no recursion.
ALTER TABLE portage.pipeline_grants ENABLE ROW LEVEL SECURITY;
CREATE POLICY visible ON portage.pipeline_grants FOR SELECT
  USING ((role_oid = 0 AND role_name = 'public') OR portage.acts_as(role_name) OR portage.acts_as(owner_name)
         OR portage.is_admin());
ALTER TABLE portage.pipelines ENABLE ROW LEVEL SECURITY;
CREATE POLICY visible ON portage.pipelines FOR SELECT
  USING (portage.acts_as(owner_name) OR portage.is_admin()
         OR EXISTS (SELECT FROM portage.pipeline_grants g
                    WHERE g.pipeline_id = id
                      AND ((g.role_oid = 0 AND g.role_name = 'public') OR portage.acts_as(g.role_name))));
ALTER TABLE portage.pipeline_versions ENABLE ROW LEVEL SECURITY;
CREATE POLICY visible ON portage.pipeline_versions FOR SELECT
  USING (EXISTS (SELECT FROM portage.pipelines p WHERE p.id = pipeline_id));
GRANT SELECT ON portage.pipelines, portage.pipeline_versions, portage.pipeline_grants TO PUBLIC;

CREATE FUNCTION portage.create_pipeline(name text, target regclass, definition json) RETURNS bigint
  LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'portage_create_pipeline';
COMMENT ON FUNCTION portage.create_pipeline(text, regclass, json) IS
  'creates a pipeline of which the current role is the owner, after checking the definition against the target; returns its id';

CREATE FUNCTION portage.replace_pipeline(name text, definition json) RETURNS bigint
  LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'portage_replace_pipeline';
COMMENT ON FUNCTION portage.replace_pipeline(text, json) IS
  'gives a pipeline a new version, which new runs use; older ones are kept; returns the pipeline''s id';

CREATE FUNCTION portage.drop_pipeline(name text, with_history boolean DEFAULT false) RETURNS bigint
  LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'portage_drop_pipeline';
COMMENT ON FUNCTION portage.drop_pipeline(text, boolean) IS
  'drops a pipeline; one that has runs only with with_history, which erases all that is known about them; imported rows stay';

CREATE FUNCTION portage.grant_pipeline(name text, role name, privilege text) RETURNS bigint
  LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'portage_grant_pipeline';
COMMENT ON FUNCTION portage.grant_pipeline(text, name, text) IS
  'lets a role (or public) run the pipeline, or only read about it: privilege is run or read';

CREATE FUNCTION portage.revoke_pipeline(name text, role name, privilege text) RETURNS bigint
  LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'portage_revoke_pipeline';
COMMENT ON FUNCTION portage.revoke_pipeline(text, name, text) IS
  'takes a privilege back that grant_pipeline gave';
