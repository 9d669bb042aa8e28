-- The schema and what everything below leans on: who may see what, said once.
-- CREATE EXTENSION has created schema portage (pg_portage.control).

COMMENT ON SCHEMA portage IS 'pg_portage: legacy data into typed tables, tracked, validated and reversible';
GRANT USAGE ON SCHEMA portage TO PUBLIC;

CREATE FUNCTION portage.is_admin() RETURNS boolean
  LANGUAGE sql STABLE
  AS $$
    SELECT pg_catalog.current_setting('is_superuser') = 'on'
        OR EXISTS (SELECT FROM pg_catalog.pg_roles r
                   WHERE r.rolname = nullif(pg_catalog.current_setting('portage.admin_role', true), '')
                     AND pg_catalog.pg_has_role(r.oid, 'MEMBER'))
  $$;
COMMENT ON FUNCTION portage.is_admin() IS 'true for superusers and members of portage.admin_role';

CREATE FUNCTION portage.in_scope(scope text) RETURNS boolean
  LANGUAGE sql STABLE
  AS $$ SELECT coalesce(nullif(pg_catalog.current_setting('portage.scope', true), ''), scope) = scope $$;
COMMENT ON FUNCTION portage.in_scope(text) IS 'true unless the setting portage.scope limits this session to another scope';
