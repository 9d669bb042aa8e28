-- Roles as the ledger knows them: by their oids, see extension/ledger/roles.hpp. Tables keep a role's name beside its
-- oid, as it was then: for messages, and for a ledger whose roles are gone. In which cluster the oids mean these roles, known_roles says;
-- see extension/ledger/known_roles.hpp.

-- Not unique: two transactions that name a role for the first time must not wait for each other.
CREATE TABLE portage.known_roles (
  role    oid NOT NULL,
  name    name NOT NULL,
  gone    boolean NOT NULL DEFAULT false,
  cluster bigint NOT NULL
);
COMMENT ON TABLE portage.known_roles IS 'the roles that the ledger names; in a ledger that was restored into another cluster, none of them is trusted until adopt_roles()';
COMMENT ON COLUMN portage.known_roles.name IS 'what the role was called when tick(), health() or adopt_roles() last looked';
COMMENT ON COLUMN portage.known_roles.gone IS 'the role was dropped; for good, since its oid may be given to another';
COMMENT ON COLUMN portage.known_roles.cluster IS 'the system identifier of the cluster in which the role has this oid';
SELECT pg_catalog.pg_extension_config_dump('portage.known_roles', '');
ALTER TABLE portage.known_roles ENABLE ROW LEVEL SECURITY;

CREATE FUNCTION portage.known_roles_changed() RETURNS trigger
  LANGUAGE c AS 'MODULE_PATHNAME', 'portage_known_roles_changed';
COMMENT ON FUNCTION portage.known_roles_changed() IS 'has each session read known_roles anew';
REVOKE EXECUTE ON FUNCTION portage.known_roles_changed() FROM PUBLIC;
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON portage.known_roles
  FOR EACH STATEMENT EXECUTE FUNCTION portage.known_roles_changed();
ALTER TABLE portage.known_roles ENABLE ALWAYS TRIGGER changed;

-- In C, as policies and views ask them for each row: a query in them would be planned by every statement that does.
CREATE FUNCTION portage.acts_as(role oid) RETURNS boolean
  LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'portage_acts_as';
COMMENT ON FUNCTION portage.acts_as(oid) IS
  'true if the current user is the role, which the ledger names, or a member of it; for a role that is gone, true to superusers only';

CREATE FUNCTION portage.granted_to_caller(role oid) RETURNS boolean
  LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'portage_granted_to_caller';
COMMENT ON FUNCTION portage.granted_to_caller(oid) IS
  'true if what was granted to the role holds for the current user; 0 is public';

CREATE FUNCTION portage.role_name(role oid, name name) RETURNS name
  LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'portage_role_name';
COMMENT ON FUNCTION portage.role_name(oid, name) IS
  'the present name of a role that the ledger has recorded; the recorded one if the role is gone';
