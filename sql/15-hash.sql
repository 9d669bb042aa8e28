-- The hash that tells whether a row is still what it was: verification and rollback compare it with the one that
-- the ledger keeps (row_hash of a mapping).

CREATE FUNCTION portage.row_hash("row" record) RETURNS bigint
  LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'portage_row_hash';
COMMENT ON FUNCTION portage.row_hash(record) IS
  'hash of all columns of a row but generated ones: exact to the byte, the same whatever the settings, over dump, restore and major versions';

CREATE FUNCTION portage.row_hash("row" record, columns text[]) RETURNS bigint
  LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'portage_row_hash';
COMMENT ON FUNCTION portage.row_hash(record, text[]) IS
  'hash of the named columns of a row, taken in the order of the table whatever the order of the names';
