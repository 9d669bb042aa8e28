-- The ledger that a careful DBA would make for a migration by hand: runs, what became of each item, and which row each
-- legacy id became. Much less than pg_portage's: no before-images, no row hashes, no raw input of what was refused.
CREATE SCHEMA hand;

CREATE TABLE hand.runs (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  landed     bigint,
  refused    bigint
);
CREATE TABLE hand.items (
  run_id    bigint NOT NULL,
  ordinal   bigint NOT NULL,
  status    text NOT NULL,
  legacy_id text,
  error     text,
  PRIMARY KEY (run_id, ordinal)
);
CREATE TABLE hand.mappings (
  scope       text NOT NULL,
  legacy_id   text NOT NULL,
  target_id   bigint NOT NULL,
  source_hash bigint NOT NULL,
  run_id      bigint NOT NULL,
  PRIMARY KEY (scope, legacy_id)
);
CREATE UNLOGGED TABLE hand.staging (ordinal bigint GENERATED ALWAYS AS IDENTITY, item jsonb);

-- Why a value of an item is refused; null: it is not. Inlined by the planner.
CREATE FUNCTION hand.is_integer(value text) RETURNS boolean LANGUAGE sql IMMUTABLE
  RETURN value ~ '^-?\d{1,9}$';
CREATE FUNCTION hand.is_moment(value text) RETURNS boolean LANGUAGE sql IMMUTABLE
  RETURN value ~ '^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\dZ$';
CREATE FUNCTION hand.is_date(value text) RETURNS boolean LANGUAGE sql IMMUTABLE
  RETURN value ~ '^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$';
CREATE FUNCTION hand.is_number(value text) RETURNS boolean LANGUAGE sql IMMUTABLE
  RETURN value ~ '^-?\d{1,9}(\.\d{1,9})?$';
