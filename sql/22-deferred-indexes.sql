-- What initial loads take away from their targets, and have to put back; see extension/run/initial_load.hpp.

CREATE TABLE portage.deferred_indexes (
  run_id                bigint NOT NULL,
  position              integer NOT NULL,
  index_schema          text NOT NULL COLLATE "C",
  index_name            text NOT NULL COLLATE "C",
  is_unique             boolean NOT NULL,
  is_key                boolean NOT NULL,
  definition            text NOT NULL,
  constraint_name       text COLLATE "C",
  constraint_definition text,
  tablespace            text COLLATE "C",
  index_comment         text,
  constraint_comment    text,
  columns               text[] NOT NULL,
  stays                 text,
  restored_at           timestamptz,
  PRIMARY KEY (run_id, position)
);
CREATE INDEX deferred_indexes_missing ON portage.deferred_indexes (run_id) WHERE stays IS NULL AND restored_at IS NULL;
COMMENT ON TABLE portage.deferred_indexes IS
  'the indexes of a target as an initial load found them; those that it took away it builds again when all is imported';
COMMENT ON COLUMN portage.deferred_indexes.is_key IS 'whether rows of the target are found by it: it is put back first';
COMMENT ON COLUMN portage.deferred_indexes.definition IS 'the statement that makes the index again, but for its tablespace';
COMMENT ON COLUMN portage.deferred_indexes.constraint_definition IS 'the kind of constraint that the index serves, and whether it can be deferred';
COMMENT ON COLUMN portage.deferred_indexes.tablespace IS 'where the index is; null: in the tablespace of the database';
COMMENT ON COLUMN portage.deferred_indexes.columns IS 'the columns of a unique index';
COMMENT ON COLUMN portage.deferred_indexes.stays IS 'why the index was not taken away; null: it was';
COMMENT ON COLUMN portage.deferred_indexes.restored_at IS 'when the index was there again; null: it is missing, unless it stays';

-- It is read as the other tables without raw data are: by whoever may see the run.
ALTER TABLE portage.deferred_indexes ENABLE ROW LEVEL SECURITY;
CREATE POLICY indexes_of_runs ON portage.deferred_indexes FOR SELECT
  USING (run_id IN (SELECT r.id FROM portage.migration_runs r));
GRANT SELECT ON portage.deferred_indexes TO PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('portage.deferred_indexes', '');
