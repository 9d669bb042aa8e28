-- Schedules: what an expression means, what is refused, and who may. How due times are handled: tests/e2e/schedules.py.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 46000
\set ECHO none
\i :prelude
\set ECHO all
\set SHOW_CONTEXT never
CREATE SCHEMA schedules;
SET search_path = schedules;
SET timezone = 'UTC';
SET datestyle = 'ISO, MDY';
\pset tuples_only on
\pset format unaligned

-- 1. The next times that an expression means.
CREATE FUNCTION times(cron text, after timestamptz, zone text, count int DEFAULT 3) RETURNS SETOF text LANGUAGE sql AS $$
  WITH RECURSIVE t (n, at) AS (
    SELECT 1, portage.next_due(cron, after, zone) UNION ALL SELECT n + 1, portage.next_due(cron, at, zone) FROM t WHERE n < count)
  SELECT at || ' = ' || to_char(at AT TIME ZONE zone, 'Dy HH24:MI') || ' in ' || zone FROM t $$;
SELECT times('30 2 * * *', '2031-01-01', 'UTC');
SELECT times('*/20 9-10 * * mon-fri', '2031-01-03 10:30', 'UTC', 4);
SELECT times('0 0 13 * 5', '2031-01-01', 'UTC');
SELECT times('0 0 29 2 *', '2026-01-01', 'UTC');
SELECT times('0 0 29 2 *', '2096-03-01', 'UTC', 1);
SELECT times('0 0 $ * *', '2028-01-31', 'UTC');
SELECT name, portage.next_due(name, '2031-05-07 09:30') FROM unnest(ARRAY['@hourly', '@daily', '@weekly', '@monthly', '@yearly']) name;
-- The clock is put on: a time that it skips is the moment at which it does.
SELECT times('30 2 * * *', '2031-03-29 12:00Z', 'Europe/Berlin');
SELECT times('30 2 * * *', '2031-03-08 12:00Z', 'America/New_York');
SELECT times('*/30 * * * *', '2031-03-30 00:15Z', 'Europe/Berlin', 4);
-- It is put back: a time that it shows twice counts the first time; where every hour is meant, both times.
SELECT times('30 2 * * *', '2031-10-25 12:00Z', 'Europe/Berlin');
SELECT times('30 1 * * *', '2031-11-01 12:00Z', 'America/New_York');
SELECT times('*/30 * * * *', '2031-10-26 00:00Z', 'Europe/Berlin', 5);
SELECT portage.next_due('0 9 * * *', '2031-07-01', 'America/New_York'), portage.next_due('0 9 * * *', '2031-12-01', 'America/New_York');
-- Without a zone: the session's.
SET timezone = 'Europe/Berlin';
SELECT portage.next_due('0 9 * * *', '2031-07-01');
SET timezone = 'UTC';
SELECT portage.next_due('0 9 * * *', 'infinity') IS NULL;
SELECT portage.next_due(NULL) IS NULL;
SELECT pg_temp.refused($$SELECT portage.next_due('0 9 * * *', '10000-01-01')$$);
SELECT pg_temp.refused($$SELECT portage.next_due('0 9 * * *', now(), 'Europe/Berlim')$$);

-- 2. What is refused says where.
CREATE TABLE source (id int PRIMARY KEY, v text);
CREATE TABLE t (id int PRIMARY KEY, v text);
SELECT portage.create_pipeline('plain', 't', '{"format": "rows", "legacy_id": "id", "columns": {"id": "id", "v": "v"}}') > 0 AS created;
SELECT portage.create_pipeline('nightly', 't', '{"format": "rows", "legacy_id": "id", "columns": {"id": "id", "v": "v"}, "source": {"table": "source"}}') > 0 AS created;
SELECT expression, refused FROM unnest(ARRAY['', '* * * *', '* * * * * *', '30 seconds', '@reboot', '60 * * * *', '0 24 * * *', '0 0 0 * *', '0 0 1 13 *',
    '0 0 * * 8', '0 0 * * mon,tux', '*/0 * * * *', '5/10 * * * *', '5-1 * * * *', '1, * * * *', '0 0 31 2 *', '0 0 31 4,6 *']) AS expression,
  LATERAL (SELECT string_agg(r, E'\n  ') FILTER (WHERE r NOT LIKE 'hint: The fields are%') AS refused
             FROM pg_temp.refused(format('SELECT portage.schedule(''nightly'', %L)', expression)) r) q;
