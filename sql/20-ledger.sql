-- The ledger: what was done, item by item. Only the extension writes these tables (extension/ledger/); what a
-- role may read of them is decided in 25-rights.sql. No foreign keys, no triggers: rows go in by multi-insert.

CREATE TABLE portage.migration_runs (
  id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  uuid             uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
  pipeline_id      bigint NOT NULL,
  pipeline         text NOT NULL COLLATE "C",
  pipeline_version integer NOT NULL,
  scope            text NOT NULL DEFAULT '' COLLATE "C",
  name             text,
  metadata         jsonb,
  status           text NOT NULL DEFAULT 'pending' CONSTRAINT run_status CHECK (status IN
                     ('pending', 'queued', 'running', 'paused', 'awaiting_resolution', 'verifying', 'completed',
                      'failed', 'cancelled', 'rolling_back', 'rolled_back')),
  current_step     text CONSTRAINT run_step CHECK (current_step IN
                     ('planning', 'validating', 'backing_up', 'importing', 'indexing', 'resolving', 'verifying', 'reporting',
                      'rolling_back')),
  options          jsonb NOT NULL DEFAULT '{}',
  total_items      bigint,
  read             bigint,
  inserted         bigint,
  updated          bigint,
  unchanged        bigint,
  skipped          bigint,
  conflicted       bigint,
  parked           bigint,
  invalid          bigint,
  failed           bigint,
  open_rejects     bigint,
  open_conflicts   bigint,
  open_parked      bigint,
  verified         boolean,
  created_at       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  started_at       timestamptz,
  completed_at     timestamptz,
  expires_at       timestamptz,
  session_role_oid oid NOT NULL,
  session_role     name NOT NULL,
  role_oid         oid NOT NULL,
  role_name        name NOT NULL,
  requested_by     text NOT NULL,
  error            text,
  error_class      text,
  error_code       text,
  redo_of          bigint,
  dry_run          boolean NOT NULL DEFAULT false,
  timezone         text NOT NULL,
  hash_columns     text[],
  hash_shape       text,
  first_xid        xid8,
  owner_pid        integer,
  owner_started_at timestamptz,
  owner_statement_at timestamptz,
  owner_lock       bigint,
  owner_lease      timestamptz,
  requested        text CONSTRAINT run_request CHECK (requested IN ('pause', 'cancel')),
  paused_from      text,
  background       boolean NOT NULL DEFAULT false,
  launched_at      timestamptz,
  hold_reason      text,
  workers          integer,
  writer           text CONSTRAINT run_writer CHECK (writer IN ('fast', 'sql')),
  writer_reason    text,
  rollback_options jsonb,
  replay_cursor    bigint,
  references_tried_at timestamptz,
  cleaned_at       timestamptz,
  purged_at        timestamptz,
  group_id         bigint,
  CONSTRAINT run_balance CHECK (read = inserted + updated + unchanged + skipped + conflicted + parked + invalid + failed)
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX migration_runs_uuid ON portage.migration_runs (uuid);
CREATE INDEX migration_runs_pipeline ON portage.migration_runs (pipeline_id, scope, id);
CREATE INDEX migration_runs_active ON portage.migration_runs (id)
  WHERE status IN ('queued', 'running', 'paused', 'verifying', 'rolling_back');
CREATE INDEX migration_runs_group ON portage.migration_runs (group_id) WHERE group_id IS NOT NULL;
CREATE INDEX migration_runs_parked ON portage.migration_runs (id) WHERE open_parked > 0;
COMMENT ON TABLE portage.migration_runs IS 'one execution of a pipeline; the counters are sums over its batches, written when it ends and by replays';
COMMENT ON COLUMN portage.migration_runs.role_oid IS 'the role as which sources and target are accessed, whoever resumes the run';
COMMENT ON COLUMN portage.migration_runs.role_name IS 'what the role was called when the run was opened';
COMMENT ON COLUMN portage.migration_runs.session_role_oid IS 'the role as which background workers connect for the run';
COMMENT ON COLUMN portage.migration_runs.hash_columns IS 'the columns that row_hash covers in this run: those that its role may read';
COMMENT ON COLUMN portage.migration_runs.hash_shape IS 'what these columns were, in the order of their names: number, type, modifier, and whether mapped; and the labels of enums';
COMMENT ON COLUMN portage.migration_runs.cleaned_at IS 'when cleanup() dropped what the run had kept for later: it cannot be taken back any more';
COMMENT ON COLUMN portage.migration_runs.purged_at IS 'when retention erased what is known of the run''s items; infinity: it has begun to';
COMMENT ON COLUMN portage.migration_runs.group_id IS 'the group (run_groups) whose member the run is';
COMMENT ON COLUMN portage.migration_runs.owner_pid IS 'the backend that works on the run; a run whose owner is gone shows as interrupted';
COMMENT ON COLUMN portage.migration_runs.owner_statement_at IS 'when the statement began (pg_stat_activity.query_start) that works on the run: with its end the run has no owner, though the session lives';
COMMENT ON COLUMN portage.migration_runs.owner_lock IS 'the key of the advisory lock on pipeline and scope, which the owner''s transactions hold: who holds it is at work, though its lease has run out';
COMMENT ON COLUMN portage.migration_runs.owner_lease IS 'until when the owner has promised a sign of life (portage.lease_duration)';
COMMENT ON COLUMN portage.migration_runs.requested IS 'what an operator wants of the owner; it obeys between two batches';
COMMENT ON COLUMN portage.migration_runs.paused_from IS 'the state to which resume() returns';
COMMENT ON COLUMN portage.migration_runs.background IS 'a background worker is to work on the run, and another one if that goes away';
COMMENT ON COLUMN portage.migration_runs.launched_at IS 'when a background worker was last asked for';
COMMENT ON COLUMN portage.migration_runs.hold_reason IS 'why the run holds at this moment: it goes on by itself';
COMMENT ON COLUMN portage.migration_runs.workers IS 'how many workers may import the run side by side';
COMMENT ON COLUMN portage.migration_runs.writer IS 'how rows were inserted when the run was last begun: fast, as COPY does it, or by SQL';
COMMENT ON COLUMN portage.migration_runs.writer_reason IS 'why by this writer';
COMMENT ON COLUMN portage.migration_runs.rollback_options IS 'how the run is, or was, rolled back: drifted and cascade, and from which state';
COMMENT ON COLUMN portage.migration_runs.references_tried_at IS 'when parked items were last looked at again; null: not since the run ended';
COMMENT ON COLUMN portage.migration_runs.replay_cursor IS 'the last item that an interrupted replay_run() tried; null: none is to be resumed';

CREATE TABLE portage.migration_parts (
  run_id       bigint NOT NULL,
  part         integer NOT NULL,
  kind         text NOT NULL CONSTRAINT part_kind CHECK (kind IN ('payload', 'file', 'query', 'large_object')),
  name         text NOT NULL,
  path         text,
  query        text,
  search_path  text,
  key_columns  text[],
  last_key     text,
  large_object oid,
  byte_length  bigint,
  sha256       bytea,
  data_version text,
  device       bigint,
  inode        bigint,
  modified_at  timestamptz,
  created_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  skipped      text,
  cursor_column text,
  cursor_type  text,
  source_table text,
  cursor_from  text,
  PRIMARY KEY (run_id, part)
);
COMMENT ON TABLE portage.migration_parts IS 'one payload, file, query or large object of a run, in order of submission';
COMMENT ON COLUMN portage.migration_parts.last_key IS 'query: the greatest key when the run was sealed; what comes after it is the next run''s';
COMMENT ON COLUMN portage.migration_parts.cursor_column IS 'query: the first column of its key, by which later runs read on';
COMMENT ON COLUMN portage.migration_parts.source_table IS 'query with a cursor: the table that it reads, if it is one';
COMMENT ON COLUMN portage.migration_parts.cursor_from IS 'the cursor''s value from which on the run reads; null: from the beginning';
COMMENT ON COLUMN portage.migration_parts.skipped IS 'why the whole part was not read, if it was not';

CREATE TABLE portage.migration_payloads (
  run_id   bigint NOT NULL,
  part     integer NOT NULL,
  chunk_no integer NOT NULL,
  sha256   bytea NOT NULL,
  content  bytea NOT NULL,
  PRIMARY KEY (run_id, part, chunk_no)
);
COMMENT ON TABLE portage.migration_payloads IS 'the bytes that were submitted, in chunks; droppable by retention';

CREATE TABLE portage.migration_ranges (
  run_id          bigint NOT NULL,
  part            integer NOT NULL,
  range_no        integer NOT NULL,
  first_ordinal   bigint NOT NULL,
  next_ordinal    bigint NOT NULL,
  cursor_ordinal  bigint NOT NULL,
  end_ordinal     bigint,
  next_byte       bigint NOT NULL,
  next_line       bigint NOT NULL,
  reader_state    text NOT NULL DEFAULT '',
  last_key        text,
  done            boolean NOT NULL DEFAULT false,
  owner_pid       integer,
  owner_started_at timestamptz,
  owner_statement_at timestamptz,
  lease_expires   timestamptz,
  epoch           bigint NOT NULL DEFAULT 0,
  attempts        integer NOT NULL DEFAULT 0,
  last_error      text,
  PRIMARY KEY (run_id, part, range_no)
) WITH (fillfactor = 50);
COMMENT ON TABLE portage.migration_ranges IS 'a stretch of a part that one worker owns at a time, with its cursor';
COMMENT ON COLUMN portage.migration_ranges.cursor_ordinal IS 'ordinal of the item at next_byte; items before next_ordinal are already in the ledger';
COMMENT ON COLUMN portage.migration_ranges.end_ordinal IS 'ordinal behind the last item of the range; null: as far as the part reaches';
COMMENT ON COLUMN portage.migration_ranges.lease_expires IS 'until when nobody else takes the range, unless its owner is gone';

CREATE TABLE portage.migration_batches (
  id            bigint GENERATED ALWAYS AS IDENTITY,
  run_id        bigint NOT NULL,
  kind          text NOT NULL CONSTRAINT batch_kind CHECK (kind IN ('import', 'settle', 'replay', 'resolve', 'rollback', 'missing')),
  part          integer,
  range_no      integer,
  first_ordinal bigint,
  last_ordinal  bigint,
  read          bigint NOT NULL DEFAULT 0,
  inserted      bigint NOT NULL DEFAULT 0,
  updated       bigint NOT NULL DEFAULT 0,
  unchanged     bigint NOT NULL DEFAULT 0,
  skipped       bigint NOT NULL DEFAULT 0,
  conflicted    bigint NOT NULL DEFAULT 0,
  parked        bigint NOT NULL DEFAULT 0,
  invalid       bigint NOT NULL DEFAULT 0,
  failed        bigint NOT NULL DEFAULT 0,
  rolled_back   bigint NOT NULL DEFAULT 0,
  deleted       bigint NOT NULL DEFAULT 0,
  epoch         bigint NOT NULL DEFAULT 0,
  xid           xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
  started_at    timestamptz NOT NULL,
  finished_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  bytes         bigint NOT NULL DEFAULT 0,
  ambiguous_dates bigint NOT NULL DEFAULT 0,
  timings       jsonb,
  wal_bytes     bigint,
  memory_bytes  bigint,
  PRIMARY KEY (run_id, id),
  CONSTRAINT batch_balance CHECK (read = inserted + updated + unchanged + skipped + conflicted + parked + invalid + failed),
  CONSTRAINT batch_span CHECK (kind <> 'import' OR read = last_ordinal - first_ordinal + 1)
);
COMMENT ON TABLE portage.migration_batches IS 'a finished batch, inserted in the batch''s own transaction; what does not balance cannot commit';
COMMENT ON COLUMN portage.migration_batches.ambiguous_dates IS
  'values that are two dates, by the order of day and month, where the definition does not say which order is meant';
COMMENT ON COLUMN portage.migration_batches.timings IS 'milliseconds per phase: read, convert, look_up, target, ledger, commit (of the batch before), and cpu of all';
COMMENT ON COLUMN portage.migration_batches.wal_bytes IS 'WAL that the backend has written since the batch before';
COMMENT ON COLUMN portage.migration_batches.memory_bytes IS 'private memory of the backend at the end of the batch';

CREATE TABLE portage.item_rows (
  run_id      bigint NOT NULL,
  ordinal     bigint NOT NULL,
  revision    integer NOT NULL,
  part        integer NOT NULL,
  line        bigint NOT NULL,
  byte_offset bigint NOT NULL,
  byte_length bigint NOT NULL,
  status      text NOT NULL COLLATE "C",
  legacy_id   text COLLATE "C",
  target_key  text COLLATE "C",
  error_class text COLLATE "C",
  rule        text COLLATE "C",
  sqlstate    text COLLATE "C",
  column_name text COLLATE "C",
  message     text,
  issues      jsonb,
  raw         bytea,
  actor       text,
  PRIMARY KEY (run_id, ordinal, revision)
);
CREATE INDEX item_rows_rejects ON portage.item_rows (run_id, ordinal, revision)
  WHERE status IN ('invalid', 'failed', 'skipped', 'conflicted', 'parked');
COMMENT ON COLUMN portage.item_rows.actor IS 'who replayed the item to this outcome; null: the run itself';
COMMENT ON TABLE portage.item_rows IS 'an item and its outcome, where that says more than that it landed; never rewritten, later outcomes are new revisions; read it through migration_items';

-- What a run's import has landed without a remark, hence nearly all: a row per thousand items (extension/ledger/pack.hpp).
CREATE TABLE portage.item_packs (
  run_id        bigint NOT NULL,
  first_ordinal bigint NOT NULL,
  part          integer NOT NULL,
  items         integer NOT NULL,
  content       bytea NOT NULL,
  PRIMARY KEY (run_id, first_ordinal)
);
COMMENT ON TABLE portage.item_packs IS 'items that landed, packed; read them through migration_items';
COMMENT ON COLUMN portage.item_packs.content IS 'place, outcome, legacy id and target key of each item, in ascending order';

DO $$
BEGIN
  ALTER TABLE portage.migration_payloads ALTER COLUMN content SET COMPRESSION lz4;
  ALTER TABLE portage.item_packs ALTER COLUMN content SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
  NULL;  -- a server built without lz4 compresses with pglz
END $$;

CREATE FUNCTION portage.packed_items_handler() RETURNS fdw_handler
  AS 'MODULE_PATHNAME', 'portage_packed_items_handler' LANGUAGE C STRICT;
REVOKE EXECUTE ON FUNCTION portage.packed_items_handler() FROM PUBLIC;
COMMENT ON FUNCTION portage.packed_items_handler() IS 'shows item_packs as packed_items';
CREATE FOREIGN DATA WRAPPER portage_items HANDLER portage.packed_items_handler;
COMMENT ON FOREIGN DATA WRAPPER portage_items IS 'shows the packed items of the ledger of pg_portage as rows';
CREATE SERVER portage_items FOREIGN DATA WRAPPER portage_items;
COMMENT ON SERVER portage_items IS 'the packed items of the ledger of pg_portage';
CREATE FOREIGN TABLE portage.packed_items (
  run_id      bigint NOT NULL,
  ordinal     bigint NOT NULL,
  revision    integer NOT NULL,
  part        integer NOT NULL,
  line        bigint NOT NULL,
  byte_offset bigint NOT NULL,
  byte_length bigint NOT NULL,
  status      text NOT NULL COLLATE "C",
  legacy_id   text COLLATE "C",
  target_key  text COLLATE "C",
  error_class text COLLATE "C",
  rule        text COLLATE "C",
  sqlstate    text COLLATE "C",
  column_name text COLLATE "C",
  message     text,
  issues      jsonb,
  raw         bytea,
  actor       text
) SERVER portage_items;
COMMENT ON FOREIGN TABLE portage.packed_items IS 'item_packs with a row per item, as in item_rows; finds one item without unpacking the run';

CREATE VIEW portage.all_items AS SELECT * FROM portage.item_rows UNION ALL SELECT * FROM portage.packed_items;
COMMENT ON VIEW portage.all_items IS 'every outcome of every item, wherever it is kept';


CREATE TABLE portage.item_corrections (
  run_id       bigint NOT NULL,
  ordinal      bigint NOT NULL,
  revision     integer NOT NULL,
  raw          bytea NOT NULL,
  actor        text NOT NULL,
  corrected_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  PRIMARY KEY (run_id, ordinal, revision)
);
COMMENT ON TABLE portage.item_corrections IS 'corrected raw input that was replayed instead of the source''s; read it through corrections';
COMMENT ON COLUMN portage.item_corrections.revision IS 'the outcome that it led to; later revisions are of the same input';

CREATE TABLE portage.mapping_rows (
  pipeline_id bigint NOT NULL,
  scope       text NOT NULL COLLATE "C",
  legacy_id   text NOT NULL COLLATE "C",
  target_key  text NOT NULL COLLATE "C",
  origin      text NOT NULL COLLATE "C" CONSTRAINT mapping_origin CHECK (origin IN ('inserted', 'adopted', 'overwritten')),
  source_hash bigint NOT NULL,
  row_hash    bigint NOT NULL,
  run_id      bigint NOT NULL,
  ordinal     bigint NOT NULL,
  image       text[],
  missing_since timestamptz,
  PRIMARY KEY (pipeline_id, scope, legacy_id)
);
CREATE INDEX mapping_rows_missing ON portage.mapping_rows (pipeline_id, scope, legacy_id)
  WHERE missing_since IS NOT NULL;
COMMENT ON TABLE portage.mapping_rows IS 'which target row a legacy id became, where that is not packed; read it through legacy_mappings';

-- What an import has mapped in the order of its ids, and nobody has touched since, hence nearly all of a first
-- import: a row per page (extension/ledger/mapping_packs.hpp). Never out of line, never compressed.
CREATE TABLE portage.mapping_packs (
  pipeline_id bigint NOT NULL,
  scope       text NOT NULL COLLATE "C",
  first_key   bytea NOT NULL,
  last_key    bytea NOT NULL,
  content     bytea NOT NULL,
  entries     integer NOT NULL,
  run_id      bigint NOT NULL,
  PRIMARY KEY (pipeline_id, scope, first_key)
);
ALTER TABLE portage.mapping_packs ALTER COLUMN scope SET STORAGE PLAIN, ALTER COLUMN first_key SET STORAGE PLAIN,
  ALTER COLUMN last_key SET STORAGE PLAIN, ALTER COLUMN content SET STORAGE PLAIN;
COMMENT ON TABLE portage.mapping_packs IS 'mappings, packed; read them through legacy_mappings';
COMMENT ON COLUMN portage.mapping_packs.first_key IS 'no legacy id of the pack comes before it: length of the id in two bytes, then its bytes';
COMMENT ON COLUMN portage.mapping_packs.last_key IS 'nor one behind it; packs of a pipeline and scope do not reach into each other';
COMMENT ON COLUMN portage.mapping_packs.content IS 'legacy id, target key, origin, both hashes and ordinal of each, in ascending order of their ids';
COMMENT ON COLUMN portage.mapping_packs.run_id IS 'the run that wrote them all';

CREATE FUNCTION portage.packed_mappings_handler() RETURNS fdw_handler
  AS 'MODULE_PATHNAME', 'portage_packed_mappings_handler' LANGUAGE C STRICT;
REVOKE EXECUTE ON FUNCTION portage.packed_mappings_handler() FROM PUBLIC;
COMMENT ON FUNCTION portage.packed_mappings_handler() IS 'shows mapping_packs as packed_mappings';
CREATE FOREIGN DATA WRAPPER portage_mappings HANDLER portage.packed_mappings_handler;
COMMENT ON FOREIGN DATA WRAPPER portage_mappings IS 'shows the packed mappings of the ledger of pg_portage as rows';
CREATE SERVER portage_mappings FOREIGN DATA WRAPPER portage_mappings;
COMMENT ON SERVER portage_mappings IS 'the packed mappings of the ledger of pg_portage';
CREATE FOREIGN TABLE portage.packed_mappings (
  pipeline_id bigint NOT NULL,
  scope       text NOT NULL COLLATE "C",
  legacy_id   text NOT NULL COLLATE "C",
  target_key  text NOT NULL COLLATE "C",
  origin      text NOT NULL COLLATE "C",
  source_hash bigint NOT NULL,
  row_hash    bigint NOT NULL,
  run_id      bigint NOT NULL,
  ordinal     bigint NOT NULL,
  image       text[],
  missing_since timestamptz
) SERVER portage_mappings;
COMMENT ON FOREIGN TABLE portage.packed_mappings IS 'mapping_packs with a row per mapping, as in mapping_rows; finds one by pipeline, scope and legacy id without unpacking the others';

CREATE VIEW portage.all_mappings AS SELECT * FROM portage.mapping_rows UNION ALL SELECT * FROM portage.packed_mappings;
COMMENT ON VIEW portage.all_mappings IS 'every mapping, wherever it is kept';
COMMENT ON COLUMN portage.all_mappings.image IS
  'with on_conflict merge and ask: {{column, value in the row, value of the source}, ...} when the item was last migrated: the base of the next three-way merge';
COMMENT ON COLUMN portage.all_mappings.source_hash IS 'hash of the incoming typed values: change detection';
COMMENT ON COLUMN portage.all_mappings.row_hash IS 'hash of the stored row after triggers and defaults: drift detection';
COMMENT ON COLUMN portage.all_mappings.missing_since IS 'when the run began that found the item gone from its source; null: it is there';

CREATE TABLE portage.source_cursors (
  pipeline_id   bigint NOT NULL,
  scope         text NOT NULL COLLATE "C",
  run_id        bigint NOT NULL,
  source        text NOT NULL,
  cursor_column text NOT NULL,
  position      text NOT NULL,
  batch_id      bigint NOT NULL,
  moved_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  PRIMARY KEY (pipeline_id, scope, run_id)
);
COMMENT ON TABLE portage.source_cursors IS 'up to where a run has read the source of its pipeline; the row moved last is where the next run reads on';
COMMENT ON COLUMN portage.source_cursors.source IS 'the query that was read; the positions of another one do not count for it';
COMMENT ON COLUMN portage.source_cursors.position IS 'the cursor''s value in the last row that was read, as text';
COMMENT ON COLUMN portage.source_cursors.batch_id IS 'the batch that moved it: a rollback forgets what was reached since the run''s first batch';

CREATE TABLE portage.migration_undo (
  run_id             bigint NOT NULL,
  ordinal            bigint NOT NULL,
  revision           integer NOT NULL,
  target_key         text NOT NULL COLLATE "C",
  columns            text[],
  before             text[],
  before_hash        bigint,
  mapping_target_key text COLLATE "C",
  mapping_origin     text COLLATE "C",
  mapping_source_hash bigint,
  mapping_row_hash   bigint,
  mapping_run_id     bigint,
  mapping_ordinal    bigint,
  batch_id           bigint NOT NULL,
  after_hashes       bigint[],
  mapping_image      text[],
  PRIMARY KEY (run_id, ordinal, revision)
);
-- Who wrote a row after whom. By hash: a key may be longer than a b-tree takes.
CREATE INDEX migration_undo_row ON portage.migration_undo (pg_catalog.hashtextextended(target_key, 0), batch_id)
  WHERE columns IS NOT NULL;
COMMENT ON TABLE portage.migration_undo IS 'before-images: the columns that an item changed in its row, and the mapping that it replaced';
COMMENT ON COLUMN portage.migration_undo.batch_id IS 'the batch that wrote the row: of two that wrote the same row the later one has the higher number';
COMMENT ON COLUMN portage.migration_undo.after_hashes IS 'hashes of what the columns were changed to, by which a later before-image is known to be this item''s work';

CREATE TABLE portage.row_moves (
  run_id   bigint NOT NULL,
  ordinal  bigint NOT NULL,
  batch_id bigint NOT NULL,
  from_key text NOT NULL COLLATE "C",
  to_key   text COLLATE "C",
  back_id  bigint,
  PRIMARY KEY (run_id, ordinal, batch_id)
);
CREATE INDEX row_moves_from ON portage.row_moves (pg_catalog.hashtextextended(from_key, 0), batch_id);
CREATE INDEX row_moves_to ON portage.row_moves (pg_catalog.hashtextextended(to_key, 0));
COMMENT ON TABLE portage.row_moves IS 'rows of targets that have another key since: by an item, or by taking one back. Who knows a row by the key that it had follows it';
COMMENT ON COLUMN portage.row_moves.batch_id IS 'when: numbers as those of batches';
COMMENT ON COLUMN portage.row_moves.to_key IS 'null: the row was deleted, which others must know that had written it';
COMMENT ON COLUMN portage.row_moves.back_id IS 'of a row that was deleted and has returned: when that was; in between it was not there';

CREATE TABLE portage.missing_rows (
  run_id              bigint NOT NULL,
  seq                 bigint NOT NULL,
  pipeline_id         bigint NOT NULL,
  scope               text NOT NULL COLLATE "C",
  legacy_id           text NOT NULL COLLATE "C",
  target_key          text NOT NULL COLLATE "C",
  status              text NOT NULL COLLATE "C" CONSTRAINT missing_status CHECK (status IN
                        ('found', 'marked', 'deleted', 'restored', 'taken_back')),
  reason              text COLLATE "C",
  columns             text[],
  before              text[],
  before_hash         bigint,
  mapping_source_hash bigint NOT NULL,
  mapping_row_hash    bigint NOT NULL,
  mapping_run_id      bigint NOT NULL,
  mapping_ordinal     bigint NOT NULL,
  mapping_image       text[],
  missing_since       timestamptz,
  batch_id            bigint,
  PRIMARY KEY (run_id, seq)
);
CREATE INDEX missing_rows_deleted ON portage.missing_rows (pipeline_id, scope, legacy_id) WHERE status = 'deleted';
COMMENT ON TABLE portage.missing_rows IS 'items that a run found gone from its source, with the rows that it deleted; read it through missing_items';
COMMENT ON COLUMN portage.missing_rows.status IS
  'found: still to be settled; marked; deleted: row and mapping; restored: by a rollback; taken_back: so was the run that had written the row';
COMMENT ON COLUMN portage.missing_rows.reason IS 'why the row was not deleted';
COMMENT ON COLUMN portage.missing_rows.before IS 'the whole row that was deleted, column by column';
COMMENT ON COLUMN portage.missing_rows.mapping_run_id IS 'the mapping that was deleted with the row: who wrote it';
COMMENT ON COLUMN portage.missing_rows.missing_since IS 'what the mapping said of that before';

CREATE TABLE portage.migration_conflicts (
  run_id        bigint NOT NULL,
  ordinal       bigint NOT NULL,
  revision      integer NOT NULL,
  legacy_id     text COLLATE "C",
  target_key    text NOT NULL COLLATE "C",
  incoming      jsonb NOT NULL,
  existing      jsonb NOT NULL,
  base          jsonb,
  disputed      text[] NOT NULL,
  existing_hash bigint NOT NULL,
  suggested     text NOT NULL COLLATE "C",
  resolution    text COLLATE "C" CONSTRAINT conflict_resolution CHECK (resolution IN ('incoming', 'existing', 'merged', 'value')),
  value         jsonb,
  resolved_by   text,
  resolved_at   timestamptz,
  PRIMARY KEY (run_id, ordinal, revision)
);
COMMENT ON TABLE portage.migration_conflicts IS 'an item that waits, or waited, for a decision; open as long as it has no later outcome; read it through open_conflicts';
COMMENT ON COLUMN portage.migration_conflicts.base IS 'what the source said when the item was last migrated; null: it never was';
COMMENT ON COLUMN portage.migration_conflicts.disputed IS 'the columns on which source and target disagree, both having changed since';
COMMENT ON COLUMN portage.migration_conflicts.existing_hash IS 'hash of the row''s mapped columns: whether it is still the row that was looked at';

CREATE TABLE portage.predictions (
  run_id  bigint NOT NULL,
  session integer NOT NULL,
  kind    text NOT NULL COLLATE "C",
  key     text NOT NULL COLLATE "C",
  ordinal bigint NOT NULL,
  PRIMARY KEY (run_id, session, kind, key)
);
COMMENT ON TABLE portage.predictions IS
  'what a dry run or a validation would have written up to now, so that duplicates between batches are predicted; empty when it has ended';
COMMENT ON COLUMN portage.predictions.session IS '0: of the run itself; else the backend that validates it';
COMMENT ON COLUMN portage.predictions.kind IS 'id: a legacy id; key: the key of a row that stands in the target; else the index whose key values are hashed in key';

CREATE TABLE portage.data_integrity_checks (
  run_id     bigint NOT NULL,
  name       text NOT NULL COLLATE "C",
  severity   text NOT NULL CONSTRAINT check_severity CHECK (severity IN ('warning', 'error', 'critical')),
  expected   text,
  actual     text,
  passed     boolean NOT NULL,
  details    jsonb NOT NULL DEFAULT '{}',
  checked_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  PRIMARY KEY (run_id, checked_at, name)
);
COMMENT ON TABLE portage.data_integrity_checks IS 'one check of one verification of a run: what was expected, what was found';
COMMENT ON COLUMN portage.data_integrity_checks.details IS 'the first few findings by ordinal or key; rows that others changed since are counted here and are no failure';

CREATE TABLE portage.migration_events (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  run_id     bigint NOT NULL,
  seq        bigint NOT NULL,
  event_type text NOT NULL COLLATE "C",
  actor      text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  details    jsonb NOT NULL DEFAULT '{}'
);
CREATE UNIQUE INDEX migration_events_run ON portage.migration_events (run_id, seq);
COMMENT ON TABLE portage.migration_events IS 'what happened to a run, append-only: audit log, history and outbox in one';
COMMENT ON COLUMN portage.migration_events.run_id IS 'the run; 0: the event is of a pipeline, which the details name';

-- Dump and restore carry the ledger and its numbering.
SELECT pg_catalog.pg_extension_config_dump('portage.migration_runs', '');
SELECT pg_catalog.pg_extension_config_dump('portage.migration_runs_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('portage.migration_parts', '');
SELECT pg_catalog.pg_extension_config_dump('portage.migration_payloads', '');
SELECT pg_catalog.pg_extension_config_dump('portage.migration_ranges', '');
SELECT pg_catalog.pg_extension_config_dump('portage.migration_batches', '');
SELECT pg_catalog.pg_extension_config_dump('portage.migration_batches_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('portage.item_rows', '');
SELECT pg_catalog.pg_extension_config_dump('portage.item_packs', '');
SELECT pg_catalog.pg_extension_config_dump('portage.item_corrections', '');
SELECT pg_catalog.pg_extension_config_dump('portage.mapping_rows', '');
SELECT pg_catalog.pg_extension_config_dump('portage.mapping_packs', '');
SELECT pg_catalog.pg_extension_config_dump('portage.source_cursors', '');
SELECT pg_catalog.pg_extension_config_dump('portage.migration_undo', '');
SELECT pg_catalog.pg_extension_config_dump('portage.row_moves', '');
SELECT pg_catalog.pg_extension_config_dump('portage.missing_rows', '');
SELECT pg_catalog.pg_extension_config_dump('portage.migration_conflicts', '');
SELECT pg_catalog.pg_extension_config_dump('portage.predictions', '');
SELECT pg_catalog.pg_extension_config_dump('portage.data_integrity_checks', '');
SELECT pg_catalog.pg_extension_config_dump('portage.migration_events', '');
SELECT pg_catalog.pg_extension_config_dump('portage.migration_events_id_seq', '');
