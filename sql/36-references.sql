-- Items that wait for what they refer to ("references" in a definition); see extension/run/unpark.hpp.

CREATE FUNCTION portage.settle(run bigint, give_up boolean DEFAULT false, OUT settled bigint, OUT still_parked bigint)
  AS 'MODULE_PATHNAME', 'portage_settle' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.settle(bigint, boolean) IS
  'loads parked items whose references have been migrated meanwhile; with give_up what is still missing becomes a reject';

CREATE PROCEDURE portage.settle_run(run bigint, give_up boolean DEFAULT false, INOUT settled bigint DEFAULT NULL,
                                    INOUT still_parked bigint DEFAULT NULL)
  AS 'MODULE_PATHNAME', 'portage_settle_run' LANGUAGE C;
COMMENT ON PROCEDURE portage.settle_run(bigint, boolean, bigint, bigint) IS 'the same in batches, committing each';