SELECT pg_temp.refused($$SELECT portage.schedule('nightly', 'every night')$$);
SELECT pg_temp.refused($$SELECT portage.schedule('nightly', NULL)$$);
SELECT pg_temp.refused($$SELECT portage.schedule(NULL, '@daily')$$);
SELECT pg_temp.refused($$SELECT portage.schedule('nightli', '@daily')$$);
SELECT pg_temp.refused($$SELECT portage.schedule('plain', '@daily')$$);
CREATE FUNCTION refused_option(options jsonb) RETURNS SETOF text LANGUAGE sql AS
  $$ SELECT r FROM pg_temp.refused(format('SELECT portage.schedule(''nightly'', ''@daily'', %L)', options)) r WHERE r <> 'hint: See docs/reference.md for the options of a schedule.' $$;
SELECT refused_option('[]');
SELECT refused_option('{"time_zone": "UTC"}');
SELECT refused_option('{"workers": 4}');
SELECT refused_option('{"timezone": "Europe/Berlim"}');
SELECT refused_option('{"timezone": 1}');
SELECT refused_option('{"scope": null}');
SELECT refused_option('{"catch_up": "twice"}');
SELECT refused_option('{"catch_up": true}');
SELECT refused_option('{"deadline": "soon"}');
SELECT refused_option('{"deadline": "-1 hour"}');
SELECT refused_option('{"deadline": "0"}');
SELECT refused_option('{"deadline": 3600}');
SELECT refused_option('{"retry_attempts": -1}');
SELECT refused_option('{"retry_attempts": 101}');
SELECT refused_option('{"retry_attempts": "3"}');
SELECT refused_option('{"detect_only": "yes"}');
SELECT refused_option('{"detect_only": true, "options": {"dry_run": false}}');
SELECT refused_option('{"options": []}');
SELECT refused_option('{"options": {"wrokers": 4}}');
SELECT refused_option('{"options": {"batch_size": 0}}');
SELECT refused_option('{"blackout": {"from": "22:00", "to": "02:00"}}');
SELECT refused_option('{"blackout": ["22:00"]}');
SELECT refused_option('{"blackout": [{"from": "22:00"}]}');
SELECT refused_option('{"blackout": [{"from": "22:00", "to": "25:00"}]}');
SELECT refused_option('{"blackout": [{"from": "22:00", "to": "2:00"}]}');
SELECT refused_option('{"blackout": [{"from": "22:60", "to": "23:00"}]}');
SELECT refused_option('{"blackout": [{"from": "22:00", "to": "22:00"}]}');
SELECT refused_option('{"blackout": [{"from": "22:00", "to": "02:00", "day": ["mon"]}]}');
SELECT refused_option('{"blackout": [{"from": "22:00", "to": "02:00", "days": ["monday"]}]}');
SELECT refused_option('{"blackout": [{"from": "22:00", "to": "02:00", "days": []}]}');
SELECT refused_option('{"blackout": [{"from": "00:00", "to": "24:00"}]}');
SELECT refused_option('{"blackout": [{"from": "00:00", "to": "12:00"}, {"from": "12:00", "to": "00:00"}]}');
SELECT count(*) FROM portage.schedules;

-- 3. A schedule is known by its pipeline and scope; another one takes its place.
SELECT portage.schedule('nightly', '0 2 * * *') AS id \gset
SELECT portage.schedule('nightly', '@hourly', '{"scope": "x", "timezone": "America/New_York", "catch_up": "all", "deadline": "4 hours",
  "blackout": [{"from": "22:00", "to": "02:00", "days": ["sat", "sun"]}], "retry_attempts": 5, "detect_only": true, "options": {"workers": 2}}') <> :id AS another;
