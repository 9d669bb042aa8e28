-- The schema and what everything below leans on: who may see what, said once.
-- SQL functions have bodies that are parsed here and now (RETURN, BEGIN ATOMIC): a body in quotes would be parsed under
-- the caller's search_path, and its operators could be the caller's own.
-- CREATE EXTENSION has created schema portage (pg_portage.control).

COMMENT ON SCHEMA portage IS 'pg_portage: legacy data into typed tables, tracked, validated and reversible';
GRANT USAGE ON SCHEMA portage TO PUBLIC;

CREATE FUNCTION portage.is_admin() RETURNS boolean
  LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'portage_is_admin';
COMMENT ON FUNCTION portage.is_admin() IS 'true for superusers and members of portage.admin_role';

CREATE FUNCTION portage.in_scope(scope text) RETURNS boolean
  LANGUAGE sql STABLE
  RETURN coalesce(nullif(pg_catalog.current_setting('portage.scope', true), ''), scope) = scope;
COMMENT ON FUNCTION portage.in_scope(text) IS 'true unless the setting portage.scope limits this session to another scope';
