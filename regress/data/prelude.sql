-- What every test of runs begins with: the extension, and three functions that tell in a few lines what a run did.
-- Each test numbers its runs from a thousand of its own, so that its output does not depend on the tests before it.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_portage;
SELECT setval('portage.migration_runs_id_seq', :first_run, false) AS first_run \gset

-- The books of a run: its outcome in a line, after comparing the run's counters with its batches and its items.
CREATE FUNCTION pg_temp.books(run bigint) RETURNS text LANGUAGE sql AS $$
  WITH counted AS (
    SELECT k.position, k.name, k.count,
           (SELECT count(*) FROM portage.migration_items i WHERE i.run_id = $1 AND i.status = k.name
               AND NOT EXISTS (SELECT FROM portage.migration_items later WHERE later.run_id = $1 AND later.ordinal = i.ordinal
                                AND later.revision > i.revision)) AS items,
           (SELECT coalesce(sum((to_jsonb(b) ->> k.name)::bigint), 0) FROM portage.migration_batches b
             WHERE b.run_id = $1) AS batched
      FROM portage.status($1) s
     CROSS JOIN LATERAL (VALUES (1, 'inserted', s.inserted), (2, 'updated', s.updated), (3, 'unchanged', s.unchanged),
            (4, 'skipped', s.skipped), (5, 'conflicted', s.conflicted), (6, 'parked', s.parked),
            (7, 'invalid', s.invalid), (8, 'failed', s.failed)) AS k (position, name, count))
  SELECT format('%s: %s read = %s', s.status, s.read,
                coalesce(string_agg(c.count || ' ' || c.name, ' + ' ORDER BY c.position) FILTER (WHERE c.count > 0), '0'))
         || CASE WHEN sum(c.count) = s.read AND bool_and(c.count = c.batched AND c.count = c.items)
                 THEN '' ELSE ' DOES NOT BALANCE' END
    FROM counted c CROSS JOIN portage.status($1) s
   GROUP BY s.status, s.read
$$;

-- What did not land, and why.
CREATE FUNCTION pg_temp.rejected(run bigint)
  RETURNS TABLE (item bigint, status text, class text, rule text, sqlstate text, column_name text, message text)
  LANGUAGE sql AS $$
  SELECT ordinal, status, error_class, rule, sqlstate, column_name, message
    FROM portage.rejects WHERE run_id = $1 ORDER BY ordinal
$$;

-- What a refused statement answers: SQLSTATE, message, detail and hint.
CREATE FUNCTION pg_temp.refused(statement text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  code text; message text; detail text; hint text;
BEGIN
  EXECUTE statement;
  RETURN NEXT 'not refused';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
                          hint = PG_EXCEPTION_HINT;
  RETURN NEXT code || ': ' || message;
  IF detail <> '' THEN RETURN NEXT 'detail: ' || detail; END IF;
  IF hint <> '' THEN RETURN NEXT 'hint: ' || hint; END IF;
END $$;
