-- The loop that is in every cookbook: one item after the other, each in a subtransaction that takes its error.
-- :'file' is the NDJSON file.
COPY hand.staging (item) FROM :'file' WITH (FORMAT csv, QUOTE e'\x01', DELIMITER e'\x02');

DO $$
DECLARE
  run bigint;
  staged record;
  target bigint;
BEGIN
  INSERT INTO hand.runs DEFAULT VALUES RETURNING id INTO run;
  FOR staged IN SELECT ordinal, item, item->>'user_id' || '/' || (item->>'word_id') AS legacy_id FROM hand.staging LOOP
    BEGIN
      INSERT INTO app.progress (user_id, word_id, review_count, correct_count, last_reviewed_at, due_on, srs_interval,
                                ease_factor, known, course_id)
      VALUES (staged.item->>'user_id', staged.item->>'word_id', (staged.item->>'review_count')::integer,
              (staged.item->>'correct_count')::integer, (staged.item->>'last_reviewed_at')::timestamptz,
              (staged.item->>'due_on')::date, (staged.item->>'srs_interval')::integer,
              coalesce((staged.item->>'ease_factor')::double precision, 2.5), (staged.item->>'known')::boolean,
              (staged.item->>'course_id')::integer)
      RETURNING id INTO target;
      INSERT INTO hand.mappings (scope, legacy_id, target_id, source_hash, run_id)
      VALUES ('bench', staged.legacy_id, target, jsonb_hash_extended(staged.item, 0), run);
      INSERT INTO hand.items (run_id, ordinal, status, legacy_id) VALUES (run, staged.ordinal, 'landed', staged.legacy_id);
    EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
      INSERT INTO hand.items (run_id, ordinal, status, legacy_id, error)
      VALUES (run, staged.ordinal, 'refused', staged.legacy_id, SQLERRM);
    END;
  END LOOP;
END $$;
