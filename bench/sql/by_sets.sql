-- The set-based migration that a careful DBA would write: staging, validation with a reason for each refused item, one
-- INSERT ... ON CONFLICT, items and mappings. :'file' is the NDJSON file.
BEGIN;
SET LOCAL work_mem = '512MB';

INSERT INTO hand.runs DEFAULT VALUES;

COPY hand.staging (item) FROM :'file' WITH (FORMAT csv, QUOTE e'\x01', DELIMITER e'\x02');

CREATE TEMPORARY TABLE judged ON COMMIT DROP AS
SELECT ordinal, user_id || '/' || word_id AS legacy_id, source_hash, user_id, word_id,
       CASE WHEN error IS NULL THEN review_count::integer END AS review_count,
       CASE WHEN error IS NULL THEN correct_count::integer END AS correct_count,
       CASE WHEN error IS NULL THEN last_reviewed_at::timestamptz END AS last_reviewed_at,
       CASE WHEN error IS NULL THEN due_on::date END AS due_on,
       CASE WHEN error IS NULL THEN srs_interval::integer END AS srs_interval,
       CASE WHEN error IS NULL THEN coalesce(ease_factor::double precision, 2.5) END AS ease_factor,
       CASE WHEN error IS NULL THEN known::boolean END AS known,
       CASE WHEN error IS NULL THEN course_id::integer END AS course_id,
       error
  FROM (SELECT s.ordinal, jsonb_hash_extended(s.item, 0) AS source_hash, i.*,
               CASE WHEN user_id IS NULL THEN 'user_id is missing'
                    WHEN word_id IS NULL THEN 'word_id is missing'
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
          FROM hand.staging AS s,
               jsonb_to_record(s.item) AS i (user_id text, word_id text, review_count text, correct_count text,
                 last_reviewed_at text, due_on text, srs_interval text, ease_factor text, known text, course_id text)
        OFFSET 0) AS judged;

WITH landed AS (
  INSERT INTO app.progress AS p (user_id, word_id, review_count, correct_count, last_reviewed_at, due_on, srs_interval,
                                 ease_factor, known, course_id)
  SELECT user_id, word_id, review_count, correct_count, last_reviewed_at, due_on, srs_interval, ease_factor, known, course_id
    FROM judged WHERE error IS NULL
  ON CONFLICT (user_id, word_id) DO UPDATE
     SET review_count = EXCLUDED.review_count, correct_count = EXCLUDED.correct_count,
         last_reviewed_at = EXCLUDED.last_reviewed_at, due_on = EXCLUDED.due_on, srs_interval = EXCLUDED.srs_interval,
         ease_factor = EXCLUDED.ease_factor, known = EXCLUDED.known, course_id = EXCLUDED.course_id
  RETURNING id, user_id, word_id
), mapped AS (
  INSERT INTO hand.mappings (scope, legacy_id, target_id, source_hash, run_id)
  SELECT 'bench', legacy_id, landed.id, source_hash, (SELECT max(id) FROM hand.runs)
    FROM landed JOIN judged USING (user_id, word_id) WHERE error IS NULL
)
INSERT INTO hand.items (run_id, ordinal, status, legacy_id, error)
SELECT (SELECT max(id) FROM hand.runs), ordinal, CASE WHEN error IS NULL THEN 'landed' ELSE 'refused' END, legacy_id, error
  FROM judged;

UPDATE hand.runs SET landed = (SELECT count(*) FROM judged WHERE error IS NULL),
                     refused = (SELECT count(*) FROM judged WHERE error IS NOT NULL)
 WHERE id = (SELECT max(id) FROM hand.runs);
COMMIT;
