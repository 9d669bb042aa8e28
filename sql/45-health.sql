-- How the server bears what runs do to it; see extension/run/health.hpp.

CREATE FUNCTION portage.health(OUT signal text, OUT value bigint, OUT threshold bigint, OUT unit text, OUT state text,
                               OUT explanation text) RETURNS SETOF record
  AS 'MODULE_PATHNAME', 'portage_health' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION portage.health() IS
  'the signals by which runs are held (state hold) or make smaller batches (halve), at this moment, over all running runs';
