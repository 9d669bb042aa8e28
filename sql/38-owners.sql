-- Whether those who work on runs and ranges still live.

-- Backends of other roles are visible to few, and a view's owner lends its rights to tables, not to functions.
CREATE FUNCTION portage.owner_kind(pid integer, started_at timestamptz) RETURNS text
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  RETURN (SELECT s.backend_type FROM pg_catalog.pg_stat_get_activity(pid) s
           WHERE pid IS NOT NULL AND s.backend_start = started_at
             AND s.datid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()));
COMMENT ON FUNCTION portage.owner_kind(integer, timestamptz) IS
  'the kind of process ("client backend", …) that has this pid and start in this database; null: it is gone';
