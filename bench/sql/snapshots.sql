-- Snapshots of devices: 100 items for one user by one call. The two peers of migrate(), as functions.
CREATE TABLE hand.snapshots (k integer GENERATED ALWAYS AS IDENTITY (START 0 MINVALUE 0) PRIMARY KEY, document text NOT NULL);
ALTER TABLE hand.snapshots ALTER document SET STORAGE EXTERNAL;

-- Neither validation nor tracking: a bad item fails the call, and nobody knows afterwards what came from where.
CREATE FUNCTION hand.insert_snapshot(taken_from text, document text) RETURNS void LANGUAGE sql
BEGIN ATOMIC
  INSERT INTO app.progress (user_id, word_id, review_count, correct_count, last_reviewed_at, due_on, srs_interval,
                            ease_factor, known, course_id)
  SELECT taken_from, i.*
    FROM jsonb_to_recordset(document::jsonb) AS i (word_id text, review_count integer, correct_count integer,
           last_reviewed_at timestamptz, due_on date, srs_interval integer, ease_factor double precision, known boolean,
           course_id integer)
  ON CONFLICT (user_id, word_id) DO NOTHING;
END;

-- Validated, and tracked as in tracking.sql.
CREATE FUNCTION hand.track_snapshot(taken_from text, document text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  run bigint;
BEGIN
  INSERT INTO hand.runs DEFAULT VALUES RETURNING id INTO run;
  WITH judged AS MATERIALIZED (
    SELECT ordinal, item, i.*,
           CASE WHEN word_id IS NULL THEN 'word_id is missing'
                WHEN hand.is_integer(review_count) IS NOT TRUE THEN 'review_count is no integer'
                WHEN hand.is_integer(correct_count) IS NOT TRUE THEN 'correct_count is no integer'
                WHEN NOT hand.is_moment(last_reviewed_at) THEN 'last_reviewed_at is no time stamp'
                WHEN NOT hand.is_date(due_on) THEN 'due_on is no date'
                WHEN NOT hand.is_integer(srs_interval) THEN 'srs_interval is no integer'
                WHEN NOT hand.is_number(ease_factor) THEN 'ease_factor is no number'
                WHEN known NOT IN ('true', 'false') THEN 'known is no boolean'
                WHEN NOT hand.is_integer(course_id) THEN 'course_id is no integer'
                WHEN review_count::integer < 0 THEN 'review_count is negative'
                WHEN correct_count::integer NOT BETWEEN 0 AND review_count::integer THEN 'more correct than reviewed'
           END AS error
      FROM jsonb_array_elements(document::jsonb) WITH ORDINALITY AS e (item, ordinal),
           jsonb_to_record(item) AS i (word_id text, review_count text, correct_count text, last_reviewed_at text,
             due_on text, srs_interval text, ease_factor text, known text, course_id text)
  ), landed AS (
    INSERT INTO app.progress (user_id, word_id, review_count, correct_count, last_reviewed_at, due_on, srs_interval,
                              ease_factor, known, course_id)
    SELECT taken_from, word_id, review_count::integer, correct_count::integer, last_reviewed_at::timestamptz, due_on::date,
           srs_interval::integer, coalesce(ease_factor::double precision, 2.5), known::boolean, course_id::integer
      FROM judged WHERE error IS NULL
    ON CONFLICT (user_id, word_id) DO NOTHING
    RETURNING id, word_id
  ), mapped AS (
    INSERT INTO hand.mappings (scope, legacy_id, target_id, source_hash, run_id)
    SELECT taken_from, word_id, landed.id, jsonb_hash_extended(item, 0), run
      FROM landed JOIN judged USING (word_id)
  ), tracked AS (
    INSERT INTO hand.items (run_id, ordinal, status, legacy_id, error)
    SELECT run, ordinal, CASE WHEN error IS NOT NULL THEN 'refused' WHEN landed.id IS NULL THEN 'present' ELSE 'landed' END,
           word_id, error
      FROM judged LEFT JOIN landed USING (word_id)
    RETURNING status
  )
  UPDATE hand.runs SET landed = counted.landed, refused = counted.refused
    FROM (SELECT count(*) FILTER (WHERE status = 'landed') AS landed, count(*) FILTER (WHERE status = 'refused') AS refused
            FROM tracked) AS counted
   WHERE id = run;
  RETURN run;
END $$;
