"""An ordinary role that means harm, for tests about rights: a schema of its own, and a canary that it puts into every
place where PostgreSQL runs users' code. The canary tries all that would be a gain, each attempt for itself, and tells in
the server's log, which no rollback takes back, where it sat, as whom it ran, and what it got.

    canaries = Canaries(server)
    mallory = Attacker(server, admin, 'mallory')
    mallory.rows(...)                            # in a session of its own, in schema mallory
    ... somebody does something ...
    for note in canaries.new(): note.owner, note.door, note.session, note.user, note.restricted, note.gains

doors.py has the places.
"""

import re
from dataclasses import dataclass

from sessions import Session

VAULT = 'vault.secret'  # a table of role victim that nobody else may read

# Each attempt is a subtransaction of its own. What would become somebody is undone by the end of the attempt, if it worked,
# after the vault and the role's own attributes were tried as that somebody. The path is the canary's own, as the role may have
# functions and operators that are named like PostgreSQL's; these call the canary, too.
CANARY = """
CREATE FUNCTION {name}.canary(door pg_catalog.text) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $canary$
DECLARE
  who text := concat(session_user, '|', current_user);
  gains text[] := '{{}}';
  restricted boolean := true;
  attempt text;
BEGIN
  BEGIN  -- what a security-restricted operation forbids
    EXECUTE 'PREPARE hostile AS SELECT 1';
    EXECUTE 'DEALLOCATE hostile';
    restricted := false;
  EXCEPTION WHEN insufficient_privilege THEN NULL; WHEN OTHERS THEN restricted := NULL;
  END;
  FOREACH attempt IN ARRAY ARRAY['RESET ROLE', 'SET ROLE victim', 'SET ROLE postgres', 'SET ROLE pool', 'SET ROLE NONE',
      'SET LOCAL ROLE victim', 'SET SESSION AUTHORIZATION DEFAULT', 'SET SESSION AUTHORIZATION postgres',
      'SET SESSION AUTHORIZATION victim', $$SELECT set_config('role', 'victim', false)$$, $$SELECT set_config('role', 'none', true)$$,
      $$SELECT set_config('session_authorization', 'postgres', false)$$, ''] LOOP
    BEGIN
      DECLARE
        before text := current_user;
        got text := '';
      BEGIN
        IF attempt <> '' THEN EXECUTE attempt; END IF;
        IF current_user <> before THEN got := concat(' became ', current_user); END IF;
        BEGIN
          PERFORM FROM {vault};
          got := concat(got, ' read the vault');
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
        BEGIN
          EXECUTE 'ALTER ROLE {name} SUPERUSER';
          got := concat(got, ' made itself superuser');
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
        RAISE EXCEPTION USING ERRCODE = 'HOSTI', MESSAGE = got;
      END;
    EXCEPTION WHEN SQLSTATE 'HOSTI' THEN
      IF SQLERRM <> '' THEN gains := gains || concat(attempt, ':', SQLERRM); END IF;
    WHEN OTHERS THEN NULL;
    END;
  END LOOP;
  RAISE LOG 'canary|{name}|%|%|%|%', door, who, coalesce(restricted::text, '?'), array_to_string(gains, '; ');
  RETURN true;
END $canary$;
"""

NOTE = re.compile(r'canary\|([^|\n]*)\|([^|\n]*)\|([^|\n]*)\|([^|\n]*)\|([^|\n]*)\|([^\n]*)')


@dataclass(frozen=True)
class Note:
    """What one canary told: `gains` is what it got that its role has not, '' if nothing."""
    owner: str
    door: str
    session: str
    user: str
    restricted: str  # true, false; ? where it could not be told
    gains: str

    def __str__(self):
        return f'{self.door} as {self.session}/{self.user}' + (f': {self.gains}' if self.gains else '')


class Canaries:
    """What canaries have told since the last look."""

    def __init__(self, server):
        self.path, self.seen, self.all = server.log, 0, []
        self.new()

    def new(self):
        with open(self.path, 'rb') as log:
            log.seek(self.seen)
            text = log.read()
        whole = text.rfind(b'\n') + 1
        self.seen += whole
        notes = [Note(*found) for found in NOTE.findall(text[:whole].decode('utf-8', 'replace'))]
        self.all += notes
        return notes


class Attacker(Session):
    """A session of an ordinary role with a schema of its own, which others may use as far as it lets them. One that may not
    log in sits in the session of `by`."""

    def __init__(self, server, admin, name, by=None):
        self.name, self.server, self.admin, self.by = name, server, admin, by
        admin.rows(f'CREATE ROLE {name} ' + ('NOLOGIN' if by else 'LOGIN'))
        admin.rows(f'CREATE SCHEMA {name} AUTHORIZATION {name}')
        if by:
            admin.rows(f'GRANT {name} TO {by}')
        self.sit_down()
        self.rows(f'GRANT USAGE ON SCHEMA {name} TO PUBLIC')
        self.rows(CANARY.format(name=name, vault=VAULT))
        self.rows(f"""CREATE FUNCTION {name}.note() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM {name}.canary(TG_ARGV[0]); IF TG_OP = 'DELETE' THEN RETURN OLD; END IF; RETURN NEW; END $$""")
        # Indexes and the like take immutable functions only; what these call nobody asks. With an argument that changes they
        # are evaluated for each row, else once, when the expression is looked at.
        for arguments in ('door text', 'door text, id int'):
            self.rows(f'CREATE FUNCTION {name}.innocent({arguments}) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS '
                      '$$ BEGIN RETURN true; END $$')

    def sit_down(self):
        super().__init__(self.server, self.by or self.name)
        if self.by:
            self.rows(f'SET ROLE {self.name}')

    def arm(self):
        """What looked innocent when it was built in, bites from now on."""
        for arguments in ('door text', 'door text, id int'):
            self.rows(f'CREATE OR REPLACE FUNCTION {self.name}.innocent({arguments}) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS '
                      f'$$ BEGIN RETURN {self.name}.canary(door); END $$')

    def is_superuser(self):
        return self.admin.value('SELECT rolsuper FROM pg_roles WHERE rolname = %s', self.name)
