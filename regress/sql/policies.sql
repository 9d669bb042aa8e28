-- Every conflict policy against every situation: what becomes of the item, and whose values the row has afterwards.
-- docs/conflicts.md has the same table; a test compares the two.
\getenv abs_srcdir PG_ABS_SRCDIR
\set prelude :abs_srcdir '/data/prelude.sql'
\set first_run 16000
\set ECHO none
\i :prelude
\set ECHO all
CREATE SCHEMA policies;
SET search_path = policies;
CREATE TABLE contact (email text PRIMARY KEY, phone text, visits int, note text DEFAULT 'theirs', updated_at timestamptz);
CREATE FUNCTION def(policy text) RETURNS json LANGUAGE sql AS $$
  SELECT json_build_object('format', 'json', 'legacy_id', 'id', 'match', '["email"]'::json, 'on_conflict', policy,
    'newest_by', 'updated_at', 'merge', CASE WHEN policy = 'merge' THEN '{"visits": "greatest", "updated_at": "greatest"}'::json
                                             ELSE '{"updated_at": "greatest"}'::json END,
    'columns', '{"email": "email", "phone": "phone", "visits": "visits", "updated_at": "at"}'::json)
$$;
CREATE FUNCTION item(phone text, visits int, at date) RETURNS jsonb LANGUAGE sql AS $$
  SELECT jsonb_build_array(jsonb_build_object('id', 1, 'email', 'a@b.c', 'phone', phone, 'visits', visits, 'at', at)) $$;

-- The item says phone 2 and 20 visits, of the third of May; where it was migrated before, it said phone 1 and 10
-- visits of the first of May then. Somebody may have touched the row on the second.
CREATE FUNCTION outcome(policy text, situation text, at date DEFAULT '2024-05-03') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  run bigint; status text; row contact; code text;
BEGIN
  TRUNCATE contact;
  PERFORM portage.create_pipeline('policy', 'contact', policies.def(policy));
  IF situation ~ 'ours|deleted' THEN
    SELECT m.run_id INTO run FROM portage.migrate('policy', policies.item('1', 10, '2024-05-01')) m;
  END IF;
  CASE situation
    WHEN 'no row' THEN NULL;
    WHEN 'identical' THEN INSERT INTO contact VALUES ('a@b.c', '2', 20, 'theirs', at::timestamptz);
    WHEN 'ours, untouched' THEN NULL;
    WHEN 'ours, other column changed' THEN UPDATE contact SET note = 'touched';
    WHEN 'ours, same column changed' THEN UPDATE contact SET visits = 30, updated_at = '2024-05-02';
    WHEN 'foreign row' THEN INSERT INTO contact VALUES ('a@b.c', '3', 30, 'theirs', '2024-05-02');
    WHEN 'deleted since' THEN DELETE FROM contact;
  END CASE;
  SELECT m.run_id, m.status, m.errors -> 0 ->> 'code' INTO run, status, code FROM portage.migrate('policy', policies.item('2', 20, at)) m;
  IF status = 'failed' THEN
    status := 'run fails, ' || code;
  ELSE
    SELECT i.status INTO status FROM portage.migration_items i WHERE i.run_id = run;
  END IF;
  SELECT * INTO row FROM contact;
  PERFORM portage.drop_pipeline('policy', true);
  RETURN concat_ws('; ', status, CASE
    WHEN status ~ 'unchanged' THEN 'adopted'
    WHEN situation IN ('no row', 'deleted since') THEN NULL
    WHEN status ~ 'updated' THEN 'phone ' || row.phone || ', visits ' || row.visits END);
END $$;

-- "ours, other column changed": the note, which the pipeline does not map. "same column": the visits, which both changed.
\pset format unaligned
\pset tuples_only on
SELECT format('| %s | %s | %s | %s | %s | %s | %s | %s |', p.name, outcome(p.policy, 'no row', p.at), outcome(p.policy, 'identical', p.at),
              outcome(p.policy, 'ours, untouched', p.at), outcome(p.policy, 'ours, other column changed', p.at),
              outcome(p.policy, 'ours, same column changed', p.at), outcome(p.policy, 'foreign row', p.at),
              outcome(p.policy, 'deleted since', p.at))
  FROM (VALUES (1, 'skip', 'skip', date '2024-05-03'), (2, 'overwrite', 'overwrite', '2024-05-03'),
               (3, 'newest, the item is newer', 'newest', '2024-05-03'), (4, 'newest, the row is newer', 'newest', '2024-04-30'),
               (5, 'merge, visits by greatest', 'merge', '2024-05-03'), (6, 'ask', 'ask', '2024-05-03'),
               (7, 'fail', 'fail', '2024-05-03')) AS p (n, name, policy, at)
 ORDER BY n;

-- Nulls, strategy by strategy, in a foreign row. "a" is what the item says, "b" what stands in the row; a dash is a null,
-- and an item may have no such field at all.
CREATE TABLE value (id int PRIMARY KEY, v text, at int);
CREATE FUNCTION with_nulls(strategy text, newer boolean, incoming text, existing text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  answer text;
BEGIN
  TRUNCATE value;
  INSERT INTO value VALUES (1, existing, 2);
  PERFORM portage.create_pipeline('nulls', 'value', json_build_object('format', 'json', 'legacy_id', 'id', 'on_conflict', 'merge',
    'newest_by', 'at', 'columns', '{"id": "id", "v": "v", "at": "at"}'::json, 'merge', jsonb_build_object('at', 'greatest') ||
    CASE WHEN strategy = 'none given' THEN '{}' ELSE jsonb_build_object('v', strategy) END)::json);
  PERFORM portage.migrate('nulls', (jsonb_build_object('id', 1, 'at', CASE WHEN newer THEN 3 ELSE 1 END) ||
    CASE WHEN incoming = 'no field' THEN '{}' ELSE jsonb_build_object('v', incoming) END)::text);
  SELECT coalesce(v, '-') INTO answer FROM value;
  PERFORM portage.drop_pipeline('nulls', true);
  RETURN answer;
END $$;
SELECT format('| %s | %s | %s | %s | %s | %s | %s |', s.name, with_nulls(s.strategy, s.newer, 'a', 'b'), with_nulls(s.strategy, s.newer, 'a', NULL),
              with_nulls(s.strategy, s.newer, NULL, 'b'), with_nulls(s.strategy, s.newer, 'no field', 'b'),
              with_nulls(s.strategy, s.newer, NULL, NULL), with_nulls(s.strategy, s.newer, 'no field', NULL))
  FROM (VALUES (1, 'none given', 'none given', true), (2, '`"incoming"`', 'incoming', true), (3, '`"existing"`', 'existing', true),
               (4, '`"greatest"`', 'greatest', true), (5, '`"least"`', 'least', true), (6, '`"concat"`', 'concat', true),
               (7, '`"newest"`, the item is newer', 'newest', true), (8, '`"newest"`, the row is newer', 'newest', false)) AS s (n, name, strategy, newer)
 ORDER BY n;
\pset format aligned
\pset tuples_only off
DROP SCHEMA policies CASCADE;
