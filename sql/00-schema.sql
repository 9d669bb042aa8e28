-- The schema and what everything below leans on: who may see what, said once.
-- SQL functions have bodies that are parsed here and now (RETURN, BEGIN ATOMIC): a body in quotes would be parsed under
-- the caller's search_path, and its operators could be the caller's own.
-- CREATE EXTENSION has created schema portage (pg_portage.control), or found it: then whoever made it might own what is
-- called here by everybody, or have put objects of his own into it, operators even; hence their qualified names here.
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) n.nspowner
              WHERE n.nspname OPERATOR(pg_catalog.=) 'portage'::pg_catalog.name
                AND NOT r.rolsuper AND r.rolname OPERATOR(pg_catalog.<>) current_user::pg_catalog.name)
     OR EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) d.refobjid
                 WHERE n.nspname OPERATOR(pg_catalog.=) 'portage'::pg_catalog.name
                   AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass::pg_catalog.oid
                   AND d.classid OPERATOR(pg_catalog.<>) 'pg_catalog.pg_extension'::pg_catalog.regclass::pg_catalog.oid) THEN
    RAISE EXCEPTION 'schema "portage" exists already, and belongs to another role or is not empty'
      USING ERRCODE = 'duplicate_schema',
            HINT = 'ALTER SCHEMA portage RENAME TO ...; or drop it, then create the extension.';
  END IF;
END $$;

COMMENT ON SCHEMA portage IS 'pg_portage: legacy data into typed tables, tracked, validated and reversible';
GRANT USAGE ON SCHEMA portage TO PUBLIC;

CREATE FUNCTION portage.is_admin() RETURNS boolean
  LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'portage_is_admin';
COMMENT ON FUNCTION portage.is_admin() IS 'true for superusers and members of portage.admin_role';

-- In C, as is_admin(): before the library is loaded anybody can set portage.scope_required.
CREATE FUNCTION portage.in_scope(scope text) RETURNS boolean
  LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'portage_in_scope';
COMMENT ON FUNCTION portage.in_scope(text) IS
  'true unless the settings portage.scope and portage.scope_required keep this session out of the scope';
