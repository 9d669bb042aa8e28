-- Replaying rejects: the same rules over the same or corrected input; see extension/run/replay.hpp.

CREATE FUNCTION portage.replay(run bigint, OUT replayed bigint, OUT landed bigint, OUT still_rejected bigint)
  AS 'MODULE_PATHNAME', 'portage_replay' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.replay(bigint) IS
  'tries all open rejects of a run again, by the rules of the run''s own pipeline version, in one transaction';

CREATE FUNCTION portage.replay(run bigint, ordinal bigint, corrected text DEFAULT NULL,
                               OUT replayed bigint, OUT landed bigint, OUT still_rejected bigint)
  AS 'MODULE_PATHNAME', 'portage_replay_item' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.replay(bigint, bigint, text) IS
  'tries one reject again, as it was or corrected: the JSON text of one item, or one CSV record as in the source';

CREATE PROCEDURE portage.replay_run(run bigint, INOUT replayed bigint DEFAULT NULL, INOUT landed bigint DEFAULT NULL,
                                    INOUT still_rejected bigint DEFAULT NULL)
  AS 'MODULE_PATHNAME', 'portage_replay_run' LANGUAGE C;
COMMENT ON PROCEDURE portage.replay_run(bigint, bigint, bigint, bigint) IS
  'tries all open rejects of a run again, committing each batch; called again it resumes what was interrupted';
