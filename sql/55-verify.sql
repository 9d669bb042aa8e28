-- Proving a run: what the ledger says against itself, against the target, and against what was submitted.

CREATE FUNCTION portage.verify_checks(run bigint, depth text) RETURNS timestamptz
  AS 'MODULE_PATHNAME', 'portage_verify' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.verify_checks(bigint, text) IS 'makes the checks of verify() and records them; returns their time';

CREATE FUNCTION portage.checks_made(at timestamptz) RETURNS SETOF portage.data_integrity_checks
  LANGUAGE sql VOLATILE
  BEGIN ATOMIC SELECT * FROM portage.data_integrity_checks c WHERE c.checked_at = $1; END;
COMMENT ON FUNCTION portage.checks_made(timestamptz) IS 'the checks of one verification';

CREATE FUNCTION portage.verify(run bigint DEFAULT NULL, depth text DEFAULT 'hashes') RETURNS SETOF portage.data_integrity_checks
  LANGUAGE sql VOLATILE
  BEGIN ATOMIC
    SELECT c.* FROM (SELECT portage.verify_checks($1, $2) AS at) made
    CROSS JOIN LATERAL portage.checks_made(made.at) AS c;
  END;
COMMENT ON FUNCTION portage.verify(bigint, text) IS
  'checks a run against ledger, target and payload, and by the definition''s checks; records the result and returns it, a row per check';

CREATE PROCEDURE portage.verify_run(run bigint DEFAULT NULL, depth text DEFAULT 'hashes')
  AS 'MODULE_PATHNAME', 'portage_verify_run' LANGUAGE C;
COMMENT ON PROCEDURE portage.verify_run(bigint, text) IS
  'what verify() does in pages, each a transaction of its own; tells each check as it is made, and records the result';
