-- Pipelines: create, replace, drop, grant. What a definition may say, and who may see and change it.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_portage;
RESET client_min_messages;
CREATE SCHEMA app;
CREATE TABLE app.progress (
  user_id text,
  word_id integer,
  review_count integer NOT NULL,
  correct_count integer,
  last_reviewed_at timestamptz,
  ease_factor double precision,
  PRIMARY KEY (user_id, word_id)
);

-- A definition with nearly everything in it.
SELECT portage.create_pipeline('vocabulary', 'app.progress', $$
{ "format":    "json",
  "items":     "progress",
  "legacy_id": ["word_id"],
  "columns": {
    "user_id":       "$scope",
    "word_id":       "word_id",
    "review_count":  {"from": "review_count", "default": 0},
    "correct_count": {"from": ["a key with . and [", "b"]},
    "last_reviewed_at": {"value": "2024-01-01T00:00:00Z"},
    "ease_factor":   {"sql": "coalesce((item->>'ease_factor')::float8, 2.5)"}
  },
  "rules": {
    "reviews_not_negative":   "review_count >= 0",
    "correct_within_reviews": {"sql": "correct_count <= review_count", "message": "more correct than reviewed"},
    "ease_unusual":           {"sql": "ease_factor between 1.3 and 5", "severity": "warning", "nulls": "fail"}
  },
  "where":        "item ? 'word_id'",
  "match":        ["user_id", "word_id"],
  "on_conflict":  "overwrite",
  "duplicates":   "reject",
  "data_version": {"from": "meta.version", "accept": [1, "2"]},
  "timezone":     "Europe/Berlin",
  "sensitive":    ["note", "srs.interval"],
  "scoped":       true
}$$) > 0 AS created;

-- The definition is kept as written; search_path and time zone are pinned.
SET search_path = app, public;
SET timezone = 'UTC';
SELECT portage.create_pipeline('words', 'progress', '{"format": "csv", "legacy_id": "id", "csv": {"header": false, "columns": ["id", "n"], "delimiter": ";", "quote": null, "null": "-", "encoding": "LATIN1"}, "columns": {"user_id": {"value": "x"}, "word_id": "id", "review_count": "n"}}') > 0 AS created;
RESET search_path;
SELECT p.name, p.current_version, v.target_schema, v.target_name, v.search_path, v.timezone,
       v.definition->>'format' AS format
FROM portage.pipelines p JOIN portage.pipeline_versions v ON v.pipeline_id = p.id AND v.version = p.current_version
ORDER BY p.name;

-- Replacing adds a version; old ones stay, since runs refer to them.
SELECT portage.replace_pipeline('words', '{"format": "ndjson", "legacy_id": {"sql": "item->>''id''"}, "columns": {"user_id": "$name", "word_id": "$ordinal", "review_count": "$line"}}') > 0 AS replaced;
SELECT version, definition->>'format' AS format, search_path FROM portage.pipeline_versions v
WHERE pipeline_id = (SELECT id FROM portage.pipelines WHERE name = 'words') ORDER BY version;

-- Names are taken once, and empty ones are none.
SELECT portage.create_pipeline('words', 'app.progress', '{"format": "json", "legacy_id": "id", "columns": {"user_id": "a", "word_id": "b", "review_count": "c"}}');
SELECT portage.create_pipeline('', 'app.progress', '{}');
SELECT portage.replace_pipeline('word', '{}');

-- Names that need quoting work everywhere.
CREATE SCHEMA "My Schema";
CREATE TABLE "My Schema"."A ""Table""" ("The Key" integer PRIMARY KEY, "select" text, "ümläut" text, "a.b" text);
SELECT portage.create_pipeline('it''s "quoted"', '"My Schema"."A ""Table"""',
  '{"format": "json", "legacy_id": "\"the id\"", "columns": {"The Key": "\"the id\"", "select": "a.\"b.c\"[0]", "ümläut": "\"$scope\"", "a.b": {"sql": "scope || ''\"''"}}, "rules": {"no \"select\"": "\"select\" <> ''x'' and \"A \"\"Table\"\"\".\"a.b\" is not null"}}') > 0 AS created;

-- Who may do what: the owner and its members; others see nothing until it is granted.
CREATE ROLE regress_owner;
CREATE ROLE regress_member IN ROLE regress_owner;
CREATE ROLE regress_other;
GRANT USAGE ON SCHEMA app TO regress_owner, regress_other;
SET ROLE regress_owner;
SELECT portage.create_pipeline('mine', 'app.progress', '{"format": "json", "legacy_id": "id", "columns": {"user_id": "a", "word_id": "b", "review_count": "c"}}') > 0 AS created;
SELECT name, owner_name FROM portage.pipelines;
SET ROLE regress_member;
SELECT portage.replace_pipeline('mine', '{"format": "json", "legacy_id": "id", "columns": {"user_id": "a", "word_id": "b", "review_count": "d"}}') > 0 AS replaced;
SELECT version, author_name FROM portage.pipeline_versions ORDER BY version;

SET ROLE regress_other;
SELECT count(*) FROM portage.pipelines;
SELECT count(*) FROM portage.pipeline_versions;
SELECT portage.drop_pipeline('mine');
SELECT portage.grant_pipeline('mine', 'regress_other', 'run');
DELETE FROM portage.pipelines;
INSERT INTO portage.pipeline_grants SELECT 1, 0, 0, 'public', 'run';

SET ROLE regress_owner;
SELECT portage.grant_pipeline('mine', 'regress_other', 'write');
SELECT portage.grant_pipeline('mine', 'regress_nobody', 'read');
SELECT portage.grant_pipeline('mine', 'regress_other', 'read') > 0 AS granted;
SET ROLE regress_other;
SELECT name FROM portage.pipelines;
SELECT role_name, privilege FROM portage.pipeline_grants;
SELECT portage.replace_pipeline('mine', '{}');
SELECT portage.replace_pipeline('regress_owner/mine', '{}');
SELECT portage.revoke_pipeline('regress_owner/mine', 'regress_other', 'read');
SET ROLE regress_owner;
SELECT portage.revoke_pipeline('mine', 'regress_other', 'read') > 0 AS revoked;
SELECT portage.grant_pipeline('mine', 'public', 'run');
RESET ROLE;
SELECT portage.grant_pipeline('regress_owner/mine', 'public', 'run') > 0 AS granted;
SET ROLE regress_other;
SELECT name FROM portage.pipelines;

-- Dropping.
SET ROLE regress_member;
SELECT portage.drop_pipeline('mine') > 0 AS dropped;
RESET ROLE;
SELECT count(*) FROM portage.pipeline_grants;
SELECT portage.drop_pipeline(name) > 0 AS dropped FROM portage.pipelines ORDER BY name;
SELECT count(*) FROM portage.pipeline_versions;
SELECT portage.drop_pipeline('vocabulary');

SET client_min_messages = warning;
DROP SCHEMA app, "My Schema" CASCADE;
DROP ROLE regress_member, regress_owner, regress_other;
