-- What "merge": {"column": "union"} does; see extension/pipeline/merge.cpp.

CREATE FUNCTION portage.merge_union(existing anyarray, incoming anyarray) RETURNS anyarray
  LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
  AS $$
    SELECT $1 || coalesce((SELECT array_agg(i.element ORDER BY i.position)
                             FROM (SELECT u.element, min(u.position) AS position
                                     FROM unnest($2) WITH ORDINALITY AS u (element, position)
                                    WHERE NOT EXISTS (SELECT FROM unnest($1) AS e (element)
                                                       WHERE e.element IS NOT DISTINCT FROM u.element)
                                    GROUP BY u.element) i), $2[1:0])
  $$;
COMMENT ON FUNCTION portage.merge_union(anyarray, anyarray) IS
  'the elements of the first array, then those of the second that the first does not have, each once, in their order';

CREATE FUNCTION portage.merge_union(existing jsonb, incoming jsonb) RETURNS jsonb
  LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
  BEGIN ATOMIC
    SELECT CASE
      WHEN jsonb_typeof($1) = 'object' AND jsonb_typeof($2) = 'object' THEN $1 || $2
      WHEN jsonb_typeof($1) = 'array' AND jsonb_typeof($2) = 'array' THEN
        $1 || coalesce((SELECT jsonb_agg(i.element ORDER BY i.position)
                          FROM (SELECT u.element, min(u.position) AS position
                                  FROM jsonb_array_elements($2) WITH ORDINALITY AS u (element, position)
                                 WHERE NOT EXISTS (SELECT FROM jsonb_array_elements($1) AS e (element)
                                                    WHERE e.element = u.element)
                                 GROUP BY u.element) i), '[]')
      ELSE $2 END;
  END;
COMMENT ON FUNCTION portage.merge_union(jsonb, jsonb) IS
  'of two arrays as for arrays; of two objects the members of both, the second''s where both have one; else the second';