SELECT portage.schedule('nightly', '30 2 * * *') = :id AS in_its_place;
SELECT pipeline, scope, cron, timezone, options, last_run, last_due_at, skipped_missed, next_run_at > now() AS to_come FROM portage.schedules ORDER BY scope;
-- The heartbeat finds nothing to do before its time.
CALL portage.tick();
SELECT count(*) FROM portage.migration_runs WHERE pipeline = 'nightly';

-- 4. Who may: who may run the pipeline, and whose rights the pipeline's owner has. It is that role's from then on.
SET client_min_messages = warning;
CREATE ROLE schedules_owner;
CREATE ROLE schedules_runner;
CREATE ROLE schedules_other;
RESET client_min_messages;
GRANT USAGE ON SCHEMA schedules TO schedules_owner, schedules_runner, schedules_other;
GRANT SELECT ON source TO schedules_owner;
GRANT SELECT, INSERT ON t TO schedules_owner;
SET ROLE schedules_owner;
SELECT portage.create_pipeline('theirs', 't', '{"format": "rows", "legacy_id": "id", "columns": {"id": "id", "v": "v"}, "source": {"table": "source"}}') > 0 AS created;
RESET ROLE;
SELECT portage.grant_pipeline('schedules_owner/theirs', 'schedules_runner', 'run') > 0 AS granted;
SET ROLE schedules_other;
SELECT pg_temp.refused($$SELECT portage.schedule('theirs', '@daily')$$);
SELECT pg_temp.refused($$SELECT portage.unschedule('theirs')$$);
SET ROLE schedules_runner;
SELECT pg_temp.refused($$SELECT portage.schedule('theirs', '@daily')$$);
RESET ROLE;
GRANT schedules_runner TO schedules_owner;
SET ROLE schedules_runner;
SELECT portage.schedule('theirs', '@daily') > 0 AS scheduled;
SELECT pipeline, owner FROM portage.schedules;
SET ROLE schedules_owner;
SELECT portage.schedule('theirs', '@hourly') > 0 AS taken_over;
SET ROLE schedules_runner;
SELECT pipeline, owner FROM portage.schedules;
SELECT pg_temp.refused($$SELECT portage.schedule('theirs', '@daily')$$);
SELECT pg_temp.refused($$SELECT portage.unschedule('theirs')$$);
SET ROLE schedules_other;
SELECT count(*) FROM portage.schedules;
SELECT pg_temp.refused('SELECT count(*) FROM portage.schedule_rows');
SELECT pg_temp.refused($$CALL portage.tick(now => '2031-01-01')$$);
RESET ROLE;
-- A session that is limited to a scope.
SET portage.scope = 'y';
SELECT pg_temp.refused($$SELECT portage.schedule('nightly', '@daily', '{"scope": "x"}')$$);
SELECT count(*) FROM portage.schedules;
RESET portage.scope;

-- 5. The end of a schedule.
SELECT portage.unschedule('nightly') = :id AS ended;
SELECT pg_temp.refused($$SELECT portage.unschedule('nightly')$$);
SELECT pg_temp.refused($$SELECT portage.unschedule('nightly', 'z')$$);
SELECT portage.unschedule('nightly', 'x') > 0 AS ended;
SELECT portage.drop_pipeline('schedules_owner/theirs') > 0 AS dropped;
SELECT count(*) FROM portage.schedule_rows;
SELECT portage.unschedule('nightly', s.scope) FROM portage.schedules s;
CALL portage.tick(NULL);
\echo :LAST_ERROR_SQLSTATE
CALL portage.tick('infinity');
\echo :LAST_ERROR_SQLSTATE

-- Nothing is left for the next test.
SELECT count(portage.drop_pipeline(name, true)) > 0 AS dropped FROM portage.pipelines;
SET client_min_messages = warning;
DROP SCHEMA schedules CASCADE;
DROP ROLE schedules_owner, schedules_runner, schedules_other;
