-- What runs do to the server is measured by six signals, each with a threshold; a seventh holds nobody.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 31000
\set ECHO none
\i :prelude
\set ECHO all
LOAD 'pg_portage';  -- makes the settings known
SELECT name, setting, unit, context, short_desc FROM pg_settings
 WHERE name ~ '^portage\.(max_|yield)' AND name NOT LIKE '%item%' ORDER BY name;
SELECT signal, unit, state, threshold FROM portage.health();

-- Nothing is connected, nothing is archived, nobody works: of the rest this test says only what does not depend on
-- its surroundings.
SELECT signal, value, explanation FROM portage.health()
 WHERE signal IN ('replication_lag', 'archive_backlog', 'blocked_sessions', 'autovacuum');
SELECT signal, value >= 0 AS measured, regexp_replace(explanation, '[0-9,]+ (transaction)?s?', 'N \1') AS explanation
  FROM portage.health() WHERE signal IN ('multixact_members', 'oldest_xmin');

-- A signal exceeds its threshold when it is above it; -1 or off switches it off.
BEGIN;
SET LOCAL portage.max_xmin_age = 0;
CREATE TEMPORARY TABLE takes_a_transaction_id ();
SELECT signal, value > 0 AS measured, threshold, state, explanation LIKE 'the oldest snapshot is % old (limit 0)' AS told
  FROM portage.health() WHERE signal = 'oldest_xmin';
SET LOCAL portage.max_xmin_age = -1;
SET LOCAL portage.yield_to_autovacuum = off;
SET LOCAL portage.max_replication_lag = -1;
SET LOCAL portage.max_archive_backlog = -1;
SET LOCAL portage.max_multixact_members = -1;
SET LOCAL portage.max_blocked_sessions = -1;
SELECT signal, threshold, state FROM portage.health();
ROLLBACK;

-- Thresholds have units and bounds.
SET portage.max_replication_lag = '5min';
SELECT threshold FROM portage.health() WHERE signal = 'replication_lag';
SELECT pg_temp.refused('SET portage.max_blocked_sessions = -2');
SELECT pg_temp.refused('SET portage.max_replication_lag = ''5 apples''');
RESET portage.max_replication_lag;

-- Anybody may ask: what is told is a number over the whole server, never whose.
CREATE ROLE regress_health_nobody;
SET ROLE regress_health_nobody;
SELECT signal, state FROM portage.health();
RESET ROLE;

-- An owner of the extension that may not see other sessions does not take "not visible" for "not there".
CREATE ROLE regress_health_owner;
BEGIN;
GRANT USAGE ON SCHEMA portage TO regress_health_owner;
GRANT SELECT ON ALL TABLES IN SCHEMA portage TO regress_health_owner;
ALTER TABLE portage.pipelines OWNER TO regress_health_owner;
SELECT signal, value IS NULL AS without_value, state, explanation FROM portage.health()
 WHERE signal IN ('replication_lag', 'blocked_sessions', 'autovacuum');
SELECT signal, state FROM portage.health() WHERE signal NOT IN ('replication_lag', 'blocked_sessions', 'autovacuum');
GRANT pg_read_all_stats TO regress_health_owner;
SELECT signal, state, explanation FROM portage.health()
 WHERE signal IN ('replication_lag', 'blocked_sessions', 'autovacuum');
ROLLBACK;
DROP ROLE regress_health_owner, regress_health_nobody;

-- It works in a transaction that may only read.
BEGIN READ ONLY;
SELECT count(*) FROM portage.health();
COMMIT;
