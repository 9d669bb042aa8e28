-- Run once, when the container's database is created. pg_cron works in the database postgres.
CREATE EXTENSION pg_cron;
CREATE EXTENSION pg_portage;
