"""An ordinary role that means harm, for tests about rights: a schema of its own, and a canary that it puts into every
place where PostgreSQL runs users' code. The canary tries all that would be a gain, each attempt for itself, and tells in
the server's log, which no rollback takes back, where it sat, as whom it ran, and what it got.

    canaries = Canaries(server)
    mallory = Attacker(server, admin, 'mallory')
    mallory.rows(...)                            # in a session of its own, in schema mallory
    ... somebody does something ...
    for note in canaries.new(): note.door, note.session, note.user, note.restricted, note.gains
"""

import re
from dataclasses import dataclass

from sessions import Session

VAULT = 'vault.secret'  # a table of role victim that nobody else may read
MARKER = 'hostile.marker'

# Each attempt is a subtransaction of its own. What would become somebody is undone by the end of the attempt, if it worked,
# after the vault and the role's own attributes were tried as that somebody.
CANARY = """
CREATE FUNCTION {name}.canary(door pg_catalog.text) RETURNS boolean LANGUAGE plpgsql AS $canary$
DECLARE
  who pg_catalog.text := pg_catalog.concat(session_user, '|', current_user);
  gains pg_catalog.text[] := '{{}}';
  restricted boolean := true;
  attempt pg_catalog.text;
BEGIN
  BEGIN  -- what a security-restricted operation forbids
    EXECUTE 'PREPARE hostile AS SELECT 1';
    EXECUTE 'DEALLOCATE hostile';
    restricted := false;
  EXCEPTION WHEN insufficient_privilege THEN NULL; WHEN OTHERS THEN restricted := NULL;
  END;
  FOREACH attempt IN ARRAY ARRAY['RESET ROLE', 'SET ROLE victim', 'SET ROLE postgres', 'SET ROLE pool', 'SET ROLE NONE',
      'SET SESSION AUTHORIZATION DEFAULT', 'SET SESSION AUTHORIZATION postgres', 'SET SESSION AUTHORIZATION victim', ''] LOOP
    BEGIN
      DECLARE
        before pg_catalog.text := current_user;
        got pg_catalog.text := '';
      BEGIN
        EXECUTE attempt;
        IF current_user IS DISTINCT FROM before THEN got := pg_catalog.concat(' became ', current_user); END IF;
        BEGIN
          PERFORM FROM {vault};
          got := pg_catalog.concat(got, ' read the vault');
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
        BEGIN
          EXECUTE 'ALTER ROLE {name} SUPERUSER';
          got := pg_catalog.concat(got, ' made itself superuser');
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
        RAISE EXCEPTION USING ERRCODE = 'HOSTI', MESSAGE = got;
      END;
    EXCEPTION WHEN SQLSTATE 'HOSTI' THEN
      IF SQLERRM <> '' THEN gains := gains OPERATOR(pg_catalog.||) pg_catalog.concat(attempt, ':', SQLERRM); END IF;
    WHEN OTHERS THEN NULL;
    END;
  END LOOP;
  RAISE LOG 'canary|%|%|%|%', door, who, coalesce(restricted::pg_catalog.text, '?'), pg_catalog.array_to_string(gains, '; ');
  RETURN true;
END $canary$;
"""

NOTE = re.compile(r'canary\|([^|\n]*)\|([^|\n]*)\|([^|\n]*)\|([^|\n]*)\|([^\n]*)')


@dataclass(frozen=True)
class Note:
    """What one canary told: `gains` is what it got that its role has not, '' if nothing."""
    door: str
    session: str
    user: str
    restricted: str  # t, f; ? where it could not be told
    gains: str


class Canaries:
    """What canaries have told since the last look."""

    def __init__(self, server):
        self.path, self.seen = server.log, 0
        self.new()

    def new(self):
        with open(self.path, 'rb') as log:
            log.seek(self.seen)
            text = log.read()
        whole = text.rfind(b'\n') + 1
        self.seen += whole
        return [Note(*found) for found in NOTE.findall(text[:whole].decode('utf-8', 'replace'))]


class Attacker(Session):
    """A session of an ordinary role with a schema of its own, which others may use as far as it lets them."""

    def __init__(self, server, admin, name):
        self.name, self.server, self.admin = name, server, admin
        admin.rows(f'CREATE ROLE {name} LOGIN')
        admin.rows(f'CREATE SCHEMA {name} AUTHORIZATION {name}')
        super().__init__(server, name)
        self.rows(f'GRANT USAGE ON SCHEMA {name} TO PUBLIC')
        self.rows(CANARY.format(name=name, vault=VAULT))
        self.rows(f"""CREATE FUNCTION {name}.note() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM {name}.canary(TG_ARGV[0]); IF TG_OP = 'DELETE' THEN RETURN OLD; END IF; RETURN NEW; END $$""")
        # Indexes and the like take immutable functions only; what these call nobody asks.
        self.rows(f'CREATE FUNCTION {name}.innocent(door text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS '
                  '$$ BEGIN RETURN true; END $$')

    def arm(self):
        """What looked innocent when it was built in, bites from now on."""
        self.rows(f'CREATE OR REPLACE FUNCTION {self.name}.innocent(door text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS '
                  f'$$ BEGIN RETURN {self.name}.canary(door); END $$')

    def is_superuser(self):
        return self.admin.value('SELECT rolsuper FROM pg_roles WHERE rolname = %s', self.name)
