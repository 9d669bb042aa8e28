-- Pipelines: how items of one kind become rows of one target table. Written only by the functions below; read
-- under row level security: a role sees what it, or a role that it is a member of, owns or was granted.

CREATE TABLE portage.pipelines (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text COLLATE "C" NOT NULL CONSTRAINT pipelines_name_check CHECK (name <> '' AND strpos(name, '/') = 0),
  owner oid NOT NULL,
  owner_name name NOT NULL,
  current_version integer NOT NULL,
  created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
  retained_at timestamptz,
  CONSTRAINT pipelines_name_key UNIQUE (name, owner)
);
COMMENT ON TABLE portage.pipelines IS 'a pipeline; its definitions are in pipeline_versions';
COMMENT ON COLUMN portage.pipelines.name IS 'unique per owner; owner/name addresses the pipeline of another role';
COMMENT ON COLUMN portage.pipelines.owner IS 'role that owns the pipeline: its expressions are evaluated as this role';
COMMENT ON COLUMN portage.pipelines.owner_name IS 'what the owner was called when it became that';
COMMENT ON COLUMN portage.pipelines.current_version IS 'the version that new runs use';
COMMENT ON COLUMN portage.pipelines.retained_at IS 'when tick() last looked for runs that "retain" lets go';

CREATE TABLE portage.pipeline_versions (
  pipeline_id bigint NOT NULL,
  version integer NOT NULL,
  definition json NOT NULL,
  refers_to jsonb NOT NULL DEFAULT '{}',
  target_oid oid NOT NULL,
  target_schema name NOT NULL,
  target_name name NOT NULL,
  search_path text NOT NULL,
  timezone text NOT NULL,
  settings jsonb NOT NULL,
  author oid NOT NULL,
  author_name name NOT NULL,
  created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
  sensitive text[],
  sensitive_id boolean NOT NULL,
  sensitive_key boolean NOT NULL,
  PRIMARY KEY (pipeline_id, version)
);
COMMENT ON TABLE portage.pipeline_versions IS 'each definition that a pipeline ever had; append-only, runs refer to a version';
COMMENT ON COLUMN portage.pipeline_versions.definition IS 'as written by the author, to the byte';
COMMENT ON COLUMN portage.pipeline_versions.refers_to IS
  'the pipelines that the definition names, with their ids: what a name meant to the owner then, it means for ever';
COMMENT ON COLUMN portage.pipeline_versions.target_oid IS 'the target table; resolved anew by schema and name when this oid is gone or has another name';
COMMENT ON COLUMN portage.pipeline_versions.search_path IS 'the author''s search_path, under which the expressions are resolved for ever';
COMMENT ON COLUMN portage.pipeline_versions.timezone IS 'for time stamps without zone: the definition''s, else the author''s session''s';
COMMENT ON COLUMN portage.pipeline_versions.settings IS
  'the others that values hang on: the definition''s, else those of the version before, else the author''s session''s';
COMMENT ON COLUMN portage.pipeline_versions.sensitive IS 'the definition''s sensitive paths; null: there are none';
COMMENT ON COLUMN portage.pipeline_versions.sensitive_id IS 'whether the legacy id comes from there, or may';
COMMENT ON COLUMN portage.pipeline_versions.sensitive_key IS 'whether the key of the target does';

CREATE TABLE portage.pipeline_grants (
  pipeline_id bigint NOT NULL,
  owner oid NOT NULL,
  role_oid oid NOT NULL,
  role_name name NOT NULL,
  privilege text NOT NULL CONSTRAINT pipeline_grants_privilege_check CHECK (privilege IN ('run', 'read')),
  grantor oid NOT NULL,
  grantor_name name NOT NULL,
  by_admin boolean NOT NULL,
  granted_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
  PRIMARY KEY (pipeline_id, role_oid, privilege)
);
COMMENT ON TABLE portage.pipeline_grants IS 'who else may use a pipeline: run opens runs and sees these, read sees the runs of all';
COMMENT ON COLUMN portage.pipeline_grants.owner IS 'the pipeline''s owner, repeated here so that row level security needs no look at pipelines';
COMMENT ON COLUMN portage.pipeline_grants.role_oid IS 'the role; 0 is public';
COMMENT ON COLUMN portage.pipeline_grants.role_name IS 'what the role was called when it got the grant';
COMMENT ON COLUMN portage.pipeline_grants.grantor IS 'the role that granted it';
COMMENT ON COLUMN portage.pipeline_grants.grantor_name IS 'what the grantor was called then';
COMMENT ON COLUMN portage.pipeline_grants.by_admin IS
  'the grantor was a superuser or a member of portage.admin_role then: the role finds the pipeline by its bare name';

SELECT pg_catalog.pg_extension_config_dump('portage.pipelines', '');
SELECT pg_catalog.pg_extension_config_dump('portage.pipelines_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('portage.pipeline_versions', '');
SELECT pg_catalog.pg_extension_config_dump('portage.pipeline_grants', '');

-- Each policy looks at its own table, or at one whose policy looks no further back: no recursion.
ALTER TABLE portage.pipeline_grants ENABLE ROW LEVEL SECURITY;
CREATE POLICY visible ON portage.pipeline_grants FOR SELECT
  USING (portage.granted_to_caller(role_oid) OR portage.acts_as(owner) OR portage.is_admin());
ALTER TABLE portage.pipelines ENABLE ROW LEVEL SECURITY;
CREATE POLICY visible ON portage.pipelines FOR SELECT
  USING (portage.acts_as(owner) OR portage.is_admin()
         OR EXISTS (SELECT FROM portage.pipeline_grants g WHERE g.pipeline_id = id AND portage.granted_to_caller(g.role_oid)));
ALTER TABLE portage.pipeline_versions ENABLE ROW LEVEL SECURITY;
CREATE POLICY visible ON portage.pipeline_versions FOR SELECT
  USING (EXISTS (SELECT FROM portage.pipelines p WHERE p.id = pipeline_id));
GRANT SELECT ON portage.pipelines, portage.pipeline_versions, portage.pipeline_grants TO PUBLIC;

CREATE FUNCTION portage.pipeline_id(name text) RETURNS bigint
  LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'portage_pipeline_id';
COMMENT ON FUNCTION portage.pipeline_id(text) IS
  'the pipeline that a name means to the current user, who must be allowed to see it: a bare name, or owner/name';

CREATE FUNCTION portage.pipeline_name(pipeline_id bigint) RETURNS text
  LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'portage_pipeline_name';
COMMENT ON FUNCTION portage.pipeline_name(bigint) IS
  'the name by which the current user addresses a pipeline: the bare one where that means it, else owner/name; null if there is none that it may see';

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
